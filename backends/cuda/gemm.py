"""Matrix products through our own cuBLAS handle, because CuPy's cannot be captured in a CUDA graph.

Eager and captured steps use the same handle and the same workspace, so they give the same bits. Called through ctypes:
`cublasGemmEx` has kept its signature since CUDA 11.

Large products in tf32 on a Hopper GPU are made by the algorithm and in the layout that were measured to be fastest
there (docs/gpu.md): cuBLAS's own choice for x w takes a fifth longer, and for xᵀ dz, whose operands both have the
summed index outermost, a quarter longer than transposing x first.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from fcnet.backends.cuda.bf16 import BITS, rounded, widened
from fcnet.backends.cuda.cublaslt import BFLOAT16, FLOAT32, INPLACE, WORKSPACE, Algorithm, Lt, LtError, Problem, Product
from fcnet.backends.cuda.launch import Launcher
from fcnet.backends.device import Array

_REAL = {"f": (FLOAT32, 68), "d": (1, 70)}  # dtype -> cudaDataType, cublasComputeType
_FAST_TF32 = 77  # cublasComputeType: float32 operands, rounded on their way into the tensor cores
_DEFAULT_ALGORITHM = -1
LARGE = 2048  # each side of a product at least, for what follows
HOPPER = "90"  # compute capability
#: What the fastest algorithm in tf32 has, which is among the first `ALGORITHMS`.
PREFERRED = {"tile": 24, "cluster": 5}
ALGORITHMS = 8  # that cuBLASLt is asked for
SIDE = 32  # a block of the kernel that transposes has SIDE x SIDE / 4 threads
_NAMES = ("lib{}.so.13", "lib{}.so.12", "{}64_13.dll", "{}64_12.dll")


class CublasError(RuntimeError):
    """Signal that a cuBLAS function did not return CUBLAS_STATUS_SUCCESS."""


def library(name: str = "cublas") -> Any:
    """Load cuBLAS, or a library that comes with it such as "cublasLt", from where CuPy finds it.

    Raises:
        OSError: it cannot be loaded.
    """
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib

        return ctypes.CDLL(load_nvidia_dynamic_lib(name).abs_path)
    except ImportError:  # CuPy before 14 does not install it
        pass
    except RuntimeError as error:  # the pathfinder's error for a missing library
        raise OSError(str(error).splitlines()[0]) from error
    files = [file.format(name) for file in _NAMES]
    for file in files:
        try:
            return ctypes.CDLL(file)
        except OSError:
            continue
    raise OSError(f"none of {', '.join(files)} can be loaded")


class Gemm:
    """Multiply matrices on one device, on the stream that is current at each call."""

    def __init__(self, launcher: Launcher, cublas: Any) -> None:
        self._on, self.cupy, self._cublas = launcher, launcher.cupy, cublas
        self._declare()
        handle = ctypes.c_void_p()
        self._check("cublasCreate_v2", ctypes.byref(handle))
        self._handle = handle
        self._workspace = self.cupy.empty(WORKSPACE, np.uint8)  # kept as long as any graph may use it
        self._stream: int | None = None
        self._lt: Lt | None = None
        self._why_not_lt: str | None = None
        self._chosen: dict[Problem, tuple[Product, Algorithm] | None] = {}
        self._scalars = {code: (np.ones(1, code), np.zeros(1, code)) for code in _REAL}

    def _declare(self) -> None:
        pointer, integer = ctypes.c_void_p, ctypes.c_int
        operand = [pointer, integer, integer]  # address, type, leading dimension
        signatures = {
            "cublasCreate_v2": [pointer],
            "cublasSetStream_v2": [pointer, pointer],
            "cublasSetWorkspace_v2": [pointer, pointer, ctypes.c_size_t],
            "cublasGemmEx": [pointer, *[integer] * 5, pointer, *operand, *operand, pointer, *operand, integer, integer],
        }
        for name, arguments in signatures.items():
            getattr(self._cublas, name).argtypes = arguments

    def _check(self, name: str, *arguments: Any) -> None:
        status = getattr(self._cublas, name)(*arguments)
        if status != 0:
            raise CublasError(f"{name} returned status {status}")

    def serves(self, a: Array, b: Array, out: Array | None) -> bool:
        """Return whether cuBLAS can take these arrays as they are.

        That is, a and b are matrices of one dtype, each or its transpose is contiguous, and `out` is contiguous and
        does not overlap them.
        """
        if a.ndim != 2 or b.ndim != 2 or a.dtype != b.dtype or a.dtype.char not in _REAL or not (a.size and b.size):
            return False
        if not all(x.flags.c_contiguous or x.flags.f_contiguous for x in (a, b)):
            return False
        if out is None:
            return True
        apart = not any(_overlap(out, x) for x in (a, b))
        return apart and out.flags.c_contiguous and out.dtype == a.dtype and out.shape == (a.shape[0], b.shape[1])

    def __call__(
        self, a: Array, b: Array, out: Array | None = None, precision: str | None = None, stored: str | None = None
    ) -> Array:
        """Compute a @ b, (N, K) by (K, M), into `out` if given; `precision` and `stored` as in `Backend.gemm`."""
        real = a.dtype.char
        if out is None:
            out = self.cupy.empty((a.shape[0], b.shape[1]), a.dtype)
        if real == "f" and precision == "bf16":
            return self.of_rounded(rounded(self._on, a), rounded(self._on, b), out, stored)
        kind, compute = _REAL[real]
        if real == "f" and precision == "tf32":
            compute = _FAST_TF32
            if not a.flags.c_contiguous and self._large(a, b):
                a = self.transposed(a)
        return self._multiply(a, b, out, kind, compute)

    def of_rounded(self, a: Array, b: Array, out: Array, stored: str | None = None) -> Array:
        """Compute a @ b of bfloat16 matrices (N, K) by (K, M) into `out` (N, M), float32 or bfloat16.

        With `stored` "bf16" the values are those of bfloat16 in either case: what cuBLAS writes itself.
        """
        if stored == "bf16" and out.dtype != BITS:
            return widened(self._on, self.of_rounded(a, b, self.cupy.empty(out.shape, BITS)), out)
        return self._multiply(a, b, out, BFLOAT16, _REAL["f"][1])

    def _multiply(self, a: Array, b: Array, out: Array, kind: int, compute: int) -> Array:
        real, of_result = ("f", BFLOAT16) if out.dtype == BITS else (out.dtype.char, _REAL[out.dtype.char][0])
        stream = self.cupy.cuda.get_current_stream().ptr
        if compute == _FAST_TF32 and a.flags.c_contiguous and self._large(a, b):
            chosen = self._choose(a, b)
            if chosen is not None:
                product, algorithm = chosen
                product(algorithm, a.data.ptr, b.data.ptr, out.data.ptr, self._workspace.data.ptr, stream)
                return out
        self._follow(stream)
        one, zero = (scalar.ctypes.data for scalar in self._scalars[real])
        (rows, inner), columns = a.shape, b.shape[1]
        # cuBLAS is column-major: a row-major matrix is the transpose to it, so it is given bᵀ aᵀ = (a b)ᵀ.
        left, right = _operand(b), _operand(a)
        self._check(
            "cublasGemmEx", self._handle, left[0], right[0], columns, rows, inner, one,
            left[1], kind, left[2], right[1], kind, right[2],
            zero, out.data.ptr, of_result, columns, compute, _DEFAULT_ALGORITHM,
        )  # fmt: skip
        return out

    def _large(self, a: Array, b: Array) -> bool:
        """Return whether this is, in tf32, one of the products that were measured."""
        if min(*a.shape, b.shape[1]) < LARGE:
            return False
        return str(self.cupy.cuda.Device(a.device.id).compute_capability) == HOPPER

    def _choose(self, a: Array, b: Array) -> tuple[Product, Algorithm] | None:
        """Return the product in tf32 with its preferred algorithm; None if cuBLASLt does not offer that."""
        rows, inner = a.shape
        problem = Problem(
            rows, inner, b.shape[1], False, not b.flags.c_contiguous, FLOAT32, FLOAT32, _FAST_TF32
        )  # fmt: skip
        if problem not in self._chosen:
            self._chosen[problem] = None
            lt = self._loaded_lt()
            try:
                product = Product(lt, problem) if lt is not None else None
                offered = product.algorithms(ALGORITHMS) if product is not None else []
            except LtError as error:  # cuBLAS's own choice is there all the same
                self._why_not_lt = str(error)
                return None
            for algorithm in offered:
                has = algorithm.configuration
                if product is not None and has["reduction"] != INPLACE and has.items() >= PREFERRED.items():
                    self._chosen[problem] = product, algorithm
                    return self._chosen[problem]
            if lt is not None:
                self._why_not_lt = f"version {lt.version} does not offer the algorithm that was the fastest elsewhere"
        return self._chosen[problem]

    def _loaded_lt(self) -> Lt | None:
        """Return cuBLASLt, or None if it cannot be used (`way` says why)."""
        if self._lt is None and self._why_not_lt is None:
            try:
                self._lt = Lt(library("cublasLt"))
            except (OSError, AttributeError, LtError) as error:
                self._why_not_lt = str(error)
        return self._lt

    @property
    def way(self) -> str:
        """Return in words which library makes the products, and on a device where cuBLASLt is faster, why not that."""
        if str(self.cupy.cuda.Device().compute_capability) != HOPPER:
            return "products by cuBLAS"
        self._loaded_lt()
        if self._why_not_lt is None:
            return "products by cuBLAS, large ones in tf32 by cuBLASLt"
        return f"products by cuBLAS, large ones in tf32 not by cuBLASLt, so slower: {self._why_not_lt}"

    def ready(self, other: Gemm | None) -> None:
        """Adopt what `other` has chosen, so that nothing is loaded while a graph is captured."""
        if other is not None:
            self._lt, self._why_not_lt, self._chosen = other._lt, other._why_not_lt, other._chosen

    def transposed(self, x: Array) -> Array:
        """Return a C-contiguous copy of x, the transpose of a contiguous matrix."""
        out = self.cupy.empty(x.shape, x.dtype)
        (rows, columns), sides = x.shape, (-(-x.shape[0] // SIDE), -(-x.shape[1] // SIDE))
        self._on.launch("transpose", "f", sides, (SIDE, SIDE // 4), out, x.T, np.int32(columns), np.int32(rows))
        return out

    def _follow(self, stream: int) -> None:
        if stream != self._stream:
            self._check("cublasSetStream_v2", self._handle, stream)
            # Setting a stream resets the workspace.
            self._check("cublasSetWorkspace_v2", self._handle, self._workspace.data.ptr, WORKSPACE)
            self._stream = stream


def _operand(x: Array) -> tuple[int, int, int]:
    """Return cuBLAS's arguments for a matrix: whether to transpose it, its address, its leading dimension."""
    if x.flags.c_contiguous:
        return 0, x.data.ptr, x.shape[1]
    return 1, x.data.ptr, x.shape[0]


def _overlap(x: Array, y: Array) -> bool:
    begin, other = x.data.ptr, y.data.ptr
    return begin < other + y.nbytes and other < begin + x.nbytes
