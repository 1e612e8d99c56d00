"""What fcnet asks of a device: the interface that every backend fills, and nothing more."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np

#: What `Backend.gemm` may offer besides the operands' own precision, and what a device must be for it.
PRECISIONS = dict.fromkeys(("tf32", "bf16"), "a CUDA GPU of compute capability 8.0 or more")

ALIGNMENT = 256  # bytes; what CUDA's allocator and vector loads like, and four cache lines on a CPU

Array = Any  # numpy.ndarray, cupy.ndarray, or the test suite's guard array


class Kernel(NamedTuple):
    """An accelerated replacement for the reference function of the same name and signature."""

    function: Callable[..., Any]
    fits: Callable[..., bool]  # called with the arguments of the function; False sends them to the reference


class Memory(NamedTuple):
    """Memory of a device in bytes: held by this process, free, and in all; 0 for what the system does not tell."""

    used: int
    free: int
    total: int


class Call(partial):
    """A recorded call: calling it makes it again.

    Attributes:
        name: of the function in fcnet, whatever serves in its place.
        arguments: by the names of that function's parameters, defaults included.
        outputs: names of the arguments that it fills without reading them.
        notes: what `Backend.first_call` gave.
    """

    name: str
    arguments: dict[str, Any]
    outputs: frozenset[str] = frozenset()
    notes: Any = None

    def __new__(cls, function: Callable[..., Any], /, *args: Any, **keywords: Any) -> Self:
        call = super().__new__(cls, function, *args, **keywords)
        call.name = getattr(function, "__name__", "an unnamed call")
        call.arguments = {**{f"argument {i}": value for i, value in enumerate(args, 1)}, **keywords}
        return call


def recorded(calls: Sequence[Callable[[], Any]]) -> Sequence[Call]:
    """Return these calls.

    Raises:
        TypeError: one is no `Call`: nobody could see which arrays it touches, and put them back after a trial.
    """
    for call in calls:
        if not isinstance(call, Call):
            raise TypeError(f"compile: expected recorded calls, fcnet.backends.device.Call, got {call!r}")
    return calls  # type: ignore[return-value]


@runtime_checkable
class ManySteps(Protocol):
    """A compiled step that can be made many times at once, with the same bits.

    Attributes:
        most: how many times.
    """

    most: int

    def __call__(self) -> None: ...

    def steps(self, count: int, rates: Sequence[float] | None) -> None:
        """Make so many steps, each with its learning rate; with None all have the one that is set."""


class CallSequence:
    """Calls, made one after the other."""

    def __init__(self, calls: Sequence[Callable[[], Any]]) -> None:
        self.calls = tuple(calls)

    def __call__(self) -> None:
        for call in self.calls:
            call()


class Prefetcher:
    """Batches of rows on their way from host arrays into fixed arrays of the device, ahead of their use.

    `send` may be called once before each `receive`, and once more ahead of it: a device that copies by itself then
    works on one batch while the next one travels.

    Attributes:
        arrays: for each source, an array (N, ...) of the device that holds the batch last received.
    """

    def __init__(self, backend: Backend, sources: Sequence[np.ndarray], rows: int) -> None:
        """Take host arrays `sources` (n, ...) and the number of rows N of a batch."""
        self.backend, self.sources = backend, tuple(sources)
        self.arrays = [backend.xp.empty((rows, *source.shape[1:]), dtype=source.dtype) for source in sources]
        self._sent: list[list[np.ndarray]] = []

    def send(self, rows: np.ndarray) -> None:
        """Begin to bring these N rows, int64 numbers in 0..n-1; what they hold now is what will come."""
        self._sent.append([np.take(source, rows, axis=0) for source in self.sources])

    def receive(self) -> None:
        """Put the batch that was sent first into `arrays`, for all work asked for after this; nothing waits."""
        for host, array in zip(self._sent.pop(0), self.arrays, strict=True):
            self.backend.upload(host, array)


class Backend(ABC):
    """One device. `xp` is the array module whose functions fcnet calls; the methods are what `xp` lacks."""

    name: str  # "cpu", "cuda:0"
    xp: Any
    kernels: Mapping[str, Kernel] = {}  # name of a reference function -> what replaces it here
    precisions: tuple[str, ...] = ()  # see PRECISIONS: what `gemm` offers besides the operands' own: of "tf32", "bf16"
    block_size: int | None = None  # elements an element-wise rule should touch at a time; None: all at once

    @abstractmethod
    def owns(self, array: object) -> bool:
        """Return whether `array` is an array of this device."""

    @abstractmethod
    def asarray(self, array: object, dtype: object = None) -> Array:
        """Return a host or device array as one of this device, in `dtype` if given; copy only if it must be."""

    @abstractmethod
    def to_numpy(self, array: Array) -> np.ndarray:
        """Return the array on the host. This waits for the device: never called within a training step."""

    @abstractmethod
    def upload(self, host: np.ndarray, out: Array) -> None:
        """Copy a host array into an existing device array without waiting for the device."""

    def has_room(self, nbytes: int) -> bool:
        """Return whether so many bytes more can be held without filling the device up."""
        return True

    def prefetcher(self, sources: Sequence[np.ndarray], rows: int) -> Prefetcher:
        """Return what brings batches of `rows` rows of these host arrays to the device, while it works."""
        return Prefetcher(self, sources, rows)

    @abstractmethod
    def use(self) -> None:
        """Make this device the calling thread's current one, where there is such a thing."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until the device has done all that it was asked."""

    @abstractmethod
    def gemm(self, a: Array, b: Array, out: Array | None = None, precision: str | None = None) -> Array:
        """Return the matrix product a @ b, (..., N, K) by (..., K, M), into `out` if given; transposed views are fine.

        `precision`, one of `precisions`, rounds float32 operands to fewer bits before they are multiplied, "tf32" to 11
        and "bf16" to 8 significant ones; the products are added up, and given, in float32.
        """

    def take_rows(self, array: Array, rows: Array, out: Array | None = None) -> Array:
        """Return array[rows], (N, ...) out of (n, ...), into `out` if given; row numbers must be in 0..n-1."""
        return self.xp.take(array, rows, axis=0, out=out)

    def may_be_denormal(self, x: Array, work: Array) -> bool:
        """Return whether an element of x may be below the smallest normal number; True where to look would be to wait.

        `work` is scratch like x.
        """
        return True

    def zeros(self, size: int, dtype: Any) -> Array:
        """Return a vector of zeros that begins on a boundary of ALIGNMENT bytes."""
        return self.xp.zeros(size, dtype=dtype)

    @abstractmethod
    def random_bits(self, key: tuple[int, int], layer: int, step: int | Array, net: int, shape: tuple) -> Array:
        """Return uint16 random numbers, a function of the arguments alone and equal on every device.

        They are the output of Philox4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
        2011) with this key, for the counters (1, layer, step, net), (2, layer, step, net), ...: each 64-bit word
        gives four numbers, low bits first. `step` may be an integer array of one element on the device, which is
        read there.
        """

    def snapshot(self, arrays: Sequence[Array]) -> Callable[[], None] | None:
        """Return a function that puts back what the arrays hold now, for `compile`; None where that needs none."""
        return None

    def first_call(self, kernel: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Make a kernel's call while a step is recorded; return its result, and notes on it for `compile` or None."""
        return kernel(*args, **kwargs), None

    @abstractmethod
    def compile(
        self, calls: Sequence[Callable[[], Any]], put_back: Callable[[], None] | None = None
    ) -> Callable[[], Any]:
        """Return what makes these calls in turn; each always touches the same arrays, its arguments, in the same way.

        Args:
            calls: they have been made once.
            put_back: puts back what all that they change held before. Only with it may the device have a way of its
                own that gives other bits: then it is called, and the first step made again in that way.

        Returns:
            A function of nothing, or `ManySteps`.

        Raises:
            TypeError: one is no `Call`.
        """

    @abstractmethod
    def memory(self) -> Memory:
        """Return the memory in use and to be had."""

    def allocating(self) -> AbstractContextManager[None]:
        """Return a context to make arrays in: a device that is full says so in a MemoryError for people."""
        return nullcontext()

    @abstractmethod
    def describe(self) -> str:
        """Return one line for people: the device and the libraries that serve it."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"
