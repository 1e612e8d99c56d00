"""Penalties on the weights: L1 and L2, added to the loss and to its gradient.

Shapes: (P,) flat, every penalised weight matrix of a network in one array, and B for scratch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fcnet.backends import Backend, accelerated, checked

Array = Any


def _blocks(weights: Array, dweights: Array, work: Array) -> Iterable[tuple[Array, Array, Array]]:
    """Return blocks of the weights and of their gradient, each with scratch of its size."""
    size = work.size
    if weights.size == size:
        return [(weights, dweights, work)]
    starts = range(0, weights.size, size)
    blocks = [(weights[start : start + size], dweights[start : start + size]) for start in starts]
    return [(w, dw, work[: w.size]) for w, dw in blocks]


@accelerated("loss")
def l2_penalty(backend: Backend, weights: Array, reg: float, loss: Array, dweights: Array, work: Array) -> Array:
    """Add 0.5 reg Σ W² to the loss and reg W to dweights, in place; return the loss. Source: CS231n.

    Args:
        weights, dweights: (P,) flat: every weight matrix of a network and its gradient.
        loss: an array without axes.
        work: scratch (B,), of the same dtype; the work is done B elements at a time.
    """
    xp = backend.xp
    for w, dw, room in _blocks(weights, dweights, work):
        scaled = xp.multiply(w, reg, out=room)
        # `dw` is one object: CuPy copies an input first that overlaps `out` and is another object, if only a view.
        xp.add(dw, scaled, out=dw)  # dw = dw + reg w
        xp.add(loss, 0.5 * xp.dot(scaled, w), out=loss)  # loss = loss + 0.5 reg Σ w²
    return loss


@checked("loss")
def l1_penalty(backend: Backend, weights: Array, reg: float, loss: Array, dweights: Array, work: Array) -> Array:
    """Add reg Σ |W| to the loss and reg sign(W) to dweights, in place; return the loss. sign(0) is 0.

    Source: CS231n, "Neural Networks Part 2"; with both, the elastic net (Zou and Hastie, 2005).

    Args: as `l2_penalty`.
    """
    xp = backend.xp
    for w, dw, room in _blocks(weights, dweights, work):
        signs = xp.sign(w, out=room)
        scaled = xp.multiply(signs, reg, out=signs)
        xp.add(dw, scaled, out=dw)  # dw = dw + reg sign(w)
        xp.add(loss, xp.sum(xp.multiply(scaled, w, out=scaled)), out=loss)  # loss = loss + reg Σ |w|
    return loss
