"""The CUDA kernels of layers and losses under the names and signatures of the functions they replace, and the table of
all kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from backends.base import Array, Kernel
from backends.cuda.batch import BatchKernels
from backends.cuda.launch import EACH, PARTS, THREADS
from backends.cuda.update import UpdateKernels
from backends.fused import FusedCache, FusedNorm, again, threshold


def in_turn(first: Callable[[], object], second: Callable[[], object]) -> None:
    """Make two calls, one after the other."""
    first()
    second()


class CudaKernels(BatchKernels, UpdateKernels):
    """The kernels of one device."""

    def __init__(self, cupy: Any, gemm: Callable[..., Array], both: Callable[..., None] = in_turn) -> None:
        """`gemm` as in `Backend`; `both` makes two calls that do not depend on each other."""
        super().__init__(cupy)
        self._gemm, self._both = gemm, both

    def table(self) -> Mapping[str, Kernel]:
        """Name of a reference function -> its kernel."""
        bias, batch, layer = (f"{kind}_activation_dropout" for kind in ("bias", "batchnorm", "layernorm"))
        return {
            "affine_forward": Kernel(self.affine_forward, self._fits_affine),
            "affine_backward": Kernel(self.affine_backward, self._fits_affine_backward),
            "matmul_backward": Kernel(self.matmul_backward, self._fits_matmul_backward),
            f"{bias}_forward": Kernel(self.bias_activation_dropout_forward, self._fits_unit),
            f"{bias}_backward": Kernel(self.bias_activation_dropout_backward, self._fits_backward),
            f"{batch}_forward": Kernel(self.batchnorm_activation_dropout_forward, self._fits_batchnorm),
            f"{batch}_backward": Kernel(self.batchnorm_activation_dropout_backward, self._fits_norm_backward),
            f"{layer}_forward": Kernel(self.layernorm_activation_dropout_forward, self._fits_layernorm),
            f"{layer}_backward": Kernel(self.layernorm_activation_dropout_backward, self._fits_norm_backward),
            "softmax_loss": Kernel(self.softmax_loss, self._fits_loss),
            "svm_loss": Kernel(self.svm_loss, self._fits_loss),
            "l2_penalty": Kernel(self.l2_penalty, self._fits_penalty),
            **self.updates(),
            **self.batches(),
        }

    # Affine layers

    def affine_forward(self, x, w, b, *, out=None, precision=None):
        out = self._gemm(x, w, out=out, precision=precision)
        self._each("add_bias", out, out.size, out, out, b, np.int64(out.size), np.int32(out.shape[1]))
        return out, (x, w, b)

    def matmul_backward(self, dout, x, w, *, need_dx=True, dx=None, dw=None, precision=None):
        return self._product_gradients(dout, x, w, need_dx, dx, dw, precision)

    def affine_backward(self, dout, cache, *, need_dx=True, dx=None, dw=None, db=None, precision=None):
        x, w, b = cache
        db = self._like(db, b)
        shape = np.int32(dout.shape[0]), np.int32(dout.shape[1])
        dx, dw = self._product_gradients(
            dout, x, w, need_dx, dx, dw, precision,
            lambda: self._columns("bias_gradient", dout, dout.shape[1], db, dout, *shape),
        )  # fmt: skip
        return dx, dw, db

    def _product_gradients(self, dout, x, w, need_dx, dx, dw, precision, besides=lambda: None):
        """dx and dw, the two at once where that can be, with `besides` beside dw."""
        dw = self._like(dw, w)
        dx = self._like(dx, x) if need_dx else None

        def of_weights() -> None:
            self._gemm(x.T, dout, out=dw, precision=precision)
            besides()

        if need_dx:
            self._both(of_weights, lambda: self._gemm(dout, w.T, out=dx, precision=precision))
        else:
            of_weights()
        return dx, dw

    # Units

    def bias_activation_dropout_forward(
        self, z, b, activation="relu", keep_ratio=1.0, rng=None, *, hidden=None, out=None, cache=None
    ):
        given = hidden if out is None else out
        out = (self._like(None, z) if cache is None else cache.hidden) if given is None else given
        scale, dropout = _dropout(z, keep_ratio, rng)
        counts = np.int64(z.size), np.int32(z.shape[1])
        self._each("bias_relu", z, z.size, out, z, b, *counts, scale, *dropout, each=EACH)
        same = cache is not None and cache.hidden is out and cache.scale == scale
        return out, cache if same else FusedCache(out, scale)

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
        cache = self._norm_cache(cache, z, gamma, x_hat, out, scale, z.shape[1:])
        out, norm, real = cache.hidden, cache.norm, z.dtype.type
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
        cache = self._norm_cache(cache, z, gamma, x_hat, out, scale, (z.shape[0], 1))
        out, norm = cache.hidden, cache.norm
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
        self,
        cache: Any,
        z: Array,
        gamma: Array,
        x_hat: Array | None,
        out: Array | None,
        scale: Any,
        inv_std: tuple[int, ...],
    ) -> FusedCache:
        """The cache that was given, if it is of this gamma, scale and output; else one with what it lacks."""
        if cache is None or cache.norm.gamma is not gamma:
            norm = FusedNorm(self._like(x_hat, z), self._like(None, z, inv_std), gamma)
            return FusedCache(self._like(out, z), scale, norm)
        if cache.scale != scale or (out is not None and out is not cache.hidden):
            return FusedCache(cache.hidden if out is None else out, scale, cache.norm)
        return cache

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

    # When they serve

    def _fits_affine(self, x, w, b, *, out=None, precision=None):
        given = [] if out is None else [out]
        return x.ndim == w.ndim == 2 and b.ndim == 1 and self._plain(x, w, b, *given)

    def _fits_affine_backward(self, dout, cache, *, need_dx=True, dx=None, dw=None, db=None, precision=None):
        given = [array for array in (dx, dw, db) if array is not None]
        return dout.ndim == 2 and self._fits_affine(*cache) and self._plain(dout, *given)

    def _fits_matmul_backward(self, dout, x, w, *, need_dx=True, dx=None, dw=None, precision=None):
        given = [array for array in (dx, dw) if array is not None]
        return dout.ndim == x.ndim == w.ndim == 2 and self._plain(dout, x, w, *given)

    def _fits_unit(self, z, b, activation="relu", keep_ratio=1.0, rng=None, *, cache=None, **arrays):
        suits = self._suits(z, activation, b, **arrays)
        return again("bias_activation_dropout_forward", cache, z, None, suits)

    def _fits_batchnorm(
        self, z, b, gamma, beta, activation="relu", keep_ratio=1.0, rng=None, *, momentum=0.9, eps=1e-5, cache=None,
        **arrays,
    ):  # fmt: skip
        suits = self._suits(z, activation, b, gamma, beta, **arrays)
        return again("batchnorm_activation_dropout_forward", cache, z, z.shape[1:], suits)

    def _fits_layernorm(
        self, z, b, gamma, beta, activation="relu", keep_ratio=1.0, rng=None, *, eps=1e-5, cache=None, **arrays
    ):
        suits = self._suits(z, activation, b, gamma, beta, **arrays)
        return again("layernorm_activation_dropout_forward", cache, z, (z.shape[0], 1), suits)

    def _suits(self, z, activation, *vectors, **arrays):
        given = [array for array in arrays.values() if array is not None]
        flat = z.ndim == 2 and all(vector.ndim == 1 for vector in vectors)
        return activation == "relu" and flat and self._plain(z, *vectors, *given)

    def _fits_backward(self, dout, cache, **grads):
        """A kernel's own cache, and plain arrays to fill."""
        if not isinstance(cache, FusedCache) or dout.dtype != cache.hidden.dtype:
            return False
        return self._plain(cache.hidden, *(array for array in grads.values() if array is not None))

    def _fits_norm_backward(self, dout, cache, **grads):
        return self._fits_backward(dout, cache, **grads) and cache.norm is not None

    def _fits_loss(self, scores, y, *, loss=None, dscores=None):
        given = [array for array in (loss, dscores) if array is not None]
        return scores.ndim == 2 and self._plain(scores, *given) and self._whole(y)

    def _fits_penalty(self, weights, reg, loss, dweights, work):
        return weights.ndim == 1 and dweights.shape == weights.shape and self._plain(weights, loss, dweights)


def _dropout(z: Array, keep_ratio: float, rng: Any) -> tuple[Any, tuple[Any, ...]]:
    """The scale 1 / keep_ratio in the dtype of z, and the arguments of DROPOUT_PARAMETERS (common.cu)."""
    u64 = np.uint64
    if rng is None or keep_ratio == 1:
        return z.dtype.type(1), (u64(0), u64(0), u64(0), u64(0), None, u64(0), np.int32(65536))
    step, pointer = (0, rng.step) if hasattr(rng.step, "dtype") and rng.step.ndim else (int(rng.step), None)
    place = u64(rng.key[0]), u64(rng.key[1]), u64(rng.layer), u64(step), pointer, u64(rng.net)
    return z.dtype.type(1 / keep_ratio), (*place, np.int32(threshold(keep_ratio)))
