"""The tables of `benchmarks.tables`: real ones, that packages bring along or $FCNET_DATA/tables holds, as frames."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Table:
    """Hold a frame X of numbers and categories, targets y, classes or numbers, and where both are from."""

    name: str
    X: Any
    y: np.ndarray
    classes: bool
    source: str

    @property
    def categories(self) -> list[str]:
        """Return the columns that hold categories."""
        return [name for name in self.X if self.X[name].dtype == "category"]


def _sklearn(name: str, classes: bool) -> Callable[[], Table]:
    def load() -> Table:
        import sklearn.datasets

        found = getattr(sklearn.datasets, f"load_{name}")(as_frame=True)
        return Table(name, found.data.astype(float), found.target.to_numpy(), classes, "scikit-learn")

    return load


def _file(
    name: str, file: str, target: Any, *, classes: bool, drop: tuple[str, ...] = (), **how: Any
) -> Callable[[], Table]:
    def load() -> Table:
        import pandas

        folder = os.environ.get("FCNET_DATA")
        path = Path(folder or "(FCNET_DATA is not set)") / "tables" / file
        if not path.is_file():
            raise FileNotFoundError(
                f"FCNET_DATA: expected a folder with tables/{file}, found none; set FCNET_DATA to it"
            )
        frame = pandas.read_csv(path, **{"na_values": ["?"], "skipinitialspace": True} | how)
        column = frame.columns[target] if isinstance(target, int) else target
        frame = frame[frame[column].notna()]
        return Table(name, _typed(frame.drop(columns=[column, *drop])), frame[column].to_numpy(), classes, "a file")

    return load


def _statsmodels(name: str, target: str, label: Callable[[Any], Any] | None = None) -> Callable[[], Table]:
    def load() -> Table:
        import statsmodels.api

        frame = getattr(statsmodels.api.datasets, name).load_pandas().data
        y = frame[target] if label is None else label(frame[target])
        return Table(name, frame.drop(columns=target).astype(float), y.to_numpy(), True, "statsmodels")

    return load


def _tips() -> Table:
    import plotly.data

    frame = plotly.data.tips(return_type="pandas")
    return Table("tips", _typed(frame.drop(columns="tip")), frame["tip"].to_numpy(), False, "plotly")


def _typed(frame: Any) -> Any:
    """Return numbers as floats and all else as categories, in named columns."""
    frame = frame.rename(columns=str)
    for name in frame:
        number = frame[name].dtype.kind in "iuf"
        frame[name] = frame[name].astype(float if number else "object").astype(float if number else "category")
    return frame


#: By name; smaller ones first.
TABLES: dict[str, Callable[[], Table]] = {
    "iris": _sklearn("iris", True),
    "wine": _sklearn("wine", True),
    "tips": _tips,
    "ecoli": _file("ecoli", "ecoli.csv", -1, classes=True, header=None),
    "penguins": _file("penguins", "penguins.csv", "species", classes=True),
    "diabetes": _sklearn("diabetes", False),
    "breast_cancer": _sklearn("breast_cancer", True),
    "breast-cancer-wisconsin": _file(
        "breast-cancer-wisconsin", "breast-cancer-wisconsin.data", "Class", classes=True, drop=("id",)
    ),
    "titanic": _file("titanic", "titanic.csv", "survived", classes=True, drop=("alive",)),
    "anes96": _statsmodels("anes96", "vote"),
    "winequality": _file("winequality", "winequality_uci.csv", "quality", classes=True, sep=";"),
    "winequality-number": _file("winequality-number", "winequality_uci.csv", "quality", classes=False, sep=";"),
    "digits": _sklearn("digits", True),
    "abalone": _file("abalone", "abalone.csv", -1, classes=False, header=None),
    "fair": _statsmodels("fair", "affairs", lambda column: (column > 0).astype(int)),
    "adult": _file("adult", "adult-test.csv", -1, classes=True, header=None),
    "diamonds": _file("diamonds", "diamonds.csv", "price", classes=False),
}
