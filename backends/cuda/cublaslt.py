"""Matrix products through cuBLASLt, which lets one choose among its algorithms; by ctypes.

cuBLASLt counts columns first, so a row-major matrix is its own transpose: out = a b is asked for as outᵀ = bᵀ aᵀ.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

WORKSPACE = 32 << 20  # bytes; what NVIDIA recommends for Hopper, and more than older devices need
FLOAT32, BFLOAT16 = 0, 14  # cudaDataType
COMPUTE_FLOAT32, COMPUTE_TF32 = 68, 77  # cublasComputeType
INPLACE = 1  # cublasLtReductionScheme: parts added to the result in turn; the others add them up afterwards

_TRANSPOSE_A, _TRANSPOSE_B = 3, 4
_MAX_WORKSPACE = 1
_REFUSED = 7, 15  # cublasStatus: such a combination, or any algorithm for it, is not there
# What an algorithm is made of: cublasLtMatmulAlgoConfigAttributes and its type.
_CONFIGURATION = {
    "id": (0, ctypes.c_int32),
    "tile": (1, ctypes.c_uint32),
    "split_k": (2, ctypes.c_int32),
    "reduction": (3, ctypes.c_uint32),
    "swizzle": (4, ctypes.c_uint32),
    "custom": (5, ctypes.c_uint32),
    "stages": (6, ctypes.c_uint32),
    "inner_shape": (7, ctypes.c_uint16),
    "cluster": (8, ctypes.c_uint16),
}


class LtError(RuntimeError):
    """Signal that a cuBLASLt function did not return CUBLAS_STATUS_SUCCESS."""

    def __init__(self, name: str, status: int) -> None:
        super().__init__(f"{name} returned status {status}")
        self.status = status


class _Found(ctypes.Structure):
    """Mirror cublasLtMatmulHeuristicResult_t."""

    _fields_ = (
        ("algorithm", ctypes.c_uint64 * 8),
        ("workspace", ctypes.c_size_t),
        ("status", ctypes.c_int),
        ("waves", ctypes.c_float),
        ("reserved", ctypes.c_int * 4),
    )


class Algorithm(NamedTuple):
    """Describe a way to compute a product: cuBLASLt's own description, and what can be read of it."""

    raw: Any
    configuration: dict[str, int]
    workspace: int
    waves: float


class Problem(NamedTuple):
    """Describe a @ b, (rows, inner) by (inner, columns); either may lie transposed in memory. Types: cudaDataTypes."""

    rows: int
    inner: int
    columns: int
    a_transposed: bool
    b_transposed: bool
    operands: int
    result: int
    compute: int


class Lt:
    """Call the library, with a handle for the current device."""

    def __init__(self, lt: Any) -> None:
        self._lt = lt
        self._declare()
        self.version = int(lt.cublasLtGetVersion())
        self.handle = ctypes.c_void_p()
        self.check("cublasLtCreate", ctypes.byref(self.handle))

    def check(self, name: str, *arguments: Any) -> None:
        """Call a function by its name."""
        status = getattr(self._lt, name)(*arguments)
        if status != 0:
            raise LtError(name, status)

    def _declare(self) -> None:
        pointer, integer, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
        setter, getter = [pointer, integer, pointer, size], [pointer, integer, pointer, size, pointer]
        signatures: dict[str, list[Any]] = {
            "cublasLtGetVersion": [],
            "cublasLtCreate": [pointer],
            "cublasLtMatmulDescCreate": [pointer, integer, integer],
            "cublasLtMatmulDescSetAttribute": setter,
            "cublasLtMatmulDescDestroy": [pointer],
            "cublasLtMatrixLayoutCreate": [pointer, integer, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_int64],
            "cublasLtMatrixLayoutDestroy": [pointer],
            "cublasLtMatmulPreferenceCreate": [pointer],
            "cublasLtMatmulPreferenceSetAttribute": setter,
            "cublasLtMatmulPreferenceDestroy": [pointer],
            "cublasLtMatmulAlgoGetHeuristic": [*[pointer] * 7, integer, pointer, pointer],
            "cublasLtMatmulAlgoConfigGetAttribute": getter,
            "cublasLtMatmul": [*[pointer] * 14, size, pointer],
        }
        for name, arguments in signatures.items():
            getattr(self._lt, name).argtypes = arguments
        self._lt.cublasLtGetVersion.restype = size


class Product:
    """Describe a problem to cuBLASLt."""

    def __init__(self, lt: Lt, problem: Problem) -> None:
        self._lt = lt
        self._scalars = ctypes.c_float(1), ctypes.c_float(0)
        self._description = ctypes.c_void_p()
        lt.check("cublasLtMatmulDescCreate", ctypes.byref(self._description), problem.compute, FLOAT32)
        self.set(_TRANSPOSE_A, ctypes.c_int32(problem.b_transposed))
        self.set(_TRANSPOSE_B, ctypes.c_int32(problem.a_transposed))
        a, b = (problem.rows, problem.inner), (problem.inner, problem.columns)
        self._a = self._layout(problem.operands, *(reversed(a) if problem.a_transposed else a))
        self._b = self._layout(problem.operands, *(reversed(b) if problem.b_transposed else b))
        self._out = self._layout(problem.result, problem.rows, problem.columns)

    def algorithms(self, count: int) -> list[Algorithm]:
        """Return the first that cuBLASLt's heuristics name, the one thought fastest first; none if it has none."""
        found, number = (_Found * count)(), ctypes.c_int()
        layouts = self._b, self._a, self._out, self._out
        with self._preference() as preference:
            try:
                self._lt.check(
                    "cublasLtMatmulAlgoGetHeuristic", self._lt.handle, self._description, *layouts, preference, count,
                    ctypes.byref(found), ctypes.byref(number),
                )  # fmt: skip
            except LtError as error:
                if error.status in _REFUSED:
                    return []
                raise
        return [self._algorithm(one) for one in found[: number.value] if one.status == 0]

    def __call__(self, algorithm: Algorithm, a: int, b: int, out: int, workspace: int, stream: int) -> None:
        """Make the product of what is at these addresses; `workspace` has WORKSPACE bytes."""
        one, zero = (ctypes.byref(scalar) for scalar in self._scalars)
        self._lt.check(
            "cublasLtMatmul", self._lt.handle, self._description, one, b, self._b, a, self._a, zero, out, self._out,
            out, self._out, ctypes.byref(algorithm.raw), workspace, WORKSPACE, stream,
        )  # fmt: skip

    def close(self) -> None:
        """Free the descriptions; the product cannot be made any more."""
        for layout in (self._a, self._b, self._out):
            self._lt.check("cublasLtMatrixLayoutDestroy", layout)
        self._lt.check("cublasLtMatmulDescDestroy", self._description)

    def set(self, attribute: int, value: Any) -> None:
        """Set an attribute of the product's description, of type cublasLtMatmulDescAttributes_t."""
        size = ctypes.sizeof(value)
        self._lt.check(
            "cublasLtMatmulDescSetAttribute", self._description, attribute, ctypes.byref(value), size
        )  # fmt: skip

    def _layout(self, kind: int, rows: int, columns: int) -> ctypes.c_void_p:
        """Describe a row-major matrix, which to cuBLASLt has its columns as rows."""
        made = ctypes.c_void_p()
        self._lt.check("cublasLtMatrixLayoutCreate", ctypes.byref(made), kind, columns, rows, columns)
        return made

    @contextmanager
    def _preference(self) -> Iterator[ctypes.c_void_p]:
        made, limit = ctypes.c_void_p(), ctypes.c_uint64(WORKSPACE)
        self._lt.check("cublasLtMatmulPreferenceCreate", ctypes.byref(made))
        try:
            self._lt.check("cublasLtMatmulPreferenceSetAttribute", made, _MAX_WORKSPACE, ctypes.byref(limit), 8)
            yield made
        finally:
            self._lt.check("cublasLtMatmulPreferenceDestroy", made)

    def _algorithm(self, found: _Found) -> Algorithm:
        raw = (ctypes.c_uint64 * 8)(*found.algorithm)
        configuration = {}
        for name, (attribute, kind) in _CONFIGURATION.items():
            value, written = kind(), ctypes.c_size_t()
            self._lt.check(
                "cublasLtMatmulAlgoConfigGetAttribute", ctypes.byref(raw), attribute, ctypes.byref(value),
                ctypes.sizeof(value), ctypes.byref(written),
            )  # fmt: skip
            configuration[name] = int(value.value)
        return Algorithm(raw, configuration, int(found.workspace), float(found.waves))
