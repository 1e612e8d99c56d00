"""Statistics of the activations of each hidden layer: do signals fade, grow, die or saturate on their way?"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fcnet.backends.step import direct
from fcnet.nn.model import FullyConnectedNet
from fcnet.tools.diagnostics.copies import copy_of
from fcnet.validation import check_input

Array = Any

BINS = 50
MARGIN = 0.05  # from an end at which an activation counts as saturated
DYING = ("relu",)  # exactly 0, gradient included, on one side
ENDS = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}  # of activations that flatten towards both


@dataclass(frozen=True)
class LayerStatistics:
    """Summarise the activations (N, M) of one hidden layer, over N samples and M units.

    Attributes:
        layer: its number, from 1. activation: its name. units: M.
        mean, std: over samples and units.
        dead: share of the units that are 0 for every sample (ReLU); None for other activations.
        saturated: share of the N M activations within 0.05 of an end (sigmoid, tanh); None for others.
        counts, edges: a histogram of B bins, (B,) and (B + 1,).
    """

    layer: int
    activation: str
    units: int
    mean: float
    std: float
    dead: float | None
    saturated: float | None
    counts: np.ndarray
    edges: np.ndarray


def activation_statistics(model: FullyConnectedNet, X: Array) -> list[LayerStatistics]:
    """Return statistics of each hidden layer's output, as in training but without dropout: batch norm by this batch.

    Healthy layers have a similar spread each, few dead and few saturated units. A spread that shrinks from layer to
    layer means weights that start too small, many saturated units weights that start too large.

    Args:
        model: left as it is. X: (N, d1, ..., dk), one batch of some hundred samples, on the host or the device.

    Returns:
        One for each hidden layer, from the first; none for a linear classifier.

    Raises:
        ValueError, TypeError: X does not fit the network.

    Source: Glorot and Bengio, 2010; CS231n, "Setting up the data and the model"; "Deep Learning from Scratch", 6.2.
    """
    trial = copy_of(model, dropout_keep_ratio=1.0)
    check_input("X", X, trial.input_dim, trial.dtype)
    backend = trial.backend
    backend.use()
    x = trial.prepare(direct, backend.asarray(X))
    found = []
    for layer in trial.hidden:
        x, _ = layer.forward(direct, trial.params, trial.state, x, None)
        found.append(_statistics(layer.index, layer.activation, backend.to_numpy(x).astype(np.float64)))
    return found


def _statistics(layer: int, activation: str, values: np.ndarray) -> LayerStatistics:
    ends = ENDS.get(activation)
    saturated = None
    if ends is not None:
        saturated = float(((values <= ends[0] + MARGIN) | (values >= ends[1] - MARGIN)).mean())
    finite = values[np.isfinite(values)]
    counts, edges = np.histogram(finite, BINS, ends)
    return LayerStatistics(
        layer,
        activation,
        values.shape[1],
        float(values.mean()),
        float(values.std()),
        float((values == 0).all(axis=0).mean()) if activation in DYING else None,
        saturated,
        counts,
        edges,
    )


def table(statistics: Sequence[LayerStatistics]) -> str:
    """Return a line per layer, for people."""
    rows = [("layer", "activation", "units", "mean", "std", "dead", "saturated")]
    rows += [
        (f"{s.layer}", s.activation, f"{s.units}", f"{s.mean:.4f}", f"{s.std:.4f}", _share(s.dead), _share(s.saturated))
        for s in statistics
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 1 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def statistics_csv(statistics: Sequence[LayerStatistics]) -> str:
    """Return a row per layer; shares as fractions, empty where they do not apply."""
    names = ("layer", "activation", "units", "mean", "std", "dead", "saturated")
    return _csv(names, ([getattr(s, name) for name in names] for s in statistics))


def histograms_csv(statistics: Sequence[LayerStatistics]) -> str:
    """Return a row per bin of each layer: layer, low, high, count."""
    return _csv(
        ("layer", "low", "high", "count"),
        (
            (s.layer, low, high, count)
            for s in statistics
            for low, high, count in zip(s.edges.tolist(), s.edges[1:].tolist(), s.counts.tolist(), strict=False)
        ),
    )


def _csv(header: Sequence[str], rows: Any) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
