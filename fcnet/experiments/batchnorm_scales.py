"""Learning with and without batch norm from 16 scales of initial weights.

1000 images of MNIST, 784-5x100-10, SGD 0.01, batches of 100. Source: Saito, "Deep Learning from Scratch", 6.3.2.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fcnet.errors import counted
from fcnet.experiments.base import Experiment, Settings, Table
from fcnet.experiments.drawing import COLOURS
from fcnet.experiments.training import accuracy, mnist, train, trainer

NORMS = {"with batch norm": "batchnorm", "without": None}


def run(settings: Settings) -> Table:
    """Return a row per scale, net and epoch: the accuracy on the training images."""
    count, epochs, scales = (300, 2, 3) if settings.quick else (1000, 20, 16)
    dataset = mnist(settings, count)
    per_epoch = count // 100
    table = settings.table("weight_scale", "net", "epoch", "train_acc")
    with settings.progress(scales * len(NORMS) * epochs * per_epoch) as progress:
        for scale in np.logspace(0, -4, scales).tolist():
            for name, normalization in NORMS.items():
                net = {"normalization": normalization, "weight_scale": scale}
                solver = trainer(settings, dataset, 5, net, batch_size=100, update_rule="sgd")
                for epoch in range(1, epochs + 1):
                    train(solver, per_epoch, progress)
                    table.rows.append((scale, name, epoch, accuracy(solver, "train")))
    for name in NORMS:
        last = table.where(net=name, epoch=epochs).column("train_acc")
        learned = sum(acc > 0.5 for acc in last)
        table.findings.append(
            f"{name}: {learned} of {scales} scales above 0.5 training accuracy after {counted(epochs, 'epoch')}"
        )
    return table


def draw(figure: Any, table: Table) -> None:
    """Draw a panel per scale."""
    scales = table.values("weight_scale")
    columns = min(4, len(scales))
    rows = -(-len(scales) // columns)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes, scale in zip(panels.flat, scales, strict=False):
        for name, colour, style in zip(NORMS, COLOURS, ("-", "--"), strict=False):
            part = table.where(weight_scale=scale, net=name)
            axes.plot(part.column("epoch"), part.column("train_acc"), style, color=colour, linewidth=1.8, label=name)
        axes.set_title(f"weight std {scale:.2g}", fontsize=10)
        axes.set_ylim(0, 1.03)
        axes.grid(alpha=0.25)
    for axes in panels[-1]:
        axes.set_xlabel("epoch")
    for axes in panels[:, 0]:
        axes.set_ylabel("training accuracy")
    lines, title = panels[0, 0].get_legend_handles_labels(), "1000 images of MNIST, 784-5x100-10, ReLU, SGD 0.01"
    figure.legend(*lines, title=title, loc="outside upper center", ncols=2)


EXPERIMENT = Experiment("Learning with and without batch norm from 16 scales of weights.", run, draw, (7.6, 6.6))
