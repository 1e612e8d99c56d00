"""What becomes of one column of a table, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fcnet.data.cells import ORDERS
from fcnet.data.columns import in_line, listed
from fcnet.errors import counted

LEFT_OUT = "left out"
COLUMN_KINDS = ("number", "boolean", "category", "ordinal", "date", LEFT_OUT)
COUNTS = "it counts the rows"
THOUSANDS = ","  # the format of numbers with marks between thousands, and no other sign
DROPPED, NOT_AMONG = "as --drop says", "not among --only"  # reasons that the user gave


@dataclass(frozen=True)
class ColumnPlan:
    """Describe what becomes of one column.

    kind: "number", "boolean", "category", "ordinal", "date" or LEFT_OUT, then for a reason.
    missing: the share of missing cells in the training rows. fill: what stands for one: of a number the median, of a
    boolean 0 or 1, of categories and ordinals the place in levels, of a date the medians of its parts.
    indicator: whether a column says which were missing. constant: whether that is all it tells.
    levels: of a category or an ordinal. other: whether levels that are not listed have a column. parts, format: of a
    date, see `fcnet.data.cells`; the format of a number is the sign beside it, "$" or "%", or `THOUSANDS`, and its
    reason an example.
    """

    name: str
    kind: str
    reason: str = ""
    missing: float = 0.0
    fill: Any = 0.0
    indicator: bool = False
    constant: bool = False
    levels: tuple[str, ...] = ()
    other: bool = False
    parts: tuple[str, ...] = ()
    format: str = ""

    @property
    def outputs(self) -> list[str]:
        """Return the names of the columns of numbers that this one becomes."""
        own = [self.name]
        if self.kind == LEFT_OUT:
            return []
        if self.constant:
            own = []
        elif self.kind == "category":
            own = [f"{self.name}={level}" for level in (*self.levels, *["(other)"] * self.other)]
        elif self.kind == "date":
            own = [f"{self.name} {part}" for part in self.parts]
        return [*own, f"{self.name} missing"] if self.indicator else own

    def becomes(self) -> str:
        """Return what becomes of it, in words."""
        if self.kind == LEFT_OUT:
            return f"left out: {self.reason}"
        text = {
            "number": self.reason or "a number",
            "boolean": "0 or 1",
            "category": f"{counted(len(self.levels) + self.other, 'column')} of 0 and 1: {listed(self.levels, 8)}"
            + (", the others" if self.other else ""),
            "ordinal": f"the place in {listed(self.levels, 12)}",
            "date": f"its {', '.join(self.parts)}" + (f" ({ORDERS[self.format]})" if self.format in ORDERS else ""),
        }[self.kind]
        if self.constant:
            return "whether it is missing (all its values are the same)"
        return text + (f"; where missing {self._filled()}, and a column that says so" if self.indicator else "")

    def _filled(self) -> str:
        if self.kind in ("category", "ordinal"):
            return in_line(self.levels[int(self.fill)]) if self.fill < len(self.levels) else "one of the others"
        if self.kind == "boolean":
            return "true" if self.fill else "false"
        return "their medians" if self.kind == "date" else f"{self.fill:g}"
