"""A network with far too many parameters for 300 images, with and without a remedy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fcnet.errors import counted
from fcnet.experiments.base import Settings, Table
from fcnet.experiments.drawing import accuracy_curves
from fcnet.experiments.training import accuracy, mnist, train, trainer

IMAGES, BATCH = 300, 100


def compare(settings: Settings, column: str, nets: Mapping[str, Mapping[str, Any]], epochs: int) -> Table:
    """Return a row per net and epoch: the accuracies on the 300 training images and on the test images.

    784-6x100-10, ReLU, He, SGD 0.01, batches of 100.

    Args:
        nets: name -> keywords of `FullyConnectedNet`. column: what the names are.
    """
    dataset = mnist(settings, IMAGES)
    epochs = 3 if settings.quick else epochs
    per_epoch = IMAGES // BATCH
    table = settings.table(column, "epoch", "train_acc", "test_acc")
    with settings.progress(len(nets) * epochs * per_epoch) as progress:
        for name, net in nets.items():
            solver = trainer(settings, dataset, 6, net, batch_size=BATCH, update_rule="sgd")
            for epoch in range(1, epochs + 1):
                train(solver, per_epoch, progress)
                table.rows.append((name, epoch, accuracy(solver, "train"), accuracy(solver, "test")))
            *_, train_acc, test_acc = table.rows[-1]
            table.findings.append(
                f"{name}: train {train_acc:.4f}, test {test_acc:.4f}, gap {train_acc - test_acc:.4f} "
                f"after {counted(epochs, 'epoch')}"
            )
    table.findings += [price(table)] if price(table) else []
    return table


def draw(figure: Any, table: Table) -> None:
    """Draw a panel per net: both accuracies over the epochs."""
    column = table.columns[0]
    names = table.values(column)
    panels = figure.subplots(1, len(names), sharey=True)
    for axes, name in zip(panels, names, strict=True):
        part = table.where(**{column: name})
        gap = part.column("train_acc")[-1] - part.column("test_acc")[-1]
        lines = {"train_acc": f"train ({IMAGES} images)", "test_acc": "test"}
        accuracy_curves(axes, part, lines, f"{name}\ngap {gap:.2f} in the end")
    panels[0].set_ylabel("accuracy")
    panels[-1].legend(loc="lower right")
    caption = f"Overfitting {IMAGES} images of MNIST, 784-6x100-10, SGD 0.01\n{price(table)}".strip()
    figure.suptitle(caption, fontsize=11)


def price(table: Table) -> str:
    """Return where the final test accuracy falls below that of the first net; "" if nowhere."""
    column = table.columns[0]
    first, *others = (table.where(**{column: name}).column("test_acc")[-1] for name in table.values(column))
    lower = [f"{other:.2f}" for other in others if other < first]
    return f"the test accuracy falls, too, from {first:.2f} to {' and '.join(lower)}" if lower else ""
