"""The CUDA kernels of fused hidden layers with ReLU (hidden.cu), as `fcnet.functional.hidden` defines them."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from fcnet.backends import fits
from fcnet.backends.caches import EPS, MOMENTUM, HiddenCache, NormCache, keep_threshold, relu_cache
from fcnet.backends.cuda.launch import EACH, SHARE, SIDE, THREADS, Launcher
from fcnet.backends.device import Array, Kernel

MANY = 1 << 20  # elements of a gradient from which on several blocks share its rows


class HiddenKernels:
    """The kernels of hidden.cu."""

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
        given = hidden if out is None else out
        out = (self._on.like(None, z) if cache is None else cache.hidden) if given is None else given
        return out, relu_cache(out, self.bias_relu(out, z, b, keep_ratio, rng), None, b)

    def bias_relu(self, out: Array, z: Array, b: Array, keep_ratio: float, rng: Any) -> Any:
        """Fill `out`, of the dtype of z or, as uint16, bfloat16's bits; return 1 / keep_ratio in the dtype of z."""
        scale, dropout = _dropout(z, keep_ratio, rng)
        counts = np.int64(z.size), np.int32(z.shape[1])
        if out.dtype == z.dtype:
            aligned, other = "bias_relu_aligned", "bias_relu"
        else:
            aligned, other = "bias_relu_aligned_bf16", "bias_relu_bf16"
        name = aligned if self._on.aligned(z.shape[1], out, z, b) else other
        self._on.each(name, z, z.size, out, z, b, *counts, scale, *dropout, each=EACH)
        return scale

    def bias_activation_dropout_backward(self, dout, cache, *, dz=None, db=None):
        dz = self._on.like(dz, cache.hidden)
        db = self._on.like(db, dz, dz.shape[1:])
        self.bias_relu_backward(self._on.cupy.ascontiguousarray(dout), cache.hidden, cache.scale, dz, db)
        return dz, db

    def bias_relu_backward(self, dout: Array, hidden: Array, scale: Any, dz: Array, db: Array) -> None:
        """Fill dz and db; `hidden` and dz may be bfloat16's bits, as uint16, `hidden` only if dz is."""
        rows, width = dz.shape
        name = "bias_relu_backward"
        if dz.dtype != db.dtype:
            name = "bias_relu_backward_to_bf16" if hidden.dtype == db.dtype else "bias_relu_backward_bf16"
        shape = np.int32(rows), np.int32(width)
        if dz.size < MANY or rows <= SHARE or not self._on.aligned(width, dz, dout, hidden):
            self._on.columns(name, db, width, dz, db, dout, hidden, *shape, scale)
            return
        grid = -(-width // (SIDE * EACH)), -(-rows // SHARE)
        parts = self._on.cupy.empty((grid[1], width), db.dtype)
        arrays, block = (dz, parts, dout, hidden), (SIDE, THREADS // SIDE)
        self._on.launch(f"{name}_parts", db.dtype.char, grid, block, *arrays, *shape, np.int32(SHARE), scale)
        self._on.each("sum_of_parts", db, width, db, parts, np.int32(grid[1]), np.int32(width))

    def batchnorm_activation_dropout_forward(
        self, z, b, gamma, beta, activation="relu", keep_ratio=1.0, rng=None, *, running_mean=None, running_var=None,
        momentum=MOMENTUM, eps=EPS, x_hat=None, out=None, cache=None,
    ):  # fmt: skip
        scale, dropout = _dropout(z, keep_ratio, rng)
        cache = self._norm_cache(cache, z, b, gamma, x_hat, out, scale, (1, z.shape[1]))
        out, norm, real = cache.hidden, cache.norm, z.dtype.type
        rows, width = z.shape
        running = (running_mean, running_var) if running_mean is not None else (None, None)
        constants = np.int32(rows), np.int32(width), real(momentum), real(eps), scale
        arrays = out, norm.x_hat, norm.inv_std, z, b, gamma, beta, *running
        self._on.columns("batchnorm_relu", z, width, *arrays, *constants, *dropout)
        return out, cache

    def batchnorm_activation_dropout_backward(
        self, dout, cache, *, dz=None, db=None, dgamma=None, dbeta=None, work=None
    ):
        norm = cache.norm
        rows, width = cache.hidden.shape
        dz = self._on.like(dz, cache.hidden)
        db, dgamma, dbeta = (self._on.like(d, norm.gamma) for d in (db, dgamma, dbeta))
        arrays = dz, db, dgamma, dbeta, self._on.cupy.ascontiguousarray(dout), cache.hidden, *norm[:3]
        self._on.columns("batchnorm_relu_backward", dz, width, *arrays, np.int32(rows), np.int32(width), cache.scale)
        return dz, db, dgamma, dbeta

    def layernorm_activation_dropout_forward(
        self, z, b, gamma, beta, activation="relu", keep_ratio=1.0, rng=None, *, eps=EPS, x_hat=None, out=None,
        cache=None,
    ):  # fmt: skip
        scale, dropout = _dropout(z, keep_ratio, rng)
        cache = self._norm_cache(cache, z, b, gamma, x_hat, out, scale, (z.shape[0], 1))
        out, norm = cache.hidden, cache.norm
        rows, width = z.shape
        arrays = out, norm.x_hat, norm.inv_std, z, b, gamma, beta
        constants = np.int32(width), z.dtype.type(eps), scale
        self._on.launch("layernorm_relu", z.dtype.char, (rows,), (THREADS,), *arrays, *constants, *dropout)
        return out, cache

    def layernorm_activation_dropout_backward(
        self, dout, cache, *, dz=None, db=None, dgamma=None, dbeta=None, work=None
    ):
        hidden, norm = cache.hidden, cache.norm
        rows, width = hidden.shape
        dz, dy = self._on.like(dz, hidden), self._on.like(work, hidden)
        db, dgamma, dbeta = (self._on.like(d, norm.gamma) for d in (db, dgamma, dbeta))
        arrays = dz, dy, self._on.cupy.ascontiguousarray(dout), hidden, *norm[:3]
        constants = np.int32(width), cache.scale
        self._on.launch("layernorm_relu_backward", dz.dtype.char, (rows,), (THREADS,), *arrays, *constants)
        shape = np.int32(rows), np.int32(width)
        self._on.columns("layernorm_sums", dz, width, db, dgamma, dbeta, dz, dy, norm.x_hat, *shape)
        return dz, db, dgamma, dbeta

    def _norm_cache(
        self,
        cache: HiddenCache | None,
        z: Array,
        b: Array,
        gamma: Array,
        x_hat: Array | None,
        out: Array | None,
        scale: Any,
        inv_std: tuple[int, ...],
    ) -> HiddenCache:
        """Return a cache made of the arrays that were passed, those of an earlier cache, or new ones."""
        if cache is None or cache.norm is None:
            norm = NormCache(self._on.like(x_hat, z), self._on.like(None, z, inv_std), gamma)
            return relu_cache(self._on.like(out, z), scale, norm, b)
        x_hat = cache.norm.x_hat if x_hat is None else x_hat
        out = cache.hidden if out is None else out
        return relu_cache(out, scale, cache.norm._replace(x_hat=x_hat, gamma=gamma), b)


def _dropout(z: Array, keep_ratio: float, rng: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return the scale 1 / keep_ratio in the dtype of z, and the arguments of DROPOUT_PARAMETERS (common.cu)."""
    u64 = np.uint64
    if rng is None or keep_ratio == 1:
        return z.dtype.type(1), (u64(0), u64(0), u64(0), u64(0), None, u64(0), np.int32(65536))
    step, pointer = (0, rng.step) if hasattr(rng.step, "dtype") and rng.step.ndim else (int(rng.step), None)
    place = u64(rng.key[0]), u64(rng.key[1]), u64(rng.layer), u64(step), pointer, u64(rng.net)
    return z.dtype.type(1 / keep_ratio), (*place, np.int32(keep_threshold(keep_ratio)))
