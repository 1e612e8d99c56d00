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

SHIM = """
#undef _FORTIFY_SOURCE  // which takes a jump to another stack for a mistake
#include <algorithm>
#include <cmath>
#include <csetjmp>
#include <cstddef>
#include <deque>
#include <functional>
#include <type_traits>
#include <ucontext.h>
#include <utility>
#include <vector>
#define __global__ __attribute__((visibility("hidden")))  // libc has an `advance` too
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__
#define __shared__ static
using std::exp; using std::log; using std::pow; using std::sqrt;
struct dim3 { unsigned x, y, z; };
static thread_local dim3 gridDim, blockDim, blockIdx, threadIdx;
struct alignas(16) ulonglong2 { unsigned long long x, y; };
static inline ulonglong2 make_ulonglong2(unsigned long long x, unsigned long long y) { return {x, y}; }
// Each a call, so that the compiler cannot contract it with what stands around.
#define CALLED [[maybe_unused]] __attribute__((noinline)) static
CALLED float __fmul_rn(float a, float b) { return a * b; }
CALLED float __fadd_rn(float a, float b) { return a + b; }
CALLED double __dmul_rn(double a, double b) { return a * b; }
CALLED double __dadd_rn(double a, double b) { return a + b; }
template <class To, class From>
static inline To bits_as(From from) { To to; __builtin_memcpy(&to, &from, sizeof to); return to; }
static inline unsigned __float_as_uint(float value) { return bits_as<unsigned>(value); }
static inline float __uint_as_float(unsigned bits) { return bits_as<float>(bits); }
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
// A coroutine, used again for one body after another. Only its first start goes by ucontext, whose every switch asks
// the system for the signal mask, which takes twenty times as long as setjmp.
struct Fiber { ucontext_t context; jmp_buf at; std::vector<char> stack; dim3 index; bool made, done; };
static jmp_buf scheduler;
static Fiber* current;
static std::function<void()> body;
static void leave_fiber() { if (!_setjmp(current->at)) _longjmp(scheduler, 1); }
static void enter() { for (;;) { body(); current->done = true; leave_fiber(); } }
static void resume(Fiber& fiber)
{
    current = &fiber;
    if (_setjmp(scheduler)) return;
    if (fiber.made) _longjmp(fiber.at, 1);
    fiber.made = true;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = fiber.stack.size();
    makecontext(&fiber.context, enter, 0);
    setcontext(&fiber.context);
}
[[maybe_unused]] static void __syncthreads() { leave_fiber(); }

// Within a warp; here as if the block waited, too, so all its threads have to make the same calls.
template <class T>
static T __shfl_xor_sync(unsigned, T value, int apart)
{
    static T given[1024];
    const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    given[thread] = value;
    __syncthreads();
    value = given[thread ^ apart];
    __syncthreads();
    return value;
}

static void run_block(dim3 block)
{
    const size_t count = (size_t)block.x * block.y * block.z;
    static std::deque<Fiber> fibers;  // which stay where they are when there come to be more
    while (fibers.size() < count) fibers.push_back({{}, {}, std::vector<char>(1 << 15), {}, false, false});
    for (size_t i = 0; i < count; ++i) {
        fibers[i].done = false;
        fibers[i].index = {unsigned(i % block.x), unsigned(i / block.x % block.y), unsigned(i / block.x / block.y)};
    }
    static unsigned order = 1;
    for (size_t left = count; left;) {
        left = 0;
        order = order * 1664525 + 1013904223;  // where to begin, and which way round: anew after each barrier
        for (size_t i = 0; i < count; ++i) {
            const size_t next = ((order >> 8) + i) % count;
            Fiber& fiber = fibers[order >> 31 ? next : count - 1 - next];
            if (fiber.done) continue;
            threadIdx = fiber.index;
            resume(fiber);
            left += !fiber.done;
        }
    }
}

// As CuPy's -ftz=true, as long as it lives: in float, what is denormal counts as 0, as an operand and as a result.
#ifdef __SSE__
#include <xmmintrin.h>
struct Flushing {
    const unsigned before = _mm_getcsr();
    explicit Flushing(bool flushes) { if (flushes) _mm_setcsr(before | 0x8040); }
    ~Flushing() { _mm_setcsr(before); }
};
#else
struct Flushing { explicit Flushing(bool) {} };
#endif

template <class... P>
static void launch(void (*kernel)(P...), dim3 grid, dim3 block, void** args)
{
    gridDim = grid, blockDim = block;
    body = [=] { call(kernel, args, std::index_sequence_for<P...>()); };
    for (blockIdx.z = 0; blockIdx.z < grid.z; ++blockIdx.z)
    for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y)
    for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x)
        run_block(block);
}
"""


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
        f'extern "C" void launch_{name}(dim3 grid, dim3 block, void** args)\n'
        f"{{ Flushing flushing(sizeof(real) == sizeof(float)); launch({name}, grid, block, args); }}\n"
        for name in KERNELS.findall(code)
    )
    return built(
        f"{SHIM}{code}\n{entries}",
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


def built(text: str, *flags: str) -> ctypes.CDLL:
    """Return the library of this C++ source, which all processes that test share, now and later."""
    compiler = shutil.which("g++")
    if compiler is None:
        lacking("g++ is not installed: the CUDA source cannot be run on the CPU")
    import fcntl  # where there is g++

    folder = build_folder()
    name = hashlib.sha256("\0".join([compiler, *flags, text]).encode()).hexdigest()[:24]
    library = folder / f"{name}.so"
    with open(folder / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not library.exists():
            source, made = folder / f"{name}.cpp", folder / f"{name}.part"
            source.write_text(text, "utf-8")
            command = [compiler, "-std=c++17", "-shared", "-fPIC", *flags, "-o", made, source]
            done = subprocess.run(command, capture_output=True, text=True)
            source.unlink()
            assert done.returncode == 0, done.stderr
            made.replace(library)
    return ctypes.CDLL(str(library))
