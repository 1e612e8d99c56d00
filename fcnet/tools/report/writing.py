"""What stands in a report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fcnet.errors import counted
from fcnet.functional import Metric, softmax
from fcnet.nn.model import FullyConnectedNet
from fcnet.runs.record import curves_png
from fcnet.tools.report.importance import columns_of_inputs, importances
from fcnet.tools.report.page import Page
from fcnet.tools.report.pictures import calibration_png, confusion_png, residuals_png
from fcnet.training import judging
from fcnet.training.metrics import Figure, Outcome, different_figures, figures_of, outcome, own_figure
from fcnet.training.solver import Solver

if TYPE_CHECKING:
    from fcnet.tools.crossvalidation import Scores

NAME = "report.html"
SECONDS = 2.0  # that a report may take which nobody asked for
IMPORTANCE = 0.4  # the share of them that importance may take
SAMPLE = 256  # rows that predictions are timed on
MOST_COLUMNS, MOST_BARS, MOST_CLASSES = 200, 30, 20


def report_html(
    solver: Solver,
    versions: Mapping[str, str],
    scores: Scores | None = None,
    *,
    curves: bytes | None = None,
    seconds: float = SECONDS,
) -> str:
    """Return the report on a training that is over.

    Args:
        versions: of what it was made with, by name. scores: of a cross-validation.
        curves: the picture of the run, if it was drawn already. seconds: about what the importance of columns may take,
            of which a share is kept for the rest.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    started = time.perf_counter()
    said: dict[str, Outcome] = {name: outcome(solver.model, *split) for name, split in _held_out(solver).items()}
    part = "test" if "test" in said else "val"
    page = Page(f"{solver.data.name}: {solver.model.loss_name} network, {_time()}")
    page.note(repr(solver.model))
    _figures(page, solver, said, scores)
    _data(page, solver)
    page.heading("Training")
    page.note(_how_it_went(solver))
    page.picture(curves_png(solver.record()) if curves is None else curves, "loss and metric over the epochs")
    (_errors_of_numbers if solver.model.objective.of_values else _errors_of_classes)(page, solver, said[part], part)
    left = max(seconds * IMPORTANCE, seconds - (time.perf_counter() - started))
    _importance(page, solver, min(left, seconds * 0.8))
    page.heading("Settings")
    page.table(["option", "value"], ([name, _spelled(value)] for name, value in solver.options().items()))
    page.heading("Versions")
    page.table(["", ""], versions.items())
    return page.html()


def seconds_of_predictions(solver: Solver) -> float:
    """Estimate how long a report's predictions take, but for the importance of columns."""
    times = []
    for X, y in _held_out(solver).values():
        for _ in range(2):  # the first may compile
            started = time.perf_counter()
            outcome(solver.model, X[:SAMPLE], y[:SAMPLE])
            taken = time.perf_counter() - started
        times.append(taken * max(1.0, len(X) / SAMPLE))
    return sum(times)


def _held_out(solver: Solver) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the parts that the network was not trained on: "val" and, if there is one, "test"."""
    return {name: split for name, split in solver.data.splits().items() if name != "train"}


def _time() -> str:
    return time.strftime("%Y-%m-%d %H:%M")


def _spelled(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _number(value: float, deviation: float | None = None) -> str:
    places = 4 if abs(value) < 100 else 1
    return f"{value:,.{places}f}" + ("" if deviation is None else f" ± {deviation:,.{places}f}")


def _names(model: FullyConnectedNet) -> Sequence[str]:
    return model.classes or [str(number) for number in range(model.num_classes)]


def _figures(page: Page, solver: Solver, said: Mapping[str, Outcome], scores: Scores | None) -> None:
    """Add what the network is worth on the parts that it was not trained on."""
    model, own = solver.model, solver.model.objective.metric
    page.heading("How good it is")
    titles = {"val": "validation", "test": "test"}
    rows = [[own.title, *(_number(own_figure(model.objective, one)) for one in said.values())]]
    for figure in different_figures(model.objective):
        rows.append([figure.title, *(_number(figure.measure(one)) for one in said.values())])
    page.table(["metric", *(titles[name] for name in said)], rows, numbers=[1, 2])
    if model.threshold is not None:
        page.note(f"{_names(model)[-1]} is predicted where its probability is above {model.threshold:.4g}.")
    if scores is not None:
        count = len(scores.figures)
        page.heading(f"Cross-validation, {counted(count, 'fold')}")
        rows = [[f"fold {at}", *map(_number, row)] for at, row in enumerate(scores.figures.tolist(), start=1)]
        rows += [["mean", *map(_number, scores.mean)], ["standard deviation", *map(_number, scores.deviation)]]
        page.table(["", *(metric.title for metric in scores.metrics)], rows, numbers=[1, 2])
        page.note("Each fold was the test part of a network that was trained on the others; that of all rows was kept.")
    by_output = said["test" if "test" in said else "val"].outputs()
    if model.objective.numeric and len(by_output) > 1:
        figures = [Figure("rmse", "rmse", lambda one: judging.rmse(one.y, one.predicted), True)]
        if not model.objective.of_values:
            figures = []
        figures += [figure for key, figure in figures_of(model.objective).items() if key != "f1_macro"]
        page.table(
            ["output", *(figure.title for figure in figures)],
            (
                [name, *(_number(figure.measure(one)) for figure in figures)]
                for name, one in zip(_names(model), by_output, strict=True)
            ),
            numbers=range(1, 1 + len(figures)),
        )


def _data(page: Page, solver: Solver) -> None:
    data, model = solver.data, solver.model
    page.heading("Data")
    page.note(data.summary())
    if not model.objective.numeric and model.num_classes <= MOST_COLUMNS:
        parts = data.splits()
        counts = [
            np.bincount(y.argmax(axis=1) if y.ndim == 2 else y, minlength=model.num_classes) for _, y in parts.values()
        ]
        names = _names(model)
        page.table(
            ["class", *parts],
            ([name, *map(str, row)] for name, row in zip(names, np.array(counts).T.tolist(), strict=True)),
            numbers=range(1, 1 + len(parts)),
        )
    if model.plan is not None:
        columns = model.plan.columns
        page.table(
            ["column", "kind", "missing", "becomes"],
            (
                [c.name, c.kind, f"{c.missing:.1%}" if c.missing else "", c.becomes()]
                for c in columns[:MOST_COLUMNS]
            ),
        )  # fmt: skip
        if len(columns) > MOST_COLUMNS:
            page.note(f"and {len(columns) - MOST_COLUMNS} more columns")
    elif model.features is not None:
        names = model.features[:MOST_COLUMNS]
        more = f" and {len(model.features) - len(names)} more" if len(model.features) > len(names) else ""
        page.note(f"{counted(len(model.features), 'column')}: {', '.join(names)}{more}")


def _how_it_went(solver: Solver) -> str:
    epochs = int(solver.history[-1]["epoch"]) if solver.history else 0  # not a row for each
    text = f"{counted(epochs, 'epoch')}, {counted(solver.steps, 'step')}"
    if solver.best_val_metric is not None:
        text += f"; the best epoch by validation {solver.metric.title} is {solver.best_epoch}, whose weights were kept"
    return text


def _errors_of_numbers(page: Page, solver: Solver, said: Outcome, part: str) -> None:
    page.heading(f"Errors on the {_part(part)} part")
    model = solver.model
    names = model.classes or (model.plan.targets if model.plan is not None else None) or ["true"]
    page.picture(residuals_png(said.y, said.predicted, names), "predictions against targets, and a histogram of errors")


def _errors_of_classes(page: Page, solver: Solver, said: Outcome, part: str) -> None:
    model = solver.model
    for name, one in zip(_names(model), said.outputs(), strict=False):
        labels = model.objective.numeric  # each on or off
        names = ["off", "on"] if labels else _names(model)
        title = f"{name}: errors" if labels and model.num_classes > 1 else "Errors"
        page.heading(f"{title} on the {_part(part)} part")
        matrix = judging.confusion_matrix(one.y, one.predicted, len(names))
        if len(names) > MOST_CLASSES:
            page.picture(confusion_png(matrix), "confusion matrix")
        else:
            sums = np.maximum(matrix.sum(axis=1), 1)
            rows = (
                (known, [(str(n), n / total) for n in row])
                for known, row, total in zip(names, matrix.tolist(), sums.tolist(), strict=True)
            )
            page.shaded(["is \\ taken for", *names], rows)
    if model.loss_name == "svm":
        return  # whose scores are no probabilities
    page.heading("Are its probabilities right?")
    if said.scores is None:
        return
    if model.objective.numeric:
        flat = [one for one in said.outputs() if one.scores is not None]
        p = np.concatenate([softmax(one.scores)[:, 1] for one in flat])
        right, axis = np.concatenate([one.y for one in flat]) == 1, "probability of the label"
    elif model.num_classes == 2:
        p, right, axis = softmax(said.scores)[:, 1], said.y == 1, f"probability of {_names(model)[1]}"
    else:
        chances = softmax(said.scores)
        p, right, axis = chances.max(axis=1), said.y == chances.argmax(axis=1), "probability of the likeliest class"
    if np.isfinite(p).all():
        page.picture(calibration_png(right, p, axis), "share that came true by predicted probability")


def _importance(page: Page, solver: Solver, seconds: float) -> None:
    model, metric = solver.model, solver.metric
    columns = columns_of_inputs(model)
    if not columns:  # pixels, or arrays without names
        return
    page.heading("Which columns matter")
    parts = _held_out(solver).values()
    found = importances(
        model,
        np.concatenate([X.reshape(len(X), -1) for X, _ in parts]),
        np.concatenate([y for _, y in parts]),
        _measured(metric, model),
        smaller_is_better=metric.smaller_is_better,
        seconds=seconds,
        seed=solver.seed,
    )
    if found is None:
        page.note(
            f"{counted(len(columns), 'column')} take longer than {seconds:.1f} s; train with --report to see them."
        )
        return
    page.note(
        f"How much worse the {metric.title} on rows that were not trained on becomes when a column is shuffled, "
        "and the standard deviation over shuffles. Columns that say the same may each seem to matter little."
    )
    largest = max((one.loss for one in found), default=0.0)
    page.bars(
        ["column", f"loss of {metric.title}"],
        (
            (
                one.column,
                _number(one.loss, one.deviation),
                max(0.0, one.loss / largest) if largest > 0 else 0.0,
            )
            for one in found[:MOST_BARS]
        ),
    )
    if len(found) > MOST_BARS:
        page.note(f"and {len(found) - MOST_BARS} more columns, which matter less")


def _measured(metric: Metric | Figure, model: FullyConnectedNet) -> Callable[[Outcome], float]:
    if isinstance(metric, Figure):
        return metric.measure
    return lambda said: own_figure(model.objective, said)


def _part(part: str) -> str:
    return {"val": "validation"}.get(part, part)
