"""How fast four optimizers bring down the loss on MNIST. Source: Saito, "Deep Learning from Scratch", 6.1.8."""

from __future__ import annotations

from typing import Any

from fcnet.experiments.base import Experiment, Settings, Table
from fcnet.experiments.drawing import loss_curves
from fcnet.experiments.training import compare_losses

#: name -> update rule, and the book's learning rate.
OPTIMIZERS = {
    "SGD": ("sgd", 0.01),
    "Momentum": ("momentum", 0.01),
    "AdaGrad": ("adagrad", 0.01),
    "Adam": ("adam", 0.001),
}


def run(settings: Settings) -> Table:
    """Return a row per optimizer and step: the loss on its mini-batch."""
    variants = {
        name: {"update_rule": rule, "optim_config": {"learning_rate": rate}}
        for name, (rule, rate) in OPTIMIZERS.items()
    }
    return compare_losses(settings, variants, "optimizer")


def draw(figure: Any, table: Table) -> None:
    """Draw the loss curves."""
    labels = {name: f"{name}, rate {rate:g}" for name, (_, rate) in OPTIMIZERS.items()}
    loss_curves(figure, table, "optimizer", "MNIST, 784-4x100-10, ReLU, He, batches of 128", labels)


EXPERIMENT = Experiment("Loss of four optimizers on MNIST, 784-4x100-10, batch 128, 2000 steps.", run, draw, (6.4, 4))
