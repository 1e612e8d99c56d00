"""What the pictures have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fcnet.compat.dlfs import smooth_curve
from fcnet.experiments.base import Table

#: Told apart by people who see colours differently. Source: Okabe and Ito, "Color Universal Design", 2008.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
PASSES = 8  # of the book's smoothing, over a curve of some 2000 steps


def loss_curves(figure: Any, table: Table, column: str, title: str, labels: Mapping[str, str] | None = None) -> None:
    """Draw smoothed losses over the steps, a line for each value of a column, under its name or that in `labels`."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axes, lowest = figure.subplots(), []
    for name, colour in zip(table.values(column), COLOURS, strict=False):
        part = table.where(**{column: name})
        steps, losses = part.column("step"), np.array(part.column("loss"))
        smooth = losses
        for _ in range(PASSES):
            smooth = smooth_curve(smooth)
        axes.plot(steps, losses, color=colour, linewidth=0.4, alpha=0.15)
        axes.plot(steps, smooth, color=colour, linewidth=1.8, label=(labels or {}).get(name, name))
        lowest.append(smooth.min())
    axes.set(xlabel="training step", ylabel="loss (log scale)", yscale="log", title=title)
    axes.set(xlim=(0, steps[-1]), ylim=(min(lowest) / 2, None))
    # A curve may stay within a decade, where Matplotlib writes 6 x 10^-1 and the like.
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.25)
    axes.legend(title=column, loc="best")


def accuracy_curves(axes: Any, table: Table, lines: dict[str, str], title: str) -> None:
    """Draw accuracies over the epochs: `lines` gives the columns their labels."""
    for (column, label), colour in zip(lines.items(), COLOURS, strict=False):
        axes.plot(table.column("epoch"), table.column(column), color=colour, linewidth=1.6, label=label)
    axes.set(xlabel="epoch", ylim=(0, 1.03))
    axes.set_title(title, fontsize=11)
    axes.grid(alpha=0.25)
