"""`Dataset`: the parts of a data set, checked once when it is made."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

import fcnet.errors as errors
from fcnet import defaults
from fcnet.data.checks import (
    check_array,
    check_features,
    check_labels,
    check_names,
    check_numbers,
    check_sample_weight,
    check_shape,
)
from fcnet.data.given import codes_of, inputs_of, targets_of
from fcnet.data.plan import Plan
from fcnet.data.preprocessing import KINDS
from fcnet.errors import counted

TARGETS = ("classes", "numbers")


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Hold training, validation and (optional) test data on the host.

    Arrays are kept as they are, memory-mapped ones too: no copy, no cast. Nothing of fcnet writes to them; a Solver may
    share them, so that what a training does after they were changed is undefined.

    X_train, X_val, X_test: numbers of shape (N, D) or (N, d1, ..., dk), D = d1 * ... * dk the same in each
    part; or tables (data frames, dictionaries of columns, rows of anything), of which `plan` makes numbers.
    y_train, y_val, y_test: integer codes 0..C-1 of shape (N,), or one-hot of shape (N, C); or labels of any other kind
    (1 and 2, truth values, texts; arrays, series, lists), which become codes, and their names `classes`.
    targets: "classes", or "numbers" for regression and for labels that may each be on or off: y are then
    finite numbers of shape (N,), or (N, C) for C outputs.
    name: what `summary` calls it.  classes: C class names by code.  features: D column names (of a CSV).
    preprocess: the rule a Solver learns from X_train by default, one of fcnet.data.KINDS.
    sample_weight: how much each training sample counts, numbers of 0 or more of shape (N,); None: all alike.
    image_shape: how the D features of a sample are laid out, (channels, height, width).
    plan: what became of the columns of a table before they were these X; None: of tables it is learned from X_train.

    Raises TypeError or ValueError, in one line with the argument's name, for anything that does not fit.
    """

    X_train: np.ndarray
    y_train: np.ndarray
    X_val: np.ndarray
    y_val: np.ndarray
    X_test: np.ndarray | None = None
    y_test: np.ndarray | None = None
    name: str = "data"
    classes: tuple[str, ...] | None = None
    features: tuple[str, ...] | None = None
    preprocess: str = defaults.PREPROCESS
    image_shape: tuple[int, ...] | None = None
    targets: str = "classes"
    sample_weight: np.ndarray | None = None
    plan: Plan | None = None

    def __post_init__(self) -> None:
        if (self.X_test is None) != (self.y_test is None):
            given, lacking = ("y_test", "X_test") if self.X_test is None else ("X_test", "y_test")
            raise ValueError(f"{lacking}: expected with {given}; got None; give both or neither")
        if self.targets not in TARGETS:
            raise errors.unknown("targets", self.targets, TARGETS)
        for name in ("classes", "features"):
            self._set(name, check_names(name, getattr(self, name)))
        self._take_in()
        self._set("image_shape", check_shape("image_shape", self.image_shape))
        width, seen = 0, 0
        for part, (X, y) in self.splits().items():
            X_name, y_name = f"X_{part}", f"y_{part}"
            check_array(X_name, X)
            check_array(y_name, y)
            D = check_features(X_name, X)
            codes = check_labels(y_name, y) if self.targets == "classes" else check_numbers(y_name, y)
            if len(codes) != len(X):
                raise ValueError(
                    f"{y_name}: expected {counted(len(X), 'label')}, one for each sample of {X_name}; got "
                    f"{len(codes)}; give both the same length"
                )
            if part == "train":
                width = D
                seen = self._check_training_labels(codes) if self.targets == "classes" else 0
            elif width != D:
                raise ValueError(
                    f"{X_name}: expected {counted(width, 'feature')} as in X_train; got {D} (shape {X.shape}); "
                    "prepare every part the same way"
                )
            if self.targets == "classes":
                self._check_labels(y_name, y, codes, seen)
            elif y.shape[1:] != self.y_train.shape[1:]:
                raise ValueError(f"{y_name}: expected rows like those of y_train, {self.y_train.shape}; got {y.shape}")
        self._check_description(width)
        if self.sample_weight is not None:
            self._set("sample_weight", targets_of("sample_weight", self.sample_weight))
            check_sample_weight("sample_weight", self.sample_weight, len(self.X_train))

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _take_in(self) -> None:
        """Make arrays of tables, and codes of labels of other kinds."""
        parts = self.splits()
        X, plan = inputs_of({f"X_{part}": X for part, (X, _) in parts.items()}, self.plan)
        if plan is not None and plan is not self.plan:
            if self.features is None:
                self._set("features", plan.features)
            if self.preprocess == "none":
                self._set("preprocess", "standardize")
        y = {f"y_{part}": targets_of(f"y_{part}", y) for part, (_, y) in parts.items()}
        classes = self.classes
        if self.targets == "classes":
            y, classes = codes_of(y, classes)
        for name, value in {**X, **y, "classes": classes, "plan": plan}.items():
            self._set(name, value)

    def _check_labels(self, name: str, y: np.ndarray, codes: np.ndarray, seen: int) -> None:
        """Check that all labels are classes that y_train has, in as many columns."""
        if codes.max() >= seen:
            at = int(np.argmax(codes >= seen))
            raise ValueError(
                f"{name}: expected labels below {seen}, the number of classes in y_train; "
                f"got {codes[at]} at {at}; "
                "put samples of every class in the training part"
            )
        if y.ndim == 2 and y.shape[1] != self.num_classes:
            raise ValueError(
                f"{name}: expected {self.num_classes} one-hot columns; got {y.shape[1]}; give a column for each class"
            )

    def _check_training_labels(self, codes: np.ndarray) -> int:
        """Return the number of classes that y_train knows: its largest code + 1, or its one-hot columns."""
        if codes.min() == codes.max():
            raise ValueError(
                f"y_train: expected at least 2 classes; got only label {codes[0]}; give training samples of every class"
            )
        seen = self.y_train.shape[1] if self.y_train.ndim == 2 else int(codes.max()) + 1
        if self.classes is not None and len(self.classes) < seen:
            raise ValueError(
                f"classes: expected at least {seen} names, for labels 0..{seen - 1}; got {len(self.classes)}"
            )
        return seen

    def _check_description(self, width: int) -> None:
        if self.targets == "numbers" and self.classes is not None:
            outputs = math.prod(self.y_train.shape[1:])
            if len(self.classes) != outputs:
                raise ValueError(
                    f"classes: expected {counted(outputs, 'name')}, one for each output; got {len(self.classes)}"
                )
        if self.preprocess not in KINDS:
            raise errors.unknown("preprocess", self.preprocess, KINDS)
        if self.features is not None and len(self.features) != width:
            raise ValueError(
                f"features: expected {counted(width, 'name')}, one for each column of X_train; got {len(self.features)}"
            )
        if self.image_shape is not None and math.prod(self.image_shape) != width:
            raise ValueError(f"image_shape: expected a product of {width}, the features; got {self.image_shape}")

    def splits(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return the parts that are there: "train" -> (X_train, y_train), "val" and, if given, "test"."""
        parts = {"train": (self.X_train, self.y_train), "val": (self.X_val, self.y_val)}
        if self.X_test is not None and self.y_test is not None:
            parts["test"] = (self.X_test, self.y_test)
        return parts

    @property
    def num_classes(self) -> int:
        """Return C: the number of class names, else of columns of y, else the largest code + 1, or 1 for numbers."""
        if self.classes is not None:
            return len(self.classes)
        if self.targets == "numbers":
            return math.prod(self.y_train.shape[1:])
        return self.y_train.shape[1] if self.y_train.ndim == 2 else int(self.y_train.max()) + 1

    @property
    def input_dim(self) -> int:
        """Return D: the number of features of one sample."""
        return math.prod(self.X_train.shape[1:])

    def summary(self) -> str:
        """Return one line: `digits: 1437 train, 180 val, 180 test, 64 features, 10 classes`."""
        parts = ", ".join(f"{len(X)} {part}" for part, (X, _) in self.splits().items())
        last = ("class", "classes") if self.targets == "classes" else ("output",)
        features = counted(self.input_dim, "feature")
        return f"{self.name}: {parts}, {features}, {counted(self.num_classes, *last)}"

    def __repr__(self) -> str:
        return f"<Dataset {self.summary()}>"
