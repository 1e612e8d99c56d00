"""MNIST, and networks trained on it, as the experiments need them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

import fcnet.data as data
from fcnet.backends import Purpose, host_generator
from fcnet.data import Dataset
from fcnet.experiments.base import Settings, Table
from fcnet.nn.model import FullyConnectedNet
from fcnet.progress import Progress
from fcnet.training.solver import Solver

LAST = 20  # steps over which the loss in the end is a mean


def mnist(settings: Settings, count: int | None = None) -> Dataset:
    """Return MNIST with pixels from 0 to 1 and its first `count` training images; something made up when `quick`.

    Raises:
        FileNotFoundError: the files are not there; the message says how to get them.
    """
    full = _made_up() if settings.quick else data.load("mnist", data_dir=settings.data_dir)
    return Dataset(
        X_train=full.X_train[:count],
        y_train=full.y_train[:count],
        X_val=full.X_val,
        y_val=full.y_val,
        X_test=full.X_test,
        y_test=full.y_test,
        name=full.name,
        preprocess="scale",
    )


def _made_up(pixels: int = 64, classes: int = 10) -> Dataset:
    """Make ten blurred shapes under noise, as bytes."""
    rng = host_generator(0, Purpose.DATA)
    shapes = rng.integers(40, 216, (classes, pixels))
    parts: dict[str, Any] = {}
    for part, count in (("train", 600), ("val", 100), ("test", 100)):
        y = np.arange(count) % classes
        noisy = shapes[y] + 40 * rng.standard_normal((count, pixels))
        parts |= {f"X_{part}": noisy.clip(0, 255).astype(np.uint8), f"y_{part}": y}
    return Dataset(**parts, name="made up")


def trainer(
    settings: Settings,
    dataset: Dataset,
    hidden: int,
    net: Mapping[str, Any] | None = None,
    **options: Any,
) -> Solver:
    """Return a Solver with a network of its own, of `hidden` layers of 100 units; the same weights for the same seed.

    Args:
        net: keywords of `FullyConnectedNet`. options: keywords of `Solver`; the rate is constant, as in the courses.
    """
    model = FullyConnectedNet(
        [100] * hidden,
        dataset.input_dim,
        dataset.num_classes,
        seed=settings.seed,
        device=settings.backend,
        **(net or {}),
    )
    return Solver(model, dataset, seed=settings.seed, verbose=False, **({"schedule": "constant"} | options))


def train(solver: Solver, steps: int, progress: Progress) -> None:
    """Make `steps` steps; a loss that is no longer finite does not stop them."""
    size = solver.batch_size
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for _ in range(steps):
            solver.step()
            progress.advance(size, lambda: solver.loss_history[-1])


def accuracy(solver: Solver, part: str) -> float:
    """Return the network's present accuracy on a part of the solver's data."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return solver.check_accuracy(*solver.data.splits()[part])


def compare_losses(settings: Settings, variants: Mapping[str, Mapping[str, Any]], column: str) -> Table:
    """Return the loss of each of 2000 steps, for nets 784-4x100-10 that differ in one thing, on the same batches.

    Args:
        variants: name -> keywords of `trainer`. column: what the names are.
    """
    dataset, steps = mnist(settings), 30 if settings.quick else 2000
    table = settings.table(column, "step", "loss")
    with settings.progress(steps * len(variants)) as progress:
        for name, options in variants.items():
            solver = trainer(settings, dataset, 4, batch_size=128, **options)
            train(solver, steps, progress)
            losses = solver.loss_history
            table.rows += [(name, step, loss) for step, loss in enumerate(losses, 1)]
            table.findings.append(
                f"{name}: mean loss of the last {LAST} steps {np.mean(losses[-LAST:]):.4f}, "
                f"test accuracy {accuracy(solver, 'test'):.4f}"
            )
    return table
