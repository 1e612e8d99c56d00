"""`fcnet evaluate`: how good a trained network is, in all and by class or output."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from fcnet.cli.parser import Parser, say
from fcnet.cli.reports import as_flags
from fcnet.errors import counted
from fcnet.runs.options import names_of
from fcnet.runs.rundir import trained_on

if TYPE_CHECKING:
    import numpy as np

    from fcnet.functional import Metric
    from fcnet.nn.model import FullyConnectedNet


def add(parser: Parser) -> None:
    """Declare the arguments and flags."""
    parser.add_argument("model", metavar="RUN", help="a run directory or a model file")
    parser.add_argument(
        "--data", metavar="NAME|FILE", help="another data set, or a .csv or .npz file, which is used whole"
    )
    parser.add_argument(
        "--data-dir",
        metavar="FOLDER",
        help="where the data files are (default: as in training, $FCNET_DATA, then the user cache)",
    )
    parser.add_argument(
        "--target", metavar="NAME", help="the column of a .csv file that holds labels or numbers (several: a,b)"
    )
    parser.add_argument("--split", metavar="NAME", help="train, val or test, of a data set (default: test)")
    parser.add_argument("--device", metavar="NAME", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.names |= {"data": names_of("data"), "split": ("train", "val", "test"), "device": names_of("device")}


def run(options: argparse.Namespace) -> int:
    """Print a row per class or output, then the accuracy, rmse or label accuracy."""
    from pathlib import Path

    from fcnet import load
    from fcnet.data import inputs
    from fcnet.nn.objective import kind_of_targets

    model = load(options.model, device=options.device)
    known = trained_on(options.model)
    source = options.data or known.get("data")
    if source is None:
        raise ValueError(f"data: {options.model} does not say what it was trained on; name a data set with --data")
    target = options.target or known.get("target")
    targets = kind_of_targets(model.loss_name)
    expected = inputs.Names(model.input_dim, model.num_classes, model.features, model.classes, targets)
    if options.data is not None and inputs.is_file(source):
        inputs.check_split(source, options.split)
        what = part = ""
        X, y = inputs.labelled(source, target, expected)
    else:
        if inputs.is_file(source) and not Path(source).is_file():
            raise FileNotFoundError(
                f"data: {source} is not there, and {options.model} was trained on it; name another with --data"
            )
        data_dir = options.data_dir or known.get("data-dir")
        with as_flags(data_dir="data-dir", split="split"):
            split, X, y = inputs.part(source, options.split, expected, data_dir, target)
        what = f", {split}" if options.split or split == "test" else f", {split} (it has no test part)"
        part = f"{split} "
    if model.loss_name == "bce":
        inputs.check_probabilities(source, target, [y])
    with inputs.naming(source):
        model.objective.check_targets("y", y, len(X), model.dtype)
        predicted = model.predict(X)
    say(f"{source}{what}: {counted(len(y), 'sample')}")
    report = _outputs if targets == "numbers" else _classes
    say(f"{part}{report(model, predicted, y)}")
    return 0


def _classes(model: FullyConnectedNet, predicted: np.ndarray, y: np.ndarray) -> str:
    """Print the accuracy by class; the accuracy in all."""
    y = y.argmax(axis=1) if y.ndim == 2 else y
    right = predicted == y
    names = model.classes or [str(number) for number in range(model.num_classes)]
    width = max(5, *(len(name) for name in names))
    say(f"{'class':<{width}}  samples  accuracy")
    for number, name in enumerate(names):
        mine = right[y == number]
        say(f"{name:<{width}}  {len(mine):7}  {f'{mine.mean():.4f}' if len(mine) else '-':>8}")
    return f"accuracy {right.mean():.4f}"


def _outputs(model: FullyConnectedNet, predicted: np.ndarray, y: np.ndarray) -> str:
    """Print the rmse or the share of right labels by output, if there are several; that in all."""
    for line in by_output(model, predicted, y):
        say(line)
    return f"{model.objective.metric.title} {_figure(model, predicted, y, slice(None))}"


def by_output(model: FullyConnectedNet, predicted: np.ndarray, y: np.ndarray, part: str = "") -> list[str]:
    """A table of the rmse or the share of right labels of each output, whose sizes may differ; empty for one output."""
    count = model.num_classes
    if count == 1:
        return []
    names = model.classes or [str(number) for number in range(count)]
    width = max(6, *(len(name) for name in names))
    rows = [
        f"{name:<{width}}  {_figure(model, predicted, y, slice(number, number + 1))}"
        for number, name in enumerate(names)
    ]
    return [f"{'output':<{width}}  {part}{model.objective.metric.title}", *rows]


def _figure(model: FullyConnectedNet, predicted: np.ndarray, y: np.ndarray, columns: slice) -> str:
    """The metric of these outputs, for people."""
    metric = model.objective.metric
    # predictions of 0 and 1, less 1/2: scores on the side of 0 that they mean
    scores = predicted.reshape(len(y), -1)[:, columns] - (0.5 if model.loss_name == "bce" else 0.0)
    total = metric.total(scores, y.reshape(len(y), -1)[:, columns].astype("float64"))
    return spelled(metric, metric.figure(float(total), *scores.shape))


def spelled(metric: Metric, figure: float) -> str:
    """A figure for people: four places, or four digits of one in the targets' unit that is smaller than 1."""
    return f"{figure:.4g}" if metric.smaller_is_better and figure < 1 else f"{figure:.4f}"
