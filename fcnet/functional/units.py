"""Fusible units: what follows the matrix product of a hidden layer, as one function forward and one backward.

Composed of the small functions, so a unit has no formula of its own. A device kernel may replace a whole unit and pass
over the activations once instead of once per part.

Shapes: z (..., N, M), what the product x W gave; b, gamma, beta (..., M).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from backends import MaskStream, accelerated
from fcnet.functional import checks
from fcnet.functional.activation import ACTIVATIONS
from fcnet.functional.affine import add_bias, bias_gradient
from fcnet.functional.dropout import dropout_backward, dropout_forward, dropout_mask
from fcnet.functional.norm import (
    EPS,
    MOMENTUM,
    NormCache,
    batchnorm_backward,
    batchnorm_forward,
    layernorm_backward,
    layernorm_forward,
)

Array = Any


class UnitCache(NamedTuple):
    """What the backward pass of a unit needs; a repeated forward pass fills the same arrays again.

    hidden is the activation before dropout (the output itself without dropout), mask None without dropout, norm None
    without normalisation. b is the argument itself.
    """

    activation: str
    activation_cache: Any
    hidden: Array
    mask: Array | None
    norm: NormCache | None
    b: Array


def _check(function: str, z: Array, b: Array, keep_ratio: float, rng: MaskStream | None) -> None:
    checks.floating(function, z=z, b=b)
    checks.rows(function, "z", z)
    checks.features(function, "b", b, z.shape[-1], "z", z.shape[:-2])
    checks.fraction(function, "keep_ratio", keep_ratio)
    if keep_ratio < 1 and rng is None:
        raise ValueError(
            f"{function}: rng: expected a MaskStream because keep_ratio is {keep_ratio}, got None; "
            "use backends.MaskStream(backend, seed)"
        )


def _activate(
    x: Array,
    b: Array,
    activation: str,
    keep_ratio: float,
    rng: MaskStream | None,
    norm: NormCache | None,
    out: Array | None,
    cache: UnitCache | None,
) -> tuple[Array, UnitCache]:
    """The end of each unit: activation, then dropout if any. x may be overwritten (it is cache.hidden or out)."""
    forward = ACTIVATIONS[activation].forward
    hidden, activation_cache = forward(x, out=x)
    if rng is None or keep_ratio == 1:
        return hidden, UnitCache(activation, activation_cache, hidden, None, norm, b)
    mask = dropout_mask(
        rng, keep_ratio, hidden.shape, hidden.dtype, out=None if cache is None else cache.mask
    )
    out, _ = dropout_forward.reference(hidden, mask, out=out)
    return out, UnitCache(activation, activation_cache, hidden, mask, norm, b)


def _before_dropout(out: Array | None, cache: UnitCache | None) -> Array | None:
    """Where the activation goes: into the result itself, or into a buffer of its own if dropout follows."""
    return out if cache is None or cache.mask is None else cache.hidden


def _deactivate(dout: Array, cache: UnitCache, dx: Array | None) -> Array:
    """Back through dropout and activation; dx may be dout itself."""
    backward = ACTIVATIONS[cache.activation].backward
    if cache.mask is None:
        return backward(dout, cache.activation_cache, dx=dx)
    dx = dropout_backward.reference(dout, cache.mask, dx=dx)
    return backward(dx, cache.activation_cache, dx=dx)


@accelerated(
    "out",
    "cache",
    check=lambda z, b, activation="relu", keep_ratio=1.0, rng=None, **_: _check(
        "bias_activation_dropout_forward", z, b, keep_ratio, rng
    ),
)
def bias_activation_dropout_forward(
    z: Array,
    b: Array,
    activation: str = "relu",
    keep_ratio: float = 1.0,
    rng: MaskStream | None = None,
    *,
    hidden: Array | None = None,
    out: Array | None = None,
    cache: UnitCache | None = None,
) -> tuple[Array, UnitCache]:
    """out = dropout(activation(z + b)).

    Args:
        z: (..., N, M). b: (..., M).
        activation: a name in `ACTIVATIONS`.
        keep_ratio: probability to keep a unit; 1 for no dropout.
        rng: the bits of the dropout mask; None for no dropout.
        hidden: where the activation goes before dropout; may be z itself, which is then overwritten.
        out: like z, filled if given; without dropout it is `hidden`.
        cache: from an earlier call on the same shapes, whose arrays are filled again.

    Returns:
        out (..., N, M) and the cache.
    """
    hidden = add_bias.reference(z, b, out=_before_dropout(out, cache) if hidden is None else hidden)
    return _activate(hidden, b, activation, keep_ratio, rng, None, out, cache)


@accelerated("dz", "db")
def bias_activation_dropout_backward(
    dout: Array, cache: UnitCache, *, dz: Array | None = None, db: Array | None = None
) -> tuple[Array, Array]:
    """Gradients of `bias_activation_dropout_forward`: dz (..., N, M) and db (..., M); dz may be dout itself."""
    dz = _deactivate(dout, cache, dz)
    return dz, bias_gradient(dz, cache.b, db)


@accelerated(
    "out",
    "cache",
    check=lambda z, b, gamma, beta, activation="relu", keep_ratio=1.0, rng=None, **_: _check(
        "batchnorm_activation_dropout_forward", z, b, keep_ratio, rng
    ),
)
def batchnorm_activation_dropout_forward(
    z: Array,
    b: Array,
    gamma: Array,
    beta: Array,
    activation: str = "relu",
    keep_ratio: float = 1.0,
    rng: MaskStream | None = None,
    *,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    momentum: float = MOMENTUM,
    eps: float = EPS,
    x_hat: Array | None = None,
    out: Array | None = None,
    cache: UnitCache | None = None,
) -> tuple[Array, UnitCache]:
    """out = dropout(activation(batchnorm(z + b))), with the batch's statistics (training).

    Args:
        x_hat: where the normalised values go; may be z itself, which is then overwritten.
        out: like z, filled if given; must not overlap z.

    The other arguments are those of `batchnorm_forward` and `bias_activation_dropout_forward`.
    """
    z = add_bias.reference(z, b, out=_x_hat_buffer(x_hat, cache))
    hidden, norm = batchnorm_forward.reference(
        z,
        gamma,
        beta,
        running_mean=running_mean,
        running_var=running_var,
        momentum=momentum,
        eps=eps,
        out=_before_dropout(out, cache),
        cache=_norm_buffers(z, cache),
    )
    return _activate(hidden, b, activation, keep_ratio, rng, norm, out, cache)


def _x_hat_buffer(x_hat: Array | None, cache: UnitCache | None) -> Array | None:
    return cache.norm.x_hat if x_hat is None and cache is not None and cache.norm is not None else x_hat


def _norm_buffers(z: Array, cache: UnitCache | None) -> NormCache:
    """Buffers for a normalisation that writes x̂ over z; the small ones are allocated at the first call."""
    if cache is not None and cache.norm is not None:
        return cache.norm
    none: Any = None
    return NormCache(z, none, none, none, none)


@accelerated("dz", "db", "dgamma", "dbeta")
def batchnorm_activation_dropout_backward(
    dout: Array,
    cache: UnitCache,
    *,
    dz: Array | None = None,
    db: Array | None = None,
    dgamma: Array | None = None,
    dbeta: Array | None = None,
    work: Array | None = None,
) -> tuple[Array, Array, Array, Array]:
    """Gradients of `batchnorm_activation_dropout_forward`.

    Args:
        dout: (..., N, M).
        dz, db, dgamma, dbeta: filled if given; dz must not overlap dout.
        work: scratch like dout; may be dout itself, whose values are then lost.
    """
    assert cache.norm is not None
    dx = _deactivate(dout, cache, work)
    dz, dgamma, dbeta = batchnorm_backward.reference(dx, cache.norm, dx=dz, dgamma=dgamma, dbeta=dbeta)
    return dz, bias_gradient(dz, cache.b, db), dgamma, dbeta


@accelerated(
    "out",
    "cache",
    check=lambda z, b, gamma, beta, activation="relu", keep_ratio=1.0, rng=None, **_: _check(
        "layernorm_activation_dropout_forward", z, b, keep_ratio, rng
    ),
)
def layernorm_activation_dropout_forward(
    z: Array,
    b: Array,
    gamma: Array,
    beta: Array,
    activation: str = "relu",
    keep_ratio: float = 1.0,
    rng: MaskStream | None = None,
    *,
    eps: float = EPS,
    x_hat: Array | None = None,
    out: Array | None = None,
    cache: UnitCache | None = None,
) -> tuple[Array, UnitCache]:
    """out = dropout(activation(layernorm(z + b))); arguments as in the batch norm unit."""
    z = add_bias.reference(z, b, out=_x_hat_buffer(x_hat, cache))
    hidden, norm = layernorm_forward.reference(
        z, gamma, beta, eps=eps, out=_before_dropout(out, cache), cache=_norm_buffers(z, cache)
    )
    return _activate(hidden, b, activation, keep_ratio, rng, norm, out, cache)


@accelerated("dz", "db", "dgamma", "dbeta")
def layernorm_activation_dropout_backward(
    dout: Array,
    cache: UnitCache,
    *,
    dz: Array | None = None,
    db: Array | None = None,
    dgamma: Array | None = None,
    dbeta: Array | None = None,
    work: Array | None = None,
) -> tuple[Array, Array, Array, Array]:
    """Gradients of `layernorm_activation_dropout_forward`; arguments as in the batch norm unit."""
    assert cache.norm is not None
    dx = _deactivate(dout, cache, work)
    dz, dgamma, dbeta = layernorm_backward.reference(
        dx, cache.norm, dx=dz, dgamma=dgamma, dbeta=dbeta, work=dx
    )
    return dz, bias_gradient(dz, cache.b, db), dgamma, dbeta
