"""A small net's step on a large batch: some rows at a time through all layers and back, while they are in the cache.

Call by call, each layer's activations of the whole batch go out to memory and come back. Here a thread takes BLOCK rows
through products, activations, loss and the way back, in its own working memory, and adds up the gradients of a piece,
some blocks; the pieces' gradients are then added in order. Pieces depend on the number of rows alone, so who computes
one never shows, nor how many threads there are; but sums over rows are taken in another order than call by call.

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
from fcnet.backends.cpu import blas, pool
from fcnet.backends.cpu.compiled_step import BoundThunk, CompiledStep, Thunk
from fcnet.backends.cpu.jit import compiled, is_contiguous_float, is_contiguous_integer
from fcnet.backends.cpu.loss import LOSSES, sum_of_losses
from fcnet.backends.device import Array, Call

BLOCK = 128  # rows: smaller products are slower, larger ones leave the first-level cache
PIECE, PIECES = 512, 32  # rows of a piece, at least; pieces, at most: each has gradients of its own
LEAST = 2 * PIECE  # rows of a batch
WEIGHTS = 1 << 14  # parameters, at most: they stay in the second-level cache with the rows

_run_pieces, _sgemm = pool.run_pieces.compiled, blas.sgemm
_ROW_MAJOR, _NO_TRANS, _TRANS = blas.ROW_MAJOR, blas.NO_TRANS, blas.TRANS

# The plan in int64 words: what there is once, then LAYER_WORDS for each layer. Addresses, sizes, and places in bytes in
# a thread's working memory or in a piece's gradients.
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
    ONES,
) = range(16)
HEAD = 16
IN, OUT, W, B, KIND, HIDDEN, FIRST, SECOND, DW, DB, DW_AT, DB_AT = range(12)
LAYER_WORDS = 12


@numba.njit(inline="always")
def _word(plan, word):
    return pool.load(plan + 8 * word)


@numba.njit(inline="always")
def _layer(plan, layer, word):
    return pool.load(plan + 8 * (HEAD + LAYER_WORDS * layer + word))


@numba.njit(inline="always")
def _matrix(address, rows, columns):
    return numba.carray(pool.to_floats(address), (rows, columns))


@compiled
def _forward(plan, x, rows, scratch):
    """Fill the working memory with what each layer gives for these rows, and what its backward pass reads."""
    for layer in range(_word(plan, LAYERS)):
        depth, width, out = _layer(plan, layer, IN), _layer(plan, layer, OUT), scratch + _layer(plan, layer, HIDDEN)
        w = _layer(plan, layer, W)
        _sgemm(_ROW_MAJOR, _NO_TRANS, _NO_TRANS, rows, width, depth, 1.0, x, depth, w, width, 0.0, out, width)
        z, b = _matrix(out, rows, width), pool.floats(_layer(plan, layer, B), width)
        for n in range(rows):
            for m in range(width):
                z[n, m] += b[m]
        first, second = scratch + _layer(plan, layer, FIRST), scratch + _layer(plan, layer, SECOND)
        size = rows * width
        kinds.activate(
            _layer(plan, layer, KIND), pool.floats(out, size), pool.floats(first, size), pool.floats(second, size)
        )
        x = out


@compiled
def _loss(plan, top, rows, scratch):
    """Return the sum of these rows' losses, and put their gradient into the working memory."""
    last, count = _word(plan, LAYERS) - 1, _word(plan, N)
    width = _layer(plan, last, OUT)
    scores = _matrix(scratch + _layer(plan, last, HIDDEN), rows, width)
    dscores = _matrix(scratch + _word(plan, D_EVEN + last % 2), rows, width)
    weights = pool.floats(0, 0)
    if _word(plan, SAMPLE_WEIGHTS) != 0:
        weights = pool.floats(_word(plan, SAMPLE_WEIGHTS) + 4 * top, rows)
    kind, y = _word(plan, LOSS), _word(plan, Y)
    if _word(plan, LABELS) != 0:
        return sum_of_losses(kind, scores, pool.words(y + 8 * top, rows), weights, dscores, count)
    return sum_of_losses(kind, scores, _matrix(y + 4 * top * width, rows, width), weights, dscores, count)


@compiled
def _backward(plan, start, rows, part, scratch):
    """Add these rows' gradients to those of the piece; `start` is the net's input."""
    for layer in range(_word(plan, LAYERS) - 1, -1, -1):
        depth, width, w = _layer(plan, layer, IN), _layer(plan, layer, OUT), _layer(plan, layer, W)
        at = scratch + _word(plan, D_EVEN + layer % 2)
        db, ones = part + _layer(plan, layer, DB_AT), _word(plan, ONES)  # db = 1ᵀ dz: loops over short rows are slower
        _sgemm(_ROW_MAJOR, _NO_TRANS, _NO_TRANS, 1, width, rows, 1.0, ones, rows, at, width, 1.0, db, width)
        x = scratch + _layer(plan, layer - 1, HIDDEN) if layer else start
        dw = part + _layer(plan, layer, DW_AT)
        _sgemm(_ROW_MAJOR, _TRANS, _NO_TRANS, depth, width, rows, 1.0, x, depth, at, width, 1.0, dw, width)
        if layer:
            dx, size = scratch + _word(plan, D_EVEN + (layer - 1) % 2), rows * depth
            _sgemm(_ROW_MAJOR, _NO_TRANS, _TRANS, rows, depth, width, 1.0, at, width, w, width, 0.0, dx, depth)
            kind = _layer(plan, layer - 1, KIND)
            first, second = scratch + _layer(plan, layer - 1, FIRST), scratch + _layer(plan, layer - 1, SECOND)
            kinds.descend(kind, pool.floats(dx, size), pool.floats(first, size), pool.floats(second, size))


@pool.Task
def _piece(shared, piece, scratch):
    plan = pool.load(shared + 8 * pool.JOB)
    count, most, size = _word(plan, N), _word(plan, PIECE_ROWS), _word(plan, PART_SIZE)
    part = _word(plan, PARTS) + 4 * size * piece
    pool.floats(part, size)[:] = 0
    total = 0.0
    for top in range(piece * most, min(count, (piece + 1) * most), BLOCK):
        rows = min(BLOCK, min(count, (piece + 1) * most) - top)
        x = _word(plan, X) + 4 * top * _layer(plan, 0, IN)
        _forward(plan, x, rows, scratch)
        total += _loss(plan, top, rows, scratch)
        _backward(plan, x, rows, part, scratch)
    pool.doubles(_word(plan, PART_LOSSES), piece + 1)[piece] = total


@compiled
def _add_up(target, size, parts, step, count):
    """Set target to the sum of these parts, each `step` floats after the one before, from the first to the last."""
    total = pool.floats(target, size)
    total[:] = pool.floats(parts, size)
    for i in range(1, count):
        part = pool.floats(parts + 4 * step * i, size)
        for k in range(size):
            total[k] += part[k]


@Thunk
def _thunk_row_blocks(plan, shared, scratch, num_threads):
    words, room = pool.context_arrays(shared, scratch)
    words[pool.TASK], words[pool.JOB] = _word(plan, TASK), plan
    count, size, parts = _word(plan, N), _word(plan, PART_SIZE), _word(plan, PARTS)
    pieces = -(-count // _word(plan, PIECE_ROWS))
    _run_pieces(words, room, pieces)
    for layer in range(_word(plan, LAYERS)):
        depth, width = _layer(plan, layer, IN), _layer(plan, layer, OUT)
        _add_up(_layer(plan, layer, DW), depth * width, parts + _layer(plan, layer, DW_AT), size, pieces)
        _add_up(_layer(plan, layer, DB), width, parts + _layer(plan, layer, DB_AT), size, pieces)
    total = 0.0
    for loss in pool.doubles(_word(plan, PART_LOSSES), pieces):
        total += loss
    pool.floats(_word(plan, MEAN), 1)[0] = total / count


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
    """Describe the calls from the first product to the last gradient, and the calls before and after them."""

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
    net = Net(layers, loss, grads, before, calls[at:])
    _check(net)
    return net


def _check(net: Net) -> None:
    layers, loss = net.layers, net.loss
    rows = len(layers[0].x)
    _unless(rows >= LEAST, "its batches have few rows")
    _unless(sum(layer.w.size + layer.b.size for layer in layers) <= WEIGHTS, "it has many weights")
    _unless(_room(layers)[1] <= pool.SCRATCH, "its layers are wide")
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


def _room(layers: list[Layer]) -> tuple[list[tuple[int, int, int]], int]:
    """Return where each layer's three arrays lie in a thread's working memory, and where the gradients' end is."""
    places, at = [], 0
    for layer in layers:
        size = 4 * BLOCK * layer.w.shape[1]
        count = 1 + (layer.activation not in kinds.OF_OUTPUT) + (layer.activation in kinds.GATED)
        places.append((at, at + size * (count > 1), at + size * (count - 1)))
        at += size * count
    return places, at + 2 * 4 * BLOCK * max(layer.w.shape[1] for layer in layers)


def _plan(net: Net) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the plan's words, and arrays that it points to besides the net's."""
    layers, loss = net.layers, net.loss
    rows = len(layers[0].x)
    blocks = -(-rows // BLOCK)
    piece_rows = BLOCK * max(PIECE // BLOCK, -(-blocks // PIECES))
    pieces = -(-rows // piece_rows)
    places, end = _room(layers)
    half = 4 * BLOCK * max(layer.w.shape[1] for layer in layers)
    words: list[list[int]] = []
    at = 0
    for layer, (dw, db), (hidden, first, second) in zip(layers, net.grads, places, strict=True):
        words.append(
            [*layer.w.shape, *(a.ctypes.data for a in (layer.w, layer.b)), kinds.KINDS.index(layer.activation),
             hidden, first, second, dw.ctypes.data, db.ctypes.data, 4 * at, 4 * (at + layer.w.size)]
        )  # fmt: skip
        at += -(-(layer.w.size + layer.b.size) // 16) * 16
    parts, sums = np.empty(pieces * at, np.float32), np.empty(pieces)
    head = [0] * HEAD
    head[N], head[LAYERS], head[PIECE_ROWS] = rows, len(layers), piece_rows
    head[LOSS], head[X], head[Y] = LOSSES.index(loss["name"]), layers[0].x.ctypes.data, loss["y"].ctypes.data
    head[LABELS] = loss["y"].ndim == 1
    head[SAMPLE_WEIGHTS] = 0 if loss["weights"] is None else loss["weights"].ctypes.data
    head[PARTS], head[PART_SIZE], head[PART_LOSSES] = parts.ctypes.data, at, sums.ctypes.data
    head[MEAN], head[D_EVEN], head[D_ODD] = loss["loss"].ctypes.data, end - 2 * half, end - half
    ones = np.ones(BLOCK, np.float32)
    head[TASK], head[ONES] = _piece.address, ones.ctypes.data
    return np.array([*head, *(word for each in words for word in each)], np.int64), [parts, sums, ones]
