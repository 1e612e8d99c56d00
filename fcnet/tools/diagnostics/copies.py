"""Copies to try things on, so that a network under examination stays as it is."""

from __future__ import annotations

from typing import Any

import numpy as np

from fcnet.nn.model import FullyConnectedNet

#: What makes a network learn its training samples less than perfectly, switched off.
UNREGULARISED = {"dropout_keep_ratio": 1.0, "reg": 0.0, "reg_l1": 0.0}


def quietly() -> np.errstate:
    """Return a context for trials that may diverge: NumPy does not warn, as the caller reports an overflow."""
    return np.errstate(over="ignore", invalid="ignore", divide="ignore")


def copy_of(model: FullyConnectedNet, **changes: Any) -> FullyConnectedNet:
    """Return `model.copy(**changes)`. Raises TypeError for what is no network."""
    if not isinstance(model, FullyConnectedNet):
        raise TypeError(f"model: expected a FullyConnectedNet, got {type(model).__name__}")
    return model.copy(**changes)
