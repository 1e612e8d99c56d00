"""Compile and launch the CUDA kernels.

The first kernel that is called with float32 compiles the modules of all of them for it, at the same time: one after
another they take longer than many a training. The same with float64, and, of layers, with bfloat16. Hidden layers with
another activation than ReLU have a module each, compiled when it is first called, so that no time goes into those that
are not used.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from fcnet.backends.cuda.sources import ACTIVATIONS, MODULES, STORED_IN_BF16, activated, module_of_kernels, source
from fcnet.backends.device import Array

THREADS = 256  # of a block of an element-wise kernel
EACH = 4  # elements per thread of kernels that are limited by memory (common.cu)
SIDE = 32  # a block that works on columns has SIDE x SIDE threads (common.cu)
SHARE = 256  # rows of a block where several blocks share the rows
PARTS = 256  # blocks, and thus partial sums, of a sum over a buffer

# The character of a dtype -> `real` and `stored` of the kernels: uint16 are bfloat16's bits, computed with in float.
_TYPES = {"f": ("float", "real"), "d": ("double", "real"), "H": ("float", "bf16")}


class Launcher:
    """Hold the compiled modules of one device, and check arguments for all its kernels."""

    def __init__(self, cupy: Any) -> None:
        self.cupy = cupy
        self._functions: dict[tuple[str, str, str | None], Any] = {}
        self._modules: dict[tuple[str, str], Any] = {}  # by name, or activation, and dtype
        self._module_of = module_of_kernels()
        self._lock = threading.Lock()

    def launch(
        self, name: str, real: str, grid: tuple[int, ...], block: tuple[int, ...], *arguments: Any,
        activation: str | None = None,
    ) -> None:  # fmt: skip
        """Launch the kernel of this name for the types `real`; with `activation` one of activated.cu.

        Args:
            real: "f" or "d"; "H" for layers that are stored in bfloat16, whose other arrays are float32.
        """
        function = self._functions.get((name, real, activation))
        if function is None:
            module = activation or self._module_of[name]
            with self._lock:
                if (module, real) not in self._modules:
                    if activation:
                        self._modules[module, real] = self.cupy.RawModule(code=activated(activation, *_TYPES[real]))
                    else:
                        self._compile(real)
            function = self._functions[name, real, activation] = self._modules[module, real].get_function(name)
        function(grid, block, arguments)

    def parts(self, size: int) -> Array:
        """Return float64 for the partial sums of so many elements, one a block: as many blocks as have elements."""
        return self.cupy.empty(max(1, min(PARTS, -(-size // THREADS))), np.float64)

    def _compile(self, real: str) -> None:
        """Compile all of `MODULES` that have such types, or load them from CuPy's cache."""
        index = self.cupy.cuda.Device().id  # new threads begin with the first device

        def compiled(name: str) -> Any:
            module = self.cupy.RawModule(code=source(name, *_TYPES[real]))
            with self.cupy.cuda.Device(index):
                module.compile()  # outside Python's lock
            return module

        names = STORED_IN_BF16 if real == "H" else tuple(MODULES)
        with ThreadPoolExecutor(len(names)) as pool:
            modules = list(pool.map(compiled, names))
        self._modules |= {(name, real): module for name, module in zip(names, modules, strict=True)}

    def each(self, name: str, like: Array, size: int, *arguments: Any, each: int = 1, **module: str | None) -> None:
        """Launch a thread for every `each` of `size` elements."""
        self.launch(name, like.dtype.char, (-(-size // (each * THREADS)),), (THREADS,), *arguments, **module)

    def columns(self, name: str, like: Array, width: int, *arguments: Any, **module: str | None) -> None:
        """Launch a block for every SIDE columns."""
        self.launch(name, like.dtype.char, (-(-width // SIDE),), (SIDE, SIDE), *arguments, **module)

    def like(self, given: Array | None, like: Array, shape: tuple[int, ...] | None = None) -> Array:
        """Return the array `given`, or a new one like `like` if it is None."""
        return self.cupy.empty(like.shape if shape is None else shape, like.dtype) if given is None else given

    def floats(self, *arrays: Any) -> bool:
        """Return whether these are contiguous, nonempty arrays of one dtype, float32 or float64."""
        dtype = arrays[0].dtype
        return dtype.char in "fd" and all(
            isinstance(a, self.cupy.ndarray) and a.dtype == dtype and a.flags.c_contiguous and a.size for a in arrays
        )

    def activates(self, activation: str, z: Any) -> bool:
        """Return whether activated.cu has kernels for this activation: all that act element by element."""
        return activation in ACTIVATIONS

    def aligned(self, width: int, *arrays: Array) -> bool:
        """Return whether rows of this width can be read 16 bytes at a time, as `Several` of common.cu."""
        return width % EACH == 0 and all(array.data.ptr % 16 == 0 for array in arrays)

    def labels(self, y: Any) -> bool:
        """Return whether y is a nonempty vector of integers of any dtype."""
        return isinstance(y, self.cupy.ndarray) and y.dtype.kind in "iu" and y.ndim == 1 and y.size > 0

    def integers(self, *arrays: Any) -> bool:
        """Return whether these are contiguous, nonempty int64 vectors."""
        return all(
            isinstance(a, self.cupy.ndarray) and a.dtype == np.int64 and a.ndim == 1 and a.flags.c_contiguous and a.size
            for a in arrays
        )
