"""Runs a CUDA kernel's own source on the CPU through g++ and a few definitions: block after block.

The threads of a block are coroutines: each runs to the next `__syncthreads` or its end, one after another, in an order
that changes from barrier to barrier, so that a missing barrier shows. Shared memory is what the block before left
there. Where the processor has an fma, products and sums are contracted to it as nvcc does; denormals are flushed in
float, as on a GPU.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from tests.needed import lacking

EMULATOR = Path(__file__).parent / "emulator"

#: How the sources begin a kernel, or name one; with KERNEL, its blocks have a largest size.
KERNELS = re.compile(
    r'^(?:(?:extern "C" __global__ void|KERNEL\(\d+(?:, \w+)?\)) (?=\w+\()|UPDATE_RULE\()(\w+)', re.MULTILINE
)


class Dim3(ctypes.Structure):
    _fields_ = [(axis, ctypes.c_uint) for axis in "xyz"]


class CpuKernel:
    """Called like `cupy.RawKernel`: kernel(grid, block, arguments); without g++ see `lacking`.

    Arguments are NumPy arrays (passed as pointers), NumPy scalars (by value, in their own type) and None.
    """

    def __init__(self, code: str, name: str) -> None:
        bound = re.search(rf"KERNEL\((\d+)(?:, \w+)?\) {name}\(", code)
        self.most = int(bound[1]) if bound else 1024
        self.function = getattr(_library(code), f"launch_{name}")
        self.function.argtypes = [Dim3, Dim3, ctypes.POINTER(ctypes.c_void_p)]
        self.function.restype = None

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple) -> None:
        threads = int(np.prod(block))
        assert 0 < threads <= self.most, f"{threads} threads in a block of a kernel made for {self.most}"
        values = [_value(argument) for argument in arguments]
        addresses = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        self.function(_dim3(*grid), _dim3(*block), addresses)


def _dim3(x: int, y: int = 1, z: int = 1) -> Dim3:
    return Dim3(x, y, z)


def _value(argument: object) -> ctypes.c_void_p | ctypes.Array:
    if argument is None:
        return ctypes.c_void_p(None)
    if isinstance(argument, np.ndarray):
        return ctypes.c_void_p(argument.ctypes.data)
    assert isinstance(argument, np.generic), f"a kernel argument needs an exact type, got {argument!r}"
    return ctypes.create_string_buffer(argument.tobytes(), argument.nbytes)


@functools.cache
def _library(code: str) -> ctypes.CDLL:
    entries = "".join(
        f"static void thread_of_{name}(void** args) {{ call({name}, args); }}\n"
        f'extern "C" void launch_{name}(dim3 grid, dim3 block, void** args)\n'
        f"{{ run_blocks(grid, block, thread_of_{name}, args, sizeof(real) == sizeof(float)); }}\n"
        for name in KERNELS.findall(code)
    )
    return built(
        f"{code}\n{entries}",
        "blocks",
        "-O1",
        "-march=native",
        "-ffp-contract=fast",
        "-fexpensive-optimizations",  # without which -O1 contracts nothing
        "-Wall",
        "-Wno-unknown-pragmas",
        "-Wno-sign-compare",
        "-Werror",
    )


def build_folder() -> Path:
    """Where what the tests compile is kept, for all their processes."""
    user = os.getuid() if hasattr(os, "getuid") else 0  # as st_uid is there
    folder = Path(tempfile.gettempdir(), f"fcnet-tests-{user}")
    folder.mkdir(mode=0o700, exist_ok=True)
    assert folder.stat().st_uid == user, f"{folder} is somebody else's; remove it, or set TMPDIR"
    return folder


def built(code: str, runtime: str, *flags: str) -> ctypes.CDLL:
    """Return the library of a CUDA source that `runtime` (a file of emulator/) runs, for all processes, now and later.

    What does not depend on the source is compiled once: most of the time would go into the C++ library's headers.
    """
    header = _made(".h.gch", "device", ("-x", "c++-header", *flags))
    threads = _made(".o", runtime, ("-c", "-O1"))
    return ctypes.CDLL(str(_made(".so", code, ("-include", str(header.with_suffix("")), "-shared", *flags), threads)))


def _made(suffix: str, source: str, flags: tuple[str, ...], *objects: Path) -> Path:
    """Return what g++ makes of a file of emulator/, or of a text, in the build folder."""
    compiler = shutil.which("g++")
    if compiler is None:
        lacking("g++ is not installed: the CUDA source cannot be run on the CPU")
    import fcntl  # where there is g++

    folder = build_folder()
    own = next((file for file in _emulator() if file.stem == source), None)
    known = [source, *(file.read_text("utf-8") for file in _emulator())]
    name = hashlib.sha256("\0".join([compiler, suffix, *flags, *known]).encode()).hexdigest()[:24]
    result = folder / f"{name}{suffix}"
    with open(folder / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not result.exists():
            text, made = folder / f"{name}.cpp", folder / f"{name}.part"
            text.write_text(source, "utf-8")
            command = [compiler, "-std=c++17", "-fPIC", *flags, "-o", made, own or text, *objects]
            done = subprocess.run(command, capture_output=True, text=True)
            text.unlink()
            assert done.returncode == 0, done.stderr
            if suffix == ".h.gch":
                shutil.copy(own, folder / f"{name}.h")  # which g++ takes where it doubts the compiled one
            made.replace(result)
    return result


@functools.cache
def _emulator() -> tuple[Path, ...]:
    return tuple(sorted(EMULATOR.iterdir()))
