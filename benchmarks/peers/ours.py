"""fcnet itself: `Solver.step()`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

import fcnet
import fcnet.training.solver  # apart from the first step, as the others' imports are
from benchmarks.peers.base import Peer
from benchmarks.workloads import BETA1, BETA2, EPSILON, LEARNING_RATE, SEED, Data, Workload


class Ours(Peer):
    """Train as a user does; nothing private. Every step also records its loss, as `Solver` always does."""

    prepares = True

    def make(self, workload: Workload, data: Data, weights: Mapping[str, np.ndarray], device: str) -> None:
        self.model = fcnet.FullyConnectedNet(
            workload.hidden,
            workload.inputs,
            workload.outputs,
            activation=workload.activation,
            loss="mse" if workload.numeric else "softmax",
            normalization="batchnorm" if workload.norm else None,
            dropout_keep_ratio=workload.keep,
            dtype="float32",
            precision=workload.precision,
            reg=0,  # no penalty by default, since the others have none
            seed=SEED,
            device=device,
        )
        for name, value in weights.items():
            self.model.params[name] = value
        part = slice(workload.batch)  # validation: never looked at by `step`
        dataset = fcnet.data.Dataset(
            *(data.X, data.y, data.X[part], data.y[part]), targets="numbers" if workload.numeric else "classes"
        )
        explicit: dict[str, Any] = {
            "update_rule": "adam",
            "optim_config": {"learning_rate": LEARNING_RATE, "beta1": BETA1, "beta2": BETA2, "epsilon": EPSILON},
            "schedule": "constant",
            "preprocess": "none",
            "num_train_samples": 1,
        }
        self.solver = fcnet.Solver(
            self.model,
            dataset,
            **({} if workload.defaults else explicit),
            batch_size=workload.batch,
            seed=SEED,
            verbose=False,
        )

    def step(self) -> None:
        self.solver.step()

    def many(self, count: int) -> None:
        """Make so many steps, handed to the device at once."""
        if count:
            self.solver.step(count)

    def synchronize(self) -> None:
        self.model.backend.synchronize()
        self.about["numba"] = "numba" in sys.modules

    def losses(self, count: int) -> list[float]:
        self.many(count)
        if self.model.device != "cpu":
            self.about["device_memory"] = self.model.backend.memory().used
            self.about["steps"] = self.solver.how_steps_are_made
        return list(self.solver.loss_history[-count:])
