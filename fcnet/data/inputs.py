"""Whole files and named sets as inputs for a model that has been trained: nothing is split or learned here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fcnet.data.catalogue import NAMES
from fcnet.data.loading import load
from fcnet.data.npz import read_npz
from fcnet.data.table import read_columns, read_features, read_table


def is_file(source: str) -> bool:
    """Whether `source` means a file, not one of the named sets."""
    return source.lower() not in NAMES


def samples(
    source: str, features: Sequence[str] | None, data_dir: str | None = None, split: str = "test"
) -> np.ndarray:
    """Inputs to predict, X (N, ...): all rows of a .csv or .npz file, or one part of a named set.

    Args:
        source: a path or one of `NAMES`.
        features: the columns that the model was trained on, in order; None: all columns of the file.
        split: "train", "val" or "test", of a named set.

    Raises:
        ValueError, FileNotFoundError: as `load`.
    """
    if not is_file(source):
        return part(source, split, data_dir)[0]
    path = _existing(source)
    if path.suffix.lower() == ".csv":
        return read_features(path, features or read_columns(path))
    arrays = read_npz(path, labels=False)
    return next(arrays[key] for key in ("X", "X_test", "X_train") if key in arrays)


def part(source: str, split: str, data_dir: str | None, target: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """One part of a data set as (X, y). Raises ValueError if the set has no such part."""
    splits = load(source, data_dir=data_dir, target=target).splits()
    if split not in splits:
        raise ValueError(f"split: expected one of {', '.join(splits)}, which {source} has; got {split!r}")
    return splits[split]


def labelled(
    source: str, target: str | None, features: Sequence[str] | None, classes: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray]:
    """All rows of a .csv or .npz file as (X, y), labels numbered as the model numbers its classes.

    Args:
        target: the label column of a .csv file.
        features: the columns that the model was trained on, in order; None: all but the target.
        classes: the model's class names, by number; None: the labels are the numbers.

    Raises:
        ValueError: no target, or a label that the model does not know.
    """
    path = _existing(source)
    if path.suffix.lower() == ".csv":
        if target is None:
            raise ValueError(f"target: expected the label column of {path}; name it with --target")
        table = read_table(path, target)
        assert table.labels is not None  # read_table was given a target
        return read_features(path, features or table.features), _codes(path, table.labels, classes)
    arrays = read_npz(path)
    key = "" if "X" in arrays else "_test" if "X_test" in arrays else "_train"
    return arrays[f"X{key}"], _codes(path, arrays[f"y{key}"], classes)


def _codes(path: Path, labels: np.ndarray, classes: Sequence[str] | None) -> np.ndarray:
    if classes is None:
        return labels
    numbers = {name: number for number, name in enumerate(classes)}
    try:
        return np.array([numbers[str(label)] for label in labels.tolist()], dtype=np.int64)
    except KeyError as error:
        raise ValueError(
            f"{path}: expected labels that the model was trained on ({', '.join(classes[:20])}), got {error}"
        ) from None


def _existing(source: str) -> Path:
    path = Path(source).expanduser()
    if path.suffix.lower() not in (".csv", ".npz"):
        raise ValueError(f"expected one of {', '.join(NAMES)}, or a .csv or .npz file; got {source!r}")
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    return path
