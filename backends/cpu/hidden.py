"""What follows a hidden layer's matrix product, in one or two passes instead of one per operation.

The names and signatures of `fcnet.functional.hidden`, for ReLU; what the backward pass needs: `fcnet.backends.caches`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fcnet.backends.caches import EPS, MOMENTUM, HiddenCache, NormCache, keep_threshold, relu_cache
from fcnet.backends.cpu import pool, tape
from fcnet.backends.cpu.denormals import flushed, smallest_normal
from fcnet.backends.cpu.jit import Jit, not_on_tape, plain
from fcnet.backends.cpu.tape import matrix, real, vector
from fcnet.backends.device import Kernel


@Jit
def _bias_relu(z, b):
    # In place in one array: with a second one that may be the same, the compiler would not vectorise.
    rows, width = z.shape
    zero = z.dtype.type(0)
    for n in range(rows):
        for m in range(width):
            value = z[n, m] + b[m]
            z[n, m] = zero if value <= zero else value  # NaN stays NaN


_bias_relu_inner = _bias_relu.compiled


@tape.played(_bias_relu, "21")
def _play_bias_relu(record, board, scratch, hands):
    _bias_relu_inner(matrix(record, 0), vector(record, 3))


@Jit
def _bias_relu_dropout(z, b, bits, last, scale):
    rows, width = z.shape
    zero = z.dtype.type(0)
    for n in range(rows):
        for m in range(width):
            value = (z[n, m] + b[m]) * scale
            dropped = (value <= zero) | (bits[n, m] > last)
            z[n, m] = zero if dropped else value


@Jit
def _relu_backward(dz, out, scale, db):
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


@tape.played(_relu_backward, "22r1")
def _play_relu_backward(record, board, scratch, hands):
    dz, out, db = matrix(record, 0), matrix(record, 3), vector(record, 7)
    _relu_backward_inner(dz, out, np.float32(real(record, 6)), db)


@Jit
def _copy(source, target):
    size = source.size * source.itemsize
    pool.copy(source.ctypes.data, target.ctypes.data, size)


_copy_inner = _copy.compiled


@tape.played(_copy, "22")
def _play_copy(record, board, scratch, hands):
    _copy_inner(matrix(record, 0), matrix(record, 3))


@Jit
def _batchnorm_relu(
    z, b, gamma, beta, running_mean, running_var, momentum, eps, bits, last, scale, first, mean, inv_std, out
):
    # Measured from the first row, so that a constant column is exactly 0 after its mean is taken off.
    rows, width = z.shape
    zero, one = z.dtype.type(0), z.dtype.type(1)
    share = z.dtype.type(1.0 / rows)
    normal = smallest_normal(z)
    for m in range(width):
        first[m] = z[0, m]
        mean[m] = zero
        inv_std[m] = zero
    for n in range(rows):
        for m in range(width):
            mean[m] += z[n, m] - first[m]
    for m in range(width):
        mean[m] *= share
    for n in range(rows):
        for m in range(width):
            centred = (z[n, m] - first[m]) - mean[m]
            z[n, m] = centred
            inv_std[m] += centred * centred
    for m in range(width):
        variance = inv_std[m] * share
        inv_std[m] = one / np.sqrt(variance + eps)
        if running_mean.size:
            moved = momentum * running_mean[m] + (one - momentum) * (first[m] + mean[m] + b[m])
            running_mean[m] = flushed(moved, normal)
            running_var[m] = flushed(momentum * running_var[m] + (one - momentum) * variance, normal)
    if bits.size:
        for n in range(rows):
            for m in range(width):
                x_hat = z[n, m] * inv_std[m]
                z[n, m] = x_hat
                value = (x_hat * gamma[m] + beta[m]) * scale
                dropped = (value <= zero) | (bits[n, m] > last)
                out[n, m] = zero if dropped else value
    else:
        for n in range(rows):
            for m in range(width):
                x_hat = z[n, m] * inv_std[m]
                z[n, m] = x_hat
                value = x_hat * gamma[m] + beta[m]
                out[n, m] = zero if value <= zero else value  # NaN stays NaN


@Jit
def _batchnorm_relu_backward(dout, out, scale, x_hat, inv_std, gamma, work, dz, dgamma, dbeta, mean_dgamma, mean_dbeta):
    count, width = dout.shape
    zero = dout.dtype.type(0)
    share = dout.dtype.type(1.0 / count)
    for m in range(width):
        dgamma[m] = zero
        dbeta[m] = zero
    for n in range(count):
        for m in range(width):
            value = dout[n, m] * scale if out[n, m] > zero else zero
            work[n, m] = value
            dbeta[m] += value
            dgamma[m] += value * x_hat[n, m]
    for m in range(width):
        mean_dbeta[m] = dbeta[m] * share
        mean_dgamma[m] = dgamma[m] * share
    for n in range(count):
        for m in range(width):
            dz[n, m] = (work[n, m] - mean_dbeta[m] - x_hat[n, m] * mean_dgamma[m]) * (gamma[m] * inv_std[m])


_batchnorm_relu_inner = _batchnorm_relu.compiled
_batchnorm_relu_backward_inner = _batchnorm_relu_backward.compiled


@tape.played(_batchnorm_relu, "211111rr*nr1112")
def _play_batchnorm_relu(record, board, scratch, hands):
    z, b, gamma, beta = matrix(record, 0), vector(record, 3), vector(record, 5), vector(record, 7)
    running_mean, running_var = vector(record, 9), vector(record, 11)
    momentum, eps, scale = np.float32(real(record, 13)), np.float32(real(record, 14)), np.float32(real(record, 17))
    first, mean, inv_std, out = vector(record, 18), vector(record, 20), vector(record, 22), matrix(record, 24)
    bits = pool.no_bits()  # dropout is not on tape
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
        mean,
        inv_std,
        out,
    )


@tape.played(_batchnorm_relu_backward, "22r211221111")
def _play_batchnorm_relu_backward(record, board, scratch, hands):
    dout, out, scale, x_hat = matrix(record, 0), matrix(record, 3), np.float32(real(record, 6)), matrix(record, 7)
    inv_std, gamma, work, dz = vector(record, 10), vector(record, 12), matrix(record, 14), matrix(record, 17)
    dgamma, dbeta, mean_dgamma, mean_dbeta = (
        vector(record, 20), vector(record, 22), vector(record, 24), vector(record, 26),
    )  # fmt: skip
    _batchnorm_relu_backward_inner(
        dout, out, scale, x_hat, inv_std, gamma, work, dz, dgamma, dbeta, mean_dgamma, mean_dbeta
    )


@Jit
def _clear(vector):
    vector[:] = 0


_clear_inner = _clear.compiled


@tape.played(_clear, "1")
def _play_clear(record, board, scratch, hands):
    _clear_inner(vector(record, 0))


def _last(keep_ratio: float) -> Any:
    """The largest 16-bit number that keeps a unit."""
    return np.uint16(keep_threshold(keep_ratio) - 1)


def _over(z: Any, given: Any) -> Any:
    """z itself if the caller lets it be overwritten, else a copy; an array that is given is plain, and like z."""
    if given is z:
        return z
    target = np.empty_like(z) if given is None else given
    if z.flags.c_contiguous:
        _copy(z, target)
    else:
        not_on_tape()
        np.copyto(target, z)
    return target


def bias_activation_dropout_forward(
    z, b, activation="relu", keep_ratio=1.0, rng=None, *, hidden=None, out=None, cache=None
):
    x = _over(z, z if hidden is z else _first_of(out, hidden, None if cache is None else cache.hidden))
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
    dz = _over(dout, dz)
    db = np.empty(dz.shape[1:], dtype=dz.dtype) if db is None else db
    _relu_backward(dz, cache.hidden, cache.scale, db)
    return dz, db


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
        not_on_tape()  # which would go on with these bits
    inv_std, mean, var = statistics
    none = _NOTHING[z.dtype.char]
    _batchnorm_relu(
        _over(z, x_hat),
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
    x_hat, inv_std, gamma, mean, var = cache.norm
    if not dout.flags.c_contiguous:
        not_on_tape()  # which would go on reading this copy
        dout = np.ascontiguousarray(dout)
    dz, work = (np.empty_like(x_hat) if array is None else array for array in (dz, work))
    db, dgamma, dbeta = (np.empty_like(gamma) if d is None else d for d in (db, dgamma, dbeta))
    _batchnorm_relu_backward(
        dout, cache.hidden, cache.scale, x_hat, inv_std[0], gamma, work, dz, dgamma, dbeta, mean[0], var[0]
    )
    _clear(db)  # batch norm takes a bias away again: its gradient is zero, not the rounding that a sum would give
    return dz, db, dgamma, dbeta


def _first_of(*arrays: Any) -> Any:
    """Return the first that is there, or None."""
    return next((array for array in arrays if array is not None), None)


_NOTHING = {"f": np.empty(0, np.float32), "d": np.empty(0, np.float64)}
_NO_BITS, _NO_LAST = np.empty((0, 0), np.uint16), np.uint16(0)


# Shapes are checked before a kernel is looked for (`fcnet.functional.hidden`).


def _suits(activation: str, cache: HiddenCache | None, z: Any, *others: Any) -> bool:
    given = [array for array in others if array is not None]
    return activation == "relu" and z.ndim == 2 and plain(z, *given, *_arrays_of(cache))


def _fits_bias(
    z: Any, b: Any, activation: str = "relu", keep_ratio: float = 1.0, rng: Any = None, *, hidden: Any = None,
    out: Any = None, cache: Any = None,
) -> bool:  # fmt: skip
    return _suits(activation, cache, z, b, hidden, out)


def _fits_batchnorm(
    z: Any, b: Any, gamma: Any, beta: Any, activation: str = "relu", keep_ratio: float = 1.0, rng: Any = None, *,
    momentum: float = MOMENTUM, eps: float = EPS, cache: Any = None, **arrays: Any,
) -> bool:  # fmt: skip
    return _suits(activation, cache, z, b, gamma, beta, *arrays.values())


def _fits_backward(dout: Any, cache: HiddenCache, **grads: Any) -> bool:
    if type(dout) is not np.ndarray or cache.activation != "relu" or cache.needs_mask or cache.hidden.ndim != 2:
        return False
    given = [array for array in grads.values() if array is not None]
    return dout.dtype == cache.hidden.dtype and plain(*_arrays_of(cache), *given)


def _arrays_of(cache: HiddenCache | None) -> list[Any]:
    return [] if cache is None else [cache.hidden, *(cache.norm or ())]


BIAS, NORM = "bias_activation_dropout", "batchnorm_activation_dropout"
KERNELS = {
    f"{BIAS}_forward": Kernel(bias_activation_dropout_forward, _fits_bias),
    f"{BIAS}_backward": Kernel(bias_activation_dropout_backward, _fits_backward),
    f"{NORM}_forward": Kernel(batchnorm_activation_dropout_forward, _fits_batchnorm),
    f"{NORM}_backward": Kernel(batchnorm_activation_dropout_backward, _fits_backward),
}
