"""The paths that four optimizers take down a long valley, f(x, y) = x²/20 + y², from (-7, 2).

By the book's rules (`fcnet.compat.dlfs`), whose end points are known. Source: Saito, "Deep Learning from Scratch", 6.1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fcnet.compat.dlfs import SGD, AdaGrad, Adam, Momentum
from fcnet.experiments.base import Experiment, Settings, Table
from fcnet.experiments.drawing import COLOURS

START = -7.0, 2.0
UPDATES = 30
OPTIMIZERS = {"SGD": (SGD, 0.95), "Momentum": (Momentum, 0.1), "AdaGrad": (AdaGrad, 1.5), "Adam": (Adam, 0.3)}


def height(x: Any, y: Any) -> Any:
    """Return f(x, y)."""
    return x**2 / 20 + y**2


def run(settings: Settings) -> Table:
    """Return a row per optimizer and update: where it is then, and how high."""
    backend = settings.backend
    slope = backend.asarray(np.array([1 / 10, 2.0]))  # the gradient is (x/10, 2y)
    table = Table(("optimizer", "update", "x", "y", "f"), [])
    for name, (kind, rate) in OPTIMIZERS.items():
        optimizer, params = kind(lr=rate), {"position": backend.asarray(np.array(START))}
        for update in range(UPDATES + 1):
            if update:
                optimizer.update(params, {"position": params["position"] * slope})
            x, y = backend.to_numpy(params["position"]).tolist()
            table.rows.append((name, update, x, y, height(x, y)))
        table.findings.append(f"{name} ends at ({x:.6f}, {y:.6f})")
    return table


def draw(figure: Any, table: Table) -> None:
    """Draw a map of the valley for each optimizer, with its path."""
    across, along = np.meshgrid(np.linspace(-10, 10, 201), np.linspace(-4, 4, 161))
    panels = figure.subplots(2, 2, sharex=True, sharey=True)
    for axes, name in zip(panels.flat, table.values("optimizer"), strict=True):
        path = table.where(optimizer=name)
        x, y = path.column("x"), path.column("y")
        levels = [0.05, 0.2, 0.5, 1, 2, 3, 4.5, 6, 8, 11, 15]
        axes.set_xticks(range(-10, 11, 5))
        axes.contour(across, along, height(across, along), levels, colors="grey", linewidths=0.6, alpha=0.7)
        axes.plot(x, y, marker="o", markersize=3.5, linewidth=1.2, color=COLOURS[1], label="path")
        axes.plot(x[0], y[0], marker="s", markersize=8, linestyle="", color=COLOURS[0], label="start (-7, 2)")
        axes.plot(0, 0, marker="*", markersize=12, linestyle="", color=COLOURS[2], label="minimum")
        rate = OPTIMIZERS[name][1]
        axes.set_title(f"{name} {rate:g}: ends at ({x[-1]:.2f}, {y[-1]:.2f})", fontsize=10)
    for axes in panels[-1]:
        axes.set_xlabel("x")
    for axes in panels[:, 0]:
        axes.set_ylabel("y")
    panels[0, 0].legend(loc="upper right", fontsize=8)
    figure.suptitle(f"{UPDATES} updates on f(x, y) = x²/20 + y² (grey: lines of equal height)")


EXPERIMENT = Experiment("Paths of SGD, momentum, AdaGrad and Adam on x²/20 + y².", run, draw, (7.4, 5.2))
