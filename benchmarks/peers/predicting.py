"""What a worker does for `benchmarks.inference`: one framework's predictions of many rows."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks.peers.base import threads
from benchmarks.peers.training import give_back, peak, reset_peak, resident, versions
from benchmarks.workloads import SEED, Workload, initial

CHUNK = 4096  # rows at a time, where the rows are divided; fcnet's own default


def rows(workload: Workload) -> np.ndarray:
    """Return what is predicted: seeded noise."""
    return np.random.default_rng(SEED).standard_normal((workload.count, workload.inputs), dtype=np.float32)


def chunked(predict: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """Return the same function, some rows at a time."""
    return lambda X: np.concatenate([predict(X[at : at + CHUNK]) for at in range(0, len(X), CHUNK)])


def with_fcnet(workload: Workload, weights: Mapping[str, np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    import fcnet

    model = fcnet.FullyConnectedNet(workload.hidden, workload.inputs, workload.outputs, device="cpu")
    for name, value in weights.items():
        model.params[name] = value
    return model.predict


def with_sklearn(workload: Workload, weights: Mapping[str, np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    import sklearn
    from sklearn.neural_network import MLPClassifier

    sklearn.set_config(assume_finite=True, skip_parameter_validation=True)
    net = MLPClassifier(workload.hidden, random_state=0)
    labels = np.arange(workload.outputs)  # one row of each class makes the arrays; then they are set
    net.partial_fit(np.eye(workload.outputs, workload.inputs, dtype=np.float32), labels, classes=labels)
    for i in range(workload.layers):
        net.coefs_[i][...] = weights[f"W{i + 1}"]
        net.intercepts_[i][...] = weights[f"b{i + 1}"]
    return net.predict


def with_torch(workload: Workload, weights: Mapping[str, np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    import torch

    from benchmarks.peers.with_torch import build

    torch.set_num_threads(threads())
    net = build(workload).eval()
    with torch.no_grad():
        for i, layer in enumerate((layer for layer in net if isinstance(layer, torch.nn.Linear)), 1):
            layer.weight.copy_(torch.from_numpy(weights[f"W{i}"].T))
            layer.bias.copy_(torch.from_numpy(weights[f"b{i}"]))

    def predict(X: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return net(torch.from_numpy(X)).argmax(1).numpy()

    return predict


#: name -> framework, whether the rows are divided by this benchmark, its package, environment
VARIANTS: dict[str, tuple[Callable[..., Callable], bool, str, dict[str, str]]] = {
    "fcnet": (with_fcnet, False, "numpy", {}),
    "fcnet-numpy": (with_fcnet, False, "numpy", {"FCNET_NUMBA": "0"}),
    "sklearn": (with_sklearn, False, "scikit-learn", {}),
    "sklearn-chunked": (with_sklearn, True, "scikit-learn", {}),
    "torch": (with_torch, False, "torch", {}),
    "torch-chunked": (with_torch, True, "torch", {}),
}


class Prediction:
    """Describe one way to predict."""

    def make(self, way: str, workload: Mapping[str, Any]) -> dict[str, Any]:
        """Build the net and the rows."""
        self.workload = Workload.from_dict(workload)
        build, divided, package, _ = VARIANTS[way]
        predict = build(self.workload, initial(self.workload))
        self.predict = chunked(predict) if divided else predict
        self.X = rows(self.workload)
        return {"versions": versions([package])}

    def prove(self, path: str) -> None:
        """Write the predictions where the parent reads them."""
        np.save(path, np.asarray(self.predict(self.X)).astype(np.int64))

    def measure_memory(self) -> dict[str, Any]:
        """Return the peak memory of predicting all rows, above that after a first small prediction."""
        self.predict(self.X[:CHUNK])
        give_back()
        before, exact = resident(), reset_peak()
        self.predict(self.X)
        return {"growth": peak() - before, "exact": exact}

    def run(self, steps: int, warm: int) -> float:
        """Return the seconds of so many predictions of all rows."""
        self.predict(self.X[: CHUNK * warm])
        start = time.perf_counter()
        for _ in range(steps):
            self.predict(self.X)
        return time.perf_counter() - start


def temporary(name: str, folder: str) -> str:
    """Return the file for the predictions of one contender."""
    return os.path.join(folder, f"{name}.npy")
