"""Affine layers over shared-out products; names and signatures of `fcnet.functional.affine`. Float32 only."""

from __future__ import annotations

from typing import Any

import numpy as np

from fcnet.backends.cpu import pool, product, tape
from fcnet.backends.cpu.jit import Jit, plain
from fcnet.backends.cpu.tape import integer, matrix, vector
from fcnet.backends.device import Kernel

_multiply = product.multiply.compiled


@Jit
def _affine(x, w, b, out, task, board, scratch, hands):
    _multiply(x, w, out, False, False, task, board, scratch, hands)
    rows, width = out.shape
    for n in range(rows):
        for m in range(width):
            out[n, m] += b[m]


_affine_inner = _affine.compiled


@tape.played(_affine, "2212n")
def _play_affine(record, board, scratch, hands):
    x, w, b, out = matrix(record, 0), matrix(record, 3), vector(record, 6), matrix(record, 8)
    words, room = pool.desk(board, scratch)
    _affine_inner(x, w, b, out, integer(record, 11), words, room, hands)


@Jit
def _backward(dout, x, w, dx, dw, db, need_dx, need_db, task, board, scratch, hands):
    _multiply(x, dout, dw, True, False, task, board, scratch, hands)
    if need_dx:
        _multiply(dout, w, dx, False, True, task, board, scratch, hands)
    if need_db:
        rows, width = dout.shape
        for m in range(width):
            db[m] = 0
        for n in range(rows):
            for m in range(width):
                db[m] += dout[n, m]


_backward_inner = _backward.compiled


@tape.played(_backward, "222221nnn")
def _play_backward(record, board, scratch, hands):
    dout, x, w = matrix(record, 0), matrix(record, 3), matrix(record, 6)
    dx, dw, db = matrix(record, 9), matrix(record, 12), vector(record, 15)
    need_dx, need_db, task = integer(record, 17) != 0, integer(record, 18) != 0, integer(record, 19)
    words, room = pool.desk(board, scratch)
    _backward_inner(dout, x, w, dx, dw, db, need_dx, need_db, task, words, room, hands)


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


def _fit(*arrays: Any) -> bool:
    first = arrays[0]
    return first.dtype == np.float32 and all(a.ndim == 2 and a.size for a in arrays) and plain(*arrays)


def _given(arrays: Any) -> list[Any]:
    return [array for array in arrays if isinstance(array, np.ndarray)]


def _fits_matmul(x: Any, w: Any, *, out: Any = None, precision: Any = None) -> bool:
    return _fit(x, w, *_given([out]))


def _fits_affine(x: Any, w: Any, b: Any, *, out: Any = None, precision: Any = None) -> bool:
    return _fit(x, w, *_given([out])) and plain(x, b)


def _fits_matmul_backward(
    dout: Any, x: Any, w: Any, *, need_dx: bool = True, dx: Any = None, dw: Any = None, precision: Any = None
) -> bool:
    return _fit(dout, x, w, *_given([dx, dw]))


def _fits_affine_backward(
    dout: Any, cache: Any, *, need_dx=True, dx: Any = None, dw: Any = None, db: Any = None, precision: Any = None
) -> bool:
    x, w, b = cache
    return _fit(dout, x, w, *_given([dx, dw])) and plain(x, b, *_given([db]))


_ALL = {
    "matmul": Kernel(matmul, _fits_matmul),
    "matmul_backward": Kernel(matmul_backward, _fits_matmul_backward),
    "affine_forward": Kernel(affine_forward, _fits_affine),
    "affine_backward": Kernel(affine_backward, _fits_affine_backward),
}
KERNELS = _ALL if product.served() else {}
