"""scikit-learn: `MLPClassifier.partial_fit`, with the checks of its inputs turned off as far as public settings allow.

The checks that remain cost more than a small net's step, so what is timed is its own loop over batches: up to an
epoch's rows are gathered and handed over in one call. The proof needs each step's loss and hands over one batch a call.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
import sklearn
from sklearn.neural_network import MLPClassifier, MLPRegressor

from benchmarks.peers.base import NotSupported, Peer, each_batch
from benchmarks.workloads import BETA1, BETA2, EPSILON, LEARNING_RATE, Data, Workload


class Sklearn(Peer):
    """Train scikit-learn's MLP: no batch norm, no dropout."""

    raw_epsilon = True

    def make(self, workload: Workload, data: Data, weights: Mapping[str, np.ndarray], device: str) -> None:
        if workload.norm or workload.keep < 1:
            raise NotSupported("MLPClassifier has no batch norm and no dropout")
        sklearn.set_config(assume_finite=True, skip_parameter_validation=True)
        warnings.simplefilter("ignore")
        self.data, self.rows = data, each_batch(workload)
        self.per_epoch = workload.count // workload.batch
        self.numeric = workload.numeric
        self.net = (MLPRegressor if workload.numeric else MLPClassifier)(
            hidden_layer_sizes=workload.hidden,
            activation=workload.activation,
            solver="adam",
            alpha=0.0,
            batch_size=workload.batch,
            learning_rate_init=LEARNING_RATE,
            beta_1=BETA1,
            beta_2=BETA2,
            epsilon=EPSILON,
            shuffle=False,
            random_state=0,
        )
        part = slice(workload.batch)  # a first call makes the arrays; then they are set, and Adam begins anew
        classes = {} if workload.numeric else {"classes": np.arange(workload.outputs)}
        self.net.partial_fit(data.X[part], data.y[part], **classes)
        for i in range(workload.layers):
            self.net.coefs_[i][...] = weights[f"W{i + 1}"]
            self.net.intercepts_[i][...] = weights[f"b{i + 1}"]
        del self.net._optimizer

    def step(self) -> None:
        rows = next(self.rows)
        self.net.partial_fit(self.data.X[rows], self.data.y[rows])

    def many(self, count: int) -> None:
        while count:
            rows = np.concatenate([next(self.rows) for _ in range(min(count, self.per_epoch))])
            self.net.partial_fit(self.data.X[rows], self.data.y[rows])
            count -= min(count, self.per_epoch)

    def losses(self, count: int) -> list[float]:
        found = []
        for _ in range(count):
            self.step()
            found.append(float(self.net.loss_) * (1 + self.numeric))  # its squared error is halved
        return found
