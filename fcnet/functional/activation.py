"""Activations: element by element, so the shapes are any.

Each is a pair `NAME_forward(x) -> (out, cache)`, `NAME_backward(dout, cache) -> dx`, listed in `ACTIVATIONS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from backends import accelerated, array_module
from fcnet.functional import checks

Array = Any


@accelerated("out", "cache", check=lambda x, **_: checks.floating("relu_forward", x=x))
def relu_forward(x: Array, *, out: Array | None = None) -> tuple[Array, Array]:
    """Rectified linear unit, out = max(x, 0). Source: Nair and Hinton, 2010.

    Args:
        x: any shape.
        out: like x, filled if given; may be x itself.

    Returns:
        out and cache = out: its sign is all that the backward pass needs.
    """
    out = array_module(x).maximum(x, 0, out=out)
    return out, out


@accelerated("dx", check=lambda dout, cache, **_: checks.gradient("relu_backward", dout, cache))
def relu_backward(dout: Array, cache: Array, *, dx: Array | None = None) -> Array:
    """dx = dout where out > 0, else 0. At x = 0 the derivative is taken as 0, as CS231n does.

    Args:
        dout: like out.
        cache: from `relu_forward`.
        dx: filled if given; may be dout itself.
    """
    xp = array_module(dout, cache)
    # The gate is written into dx as 0 and 1, so that nothing is allocated, unless dx still holds dout.
    gate = xp.greater(cache, 0, out=None if dx is dout else dx)
    return xp.multiply(dout, gate, out=dx)


class Activation(NamedTuple):
    """A pair of functions and the initialiser that suits it (`fcnet.init`)."""

    forward: Callable[..., tuple[Array, Any]]
    backward: Callable[..., Array]
    init: str


ACTIVATIONS = {"relu": Activation(relu_forward.reference, relu_backward.reference, "he")}
