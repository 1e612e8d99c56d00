"""Affine layer: out = x W + b.

Shapes: N batch, D features in, M features out. Anything further left broadcasts: with weights (K, D, M) the same
functions serve K networks at once, on inputs of their own (K, N, D) or on a common one (N, D).
Source: CS231n, assignment 2, `layers.py`.
"""

from __future__ import annotations

from typing import Any

from fcnet.backends import Backend, accelerated, checked
from fcnet.functional import checks

Array = Any


def _check_matmul(x: Array, w: Array, *, out: Array | None = None, **_: Any) -> None:
    checks.floating("matmul", x=x, w=w)
    checks.rows("matmul", "x", x)
    _check_inner("matmul", x, w)
    _check_out("matmul", x, w, out)


def _check_out(function: str, x: Array, w: Array, out: Array | None) -> None:
    """Check the shape of `out` for one network; the product of several refuses another shape itself."""
    if x.ndim == w.ndim == 2:
        checks.outputs(function, (x.shape[0], w.shape[1]), out=out)


def _check_inner(function: str, x: Array, w: Array) -> None:
    if w.ndim < 2 or x.shape[-1] != w.shape[-2]:
        raise ValueError(
            f"{function}: w: expected (D, M) with D = {x.shape[-1]} features of x {x.shape}, got shape {w.shape}"
        )


def _check_affine(x: Array, w: Array, b: Array, *, out: Array | None = None, **_: Any) -> None:
    checks.floating("affine_forward", x=x, w=w, b=b)
    checks.rows("affine_forward", "x", x)
    _check_inner("affine_forward", x, w)
    checks.features("affine_forward", "b", b, w.shape[-1], "w", w.shape[:-2])
    _check_out("affine_forward", x, w, out)


@accelerated("out", check=_check_matmul)
def matmul(backend: Backend, x: Array, w: Array, *, out: Array | None = None, precision: str | None = None) -> Array:
    """Return the matrix product out = x W.

    Args:
        x: (..., N, D).
        w: (..., D, M).
        precision: of the product: None, that of the arrays; "tf32" or "bf16" where the device has them. With "bf16"
            the result is rounded to it, too.
        out: (..., N, M), filled if given; must not overlap x or w.

    Raises:
        ValueError: the shapes do not fit. TypeError: other dtypes than float32 and float64, or a mixture.
    """
    return backend.gemm(x, w, out=out, precision=precision, stored=precision)


@accelerated("dx", "dw", check=lambda dout, x, w, **given: _check_grads("matmul_backward", dout, x, w, **given))
def matmul_backward(
    backend: Backend,
    dout: Array,
    x: Array,
    w: Array,
    *,
    need_dx: bool = True,
    dx: Array | None = None,
    dw: Array | None = None,
    precision: str | None = None,
) -> tuple[Array | None, Array]:
    """Return the gradients of `matmul`: dx = dout Wᵀ, dW = xᵀ dout.

    Args:
        dout: (..., N, M), gradient of the loss in x W.
        need_dx: False leaves dx out (None is returned for it): the first layer never needs it.
        dx, dw: filled if given; dx must not overlap dout.
        precision: as in `matmul`; of the results, dx alone is rounded with "bf16".
    """
    return _product_gradients(backend, dout, x, w, need_dx, dx, dw, precision)


def _product_gradients(
    backend: Backend,
    dout: Array,
    x: Array,
    w: Array,
    need_dx: bool,
    dx: Array | None,
    dw: Array | None,
    precision: str | None,
) -> tuple[Array | None, Array]:
    if dout.ndim == x.ndim == w.ndim == 2:
        dw = backend.gemm(x.T, dout, out=dw, precision=precision)
        if not need_dx:
            return None, dw
        return backend.gemm(dout, w.T, out=dx, precision=precision, stored=precision), dw
    dw = _product(backend, x.swapaxes(-1, -2), dout, w.shape, dw, precision)
    dx = _product(backend, dout, w.swapaxes(-1, -2), x.shape, dx, precision) if need_dx else None
    return dx, dw


def _product(
    backend: Backend, a: Array, b: Array, shape: tuple[int, ...], out: Array | None, precision: str | None
) -> Array:
    """Return a @ b, summed over the axes along which an operand of this shape was broadcast."""
    product = backend.gemm(a, b, precision=precision)
    lead = product.ndim - len(shape)
    stretched = tuple(i for i in range(lead, product.ndim) if shape[i - lead] == 1 != product.shape[i])
    total = backend.xp.sum(product, axis=tuple(range(lead)) + stretched, keepdims=True).reshape(shape)
    if out is None:
        return total
    out[...] = total
    return out


@checked("out")
def add_bias(backend: Backend, z: Array, b: Array, *, out: Array | None = None) -> Array:
    """Return out = z + b for z (..., N, M) and b (..., M); `out` may be z itself."""
    return backend.xp.add(z, b if b.ndim == 1 else per_row(b), out=out)


@checked("db")
def bias_gradient(backend: Backend, dout: Array, b: Array, db: Array | None = None) -> Array:
    """Return db = Σ_n dout for dout (..., N, M), in the shape of b: summed over axes along which b was broadcast."""
    if dout.ndim == 2:
        return dout.sum(axis=0, out=db)
    lead = dout.ndim - b.ndim - 1
    stretched = tuple(lead + i for i in range(b.ndim - 1) if b.shape[i] == 1 != dout.shape[lead + i])
    axes: int | tuple[int, ...] = (*range(lead), *stretched, -2) if lead or stretched else -2
    if not stretched:
        return dout.sum(axis=axes, out=db)
    total = dout.sum(axis=axes).reshape(b.shape)
    if db is None:
        return total
    db[...] = total
    return db


def per_row(vector: Array) -> Array:
    """Return (..., M) as (..., 1, M), which broadcasts over the N rows of (..., N, M)."""
    return vector if vector.ndim == 1 else vector[..., None, :]


@accelerated("out", "cache", check=_check_affine)
def affine_forward(
    backend: Backend, x: Array, w: Array, b: Array, *, out: Array | None = None, precision: str | None = None
) -> tuple[Array, tuple]:
    """Compute an affine layer, out = x W + b.

    Args:
        x: (..., N, D). w: (..., D, M). b: (..., M).
        out: (..., N, M), filled if given; must not overlap x or w.
        precision: as in `matmul`, but out is not rounded: it may be the scores.

    Returns:
        out and cache = (x, w, b), which aliases the arguments: do not change them before the backward pass.

    Raises:
        ValueError: the shapes do not fit. TypeError: other dtypes than float32 and float64, or a mixture.

    >>> import numpy as np
    >>> out, cache = affine_forward(np.ones((2, 3)), np.ones((3, 1)), np.array([0.5]))
    >>> out.ravel()
    array([3.5, 3.5])
    """
    out = backend.gemm(x, w, out=out, precision=precision)
    return add_bias.formula(backend, out, b, out=out), (x, w, b)


def _check_affine_backward(dout: Array, cache: tuple, *, db: Array | None = None, **given: Any) -> None:
    checks.cache_of("affine_backward", cache, tuple, 3)
    _check_grads("affine_backward", dout, cache[0], cache[1], **given)
    checks.outputs("affine_backward", cache[2].shape, db=db)


def _check_grads(
    function: str, dout: Array, x: Array, w: Array, *, dx: Array | None = None, dw: Array | None = None, **_: Any
) -> None:
    _check_dout(function, dout, x, w)
    checks.outputs(function, x.shape, dx=dx)
    checks.outputs(function, w.shape, dw=dw)


def _check_dout(function: str, dout: Array, x: Array, w: Array) -> None:
    """Check that dout is a gradient of x W: (..., N, M), its leading axes those of x and w broadcast together."""
    checks.floating(function, x=x, w=w, dout=dout)
    if dout.ndim != max(x.ndim, w.ndim) or dout.shape[-2:] != (x.shape[-2], w.shape[-1]):
        raise ValueError(
            f"{function}: dout: expected (..., {x.shape[-2]}, {w.shape[-1]}) like the forward pass's result, "
            f"got shape {dout.shape}"
        )


@accelerated("dx", "dw", "db", check=_check_affine_backward)
def affine_backward(
    backend: Backend,
    dout: Array,
    cache: tuple,
    *,
    need_dx: bool = True,
    dx: Array | None = None,
    dw: Array | None = None,
    db: Array | None = None,
    precision: str | None = None,
) -> tuple[Array | None, Array, Array]:
    """Return the gradients of `affine_forward`: dx = dout Wᵀ, dW = xᵀ dout, db = Σ_n dout.

    Args:
        dout: (..., N, M), gradient of the loss in out.
        cache: from `affine_forward`.
        need_dx: False leaves dx out (None is returned for it): the first layer never needs it.
        dx, dw, db: filled if given; dx must not overlap dout.
        precision: as in `matmul_backward`; db is added up in that of the arrays.

    Returns:
        dx (..., N, D) or None, dw (..., D, M), db (..., M).
    """
    x, w, b = cache
    dx, dw = _product_gradients(backend, dout, x, w, need_dx, dx, dw, precision)
    return dx, dw, bias_gradient.formula(backend, dout, b, db)
