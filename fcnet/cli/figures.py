"""Tables and lines of metrics that `fcnet evaluate` and `fcnet train` print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fcnet.functional import Metric
    from fcnet.nn.model import FullyConnectedNet
    from fcnet.training.metrics import Figure, Outcome

MOST_CLASSES = 20  # of a confusion matrix that is printed; of more, the pairs that are confused most often
MOST_PAIRS = 10
LONGEST = 12  # characters of a name above a column of the matrix


def spelled(metric: Metric | Figure, figure: float) -> str:
    """Return a figure as text: four decimal places, or four digits if it is below 1 in the targets' unit."""
    return f"{figure:.4g}" if metric.smaller_is_better and figure < 1 else f"{figure:.4f}"


def by_class(model: FullyConnectedNet, outcome: Outcome) -> list[str]:
    """Return a table of the classes, and of which were taken for which."""
    from fcnet.training import judging

    names = model.classes or [str(number) for number in range(model.num_classes)]
    matrix = judging.confusion_matrix(outcome.y, outcome.predicted, len(names))
    rows = [["class", "samples", "accuracy", "precision", "f1"]]
    for name, right, of, taken in zip(names, matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0), strict=True):
        shares = (right, of), (right, taken), (2 * right, of + taken)
        rows.append([name, str(of), *(f"{part / whole:.4f}" if whole else "-" for part, whole in shares)])
    return [*table(rows), *_confusions(names, matrix.tolist())]


def _confusions(names: Sequence[str], matrix: list[list[int]]) -> list[str]:
    if len(names) <= MOST_CLASSES:
        short = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in names]
        rows = [[name, *map(str, row)] for name, row in zip(names, matrix, strict=True)]
        return table([["is \\ taken for", *short], *rows])
    pairs = [(n, i, j) for i, row in enumerate(matrix) for j, n in enumerate(row) if n and i != j]
    most = sorted(pairs, key=lambda pair: (-pair[0], pair[1:]))[:MOST_PAIRS]
    return [f"{names[i]} taken for {names[j]}: {n}" for n, i, j in most]


def by_output(model: FullyConnectedNet, outcome: Outcome, part: str = "") -> list[str]:
    """Return a table of the metrics of each output, whose sizes may differ; empty for one output."""
    from fcnet.training.metrics import ACCURACY, RMSE, figures_of

    if model.num_classes == 1:
        return []
    names = model.classes or [str(number) for number in range(model.num_classes)]
    figures = figures_of(model.objective)
    figures.pop("f1_macro", None)  # of one label it would be another figure than that of all
    columns = [RMSE if model.objective.of_values else ACCURACY, *figures.values()]
    rows = [[f"{part}output", *(figure.title for figure in columns)]]
    for name, one in zip(names, outcome.outputs(), strict=True):
        rows.append([name, *(spelled(figure, figure.measure(one)) for figure in columns)])
    return table(rows)


def in_all(
    model: FullyConnectedNet, outcome: Outcome, part: str = "", last: Metric | Figure | None = None
) -> list[str]:
    """Return a line for each metric that suits the network, without its own; that of `last` at the end."""
    from fcnet.training.metrics import different_figures

    figures = sorted(
        different_figures(model.objective), key=lambda figure: last is not None and figure.title == last.title
    )
    return [in_short(figure, figure.measure(outcome), part) for figure in figures]


def in_short(metric: Metric | Figure, figure: float, part: str = "") -> str:
    """Return a figure as text: "test f1 0.9722"."""
    return f"{part}{metric.title} {spelled(metric, figure)}"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines of cells in columns: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(others, widths[1:], strict=True))]).rstrip()
        for first, *others in rows
    ]
