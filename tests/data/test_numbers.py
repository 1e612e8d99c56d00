"""Targets that are numbers: in a Dataset, from .csv and .npz files, for a model that has been trained."""

import numpy as np
import pytest

from fcnet.data import Dataset, inputs, load
from fcnet.data.splits import hold_out
from fcnet.errors import DataNotice

X = np.arange(120.0).reshape(40, 3)
Y = X @ [1.0, 0.5, -2.0]


def make(**changes):
    parts = {"X_train": X, "y_train": Y, "X_val": X[:5], "y_val": Y[:5]}
    return Dataset(**({"targets": "numbers"} | parts | changes))


def test_a_dataset_of_numbers():
    ds = make(name="toy")
    assert ds.y_train is Y
    assert ds.num_classes == 1
    assert ds.summary() == "toy: 40 train, 5 val, 3 features, 1 output"
    two = make(y_train=np.c_[Y, Y], y_val=np.c_[Y, Y][:5], classes=("price", "size"))
    assert two.num_classes == 2
    assert two.summary().endswith("2 outputs")
    assert make(y_train=Y > 0, y_val=Y[:5] > 0).num_classes == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": "number"}, "targets: expected one of classes, numbers; got 'number'; did you mean 'numbers'"),
        ({"y_train": Y[:9]}, "y_train: expected 40 labels, one for each sample of X_train; got 9"),
        ({"y_val": np.c_[Y, Y][:5]}, r"y_val: expected rows like those of y_train, \(40,\); got \(5, 2\)"),
        (
            {"y_train": np.where(np.arange(40) == 3, np.nan, Y)},
            r"y_train: expected finite numbers; got 1 NaN .* at \(3,\)",
        ),
        ({"y_train": Y.astype(str)}, "y_train: expected numbers; got dtype <U"),
        ({"y_train": Y[:, None, None]}, r"y_train: expected numbers of shape \(N,\) or \(N, C\); got \(40, 1, 1\)"),
        ({"classes": ("a", "b")}, "classes: expected 1 name, one for each output; got 2"),
        ({"targets": "classes"}, r"y_train: expected integer labels; .*targets='numbers'"),
    ],
)
def test_what_does_not_fit(changes, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make(**changes)


def test_rows_held_out_keep_their_numbers():
    parts = hold_out(X.copy(), Y, ("val", "test"), 3, stratify=False)
    assert [len(parts[f"X_{part}"]) for part in ("train", "val", "test")] == [32, 4, 4]
    for part in ("train", "val", "test"):
        np.testing.assert_array_equal(parts[f"X_{part}"] @ [1.0, 0.5, -2.0], parts[f"y_{part}"])


@pytest.fixture
def csv(tmp_path):
    path = tmp_path / "houses.csv"
    rows = [f"{a},{b},{c},{y}" for (a, b, c), y in zip(X, Y, strict=True)]
    path.write_text("\n".join(["a,b,c,price", *rows]) + "\n")
    return path


def test_a_table_with_a_column_of_numbers(csv):
    ds = load(csv, target="price", targets="numbers")
    assert ds.summary() == "houses: 32 train, 4 val, 4 test, 3 features, 1 output"
    assert ds.features == ("a", "b", "c")
    assert ds.classes is None
    assert ds.preprocess == "auto"
    for part_X, part_y in ds.splits().values():
        np.testing.assert_array_equal(part_X @ [1.0, 0.5, -2.0], part_y)
    whole_X, whole_y = inputs.labelled(str(csv), "price", inputs.Names(3, 1, ds.features, None, "numbers"))
    np.testing.assert_array_equal(whole_X, X)
    np.testing.assert_array_equal(whole_y, Y)
    split, *part = inputs.part(str(csv), "val", inputs.Names(3, 1, ds.features, None, "numbers"), None, "price")
    assert split == "val"
    np.testing.assert_array_equal(part[1], ds.y_val)


def test_a_table_with_several_columns_of_numbers(tmp_path):
    path = tmp_path / "two.csv"
    rows = [f"{a},{b},{y},{c}" for (a, b, c), y in zip(X, Y, strict=True)]
    path.write_text("\n".join(['a,b,price,"c,d"', *rows]) + "\n")
    ds = load(path, target="price, b", targets="numbers")
    assert ds.summary() == "two: 32 train, 4 val, 4 test, 2 features, 2 outputs"
    assert (ds.features, ds.classes) == (("a", "c,d"), ("price", "b"))
    for part_X, part_y in ds.splits().values():
        np.testing.assert_array_equal(part_y[:, 0], np.c_[part_X[:, 0], part_y[:, 1], part_X[:, 1]] @ [1.0, 0.5, -2.0])
    one = load(path, target="c,d", targets="numbers")  # a column of that name
    assert (one.features, one.classes, one.y_train.shape) == (("a", "b", "price"), None, (32,))
    lines = path.read_text().splitlines()
    lines[2] = "1,,3,4"
    path.write_text("\n".join(lines))
    with pytest.warns(DataNotice, match="1 of 40 rows are left out: their target .price, b. is missing"):
        load(path, target="price,b", targets="numbers")


@pytest.mark.parametrize("cell", ["abc", "-inf", "inf", "1e200", "1_0"])
def test_cells_that_are_no_numbers(csv, cell):
    lines = csv.read_text().splitlines()
    lines[3] = f"1,2,3,{cell}"
    csv.write_text("\n".join(lines))
    limit = " of size 1e.150 or less" if cell in ("-inf", "inf", "1e200") else ""
    with pytest.raises(ValueError, match=f"line 4, column 'price': expected a number{limit}; got '{cell}'"):
        load(csv, target="price", targets="numbers")


@pytest.mark.parametrize("y", [Y, Y[:, None], np.c_[Y, -Y], np.c_[Y > 0, Y < 9], Y.astype("float32")], ids=str)
def test_an_npz_of_numbers(tmp_path, y):
    path = tmp_path / "a.npz"
    np.savez(path, X=X, y=y)
    ds = load(path, targets="numbers")
    assert ds.num_classes == (1 if y.ndim == 1 else y.shape[1])
    assert ds.y_train.dtype == y.dtype
    assert sum(len(part_y) for _, part_y in ds.splits().values()) == 40
    _, whole = inputs.labelled(str(path), None, inputs.Names(3, ds.num_classes, None, None, "numbers"))
    np.testing.assert_array_equal(whole, y)


def test_named_sets_have_classes():
    with pytest.raises(ValueError, match=r"data: expected a table or an .npz file of numbers to predict; got spirals"):
        load("spirals", targets="numbers")
    with pytest.raises(ValueError, match="targets: expected one of classes, numbers"):
        load("spirals", targets="class")
