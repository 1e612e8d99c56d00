"""exp, expm1, log, log1p and tanh of float32 in arithmetic without branches, so that loops of them are vectorised.

The C library's functions take one number at a time, and Numba compiles NumPy's functions to calls of them; these are
used for other dtypes only. Errors in float32 are below 3 units in the last place (tests/kernels/test_vectormath.py).

With k the whole number nearest x / ln 2 and r = x - k ln 2, |r| <= ln 2 / 2: exp(x) = 2^k exp(r) (Cody and Waite,
"Software Manual for the Elementary Functions", 1980). ln 2 is taken in two parts, so that k times the first is exact.
exp(r) is a polynomial of degree 6, log1p(x) one of s = x / (2 + x), since log(1 + x) = 2 artanh(s). The coefficients
minimise the largest relative error (Lawson's weighted least squares), which is a twentieth of the last place's unit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from fcnet.backends.cpu.jit import compiled

_real, _word = ir.FloatType(), ir.IntType(32)
_single = np.float32


@intrinsic
def _multiply_add(typing, a, b, c):
    """Return a b + c: in one instruction, rounded once, where the CPU has it."""

    def generate(context, builder, signature, arguments):
        kind = ir.FunctionType(_real, [_real] * 3)
        return builder.call(builder.module.declare_intrinsic("llvm.fmuladd", [_real], kind), arguments)

    return types.float32(types.float32, types.float32, types.float32), generate


@intrinsic
def _bits(typing, value):
    """Return the bits of a float32 as an int32."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], _word)

    return types.int32(types.float32), generate


@intrinsic
def _power_of_two(typing, exponent):
    """Return 2 to an int32 of -126..127 as a float32; infinity for 128."""

    def generate(context, builder, signature, arguments):
        biased = builder.add(arguments[0], ir.Constant(_word, 127))
        return builder.bitcast(builder.shl(biased, ir.Constant(_word, 23)), _real)

    return types.float32(types.int32), generate


ZERO, HALF, ONE, TWO = map(_single, (0, 0.5, 1, 2))
ROUND = _single(1.5 * 2**23)  # numbers of this size have no fraction, so adding it rounds
ROUND_BITS = np.int32(np.array(ROUND).view(np.int32))
PER_LN2, LN2_HIGH = _single(1 / np.log(2)), _single(0.693359375)  # the latter has 9 bits
LN2_LOW = _single(np.log(2) - 0.693359375)
E2, E3, E4, E5, E6 = map(
    _single, (0.5000000095185837, 0.16666518839080588, 0.04166620580006028, 0.008368889423475573, 0.0013950491288751339)
)
L3, L5, L7, L9 = map(_single, (0.33333206566077617, 0.20010849549479748, 0.13999570164929678, 0.1401223145455436))
LEAST, MOST = _single(-104), _single(89)  # beyond, exp is 0 or infinity
FAR, DEEP = _single(10), _single(-20)  # beyond, tanh is 1, and expm1 -1


@compiled
def _reduced(x):
    """Return k as an int32, and exp(r) - 1; x is in -104..89, or NaN."""
    shifted = _multiply_add(x, PER_LN2, ROUND)
    k = shifted - ROUND
    r = _multiply_add(-k, LN2_LOW, _multiply_add(-k, LN2_HIGH, x))
    series = _multiply_add(_multiply_add(_multiply_add(_multiply_add(E6, r, E5), r, E4), r, E3), r, E2)
    return np.int32(_bits(shifted) - ROUND_BITS), _multiply_add(series * r, r, r)


@compiled
def _within(x, least, most):
    """Return x clipped to these bounds; NaN stays NaN."""
    x = most if x > most else x
    return least if x < least else x


@compiled
def _exp(x):
    k, tail = _reduced(_within(x, LEAST, MOST))
    half = np.int32(k >> 1)  # in two factors: 2^k itself may not be a normal number
    return (tail + ONE) * _power_of_two(half) * _power_of_two(np.int32(k - half))


@compiled
def _expm1(x):
    k, tail = _reduced(_within(x, DEEP, MOST))
    half = _power_of_two(np.int32(k - np.int32(1)))  # of 2^k, which may be too large
    return np.copysign(_multiply_add(half, tail, half - HALF) * TWO, x)


@compiled
def _tanh(x):
    # With e = (exp(2 |x|) - 1) / 2 it is e / (e + 1), also where x is small.
    size = abs(x)
    size = FAR if size > FAR else size
    k, tail = _reduced(size + size)
    half = _power_of_two(np.int32(k - np.int32(1)))
    e = _multiply_add(half, tail, half - HALF)
    return np.copysign(e / (e + ONE), x)


@compiled
def _log1p(x):
    s = x / (x + TWO)
    u = s * s
    series = _multiply_add(_multiply_add(_multiply_add(L9, u, L7), u, L5), u, L3)
    return TWO * _multiply_add(series * u, s, s)


@compiled
def _log_from_one(x):
    # x = 2^k (1 + f) with f in 0..1, and log x = k ln 2 + log(1 + f); x - x is 0, or NaN
    bits = _bits(x)
    k = _single((bits >> np.int32(23)) - np.int32(127))
    f = x * _power_of_two(np.int32(np.int32(127) - (bits >> np.int32(23)))) - ONE
    return _multiply_add(k, LN2_HIGH, _multiply_add(k, LN2_LOW, _log1p(f))) + (x - x)


def exp(x):
    """Return e^x."""
    return np.exp(x)


def expm1(x):
    """Return e^x - 1."""
    return np.expm1(x)


def tanh(x):
    """Return tanh x."""
    return np.tanh(x)


def log1p_of_share(x):
    """Return log(1 + x) for x in 0..1."""
    return np.log1p(x)


def log_from_one(x):
    """Return log(x) for finite x from 1 on; NaN for NaN."""
    return np.log(x)


def _serve(function: Callable[[Any], Any], single: Callable[[Any], Any]) -> None:
    """Make compiled code call `single` for float32 in place of the function, and NumPy's for other dtypes."""

    @overload(function, jit_options={"error_model": "numpy"}, inline="never")
    def choose(x):
        return (lambda x: single(x)) if x == types.float32 else function


_serve(exp, _exp)
_serve(expm1, _expm1)
_serve(tanh, _tanh)
_serve(log1p_of_share, _log1p)
_serve(log_from_one, _log_from_one)
