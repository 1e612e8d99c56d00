"""Softmax cross-entropy with its gradient, one pass over the scores; see `fcnet.functional.loss`."""

from __future__ import annotations

from typing import Any

import numpy as np

from fcnet.backends.cpu import pool
from fcnet.backends.cpu.compiled_step import integer, integers, matrix, thunk_of
from fcnet.backends.cpu.jit import Jit, compiled, is_contiguous_float, only_in_python
from fcnet.backends.device import Kernel


@compiled
def _mean_loss(scores, y, dscores):
    rows, classes = scores.shape
    per_row = scores.dtype.type(1.0 / rows)
    mean = 0.0  # float64, whatever the scores are
    for n in range(rows):
        peak = scores[n, 0]
        for c in range(1, classes):
            peak = max(peak, scores[n, c])
        total = scores.dtype.type(0)
        for c in range(classes):
            power = np.exp(scores[n, c] - peak)
            dscores[n, c] = power
            total += power
        scale = per_row / total
        for c in range(classes):
            dscores[n, c] *= scale
        mean += np.log(total)
        label = y[n]
        if 0 <= label < classes:  # others are a row of zeros to the reference, and no place to write to here
            mean -= scores[n, label] - peak
            dscores[n, label] -= per_row
    return mean / rows


@Jit
def _softmax_loss(scores, y, loss, dscores):
    loss[()] = _mean_loss(scores, y, dscores)


@thunk_of(_softmax_loss, "2i*2")
def _thunk_softmax_loss(record, shared, scratch, num_threads):
    loss = pool.floats(integer(record, 5), 1)
    loss[0] = _mean_loss(matrix(record, 0), integers(record, 3), matrix(record, 6))


def softmax_loss(scores, y, *, loss=None, dscores=None):
    loss = np.empty((), dtype=scores.dtype) if loss is None else loss
    dscores = np.empty_like(scores) if dscores is None else dscores
    if y.dtype != np.int64:
        only_in_python()  # a thunk would go on reading this copy
        y = y.astype(np.int64)
    _softmax_loss(scores, y, loss, dscores)
    return loss, dscores


def _fits(scores: Any, y: Any, *, loss: Any = None, dscores: Any = None) -> bool:
    given = [array for array in (loss, dscores) if array is not None]
    return (
        scores.ndim == 2
        and type(y) is np.ndarray
        and y.ndim == 1
        and y.dtype.kind in "iu"
        and is_contiguous_float(scores, *given)
    )


KERNELS = {"softmax_loss": Kernel(softmax_loss, _fits)}
