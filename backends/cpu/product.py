"""Matrix products in float32 for CPUs with AVX-512: what NumPy's BLAS does, at the speed of the machine.

OpenBLAS chooses its code by a list of CPU models, and a CPU newer than the list gets code for half as wide vectors;
and it uses one core for the thin products of a small network's layers. Here the innermost loop is written in LLVM's
own terms: 8 rows by 32 columns of the result stay in 16 registers while a row of B and 8 numbers of A go by.

Blocking after Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008: a block of A is copied
to where it stays in the second-level cache, a panel of B to where it stays in the first. Every element of the result
is one sum over k in one order, whichever thread computes it and however the result is cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic

from fcnet.backends.cpu import pool
from fcnet.backends.cpu.compiled_step import integer, matrix, thunk_of
from fcnet.backends.cpu.jit import Jit

LANES = 16  # float32 in a register
ROWS = 8  # of the result in registers at a time
COLUMNS = 2 * LANES
DEPTH = 288  # of a block: a panel of B, 36 KiB, stays in the first-level cache
BLOCK = 512  # rows of a block: one of A, 600 KiB, stays in the second-level cache
A_ROW, A_COLUMN = (
    DEPTH + LANES,
    BLOCK + LANES,
)  # strides of the copied block; never a power of two, which caches dislike
ITEM = 4  # bytes

_float, _int, _word, _bit = ir.FloatType(), ir.IntType(32), ir.IntType(64), ir.IntType(1)
_vector, _mask = ir.VectorType(_float, LANES), ir.VectorType(_bit, LANES)
_index = ir.VectorType(_int, LANES)
_zeros = ir.Constant(_vector, [0.0] * LANES)


def _constant(value: int) -> ir.Constant:
    return ir.Constant(_word, value)


def _declared(builder: ir.IRBuilder, name: str, result: Any, arguments: Sequence[Any]) -> ir.Function:
    """An LLVM intrinsic over vectors (llvmlite's own `declare_intrinsic` knows scalars only)."""
    known = builder.module.globals.get(name)
    return known or ir.Function(builder.module, ir.FunctionType(result, arguments), name)


def _at(builder: ir.IRBuilder, address: Any, offset: Any = 0, kind: Any = _vector) -> Any:
    offset = _constant(offset) if isinstance(offset, int) else offset
    return builder.inttoptr(builder.add(address, offset), kind.as_pointer())


def _everywhere(builder: ir.IRBuilder, scalar: Any) -> Any:
    """A scalar in every lane."""
    kind = ir.VectorType(scalar.type, LANES)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(_int, 0))
    return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), ir.Constant(_index, [0] * LANES))


def _first(builder: ir.IRBuilder, count: Any) -> Any:
    """The mask of the first `count` lanes."""
    lanes = ir.Constant(ir.VectorType(_word, LANES), list(range(LANES)))
    return builder.icmp_signed("<", lanes, _everywhere(builder, count))


def _masked_load(builder: ir.IRBuilder, pointer: Any, mask: Any) -> Any:
    kinds = [pointer.type, _int, _mask, _vector]
    load = _declared(builder, f"llvm.masked.load.v{LANES}f32.p0", _vector, kinds)
    return builder.call(load, [pointer, ir.Constant(_int, ITEM), mask, _zeros])


def _masked_store(builder: ir.IRBuilder, value: Any, pointer: Any, mask: Any) -> None:
    kinds = [_vector, pointer.type, _int, _mask]
    store = _declared(builder, f"llvm.masked.store.v{LANES}f32.p0", ir.VoidType(), kinds)
    builder.call(store, [value, pointer, ir.Constant(_int, ITEM), mask])


def _prefetch_at(builder: ir.IRBuilder, pointer: Any) -> None:
    fetch = _declared(builder, "llvm.prefetch.p0", ir.VoidType(), [pointer.type, _int, _int, _int])
    builder.call(fetch, [pointer, *(ir.Constant(_int, n) for n in (0, 3, 1))])


@intrinsic
def _copy(typing, source, target, lanes):
    """16 floats to `target`, of which the first `lanes` are read from `source` and the rest are zero."""

    def generate(context, builder, signature, arguments):
        source, target, lanes = arguments
        value = _masked_load(builder, _at(builder, source), _first(builder, lanes))
        builder.store(value, _at(builder, target), align=ITEM)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), generate


@intrinsic
def _transpose(typing, source, stride, rows, lanes, target, target_stride):
    """A square of 16 by 16 floats transposed; `rows` and `lanes` are how many of `source` there are (1 or more)."""

    def generate(context, builder, signature, arguments):
        source, stride, rows, lanes, target, target_stride = arguments
        mask = _first(builder, lanes)
        last = builder.sub(rows, _constant(1))
        square = []
        for i in range(LANES):  # a missing row is the last one again: what it becomes is never looked at
            row = builder.select(builder.icmp_signed("<", _constant(i), rows), _constant(i), last)
            square.append(_masked_load(builder, _at(builder, source, builder.mul(row, stride)), mask))
        # Blocks of 8, 4, 2 and 1 lanes change places across the diagonal.
        for width in (8, 4, 2, 1):
            upper = [i if not i & width else i - width + LANES for i in range(LANES)]
            lower = [i + width if not i & width else i + LANES for i in range(LANES)]
            for i in range(LANES):
                if not i & width:
                    pair = square[i], square[i + width]
                    square[i] = builder.shuffle_vector(*pair, ir.Constant(_index, upper))
                    square[i + width] = builder.shuffle_vector(*pair, ir.Constant(_index, lower))
        for i in range(LANES):
            place = _at(builder, target, builder.mul(target_stride, _constant(i)))
            builder.store(square[i], place, align=ITEM)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), generate


def _tile(vectors: int, row: int, step: int) -> Any:
    """The innermost loop, for A's element (i, k) at i * row + k * step and a panel of so many vectors a row."""

    def emit(module: ir.Module) -> ir.Function:
        name = f"fcnet.tile.{vectors}.{row}.{step}"
        if name in module.globals:
            return module.globals[name]
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [_word] * 8), name)
        function.linkage = "internal"
        function.attributes.add("noinline")
        a, b, c, stride, depth, rows, columns, more = function.args
        start, loop, store, end = (function.append_basic_block(n) for n in ("start", "loop", "store", "end"))
        builder = ir.IRBuilder(start)
        for i in range(ROWS):  # the result is on its way while the sums are made
            for v in range(vectors):
                offset = builder.add(builder.mul(stride, _constant(i)), _constant(v * LANES * ITEM))
                _prefetch_at(builder, _at(builder, c, offset))
        builder.branch(loop)

        builder.position_at_end(loop)
        k, pa, pb = (builder.phi(_word) for _ in range(3))
        sums = [[builder.phi(_vector) for _ in range(vectors)] for _ in range(ROWS)]
        panel = [builder.load(_at(builder, pb, v * LANES * ITEM), align=LANES * ITEM) for v in range(vectors)]
        fma = _declared(builder, f"llvm.fma.v{LANES}f32", _vector, [_vector] * 3)
        added = []
        for i in range(ROWS):
            factor = _everywhere(builder, builder.load(_at(builder, pa, i * row * ITEM, _float), align=ITEM))
            added.append([builder.call(fma, [factor, panel[v], sums[i][v]]) for v in range(vectors)])
        following = (
            builder.add(k, _constant(1)),
            builder.add(pa, _constant(step * ITEM)),
            builder.add(pb, _constant(vectors * LANES * ITEM)),
        )
        builder.cbranch(builder.icmp_signed("<", following[0], depth), loop, store)
        for phi, first, later in zip((k, pa, pb), (_constant(0), a, b), following, strict=True):
            phi.add_incoming(first, start)
            phi.add_incoming(later, loop)
        for i in range(ROWS):
            for v in range(vectors):
                sums[i][v].add_incoming(_zeros, start)
                sums[i][v].add_incoming(added[i][v], loop)

        builder.position_at_end(store)
        masks = [_first(builder, builder.sub(columns, _constant(v * LANES))) for v in range(vectors)]
        onto = _everywhere(builder, builder.icmp_signed("!=", more, _constant(0)))
        for i in range(ROWS):
            place = function.append_basic_block(f"row{i}")
            builder.cbranch(builder.icmp_signed("<", _constant(i), rows), place, end)
            builder.position_at_end(place)
            for v in range(vectors):
                offset = builder.add(builder.mul(stride, _constant(i)), _constant(v * LANES * ITEM))
                pointer = _at(builder, c, offset)
                before = _masked_load(builder, pointer, builder.and_(masks[v], onto))
                _masked_store(builder, builder.fadd(before, added[i][v]), pointer, masks[v])
        builder.branch(end)
        builder.position_at_end(end)
        builder.ret_void()
        return function

    @intrinsic
    def tile(typing, a, b, c, stride, depth, rows, columns, more):
        def generate(context, builder, signature, arguments):
            builder.call(emit(builder.module), arguments)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 8), generate

    return tile


_run_pieces = pool.run_pieces.compiled
_wide, _narrow = _tile(2, A_ROW, 1), _tile(1, A_ROW, 1)
_wide_t, _narrow_t = _tile(2, 1, A_COLUMN), _tile(1, 1, A_COLUMN)

# Where the parts of a product stand in the shared words, counted from pool.JOB; strides in bytes.
A, A_STRIDE, A_TURNED, B, B_STRIDE, B_TURNED, C, C_STRIDE, M, N, K, PIECE_ROWS, PIECE_COLUMNS = range(13)


@pool.Task
def _piece(shared, piece, scratch):
    job = shared + 8 * pool.JOB
    a, a_stride, a_turned = pool.load(job + 8 * A), pool.load(job + 8 * A_STRIDE), pool.load(job + 8 * A_TURNED)
    b, b_stride, b_turned = pool.load(job + 8 * B), pool.load(job + 8 * B_STRIDE), pool.load(job + 8 * B_TURNED)
    c, c_stride = pool.load(job + 8 * C), pool.load(job + 8 * C_STRIDE)
    depth = pool.load(job + 8 * K)
    most_rows, most_columns = pool.load(job + 8 * PIECE_ROWS), pool.load(job + 8 * PIECE_COLUMNS)
    across = -(-pool.load(job + 8 * N) // most_columns)
    top, left = piece // across * most_rows, piece % across * most_columns
    rows = min(most_rows, pool.load(job + 8 * M) - top)
    columns = min(most_columns, pool.load(job + 8 * N) - left)
    block = (scratch + 63) & -64
    panel = block + A_ROW * BLOCK * ITEM  # the larger of the two forms
    panel = (panel + 63) & -64
    blocks = -(-depth // DEPTH)
    most = -(-depth // blocks)
    for begin in range(0, depth, most):
        deep = min(most, depth - begin)
        if a_turned:
            source = a + begin * a_stride + top * ITEM
            for k in range(deep):
                for i in range(0, rows, LANES):
                    _copy(source + k * a_stride + i * ITEM, block + (k * A_COLUMN + i) * ITEM, rows - i)
        else:
            source = a + top * a_stride + begin * ITEM
            for i in range(rows):
                for k in range(0, deep, LANES):
                    _copy(source + i * a_stride + k * ITEM, block + (i * A_ROW + k) * ITEM, deep - k)
        for j in range(0, columns, COLUMNS):
            wide = min(COLUMNS, columns - j)
            vectors = 2 if wide > LANES else 1
            line = vectors * LANES * ITEM
            if b_turned:
                source = b + (left + j) * b_stride + begin * ITEM
                for v in range(vectors):
                    there = min(LANES, wide - v * LANES)
                    for k in range(0, deep, LANES):
                        place = panel + k * line + v * LANES * ITEM
                        _transpose(source + v * LANES * b_stride + k * ITEM, b_stride, there, deep - k, place, line)
            else:
                source = b + begin * b_stride + (left + j) * ITEM
                for k in range(deep):
                    for v in range(vectors):
                        place = panel + k * line + v * LANES * ITEM
                        _copy(source + k * b_stride + v * LANES * ITEM, place, wide - v * LANES)
            for i in range(0, rows, ROWS):
                target = c + (top + i) * c_stride + (left + j) * ITEM
                if a_turned:
                    if vectors == 2:
                        _wide_t(block + i * ITEM, panel, target, c_stride, deep, rows - i, wide, begin)
                    else:
                        _narrow_t(block + i * ITEM, panel, target, c_stride, deep, rows - i, wide, begin)
                elif vectors == 2:
                    _wide(block + i * A_ROW * ITEM, panel, target, c_stride, deep, rows - i, wide, begin)
                else:
                    _narrow(block + i * A_ROW * ITEM, panel, target, c_stride, deep, rows - i, wide, begin)


PIECE = 400_000  # multiplications, at least: some microseconds' work; with fewer, one core is done before two could be


@Jit
def multiply(a, b, out, a_turned, b_turned, task, shared, scratch, num_threads):
    """out = a @ b, either of them turned (transposed) if so said; all C-contiguous, and none of them empty."""
    job = pool.JOB
    rows, columns = out.shape
    depth = a.shape[0] if a_turned else a.shape[1]
    piece_rows, piece_columns = min(rows, BLOCK), columns
    parts = min(num_threads, rows * columns * depth // PIECE)
    if parts > 1:
        # Cut so that little is copied twice: pieces side by side copy A again, pieces above one another B.
        if columns >= rows and columns >= 2 * parts * COLUMNS:
            piece_columns = -(-columns // (parts * COLUMNS)) * COLUMNS
        else:
            parts = parts if rows <= BLOCK else 2 * parts
            piece_rows = min(BLOCK, -(-rows // (parts * ROWS)) * ROWS)
    shared[pool.TASK] = task
    shared[job + A], shared[job + A_STRIDE], shared[job + A_TURNED] = a.ctypes.data, ITEM * a.shape[1], a_turned
    shared[job + B], shared[job + B_STRIDE], shared[job + B_TURNED] = b.ctypes.data, ITEM * b.shape[1], b_turned
    shared[job + C], shared[job + C_STRIDE] = out.ctypes.data, ITEM * columns
    shared[job + M], shared[job + N], shared[job + K] = rows, columns, depth
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
    """The address of the code that computes one piece."""
    return _piece.address


def served() -> bool:
    """Whether this CPU has the registers and instructions."""
    return bool(binding.get_host_cpu_features().get("avx512f"))
