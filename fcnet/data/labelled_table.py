"""A table with its targets, before it is split and before anything is learned from its columns."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fcnet.data.columns import Columns
from fcnet.data.dataset import Dataset
from fcnet.data.plan import Plan, as_numbers
from fcnet.data.splits import TooFew, split_rows
from fcnet.data.table import TableChoices
from fcnet.errors import DataNotice, shown


@dataclass(frozen=True, eq=False)
class LabelledTable:
    """Hold N rows of columns, and what is to be predicted of each.

    read: the columns, the targets among them. y: codes (N,), or numbers (N,) or (N, C). targets: their columns.
    classes: the names of the codes, or of several columns of numbers. numeric: whether y are numbers to predict.
    choices: what the user said of the columns. notes: what was decided in reading them.
    plan, features: what a trained model makes of the columns, or which it takes as they are; None: that is learned.
    """

    read: Columns
    y: np.ndarray
    targets: tuple[str, ...]
    classes: tuple[str, ...] | None
    numeric: bool
    name: str
    choices: TableChoices = TableChoices()
    notes: tuple[str, ...] = ()
    plan: Plan | None = None
    features: tuple[str, ...] | None = None

    @property
    def strata(self) -> np.ndarray:
        """Return what is spread evenly over parts, (N,): codes; numbers count as one class."""
        return np.zeros(len(self.y), dtype=np.int64) if self.numeric else self.y

    def split(self, seed: int) -> Dataset:
        """Return the rows with a stratified tenth each as validation and as test part, and tell what became of them.

        Raises ValueError for too few rows, and as `dataset`.
        """
        try:
            parts = split_rows(self.strata, ("val", "test"), seed)
        except TooFew as error:
            targets = shown(",".join(self.targets))
            raise ValueError(f"{self.read.begin}column {targets}: {error.needs}; give more rows") from None
        return self.dataset(parts)

    def tell(self, dataset: Dataset) -> None:
        """Warn, with the caller's caller as place, of what was decided in reading the table, and of its columns."""
        said = [] if dataset.plan is None else dataset.plan.said()
        for note in [*self.notes, *said]:
            warnings.warn(f"{self.read.begin}{note}", DataNotice, stacklevel=3)

    def dataset(self, parts: Mapping[str, np.ndarray]) -> Dataset:
        """Return the rows of these numbers as the parts "train", "val" and perhaps "test".

        What becomes of the columns is learned from the rows of "train" alone, unless a plan is given.

        Raises ValueError for columns that do not fit the plan, or of which none can be made.
        """
        read, learned = self.read, self.plan
        if learned is None and self.features is None:
            learned = Plan.learn(
                read,
                rows=parts["train"],
                targets=self.targets,
                ordinal=self.choices.ordinal,
                drop=self.choices.drop,
                only=self.choices.only,
            )
        arrays: dict[str, Any] = {}
        for part, rows in parts.items():
            some = read.take(rows)
            arrays[f"X_{part}"] = as_numbers(some, self.features or ()) if learned is None else learned.apply(some)
            arrays[f"y_{part}"] = self.y[rows]
        try:
            return Dataset(
                **arrays,
                name=self.name,
                classes=self.classes,
                features=self.features if learned is None else learned.features,
                targets="numbers" if self.numeric else "classes",
                plan=learned,
            )
        except (ValueError, TypeError) as error:  # what Dataset has against a table's content is the table's fault
            raise ValueError(f"{read.begin}{error}") from None
