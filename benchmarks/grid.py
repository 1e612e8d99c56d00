"""What to measure: sizes, devices, variants and effort, as data (grids.toml and the command line)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.problems import PROBLEMS
from benchmarks.variants import VARIANTS
from fcnet.errors import unknown

GRIDS: dict[str, dict[str, Any]] = tomllib.loads(Path(__file__).with_name("grids.toml").read_text("utf-8"))


@dataclass(frozen=True)
class Grid:
    """Plan one run; the fields are explained in grids.toml. The first device and variant are the baseline."""

    ops: tuple[str, ...]
    widths: tuple[int, ...]
    batches: tuple[int, ...]
    variants: tuple[str, ...]
    passes: int
    rounds: int
    round_ms: float
    budget_s: float
    pause_ms: float
    devices: tuple[str, ...] = ("cpu",)

    @classmethod
    def load(cls, name: str, **replace: Any) -> Grid:
        """Return the grid of that name in grids.toml, with some fields replaced (None: left as they are).

        Raises:
            ValueError: no such grid, op or variant; a size below 1; an empty list.
        """
        if name not in GRIDS:
            raise unknown("grid", name, GRIDS)
        values: dict[str, Any] = GRIDS[name] | {k: v for k, v in replace.items() if v is not None}
        known = {field.name for field in fields(cls)}
        for key in values:
            if key not in known:
                raise unknown(f"{name} in grids.toml", key, known)
        grid = cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
        grid._check()
        return grid

    def _check(self) -> None:
        names: Mapping[str, tuple[Sequence[str], Mapping[str, Any]]] = {
            "ops": (self.ops, PROBLEMS),
            "variants": (self.variants, VARIANTS),
        }
        for field, (got, valid) in names.items():
            for name in got:
                if name not in valid:
                    raise unknown(field, name, valid)
        for field in ("ops", "variants", "widths", "batches", "devices"):
            values = getattr(self, field)
            if not values:
                raise ValueError(f"{field}: expected at least one, got none")
            if len(set(values)) < len(values):
                raise ValueError(f"{field}: expected each once, got {', '.join(map(str, values))}")
        for field in ("widths", "batches"):
            for size in getattr(self, field):
                if size < 1:
                    raise ValueError(f"{field}: expected sizes of at least 1, got {size}")

    def sizes(self) -> list[tuple[str, int, int]]:
        """Return every (op, width, batch)."""
        return list(product(self.ops, self.widths, self.batches))

    def contenders(self) -> list[tuple[str, str]]:
        """Return every (device, variant), the baseline first."""
        return list(product(self.devices, self.variants))
