"""The Numba kernels of losses with their gradients: one pass over the scores, as `fcnet.functional.loss` defines them.

Shapes: scores s, dscores and rows of targets t are (N, C), labels y are (N,), weights w are (N,), or (0,) for 1 each.
The loss is summed in float64, whatever the dtype of the scores.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from fcnet.backends.cpu import pool
from fcnet.backends.cpu.compiled_step import integer, integers, matrix, thunk_of
from fcnet.backends.cpu.jit import Jit, compiled, is_contiguous_float, only_in_python
from fcnet.backends.device import Kernel

LOSSES = ("softmax", "svm", "mse", "bce")
SOFTMAX, SVM, MSE, BCE = range(len(LOSSES))
LABELLED = ("softmax", "svm")  # whose targets may be labels
#: Columns up to which a kernel is faster than NumPy on rows of targets: NumPy's exponentials are vectorised, ours not.
MOST = {"softmax": 128, "mse": 1 << 30, "bce": 16}


@compiled
def _weight(weights, n, scores):
    return weights[n] if weights.size else scores.dtype.type(1)


@compiled
def _softmax(scores, y, weights, dscores):
    # p = softmax(s); loss = mean_n w_n -Σ_c t_c log p_c; dscores = w_n (p - t) / N; y: labels, or the rows t
    # log p_c = s_c - peak - log(total), total = Σ_c exp(s_c - peak)
    rows, classes = scores.shape
    powers = dscores  # exp(s - peak), until the total is known
    per_row = scores.dtype.type(1.0 / rows)
    loss_sum = 0.0
    for n in range(rows):
        peak = scores[n, 0]
        for c in range(1, classes):
            peak = max(peak, scores[n, c])
        total = scores.dtype.type(0)
        for c in range(classes):
            power = np.exp(scores[n, c] - peak)
            powers[n, c] = power
            total += power
        weight = _weight(weights, n, scores)
        share = per_row * weight
        scale = share / total
        for c in range(classes):
            dscores[n, c] = powers[n, c] * scale
        loss_sum += weight * np.log(total)
        if y.ndim == 1:
            label = y[n]
            if 0 <= label < classes:  # the reference takes other labels as a row of zeros; here they are out of bounds
                loss_sum -= weight * (scores[n, label] - peak)
                dscores[n, label] -= share
        else:
            for c in range(classes):
                if y[n, c] != 0:  # a target of 0 adds 0, even at a score of -inf
                    loss_sum -= weight * (y[n, c] * (scores[n, c] - peak))
                    dscores[n, c] -= share * y[n, c]
    return loss_sum / rows


@compiled
def _svm(scores, y, weights, dscores):
    # loss = mean_n w_n Σ_{c ≠ y_n} max(0, margin_c), margin_c = s_c - s_{y_n} + 1
    # dscores = w_n / N where the margin is positive, minus their sum at c = y_n
    rows, classes = scores.shape
    zero, one = scores.dtype.type(0), scores.dtype.type(1)
    count = scores.dtype.type(rows)
    loss_sum = 0.0
    for n in range(rows):
        label = y[n]
        known = 0 <= label < classes  # the reference takes other labels as a row of zeros
        right = scores[n, label] if known else zero
        weight = _weight(weights, n, scores)
        share = weight / count
        violations, hinges = zero, 0.0
        for c in range(classes):
            margin = scores[n, c] - right + one
            violated = (not margin <= zero) and c != label  # a NaN shows in the loss
            dscores[n, c] = share if violated else zero
            if violated:
                hinges += margin
                violations += one
        if known:
            dscores[n, label] = -(violations * weight) / count
        loss_sum += weight * hinges
    return loss_sum / rows


@compiled
def _mse(scores, y, weights, dscores):
    # loss = mean_n w_n mean_c (s - t)²; dscores = 2 w_n (s - t) / (N C)
    rows, outputs = scores.shape
    twice = scores.dtype.type(2.0 / outputs)
    count = scores.dtype.type(rows)
    loss_sum = 0.0
    for n in range(rows):
        weight = _weight(weights, n, scores)
        squares = 0.0
        for c in range(outputs):
            error = scores[n, c] - y[n, c]
            squares += np.float64(error) * np.float64(error)  # in float32 it may overflow although the mean does not
            dscores[n, c] = error * twice * weight / count
        loss_sum += weight * (squares / outputs)
    return loss_sum / rows


@compiled
def _bce(scores, y, weights, dscores):
    # loss = mean_n w_n mean_c [max(s, 0) - s t + log(1 + e)], e = exp(-|s|); dscores = w_n (σ(s) - t) / (N C)
    # σ(s) = 1 / (1 + e) for s > 0, else e / (1 + e)
    rows, outputs = scores.shape
    zero, one = scores.dtype.type(0), scores.dtype.type(1)
    per_output = scores.dtype.type(1.0 / outputs)
    count = scores.dtype.type(rows)
    loss_sum = 0.0
    for n in range(rows):
        weight = _weight(weights, n, scores)
        losses = 0.0
        for c in range(outputs):
            score = scores[n, c]
            power = np.exp(-abs(score))
            losses += max(score, zero) - score * y[n, c] + np.log1p(power)
            sigmoid = (one if score > zero else power) / (one + power)
            dscores[n, c] = (sigmoid - y[n, c]) * per_output * weight / count
        loss_sum += weight * (losses / outputs)
    return loss_sum / rows


@Jit
def _softmax_loss(scores, y, loss, dscores):
    loss[()] = _softmax(scores, y, np.empty(0, scores.dtype), dscores)


@thunk_of(_softmax_loss, "2i*2")
def _thunk_softmax_loss(record, shared, scratch, num_threads):
    loss = pool.floats(integer(record, 5), 1)
    loss[0] = _softmax(matrix(record, 0), integers(record, 3), np.empty(0, np.float32), matrix(record, 6))


@Jit
def _of_labels(scores, y, weights, loss, dscores, kind):
    loss[()] = _softmax(scores, y, weights, dscores) if kind == SOFTMAX else _svm(scores, y, weights, dscores)


@Jit
def _of_rows(scores, y, weights, loss, dscores, kind):
    if kind == SOFTMAX:
        loss[()] = _softmax(scores, y, weights, dscores)
    else:
        loss[()] = _mse(scores, y, weights, dscores) if kind == MSE else _bce(scores, y, weights, dscores)


_NONE = {"f": np.empty(0, np.float32), "d": np.empty(0, np.float64)}  # no weights


def _loss(name, scores, y, weights, loss, dscores):
    loss = np.empty((), dtype=scores.dtype) if loss is None else loss
    dscores = np.empty_like(scores) if dscores is None else dscores
    if y.ndim == 1 and y.dtype != np.int64:
        only_in_python()  # a thunk would keep reading this copy
        y = y.astype(np.int64)
    if name == "softmax" and weights is None and y.ndim == 1:
        _softmax_loss(scores, y, loss, dscores)
    else:
        run = _of_labels if y.ndim == 1 else _of_rows
        run(scores, y, _NONE[scores.dtype.char] if weights is None else weights, loss, dscores, LOSSES.index(name))
    return loss, dscores


def softmax_loss(scores, y, *, loss=None, dscores=None):
    return _loss("softmax", scores, y, None, loss, dscores)


def svm_loss(scores, y, *, loss=None, dscores=None):
    return _loss("svm", scores, y, None, loss, dscores)


def mse_loss(scores, y, *, loss=None, dscores=None):
    return _loss("mse", scores, y, None, loss, dscores)


def bce_loss(scores, y, *, loss=None, dscores=None):
    return _loss("bce", scores, y, None, loss, dscores)


def weighted_loss(scores, y, weights, name="softmax", *, loss=None, dscores=None):
    return _loss(name, scores, y, weights, loss, dscores)


@Jit
def _smooth(targets, y, keep, spread):
    # targets = (1 - ε) t + ε / C, t one-hot; keep = 1 - ε, spread = ε / C
    rows, classes = targets.shape
    for n in range(rows):
        for c in range(classes):
            targets[n, c] = spread
        if 0 <= y[n] < classes:
            targets[n, y[n]] = keep + spread


def smooth_labels(y, num_classes, smoothing, dtype, *, targets=None):
    targets = np.empty((len(y), num_classes), dtype) if targets is None else targets
    real = targets.dtype.type
    if y.dtype != np.int64:
        only_in_python()  # a thunk would keep reading this copy
        y = y.astype(np.int64)
    _smooth(targets, y, real(1 - smoothing), real(smoothing / num_classes))
    return targets


def _fits(name: str, scores: Any, y: Any, *, loss: Any = None, dscores: Any = None, weights: Any = None) -> bool:
    given = [array for array in (loss, dscores, weights) if array is not None]
    if scores.ndim != 2 or type(y) is not np.ndarray or not is_contiguous_float(scores, *given):
        return False
    if y.ndim == 1:
        return name in LABELLED and y.dtype.kind in "iu"
    return scores.shape[1] <= MOST.get(name, 0) and y.dtype == scores.dtype and y.flags.c_contiguous and y.flags.aligned


def _fits_weighted(
    scores: Any, y: Any, weights: Any, name: str = "softmax", *, loss: Any = None, dscores: Any = None
) -> bool:
    return _fits(name, scores, y, loss=loss, dscores=dscores, weights=weights)


def _fits_smooth(y: Any, num_classes: int, smoothing: float, dtype: Any, *, targets: Any = None) -> bool:
    given = np.dtype(dtype).char in "fd" if targets is None else is_contiguous_float(targets) and targets.dtype == dtype
    return type(y) is np.ndarray and y.ndim == 1 and y.dtype.kind in "iu" and given


KERNELS = {
    "softmax_loss": Kernel(softmax_loss, partial(_fits, "softmax")),
    "svm_loss": Kernel(svm_loss, partial(_fits, "svm")),
    "mse_loss": Kernel(mse_loss, partial(_fits, "mse")),
    "bce_loss": Kernel(bce_loss, partial(_fits, "bce")),
    "weighted_loss": Kernel(weighted_loss, _fits_weighted),
    "smooth_labels": Kernel(smooth_labels, _fits_smooth),
}
