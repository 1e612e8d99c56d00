"""How close is close enough: the only table, each line with its reason."""

from __future__ import annotations

import numpy as np

# (dtype, kind) -> rtol, atol. The oracles are float64 (math.fsum, Python floats), so what is allowed here is the
# rounding of the code under test: eps is 1.2e-7 in float32 and 2.2e-16 in float64.
TOLERANCES = {
    # A handful of roundings per element, on values of order 1.
    ("float32", "elementwise"): (1e-6, 1e-6),
    ("float64", "elementwise"): (1e-14, 1e-14),
    # Sums of up to some hundred products of order 1: sqrt(100) eps, and room for cancellation.
    ("float32", "gemm"): (1e-5, 1e-5),
    ("float64", "gemm"): (1e-13, 1e-13),
    # A difference from a mean, divided by a standard deviation that may be ten times smaller than the values.
    ("float32", "norm"): (1e-4, 2e-5),
    ("float64", "norm"): (1e-11, 1e-12),
    # exp, log and a sum over classes. The gradient's entries are up to 1; its small ones cancel.
    ("float32", "loss"): (2e-5, 2e-6),
    ("float64", "loss"): (1e-12, 1e-14),
    # Ten updates in a row; each rounds w once or twice, the quotient m / (sqrt(v) + eps) about five times.
    ("float32", "update"): (2e-5, 1e-6),
    ("float64", "update"): (1e-12, 1e-14),
    # Central differences in float64 with h = 1e-5: truncation h² = 1e-10, rounding eps / h = 2e-11, both times
    # derivatives of order 1 to 10. There is no float32 line: the numerical gradient is not taken in float32.
    ("float64", "gradient"): (1e-6, 1e-8),
}

# exp, expm1, log1p and tanh of the CPU's kernels, in units of the last place of a float32: a polynomial rounds its last
# two operations, a reduced argument once, a quotient once more. Seen: 2.4 of tanh, 1.9 of log1p, 1.0 of exp.
ULPS = 3


def assert_close(actual, expected, dtype, kind):
    """`actual` (a host array of `dtype`) agrees with the float64 oracle to the tolerance of `kind`."""
    rtol, atol = TOLERANCES[str(np.dtype(dtype)), kind]
    assert actual.dtype == dtype, f"dtype {actual.dtype}, expected {dtype}"
    assert np.shape(actual) == np.shape(expected), f"shape {np.shape(actual)}, expected {np.shape(expected)}"
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)
