"""The interface that every device implements as a `Backend`: all that fcnet asks of a device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np

#: Precisions that `Backend.gemm` may offer besides the operands' own -> the devices that have them.
PRECISIONS = dict.fromkeys(("tf32", "bf16"), "a CUDA GPU of compute capability 8.0 or more")

ALIGNMENT = 256  # bytes; CUDA's allocator aligns to as many, and on a CPU they are four cache lines

Array = Any  # numpy.ndarray, cupy.ndarray, or the test suite's guard array


class Kernel(NamedTuple):
    """Replace the reference function of the same name and signature by a faster one."""

    function: Callable[..., Any]
    fits: Callable[..., bool]  # called with the function's arguments; if it returns False, the reference serves them


class Memory(NamedTuple):
    """Report a device's memory in bytes: held by this process, free, and in all; 0 where the system does not say."""

    used: int
    free: int
    total: int


class Call(partial):
    """Record a call: calling it makes it again.

    Attributes:
        name: of fcnet's function, also where a kernel serves in its place.
        arguments: by the names of that function's parameters, defaults included.
        outputs: names of the arguments that are filled without being read.
        known: whether it reads and writes nothing but its arguments, as fcnet's functions.
        notes: what `Backend.first_call` returned beside the result.
    """

    name: str
    arguments: dict[str, Any]
    outputs: frozenset[str] = frozenset()
    known: bool = False
    notes: Any = None

    def __new__(cls, function: Callable[..., Any], /, *args: Any, **keywords: Any) -> Self:
        call = super().__new__(cls, function, *args, **keywords)
        call.name = getattr(function, "__name__", "an unnamed call")
        call.arguments = {**{f"argument {i}": value for i, value in enumerate(args, 1)}, **keywords}
        return call


def recorded(calls: Sequence[Callable[[], Any]]) -> Sequence[Call]:
    """Return the calls, after checking that each is a `Call`, which names the arrays that it reads and writes.

    Raises:
        TypeError: one is not.
    """
    for call in calls:
        if not isinstance(call, Call):
            raise TypeError(f"compile: expected recorded calls, fcnet.backends.device.Call, got {call!r}")
    return calls  # type: ignore[return-value]


@runtime_checkable
class ManySteps(Protocol):
    """Make many compiled steps at once, with the same bits.

    Attributes:
        most: the largest number of steps at once.
    """

    most: int

    def __call__(self) -> None: ...

    def steps(self, count: int, rates: Sequence[Sequence[float]] | None, again: bool = False) -> None:
        """Make `count` steps, each with its learning rates, one for each of the optimizer's `factors`.

        With None all have those that are set. `again`: the steps before were made by this object, and nobody has
        written to any of its arrays since.
        """


class CallSequence:
    """Make the calls of a compiled step one after the other."""

    def __init__(self, calls: Sequence[Callable[[], Any]]) -> None:
        self.calls = tuple(calls)

    def __call__(self) -> None:
        for call in self.calls:
            call()


class Prefetcher:
    """Copy batches of rows from host arrays into fixed arrays of the device, ahead of their use.

    Each `receive` needs a `send` before it; one further `send` may precede it, so that a device that copies in the
    background receives the next batch while it works on this one.

    Attributes:
        arrays: for each source, an array (N, ...) of the device that holds the batch last received.
    """

    def __init__(self, backend: Backend, sources: Sequence[np.ndarray], rows: int) -> None:
        """Allocate the device arrays for batches of `rows` rows of the host arrays `sources` (n, ...)."""
        self.backend, self.sources = backend, tuple(sources)
        self.arrays = [backend.xp.empty((rows, *source.shape[1:]), dtype=source.dtype) for source in sources]
        self._sent: list[list[np.ndarray]] = []

    def send(self, rows: np.ndarray) -> None:
        """Begin to copy these N rows, int64 numbers in 0..n-1; later changes of the sources do not show."""
        self._sent.append([np.take(source, rows, axis=0) for source in self.sources])

    def receive(self) -> None:
        """Put the batch that was sent first into `arrays`, for all work that is queued after this; never waits."""
        for host, array in zip(self._sent.pop(0), self.arrays, strict=True):
            self.backend.upload(host, array)


class Backend(ABC):
    """Serve a device: `xp` is the array module whose functions fcnet calls, and the methods add what `xp` lacks."""

    name: str  # "cpu", "cuda:0"
    xp: Any
    kernels: Mapping[str, Kernel] = {}  # name of a reference function -> what replaces it here
    precisions: tuple[str, ...] = ()  # which of PRECISIONS `gemm` offers besides the operands' own
    block_size: int | None = None  # elements an element-wise rule should touch at a time; None: all at once

    @abstractmethod
    def owns(self, array: object) -> bool:
        """Return whether `array` is an array of this device."""

    @abstractmethod
    def asarray(self, array: object, dtype: object = None) -> Array:
        """Return a host or device array as an array of this device, in `dtype` if given; copy only if necessary."""

    @abstractmethod
    def to_numpy(self, array: Array) -> np.ndarray:
        """Return the array on the host. Waits for the device, so it is never called within a training step."""

    @abstractmethod
    def upload(self, host: np.ndarray, out: Array) -> None:
        """Copy a host array into an existing device array without waiting for the device."""

    def has_room(self, nbytes: int) -> bool:
        """Return whether the device can hold `nbytes` more bytes without being filled up."""
        return True

    def prefetcher(self, sources: Sequence[np.ndarray], rows: int) -> Prefetcher:
        """Return a `Prefetcher` of batches of `rows` rows of these host arrays."""
        return Prefetcher(self, sources, rows)

    @abstractmethod
    def use(self) -> None:
        """Make this device the current one of the calling thread, where devices are chosen per thread."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until the device has finished all queued work."""

    @abstractmethod
    def gemm(
        self, a: Array, b: Array, out: Array | None = None, precision: str | None = None, stored: str | None = None
    ) -> Array:
        """Return the matrix product a @ b, (..., N, K) by (..., K, M), into `out` if given; transposed views are fine.

        `precision`, one of `precisions`, rounds float32 operands to fewer bits before they are multiplied, "tf32" to 11
        and "bf16" to 8 significant ones; sums are float32. With "bf16", `stored` "bf16" rounds the results, too, as a
        device may store them.
        """

    def take_rows(self, array: Array, rows: Array, out: Array | None = None) -> Array:
        """Return array[rows], (N, ...) out of (n, ...), into `out` if given; row numbers must be in 0..n-1."""
        return self.xp.take(array, rows, axis=0, out=out)

    def may_be_denormal(self, x: Array, work: Array) -> bool:
        """Return whether an element of x may be below the smallest normal number; True where finding out would wait.

        `work` is scratch like x.
        """
        return True

    def may_exceed(self, x: Array, limit: float, *, work: Array) -> bool:
        """Return whether an element of x may be finite and beyond ±limit; True where finding out would wait.

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
        """Return a function that restores the present content of the arrays, or None if `compile` needs none."""
        return None

    def first_call(self, kernel: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Make a kernel's call while a step is recorded; return its result, and notes for `compile` or None."""
        return kernel(*args, **kwargs), None

    @abstractmethod
    def compile(
        self,
        calls: Sequence[Callable[[], Any]],
        put_back: Callable[[], None] | None = None,
        most_rows: int | None = None,
    ) -> Callable[[], Any]:
        """Return a function that makes these calls in turn; each call reads and writes the same arrays every time.

        Args:
            calls: recorded calls, which have been made once.
            put_back: restores all that they have changed. Only if it is given may the device use a method that gives
                other bits; it then calls `put_back` and makes the first step again by that method.
            most_rows: of the batches of this training, of which others may have fewer: what is compiled for so many
                may make these, too.

        Returns:
            A function without arguments, or `ManySteps`.

        Raises:
            TypeError: one is no `Call`.
        """

    @abstractmethod
    def memory(self) -> Memory:
        """Return how much memory is used, free and there in all."""

    def allocating(self) -> AbstractContextManager[None]:
        """Return a context to allocate arrays in: if the device is full, it raises a MemoryError that says so."""
        return nullcontext()

    @abstractmethod
    def describe(self) -> str:
        """Return one line of text: the device and the libraries that it uses."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"
