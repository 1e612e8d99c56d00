"""The Numba kernels of fused hidden layers: all that follows the matrix product, in one or two passes.

Names, signatures and formulas are those of `fcnet.functional.hidden`, the references; `fcnet.backends.caches` has the
cache types. Above each loop stands the mathematics it computes: N rows, M columns; sums and means are over the N rows,
for layer norm over the M columns of a row.

ReLU has loops of its own, for float32 and float64. The other element-wise activations share loops, in float32, which
apply `activation.py` to some rows at a time; layer norm's loops, in float32, serve ReLU, too.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from fcnet.backends import fits
from fcnet.backends.caches import EPS, MOMENTUM, GatedCache, HiddenCache, NormCache, keep_threshold, relu_cache
from fcnet.backends.cpu import activation as kinds
from fcnet.backends.cpu import norm, pool
from fcnet.backends.cpu.compiled_step import integer, matrix, real, thunk_of, vector
from fcnet.backends.cpu.jit import Jit, Layout, is_contiguous_float, only_in_python
from fcnet.backends.cpu.norm import rows_at_once
from fcnet.backends.device import Kernel


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
    some = rows_at_once(width)
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
def _drop_in_place(out, bits, last, scale):
    # out = out mask, mask as in `_drop`: of a ReLU, whose backward pass needs no mask
    zero = out.dtype.type(0)
    for n in range(out.shape[0]):
        for m in range(out.shape[1]):
            out[n, m] = zero if bits[n, m] > last else out[n, m] * scale


@Jit
def _activation_backward(dz, first, second, mask, db, kind):
    # dz = dz a'(z + b) mask, in place; db = Σ_n dz
    rows, width = dz.shape
    some = rows_at_once(width)
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
        first, second, mask, kind = _slope(cache)
        _activation_backward(dz, first, second, mask, db, kind)
    return dz, db


def _other_forward(
    z: Any, b: Any, activation: str, keep_ratio: float, rng: Any, hidden: Any, out: Any, cache: HiddenCache | None
) -> tuple[Any, HiddenCache]:
    """Serve an activation other than ReLU as the reference does: keep dropout's mask, and the activation before it."""
    dropped = _drops(keep_ratio, rng)
    earlier = None if cache is None or cache.needs_mask is not dropped else cache.hidden
    x = _writable(z, z if hidden is z else _first_of(hidden, earlier if dropped else _first_of(out, earlier)))
    kept = _to_keep(activation, x, cache)
    _bias_activation(x, b, *_kept(kept), kinds.KINDS.index(activation))
    if not dropped and out is not None and out is not x:
        _copy(x, out)
        x = out
        kept = x if activation in kinds.OF_OUTPUT else kept
    return _drop_units(activation, kept, x, b, None, keep_ratio, rng, out, cache)


def _drops(keep_ratio: float, rng: Any) -> bool:
    return rng is not None and keep_ratio < 1


def _to_keep(activation: str, x: Any, cache: HiddenCache | None) -> Any:
    """Return what an activation fills for its backward pass, when its result goes to x."""
    if activation in kinds.OF_OUTPUT:
        return x
    if cache is not None:
        return cache.activation_cache
    return GatedCache(np.empty_like(x), np.empty_like(x)) if activation in kinds.GATED else np.empty_like(x)


def _drop_units(
    activation: str,
    kept: Any,
    hidden: Any,
    b: Any,
    normed: NormCache | None,
    keep_ratio: float,
    rng: Any,
    out: Any,
    cache: HiddenCache | None,
) -> tuple[Any, HiddenCache]:
    """Return the output of a layer whose activation is `hidden`, after dropout if there is any, and its cache."""
    if not _drops(keep_ratio, rng):
        return hidden, HiddenCache(activation, kept, hidden, None, normed, b)
    mask = cache.mask if cache is not None and cache.needs_mask else np.empty_like(hidden)
    out = np.empty_like(hidden) if out is None else out
    _drop(hidden, rng.bits(hidden.shape), _last(keep_ratio), hidden.dtype.type(1 / keep_ratio), mask, out)
    return out, HiddenCache(activation, kept, hidden, mask, normed, b)


def _kept(cache: Any) -> tuple[Any, Any]:
    """Return what an activation keeps as two arrays: the second is the first where there is one."""
    return tuple(cache) if isinstance(cache, GatedCache) else (cache, cache)


def _slope(cache: HiddenCache) -> tuple[Any, Any, Any, int]:
    """Return what the loops multiply a gradient by: two arrays of the activation, dropout's mask, and the kind."""
    mask = cache.mask if cache.needs_mask else _NO_MASK
    return *_kept(cache.activation_cache), mask, kinds.KINDS.index(cache.activation)


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
    scalar, dropped = z.dtype.type, _drops(keep_ratio, rng)
    if cache is None:
        inv_std, mean, var = (np.empty((1, gamma.size), z.dtype) for _ in range(3))
        x_hat = np.empty_like(z) if x_hat is None else x_hat
    else:
        inv_std, mean, var = cache.norm.inv_std, cache.norm.mean, cache.norm.var
        x_hat = _first_of(x_hat, cache.norm.x_hat)
    none = _NOTHING[z.dtype.char]
    running = [none if array is None else array for array in (running_mean, running_var)]
    # mean and var are scratch: the kernel keeps `first` and `offset` there
    arguments = _writable(z, x_hat), b, gamma, beta, *running, scalar(momentum), scalar(eps)
    statistics = mean[0], var[0], inv_std[0]
    normed = NormCache(x_hat, inv_std, gamma, mean, var)
    if activation != "relu":
        hidden = _to_activate(z, dropped, out, cache)
        kept = _to_keep(activation, hidden, cache)
        norm.batchnorm_activation(*arguments, *statistics, hidden, *_kept(kept), kinds.KINDS.index(activation))
        return _drop_units(activation, kept, hidden, b, normed, keep_ratio, rng, out, cache)
    if dropped:
        only_in_python()  # a thunk would reuse these random bits
    out = _to_activate(z, False, out, cache)
    scale = scalar(1 / keep_ratio if dropped else 1)
    bits = (rng.bits(z.shape), _last(keep_ratio)) if dropped else (_NO_BITS, _NO_LAST)
    norm.batchnorm_relu(*arguments, *bits, scale, *statistics, out)
    return out, relu_cache(out, scale, normed, b)


def _to_activate(z: Any, dropped: bool, out: Any, cache: HiddenCache | None) -> Any:
    """Return where a normalised layer's activation goes: to `out`, or before dropout with a mask to its own buffer."""
    earlier = None if cache is None or (dropped and not cache.needs_mask) else cache.hidden
    buffer = earlier if dropped else _first_of(out, earlier)
    return np.empty_like(z, order="C") if buffer is None else buffer


def batchnorm_activation_dropout_backward(dout, cache, *, dz=None, db=None, dgamma=None, dbeta=None, work=None):
    x_hat, inv_std, gamma, mean, var = cache.norm  # mean and var are scratch: for dγ/N and dβ/N
    if not dout.flags.c_contiguous:
        only_in_python()  # a thunk would keep reading this copy
        dout = np.ascontiguousarray(dout)
    dz, work = (np.empty_like(x_hat) if array is None else array for array in (dz, work))
    db, dgamma, dbeta = (np.empty_like(gamma) if d is None else d for d in (db, dgamma, dbeta))
    if cache.activation == "relu":
        norm.batchnorm_relu_backward(
            dout, cache.hidden, cache.scale, x_hat, inv_std[0], gamma, work, dz, dgamma, dbeta, mean[0], var[0]
        )
    else:
        results = work, dz, dgamma, dbeta, mean[0], var[0]
        norm.batchnorm_activation_backward(dout, *_slope(cache), x_hat, inv_std[0], gamma, *results)
    _clear(db)  # batch norm cancels a bias: its gradient is exactly zero, where a sum would give rounding noise
    return dz, db, dgamma, dbeta


def layernorm_activation_dropout_forward(
    z, b, gamma, beta, activation="relu", keep_ratio=1.0, rng=None, *, eps=EPS, x_hat=None, out=None, cache=None
):
    scalar, relu = z.dtype.type, activation == "relu"
    masked = _drops(keep_ratio, rng) and not relu
    inv_std = np.empty((len(z), 1), z.dtype) if cache is None else cache.norm.inv_std
    x_hat = _writable(z, x_hat if cache is None else _first_of(x_hat, cache.norm.x_hat))
    hidden = _to_activate(z, masked, out, cache)
    kept = _to_keep(activation, hidden, cache)
    kind = kinds.KINDS.index(activation)
    norm.layernorm_activation(x_hat, b, gamma, beta, scalar(eps), inv_std[:, 0], hidden, *_kept(kept), kind)
    normed = NormCache(x_hat, inv_std, gamma)
    if not relu:
        return _drop_units(activation, kept, hidden, b, normed, keep_ratio, rng, out, cache)
    scale = scalar(1 / keep_ratio if _drops(keep_ratio, rng) else 1)
    if scale != 1:
        _drop_in_place(hidden, rng.bits(hidden.shape), _last(keep_ratio), scale)
    return hidden, relu_cache(hidden, scale, normed, b)


def layernorm_activation_dropout_backward(dout, cache, *, dz=None, db=None, dgamma=None, dbeta=None, work=None):
    x_hat, inv_std, gamma, _, _ = cache.norm
    if not dout.flags.c_contiguous:
        only_in_python()  # a thunk would keep reading this copy
        dout = np.ascontiguousarray(dout)
    dz = np.empty_like(x_hat) if dz is None else dz
    db, dgamma, dbeta = (np.empty_like(gamma) if d is None else d for d in (db, dgamma, dbeta))
    first, second, mask, kind = _slope(cache)
    scale = cache.scale if cache.activation == "relu" else dz.dtype.type(1)
    results = dz, db, dgamma, dbeta
    norm.layernorm_activation_backward(dout, first, second, mask, scale, kind, x_hat, inv_std[:, 0], gamma, *results)
    return dz, db, dgamma, dbeta


def _first_of(*arrays: Any) -> Any:
    """Return the first of these arrays that is not None, or None."""
    return next((array for array in arrays if array is not None), None)


_NOTHING = {"f": np.empty(0, np.float32), "d": np.empty(0, np.float64)}
_NO_BITS, _NO_LAST = np.empty((0, 0), np.uint16), np.uint16(0)


_NO_MASK = np.empty((0, 0), np.float32)


class _Layout(Layout):
    """Accept every element-wise activation in float32, and ReLU in float64, too."""

    def activates(self, activation: str, z: Any) -> bool:
        return activation in kinds.KINDS and z.dtype == np.float32


class _OfRows(_Layout):
    """Accept float32 rows that are not empty: what the loops of layer norm take."""

    @staticmethod
    def floats(*arrays: Any) -> bool:
        return arrays[0].dtype == np.float32 and arrays[0].size > 0 and is_contiguous_float(*arrays)


def _kernels(kind: str, forward: Any, backward: Any, on: Layout) -> dict[str, Kernel]:
    fits_forward = getattr(fits, f"{kind}_activation_dropout_forward")
    return {
        f"{kind}_activation_dropout_forward": Kernel(forward, partial(fits_forward, on)),
        f"{kind}_activation_dropout_backward": Kernel(backward, partial(fits.activation_dropout_backward, on)),
    }


KERNELS = {
    **_kernels("bias", bias_activation_dropout_forward, bias_activation_dropout_backward, _Layout()),
    **_kernels("batchnorm", batchnorm_activation_dropout_forward, batchnorm_activation_dropout_backward, _Layout()),
    **_kernels("layernorm", layernorm_activation_dropout_forward, layernorm_activation_dropout_backward, _OfRows()),
}
