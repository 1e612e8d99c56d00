"""What fcnet asks of a device: the interface that every backend fills, and nothing more."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Array = Any  # numpy.ndarray, cupy.ndarray, or the test suite's guard array


class Kernel(NamedTuple):
    """An accelerated replacement for the reference function of the same name and signature."""

    function: Callable[..., Any]
    fits: Callable[..., bool]  # called with the arguments of the function; False sends them to the reference


class Memory(NamedTuple):
    """Memory of a device in bytes: held by this process, free, and in all."""

    used: int
    free: int
    total: int


class InTurn:
    """Makes these calls, one after the other."""

    def __init__(self, calls: Sequence[Callable[[], Any]]) -> None:
        self.calls = tuple(calls)

    def __call__(self) -> None:
        for call in self.calls:
            call()


class Backend(ABC):
    """One device. `xp` is the array module whose functions fcnet calls; the methods are what `xp` lacks."""

    name: str  # "cpu", "cuda:0"
    xp: Any
    kernels: Mapping[str, Kernel] = {}  # name of a reference function -> what replaces it here
    block_size: int | None = None  # elements an element-wise rule should touch at a time; None: all at once

    @abstractmethod
    def owns(self, array: object) -> bool:
        """Whether `array` is an array of this device."""

    @abstractmethod
    def asarray(self, array: object, dtype: object = None) -> Array:
        """A host or device array as an array of this device, in `dtype` if given; copies only if it must."""

    @abstractmethod
    def to_numpy(self, array: Array) -> np.ndarray:
        """The array on the host. This waits for the device: never called within a training step."""

    @abstractmethod
    def upload(self, host: np.ndarray, out: Array) -> None:
        """Copy a host array into an existing device array without waiting for the device."""

    @abstractmethod
    def use(self) -> None:
        """Make this device the calling thread's current one, where there is such a thing."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until the device has done all that it was asked."""

    @abstractmethod
    def gemm(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """Matrix product a @ b, (..., N, K) by (..., K, M), into `out` if given; transposed views are fine."""

    def take_rows(self, array: Array, rows: Array, out: Array | None = None) -> Array:
        """array[rows], (N, ...) out of (n, ...), into `out` if given; row numbers must be in 0..n-1."""
        return self.xp.take(array, rows, axis=0, out=out)

    def address(self, array: Array) -> int:
        """Where the array starts in the device's memory; 0 for an array that does not tell (such as a stand-in)."""
        interface = getattr(array, "__cuda_array_interface__", None) or getattr(array, "__array_interface__", None)
        return interface["data"][0] if interface else 0

    @abstractmethod
    def random_bits(self, key: tuple[int, int], layer: int, step: int | Array, net: int, shape: tuple) -> Array:
        """uint16 random numbers, a function of the arguments alone and equal on every device.

        They are the output of Philox4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
        2011) with this key, for the counters (1, layer, step, net), (2, layer, step, net), ...: each 64-bit word
        gives four numbers, low bits first. `step` may be an integer array of one element on the device, which is
        read there.
        """

    @abstractmethod
    def compile(self, calls: Sequence[Callable[[], Any]]) -> Callable[[], Any]:
        """What makes these calls in turn; each always touches the same arrays in the same way."""

    @abstractmethod
    def memory(self) -> Memory:
        """Memory in use and to be had."""

    @abstractmethod
    def describe(self) -> str:
        """One line for people: the device and the libraries that serve it."""

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy or a pickle of a backend is the backend of that name: there is one per device and process."""
        from backends.select import get_backend

        return get_backend, (self.name,)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"
