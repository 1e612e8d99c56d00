"""What is below the smallest normal number becomes 0, and nothing else changes."""

import numpy as np
import pytest

from fcnet.backends import flush
from tests import denormals


def flushed(values, dtype, backend):
    x = backend.asarray(np.array(values, dtype=dtype))
    assert flush(backend, x, work=backend.xp.empty(x.shape, dtype=dtype)) is x
    assert x.dtype == dtype
    return np.array(backend.to_numpy(x))


def test_the_limit_is_the_smallest_normal_number_of_the_dtype(backend, dtype):
    info = np.finfo(dtype)
    normal, least = info.smallest_normal, info.smallest_subnormal
    below = np.nextafter(normal, info.dtype.type(0))
    values = np.array([normal, below, least, normal / 2, np.nextafter(normal, info.dtype.type(1)), 3 * least], dtype)
    expected = np.array([values[0], 0, 0, 0, values[4], 0], dtype)
    for sign in (1, -1):
        assert flushed(sign * values, dtype, backend).tobytes() == (sign * expected).tobytes(), "the sign stays"


@pytest.mark.parametrize("among", [[], [1e-39, 1e-310]], ids=["no denormal", "denormals"])
def test_everything_else_stays_to_the_bit(among, rng, backend, dtype):
    info = np.finfo(dtype)
    others = np.array([0.0, -0.0, np.inf, -np.inf, info.max, info.min, info.smallest_normal, *rng.standard_normal(20)])
    values = np.concatenate([others, among]).astype(dtype)
    got = flushed([*values, np.nan], dtype, backend)
    assert got[: others.size].tobytes() == values[: others.size].tobytes()
    assert np.isnan(got[-1])
    assert not denormals.count(got)


@pytest.mark.parametrize("at", [0, 1, 6, 17, 99])
def test_one_denormal_is_found_wherever_it_stands(at, rng, backend, dtype):
    """The CPU looks whether there is any before it writes."""
    values = rng.standard_normal(100).astype(dtype)
    for denormal in rng.integers(1, 2 ** np.finfo(dtype).nmant, 20):
        values[at] = denormal * np.finfo(dtype).smallest_subnormal
        assert flushed(values, dtype, backend)[at] == 0


def test_nothing_is_no_trouble(backend, dtype):
    assert flushed([], dtype, backend).size == 0
    assert flushed(np.full((2, 3), 1e-39), "float32", backend).tolist() == [[0] * 3] * 2
