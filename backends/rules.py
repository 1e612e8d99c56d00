"""What the kernels of update rules share: the arguments of a rule by their role; the limit of a squared gradient."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from fcnet.backends.device import Array
from fcnet.backends.registry import REGISTRY

# Powers of two between a gradient's limit and the root of the largest number, by what a rule makes of the squares: a
# mean is never above the largest of them, a sum may have 2^32 terms of the limit.
MEAN_OF_SQUARES, SUM_OF_SQUARES = 1, 16


@cache
def gradient_limit(dtype: np.dtype, headroom: int) -> float:
    """Return L = 2^(e/2 - headroom) for numbers below 2^e, to which a gradient is limited before it is squared.

    >>> gradient_limit(np.dtype("float32"), MEAN_OF_SQUARES) == 2.0**63
    True
    """
    return 2.0 ** (np.finfo(dtype).maxexp // 2 - headroom)


class Roles(NamedTuple):
    """Name the parameters of a rule(w, dw, *moments, [step,] learning_rate, *, **constants, work).

    moments: names. counts: whether the rule takes the number of updates made before. constants: name -> default.
    """

    moments: tuple[str, ...]
    counts: bool
    constants: Mapping[str, float]


@cache
def roles(rule: Callable[..., Array]) -> Roles:
    """Return the roles of a rule's parameters, read from its signature."""
    parameters = inspect.signature(rule).parameters
    names = list(parameters)
    between = names[names.index("dw") + 1 : names.index("learning_rate")]
    constants = names[names.index("learning_rate") + 1 : names.index("work")]
    moments = tuple(name for name in between if name != "step")
    return Roles(moments, "step" in between, {name: parameters[name].default for name in constants})


class RuleKernel:
    """Run an update rule as a kernel, called with the arguments of the reference of the same name.

    It calls `update(name, w, dw, moments, step, rate, constants)`: step is None if the rule does not count, the
    constants are numbers in the order of the reference's signature.
    """

    def __init__(self, name: str, update: Callable[..., None]) -> None:
        self.__name__ = name
        self._update = update

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(REGISTRY[self.__name__].reference)

    def __call__(self, w: Array, dw: Array, *others: Any, work: Array, **constants: float) -> Array:
        role = roles_of(self.__name__)
        count = len(role.moments)
        values = tuple(constants.get(name, default) for name, default in role.constants.items())
        self._update(self.__name__, w, dw, others[:count], others[count] if role.counts else None, others[-1], values)
        return w


def roles_of(name: str) -> Roles:
    """Return the roles of the parameters of the accelerated rule of this name."""
    return roles(REGISTRY[name].reference)
