"""The numbers that a column's cells become, by its plan; the refusal of what training did not have."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fcnet.data.cells import ORDERS, amounts, date_part, dates, instead_of_a_number, number
from fcnet.data.column_plan import THOUSANDS, ColumnPlan
from fcnet.data.columns import Cells, Columns, Text, as_text, listed
from fcnet.errors import shown


def fill(out: np.ndarray, plan: ColumnPlan, cells: Cells, read: Columns) -> None:
    """Write what becomes of these cells into `out` (N, K), which is zeros."""
    if plan.constant:
        out[:, 0] = _absent(cells)
        return
    if plan.kind == "category":
        absent = _fill_category(out, plan, cells, read)
    elif plan.kind == "date":
        when = _dates(plan, cells, read)
        absent = np.isnat(when)
        for at, (part, fill) in enumerate(zip(plan.parts, plan.fill, strict=True)):
            out[:, at] = np.where(absent, fill, date_part(when, part))
    else:
        values = {"number": _numbers, "boolean": _truth, "ordinal": _places}[plan.kind](plan, cells, read)
        absent = np.isnan(values)
        out[:, 0] = np.where(absent, plan.fill, values) if absent.any() else values
    if plan.indicator:
        out[:, -1] = absent


def _absent(cells: Cells) -> np.ndarray:
    if isinstance(cells, Text):
        return cells.codes < 0
    return np.isnat(cells) if cells.dtype.kind == "M" else np.isnan(cells.astype(np.float64))


def _numbers(plan: ColumnPlan, cells: Cells, read: Columns) -> np.ndarray:
    if not isinstance(cells, Text):
        if cells.dtype.kind == "M":
            raise _other_kind(plan, read, "a number", "dates")
        if plan.format == "%" and not np.isnan(cells).all():
            raise _other_kind(plan, read, "numbers with %", "numbers without")
        return cells.astype(np.float64, copy=False)
    if plan.format:
        sign = "" if plan.format == THOUSANDS else plan.format
        found = cells.amounts(read.decimal, sign) if cells.words else (np.full(len(cells), np.nan), sign)
        if found is None:
            what = f"a number with {sign}" if sign else "a number"
            raise _other_word(plan, cells, read, what, lambda word: amounts([word], read.decimal, sign) is not None)
        return found[0]
    values = cells.numbers(read.decimal)
    if values is None:
        raise _other_word(plan, cells, read, "a number", lambda word: number(word, read.decimal) is not None)
    return values


def _truth(plan: ColumnPlan, cells: Cells, read: Columns) -> np.ndarray:
    if isinstance(cells, Text):
        known = {plan.levels[0]: 0.0, plan.levels[1]: 1.0, "false": 0.0, "true": 1.0, "0": 0.0, "1": 1.0}
        found = [known.get(word.lower()) for word in cells.words]
        if None in found:
            what = f"{plan.levels[1]} or {plan.levels[0]}"
            raise _other_word(plan, cells, read, what, lambda word: word.lower() in known)
        return cells.spread(np.array(found, dtype=np.float64), np.nan)
    if cells.dtype.kind == "M":
        raise _other_kind(plan, read, "truth values", "dates")
    values = cells.astype(np.float64)
    odd = ~(np.isnan(values) | (values == 0) | (values == 1))
    if odd.any():
        row = int(np.argmax(odd))
        raise ValueError(
            f"{read.where(row, plan.name)}: expected a truth value, as in training; got {values[row]:g}; correct it"
        )
    return values


def _places(plan: ColumnPlan, cells: Cells, read: Columns) -> np.ndarray:
    text = as_text(cells)
    places = _known(plan)
    found = [places(word) for word in text.words]
    if None in found:
        what = f"one of {listed(plan.levels)}"
        raise _other_word(plan, text, read, what, lambda word: places(word) is not None)
    return text.spread(np.array(found, dtype=np.float64), np.nan)


def _known(plan: ColumnPlan) -> Callable[[str], int | None]:
    """Return the place of a word among the levels; one that spells the same number will do."""
    exact = {level: at for at, level in enumerate(plan.levels)}
    same = {value: at for level, at in exact.items() if (value := number(level)) is not None}

    def place(word: str) -> int | None:
        at = exact.get(word)
        value = number(word) if at is None and same else None
        return at if value is None else same.get(value)

    return place


def _fill_category(out: np.ndarray, plan: ColumnPlan, cells: Cells, read: Columns) -> np.ndarray:
    text = as_text(cells)
    place = _known(plan)
    found = [place(word) for word in text.words]
    if text.words and not any(at is not None for at in found):
        strange = [word for word in text.words if number(word, read.decimal) is not None]
        if len(strange) == len(text.words) and not any(number(level) is not None for level in plan.levels):
            raise _other_word(plan, text, read, f"text such as {listed(plan.levels, 3)}", lambda word: False)
    unknown = len(plan.levels)
    table = np.array([unknown if at is None else at for at in found], dtype=np.int64)
    codes = text.spread(table, int(plan.fill)) if text.words else np.full(len(text), int(plan.fill))
    inside = codes < len(plan.levels) + plan.other
    out[np.flatnonzero(inside), codes[inside]] = 1
    return text.codes < 0


def _dates(plan: ColumnPlan, cells: Cells, read: Columns) -> np.ndarray:
    if not isinstance(cells, Text):
        if cells.dtype.kind != "M":
            raise _other_kind(plan, read, "dates", "numbers")
        return cells
    if not cells.words:
        return np.full(len(cells), np.datetime64("NaT", "s"))
    found = dates(cells.words, plan.format)
    if found is None:
        what = f"a date, {ORDERS.get(plan.format, 'year-month-day')}"
        raise _other_word(plan, cells, read, what, lambda word: dates([word], plan.format) is not None)
    return cells.spread(found.values, "NaT")


def _other_word(plan: ColumnPlan, text: Text, read: Columns, what: str, fits: Callable[[str], bool]) -> ValueError:
    at = next(at for at, word in enumerate(text.words) if not fits(word) and (text.codes == at).any())
    row = int(np.argmax(text.codes == at))
    remedy = "correct it, or leave it empty"
    if plan.kind == "number" and not plan.format:
        remedy = instead_of_a_number(text.words[at], remedy)
        if number(text.words[at], ",.".replace(read.decimal, "")) is not None:
            remedy = f"the decimal sign is {read.decimal!r}, as in training; write it so in the whole file"
    return ValueError(
        f"{read.where(row, plan.name)}: expected {what}, as in training; got {shown(text.words[at])}; {remedy}"
    )


def _other_kind(plan: ColumnPlan, read: Columns, what: str, got: str) -> ValueError:
    return ValueError(
        f"{read.begin}column {shown(plan.name)}: expected {what}, as in training; got {got}; give the same kind"
    )
