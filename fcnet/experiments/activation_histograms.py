"""What becomes of activations on their way through five layers, by activation and initial weights.

1000 normal inputs through 5 layers of 100 units without biases. Source: Saito, "Deep Learning from Scratch", 6.2.2;
Glorot and Bengio, 2010.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import fcnet.functional as F
from fcnet.backends import Purpose, host_generator
from fcnet.experiments.base import Experiment, Settings, Table
from fcnet.experiments.drawing import COLOURS
from fcnet.nn.init import initial_weights, weight_std

LAYERS, UNITS, SAMPLES, BINS = 5, 100, 1000, 40
#: activation -> range of its histogram, and the values at which its gradient dies.
ACTIVATIONS = {"sigmoid": ((0.0, 1.0), (0.0, 1.0)), "tanh": ((-1.0, 1.0), (-1.0, 1.0)), "relu": ((1e-8, 1e6), (0.0,))}
LOGARITHMIC = {"relu"}  # activations without an upper bound: from std 1 they grow sevenfold from layer to layer
INITS: dict[str, tuple[str | None, float | None]] = {
    "std 1": (None, 1.0),
    "std 0.01": (None, 0.01),
    "Xavier": ("xavier", None),
    "He": ("he", None),
}
COUNTS = tuple(f"count_{i}" for i in range(BINS))


def run(settings: Settings) -> Table:
    """Return a row per activation, initialisation and layer.

    Mean, standard deviation, the share of values within 0.01 of where the gradient dies, the share that is 0, and the
    counts of a histogram of the others over the range low to high, which need not hold all of them; for ReLU the bins
    are of equal ratio, not width.
    """
    backend = settings.backend
    columns = "activation", "init", "layer", "mean", "std", "dead_or_saturated", "zero", "low", "high", *COUNTS
    table = Table(columns, [])
    inputs = host_generator(settings.seed, Purpose.DATA).standard_normal((SAMPLES, UNITS))
    for activation, ((low, high), ends) in ACTIVATIONS.items():
        for init, how in INITS.items():
            std, x = weight_std(*how, "xavier", UNITS), backend.asarray(inputs)
            for layer in range(1, LAYERS + 1):
                w = backend.asarray(initial_weights(settings.seed, layer, (UNITS, UNITS), std))
                x, _ = F.ACTIVATIONS[activation].forward(F.matmul(x, w))
                values = backend.to_numpy(x)
                at_ends = np.mean(np.min([abs(values - end) for end in ends], axis=0) < 0.01)
                counts, _ = np.histogram(values[values != 0], edges(activation, low, high))
                figures = (float(f) for f in (values.mean(), values.std(), at_ends, np.mean(values == 0), low, high))
                table.rows.append((activation, init, layer, *figures, *counts.tolist()))
            table.findings.append(f"{activation}, {init}: standard deviation {values.std():.4g} in layer {LAYERS}")
    return table


def edges(activation: str, low: float, high: float) -> np.ndarray:
    """Return the edges of the bins."""
    return np.geomspace(low, high, BINS + 1) if activation in LOGARITHMIC else np.linspace(low, high, BINS + 1)


def draw(figure: Any, table: Table) -> None:
    """Draw a panel per activation and initialisation, in it a histogram per layer, the first on top."""
    activations, inits = table.values("activation"), table.values("init")
    panels = figure.subplots(len(activations), len(inits), sharex="row", sharey=True)
    for row, activation in zip(panels, activations, strict=True):
        for axes, init in zip(row, inits, strict=True):
            _ridges(axes, table.where(activation=activation, init=init), activation)
            axes.set_title(f"{activation}, {init}", fontsize=10)
        row[0].set(yticks=[LAYERS - layer + 0.4 for layer in range(1, LAYERS + 1)], ylabel="layer")
        row[0].set_yticklabels([str(layer) for layer in range(1, LAYERS + 1)])
        for axes in row:
            axes.set_xlabel("activation (log scale)" if activation in LOGARITHMIC else "activation")
    figure.suptitle(
        f"Activations of {LAYERS} layers of {UNITS} units, by initial weights\n"
        "(σ: standard deviation; ReLU's zeros are left out, its axis is logarithmic)",
        fontsize=11,
    )


def _ridges(axes: Any, table: Table, activation: str) -> None:
    for row in range(LAYERS):
        part = table.where(layer=row + 1)
        low, high, std, zero = (part.column(name)[0] for name in ("low", "high", "std", "zero"))
        counts = np.array([part.column(name)[0] for name in COUNTS])
        base = LAYERS - 1 - row
        # Scaled to its peak, but never above what it would be if all values were in range and spread evenly.
        heights = base + 0.85 * counts / max(1, counts.max(), (1 - zero) * SAMPLES * UNITS / BINS)
        axes.stairs(heights, edges(activation, low, high), baseline=base, fill=True, color=COLOURS[0], alpha=0.75)
        axes.axhline(base, linewidth=0.6, color="black")
        box = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1}
        side = "left" if np.average(np.arange(BINS), weights=counts) > 0.6 * BINS else "right"  # where nothing is drawn
        place = 0.98 if side == "right" else 0.02, (base + 0.6) / LAYERS
        axes.text(*place, f"σ {std:.2g}", transform=axes.transAxes, ha=side, fontsize=7.5, bbox=box)
    axes.set(ylim=(0, LAYERS), xlim=(low, high), xscale="log" if activation in LOGARITHMIC else "linear")


EXPERIMENT = Experiment(
    "Activations of 5 layers: sigmoid, tanh, ReLU by std 1, std 0.01, Xavier, He.", run, draw, (8.4, 6.4)
)
