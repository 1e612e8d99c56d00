"""Matrix products in float32, shared out to our own threads: each piece is one call of a private OpenBLAS.

How a product is cut depends on its shape and the number of threads alone, so the same numbers give the same bits
whichever thread computes a piece. Another number of threads cuts otherwise, and OpenBLAS may then round otherwise.
"""

from __future__ import annotations

from fcnet.backends.cpu import blas, pool
from fcnet.backends.cpu.compiled_step import integer, matrix, thunk_of
from fcnet.backends.cpu.jit import Jit

ITEM = 4  # bytes
ROWS, COLUMNS = 4, 16  # pieces are multiples of these, as the innermost loops of OpenBLAS's AVX-512 code are
BROAD = 64  # columns of a piece, at least, where the columns are shared out
PIECE = 400_000  # multiplications, at least: some microseconds' work; with fewer, one core is done before two could be

_run_pieces = pool.run_pieces.compiled
_sgemm = blas.sgemm
_ROW_MAJOR, _PLAIN, _TRANSPOSED = blas.ROW_MAJOR, blas.PLAIN, blas.TRANSPOSED

# Where the parts of a product stand in the shared words, in words after pool.JOB.
A, A_WIDTH, A_TURNED, B, B_WIDTH, B_TURNED, C, M, N, K, PIECE_ROWS, PIECE_COLUMNS = range(12)


@pool.Task
def _piece(shared, piece, scratch):
    job = shared + 8 * pool.JOB
    a, a_width, a_turned = pool.load(job + 8 * A), pool.load(job + 8 * A_WIDTH), pool.load(job + 8 * A_TURNED)
    b, b_width, b_turned = pool.load(job + 8 * B), pool.load(job + 8 * B_WIDTH), pool.load(job + 8 * B_TURNED)
    c, columns, depth = pool.load(job + 8 * C), pool.load(job + 8 * N), pool.load(job + 8 * K)
    most_rows, most_columns = pool.load(job + 8 * PIECE_ROWS), pool.load(job + 8 * PIECE_COLUMNS)
    across = -(-columns // most_columns)
    top, left = piece // across * most_rows, piece % across * most_columns
    _sgemm(
        _ROW_MAJOR,
        _TRANSPOSED if a_turned else _PLAIN,
        _TRANSPOSED if b_turned else _PLAIN,
        min(most_rows, pool.load(job + 8 * M) - top),
        min(most_columns, columns - left),
        depth,
        1.0,
        a + ITEM * top * (1 if a_turned else a_width),
        a_width,
        b + ITEM * left * (b_width if b_turned else 1),
        b_width,
        0.0,
        c + ITEM * (top * columns + left),
        columns,
    )


@Jit
def multiply(a, b, out, a_turned, b_turned, task, shared, scratch, num_threads):
    """out = a @ b, either of them turned (transposed) if so said; all C-contiguous, and none of them empty."""
    job = pool.JOB
    rows, columns = out.shape
    depth = a.shape[0] if a_turned else a.shape[1]
    piece_rows, piece_columns = rows, columns
    parts = min(num_threads, rows * columns * depth // PIECE)
    if parts > 1:
        # Cut so that little is copied twice: pieces side by side copy A again, pieces above one another B.
        if columns >= rows and columns >= parts * BROAD:
            piece_columns = -(-columns // (parts * COLUMNS)) * COLUMNS
        else:
            piece_rows = -(-rows // (parts * ROWS)) * ROWS
    shared[pool.TASK] = task
    shared[job + A], shared[job + A_WIDTH], shared[job + A_TURNED] = a.ctypes.data, a.shape[1], a_turned
    shared[job + B], shared[job + B_WIDTH], shared[job + B_TURNED] = b.ctypes.data, b.shape[1], b_turned
    shared[job + C], shared[job + M], shared[job + N], shared[job + K] = out.ctypes.data, rows, columns, depth
    shared[job + PIECE_ROWS], shared[job + PIECE_COLUMNS] = piece_rows, piece_columns
    _run_pieces(shared, scratch, -(-rows // piece_rows) * -(-columns // piece_columns))


_multiply = multiply.compiled


@thunk_of(multiply, "222nnn")
def _thunk_multiply(record, shared, scratch, num_threads):
    a, b, out = matrix(record, 0), matrix(record, 3), matrix(record, 6)
    a_turned, b_turned, code = integer(record, 9) != 0, integer(record, 10) != 0, integer(record, 11)
    words, room = pool.context_arrays(shared, scratch)
    _multiply(a, b, out, a_turned, b_turned, code, words, room, num_threads)


def task() -> int:
    """Return the address of the code that computes one piece."""
    return _piece.address


def served() -> bool:
    """Return whether the library is installed."""
    return blas.loaded() is not None
