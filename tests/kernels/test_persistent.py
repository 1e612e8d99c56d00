"""The kernel that makes many steps in one launch, run on the CPU, against the Solver's steps there."""

from __future__ import annotations

import ctypes
import functools
from types import SimpleNamespace

import numpy as np
import pytest

import fcnet
from fcnet.backends.caches import keep_threshold
from fcnet.backends.cuda.persistent import JOB, SYNC_WORDS, Plan
from fcnet.backends.cuda.sources import source
from tests.kernels.cuda_grid import GridKernel

TRAIN_STEPS = "const Job* given, const double* rates, int rate_count, int steps"
STEPS, SLOTS, BEYOND = 5, 8, 16
BATCHNORM = {"normalization": "batchnorm"}
ALL = "R=4, batch norm, dropout, L2"
WIDE = "R=8, more columns of layer 1 than parts of sums have room for otherwise"
NETS = ["R=1, one buffer, batch norm", "R=2, no hidden layer, L2", ALL, "R=8, one buffer, bytes, dropout", WIDE]

#: The kernel's own idea of what `Plan` computes.
CONSTANTS = """
extern "C" { int constants[] = {
    4 * most(TILE_END, ROW_END), K_SLICES * ROW_BLOCKS * Z_WIDTH * R, HIDDEN_COLUMNS * NP, COLUMNS * NP, PADDED,
    2 * ROW_BLOCKS, 2 * (ROW_BLOCKS + TILE_BLOCKS), 2 * HIDDEN_COLUMNS * ROW_BLOCKS, SYNC_WORDS,
    ROW_BLOCKS + TILE_BLOCKS, sizeof(Job) }; }
"""


def net_of(name: str) -> SimpleNamespace:
    """Hidden layers, options of the network, batch size, and a plan: R, J1, K1, J2, K2, buffers of x."""
    hidden, options, rows, tiles = {
        "R=1, one buffer, batch norm": ([13, 9], BATCHNORM, 17, (1, 5, 9, 5, 6, 1)),
        "R=2, no hidden layer, L2": ([], {"reg": 1e-2}, 9, (2, 2, 9, 4, 4, 2)),
        ALL: ([12, 7], BATCHNORM | {"dropout_keep_ratio": 0.8, "reg": 1e-2}, 10, (4, 5, 8, 3, 5, 2)),
        "R=8, one buffer, bytes, dropout": ([13, 9, 7], {"dropout_keep_ratio": 0.7}, 11, (8, 7, 12, 5, 6, 1)),
        WIDE: ([160, 5], {}, 11, (8, 40, 12, 5, 30, 2)),
    }[name]  # fmt: skip
    return SimpleNamespace(hidden=hidden, options=options, rows=rows, tiles=tiles, bytes="bytes" in name)


class Training:
    """A Solver on the CPU that has made two steps, and copies of its arrays on which the kernel goes on.

    Attributes:
        solver: the Solver. arrays: by the names of `struct Job`. guarded: memory behind them, NaN, which is nobody's.
    """

    def __init__(self, name: str, rows: int | None = None) -> None:
        net, rng = net_of(name), np.random.default_rng(0)
        rows = rows or net.rows
        X = (rng.standard_normal((8 * rows, 20)) + 0.5).astype("float32")
        if net.bytes:
            X = rng.integers(0, 256, X.shape).astype("uint8")
        y = rng.integers(0, 5, len(X))
        model = fcnet.FullyConnectedNet(net.hidden, 20, 5, device="cpu", **{"reg": 0} | net.options)
        self.solver = one = fcnet.Solver(
            model, {"X_train": X, "y_train": y, "X_val": X[:9], "y_val": y[:9]}, update_rule="adam", batch_size=rows,
            verbose=False, preprocess="standardize" if net.bytes else "none",
        )  # fmt: skip
        one.step(2)
        self.plan, self.kernel = compiled(name)
        sizes = self.plan.buffers()
        host = {
            "x": X, "y": y, "order": one._batches.order, "counters": one._log.counters,
            "step": one.optimizer.step_counter, "params": model.params.flat, "moment1": one.optimizer.moments["m"].flat,
            "moment2": one.optimizer.moments["v"].flat, "running": model.state.flat, "losses": one._log.buffer[:SLOTS],
        }  # fmt: skip
        host |= {key: np.zeros(size, dtype) for key, (size, dtype) in sizes.items()}
        if net.bytes:
            host |= dict(zip(("shift", "scale"), map(np.ravel, model.byte_scaling), strict=True))
        memory = {key: np.concatenate([a.ravel(), _beyond(a)]) for key, a in host.items()}
        self.arrays = {key: memory[key][: a.size].reshape(a.shape) for key, a in host.items()}
        self.guarded = {key: memory[key][a.size :] for key, a in host.items()}
        self.rates = np.full(1, one.optimizer.learning_rate)
        self.job = job = np.zeros(1, JOB)
        values = {"count": len(X), "slots": SLOTS, "rows": rows, "constants": (0.9, 0.999, 1e-8),
                  "momentum": 0.9, "eps": 1e-5, "reg": model.reg}  # fmt: skip
        keep = net.options.get("dropout_keep_ratio", 1.0)
        values |= {"threshold": keep_threshold(keep), "keep_scale": 1 / keep}
        if keep < 1:
            stream = model.mask_streams(0)[0]
            values |= {"seed": stream.key[0], "purpose": stream.key[1], "net": stream.net}
        for key, value in (values | {key: a.ctypes.data for key, a in self.arrays.items()}).items():
            job[key] = value

    def launch(self, steps: int, order: int = 1) -> Training:
        arguments = (self.job, self.rates, np.int32(1), np.int32(steps))
        self.kernel(self.plan.blocks, self.plan.threads, self.plan.shared, arguments, order)
        return self

    def bits(self) -> dict[str, bytes]:
        """All that is kept from one launch to the next."""
        kept = ("params", "moment1", "moment2", "running", "losses", "counters", "step", "sync")
        return {key: self.arrays[key].tobytes() for key in kept}


def _beyond(array: np.ndarray) -> np.ndarray:
    return np.full(BEYOND, np.nan if array.dtype.kind == "f" else 1, array.dtype)


@functools.cache
def compiled(name: str) -> tuple[Plan, GridKernel]:
    net = net_of(name)
    normalised = net.options.get("normalization") is not None
    plan = Plan(
        (20, *net.hidden, 5), net.rows, *net.tiles, norm=int(normalised), regularized="reg" in net.options,
        x_type="unsigned char" if net.bytes else "float", threads=64,
    )  # fmt: skip
    model = fcnet.FullyConnectedNet(net.hidden, 20, 5, device="cpu", **{"reg": 0} | net.options)
    spans = model.params.spans() | (model.state.spans() if normalised else {})
    names = {"W": "W", "B": "b", "GAMMA": "gamma", "BETA": "beta", "MEAN": "running_mean", "VAR": "running_var"}
    layers = range(1, plan.layers + 1)
    offsets = {f"{key}_AT": [0, *(spans.get(f"{at}{layer}", (0,))[0] for layer in layers)] for key, at in names.items()}
    return plan, GridKernel(plan.definitions(offsets) + source("persistent") + CONSTANTS, "train_steps", TRAIN_STEPS)


def assert_as_the_solver(one: Training, steps: int) -> None:
    here, arrays = one.solver, one.arrays
    here.step(steps)
    expected = {"params": here.model.params.flat, "running": here.model.state.flat}
    expected |= {f"moment{i}": moment.flat for i, moment in enumerate(here.optimizer.moments.values(), 1)}
    for name, array in expected.items():
        np.testing.assert_allclose(arrays[name], array, rtol=1e-4, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(arrays["losses"][: 2 + steps], here.loss_history, rtol=1e-5)
    assert arrays["step"].tolist() == here.optimizer.step_counter.tolist() == [2 + steps]
    assert arrays["counters"].tolist() == [(2 + steps) * here.batch_size, 2 + steps]
    for name, memory in one.guarded.items():
        np.testing.assert_array_equal(memory, _beyond(memory), err_msg=name)


@pytest.mark.parametrize("name", NETS)
def test_the_kernel_trains_as_the_solver_on_the_cpu(name):
    assert_as_the_solver(Training(name).launch(STEPS), STEPS)


@pytest.mark.parametrize("rows", [3, 5, 9])
def test_a_batch_may_have_fewer_rows_than_the_plan(rows):
    """In parts of blocks, and with blocks that have none."""
    assert_as_the_solver(Training(ALL, rows).launch(STEPS), STEPS)


@pytest.mark.parametrize("name", NETS)
def test_the_order_in_which_blocks_run_and_the_number_of_launches_change_no_bit(name):
    one, other = Training(name).launch(STEPS, order=1), Training(name)
    for steps, order in ((1, 7), (1, 8), (STEPS - 2, 123456)):
        other.launch(steps, order)
    assert one.bits() == other.bits()
    assert not one.arrays["sync"].any()


@pytest.mark.parametrize("odd", [np.inf, np.nan])
@pytest.mark.parametrize("name", NETS[:3])
def test_a_loss_that_is_not_finite_ends_the_updates_and_not_the_counting(name, odd):
    before, one = Training(name).launch(2), Training(name)
    rows = one.solver.batch_size
    row = one.arrays["order"][4 * rows + 1]  # of the launch's third batch
    one.arrays["x"][row] = odd
    one.launch(STEPS)
    start, _ = one.solver.model.params.spans()[f"b{one.plan.layers}"]
    bias = slice(start, start + one.plan.widths[-1])
    assert np.isnan(
        one.arrays["params"][bias]
    ).all()  # so that what follows is not finite either, in whatever launch it is made
    one.arrays["params"][bias] = before.arrays["params"][bias]
    for kept in ("params", "moment1", "moment2", "running", "step", "sync"):
        assert one.bits()[kept] == before.bits()[kept], kept
    np.testing.assert_array_equal(one.arrays["losses"][:4], before.arrays["losses"][:4])
    assert not np.isfinite(one.arrays["losses"][4])
    assert np.isnan(one.arrays["losses"][5 : 2 + STEPS]).all()
    assert not np.isnan(one.arrays["losses"][2 + STEPS :]).any()
    assert one.arrays["counters"].tolist() == [(2 + STEPS) * rows, 2 + STEPS]


def test_after_a_loss_that_is_not_finite_one_launch_and_many_are_alike():
    one, other = Training(NETS[0]), Training(NETS[0])
    for training in (one, other):
        training.arrays["x"][training.arrays["order"][4 * training.solver.batch_size + 1]] = np.inf
    one.launch(STEPS)
    for _ in range(STEPS):
        other.launch(1)
    for kept in one.bits():
        np.testing.assert_array_equal(one.arrays[kept], other.arrays[kept], kept)  # any NaN is a NaN


@pytest.mark.parametrize("name", NETS)
def test_the_plan_counts_as_the_kernel_does(name):
    plan, kernel = compiled(name)
    shared, *sizes, blocks, job = (ctypes.c_int * 11).in_dll(kernel.library, "constants")
    assert 0 <= plan.shared - shared < 16
    assert (blocks, job) == (plan.blocks, JOB.itemsize)
    for (buffer, (size, _)), needed in zip(plan.buffers().items(), sizes, strict=True):
        assert needed <= size <= 1.5 * needed + 4 * plan.padded_rows, buffer
    assert sizes[-1] == SYNC_WORDS


def test_a_plan_with_too_little_shared_memory_is_not_compiled():
    plan, _ = compiled(NETS[1])
    code = plan.definitions({f"{name}_AT": [0, 0] for name in ("W", "B", "GAMMA", "BETA", "MEAN", "VAR")})
    less = code.replace(f"SHARED_BYTES {plan.shared}", f"SHARED_BYTES {plan.shared - 64}")
    with pytest.raises(AssertionError, match="the plan's shared memory is less than the kernel's"):
        GridKernel(less + source("persistent"), "train_steps", TRAIN_STEPS)
