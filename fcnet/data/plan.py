"""What becomes of a table's columns: learned from the training rows, applied to any rows by the columns' names.

Numbers stay; truth values become 0 and 1; categories a column of 0 and 1 for each level; ordered levels their rank;
dates the numbers that they are made of. A missing value becomes the median or the most frequent value, beside a column
that says so. What can tell nothing is left out, with the reason. A plan is plain values, kept in the model as JSON.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from fcnet.data.cells import ORDERS, number
from fcnet.data.column_plan import COLUMN_KINDS, COUNTS, DROPPED, LEFT_OUT, NOT_AMONG, ColumnPlan
from fcnet.data.columns import Columns, columns_of, in_line, listed, place_of, word_of
from fcnet.data.fill_columns import fill
from fcnet.data.learn_columns import Learner
from fcnet.errors import alike, counted, shown

LARGEST = 1e150  # squares of larger numbers cannot be summed in float64, as figures of targets and outputs are


@dataclass(frozen=True)
class Plan:
    """Describe what becomes of a table's columns; see `Plan.learn`.

    columns: in the table's order, targets not among them. targets: names of the target columns, if it had any.
    names: all names, in order, which identify a file without header. header, decimal, sep, missing: how the file was
    read that it was learned from, as `fcnet.data.load` says.
    """

    columns: tuple[ColumnPlan, ...]
    targets: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    header: bool = True
    decimal: str = "."
    sep: str | None = None
    missing: tuple[str, ...] = ()

    @classmethod
    def learn(
        cls,
        table: Any,
        *,
        rows: np.ndarray | None = None,
        targets: Sequence[str] = (),
        categorical: Collection[str | int] = (),
        ordinal: Mapping[str, Sequence[str]] | None = None,
        drop: Collection[str | int] = (),
        only: Collection[str | int] | None = None,
        missing: Collection[str] = (),
        prune: bool = True,
    ) -> Plan:
        """Learn what becomes of each column.

        Args:
            table: a data frame, a dictionary of columns, a list of rows, an array (N, D), or `Columns` that were read.
            rows: numbers of the rows to learn from, the training rows; None: all.
            targets: columns to leave alone.
            categorical: columns (names, or numbers from 0) whose numbers are names of categories.
            ordinal: the levels of ordered columns, from low to high.
            drop, only: columns to leave out; the only ones to use.
            missing: what stands for a missing value, besides the usual (empty, NA, N/A, nan, null, ?).
            prune: leave out columns that cannot tell anything: text with a value of its own in every row, a count of
                the rows, a constant.

        Raises:
            ValueError: no such column, none left, or one with text among numbers; TypeError: no table.
        """
        read = columns_of(table, missing)
        targets = tuple(read.find("target", name) for name in targets)
        chosen = _chosen(read, targets, drop, only)
        ranks = {
            read.find("ordinal", name, besides=targets): _levels_of(name, levels)
            for name, levels in (ordinal or {}).items()
        }
        for target in targets:
            if target in ranks:
                raise ValueError(
                    f"{read.begin}ordinal: expected other columns than the target; got {shown(target)}; "
                    "write its levels as 0, 1, ... and predict them with loss 'mse' or targets='numbers', "
                    "or take them for classes"
                )
        names = {read.find("categorical", name) for name in categorical}
        learner = Learner(read, None if rows is None else np.asarray(rows), names, ranks, prune)
        columns = [
            ColumnPlan(name, LEFT_OUT, chosen[name]) if name in chosen else learner.column(name, cells)
            for name, cells in read
            if name not in targets
        ]
        if not any(column.outputs for column in columns):  # then a count of the rows may be time
            learner.prune_counts = False
            columns = [
                learner.column(column.name, read[column.name]) if column.reason == COUNTS else column
                for column in columns
            ]
        plan = cls(
            tuple(columns), targets, read.names, read.header, read.decimal, read.sep, tuple(sorted(read.missing))
        )
        if not any(column.outputs for column in columns):
            by_reason = sorted(columns, key=lambda column: column.reason in (DROPPED, NOT_AMONG))
            reasons = "; ".join(f"{shown(column.name)}: {column.reason}" for column in by_reason[:5])
            beside = f" beside {listed(targets)}" if targets else ""
            raise ValueError(
                f"{read.begin}expected columns to learn from{beside}; got "
                + (f"none that can be used ({reasons}); keep or add columns that vary" if columns else
                   "no other; is the separator another one? give it with --sep")
            )  # fmt: skip
        return plan

    @property
    def features(self) -> tuple[str, ...]:
        """Return the names of the columns of numbers, (D,), each once."""
        taken: dict[str, int] = {}
        found = []
        for column in self.columns:
            for output in column.outputs:
                name = output
                while name in taken:
                    name += "'"
                taken[name] = 1
                found.append(name)
        return tuple(found)

    @property
    def used(self) -> tuple[ColumnPlan, ...]:
        """Return the columns that are not left out."""
        return tuple(column for column in self.columns if column.kind != LEFT_OUT)

    @property
    def left_out(self) -> tuple[ColumnPlan, ...]:
        """Return the columns that are left out."""
        return tuple(column for column in self.columns if column.kind == LEFT_OUT)

    @property
    def text_columns(self) -> frozenset[str]:
        """Return the columns whose cells are words, even if these are all numbers in another file."""
        return frozenset(column.name for column in self.used if column.kind != "number")

    def apply(self, table: Any, rows: np.ndarray | None = None, *, largest: float = LARGEST) -> np.ndarray:
        """Return the columns of numbers (N, D), float64, of a table with the same columns; others are ignored.

        rows: those of these numbers. largest: how large a number may be.

        Raises ValueError for a column that is not there, or that holds another kind of values than in training.
        """
        read = columns_of(table, self.missing)
        used = self.used
        self.check_names(read)
        if rows is not None:
            read = read.take(np.asarray(rows))
        widths = [len(column.outputs) for column in used]
        X = np.zeros((read.count, sum(widths)), dtype=np.float64)
        at = 0
        for column, width in zip(used, widths, strict=True):
            fill(X[:, at : at + width], column, read[column.name], read)
            at += width
        self._check_size(X, read, widths, largest)
        return X

    def check_names(self, read: Columns) -> None:
        """Raise ValueError if a column is missing."""
        absent = [column.name for column in self.used if column.name not in read]
        if not absent:
            return
        near = alike(absent[0], read.names, most=1) if len(read.names) <= 2000 else []
        hint = f"; did you rename it from {shown(near[0])}?" if near else ""
        if len(absent) == len(self.used) and read.header:
            hint = "; does the first row hold the names?"
        raise ValueError(
            f"{read.begin}column {shown(absent[0])}: expected it, as in training; got {listed(read.names)}"
            + (f", and {len(absent) - 1} more are missing" if len(absent) > 1 else "")
            + (hint or "; add it, with empty cells where its value is not known")
        )

    def _check_size(self, X: np.ndarray, read: Columns, widths: list[int], largest: float) -> None:
        with np.errstate(invalid="ignore"):
            if not X.size or max(float(X.max()), -float(X.min())) <= largest:
                return
        row, place = (int(i) for i in np.argwhere(~(np.abs(X) <= largest))[0])
        column = self.used[int(np.searchsorted(np.cumsum(widths), place, side="right"))]
        value = X[row, place]
        if np.isnan(value):
            what, got, remedy = "finite number", "none, it is missing", "fill it in or remove the row"
        elif np.isinf(value):
            what, got, remedy = "finite number", f"{value}", "correct it, or remove the row"
        else:
            what, got, remedy = (
                f"number of size {largest:g} or less",
                f"{value:g}",
                "use smaller units or remove the row",
            )
        raise ValueError(f"{read.where(row, column.name)}: expected a {what}; got {got}; {remedy}")

    # As plain values

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain values, fit for JSON: a column's defaults are left out."""
        defaults = {field.name: field.default for field in fields(ColumnPlan)}
        columns = [{k: v for k, v in asdict(column).items() if v != defaults[k]} for column in self.columns]
        return {**{field.name: getattr(self, field.name) for field in fields(self)}, "columns": columns}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Plan:
        """Return the plan that `to_json` gave. Raises TypeError, KeyError or ValueError for anything else."""
        columns = tuple(
            ColumnPlan(**{k: _tuple(v) if k != "fill" else v for k, v in c.items()}) for c in values["columns"]
        )
        if odd := {column.kind for column in columns} - set(COLUMN_KINDS):
            raise ValueError(f"unknown kinds of columns, {', '.join(sorted(odd))}")
        return cls(**{**{k: _tuple(v) for k, v in values.items()}, "columns": columns})

    def describe(self, width: int = 100) -> str:
        """Return a table for people: each column, its kind, the share of missing values, what becomes of it."""
        rows = [("column", "kind", "missing", "becomes")]
        for column in self.columns:
            kind = "" if column.kind == LEFT_OUT else column.kind
            rows.append(
                (in_line(column.name), kind, f"{column.missing:.1%}" if column.missing else "", column.becomes())
            )
        rows += [(in_line(target), "target", "", "what is predicted") for target in self.targets]
        first, second = (max(len(row[at]) for row in rows) for at in (0, 1))
        first = min(first, 40)
        lines = [f"{a:<{first}}  {b:<{second}}  {c:>7}  {d}".rstrip() for a, b, c, d in rows]
        how = [] if self.header else ["no header: columns are numbered from 0"]
        how += [f"decimal sign {self.decimal!r}"] if self.decimal != "." else []
        how += [f"also missing: {listed(self.missing)}"] if self.missing else []
        total = f"{counted(len(self.used), 'column')} become {counted(len(self.features), 'input')}"
        return "\n".join([*lines, "; ".join([total, *how])])

    def said(self) -> list[str]:
        """Return a line about what was left out unasked, and of dates and numbers that may mean something else."""
        unasked = [column for column in self.left_out if column.reason not in (DROPPED, NOT_AMONG)]
        by_reason: dict[str, list[str]] = {}
        for column in unasked:
            by_reason.setdefault(column.reason, []).append(in_line(column.name))
        groups = [f"{listed(names, 8)} ({reason})" for reason, names in by_reason.items()]
        lines = [f"left out: {'; '.join(groups)}"] if groups else []
        lines += [
            f"column {shown(column.name)}: taken for {ORDERS['dmy']}, but might be {ORDERS['mdy']}"
            for column in self.used
            if column.kind == "date" and column.reason
        ]
        lines += [
            f"column {shown(column.name)}: taken for {column.reason}"
            for column in self.used
            if column.kind == "number" and column.reason
        ]
        return lines


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _levels_of(name: str, levels: Sequence[str]) -> tuple[str, ...]:
    found = tuple(word_of(level).strip() for level in levels)
    if len(found) < 2 or len(set(found)) < len(found):
        raise ValueError(
            f"ordinal: expected two or more different levels for {shown(name)}; got {listed(found) or 'none'}"
        )
    return found


def _chosen(
    read: Columns, targets: Sequence[str], drop: Collection[str | int], only: Collection[str | int] | None
) -> dict[str, str]:
    """Return the columns that are left out by request, and in which words."""

    def meant(name: str) -> str:
        value = number(name)
        if value is not None and 0 < value <= 1 and place_of(name) is None:
            return f"; did you mean dropout_keep_ratio={name}?"
        return ""

    dropped = {read.find("drop", name, meant, besides=targets): DROPPED for name in drop}
    for target in targets:
        if target in dropped:
            raise ValueError(
                f"{read.begin}drop: expected other columns than the target; got {shown(target)}; name others"
            )
    if only is not None:
        kept = {read.find("only", name, besides=targets) for name in only}
        if both := sorted(kept & dropped.keys()):
            raise ValueError(f"drop and only: expected each column in one of them; got {shown(both[0])} in both")
        dropped |= {name: NOT_AMONG for name in read.names if name not in kept and name not in targets}
    return dropped


def as_numbers(read: Columns, names: Sequence[str], largest: float = LARGEST) -> np.ndarray:
    """Return these columns, all numbers, as (N, D) float64, in this order. Raises ValueError for anything else."""
    return Plan(tuple(ColumnPlan(name, "number", fill=np.nan) for name in names)).apply(read, largest=largest)
