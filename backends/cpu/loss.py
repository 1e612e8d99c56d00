"""Numba kernels of losses with their gradients: one pass over the scores, with the formulas of `fcnet.functional.loss`.

Shapes: scores s, dscores and rows of targets t are (N, C), labels y are (N,), weights w are (N,), or (0,) for 1 each.
The loss is summed in float64, whatever the dtype of the scores.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from fcnet.backends.cpu import pool
from fcnet.backends.cpu.compiled_step import integer, integers, matrix, thunk_of, vector
from fcnet.backends.cpu.jit import Jit, compiled, is_contiguous_float, is_contiguous_integer, only_in_python
from fcnet.backends.cpu.vectormath import exp, log1p_of_share
from fcnet.backends.device import Kernel

LOSSES = ("softmax", "svm", "mse", "bce")
SOFTMAX, SVM, MSE, BCE = range(len(LOSSES))
LABELLED, ROWS = ("softmax", "svm"), ("softmax", "mse", "bce")  # whose targets may be labels; rows (N, C)
CHUNK = 4096  # scores that are worked on at a time: exponentials of many rows at once, still in the first-level cache
#: Scores up to which a kernel takes rows of targets in float64, whose exponentials come one by one; NumPy's do not.
MOST = {"softmax": 8000, "bce": 1000}


@compiled
def _weight(weights, n, scores):
    return weights[n] if weights.size else scores.dtype.type(1)


@compiled
def _softmax(scores, y, weights, dscores, batch):
    # p = softmax(s); loss = Σ_n w_n -Σ_c t_c log p_c; dscores = w_n (p - t) / batch; y: labels, or the rows t
    # log p_c = s_c - peak - log(total), total = Σ_c exp(s_c - peak)
    rows, classes = scores.shape
    powers = dscores  # exp(s - peak), until the total is known
    per_row = scores.dtype.type(1.0 / batch)
    some = max(1, CHUNK // classes)
    peaks = np.empty(min(rows, some), scores.dtype)
    loss_sum = 0.0
    for top in range(0, rows, some):
        end = min(rows, top + some)
        for n in range(top, end):
            peak = scores[n, 0]
            for c in range(1, classes):
                peak = max(peak, scores[n, c])
            peaks[n - top] = peak
            for c in range(classes):
                powers[n, c] = scores[n, c] - peak
        flat = powers[top:end].reshape(-1)
        for i in range(flat.size):
            flat[i] = exp(flat[i])
        for n in range(top, end):
            peak, total = peaks[n - top], scores.dtype.type(0)
            for c in range(classes):
                total += powers[n, c]
            weight = _weight(weights, n, scores)
            share = per_row * weight
            scale = share / total
            for c in range(classes):
                dscores[n, c] = powers[n, c] * scale
            loss_sum += weight * np.log(total)
            if y.ndim == 1:
                label = y[n]
                if 0 <= label < classes:  # the reference takes others as a row of zeros; here they are out of bounds
                    loss_sum -= weight * (scores[n, label] - peak)
                    dscores[n, label] -= share
            else:
                for c in range(classes):
                    if y[n, c] != 0:  # a target of 0 adds 0, even at a score of -inf
                        loss_sum -= weight * (y[n, c] * (scores[n, c] - peak))
                        dscores[n, c] -= share * y[n, c]
    return loss_sum


@compiled
def _svm(scores, y, weights, dscores, batch):
    # loss = Σ_n w_n Σ_{c ≠ y_n} max(0, margin_c), margin_c = s_c - s_{y_n} + 1
    # dscores = w_n / batch where the margin is positive, minus their sum at c = y_n
    rows, classes = scores.shape
    zero, one = scores.dtype.type(0), scores.dtype.type(1)
    count = scores.dtype.type(batch)
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
    return loss_sum


@compiled
def _mse(scores, y, weights, dscores, batch):
    # loss = Σ_n w_n mean_c (s - t)²; dscores = 2 w_n (s - t) / (batch C)
    rows, outputs = scores.shape
    twice = scores.dtype.type(2.0 / outputs)
    count = scores.dtype.type(batch)
    loss_sum = 0.0
    for n in range(rows):
        weight = _weight(weights, n, scores)
        squares = 0.0
        for c in range(outputs):
            error = scores[n, c] - y[n, c]
            squares += np.float64(error) * np.float64(error)  # in float32 it may overflow although the mean does not
            dscores[n, c] = error * twice * weight / count
        loss_sum += weight * (squares / outputs)
    return loss_sum


@compiled
def _bce(scores, y, weights, dscores, batch):
    # loss = Σ_n w_n mean_c [max(s, 0) - s t + log(1 + e)], e = exp(-|s|); dscores = w_n (σ(s) - t) / (batch C)
    # σ(s) = 1 / (1 + e) for s > 0, else e / (1 + e)
    rows, outputs = scores.shape
    zero, one = scores.dtype.type(0), scores.dtype.type(1)
    per_output = scores.dtype.type(1.0 / outputs)
    count = scores.dtype.type(batch)
    some = max(1, CHUNK // outputs)
    terms = np.empty(min(rows, some) * outputs, scores.dtype)  # of the losses
    loss_sum = 0.0
    for top in range(0, rows, some):
        end = min(rows, top + some)
        flat, targets, gradient = scores[top:end].reshape(-1), y[top:end].reshape(-1), dscores[top:end].reshape(-1)
        for i in range(flat.size):
            score, target = flat[i], targets[i]
            power = exp(-abs(score))
            terms[i] = (score if score > zero else zero) - score * target + log1p_of_share(power)
            sigmoid = (one if score > zero else power) / (one + power)
            gradient[i] = (sigmoid - target) * per_output / count
        for n in range(top, end):
            weight = _weight(weights, n, scores)
            losses = 0.0
            for c in range(outputs):
                losses += terms[(n - top) * outputs + c]
            loss_sum += weight * (losses / outputs)
            if weights.size:
                for c in range(outputs):
                    dscores[n, c] *= weight
    return loss_sum


@compiled
def sum_of_losses(kind, scores, y, weights, dscores, batch):
    """Return the sum of the rows' losses, and fill dscores with the gradient of their mean over `batch` rows."""
    if y.ndim == 1:
        if kind == SVM:
            return _svm(scores, y, weights, dscores, batch)
        return _softmax(scores, y, weights, dscores, batch)
    else:
        if kind == MSE:
            return _mse(scores, y, weights, dscores, batch)
        if kind == BCE:
            return _bce(scores, y, weights, dscores, batch)
        return _softmax(scores, y, weights, dscores, batch)


@Jit
def _of_labels(scores, y, weights, loss, dscores, kind):
    loss[()] = sum_of_losses(kind, scores, y, weights, dscores, scores.shape[0]) / scores.shape[0]


@Jit
def _of_rows(scores, y, weights, loss, dscores, kind):
    loss[()] = sum_of_losses(kind, scores, y, weights, dscores, scores.shape[0]) / scores.shape[0]


@thunk_of(_of_labels, "2i1*2n")
def _thunk_of_labels(record, shared, scratch, num_threads):
    scores, y, weights, dscores = matrix(record, 0), integers(record, 3), vector(record, 5), matrix(record, 8)
    loss = pool.floats(integer(record, 7), 1)
    loss[0] = sum_of_losses(integer(record, 11), scores, y, weights, dscores, scores.shape[0]) / scores.shape[0]


@thunk_of(_of_rows, "221*2n")
def _thunk_of_rows(record, shared, scratch, num_threads):
    scores, y, weights, dscores = matrix(record, 0), matrix(record, 3), vector(record, 6), matrix(record, 9)
    loss = pool.floats(integer(record, 8), 1)
    loss[0] = sum_of_losses(integer(record, 12), scores, y, weights, dscores, scores.shape[0]) / scores.shape[0]


_NONE = {"f": np.empty(0, np.float32), "d": np.empty(0, np.float64)}  # no weights


def _labels(y):
    """Return int64 labels in the one layout that the kernels are compiled for; others would be compiled anew."""
    if is_contiguous_integer(y) and y.flags.writeable:
        return y
    only_in_python()  # a thunk would keep reading this copy
    return np.array(y, np.int64)


def _loss(name, scores, y, weights, loss, dscores):
    loss = np.empty((), dtype=scores.dtype) if loss is None else loss
    dscores = np.empty_like(scores) if dscores is None else dscores
    if y.ndim == 1:
        y = _labels(y)
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
    y = _labels(y)
    _smooth(targets, y, real(1 - smoothing), real(smoothing / num_classes))
    return targets


def _fits(name: str, scores: Any, y: Any, *, loss: Any = None, dscores: Any = None, weights: Any = None) -> bool:
    given = [array for array in (loss, dscores, weights) if array is not None]
    if scores.ndim != 2 or type(y) is not np.ndarray or not is_contiguous_float(scores, *given):
        return False
    if y.ndim == 1:
        return name in LABELLED and y.dtype.kind in "iu"
    if name not in ROWS or (scores.dtype == np.float64 and scores.size > MOST.get(name, scores.size)):
        return False
    return is_contiguous_float(scores, y)


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
