"""Limits on a step: gradients clipped before the update, weights shrunk or held within a norm beside it.

Each is one formula, in place, and leaves its numbers on the device: nothing waits. None is tied to a rule.
"""

from __future__ import annotations

from typing import Any

from fcnet.backends import Backend, accelerated, checked, flush

Array = Any


@accelerated("dw")
def clip_by_value(backend: Backend, dw: Array, limit: float) -> Array:
    """Clip dw = min(max(dw, -c), c), element by element, in place; dw of any shape, c = limit > 0."""
    xp = backend.xp
    xp.maximum(dw, -limit, out=dw)
    return xp.minimum(dw, limit, out=dw)


@accelerated("dw")
def clip_by_norm(backend: Backend, dw: Array, limit: float, *, work: Array | None = None) -> Array:
    """Clip dw *= c / max(c, ‖dw‖₂), in place: a longer gradient keeps its direction and gets the length c.

    The norm is taken of dw / max(c, max |dw|), so that no square overflows: ‖dw‖ may be larger than the dtype holds.

    Args:
        dw: (P,) flat: the gradient of a whole network, so that the norm is the global one.
        limit: c > 0.
        work: scratch (B,) of the dtype of dw, or None; squares are summed B at a time.

    Source: Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", 2013.
    """
    xp = backend.xp
    work = xp.empty(max(1, dw.size), dtype=dw.dtype) if work is None else work
    parts = [dw[start : start + work.size] for start in range(0, dw.size, work.size)]
    largest = xp.full((), limit, dtype=dw.dtype)
    for part in parts:
        xp.maximum(largest, xp.max(xp.abs(part, out=work[: part.size])), out=largest)
    squares = xp.zeros((), dtype=dw.dtype)
    for part in parts:
        share = xp.divide(part, largest, out=work[: part.size])
        xp.add(squares, xp.sum(xp.multiply(share, share, out=share)), out=squares)
    return _shorten(backend, dw, largest, xp.sqrt(squares), limit)


def _shorten(backend: Backend, x: Array, largest: Array, norm: Array, limit: float) -> Array:
    """Compute x *= c / max(c, ‖x‖) in place, for ‖x‖ = largest * norm; `largest` >= c."""
    xp = backend.xp
    bound = limit / largest
    clipped = xp.greater(norm, bound)
    xp.divide(x, xp.where(clipped, largest, 1), out=x)
    return xp.multiply(x, xp.where(clipped, limit / xp.maximum(norm, bound), 1), out=x)


@accelerated("w")
def decay_weights(
    backend: Backend, w: Array, learning_rate: float | Array, weight_decay: float, *, work: Array
) -> Array:
    """Apply decoupled weight decay: w -= η λ w, in place.

    Apart from the gradient, so that a rule that divides by the gradient's size does not divide the decay too. As in
    PyTorch the learning rate is a factor of it; L2 adds λ w to the gradient instead.

    Args:
        w: (P,) flat. learning_rate: η, a number or an array of one element on the device. weight_decay: λ.
        work: scratch (B,) of the dtype of w; the work is done B elements at a time.

    Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019.
    """
    xp = backend.xp
    share = xp.asarray(learning_rate * weight_decay, dtype=w.dtype)
    for start in range(0, w.size, work.size):
        w_ = w[start : start + work.size]
        lost = xp.multiply(w_, share, out=work[: w_.size])
        xp.subtract(w_, lost, out=w_)  # w = w - η λ w
        flush(backend, w_, work=lost)
    return w


@checked("w")
def max_norm(backend: Backend, w: Array, limit: float, *, work: Array | None = None) -> Array:
    """Limit each unit's incoming weights: w[:, m] *= c / max(c, ‖w[:, m]‖₂), in place.

    Args:
        w: (..., D, M). limit: c > 0; 3 or 4 are usual.
        work: scratch like w, or None.

    Source: Srebro, Rennie and Jaakkola, "Maximum-Margin Matrix Factorization", 2004; with dropout Srivastava et al.,
    2014.
    """
    xp = backend.xp
    largest = xp.maximum(xp.max(xp.abs(w, out=work), axis=-2, keepdims=True), limit)
    share = xp.divide(w, largest, out=work)
    norm = xp.sqrt(xp.sum(xp.multiply(share, share, out=share), axis=-2, keepdims=True))
    return _shorten(backend, w, largest, norm, limit)
