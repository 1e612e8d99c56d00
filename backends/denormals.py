"""Denormal numbers, too small for full precision: CPUs compute slowly with them, so they are set to 0."""

from __future__ import annotations

from functools import cache

import numpy as np

from fcnet.backends.device import Array, Backend


@cache
def smallest_normal(dtype: np.dtype) -> float:
    """Return the smallest positive number that a floating dtype holds with full precision."""
    return float(np.finfo(dtype).smallest_normal)


def flush(backend: Backend, x: Array, *, work: Array) -> Array:
    """Set x to 0 where |x| is below the smallest normal number, in place; the sign stays, and so does NaN.

    A number that decays, m = 0.9 m, does not become 0 by itself: it becomes denormal and stays so, because 0.9 m is
    rounded to m in the end.

    Args:
        x: floating. work: scratch like x.
    """
    if not backend.may_be_denormal(x, work):
        return x
    xp = backend.xp
    normal = xp.greater_equal(xp.abs(x, out=work), smallest_normal(x.dtype), out=work)  # 0 or 1
    return xp.multiply(x, normal, out=x)  # not a choice between x and 0: that is slower, and would lose the sign
