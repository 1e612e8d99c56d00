"""The CUDA kernels of loss.cu: losses, the L2 penalty and accuracy, as `fcnet.functional` defines them."""

from __future__ import annotations

from typing import Any

import numpy as np

from fcnet.backends.cuda.launch import PARTS, THREADS, Launcher
from fcnet.backends.device import Kernel

ALONE = 4096  # threads' work that one block does alone, which takes no longer than a second launch
LARGEST = 1024  # threads of a block
COUNTED = 1 << 20  # scores of which one block counts the rows that are right


class LossKernels:
    """Launch the kernels of loss.cu."""

    def __init__(self, launcher: Launcher) -> None:
        self._on = launcher

    def table(self) -> dict[str, Kernel]:
        """Return the kernels by the name of the reference function."""
        return {
            "softmax_loss": Kernel(self.softmax_loss, self._fits_rows),
            "svm_loss": Kernel(self.svm_loss, self._fits_labels),
            "mse_loss": Kernel(self.mse_loss, self._fits_rows),
            "bce_loss": Kernel(self.bce_loss, self._fits_rows),
            "poisson_loss": Kernel(self.poisson_loss, self._fits_rows),
            "weighted_loss": Kernel(self.weighted_loss, self._fits_weighted),
            "smooth_labels": Kernel(self.smooth_labels, self._fits_smooth),
            "l2_penalty": Kernel(self.l2_penalty, self._fits_penalty),
            "right_classes": Kernel(self.right_classes, self._fits_classes),
        }

    def softmax_loss(self, scores, y, *, loss=None, dscores=None):
        return self._loss("softmax", scores, y, None, loss, dscores)

    def svm_loss(self, scores, y, *, loss=None, dscores=None):
        return self._loss("svm", scores, y, None, loss, dscores)

    def mse_loss(self, scores, y, *, loss=None, dscores=None):
        return self._loss("mse", scores, y, None, loss, dscores)

    def bce_loss(self, scores, y, *, loss=None, dscores=None):
        return self._loss("bce", scores, y, None, loss, dscores)

    def poisson_loss(self, scores, y, *, loss=None, dscores=None):
        return self._loss("poisson", scores, y, None, loss, dscores)

    def weighted_loss(self, scores, y, weights, name="softmax", *, loss=None, dscores=None):
        return self._loss(name, scores, y, weights, loss, dscores)

    def _loss(self, name, scores, y, weights, loss, dscores):
        loss, dscores = self._on.like(loss, scores, ()), self._on.like(dscores, scores)
        if y.ndim == 1 and not self._on.integers(y):
            y = y.astype(np.int64)
        (rows, classes), real = scores.shape, scores.dtype.char
        lanes = min(32, _power(classes))
        alone = rows * lanes <= ALONE
        # A round of one block over its rows costs the way to memory and back: of few classes each thread takes several.
        while alone and lanes > 1 and rows * lanes > LARGEST and classes <= 4 * lanes:
            lanes //= 2
        blocks, threads = (1, min(LARGEST, max(32, _power(rows * lanes)))) if alone else (PARTS, THREADS)
        blocks = min(blocks, -(-rows * lanes // threads))
        parts = None if alone else self._on.cupy.empty(blocks, np.float64)
        shape = np.int32(rows), np.int32(classes), np.int32(lanes)
        targets: tuple[Any, ...]
        if y.ndim == 1 and weights is None:
            kernel, targets = f"{name}_loss", (y,)
        else:
            kernel, targets = f"{name}_of_targets", ((None, y) if y.ndim == 1 else (y, None)) + (weights,)
        self._on.launch(kernel, real, (blocks,), (threads,), loss, parts, dscores, scores, *targets, *shape)
        if not alone:
            self._on.launch("mean_of_parts", real, (1,), (THREADS,), loss, parts, np.int32(blocks), np.int32(rows))
        return loss, dscores

    def smooth_labels(self, y, num_classes, smoothing, dtype, *, targets=None):
        targets = self._on.cupy.empty((y.size, num_classes), dtype) if targets is None else targets
        if not self._on.integers(y):
            y = y.astype(np.int64)
        real, size = targets.dtype.type, np.int64(targets.size)
        shares = real(1 - smoothing), real(smoothing / num_classes)
        self._on.each("smooth_labels", targets, targets.size, targets, y, size, np.int32(num_classes), *shares)
        return targets

    def l2_penalty(self, weights, reg, loss, dweights, work):
        real, dtype = weights.dtype.type, weights.dtype.char
        parts, size = self._on.parts(weights.size), np.int64(weights.size)
        self._on.launch("l2_parts", dtype, parts.shape, (THREADS,), parts, dweights, weights, size, real(reg))
        self._on.launch("l2_total", dtype, (1,), (THREADS,), loss, parts, np.int32(parts.size), real(reg))
        return loss

    def right_classes(self, scores, y, *, count=None):
        count = self._on.cupy.empty((), np.int64) if count is None else count
        arrays = count, scores, y
        self._on.launch("right_classes", scores.dtype.char, (1,), (LARGEST,), *arrays, *map(np.int32, scores.shape))
        return count

    def _fits_classes(self, scores, y, *, count=None):
        """Return whether these are labels, and scores so few that one block serves; the formula is three kernels."""
        few = scores.ndim == 2 and scores.size <= COUNTED
        return few and self._on.floats(scores) and self._on.integers(y) and len(y) == len(scores)

    def _fits_labels(self, scores, y, *, loss=None, dscores=None):
        return self._suits(scores, loss, dscores) and self._on.labels(y)

    def _fits_rows(self, scores, y, *, loss=None, dscores=None):
        """Return whether y are labels, or rows of targets like scores."""
        rows = self._on.labels(y) or (y.ndim == 2 and self._on.floats(scores, y))
        return self._suits(scores, loss, dscores) and rows

    def _fits_weighted(self, scores, y, weights, name="softmax", *, loss=None, dscores=None):
        fits = self._fits_labels if name == "svm" else self._fits_rows
        return (
            f"{name}_loss" in self.table()
            and fits(scores, y, loss=loss, dscores=dscores)
            and self._on.floats(scores, weights)
        )

    def _suits(self, scores, *outputs):
        given = [array for array in outputs if array is not None]
        return scores.ndim == 2 and self._on.floats(scores, *given)

    def _fits_smooth(self, y, num_classes, smoothing, dtype, *, targets=None):
        if targets is not None and not (self._on.floats(targets) and targets.dtype == dtype):
            return False
        return np.dtype(dtype).char in "fd" and self._on.labels(y)

    def _fits_penalty(self, weights, reg, loss, dweights, work):
        return weights.ndim == 1 and dweights.shape == weights.shape and self._on.floats(weights, loss, dweights)


def _power(count: int) -> int:
    """Return the smallest power of two that is not below `count`."""
    return 1 << (count - 1).bit_length()
