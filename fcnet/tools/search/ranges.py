"""What a search may vary and how far: `lr=1e-4:1e-2:log`, `hidden=100,100|200,100`."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fcnet.errors import unknown
from fcnet.runs.options import ARGUMENTS, TrainOptions, flag, parsed, typed

# What every trial of a study must share, or their validation values would not compare; and where results go.
_FIXED = ("data", "data_dir", "target", "header", "sep", "decimal", "missing", "ordinal", "out", "force")


@dataclass(frozen=True)
class Range:
    """Draw numbers from `low` to `high`, both included: evenly, or evenly in their logarithm."""

    low: float
    high: float
    log: bool = False
    points: int | None = None
    integer: bool = False

    def __str__(self) -> str:
        log, points = ["log"] if self.log else [], [str(self.points)] if self.points else []
        return ":".join([str(self.low), str(self.high), *log, *points])

    def grid(self) -> list[Any] | None:
        """Return the points of a grid, or None if nobody said how many."""
        if self.points is None:
            return list(range(int(self.low), int(self.high) + 1)) if self.integer and not self.log else None
        low, high = self._scaled(self.low), self._scaled(self.high)
        steps = [low + (high - low) * i / (self.points - 1) for i in range(self.points)]
        inner = [self._unscaled(step) for step in steps[1:-1]]
        return list(dict.fromkeys([self.low, *inner, self.high]))  # the ends to the bit

    def narrowed(self, best: Sequence[float]) -> Range:
        """Return a range half as wide, on its own scale, around the median of these values, inside this range."""
        low, high = self._scaled(self.low), self._scaled(self.high)
        quarter = (high - low) / 4
        ordered = sorted(self._scaled(value) for value in best)
        middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
        middle = min(max(middle, low + quarter), high - quarter)
        return dataclasses.replace(self, low=self._unscaled(middle - quarter), high=self._unscaled(middle + quarter))

    def _scaled(self, value: float) -> float:
        return math.log(value) if self.log else float(value)

    def _unscaled(self, value: float) -> float:
        value = math.exp(value) if self.log else value
        value = min(max(value, self.low), self.high)  # exp(log(x)) may be a bit beside x
        return round(value) if self.integer else value


@dataclass(frozen=True)
class Choices:
    """Choose among some values, each with the text that names it."""

    values: tuple[Any, ...]
    texts: tuple[str, ...]

    def __str__(self) -> str:
        return "|".join(self.texts)

    def grid(self) -> list[str]:
        """Return all choices, by the texts that name them in the study."""
        return list(self.texts)


Space = Mapping[str, Range | Choices]


def space(vary: Mapping[str, Any] | Iterable[str]) -> dict[str, Range | Choices]:
    """Return what to vary, by option.

    Args:
        vary: {"lr": "1e-4:1e-2:log", "dropout_keep": (0.5, 1.0), "reg": (1e-6, 1e-2, "log"),
            "hidden": [[100], [50, 50]]}, or the texts "lr=1e-4:1e-2:log" of the command line.

    Raises:
        ValueError, TypeError: an option that does not exist or cannot vary, a range that is none.
    """
    pairs = list(vary.items()) if isinstance(vary, Mapping) else [_pair(text) for text in vary]
    kinds = {field.name: field.metadata["kind"] for field in dataclasses.fields(TrainOptions)}
    names = {flag(name): name for name in kinds}
    found: dict[str, Range | Choices] = {}
    for given, what in pairs:
        name = names.get(flag(given.strip()), given)
        if name not in kinds:
            free = [flag(other) for other in kinds if other not in _FIXED]
            raise unknown("vary", given, free, see=TrainOptions.see, meant=ARGUMENTS.get(given.strip()))
        if name in _FIXED:
            raise ValueError(f"vary: expected an option that trials of one study can differ in, got {given!r}; fix it")
        if name in found:
            raise ValueError(f"vary: expected each option once, got {given!r} twice; join them in one range")
        where = f"vary {flag(name)}"
        if isinstance(what, Range | Choices):
            found[name] = what
        elif isinstance(what, str):
            found[name] = _read(where, what, kinds[name])
        elif isinstance(what, tuple):
            found[name] = _range(where, list(what), kinds[name])
        elif isinstance(what, Sequence):
            found[name] = _choices(where, [typed(where, value, kinds[name]) for value in what])
        else:
            raise TypeError(f"{where}: expected a text, a tuple (low, high) or a list of choices, got {what!r}")
    if not found:
        raise ValueError("vary: expected at least one range such as lr=1e-4:1e-2:log, got none; say what to search")
    return found


def spelled(value: Any) -> str:
    """Return a value as the command line spells it: 100,100 or 0.0012 or batchnorm."""
    if isinstance(value, list):
        return ",".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _pair(text: str) -> tuple[str, str]:
    name, equals, what = text.partition("=")
    if not equals or not name.strip():
        raise ValueError(f"vary: expected NAME=RANGE such as lr=1e-4:1e-2:log, got {text!r}")
    return name, what.strip()


def _read(where: str, text: str, kind: type) -> Range | Choices:
    if "|" in text:
        return _choices(where, [parsed(where, part.strip(), kind) for part in text.split("|")])
    if kind in (int, float) and ":" in text:
        return _range(where, [part.strip() for part in text.split(":")], kind)
    how = "LOW:HIGH, LOW:HIGH:log or A|B|C" if kind in (int, float) else "choices such as A|B|C"
    name = where.split()[-1]
    raise ValueError(f"{where}: expected {how}, got {text!r}; a value for all trials goes into {name} itself")


def _range(where: str, parts: list[Any], kind: type) -> Range:
    if kind not in (int, float):
        raise ValueError(f"{where}: expected choices such as A|B|C for an option that is no number, got {parts}")
    bounds, rest = parts[:2], parts[2:]
    log = bool(rest) and rest[0] == "log"
    rest = rest[1:] if log else rest
    if len(bounds) < 2 or len(rest) > 1:
        raise ValueError(f"{where}: expected LOW:HIGH; then log, and the points of a grid, if wanted, got {parts}")
    low, high = (parsed(where, b, kind) if isinstance(b, str) else typed(where, b, kind) for b in bounds)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"{where}: expected finite numbers LOW < HIGH, got {low} and {high}")
    if log and low <= 0:
        raise ValueError(f"{where}: expected LOW > 0 for a logarithmic range, got {low}; leave log out, or raise it")
    points = None
    if rest:
        try:
            points = int(rest[0])
        except (TypeError, ValueError):
            raise ValueError(f"{where}: expected log or a number of points, got {rest[0]!r}") from None
        if points < 2:
            raise ValueError(f"{where}: expected 2 or more points, got {points}")
    return Range(low, high, log, points, integer=kind is int)


def _choices(where: str, values: list[Any]) -> Choices:
    if len({json.dumps(value) for value in values}) != len(values) or len(values) < 2:
        raise ValueError(f"{where}: expected two or more choices, each once, got {values}")
    return Choices(tuple(values), tuple(_text(value) for value in values))


def _text(value: Any) -> str:
    """Return a value as `spelled` does, but to the last digit: it names a choice."""
    return repr(value) if isinstance(value, float) else spelled(value)
