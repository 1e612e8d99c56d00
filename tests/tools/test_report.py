"""The report: what stands in it, that nothing in a table becomes markup, and which columns matter."""

from __future__ import annotations

import base64
import itertools
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

import fcnet
from fcnet.data import Dataset, Plan
from fcnet.tools.report import importance, report_html
from fcnet.tools.report.importance import columns_of_inputs, importances
from fcnet.tools.report.page import Page
from fcnet.training.metrics import own_figure
from tests.small import blobs, solver

pytest.importorskip("matplotlib")
EMPTY = {"meta", "img"}  # elements without an end


class Reader(HTMLParser):
    """Elements, attributes and text of a page, whose elements must be closed in order."""

    def __init__(self, html):
        super().__init__()
        self.open, self.seen, self.attributes, self.text = [], set(), [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.seen.add(tag)
        self.attributes += [(tag, *pair) for pair in attributes]
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def written(one, **options):
    one.train()
    html = report_html(one, {"fcnet": "1 <b>"}, seconds=0.2, **options)
    assert len(html) < 1_000_000
    page = Reader(html)
    assert page.seen <= {
        *("html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "div", "img", "span"),
        *("table", "thead", "tbody", "tr", "th", "td"),
    }
    for tag, name, value in page.attributes:
        assert name in {"lang", "charset", "name", "content", "http-equiv", "class", "style", "alt", "src"}, name
        if name == "src":
            assert tag == "img"
            assert base64.b64decode(value.removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")
    assert not re.search(r"url\(|@import|https?:", html)
    return page


NASTY = ("<script>alert(1)</script>", "a\"b'>", "$x_1$ \u202e \n &amp;", "plain")


def test_names_are_text_whatever_they_hold():
    data = blobs(d=4)
    data = Dataset(
        **{f"{k}_{p}": v for p, s in data.splits().items() for k, v in zip("Xy", s, strict=True)},
        name=NASTY[0], classes=NASTY[:3], features=NASTY,
    )  # fmt: skip
    page = written(solver(data, num_epochs=2, metric="f1"))
    text = " ".join(page.text)
    assert text.count(NASTY[0]) >= 4  # title, classes, columns
    for name in (NASTY[1], "$x_1$ \\u202e \\n &amp;"):
        assert name in text
    for title in ("How good it is", "Data", "Training", "Errors on the test part", "Settings", "Versions", "1 <b>"):
        assert title in page.text


def test_pictures_take_any_name():
    data = Dataset(np.eye(4), np.arange(4) % 2, np.eye(4), np.arange(4) % 2, classes=("no", "$\\frac$ 日"))
    assert "$\\frac$ 日" in written(solver(data, num_epochs=1)).text


@pytest.mark.parametrize("loss", ["svm", "bce", "mse"])
def test_every_loss_has_a_report(loss):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((90, 3))
    y = X @ rng.standard_normal((3, 2))
    if loss == "svm":
        data = fcnet.data.Dataset(X[30:], np.arange(60) % 25, X[:30], np.arange(30) % 25)  # many classes, no test part
    else:
        y = y if loss == "mse" else (y > 0).astype(float)
        data = fcnet.data.Dataset(X[30:], y[30:], X[:30], y[:30], targets="numbers", classes=("one", "two"))
    page = written(solver(data, net_options={"loss": loss}, num_epochs=2))
    text = " ".join(page.text)
    assert ("Are its probabilities right?" in text) == (loss == "bce")
    assert ("on the validation part" in text, "r2" in page.text) == (True, loss == "mse")
    assert sum(tag == "img" and name == "src" for tag, name, _ in page.attributes) == 2


class TestImportance:
    def data(self, n=200):
        """Return a class that b decides, and c a little; a and d have nothing to do with it."""
        rng = np.random.default_rng(0)
        table = {
            "a": rng.standard_normal(n), "b": rng.choice(["x", "y", "z"], n), "c": rng.standard_normal(n),
            "d": rng.choice(["u", "v"], n),
        }  # fmt: skip
        y = ((table["b"] == "x") + 0.5 * table["c"] > 0.5).astype(int)
        plan = Plan.learn(table)
        X = plan.apply(table)
        return plan, Dataset(X[100:], y[100:], X[:100], y[:100], features=plan.features)

    def trained(self):
        plan, data = self.data()
        one = solver(data, num_epochs=40, update_rule="adam", optim_config={"learning_rate": 0.02})
        one.model.plan = plan
        one.train()
        return one, data

    def found(self, one, data, seconds=1e9):
        figure = lambda said: own_figure(one.model.objective, said)  # noqa: E731
        return importances(
            one.model, data.X_val, data.y_val, figure, smaller_is_better=False, seconds=seconds, seed=0
        )  # fmt: skip

    def test_a_column_is_shuffled_whole_and_the_one_that_decides_matters_most(self):
        one, data = self.trained()
        before = data.X_val.copy()
        found = self.found(one, data)
        np.testing.assert_array_equal(data.X_val, before)
        assert [column.column for column in found][:2] == ["b", "c"]
        assert {column.column for column in found} == set("abcd")
        assert found[0].loss > found[1].loss > 0.1 > found[2].loss
        assert sum(map(len, columns_of_inputs(one.model).values())) == data.input_dim > 4
        assert found == self.found(one, data)

    def test_it_ends_in_time_by_the_clock(self, monkeypatch):
        """A clock that goes a second at each look: a round of four columns takes four."""
        one, data = self.trained()
        rounds = []
        monkeypatch.setattr(importance, "outcome", lambda *_: rounds.append(1))
        for seconds, expected in ((0.5, None), (6.0, 1), (7.5, 3), (1e9, 5)):
            clock = itertools.count()
            monkeypatch.setattr(importance.time, "perf_counter", lambda clock=clock: float(next(clock)))
            rounds.clear()
            found = importances(
                one.model, data.X_val, data.y_val, lambda _: 0.0, smaller_is_better=True, seconds=seconds, seed=0
            )
            assert (None if found is None else (len(rounds) - 3) / 4) == expected


def test_cross_validation_has_a_table():
    from fcnet.tools.crossvalidation import Scores

    one = solver(blobs(), num_epochs=1)
    page = written(one, scores=Scores((one.metric,), np.array([[0.5], [0.75]])))
    assert {"Cross-validation, 2 folds", "0.6250", "0.1768"} <= set(page.text)


def test_a_page_of_nothing_is_a_page():
    page = Page("a & b")
    page.table([], [])
    assert "a & b" in Reader(page.html()).text


def test_epochs_are_counted_where_not_each_is_looked_at(tmp_path):
    one = solver(blobs(50), num_epochs=7, out=tmp_path / "run")
    one.epochs_per_evaluation = 3
    assert "7 epochs, 7 steps;" in " ".join(written(one).text)
    assert len(one.history) < 7
    assert json.loads((tmp_path / "run" / "run.json").read_text())["epochs"] == 7
