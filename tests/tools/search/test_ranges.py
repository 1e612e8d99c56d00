"""What can vary and how far: the grammar, grids, coarse to fine."""

from __future__ import annotations

import dataclasses
import math

import pytest

from fcnet.runs.options import CommaList, TrainOptions, flag
from fcnet.tools.search.plan import make
from fcnet.tools.search.ranges import Choices, Range, space


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lr=1e-4:1e-2:log", Range(1e-4, 1e-2, log=True)),
        ("lr = 1e-4 : 1e-2 : log : 5", Range(1e-4, 1e-2, log=True, points=5)),
        ("dropout-keep=0.5:1", Range(0.5, 1.0)),
        ("dropout_keep=0.5:1:3", Range(0.5, 1.0, points=3)),
        ("batch-size=32:256:log", Range(32, 256, log=True, integer=True)),
        ("patience=1:4", Range(1, 4, integer=True)),
        ("hidden=100,100|200|none", Choices(([100, 100], [200], []), ("100,100", "200", "none"))),
        ("norm=none|batchnorm", Choices(("none", "batchnorm"), ("none", "batchnorm"))),
        ("lr=0.1|0.01", Choices((0.1, 0.01), ("0.1", "0.01"))),
    ],
)
def test_what_a_text_means(text, expected):
    assert list(space([text]).values()) == [expected]
    assert space([f"{text.partition('=')[0]}={expected}"]) == space([text]), "its own spelling means the same"


def test_python_values_mean_what_texts_mean():
    mine = space({"lr": (1e-4, 1e-2, "log", 3), "dropout_keep": (0.5, 1), "hidden": [[10], []], "batch-size": (1, 9)})
    texts = ["lr=1e-4:1e-2:log:3", "dropout-keep=0.5:1", "hidden=10|none", "batch-size=1:9"]
    assert mine == space(texts)
    assert mine["dropout_keep"].high == 1.0
    assert isinstance(mine["dropout_keep"].high, float)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("lr", "expected NAME=RANGE such as lr=1e-4:1e-2:log, got 'lr'"),
        ("batchsize=1:2", "did you mean 'batch-size'?"),
        ("lr=1e-4", "vary lr: expected LOW:HIGH, LOW:HIGH:log or A|B|C, got '1e-4'"),
        ("lr=1:0.1", "expected finite numbers LOW < HIGH, got 1.0 and 0.1"),
        ("lr=0:1:log", "expected LOW > 0 for a logarithmic range"),
        ("lr=0:inf", "expected finite numbers"),
        ("lr=0:1:lin", "expected log or a number of points, got 'lin'"),
        ("lr=0:1:log:3:4", "expected LOW:HIGH"),
        ("lr=0:1:1", "expected 2 or more points"),
        ("lr=a:1", "expected a number, got 'a'"),
        ("batch-size=1:2.5", "expected an integer, got '2.5'"),
        ("norm=a:b", "expected choices such as A|B|C, got 'a:b'"),
        ("norm=none|none", "two or more choices, each once"),
        ("hidden=10|x", "expected widths such as 100,100, got 'x'"),
        ("data=digits|mnist", "trials of one study can differ in, got 'data'"),
    ],
)
def test_what_no_range_is(text, told):
    with pytest.raises(ValueError) as caught:
        space([text])
    assert told in str(caught.value)
    assert str(caught.value).startswith("vary")


def test_more_that_is_refused():
    with pytest.raises(ValueError, match=r"'lr' twice"):
        space(["lr=0:1", "lr=0:2"])
    with pytest.raises(ValueError, match="at least one range"):
        space([])
    with pytest.raises(TypeError, match="expected a text, a tuple"):
        space({"lr": 3})


def test_every_option_of_train_can_vary_or_says_why_not():
    """Whatever options the table gains."""
    samples = {
        tuple: "a=b,c|a=c,b",
        int: "1:9",
        float: "0.1:0.9",
        str: "a|b",
        CommaList: "a,b|c",
        bool: "true|false",
        list: "1,2|3",
    }
    refused = set()
    for field in dataclasses.fields(TrainOptions):
        try:
            found = space([f"{flag(field.name)}={samples[field.metadata['kind']]}"])
        except ValueError:
            refused.add(field.name)
        else:
            assert list(found) == [field.name]
    assert refused == {
        *("data", "data_dir", "target", "header", "sep", "decimal", "missing", "ordinal", "out", "force")
    }


def test_a_grid_has_both_ends_and_even_steps():
    assert Range(1e-4, 1e-2, log=True, points=3).grid() == pytest.approx([1e-4, 1e-3, 1e-2], rel=1e-12)
    ends = Range(3e-4, 7e-2, log=True, points=7).grid()
    assert (ends[0], ends[-1]) == (3e-4, 7e-2), "to the bit: Optuna refuses what is a rounding outside"
    assert Range(0.5, 1.0, points=3).grid() == [0.5, 0.75, 1.0]
    assert Range(1, 4, integer=True).grid() == [1, 2, 3, 4]
    assert Range(1, 100, log=True, points=3, integer=True).grid() == [1, 10, 100]
    assert Range(1, 3, points=9, integer=True).grid() == [1, 2, 3]
    assert Range(0.0, 1.0).grid() is None


def test_a_narrower_range_is_half_as_wide_around_the_median():
    assert Range(0.0, 8.0).narrowed([3.0, 4.0, 7.0]) == Range(2.0, 6.0)
    assert Range(0.0, 8.0).narrowed([3.0, 4.0]) == Range(1.5, 5.5)
    log = Range(1e-4, 1.0, log=True).narrowed([1e-3, 1e-2, 1e-2])
    assert (log.low, log.high) == pytest.approx((1e-3, 1e-1), rel=1e-12)
    assert Range(0.0, 8.0).narrowed([0.1]) == Range(0.0, 4.0), "it does not leave the range"
    assert Range(0.0, 8.0).narrowed([8.0]) == Range(4.0, 8.0)
    assert Range(10, 20, integer=True).narrowed([15]) == Range(12, 18, integer=True)
    tight = Range(1, 2, log=True, integer=True)
    for _ in range(5):
        tight = tight.narrowed([2])
    assert tight.low <= tight.high


def test_stages_share_the_trials_evenly():
    plan = make({"vary": ["lr=0:1"], "trials": 10, "refine": 2})
    assert [plan.stage(slot) for slot in range(10)] == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"vary": ["lr=0:1"], "lr": 0.1}, "lr: expected a value or a range, got both"),
        ({"vary": ["lr=0:1"], "trials": 0}, "trials: expected an integer of 1 or more, got 0"),
        ({"vary": ["lr=0:1"], "sampler": "rnadom"}, "did you mean 'random'?"),
        ({"vary": ["lr=0:1"], "sampler": "grid"}, "vary lr: expected a number of points for a grid, such as 0.0:1.0:5"),
        ({"vary": ["lr=0:1:3"], "sampler": "grid", "refine": 1}, "refine and sampler: "),
        ({"vary": ["norm=none|batchnorm"], "refine": 1}, "refine: expected a range that can be narrowed"),
        ({"vary": ["lr=0:1"], "refine": 5, "trials": 5}, "refine: expected fewer stages than trials"),
        ({"vary": ["lr=0:1"], "jobs": 0}, "jobs: expected"),
        ({"vary": ["lr=0:1"], "study": " "}, "study: expected a name"),
        ({"vary": ["lr=0:1"], "study": "a/b"}, "study: expected a name that a folder can have"),
        ({"vary": ["lr=0:1"], "epoch": 3}, "did you mean 'epochs'?"),
    ],
)
def test_plans_that_contradict_themselves(given, told):
    with pytest.raises(ValueError) as caught:
        make(given)
    assert told in str(caught.value)


def test_a_grid_is_made_whole_unless_told_otherwise():
    vary = ["lr=0.1:1:log:5", "norm=none|batchnorm", "patience=1:3"]
    assert make({"vary": vary, "sampler": "grid"}).trials == 30
    assert make({"vary": vary, "sampler": "grid", "trials": 7}).trials == 7
    assert make({"vary": vary, "sampler": "grid", "trials": 99}).trials == 30


def test_numbers_stay_what_they_are():
    assert math.isclose(space(["reg=1e-6:1e-2:log"])["reg"].low, 1e-6, rel_tol=0, abs_tol=0)
