"""Whole files and named sets as inputs for a model that has been trained: nothing is learned from them here.

What a model calls its features and classes goes before what a file makes of them: columns are found by name,
labels are numbered as the model numbers its classes, and what the model does not know is refused.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fcnet.data import targets
from fcnet.data.catalogue import NAMES
from fcnet.data.checks import check_features, check_numbers
from fcnet.data.dataset import Dataset
from fcnet.data.files import other_kind
from fcnet.data.labels import encode_as, plain_labels
from fcnet.data.loading import load, read_file, read_labelled
from fcnet.data.npz import read_npz
from fcnet.data.plan import Plan, as_numbers
from fcnet.data.table import SUFFIXES_TOLD, TableChoices, is_table_file, read_for, read_table
from fcnet.errors import DataNotice, counted
from fcnet.validation import OTHER_LOSSES


@dataclass(frozen=True)
class Names:
    """Describe what a model expects: D features and C classes or outputs, with their names if it has any."""

    input_dim: int
    num_classes: int
    features: Sequence[str] | None = None
    classes: Sequence[str] | None = None
    targets: str = "classes"  # or "numbers"
    plan: Plan | None = None  # what it makes of a table's columns


def is_file(source: str) -> bool:
    """Return whether `source` means a file, not one of the named sets."""
    return source.lower() not in NAMES


def check_split(source: str, split: str | None) -> None:
    """Raise ValueError for a part of a file that is used as one, or a part that no set has."""
    if split is not None and is_file(source):
        raise ValueError(f"--split is for data sets with parts; {source} is used whole; leave it out")
    if split is not None and split not in ("train", "val", "test"):
        raise ValueError(f"--split: expected train, val or test; got {split!r}")


@contextmanager
def naming(source: str) -> Iterator[None]:
    """Make errors about X or y within the context begin with `source`, where they come from."""
    try:
        yield
    except (ValueError, TypeError) as error:
        if not str(error).startswith(("X:", "y:")):
            raise
        raise type(error)(f"{source}: {error}") from None


def check_probabilities(
    source: str,
    target: str | None,
    arrays: Iterable[np.ndarray],
    choices: TableChoices | None = None,
    plan: Plan | None = None,
) -> None:
    """Check that these targets, read from the file `source`, are from 0 to 1.

    Raises:
        ValueError: with the file and the place in it.
    """
    if all(y.min() >= 0 and y.max() <= 1 for y in arrays):
        return
    path = Path(source).expanduser()
    if target is not None and is_table_file(path):
        read = read_labelled(path, target, choices or TableChoices(), plan, numbers=True)
        names = targets.find_targets(read, target, numbers=True)
        targets.check_probabilities(targets.with_targets(read, names)[0], names)
    for name, y in read_npz(path).items():
        if name.startswith("y") and not (y.min() >= 0 and y.max() <= 1):
            at = tuple(int(i) for i in np.argwhere((y < 0) | (y > 1))[0])
            raise ValueError(
                f"{path}: {name}: expected labels of 0 and 1, or probabilities between, for loss 'bce'; "
                f"got {y[at]} at {list(at)}; correct them; {OTHER_LOSSES}"
            )


def samples(
    source: str,
    features: Sequence[str] | None,
    data_dir: str | None = None,
    split: str | None = None,
    plan: Plan | None = None,
) -> np.ndarray:
    """Return inputs to predict, X (N, ...): all rows of a table or an .npz file, or one part of a named set.

    Args:
        source: a path or one of `NAMES`.
        features: the columns that the model was trained on, in order; None: all columns of the file.
        split: "train", "val" or "test" (None: test), of a named set.
        plan: what the model makes of a table's columns.

    Raises:
        ValueError, FileNotFoundError: as `load`.
    """
    check_split(source, split)
    if not is_file(source):
        return load(source, data_dir=data_dir).splits()[split or "test"][0]
    path = _existing(source)
    if is_table_file(path):
        if plan is not None:
            return plan.apply(read_for(plan, path))
        read = read_table(path)
        return as_numbers(read, features or read.names)
    arrays = read_npz(path, labels=False)
    key = next(key for key in ("X", "X_test", "X_train") if key in arrays)
    _check_samples(path, key, arrays[key])
    return arrays[key]


def part(
    source: str, split: str | None, names: Names, data_dir: str | None = None, target: str | None = None
) -> tuple[str, np.ndarray, np.ndarray]:
    """Return one part of the data set that a model was trained on, or of a named set, as (split, X, y).

    Args:
        split: "train", "val" or "test"; None: test, or val if there is no test part.
        target: the label column of a table.

    Raises:
        ValueError: no such part, or features or classes other than the model's.
    """
    if is_file(source):
        path = _existing(source)
        dataset = read_file(
            path,
            target if is_table_file(path) else None,
            features=names.features,
            classes=names.classes,
            targets=names.targets,
            plan=names.plan,
        )
    else:
        check_split(source, split)
        dataset = load(source, data_dir=data_dir, targets=names.targets)
    _check_same(source, dataset, names)
    splits = dataset.splits()
    if split is None:
        split = "test" if "test" in splits else "val"
    if split not in splits:
        raise ValueError(f"split: expected one of {', '.join(splits)}, which {source} has; got {split!r}")
    return split, *splits[split]


def _check_same(source: str, dataset: Dataset, names: Names) -> None:
    have, want = (dataset.input_dim, dataset.num_classes), (names.input_dim, names.num_classes)
    if have[0] != want[0] or (have[1] != want[1] and not is_file(source)):
        raise ValueError(
            f"data: {source} has {counted(have[0], 'feature')} and {counted(have[1], 'class', 'classes')}, "
            f"this model {want[0]} and {want[1]}; "
            "name a set like the one it was trained on"
        )
    known = tuple(names.classes or ())
    if known and dataset.classes and known != tuple(dataset.classes):
        mine, other = next((a, b) for a, b in zip(known, dataset.classes, strict=False) if a != b)
        raise ValueError(
            f"data: {source} has other classes than this model: {other!r} where it has {mine!r}; "
            "name a set like the one it was trained on"
        )


def labelled(source: str, target: str | None, names: Names) -> tuple[np.ndarray, np.ndarray]:
    """Return all rows of a table or an .npz file as (X, y), labels numbered as the model numbers its classes.

    Rows of a table whose target is missing are left out, with a notice.

    Args:
        target: the label column of a table.
        names: what the model expects. features None: all columns but the target; classes None: the labels are
            0, 1, ...

    Raises:
        ValueError: no target, or a label that the model does not know.
    """
    path = _existing(source)
    classes = names.classes or [str(number) for number in range(names.num_classes)]
    if is_table_file(path):
        if target is None:
            raise ValueError(f"target: expected the label column of {path}; name it with --target")
        numbers = names.targets == "numbers"
        read = read_labelled(path, target, TableChoices(), names.plan, numbers=numbers)
        found = targets.find_targets(read, target, numbers=numbers)
        known = tuple(names.classes or ())
        if numbers and found != known and sorted(found) == sorted(known):
            raise ValueError(f"target: expected the order of the training, {','.join(known)}; got {target}")
        read, notes = targets.with_targets(read, found)
        for note in notes:
            warnings.warn(f"{read.begin}{note}", DataNotice, stacklevel=2)
        y = targets.number_values(read, found) if numbers else targets.codes_of(read, found[0], classes)
        if names.plan is not None:
            return names.plan.apply(read), y
        features = names.features or tuple(name for name in read.names if name not in found)
        return as_numbers(read, features), y
    arrays = read_npz(path)
    key = "" if "X" in arrays else "_test" if "X_test" in arrays else "_train"
    check_y = check_numbers if names.targets == "numbers" else plain_labels
    X, y = arrays[f"X{key}"], check_y(f"{path}: y{key}", arrays[f"y{key}"])
    _check_samples(path, f"X{key}", X)
    if len(X) != len(y):
        raise ValueError(
            f"{path}: y{key}: expected {counted(len(X), 'label')}, one for each sample of X{key}; got {len(y)}"
        )
    return X, y if names.targets == "numbers" else encode_as(f"{path}: y{key}", y, classes)


def _check_samples(path: Path, name: str, X: np.ndarray) -> None:
    try:
        check_features(name, X)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{path}: {error}") from None


def _existing(source: str) -> Path:
    path = Path(source).expanduser()
    if not is_table_file(path) and path.suffix.lower() != ".npz":
        hint = f"; {other_kind(path)}" if path.is_file() else ""
        raise ValueError(
            f"expected one of {', '.join(NAMES)}, an .npz file, or a table: {SUFFIXES_TOLD}; got {source!r}{hint}"
        )
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    return path
