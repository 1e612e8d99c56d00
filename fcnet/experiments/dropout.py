"""Dropout against overfitting. Source: Saito, "Deep Learning from Scratch", 6.4.3.

The book drops 0.2 of the units, and its dropout is plain: nothing is scaled while training, so less gets through six
layers, learning is slow, and the gap between training and test accuracy is small for that, too. Inverted dropout,
fcnet's usual, learns faster. Both cost some test accuracy here. fcnet's number is what is kept.
"""

from __future__ import annotations

from typing import Any

from fcnet.experiments.base import Experiment, Settings, Table
from fcnet.experiments.overfitting import compare, draw


def run(settings: Settings) -> Table:
    """Compare nets with and without dropout, see `compare`."""
    nets: dict[str, dict[str, Any]] = {
        "no dropout": {"dropout_keep_ratio": 1.0},
        "0.2 dropped, plain": {"dropout_keep_ratio": 0.8, "dropout": "plain"},
        "0.2 dropped, inverted": {"dropout_keep_ratio": 0.8},
    }
    return compare(settings, "dropout", nets, epochs=301)


EXPERIMENT = Experiment("Dropout of 0.2 against overfitting on 300 images of MNIST.", run, draw, (9, 3.4))
