"""The start of a step: rows, gathering, preprocessing, counters."""

from fractions import Fraction

import numpy as np
import pytest

from fcnet import functional as F
from fcnet.backends import Purpose, host_generator
from tests import combinations
from tests.tolerances import assert_close

KINDS_OF_X = {"bytes": "uint8", "scaled bytes": "uint8", "float32": "float32", "float64": "float64", "int16": "int16"}


@pytest.mark.parametrize("given", [False, True], ids=["new", "given"])
@pytest.mark.parametrize("kind", KINDS_OF_X)
@pytest.mark.parametrize("shape", [(10, 3), (10, 1), (12, 16), (9, 1200)], ids=str)
@pytest.mark.parametrize("targets", ["labels", "numbers"])
@pytest.mark.corner(backend=combinations.WITH_KERNELS, lay="contiguous", dtype="float32", given=True)
def test_next_batch_follows_the_cursor(given, kind, shape, targets, rng, lay, device, host, dtype, xp, untouched):
    data = rng.integers(200, size=shape).astype(KINDS_OF_X[kind])
    y = rng.integers(5, size=shape[0]) if targets == "labels" else rng.random((shape[0], 3)).astype(dtype)
    order = rng.permutation(shape[0])
    shift, scale = rng.random(shape[1]).astype(dtype), rng.random(shape[1]).astype(dtype)
    scaled = kind == "scaled bytes"
    made_in = dtype if scaled else data.dtype
    for size in (4, 1):
        cursor, offsets, positions = device([0]), device(np.arange(size)), xp.empty((size,), dtype="int64")
        args = lay(data), lay(y), device(order), cursor, offsets
        vectors = (device(shift, dtype), device(scale, dtype)) if scaled else ()
        outputs = {
            "batch": xp.empty((size, shape[1]), dtype=made_in),
            "targets": xp.empty((size, *y.shape[1:]), dtype=y.dtype),
            "rows": xp.empty((size,), dtype="int64"),
        }
        for start in (0, 3, shape[0] - size):
            cursor[...] = start
            with untouched(*args, *vectors):
                got = F.next_batch(*args, positions, *vectors, **(outputs if given else {}))
            expected = order[start : start + size]
            np.testing.assert_array_equal(host(got[2]), expected)
            np.testing.assert_array_equal(host(got[1]), y[expected])
            batch = data[expected]
            if scaled:
                batch = (batch.astype(dtype) - shift) * scale
            np.testing.assert_array_equal(host(got[0]), batch)
            assert host(got[0]).dtype == made_in
            assert all((a is b) is given for a, b in zip(got[:3], outputs.values(), strict=True))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 64, 65, 5000])
def test_shuffle_is_the_generators_permutation(count, device, host):
    """NumPy's: every release and device goes through the data alike. 5000 need more than one round of numbers."""
    for seed, epoch in ((0, 0), (2**64 - 1, 7)):
        order = F.shuffle(device(np.zeros(count, "int64")), seed, epoch)
        expected = host_generator(seed, Purpose.SHUFFLE, step=epoch).permutation(count)
        np.testing.assert_array_equal(host(order), expected)


def test_shuffle_says_what_it_takes(device):
    with pytest.raises(ValueError, match=r"shuffle: order: expected \(n,\) int64, got \(2, 2\) int64"):
        F.shuffle(device(np.zeros((2, 2), "int64")), 0, 0)


def test_next_batch_says_what_does_not_fit(device, xp):
    X, y, order, cursor = device(np.ones((9, 3))), device(np.zeros(9, int)), device(np.arange(9)), device([0])
    args = order, cursor, device(np.arange(4)), xp.empty((4,), dtype="int64")
    vector = device(np.ones(3))
    with pytest.raises(ValueError, match="next_batch: y: expected 9 rows like X, got 8"):
        F.next_batch(X, device(np.zeros(8, int)), *args)
    with pytest.raises(ValueError, match="next_batch: shift: expected shape"):
        F.next_batch(X, y, *args, device(np.ones(2)), vector)
    with pytest.raises(ValueError, match="next_batch: expected shift and scale, or neither"):
        F.next_batch(X, y, *args, vector)
    with pytest.raises(ValueError, match="next_batch: cursor: expected one number, got 2"):
        F.next_batch(X, y, order, device([0, 1]), *args[2:])
    with pytest.raises(ValueError, match="next_batch: scale: expected the shape"):
        F.next_batch(X, y, *args, vector, device(np.ones(2)))


@pytest.mark.parametrize("given", [False, True], ids=["new", "given"])
@pytest.mark.parametrize("kind", ["uint8", "float32", "float64", "int64"])
@pytest.mark.parametrize("shape", [(10, 3), (10,), (10, 2, 3), (1, 3)], ids=str)
@pytest.mark.corner(backend=combinations.WITH_KERNELS, lay="contiguous", given=True)
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


@pytest.mark.parametrize("kind", ["int64", "uint64"])
def test_preprocess_subtracts_integers_of_64_bits_exactly(kind, device, host, dtype, xp):
    far = int(np.iinfo(kind).max)
    values = np.array([far, far - 1, far // 2 + 1, 2**62 + 1, 2**53 + 1, 3, 0, int(np.iinfo(kind).min)], kind)
    x = device(values.reshape(-1, 1).repeat(3, axis=1))
    shift = np.array([float(far), 2.0**62 - 2.0**40, 0.5], dtype)
    expected = [[float(int(value) - Fraction(float(s))) for s in shift] for value in values]
    for out in (None, xp.empty((8, 3), dtype=dtype)):
        assert_close(host(F.preprocess(x, device(shift), device(np.ones(3, dtype)), out=out)), expected, dtype, "gemm")


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
        x, *_ = F.next_batch(data, order, order, cursor, offsets, positions, xp.ones(3), xp.ones(3))
        F.gather(data, order)
        counters = xp.ones(2, dtype="int64")
        F.record_step(losses, counters, counters, xp.sum(F.cast(x, "float64")))
        F.advance(cursor, xp.ones(1, dtype="int64"))
    assert log.uploads == []
