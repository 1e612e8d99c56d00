"""Dropout against overfitting. Source: Saito, "Deep Learning from Scratch", 6.4.3.

The book drops 0.2 of the units; fcnet's number is what is kept.
"""

from __future__ import annotations

from fcnet.experiments.base import Experiment, Settings, Table
from fcnet.experiments.overfitting import compare, draw


def run(settings: Settings) -> Table:
    """See `compare`."""
    nets = {"no dropout": {"dropout_keep_ratio": 1.0}, "dropout of 0.2": {"dropout_keep_ratio": 0.8}}
    return compare(settings, "dropout", nets, epochs=301)


EXPERIMENT = Experiment("Dropout of 0.2 against overfitting on 300 images of MNIST.", run, draw, (10, 4))
