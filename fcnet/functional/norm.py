"""Batch and layer normalisation: x̂ = (x - μ) / sqrt(σ² + ε), out = γ x̂ + β.

Batch norm takes μ and σ² over the N rows of a batch, per feature (Ioffe and Szegedy, 2015); layer norm over the D
features of a row (Ba, Kiros and Hinton, 2016). Variances are biased (divided by N or D). With P a projection that
removes from a gradient its mean and its part along x̂, both backward passes are dx = P(γ dout) / sqrt(σ² + ε).

In training, kernels replace not these functions but the fused hidden layers of `hidden.py` that contain them.

Shapes: x (..., N, D), gamma and beta (..., D).
"""

from __future__ import annotations

from typing import Any

from fcnet.backends import Backend, checked, flush
from fcnet.backends.caches import EPS, MOMENTUM, NormCache
from fcnet.functional import checks
from fcnet.functional.affine import bias_gradient, per_row

Array = Any


def _check(function: str, x: Array, gamma: Array, beta: Array) -> None:
    checks.floating(function, x=x, gamma=gamma, beta=beta)
    checks.rows(function, "x", x)
    checks.features(function, "gamma", gamma, x.shape[-1], "x", x.shape[:-2])
    checks.same_shape(function, "beta", beta, gamma.shape, "gamma")


def _check_batchnorm(
    x: Array,
    gamma: Array,
    beta: Array,
    *,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    **_: Any,
) -> None:
    _check("batchnorm_forward", x, gamma, beta)
    for name, running in (("running_mean", running_mean), ("running_var", running_var)):
        if running is not None:
            checks.floating("batchnorm_forward", x=x, **{name: running})
            checks.same_shape("batchnorm_forward", name, running, (*x.shape[:-2], x.shape[-1]), "x without rows")


def _check_inference(x: Array, gamma: Array, beta: Array, running_mean: Array, running_var: Array, **_: Any) -> None:
    _check("batchnorm_inference", x, gamma, beta)
    checks.floating("batchnorm_inference", x=x, running_mean=running_mean, running_var=running_var)
    for name, running in (("running_mean", running_mean), ("running_var", running_var)):
        checks.features("batchnorm_inference", name, running, x.shape[-1], "x", x.shape[:-2])


def _check_backward(function: str, dout: Array, cache: Any) -> None:
    checks.cache_of(function, cache, NormCache)
    checks.gradient(function, dout, cache.x_hat)


def _normalize(
    backend: Backend,
    x: Array,
    gamma: Array,
    beta: Array,
    axis: int,
    eps: float,
    out: Array | None,
    cache: NormCache | None,
) -> tuple[Array, NormCache]:
    """Normalise over one axis. `out` and the arrays of `cache` are filled if given; x may be cache.x_hat.

    Values are measured from the first one, x₀: μ = x₀ + δ and x - μ = (x - x₀) - δ with δ = mean(x - x₀). So the
    rounding does not grow with the mean, and values that are all equal are exactly 0 once their mean is subtracted.
    """
    xp = backend.xp
    x_hat, inv_std, _, mean, var = cache if cache is not None else (None,) * 5
    first = x[..., :1, :] if axis == -2 else x[..., :1]
    if mean is None:
        mean = xp.empty(first.shape, dtype=x.dtype)
    mean[...] = first
    centred = xp.subtract(x, mean, out=x_hat)
    delta = xp.mean(centred, axis=axis, keepdims=True, out=var)  # δ = mean(x - x₀), where the variance goes later
    xp.subtract(centred, delta, out=centred)  # centred = x - μ
    xp.add(mean, delta, out=mean)  # μ = x₀ + δ
    squares = xp.multiply(centred, centred, out=out)
    var = xp.mean(squares, axis=axis, keepdims=True, out=delta)  # σ² = mean((x - μ)²)
    inv_std = xp.add(var, eps, out=inv_std)  # 1 / sqrt(σ² + ε), in three steps
    xp.sqrt(inv_std, out=inv_std)
    xp.reciprocal(inv_std, out=inv_std)
    x_hat = xp.multiply(centred, inv_std, out=centred)
    out = xp.multiply(x_hat, per_row(gamma), out=squares)
    xp.add(out, per_row(beta), out=out)  # out = γ x̂ + β
    return out, NormCache(x_hat, inv_std, gamma, mean, var)


@checked("out", "cache", check=_check_batchnorm)
def batchnorm_forward(
    backend: Backend,
    x: Array,
    gamma: Array,
    beta: Array,
    *,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    momentum: float = MOMENTUM,
    eps: float = EPS,
    out: Array | None = None,
    cache: NormCache | None = None,
) -> tuple[Array, NormCache]:
    """Compute batch normalisation in training: out = γ x̂ + β, x̂ = (x - μ) / sqrt(σ² + ε), μ and σ² over the N rows.

    Source: Ioffe and Szegedy, "Batch Normalization", 2015; the running statistics as in CS231n.

    Args:
        x: (..., N, D). gamma, beta: (..., D).
        running_mean, running_var: (..., D), updated in place if given: momentum * old + (1 - momentum) * batch's,
            flushed to 0 below the smallest normal number.
        momentum: weight of the old running value.
        eps: added to the variance.
        out: like x, filled if given; must not overlap x.
        cache: from an earlier call on the same shapes, whose arrays are filled again. x may be its `x_hat`, which
            then overwrites x.

    Returns:
        out (..., N, D) and the cache.

    Raises:
        ValueError: shapes do not fit, or no row. TypeError: not floating, or mixed dtypes.
    """
    out, cache = _normalize(backend, x, gamma, beta, -2, eps, out, cache)
    xp = backend.xp
    for running, batch in ((running_mean, cache.mean), (running_var, cache.var)):
        if running is not None:
            row = running.reshape(batch.shape)
            xp.multiply(row, momentum, out=row)
            share = xp.multiply(batch, 1 - momentum, out=batch)
            xp.add(row, share, out=row)  # row = momentum row + (1 - momentum) batch
            flush(backend, row, work=share)
    return out, cache


@checked("out", check=_check_inference)
def batchnorm_inference(
    backend: Backend,
    x: Array,
    gamma: Array,
    beta: Array,
    running_mean: Array,
    running_var: Array,
    *,
    eps: float = EPS,
    out: Array | None = None,
) -> Array:
    """Compute batch normalisation in evaluation: out = γ (x - running_mean) / sqrt(running_var + ε) + β.

    `out` may be x itself.

    Source: Ioffe and Szegedy, "Batch Normalization", 2015.
    """
    xp = backend.xp
    scale = gamma / xp.sqrt(running_var + eps)
    centred = xp.subtract(x, per_row(running_mean), out=out)
    out = xp.multiply(centred, per_row(scale), out=centred)
    return xp.add(out, per_row(beta), out=out)  # out = γ (x - μ) / sqrt(σ² + ε) + β, with the running μ and σ²


@checked("dx", "dgamma", "dbeta", check=lambda dout, cache, **_: _check_backward("batchnorm_backward", dout, cache))
def batchnorm_backward(
    backend: Backend,
    dout: Array,
    cache: NormCache,
    *,
    dx: Array | None = None,
    dgamma: Array | None = None,
    dbeta: Array | None = None,
) -> tuple[Array, Array, Array]:
    """Return the gradients of `batchnorm_forward`, simplified on paper.

    dβ = Σ dout, dγ = Σ dout x̂, dx = γ / sqrt(σ² + ε) (dout - dβ/N - x̂ dγ/N), sums over the N rows.

    Args:
        dout: (..., N, D). cache: from `batchnorm_forward`.
        dx, dgamma, dbeta: filled if given; dx must not overlap dout.

    Returns:
        dx (..., N, D), dgamma (..., D), dbeta (..., D).
    """
    x_hat, inv_std, gamma, _, _ = cache
    xp = backend.xp
    count = x_hat.shape[-2]
    dbeta = bias_gradient.formula(backend, dout, gamma, dbeta)
    products = xp.multiply(dout, x_hat, out=dx)
    dgamma = bias_gradient.formula(backend, products, gamma, dgamma)
    if gamma.ndim == 1 and dout.ndim > 2:  # one gamma for several batches: each batch has sums of its own
        mean_product, mean_dout = xp.mean(products, axis=-2, keepdims=True), xp.mean(dout, axis=-2, keepdims=True)
    else:
        mean_product, mean_dout = per_row(dgamma) / count, per_row(dbeta) / count
    along_x_hat = xp.multiply(x_hat, mean_product, out=products)
    dx = xp.subtract(dout, along_x_hat, out=along_x_hat)  # dx = γ / sqrt(σ² + ε) (dout - x̂ dγ/N - dβ/N)
    xp.subtract(dx, mean_dout, out=dx)
    return xp.multiply(dx, per_row(gamma) * inv_std, out=dx), dgamma, dbeta


@checked(
    "dx", "dgamma", "dbeta", check=lambda dout, cache, **_: _check_backward("batchnorm_backward_stepwise", dout, cache)
)
def batchnorm_backward_stepwise(backend: Backend, dout: Array, cache: NormCache) -> tuple[Array, Array, Array]:
    """Return the gradients of `batchnorm_forward`, node by node of its computational graph, as CS231n teaches it.

    The reading version of `batchnorm_backward`: each line undoes one line of the forward pass, from
    dx̂ = γ dout by dσ² = Σ dx̂ (x - μ) (-1/2) (σ² + ε)^(-3/2) to dx.

    Source: Ioffe and Szegedy, "Batch Normalization", 2015; CS231n, assignment 2.
    """
    x_hat, inv_std, gamma, _, _ = cache
    xp = backend.xp
    count = x_hat.shape[-2]
    centred = x_hat / inv_std
    dbeta = bias_gradient.formula(backend, dout, gamma)  # out = gamma * x_hat + beta
    dgamma = bias_gradient.formula(backend, dout * x_hat, gamma)
    dx_hat = dout * per_row(gamma)
    dinv_std = xp.sum(dx_hat * centred, axis=-2, keepdims=True)  # x_hat = centred * inv_std
    dcentred = dx_hat * inv_std
    dstd = -dinv_std * inv_std**2  # inv_std = 1 / std
    dvar = 0.5 * dstd * inv_std  # std = sqrt(var + eps)
    dsquares = dvar / count  # var = sum(squares) / N; the same for every row
    dcentred = dcentred + 2 * centred * dsquares  # squares = centred²
    dmean = -xp.sum(dcentred, axis=-2, keepdims=True)  # centred = x - mean
    return dcentred + dmean / count, dgamma, dbeta  # mean = sum(x) / N


@checked("out", "cache", check=lambda x, gamma, beta, **_: _check("layernorm_forward", x, gamma, beta))
def layernorm_forward(
    backend: Backend,
    x: Array,
    gamma: Array,
    beta: Array,
    *,
    eps: float = EPS,
    out: Array | None = None,
    cache: NormCache | None = None,
) -> tuple[Array, NormCache]:
    """Compute layer normalisation: out = γ x̂ + β, x̂ = (x - μ) / sqrt(σ² + ε), μ and σ² over the D features of a row.

    The same when training and evaluating. Source: Ba, Kiros and Hinton, "Layer Normalization", 2016.

    Args:
        x: (..., N, D). gamma, beta: (..., D).
        eps: added to the variance.
        out: like x, filled if given; must not overlap x.
        cache: from an earlier call on the same shapes, whose arrays are filled again. x may be its `x_hat`.

    Returns:
        out (..., N, D) and the cache.
    """
    return _normalize(backend, x, gamma, beta, -1, eps, out, cache)


@checked("dx", "dgamma", "dbeta", check=lambda dout, cache, **_: _check_backward("layernorm_backward", dout, cache))
def layernorm_backward(
    backend: Backend,
    dout: Array,
    cache: NormCache,
    *,
    dx: Array | None = None,
    dgamma: Array | None = None,
    dbeta: Array | None = None,
    work: Array | None = None,
) -> tuple[Array, Array, Array]:
    """Return the gradients of `layernorm_forward`.

    With g = γ dout: dx = (g - mean(g) - x̂ mean(g x̂)) / sqrt(σ² + ε), means over the D features of a row;
    dβ = Σ_n dout, dγ = Σ_n dout x̂.

    Args:
        dout: (..., N, D). cache: from `layernorm_forward`.
        dx, dgamma, dbeta: filled if given; dx must not overlap dout.
        work: scratch like dout; may be dout itself, whose values are then lost.

    Returns:
        dx (..., N, D), dgamma (..., D), dbeta (..., D).
    """
    x_hat, inv_std, gamma, _, _ = cache
    xp = backend.xp
    dbeta = bias_gradient.formula(backend, dout, gamma, dbeta)
    products = xp.multiply(dout, x_hat, out=dx)
    dgamma = bias_gradient.formula(backend, products, gamma, dgamma)
    g_x_hat = xp.multiply(products, per_row(gamma), out=products)  # g x̂, with g = γ dout
    mean_g_x_hat = xp.mean(g_x_hat, axis=-1, keepdims=True)
    g = xp.multiply(dout, per_row(gamma), out=work)
    mean_g = xp.mean(g, axis=-1, keepdims=True)
    along_x_hat = xp.multiply(x_hat, mean_g_x_hat, out=g_x_hat)
    dx = xp.subtract(g, along_x_hat, out=along_x_hat)  # dx = (g - x̂ mean(g x̂) - mean(g)) / sqrt(σ² + ε)
    xp.subtract(dx, mean_g, out=dx)
    return xp.multiply(dx, inv_std, out=dx), dgamma, dbeta
