"""The array module of the guard device: the functions fcnet uses, with CuPy's keywords; see `tests.guard`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.guard.array import LOG, Event, GuardArray, check_range, device_array, new, operand, output, result


def _ufunc(name: str) -> Callable[..., GuardArray]:
    function = getattr(np, name)

    def call(*args: Any, out: Any = None, dtype: Any = None) -> GuardArray:
        if len(args) != function.nin:
            raise TypeError(f"{name}: expected {function.nin} operands, got {len(args)}; give out by its name")
        operands = [operand(name, value) for value in args]
        if not any(isinstance(value, GuardArray) for value in args):
            raise TypeError(f"{name}: expected a device array among the operands")
        check_range(name, operands)
        return result(name, function(*operands, out=output(name, out, args), dtype=dtype), out)

    call.__name__ = name
    return call


UFUNCS = (
    *("add", "subtract", "multiply", "divide", "maximum", "minimum", "exp", "log", "sqrt", "reciprocal", "sign"),
    *("negative", "tanh", "expm1", "log1p", "hypot"),
    "abs",
    *("equal", "greater", "greater_equal", "less_equal"),
)


class Namespace:
    """The guarded list: what fcnet calls of NumPy and CuPy, with CuPy's keywords."""

    dtype = np.dtype

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"xp.{name} is not in the guarded list: add it if CuPy has it with the same meaning")

    @staticmethod
    def asarray(a: Any, dtype: Any = None) -> GuardArray:
        if isinstance(a, GuardArray):
            return a if dtype is None or a.dtype == dtype else a.astype(dtype)
        if isinstance(a, list | tuple) and any(isinstance(item, GuardArray) for item in a):
            raise TypeError("asarray of a list of device arrays")
        host = np.array(a, dtype=dtype)
        if host.dtype.kind not in "biuf":
            raise ValueError(f"asarray: unsupported dtype {host.dtype}")
        LOG.uploads.append(Event("asarray", host.nbytes))
        return new("asarray", host)

    @staticmethod
    def empty(shape: Any, dtype: Any = float) -> GuardArray:
        data = np.empty(shape, dtype)
        data.fill(np.nan if data.dtype.kind == "f" else True if data.dtype == bool else np.iinfo(data.dtype).max)
        return new("empty", data)

    @staticmethod
    def zeros(shape: Any, dtype: Any = float) -> GuardArray:
        return new("zeros", np.zeros(shape, dtype))

    @staticmethod
    def ones(shape: Any, dtype: Any = float) -> GuardArray:
        return new("ones", np.ones(shape, dtype))

    @staticmethod
    def full(shape: Any, fill_value: Any, dtype: Any = None) -> GuardArray:
        return new("full", np.full(shape, operand("full", fill_value), dtype))

    @staticmethod
    def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None) -> GuardArray:
        if not all(value is None or type(value) in (int, float) for value in (start, stop, step)):
            raise TypeError("arange: expected Python numbers")
        return new(
            "arange",
            np.arange(start, stop, step, dtype) if stop is not None else np.arange(start, dtype=dtype),
        )

    @staticmethod
    def sum(a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> GuardArray:
        data = np.sum(device_array("sum", "a", a), axis, dtype, output("sum", out, (a,)), keepdims)
        return result("sum", data, out)

    @staticmethod
    def mean(a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> GuardArray:
        data = np.mean(device_array("mean", "a", a), axis, dtype, output("mean", out, (a,)), keepdims)
        return result("mean", data, out)

    @staticmethod
    def max(a: Any, axis: Any = None, out: Any = None, keepdims: bool = False) -> GuardArray:
        return result("max", np.max(device_array("max", "a", a), axis, output("max", out, (a,)), keepdims), out)

    @staticmethod
    def min(a: Any, axis: Any = None, out: Any = None, keepdims: bool = False) -> GuardArray:
        return result("min", np.min(device_array("min", "a", a), axis, output("min", out, (a,)), keepdims), out)

    @staticmethod
    def around(a: Any, decimals: int = 0) -> GuardArray:
        return new("around", np.around(device_array("around", "a", a), decimals))

    @staticmethod
    def argmax(a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> GuardArray:
        data = np.argmax(device_array("argmax", "a", a), axis, output("argmax", out, (a,)), keepdims=keepdims)
        return result("argmax", data if dtype is None else np.asarray(data).astype(dtype), out)

    @staticmethod
    def argmin(a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> GuardArray:
        data = np.argmin(device_array("argmin", "a", a), axis, output("argmin", out, (a,)), keepdims=keepdims)
        return result("argmin", data if dtype is None else np.asarray(data).astype(dtype), out)

    @staticmethod
    def dot(a: Any, b: Any, out: Any = None) -> GuardArray:
        first, second = device_array("dot", "a", a), device_array("dot", "b", b)
        return result("dot", np.dot(first, second, output("dot", out, (a, b))), out)

    @staticmethod
    def take(a: Any, indices: Any, axis: Any = None, out: Any = None) -> GuardArray:
        data, rows = device_array("take", "a", a), device_array("take", "indices", indices)
        if rows.dtype.kind not in "iu":
            raise TypeError(f"take: indices: expected integers, got {rows.dtype}")
        taken = np.take(data, rows, axis)
        if out is None:
            return new("take", np.asarray(taken))
        target = output("take", out, (a, indices))
        if target.dtype != data.dtype or target.shape != taken.shape:  # CuPy's messages
            raise (TypeError if target.dtype != data.dtype else ValueError)("Output dtype or shape mismatch")
        target[...] = taken
        return out

    @staticmethod
    def sort(a: Any, axis: Any = -1) -> GuardArray:
        return new("sort", np.sort(device_array("sort", "a", a), axis))

    @staticmethod
    def unique(ar: Any) -> GuardArray:
        data = device_array("unique", "ar", ar)
        LOG.wait("unique")  # how many there are
        return new("unique", np.unique(data))

    @staticmethod
    def where(condition: Any, x: Any = None, y: Any = None) -> GuardArray:
        return result(
            "where",
            np.where(device_array("where", "condition", condition), operand("where", x), operand("where", y)),
            None,
        )

    @staticmethod
    def concatenate(tup: Any, axis: Any = 0, out: Any = None) -> GuardArray:
        parts = [device_array("concatenate", "tup", part) for part in tup]
        return result("concatenate", np.concatenate(parts, axis, output("concatenate", out, tuple(tup))), out)


for _name in UFUNCS:
    setattr(Namespace, _name, staticmethod(_ufunc(_name)))

#: Every name of the list, for the tests that compare it with fcnet's sources and with CuPy's own namespace.
GUARDED = frozenset(name for name in vars(Namespace) if not name.startswith("_"))
