"""What a text table does not say of itself: its separator, its decimal sign, whether its first row holds names."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from fcnet.data.cells import MISSING, SIGNS, number

BLANKS = " "  # stands for any run of blanks and tabs
#: What separators are called, those first that are tried first where several fit.
SEPARATORS = {"\t": "tabs", ";": "semicolons", "|": "vertical bars", ",": "commas", BLANKS: "blanks"}
_LOOKED_AT = 200  # rows

_COMMA_NUMBER = re.compile(r"[+-]?(\d+|\d{1,3}(\.\d{3})+)?,\d+([eE][+-]?\d+)?")
_POINT_NUMBER = re.compile(r"[+-]?\d*\.\d+([eE][+-]?\d+)?")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d+)?")
_TWO_NUMBERS = re.compile(r"\d\s+[-+\d]")


def cells_of(lines: Iterator[str], sep: str, *, strict: bool = False) -> Iterator[tuple[int, list[str]]]:
    """Yield (number of the line that a row ends in, cells) of each row that is not empty.

    Blanks after a separator do not count. Raises csv.Error with `strict` for damaged quotes.
    """
    if sep == BLANKS:
        for at, line in enumerate(lines, 1):
            if '"' in line:
                yield at, next(csv.reader([re.sub(r"\s+", " ", line.strip())], delimiter=" ", strict=strict))
            elif cells := line.split():
                yield at, cells
        return
    reader = csv.reader(lines, delimiter=sep, skipinitialspace=True, strict=strict)
    for row in reader:
        if len(row) > 1 or (row and row[0].strip()):
            yield reader.line_num, row


def sample_rows(sample: str, sep: str) -> list[list[str]]:
    """Return the cells of a sample's first rows."""
    rows: list[list[str]] = []
    try:
        for _, row in cells_of(io.StringIO(sample, newline=""), sep):
            rows.append(row)
            if len(rows) == _LOOKED_AT:
                break
    except csv.Error:  # what is damaged is said when the whole is read
        pass
    return rows


def separator(sample: str, prefer: str | None = None) -> tuple[str, str | None]:
    """Return the separator that splits a sample into rows of one width, and another that does so too, or None."""
    fits: dict[str, float] = {}
    most: tuple[float, str] = (0.0, ",")
    for sep in SEPARATORS:
        rows = sample_rows(sample, sep)
        widths = Counter(len(row) - (len(row) > 1 and not row[-1].strip()) for row in rows)
        width, count = widths.most_common(1)[0] if widths else (0, 0)
        share = count / max(len(rows), 1)
        if width < 2:
            continue
        if share >= 0.9:
            cells = [cell for row in rows for cell in row]
            fits[sep] = sum(_is_whole(cell, sep) for cell in cells) / len(cells)
        elif sep != BLANKS and share > most[0]:
            most = share, sep
    if prefer in fits:
        return prefer, None
    if BLANKS in fits and len(fits) > 1:  # words of a text
        others = max(whole for sep, whole in fits.items() if sep != BLANKS)
        if fits[BLANKS] < others + 0.2:
            del fits[BLANKS]
    if not fits:
        return most[1], None
    best = max(fits, key=lambda sep: fits[sep])
    others_as_good = [sep for sep in fits if sep != best and fits[sep] > 0.99 * fits[best]]
    return best, next(iter(others_as_good), None)


def _is_whole(cell: str, sep: str) -> bool:
    """Return whether a cell does not look as if another separator stood in it."""
    text = cell.strip()
    if number(text) is not None or _COMMA_NUMBER.fullmatch(text):
        return True
    return not (any(other in text for other in ",;\t|" if other != sep) or _TWO_NUMBERS.search(text))


def decimal_sign(rows: Sequence[Sequence[str]], sep: str) -> tuple[str, bool]:
    """Return the decimal sign of the numbers in these rows, and whether some have the other one."""
    commas = points = 0
    for row in rows:
        for cell in row:
            text = cell.strip(f"{SIGNS} \u00a0")
            if _POINT_NUMBER.fullmatch(text):
                points += 1
            elif _COMMA_NUMBER.fullmatch(text) and not (sep == "," and _THOUSANDS.fullmatch(text)):
                commas += 1
    return ("," if commas > points else "."), min(commas, points) > 0.1 * max(commas, points, 1)


# Header


@dataclass(frozen=True)
class Header:
    """Say whether the first row holds names, whether that is obvious, and why."""

    found: bool
    obvious: bool
    why: str


def header(rows: Sequence[Sequence[str]], decimal: str) -> Header:
    """Return whether the first of these rows holds the names of the columns.

    It does if its cells are all different and are 0 to D-1 or 1 to D, or rise evenly (years) while those below do not,
    or if one of them is text above numbers; it does not if it looks like the others.
    """
    first, body = [cell.strip() for cell in rows[0]], [row for row in rows[1:] if len(row) >= len(rows[0])]
    if not body:
        text = [cell for cell in first if number(cell, decimal) is None]
        return Header(bool(text), False, "there is one row only")
    by_number = _named_by_numbers(first, body, decimal)
    if by_number is not None:
        return by_number
    names = data = weak_names = weak_data = 0
    for at, cell in enumerate(first):
        below = [row[at].strip() for row in body]
        below = [other for other in below if other.lower() not in MISSING]
        if cell.lower() in MISSING or not below:
            continue
        numbers = sum(number(other, decimal) is not None for other in below)
        is_number = number(cell, decimal) is not None
        if numbers >= 0.9 * len(below):
            names, data = names + (not is_number), data + is_number
        elif not is_number:
            repeats = len(set(below)) <= len(below) / 2
            if cell in below:
                weak_data += 1
            elif repeats:
                weak_names += 1
    if names or data:
        if names and data:
            different = len(set(first)) == len(first)
            return Header(different, False, f"{names} of its cells are text above numbers, {data} are numbers")
        return Header(bool(names), True, "text above numbers" if names else "numbers above numbers")
    if weak_names and weak_data:
        return Header(weak_names > weak_data, False, "some of its cells come again below, others do not")
    if weak_data:
        return Header(False, True, "its cells come again below")
    return Header(True, bool(weak_names), "all columns are text")


def _named_by_numbers(first: Sequence[str], body: Sequence[Sequence[str]], decimal: str) -> Header | None:
    """Return whether the first row holds names that are numbers: counted, or evenly stepped as years are."""
    whole = [(at, int(cell)) for at, cell in enumerate(first) if re.fullmatch(r"[+-]?\d{1,9}", cell)]
    if len(set(first)) < len(first) or len(whole) < 2:
        return None
    values = [value for _, value in whole]
    below = [[row[at].strip() for at, _ in whole] for row in body]
    if len(whole) == len(first) and values[0] in (0, 1) and values == list(range(values[0], values[0] + len(values))):
        alike = sum(_evenly_stepped([number(cell, decimal) for cell in cells]) for cells in below)
        if list(first) in below or alike > len(below) / 2:
            return None
        return Header(True, False, f"it counts the columns, {first[0]} to {first[-1]}")
    if any(number(cell, decimal) is not None for cell in first if not re.fullmatch(r"[+-]?\d+", cell)):
        return None
    if not _evenly_stepped(values):
        return None
    stepped = sum(_evenly_stepped([number(cell, decimal) for cell in cells]) for cells in below)
    if len(values) > 2 and stepped > 0.1 * len(below):
        return None
    outside = apart = 0
    for at, value in enumerate(values):
        found = [v for cells in below if (v := number(cells[at], decimal)) is not None]
        outside += not found or not min(found) <= value <= max(found)
        apart += not found or not min(found) <= value <= max(found) or any(v % 1 for v in found)
    if len(values) == 2 and (outside < 2 or values[0] > values[1]):  # any two numbers are evenly stepped
        return None
    if apart < len(values) / 2 and len(values) < 5:
        return None
    return Header(True, False, f"it rises evenly, {values[0]} to {values[-1]}, and the rows below do not")


def _evenly_stepped(values: Sequence[float | None]) -> bool:
    found = [value for value in values if value is not None]
    if len(found) < max(len(values), 2):
        return False
    steps = {b - a for a, b in pairwise(found)}
    return len(steps) == 1 and 0 not in steps
