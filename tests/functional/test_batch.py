"""The start of a step: rows, gathering, preprocessing, counters."""

import numpy as np
import pytest

from fcnet import functional as F
from tests.tolerances import assert_close


@pytest.mark.parametrize("given", [False, True], ids=["new", "given"])
def test_batch_rows_follow_the_cursor(given, rng, device, host, xp, untouched):
    order = rng.permutation(10)
    args = device(order), device([0]), device(np.arange(4))
    rows = xp.empty((4,), dtype="int64") if given else None
    for cursor in (0, 3, 6):
        args[1][...] = cursor
        with untouched(*args):
            got = F.batch_rows(*args, xp.empty((4,), dtype="int64"), rows=rows)
        np.testing.assert_array_equal(host(got), order[cursor : cursor + 4])
        assert host(got).dtype == np.int64
        assert (got is rows) is given


@pytest.mark.parametrize("given", [False, True], ids=["new", "given"])
@pytest.mark.parametrize("kind", ["uint8", "float32", "float64", "int64"])
@pytest.mark.parametrize("shape", [(10, 3), (10,), (10, 2, 3), (1, 3)], ids=str)
def test_gather_takes_rows(given, kind, shape, rng, lay, device, host, xp, untouched):
    data, rows = rng.integers(200, size=shape).astype(kind), rng.integers(shape[0], size=4)
    args = lay(data), device(rows)
    batch = xp.empty((4, *shape[1:]), dtype=kind) if given else None
    with untouched(*args):
        got = F.gather(*args, batch=batch)
    assert (got is batch) is given
    assert host(got).dtype == kind
    np.testing.assert_array_equal(host(got), np.stack([data[int(row)] for row in rows]))


@pytest.mark.parametrize("kind", ["uint8", "int16", "float32", "float64", "bool"])
def test_preprocess_is_the_affine_map(kind, rng, lay, host, dtype, xp, untouched):
    x = rng.integers(2, size=(4, 3)).astype(kind) if kind == "bool" else (100 * rng.random((4, 3))).astype(kind)
    shift, scale = rng.standard_normal(3).astype(np.float32), rng.standard_normal(3).astype(np.float32)
    args = lay(x), lay(shift, dtype), lay(scale, dtype)
    with untouched(*args):
        got = F.preprocess(*args)
    rounded = x.astype(dtype)
    expected = [
        [(float(v) - float(s)) * float(f) for v, s, f in zip(row, shift, scale, strict=True)] for row in rounded
    ]
    assert_close(host(got), np.array(expected), dtype, "gemm")
    out = xp.empty((4, 3), dtype=dtype)
    assert F.preprocess(*args, out=out) is out
    np.testing.assert_array_equal(host(out), host(got))


def test_preprocess_does_not_wrap_bytes(device, host, dtype):
    shift, scale = device([200.0], dtype), device([1.0], dtype)
    np.testing.assert_array_equal(host(F.preprocess(device([[3]], "uint8"), shift, scale)), [[-197]])


@pytest.mark.parametrize("kind", ["uint8", "float64", "int64", "bool"])
def test_cast(kind, rng, lay, host, dtype, xp, untouched):
    x = rng.integers(2, size=(4, 3)).astype(kind)
    x_ = lay(x)
    with untouched(x_):
        got = F.cast(x_, dtype)
    assert host(got).dtype == dtype
    np.testing.assert_array_equal(host(got), x.astype(dtype))
    out = xp.empty((4, 3), dtype=dtype)
    assert F.cast(x_, dtype, out=out) is out
    np.testing.assert_array_equal(host(out), host(got))


def test_cast_gives_an_array_of_its_own(device, host, dtype):
    x = device(np.ones((2, 2)), dtype)
    got = F.cast(x, dtype)
    x[...] = 5
    assert (host(got) == 1).all()


def test_advance_counts_in_place(device, host, untouched):
    counters, increments = device([3, 4]), device([10, 1])
    with untouched(increments):
        assert F.advance(counters, increments) is counters
    np.testing.assert_array_equal(host(counters), [13, 5])


def test_record_step_writes_where_the_slot_says_and_counts_on(device, host, dtype, untouched):
    losses, loss = device(np.zeros(4), dtype), device(1.5, dtype)
    counters, increments = device([30, 2]), device([10, 1])
    with untouched(increments, loss):
        assert F.record_step(losses, counters, increments, loss) is losses
    np.testing.assert_array_equal(host(losses), [0, 0, 1.5, 0])
    np.testing.assert_array_equal(host(counters), [40, 3])


def test_none_of_them_waits_or_uploads(guard):
    xp = guard.xp
    order, cursor = guard.asarray(np.arange(9)), guard.asarray(np.array([2]))
    offsets, positions = xp.arange(4, dtype="int64"), xp.empty((4,), dtype="int64")
    data, losses = guard.asarray(np.ones((9, 3))), xp.zeros((5,))
    with guard.recording() as log, guard.no_waits():
        rows = F.batch_rows(order, cursor, offsets, positions)
        x = F.preprocess(F.gather(data, rows), xp.ones(3), xp.ones(3))
        counters = xp.ones(2, dtype="int64")
        F.record_step(losses, counters, counters, xp.sum(F.cast(x, "float64")))
        F.advance(cursor, xp.ones(1, dtype="int64"))
    assert log.uploads == []
