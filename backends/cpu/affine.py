"""Numba kernels of affine layers, with the formulas of `fcnet.functional.affine`; float32, products on all threads."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from fcnet.backends import fits
from fcnet.backends.cpu import pool, product
from fcnet.backends.cpu.compiled_step import integer, matrix, thunk_of, vector
from fcnet.backends.cpu.jit import Jit, Layout, is_contiguous_float
from fcnet.backends.device import Kernel

_multiply = product.multiply.compiled


@Jit
def _affine(x, w, b, out, task, shared, scratch, num_threads):
    # out = x W + b
    _multiply(x, w, out, False, False, task, shared, scratch, num_threads)
    rows, width = out.shape
    for n in range(rows):
        for m in range(width):
            out[n, m] += b[m]


_affine_inner = _affine.compiled


@thunk_of(_affine, "2212n")
def _thunk_affine(record, shared, scratch, num_threads):
    x, w, b, out = matrix(record, 0), matrix(record, 3), vector(record, 6), matrix(record, 8)
    words, room = pool.context_arrays(shared, scratch)
    _affine_inner(x, w, b, out, integer(record, 11), words, room, num_threads)


@Jit
def _backward(dout, x, w, dx, dw, db, need_dx, need_db, task, shared, scratch, num_threads):
    # dW = xᵀ dout; dx = dout Wᵀ; db = Σ_n dout
    _multiply(x, dout, dw, True, False, task, shared, scratch, num_threads)
    if need_dx:
        _multiply(dout, w, dx, False, True, task, shared, scratch, num_threads)
    if need_db:
        rows, width = dout.shape
        for m in range(width):
            db[m] = 0
        for n in range(rows):
            for m in range(width):
                db[m] += dout[n, m]


_backward_inner = _backward.compiled


@thunk_of(_backward, "222221nnn")
def _thunk_backward(record, shared, scratch, num_threads):
    dout, x, w = matrix(record, 0), matrix(record, 3), matrix(record, 6)
    dx, dw, db = matrix(record, 9), matrix(record, 12), vector(record, 15)
    need_dx, need_db, task = integer(record, 17) != 0, integer(record, 18) != 0, integer(record, 19)
    words, room = pool.context_arrays(shared, scratch)
    _backward_inner(dout, x, w, dx, dw, db, need_dx, need_db, task, words, room, num_threads)


def matmul(x, w, *, out=None, precision=None):
    out = np.empty((x.shape[0], w.shape[1]), np.float32) if out is None else out
    pool.run(product.multiply, x, w, out, False, False, product.task(), work=x.size * w.shape[1])
    return out


def affine_forward(x, w, b, *, out=None, precision=None):
    out = np.empty((x.shape[0], w.shape[1]), np.float32) if out is None else out
    pool.run(_affine, x, w, b, out, product.task(), work=x.size * w.shape[1])
    return out, (x, w, b)


def matmul_backward(dout, x, w, *, need_dx=True, dx=None, dw=None, precision=None):
    dx, dw, _ = _gradients(dout, x, w, need_dx, dx, dw, None, False)
    return dx, dw


def affine_backward(dout, cache, *, need_dx=True, dx=None, dw=None, db=None, precision=None):
    x, w, _ = cache
    db = np.empty(w.shape[1], np.float32) if db is None else db
    return _gradients(dout, x, w, need_dx, dx, dw, db, True)


def _gradients(
    dout: Any, x: Any, w: Any, need_dx: bool, dx: Any, dw: Any, db: Any, need_db: bool
) -> tuple[Any, Any, Any]:
    dw = np.empty_like(w) if dw is None else dw
    if need_dx:
        dx = np.empty_like(x) if dx is None else dx
    arrays = dout, x, w, dx if need_dx else x, dw, db if need_db else _NONE
    pool.run(_backward, *arrays, need_dx, need_db, product.task(), work=x.size * w.shape[1])
    return dx if need_dx else None, dw, db


_NONE = np.empty(0, np.float32)


class _Layout(Layout):
    """Accept float32 arrays that are not empty: what `product.multiply` takes."""

    @staticmethod
    def floats(*arrays: Any) -> bool:
        return arrays[0].dtype == np.float32 and all(a.size for a in arrays) and is_contiguous_float(*arrays)


_ON = _Layout()
_ALL = {
    "matmul": Kernel(matmul, partial(fits.matmul, _ON)),
    "matmul_backward": Kernel(matmul_backward, partial(fits.matmul_backward, _ON)),
    "affine_forward": Kernel(affine_forward, partial(fits.affine_forward, _ON)),
    "affine_backward": Kernel(affine_backward, partial(fits.affine_backward, _ON)),
}
KERNELS = _ALL if product.served() else {}
