"""Pictures of a report, as PNG. Each raises ImportError without matplotlib (extra `plot`)."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

BINS = 10
MOST_POINTS = 2000  # of a scatter plot
MOST_OUTPUTS = 4


def calibration_png(right: np.ndarray, probabilities: np.ndarray, axis: str) -> bytes:
    """Draw how often what was said with a probability came true, by that probability, and how often it was said.

    right: (n,) of truth values. probabilities: (n,). axis: what they are of.
    """
    figure, png = _figure(6, 4.6)
    above, below = figure.subplots(2, 1, height_ratios=[3, 1], sharex=True)
    edges = np.linspace(0, 1, BINS + 1)
    places = np.clip(np.digitize(probabilities, edges) - 1, 0, BINS - 1)
    counts = np.bincount(places, minlength=BINS)
    filled = counts > 0
    said = np.bincount(places, probabilities, BINS)[filled] / counts[filled]
    came = np.bincount(places, right, BINS)[filled] / counts[filled]
    error = np.sqrt(came * (1 - came) / counts[filled])
    above.plot([0, 1], [0, 1], "--", color="grey", linewidth=1, label="perfect")
    above.errorbar(said, came, error, marker="o", capsize=3, label="the network, ± standard error")
    above.set(ylabel="share that came true", ylim=(-0.05, 1.05), title="Calibration")
    above.legend(loc="upper left", fontsize=8)
    below.bar(edges[:-1], counts, 1 / BINS, align="edge", edgecolor="white")
    below.set(xlabel=axis, ylabel="how often", xlim=(0, 1))
    below.xaxis.label.set_parse_math(False)  # a name may hold what matplotlib takes for a formula
    return png()


def residuals_png(y: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> bytes:
    """Draw predictions against targets (N, C), and how often which errors occur, for up to `MOST_OUTPUTS` outputs."""
    shown = min(len(names), MOST_OUTPUTS)
    figure, png = _figure(9, 3.6 * shown)
    every = figure.subplots(shown, 2, squeeze=False)
    some = np.linspace(0, len(y) - 1, min(len(y), MOST_POINTS)).astype(int)
    for (left, right), name, truth, said in zip(every, names[:shown], y.T, predicted.T, strict=True):
        left.plot(truth[some], said[some], ".", markersize=4, alpha=0.5)
        ends = [float(truth.min()), float(truth.max())]
        left.plot(ends, ends, "--", color="grey", linewidth=1)
        left.set(xlabel=f"{name}", ylabel="predicted")
        right.hist(said - truth, bins=min(40, max(5, int(len(y) ** 0.5))), edgecolor="white", linewidth=0.5)
        right.axvline(0, linestyle="--", color="grey", linewidth=1)
        right.set(xlabel="predicted - true", ylabel="rows")
        left.xaxis.label.set_parse_math(False)
    return png()


def confusion_png(matrix: np.ndarray) -> bytes:
    """Draw the confusion matrix (C, C) of many classes: the share of each class, its rows, by what it was taken for."""
    figure, png = _figure(6, 5)
    axes = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="share of the class")
    axes.set(xlabel="taken for class", ylabel="class", title="Confusion matrix")
    return png()


def _figure(width: float, height: float) -> tuple[Any, Any]:
    """Return a figure of so many inches, and a function that gives it as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)

    def png() -> bytes:
        buffer = io.BytesIO()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph", UserWarning)  # a sign of a name that the font lacks is a box
            figure.savefig(buffer, format="png")
        return buffer.getvalue()

    return figure, png
