"""The L2 and L1 penalties of a network's loss: their strengths, and how a step adds them."""

from __future__ import annotations

from typing import Any

import fcnet.functional as F
from fcnet.backends import Array, Backend
from fcnet.backends.step import Run
from fcnet.validation import nonnegative_real


class NonNegative:
    """Check an attribute: a finite number of 0 or more; setting another raises ValueError or TypeError.

    One that was never set is 0, see `is_said`.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type) -> float:
        return instance.__dict__.get(self.name, 0.0)

    def __set__(self, instance: Any, value: object) -> None:
        instance.__dict__[self.name] = nonnegative_real(self.name, value)


def is_said(instance: Any, name: str) -> bool:
    """Return whether somebody set this attribute."""
    return name in instance.__dict__


def add_penalties(
    run: Run, backend: Backend, weights: Array, dweights: Array, loss: Array, *, l2: float, l1: float
) -> None:
    """Add both terms to `loss` and their gradients to `dweights`; weights (P,) flat. A strength of 0 costs nothing."""
    if not (l2 or l1):
        return
    work = backend.xp.empty(min(weights.size, backend.block_size or weights.size), dtype=weights.dtype)
    for penalty, strength in ((F.l2_penalty, l2), (F.l1_penalty, l1)):
        if strength:
            run(penalty, weights, strength, loss, dweights, work)
