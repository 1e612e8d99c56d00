"""`load`: a data set by name or from a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fcnet.errors as errors
from fcnet import defaults
from fcnet.data import catalogue, cifar
from fcnet.data.checks import check_features, check_numbers
from fcnet.data.dataset import TARGETS, Dataset
from fcnet.data.files import other_kind, remedy
from fcnet.data.idx import read_images_and_labels
from fcnet.data.labels import class_names, encode, encode_as, plain_labels
from fcnet.data.npz import read_npz
from fcnet.data.splits import TooFew, hold_out
from fcnet.data.synthetic import spirals
from fcnet.data.table import header_hint, listed, read_columns, read_table

_SUFFIXES = (".npz", ".csv")


def load(
    name: str | os.PathLike[str],
    data_dir: str | os.PathLike[str] | None = None,
    target: str | int | None = None,
    split_seed: int = 0,
    targets: str = "classes",
) -> Dataset:
    """A data set on the host: "digits", "mnist", "fashion-mnist", "cifar10", "spirals", or an .npz or .csv
    file.

    name        one of fcnet.data.NAMES (in any case), or a path
    data_dir    where to look for the files of a named set; None: $FCNET_DATA, then the user's cache
    target      the label column of a CSV file; its labels are numbers (1 and 1.0 are one class) if all are whole
                and none begins with 0, else text (01 and 1 are two classes; beside text so are 1 and 1.0);
                of numbers also several columns, "price,area"
    split_seed  chooses the rows held out; independent of the seeds used in training
    targets     "classes", or "numbers": what an .npz or .csv file holds as targets are values to predict, not labels;
                they stay as they are: only X is preprocessed when a network is trained

    X is (N, D): uint8 for images and digits, float64 for spirals and CSV files, the stored type for .npz
    files. y is int64 codes. Where there is an official test part, a stratified tenth of the training part
    becomes the validation part; where there is none, validation and test part are a stratified tenth of the
    data each. A file with parts of its own keeps them.

    Raises ValueError (unknown name, damaged or unfit file), FileNotFoundError (files that are not there; the
    message says where it looked and how to get them), fcnet.errors.MissingExtra (digits without
    scikit-learn).
    """
    if not isinstance(name, str | os.PathLike):
        raise TypeError(
            f"data: expected a name or a path; got {type(name).__name__}; for arrays use fcnet.data.Dataset"
        )
    key = os.fspath(name).lower()
    path = Path(name).expanduser()
    if key not in catalogue.NAMES and path.suffix.lower() not in _SUFFIXES and not (key and path.exists()):
        raise errors.unknown("data", os.fspath(name), [*catalogue.NAMES, "PATH.npz", "PATH.csv"])
    if target is not None and (key in catalogue.NAMES or path.suffix.lower() == ".npz"):
        raise ValueError(
            f"target: expected only with a .csv file; got {target!r} with {os.fspath(name)!r}; leave it out"
        )
    if targets not in TARGETS:
        raise errors.unknown("targets", targets, TARGETS)
    if targets == "numbers" and key in catalogue.NAMES:
        raise ValueError(f"data: expected an .npz or .csv file of numbers to predict; got {key}, which has classes")
    if key == "digits":
        return _digits(split_seed)
    if key == "spirals":
        return _spirals(split_seed)
    if key == "cifar10":
        return _cifar10(data_dir, split_seed)
    if key in catalogue.NAMES:
        return _mnist(key, data_dir, split_seed)
    return read_file(path, None if target is None else str(target), split_seed, targets=targets)


def _digits(split_seed: int) -> Dataset:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise errors.MissingExtra("the digits data set", "scikit-learn", "sklearn") from None
    X, y = load_digits(return_X_y=True)
    parts = hold_out(X.astype(np.uint8), y.astype(np.int64), ("val", "test"), split_seed)  # whole numbers 0..16
    return Dataset(
        **parts, name="digits", classes=catalogue.DIGIT_NAMES, preprocess="standardize", image_shape=(1, 8, 8)
    )


def _spirals(split_seed: int) -> Dataset:
    X, y = spirals()
    parts = hold_out(X, y, ("val", "test"), split_seed)
    return Dataset(**parts, name="spirals", classes=class_names(np.unique(y)), preprocess="none")


def _mnist(name: str, data_dir: str | os.PathLike[str] | None, split_seed: int) -> Dataset:
    files, advice = catalogue.find_files(name, data_dir), remedy(name, data_dir)
    train_images, train_labels, test_images, test_labels = files.values()
    X, y = read_images_and_labels(train_images, train_labels, advice)
    X_test, y_test = read_images_and_labels(test_images, test_labels, advice)
    if X_test.shape[1:] != X.shape[1:]:
        raise ValueError(
            f"{test_images}: expected images of {X.shape[1:]}, as in training; got {X_test.shape[1:]}; {advice}"
        )
    return Dataset(
        **hold_out(X.reshape(len(X), -1), y, ("val",), split_seed),
        X_test=X_test.reshape(len(X_test), -1),
        y_test=y_test,
        name=name,
        classes=catalogue.FASHION_NAMES if name == "fashion-mnist" else catalogue.DIGIT_NAMES,
        preprocess="center",
        image_shape=(1, *X.shape[1:]),
    )


def _cifar10(data_dir: str | os.PathLike[str] | None, split_seed: int) -> Dataset:
    from concurrent.futures import ThreadPoolExecutor

    files, advice = catalogue.find_files("cifar10", data_dir), remedy("cifar10", data_dir)
    paths, n = list(files.values()), cifar.RECORDS
    X, y = np.empty((len(paths) * n, cifar.PIXELS), np.uint8), np.empty(len(paths) * n, np.int64)
    # Threads, because unpacking .xz takes seconds a file and runs outside Python's lock.
    with ThreadPoolExecutor(min(len(paths), os.cpu_count() or 1)) as pool:
        parts = [slice(i * n, (i + 1) * n) for i in range(len(paths))]
        list(pool.map(lambda path, part: cifar.read_batch(path, X[part], y[part], advice), paths, parts))
    train = (len(paths) - 1) * n
    return Dataset(
        **hold_out(X[:train], y[:train], ("val",), split_seed),
        X_test=X[train:],
        y_test=y[train:],
        name="cifar10",
        classes=cifar.read_class_names(paths[0].parent, advice),
        preprocess="center",
        image_shape=(3, 32, 32),
    )


def read_file(
    path: Path,
    target: str | None,
    split_seed: int = 0,
    features: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    targets: str = "classes",
) -> Dataset:
    """An .npz or .csv file as a data set, as `load` says.

    features, classes: what a trained model calls its inputs and classes, by number; None: they are learned
    from the file. With them the same rows as in training are held out, whatever the order of the columns.
    """
    if not path.exists():
        raise FileNotFoundError(f"data: expected an .npz or .csv file; {str(path)!r} does not exist")
    if not path.is_file() or path.suffix.lower() not in _SUFFIXES:
        what = f"the folder {str(path)!r}; name a file" if path.is_dir() else f"{str(path)!r}; {other_kind(path)}"
        raise ValueError(f"data: expected an .npz or .csv file; got {what}")
    try:
        if path.suffix.lower() == ".csv":
            return _csv(path, target, split_seed, features, classes, targets)
        return _npz(path, split_seed, classes, targets)
    except (ValueError, TypeError) as error:  # what Dataset has against a file's content is the file's fault
        message = str(error)
        raise ValueError(message if message.startswith(str(path)) else f"{path}: {message}") from None


def _csv(
    path: Path,
    target: str | None,
    split_seed: int,
    features: Sequence[str] | None,
    classes: Sequence[str] | None,
    targets: str,
) -> Dataset:
    if target is None:
        columns = read_columns(path)
        raise ValueError(f"target: expected the label column, one of {listed(columns)}; got none{header_hint(columns)}")
    numbers = targets == "numbers"
    table = read_table(path, target, features, classes, numbers=numbers)
    assert table.labels is not None  # read_table was given a target
    where = f"column {target!r}"
    if numbers:
        parts = _held_out(where, table.X, table.labels, ("val", "test"), split_seed, numbers)
        return Dataset(
            **parts,
            name=path.stem,
            classes=table.targets if len(table.targets) > 1 else None,
            features=table.features,
            targets=targets,
        )
    values = np.unique(table.labels)
    _check_classes(where, values, classes)
    y = table.labels if classes is not None else encode(target, table.labels, values)
    return Dataset(
        **_held_out(where, table.X, y, ("val", "test"), split_seed, numbers),
        name=path.stem,
        classes=class_names(values) if classes is None else tuple(classes),
        features=table.features,
    )


def _held_out(
    where: str, X: np.ndarray, y: np.ndarray, parts: Sequence[str], split_seed: int, numbers: bool
) -> dict[str, Any]:
    try:
        return hold_out(X, y, parts, split_seed, stratify=not numbers)
    except TooFew as error:
        remedy = (
            "give more rows"
            if where.startswith("column")
            else ("give more, or parts of your own: X_train, X_val and so on")
        )
        raise ValueError(f"{where}: {error.needs}; {remedy}") from None


def _check_classes(where: str, values: np.ndarray, classes: Sequence[str] | None) -> None:
    if len(values) == 1:
        only = str(values[0]) if classes is None else classes[int(values[0])]
        raise ValueError(f"{where}: expected at least 2 classes; got only label {only!r}; give samples of every class")


def _npz(path: Path, split_seed: int, classes: Sequence[str] | None, targets: str) -> Dataset:
    arrays = read_npz(path)
    own = {key: key for key in arrays}  # what the file calls them
    if "X" in arrays:
        own = {"X_train": "X", "y_train": "y"}
    arrays = {key: arrays[name] for key, name in own.items()}
    for key, array in arrays.items():
        if key.startswith("X"):  # before splitting, which would tell other row numbers
            check_features(own[key], array)
    numbers = targets == "numbers"
    plain = check_numbers if numbers else plain_labels
    labels = {key: plain(own[key], y) for key, y in arrays.items() if key.startswith("y")}
    if len(arrays["X_train"]) != len(labels["y_train"]):
        raise ValueError(
            f"{own['y_train']}: expected {len(arrays['X_train'])} labels, one for each sample of {own['X_train']}; "
            f"got {len(labels['y_train'])}; give both the same length"
        )
    y: dict[str, Any] = labels
    if not numbers:
        values = np.unique(labels["y_train"])
        _check_classes(own["y_train"], values, None)
        y = {
            key: encode(key, part, values) if classes is None else encode_as(own[key], part, classes)
            for key, part in labels.items()
        }
        classes = class_names(values) if classes is None else tuple(classes)
    X: dict[str, Any] = {key: _flat(array) for key, array in arrays.items() if key.startswith("X")}
    held = {}
    if "X_val" not in X:
        parts = ("val",) if "X_test" in X else ("val", "test")
        held = _held_out(own["y_train"], X.pop("X_train"), y.pop("y_train"), parts, split_seed, numbers)
    shape = arrays["X_train"].shape[1:]
    # Two dimensions are a grey image. More stay in the file's own order, (C, H, W) or (H, W, C): turning them
    # round here would make the model wrong for the same images given to predict() as they are.
    image_shape = (1, *shape) if len(shape) == 2 else shape if len(shape) > 2 else None
    preprocess = "center" if image_shape else defaults.PREPROCESS
    return Dataset(
        **X,
        **y,
        **held,
        name=path.stem,
        classes=None if classes is None else tuple(classes),
        preprocess=preprocess,
        image_shape=image_shape,
        targets=targets,
    )


def _flat(X: np.ndarray) -> np.ndarray:
    return X.reshape(len(X), -1)
