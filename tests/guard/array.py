"""Arrays of the guard device, and the log of what happens to them; see `tests.guard`."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from fcnet.backends import get_backend

NAME = "guard"


class Event(NamedTuple):
    """Something counted: what it was and how many bytes it concerned."""

    what: str
    nbytes: int


class HiddenWait(AssertionError):
    """A wait for the device where none is allowed."""


class Log:
    """What has happened on the guard device since `clear`."""

    def __init__(self) -> None:
        self.waits: list[Event] = []
        self.uploads: list[Event] = []
        self.allocations: list[Event] = []
        self.waits_forbidden = 0

    def clear(self) -> None:
        for events in (self.waits, self.uploads, self.allocations):
            events.clear()

    def wait(self, what: str, array: GuardArray | None = None) -> None:
        event = Event(what, 0 if array is None else array.nbytes)
        self.waits.append(event)
        if self.waits_forbidden:
            raise HiddenWait(f"{what} waits for the device: {array!r}")


LOG = Log()


class GuardArray:
    """A device array: NumPy's inside, none of NumPy's protocols outside."""

    __slots__ = ("__data",)
    __array_ufunc__ = None  # host_array + guard_array: NumPy leaves it to us, and we refuse

    def __init__(self, data: np.ndarray) -> None:
        if type(data) is not np.ndarray:
            raise TypeError(f"expected an array, got {type(data).__name__}")
        self.__data = data

    @staticmethod
    def _inside(array: GuardArray) -> np.ndarray:
        return array.__data

    # What an array is

    shape = property(lambda self: self.__data.shape)
    ndim = property(lambda self: self.__data.ndim)
    size = property(lambda self: self.__data.size)
    dtype = property(lambda self: self.__data.dtype)
    itemsize = property(lambda self: self.__data.itemsize)
    nbytes = property(lambda self: self.__data.nbytes)
    strides = property(lambda self: self.__data.strides)
    flags = property(lambda self: self.__data.flags)

    def __len__(self) -> int:
        return len(self.__data)

    def __repr__(self) -> str:
        return f"<GuardArray {self.dtype} {self.shape}>"  # no values: those would be a wait

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"GuardArray.{name} is not in the guarded list: add it if CuPy has it with the same meaning"
        )

    # Views and copies

    @property
    def T(self) -> GuardArray:
        return GuardArray(self.__data.T)

    def swapaxes(self, first: int, second: int) -> GuardArray:
        return GuardArray(self.__data.swapaxes(first, second))

    def reshape(self, *shape: Any) -> GuardArray:
        out = self.__data.reshape(*shape)
        return GuardArray(out) if np.may_share_memory(out, self.__data) else new("reshape", out)

    def astype(self, dtype: Any, *, copy: bool = True) -> GuardArray:
        if not copy and self.dtype == dtype:
            return self
        return new("astype", self.__data.astype(dtype))

    def copy(self) -> GuardArray:
        return new("copy", self.__data.copy())

    def __copy__(self) -> GuardArray:
        return self.copy()

    def __deepcopy__(self, memo: dict) -> GuardArray:
        return self.copy()

    def __reduce__(self) -> tuple[Any, ...]:
        LOG.wait("pickle", self)
        return _from_pickle, (self.__data,)

    def __getitem__(self, key: Any) -> GuardArray:
        index, fancy = _index(key, self)
        out = self.__data[index]
        return new("index", np.asarray(out)) if fancy else GuardArray(out)

    def __setitem__(self, key: Any, value: Any) -> None:
        index, fancy = _index(key, self)
        if fancy and not isinstance(value, GuardArray):
            LOG.uploads.append(Event("setitem by an index array", np.asarray(value).nbytes))
        self.__data[index] = operand("setitem", value)

    # Sums

    def sum(self, **told: Any) -> GuardArray:
        return self._reduced("sum", **told)

    def max(self, **told: Any) -> GuardArray:
        return self._reduced("max", **told)

    def _reduced(self, what: str, out: Any = None, **told: Any) -> GuardArray:
        data = getattr(self.__data, what)(out=output(what, out, (self,)), **told)
        return result(what, data, out)

    # Waits

    def item(self) -> Any:
        return self._read("item").item()

    def tolist(self) -> Any:
        return self._read("tolist").tolist()

    def __float__(self) -> float:
        return float(self._read("float").item())

    def __int__(self) -> int:
        return int(self._read("int").item())

    def __complex__(self) -> complex:
        return complex(self._read("complex").item())

    def __bool__(self) -> bool:
        return bool(self._read("bool"))

    def __format__(self, spec: str) -> str:
        return format(self._read("format").item(), spec) if spec else repr(self)

    def _read(self, what: str) -> np.ndarray:
        LOG.wait(what, self)
        return self.__data

    # Refusals

    def __iter__(self) -> Iterator:
        raise TypeError("iteration over a device array: one launch or wait for each element")

    def __contains__(self, value: object) -> bool:
        raise TypeError("`in` on a device array: it waits")

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise TypeError("implicit conversion of a device array to NumPy; use backend.to_numpy(array)")

    def __array_function__(self, function: Callable, *args: Any) -> Any:
        raise TypeError(f"numpy.{function.__name__} of a device array; use the function of its own xp")

    def __dlpack__(self, *args: Any, **kwargs: Any) -> Any:
        raise BufferError("DLPack export of a device array")

    def __dlpack_device__(self) -> Any:
        raise BufferError("DLPack export of a device array")

    __hash__ = None  # type: ignore[assignment]


def inside(array: GuardArray) -> np.ndarray:
    """NumPy's array in a guard array: for the guard's own functions only."""
    return GuardArray._inside(array)


def new(what: str, data: np.ndarray) -> GuardArray:
    """Return a freshly allocated device array."""
    LOG.allocations.append(Event(what, data.nbytes))
    return GuardArray(data)


def _from_pickle(data: np.ndarray) -> GuardArray:
    return get_backend(NAME).asarray(data)


def operand(function: str, value: Any) -> Any:
    """Return what NumPy gets for an operand; Python numbers stay weak in promotion, host arrays are refused."""
    if isinstance(value, GuardArray):
        return inside(value)
    if type(value) in (bool, int, float):
        return value
    if isinstance(value, np.ndarray | np.generic | list | tuple):
        raise TypeError(f"{function}: a host {type(value).__name__} meets a device array; upload it first")
    raise TypeError(f"{function}: unsupported operand {type(value).__name__}")


def device_array(function: str, name: str, value: Any) -> np.ndarray:
    if not isinstance(value, GuardArray):
        raise TypeError(f"{function}: {name}: expected a device array, got {type(value).__name__}")
    return inside(value)


def output(function: str, out: Any, inputs: tuple = ()) -> np.ndarray | None:
    if out is None:
        return None
    data = device_array(function, "out", out)
    for value in inputs:
        # CuPy's rule (_copy_in_args_if_needed): another object whose memory may overlap is copied first.
        if isinstance(value, GuardArray) and value is not out and np.may_share_memory(inside(value), data):
            LOG.allocations.append(Event(f"{function}: hidden copy of an overlapping input", value.nbytes))
    return data


def result(what: str, data: Any, out: Any) -> GuardArray:
    return new(what, np.asarray(data)) if out is None else out


def _index(key: Any, array: GuardArray) -> tuple[Any, bool]:
    """NumPy's index for `key`, ending in an ellipsis so that the result is an array, and whether it is fancy."""
    parts, fancy = [], False
    for part in key if isinstance(key, tuple) else (key,):
        if isinstance(part, GuardArray):
            if part.dtype == bool:
                LOG.wait("boolean mask", part)
            elif part.dtype.kind not in "iu":
                raise IndexError(f"index arrays are integers, got {part.dtype}")
            parts.append(inside(part))
            fancy = True
        elif part is None or part is Ellipsis:
            parts.append(part)
        elif isinstance(part, slice):
            parts.append(slice(*(None if p is None else _integer(p) for p in (part.start, part.stop, part.step))))
        else:
            parts.append(_integer(part))
    if not any(part is Ellipsis for part in parts):
        parts.append(Ellipsis)
    return tuple(parts), fancy


def _integer(value: Any) -> int:
    if isinstance(value, bool | np.bool | np.ndarray | list | GuardArray):
        raise TypeError(f"index: expected integers, slices or device arrays, got {type(value).__name__}")
    return operator.index(value)


def check_range(function: str, operands: list[Any]) -> None:
    """Check that a Python integer fits the integer arrays it meets; CuPy would wrap it around."""
    kinds = [o.dtype for o in operands if isinstance(o, np.ndarray)]
    if kinds and all(kind.kind in "iu" for kind in kinds):
        info = np.iinfo(np.result_type(*kinds))
        for value in operands:
            if type(value) is int and not info.min <= value <= info.max:
                raise OverflowError(f"{function}: {value} does not fit {info.dtype}")


def _install_operators() -> None:
    def binary(name: str) -> tuple[Callable, Callable, Callable]:
        function = getattr(operator, name)

        def check(array: GuardArray, other: Any) -> Any:
            value = operand(name, other)
            check_range(name, [inside(array), value])
            return value

        def forward(self: GuardArray, other: Any) -> GuardArray:
            return new(name, np.asarray(function(inside(self), check(self, other))))

        def reflected(self: GuardArray, other: Any) -> GuardArray:
            return new(name, np.asarray(function(check(self, other), inside(self))))

        def in_place(self: GuardArray, other: Any) -> GuardArray:
            data, value = output(name, self, (other,)), check(self, other)
            getattr(operator, f"i{name}")(data, value)
            return self

        return forward, reflected, in_place

    for name in ("add", "sub", "mul", "truediv", "pow"):
        forward, reflected, in_place = binary(name)
        setattr(GuardArray, f"__{name}__", forward)
        setattr(GuardArray, f"__r{name}__", reflected)
        setattr(GuardArray, f"__i{name}__", in_place)
    for name in ("eq", "ne", "lt", "le", "gt", "ge"):
        setattr(GuardArray, f"__{name}__", binary(name)[0])
    setattr(GuardArray, "__neg__", lambda self: new("neg", np.asarray(-inside(self))))  # noqa: B010


_install_operators()
