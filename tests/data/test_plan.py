"""What becomes of a table's columns: each kind, what is left out and why, and rows that are not like the training's."""

import json

import numpy as np
import pytest

import fcnet
from fcnet.data import Plan
from fcnet.data.cells import amount

N = 40
FRAME = {
    "size": np.arange(N) * 0.5,
    "age": [None if i % 4 == 0 else float(i % 9) for i in range(N)],
    "colour": ["red", "blue", "blue", "green", "grey"] * 7 + ["red"] * 4 + ["pink"],
    "there": [i % 3 == 0 for i in range(N)],
    "asked": ["yes", "No", "", "yes"] * 10,
    "day": [f"2024-02-{1 + i % 28:02}" for i in range(N)],
    "when": [f"{1 + i % 28}/3/2023" for i in range(N)],
    "grade": ["low", "high", "mid", "low"] * 10,
    "id": list(range(7, 7 + N)),
    "note": [f"text {i}" for i in range(N)],
    "same": ["x"] * N,
    "none": [None] * N,
    "seen": ["x" if i % 2 else "?" for i in range(N)],
}


@pytest.fixture
def plan():
    return Plan.learn(FRAME, ordinal={"grade": ["low", "mid", "high"]})


def of(plan, name):
    return next(column for column in plan.columns if column.name == name)


def test_each_kind_of_column(plan):
    kinds = {column.name: column.kind for column in plan.columns}
    assert kinds == {
        **dict.fromkeys(("size", "age"), "number"),
        **dict.fromkeys(("colour", "seen"), "category"),
        **dict.fromkeys(("there", "asked"), "boolean"),
        **dict.fromkeys(("day", "when"), "date"),
        "grade": "ordinal",
        **dict.fromkeys(("id", "note", "same", "none"), "left out"),
    }
    reasons = [column.reason for column in plan.left_out]
    assert reasons == [
        "it counts the rows",
        "text with a value of its own in every row",
        "the same value in every row",
        "missing in every row",
    ]
    assert of(plan, "colour").outputs == ["colour=blue", "colour=green", "colour=grey", "colour=red", "colour=(other)"]
    assert of(plan, "seen").outputs == ["seen missing"]
    X = plan.apply(FRAME)
    assert X.shape == (N, len(plan.features))
    at = {name: place for place, name in enumerate(plan.features)}
    np.testing.assert_array_equal(X[:, at["size"]], FRAME["size"])
    ages = [i % 9 for i in range(N) if i % 4]
    np.testing.assert_array_equal(X[:5, at["age"]], [np.median(ages), 1, 2, 3, np.median(ages)])
    np.testing.assert_array_equal(X[:, at["age missing"]], [i % 4 == 0 for i in range(N)])
    for level in ("blue", "green", "grey", "red"):
        np.testing.assert_array_equal(X[:, at[f"colour={level}"]], [c == level for c in FRAME["colour"]])
    np.testing.assert_array_equal(X[:, at["colour=(other)"]], [c == "pink" for c in FRAME["colour"]])
    np.testing.assert_array_equal(X[:4, [at["asked"], at["asked missing"]]], [[1, 0], [0, 0], [1, 1], [1, 0]])
    np.testing.assert_array_equal(X[:4, at["grade"]], [0, 2, 1, 0])
    np.testing.assert_array_equal(X[:3, [at["day day"], at["day weekday"]]], [[1, 3], [2, 4], [3, 5]])
    np.testing.assert_array_equal(X[:2, at["when day"]], [1, 2])


def test_it_is_plain_values(plan):
    kept = Plan.from_json(json.loads(json.dumps(plan.to_json())))
    assert kept == plan
    np.testing.assert_array_equal(kept.apply(FRAME), plan.apply(FRAME))
    text = plan.describe()
    assert all(name in text for name in FRAME)
    assert "25.0%" in text


def test_it_is_learned_from_the_training_rows_alone():
    rows = np.arange(0, N, 4)
    plan = Plan.learn(FRAME, rows=rows, only=["age", "colour", "size"])
    assert of(plan, "age").reason == "missing in every row"
    assert of(plan, "size").fill == np.median(FRAME["size"][rows])
    assert set(of(plan, "colour").levels) == {"red", "grey", "green", "blue"}
    assert plan.apply(FRAME).shape == (N, len(plan.features))


def change(**columns):
    return {**{name: list(cells)[:3] for name, cells in FRAME.items()}, **columns}


def test_levels_that_training_did_not_have(plan):
    at = {name: place for place, name in enumerate(plan.features)}
    X = plan.apply(change(colour=["violet", None, "red"]))
    np.testing.assert_array_equal(X[:, at["colour=(other)"]], [1, 0, 0])
    np.testing.assert_array_equal(X[:, at["colour=blue"]], [0, 1, 0])  # the most frequent for a missing one


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"size": ["1", "a lot", "2"]}, "row 1, column 'size': expected a number, as in training; got 'a lot'"),
        ({"size": ["1", "2", "1,5"]}, "row 2, column 'size': .* got '1,5'; the decimal sign is '.', as in training"),
        ({"size": [1, np.inf, 2]}, "row 1, column 'size': expected a finite number; got inf"),
        ({"size": [1, 1e200, 2]}, "row 1, column 'size': expected a number of size 1e.150 or less"),
        ({"colour": [1, 2, 3]}, "row 0, column 'colour': expected text such as blue, green, grey, .* got '1'"),
        ({"there": ["yes", "perhaps", "no"]}, "column 'there': expected true or false, as in training; got 'yes'"),
        ({"there": [1, 0, 5]}, "row 2, column 'there': expected a truth value, as in training; got 5"),
        ({"day": ["2024-01-01", "soon", None]}, "row 1, column 'day': expected a date, .* got 'soon'"),
        ({"day": [1, 2, 3]}, "column 'day': expected dates, as in training; got numbers"),
        ({"grade": ["low", "top", "mid"]}, "row 1, column 'grade': expected one of low, mid, high, .* got 'top'"),
    ],
)
def test_another_kind_of_values_is_refused(plan, columns, message):
    with pytest.raises(ValueError, match=message):
        plan.apply(change(**columns))


def test_a_column_that_is_not_there(plan):
    rows = change()
    for name in ("id", "note", "same", "none"):  # nothing becomes of these
        del rows[name]
    plan.apply({**rows, "more": [1, 2, 3]})
    del rows["age"]
    with pytest.raises(ValueError, match="column 'age': expected it, as in training; got size, colour, "):
        plan.apply(rows)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"drop": ["0.8"]}, "drop: expected one of size, .*; got '0.8'; did you mean dropout_keep_ratio=0.8"),
        ({"drop": ["collour"]}, "drop: .*; got 'collour'; did you mean 'colour'"),
        ({"only": ["same", "none"]}, "expected columns to learn from; got none that can be used .*'same': the same"),
        ({"only": ["age"], "drop": ["age"]}, "drop and only: expected each column in one of them; got 'age' in both"),
        ({"ordinal": {"grade": ["low", "high"]}}, "row 2, column 'grade': .*ordinal levels low, high; got 'mid'"),
        ({"ordinal": {"grade": ["low"]}}, "ordinal: expected two or more different levels for 'grade'; got low"),
    ],
)
def test_what_cannot_be_done(how, message):
    with pytest.raises(ValueError, match=message):
        Plan.learn(FRAME, **how)


def test_a_count_of_the_rows_is_used_where_there_is_nothing_else():
    assert Plan.learn(FRAME, only=["id", "same"]).features == ("id",)


def test_a_model_keeps_its_plan(plan, tmp_path):
    model = fcnet.FullyConnectedNet([5], len(plan.features), 2, device="cpu")
    model.plan = plan
    model.save(tmp_path / "a.safetensors")
    kept = fcnet.load(tmp_path / "a.safetensors", device="cpu")
    assert kept.plan == plan
    assert kept.copy().plan == plan
    np.testing.assert_array_equal(kept.predict(FRAME), model.predict(plan.apply(FRAME)))
    assert plan.describe() in kept.describe()


def test_money_per_cent_and_thousands_are_numbers_with_a_word():
    frame = {
        "price": ["$1,200", "$ 9", "", "-$3.50"],
        "share": ["37 %", "5%", "0 %", "12.5 %"],
        "people": ["1,200", "9", "88", "1,000,000"],
        "mixed": ["$1", "€2", "$1", "€2"],
        "code": ["1,20", "1,20", "2,2", "2,2"],
        "y": [0, 1, 1, 1],
    }
    plan = Plan.learn(frame, targets=("y",))
    assert [column.kind for column in plan.columns] == ["number"] * 3 + ["category"] * 2
    assert plan.said() == [
        "column 'price': taken for numbers with $ (such as $1,200, which is 1200)",
        "column 'share': taken for numbers with % (such as 12.5 %, which is 12.5)",
        "column 'people': taken for numbers, with marks between thousands (such as 1,000,000, which is 1000000)",
    ]
    plan = Plan.from_json(json.loads(json.dumps(plan.to_json())))
    at = [plan.features.index(name) for name in ("price", "share", "people")]
    expected = [[1200, 37, 1200], [9, 5, 9], [9, 0, 88], [-3.5, 12.5, 1_000_000]]
    np.testing.assert_array_equal(plan.apply(frame)[:, at], expected)
    plain = frame | {"price": [1200, 9, None, -3.5], "people": ["1200", "9", "88", "1000000"]}
    np.testing.assert_array_equal(plan.apply(plain)[:, at], expected)
    for share in ([0.37, 0.05, 0, 0.125], ["0.37", "5%", "0 %", "12.5 %"]):  # hundredths, or not?
        with pytest.raises(
            ValueError, match=r"column 'share': expected (a number|numbers) with %, as in training; got"
        ):
            plan.apply(frame | {"share": share})
    with pytest.raises(ValueError, match=r"column 'price': expected a number with \$, as in training; got '€5'"):
        plan.apply(frame | {"price": ["€5"] * 4})


@pytest.mark.parametrize(
    ("cell", "decimal", "value"),
    [
        ("1.234,50 €", ",", 1234.5),
        ("1 234,5", ",", 1234.5),
        ("12,34", ".", None),
        ("0,123", ".", None),
        ("5 kg", ".", None),
    ],
)
def test_amounts(cell, decimal, value):
    found = amount(cell, decimal)
    assert (found and found[0]) == value


def test_targets_with_signs_are_numbers_and_no_classes_by_accident():
    frame = {"x": np.arange(60.0) ** 2, "price": [f"${1000 + 7 * at:,}" for at in range(60)]}
    with pytest.warns(fcnet.errors.DataNotice, match="column 'price': taken for numbers with "):
        ds = fcnet.data.load(frame, target="price", targets="numbers")
    assert ds.y_train.max() <= 1413
    with pytest.raises(ValueError, match="expected at most 50 classes"):
        fcnet.data.load(frame, target="price")
