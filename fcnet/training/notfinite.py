"""Warnings of figures that are not finite, by name and epoch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping

from fcnet.errors import TrainingWarning
from fcnet.functional import Metric
from fcnet.training.metrics import Figure

#: The parts of the data by their names in the history, for people; and what becomes of the epoch.
PARTS = {
    "train": ("training", ""),
    "val": (
        "validation",
        ", and the best epoch is chosen among those where it is finite, or by the training loss while there is none",
    ),
}


class NotFinite:
    """Note the epochs of one call of `train` whose figures were NaN or infinite."""

    def __init__(self, metric: Metric | Figure, clear: Callable[[], None]) -> None:
        """Begin with no such epoch; `clear` is called before a warning, to clear the line of the progress bar."""
        self.metric, self.clear = metric, clear
        self.epochs: dict[str, list[int]] = {part: [] for part in PARTS}

    def look(self, row: Mapping[str, float]) -> None:
        """Warn if a figure in this row of the history is the first of its part that is not finite."""
        for part, (name, consequence) in PARTS.items():
            figure = row[f"{part}_{self.metric.key}"]
            if math.isfinite(figure):
                continue
            self.epochs[part].append(int(row["epoch"]))
            if len(self.epochs[part]) == 1:
                self._warn(
                    f"the {name} {self.metric.title} of epoch {row['epoch']} is {figure}: predictions for {name} "
                    f"samples, or their targets, are too large{consequence}"
                )

    def close(self) -> None:
        """Warn of the epochs that came after those first ones."""
        for part, epochs in self.epochs.items():
            if len(epochs) > 1:
                self._warn(f"the {PARTS[part][0]} {self.metric.title} was not finite in epochs {spans(epochs)}")

    def _warn(self, text: str) -> None:
        self.clear()
        warnings.warn(text, TrainingWarning, stacklevel=2)


def spans(numbers: list[int]) -> str:
    """Return rising numbers as text, runs of neighbours as "a to b".

    >>> spans([1, 2, 3, 7])
    '1 to 3, 7'
    """
    starts = [n for at, n in enumerate(numbers) if at == 0 or numbers[at - 1] != n - 1]
    ends = [n for at, n in enumerate(numbers) if at + 1 == len(numbers) or numbers[at + 1] != n + 1]
    return ", ".join(f"{a}" if a == b else f"{a} to {b}" for a, b in zip(starts, ends, strict=True))
