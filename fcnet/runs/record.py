"""What a run directory keeps of a training: plain values, so that `fcnet.runs` does not depend on what trains."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Record:
    """Record a training that is over, or was cut short.

    Attributes:
        model: gives the content of the network's file.
        options: the configuration, in the spelling of TOML.
        history: a row per epoch. losses: of each step.
        metric: its name, for people. train_metric, val_metric: the figure after each epoch.
        best: epoch and figure of the best epoch, or None before the first has ended.
        interrupted: how far it came, if it was cut short: "interrupted after epoch 2 of 9".
        columns: of the history, which may have no rows. message: what the method said of its end, if it did.
    """

    model: Callable[[], bytes]
    options: Mapping[str, Any]
    history: Sequence[Mapping[str, float]]
    losses: Sequence[float]
    metric: str
    train_metric: Sequence[float]
    val_metric: Sequence[float]
    best: tuple[int, float] | None
    interrupted: str | None
    columns: Sequence[str] = ()
    message: str | None = None


def history_csv(record: Record) -> str:
    """Return the history as CSV with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(
        text, record.columns or [name for row in record.history[:1] for name in row], lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(record.history)
    return text.getvalue()


def curves_png(record: Record) -> bytes:
    """Draw loss and metric over the epochs as a PNG. Raises ImportError without matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    losses, title = record.losses, record.metric
    last = record.history[-1] if record.history else {"epoch": 1}
    per_epoch = last.get("step", len(losses)) / last["epoch"]  # an epoch cut short has losses and no row
    left.plot([i / per_epoch for i in range(1, len(losses) + 1)], losses, linewidth=0.5, alpha=0.4, label="step")
    epochs = [row["epoch"] for row in record.history]
    left.plot(epochs, [row["loss"] for row in record.history], marker="o", markersize=3, label="epoch mean")
    scale = "log" if max(losses, default=0.0) > 0 else "linear"  # a loss of 0 throughout has no logarithm
    left.set(xlabel="epoch", ylabel="loss", title="Training loss", yscale=scale)
    left.legend()
    right.plot(epochs, record.train_metric, marker="o", markersize=3, label="train")
    right.plot(epochs, record.val_metric, marker="o", markersize=3, label="validation")
    if record.best is not None:
        epoch, figure_of_it = record.best
        why, caption = "best validation", f"best {figure_of_it:.5g}, epoch {epoch}"
        if not math.isfinite(figure_of_it):
            why, caption = "least training loss", f"{figure_of_it}; epoch {epoch} by its loss"
        right.axvline(epoch, linewidth=0.8, linestyle=":", color="grey", label=why)
        right.set_title(f"{title[:1].upper()}{title[1:]} ({caption})")
    right.set(xlabel="epoch", ylabel=title)
    right.legend(loc="best")
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()
