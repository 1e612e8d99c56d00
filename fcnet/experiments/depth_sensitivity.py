"""How much harder it is to find a weight scale and a rate for five layers than for three.

Both networks are to overfit 50 images of MNIST in 20 epochs of SGD, from a grid of scales and rates. Source: CS231n,
assignment 2, FullyConnectedNets, inline question 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fcnet.experiments.base import Experiment, Settings, Table
from fcnet.experiments.drawing import COLOURS
from fcnet.experiments.training import accuracy, mnist, train, trainer

NETS = {"three layers": 2, "five layers": 4}  # name -> hidden layers of 100 units
IMAGES, BATCH = 50, 25
OVERFITTED = 0.95  # training accuracy


def run(settings: Settings) -> Table:
    """Return a row per network, weight scale and rate: the accuracy on the 50 images in the end."""
    scales, rates, epochs = (3, 2, 2) if settings.quick else (25, 9, 20)
    dataset = mnist(settings, IMAGES)
    steps = epochs * IMAGES // BATCH
    table = settings.table("net", "weight_scale", "learning_rate", "train_acc")
    with settings.progress(len(NETS) * scales * rates * steps) as progress:
        for name, hidden in NETS.items():
            for scale in np.logspace(-3, 0, scales).tolist():
                for rate in np.logspace(-4, 0, rates).tolist():
                    options = {"update_rule": "sgd", "optim_config": {"learning_rate": rate}}
                    net = {"weight_scale": scale}
                    solver = trainer(settings, dataset, hidden, net, batch_size=BATCH, **options)
                    train(solver, steps, progress)
                    table.rows.append((name, scale, rate, accuracy(solver, "train")))
            most = max(working_scales(table, name))
            table.findings.append(f"{name}: at the most forgiving rate, {most} of {scales} weight scales work")
    return table


def working_scales(table: Table, net: str) -> list[int]:
    """Count, for each rate, with how many of the weight scales the network overfits the images."""
    mine = table.where(net=net)
    return [
        sum(accuracy > OVERFITTED for accuracy in mine.where(learning_rate=rate).column("train_acc"))
        for rate in table.values("learning_rate")
    ]


def draw(figure: Any, table: Table) -> None:
    """Draw a map of the accuracy for each network, and the number of scales that work by rate."""
    scales, rates = table.values("weight_scale"), table.values("learning_rate")
    *maps, counts = figure.subplots(1, len(NETS) + 1)
    for axes, name, colour in zip(maps, NETS, COLOURS, strict=False):
        grid = np.reshape(table.where(net=name).column("train_acc"), (len(scales), len(rates)))
        mesh = axes.pcolormesh(scales, rates, grid.T, vmin=0, vmax=1, cmap="viridis", shading="nearest")
        axes.set(xscale="log", yscale="log", xlabel="std of the initial weights", title=name)
        counts.plot(rates, working_scales(table, name), marker="o", markersize=4, color=colour, label=name)
    maps[0].set_ylabel("learning rate")
    figure.colorbar(mesh, ax=maps, label="training accuracy", location="right")
    counts.set(xscale="log", xlabel="learning rate", ylabel=f"weight scales of {len(scales)} above {OVERFITTED}")
    counts.set(title="scales that work, by rate", ylim=(0, 1.35 * max(1, counts.dataLim.y1)))  # room for the legend
    counts.grid(alpha=0.25)
    counts.legend(loc="upper left")
    figure.suptitle(f"Overfitting {IMAGES} images of MNIST in 20 epochs of SGD")


EXPERIMENT = Experiment("Three layers against five: sensitivity to the weight scale.", run, draw, (9.4, 3.6))
