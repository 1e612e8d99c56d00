"""Plan how the blocks of one persistent kernel (persistent.cu) share a small network's training step.

Shapes: N batch, D input features, M hidden units, C classes. A plan depends only on the network, the batch size and the
device's properties, so the same training gives the same bits whenever it is planned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from math import ceil
from typing import Any

import numpy as np

from fcnet.backends.cuda.sources import ACTIVATIONS, RULES

# What benchmarks/gpu_variants.py varies.
THREADS = 256  # of a block; a power of two
ROWS_OF_BLOCK = (1, 2, 4, 8)  # the first of which there are few enough row blocks is taken, but for `LONG`
# Cycles of a tile block, by `_tile_cycles`, beyond which 4 rows are taken instead of 2 with batch norm: half as many
# row blocks exchange their sums sooner, and leave more of the device to the tile blocks. Measured on an H100, batch 100
# (benchmarks/results/gpu-variants-2026-11-27.json): µs a step with 2 rows, with 4, and these cycles with 2:
#   3072-3x100-10, batch norm   31.1   29.0   15,880
#   64-2x100-10, batch norm     17.6   19.1      754
#   784-4x100-10, none          16.2   21.2    4,440
LONG = 8000
SYNC_WORDS, RATE_FLOATS = 160, 12  # persistent.cu

#: `struct Job` of persistent.cu: addresses first.
JOB = np.dtype(
    [
        *((name, "u8") for name in ("x", "shift", "scale", "y", "order")),
        ("count", "i8"),
        *((name, "u8") for name in ("counters", "step", "params", "moment1", "moment2", "running", "losses")),
        ("slots", "i8"),
        *((name, "u8") for name in ("partials", "hidden", "dz", "padded", "loss_parts", "l2_parts", "exchange")),
        *((name, "u8") for name in ("sync", "sample_weights", "seed", "purpose", "net")),
        ("constants", "f8", 3),
        *((name, "f8") for name in ("weight_decay", "reg", "l1")),
        *((name, "f4") for name in ("clip", "momentum", "eps", "target_keep", "target_add")),
        ("threshold", "i4"),
        *((name, "f4") for name in ("keep_scale", "frozen_scale")),
        *((name, "i4") for name in ("rows", "steps")),
        ("rates", "u8"),
        ("rate_count", "i4"),
    ],
    align=True,
)
LOSSES = ("softmax", "svm", "mse", "bce", "poisson")  # in the order of persistent.cu
NUMERIC = ("mse", "bce", "poisson")  # take float32 targets (count, C); the others take int64 labels


@dataclass(frozen=True)
class Plan:
    """Hold the constants that persistent.cu is compiled with.

    Attributes:
        widths: D, M of each hidden layer, C.
        rows: N, or more. rows_of_block: R, rows that one row block takes through the later layers.
        j1, k1: a tile of the first layer's weights, outputs by inputs; j2, k2: of the other layers'.
        x_buffers: 2 to gather the next batch while the row blocks work, else 1.
        norm: 0 for none, 1 for batch norm, 2 for layer norm. regularized: whether there is an L2 term; lasso: an L1
            term; decayed: decoupled decay; clipped: a limit for each element of the gradient. rule: one of `RULES`.
        x_type: of the data in memory, as CUDA spells it.
        frozen: how many layers, the lowest ones, are frozen.
        rates_at: where in the flat buffer each group of neighbours begins that have a learning rate of their own.
        activation: of the hidden layers, one of `ACTIVATIONS`. loss: one of `LOSSES`.
        smoothed: whether there is label smoothing; weighted: a weight for each sample.
    """

    widths: tuple[int, ...]
    rows: int
    rows_of_block: int
    j1: int
    k1: int
    j2: int
    k2: int
    x_buffers: int = 2
    norm: int = 0
    regularized: bool = False
    lasso: bool = False
    decayed: bool = False
    clipped: bool = False
    rule: str = "adam"
    x_type: str = "float"
    frozen: int = 0
    rates_at: tuple[int, ...] = (0,)
    activation: str = "relu"
    loss: str = "softmax"
    smoothed: bool = False
    weighted: bool = False
    threads: int = THREADS

    @property
    def layers(self) -> int:
        """Return the number of affine layers."""
        return len(self.widths) - 1

    @property
    def row_blocks(self) -> int:
        """Return how many blocks take rows through the later layers."""
        return ceil(self.rows / self.rows_of_block)

    @property
    def k_slices(self) -> int:
        """Return into how many slices the inputs of the first layer are cut."""
        return ceil(self.widths[0] / self.k1)

    @property
    def tile_blocks(self) -> int:
        """Return how many blocks hold a tile of the first layer's weights."""
        return self.k_slices * ceil(self.widths[1] / self.j1)

    @property
    def blocks(self) -> int:
        """Return the number of blocks."""
        return self.row_blocks + self.tile_blocks

    @property
    def padded_rows(self) -> int:
        """Return the rows of all row blocks, rounded up to a multiple of 4."""
        return 4 * ceil(self.row_blocks * self.rows_of_block / 4)

    @property
    def pitch(self) -> int:
        """Return the floats from one column to the next: an odd number of quads, against bank conflicts."""
        quads = self.padded_rows // 4
        return 4 * (quads + (quads % 2 == 0))

    @property
    def columns(self) -> int:
        """Return the columns of all layers but the input, each layer's rounded up to a multiple of 4."""
        return sum(map(_fours, self.widths[1:]))

    @property
    def hidden_columns(self) -> int:
        """Return the columns of the hidden layers, each layer's rounded up to a multiple of 4."""
        return self.columns - _fours(self.widths[-1])

    @property
    def later_tiles(self) -> int:
        """Return how many tiles the weights of the later layers are cut into."""
        pairs = pairwise(self.widths[1:])
        return sum(ceil(inputs / self.k2) * ceil(outputs / self.j2) for inputs, outputs in pairs)

    @property
    def padded_weights(self) -> int:
        """Return how many floats the later layers' weights take in shared memory."""
        return padded_weights(self.widths)

    @property
    def first_parts(self) -> int:
        """Return into how many parts the threads of a row block cut the sum over `k_slices`, 1 or more."""
        return max(1, min(self.threads // max(1, _fours(self.widths[1]) * self.rows_of_block // 4), self.k_slices))

    def _common_floats(self) -> int:
        """Return how many floats every block needs: for the job, and for partial sums."""
        first = _fours(self.widths[1]) * self.rows_of_block * self.first_parts
        powers = _fours((self.widths[-1] + 1) * self.rows_of_block)
        sums = max(16 * self.threads, 2 * _fours(max(self.widths[1:])) + 8 * self.threads, first, powers)
        return _fours(JOB.itemsize // 4) + sums

    def _tile_floats(self) -> int:
        columns = (self.x_buffers * self.k1 + self.j1) * self.pitch
        return columns + 3 * (self.k1 + 1) * _fours(self.j1) + self.padded_rows + len(self.rates_at) * RATE_FLOATS

    def _row_floats(self) -> int:
        r, widest = self.rows_of_block, _fours(max(self.widths[1:]))
        tiles = ceil(self.later_tiles / self.row_blocks)
        draws = (15 + r * widest) // 16 + 1
        floats = _fours(max(self.padded_weights, (self.k2 + self.j2) * self.pitch))
        floats += self.columns * r * (2 if self.norm else 1) + 2 * widest * r
        floats += _fours(tiles * 3 * (self.k2 * self.j2 + _fours(self.j2))) + self.vector_floats
        floats += (6 * self.hidden_columns if self.norm == 1 else 0) + 8 * draws * (self.layers - 1)
        floats += (self.layers - 1) * r if self.norm == 2 else 0
        floats += self.hidden_columns * r if self.activation != "relu" else 0
        floats += (self.widths[-1] * r if self.loss in NUMERIC else 0) + (r if self.weighted else 0)
        return floats + 4 * r + 8 * tiles + len(self.rates_at) * RATE_FLOATS

    @property
    def shared(self) -> int:
        """Return how many bytes of dynamic shared memory a block needs."""
        return 4 * (self._common_floats() + max(self._tile_floats(), self._row_floats()))

    def buffers(self) -> dict[str, tuple[int, str]]:
        """Return size and dtype of each of the kernel's own arrays in global memory, by name."""
        return {
            "partials": (self.k_slices * self.row_blocks * _fours(self.widths[1]) * self.rows_of_block, "float32"),
            "hidden": (max(4, self.hidden_columns) * self.padded_rows, "float32"),
            "dz": (self.columns * self.padded_rows, "float32"),
            "padded": (max(4, self.padded_weights), "float32"),
            "loss_parts": (2 * self.row_blocks, "float64"),
            "l2_parts": (2 * self.blocks, "float64"),
            "exchange": (2 * self.row_blocks * max(1, self.hidden_columns), "uint64"),
            "sync": (SYNC_WORDS, "uint32"),
        }

    @property
    def vector_floats(self) -> int:
        """Return how many floats follow the matrices in the flat buffer: biases, gamma, beta, each on 256 bytes."""
        hidden = (3 if self.norm else 1) * sum(-(-width // 64) * 64 for width in self.widths[1:-1])
        return hidden + -(-self.widths[-1] // 64) * 64

    def definitions(self, offsets: Mapping[str, Sequence[int]]) -> str:
        """Return the constants as definitions of the preprocessor; `offsets` of each layer's tensors in the buffers."""
        values: dict[str, Any] = {
            "LAYERS": self.layers,
            "R": self.rows_of_block,
            "ROW_BLOCKS": self.row_blocks,
            "J1": self.j1,
            "K1": self.k1,
            "J2": self.j2,
            "K2": self.k2,
            "X_BUFFERS": self.x_buffers,
            "NORM": self.norm,
            "REG": int(self.regularized),
            "FROZEN": self.frozen,
            "RATES": len(self.rates_at),
            "RATES_AT": _braced(self.rates_at),
            "L1": int(self.lasso),
            "DECAY": int(self.decayed),
            "CLIP": int(self.clipped),
            "RULE": RULES[self.rule],
            "FIRST_PARTS": self.first_parts,
            "X_TYPE": self.x_type,
            "ACTIVATION": ACTIVATIONS[self.activation],
            "Y_TYPE": "float" if self.loss in NUMERIC else "i64",
            "LOSS": LOSSES.index(self.loss),
            "SMOOTHING": int(self.smoothed),
            "WEIGHTED": int(self.weighted),
            "THREADS_": self.threads,
            "SHARED_BYTES": self.shared,
            "VECTORS_AT": min(offsets["B_AT"][1:]),
            "VECTOR_FLOATS": self.vector_floats,
            "WIDTHS": _braced(self.widths),
        } | {name: _braced(at) for name, at in offsets.items()}
        return "".join(f"#define {name} {value}\n" for name, value in values.items())


def padded_weights(widths: Sequence[int]) -> int:
    """Return how many floats the later layers' weights take, each row padded to an odd multiple of 4."""
    return sum(inputs * _odd_fours(outputs) for inputs, outputs in pairwise(widths[1:]))


def _fours(n: Any) -> Any:
    """Return n, a number or an array, rounded up to a multiple of 4."""
    return -(-n // 4) * 4


def _odd_fours(n: int) -> int:
    """Return a pitch for rows of n floats at which 16-byte reads of neighbouring threads hit different banks."""
    return _fours(n) + (4 if _fours(n) // 4 % 2 == 0 else 0)


def _braced(values: Sequence[int]) -> str:
    return "{" + ", ".join(map(str, values)) + "}"


def plans(widths: Sequence[int], rows: int, *, blocks: int, shared: int, **options: Any) -> Iterator[Plan]:
    """Return every plan for `blocks` resident blocks with `shared` bytes each, the fastest first according to a model.

    The model comes from benchmarks/results/gpu-variants-*.json, measured on an H100. The row blocks' part of a step
    decides: it is shortest if each of them takes few rows while the tile blocks keep most of the device. The tile
    blocks' part decides among equals; if it is long, it decides between 2 rows and 4, too (`LONG`).
    """
    if 4 * padded_weights(widths) > shared:
        return iter(())
    found = {r: _plans_of(widths, rows, r, blocks, shared, options) for r in _rows_of_block(rows, blocks)}
    if options.get("norm") == 1 and next(iter(found), None) == 2 and found[2] and _tile_cycles(found[2][0]) > LONG:
        found = {4: found[4]} | found
    return chain.from_iterable(found.values())


def _plans_of(
    widths: Sequence[int], rows: int, rows_of_block: int, blocks: int, shared: int, options: Mapping[str, Any]
) -> list[Plan]:
    """Return the plans whose row blocks take so many rows each, the one with the fastest tile blocks first."""
    found = []
    row_blocks = ceil(rows / rows_of_block)
    left = blocks - row_blocks
    j2, k2 = _later_tile(widths, row_blocks)
    for slices in range(1, min(left, 8) + 1):
        j1 = ceil(widths[1] / slices)
        if ceil(widths[1] / j1) != slices:
            continue
        k1 = ceil(widths[0] / (left // slices))
        for x_buffers in (2, 1):
            plan = Plan(tuple(widths), rows, rows_of_block, j1, k1, j2, k2, x_buffers=x_buffers, **options)
            if plan.blocks <= blocks and plan.shared <= shared:
                found.append(plan)
                break
    return sorted(found, key=_tile_cycles)


def _rows_of_block(rows: int, blocks: int) -> list[int]:
    """Return the numbers of rows that a row block may take, the best first.

    At most two fifths of all blocks should be row blocks, if possible, and never more than half.
    """
    possible = [r for r in ROWS_OF_BLOCK if ceil(rows / r) <= blocks // 2]
    few = [r for r in possible if ceil(rows / r) <= 2 * blocks // 5]
    return few + [r for r in reversed(possible) if r not in few]


def _later_tile(widths: Sequence[int], row_blocks: int) -> tuple[int, int]:
    """Return outputs and inputs of a tile of the later layers: the shape with the least work for the busiest block."""
    pairs = list(pairwise(widths[1:]))
    if not pairs:
        return 4, 4
    inputs_of, outputs_of = zip(*pairs, strict=True)
    k2, j2 = _sizes(inputs_of)[:, None], _sizes(outputs_of)
    tiles = sum(-(-inputs // k2) * -(-outputs // j2) for inputs, outputs in pairs)
    work = -(-tiles // row_blocks) * (_fours(k2) * _fours(j2) + 8 * (k2 + j2))
    at_k, at_j = np.unravel_index(np.argmin(work), work.shape)
    return int(j2[at_j]), int(k2[at_k, 0])


def _sizes(widths: Sequence[int]) -> np.ndarray:
    """Return the sizes of tiles to try, 4 or more: those that cut one of the widths into equal parts and a rest."""
    return np.unique(np.maximum(4, np.concatenate([-(-width // np.arange(1, width + 1)) for width in widths])))


def _tile_cycles(plan: Plan) -> float:
    """Return a tile block's cycles in a step: both products at 50 multiplications a cycle, and reading memory."""
    read = plan.padded_rows * plan.j1 + plan.k_slices * _fours(plan.widths[1]) * plan.rows_of_block
    return 2 * plan.padded_rows * plan.k1 * _fours(plan.j1) / 50 + read / 10


def best_plan(widths: Sequence[int], rows: int, *, blocks: int, shared: int, **options: Any) -> Plan | None:
    """Return the first of `plans`, or None if the network does not fit."""
    return next(iter(plans(widths, rows, blocks=blocks, shared=shared, **options)), None)
