"""Dataset: what it keeps, what it says, and one line for each thing that can be wrong."""

import dataclasses
import json
import pickle
import subprocess
import sys

import numpy as np
import pandas
import pytest

import fcnet
import fcnet.data
from fcnet import errors
from fcnet.data import Dataset, checks
from fcnet.data.splits import TooFew

X = np.arange(24.0).reshape(6, 4)
Y = np.array([0, 1, 2, 0, 1, 2])


def make(**changes):
    return Dataset(**({"X_train": X, "y_train": Y, "X_val": X[:3], "y_val": Y[:3]} | changes))


def test_arrays_are_kept_as_they_are():
    images = np.zeros((6, 3, 2, 2), dtype=np.uint8)
    labels = Y.astype(np.uint8)
    ds = make(X_train=images, y_train=labels, X_val=images[:3], y_val=labels[:3])
    assert ds.X_train is images
    assert ds.y_train is labels
    assert ds.input_dim == 12
    assert ds.num_classes == 3


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([1, 2], ("1", "2")),
        ([-1, 1], ("-1", "1")),
        ([0, 7], ("0", "7")),
        ([False, True], ("False", "True")),
        (["no", "yes"], ("no", "yes")),
        ([2.0, 4.0], ("2", "4")),
    ],
)
@pytest.mark.parametrize("kind", ["array", "list", "series", "column"])
def test_labels_of_any_kind_are_numbered(labels, classes, kind):
    pandas = pytest.importorskip("pandas")
    as_kind = {
        "array": np.array, "list": list, "series": pandas.Series, "column": lambda y: pandas.DataFrame({"y": y}),
    }[kind]  # fmt: skip
    ds = make(y_train=as_kind([labels[i % 2] for i in range(6)]), y_val=as_kind([labels[i] for i in (1, 0, 1)]))
    assert ds.classes == classes
    assert ds.num_classes == 2
    np.testing.assert_array_equal(ds.y_train, [0, 1] * 3)
    np.testing.assert_array_equal(ds.y_val, [1, 0, 1])


@pytest.mark.parametrize(("loss", "outputs"), [("softmax", 2), ("svm", 2), ("bce", 1)])
def test_truth_values_are_labels_in_every_loss(loss, outputs):
    model = fcnet.FullyConnectedNet([3], 4, outputs, loss=loss, device="cpu")
    y = Y > 0
    assert model.loss(X, y)[0] == model.loss(X, y.astype(int))[0]
    solver = fcnet.Solver(model, {"X_train": X, "y_train": y, "X_val": X, "y_val": y}, num_epochs=1, verbose=False)
    solver.train()
    assert 0 <= solver.check_metric(X, y) <= 1


def test_codes_of_which_one_is_not_there_stay_codes():
    codes = np.array([0, 1, 3] * 2)
    assert make(y_train=codes).y_train is codes
    assert make(y_train=codes).num_classes == 4


FRAME = {"size": X[:, 0], "kind": ["a", "b", "b"] * 2, "there": [True, False] * 3}


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow", "dict", "rows", "objects"])
def test_tables_become_numbers_by_a_plan(library):
    def table(count):
        part = {name: list(cells)[:count] for name, cells in FRAME.items()}
        rows = [list(row) for row in zip(*part.values(), strict=True)]
        if library == "dict":
            return part
        if library in ("rows", "objects"):
            return rows if library == "rows" else np.array(rows, dtype=object)
        found = pytest.importorskip(library)
        return found.table(part) if library == "pyarrow" else found.DataFrame(part)

    ds = make(X_train=table(6), X_val=table(3))
    np.testing.assert_array_equal(ds.X_train[:, 0], FRAME["size"])
    np.testing.assert_array_equal(ds.X_train[:, 1:], [[1, 0, 1], [0, 1, 0], [0, 1, 1], [1, 0, 0], [0, 1, 1], [0, 1, 0]])
    np.testing.assert_array_equal(ds.X_val, ds.X_train[:3])
    assert ds.preprocess == "auto"
    names = ("0", "1=a", "1=b", "2") if library in ("rows", "objects") else ("size", "kind=a", "kind=b", "there")
    assert ds.features == ds.plan.features == names
    assert make(X_train=X.tolist(), X_val=X[:3].tolist()).plan is None


def test_splits_and_summary():
    ds = make(name="toy")
    assert list(ds.splits()) == ["train", "val"]
    assert ds.summary() == "toy: 6 train, 3 val, 4 features, 3 classes"
    ds = make(name="toy", X_test=X[:2], y_test=Y[:2])
    assert ds.splits()["test"][0] is ds.X_test
    assert repr(ds) == "<Dataset toy: 6 train, 3 val, 2 test, 4 features, 3 classes>"
    one = X[:, :1]
    assert ", 1 feature, " in make(X_train=one, X_val=one[:3]).summary()


def test_parts_may_have_different_shapes_with_the_same_number_of_features():
    assert make(X_val=X[:3].reshape(3, 2, 2)).input_dim == 4


def test_num_classes_comes_from_names_columns_or_codes():
    assert make().num_classes == 3
    assert make(classes=("a", "b", "c", "d")).num_classes == 4
    one_hot = np.eye(5)[Y]
    assert make(y_train=one_hot, y_val=one_hot[:3]).num_classes == 5
    assert make(y_train=one_hot, y_val=np.array([4, 0, 0])).num_classes == 5


def test_it_cannot_be_changed_unchecked():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().X_train = None
    assert dataclasses.replace(make(), name="other").name == "other"


class OnDevice:
    __cuda_array_interface__ = {}  # noqa: RUF012


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"y_train": Y - 1}, ValueError, ["y_val: expected only labels that y_train has; got 2 at 2"]),
        ({"y_train": Y > 0}, ValueError, ["y_val: expected only labels that y_train has; got 2 at 2"]),
        ({"y_train": Y.astype(str)}, ValueError, ["y_val: expected labels like those of y_train (dtype <U"]),
        ({"y_train": ["a", None, "b"] * 2}, ValueError, ["y_train: expected targets without gaps; got 2 miss"]),
        ({"X_train": [["a", "b"], ["c"]]}, ValueError, ["X_train: row 1: expected 2 cells; got 1"]),
        ({"X_val": None}, TypeError, ["X_val: expected", "NoneType", "stratified_split"]),
        ({"X_train": OnDevice()}, TypeError, ["X_train", "OnDevice", "X_train.get()"]),
        ({"X_train": np.ma.masked_less(X, 3)}, TypeError, ["X_train", "mask", "filled"]),
        ({"y_train": Y[:5]}, ValueError, ["y_train: expected 6 labels", "X_train", "got 5"]),
        ({"X_val": X[:3, :3]}, ValueError, ["X_val: expected 4 features as in X_train; got 3"]),
        ({"X_val": X[:0], "y_val": Y[:0]}, ValueError, ["X_val: expected at least one sample"]),
        ({"X_train": X[:, :0]}, ValueError, ["X_train: expected at least one feature"]),
        ({"X_train": X[:, 0]}, ValueError, ["X_train: expected shape (N, D)", "reshape(-1, 1)"]),
        ({"X_train": X.astype(complex)}, TypeError, ["X_train: expected numbers; got dtype complex128"]),
        ({"y_train": Y + 0.5}, TypeError, ["y_train", "dtype float64", "labels are whole numbers"]),
        ({"y_train": Y.reshape(6, 1)}, ValueError, ["y_train: expected shape", "(6, 1)", ".ravel()"]),
        ({"y_train": Y.reshape(6, 1, 1)}, ValueError, ["y_train: expected shape (N,)", "(6, 1, 1)"]),
        ({"y_train": Y * 0 + 3}, ValueError, ["y_train: expected at least 2", "label 3"]),
        ({"y_val": np.array([0, 3, 1])}, ValueError, ["y_val: expected labels below 3", "got 3 at 1"]),
        ({"y_train": np.eye(3)[Y] * 2}, ValueError, ["y_train: expected one-hot rows", "at 0"]),
        ({"y_train": np.eye(3)[Y] + np.eye(3)[::-1][Y]}, ValueError, ["y_train: expected one-hot rows"]),
        ({"y_val": np.eye(4)[Y[:3]]}, ValueError, ["y_val: expected 3 one-hot columns; got 4"]),
        ({"X_test": X[:2]}, ValueError, ["y_test: expected with X_test; got None"]),
        ({"y_test": Y[:2]}, ValueError, ["X_test: expected with y_test; got None"]),
        ({"classes": ("a", "b")}, ValueError, ["classes: expected at least 3 names"]),
        ({"features": ("a", "b")}, ValueError, ["features: expected 4 names", "got 2"]),
        ({"image_shape": (1, 2, 3)}, ValueError, ["image_shape: expected a product of 4"]),
        ({"image_shape": 5}, TypeError, ["image_shape: expected a tuple of integers; got 5"]),
        ({"image_shape": (-1, -2, 2)}, ValueError, ["image_shape: expected integers of 1 or more"]),
        ({"image_shape": (1, 2.0, 2)}, TypeError, ["image_shape: expected a tuple of integers"]),
        ({"image_shape": ()}, ValueError, ["image_shape: expected integers of 1 or more; got ()"]),
        ({"classes": 5}, TypeError, ["classes: expected a tuple of texts; got '5'"]),
        ({"classes": "abc"}, TypeError, ["classes: expected a tuple of texts; got 'abc'"]),
        ({"classes": (0, 1, 2)}, TypeError, ["classes: expected a tuple of texts"]),
        ({"classes": ("a", "b", "a")}, ValueError, ["classes: expected different names; got 'a' twice"]),
        ({"features": 5}, TypeError, ["features: expected a tuple of texts; got '5'"]),
        ({"features": ("a", "b", "b", "c")}, ValueError, ["features: expected different names; got 'b' twice"]),
        ({"y_train": np.array(1)}, ValueError, ["y_train: expected shape (N,)", "got ()"]),
        ({"y_train": Y.view(np.matrix)}, TypeError, ["y_train: expected a NumPy array; got", "np.asarray(y_train)"]),
        ({"X_train": X.view(np.matrix)}, TypeError, ["X_train: expected a NumPy array; got", "np.asarray(X_train)"]),
        ({"preprocess": "centre"}, ValueError, ["preprocess: expected one of none", "mean 'center'?"]),
    ],
)  # fmt: skip
def test_each_error_is_one_line_that_says_what_to_do(changes, kind, words):
    with pytest.raises(kind) as caught:
        make(**changes)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_nan_and_infinity_are_counted_and_located(dtype, monkeypatch):
    monkeypatch.setattr(checks, "CHUNK_ELEMENTS", 8)  # two rows a chunk: the first bad one lies in the second
    bad = X.astype(dtype)
    bad[3, 1], bad[4, 2], bad[5, 3] = np.nan, np.inf, -np.inf
    with pytest.raises(ValueError, match=r"X_train: .*got 3 NaN or infinite, the first nan at \(3, 1\)"):
        make(X_train=bad)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, "0", "a"], r"got '?0'? and '?0'?; make all of them text or all numbers"),
        (["a", "a\0", "b"], r"got 'a' and 'a\\x00'; make all"),
        (pandas.array(["a", "b", None], "string"), r"got 2 missing values, the first at 2"),
    ],
)
def test_labels_are_not_merged_by_their_spelling(labels, message):
    y = np.asarray(labels, dtype=object)[[0, 1, 2, 0, 1, 2]]
    with pytest.raises(ValueError, match=message):
        make(y_train=y)


def test_weights_of_samples_may_be_a_list():
    assert make(sample_weight=[1.0] * 6).sample_weight.tolist() == [1.0] * 6


@pytest.mark.parametrize("error", [errors.MissingExtra("a", "b", "plot"), TooFew(3, 2, 4)])
def test_errors_can_be_handed_over_by_another_process(error):
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_large_finite_values_pass_though_their_sum_overflows():
    large = np.full((6, 4), np.finfo(np.float32).max, dtype=np.float32)
    assert make(X_train=large).X_train is large


def test_importing_is_cheap():
    heavy = ["sklearn", "pooch", "requests", "matplotlib", "cupy", "backends"]
    code = f"import json, sys, fcnet.data\nprint(json.dumps([m for m in {heavy} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # fcnet itself may import its own backends; fcnet.data must bring none of the others.
    assert set(json.loads(done.stdout)) <= {"backends"}


def test_the_public_names_are_there():
    for name in fcnet.data.__all__:
        assert getattr(fcnet.data, name) is not None


@pytest.mark.parametrize("y", [np.arange(60) * 3, np.arange(60) + 1.0], ids=["prices", "from 1, as floats"])
def test_whole_numbers_of_many_values_are_no_classes_by_accident(y):
    X = np.ones((60, 2))
    with pytest.raises(ValueError, match="y_train: expected codes 0 to C - 1, or labels of at most 50 classes; got 60"):
        Dataset(X, y, X, y)
    assert Dataset(X, y.astype(str), X, y.astype(str)).num_classes == 60  # as the message says
    assert Dataset(X, np.arange(60), X, np.arange(60)).num_classes == 60
    assert Dataset(X, y, X, y, targets="numbers").num_classes == 1


def test_gaps_in_a_series_of_targets_are_said():
    y = pandas.Series([1, None, 2], dtype="Int64")
    with pytest.raises(ValueError, match="y_train: expected targets without gaps; got 1 missing value, the first at 1"):
        Dataset(np.ones((3, 2)), y, np.ones((3, 2)), y)
