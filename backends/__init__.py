"""Arrays and devices for fcnet: one interface over NumPy (CPU) and CuPy (CUDA). It knows nothing of networks."""

from backends.base import Array, Backend, Feed, Kernel, Memory
from backends.dispatch import REGISTRY, Op, accelerated
from backends.probe import Probe, Status, probe
from backends.random import MaskStream, Purpose, check_seed, host_generator
from backends.select import (
    DeviceError,
    array_module,
    backend_of,
    get_backend,
    register_backend,
    unregister_backend,
)

OWNER = "fcnet"  # by which fcnet knows that this folder, and not another called "backends", was imported

__all__ = [
    "OWNER",
    "REGISTRY",
    "Array",
    "Backend",
    "DeviceError",
    "Feed",
    "Kernel",
    "MaskStream",
    "Memory",
    "Op",
    "Probe",
    "Purpose",
    "Status",
    "accelerated",
    "array_module",
    "backend_of",
    "check_seed",
    "get_backend",
    "host_generator",
    "probe",
    "register_backend",
    "unregister_backend",
]
