"""What the course's functions do to arrays before and after fcnet's own take them."""

from __future__ import annotations

from typing import Any

import numpy as np

from fcnet.backends import array_module, backend_of

Array = Any
_FLOATS = (np.dtype("float32"), np.dtype("float64"))


def promoted(function: str, **arrays: Any) -> list[Array]:
    """Return the arrays in one floating dtype, the one NumPy would compute in; integers alone become float64.

    Course code mixes float32, float64 and integers; `fcnet.functional` wants one dtype.

    Raises:
        TypeError: something that is not an array of real numbers.
    """
    found = list(arrays.values())
    first = getattr(found[0], "dtype", None)
    if isinstance(first, np.dtype) and first in _FLOATS and all(getattr(a, "dtype", None) is first for a in found):
        return found  # most calls: nothing to check or to convert, and small calls are many
    for name, array in arrays.items():
        if not hasattr(array, "dtype") or not hasattr(array, "shape"):
            raise TypeError(
                f"{function}: {name}: expected an array, got {type(array).__name__}; use numpy.asarray({name})"
            )
        if array.dtype.kind not in "fiub":
            raise TypeError(
                f"{function}: {name}: expected real numbers, got dtype {array.dtype}; use {name}.astype('float64')"
            )
    dtype = np.result_type(*(array.dtype for array in arrays.values()))
    if dtype not in ("float32", "float64"):
        dtype = np.dtype("float32" if dtype == "float16" else "float64")
    return [array if array.dtype == dtype else array.astype(dtype) for array in arrays.values()]


def number(value: Array) -> float:
    """Return an array without axes, on any device, as a Python float."""
    return float(backend_of(value).to_numpy(value))


def zeros(like: Array, size: int) -> Array:
    """Return (size,) zeros in the dtype and on the device of `like`."""
    return array_module(like).zeros((size,), dtype=like.dtype)
