"""A random search of learning rate and weight decay, both log-uniform.

400 training and 100 validation images of MNIST, 784-6x100-10, SGD, batches of 100. Source: Saito, "Deep Learning from
Scratch", 6.5.3; that random beats grid search: Bergstra and Bengio, 2012.
"""

from __future__ import annotations

from typing import Any

from fcnet.backends import Purpose, host_generator
from fcnet.data import Dataset
from fcnet.experiments.base import Experiment, Settings, Table
from fcnet.experiments.drawing import COLOURS
from fcnet.experiments.training import accuracy, mnist, train, trainer

RATES, DECAYS = (-6, -2), (-8, -4)  # exponents of 10
SHOWN, ACROSS, PLANE = 20, 5, 4  # best trials in all and in a row; the plane is as wide as so many
LINES = ("val_acc", "validation", "-", COLOURS[0]), ("train_acc", "training", "--", COLOURS[1])


def run(settings: Settings) -> Table:
    """Return a row per trial and epoch: rate, weight decay and both accuracies."""
    trials, epochs = (4, 2) if settings.quick else (100, 50)
    full = mnist(settings, 500)
    dataset = Dataset(
        X_train=full.X_train[100:],
        y_train=full.y_train[100:],
        X_val=full.X_train[:100],
        y_val=full.y_train[:100],
        name=full.name,
        preprocess=full.preprocess,
    )
    per_epoch = 4
    table = settings.table("trial", "learning_rate", "weight_decay", "epoch", "train_acc", "val_acc")
    with settings.progress(trials * epochs * per_epoch) as progress:
        for trial in range(1, trials + 1):
            rate, decay = parameters(settings.seed, trial)
            options = {"update_rule": "sgd", "optim_config": {"learning_rate": rate}}
            solver = trainer(settings, dataset, 6, {"reg": decay}, batch_size=100, **options)
            for epoch in range(1, epochs + 1):
                train(solver, per_epoch, progress)
                accuracies = accuracy(solver, "train"), accuracy(solver, "val")
                table.rows.append((trial, rate, decay, epoch, *accuracies))
    for trial in best_trials(table)[:SHOWN]:
        _, rate, decay, _, _, val_acc = table.where(trial=trial).rows[-1]
        table.findings.append(
            f"trial {trial}: validation accuracy {val_acc:.2f}, learning rate {rate:.2e}, weight decay {decay:.2e}"
        )
    return table


def parameters(seed: int, trial: int) -> tuple[float, float]:
    """Return learning rate and weight decay of a trial."""
    rng = host_generator(seed, Purpose.DATA, step=trial)
    return 10 ** rng.uniform(*RATES), 10 ** rng.uniform(*DECAYS)


def best_trials(table: Table) -> list[int]:
    """Return the trials by validation accuracy in the end, the best first."""
    last = {row[0]: row[-1] for row in table.rows}
    return sorted(last, key=lambda trial: -last[trial])


def draw(figure: Any, table: Table) -> None:
    """Draw all trials in the plane of both parameters, and both accuracies over the epochs of each of the best."""
    best, last = best_trials(table)[:SHOWN], table.where(epoch=max(table.column("epoch")))
    grid = figure.add_gridspec(-(-len(best) // ACROSS), PLANE + ACROSS)
    plane, accuracies = figure.add_subplot(grid[:, :PLANE]), last.column("val_acc")
    points = plane.scatter(
        last.column("learning_rate"), last.column("weight_decay"), c=accuracies, cmap="viridis", vmin=0, s=30,
        edgecolors="black", linewidths=0.4,
    )  # fmt: skip
    plane.set(xscale="log", yscale="log", xlabel="learning rate", ylabel="weight decay")
    label = f"validation accuracy in the end of {len(accuracies)} random trials"
    figure.colorbar(points, ax=plane, label=label, location="top")
    axes: Any = None
    below = len(best) - ACROSS
    for at, trial in enumerate(best):
        axes = figure.add_subplot(grid[at // ACROSS, PLANE + at % ACROSS], sharex=axes, sharey=axes)
        part = table.where(trial=trial)
        for column, label, style, colour in LINES:
            axes.plot(part.column("epoch"), part.column(column), style, color=colour, linewidth=1.4, label=label)
        rate, val_acc = part.column("learning_rate")[0], part.column("val_acc")[-1]
        axes.set_title(f"{at + 1}: {val_acc:.2f}, {rate:.1e}", fontsize=7)
        axes.set(ylim=(0, 1.03), yticks=(0, 0.5, 1), xlabel="epoch" if at >= below else "")
        axes.tick_params(labelsize=8, labelleft=at % ACROSS == 0, labelbottom=at >= below)
        axes.grid(alpha=0.25)
    title = f"accuracies of the best {len(best)} (rank: validation in the end, learning rate)"
    figure.legend(*axes.get_legend_handles_labels(), title=title, loc="outside upper right", ncols=2)


EXPERIMENT = Experiment("Random search of learning rate and weight decay on MNIST.", run, draw, (9.4, 5))
