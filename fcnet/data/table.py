"""Tables from .csv files: one header row, numbers everywhere but in the target column.

Labels are numbers if all of them are whole numbers (`1`, ` 1` and `1.0` are one class), else text. Text is
compared as it stands: beside a label `a`, `1` and `1.0` are two classes. A leading zero makes text of all
labels, since it is an identifier, not a quantity: `01` and `1` are two classes. Whole numbers of any length are exact.
"""

from __future__ import annotations

import csv
import math
import re
import shlex
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np

from fcnet.errors import alike

if TYPE_CHECKING:
    import numpy.typing as npt

LARGEST = 1e150  # squares of larger numbers cannot be summed in float64, as figures of targets and outputs are
_LEADING_ZERO = re.compile(r"[+-]?0\d")
_MISSING = {"?", "-", "--", ".", "*", "na", "n/a", "#n/a", "<na>", "nan", "null", "\\n"}
_TRUTH = {"true", "false", "yes", "no", "on", "off"}
_SEPARATORS = {"\t": "tabs", ";": "semicolons", "|": "vertical bars"}


@dataclass(frozen=True, eq=False)
class Table:
    """X (N, D) float64, the D column names, and the target column's N labels or numbers (None without a target).

    Of several target columns, K, they are (N, K); targets are the columns' names.
    """

    X: np.ndarray
    features: tuple[str, ...]
    labels: np.ndarray | None
    targets: tuple[str, ...] = ()


def read_table(
    path: Path,
    target: str,
    features: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    *,
    numbers: bool = False,
) -> Table:
    """Read a CSV file whose column `target` holds the labels, or with `numbers` values to predict, as float64.

    With `numbers`, "a,b" names the two columns a and b, unless there is a column of that name.
    features: the columns to read, in this order, other columns being ignored; None: all but the target.
    classes: class names by number: labels are then these numbers; None: integers or text, as they stand.

    Raises ValueError with the file, and where it applies the column and the line, for whatever is not a table
    of numbers; also if `target` is no column, or a label none of `classes`.
    """
    with _rows(path) as (columns, rows):
        targets = _targets(columns, target) if numbers else (target,)
        named = [*(("target", name) for name in targets), *(("column", feature) for feature in features or ())]
        known = frozenset(columns)
        for argument, name in named:
            if name not in known:
                several = argument == "target" and all(part.strip() in known for part in name.split(","))
                hint = "; several columns are for numbers to predict, with loss 'mse' or 'bce'" if several else ""
                raise ValueError(f"{path}: {_unknown(argument, name, columns)}{hint}")
        if len(set(targets)) < len(targets):
            raise ValueError(f"{path}: target: expected each column once; got {target!r}")
        features = tuple(features or (column for column in columns if column not in targets))
        if not features:
            raise ValueError(f"{path}: expected feature columns beside {target!r}; got none; is the separator a comma?")
        return _parse(path, columns, rows, features, targets, classes, numbers=numbers)


def _targets(columns: Sequence[str], target: str) -> tuple[str, ...]:
    """The columns of numbers that `target` names: "a,b" is two, unless there is a column of that name."""
    several = target not in columns and "," in target
    return tuple(name.strip() for name in target.split(",")) if several else (target,)


def check_probabilities(path: Path, target: str) -> None:
    """Each cell of these columns is a number from 0 to 1. Raises ValueError with file, line and column."""
    with _rows(path) as (columns, rows):
        places = [(columns.index(name), name) for name in _targets(columns, target)]
        for line, row in rows:
            for at, name in places:
                value = _number(row[at])
                if value is None or not 0 <= value <= 1:
                    raise ValueError(
                        f"{path}: line {line}, column {name!r}: expected a label of 0 or 1, or a probability between, "
                        f"for loss 'bce'; got {row[at].strip()[:60]!r}; correct it, or use loss 'mse' for other numbers"
                    )


def _unknown(argument: str, got: str, columns: Sequence[str]) -> str:
    """That `got` is no column, with the nearest one if it is alike."""
    near = alike(got, columns, most=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{argument}: expected one of {listed(columns)}; got {got!r}{hint}{header_hint(columns)}"


def listed(names: Sequence[str], most: int = 20) -> str:
    """Names for a message: all of them, or the first few and how many more."""
    more = f", ... ({len(names)} in all)" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def header_hint(columns: Sequence[str]) -> str:
    """The end of a message about columns: a question, if some are named like numbers or hold another separator."""
    for sign, name in _SEPARATORS.items():
        if 2 * sum(column.count(sign) for column in columns) > len(columns):
            return f"; the first row holds {name}: is the separator a comma?"
    if len(columns) == 1:
        return "; the first row is a single cell: is the separator a comma?"
    numbers = sum(_number(column) is not None for column in columns)
    return f"; {numbers} cells of its first row are numbers: does it lack its header?" if numbers else ""


def read_columns(path: Path) -> tuple[str, ...]:
    """The column names of a CSV file: its first row, or "0", "1", ... if that holds numbers only."""
    with _rows(path) as (columns, _):
        return columns


def read_features(path: str | Path, features: Sequence[str], dtype: npt.DTypeLike = np.float64) -> np.ndarray:
    """The columns `features` of a CSV file, in that order, as X (N, D). Other columns are ignored.

    Raises ValueError if a column is missing or holds anything but numbers that `dtype` can hold,
    FileNotFoundError without a file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a CSV file; there is none")
    if isinstance(features, str) or not features:
        raise ValueError(f"features: expected a sequence of column names; got {features!r}")
    with _rows(path) as (columns, rows):
        known = frozenset(columns)
        for feature in features:
            if feature not in known:
                raise ValueError(f"{path}: {_unknown('column', feature, columns)}")
        kind = np.dtype(dtype)
        largest = min(LARGEST, float(np.finfo(kind).max)) if kind.kind == "f" else LARGEST
        return _parse(path, columns, rows, tuple(features), (), largest=largest).X.astype(kind, copy=False)


@contextmanager
def _rows(path: Path) -> Iterator[tuple[tuple[str, ...], Iterator[tuple[int, list[str]]]]]:
    """The column names, and an iterator over (line number, cells) of the rows that are not blank."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            _check_separator(path, stream)
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
        raise ValueError(f"{path}: expected UTF-8 text; got {_other_than_text(path, error)}") from None
    except csv.Error as error:
        raise ValueError(
            f"{path}: expected comma-separated values; got a damaged row near line {reader.line_num} ({error}); "
            'a cell with a comma, a quote or a line end stands in quotes, and its own quotes are doubled: "a ""b"""'
        ) from None


def _other_than_text(path: Path, error: UnicodeDecodeError) -> str:
    """What a file that is no UTF-8 is, and what to do."""
    with path.open("rb") as stream:
        start = stream.read(4)
    if start.startswith(b"\x1f\x8b"):
        return f"a file packed by gzip; unpack it: gzip -dc {shlex.quote(str(path))} > unpacked.csv"
    if start.startswith(b"PK"):
        return "a spreadsheet or a zip archive; save the sheet as CSV, or unpack the archive"
    return f"other bytes ({error.reason}); save it as UTF-8"


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


def _check_separator(path: Path, stream: TextIO) -> None:
    """ValueError if the first line has no comma outside quotes but another separator. The stream stays at its start."""
    line = next((line for line in stream if line.strip()), "")
    stream.seek(0)
    outside = re.sub('"[^"]*"?', "", line)
    for sign, name in _SEPARATORS.items():
        if sign in outside and "," not in outside:
            raise ValueError(
                f"{path}: expected comma-separated values; the first line has no comma but {name}: "
                "save the file as comma-separated"
            )


def _check_header(path: Path, columns: tuple[str, ...]) -> None:
    before: set[str] = set()
    for i, column in enumerate(columns):
        if not column:
            raise ValueError(
                f"{path}: expected a name for every column; got none for column {i + 1}; "
                "name or drop it (pandas: to_csv(index=False))"
            )
        if column in before:
            raise ValueError(
                f"{path}: expected different column names; got {column!r} twice; rename one{header_hint(columns)}"
            )
        before.add(column)


def _parse(
    path: Path,
    columns: tuple[str, ...],
    rows: Iterator[tuple[int, list[str]]],
    features: tuple[str, ...],
    targets: tuple[str, ...],
    classes: Sequence[str] | None = None,
    largest: float = LARGEST,
    numbers: bool = False,
) -> Table:
    place = {column: at for at, column in enumerate(columns)}
    places = [place[feature] for feature in features]
    pick = itemgetter(*places) if len(places) > 1 else lambda row, at=places[0]: (row[at],)
    labels_at = [(place[target], target) for target in targets]
    cells_read, lines = array("d"), array("q")
    labels: list[str] = []
    seen: dict[str, str] = {}  # one string object per class, not per row
    for line, row in rows:
        cells = pick(row)
        try:
            if "_" in "".join(cells):  # float() would take 1_2 for 12
                raise ValueError
            cells_read.extend(map(float, cells))
        except ValueError:
            raise _bad_cell(path, features, cells, line) from None
        lines.append(line)
        for label_at, target in labels_at:
            label = row[label_at].strip()
            if not label:
                raise ValueError(
                    f"{path}: line {line}, column {target!r}: expected a label; got an empty cell; fill it in"
                )
            labels.append(seen.setdefault(label, label))
    if not lines:
        raise ValueError(f"{path}: expected rows below the header; got none")
    X = np.frombuffer(cells_read, dtype=np.float64).reshape(len(lines), len(features))
    with np.errstate(over="ignore", invalid="ignore"):
        finite = bool(np.isfinite(X.sum()))
    if not finite and not (ok := np.isfinite(X)).all():
        at, column = (int(i) for i in np.argwhere(~ok)[0])
        raise ValueError(
            f"{path}: line {lines[at]}, column {features[column]!r}: expected a finite number; "
            f"got {X[at, column]}; "
            "fill it in or remove the row"
        )
    if max(float(X.max()), -float(X.min())) > largest:
        at, column = (int(i) for i in np.argwhere(np.abs(X) > largest)[0])
        raise ValueError(
            f"{path}: line {lines[at]}, column {features[column]!r}: expected a number of size {largest:g} or less; "
            f"got {X[at, column]:g}; use smaller units or remove the row"
        )
    if not targets:
        return Table(X, features, None)
    if numbers:
        count = len(targets)
        values = [_target_numbers(path, target, labels[i::count], lines) for i, target in enumerate(targets)]
        return Table(X, features, values[0] if count == 1 else np.stack(values, axis=1), targets)
    if classes is not None:
        return Table(X, features, _codes(path, targets[0], labels, lines, classes), targets)
    return Table(X, features, _label_values(path, targets[0], labels, lines), targets)


def _bad_cell(path: Path, features: tuple[str, ...], cells: Sequence[str], line: int) -> ValueError:
    feature, cell = next(pair for pair in zip(features, cells, strict=True) if _number(pair[1]) is None)
    return ValueError(
        f"{path}: line {line}, column {feature!r}: expected a number; "
        f"got {_instead_of_a_number(cell, 'encode text as numbers, or is this the target?')}"
    )


def _instead_of_a_number(cell: str, otherwise: str) -> str:
    """A cell that is no number, and what to do about it."""
    text = cell.strip()
    if not text:
        return "an empty cell; fill it in"
    if text.lower() in _MISSING:
        return f"{text!r}; a missing value is to be filled in, or its row removed"
    if text.lower() in _TRUTH:
        return f"{text!r}; write truth values as 1 and 0"
    digits = re.sub(r"[\s,'_%$€£¥]", "", text)
    if _number(digits) is not None:
        return f"{text[:60]!r}; write numbers with a decimal point and without a unit, as 1234.5"
    return f"{text[:60]!r}; {otherwise}"


def _number(cell: str) -> float | None:
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def _label_values(path: Path, target: str, labels: list[str], lines: Sequence[int]) -> np.ndarray:
    """The target's cells as whole numbers if each is one, as text if one is no number or begins with 0."""
    # In order of appearance, not as a set: the first bad label is the one named.
    values = {label: _number(label) for label in dict.fromkeys(labels)}

    def refused(label: str, what: str) -> ValueError:
        return ValueError(f"{path}: line {lines[labels.index(label)]}, column {target!r}: {what}")

    texts = [label for label, value in values.items() if value is None]
    if texts and len(texts) < len(values) and all(text.lower() in _MISSING for text in texts):
        raise refused(
            texts[0],
            f"expected a label; got {texts[0]!r}, where others are numbers; fill it in or remove the row",
        )
    if texts:
        return np.array(labels)
    whole = {label: _whole_number(label) for label in values}
    for label, number in whole.items():
        if number is None:
            raise refused(
                label,
                f"labels are not integers: got {label!r}; "
                "give class codes or class names; values to predict need loss 'mse' or targets='numbers'",
            )
    if any(_LEADING_ZERO.match(label) for label in values):
        return np.array(labels)
    found = [whole[label] for label in labels]
    fits = all(number is not None and -(2**63) <= number < 2**63 for number in whole.values())
    return np.array(found, dtype=np.int64 if fits else object)


def _target_numbers(path: Path, target: str, cells: list[str], lines: Sequence[int]) -> np.ndarray:
    """The target's cells as float64."""
    values = [_number(cell) for cell in cells]
    remedy = "correct it or remove the row; class names need loss 'softmax' or 'svm'"
    for value, cell, line in zip(values, cells, lines, strict=True):
        if value is None or not abs(value) <= LARGEST:
            raise ValueError(
                f"{path}: line {line}, column {target!r}: expected a number of size {LARGEST:g} or less; got "
                + (f"{cell[:60]!r}; {remedy}" if value is not None else _instead_of_a_number(cell, remedy))
            )
    return np.array(values, dtype=np.float64)


def _whole_number(cell: str) -> int | None:
    """The whole number that a cell spells, 1, 1.0 or 1e3, exactly; None if it is none, or as large as infinity."""
    value = _number(cell)
    if value is None or not math.isfinite(value):
        return None
    if value == 0:
        return 0
    exact = Decimal(cell)
    return int(exact) if exact == exact.to_integral_value() else None


def _codes(path: Path, target: str, labels: list[str], lines: Sequence[int], classes: Sequence[str]) -> np.ndarray:
    """The target's cells as numbers of `classes`: a cell's own text, else the whole number that it means."""
    numbers = {name: number for number, name in enumerate(classes)}
    codes = {}
    for label in dict.fromkeys(labels):
        whole = None if _LEADING_ZERO.match(label) else _whole_number(label)
        code = numbers.get(label, numbers.get(str(whole)))
        if code is None:
            raise ValueError(
                f"{path}: line {lines[labels.index(label)]}, column {target!r}: expected a label that the model knows "
                f"({listed(classes)}); got {label[:60]!r}; correct or remove it"
            )
        codes[label] = code
    return np.array([codes[label] for label in labels], dtype=np.int64)
