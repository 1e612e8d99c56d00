"""Pictures of the diagnostics, as PNG. Each raises ImportError without matplotlib (extra `plot`)."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fcnet.tools.diagnostics.activations import LayerStatistics
from fcnet.tools.diagnostics.rates import LrRange

SPIKE = 3  # times the next bin that the highest one must be to be cut off
COLUMNS = 5


def lr_range_png(found: LrRange, title: str) -> bytes:
    """Draw loss against learning rate, with the suggestion."""
    figure, png = _figure(7, 4)
    axes = figure.subplots()
    axes.plot(found.rates, found.losses, linewidth=0.7, alpha=0.4, color="C0", label="loss of each step")
    axes.plot(found.rates, found.smoothed, linewidth=2, color="C0", label="smoothed")
    least = int(np.argmin(found.smoothed))
    axes.plot(found.rates[least], found.smoothed[least], "o", color="C1", label=f"least, at {found.rates[least]:.2g}")
    if found.suggestion is not None:
        axes.axvline(found.suggestion, color="C2", linestyle="--", label=f"suggestion: {found.suggestion:.2g}")
    # What comes after the divergence would squeeze the part that matters.
    low, start = min(found.smoothed), found.smoothed[0]
    axes.set_ylim(low - 0.1 * (start - low) - 0.02 * abs(start), start + 0.8 * (start - low) + 0.1 * abs(start))
    axes.set(xscale="log", xlabel="learning rate", ylabel="training loss", title=title)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", fontsize=8)
    return png()


def activations_png(statistics: Sequence[LayerStatistics], title: str) -> bytes:
    """Return a histogram for each hidden layer."""
    columns = min(COLUMNS, len(statistics))
    rows = math.ceil(len(statistics) / columns)
    figure, png = _figure(max(2.6 * columns, 6), 0.5 + 2.7 * rows)
    figure.suptitle(title)
    every = figure.subplots(rows, columns, squeeze=False).ravel()
    # One range of activations for all, so that a spread that shrinks or grows from layer to layer is seen.
    low, high = min(layer.edges[0] for layer in statistics), max(layer.edges[-1] for layer in statistics)
    for number, (axes, layer) in enumerate(zip(every, statistics, strict=False)):
        _histogram(axes, layer)
        axes.set_xlim(low - 0.03 * (high - low), high + 0.03 * (high - low))
        if number % columns == 0:
            axes.set_ylabel("share of activations")
    for axes in every[len(statistics) :]:
        axes.set_visible(False)
    return png()


def _histogram(axes: Any, layer: LayerStatistics) -> None:
    shares = layer.counts / max(1, layer.counts.sum())
    axes.bar(layer.edges[:-1], shares, np.diff(layer.edges), align="edge", color="C0")
    highest, next_highest = np.sort(shares)[:-3:-1]
    if next_highest and highest > SPIKE * next_highest:  # such as the zeros of ReLU
        axes.set_ylim(0, 1.4 * next_highest)
        at = float(layer.edges[int(np.argmax(shares))])
        axes.annotate(
            f" bar of {100 * highest:.0f} %, cut off",
            (at, 1.36 * next_highest),
            va="top",
            fontsize=8,
            color="C3",
        )
    lines = [f"layer {layer.layer}: {layer.units} {layer.activation}", f"mean {layer.mean:.2g}, std {layer.std:.2g}"]
    if layer.dead is not None:
        lines.append(f"{100 * layer.dead:.1f} % of the units dead")
    if layer.saturated is not None:
        lines.append(f"{100 * layer.saturated:.1f} % saturated")
    axes.set_title("\n".join(lines), fontsize=9)
    axes.set_xlabel("activation")


def _figure(width: float, height: float) -> tuple[Any, Any]:
    """Return a figure of so many inches, and a function that gives it as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)

    def png() -> bytes:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        return buffer.getvalue()

    return figure, png
