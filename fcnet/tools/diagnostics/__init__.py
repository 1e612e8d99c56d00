"""Diagnostics before and during training. Source: CS231n, "Babysitting the learning process"."""

from fcnet.tools.diagnostics.activations import LayerStatistics, activation_statistics
from fcnet.tools.diagnostics.rates import LrRange, lr_range
from fcnet.tools.diagnostics.sanity import (
    Finding,
    Gradients,
    InitialLoss,
    Overfit,
    Sanity,
    check,
    check_gradients,
    check_initial_loss,
    check_overfit,
)

__all__ = [
    "Finding",
    "Gradients",
    "InitialLoss",
    "LayerStatistics",
    "LrRange",
    "Overfit",
    "Sanity",
    "activation_statistics",
    "check",
    "check_gradients",
    "check_initial_loss",
    "check_overfit",
    "lr_range",
]
