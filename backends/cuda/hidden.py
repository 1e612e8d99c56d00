"""The CUDA kernels of fused hidden layers, as `fcnet.functional.hidden` defines them.

hidden.cu has the kernels with ReLU, activated.cu those with the other element-wise activations.

Besides what the functions take, z, out, dout, dz (of layer norm not that) and a ReLU's output in the cache may be in
bfloat16, all of them. All outputs and `work` must then be given, among them a cache from an earlier call in float32, of
which what the backward pass reads is filled.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from fcnet.backends import fits
from fcnet.backends.caches import EPS, MOMENTUM, GatedCache, HiddenCache, NormCache, keep_threshold, relu_cache
from fcnet.backends.cuda.bf16 import BITS
from fcnet.backends.cuda.launch import EACH, SHARE, SIDE, THREADS, Launcher
from fcnet.backends.cuda.sources import KEPT
from fcnet.backends.device import Array, Kernel

MANY = 1 << 20  # elements of a gradient from which on several blocks share its rows


class HiddenKernels:
    """Launch the kernels of hidden.cu and activated.cu."""

    def __init__(self, launcher: Launcher) -> None:
        self._on = launcher

    def table(self) -> dict[str, Kernel]:
        """Return the kernels by the name of the reference function."""
        kinds = "bias", "batchnorm", "layernorm"
        backward = partial(fits.activation_dropout_backward, self._on)
        table = {f"{kind}_activation_dropout_backward": backward for kind in kinds}
        for name in [f"{kind}_activation_dropout_forward" for kind in kinds]:
            table[name] = partial(getattr(fits, name), self._on)
        return {name: Kernel(getattr(self, name), suits) for name, suits in table.items()}

    def bias_activation_dropout_forward(
        self, z, b, activation="relu", keep_ratio=1.0, rng=None, *, hidden=None, out=None, cache=None
    ):
        scale, dropout = _dropout(b.dtype, keep_ratio, rng)
        out, cache = self._filled(z, b, activation, None, scale, _drops(keep_ratio, rng), hidden, out, cache)
        name, module = _kernel(activation, "bias_relu", "bias_activation")
        unit = _unit(out, cache, scale)
        aligned = self._on.aligned(z.shape[1], *_arrays(unit), z, b)
        shape = np.int64(z.size), np.int32(z.shape[1]), np.int32(aligned)
        self._on.each(name, z, z.size, *unit, z, b, *shape, *dropout, each=EACH, activation=module)
        return out, cache

    def bias_activation_dropout_backward(self, dout, cache, *, dz=None, db=None):
        dz = self._on.like(dz, cache.hidden)
        db = self._on.like(db, dz, dz.shape[1:])
        dout = self._on.cupy.ascontiguousarray(dout)
        rows, width = dz.shape
        blocks = 1 if dz.size < MANY else -(-rows // SHARE)
        parts = db if blocks == 1 else self._on.cupy.empty((blocks, width), db.dtype)
        name, module = _kernel(cache.activation, "bias_relu_backward", "bias_activation_backward")
        slope = _slope(cache)
        aligned = blocks > 1 and self._on.aligned(width, dz, dout, *_arrays(slope))
        grid = -(-width // (SIDE * EACH if aligned else SIDE)), blocks
        block = (SIDE, THREADS // SIDE) if aligned else (SIDE, SIDE)
        shape = np.int32(rows), np.int32(width), np.int32(rows if blocks == 1 else SHARE)
        name = f"{name}_aligned" if aligned else name
        self._on.launch(name, dz.dtype.char, grid, block, dz, parts, dout, *slope, *shape, activation=module)
        if blocks > 1:
            self._on.each("sum_of_parts", db, width, db, parts, np.int32(blocks), np.int32(width))
        return dz, db

    def batchnorm_activation_dropout_forward(
        self, z, b, gamma, beta, activation="relu", keep_ratio=1.0, rng=None, *, running_mean=None, running_var=None,
        momentum=MOMENTUM, eps=EPS, x_hat=None, out=None, cache=None,
    ):  # fmt: skip
        scale, dropout = _dropout(b.dtype, keep_ratio, rng)
        norm = self._norm(cache, z, gamma, x_hat, (1, z.shape[1]))
        out, cache = self._filled(z, b, activation, norm, scale, _drops(keep_ratio, rng), None, out, cache)
        rows, width = z.shape
        running = (running_mean, running_var) if running_mean is not None else (None, None)
        constants = np.int32(rows), np.int32(width), b.dtype.type(momentum), b.dtype.type(eps)
        arrays = norm.x_hat, norm.inv_std, z, b, gamma, beta, *running
        name, module = _kernel(activation, "batchnorm_relu", "batchnorm_activation")
        self._on.columns(name, z, width, *_unit(out, cache, scale), *arrays, *constants, *dropout, activation=module)
        return out, cache

    def batchnorm_activation_dropout_backward(
        self, dout, cache, *, dz=None, db=None, dgamma=None, dbeta=None, work=None
    ):
        norm = cache.norm
        rows, width = cache.hidden.shape
        dz = self._on.like(dz, cache.hidden)
        db, dgamma, dbeta = (self._on.like(d, norm.gamma) for d in (db, dgamma, dbeta))
        arrays = dz, db, dgamma, dbeta, self._on.cupy.ascontiguousarray(dout), *_slope(cache), *norm[:3]
        name, module = _kernel(cache.activation, "batchnorm_relu_backward", "batchnorm_activation_backward")
        self._on.columns(name, dz, width, *arrays, np.int32(rows), np.int32(width), activation=module)
        return dz, db, dgamma, dbeta

    def layernorm_activation_dropout_forward(
        self, z, b, gamma, beta, activation="relu", keep_ratio=1.0, rng=None, *, eps=EPS, x_hat=None, out=None,
        cache=None,
    ):  # fmt: skip
        scale, dropout = _dropout(b.dtype, keep_ratio, rng)
        norm = self._norm(cache, z, gamma, x_hat, (z.shape[0], 1))
        out, cache = self._filled(z, b, activation, norm, scale, _drops(keep_ratio, rng), None, out, cache)
        rows, width = z.shape
        arrays = *_unit(out, cache, scale), norm.x_hat, norm.inv_std, z, b, gamma, beta
        constants = np.int32(width), b.dtype.type(eps)
        name, module = _kernel(activation, "layernorm_relu", "layernorm_activation")
        self._on.launch(name, z.dtype.char, (rows,), (THREADS,), *arrays, *constants, *dropout, activation=module)
        return out, cache

    def layernorm_activation_dropout_backward(
        self, dout, cache, *, dz=None, db=None, dgamma=None, dbeta=None, work=None
    ):
        hidden, norm = cache.hidden, cache.norm
        rows, width = hidden.shape
        dz, dy = self._on.like(dz, hidden), self._on.like(work, hidden)
        db, dgamma, dbeta = (self._on.like(d, norm.gamma) for d in (db, dgamma, dbeta))
        arrays = dz, dy, self._on.cupy.ascontiguousarray(dout), *_slope(cache), *norm[:3]
        name, module = _kernel(cache.activation, "layernorm_relu_backward", "layernorm_activation_backward")
        self._on.launch(name, dout.dtype.char, (rows,), (THREADS,), *arrays, np.int32(width), activation=module)
        shape = np.int32(rows), np.int32(width)
        self._on.columns("layernorm_sums", dz, width, db, dgamma, dbeta, dz, dy, norm.x_hat, *shape)
        return dz, db, dgamma, dbeta

    # A cache is made of the arrays that were passed, those of an earlier cache, or new ones.

    def _norm(
        self, cache: HiddenCache | None, z: Array, gamma: Array, x_hat: Array | None, inv_std: tuple[int, ...]
    ) -> NormCache:
        if cache is not None and cache.norm is not None and z.dtype == BITS:
            return cache.norm
        if cache is None or cache.norm is None:
            return NormCache(self._on.like(x_hat, z), self._on.like(None, z, inv_std), gamma)
        return cache.norm._replace(x_hat=cache.norm.x_hat if x_hat is None else x_hat, gamma=gamma)

    def _filled(
        self, z: Array, b: Array, activation: str, norm: NormCache | None, scale: Any, dropped: bool,
        hidden: Array | None, out: Array | None, cache: HiddenCache | None,
    ) -> tuple[Array, HiddenCache]:  # fmt: skip
        """Return the output and the cache, of which dropout has arrays of its own, unless the activation is ReLU."""
        if cache is not None and z.dtype == BITS:
            return out, cache
        if activation == "relu" or not dropped:
            # What dropout left is ReLU's output; of another activation it is not.
            earlier = None if cache is None or (activation != "relu" and cache.needs_mask) else cache.hidden
            out = hidden = self._on.like(_first_of(out, hidden, earlier), z)
            mask = None
        else:
            earlier, mask = (cache.hidden, cache.mask) if cache is not None and cache.needs_mask else (None, None)
            hidden, mask, out = (self._on.like(a, z) for a in (_first_of(hidden, earlier), mask, out))
        if activation == "relu":
            return out, relu_cache(out, scale, norm, b)
        if not KEPT[activation]:
            kept = hidden
        elif cache is not None:
            kept = cache.activation_cache
        else:
            arrays = [self._on.like(None, z) for _ in range(KEPT[activation])]
            kept = arrays[0] if len(arrays) == 1 else GatedCache(*arrays)
        return out, HiddenCache(activation, kept, hidden, mask, norm, b)


def _first_of(*arrays: Array | None) -> Array | None:
    return next((array for array in arrays if array is not None), None)


def _kernel(activation: str, of_relu: str, of_others: str) -> tuple[str, str | None]:
    """Return a kernel's name, and the `activation` of `Launcher.launch`."""
    return (of_relu, None) if activation == "relu" else (of_others, activation)


def _unit(out: Array, cache: HiddenCache, scale: Any) -> tuple[Any, ...]:
    """Return the arguments of a ReLU unit (hidden.cu), or of UNIT_PARAMETERS (activated.cu)."""
    if cache.activation == "relu":
        return out, scale
    first, second = _kept(cache) if KEPT[cache.activation] else (None, None)
    # Of an output in bfloat16 the backward pass reads it in float32, where nothing else is kept.
    needed = cache.hidden is not out and not (KEPT[cache.activation] and out.dtype != cache.hidden.dtype)
    return out, cache.hidden if needed else None, first, second, cache.mask, scale


def _slope(cache: HiddenCache) -> tuple[Any, ...]:
    """Return the arguments of a ReLU's slope (hidden.cu), or of SLOPE_PARAMETERS (activated.cu)."""
    return (cache.hidden, cache.scale) if cache.activation == "relu" else (*_kept(cache), cache.mask)


def _kept(cache: HiddenCache) -> tuple[Array, Array | None]:
    kept = cache.activation_cache
    return tuple(kept) if isinstance(kept, GatedCache) else (kept, None)


def _arrays(arguments: tuple[Any, ...]) -> list[Array]:
    """Return the arrays, two-dimensional ones, among a kernel's arguments."""
    return [argument for argument in arguments if getattr(argument, "ndim", 0) == 2]


def _drops(keep_ratio: float, rng: Any) -> bool:
    return rng is not None and keep_ratio != 1


def _dropout(dtype: np.dtype, keep_ratio: float, rng: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return the scale 1 / keep_ratio in this dtype, and the arguments of DROPOUT_PARAMETERS (common.cu)."""
    u64 = np.uint64
    if not _drops(keep_ratio, rng):
        return dtype.type(1), (u64(0), u64(0), u64(0), u64(0), None, u64(0), np.int32(65536))
    step, pointer = (0, rng.step) if hasattr(rng.step, "dtype") and rng.step.ndim else (int(rng.step), None)
    place = u64(rng.key[0]), u64(rng.key[1]), u64(rng.layer), u64(step), pointer, u64(rng.net)
    return dtype.type(1 / keep_ratio), (*place, np.int32(keep_threshold(keep_ratio)))
