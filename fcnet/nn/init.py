"""Initial weights, drawn on the host in float64: the same on every device and, up to rounding, in every dtype.

A scheme gives the standard deviation of the normal distribution that a weight matrix (D, M) is drawn from.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fcnet.backends import Purpose, host_generator
from fcnet.validation import nonnegative_real, one_of


def zeros(fan_in: int) -> float:
    """Return std = 0, a mistake to be tried out: all units of a layer compute the same and stay the same.

    Source: CS231n, "Neural Networks Part 2", pitfall: all zero initialization.
    """
    return 0.0


def normal(fan_in: int) -> float:
    """Return std = 0.01, small random numbers. Source: CS231n, "Neural Networks Part 2"."""
    return 0.01


def xavier(fan_in: int) -> float:
    """Return std = sqrt(1 / D), which keeps the variance through a linear or tanh layer.

    Source: Glorot and Bengio, "Understanding the Difficulty of Training Deep Feedforward Neural Networks", 2010, in the
    form of the courses, by the fan-in alone.
    """
    return math.sqrt(1 / fan_in)


def he(fan_in: int) -> float:
    """Return std = sqrt(2 / D), which keeps the variance through ReLU layers, where ReLU halves it.

    Source: He et al., "Delving Deep into Rectifiers", 2015.
    """
    return math.sqrt(2 / fan_in)


#: Initialisers by name: the standard deviation as a function of the fan-in D.
SCHEMES = {"zeros": zeros, "normal": normal, "xavier": xavier, "he": he}


def weight_std(init: str | None, weight_scale: float | None, usual: str, fan_in: int) -> float:
    """Return the standard deviation of a layer's initial weights.

    Args:
        init: a name in `SCHEMES`, or None: `weight_scale` if that is given, else the scheme `usual`.
        weight_scale: a standard deviation, or None.
        usual: the scheme that suits the activation.

    Raises:
        ValueError: an unknown name, both given, or a negative number.
    """
    if init is not None and weight_scale is not None:
        raise ValueError(
            f"init and weight_scale: expected one of them, got init={init!r} and weight_scale={weight_scale}; "
            "leave one out"
        )
    if weight_scale is not None:
        return nonnegative_real("weight_scale", weight_scale, "a standard deviation of 0 or more")
    scheme = usual if init is None else init
    one_of("init", scheme, SCHEMES)
    return SCHEMES[scheme](fan_in)


def initial_weights(seed: int, layer: int, shape: tuple[int, int], std: float) -> np.ndarray[Any, Any]:
    """Return weights (D, M) of one layer, N(0, std²), float64 on the host; a function of seed and layer alone."""
    return std * host_generator(seed, Purpose.WEIGHTS, layer).standard_normal(shape)
