"""Arrays and devices for fcnet: one interface over NumPy (CPU) and CuPy (CUDA). It knows nothing of networks.

The folder stands beside `fcnet/` and is imported, and installed, as `fcnet.backends`.
"""

if __name__ != "fcnet.backends":
    raise ImportError(f"fcnet: expected `import fcnet.backends`, got {__name__!r}; import it under its full name")

from fcnet.backends.denormals import flush
from fcnet.backends.device import Array, Backend, Kernel, Memory, Prefetcher
from fcnet.backends.ops import Function, Op, accelerated, checked
from fcnet.backends.probe import Probe, Status, probe
from fcnet.backends.random import MaskStream, Purpose, check_seed, host_generator
from fcnet.backends.registry import REGISTRY
from fcnet.backends.select import DeviceError, array_module, array_owner, backend_of, from_dlpack, get_backend
from fcnet.backends.step import Run, StepRecorder, direct

__all__ = [
    "REGISTRY",
    "Array",
    "Backend",
    "DeviceError",
    "Function",
    "Kernel",
    "MaskStream",
    "Memory",
    "Op",
    "Prefetcher",
    "Probe",
    "Purpose",
    "Run",
    "Status",
    "StepRecorder",
    "accelerated",
    "array_module",
    "array_owner",
    "backend_of",
    "check_seed",
    "checked",
    "direct",
    "flush",
    "from_dlpack",
    "get_backend",
    "host_generator",
    "probe",
]
