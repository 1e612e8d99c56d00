"""Runs a CUDA kernel's own source on the CPU, one thread after another, through g++ and a few definitions.

Enough for kernels whose threads do not talk to each other: there is no shared memory and no __syncthreads.
"""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest

SHIM = """
#include <cstddef>
#include <type_traits>
#include <utility>
#define __global__
#define __device__
#define __forceinline__ inline
struct dim3 { unsigned x, y, z; };
static thread_local dim3 gridDim, blockDim, blockIdx, threadIdx;
struct alignas(16) ulonglong2 { unsigned long long x, y; };
static inline ulonglong2 make_ulonglong2(unsigned long long x, unsigned long long y) { return {x, y}; }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b)
{
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
// As cuLaunchKernel does: each argument is read at its address with the type of the kernel's parameter.
template <class... P, size_t... I>
static void call(void (*kernel)(P...), void** args, std::index_sequence<I...>)
{
    kernel(*static_cast<std::remove_cv_t<P>*>(args[I])...);
}
template <class... P>
static void launch(void (*kernel)(P...), dim3 grid, dim3 block, void** args)
{
    gridDim = grid, blockDim = block;
    for (blockIdx.z = 0; blockIdx.z < grid.z; ++blockIdx.z)
    for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y)
    for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x)
    for (threadIdx.z = 0; threadIdx.z < block.z; ++threadIdx.z)
    for (threadIdx.y = 0; threadIdx.y < block.y; ++threadIdx.y)
    for (threadIdx.x = 0; threadIdx.x < block.x; ++threadIdx.x)
        call(kernel, args, std::index_sequence_for<P...>());
}
"""


class Dim3(ctypes.Structure):
    _fields_ = [(axis, ctypes.c_uint) for axis in "xyz"]


class CpuKernel:
    """Called like `cupy.RawKernel`: kernel(grid, block, arguments); skips the test if there is no g++.

    Arguments are NumPy arrays (passed as pointers), NumPy scalars (by value, in their own type) and None.
    """

    def __init__(self, code: str, name: str) -> None:
        self.function = getattr(_library(code, name), f"launch_{name}")
        self.function.argtypes = [Dim3, Dim3, ctypes.POINTER(ctypes.c_void_p)]
        self.function.restype = None

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple) -> None:
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
def _library(code: str, name: str) -> ctypes.CDLL:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ is not installed: the CUDA source cannot be run on the CPU")
    entry = f'extern "C" void launch_{name}(dim3 grid, dim3 block, void** args)'
    with tempfile.TemporaryDirectory() as folder:
        text, library = Path(folder, f"{name}.cpp"), Path(folder, f"{name}.so")
        text.write_text(f"{SHIM}{code}\n{entry} {{ launch({name}, grid, block, args); }}\n", "utf-8")
        flags = ["-std=c++17", "-O1", "-shared", "-fPIC", "-Wall", "-Wno-unknown-pragmas", "-Werror"]
        built = subprocess.run([compiler, *flags, "-o", library, text], capture_output=True, text=True)
        assert built.returncode == 0, built.stderr
        return ctypes.CDLL(str(library))
