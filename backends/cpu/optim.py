"""The Numba kernels of update rules, each one pass over the flat buffers, as `fcnet.optim.rules` defines them.

The threads of `pool` share a pass over many parameters, span by span. A rule's arrays are w, dw and up to two moments;
its scalars have the dtype of w. Moments are flushed to 0 below the smallest normal number, gradients that are
squared limited before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fcnet.backends.cpu import pool
from fcnet.backends.cpu.compiled_step import integer, integers, real, thunk_of, vector
from fcnet.backends.cpu.denormals import flushed, smallest_normal
from fcnet.backends.cpu.jit import Jit, compiled, is_contiguous_float, only_in_python
from fcnet.backends.device import Kernel
from fcnet.backends.rules import MEAN_OF_SQUARES, RuleKernel, gradient_limit, roles_of

SPAN = 8192  # the fewest elements a thread takes: some microseconds' work

_run_pieces = pool.run_pieces.compiled

RULES = ("sgd", "momentum", "rmsprop", "adam", "lion")  # those with a kernel
SGD, MOMENTUM, RMSPROP, ADAM, LION = range(len(RULES))

SINGLE, DOUBLE = (gradient_limit(np.dtype(name), MEAN_OF_SQUARES) for name in ("float32", "float64"))

# The job in the shared words, as offsets from pool.JOB: the rule, bytes per element, elements in all and in a span, the
# addresses of four arrays, and six scalars as float64, which holds any float32.
RULE, ITEM, COUNT, LENGTH, ARRAYS, SCALARS = 0, 1, 2, 3, 4, 8


@compiled
def limited(value, limit):
    """Return a gradient limited to ±limit; NaN if it is not finite."""
    return (limit if value > limit else -limit if value < -limit else value) - (value - value)


@compiled
def _apply(rule, w, dw, m, v, s):
    normal, limit = smallest_normal(w), w.dtype.type(SINGLE if w.itemsize == 4 else DOUBLE)
    if rule == SGD:  # w -= η dw
        rate = s[0]
        for i in range(w.size):
            w[i] -= rate * dw[i]
    elif rule == MOMENTUM:  # velocity = μ velocity - η dw; w += velocity
        rate, mu, velocity = s[0], s[1], m
        for i in range(w.size):
            velocity[i] = flushed(mu * velocity[i] - rate * dw[i], normal)
            w[i] += velocity[i]
    elif rule == RMSPROP:  # cache = ρ cache + (1 - ρ) dw²; w -= η dw / (sqrt(cache) + ε)
        rate, rho, one_minus_rho, epsilon, cache = s[0], s[1], s[2], s[3], m
        for i in range(w.size):
            g = limited(dw[i], limit)
            cache[i] = flushed(rho * cache[i] + one_minus_rho * (g * g), normal)
            w[i] -= rate * (g / (np.sqrt(cache[i]) + epsilon))
    elif rule == ADAM:  # m = β₁ m + (1 - β₁) dw; v = β₂ v + (1 - β₂) dw²; w -= α m / (sqrt(v) + ε')
        alpha, beta1, one_minus_beta1, beta2, one_minus_beta2, epsilon = s
        for i in range(w.size):
            g = limited(dw[i], limit)
            m[i] = flushed(beta1 * m[i] + one_minus_beta1 * g, normal)
            v[i] = flushed(beta2 * v[i] + one_minus_beta2 * (g * g), normal)
            w[i] -= alpha * (m[i] / (np.sqrt(v[i]) + epsilon))
    elif rule == LION:  # w -= η sign(β₁ m + (1 - β₁) dw); m = β₂ m + (1 - β₂) dw
        rate, beta1, beta2, one_minus_beta2 = s[0], s[1], s[3], s[4]
        for i in range(w.size):
            w[i] -= rate * np.sign(beta1 * (m[i] - dw[i]) + dw[i])
            m[i] = flushed(beta2 * m[i] + one_minus_beta2 * dw[i], normal)


@pool.Task
def _span(shared, piece, scratch):
    job = shared + 8 * pool.JOB
    rule, length = pool.load(job + 8 * RULE), pool.load(job + 8 * LENGTH)
    begin = piece * length
    count = min(length, pool.load(job + 8 * COUNT) - begin)
    w, dw = pool.load(job + 8 * ARRAYS), pool.load(job + 8 * (ARRAYS + 1))
    m, v = pool.load(job + 8 * (ARRAYS + 2)), pool.load(job + 8 * (ARRAYS + 3))
    s = pool.doubles(job + 8 * SCALARS, 6)
    if pool.load(job + 8 * ITEM) == 4:
        at = 4 * begin
        arrays = pool.floats(w + at, count), pool.floats(dw + at, count)
        moments = pool.floats(m + at, count), pool.floats(v + at, count)
        one, two, three = np.float32(s[0]), np.float32(s[1]), np.float32(s[2])
        four, five, six = np.float32(s[3]), np.float32(s[4]), np.float32(s[5])
        _apply(rule, arrays[0], arrays[1], moments[0], moments[1], (one, two, three, four, five, six))
    else:
        at = 8 * begin
        wide = pool.doubles(w + at, count), pool.doubles(dw + at, count)
        both = pool.doubles(m + at, count), pool.doubles(v + at, count)
        _apply(rule, wide[0], wide[1], both[0], both[1], (s[0], s[1], s[2], s[3], s[4], s[5]))


@Jit
def _update(w, dw, m, v, rule, step, rate, c0, c1, c2, task, shared, scratch, num_threads):
    """Apply a rule; its constants c0, c1, c2 come in the order of the reference's signature."""
    job = pool.JOB
    length = max(SPAN, (w.size // (2 * num_threads) + 63) & -64) if num_threads > 1 else w.size
    shared[pool.TASK] = task
    shared[job + RULE], shared[job + ITEM], shared[job + COUNT], shared[job + LENGTH] = rule, w.itemsize, w.size, length
    shared[job + ARRAYS], shared[job + ARRAYS + 1] = w.ctypes.data, dw.ctypes.data
    shared[job + ARRAYS + 2], shared[job + ARRAYS + 3] = m.ctypes.data, v.ctypes.data
    s = shared[job + SCALARS : job + SCALARS + 6].view(np.float64)
    if rule == ADAM:  # α = η sqrt(1 - β₂ᵗ) / (1 - β₁ᵗ), ε' = ε sqrt(1 - β₂ᵗ)
        t = step[0] + 1
        root = np.sqrt(1 - c1**t)
        s[0] = rate[0] * root / (1 - c0**t)
        s[1], s[2], s[3], s[4], s[5] = c0, 1 - c0, c1, 1 - c1, c2 * root
    else:
        s[0], s[1], s[2], s[3], s[4] = rate[0], c0, 1 - c0, c1, 1 - c1
    _run_pieces(shared, scratch, -(-w.size // length))


_inner = _update.compiled


@thunk_of(_update, "1111ni*rrrn")
def _thunk_update(record, shared, scratch, num_threads):
    w, dw, m, v = vector(record, 0), vector(record, 2), vector(record, 4), vector(record, 6)
    rule, step, rate = integer(record, 8), integers(record, 9), pool.doubles(integer(record, 11), 1)
    c0, c1, c2, task = real(record, 12), real(record, 13), real(record, 14), integer(record, 15)
    words, room = pool.context_arrays(shared, scratch)
    _inner(w, dw, m, v, rule, step, rate, c0, c1, c2, task, words, room, num_threads)


def _run(name, w, dw, moments, step, rate, constants):
    m, v = (*moments, w, w)[:2]  # w in place of a moment that the rule does not have and never touches
    step, rate = _array(_NO_STEP if step is None else step, np.int64), _array(rate, np.float64)
    c0, c1, c2 = (*map(float, constants), 0.0, 0.0, 0.0)[:3]
    pool.run(_update, w, dw, m, v, RULES.index(name), step, rate, c0, c1, c2, _span.address, work=8 * w.size)


def _array(value: Any, dtype: Any) -> Any:
    """Return a number as an array of one element; such an array is returned as it is."""
    if type(value) is np.ndarray and value.dtype == dtype and value.shape == (1,):
        return value
    only_in_python()
    return np.array(value, dtype).reshape(1)


_NO_STEP = np.zeros(1, np.int64)


def _fits(name: str) -> Callable[..., bool]:
    """Return the precondition of a rule, whose first arguments are w, dw and its moments."""

    def fits(w: Any, *arguments: Any, **_: Any) -> bool:
        others = arguments[: 1 + len(roles_of(name).moments)]
        return (
            w.ndim == 1 and w.size > 0 and is_contiguous_float(w, *others) and all(a.shape == w.shape for a in others)
        )

    return fits


KERNELS = {name: Kernel(RuleKernel(name, _run), _fits(name)) for name in RULES}
