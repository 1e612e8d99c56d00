"""exp, expm1, log1p and tanh of the CPU's kernels: near the float64 answer everywhere, right at the ends, vectors."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.tolerances import ULPS

pytestmark = pytest.mark.usefixtures("cpu_kernels")
DENSE = np.concatenate([np.linspace(-110, 90, 40001), np.linspace(-1, 1, 20001), 10.0 ** np.linspace(-44, -1, 5001)])
ENDS = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, -1e-40, 88.7, 88.8, -87.5, -103, -103.9, -104, 200, -200, 9, 10, -10]
ARGUMENTS = np.concatenate([DENSE, -DENSE, ENDS]).astype(np.float32)
DOMAIN = {"exp": ARGUMENTS, "expm1": ARGUMENTS, "tanh": ARGUMENTS}
FROM_ONE = np.concatenate([np.linspace(1, 9, 40001), 10.0 ** np.linspace(0, 7, 5001), [np.nan]])
DOMAIN["log_from_one"] = FROM_ONE.astype(np.float32)
DOMAIN["log1p_of_share"] = np.concatenate([np.linspace(0, 1, 40001), 10.0 ** np.linspace(-44, 0, 5001)]).astype("f")


@pytest.fixture(scope="module")
def loops():
    """Compiled as kernels are, but for the cache on disk, which keeps no function that holds another."""
    import numba

    from fcnet.backends.cpu import vectormath

    def over(function):
        @numba.njit(error_model="numpy")
        def loop(x, out):
            for i in range(x.size):
                out[i] = function(x[i])

        return loop

    return {name: over(getattr(vectormath, name)) for name in DOMAIN}


@pytest.mark.parametrize("name", DOMAIN)
def test_it_is_the_float64_function(name, loops):
    x, numpy = DOMAIN[name], getattr(np, name.partition("_")[0])
    out = np.empty_like(x)
    loops[name](x, out)
    with np.errstate(all="ignore"):
        exact = numpy(x.astype(np.float64))
        expected = exact.astype(np.float32)
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(out[~finite], expected[~finite])
    np.testing.assert_array_equal(np.signbit(out[finite]), np.signbit(expected[finite]))
    ulps = np.abs(out[finite] - exact[finite]) / np.spacing(np.abs(expected[finite]))
    assert ulps.max() <= ULPS, x[finite][ulps.argmax()]
    if name == "tanh":
        assert (np.abs(out[finite]) <= 1).all()


@pytest.mark.parametrize("name", DOMAIN)
def test_it_takes_several_numbers_at_once(name, loops):
    loops[name](np.zeros(4, np.float32), np.empty(4, np.float32))
    (text,) = loops[name].inspect_llvm().values()
    assert re.search(r"<\d+ x float> @llvm.fmuladd", text), "the compiler has not made vectors of the loop"


@pytest.mark.parametrize("name", DOMAIN)
def test_float64_is_numpys(name, loops):
    x = np.linspace(name == "log_from_one", 1, 9)
    out = np.empty_like(x)
    loops[name](x, out)
    np.testing.assert_allclose(out, getattr(np, name.partition("_")[0])(x), rtol=1e-15)
