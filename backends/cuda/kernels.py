"""Launches the kernels of the CUDA sources under the names and signatures of the functions they replace.

One module of all sources for each of float32 and float64, compiled for the device when the first kernel is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from backends.base import Array, Kernel
from backends.cuda import source
from backends.fused import FusedCache, FusedNorm, threshold

THREADS = 256  # of a block that works element by element
SIDE = 32  # of a block that works on columns: SIDE x SIDE threads (common.cu)
PARTS = 256  # blocks, and so partial sums, of the L2 term
MOST_ROWS = 65535  # of a batch that is gathered: a grid has no more rows

_REAL = {"f": "float", "d": "double"}


class CudaKernels:
    """The kernels of one device."""

    def __init__(self, cupy: Any, gemm: Callable[..., Array]) -> None:
        self.cupy, self._gemm = cupy, gemm
        self._functions: dict[tuple[str, str], Any] = {}
        self._modules: dict[str, Any] = {}

    def table(self) -> Mapping[str, Kernel]:
        """Name of a reference function -> its kernel."""
        unit, norm = self._fits_unit, self._fits_norm_unit
        return {
            "affine_forward": Kernel(self.affine_forward, self._fits_affine),
            "affine_backward": Kernel(self.affine_backward, self._fits_affine_backward),
            "bias_activation_dropout_forward": Kernel(self.bias_activation_dropout_forward, unit),
            "bias_activation_dropout_backward": Kernel(self.bias_activation_dropout_backward, _fits_backward),
            "batchnorm_activation_dropout_forward": Kernel(self.batchnorm_activation_dropout_forward, norm),
            "batchnorm_activation_dropout_backward": Kernel(self.batchnorm_activation_dropout_backward, _fits_backward),
            "layernorm_activation_dropout_forward": Kernel(self.layernorm_activation_dropout_forward, norm),
            "layernorm_activation_dropout_backward": Kernel(self.layernorm_activation_dropout_backward, _fits_backward),
            "softmax_loss": Kernel(self.softmax_loss, self._fits_loss),
            "svm_loss": Kernel(self.svm_loss, self._fits_loss),
            "l2_penalty": Kernel(self.l2_penalty, self._fits_penalty),
            "sgd": Kernel(self.sgd, self._fits_rule(0)),
            "momentum": Kernel(self.momentum, self._fits_rule(1)),
            "nesterov": Kernel(self.nesterov, self._fits_rule(1)),
            "adagrad": Kernel(self.adagrad, self._fits_rule(1)),
            "rmsprop": Kernel(self.rmsprop, self._fits_rule(1)),
            "adam": Kernel(self.adam, self._fits_rule(2)),
            "decay_weights": Kernel(self.decay_weights, self._fits_decay),
            "clip_by_value": Kernel(self.clip_by_value, self._fits_clip),
            "clip_by_norm": Kernel(self.clip_by_norm, self._fits_clip),
            "batch_rows": Kernel(self.batch_rows, self._fits_batch_rows),
            "gather": Kernel(self.gather, self._fits_gather),
            "preprocess": Kernel(self.preprocess, self._fits_preprocess),
            "advance": Kernel(self.advance, self._fits_advance),
            "record_step": Kernel(self.record_step, self._fits_record_step),
        }

    def _launch(self, name: str, real: str, grid: tuple[int, ...], block: tuple[int, ...], *arguments: Any) -> None:
        function = self._functions.get((name, real))
        if function is None:
            if real not in self._modules:
                self._modules[real] = self.cupy.RawModule(code=source("kernels", _REAL[real]))
            function = self._functions[name, real] = self._modules[real].get_function(name)
        function(grid, block, arguments)

    def _each(self, name: str, like: Array, size: int, *arguments: Any) -> None:
        """A thread for each of `size` elements."""
        self._launch(name, like.dtype.char, (-(-size // THREADS),), (THREADS,), *arguments)

    def _columns(self, name: str, like: Array, width: int, *arguments: Any) -> None:
        """A block for every SIDE columns."""
        self._launch(name, like.dtype.char, (-(-width // SIDE),), (SIDE, SIDE), *arguments)

    def _like(self, given: Array | None, like: Array, shape: tuple[int, ...] | None = None) -> Array:
        """The array that was given, or a new one."""
        return self.cupy.empty(like.shape if shape is None else shape, like.dtype) if given is None else given

    # Affine layers

    def affine_forward(self, x, w, b, *, out=None, precision=None):
        out = self._gemm(x, w, out=out, precision=precision)
        self._each("add_bias", out, out.size, out, out, b, np.int64(out.size), np.int32(out.shape[1]))
        return out, (x, w, b)

    def affine_backward(self, dout, cache, *, need_dx=True, dx=None, dw=None, db=None, precision=None):
        x, w, b = cache
        dw = self._gemm(x.T, dout, out=dw, precision=precision)
        dx = self._gemm(dout, w.T, out=dx, precision=precision) if need_dx else None
        db = self._like(db, b)
        rows, width = dout.shape
        self._columns("bias_gradient", dout, width, db, dout, np.int32(rows), np.int32(width))
        return dx, dw, db

    # Units

    def bias_activation_dropout_forward(
        self, z, b, activation="relu", keep_ratio=1.0, rng=None, *, hidden=None, out=None, cache=None
    ):
        given = hidden if out is None else out
        out = (self._like(None, z) if cache is None else cache.hidden) if given is None else given
        scale, dropout = _dropout(z, keep_ratio, rng)
        self._each("bias_relu", z, z.size, out, z, b, np.int64(z.size), np.int32(z.shape[1]), scale, *dropout)
        return out, FusedCache(out, scale) if cache is None or cache.hidden is not out else cache

    def bias_activation_dropout_backward(self, dout, cache, *, dz=None, db=None):
        dz = self._like(dz, cache.hidden)
        rows, width = dz.shape
        db = self._like(db, dz, (width,))
        dout = self.cupy.ascontiguousarray(dout)
        shape = np.int32(rows), np.int32(width)
        self._columns("bias_relu_backward", dz, width, dz, db, dout, cache.hidden, *shape, cache.scale)
        return dz, db

    def batchnorm_activation_dropout_forward(
        self, z, b, gamma, beta, activation="relu", keep_ratio=1.0, rng=None, *, running_mean=None, running_var=None,
        momentum=0.9, eps=1e-5, x_hat=None, out=None, cache=None,
    ):  # fmt: skip
        scale, dropout = _dropout(z, keep_ratio, rng)
        cache = self._norm_cache(cache, z, gamma, x_hat, out, scale, z.shape[1])
        out, norm, real = cache.hidden if out is None else out, cache.norm, z.dtype.type
        rows, width = z.shape
        running = (running_mean, running_var) if running_mean is not None else (None, None)
        constants = np.int32(rows), np.int32(width), real(momentum), real(eps), scale
        arrays = out, norm.x_hat, norm.inv_std, z, b, gamma, beta, *running
        self._columns("batchnorm_relu", z, width, *arrays, *constants, *dropout)
        return out, cache

    def batchnorm_activation_dropout_backward(
        self, dout, cache, *, dz=None, db=None, dgamma=None, dbeta=None, work=None
    ):
        norm = cache.norm
        rows, width = cache.hidden.shape
        dz = self._like(dz, cache.hidden)
        db, dgamma, dbeta = (self._like(d, norm.gamma) for d in (db, dgamma, dbeta))
        arrays = dz, db, dgamma, dbeta, self.cupy.ascontiguousarray(dout), cache.hidden, *norm[:3]
        self._columns("batchnorm_relu_backward", dz, width, *arrays, np.int32(rows), np.int32(width), cache.scale)
        return dz, db, dgamma, dbeta

    def layernorm_activation_dropout_forward(
        self, z, b, gamma, beta, activation="relu", keep_ratio=1.0, rng=None, *, eps=1e-5, x_hat=None, out=None,
        cache=None,
    ):  # fmt: skip
        scale, dropout = _dropout(z, keep_ratio, rng)
        cache = self._norm_cache(cache, z, gamma, x_hat, out, scale, z.shape[0])
        out, norm = cache.hidden if out is None else out, cache.norm
        rows, width = z.shape
        arrays = out, norm.x_hat, norm.inv_std, z, b, gamma, beta
        constants = np.int32(width), z.dtype.type(eps), scale
        self._launch("layernorm_relu", z.dtype.char, (rows,), (THREADS,), *arrays, *constants, *dropout)
        return out, cache

    def layernorm_activation_dropout_backward(
        self, dout, cache, *, dz=None, db=None, dgamma=None, dbeta=None, work=None
    ):
        hidden, norm = cache.hidden, cache.norm
        rows, width = hidden.shape
        dz, dy = self._like(dz, hidden), self._like(work, hidden)
        db, dgamma, dbeta = (self._like(d, norm.gamma) for d in (db, dgamma, dbeta))
        arrays = dz, dy, self.cupy.ascontiguousarray(dout), hidden, *norm[:3]
        constants = np.int32(width), cache.scale
        self._launch("layernorm_relu_backward", dz.dtype.char, (rows,), (THREADS,), *arrays, *constants)
        shape = np.int32(rows), np.int32(width)
        self._columns("layernorm_sums", dz, width, db, dgamma, dbeta, dz, dy, norm.x_hat, *shape)
        return dz, db, dgamma, dbeta

    def _norm_cache(
        self, cache: Any, z: Array, gamma: Array, x_hat: Array | None, out: Array | None, scale: Any, count: int
    ) -> FusedCache:
        if cache is not None and cache.norm.gamma is gamma:
            return cache
        norm = FusedNorm(self._like(x_hat, z), self._like(None, z, (count,)), gamma)
        return FusedCache(self._like(out, z), scale, norm)

    # Losses

    def softmax_loss(self, scores, y, *, loss=None, dscores=None):
        return self._loss("softmax_loss", scores, y, loss, dscores)

    def svm_loss(self, scores, y, *, loss=None, dscores=None):
        return self._loss("svm_loss", scores, y, loss, dscores)

    def _loss(self, name: str, scores: Array, y: Array, loss: Array | None, dscores: Array | None) -> tuple:
        loss, dscores = self._like(loss, scores, ()), self._like(dscores, scores)
        rows, classes = scores.shape
        threads = min(1024, 1 << max(5, (rows - 1).bit_length()))
        shape = np.int32(rows), np.int32(classes)
        self._launch(name, scores.dtype.char, (1,), (threads,), loss, dscores, scores, y, *shape)
        return loss, dscores

    def l2_penalty(self, weights, reg, loss, dweights, work):
        real, parts = weights.dtype.type, self.cupy.empty(PARTS, np.float64)
        size = np.int64(weights.size)
        self._launch("l2_parts", weights.dtype.char, (PARTS,), (THREADS,), parts, dweights, weights, size, real(reg))
        self._launch("l2_total", weights.dtype.char, (1,), (THREADS,), loss, parts, np.int32(PARTS), real(reg))
        return loss

    # Optimizer rules

    def sgd(self, w, dw, learning_rate, *, work):
        self._each("sgd", w, w.size, w, dw, np.int64(w.size), learning_rate)
        return w

    def momentum(self, w, dw, velocity, learning_rate, *, momentum=0.9, work):
        self._each("momentum", w, w.size, w, dw, velocity, np.int64(w.size), learning_rate, w.dtype.type(momentum))
        return w

    def nesterov(self, w, dw, velocity, learning_rate, *, momentum=0.9, work):
        self._each("nesterov", w, w.size, w, dw, velocity, np.int64(w.size), learning_rate, w.dtype.type(momentum))
        return w

    def adagrad(self, w, dw, cache, learning_rate, *, epsilon=1e-8, work):
        self._each("adagrad", w, w.size, w, dw, cache, np.int64(w.size), learning_rate, w.dtype.type(epsilon))
        return w

    def rmsprop(self, w, dw, cache, learning_rate, *, decay_rate=0.99, epsilon=1e-8, work):
        constants = (w.dtype.type(c) for c in (decay_rate, 1 - decay_rate, epsilon))
        self._each("rmsprop", w, w.size, w, dw, cache, np.int64(w.size), learning_rate, *constants)
        return w

    def adam(self, w, dw, m, v, step, learning_rate, *, beta1=0.9, beta2=0.999, epsilon=1e-8, work):
        constants = np.float64(beta1), np.float64(beta2), np.float64(epsilon)
        self._each("adam", w, w.size, w, dw, m, v, np.int64(w.size), step, learning_rate, *constants)
        return w

    def decay_weights(self, w, learning_rate, weight_decay, *, work):
        self._each("decay_weights", w, w.size, w, np.int64(w.size), learning_rate, np.float64(weight_decay))
        return w

    def clip_by_value(self, dw, limit):
        self._each("clip_by_value", dw, dw.size, dw, np.int64(dw.size), dw.dtype.type(limit))
        return dw

    def clip_by_norm(self, dw, limit, *, work=None):
        parts, size = self.cupy.empty(PARTS, np.float64), np.int64(dw.size)
        self._launch("norm_parts", dw.dtype.char, (PARTS,), (THREADS,), parts, dw, size)
        self._each("clip_by_norm", dw, dw.size, dw, size, parts, np.int32(PARTS), dw.dtype.type(limit))
        return dw

    # The start and the end of a step

    def batch_rows(self, order, cursor, offsets, positions, *, rows=None):
        rows = self._like(rows, offsets)
        counts = np.int64(order.size), cursor, np.int32(rows.size)
        self._launch("batch_rows", "f", (-(-rows.size // THREADS),), (THREADS,), rows, order, *counts)
        return rows

    def gather(self, data, rows, *, batch=None):
        batch = self._like(batch, data, (rows.size, *data.shape[1:]))
        row = batch.nbytes // rows.size
        unit = next(u for u in (16, 4, 1) if row % u == 0 and data.data.ptr % u == 0 and batch.data.ptr % u == 0)
        grid = -(-(row // unit) // THREADS), rows.size
        counts = np.int64(len(data)), np.int32(row // unit)
        self._launch(f"gather_{unit}", "f", grid, (THREADS,), batch, data, rows, *counts)
        return batch

    def preprocess(self, x, shift, scale, *, out=None):
        out = self._like(out, shift, x.shape)
        name = "preprocess_bytes" if x.dtype == np.uint8 else "preprocess_reals"
        self._each(name, shift, x.size, out, x, shift, scale, np.int64(x.size), np.int32(x.shape[1]))
        return out

    def advance(self, counters, increments):
        self._launch("advance", "f", (1,), (SIDE,), counters, increments, np.int32(counters.size))
        return counters

    def record_step(self, losses, counters, increments, loss):
        slots = np.int64(losses.size)
        self._launch("record_step", losses.dtype.char, (1,), (1,), losses, slots, counters, increments, loss)
        return losses

    # When they serve

    def _plain(self, *arrays: Any) -> bool:
        """Contiguous float32 or float64 arrays of one dtype, of this library."""
        dtype = arrays[0].dtype
        return dtype.char in _REAL and all(
            isinstance(a, self.cupy.ndarray) and a.dtype == dtype and a.flags.c_contiguous and a.size for a in arrays
        )

    def _whole(self, *arrays: Any) -> bool:
        """Contiguous int64 vectors, not empty."""
        return all(
            isinstance(a, self.cupy.ndarray) and a.dtype == np.int64 and a.ndim == 1 and a.flags.c_contiguous and a.size
            for a in arrays
        )

    def _fits_affine(self, x, w, b, *, out=None, precision=None):
        given = [] if out is None else [out]
        return x.ndim == w.ndim == 2 and b.ndim == 1 and self._plain(x, w, b, *given)

    def _fits_affine_backward(self, dout, cache, *, need_dx=True, dx=None, dw=None, db=None, precision=None):
        given = [array for array in (dx, dw, db) if array is not None]
        return dout.ndim == 2 and self._fits_affine(*cache) and self._plain(dout, *given)

    def _fits_unit(self, z, b, activation="relu", keep_ratio=1.0, rng=None, *, cache=None, **arrays):
        given = [array for array in arrays.values() if array is not None]
        ours = cache is None or isinstance(cache, FusedCache)
        return ours and activation == "relu" and z.ndim == 2 and b.ndim == 1 and self._plain(z, b, *given)

    def _fits_norm_unit(
        self, z, b, gamma, beta, activation="relu", keep_ratio=1.0, rng=None, *, momentum=0.9, eps=1e-5, **arrays
    ):
        vectors = gamma.ndim == beta.ndim == 1 and self._plain(z, gamma, beta)
        return vectors and self._fits_unit(z, b, activation, keep_ratio, rng, **arrays)

    def _fits_loss(self, scores, y, *, loss=None, dscores=None):
        given = [array for array in (loss, dscores) if array is not None]
        return scores.ndim == 2 and self._plain(scores, *given) and self._whole(y)

    def _fits_penalty(self, weights, reg, loss, dweights, work):
        return weights.ndim == 1 and dweights.shape == weights.shape and self._plain(weights, loss, dweights)

    def _fits_rule(self, moments: int) -> Callable[..., bool]:
        def fits(w, *arguments, **_):
            numbers = arguments[1 + moments :]  # the step, if the rule counts, and the rate: read on the device
            on_device = all(isinstance(n, self.cupy.ndarray) and n.size == 1 and n.dtype.char in "ld" for n in numbers)
            others = arguments[: 1 + moments]
            return w.ndim == 1 and on_device and self._plain(w, *others) and all(a.shape == w.shape for a in others)

        return fits

    def _fits_decay(self, w, learning_rate, weight_decay, *, work):
        return self._fits_rule(0)(w, w, learning_rate)

    def _fits_clip(self, dw, limit, *, work=None):
        return self._plain(dw)

    def _fits_batch_rows(self, order, cursor, offsets, positions, *, rows=None):
        return self._whole(order, cursor, offsets, *([] if rows is None else [rows]))

    def _fits_gather(self, data, rows, *, batch=None):
        given = [data] if batch is None else [data, batch]
        return (
            all(isinstance(a, self.cupy.ndarray) and a.flags.c_contiguous and a.size for a in given)
            and all(a.dtype == data.dtype for a in given)
            and self._whole(rows)
            and rows.size <= MOST_ROWS
        )

    def _fits_preprocess(self, x, shift, scale, *, out=None):
        given = [array for array in (scale, out) if array is not None]
        return (
            isinstance(x, self.cupy.ndarray)
            and x.ndim == 2
            and x.flags.c_contiguous
            and x.dtype in (np.uint8, shift.dtype)
            and x.size > 0
            and self._plain(shift, *given)
        )

    def _fits_advance(self, counters, increments):
        return self._whole(counters, increments) and counters.size == increments.size <= SIDE

    def _fits_record_step(self, losses, counters, increments, loss):
        return losses.ndim == 1 and self._plain(losses, loss) and self._whole(counters, increments)


def _fits_backward(dout, cache, **grads):
    return isinstance(cache, FusedCache)  # made by a kernel, so only a kernel can read it


def _dropout(z: Array, keep_ratio: float, rng: Any) -> tuple[Any, tuple[Any, ...]]:
    """The scale 1 / keep_ratio in the dtype of z, and the arguments of DROPOUT_PARAMETERS (common.cu)."""
    u64 = np.uint64
    if rng is None or keep_ratio == 1:
        return z.dtype.type(1), (u64(0), u64(0), u64(0), u64(0), None, u64(0), np.int32(65536))
    step, pointer = (0, rng.step) if hasattr(rng.step, "dtype") and rng.step.ndim else (int(rng.step), None)
    place = u64(rng.key[0]), u64(rng.key[1]), u64(rng.layer), u64(step), pointer, u64(rng.net)
    return z.dtype.type(1 / keep_ratio), (*place, np.int32(threshold(keep_ratio)))
