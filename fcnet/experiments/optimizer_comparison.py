"""How fast four optimizers bring down the loss on MNIST. Source: Saito, "Deep Learning from Scratch", 6.1.8."""

from __future__ import annotations

from typing import Any

from fcnet.experiments.base import Experiment, Settings, Table
from fcnet.experiments.drawing import loss_curves
from fcnet.experiments.training import compare_losses

#: With fcnet's default rates, which are the book's: 0.01, and 0.001 for Adam.
OPTIMIZERS = {"SGD": "sgd", "Momentum": "momentum", "AdaGrad": "adagrad", "Adam": "adam"}


def run(settings: Settings) -> Table:
    """A row per optimizer and step: the loss on its mini-batch."""
    return compare_losses(settings, {name: {"update_rule": rule} for name, rule in OPTIMIZERS.items()}, "optimizer")


def draw(figure: Any, table: Table) -> None:
    """The loss curves."""
    loss_curves(figure, table, "optimizer", "MNIST, 784-4x100-10, ReLU, He, batches of 128")


EXPERIMENT = Experiment("Loss of four optimizers on MNIST, 784-4x100-10, batch 128, 2000 steps.", run, draw, (6.4, 4))
