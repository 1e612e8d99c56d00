"""Fused hidden layers: what follows the matrix product, as one function forward and one backward.

They are composed of the small functions of `affine`, `norm`, `activation` and `dropout`; no formula is here. A kernel
may replace such a function as a whole, and pass over the activations once instead of once per part: see
backends/cpu/hidden.py and backends/cuda/unit.cu.

Shapes: z (..., N, M), the product x W; b, gamma, beta (..., M). With maxout of k pieces, these have k M
columns, and out has M.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from fcnet.backends import Backend, MaskStream, accelerated, flush
from fcnet.backends.caches import EPS, MOMENTUM, HiddenCache, NormCache
from fcnet.functional import checks
from fcnet.functional.activation import activation_named, pieces_of
from fcnet.functional.affine import add_bias, bias_gradient
from fcnet.functional.dropout import dropout_backward, dropout_forward, dropout_mask
from fcnet.functional.norm import batchnorm_backward, batchnorm_forward, layernorm_backward, layernorm_forward

Array = Any

_STATISTICS = {"batchnorm": -2, "layernorm": -1}  # the axis over which a normalisation takes its mean


def _check_bias(
    z: Array, b: Array, activation: str = "relu", keep_ratio: float = 1.0, rng: MaskStream | None = None, **given: Any
) -> None:
    _check("bias", z, (b,), activation, keep_ratio, rng, **given)


def _check_norm(
    kind: str, z: Array, b: Array, gamma: Array, beta: Array, activation: str = "relu", keep_ratio: float = 1.0,
    rng: MaskStream | None = None, **given: Any,
) -> None:  # fmt: skip
    _check(kind, z, (b, gamma, beta), activation, keep_ratio, rng, **given)


def _check(
    kind: str,
    z: Array,
    vectors: tuple[Array, ...],
    activation: str,
    keep_ratio: float,
    rng: MaskStream | None,
    *,
    cache: HiddenCache | None = None,
    hidden: Array | None = None,
    x_hat: Array | None = None,
    out: Array | None = None,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    **_: Any,
) -> None:
    """Check a forward pass; `kind` is "bias", "batchnorm" or "layernorm", `vectors` are b, or b, gamma and beta."""
    function = f"{kind}_activation_dropout_forward"
    named = dict(zip(("b", "gamma", "beta"), vectors, strict=False))
    checks.floating(function, z=z, **named)
    checks.rows(function, "z", z)
    for name, vector in named.items():
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
    shape = (*z.shape[:-1], z.shape[-1] // pieces)
    checks.outputs(function, z.shape, hidden=hidden, x_hat=x_hat)
    checks.outputs(function, shape, out=out)
    checks.outputs(function, (*z.shape[:-2], z.shape[-1]), running_mean=running_mean, running_var=running_var)
    if (running_mean is None) != (running_var is None):
        lacking = "running_var" if running_var is None else "running_mean"
        raise ValueError(f"{function}: {lacking}: expected both running statistics or neither, got None")
    if cache is not None:
        _check_refill(kind, z, activation, shape, cache)


def _check_refill(kind: str, z: Array, activation: str, shape: tuple[int, ...], cache: HiddenCache) -> None:
    """Check a cache that is to be filled again: its arrays are written to, by kernels without looking."""
    function = f"{kind}_activation_dropout_forward"
    checks.cache_of(function, cache, HiddenCache)
    alike = cache.activation == activation and cache.hidden.shape == shape and cache.hidden.dtype == z.dtype
    norm = cache.norm
    if kind == "bias" or norm is None:
        alike &= norm is None and kind == "bias"
    else:
        alike &= norm.x_hat.shape == z.shape and norm.inv_std.shape == _statistics_shape(kind, z.shape)
    if not alike:
        raise ValueError(
            f"{function}: cache: expected one that it returned for arguments like these, {activation} with z of "
            f"{z.shape} and {z.dtype}, got one of {cache.activation}, {cache.hidden.shape} and {cache.hidden.dtype}, "
            "or of another normalization; give none, or keep one for each"
        )


def _statistics_shape(kind: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    axis = _STATISTICS[kind] % len(shape)
    return (*shape[:axis], 1, *shape[axis + 1 :])


def _check_backward(
    kind: str,
    dout: Array,
    cache: HiddenCache,
    *,
    dz: Array | None = None,
    work: Array | None = None,
    db: Array | None = None,
    dgamma: Array | None = None,
    dbeta: Array | None = None,
) -> None:
    """Check a backward pass; `kind` as in `_check`."""
    function = f"{kind}_activation_dropout_backward"
    checks.cache_of(function, cache, HiddenCache)
    if kind != "bias" and (
        cache.norm is None or cache.norm.inv_std.shape != _statistics_shape(kind, cache.norm.x_hat.shape)
    ):
        found = "a layer without norm" if cache.norm is None else "another normalization"
        raise ValueError(f"{function}: cache: expected one of {kind}_activation_dropout_forward, got that of {found}")
    checks.gradient(function, dout, cache.hidden)
    pieces = activation_named("activation", cache.activation).pieces
    checks.outputs(function, (*dout.shape[:-1], pieces * dout.shape[-1]), dz=dz, work=work)
    checks.outputs(function, cache.b.shape, db=db, dgamma=dgamma, dbeta=dbeta)


def _norm_to_fill(x_hat: Array | None, cache: HiddenCache | None) -> NormCache:
    """Return buffers for a normalisation that writes to x_hat; what is None is allocated at the first call."""
    none: Any = None
    if cache is None or cache.norm is None:
        return NormCache(x_hat if x_hat is not None else none, none, none)
    return cache.norm if x_hat is None else cache.norm._replace(x_hat=x_hat)


def _activation_input(activation: str, out: Array | None, cache: HiddenCache | None, dropped: bool) -> Array | None:
    """Return where to put what the activation acts on: where its result goes, unless that has another width."""
    if activation_named("activation", activation).pieces > 1:
        return None if cache is None else cache.x
    return _activation_output(out, cache, dropped)


def _activation_output(out: Array | None, cache: HiddenCache | None, dropped: bool) -> Array | None:
    """Return where the activation's result goes: into `out`, or into a buffer of its own if dropout follows."""
    if not dropped:
        return out
    return cache.hidden if cache is not None and cache.needs_mask else None


def _drops(keep_ratio: float, rng: MaskStream | None) -> bool:
    return rng is not None and keep_ratio != 1


def _activate(
    backend: Backend,
    x: Array,
    b: Array,
    activation: str,
    keep_ratio: float,
    rng: MaskStream | None,
    norm: NormCache | None,
    out: Array | None,
    cache: HiddenCache | None,
) -> tuple[Array, HiddenCache]:
    """Return the end of each layer: activation, then dropout if any. x may be overwritten (see `_activation_input`)."""
    kind = activation_named("activation", activation)
    in_place = kind.pieces == 1
    reused = {"cache": cache.activation_cache} if kind.own_cache and cache is not None else {}
    dropped = _drops(keep_ratio, rng)
    buffer = x if in_place else _activation_output(out, cache, dropped)
    hidden, activation_cache = kind.forward.formula(backend, x, out=buffer, **reused)
    mask = None
    if rng is not None and dropped:
        buffer = cache.mask if cache is not None and cache.needs_mask else None
        mask = dropout_mask(rng, keep_ratio, hidden.shape, hidden.dtype, out=buffer)
        out, _ = dropout_forward.formula(backend, hidden, mask, out=out)
    result = hidden if mask is None else out
    return result, HiddenCache(activation, activation_cache, hidden, mask, norm, b, None if in_place else x)


def _deactivate(backend: Backend, dout: Array, cache: HiddenCache, dx: Array | None) -> Array:
    """Return the gradient before dropout and activation; dx may be dout, but then the activation may allocate.

    Both act element by element, so their gradients may be applied in either order; with the activation's first, dx is
    free for what it writes on the way.
    """
    kind = activation_named("activation", cache.activation)
    dx = kind.backward.formula(backend, dout, cache.activation_cache, dx=dx)
    if cache.mask is not None:
        for part in [dx] if kind.pieces == 1 else pieces_of(dx, kind.pieces):
            dropout_backward.formula(backend, part, cache.mask, dx=part)
    return dx


@accelerated("out", "cache", check=_check_bias)
def bias_activation_dropout_forward(
    backend: Backend,
    z: Array,
    b: Array,
    activation: str = "relu",
    keep_ratio: float = 1.0,
    rng: MaskStream | None = None,
    *,
    hidden: Array | None = None,
    out: Array | None = None,
    cache: HiddenCache | None = None,
) -> tuple[Array, HiddenCache]:
    """Compute out = dropout(activation(z + b)).

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
        hidden = _activation_input(activation, out, cache, _drops(keep_ratio, rng))
    hidden = add_bias.formula(backend, z, b, out=hidden)
    return _activate(backend, hidden, b, activation, keep_ratio, rng, None, out, cache)


@accelerated("dz", "db", check=partial(_check_backward, "bias"))
def bias_activation_dropout_backward(
    backend: Backend, dout: Array, cache: HiddenCache, *, dz: Array | None = None, db: Array | None = None
) -> tuple[Array, Array]:
    """Return the gradients of `bias_activation_dropout_forward`: dz = dout mask a'(z + b), db = Σ_n dz.

    dz (..., N, M), which may be dout itself, db (..., M); a' is the activation's derivative.
    """
    dz = _deactivate(backend, dout, cache, dz)
    return dz, bias_gradient.formula(backend, dz, cache.b, db)


@accelerated("out", "cache", check=partial(_check_norm, "batchnorm"))
def batchnorm_activation_dropout_forward(
    backend: Backend,
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
    cache: HiddenCache | None = None,
) -> tuple[Array, HiddenCache]:
    """Compute out = dropout(activation(batchnorm(z + b))), with the batch's statistics (training).

    Args:
        x_hat: where the normalised values go; may be z itself, which is then overwritten.
        out: like z, filled if given; must not overlap z.

    The other arguments are those of `batchnorm_forward` and `bias_activation_dropout_forward`.

    Taking off the mean takes b off again, so b is not added in the first place: it only moves the running mean, which
    evaluation needs.
    """
    hidden, norm = batchnorm_forward.formula(
        backend,
        z,
        gamma,
        beta,
        running_mean=running_mean,
        running_var=running_var,
        momentum=momentum,
        eps=eps,
        out=_activation_input(activation, out, cache, _drops(keep_ratio, rng)),
        cache=_norm_to_fill(x_hat, cache),
    )
    if running_mean is not None:
        xp = backend.xp
        xp.add(running_mean, xp.multiply(b, 1 - momentum), out=running_mean)
        flush(backend, running_mean, work=norm.mean.reshape(running_mean.shape))
    return _activate(backend, hidden, b, activation, keep_ratio, rng, norm, out, cache)


@accelerated("dz", "db", "dgamma", "dbeta", check=partial(_check_backward, "batchnorm"))
def batchnorm_activation_dropout_backward(
    backend: Backend,
    dout: Array,
    cache: HiddenCache,
    *,
    dz: Array | None = None,
    db: Array | None = None,
    dgamma: Array | None = None,
    dbeta: Array | None = None,
    work: Array | None = None,
) -> tuple[Array, Array, Array, Array]:
    """Return the gradients of `batchnorm_activation_dropout_forward`: `batchnorm_backward` of dout mask a', and db = 0.

    db is zero, exactly: b changes nothing while training. (Summing dz would give rounding noise, which Adam, dividing
    by its own size, would turn into steps of the full learning rate.)

    Args:
        dout: (..., N, M).
        dz, db, dgamma, dbeta: filled if given; dz may be dout itself.
        work: scratch like dout; must not overlap dz.
    """
    dx = _deactivate(backend, dout, cache, work)
    dz, dgamma, dbeta = batchnorm_backward.formula(backend, dx, cache.norm, dx=dz, dgamma=dgamma, dbeta=dbeta)
    if db is None:
        db = backend.xp.empty(cache.b.shape, dtype=dz.dtype)
    db[...] = 0
    return dz, db, dgamma, dbeta


@accelerated("out", "cache", check=partial(_check_norm, "layernorm"))
def layernorm_activation_dropout_forward(
    backend: Backend,
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
    cache: HiddenCache | None = None,
) -> tuple[Array, HiddenCache]:
    """Compute out = dropout(activation(layernorm(z + b))); arguments as in `batchnorm_activation_dropout_forward`."""
    buffers = _norm_to_fill(x_hat, cache)
    z = add_bias.formula(backend, z, b, out=buffers.x_hat)
    hidden, norm = layernorm_forward.formula(
        backend,
        z,
        gamma,
        beta,
        eps=eps,
        out=_activation_input(activation, out, cache, _drops(keep_ratio, rng)),
        cache=buffers._replace(x_hat=z),
    )
    return _activate(backend, hidden, b, activation, keep_ratio, rng, norm, out, cache)


@accelerated("dz", "db", "dgamma", "dbeta", check=partial(_check_backward, "layernorm"))
def layernorm_activation_dropout_backward(
    backend: Backend,
    dout: Array,
    cache: HiddenCache,
    *,
    dz: Array | None = None,
    db: Array | None = None,
    dgamma: Array | None = None,
    dbeta: Array | None = None,
    work: Array | None = None,
) -> tuple[Array, Array, Array, Array]:
    """Return gradients of `layernorm_activation_dropout_forward`: `layernorm_backward` of dout mask a', db = Σ_n dz.

    Arguments as in `batchnorm_activation_dropout_backward`.
    """
    dx = _deactivate(backend, dout, cache, work)
    dz, dgamma, dbeta = layernorm_backward.formula(backend, dx, cache.norm, dx=dz, dgamma=dgamma, dbeta=dbeta, work=dx)
    return dz, bias_gradient.formula(backend, dz, cache.b, db), dgamma, dbeta
