"""Multiply float32 matrices on our own threads: a product is cut into pieces, each one call of a private OpenBLAS.

How a product is cut depends only on its shape and on the number of threads. So the same arguments give the same bits,
whichever thread computes a piece; with another number of threads OpenBLAS may round otherwise.

These products serve float32 arrays wherever the library is installed; NumPy serves the rest. NumPy's time divided by
theirs, on two threads of an Intel Xeon with AVX-512 and AMX, called from Python (`python -m benchmarks.cpu_products`,
benchmarks/results/cpu-products-intel-xeon-2.md; in brackets a run in a quieter minute), N rows, D inputs, M outputs:

    N x D x M          forward      dW           dX
    100 x 784 x 100    0.9 (1.5)    0.8 (1.0)    -
    100 x 100 x 100    1.2 (1.6)    1.5 (1.1)    1.4 (1.9)
    100 x 3072 x 100   1.2 (1.4)    0.9 (1.1)    -
    512 x 512 x 512    0.8 (1.0)    0.9 (1.1)    0.8 (1.0)
    256 x 1024 x 1024  1.0 (1.0)    0.8 (1.0)    0.9 (1.1)
    512 x 512 x 10     1.0 (1.0)    1.0 (1.2)    0.6 (1.1)
    100 x 100 x 10     0.9 (0.9)    0.8 (0.8)    0.9 (0.8)

NumPy's products are not used even where they are as fast, because its threads spin for 0.1 s after each and keep the
cores from ours. In the last line the difference is a microsecond of Python's, which a recorded step does not pay.

Other ways to cut were tried, in GFLOP/s, rounds in turns (from minute to minute the same product ran at 150 to 250):

    100 x 100 times the transpose of 100 x 100   99 as it is, half of the rows for each of two threads; halves of the
                                                 columns 76, quarters of the rows 74, 2 x 2 pieces 70, one thread 59;
                                                 134 with W transposed before, which takes as long as that gains
    256 x 3072 x 1024                            250 as it is; the depth in parts of 384 to 1536 235 to 253, halves of
                                                 the rows 230, two and four pieces a thread 0.8 to 1.06 times as fast
    512 x 3072 x 512                             233 as it is; 252 to 270, 278, and the same

Other ways to multiply the large layers (wide's and bn's, forward, dW and dX), the same pieces on two threads of that
CPU, OpenBLAS's time over theirs, medians of 25 rounds in turns; in brackets one thread in a quiet minute:

    MKL 2026.2, sequential                  1.07 to 1.24 (1.03 to 1.08)    1 GB on disk; its bits may depend on
                                                                           where arrays lie, by default
    oneDNN 2023.2, one thread               1.00 to 1.18 (1.0 to 1.13)     needs the system's OpenMP
    BLIS 1.3 (the wheel of the same name)   0.52 to 0.64
    loops of our own: 8 rows x 48 columns   0.93 to 1.09 (0.94 to 1.03)    their innermost loop alone at 173 of
      in registers, operands packed                                        173 GFLOP/s, packing 5 to 12 %
    six products of bf16 parts on AMX, as   0.78 to 0.93 (1.1 to 1.4)      both threads share what AMX gains
      accurate as float32

PyTorch multiplies by MKL: that is why it is ahead there on large nets (README).
"""

from __future__ import annotations

from fcnet.backends.cpu import blas, pool
from fcnet.backends.cpu.compiled_step import integer, matrix, thunk_of
from fcnet.backends.cpu.jit import Jit

ITEM = 4  # bytes
ROWS, COLUMNS = 4, 16  # pieces are multiples of these, as the innermost loops of OpenBLAS's AVX-512 code are
BROAD = 64  # the fewest columns of a piece, where a product is cut between columns
PIECE = 400_000  # the fewest multiplications of a piece: for less, one core finishes before a second could start
NUMBERS = 50_000  # or so many numbers to read and write, which take a shallow product longer than multiplying does

_run_pieces = pool.run_pieces.compiled
_sgemm = blas.sgemm
_ROW_MAJOR, _NO_TRANS, _TRANS = blas.ROW_MAJOR, blas.NO_TRANS, blas.TRANS

# The description of a product in the shared words, as offsets from pool.JOB.
A, A_WIDTH, A_TRANSPOSED, B, B_WIDTH, B_TRANSPOSED, C, M, N, K, PIECE_ROWS, PIECE_COLUMNS = range(12)


@pool.Task
def _piece(shared, piece, scratch):
    # C[rows, columns] = A[rows] @ B[:, columns], for the rows and columns of this piece
    job = shared + 8 * pool.JOB
    a, a_width, a_transposed = pool.load(job + 8 * A), pool.load(job + 8 * A_WIDTH), pool.load(job + 8 * A_TRANSPOSED)
    b, b_width, b_transposed = pool.load(job + 8 * B), pool.load(job + 8 * B_WIDTH), pool.load(job + 8 * B_TRANSPOSED)
    c, columns, depth = pool.load(job + 8 * C), pool.load(job + 8 * N), pool.load(job + 8 * K)
    most_rows, most_columns = pool.load(job + 8 * PIECE_ROWS), pool.load(job + 8 * PIECE_COLUMNS)
    across = -(-columns // most_columns)
    top, left = piece // across * most_rows, piece % across * most_columns
    _sgemm(
        _ROW_MAJOR,
        _TRANS if a_transposed else _NO_TRANS,
        _TRANS if b_transposed else _NO_TRANS,
        min(most_rows, pool.load(job + 8 * M) - top),
        min(most_columns, columns - left),
        depth,
        1.0,
        a + ITEM * top * (1 if a_transposed else a_width),
        a_width,
        b + ITEM * left * (b_width if b_transposed else 1),
        b_width,
        0.0,
        c + ITEM * (top * columns + left),
        columns,
    )


@Jit
def multiply(a, b, out, a_transposed, b_transposed, task, shared, scratch, num_threads):
    """Write a @ b, with a or b transposed if so given, to out; all are C-contiguous, and none is empty."""
    job = pool.JOB
    rows, columns = out.shape
    depth = a.shape[0] if a_transposed else a.shape[1]
    piece_rows, piece_columns = rows, columns
    numbers = rows * depth + depth * columns + rows * columns
    parts = min(num_threads, max(rows * columns * depth // PIECE, numbers // NUMBERS))
    if parts > 1:
        # OpenBLAS copies its operands: each piece beside another copies A again, each piece below another B.
        if columns >= rows and columns >= parts * BROAD:
            piece_columns = -(-columns // (parts * COLUMNS)) * COLUMNS
        else:
            piece_rows = -(-rows // (parts * ROWS)) * ROWS
    shared[pool.TASK] = task
    shared[job + A], shared[job + A_WIDTH], shared[job + A_TRANSPOSED] = a.ctypes.data, a.shape[1], a_transposed
    shared[job + B], shared[job + B_WIDTH], shared[job + B_TRANSPOSED] = b.ctypes.data, b.shape[1], b_transposed
    shared[job + C], shared[job + M], shared[job + N], shared[job + K] = out.ctypes.data, rows, columns, depth
    shared[job + PIECE_ROWS], shared[job + PIECE_COLUMNS] = piece_rows, piece_columns
    _run_pieces(shared, scratch, -(-rows // piece_rows) * -(-columns // piece_columns))


_multiply = multiply.compiled


@thunk_of(multiply, "222nnn")
def _thunk_multiply(record, shared, scratch, num_threads):
    a, b, out = matrix(record, 0), matrix(record, 3), matrix(record, 6)
    a_transposed, b_transposed, code = integer(record, 9) != 0, integer(record, 10) != 0, integer(record, 11)
    words, room = pool.context_arrays(shared, scratch)
    _multiply(a, b, out, a_transposed, b_transposed, code, words, room, num_threads)


def task() -> int:
    """Return the address of the code that computes one piece."""
    return _piece.address


def served() -> bool:
    """Return whether the BLAS library is installed."""
    return blas.loaded() is not None
