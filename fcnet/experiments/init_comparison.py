"""How initial weights decide whether a ReLU network learns. Source: Saito, "Deep Learning from Scratch", 6.2.4."""

from __future__ import annotations

from typing import Any

from fcnet.experiments.base import Experiment, Settings, Table
from fcnet.experiments.drawing import loss_curves
from fcnet.experiments.training import compare_losses

INITS: dict[str, dict[str, Any]] = {
    "std 0.01": {"weight_scale": 0.01},
    "Xavier": {"init": "xavier"},
    "He": {"init": "he"},
}


def run(settings: Settings) -> Table:
    """Return a row per initialisation and step: the loss on its mini-batch."""
    variants = {name: {"net": how, "update_rule": "sgd"} for name, how in INITS.items()}
    return compare_losses(settings, variants, "initial weights")


def draw(figure: Any, table: Table) -> None:
    """Draw the loss curves."""
    loss_curves(figure, table, "initial weights", "MNIST, 784-4x100-10, ReLU, SGD 0.01, batches of 128")


EXPERIMENT = Experiment("Loss on MNIST from weights of std 0.01, Xavier and He.", run, draw, (6.4, 4))
