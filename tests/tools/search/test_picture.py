"""The picture of a search: good trials can be told apart, whatever the bad ones came to."""

from __future__ import annotations

import math

import pytest

from fcnet.tools.search.ranges import space
from fcnet.tools.search.rows import Row

pytest.importorskip("matplotlib")

SPACE = space(["lr=1e-4:1e-1:log", "hidden=5|6"])


@pytest.fixture
def axes(drawn, monkeypatch):
    """axes(values, maximize): the axes of the picture of trials with these values; the last may be pruned."""
    from matplotlib.figure import Figure

    from fcnet.tools.search import picture

    figures, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k)))

    def draw(values, maximize, pruned=()):
        rows = []
        for number, value in enumerate(values):
            state, tried = "pruned" if number in pruned else "finished", {"lr": 10 ** -(1 + number % 3), "hidden": [5]}
            rows.append(Row(number, 0, state, value, 1, 1, 1.0, tried, "", None))
        png = picture.parameters_png(rows, SPACE, maximize, "figure", "title")
        assert png.startswith(b"\x89PNG")
        return figures[-1].axes, figures[-1].legends[0] if figures[-1].legends else None

    return draw


def heights(one, labels):
    """Return the values at which dots of these kinds stand, and those of the marks at the edge."""
    kinds = {dots.get_label(): [float(y) for _, y in dots.get_offsets()] for dots in one.collections}
    shown = sorted({y for label, ys in kinds.items() if label in labels for y in ys})
    return shown, [y for label, ys in kinds.items() if "beyond the edge" in label for y in ys]


@pytest.mark.parametrize(
    ("values", "maximize", "shown", "note"),
    [
        ([0.1, 0.944, 0.972], True, [0.944, 0.972], "1 worse, beyond the edge: 0.1"),
        ([0.1, 0.944, 0.972, 0.2, 0.95], True, [0.944, 0.95, 0.972], "2 worse, beyond the edge: 0.1 to 0.2"),
        ([9e5, 9300.0, 8800.0], False, [8800.0, 9300.0], "1 worse, beyond the edge: 9e+05"),
        ([math.inf, 9300.0, 8800.0], False, [8800.0, 9300.0], "1 worse, beyond the edge: inf"),
    ],
)
def test_bad_trials_stand_at_the_edge(axes, values, maximize, shown, note):
    both, legend = axes(values, maximize)
    assert note in [text.get_text() for text in legend.get_texts()]
    for one in both:
        low, high = one.get_ylim()
        assert low < shown[0] < shown[-1] < high
        assert shown[-1] - shown[0] > 0.5 * (high - low), "they can be told apart"
        good, marks = heights(one, {"finished", "best"})
        assert good == shown
        assert marks == [low if maximize else high] * (len(values) - len(shown))


def test_a_pruned_trial_stands_there_too(axes):
    both, legend = axes([0.95, 0.944, 0.972, 0.1, 0.96], True, pruned=(3, 4))
    assert "1 worse, beyond the edge: 0.1" in [text.get_text() for text in legend.get_texts()]
    good, marks = heights(both[0], {"finished", "best", "pruned (best until then)"})
    assert good == [0.944, 0.95, 0.96, 0.972]
    assert len(marks) == 1


@pytest.mark.parametrize("values", [[], [0.5], [0.1, 0.9, 0.9], [0.3, 0.5, 0.7, 0.9]])
def test_trials_that_differ_by_little_are_all_in_view(axes, values):
    both, _ = axes(values, True)
    good, marks = heights(both[0], {"finished", "best"})
    assert (good, marks) == (sorted(set(values)), [])
