"""What came of the trials: rows, their order, as text and as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fcnet.errors import counted
from fcnet.runs.options import flag
from fcnet.tools.search.ranges import spelled


@dataclass(frozen=True)
class Row:
    """Describe one trial.

    Attributes:
        number: of the trial; its run is in trials/NUMBER. stage: 0 is the first. values: what varied, by option.
        state: finished, pruned (hopeless), diverged, refused (its values do not go together), failed (it ended without
            a finite validation value) or running.
        value: the best finite validation value of its epochs, or None. best_epoch: where that was. epochs: made.
        why: the message of a trial that failed. run: the folder of a finished trial, on the machine that made it.
    """

    number: int
    stage: int
    state: str
    value: float | None
    best_epoch: int | None
    epochs: int
    seconds: float | None
    values: dict[str, Any]
    why: str
    run: str | None

    @property
    def is_over(self) -> bool:
        """Return whether it will not change any more."""
        return self.state != "running"


def row(trial: Any, names: Iterable[str], maximize: bool) -> Row:
    """Return the row of an Optuna trial that `fcnet.tools.search` made, its values in this order."""
    kept, sign = trial.user_attrs, -1 if maximize else 1
    # Of equal epochs the first, as in the Solver, which keeps its parameters.
    finite = ((sign * v, e) for e, v in trial.intermediate_values.items() if math.isfinite(v))
    best, epoch = min(finite, default=(None, None))
    seconds = trial.duration.total_seconds() if trial.duration is not None else None
    return Row(
        number=trial.number,
        stage=kept["stage"],
        state=kept.get("outcome", "running"),
        value=None if best is None else sign * best,
        best_epoch=epoch,
        epochs=len(trial.intermediate_values),
        seconds=seconds,
        values={name: kept["values"][name] for name in names},
        why=kept.get("why", ""),
        run=kept.get("run"),
    )


def ranked(rows: Iterable[Row], maximize: bool) -> list[Row]:
    """Return the finished ones, the best first; of equals the earlier one first."""
    finished = [r for r in rows if r.state == "finished" and r.value is not None]
    return sorted(finished, key=lambda r: (-r.value if maximize else r.value, r.number))  # type: ignore[operator]


def values_text(values: dict[str, Any]) -> str:
    """Return values as text: "lr 0.0012, hidden 200,100"."""
    return ", ".join(f"{flag(name)} {spelled(value)}" for name, value in values.items())


def line(r: Row) -> str:
    """Return what is said of a trial when it ends."""
    value = "-" if r.value is None else f"{r.value:.4f}"
    how = {"finished": f"at epoch {r.best_epoch}", "pruned": f"pruned after epoch {r.epochs}"}.get(r.state, r.state)
    return f"trial {r.number}: {value} {how}; {values_text(r.values)}" + (f" ({r.why})" if r.why else "")


def table(rows: Sequence[Row], metric: str, maximize: bool, top: int) -> str:
    """Return the best trials, aligned; then how many of the others there are, by state."""
    best = ranked(rows, maximize)[:top]
    lines = []
    if best:
        names = list(best[0].values)
        cells = [["trial", f"val {metric}", "epoch", *map(flag, names)]]
        cells += [
            [str(r.number), f"{r.value:.4f}", str(r.best_epoch), *(spelled(r.values[name]) for name in names)]
            for r in best
        ]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(f"{cell:>{width}}" for cell, width in zip(c, widths, strict=True)) for c in cells]
    states = [r.state for r in rows]
    counts = [f"{states.count(state)} {state}" for state in dict.fromkeys(sorted(states))]
    return "\n".join([*lines, f"{counted(len(rows), 'trial')}: {', '.join(counts)}" if rows else "no trials"])


def csv_text(rows: Sequence[Row]) -> str:
    """Return all trials as CSV with a header, by number."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = list(dict.fromkeys(name for r in rows for name in r.values))
    columns = ["trial", "stage", "state", "value", "best-epoch", "epochs", "seconds"]
    writer.writerow([*columns, *map(flag, names), "why", "run"])
    for r in rows:
        seconds = None if r.seconds is None else round(r.seconds, 2)
        values = [_cell(r.values.get(name)) for name in names]
        writer.writerow([r.number, r.stage, r.state, r.value, r.best_epoch, r.epochs, seconds, *values, r.why, r.run])
    return text.getvalue()


def _cell(value: Any) -> Any:
    return spelled(value) if isinstance(value, list | bool) else value
