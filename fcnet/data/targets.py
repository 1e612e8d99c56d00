"""The target columns of a table: labels, or numbers to predict; rows whose target is missing are left out.

Labels are numbers if all of them are whole numbers (`1`, ` 1` and `1.0` are one class), else text. Text is
compared as it stands: beside a label `a`, `1` and `1.0` are two classes. A leading zero makes text of all
labels, since it is an identifier, not a quantity: `01` and `1` are two classes. Whole numbers of any length are exact.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from fcnet.data.cells import amounts, describe_amounts, instead_of_a_number, number, truth_words
from fcnet.data.columns import Columns, Text, as_text, listed, place_of
from fcnet.data.plan import LARGEST
from fcnet.errors import shown
from fcnet.validation import OTHER_LOSSES

MOST_CLASSES = 50  # of whole numbers, unless classes are asked for: more are probably numbers to predict
_LEADING_ZERO = re.compile(r"[+-]?0\d")


def target_names(names: Sequence[str], target: str, *, several: bool) -> tuple[str, ...]:
    """Return the columns that `target` means, names or numbers; "a,b" is two with `several`, unless it is a name."""
    found = [target] if target in names or not several else [part.strip() for part in target.split(",")]
    known = set(names)
    return tuple(
        name if name in known or (at := place_of(name)) is None or not -len(names) <= at < len(names) else names[at]
        for name in found
    )


def find_targets(read: Columns, target: str | int, *, numbers: bool) -> tuple[str, ...]:
    """Return the columns that `target` means. Raises ValueError for one that is not there, or that comes twice."""
    text = str(target)

    def hint(name: str) -> str:
        several = not numbers and "," in name and all(part.strip() in read for part in name.split(","))
        return "; several columns are for numbers to predict, with loss 'mse' or 'bce'" if several else ""

    found = tuple(read.find("target", name, hint) for name in target_names(read.names, text, several=numbers))
    if len(set(found)) < len(found):
        raise ValueError(f"{read.begin}target: expected each column once; got {text!r}")
    return found


def with_targets(read: Columns, targets: Sequence[str]) -> tuple[Columns, list[str]]:
    """Return the rows that have all their targets, and a line that says how many have not.

    Raises ValueError if no row has.
    """
    absent = np.zeros(read.count, dtype=bool)
    for name in targets:
        cells = read[name]
        absent |= cells.codes < 0 if isinstance(cells, Text) else as_text(cells).codes < 0
    if not absent.any():
        return read, []
    if absent.all():
        raise ValueError(
            f"{read.begin}column {shown(targets[0])}: expected targets; got none, all are missing; fill them in"
        )
    rows = int(np.count_nonzero(absent))
    said = f"{rows} of {read.count} rows are left out: their target ({listed(targets)}) is missing"
    return read.take(~absent), [said]


def label_values(read: Columns, name: str, targets: str | None) -> np.ndarray:
    """Return the labels (N,), none of them missing: whole numbers, or text if one is no number or begins with 0.

    targets: "classes" if classes were asked for; None: whole numbers of many values are refused.

    Raises ValueError, with the line, for numbers that are not whole.
    """
    text = as_text(read[name])
    decimal = read.decimal
    used = text.counts() > 0
    words = [word for word, there in zip(text.words, used, strict=True) if there]
    values = {word: number(word, decimal) for word in words}
    if None in values.values() or not words:
        if amounts(words, decimal) is not None:  # $1,200 is a quantity, too
            check_count_of_classes(f"{read.begin}column {shown(name)}", len(words), targets)
        return np.array(text.words)[text.codes]
    whole = {word: whole_number(word, decimal) for word in words}
    if None in whole.values():
        word = next(word for word, value in whole.items() if value is None)
        raise ValueError(
            f"{read.where(first_row(text, word), name)}: labels are not integers: got {shown(word)}; "
            "give class codes or class names; values to predict need loss 'mse' or targets='numbers'"
        )
    if any(_LEADING_ZERO.match(word) for word in words):
        return np.array(text.words)[text.codes]
    check_count_of_classes(f"{read.begin}column {shown(name)}", len(set(whole.values())), targets)
    fits = all(value is not None and -(2**63) <= value < 2**63 for value in whole.values())
    table = np.array([whole.get(word, 0) for word in text.words], dtype=np.int64 if fits else object)
    return table[text.codes]


def check_count_of_classes(where: str, count: int, targets: str | None) -> None:
    """Raise ValueError for more than `MOST_CLASSES` whole numbers as labels, unless classes were asked for."""
    if targets is None and count > MOST_CLASSES:
        raise ValueError(
            f"{where}: expected at most {MOST_CLASSES} classes, unless more are asked for; got {count} different whole "
            "numbers; values to predict need loss 'mse' or targets='numbers'; that many classes need loss 'softmax' or "
            "targets='classes'"
        )


def codes_of(read: Columns, name: str, classes: Sequence[str]) -> np.ndarray:
    """Return the labels (N,) as numbers of `classes`: a cell's own text, else the whole number that it means."""
    text = as_text(read[name])
    numbers = {label: code for code, label in enumerate(classes)}
    pair = truth_words(classes)
    if pair is not None:  # True, true and TRUE, which libraries spell differently
        numbers |= {label.lower(): code for label, code in list(numbers.items())}
    codes = []
    for word in text.words:
        whole = None if _LEADING_ZERO.match(word) else whole_number(word, read.decimal)
        code = numbers.get(word, numbers.get(str(whole)))
        codes.append(numbers.get(word.lower()) if code is None and pair is not None else code)
    found = text.spread(np.array([-1 if code is None else code for code in codes], dtype=np.int64), -1)
    if found.min(initial=0) < 0:
        row = int(np.argmin(found))
        raise ValueError(
            f"{read.where(row, name)}: expected a label that the model knows ({listed(classes)}); got "
            f"{shown(text.words[text.codes[row]])}; correct or remove it"
        )
    return found


def number_values(read: Columns, names: Sequence[str]) -> np.ndarray:
    """Return the targets as float64, (N,) of one column, (N, C) of several; truth values are 0 and 1.

    Raises ValueError, with the line, for what is no number, or too large.
    """
    values = [_numbers(read, name, several=len(names) > 1) for name in names]
    return values[0] if len(values) == 1 else np.stack(values, axis=1)


def _numbers(read: Columns, name: str, *, several: bool = False) -> np.ndarray:
    cells: Any = read[name]
    if isinstance(cells, Text):
        pair = truth_words(cells.words)
        table = [number(w, read.decimal) if pair is None else float(w.lower() == pair[1]) for w in cells.words]
        if None in table and (found := cells.amounts(read.decimal)) is not None:
            return found[0]
        bad = next((at for at, value in enumerate(table) if value is None or not abs(value) <= LARGEST), None)
        if bad is not None:
            word = cells.words[bad]
            limit = "" if table[bad] is None else f" of size {LARGEST:g} or less"
            names = "write class names as 0 and 1" if several else "class names need loss 'softmax' or 'svm'"
            raise ValueError(
                f"{read.where(first_row(cells, word), name)}: expected a number{limit}; got "
                f"{shown(word)}; {instead_of_a_number(word, f'correct it or remove the row; {names}')}"
            )
        return cells.spread(np.array(table, dtype=np.float64), np.nan)
    if cells.dtype.kind == "M":
        raise ValueError(f"{read.begin}column {shown(name)}: expected numbers; got dates; give what is to be predicted")
    values = cells.astype(np.float64)
    if not (np.abs(values) <= LARGEST).all():
        row = int(np.argmin(np.abs(values) <= LARGEST))
        raise ValueError(
            f"{read.where(row, name)}: expected a number of size {LARGEST:g} or less; got {values[row]:g}; correct it"
        )
    return values


def describe_numbers(read: Columns, names: Sequence[str]) -> list[str]:
    """Return a line of each of these targets that is numbers with a sign or marks beside them."""
    lines = []
    for name in names:
        cells = read[name]
        if isinstance(cells, Text) and cells.numbers(read.decimal) is None:
            found = cells.amounts(read.decimal)
            if found is not None:
                amount = describe_amounts(found[1], max(cells.words, key=len), read.decimal)
                lines.append(f"column {shown(name)}: taken for {amount}")
    return lines


def check_probabilities(read: Columns, names: Sequence[str]) -> None:
    """Check that each target is a number from 0 to 1. Raises ValueError with the line and the column."""
    for name in names:
        values = _numbers(read, name)
        odd = ~((values >= 0) & (values <= 1))
        if odd.any():
            row = int(np.argmax(odd))
            cells = as_text(read[name])
            raise ValueError(
                f"{read.where(row, name)}: expected a label of 0 or 1, or a probability between, for loss 'bce'; got "
                f"{shown(cells.words[cells.codes[row]])}; correct it; {OTHER_LOSSES}"
            )


def first_row(text: Text, word: str) -> int:
    """Return the first row that has this word."""
    return int(np.argmax(text.codes == text.words.index(word)))


def whole_number(cell: str, decimal: str = ".") -> int | None:
    """Return the whole number that a cell spells, 1, 1.0 or 1e3, exactly; None if it is none, or infinite."""
    value = number(cell, decimal)
    if value is None or not math.isfinite(value):
        return None
    if value == 0:
        return 0
    if decimal == ",":
        cell = cell.strip().replace(".", "").replace(",", ".")
    exact = Decimal(cell.strip())
    return int(exact) if exact == exact.to_integral_value() else None
