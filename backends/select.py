"""Find the backend: of a model by its device's name (`get_backend`), of a function by its arrays (`backend_of`)."""

from __future__ import annotations

import copyreg
import re
import sys
import threading
from typing import Any

import numpy as np

from fcnet.backends.device import Backend
from fcnet.backends.numpy_backend import NumpyBackend
from fcnet.backends.probe import Status, probe


class DeviceError(ValueError):
    """Signal that a requested device cannot be used; the message says why and what to install."""


DLPACK_CUDA = 2  # DLPack's number for the memory of CUDA devices

CPU = NumpyBackend()
_made: dict[str, Backend] = {}  # by name: one per device and process
_lock = threading.Lock()


def get_backend(device: str | Backend = "auto") -> Backend:
    """Return the backend of a device.

    Args:
        device: "cpu"; "cuda" or "cuda:N" (N counts the visible GPUs from 0); "auto": the first GPU when CuPy can
            use it, else the CPU; or a Backend, returned as it is.

    Raises:
        DeviceError: CUDA was asked for and cannot be used: the reason and what to install.
        ValueError: no such name.
    """
    if isinstance(device, Backend):
        return device
    if not isinstance(device, str):
        raise TypeError(f"device: expected a string such as 'auto', 'cpu' or 'cuda:0', got {device!r}")
    if device in _made:
        return _made[device]
    if device == "auto":
        return _cuda_backend(0) if probe().status is Status.OK else CPU
    match = re.fullmatch(r"cuda(?::(\d+))?", device)
    if match is None:
        hint = "; an NVIDIA GPU is 'cuda'" if "gpu" in device.lower() or "cuda" in device.lower() else ""
        raise ValueError(f"device: expected 'auto', 'cpu', 'cuda' or 'cuda:N', got {device!r}{hint}")
    found = probe()
    if found.status is not Status.OK:
        raise DeviceError(f"device: {device!r} cannot be used: {found.reason}; {found.remedy}; or use device='cpu'")
    index = int(match[1] or 0)
    if index >= found.device_count:
        names = ", ".join(f"cuda:{i}" for i in range(found.device_count))
        raise DeviceError(f"device: {device!r} is not there; this machine has {names}")
    return _cuda_backend(index)


def backend_of(*arrays: object) -> Backend:
    """Return the backend that owns the arrays among the arguments; all other arguments are ignored.

    Raises:
        TypeError: arrays of two devices, or no array at all.
    """
    found: Backend | None = None
    for array in arrays:
        if type(array) is np.ndarray:
            owner: Backend | None = CPU
        elif array is None or isinstance(array, int | float | str | tuple):
            continue
        else:
            owner = array_owner(array)
        if owner is None:
            continue
        if found is None:
            found = owner
        elif found is not owner:
            raise TypeError(
                f"arrays of two devices in one call: {found.name} and {owner.name}; move them to one with "
                "fcnet.get_backend(device).asarray(array)"
            )
    if found is None:
        kinds = ", ".join(type(array).__name__ for array in arrays) or "nothing"
        raise TypeError(f"expected an array of NumPy or CuPy, got {kinds}; use numpy.asarray(...)")
    return found


def array_module(*arrays: object) -> Any:
    """Return the module (numpy or cupy) whose functions work on these arrays; see `backend_of`."""
    return backend_of(*arrays).xp


def from_dlpack(array: Any) -> Any:
    """Return another library's array, by DLPack, as one of NumPy or CuPy on the same memory, without a copy.

    Raises:
        DeviceError: it lives on a GPU, and CuPy cannot be used. BufferError: it cannot be shared.
    """
    kind, index = array.__dlpack_device__()
    if kind == DLPACK_CUDA:
        backend = get_backend(f"cuda:{index}")
        backend.use()
        return backend.xp.from_dlpack(array)
    return np.from_dlpack(array)


def array_owner(array: object) -> Backend | None:
    """Return the backend of an array; None for anything else."""
    if isinstance(array, np.ndarray):  # a subclass, such as a memory map
        return CPU
    for backend in list(_made.values()):
        if backend.owns(array):
            return backend
    # Looked up, never imported: arrays of CuPy exist only if it is loaded. What is loaded as "cupy" may be an empty
    # folder that an uninstallation has left, which has no `ndarray`.
    ndarray = getattr(sys.modules.get("cupy"), "ndarray", None)
    if ndarray is not None and isinstance(array, ndarray):
        return _cuda_backend(array.device.id)
    return None


def _cuda_backend(index: int) -> Backend:
    name = f"cuda:{index}"
    with _lock:  # one backend per GPU, even if two threads ask at once: backends are compared by identity
        if name not in _made:
            from fcnet.backends.cupy_backend import CupyBackend

            keep(CupyBackend(index))
        return _made[name]


def keep(backend: Backend) -> None:
    """Register a backend for `get_backend` and `backend_of`; its copies and pickles are the backend of its name."""
    _made[backend.name] = backend
    copyreg.pickle(type(backend), lambda backend: (get_backend, (backend.name,)))


keep(CPU)
