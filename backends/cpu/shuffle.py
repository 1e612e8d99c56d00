"""The Numba kernel of an epoch's order: NumPy's permutation, bit for bit, in a third of its time.

NumPy's generator swaps each place, from the last on, with a random one before it (Fisher and Yates); of the 32-bit
numbers of Philox it takes the bits that the place needs, and draws again where they are too many. Which are taken is
found without a branch here, which would be predicted wrong every third time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fcnet.backends.cpu.jit import Jit, compiled, is_contiguous_integer
from fcnet.backends.device import Kernel
from fcnet.backends.random import Purpose, check_seed

BLOCKS = 128  # of random numbers at a time
MOST = 2**31  # places; NumPy takes 64-bit numbers from 2**32 on

_word = np.uint64
# Philox 4x64 with 10 rounds: Salmon and others, "Parallel random numbers: as easy as 1, 2, 3", 2011.
FACTORS = _word(0xD2E7470EE14C6C93), _word(0xCA5A826395121157)
KEYS = _word(0x9E3779B97F4A7C15), _word(0xBB67AE8584CAA73B)
ROUNDS = 10


@intrinsic
def _high(typing, a, b):
    """Return the upper 64 bits of the product of two 64-bit numbers."""

    def generate(context, builder, signature, arguments):
        wide = ir.IntType(128)
        product = builder.mul(*[builder.zext(argument, wide) for argument in arguments])
        return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), generate


@compiled
def _draw(counter, epoch, seed, numbers):
    """Fill numbers (blocks, 4) with those of these counters and the ones that follow."""
    for block in range(numbers.shape[0]):
        a, b, c, d = counter + _word(block), _word(0), epoch, _word(0)  # `host_generator`: block, layer, step, net
        key, other = seed, _word(Purpose.SHUFFLE)
        for _ in range(ROUNDS):
            a, b, c, d = (
                _high(FACTORS[1], c) ^ b ^ key, FACTORS[1] * c,
                _high(FACTORS[0], a) ^ d ^ other, FACTORS[0] * a,
            )  # fmt: skip
            key += KEYS[0]
            other += KEYS[1]
        numbers[block, 0], numbers[block, 1], numbers[block, 2], numbers[block, 3] = a, b, c, d


@Jit
def _shuffle(order, seed, epoch):
    for i in range(order.size):
        order[i] = i
    numbers = np.empty((BLOCKS, 4), np.uint64)
    halves = numbers.view(np.uint32).reshape(-1)  # the lower one first, on the CPUs that Numba compiles for
    places = np.empty(halves.size, np.int64)
    counter = _word(1)  # NumPy counts before it draws
    last = order.size - 1  # the place that is next to be swapped
    while last > 0:
        _draw(counter, epoch, seed, numbers)
        counter += _word(BLOCKS)
        first, used = last, 0
        taken = np.int64(0)
        while used < halves.size and last > 0:
            mask = last  # all bits up to the highest one of `last`
            for shift in (1, 2, 4, 8, 16):
                mask |= mask >> shift
            while used < halves.size and last > mask >> 1:
                place = np.int64(halves[used]) & mask
                places[taken] = place
                fits = np.int64(place <= last)
                taken += fits
                last -= fits
                used += 1
        for i in range(taken):
            one, other = first - i, places[i]
            order[one], order[other] = order[other], order[one]


def shuffle(order: Any, seed: int, epoch: int) -> Any:
    _shuffle(order, _word(check_seed(seed)), _word(epoch))
    return order


def _fits(order: Any, seed: int, epoch: int) -> bool:
    return is_contiguous_integer(order) and order.flags.writeable and order.size < MOST


KERNELS = {"shuffle": Kernel(shuffle, _fits)}
