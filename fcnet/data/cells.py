"""What a cell of a table may spell: a number, a truth value, a date, or nothing at all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

#: What stands for a missing value, compared without regard to case; `--missing` adds to it.
MISSING = frozenset({"", "?", "na", "n/a", "#n/a", "<na>", "nan", "null", "\\n"})

#: Pairs of words for truth values, false first.
TRUTH_WORDS = (("false", "true"), ("no", "yes"), ("f", "t"), ("n", "y"), ("off", "on"))

_THOUSANDS = {
    ".": re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?"),
    ",": re.compile(r"[+-]?\d{1,3}(\.\d{3})+(,\d+)?"),
}


def number(cell: str, decimal: str = ".") -> float | None:
    """Return the number that a cell spells with this decimal sign, or None; "nan" and "inf" are numbers too.

    With a decimal comma, points may stand between thousands: 1.234,5. With a decimal point nothing may: 1,234 is as
    likely the other sign.
    """
    try:
        if decimal == ".":
            return None if "_" in cell else float(cell)
        text = cell.strip()
        if "." in text:
            if not _THOUSANDS[","].fullmatch(text):
                return None
            text = text.replace(".", "")
        return None if "_" in text else float(text.replace(",", "."))
    except ValueError:
        return None


#: What may stand before or behind a number: signs of currencies, and per cent.
SIGNS = "$€£¥₹%"
_AMOUNT = re.compile(rf"([+-]?)\s*([{SIGNS}]?)\s*([+-]?)\s*([\d.,][\d., '\u00a0\u202f]*)\s*([{SIGNS}]?)")
_GROUPED = re.compile(r"[1-9]\d{0,2}([,. '\u00a0\u202f])\d{3}(\1\d{3})*")


def amount(cell: str, decimal: str = ".") -> tuple[float, str] | None:
    """Return the number that a cell spells with a sign of currency or % beside it, or marks between thousands, and
    that sign ("" for none); None if it spells none. "$1,234.50" is (1234.5, "$"), "37 %" (37.0, "%").

    With a decimal point "1,234" is 1234. Marks are the other decimal sign, blanks and apostrophes, the same in all.
    """
    found = _AMOUNT.fullmatch(cell.strip())
    if found is None or (found[1] and found[3]) or (found[2] and found[5]):
        return None
    whole, point, part = found[4].strip().partition(decimal)
    if _GROUPED.fullmatch(whole):
        whole = re.sub(r"\D", "", whole)
    elif not (whole or part) or not (whole + part).isdecimal():
        return None
    if not part.isdecimal() and part:
        return None
    return float(f"{found[1]}{found[3]}{whole}{'.' if point else ''}{part}"), found[2] or found[5]


def amounts(cells: Sequence[str], decimal: str, sign: str | None = None) -> tuple[np.ndarray, str] | None:
    """Return the cells as float64 (N,) if each is an `amount`, and the sign that all have; None if they are not.

    sign: the one that they must have; those of thousands and currency may lack it, a percentage may not.
    """
    values = np.empty(len(cells))
    common = sign
    for at, cell in enumerate(cells):
        found = amount(cell, decimal)
        common = found[1] if found is not None and common is None else common
        if found is None or not (found[1] == common or (sign not in (None, "%") and found[1] == "")):
            return None
        values[at] = found[0]
    return None if common is None else (values, common)


def describe_amounts(sign: str, example: str, decimal: str = ".") -> str:
    """Return what is said of a column of `amounts`: "numbers with $ (such as $1,200, which is 1200)"."""
    value = amount(example, decimal)
    of = f" with {sign}" if sign else ", with marks between thousands"
    return f"numbers{of} (such as {example}, which is {value[0] if value else 0:.15g})"


def has_thousands(cell: str) -> bool:
    """Return whether a cell is a number with points or commas between thousands."""
    return any(pattern.fullmatch(cell.strip()) for pattern in _THOUSANDS.values())


def all_numbers(cells: Sequence[str], decimal: str) -> np.ndarray | None:
    """Return the cells as float64 (N,) if each spells a number, else None; as fast as Python's float() is."""
    joined = "\n".join(cells)
    if "_" in joined:  # float() would take 1_2 for 12
        return None
    if decimal == "," and ("," in joined or "." in joined):
        if "." in joined:
            values = [number(cell, decimal) for cell in cells]
            return None if None in values else np.array(values, dtype=np.float64)
        cells = joined.replace(",", ".").split("\n")
    try:
        return np.fromiter(map(float, cells), np.float64, len(cells))
    except ValueError:  # of a cell, or of one with a line end in it
        return None


def instead_of_a_number(word: str, otherwise: str) -> str:
    """Return what to do about a word that is no number."""
    digits = "".join(c for c in word if c not in " \t,'_%$€£¥")
    if has_thousands(word) or (digits != word and number(digits) is not None):
        return "write numbers with one decimal sign, the same in the whole file, and without a unit, as 1234.5"
    return otherwise


def is_missing(word: str, more: frozenset[str]) -> bool:
    """Return whether a word stands for a missing value: one of `MISSING`, or of the user's own `more`."""
    return word.lower() in MISSING or word in more


def truth_words(words: Iterable[str]) -> tuple[str, str] | None:
    """Return the pair of `TRUTH_WORDS` that all these words come from, in any case; None if they come from none."""
    found = {word.lower() for word in words}
    return next((pair for pair in TRUTH_WORDS if found and found <= set(pair)), None)


# Dates

_NUMERIC = re.compile(r"(\d{1,4})([-/.])(\d{1,2})\2(\d{1,4})(?:[T ]+(\d{1,2}):(\d{2})(?::(\d{2})(?:\.\d+)?)?)?")
_IN_WORDS = ("%d %b %Y", "%d-%b-%Y", "%d-%b-%y", "%b %d, %Y", "%d %B %Y", "%B %d, %Y", "%b %d %Y", "%d. %B %Y")
#: The orders of a date's numbers, and what people call them.
ORDERS = {"ymd": "year-month-day", "dmy": "day/month/year", "mdy": "month/day/year"}


@dataclass(frozen=True)
class Dates:
    """Hold dates as datetime64[s], how they are spelled, and whether day and month might as well change places."""

    values: np.ndarray
    format: str
    unsure: bool = False


def dates(words: Sequence[str], format: str | None = None) -> Dates | None:
    """Return the dates that all these words spell, in `format` or in the first that fits all of them; None: they don't.

    Formats are "iso" (2024-05-31, also with a time), those of `ORDERS` with / . or - between, and months by name.
    """
    formats = ["iso", *ORDERS, *_IN_WORDS] if format is None else [format]
    found = {name: values for name in formats if (values := _all_dates(words, name)) is not None}
    if not found:
        return None
    name = next(iter(found))
    return Dates(found[name], name, unsure=name == "dmy" and "mdy" in found)


def _all_dates(words: Sequence[str], format: str) -> np.ndarray | None:
    """Return the dates that these words spell in this format, or None; it stops at the first that does not."""
    values = []
    for word in words:
        value = _date(word, format)
        if value is None:
            return None
        values.append(value)
    return np.array(values, dtype="datetime64[s]") if values else None


def _date(word: str, format: str) -> datetime | None:
    try:
        if format == "iso":
            if "-" not in word[4:5]:  # 20240531 is a number, and 2024W05 hardly a date
                return None
            when = datetime.fromisoformat(word)
        elif format in ORDERS:
            found = _NUMERIC.fullmatch(word)
            if found is None:
                return None
            parts = dict(zip(format, found.group(1, 3, 4), strict=True))
            year = int(parts["y"])
            if len(parts["y"]) == 2:
                year += 2000 if year < 70 else 1900
            elif len(parts["y"]) != 4:
                return None
            hour, minute, second = (int(part or 0) for part in found.group(5, 6, 7))
            when = datetime(year, int(parts["m"]), int(parts["d"]), hour, minute, second)
        else:
            when = datetime.strptime(word, format)
        return when.astimezone(UTC).replace(tzinfo=None) if when.tzinfo else when
    except (ValueError, OverflowError):
        return None


#: The numbers that a date is made of, by name.
DATE_PARTS = ("year", "month", "day", "weekday", "hour", "minute")


def date_part(values: np.ndarray, part: str) -> np.ndarray:
    """Return one of `DATE_PARTS` of datetime64 values (N,) as float64, NaN for NaT; Monday is weekday 0."""
    missing = np.isnat(values)
    days = values.astype("datetime64[D]")
    if part == "year":
        found = values.astype("datetime64[Y]").astype(np.int64) + 1970
    elif part == "month":
        found = values.astype("datetime64[M]").astype(np.int64) % 12 + 1
    elif part == "day":
        found = (days - values.astype("datetime64[M]").astype("datetime64[D]")).astype(np.int64) + 1
    elif part == "weekday":
        found = (days.astype(np.int64) + 3) % 7
    else:
        minutes = (values.astype("datetime64[s]") - days.astype("datetime64[s]")).astype(np.int64) // 60
        found = minutes // 60 if part == "hour" else minutes % 60
    return np.where(missing, np.nan, found.astype(np.float64))
