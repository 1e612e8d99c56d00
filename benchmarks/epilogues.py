"""Products of cuBLASLt with epilogues, to be tried: a row of its result is a column of ours, and has a bias."""

from __future__ import annotations

import ctypes

from fcnet.backends.cuda.cublaslt import FLOAT32, Lt, Problem, Product

EPILOGUES = {
    "none": 1,
    "bias": 4,
    "relu_bias": 6,
    "relu_aux_bias": 134,  # and a mask of the units that are on
    "drelu": 136,  # where that mask is set
    "drelu_bgrad": 152,  # and the sum of the result over its rows
    "bgrada": 256,  # the sum of b over its rows
}
MASK_ALIGNMENT = 128  # bits; so long is a multiple of a mask's row
_EPILOGUE, _BIAS, _MASK, _MASK_ROW, _BIAS_TYPE = 7, 8, 11, 12, 26


def mask_row(columns: int) -> int:
    """Return the bits from one row of a mask to the next."""
    return -(-columns // MASK_ALIGNMENT) * MASK_ALIGNMENT


def with_epilogue(
    lt: Lt, problem: Problem, epilogue: str, *, bias: int = 0, mask: int = 0, bias_type: int = FLOAT32
) -> Product:
    """Return a product; `bias`, or its gradient, and `mask` are device addresses, for epilogues with them."""
    made = Product(lt, problem)
    made.set(_EPILOGUE, ctypes.c_uint32(EPILOGUES[epilogue]))
    if bias:
        made.set(_BIAS, ctypes.c_void_p(bias))
        made.set(_BIAS_TYPE, ctypes.c_int32(bias_type))
    if mask:
        made.set(_MASK, ctypes.c_void_p(mask))
        made.set(_MASK_ROW, ctypes.c_int64(mask_row(problem.columns)))
    return made
