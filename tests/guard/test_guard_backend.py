"""The guard's methods beside xp: transfers, gemm, random bits."""

import numpy as np
import pytest

from fcnet.backends import get_backend

HOST = np.arange(6.0).reshape(2, 3)


@pytest.fixture
def a(guard):
    """Return a device array (2, 3), float64; the log is empty."""
    array = guard.asarray(HOST)
    guard.log.clear()
    return array


def test_transfers_take_only_what_they_should(guard, a):
    with pytest.raises(TypeError, match="to_numpy: array: expected a device array, got ndarray"):
        guard.to_numpy(HOST)
    with pytest.raises(TypeError, match="upload: host"):
        guard.upload(a, a)
    with pytest.raises(TypeError, match="upload: out"):
        guard.upload(HOST, HOST)
    with pytest.raises(ValueError, match="unsupported dtype"):
        guard.asarray(np.array(["a"]))
    copied = guard.to_numpy(a)
    copied[...] = 0
    assert float(a[1, 2]) == 5.0
    host = HOST.copy()
    device = guard.asarray(host)
    host[...] = 0
    assert float(device[1, 2]) == 5.0


class TestGemm:
    """What CuPy would copy, convert or get wrong."""

    def test_it_multiplies(self, guard, a):
        out = guard.xp.empty((2, 2))
        assert guard.gemm(a, a.T, out=out) is out
        np.testing.assert_array_equal(guard.to_numpy(out), HOST @ HOST.T)
        np.testing.assert_array_equal(guard.to_numpy(guard.gemm(a, a.T)), HOST @ HOST.T)

    def test_it_refuses(self, guard, a):
        xp, square = guard.xp, guard.asarray(np.ones((3, 3)))
        both = xp.zeros((4, 3))
        cases = [
            ((a, HOST.T), None, TypeError, "gemm: b: expected a device array"),
            ((a, a.T), np.empty((2, 2)), TypeError, "gemm: out: expected a device array"),
            ((a, a.T), xp.empty((2, 2), "float32"), TypeError, "gemm: out: expected float64, got float32"),
            ((a, a.T), xp.empty((4,)), ValueError, "gemm: out: expected shape"),
            ((a, a.T), xp.empty((2, 4))[:, ::2], ValueError, "C-contiguous"),
            ((square, square), square, ValueError, "overlaps"),
            ((both[:2], square), both[1:3], ValueError, "overlaps"),
            ((a, xp.ones((3, 2), "float32")), None, TypeError, "one dtype"),
            ((xp.ones((2, 2), "int64"),) * 2, None, TypeError, "float arrays"),
        ]
        for operands, out, error, message in cases:
            with pytest.raises(error, match=message):
                guard.gemm(*operands, out=out)


def test_random_bits_are_the_cpus(guard):
    expected = get_backend("cpu").random_bits((7, 3), 1, 2, 0, (5, 3))
    for step in (2, guard.asarray(np.array([2]))):
        with guard.no_waits():
            bits = guard.random_bits((7, 3), 1, step, 0, (5, 3))
        np.testing.assert_array_equal(guard.to_numpy(bits), expected)
    for step in (np.array([2]), guard.asarray(np.array([2], "int32")), guard.asarray(np.array([2, 3]))):
        with pytest.raises((TypeError, ValueError)):
            guard.random_bits((7, 3), 1, step, 0, (5, 3))
