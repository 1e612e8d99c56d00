"""Weight decay against overfitting. Source: Saito, "Deep Learning from Scratch", 6.4.2."""

from __future__ import annotations

from fcnet.experiments.base import Experiment, Settings, Table
from fcnet.experiments.overfitting import compare, draw


def run(settings: Settings) -> Table:
    """Compare nets with and without weight decay, see `compare`."""
    nets = {"no weight decay": {"reg": 0.0}, "weight decay 0.1": {"reg": 0.1}}
    return compare(settings, "weight_decay", nets, epochs=201)


EXPERIMENT = Experiment("Weight decay 0.1 against overfitting on 300 images of MNIST.", run, draw, (7.4, 3.4))
