"""Find out whether CUDA can be used through CuPy, and if not, why and what to do. Importing fcnet does not."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import re
import sys
import threading
import warnings
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from fcnet.errors import install


class Status(Enum):
    """Name the result of the probe."""

    OK = "ok"
    NOT_INSTALLED = "CuPy is not installed"
    BROKEN_IMPORT = "CuPy is installed but cannot be imported"
    DUPLICATE_WHEELS = "several CuPy packages overwrote each other's files"
    NO_DRIVER_OR_DEVICE = "no driver, or no GPU that answers"
    MISSING_CUDA_LIBS = "the GPU is there, the libraries that CuPy calls are not"


class Versions(NamedTuple):
    """Hold the versions of CuPy, the CUDA that the driver supports, and the one CuPy was built for; None: unknown."""

    cupy: str | None = None
    driver: str | None = None
    runtime: str | None = None


UNKNOWN = Versions()


@dataclass(frozen=True)
class Probe:
    """Hold the answer of `probe`; `reason` and `remedy` are one line each, empty if the status is OK."""

    status: Status
    reason: str = ""
    remedy: str = ""
    device_count: int = 0
    devices: tuple[str, ...] = ()  # the names of the GPUs
    versions: Versions = UNKNOWN


_lock = threading.Lock()
_found: Probe | None = None


def probe(refresh: bool = False) -> Probe:
    """Return what CUDA and CuPy can do here. It never raises.

    The first call imports CuPy, makes a context on the first visible GPU and compiles a small kernel; further
    calls return the same answer, unless `refresh` is true.
    """
    global _found
    found = _found
    if found is None or refresh:
        with _lock:
            if _found is None or refresh:
                _found = _examine()
            found = _found
    return found


def _examine() -> Probe:
    importlib.invalidate_caches()  # CuPy may have been installed since the last look
    if not _is_installed():
        return Probe(Status.NOT_INSTALLED, "CuPy is not installed", _install(_driver_number()))

    wheels = _wheels()
    if len(wheels) > 1:
        names = " and ".join(wheels)
        return Probe(
            Status.DUPLICATE_WHEELS,
            f"{names} are both installed and overwrite each other's files",
            f"pip uninstall {' '.join(wheels)}, then {_install(_driver_number())}",
        )

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what CuPy warns of, the probe reports
            cupy = importlib.import_module("cupy")
            runtime = cupy.cuda.runtime
            versions = Versions(cupy.__version__, None, _version(runtime.runtimeGetVersion()))
    except Exception as error:  # an extension module can raise anything: SystemError, OSError, ...
        # CuPy wraps the cause in a page of advice, so the cause is shown. A "cupy" of no package is something
        # else of that name, such as a folder that an uninstallation has left.
        remove = f"pip uninstall {' '.join(wheels)}" if wheels else f"remove {_place()}"
        return Probe(
            Status.BROKEN_IMPORT,
            f"CuPy cannot be imported: {_line(error.__cause__ or error)}",
            f"{remove}, then {_install(_driver_number())}",
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _examine_device(cupy, versions)


def _examine_device(cupy: Any, versions: Versions) -> Probe:
    """Return the probe's answer about driver, device and libraries; CuPy itself can be imported."""
    runtime = cupy.cuda.runtime

    def no_device(reason: str, remedy: str) -> Probe:
        return Probe(Status.NO_DRIVER_OR_DEVICE, reason, remedy, versions=versions)

    try:
        driver, built_for = runtime.driverGetVersion(), runtime.runtimeGetVersion()
    except Exception as error:
        return no_device(f"the NVIDIA driver does not answer: {_line(error)}", "reinstall the NVIDIA driver")
    versions = versions._replace(driver=_version(driver))
    if driver == 0:
        return no_device(
            "no NVIDIA driver is found",
            "install the NVIDIA driver (in a container: start it with --gpus all)",
        )
    try:
        count, problem = runtime.getDeviceCount(), "it lists none"
    except Exception as error:
        count, problem = 0, _line(error)
    if count == 0 and driver // 1000 < built_for // 1000:
        swap = "" if driver < 12000 else f", or pip uninstall this CuPy, then {_install(driver)}"
        return no_device(
            f"the NVIDIA driver supports CUDA {versions.driver}, CuPy needs {versions.runtime}: {problem}",
            f"update the NVIDIA driver{swap}",
        )
    if count == 0:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        return no_device(
            f"the NVIDIA driver (CUDA {versions.driver}) shows no GPU: {problem}"
            + (f" (CUDA_VISIBLE_DEVICES={visible!r})" if visible is not None else ""),
            "check that nvidia-smi lists a GPU"
            + (" and that CUDA_VISIBLE_DEVICES names it or is unset" if visible is not None else ""),
        )

    broken = _smoke_test(cupy)
    if broken is not None:
        library, failure = broken
        if library is None:
            return no_device(
                f"the GPU does not answer: {_line(failure)}",
                "see in nvidia-smi whether it is in use or in error, or name another in CUDA_VISIBLE_DEVICES",
            )
        major = built_for // 1000
        return Probe(
            Status.MISSING_CUDA_LIBS,
            f"CuPy finds the GPU but not a working {library}: {_line(failure)}",
            f'{_install(built_for)} (it brings cupy-cuda{major}x[ctk], as does pip install "cupy-cuda{major}x[ctk]")',
            versions=versions,
        )
    try:
        names = tuple(runtime.getDeviceProperties(index)["name"].decode() for index in range(count))
    except Exception as error:
        return no_device(f"a GPU gives no name: {_line(error)}", "see in nvidia-smi which one is in error")
    return Probe(Status.OK, device_count=count, devices=names, versions=versions)


def _smoke_test(cupy: Any) -> tuple[str | None, Exception] | None:
    """Compile and run a kernel and multiply two matrices on the first GPU; return None, or what failed.

    Returns:
        None if all works; else the library at fault, None for the device itself, and the error.
    """
    library: str | None = None
    try:
        with cupy.cuda.Device(0):
            cupy.cuda.runtime.free(cupy.cuda.runtime.malloc(4))  # a context and memory, no library
            library = "NVRTC with the CUDA headers"
            # CuPy's kernels, unlike those of its users, include the CUDA headers. This one every optimizer needs.
            vector, matrix = cupy.empty(1, "float64"), cupy.empty((2, 2), "float32")
            cupy.multiply(vector, 1.0, out=vector)
            cupy.cuda.Device(0).synchronize()
            library = "cuBLAS"
            cupy.matmul(matrix, matrix)
            cupy.cuda.Device(0).synchronize()
    except Exception as error:
        out_of_memory = isinstance(error, MemoryError)
        return (None if out_of_memory else library), error
    return None


def _is_installed() -> bool:
    if "cupy" in sys.modules:
        return sys.modules["cupy"] is not None
    return importlib.util.find_spec("cupy") is not None


def _place() -> str:
    """Return where Python finds the module that it imports as CuPy."""
    spec = importlib.util.find_spec("cupy")
    places = [*(spec.submodule_search_locations or ()), spec.origin] if spec is not None else []
    return places[0] if places and places[0] else "the module called cupy"


def _wheels() -> list[str]:
    """Return the installed packages that provide `cupy`. With two of them it still imports, then fails at random.

    By the names of their folders: reading the metadata of all that is installed would take a second and more.
    """
    found = set()
    for place in sys.path:
        for folder in Path(place).glob("cupy*-info"):
            name = re.match(r"cupy(_(cuda|rocm)\w*)?(?=[-.])", folder.name)  # not of cupy-xarray, which needs CuPy
            if name is not None:
                found.add(name[0].replace("_", "-"))
    return sorted(found)


def _driver_number() -> int:
    """Return the CUDA version that the driver supports, as 12090 for 12.9; 0 without a driver. Needs no CuPy."""
    number = ctypes.c_int(0)
    try:
        library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        library.cuDriverGetVersion(ctypes.byref(number))
    except (OSError, AttributeError):
        return 0
    return number.value


def _install(cuda: int) -> str:
    """Return the command that installs what fcnet needs, for a driver or a CuPy of this CUDA version."""
    return install("cuda13" if cuda >= 13000 else "cuda12")


def _version(number: int) -> str | None:
    return f"{number // 1000}.{number % 1000 // 10}" if number else None


def _line(error: BaseException) -> str:
    """Return an error as one line of reasonable length."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return text if len(text) <= 300 else text[:299] + "…"
