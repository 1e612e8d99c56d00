"""Fusible units: what follows the matrix product of a hidden layer, as one function forward and one backward.

Composed of the small functions, so a unit has no formula of its own. A device kernel may replace a whole unit and pass
over the activations once instead of once per part.

Shapes: z (..., N, M), what the product x W gave; b, gamma, beta (..., M). With maxout of k pieces, these have k M
columns, and out has M.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fcnet.backends import MaskStream, accelerated, array_module, flush
from fcnet.backends.caches import EPS, MOMENTUM
from fcnet.functional import checks
from fcnet.functional.activation import Activation, activation_named, pieces_of
from fcnet.functional.affine import add_bias, bias_gradient
from fcnet.functional.dropout import dropout_backward, dropout_forward, dropout_mask
from fcnet.functional.norm import (
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
    without normalisation. b is the argument itself. x is what maxout acted on, None for the other activations, which
    act in place.
    """

    activation: str
    activation_cache: Any
    hidden: Array
    mask: Array | None
    norm: NormCache | None
    b: Array
    x: Array | None = None


def _check(
    function: str,
    z: Array,
    b: Array,
    *norm: Array,
    activation: str,
    keep_ratio: float,
    rng: MaskStream | None,
    **given: Any,
) -> None:
    """`norm` is gamma and beta in the units that normalise."""
    checks.floating(function, z=z, b=b, **dict(zip(("gamma", "beta"), norm, strict=False)))
    checks.rows(function, "z", z)
    for name, vector in zip(("b", "gamma", "beta"), (b, *norm), strict=False):
        checks.features(function, name, vector, z.shape[-1], "z", z.shape[:-2])
    pieces = activation_named(f"{function}: activation", activation).pieces
    if z.shape[-1] % pieces:
        raise ValueError(f"{function}: z: expected {pieces} M columns for {activation}, got shape {z.shape}")
    checks.fraction(function, "keep_ratio", keep_ratio)
    if keep_ratio < 1 and rng is None:
        raise ValueError(
            f"{function}: rng: expected a MaskStream because keep_ratio is {keep_ratio}, got None; "
            "use backends.MaskStream(backend, seed)"
        )
    _check_filled(function, z.shape, (*z.shape[:-1], z.shape[-1] // pieces), **given)


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
    """The end of each unit: activation, then dropout if any. x may be overwritten (it is from `_before_activation`)."""
    kind = activation_named("activation", activation)
    again = {"cache": cache.activation_cache} if kind.own_cache and cache is not None else {}
    in_place = kind.pieces == 1
    hidden, activation_cache = kind.forward(x, out=x if in_place else _before_dropout(out, cache), **again)
    kept = activation, activation_cache, hidden
    if rng is None or keep_ratio == 1:
        return hidden, UnitCache(*kept, None, norm, b, None if in_place else x)
    mask = dropout_mask(rng, keep_ratio, hidden.shape, hidden.dtype, out=None if cache is None else cache.mask)
    out, _ = dropout_forward.reference(hidden, mask, out=out)
    return out, UnitCache(*kept, mask, norm, b, None if in_place else x)


def _before_dropout(out: Array | None, cache: UnitCache | None) -> Array | None:
    """Where the activation goes: into the result itself, or into a buffer of its own if dropout follows."""
    return out if cache is None or cache.mask is None else cache.hidden


def _before_activation(kind: Activation, out: Array | None, cache: UnitCache | None) -> Array | None:
    """Where what the activation acts on goes: where the activation goes, unless it has another width."""
    if kind.pieces == 1:
        return _before_dropout(out, cache)
    return None if cache is None else cache.x


def _deactivate(dout: Array, cache: UnitCache, dx: Array | None) -> Array:
    """Back through dropout and activation; dx may be dout itself, but then the activation may allocate.

    Both act unit by unit, so their gradients may be applied in either order; with the activation's first, dx is free
    for what it writes on the way.
    """
    kind = activation_named("activation", cache.activation)
    dx = kind.backward(dout, cache.activation_cache, dx=dx)
    if cache.mask is not None:
        for part in [dx] if kind.pieces == 1 else pieces_of(dx, kind.pieces):
            dropout_backward.reference(part, cache.mask, dx=part)
    return dx


def _check_filled(
    function: str,
    wide: tuple[int, ...],
    shape: tuple[int, ...],
    *,
    hidden: Array | None = None,
    x_hat: Array | None = None,
    out: Array | None = None,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    **_: Any,
) -> None:
    """What a forward pass may be given to fill; `wide` is the shape of z, `shape` that of the result."""
    checks.outputs(function, wide, hidden=hidden, x_hat=x_hat)
    checks.outputs(function, shape, out=out)
    checks.outputs(function, (*wide[:-2], wide[-1]), running_mean=running_mean, running_var=running_var)
    if (running_mean is None) != (running_var is None):
        lacking = "running_var" if running_var is None else "running_mean"
        raise ValueError(f"{function}: {lacking}: expected both running statistics or neither, got None")


def _check_backward(
    function: str,
    dout: Array,
    cache: Any,
    *,
    dz: Array | None = None,
    work: Array | None = None,
    db: Array | None = None,
    dgamma: Array | None = None,
    dbeta: Array | None = None,
) -> None:
    if not hasattr(cache, "hidden"):  # a kernel's is another class
        checks.cache_of(function, cache, UnitCache)
    checks.gradient(function, dout, cache.hidden)
    pieces = activation_named("activation", cache.activation).pieces if isinstance(cache, UnitCache) else 1
    width = pieces * dout.shape[-1]
    checks.outputs(function, (*dout.shape[:-1], width), dz=dz, work=work)
    checks.outputs(
        function, cache.b.shape if isinstance(cache, UnitCache) else (width,), db=db, dgamma=dgamma, dbeta=dbeta
    )


def _norm(function: str, cache: UnitCache) -> NormCache:
    if cache.norm is None:
        raise ValueError(
            f"{function}_backward: cache: expected one of {function}_forward, got that of a unit without norm"
        )
    return cache.norm


@accelerated(
    "out",
    "cache",
    check=lambda z, b, activation="relu", keep_ratio=1.0, rng=None, **given: _check(
        "bias_activation_dropout_forward", z, b, activation=activation, keep_ratio=keep_ratio, rng=rng, **given
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
        activation: a name in `ACTIVATIONS`; "maxout:3" for maxout of 3 pieces.
        keep_ratio: probability to keep a unit; 1 for no dropout.
        rng: the bits of the dropout mask; None for no dropout.
        hidden: where z + b goes, and in place what the activation makes of it; may be z itself, which is then
            overwritten.
        out: like z, filled if given; without dropout it is `hidden`.
        cache: from an earlier call on the same shapes, whose arrays are filled again.

    Returns:
        out (..., N, M) and the cache.
    """
    if hidden is None:
        hidden = _before_activation(activation_named("activation", activation), out, cache)
    hidden = add_bias.reference(z, b, out=hidden)
    return _activate(hidden, b, activation, keep_ratio, rng, None, out, cache)


@accelerated(
    "dz",
    "db",
    check=lambda dout, cache, **given: _check_backward("bias_activation_dropout_backward", dout, cache, **given),
)
def bias_activation_dropout_backward(
    dout: Array, cache: UnitCache, *, dz: Array | None = None, db: Array | None = None
) -> tuple[Array, Array]:
    """Gradients of `bias_activation_dropout_forward`: dz = dout mask a'(z + b), db = Σ_n dz; dz may be dout itself.

    dz (..., N, M), db (..., M); a' is the activation's derivative.
    """
    dz = _deactivate(dout, cache, dz)
    return dz, bias_gradient(dz, cache.b, db)


@accelerated(
    "out",
    "cache",
    check=lambda z, b, gamma, beta, activation="relu", keep_ratio=1.0, rng=None, **given: _check(
        "batchnorm_activation_dropout_forward",
        z,
        b,
        gamma,
        beta,
        activation=activation,
        keep_ratio=keep_ratio,
        rng=rng,
        **given,
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

    Taking off the mean takes b off again, so b is not added in the first place: it only moves the running mean, which
    evaluation needs.
    """
    hidden, norm = batchnorm_forward.reference(
        z,
        gamma,
        beta,
        running_mean=running_mean,
        running_var=running_var,
        momentum=momentum,
        eps=eps,
        out=_before_activation(activation_named("activation", activation), out, cache),
        cache=_norm_buffers(_x_hat_buffer(x_hat, cache), cache),
    )
    if running_mean is not None:
        xp = array_module(z)
        xp.add(running_mean, xp.multiply(b, 1 - momentum), out=running_mean)
        flush(running_mean, work=norm.mean.reshape(running_mean.shape))
    return _activate(hidden, b, activation, keep_ratio, rng, norm, out, cache)


def _x_hat_buffer(x_hat: Array | None, cache: UnitCache | None) -> Array | None:
    return cache.norm.x_hat if x_hat is None and cache is not None and cache.norm is not None else x_hat


def _norm_buffers(x_hat: Array | None, cache: UnitCache | None) -> NormCache:
    """Buffers for a normalisation that writes to x_hat; what is None is allocated at the first call."""
    if cache is not None and cache.norm is not None:
        return cache.norm
    none: Any = None
    return NormCache(x_hat if x_hat is not None else none, none, none, none, none)


@accelerated(
    "dz",
    "db",
    "dgamma",
    "dbeta",
    check=lambda dout, cache, **given: _check_backward("batchnorm_activation_dropout_backward", dout, cache, **given),
)
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
    """Gradients of `batchnorm_activation_dropout_forward`: `batchnorm_backward` of dout mask a', and db = 0.

    db is zero, exactly: b changes nothing while training. (Summing dz would give rounding noise, which Adam, dividing
    by its own size, would turn into steps of the full learning rate.)

    Args:
        dout: (..., N, M).
        dz, db, dgamma, dbeta: filled if given; dz may be dout itself.
        work: scratch like dout; must not overlap dz.
    """
    norm = _norm("batchnorm_activation_dropout", cache)
    dx = _deactivate(dout, cache, work)
    dz, dgamma, dbeta = batchnorm_backward.reference(dx, norm, dx=dz, dgamma=dgamma, dbeta=dbeta)
    if db is None:
        db = array_module(dz).empty(cache.b.shape, dtype=dz.dtype)
    db[...] = 0
    return dz, db, dgamma, dbeta


@accelerated(
    "out",
    "cache",
    check=lambda z, b, gamma, beta, activation="relu", keep_ratio=1.0, rng=None, **given: _check(
        "layernorm_activation_dropout_forward",
        z,
        b,
        gamma,
        beta,
        activation=activation,
        keep_ratio=keep_ratio,
        rng=rng,
        **given,
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
    before = _before_activation(activation_named("activation", activation), out, cache)
    hidden, norm = layernorm_forward.reference(z, gamma, beta, eps=eps, out=before, cache=_norm_buffers(z, cache))
    return _activate(hidden, b, activation, keep_ratio, rng, norm, out, cache)


@accelerated(
    "dz",
    "db",
    "dgamma",
    "dbeta",
    check=lambda dout, cache, **given: _check_backward("layernorm_activation_dropout_backward", dout, cache, **given),
)
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
    """Gradients of `layernorm_activation_dropout_forward`: `layernorm_backward` of dout mask a', and db = Σ_n dz.

    Arguments as in the batch norm unit.
    """
    norm = _norm("layernorm_activation_dropout", cache)
    dx = _deactivate(dout, cache, work)
    dz, dgamma, dbeta = layernorm_backward.reference(dx, norm, dx=dz, dgamma=dgamma, dbeta=dbeta, work=dx)
    return dz, bias_gradient(dz, cache.b, db), dgamma, dbeta
