"""What experiments share: their settings, their table of numbers, and how each one is described."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fcnet.backends import Backend, check_seed, get_backend
from fcnet.progress import Progress


@dataclass
class Settings:
    """Describe how to run an experiment.

    quick asks for a made-up data set and few steps, which shows that it works and nothing else.

    Raises:
        ValueError, TypeError: no such device, or a seed that is none.
    """

    device: Any = "auto"
    seed: int = 0
    data_dir: str | None = None
    quick: bool = False
    verbose: bool = False
    title: str = ""
    backend: Backend = field(init=False)

    def __post_init__(self) -> None:
        self.seed = check_seed(self.seed)
        self.backend = get_backend(self.device)
        self.backend.use()

    def table(self, *columns: str) -> Table:
        """Return an empty table for what is trained; it says so if it is of made-up data."""
        note = "--quick: made-up data, few steps" if self.quick else ""
        return Table(columns, [], [note] if note else [], note)

    def progress(self, steps: int) -> Progress:
        """Return a bar over so many training steps."""
        return Progress(f"{self.title} on {self.backend.name}", steps, 0, shown=self.verbose)


@dataclass
class Table:
    """Hold an experiment's numbers: rows by column, what they say, a line each, and a note to go across the picture."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    findings: list[str] = field(default_factory=list)
    note: str = ""

    def column(self, name: str) -> list[Any]:
        """Return all values of a column."""
        at = self.columns.index(name)
        return [row[at] for row in self.rows]

    def values(self, name: str) -> list[Any]:
        """Return the different values of a column, in the order in which they come."""
        return list(dict.fromkeys(self.column(name)))

    def where(self, **wanted: Any) -> Table:
        """Return the rows whose columns have these values."""
        at = {self.columns.index(name): value for name, value in wanted.items()}
        return Table(self.columns, [row for row in self.rows if all(row[i] == value for i, value in at.items())])

    def csv(self) -> str:
        """Return the table as CSV with a header; numbers have all their digits."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return text.getvalue()


class Experiment(NamedTuple):
    """Describe an experiment.

    Attributes:
        about: a line about it.
        run: the function that makes its table.
        draw: the function that draws this table into a Matplotlib figure of `size` inches.
    """

    about: str
    run: Callable[[Settings], Table]
    draw: Callable[[Any, Table], None]
    size: tuple[float, float]
