"""The pictures of the courses' experiments: what their axes say, and that all of it can be read."""

from __future__ import annotations

import functools
import itertools

import pytest

from fcnet.experiments import EXPERIMENTS, output, picture
from fcnet.experiments.base import Table
from tests.experiments.test_experiments import NAMES, TRAINED, quick

pytest.importorskip("matplotlib")

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


@functools.cache
def made(name: str) -> Table:
    """Its table, made once."""
    return quick(name)


@pytest.mark.parametrize("name", NAMES)
def test_pictures_have_names_on_their_axes(name):
    experiment, table = EXPERIMENTS[name], made(name)
    figure = Figure(figsize=experiment.size)
    experiment.draw(figure, table)
    assert any(axes.get_xlabel() for axes in figure.axes)
    assert any(axes.get_ylabel() for axes in figure.axes)
    legends = [axes.get_legend() for axes in figure.axes if axes.get_legend()] + figure.legends
    assert legends or name == "activation-histograms"
    texts = [axes.get_title() for axes in figure.axes]
    assert any(texts)
    png = picture(experiment, table)
    assert png.startswith(b"\x89PNG")
    assert picture(experiment, table) == png


@pytest.mark.parametrize("name", NAMES)
def test_no_text_is_cut_off_or_under_another(name):
    """As small as the pictures are, so that they can be read beside each other in a README."""
    experiment, table = EXPERIMENTS[name], made(name)
    assert max(experiment.size) < 9.5
    figure = Figure(figsize=experiment.size, dpi=output.DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    experiment.draw(figure, table)
    canvas.draw()
    texts = [text for axes in figure.axes for text in (axes.title, axes.xaxis.label, axes.yaxis.label)]
    texts += [figure._suptitle] if figure._suptitle else []
    boxes = {text.get_text(): text.get_window_extent() for text in texts if text.get_text()}
    for text, box in boxes.items():
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= figure.bbox.x1, text
        assert box.y1 <= figure.bbox.y1, text
    for (one, box), (other, its) in itertools.combinations(boxes.items(), 2):
        assert not box.overlaps(its), f"{one} | {other}"


def test_a_quick_picture_says_so():
    assert all(made(name).note == "--quick: made-up data, few steps" for name in TRAINED[:2])
    assert made("optimizer-paths").note == ""
