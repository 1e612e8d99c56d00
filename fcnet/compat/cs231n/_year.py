"""The year whose course is installed: what its calls alone do not tell."""

from __future__ import annotations

#: The years whose notebooks were tried.
YEARS = range(2016, 2027)

_year: int | None = None


def set_year(year: int | None) -> None:
    """Set the course's year; None for the conventions of 2018 and later.

    Raises:
        TypeError, ValueError: no year of `YEARS`.
    """
    global _year
    if year is not None and (isinstance(year, bool) or not isinstance(year, int)):
        raise TypeError(f"year: expected an integer or None, got {year!r} of type {type(year).__name__}")
    if year is not None and year not in YEARS:
        raise ValueError(f"year: expected {YEARS[0]} to {YEARS[-1]}, got {year}; leave it out for 2018 and later")
    _year = year


def known() -> bool:
    """Return whether a year was given."""
    return _year is not None


def p_is_dropped() -> bool:
    """Return whether dropout's p is the share of units to drop, as in 2016 and 2017, not the probability to keep."""
    return _year in (2016, 2017)


def l2_strength(reg: float) -> float:
    """Return fcnet's strength of the L2 term, which has a half, for assignment 1's, which has none from 2017 on."""
    return reg if _year == 2016 else 2 * reg
