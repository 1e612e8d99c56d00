"""Tables from .csv files: one header row, numbers everywhere but in the target column."""

from __future__ import annotations

import csv
import math
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fcnet import errors


@dataclass(frozen=True, eq=False)
class Table:
    """X (N, D) float64, the D column names, and the target column's N cells (None if there is no target)."""

    X: np.ndarray
    features: tuple[str, ...]
    labels: np.ndarray | None


def read_table(path: Path, target: str) -> Table:
    """Read a CSV file whose column `target` holds the labels and whose other columns are the features.

    Raises ValueError with the file, and where it applies the column and the line, for whatever is not a table
    of numbers; also if `target` is no column.
    """
    with _rows(path) as (columns, rows):
        if target not in columns:
            raise ValueError(f"{path}: {errors.unknown('target', target, columns)}")
        features = tuple(column for column in columns if column != target)
        if not features:
            raise ValueError(f"{path}: expected feature columns beside {target!r}; got none; is the separator a comma?")
        return _parse(path, columns, rows, features, target)


def read_columns(path: Path) -> tuple[str, ...]:
    """The column names of a CSV file: its first row, or "0", "1", ... if that holds numbers only."""
    with _rows(path) as (columns, _):
        return columns


def read_features(path: str | Path, features: Sequence[str], dtype: npt.DTypeLike = np.float64) -> np.ndarray:
    """The columns `features` of a CSV file, in that order, as X (N, D). Other columns are ignored.

    Raises ValueError if a column is missing or holds anything but finite numbers, FileNotFoundError without a
    file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a CSV file; there is none")
    if isinstance(features, str) or not features:
        raise ValueError(f"features: expected a sequence of column names; got {features!r}")
    with _rows(path) as (columns, rows):
        for feature in features:
            if feature not in columns:
                hint = "; its first row holds numbers only: does it lack its header?" if columns[0] == "0" else ""
                raise ValueError(f"{path}: {errors.unknown('column', feature, columns)}{hint}")
        return _parse(path, columns, rows, tuple(features), None).X.astype(dtype, copy=False)


@contextmanager
def _rows(path: Path) -> Iterator[tuple[tuple[str, ...], Iterator[tuple[int, list[str]]]]]:
    """The column names, and an iterator over (line number, cells) of the rows that are not blank."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, strict=True)
            rows = ((reader.line_num, row) for row in reader if row)
            first = next(rows, None)
            if first is None:
                raise ValueError(f"{path}: expected a header and rows; got an empty file")
            line, cells = first
            if all(_number(cell) is not None for cell in cells):
                columns = tuple(str(i) for i in range(len(cells)))
                yield columns, _checked(path, columns, _chain((line, cells), rows))
            else:
                columns = tuple(cell.strip() for cell in cells)
                _check_header(path, columns)
                yield columns, _checked(path, columns, rows)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8 text; got other bytes ({error.reason}); save it as UTF-8") from None
    except csv.Error as error:
        raise ValueError(
            f"{path}: expected comma-separated values; got a damaged row near line {reader.line_num} ({error})"
        ) from None


def _chain(first: tuple[int, list[str]], rest: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, list[str]]]:
    yield first
    yield from rest


def _checked(
    path: Path, columns: tuple[str, ...], rows: Iterator[tuple[int, list[str]]]
) -> Iterator[tuple[int, list[str]]]:
    width = len(columns)
    for line, row in rows:
        if len(row) != width:
            raise ValueError(
                f"{path}: line {line}: expected {width} cells; got {len(row)}; fill in or quote what is off"
            )
        yield line, row


def _check_header(path: Path, columns: tuple[str, ...]) -> None:
    for i, column in enumerate(columns):
        if not column:
            raise ValueError(
                f"{path}: expected a name for every column; got none for column {i + 1}; "
                "name or drop it (pandas: to_csv(index=False))"
            )
        if column in columns[:i]:
            raise ValueError(f"{path}: expected different column names; got {column!r} twice; rename one")


def _parse(
    path: Path,
    columns: tuple[str, ...],
    rows: Iterator[tuple[int, list[str]]],
    features: tuple[str, ...],
    target: str | None,
) -> Table:
    places = [columns.index(feature) for feature in features]
    pick = itemgetter(*places) if len(places) > 1 else lambda row, at=places[0]: (row[at],)
    label_at = None if target is None else columns.index(target)
    numbers, lines = array("d"), array("q")
    labels: list[str] = []
    seen: dict[str, str] = {}  # one string object per class, not per row
    for line, row in rows:
        cells = pick(row)
        try:
            if "_" in "".join(cells):  # float() would take 1_2 for 12
                raise ValueError
            numbers.extend(map(float, cells))
        except ValueError:
            raise _bad_cell(path, features, cells, line) from None
        lines.append(line)
        if label_at is not None:
            label = row[label_at].strip()
            if not label:
                raise ValueError(
                    f"{path}: line {line}, column {target!r}: expected a label; got an empty cell; fill it in"
                )
            labels.append(seen.setdefault(label, label))
    if not lines:
        raise ValueError(f"{path}: expected rows below the header; got none")
    X = np.frombuffer(numbers, dtype=np.float64).reshape(len(lines), len(features))
    with np.errstate(over="ignore", invalid="ignore"):
        finite = bool(np.isfinite(X.sum()))
    if not finite and not (ok := np.isfinite(X)).all():
        at, column = (int(i) for i in np.argwhere(~ok)[0])
        raise ValueError(
            f"{path}: line {lines[at]}, column {features[column]!r}: expected a finite number; "
            f"got {X[at, column]}; "
            "fill it in or remove the row"
        )
    return Table(X, features, None if target is None else _label_values(path, target, labels, lines))


def _bad_cell(path: Path, features: tuple[str, ...], cells: Sequence[str], line: int) -> ValueError:
    for feature, cell in zip(features, cells, strict=True):
        if _number(cell) is None:
            got = (
                f"{cell[:60]!r}; encode text as numbers, or is this the target?"
                if cell.strip()
                else "an empty cell; fill it in"
            )
            return ValueError(f"{path}: line {line}, column {feature!r}: expected a number; got {got}")
    raise AssertionError("some cell of the row is no number")


def _number(cell: str) -> float | None:
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def _label_values(path: Path, target: str, labels: list[str], lines: Sequence[int]) -> np.ndarray:
    """The target's cells as int64 if each is a whole number, as text if some are no numbers at all."""
    # In order of appearance, not as a set: the first bad label is the one named.
    values = {label: _number(label) for label in dict.fromkeys(labels)}
    if any(value is None for value in values.values()):
        return np.array(labels)
    whole = {}
    for label, value in values.items():
        if value is None or not math.isfinite(value) or value != int(value) or abs(value) >= 2**53:
            line = lines[labels.index(label)]
            raise ValueError(
                f"{path}: line {line}, column {target!r}: labels are not integers: got {label!r}; "
                "give class codes or class names"
            )
        whole[label] = int(value)
    return np.array([whole[label] for label in labels], dtype=np.int64)
