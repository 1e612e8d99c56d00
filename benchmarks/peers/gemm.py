"""The floor: only a step's matrix products, in NumPy with `out=`. Not a training step; it computes no loss."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from benchmarks.peers.base import Peer
from benchmarks.workloads import Data, Workload


class Gemm(Peer):
    """Compute x W forward, xᵀ dout and dout Wᵀ backward (the last not for the first layer), on arrays of their own."""

    def make(self, workload: Workload, data: Data, weights: Mapping[str, np.ndarray], device: str) -> None:
        rng = np.random.default_rng(0)
        sizes = [(workload.batch, width) for width in workload.widths]
        forward = [rng.standard_normal(size, dtype=np.float32) for size in sizes]
        backward = [rng.standard_normal(size, dtype=np.float32) for size in sizes]
        matrices = [weights[f"W{layer}"] for layer in range(1, workload.layers + 1)]
        self.products = [(forward[i], w, np.empty_like(forward[i + 1])) for i, w in enumerate(matrices)]
        for i, w in reversed(list(enumerate(matrices))):
            self.products.append((forward[i].T, backward[i + 1], np.empty_like(w)))
            if i:
                self.products.append((backward[i + 1], w.T, np.empty_like(forward[i])))

    def step(self) -> None:
        for a, b, out in self.products:
            np.matmul(a, b, out=out)

    def losses(self, count: int) -> list[float]:
        return []
