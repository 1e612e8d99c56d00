"""`load`: a data set by name or from a file."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fcnet.errors as errors
from fcnet import defaults
from fcnet.data import catalogue, cifar
from fcnet.data.checks import check_features, check_numbers
from fcnet.data.columns import Columns, columns_of, is_frame, listed
from fcnet.data.dataset import TARGETS, Dataset
from fcnet.data.digits import read_digits
from fcnet.data.files import other_kind, remedy
from fcnet.data.idx import read_images_and_labels
from fcnet.data.labelled_table import LabelledTable
from fcnet.data.labels import class_names, encode, encode_as, plain_labels
from fcnet.data.npz import read_npz
from fcnet.data.plan import Plan
from fcnet.data.sniffing import SEPARATORS
from fcnet.data.splits import TooFew, hold_out
from fcnet.data.synthetic import spirals
from fcnet.data.table import SUFFIXES_TOLD, TableChoices, is_table_file, read_for, read_table, table_name
from fcnet.data.targets import (
    check_count_of_classes,
    codes_of,
    describe_numbers,
    find_targets,
    label_values,
    number_values,
    target_names,
    with_targets,
)
from fcnet.errors import shown

_FILES = f"expected an .npz file, or a table: {SUFFIXES_TOLD}"


def load(
    name: Any,
    data_dir: str | os.PathLike[str] | None = None,
    target: str | int | None = None,
    split_seed: int = 0,
    targets: str | None = None,
    *,
    header: bool | str | None = None,
    sep: str | None = None,
    decimal: str | None = None,
    missing: str | Iterable[str] | None = None,
    drop: str | Iterable[str | int] | None = None,
    only: str | Iterable[str | int] | None = None,
    ordinal: Mapping[str, Sequence[str]] | None = None,
) -> Dataset:
    """Return a data set on the host: "digits", "mnist", "fashion-mnist", "cifar10", "spirals", a file, or a data frame.

    name        one of fcnet.data.NAMES (in any case); the path of an .npz file, or of a table: .csv, .tsv, .txt, .data
                (each also .gz) or .parquet; or a data frame (pandas, polars, pyarrow), or a dictionary of columns
    data_dir    where to look for the files of a named set; None: $FCNET_DATA, then the user's cache
    target      the column of a table that holds the labels: its name, or its number, 0 for the first and -1 for the
                last; labels are numbers (1 and 1.0 are one class) if all are whole and none begins with 0, else text
                (01 and 1 are two classes; beside text so are 1 and 1.0); of numbers also several columns, "price,area"
    split_seed  chooses the rows held out; independent of the seeds used in training
    targets     "classes", or "numbers": what a file holds as targets are values to predict, not labels; None: classes,
                but whole numbers of more than 50 values are refused, as probably meant to be predicted

    and of tables (what is not given is found out, and said where it is not plain; `fcnet.errors.DataNotice`):

    header      whether the first row holds the names of the columns; without, they are 0, 1, ...
    sep         between cells: one character, "tab" or "blank" (any run of blanks)
    decimal     "." or ","
    missing     what stands for a missing value, besides an empty cell, NA, N/A, nan, null and ?
    drop, only  columns to leave out; the only ones to use
    ordinal     levels of ordered columns from low to high, {"size": ["small", "large"]}

    X is (N, D): uint8 for images and digits, the stored type for .npz files, else float64; of a table what `Plan` makes
    of its columns, learned from the training rows: `plan` says it. Rows whose target is missing are left out. y is
    int64 codes. Where there is an official test part, a stratified tenth of the training part
    becomes the validation part; where there is none, validation and test part are a stratified tenth of the
    data each. A file with parts of its own keeps them.

    Raises ValueError (unknown name, damaged or unfit file), FileNotFoundError (files that are not there; the
    message says where it looked and how to get them), fcnet.errors.MissingExtra (digits without
    scikit-learn, Parquet without pyarrow).
    """
    choices = TableChoices.of(header, sep, decimal, missing, drop, only, ordinal)
    found = load_rows(name, data_dir, target, split_seed, targets, choices)
    if isinstance(found, Dataset):
        return found
    dataset = found.split(split_seed)
    found.tell(dataset)
    return dataset


def load_rows(
    name: Any,
    data_dir: str | os.PathLike[str] | None,
    target: str | int | None,
    split_seed: int,
    targets: str | None,
    choices: TableChoices,
    plan: Plan | None = None,
) -> Dataset | LabelledTable:
    """Return what `load` says, a table before it is split and before anything is learned from its columns.

    plan: what a trained model makes of the columns of tables; None: that is learned.
    """
    if targets not in (None, *TARGETS):
        raise errors.unknown("targets", targets, TARGETS)
    if is_frame(name):
        read = columns_of(name, choices.reading.missing, name="data")
        return _labelled(read, None if target is None else str(target), targets, choices, "data", plan=plan)
    if not isinstance(name, str | os.PathLike):
        raise TypeError(
            f"data: expected a name or a path; got {type(name).__name__}; for arrays use fcnet.data.Dataset"
        )
    key = os.fspath(name).lower()
    path = Path(name).expanduser()
    is_table = key not in catalogue.NAMES and is_table_file(path)
    if key not in catalogue.NAMES and not is_table and path.suffix.lower() != ".npz" and not (key and path.exists()):
        there = [
            str(found)
            for found in sorted(path.parent.glob(f"{glob.escape(path.name)}.*") if key else ())
            if is_table_file(found) or found.suffix.lower() == ".npz"
        ]
        raise errors.unknown("data", os.fspath(name), [*catalogue.NAMES, "PATH.npz", "PATH.csv", *there[:1]])
    for argument, value in {"target": target, **choices.given}.items():
        if value and not is_table and (key in catalogue.NAMES or path.suffix.lower() == ".npz"):
            raise ValueError(
                f"{argument}: expected only with a table; got {value!r} with {os.fspath(name)!r}; leave it out"
            )
    if targets == "numbers" and key in catalogue.NAMES:
        raise ValueError(f"data: expected a table or an .npz file of numbers to predict; got {key}, which has classes")
    if key == "digits":
        return _digits(split_seed)
    if key == "spirals":
        return _spirals(split_seed)
    if key == "cifar10":
        return _cifar10(data_dir, split_seed)
    if key in catalogue.NAMES:
        return _mnist(key, data_dir, split_seed)
    return _read_rows(path, None if target is None else str(target), split_seed, targets, choices, plan=plan)


def _digits(split_seed: int) -> Dataset:
    parts = hold_out(*read_digits(), ("val", "test"), split_seed)
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
    parts = [slice(i * n, (i + 1) * n) for i in range(len(paths))]

    def read(path: Path, part: slice) -> None:
        cifar.read_batch(path, X[part], y[part], advice)

    try:
        with ThreadPoolExecutor(min(len(paths), os.cpu_count() or 1)) as pool:
            list(pool.map(read, paths, parts))
    except RuntimeError:  # no thread to be had, as in a container that limits them
        list(map(read, paths, parts))
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
    targets: str | None = None,
    plan: Plan | None = None,
) -> Dataset:
    """Return an .npz file or a table as a data set, as `load` says.

    features, classes, plan: what a trained model calls its inputs and classes, by number, and what it makes of columns;
    None: they are learned from the file. With them the same rows as in training are held out, whatever the order of
    the columns.
    """
    found = _read_rows(path, target, split_seed, targets, TableChoices(), features, classes, plan)
    return found if isinstance(found, Dataset) else found.split(split_seed)


def _read_rows(
    path: Path,
    target: str | None,
    split_seed: int,
    targets: str | None,
    choices: TableChoices,
    features: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    plan: Plan | None = None,
) -> Dataset | LabelledTable:
    if not path.exists():
        raise FileNotFoundError(f"data: {_FILES}; {str(path)!r} does not exist")
    is_table = is_table_file(path)
    if not path.is_file() or not (is_table or path.suffix.lower() == ".npz"):
        what = f"the folder {str(path)!r}; name a file" if path.is_dir() else f"{str(path)!r}; {other_kind(path)}"
        raise ValueError(f"data: {_FILES}; got {what}")
    try:
        if not is_table:
            return _npz(path, split_seed, classes, targets)
        read = read_labelled(path, target, choices, plan, numbers=targets == "numbers")
        return _labelled(read, target, targets, choices, table_name(path), features, classes, plan)
    except (ValueError, TypeError) as error:  # what Dataset has against a file's content is the file's fault
        message = str(error)
        raise ValueError(message if message.startswith(str(path)) else f"{path}: {message}") from None


def read_labelled(
    path: Path, target: str | None, choices: TableChoices, plan: Plan | None, *, numbers: bool
) -> Columns:
    """Return the columns of a table, the targets' cells as they are spelled."""

    def kept(names: tuple[str, ...]) -> set[str]:
        return set() if target is None else set(target_names(names, target, several=numbers))

    if plan is not None:
        return read_for(plan, path, kept, choices.reading.sep)
    ordinal = (choices.ordinal or {}).keys()
    return read_table(path, choices.reading, lambda names: kept(names) | ordinal)


def _labelled(
    read: Columns,
    target: str | None,
    targets: str | None,
    choices: TableChoices,
    name: str,
    features: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    plan: Plan | None = None,
) -> LabelledTable:
    if target is None:
        raise ValueError(
            f"{read.begin}target: expected the label column, one of {listed(read.names)}{read.unnamed}; got none"
        )
    numbers = targets == "numbers"
    found = find_targets(read, target, numbers=numbers)
    read, notes = with_targets(read, found)
    if numbers:
        y = number_values(read, found)
        notes += describe_numbers(read, found)
        classes = found if len(found) > 1 else None
    else:
        labels = label_values(read, found[0], targets) if classes is None else codes_of(read, found[0], classes)
        values = np.unique(labels)
        sign = SEPARATORS.get(read.sep or ",")
        separated = "" if sign in (None, "commas") else f" (columns separated by {sign})"
        _check_classes(f"column {shown(found[0])}{separated}", values, classes)
        y = labels if classes is not None else encode(found[0], labels, values)
        classes = class_names(values) if classes is None else tuple(classes)
    return LabelledTable(
        read,
        y,
        found,
        None if classes is None else tuple(classes),
        numbers,
        name,
        choices,
        (*read.notes, *notes),
        plan,
        None if features is None or plan is not None else tuple(features),
    )


def _held_out(
    where: str, X: np.ndarray, y: np.ndarray, parts: Sequence[str], split_seed: int, numbers: bool
) -> dict[str, Any]:
    try:
        return hold_out(X, y, parts, split_seed, stratify=not numbers)
    except TooFew as error:
        raise ValueError(f"{where}: {error.needs}; give more, or parts of your own: X_train, X_val and so on") from None


def _check_classes(where: str, values: np.ndarray, classes: Sequence[str] | None) -> None:
    if len(values) == 1:
        only = str(values[0]) if classes is None else classes[int(values[0])]
        raise ValueError(
            f"{where}: expected at least 2 classes; got only label {shown(only)}; give samples of every class"
        )


def _npz(path: Path, split_seed: int, classes: Sequence[str] | None, targets: str | None) -> Dataset:
    arrays = read_npz(path)
    own = {key: key for key in arrays}  # what the file calls them
    if "X" in arrays:
        own = {"X_train": "X", "y_train": "y"}
    arrays = {key: arrays[name] for key, name in own.items()}
    for key, array in arrays.items():
        if key.startswith("X"):  # before splitting, which would tell other row numbers
            check_features(own[key], array)
    numbers = targets == "numbers"
    check_y = check_numbers if numbers else plain_labels
    labels = {key: check_y(own[key], y) for key, y in arrays.items() if key.startswith("y")}
    if len(arrays["X_train"]) != len(labels["y_train"]):
        raise ValueError(
            f"{own['y_train']}: expected {len(arrays['X_train'])} labels, one for each sample of {own['X_train']}; "
            f"got {len(labels['y_train'])}; give both the same length"
        )
    y: dict[str, Any] = labels
    if not numbers:
        values = np.unique(labels["y_train"])
        _check_classes(own["y_train"], values, None)
        if classes is None and values.dtype.kind in "iu":
            check_count_of_classes(own["y_train"], len(values), targets)
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
        targets="numbers" if numbers else "classes",
    )


def _flat(X: np.ndarray) -> np.ndarray:
    return X.reshape(len(X), -1)
