"""Checks of a network's arguments."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from fcnet.backends import Backend
from fcnet.backends.device import PRECISIONS
from fcnet.errors import unknown
from fcnet.validation import one_of

DTYPES = ("float32", "float64")
DROPOUTS = ("inverted", "plain")


def widths(hidden_dims: Any) -> Sequence[Any]:
    """Return a list of widths. Raises TypeError."""
    is_list = isinstance(hidden_dims, list | tuple | range) or (
        isinstance(hidden_dims, np.ndarray) and hidden_dims.ndim == 1
    )
    if not is_list:
        raise TypeError(f"hidden_dims: expected a list of widths such as [100, 100], got {hidden_dims!r}")
    return hidden_dims


def check_without_hidden(activation: Any, maxout_pieces: Any, normalization: Any, keep_ratio: float) -> None:
    """Check that a network without hidden layers was given nothing about them. Raises ValueError."""
    given = {
        "activation": (activation if isinstance(activation, str) else "relu", "relu"),  # a list is as long as none
        "maxout_pieces": (maxout_pieces, None),
        "normalization": (normalization, None),
        "dropout_keep_ratio": (keep_ratio, 1.0),
    }
    for name, (value, default) in given.items():
        if value != default:
            raise ValueError(
                f"hidden_dims and {name}: expected hidden layers for {value!r}, got none; "
                "name their widths, or leave the other out"
            )


def dropout_kind(dropout: Any) -> str:
    """Return "inverted" or "plain". Raises ValueError; of a number it says where that belongs."""
    if isinstance(dropout, str) and dropout in DROPOUTS:
        return dropout
    hint = ""
    with contextlib.suppress(TypeError, ValueError):
        float(dropout)
        hint = "; the probability to keep is --dropout-keep (dropout_keep_ratio)"
    raise ValueError(f"{unknown('dropout', dropout, DROPOUTS)}{hint}")


def dtype_of(dtype: Any) -> np.dtype:
    """Return float32 or float64. Raises ValueError."""
    try:
        name = str(dtype) if dtype is None else np.dtype(dtype).name
    except TypeError:
        name = str(dtype)
    if name not in DTYPES:
        raise unknown("dtype", name, DTYPES)
    return np.dtype(name)


def precision_of(precision: Any, dtype: np.dtype, backend: Backend) -> str | None:
    """Return the `precision` for `Backend.gemm`: None for that of the dtype.

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
            f"precision: expected 'float32' on {backend.name}, got {precision!r}, which takes {PRECISIONS[precision]}; "
            "leave precision out, or see fcnet info for the devices"
        )
    return str(precision)
