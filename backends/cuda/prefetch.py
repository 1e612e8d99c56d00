"""Prefetch batches of data too large for the device: gather on the host, copy while the device computes."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from fcnet.backends.device import Prefetcher


class CudaPrefetcher(Prefetcher):
    """Prefetch into two slots of pinned host memory and device memory, in turn, copying on a stream of its own.

    The host waits only for a slot that is still being copied, and so runs at most two batches ahead.
    """

    def __init__(self, backend: Any, sources: Sequence[np.ndarray], rows: int) -> None:
        super().__init__(backend, sources, rows)
        cupy = backend.xp
        self._current = cupy.cuda.get_current_stream
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._slots = [_Slot(cupy, self.arrays) for _ in range(2)]
        self._in = self._out = 0  # batches sent and received
        # The slots outlive this object until their copies are done; only then may their memory be reused.
        weakref.finalize(self, _arrive, self._stream, self._slots).atexit = False

    def send(self, rows: np.ndarray) -> None:
        slot = self._slots[self._in % 2]
        slot.copied.synchronize()  # until the pinned memory is free again; returns at once if nothing was recorded
        for source, host in zip(self.sources, slot.host, strict=True):
            np.take(source, rows, axis=0, out=host, mode="clip")  # the default mode would go through a buffer
        self._stream.wait_event(slot.taken)
        for pinned, device in zip(slot.pinned, slot.device, strict=True):
            device.data.copy_from_host_async(pinned.ptr, device.nbytes, self._stream)
        slot.copied.record(self._stream)
        self._in += 1

    def receive(self) -> None:
        slot, stream = self._slots[self._out % 2], self._current()
        stream.wait_event(slot.copied)
        for array, device in zip(self.arrays, slot.device, strict=True):
            array.data.copy_from_device_async(device.data, device.nbytes, stream)
        slot.taken.record(stream)
        self._out += 1


class _Slot:
    """Hold a batch on host and device, with two events: `copied` to the device; `taken`, so the slot is free."""

    def __init__(self, cupy: Any, arrays: Sequence[Any]) -> None:
        self.pinned = [cupy.cuda.alloc_pinned_memory(array.nbytes) for array in arrays]
        self.host = [
            np.frombuffer(pinned, array.dtype, array.size).reshape(array.shape)
            for pinned, array in zip(self.pinned, arrays, strict=True)
        ]
        self.device = [cupy.empty(array.shape, array.dtype) for array in arrays]
        self.copied, self.taken = (cupy.cuda.Event(disable_timing=True) for _ in range(2))
        # Work on the memory's former arrays may still be queued; the first copy must come after it.
        self.taken.record(cupy.cuda.get_current_stream())


def _arrive(stream: Any, slots: Sequence[_Slot]) -> None:
    stream.synchronize()
