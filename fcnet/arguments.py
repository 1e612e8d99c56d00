"""What a network's arguments may be, one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from backends import Backend
from fcnet.boundary import one_of
from fcnet.errors import unknown

DTYPES = ("float32", "float64")
PRECISIONS = ("tf32", "bf16")  # of the products of a float32 network


def widths(hidden_dims: Any) -> Sequence[Any]:
    """A list of widths. Raises TypeError."""
    is_list = isinstance(hidden_dims, list | tuple | range) or (
        isinstance(hidden_dims, np.ndarray) and hidden_dims.ndim == 1
    )
    if not is_list:
        raise TypeError(f"hidden_dims: expected a list of widths such as [100, 100], got {hidden_dims!r}")
    return hidden_dims


def dtype_of(dtype: Any) -> np.dtype:
    """float32 or float64. Raises ValueError."""
    try:
        name = str(dtype) if dtype is None else np.dtype(dtype).name
    except TypeError:
        name = str(dtype)
    if name not in DTYPES:
        raise unknown("dtype", name, DTYPES)
    return np.dtype(name)


def precision_of(precision: Any, dtype: np.dtype, backend: Backend) -> str | None:
    """What `Backend.gemm` is to be told: None for the precision of the dtype.

    Raises:
        ValueError: an unknown name, not for this dtype, or not on this device.
    """
    if precision is None or precision == dtype.name:
        return None
    one_of("precision", precision, (*DTYPES, *PRECISIONS))
    if precision in DTYPES or dtype != np.float32:
        name = "float32" if precision in PRECISIONS else precision
        raise ValueError(
            f"precision and dtype: expected dtype {name!r} with precision={precision!r}, got {dtype.name!r}"
        )
    if precision not in backend.precisions:
        raise ValueError(
            f"precision: expected 'float32' on {backend.name}, got {precision!r}, which takes a CUDA GPU of compute "
            "capability 8.0 or more; leave precision out, or see fcnet info for the devices"
        )
    return str(precision)
