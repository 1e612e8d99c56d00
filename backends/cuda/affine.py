"""The CUDA kernels of affine layers, as `fcnet.functional.affine` defines them: cuBLAS; narrow.cu for few outputs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from fcnet.backends import fits
from fcnet.backends.cuda import narrow
from fcnet.backends.cuda.bf16 import rounded, widened
from fcnet.backends.cuda.launch import SHARE, SIDE, Launcher
from fcnet.backends.device import Array, Kernel

MANY_ROWS = 1024  # rows from which on several blocks add up a bias gradient


def run_in_turn(first: Callable[[], object], second: Callable[[], object]) -> None:
    """Make two calls, one after the other."""
    first()
    second()


class AffineKernels:
    """Multiply by cuBLAS, with bias and its gradient by hidden.cu; where `narrow.taken`, everything by narrow.cu."""

    def __init__(
        self, launcher: Launcher, gemm: Callable[..., Array], run_concurrently: Callable[..., None] = run_in_turn
    ) -> None:
        """Keep what the kernels use: `gemm` as in `Backend`; `run_concurrently` makes two independent calls."""
        self._on, self._gemm, self._run_concurrently = launcher, gemm, run_concurrently

    def table(self) -> dict[str, Kernel]:
        """Return the kernels by the name of the reference function."""
        return {
            "affine_forward": Kernel(self.affine_forward, partial(fits.affine_forward, self._on)),
            "affine_backward": Kernel(self.affine_backward, partial(fits.affine_backward, self._on)),
            "matmul_backward": Kernel(self.matmul_backward, partial(fits.matmul_backward, self._on)),
        }

    def affine_forward(self, x, w, b, *, out=None, precision=None):
        if narrow.taken(x, w) and (out is None or narrow.apart([out], [x, w, b])):
            out = self._on.like(out, w, (len(x), w.shape[1]))
            narrow.forward(self._on, out, self._stored(x, precision), w, b)
            return out, (x, w, b)
        out = self._gemm(x, w, out=out, precision=precision)
        self._on.each("add_bias", out, out.size, out, out, b, np.int64(out.size), np.int32(out.shape[1]))
        return out, (x, w, b)

    def matmul_backward(self, dout, x, w, *, need_dx=True, dx=None, dw=None, precision=None):
        return self._product_gradients(dout, x, w, need_dx, dx, dw, precision)

    def affine_backward(self, dout, cache, *, need_dx=True, dx=None, dw=None, db=None, precision=None):
        x, w, b = cache
        given = [array for array in (dx, dw, db) if array is not None]
        if narrow.taken(x, w) and narrow.apart(given, [dout, x, w]):
            dx = self._on.like(dx, x) if need_dx else None
            dw, db = self._on.like(dw, w), self._on.like(db, b)
            stored = self._stored(x, precision)
            like_it = dx is None or dx.dtype == stored.dtype
            result = dx if like_it else self._on.like(None, stored)
            narrow.backward(self._on, result, dw, db, dout, stored, w)
            if not like_it:
                widened(self._on, result, dx)
            return dx, dw, db
        db = self._on.like(db, b)
        dx, dw = self._product_gradients(
            dout, x, w, need_dx, dx, dw, precision,
            lambda: self.bias_gradient(dout, db),
        )  # fmt: skip
        return dx, dw, db

    def _stored(self, x: Array, precision: str | None) -> Array:
        """Return x as narrow.cu reads it; w is multiplied in full precision, which is at least what is asked for."""
        return rounded(self._on, x) if precision == "bf16" else x

    def bias_gradient(self, dout: Array, db: Array) -> None:
        """Fill db (M,) with the sums of the columns of dout (N, M)."""
        rows, width = dout.shape
        blocks = -(-rows // SHARE) if rows > MANY_ROWS else 1
        parts = db if blocks == 1 else self._on.cupy.empty((blocks, width), db.dtype)
        grid, shape = (-(-width // SIDE), blocks), (np.int32(rows), np.int32(width))
        share = np.int32(rows if blocks == 1 else SHARE)
        self._on.launch("bias_gradient", dout.dtype.char, grid, (SIDE, SIDE), parts, dout, *shape, share)
        if blocks > 1:
            self._on.each("sum_of_parts", db, width, db, parts, np.int32(blocks), shape[1])

    def _product_gradients(self, dout, x, w, need_dx, dx, dw, precision, besides=lambda: None):
        """Return dx and dw, computed concurrently where possible; `besides` runs after dw."""
        dw = self._on.like(dw, w)
        dx = self._on.like(dx, x) if need_dx else None

        def of_weights() -> None:
            self._gemm(x.T, dout, out=dw, precision=precision)
            besides()

        if need_dx:

            def of_inputs() -> None:
                self._gemm(dout, w.T, out=dx, precision=precision, stored=precision)

            self._run_concurrently(of_weights, of_inputs)
        else:
            of_weights()
        return dx, dw
