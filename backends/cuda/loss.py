"""Losses and the L2 penalty; names and signatures of `fcnet.functional.loss` and `fcnet.functional.penalty`."""

from __future__ import annotations

import numpy as np

from fcnet.backends.cuda.launch import PARTS, THREADS, Launcher
from fcnet.backends.device import Array, Kernel

ALONE = 4096  # threads' worth of rows that one block takes: a second launch costs as much as its four rounds


class LossKernels:
    """The kernels of loss.cu."""

    def __init__(self, launcher: Launcher) -> None:
        self._on = launcher

    def table(self) -> dict[str, Kernel]:
        """Name of a reference function -> its kernel."""
        return {
            "softmax_loss": Kernel(self.softmax_loss, self._fits_loss),
            "svm_loss": Kernel(self.svm_loss, self._fits_loss),
            "l2_penalty": Kernel(self.l2_penalty, self._fits_penalty),
        }

    def softmax_loss(self, scores, y, *, loss=None, dscores=None):
        return self._loss("softmax_loss", scores, y, loss, dscores)

    def svm_loss(self, scores, y, *, loss=None, dscores=None):
        return self._loss("svm_loss", scores, y, loss, dscores)

    def _loss(self, name: str, scores: Array, y: Array, loss: Array | None, dscores: Array | None) -> tuple:
        loss, dscores = self._on.like(loss, scores, ()), self._on.like(dscores, scores)
        if not self._on.integers(y):
            y = y.astype(np.int64)
        (rows, classes), real = scores.shape, scores.dtype.char
        lanes = min(32, _power(classes))
        alone = rows * lanes <= ALONE
        blocks, threads = (1, min(1024, max(32, _power(rows * lanes)))) if alone else (PARTS, THREADS)
        blocks = min(blocks, -(-rows * lanes // threads))
        parts = None if alone else self._on.cupy.empty(blocks, np.float64)
        shape = np.int32(rows), np.int32(classes), np.int32(lanes)
        self._on.launch(name, real, (blocks,), (threads,), loss, parts, dscores, scores, y, *shape)
        if not alone:
            self._on.launch("mean_of_parts", real, (1,), (THREADS,), loss, parts, np.int32(blocks), np.int32(rows))
        return loss, dscores

    def l2_penalty(self, weights, reg, loss, dweights, work):
        real, parts = weights.dtype.type, self._on.cupy.empty(PARTS, np.float64)
        size = np.int64(weights.size)
        self._on.launch("l2_parts", weights.dtype.char, (PARTS,), (THREADS,), parts, dweights, weights, size, real(reg))
        self._on.launch("l2_total", weights.dtype.char, (1,), (THREADS,), loss, parts, np.int32(PARTS), real(reg))
        return loss

    def _fits_loss(self, scores, y, *, loss=None, dscores=None):
        given = [array for array in (loss, dscores) if array is not None]
        return scores.ndim == 2 and self._on.floats(scores, *given) and self._on.labels(y)

    def _fits_penalty(self, weights, reg, loss, dweights, work):
        return weights.ndim == 1 and dweights.shape == weights.shape and self._on.floats(weights, loss, dweights)


def _power(count: int) -> int:
    """The smallest power of two that is as large."""
    return 1 << (count - 1).bit_length()
