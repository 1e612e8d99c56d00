"""The gradients of a network with batch norm, analytic against numerical ones, parameter by parameter.

10 images of MNIST, 784-2x100-10, sigmoid, float64; central differences with h = 2e-5, where the rounding of the loss,
1e-16 / h, and the differences' own error, of order h², are equally small, about 1e-11. Source: Saito, "Deep Learning
from Scratch", 6.3, `batch_norm_gradient_check.py`. That takes ReLU and a single image, of which batch norm makes
nothing but 0: only the last gradients are checked then, and every ReLU is on its kink, where no difference is right.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fcnet.backends import Purpose, host_generator
from fcnet.experiments.base import Experiment, Settings, Table
from fcnet.experiments.drawing import COLOURS
from fcnet.experiments.training import mnist
from fcnet.nn.model import FullyConnectedNet
from fcnet.tools.gradcheck import numerical_gradient

IMAGES, H = 10, 2e-5
LEAST = 1e-14  # what is drawn of smaller differences, such as 0


def run(settings: Settings) -> Table:
    """Return a row per parameter: how many elements were checked, and the mean size of gradient and difference."""
    most = 20 if settings.quick else 500
    dataset = mnist(settings, IMAGES)
    X = dataset.X_train.reshape(IMAGES, -1) / 255
    model = FullyConnectedNet(
        [100, 100],
        dataset.input_dim,
        dataset.num_classes,
        activation="sigmoid",
        normalization="batchnorm",
        dtype="float64",
        seed=settings.seed,
        device=settings.backend,
    )
    table = settings.table("parameter", "elements", "mean_gradient", "mean_difference", "largest_difference")
    _, gradients = model.loss(X, dataset.y_train)
    rng = host_generator(settings.seed, Purpose.DATA)
    counts = {name: min(most, int(np.prod(shape))) for name, shape in model.params.shapes.items()}
    with settings.progress(2 * sum(counts.values())) as progress:
        for name, count in counts.items():
            value = np.array(settings.backend.to_numpy(model.params[name]))
            picked = rng.choice(value.size, count, replace=False)

            def loss(elements: np.ndarray, name: str = name, value: Any = value, picked: Any = picked) -> float:
                value.reshape(-1)[picked] = elements
                model.params[name] = value
                now, _ = model.loss(X, dataset.y_train)
                progress.advance(IMAGES, lambda: now)
                return now

            start = value.reshape(-1)[picked]
            numerical = numerical_gradient(loss, start.copy(), h=H)
            loss(start)
            analytic = settings.backend.to_numpy(gradients[name]).reshape(-1)[picked]
            off = np.abs(analytic - numerical)
            table.rows.append((name, count, *(float(f) for f in (np.abs(analytic).mean(), off.mean(), off.max()))))
            table.findings.append(f"{name}: mean difference {off.mean():.1e} of {count} elements")
    return table


def draw(figure: Any, table: Table) -> None:
    """Draw both means by parameter."""
    axes, names = figure.subplots(), table.column("parameter")
    for column, label, colour, marker in (
        ("mean_gradient", "analytic gradient", COLOURS[0], "o"),
        ("mean_difference", "analytic less numerical", COLOURS[1], "s"),
    ):
        sizes = np.maximum(table.column(column), LEAST)
        axes.plot(range(len(names)), sizes, marker, color=colour, markersize=8, label=label)
    for at, gradient in enumerate(table.column("mean_gradient")):
        if gradient < LEAST:
            axes.annotate("both 0", (at, LEAST), xytext=(0, 8), textcoords="offset points", ha="center", fontsize=9)
    axes.set(yscale="log", ylim=(LEAST / 3, 10), xlabel="parameter", ylabel="mean size (log scale)")
    axes.set_xticks(range(len(names)), names)
    axes.grid(alpha=0.25)
    axes.legend(loc="center right")
    axes.set_title(
        f"Gradients with batch norm, {IMAGES} images of MNIST, 784-2x100-10, sigmoid\n"
        "(batch norm takes the biases before it, b1 and b2, off again)",
        fontsize=11,
    )


EXPERIMENT = Experiment("Gradients with batch norm, analytic against numerical ones.", run, draw, (6.4, 4))
