"""Random numbers as a function of seed and position: without state, so any of them can be drawn again at any time.

The key is (seed, purpose), the counter (block, layer, step, net). Masks are made on the device that uses them;
weights and permutations are drawn on the host and uploaded, so every device sees the same.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from fcnet.backends.device import Array, Backend

MAX_SEED = 2**64 - 1


class Purpose(IntEnum):
    """Name the purpose of random numbers: two purposes never share a stream. The values are part of the file format."""

    WEIGHTS = 1
    SHUFFLE = 2
    DROPOUT = 3
    DATA = 4


def host_generator(seed: int, purpose: Purpose, layer: int = 0, step: int = 0, net: int = 0) -> np.random.Generator:
    """Return a generator of NumPy for one use on the host, such as one layer's weights or one epoch's order."""
    key = np.array([check_seed(seed), purpose], dtype=np.uint64)
    counter = np.array([0, layer, step, net], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


class MaskStream:
    """Draw the random bits of one dropout layer: a mask for each step.

    `step` is an int, or an integer array of one element on the device, read there each time bits are drawn: a recorded
    training step that increments it draws a new mask each time.
    """

    def __init__(self, backend: Backend, seed: int, layer: int = 0, step: int | Array = 0, net: int = 0) -> None:
        self.backend = backend
        self.key = (check_seed(seed), int(Purpose.DROPOUT))
        self.layer, self.step, self.net = layer, step, net

    def bits(self, shape: tuple[int, ...]) -> Array:
        """Return uint16 numbers of this shape, uniform on 0..65535."""
        return self.backend.random_bits(self.key, self.layer, self.step, self.net, shape)


def check_seed(seed: object) -> int:
    """Return the seed as an int. Raises TypeError, or ValueError outside 0..2**64-1."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise TypeError(f"seed: expected an integer, got {seed!r} of type {type(seed).__name__}")
    if not 0 <= int(seed) <= MAX_SEED:
        raise ValueError(f"seed: expected 0 to 2**64 - 1, got {seed}")
    return int(seed)
