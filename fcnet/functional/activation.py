"""Activations, listed in `ACTIVATIONS`: pairs `NAME_forward(x) -> (out, cache)`, `NAME_backward(dout, cache) -> dx`.

All but maxout act element by element, so their shapes are any, `out` may be x itself, and `dx` may be dout itself (it
then allocates). A cache that is not `out` has arrays of its own: given back (`cache=`), they are filled again.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

from fcnet.backends import Backend, Function, checked
from fcnet.backends.caches import GatedCache
from fcnet.errors import unknown
from fcnet.functional import checks

Array = Any

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "activate",
    "activation_named",
    "elu_backward",
    "elu_forward",
    "gelu_backward",
    "gelu_forward",
    "identity_backward",
    "identity_forward",
    "leaky_relu_backward",
    "leaky_relu_forward",
    "maxout_backward",
    "maxout_forward",
    "relu_backward",
    "relu_forward",
    "sigmoid_backward",
    "sigmoid_forward",
    "silu_backward",
    "silu_forward",
    "softplus_backward",
    "softplus_forward",
    "tanh_backward",
    "tanh_forward",
]

LEAK = 0.01  # slope of leaky ReLU below 0
CUBIC, SPREAD = 0.044715, math.sqrt(2 / math.pi)  # of GELU
LARGEST_EXPONENT = {4: 88.0, 8: 709.0}  # exp of it is finite, by the bytes of a number


@checked("out", "cache", check=lambda x, **_: checks.floating("identity_forward", x=x))
def identity_forward(backend: Backend, x: Array, *, out: Array | None = None) -> tuple[Array, Array]:
    """Compute no activation, out = x; layers in a row then make a linear map of low rank.

    Source: Baldi and Hornik, "Neural Networks and Principal Component Analysis", 1989.

    Args and returns: as `relu_forward`; the cache, which the backward pass needs for its shape only, is out.
    """
    if out is None:
        out = x.copy()
    elif out is not x:
        out[...] = x
    return out, out


@checked("dx", check=lambda dout, cache, **_: checks.gradient("identity_backward", dout, cache))
def identity_backward(backend: Backend, dout: Array, cache: Array, *, dx: Array | None = None) -> Array:
    """Return dx = dout; arguments as in `relu_backward`."""
    return identity_forward.formula(backend, dout, out=dx)[0]


@checked("out", "cache", check=lambda x, **_: checks.floating("relu_forward", x=x))
def relu_forward(backend: Backend, x: Array, *, out: Array | None = None) -> tuple[Array, Array]:
    """Compute the rectified linear unit, out = max(x, 0). Source: Nair and Hinton, "Rectified Linear Units", 2010.

    Args:
        x: any shape.
        out: like x, filled if given; may be x itself.

    Returns:
        out and cache = out: its sign is all that the backward pass needs.
    """
    out = backend.xp.maximum(x, 0, out=out)
    return out, out


@checked("dx", check=lambda dout, cache, **_: checks.gradient("relu_backward", dout, cache))
def relu_backward(backend: Backend, dout: Array, cache: Array, *, dx: Array | None = None) -> Array:
    """Return dx = dout where out > 0, else 0. At x = 0 the derivative is taken as 0, as CS231n does.

    Args:
        dout: like out.
        cache: from `relu_forward`.
        dx: filled if given; may be dout itself.
    """
    xp = backend.xp
    # The gate is written into dx as 0 and 1, so that nothing is allocated, unless dx still holds dout.
    gate = xp.greater(cache, 0, out=None if dx is dout else dx)
    return xp.multiply(dout, gate, out=dx)


@checked("out", "cache", check=lambda x, **_: checks.floating("leaky_relu_forward", x=x))
def leaky_relu_forward(
    backend: Backend, x: Array, *, out: Array | None = None, cache: Array | None = None
) -> tuple[Array, Array]:
    """Compute leaky ReLU, out = x where x > 0, else 0.01 x. Source: Maas, Hannun and Ng, 2013.

    Args and returns: as `relu_forward`; the cache is the derivative, 1 or 0.01.
    """
    xp = backend.xp
    slope = xp.greater(x, 0, out=xp.empty(x.shape, dtype=x.dtype) if cache is None else cache)
    xp.maximum(slope, LEAK, out=slope)  # 1 where x > 0, else 0.01
    return xp.multiply(x, slope, out=out), slope


@checked("dx", check=lambda dout, cache, **_: checks.gradient("leaky_relu_backward", dout, cache))
def leaky_relu_backward(backend: Backend, dout: Array, cache: Array, *, dx: Array | None = None) -> Array:
    """Return dx = dout where x > 0, else 0.01 dout; arguments as in `relu_backward`."""
    return backend.xp.multiply(dout, cache, out=dx)


@checked("out", "cache", check=lambda x, **_: checks.floating("elu_forward", x=x))
def elu_forward(
    backend: Backend, x: Array, *, out: Array | None = None, cache: Array | None = None
) -> tuple[Array, Array]:
    """Compute the exponential linear unit, alpha = 1: out = x where x > 0, else exp(x) - 1.

    Source: Clevert et al., "Fast and Accurate Deep Network Learning by Exponential Linear Units", 2016.

    Args and returns: as `relu_forward`; the cache is exp(min(x, 0)) - 1.
    """
    xp = backend.xp
    negative_part = xp.minimum(x, 0, out=cache)
    below = xp.expm1(negative_part, out=negative_part)  # exp(min(x, 0)) - 1
    out = xp.maximum(x, 0, out=out)
    return xp.add(out, below, out=out), below  # out = max(x, 0) + exp(min(x, 0)) - 1


@checked("dx", check=lambda dout, cache, **_: checks.gradient("elu_backward", dout, cache))
def elu_backward(backend: Backend, dout: Array, cache: Array, *, dx: Array | None = None) -> Array:
    """Return dx = dout where x > 0, else dout exp(x); arguments as in `relu_backward`."""
    xp = backend.xp
    slope = xp.add(cache, 1, out=None if dx is dout else dx)  # exp(min(x, 0))
    return xp.multiply(dout, slope, out=dx)


@checked("out", "cache", check=lambda x, **_: checks.floating("sigmoid_forward", x=x))
def sigmoid_forward(backend: Backend, x: Array, *, out: Array | None = None) -> tuple[Array, Array]:
    """Compute the logistic sigmoid, out = 1 / (1 + exp(-x)); no exponential overflows. Source: both courses.

    Args and returns: as `relu_forward`; the cache is out.
    """
    xp = backend.xp
    exponent = xp.negative(x, out=out)
    xp.minimum(exponent, LARGEST_EXPONENT[x.dtype.itemsize], out=exponent)
    power = xp.exp(exponent, out=exponent)  # exp(-x)
    out = xp.add(power, 1, out=power)
    xp.reciprocal(out, out=out)  # 1 / (1 + exp(-x))
    return out, out


@checked("dx", check=lambda dout, cache, **_: checks.gradient("sigmoid_backward", dout, cache))
def sigmoid_backward(backend: Backend, dout: Array, cache: Array, *, dx: Array | None = None) -> Array:
    """Return dx = dout out (1 - out); arguments as in `relu_backward`."""
    xp = backend.xp
    slope = xp.subtract(1, cache, out=None if dx is dout else dx)
    xp.multiply(slope, cache, out=slope)  # (1 - out) out
    return xp.multiply(dout, slope, out=dx)


@checked("out", "cache", check=lambda x, **_: checks.floating("tanh_forward", x=x))
def tanh_forward(backend: Backend, x: Array, *, out: Array | None = None) -> tuple[Array, Array]:
    """Compute out = tanh(x); arguments as in `relu_forward`, the cache is out. Source: both courses."""
    out = backend.xp.tanh(x, out=out)
    return out, out


@checked("dx", check=lambda dout, cache, **_: checks.gradient("tanh_backward", dout, cache))
def tanh_backward(backend: Backend, dout: Array, cache: Array, *, dx: Array | None = None) -> Array:
    """Return dx = dout (1 - out²); arguments as in `relu_backward`."""
    xp = backend.xp
    squares = xp.multiply(cache, cache, out=None if dx is dout else dx)
    slope = xp.subtract(1, squares, out=squares)  # 1 - out²
    return xp.multiply(dout, slope, out=dx)


@checked("out", "cache", check=lambda x, **_: checks.floating("softplus_forward", x=x))
def softplus_forward(
    backend: Backend, x: Array, *, out: Array | None = None, cache: Array | None = None
) -> tuple[Array, Array]:
    """Compute softplus, a smooth ReLU, out = log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|)): nothing overflows.

    Source: Dugas et al., "Incorporating Second-Order Functional Knowledge for Better Option Pricing", 2001.

    Args and returns: as `relu_forward`; the cache is the derivative, σ(x) = 1 - exp(-out).
    """
    xp = backend.xp
    exponent = xp.abs(x, out=cache)
    xp.negative(exponent, out=exponent)
    power = xp.exp(exponent, out=exponent)  # exp(-|x|)
    rest = xp.log1p(power, out=power)  # log(1 + exp(-|x|))
    out = xp.maximum(x, 0, out=out)
    xp.add(out, rest, out=out)  # out = max(x, 0) + log(1 + exp(-|x|))
    exponent = xp.negative(out, out=rest)
    slope = xp.expm1(exponent, out=exponent)
    xp.negative(slope, out=slope)  # σ(x) = 1 - exp(-out)
    return out, slope


@checked("dx", check=lambda dout, cache, **_: checks.gradient("softplus_backward", dout, cache))
def softplus_backward(backend: Backend, dout: Array, cache: Array, *, dx: Array | None = None) -> Array:
    """Return dx = dout σ(x); arguments as in `relu_backward`."""
    return backend.xp.multiply(dout, cache, out=dx)


@checked("out", "cache", check=lambda x, **_: checks.floating("silu_forward", x=x))
def silu_forward(
    backend: Backend, x: Array, *, out: Array | None = None, cache: GatedCache | None = None
) -> tuple[Array, GatedCache]:
    """Compute the sigmoid linear unit (swish), out = x σ(x). Source: Hendrycks and Gimpel, 2016; Elfwing et al., 2017.

    Args and returns: as `relu_forward`, with a `GatedCache`.
    """
    xp = backend.xp
    steepness, gate = (xp.empty(x.shape, dtype=x.dtype), None) if cache is None else cache
    steepness[...] = x
    gate, _ = sigmoid_forward.formula(backend, x, out=gate)
    return xp.multiply(x, gate, out=out), GatedCache(steepness, gate)


@checked("out", "cache", check=lambda x, **_: checks.floating("gelu_forward", x=x))
def gelu_forward(
    backend: Backend, x: Array, *, out: Array | None = None, cache: GatedCache | None = None
) -> tuple[Array, GatedCache]:
    """Compute the Gaussian error linear unit, tanh form: out = x/2 (1 + tanh(√(2/π) (x + 0.044715 x³))).

    Since (1 + tanh(a)) / 2 = σ(2a), this is x σ(h) with h = 2 √(2/π) (x + 0.044715 x³). It is within 0.0005 of the form
    with the error function, x Φ(x). Source: Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016; PyTorch's
    gelu(approximate="tanh").

    Args and returns: as `relu_forward`, with a `GatedCache`.
    """
    xp = backend.xp
    steepness, gate = (None, None) if cache is None else cache
    # Beyond 20 the gate is 0 or 1, and a larger cube could overflow.
    near = xp.minimum(x, 20, out=steepness)
    xp.maximum(near, -20, out=near)
    h = xp.multiply(near, near, out=gate)  # h = 2 √(2/π) (1 + 0.044715 x²) x
    xp.multiply(h, 2 * SPREAD * CUBIC, out=h)
    xp.add(h, 2 * SPREAD, out=h)
    xp.multiply(h, near, out=h)
    # x h' = 2 √(2/π) (x + 3 * 0.044715 x³) = 3 h - 4 √(2/π) x
    steepness = xp.multiply(near, -4 / 3 * SPREAD, out=near)
    xp.add(steepness, h, out=steepness)
    xp.multiply(steepness, 3, out=steepness)
    gate, _ = sigmoid_forward.formula(backend, h, out=h)
    return xp.multiply(x, gate, out=out), GatedCache(steepness, gate)


def _gated_backward(backend: Backend, dout: Array, cache: GatedCache, dx: Array | None) -> Array:
    """Return the gradient dx = dout σ (1 + (1 - σ) x h') of out = x σ(h)."""
    xp = backend.xp
    slope = xp.subtract(1, cache.gate, out=None if dx is dout else dx)
    xp.multiply(slope, cache.steepness, out=slope)
    xp.add(slope, 1, out=slope)
    xp.multiply(slope, cache.gate, out=slope)  # σ (1 + (1 - σ) x h')
    return xp.multiply(dout, slope, out=dx)


def _check_gated(function: str, dout: Array, cache: GatedCache) -> None:
    checks.cache_of(function, cache, GatedCache)
    checks.gradient(function, dout, cache.gate)


@checked("dx", check=lambda dout, cache, **_: _check_gated("silu_backward", dout, cache))
def silu_backward(backend: Backend, dout: Array, cache: GatedCache, *, dx: Array | None = None) -> Array:
    """Return dx = dout σ(x) (1 + x (1 - σ(x))); arguments as in `relu_backward`."""
    return _gated_backward(backend, dout, cache, dx)


@checked("dx", check=lambda dout, cache, **_: _check_gated("gelu_backward", dout, cache))
def gelu_backward(backend: Backend, dout: Array, cache: GatedCache, *, dx: Array | None = None) -> Array:
    """Return dx = dout σ(h) (1 + x h' (1 - σ(h))), exact for the tanh form; arguments as in `relu_backward`."""
    return _gated_backward(backend, dout, cache, dx)


def _check_maxout(x: Array, pieces: int = 2, **_: Any) -> None:
    checks.floating("maxout_forward", x=x)
    if isinstance(pieces, bool) or not isinstance(pieces, int):
        raise TypeError(f"maxout_forward: pieces: expected an integer, got {pieces!r}")
    if pieces < 2:
        raise ValueError(f"maxout_forward: pieces: expected 2 or more, got {pieces}")
    if x.ndim == 0 or x.shape[-1] % pieces:
        raise ValueError(f"maxout_forward: x: expected (..., {pieces} M) for {pieces} pieces, got shape {x.shape}")


@checked("out", "cache", check=_check_maxout)
def maxout_forward(
    backend: Backend, x: Array, pieces: int = 2, *, out: Array | None = None, cache: Array | None = None
) -> tuple[Array, Array]:
    """Compute maxout of k pieces, out[..., m] = max over p of x[..., p M + m]. Source: Goodfellow et al., 2013.

    Args:
        x: (..., k M): the first pieces of all M units, then the second ones, ...
        pieces: k, 2 or more.
        out: (..., M), filled if given; must not overlap x.
        cache: from an earlier call on the same shapes, filled again.

    Returns:
        out (..., M), and the cache (k, ..., M): whether a unit's piece p won. Of equal ones the first wins.
    """
    xp = backend.xp
    parts = pieces_of(x, pieces)
    out = xp.empty(parts[0].shape, dtype=x.dtype) if out is None else out
    cache = xp.empty((pieces, *out.shape), dtype=bool) if cache is None else cache
    won = [cache[p] for p in range(pieces)]
    out[...] = parts[0]
    won[0][...] = True
    for p in range(1, pieces):
        xp.greater(parts[p], out, out=won[p])
        xp.maximum(out, parts[p], out=out)
        for earlier in won[:p]:
            xp.greater(earlier, won[p], out=earlier)  # True only if it had won and does not lose to p
    return out, cache


def _check_maxout_backward(dout: Array, cache: Array, **_: Any) -> None:
    checks.floating("maxout_backward", dout=dout)
    checks.same_shape("maxout_backward", "dout", dout, cache.shape[1:], "the forward pass's result")


@checked("dx", check=_check_maxout_backward)
def maxout_backward(backend: Backend, dout: Array, cache: Array, *, dx: Array | None = None) -> Array:
    """Return dx[..., p M + m] = dout[..., m] where piece p won, else 0.

    Args:
        dout: (..., M). cache: from `maxout_forward`.
        dx: (..., k M), filled if given; must not overlap dout.
    """
    xp = backend.xp
    pieces = cache.shape[0]
    if dx is None:
        dx = xp.empty((*dout.shape[:-1], pieces * dout.shape[-1]), dtype=dout.dtype)
    for p, part in enumerate(pieces_of(dx, pieces)):
        xp.multiply(dout, cache[p], out=part)
    return dx


def pieces_of(x: Array, pieces: int) -> list[Array]:
    """Return views (..., M) of the k pieces of M maxout units in (..., k M)."""
    width = x.shape[-1] // pieces
    return [x[..., p * width : (p + 1) * width] for p in range(pieces)]


class Activation(NamedTuple):
    """Pair an activation's two functions with the initialiser that suits it (`fcnet.nn.init`).

    own_cache: the cache has arrays of its own, to be given back. pieces: columns that the function takes for one that
    it gives.
    """

    forward: Function
    backward: Function
    init: str
    own_cache: bool = False
    pieces: int = 1


@cache
def _maxout(pieces: int, init: str) -> Activation:
    @checked("out", "cache", check=lambda x, **_: _check_maxout(x, pieces))
    def maxout_of_pieces(
        backend: Backend, x: Array, *, out: Array | None = None, cache: Array | None = None
    ) -> tuple[Array, Array]:
        return maxout_forward.formula(backend, x, pieces, out=out, cache=cache)

    return Activation(maxout_of_pieces, maxout_backward, init, own_cache=True, pieces=pieces)


#: Activations by name.
ACTIVATIONS = {
    "relu": Activation(relu_forward, relu_backward, init="he"),
    "leaky_relu": Activation(leaky_relu_forward, leaky_relu_backward, init="he", own_cache=True),
    "elu": Activation(elu_forward, elu_backward, init="he", own_cache=True),
    "sigmoid": Activation(sigmoid_forward, sigmoid_backward, init="xavier"),
    "tanh": Activation(tanh_forward, tanh_backward, init="xavier"),
    # Xavier: the larger of two normal numbers has the mean square that each of them has.
    "maxout": _maxout(pieces=2, init="xavier"),
    "gelu": Activation(gelu_forward, gelu_backward, init="he", own_cache=True),
    "silu": Activation(silu_forward, silu_backward, init="he", own_cache=True),
    "softplus": Activation(softplus_forward, softplus_backward, init="he", own_cache=True),
    "identity": Activation(identity_forward, identity_backward, init="xavier"),
}


def activation_named(argument: str, name: str) -> Activation:
    """Return the activation of this name: one in `ACTIVATIONS`, or "maxout:3" for maxout of 3 pieces.

    Raises:
        ValueError: no such name; the message begins with `argument`.
    """
    if isinstance(name, str):
        if name in ACTIVATIONS:
            return ACTIVATIONS[name]
        kind, _, pieces = name.partition(":")
        if kind == "maxout" and pieces.isdecimal() and int(pieces) >= 2:
            return _maxout(int(pieces), ACTIVATIONS[kind].init)
    raise unknown(argument, name, ACTIVATIONS)


@checked("out", "cache")
def activate(
    backend: Backend, x: Array, activation: str, *, out: Array | None = None, cache: Any = None
) -> tuple[Array, Any]:
    """Compute out = a(x), a the activation of this name, looked up when a step is recorded; arguments as in a's own."""
    kind = activation_named("activation", activation)
    reused = {"cache": cache} if kind.own_cache else {}
    return kind.forward.formula(backend, x, out=out, **reused)
