"""Numba kernels of losses with their gradients, with the formulas of `fcnet.functional.loss`.

Shapes: scores s, dscores and rows of targets t are (N, C), labels y are (N,), weights w are (N,), or (0,) for 1 each.
Some rows at a time are turned, so that a vector holds the same class of several rows, however few classes there are.
share = w_n / N. The loss is summed in float64, whatever the dtype of the scores.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from fcnet.backends.cpu import pool
from fcnet.backends.cpu.compiled_step import integer, integers, matrix, thunk_of, vector
from fcnet.backends.cpu.jit import Jit, broad, compiled, is_contiguous_float, is_contiguous_integer, only_in_python
from fcnet.backends.cpu.vectormath import exp, log1p_of_share, log_from_one
from fcnet.backends.device import Kernel

LOSSES = ("softmax", "svm", "mse", "bce")
SOFTMAX, SVM, MSE, BCE = range(len(LOSSES))
LABELLED, ROWS = ("softmax", "svm"), ("softmax", "mse", "bce")  # whose targets may be labels; rows (N, C)
COLUMNS, STEP = 64, 16  # of a block: at most, and a multiple of this, for whole vectors
CHUNK = 4096  # scores of a block, or so: it stays in the first-level cache
#: Scores up to which a kernel takes rows of targets in float64, whose exponentials come one by one; NumPy's do not.
MOST = {"softmax": 8000, "bce": 1000}


@compiled
def turn(x, out, left, end):
    """Set out[c, left + n] = x[n, c]; the columns after the last row, up to `end`, are as that one."""
    rows, width = x.shape
    for c in range(width):
        for n in range(rows):
            out[c, left + n] = x[n, c]
        for n in range(left + rows, end):
            out[c, n] = x[rows - 1, c]


@compiled
def turn_back(x, out):
    """Set out[n, c] = x[c, n]."""
    rows, width = out.shape
    for n in range(rows):
        for c in range(width):
            out[n, c] = x[c, n]


@compiled
def _softmax(scores, y, share, losses, dscores):
    # p = softmax(s); loss = -Σ_c t_c log p_c; dscores = share (p - t); y: labels, or the columns t
    # log p_c = s_c - peak - log(total), total = Σ_c exp(s_c - peak)
    broad()
    classes, columns = scores.shape
    peaks, totals = scores[0].copy(), np.zeros(columns, scores.dtype)
    for c in range(1, classes):
        s = scores[c]
        for n in range(columns):
            peaks[n] = s[n] if s[n] > peaks[n] else peaks[n]
    for c in range(classes):
        s, powers = scores[c], dscores[c]
        for n in range(columns):
            powers[n] = exp(s[n] - peaks[n])
            totals[n] += powers[n]
    for n in range(columns):
        losses[n] = log_from_one(totals[n])
        totals[n] = share[n] / totals[n]
    for c in range(classes):
        ds = dscores[c]
        for n in range(columns):
            ds[n] *= totals[n]
    if y.ndim == 1:
        for n in range(y.size):
            label = y[n]
            if 0 <= label < classes:  # the reference takes others as a row of zeros; here they are out of bounds
                losses[n] -= scores[label, n] - peaks[n]
                dscores[label, n] -= share[n]
    else:
        zero = scores.dtype.type(0)
        for c in range(classes):
            s, ds, t = scores[c], dscores[c], y[c]
            for n in range(columns):
                losses[n] -= t[n] * (s[n] - peaks[n]) if t[n] != zero else zero  # also at a score of -inf
                ds[n] -= share[n] * t[n]


@compiled
def _svm(scores, y, share, losses, dscores):
    # loss = Σ_{c ≠ y} max(0, margin_c), margin_c = s_c - s_y + 1
    # dscores = share where the margin is positive, minus their sum at c = y
    broad()
    classes, columns = scores.shape
    zero, one = scores.dtype.type(0), scores.dtype.type(1)
    right, violations = np.zeros(columns, scores.dtype), np.zeros(columns, scores.dtype)
    labels = np.full(columns, -1)
    for n in range(y.size):
        if 0 <= y[n] < classes:  # the reference takes other labels as a row of zeros
            labels[n] = y[n]
            right[n] = scores[y[n], n]
    losses[:] = 0
    for c in range(classes):
        s, ds = scores[c], dscores[c]
        for n in range(columns):
            margin = s[n] - right[n] + one
            violated = (not margin <= zero) and c != labels[n]  # a NaN shows in the loss
            ds[n] = share[n] if violated else zero
            losses[n] += margin if violated else zero
            violations[n] += one if violated else zero
    for n in range(y.size):
        if labels[n] >= 0:
            dscores[labels[n], n] = -violations[n] * share[n]


@compiled
def _mse(scores, y, share, losses, dscores):
    # loss = mean_c (s - t)²; dscores = 2 share (s - t) / C
    broad()
    outputs, columns = scores.shape
    twice = scores.dtype.type(2.0 / outputs)
    losses[:] = 0
    for c in range(outputs):
        s, ds, t = scores[c], dscores[c], y[c]
        for n in range(columns):
            error = s[n] - t[n]
            losses[n] += np.float64(error) * np.float64(error)  # in float32 it may overflow although the mean does not
            ds[n] = error * twice * share[n]
    for n in range(columns):
        losses[n] /= outputs


@compiled
def _bce(scores, y, share, losses, dscores):
    # loss = mean_c [max(s, 0) - s t + log(1 + e)], e = exp(-|s|); dscores = share (σ(s) - t) / C
    # σ(s) = 1 / (1 + e) for s > 0, else e / (1 + e)
    broad()
    outputs, columns = scores.shape
    zero, one = scores.dtype.type(0), scores.dtype.type(1)
    per_output = scores.dtype.type(1.0 / outputs)
    losses[:] = 0
    for c in range(outputs):
        s, ds, t = scores[c], dscores[c], y[c]
        for n in range(columns):
            power = exp(-abs(s[n]))
            losses[n] += (s[n] if s[n] > zero else zero) - s[n] * t[n] + log1p_of_share(power)
            sigmoid = (one if s[n] > zero else power) / (one + power)
            ds[n] = (sigmoid - t[n]) * per_output * share[n]
    for n in range(columns):
        losses[n] /= outputs


@compiled
def loss_of_block(kind, scores, y, weights, rows, batch, dscores):
    """Return the sum of the losses of a block's first rows, and fill dscores: its columns are 0 after those rows.

    scores, dscores: (C, columns), the rows turned, columns a multiple of STEP; y: (rows,) labels, or (C, columns).
    """
    columns = scores.shape[1]
    share, losses = np.zeros(columns, scores.dtype), np.empty(columns)
    per_row = scores.dtype.type(1.0 / batch)
    for n in range(rows):
        share[n] = per_row * weights[n] if weights.size else per_row
    if y.ndim == 1:
        if kind == SVM:
            _svm(scores, y, share, losses, dscores)
        else:
            _softmax(scores, y, share, losses, dscores)
    else:
        if kind == MSE:
            _mse(scores, y, share, losses, dscores)
        elif kind == BCE:
            _bce(scores, y, share, losses, dscores)
        else:
            _softmax(scores, y, share, losses, dscores)
    total = 0.0
    for n in range(rows):
        total += weights[n] * losses[n] if weights.size else losses[n]
    return total


@compiled
def _mean_loss(kind, scores, y, weights, dscores):
    """Return the mean of the rows' losses, and fill dscores with its gradient."""
    rows, width = scores.shape
    columns = max(STEP, min(COLUMNS, rows + STEP - 1, CHUNK // width) // STEP * STEP)
    turned, gradient = np.empty((width, columns), scores.dtype), np.empty((width, columns), scores.dtype)
    targets = np.empty((width if y.ndim == 2 else 0, columns), scores.dtype)
    total = 0.0
    for top in range(0, rows, columns):
        end = min(rows, top + columns)
        turn(scores[top:end], turned, 0, columns)
        if y.ndim == 1:
            total += loss_of_block(kind, turned, y[top:end], weights[top:end], end - top, rows, gradient)
        else:
            turn(y[top:end], targets, 0, columns)
            total += loss_of_block(kind, turned, targets, weights[top:end], end - top, rows, gradient)
        turn_back(gradient, dscores[top:end])
    return total / rows


@Jit
def _of_labels(scores, y, weights, loss, dscores, kind):
    loss[()] = _mean_loss(kind, scores, y, weights, dscores)


@Jit
def _of_rows(scores, y, weights, loss, dscores, kind):
    loss[()] = _mean_loss(kind, scores, y, weights, dscores)


@thunk_of(_of_labels, "2i1*2n")
def _thunk_of_labels(record, shared, scratch, num_threads):
    scores, y, weights, dscores = matrix(record, 0), integers(record, 3), vector(record, 5), matrix(record, 8)
    loss = pool.floats(integer(record, 7), 1)
    loss[0] = _mean_loss(integer(record, 11), scores, y, weights, dscores)


@thunk_of(_of_rows, "221*2n")
def _thunk_of_rows(record, shared, scratch, num_threads):
    scores, y, weights, dscores = matrix(record, 0), matrix(record, 3), vector(record, 6), matrix(record, 9)
    loss = pool.floats(integer(record, 8), 1)
    loss[0] = _mean_loss(integer(record, 12), scores, y, weights, dscores)


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
