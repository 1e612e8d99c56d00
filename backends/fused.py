"""What the kernels of hidden units share, on any device: the cache of a ReLU unit and the arithmetic of dropout.

A ReLU output that is zero has a zero gradient, whether the unit was off or dropped, so the backward pass needs no mask:
only the output and the scale 1 / keep_ratio.
"""

from __future__ import annotations

from typing import Any, NamedTuple

STEPS = 65536  # masks compare 16-bit numbers with a threshold, as `fcnet.functional.dropout` does


class FusedNorm(NamedTuple):
    """Of a normalisation: x_hat (N, M), inv_std and gamma, and scratch if the device needs some."""

    x_hat: Any
    inv_std: Any
    gamma: Any
    work: Any = None


class FusedCache(NamedTuple):
    """For the backward pass: the unit's output, 1 / keep_ratio, and the normalisation's part. No mask is kept."""

    hidden: Any
    scale: Any
    norm: FusedNorm | None = None
    mask: None = None


def threshold(keep_ratio: float) -> int:
    """A unit is kept if its 16-bit number is below this: 1 to 65536."""
    return max(1, round(keep_ratio * STEPS))
