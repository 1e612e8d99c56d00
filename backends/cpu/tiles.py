"""Tiles of small matrix products in vector registers, for matrices (features, rows): columns are a batch's rows.

A tile holds HEIGHT x WIDTH vectors of LANES float32. Numba's loops cannot say which sums stay in registers, nor ask for
the widest vectors of a CPU with AVX-512 (LLVM itself prefers half of them), so these few steps are spelled in LLVM's
language: a tile is filled, products are added to it, and it is stored, or its vectors' sums. Addresses and steps are in
bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic, models, register_model

from fcnet.backends.cpu.blas import WIDE

_features = binding.get_host_cpu_features()
_BROAD = all(_features.get(name) for name in WIDE)  # 32 registers of 16 numbers
LANES = 16 if _BROAD else 8
HEIGHT, WIDTH = 4, 4 if _BROAD else 2
COLUMNS = LANES * WIDTH  # of a tile

_real, _word, _index = ir.FloatType(), ir.IntType(64), ir.IntType(32)
_vector = ir.VectorType(_real, LANES)
_tile = ir.ArrayType(_vector, HEIGHT * WIDTH)


class Tile(types.Type):
    """Describe a tile to the compiler."""

    def __init__(self) -> None:
        super().__init__(name=f"Tile({HEIGHT}, {WIDTH}, {LANES})")


tile_type = Tile()


@register_model(Tile)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Tile) -> None:
        super().__init__(manager, kind, _tile)


def _every(builder: ir.IRBuilder, start: Any, step: Any, count: int) -> list[Any]:
    """Return so many addresses, `step` bytes apart."""
    step = ir.Constant(_word, step) if isinstance(step, int) else step
    return [builder.add(start, builder.mul(step, ir.Constant(_word, i))) for i in range(count)]


def _pointer(builder: ir.IRBuilder, address: Any, kind: ir.Type) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


def _load(builder: ir.IRBuilder, addresses: Sequence[Any]) -> list[Any]:
    return [builder.load(_pointer(builder, address, _vector), align=4) for address in addresses]


def _spread(builder: ir.IRBuilder, address: Any) -> Any:
    """Return a vector of nothing but the number at this address."""
    nothing = ir.Constant(_vector, ir.Undefined)
    one = builder.insert_element(nothing, builder.load(_pointer(builder, address, _real)), ir.Constant(_index, 0))
    return _shuffled(builder, one, nothing, [0] * LANES)


def _shuffled(builder: ir.IRBuilder, a: Any, b: Any, lanes: Sequence[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_index, len(lanes)), lanes))


def _multiply_add(builder: ir.IRBuilder, a: Any, b: Any, c: Any) -> Any:
    name = f"llvm.fmuladd.v{LANES}f32"
    known = builder.module.globals.get(name)
    return builder.call(known or ir.Function(builder.module, ir.FunctionType(_vector, [_vector] * 3), name), [a, b, c])


def _joined(builder: ir.IRBuilder, parts: Sequence[Any]) -> Any:
    tile = ir.Constant(_tile, ir.Undefined)
    for i, part in enumerate(parts):
        tile = builder.insert_value(tile, part, i)
    return tile


def _parts(builder: ir.IRBuilder, tile: Any) -> list[Any]:
    return [builder.extract_value(tile, i) for i in range(HEIGHT * WIDTH)]


@intrinsic
def zeros(typing):
    """Return a tile of zeros."""

    def generate(context, builder, signature, arguments):
        return ir.Constant(_tile, None)

    return tile_type(), generate


@intrinsic
def filled(typing, numbers):
    """Return tile[i, :] = numbers[i], one after the other from an address on."""

    def generate(context, builder, signature, arguments):
        rows = [_spread(builder, address) for address in _every(builder, arguments[0], 4, HEIGHT)]
        return _joined(builder, [row for row in rows for _ in range(WIDTH)])

    return tile_type(types.int64), generate


@intrinsic
def plus_outer(typing, tile, a, step, b):
    """Return tile[i, :] + a[i] b: a number every `step` bytes, b one row of a tile."""

    def generate(context, builder, signature, arguments):
        tile, a, step, b = arguments
        numbers = [_spread(builder, address) for address in _every(builder, a, step, HEIGHT)]
        row = _load(builder, _every(builder, b, 4 * LANES, WIDTH))
        pairs = [(number, vector) for number in numbers for vector in row]
        return _joined(
            builder, [_multiply_add(builder, *p, c) for p, c in zip(pairs, _parts(builder, tile), strict=True)]
        )

    return tile_type(tile_type, *[types.int64] * 3), generate


@intrinsic
def plus_inner(typing, tile, a, b, step):
    """Return tile[i, j] + a[i] b[j], lane by lane: a vector of each every `step` bytes."""

    def generate(context, builder, signature, arguments):
        tile, a, b, step = arguments
        left, right = _load(builder, _every(builder, a, step, HEIGHT)), _load(builder, _every(builder, b, step, WIDTH))
        pairs = [(x, y) for x in left for y in right]
        return _joined(
            builder, [_multiply_add(builder, *p, c) for p, c in zip(pairs, _parts(builder, tile), strict=True)]
        )

    return tile_type(tile_type, *[types.int64] * 3), generate


@intrinsic
def plus(typing, tile, a, step):
    """Return tile + a, whose rows are `step` bytes apart."""

    def generate(context, builder, signature, arguments):
        tile, a, step = arguments
        rows = _every(builder, a, step, HEIGHT)
        terms = [v for row in rows for v in _load(builder, _every(builder, row, 4 * LANES, WIDTH))]
        return _joined(builder, [builder.fadd(c, v) for c, v in zip(_parts(builder, tile), terms, strict=True)])

    return tile_type(tile_type, types.int64, types.int64), generate


@intrinsic
def put(typing, tile, address, step):
    """Store a tile, whose rows are `step` bytes apart."""

    def generate(context, builder, signature, arguments):
        tile, address, step = arguments
        rows = _every(builder, address, step, HEIGHT)
        places = [place for row in rows for place in _every(builder, row, 4 * LANES, WIDTH)]
        for place, part in zip(places, _parts(builder, tile), strict=True):
            builder.store(part, _pointer(builder, place, _vector), align=4)
        return context.get_dummy_value()

    return types.void(tile_type, types.int64, types.int64), generate


def _sums(builder: ir.IRBuilder, vectors: Sequence[Any]) -> tuple[Any, list[int]]:
    """Return a vector with the sum of each of these in some lanes, and of which one it is in each lane.

    Two vectors become one of half sums, and so on: the shuffles are those that CPUs have, of one and of two numbers
    among four, then of fours.
    """
    fours = range(0, LANES, 4)
    shuffles = [
        [x for g in fours for x in (g, LANES + g, g + 1, LANES + g + 1)],
        [x for g in fours for x in (g, g + 1, LANES + g, LANES + g + 1)],
    ]
    halves = [x for g in range(0, 2 * LANES, 8) for x in range(g, g + 4)]
    level = [(vector, [i] * LANES) for i, vector in enumerate(vectors)]
    for n in range(LANES.bit_length() - 1):
        low = shuffles[n] if n < 2 else halves
        high = [x + (2 if n < 2 else 4) for x in low]
        pairs = list(zip(level[::2], level[1::2], strict=True)) if len(level) > 1 else [(level[0], level[0])]
        level = [
            (
                builder.fadd(_shuffled(builder, a, b, low), _shuffled(builder, a, b, high)),
                [(of_a + of_b)[x] for x in low],
            )
            for (a, of_a), (b, of_b) in pairs
        ]
    ((total, owners),) = level
    return total, owners


def _add_to(builder: ir.IRBuilder, address: Any, numbers: Any) -> None:
    place = _pointer(builder, address, numbers.type)
    builder.store(builder.fadd(builder.load(place, align=4), numbers), place, align=4)


@intrinsic
def add_sums(typing, tile, address, step):
    """Add the sum of each of a tile's vectors to a matrix whose rows are `step` bytes apart."""

    def generate(context, builder, signature, arguments):
        tile, address, step = arguments
        total, owners = _sums(builder, _parts(builder, tile))
        for i, row in enumerate(_every(builder, address, step, HEIGHT)):
            lanes = [owners.index(i * WIDTH + j) for j in range(WIDTH)]
            _add_to(builder, row, _shuffled(builder, total, total, lanes))
        return context.get_dummy_value()

    return types.void(tile_type, types.int64, types.int64), generate


@intrinsic
def add_row_sums(typing, tile, address):
    """Add the sum of each of a tile's rows to the numbers from an address on."""

    def generate(context, builder, signature, arguments):
        parts, rows = _parts(builder, arguments[0]), []
        for i in range(HEIGHT):
            row = parts[i * WIDTH]
            for part in parts[i * WIDTH + 1 : (i + 1) * WIDTH]:
                row = builder.fadd(row, part)
            rows.append(row)
        total, owners = _sums(builder, rows)
        _add_to(builder, arguments[1], _shuffled(builder, total, total, [owners.index(i) for i in range(HEIGHT)]))
        return context.get_dummy_value()

    return types.void(tile_type, types.int64), generate
