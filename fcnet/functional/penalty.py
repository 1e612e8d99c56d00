"""Penalties on the weights: what they add to the loss, and to its gradient.

Shapes: (P,) flat, every penalised weight matrix of a network in one array, and B for scratch.
"""

from __future__ import annotations

from typing import Any

from fcnet.backends import Backend, accelerated, checked

Array = Any


@accelerated("loss")
def l2_penalty(backend: Backend, weights: Array, reg: float, loss: Array, dweights: Array, work: Array) -> Array:
    """Add 0.5 reg Σ W² to the loss and reg W to dweights, in place; return the loss. Source: CS231n.

    Args:
        weights, dweights: (P,) flat: every weight matrix of a network and its gradient.
        loss: an array without axes.
        work: scratch (B,), of the same dtype; the work is done B elements at a time.
    """
    xp = backend.xp
    for start in range(0, weights.size, work.size):
        w, dw = weights[start : start + work.size], dweights[start : start + work.size]
        scaled = xp.multiply(w, reg, out=work[: w.size])
        # `dw` is one object: CuPy copies an input first that overlaps `out` and is another object, if only a view.
        xp.add(dw, scaled, out=dw)
        xp.add(loss, 0.5 * xp.dot(scaled, w), out=loss)
    return loss


@checked("loss")
def l1_penalty(backend: Backend, weights: Array, reg: float, loss: Array, dweights: Array, work: Array) -> Array:
    """Add reg Σ |W| to the loss and reg sign(W) to dweights, in place; return the loss. sign(0) is 0.

    Source: CS231n, "Neural Networks Part 2"; with both, the elastic net (Zou and Hastie, 2005).

    Args: as `l2_penalty`.
    """
    xp = backend.xp
    for start in range(0, weights.size, work.size):
        w, dw = weights[start : start + work.size], dweights[start : start + work.size]
        signs = xp.sign(w, out=work[: w.size])
        scaled = xp.multiply(signs, reg, out=signs)
        xp.add(dw, scaled, out=dw)
        xp.add(loss, xp.sum(xp.multiply(scaled, w, out=scaled)), out=loss)
    return loss
