"""The Numba kernels of fused hidden layers with ReLU: all that follows the matrix product, in one or two passes.

Names, signatures and formulas are those of `fcnet.functional.hidden`, the references; `fcnet.backends.caches` has the
cache types. Above each loop stands the mathematics it computes: N rows, M columns, sums and means over the N rows.
Without normalization, and in float32, there are kernels for the other element-wise activations too (`activation.py`).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from fcnet.backends import fits
from fcnet.backends.caches import EPS, MOMENTUM, GatedCache, HiddenCache, NormCache, keep_threshold, relu_cache
from fcnet.backends.cpu import activation as kinds
from fcnet.backends.cpu import pool
from fcnet.backends.cpu.compiled_step import integer, matrix, real, thunk_of, vector
from fcnet.backends.cpu.denormals import flushed, smallest_normal
from fcnet.backends.cpu.jit import Jit, Layout, only_in_python
from fcnet.backends.device import Kernel

CHUNK = 4096  # elements that an activation's loops take at a time


@Jit
def _bias_relu(z, b):
    # z = max(z + b, 0), in place: with an output array that may be z itself, the compiler would not vectorise.
    rows, width = z.shape
    zero = z.dtype.type(0)
    for n in range(rows):
        for m in range(width):
            value = z[n, m] + b[m]
            z[n, m] = zero if value <= zero else value  # NaN stays NaN


_bias_relu_inner = _bias_relu.compiled


@thunk_of(_bias_relu, "21")
def _thunk_bias_relu(record, shared, scratch, num_threads):
    _bias_relu_inner(matrix(record, 0), vector(record, 3))


@Jit
def _bias_relu_dropout(z, b, bits, last, scale):
    # z = max(z + b, 0) mask, in place; mask = scale = 1 / keep_ratio where bits <= last, else 0
    rows, width = z.shape
    zero = z.dtype.type(0)
    for n in range(rows):
        for m in range(width):
            value = (z[n, m] + b[m]) * scale
            dropped = (value <= zero) | (bits[n, m] > last)
            z[n, m] = zero if dropped else value


@Jit
def _relu_backward(dz, out, scale, db):
    # dz = dout scale where out > 0, else 0, in place of dout; db = Σ_n dz
    rows, width = dz.shape
    zero = dz.dtype.type(0)
    for m in range(width):
        db[m] = zero
    for n in range(rows):
        for m in range(width):
            value = dz[n, m] * scale if out[n, m] > zero else zero
            dz[n, m] = value
            db[m] += value


_relu_backward_inner = _relu_backward.compiled


@thunk_of(_relu_backward, "22r1")
def _thunk_relu_backward(record, shared, scratch, num_threads):
    dz, out, db = matrix(record, 0), matrix(record, 3), vector(record, 7)
    _relu_backward_inner(dz, out, np.float32(real(record, 6)), db)


@Jit
def _bias_activation(z, b, first, second, kind):
    # z = a(z + b), a the activation of this kind; first and second are what its backward pass reads. Some rows at a
    # time: they are still in the first-level cache when the activation reads them again.
    rows, width = z.shape
    some = max(1, CHUNK // max(1, width))
    for top in range(0, rows, some):
        end = min(rows, top + some)
        for n in range(top, end):
            for m in range(width):
                z[n, m] += b[m]
        kinds.activate(kind, z[top:end].reshape(-1), first[top:end].reshape(-1), second[top:end].reshape(-1))


@Jit
def _drop(hidden, bits, last, scale, mask, out):
    # out = hidden mask; mask = scale = 1 / keep_ratio where bits <= last, else 0
    zero = hidden.dtype.type(0)
    for n in range(hidden.shape[0]):
        for m in range(hidden.shape[1]):
            mask[n, m] = zero if bits[n, m] > last else scale
            out[n, m] = hidden[n, m] * mask[n, m]


@Jit
def _activation_backward(dz, first, second, mask, db, kind):
    # dz = dz a'(z + b) mask, in place; db = Σ_n dz
    rows, width = dz.shape
    some = max(1, CHUNK // max(1, width))
    db[:] = 0
    for top in range(0, rows, some):
        end = min(rows, top + some)
        kinds.descend(kind, dz[top:end].reshape(-1), first[top:end].reshape(-1), second[top:end].reshape(-1))
        if mask.size:
            for n in range(top, end):
                for m in range(width):
                    dz[n, m] *= mask[n, m]
        for n in range(top, end):
            for m in range(width):
                db[m] += dz[n, m]


_bias_activation_inner, _activation_backward_inner = _bias_activation.compiled, _activation_backward.compiled


@thunk_of(_bias_activation, "2122n")
def _thunk_bias_activation(record, shared, scratch, num_threads):
    z, b, first, second = matrix(record, 0), vector(record, 3), matrix(record, 5), matrix(record, 8)
    _bias_activation_inner(z, b, first, second, integer(record, 11))


@thunk_of(_activation_backward, "22221n")
def _thunk_activation_backward(record, shared, scratch, num_threads):
    dz, first, second, mask = matrix(record, 0), matrix(record, 3), matrix(record, 6), matrix(record, 9)
    _activation_backward_inner(dz, first, second, mask, vector(record, 12), integer(record, 14))


@Jit
def _copy(source, target):
    size = source.size * source.itemsize
    pool.copy(source.ctypes.data, target.ctypes.data, size)


_copy_inner = _copy.compiled


@thunk_of(_copy, "22")
def _thunk_copy(record, shared, scratch, num_threads):
    _copy_inner(matrix(record, 0), matrix(record, 3))


@Jit
def _batchnorm_relu(
    z, b, gamma, beta, running_mean, running_var, momentum, eps, bits, last, scale, first, offset, inv_std, out
):
    # μ = first + offset, offset = mean(z - first); σ² = mean((z - μ)²); x̂ = (z - μ) / sqrt(σ² + ε), in place of z
    # out = max(γ x̂ + β, 0) mask; mask = scale = 1 / keep_ratio where bits <= last, else 0; 1 without bits
    # Measured from the first row, a constant column is exactly 0 once its mean is subtracted. A bias would be
    # subtracted with the mean, so b is not added to z: it moves the running mean only.
    rows, width = z.shape
    squares = inv_std  # Σ (z - μ)²; replaced by 1 / sqrt(σ² + ε)
    centred = x_hat = z  # z - μ, then x̂
    zero, one = z.dtype.type(0), z.dtype.type(1)
    share = z.dtype.type(1.0 / rows)
    normal = smallest_normal(z)
    for m in range(width):
        first[m] = z[0, m]
        offset[m] = zero
        squares[m] = zero
    for n in range(rows):
        for m in range(width):
            offset[m] += z[n, m] - first[m]
    for m in range(width):
        offset[m] *= share  # until here it was the sum
    for n in range(rows):
        for m in range(width):
            value = (z[n, m] - first[m]) - offset[m]
            centred[n, m] = value
            squares[m] += value * value
    for m in range(width):
        variance = squares[m] * share
        inv_std[m] = one / np.sqrt(variance + eps)
        if running_mean.size:
            moved = momentum * running_mean[m] + (one - momentum) * (first[m] + offset[m] + b[m])
            running_mean[m] = flushed(moved, normal)
            running_var[m] = flushed(momentum * running_var[m] + (one - momentum) * variance, normal)
    if bits.size:
        for n in range(rows):
            for m in range(width):
                normalized = centred[n, m] * inv_std[m]
                x_hat[n, m] = normalized
                value = (normalized * gamma[m] + beta[m]) * scale
                dropped = (value <= zero) | (bits[n, m] > last)
                out[n, m] = zero if dropped else value
    else:
        for n in range(rows):
            for m in range(width):
                normalized = centred[n, m] * inv_std[m]
                x_hat[n, m] = normalized
                value = normalized * gamma[m] + beta[m]
                out[n, m] = zero if value <= zero else value  # NaN stays NaN


@Jit
def _batchnorm_relu_backward(dout, out, scale, x_hat, inv_std, gamma, g, dz, dgamma, dbeta, mean_dgamma, mean_dbeta):
    # g = dout scale where out > 0, else 0; dβ = Σ_n g, dγ = Σ_n g x̂
    # dz = γ / sqrt(σ² + ε) (g - dβ/N - x̂ dγ/N)
    count, width = dout.shape
    zero = dout.dtype.type(0)
    share = dout.dtype.type(1.0 / count)
    for m in range(width):
        dgamma[m] = zero
        dbeta[m] = zero
    for n in range(count):
        for m in range(width):
            value = dout[n, m] * scale if out[n, m] > zero else zero
            g[n, m] = value
            dbeta[m] += value
            dgamma[m] += value * x_hat[n, m]
    for m in range(width):
        mean_dbeta[m] = dbeta[m] * share
        mean_dgamma[m] = dgamma[m] * share
    for n in range(count):
        for m in range(width):
            dz[n, m] = (g[n, m] - mean_dbeta[m] - x_hat[n, m] * mean_dgamma[m]) * (gamma[m] * inv_std[m])


_batchnorm_relu_inner = _batchnorm_relu.compiled
_batchnorm_relu_backward_inner = _batchnorm_relu_backward.compiled


@thunk_of(_batchnorm_relu, "211111rr*nr1112")
def _thunk_batchnorm_relu(record, shared, scratch, num_threads):
    z, b, gamma, beta = matrix(record, 0), vector(record, 3), vector(record, 5), vector(record, 7)
    running_mean, running_var = vector(record, 9), vector(record, 11)
    momentum, eps, scale = np.float32(real(record, 13)), np.float32(real(record, 14)), np.float32(real(record, 17))
    first, offset, inv_std, out = vector(record, 18), vector(record, 20), vector(record, 22), matrix(record, 24)
    bits = pool.no_bits()  # a call with dropout is made from Python
    _batchnorm_relu_inner(
        z,
        b,
        gamma,
        beta,
        running_mean,
        running_var,
        momentum,
        eps,
        bits,
        np.uint16(0),
        scale,
        first,
        offset,
        inv_std,
        out,
    )


@thunk_of(_batchnorm_relu_backward, "22r211221111")
def _thunk_batchnorm_relu_backward(record, shared, scratch, num_threads):
    dout, out, scale, x_hat = matrix(record, 0), matrix(record, 3), np.float32(real(record, 6)), matrix(record, 7)
    inv_std, gamma, g, dz = vector(record, 10), vector(record, 12), matrix(record, 14), matrix(record, 17)
    dgamma, dbeta, mean_dgamma, mean_dbeta = (
        vector(record, 20), vector(record, 22), vector(record, 24), vector(record, 26),
    )  # fmt: skip
    _batchnorm_relu_backward_inner(
        dout, out, scale, x_hat, inv_std, gamma, g, dz, dgamma, dbeta, mean_dgamma, mean_dbeta
    )


@Jit
def _clear(vector):
    vector[:] = 0


_clear_inner = _clear.compiled


@thunk_of(_clear, "1")
def _thunk_clear(record, shared, scratch, num_threads):
    _clear_inner(vector(record, 0))


def _last(keep_ratio: float) -> Any:
    """Return the largest of the 16-bit random numbers that keep a unit."""
    return np.uint16(keep_threshold(keep_ratio) - 1)


def _writable(z: Any, target: Any) -> Any:
    """Return an array with the values of z that may be overwritten: `target`, which may be z itself, or a new one.

    `target` is None or contiguous, like z.
    """
    if target is z:
        return z
    target = np.empty_like(z, order="C") if target is None else target
    if z.flags.c_contiguous:
        _copy(z, target)
    else:
        only_in_python()
        np.copyto(target, z)
    return target


def bias_activation_dropout_forward(
    z, b, activation="relu", keep_ratio=1.0, rng=None, *, hidden=None, out=None, cache=None
):
    if activation != "relu":
        return _other_forward(z, b, activation, keep_ratio, rng, hidden, out, cache)
    x = _writable(z, z if hidden is z else _first_of(out, hidden, None if cache is None else cache.hidden))
    if rng is not None and keep_ratio < 1:
        scale = x.dtype.type(1 / keep_ratio)
        _bias_relu_dropout(x, b, rng.bits(x.shape), _last(keep_ratio), scale)
    else:
        scale = x.dtype.type(1)
        _bias_relu(x, b)
    if out is not None and out is not x:
        _copy(x, out)
        x = out
    return x, relu_cache(x, scale, None, b)


def bias_activation_dropout_backward(dout, cache, *, dz=None, db=None):
    dz = _writable(dout, dz)
    db = np.empty(dz.shape[1:], dtype=dz.dtype) if db is None else db
    if cache.activation == "relu":
        _relu_backward(dz, cache.hidden, cache.scale, db)
    else:
        mask = cache.mask if cache.needs_mask else _NO_MASK
        _activation_backward(dz, *_kept(cache.activation_cache), mask, db, kinds.KINDS.index(cache.activation))
    return dz, db


def _other_forward(
    z: Any, b: Any, activation: str, keep_ratio: float, rng: Any, hidden: Any, out: Any, cache: HiddenCache | None
) -> tuple[Any, HiddenCache]:
    """Serve an activation other than ReLU as the reference does: keep dropout's mask, and the activation before it."""
    dropped = rng is not None and keep_ratio < 1
    earlier = None if cache is None or cache.needs_mask is not dropped else cache.hidden
    x = _writable(z, z if hidden is z else _first_of(hidden, earlier if dropped else _first_of(out, earlier)))
    if activation in kinds.OF_OUTPUT:
        kept: Any = x
    elif cache is not None:
        kept = cache.activation_cache
    else:
        kept = GatedCache(np.empty_like(x), np.empty_like(x)) if activation in kinds.GATED else np.empty_like(x)
    _bias_activation(x, b, *_kept(kept), kinds.KINDS.index(activation))
    mask = None
    result = x
    if dropped:
        mask = cache.mask if cache is not None and cache.needs_mask else np.empty_like(x)
        result = np.empty_like(x) if out is None else out
        _drop(x, rng.bits(x.shape), _last(keep_ratio), x.dtype.type(1 / keep_ratio), mask, result)
    elif out is not None and out is not x:
        _copy(x, out)
        result = x = out
        kept = x if activation in kinds.OF_OUTPUT else kept
    return result, HiddenCache(activation, kept, x, mask, None, b)


def _kept(cache: Any) -> tuple[Any, Any]:
    """Return what an activation keeps as two arrays: the second is the first where there is one."""
    return tuple(cache) if isinstance(cache, GatedCache) else (cache, cache)


def batchnorm_activation_dropout_forward(
    z,
    b,
    gamma,
    beta,
    activation="relu",
    keep_ratio=1.0,
    rng=None,
    *,
    running_mean=None,
    running_var=None,
    momentum=MOMENTUM,
    eps=EPS,
    x_hat=None,
    out=None,
    cache=None,
):
    dropped = rng is not None and keep_ratio < 1
    scalar = z.dtype.type
    scale = scalar(1 / keep_ratio if dropped else 1)
    if cache is None:
        row = (1, gamma.size)
        statistics = [np.empty(row, z.dtype) for _ in range(3)]
        x_hat, out = (np.empty_like(z) if array is None else array for array in (x_hat, out))
    else:
        statistics = [cache.norm.inv_std, cache.norm.mean, cache.norm.var]
        x_hat, out = _first_of(x_hat, cache.norm.x_hat), _first_of(out, cache.hidden)
    if dropped:
        only_in_python()  # a thunk would reuse these random bits
    inv_std, mean, var = statistics  # mean and var are scratch: the kernel keeps `first` and `offset` there
    none = _NOTHING[z.dtype.char]
    _batchnorm_relu(
        _writable(z, x_hat),
        b,
        gamma,
        beta,
        none if running_mean is None else running_mean,
        none if running_var is None else running_var,
        scalar(momentum),
        scalar(eps),
        rng.bits(z.shape) if dropped else _NO_BITS,
        _last(keep_ratio) if dropped else _NO_LAST,
        scale,
        mean[0],
        var[0],
        inv_std[0],
        out,
    )
    return out, relu_cache(out, scale, NormCache(x_hat, inv_std, gamma, mean, var), b)


def batchnorm_activation_dropout_backward(dout, cache, *, dz=None, db=None, dgamma=None, dbeta=None, work=None):
    x_hat, inv_std, gamma, mean, var = cache.norm  # mean and var are scratch: for dγ/N and dβ/N
    if not dout.flags.c_contiguous:
        only_in_python()  # a thunk would keep reading this copy
        dout = np.ascontiguousarray(dout)
    dz, work = (np.empty_like(x_hat) if array is None else array for array in (dz, work))
    db, dgamma, dbeta = (np.empty_like(gamma) if d is None else d for d in (db, dgamma, dbeta))
    _batchnorm_relu_backward(
        dout, cache.hidden, cache.scale, x_hat, inv_std[0], gamma, work, dz, dgamma, dbeta, mean[0], var[0]
    )
    _clear(db)  # batch norm cancels a bias: its gradient is exactly zero, where a sum would give rounding noise
    return dz, db, dgamma, dbeta


def _first_of(*arrays: Any) -> Any:
    """Return the first of these arrays that is not None, or None."""
    return next((array for array in arrays if array is not None), None)


_NOTHING = {"f": np.empty(0, np.float32), "d": np.empty(0, np.float64)}
_NO_BITS, _NO_LAST = np.empty((0, 0), np.uint16), np.uint16(0)


_NO_MASK = np.empty((0, 0), np.float32)


class _Layout(Layout):
    """Accept more activations than ReLU in layers without normalisation."""

    def activates(self, activation: str, z: Any, normed: bool) -> bool:
        return not normed and activation in kinds.KINDS and z.dtype == np.float32


_ON = _Layout()
BIAS, NORM = "bias_activation_dropout", "batchnorm_activation_dropout"
_FITS_BACKWARD = partial(fits.activation_dropout_backward, _ON)
KERNELS = {
    f"{BIAS}_forward": Kernel(bias_activation_dropout_forward, partial(fits.bias_activation_dropout_forward, _ON)),
    f"{BIAS}_backward": Kernel(bias_activation_dropout_backward, _FITS_BACKWARD),
    f"{NORM}_forward": Kernel(
        batchnorm_activation_dropout_forward, partial(fits.batchnorm_activation_dropout_forward, _ON)
    ),
    f"{NORM}_backward": Kernel(batchnorm_activation_dropout_backward, _FITS_BACKWARD),
}
