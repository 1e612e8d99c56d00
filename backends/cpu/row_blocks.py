"""A small net's step on a large batch: some rows at a time through all layers and back, while they are in the cache.

Call by call, each layer's activations of the whole batch go out to memory and come back. Here a thread takes BLOCK rows
through products, activations, loss and the way back, in its own working memory, and adds up the gradients of a piece,
some blocks; the pieces' gradients are then added in order. Pieces depend on the number of rows alone, so who computes
one never shows, nor how many threads there are; but sums over rows are taken in another order than call by call.

A block lies in the working memory turned, features x rows: a vector is one feature of several rows, so that narrow and
odd layers fill it as well as wide ones. Weights are copied to whole tiles once a step, with zeros at their ends; rows
that a last block lacks are copies of its last one, and their share of the loss is 0. Where nothing else reads the
batch, its rows are taken from the data as they are turned.

For 4-32-16-4 with tanh, 10,000 rows, a block of 128 takes 6.7 us on one core of an Intel Xeon with AVX-512: products
3.7 (4 to 5 of the 5.5 vectors that the core can multiply in a nanosecond; with OpenBLAS 8), tanh 2, loss 0.5,
derivatives 0.4, turning 0.1.

`shortened` finds such a net in the calls of a recorded step: N rows, hidden layers without normalization and dropout,
an affine layer, a loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numba
import numpy as np

from fcnet.backends.cpu import activation as kinds
from fcnet.backends.cpu import pool, tiles
from fcnet.backends.cpu.batch import take
from fcnet.backends.cpu.compiled_step import BoundThunk, CompiledStep, Thunk
from fcnet.backends.cpu.jit import compiled, is_contiguous_float, is_contiguous_integer
from fcnet.backends.cpu.loss import LOSSES, loss_of_block, turn
from fcnet.backends.device import Array, Call

BLOCK = 128  # rows: a whole number of tiles
NARROW, STRIP = 64, 16  # features of a row up to which a block is turned at once; else so many rows
PIECE, PIECES = 512, 32  # rows of a piece, at least; pieces, at most: each has gradients of its own
LEAST = 2 * PIECE  # rows of a batch
WEIGHTS = 1 << 14  # parameters, at most: they stay in the second-level cache with the rows

ALIGNED = 64  # bytes: a vector that lies in two lines of the cache takes twice as long to load
_ROW = 4 * BLOCK  # bytes of a feature
_run_pieces = pool.run_pieces.compiled

# The plan in int64 words: what there is once, then LAYER_WORDS for each layer. Addresses, sizes, and places in bytes in
# a thread's working memory or in a piece's gradients. Weights and gradients are padded to whole tiles: PITCH is the
# number of bytes from a row to the next.
(
    N,
    LAYERS,
    PIECE_ROWS,
    LOSS,
    X,
    Y,
    LABELS,
    SAMPLE_WEIGHTS,
    PARTS,
    PART_SIZE,
    PART_LOSSES,
    MEAN,
    D_EVEN,
    D_ODD,
    TASK,
    TARGETS,
    STAGE,
    ORDER,
    CURSOR,
    SAMPLES,
) = range(20)
HEAD = 20
IN, OUT, PITCH, W, B, KIND, HIDDEN, FIRST, SECOND, DW, DB, DW_AT, DB_AT, W_GIVEN, B_GIVEN = range(15)
LAYER_WORDS = 15


@numba.njit(inline="always")
def _word(plan, word):
    return pool.load(plan + 8 * word)


@numba.njit(inline="always")
def _layer(plan, layer, word):
    return pool.load(plan + 8 * (HEAD + LAYER_WORDS * layer + word))


@numba.njit(inline="always")
def _matrix(address, rows, columns):
    return numba.carray(pool.to_floats(address), (rows, columns))


@numba.njit(inline="always")
def _padded(width):
    return (width + tiles.HEIGHT - 1) // tiles.HEIGHT * tiles.HEIGHT


@compiled
def strip_rows(depth):
    """Return how many rows of this width are gathered and turned at once.

    Of wide rows only a line of the cache: 128 rows of 1 KB fall on each other's places in the first-level cache, and
    the copies of a whole block would leave no room for it in the working memory.
    """
    return BLOCK if depth <= NARROW else STRIP


@compiled
def _rows(plan, data, top, rows, size, scratch):
    """Return the address of `rows` rows of the batch from `top` on, `size` bytes each: in place, or of copies."""
    if _word(plan, ORDER) == 0:
        return data + top * size
    samples, stage = _word(plan, SAMPLES), scratch + _word(plan, STAGE)
    begin = min(max(pool.load(_word(plan, CURSOR)) + top, 0), samples - rows)  # never outside the data
    take(data, pool.words(_word(plan, ORDER) + 8 * begin, rows), stage, samples, size)
    return stage


@compiled
def _forward(plan, scratch):
    """Fill the working memory with what each layer gives for these rows, and what its backward pass reads."""
    x = scratch
    for layer in range(_word(plan, LAYERS)):
        depth, width, out = _layer(plan, layer, IN), _layer(plan, layer, OUT), scratch + _layer(plan, layer, HIDDEN)
        w, b, pitch = _layer(plan, layer, W), _layer(plan, layer, B), _layer(plan, layer, PITCH)
        for left in range(0, _ROW, 4 * tiles.COLUMNS):
            for m in range(0, width, tiles.HEIGHT):
                tile = tiles.filled(b + 4 * m)
                for d in range(depth):
                    tile = tiles.plus_outer(tile, w + d * pitch + 4 * m, 4, x + d * _ROW + left)
                tiles.put(tile, out + m * _ROW + left, _ROW)
        first, second = scratch + _layer(plan, layer, FIRST), scratch + _layer(plan, layer, SECOND)
        size = width * BLOCK
        kinds.activate(
            _layer(plan, layer, KIND), pool.floats(out, size), pool.floats(first, size), pool.floats(second, size)
        )
        x = out


@compiled
def _loss(plan, top, rows, scratch):
    """Return the sum of these rows' losses, and put their gradient into the working memory."""
    last, count = _word(plan, LAYERS) - 1, _word(plan, N)
    width = _layer(plan, last, OUT)
    scores = _matrix(scratch + _layer(plan, last, HIDDEN), width, BLOCK)
    dscores = _matrix(scratch + _word(plan, D_EVEN + last % 2), width, BLOCK)
    weights = pool.floats(0, 0)
    if _word(plan, SAMPLE_WEIGHTS) != 0:
        weights = pool.floats(_word(plan, SAMPLE_WEIGHTS) + 4 * top, rows)
    kind = _word(plan, LOSS)
    labelled = _word(plan, LABELS) != 0
    y = _rows(plan, _word(plan, Y), top, rows, 8 if labelled else 4 * width, scratch)
    padding = _matrix(scratch + _word(plan, D_EVEN + last % 2) + width * _ROW, _padded(width) - width, BLOCK)
    padding[:] = 0
    if labelled:
        return loss_of_block(kind, scores, pool.words(y, rows), weights, rows, count, dscores)
    targets = _matrix(scratch + _word(plan, TARGETS), width, BLOCK)
    turn(_matrix(y, rows, width), targets, 0, BLOCK)
    return loss_of_block(kind, scores, targets, weights, rows, count, dscores)


@compiled
def _backward(plan, part, scratch):
    """Add these rows' gradients to those of the piece."""
    for layer in range(_word(plan, LAYERS) - 1, -1, -1):
        depth, width, w = _layer(plan, layer, IN), _layer(plan, layer, OUT), _layer(plan, layer, W)
        pitch = _layer(plan, layer, PITCH)
        at = scratch + _word(plan, D_EVEN + layer % 2)
        db, dw = part + _layer(plan, layer, DB_AT), part + _layer(plan, layer, DW_AT)
        x = scratch + (_layer(plan, layer - 1, HIDDEN) if layer else 0)
        for m in range(0, width, tiles.HEIGHT):
            tile = tiles.zeros()
            for left in range(0, _ROW, 4 * tiles.COLUMNS):
                tile = tiles.plus(tile, at + m * _ROW + left, _ROW)
            tiles.add_row_sums(tile, db + 4 * m)
        for d in range(0, depth, tiles.HEIGHT):
            for m in range(0, width, tiles.WIDTH):
                tile = tiles.zeros()
                for left in range(0, _ROW, 4 * tiles.LANES):
                    tile = tiles.plus_inner(tile, x + d * _ROW + left, at + m * _ROW + left, _ROW)
                tiles.add_sums(tile, dw + d * pitch + 4 * m, pitch)
        if layer:
            dx = scratch + _word(plan, D_EVEN + (layer - 1) % 2)
            for left in range(0, _ROW, 4 * tiles.COLUMNS):
                for d in range(0, depth, tiles.HEIGHT):
                    tile = tiles.zeros()
                    for m in range(width):
                        tile = tiles.plus_outer(tile, w + d * pitch + 4 * m, pitch, at + m * _ROW + left)
                    tiles.put(tile, dx + d * _ROW + left, _ROW)
            kind, size = _layer(plan, layer - 1, KIND), depth * BLOCK
            first, second = scratch + _layer(plan, layer - 1, FIRST), scratch + _layer(plan, layer - 1, SECOND)
            kinds.descend(kind, pool.floats(dx, size), pool.floats(first, size), pool.floats(second, size))


@pool.Task
def _piece(shared, piece, scratch):
    plan = pool.load(shared + 8 * pool.JOB)
    count, most, size = _word(plan, N), _word(plan, PIECE_ROWS), _word(plan, PART_SIZE)
    part, depth = _word(plan, PARTS) + 4 * size * piece, _layer(plan, 0, IN)
    scratch = (scratch + ALIGNED - 1) // ALIGNED * ALIGNED
    pool.floats(part, size)[:] = 0
    total = 0.0
    for top in range(piece * most, min(count, (piece + 1) * most), BLOCK):
        rows = min(BLOCK, min(count, (piece + 1) * most) - top)
        strip = strip_rows(depth)
        for left in range(0, rows, strip):
            some = min(strip, rows - left)
            x = _rows(plan, _word(plan, X), top + left, some, 4 * depth, scratch)
            end = BLOCK if left + some == rows else left + some
            turn(_matrix(x, some, depth), _matrix(scratch, depth, BLOCK), left, end)
        _forward(plan, scratch)
        total += _loss(plan, top, rows, scratch)
        _backward(plan, part, scratch)
    pool.doubles(_word(plan, PART_LOSSES), piece + 1)[piece] = total


@compiled
def _pad(source, rows, columns, target, pitch):
    """Copy a matrix to one that has `pitch` bytes from a row to the next."""
    for n in range(rows):
        pool.copy(source + 4 * n * columns, target + n * pitch, 4 * columns)


@Thunk
def _thunk_row_blocks(plan, shared, scratch, num_threads):
    words, room = pool.context_arrays(shared, scratch)
    words[pool.TASK], words[pool.JOB] = _word(plan, TASK), plan
    count, size, parts = _word(plan, N), _word(plan, PART_SIZE), _word(plan, PARTS)
    for layer in range(_word(plan, LAYERS)):
        depth, width, pitch = _layer(plan, layer, IN), _layer(plan, layer, OUT), _layer(plan, layer, PITCH)
        _pad(_layer(plan, layer, W_GIVEN), depth, width, _layer(plan, layer, W), pitch)
        _pad(_layer(plan, layer, B_GIVEN), 1, width, _layer(plan, layer, B), pitch)
    pieces = -(-count // _word(plan, PIECE_ROWS))
    _run_pieces(words, room, pieces)
    total = pool.floats(parts, size)
    for i in range(1, pieces):
        part = pool.floats(parts + 4 * size * i, size)
        for k in range(size):
            total[k] += part[k]
    for layer in range(_word(plan, LAYERS)):
        depth, width, pitch = _layer(plan, layer, IN), _layer(plan, layer, OUT), _layer(plan, layer, PITCH)
        dw, db = _layer(plan, layer, DW), _layer(plan, layer, DB)
        for d in range(depth):
            pool.copy(parts + _layer(plan, layer, DW_AT) + d * pitch, dw + 4 * d * width, 4 * width)
        pool.copy(parts + _layer(plan, layer, DB_AT), db, 4 * width)
    loss = 0.0
    for each in pool.doubles(_word(plan, PART_LOSSES), pieces):
        loss += each
    pool.floats(_word(plan, MEAN), 1)[0] = loss / count


class Unfit(Exception):
    """Signal that the calls are none of a net that this serves; the message says why."""


class Layer(NamedTuple):
    """Describe an affine layer with its activation, "identity" for the last one; x is its input, out its output."""

    x: Array
    w: Array
    b: Array
    activation: str
    out: Array
    inner: tuple[Array, ...]  # arrays of the step that are not filled here


class Net(NamedTuple):
    """Describe the calls from the first product to the last gradient, and the calls before and after them.

    `batch`: the arguments of the call that gathers the batch, where this net alone reads it; None: it lies there.
    """

    batch: dict[str, Any] | None
    layers: list[Layer]
    loss: dict[str, Any]
    grads: list[tuple[Array, Array]]
    before: list[Call]
    after: list[Call]


def shortened(calls: Sequence[Call]) -> list[Call] | None:
    """Return the calls with those of a net replaced by one; None if there is no such net in them."""
    try:
        net = _read(list(calls))
    except Unfit:
        return None
    plan, kept = _plan(net)
    work = plan[N] * sum(layer.w.size for layer in net.layers)
    bound = BoundThunk(_thunk_row_blocks, plan, (net, *kept), int(work))
    call = Call(CompiledStep([bound]))
    call.name, call.notes = "row_blocks", [bound]
    return [*net.before, call, *net.after]


def _unless(condition: bool, why: str) -> None:
    if not condition:
        raise Unfit(why)


def _read(calls: list[Call]) -> Net:
    _unless(bool(calls) and calls[0].name == "next_batch", "its batches come from elsewhere")
    names = [*(call.name for call in calls), "the end", "the end"]
    start = next((i for i, name in enumerate(names) if name in ("matmul", "affine_forward")), len(calls))
    at, layers = start, []
    while names[at] == "matmul":
        affine, hidden = calls[at].arguments, calls[at + 1].arguments
        _unless(names[at + 1] == "bias_activation_dropout_forward", "it has a normalization")
        _unless(hidden["rng"] is None or hidden["keep_ratio"] == 1, "it has dropout")
        _unless(hidden["activation"] in kinds.KINDS, "its activation has no kernel")
        inner = affine["out"], hidden["out"]
        layers.append(Layer(affine["x"], affine["w"], hidden["b"], hidden["activation"], hidden["out"], inner))
        at += 2
    _unless(names[at] == "affine_forward", f"{names[at]} comes before the last layer")
    last = calls[at].arguments
    layers.append(Layer(last["x"], last["w"], last["b"], "identity", last["out"], (last["out"],)))
    before = calls[:start]
    at += 1
    if names[at] == "smooth_labels":  # of the batch's labels alone
        before.append(calls[at])
        at += 1
    _unless(names[at].endswith("_loss"), f"{names[at]} is no loss")
    loss = {"name": names[at].removesuffix("_loss"), "weights": None} | calls[at].arguments
    _unless(loss["name"] in LOSSES, f"the loss {loss['name']} has no kernel")
    at += 1
    grads: list[tuple[Array, Array]] = []
    for layer in reversed(layers):
        if layer is layers[-1]:
            _unless(names[at] == "affine_backward", f"{names[at]} comes after the loss")
        else:
            _unless(names[at] == "bias_activation_dropout_backward", f"{names[at]} comes before a layer's gradients")
            at += 1
            _unless(names[at] == "matmul_backward", f"{names[at]} comes before a layer's gradients")
        found = calls[at].arguments
        db = found["db"] if layer is layers[-1] else calls[at - 1].arguments["db"]
        _unless(found["need_dx"] is (layer is not layers[0]), "some of its layers are frozen")
        grads.insert(0, (found["dw"], db))
        at += 1
    net = Net(None, layers, loss, grads, before, calls[at:])
    _check(net)
    return _gathering(net)


def _gathering(net: Net) -> Net:
    """Return the net with its rows taken from the data, if the call that does it does nothing else."""
    (first, *others), last = net.before, net.after
    batch = first.arguments
    x, y = net.layers[0].x, net.loss["y"]
    made = [batch[name] for name in ("batch", "targets", "rows", "raw", "positions") if batch[name] is not None]
    read_elsewhere = any(
        value is array for call in (*others, *last) for value in call.arguments.values() for array in made
    )
    is_it = batch["shift"] is None and batch["batch"] is x and batch["targets"] is y and not read_elsewhere
    whole = batch["order"].size == len(batch["X"])
    if is_it and whole and all(a.flags.c_contiguous and a.flags.aligned for a in (batch["X"], batch["y"])):
        return net._replace(batch=batch, before=others)
    return net


def _check(net: Net) -> None:
    layers, loss = net.layers, net.loss
    rows = len(layers[0].x)
    _unless(rows >= LEAST, "its batches have few rows")
    _unless(sum(layer.w.size + layer.b.size for layer in layers) <= WEIGHTS, "it has many weights")
    _unless(_room(layers).end <= pool.SCRATCH - ALIGNED, "its layers are wide")
    y, weights = loss["y"], loss["weights"]
    arrays = [array for layer in layers for array in (layer.x, layer.w, layer.b)]
    arrays += [array for pair in net.grads for array in pair] + [loss["loss"]]
    arrays += [] if weights is None else [weights]
    _unless(all(array.size for array in arrays) and is_contiguous_float(layers[0].x, *arrays), "its arrays do not fit")
    _unless(layers[0].x.dtype == np.float32, "it computes in float64")
    labels = y.ndim == 1
    _unless(is_contiguous_integer(y) if labels else is_contiguous_float(layers[0].x, y), "its targets do not fit")
    _unless(all(layer.x is before.out for before, layer in pairwise(layers)), "it is no chain")
    inner = {id(array) for layer in layers for array in layer.inner} | {id(loss["dscores"])}
    for call in (*net.before, *net.after):
        _unless(not any(id(value) in inner for value in call.arguments.values()), f"{call.name} reads the scores")


def _whole(width: int) -> int:
    """Return a width rounded up to whole tiles."""
    return -(-width // tiles.HEIGHT) * tiles.HEIGHT


class Room(NamedTuple):
    """Describe where things lie in a thread's working memory, in bytes: the input is at its start."""

    layers: list[tuple[int, int, int]]  # what each gives, and the two arrays that its backward pass reads
    gradients: tuple[int, int]
    targets: int
    stage: int  # rows as the data have them
    end: int


def _room(layers: list[Layer]) -> Room:
    widths = [_whole(layer.w.shape[1]) for layer in layers]
    places, at = [], _whole(layers[0].w.shape[0]) * 4 * BLOCK
    for layer, width in zip(layers, widths, strict=True):
        size = 4 * BLOCK * width
        count = 1 + (layer.activation not in kinds.OF_OUTPUT) + (layer.activation in kinds.GATED)
        places.append((at, at + size * (count > 1), at + size * (count - 1)))
        at += size * count
    size, last = 4 * BLOCK * max(widths), 4 * BLOCK * widths[-1]
    targets = at + 2 * size
    stage, depth = targets + last, layers[0].w.shape[0]
    staged = max(4 * strip_rows(depth) * depth, last, 8 * BLOCK)  # inputs, targets or labels
    return Room(places, (at, at + size), targets, stage, stage + staged)


def _plan(net: Net) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the plan's words, and arrays that it points to besides the net's."""
    layers, loss, room = net.layers, net.loss, _room(net.layers)
    rows = len(layers[0].x)
    blocks = -(-rows // BLOCK)
    piece_rows = BLOCK * max(PIECE // BLOCK, -(-blocks // PIECES))
    pieces = -(-rows // piece_rows)
    kept: list[np.ndarray] = []
    words: list[list[int]] = []
    at = 0
    for layer, (dw, db), (hidden, first, second) in zip(layers, net.grads, room.layers, strict=True):
        depth, width = (_whole(size) for size in layer.w.shape)
        w, b = np.zeros((depth, width), np.float32), np.zeros(width, np.float32)
        kept += [w, b]
        words.append(
            [*layer.w.shape, 4 * width, w.ctypes.data, b.ctypes.data, kinds.KINDS.index(layer.activation),
             hidden, first, second, dw.ctypes.data, db.ctypes.data, 4 * at, 4 * (at + w.size),
             layer.w.ctypes.data, layer.b.ctypes.data]
        )  # fmt: skip
        at += -(-(w.size + b.size) // 16) * 16
    parts, sums = np.empty(pieces * at, np.float32), np.empty(pieces)
    head = [0] * HEAD
    head[N], head[LAYERS], head[PIECE_ROWS] = rows, len(layers), piece_rows
    head[LOSS], head[X], head[Y] = LOSSES.index(loss["name"]), layers[0].x.ctypes.data, loss["y"].ctypes.data
    head[LABELS] = loss["y"].ndim == 1
    head[SAMPLE_WEIGHTS] = 0 if loss["weights"] is None else loss["weights"].ctypes.data
    head[PARTS], head[PART_SIZE], head[PART_LOSSES] = parts.ctypes.data, at, sums.ctypes.data
    head[MEAN], head[TASK] = loss["loss"].ctypes.data, _piece.address
    head[D_EVEN], head[D_ODD] = room.gradients
    head[TARGETS], head[STAGE] = room.targets, room.stage
    if net.batch is not None:
        order, cursor, data, targets = (net.batch[name] for name in ("order", "cursor", "X", "y"))
        head[ORDER], head[CURSOR], head[SAMPLES] = order.ctypes.data, cursor.ctypes.data, len(data)
        head[X], head[Y] = data.ctypes.data, targets.ctypes.data
    return np.array([*head, *(word for each in words for word in each)], np.int64), [parts, sums, *kept]
