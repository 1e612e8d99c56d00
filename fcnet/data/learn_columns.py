"""What becomes of a column, learned from its cells in the training rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from fcnet.data.cells import (
    DATE_PARTS,
    date_part,
    dates,
    describe_amounts,
    instead_of_a_number,
    number,
    truth_words,
)
from fcnet.data.column_plan import COUNTS, LEFT_OUT, THOUSANDS, ColumnPlan
from fcnet.data.columns import Cells, Columns, Text, as_text, listed
from fcnet.errors import counted, shown

MOST_LEVELS = 100  # of a category; the others are one
MANY_NUMBERS = 20  # a text or two among more different numbers than this is a mistake, not a level


class Learner:
    """Make the plan of one column after the other."""

    def __init__(
        self,
        read: Columns,
        rows: np.ndarray | None,
        categorical: Collection[str],
        ordinal: Mapping[str, tuple[str, ...]],
        prune: bool,
    ) -> None:
        self.read, self.rows, self.categorical, self.ordinal, self.prune = read, rows, categorical, ordinal, prune
        self.prune_counts = prune
        self.count = read.count if rows is None else len(rows)

    def column(self, name: str, cells: Cells) -> ColumnPlan:
        """Return the plan of this column."""
        if name in self.ordinal:
            return self._ranked(name, as_text(cells), self.ordinal[name])
        if name in self.categorical:
            return self._category(name, as_text(cells))
        if isinstance(cells, Text):
            return self._text(name, cells)
        if cells.dtype.kind == "b":
            return self._boolean(name, cells.astype(np.float64), ("false", "true"))
        if cells.dtype.kind == "M":
            return self._date(name, cells, "iso")
        return self._number(name, cells)

    def _mine(self, values: np.ndarray) -> np.ndarray:
        return values if self.rows is None else values[self.rows]

    def _text(self, name: str, text: Text) -> ColumnPlan:
        if text.levels is not None:
            return (self._ranked if text.ordered else self._category)(
                name, text, *([text.levels] if text.ordered else [])
            )
        if not text.words:
            return self._nothing(name)
        values = text.numbers(self.read.decimal)
        if values is not None:
            return self._number(name, values)
        pair = truth_words(text.words)
        if pair is not None:
            truth = np.array([float(word.lower() == pair[1]) for word in text.words])
            return self._boolean(name, text.spread(truth, np.nan), pair)
        when = dates(text.words)
        if when is not None:
            return self._date(name, text.spread(when.values, "NaT"), when.format, when.unsure)
        found = text.amounts(self.read.decimal)
        if found is not None:
            reason = describe_amounts(found[1], max(text.words, key=len), self.read.decimal)
            return self._number(name, found[0], format=found[1] or THOUSANDS, reason=reason)
        self._refuse_text_among_numbers(name, text)
        return self._category(name, text)

    def _refuse_text_among_numbers(self, name: str, text: Text) -> None:
        is_number = np.array([number(word, self.read.decimal) is not None for word in text.words])
        counts = text.counts()
        if is_number.sum() <= MANY_NUMBERS or counts[~is_number].sum() > 0.1 * counts.sum():
            return
        row = int(np.flatnonzero(text.spread(~is_number, False))[0])
        word = text.words[text.codes[row]]
        among = f"as in {counts[is_number].sum()} of {counts.sum()} rows"
        missing = f"count it as missing with missing={word!r}, " if len(word) < 60 else ""
        raise ValueError(
            f"{self.read.where(row, name)}: expected a number, {among}; got {shown(word)}; "
            + instead_of_a_number(word, f"correct it, {missing}or leave the column out with drop={name!r}")
        )  # fmt: skip

    def _nothing(self, name: str) -> ColumnPlan:
        return ColumnPlan(name, LEFT_OUT, "missing in every row", 1.0)

    def _made(self, name: str, kind: str, missing: float, varies: bool, **how: Any) -> ColumnPlan:
        """Return the plan of a column of this kind; left out if it is constant."""
        if not varies and self.prune:
            if not missing:
                return ColumnPlan(name, LEFT_OUT, "the same value in every row")
            how["constant"] = True
        return ColumnPlan(name, kind, missing=round(missing, 6), indicator=missing > 0, **how)

    def _number(self, name: str, values: np.ndarray, **how: str) -> ColumnPlan:
        mine = self._mine(values)
        absent = np.isnan(mine)
        missing = float(np.count_nonzero(absent)) / max(len(mine), 1)
        if missing:
            mine = mine[~absent]
        if not len(mine):
            return self._nothing(name)
        if self.prune_counts and _counts_rows(values):
            return ColumnPlan(name, LEFT_OUT, COUNTS)
        with np.errstate(over="ignore", invalid="ignore"):
            varies, fill = bool(mine.min() != mine.max()), float(np.median(mine))
            return self._made(name, "number", missing, varies, fill=fill, **how)

    def _boolean(self, name: str, values: np.ndarray, pair: tuple[str, str]) -> ColumnPlan:
        mine = self._mine(values)
        missing = float(np.isnan(mine).mean()) if len(mine) else 0.0
        if missing == 1:
            return self._nothing(name)
        share = float(np.nanmean(mine))
        return self._made(name, "boolean", missing, 0 < share < 1, fill=float(share > 0.5), levels=pair)

    def _date(self, name: str, values: np.ndarray, format: str, unsure: bool = False) -> ColumnPlan:
        mine = self._mine(values)
        mine, missing = mine[~np.isnat(mine)], float(np.isnat(mine).mean()) if len(mine) else 0.0
        if not len(mine):
            return self._nothing(name)
        numbers = {part: date_part(mine, part) for part in DATE_PARTS}
        parts = tuple(part for part, found in numbers.items() if not self.prune or found.min() != found.max())
        fill = [float(np.median(numbers[part])) for part in parts]
        how = {"parts": parts, "format": format, "fill": fill, "reason": "unsure" if unsure else ""}
        return self._made(name, "date", missing, bool(parts), **how)

    def _counted(self, text: Text) -> tuple[np.ndarray, float]:
        """Count how often each word comes in the training rows, and the share of missing cells there."""
        codes = self._mine(text.codes)
        present = codes[codes >= 0]
        return np.bincount(present, minlength=len(text.words)), 1 - len(present) / max(len(codes), 1)

    def _ranked(self, name: str, text: Text, levels: tuple[str, ...]) -> ColumnPlan:
        places = {level: at for at, level in enumerate(levels)}
        unknown = [at for at, word in enumerate(text.words) if word not in places]
        if unknown:
            row = int(np.flatnonzero(text.codes == unknown[0])[0])
            raise ValueError(
                f"{self.read.where(row, name)}: expected one of the ordinal levels {listed(levels)}; got "
                f"{shown(text.words[unknown[0]])}; name it in its place among them, or count it as missing with "
                f"missing={text.words[unknown[0]]!r}"
            )
        counts, missing = self._counted(text)
        if not counts.any():
            return self._nothing(name)
        fill = places[text.words[int(counts.argmax())]]
        return self._made(name, "ordinal", missing, bool(np.count_nonzero(counts) > 1), fill=float(fill), levels=levels)

    def _category(self, name: str, text: Text) -> ColumnPlan:
        counts, missing = self._counted(text)
        total, different = int(counts.sum()), int(np.count_nonzero(counts))
        if not total:
            return self._nothing(name)
        declared = text.levels is not None or name in self.categorical
        if self.prune and not declared and different == total > 1:
            hint = instead_of_a_number(text.words[0], "")
            reason = "text with a value of its own in every row" + (f"; {hint}" if hint else "")
            return ColumnPlan(name, LEFT_OUT, reason, round(missing, 6))
        fewest = fewest_rows(self.count)
        order = sorted(range(len(counts)), key=lambda at: (-counts[at], text.words[at]))
        kept = sorted(text.words[at] for at in order[:MOST_LEVELS] if counts[at] >= fewest)
        if not kept:
            if self.prune and different > 1:
                return ColumnPlan(
                    name, LEFT_OUT, f"text, of which no value comes {counted(fewest, 'time')}", round(missing, 6)
                )
            kept = [text.words[order[0]]]
        other = different > len(kept)
        largest = text.words[order[0]]
        fill = kept.index(largest) if largest in kept else len(kept)
        varies = len(kept) + other > 1
        return self._made(name, "category", missing, varies, fill=float(fill), levels=tuple(kept), other=other)


def fewest_rows(count: int) -> int:
    """Return how many of `count` training rows a level of a category needs for a column of its own."""
    return min(max(count // 200, 2), 10)


def _counts_rows(values: np.ndarray) -> bool:
    """Return whether whole numbers rise by one from row to row."""
    return len(values) > 2 and values[1] - values[0] == 1 and float(values[0]).is_integer() and bool(
        (np.diff(values) == 1).all()
    )  # fmt: skip
