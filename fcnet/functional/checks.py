"""Argument checks that the functions share; their errors say what was expected, what was given and what to do.

They run in direct calls and when a step is recorded; a recorded step does not repeat them.
"""

from __future__ import annotations

import numbers
from typing import Any

Array = Any
FLOATS = ("f", "d")  # the characters of float32 and float64


def floating(function: str, **arrays: Array) -> None:
    """Check that all arrays are float32 or all float64. Raises TypeError naming the odd one."""
    first: tuple[str, Any] | None = None
    given = iter(arrays.values())
    kind: Any = getattr(next(given), "dtype", None)
    if (
        getattr(kind, "char", None) in FLOATS
        and kind.isnative
        and all(getattr(array, "dtype", None) is kind for array in given)
    ):
        return  # most calls
    for name, array in arrays.items():
        dtype = getattr(array, "dtype", None)
        if dtype is None:
            raise TypeError(
                f"{function}: {name}: expected an array, got {type(array).__name__}; use numpy.asarray({name})"
            )
        if dtype not in ("float32", "float64"):
            raise TypeError(
                f"{function}: {name}: expected float32 or float64, got {dtype}; use {name}.astype('float32')"
            )
        if first is None:
            first = name, dtype
        elif dtype != first[1]:
            raise TypeError(
                f"{function}: {name} is {dtype} but {first[0]} is {first[1]}; give both the same dtype with astype"
            )


def gradient(function: str, dout: Array, out: Array) -> None:
    """Check that `dout` has the dtype and shape of `out`, or of an array like it. Raises TypeError or ValueError."""
    floating(function, out=out, dout=dout)
    same_shape(function, "dout", dout, out.shape, "the forward pass's result")


def cache_of(function: str, cache: Any, kind: type[tuple], length: int | None = None) -> None:
    """Check that `cache` is what the forward function returned. Raises TypeError."""
    if not isinstance(cache, kind) or (length is not None and len(cache) != length):
        raise TypeError(
            f"{function}: cache: expected the one that {function.replace('backward', 'forward')} returned, "
            f"got {type(cache).__name__}"
        )


def labels(function: str, y: Array, num_classes: int) -> None:
    """Check that labels on the host are in 0..C-1; reading those of a device would wait. Raises ValueError."""
    if not hasattr(y, "__array_interface__") or y.size == 0:
        return
    if y.min() < 0 or y.max() >= num_classes:
        bad = y[(y < 0) | (y >= num_classes)][0]
        raise ValueError(f"{function}: y: expected labels 0 to {num_classes - 1}, got {bad}; renumber the labels")


def rows(function: str, name: str, array: Array) -> None:
    """Check that `array` is (..., N, D) with at least one row. Raises ValueError."""
    if array.ndim < 2:
        raise ValueError(
            f"{function}: {name}: expected (..., N, D), got shape {array.shape}; "
            f"one sample is {name}[None, :], and images are reshaped to (N, D)"
        )
    if array.shape[-2] == 0:
        raise ValueError(f"{function}: {name}: expected at least one row, got shape {array.shape}")


def features(function: str, name: str, vector: Array, width: int, of: str, batch: tuple[int, ...] = ()) -> None:
    """Check that `vector` is (M,), or (..., M) with leading axes `batch`; M: the width of `of`. Raises ValueError."""
    if vector.shape not in ((width,), (*batch, width)):
        raise ValueError(f"{function}: {name}: expected shape {(*batch, width)} to match {of}, got {vector.shape}")


def same_shape(function: str, name: str, array: Array, shape: tuple[int, ...], of: str) -> None:
    """Check that `array` has the shape of the array called `of`. Raises ValueError."""
    if array.shape != shape:
        raise ValueError(f"{function}: {name}: expected the shape {shape} of {of}, got {array.shape}")


def outputs(function: str, shape: tuple[int, ...], **arrays: Array | None) -> None:
    """Check the shape of arrays to be filled, where given: kernels write without checking. Raises ValueError."""
    for name, array in arrays.items():
        if array is not None and array.shape != shape:
            raise ValueError(f"{function}: {name}: expected an array of shape {shape} to fill, got {array.shape}")


def fraction(function: str, name: str, value: float) -> None:
    """Check that 0 < value <= 1. Raises ValueError or TypeError."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{function}: {name}: expected a number, got {value!r}")
    if not 0 < value <= 1:
        raise ValueError(f"{function}: {name}: expected a probability to keep a unit, 0 < {name} <= 1, got {value}")
