"""Runs a persistent kernel's own source on the CPU: all blocks of a launch at once, as a cooperative launch does.

The threads of all blocks are coroutines of one thread. A block's threads run to the next `__syncthreads`, or to a
`pause` while they wait for another block, one after another in an order that changes from barrier to barrier; blocks
take turns, in an order that changes, too, and each now and then misses a few. Whoever waits for what nobody does is
found: no thread comes further. Copies to shared memory that go on beside a thread are made at some time until that
thread waits for them, so that a missing wait shows.
"""

from __future__ import annotations

import ctypes
import functools

import numpy as np

from tests.kernels.cuda_cpu import EMULATOR, built


def emulated(code: str) -> str:
    """Return the source with sync.h in place of sync.cu."""
    before, _, rest = code.partition('#line 1 "sync.cu"')
    _, found, after = rest.partition('#line 1 "')
    assert found, "expected sync.cu and a file behind it in the source"
    return f'{before}#include "{EMULATOR / "sync.h"}"\n{found}{after}'


class GridKernel:
    """kernel(blocks, threads, shared bytes, arguments); `order` shuffles who runs when.

    Attributes:
        library: what the source was compiled to.
    """

    def __init__(self, code: str, name: str, parameters: str) -> None:
        """`parameters`: as C declares them, for a caller written in C."""
        self.library = _library(emulated(code), name, parameters)
        self.library.run.restype = ctypes.c_char_p

    def __call__(self, blocks: int, threads: int, shared: int, arguments: tuple, order: int = 1) -> None:
        values = [a.ctypes.data_as(ctypes.c_void_p) if isinstance(a, np.ndarray) else a.item() for a in arguments]
        fault = self.library.run(blocks, threads, ctypes.c_size_t(-(-shared // 4)), order, *values)
        assert fault is None, fault.decode()


@functools.cache
def _library(code: str, name: str, parameters: str) -> ctypes.CDLL:
    names = [part.split()[-1].lstrip("*") for part in parameters.split(",")]
    addresses = ", ".join(f"(void*)&{parameter}" for parameter in names)
    entry = (
        f"static void thread(void** args) {{ call({name}, args); }}\n"
        f'extern "C" const char* run(unsigned blocks, unsigned threads, size_t floats, unsigned order, {parameters})\n'
        f"{{ void* args[] = {{{addresses}}}; return run_grid(blocks, threads, floats, order, thread, args); }}\n"
    )
    return built(f"{code}\n{entry}", "grid", "-O0", "-fno-exceptions", "-w")
