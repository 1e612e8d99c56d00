"""The pictures of the courses' experiments: what their axes say, and that all of it can be read."""

from __future__ import annotations

import itertools

import pytest

from fcnet.experiments import EXPERIMENTS, output, picture
from fcnet.experiments.base import Table
from tests.experiments.test_experiments import NAMES, TRAINED, on_the_cpu

pytest.importorskip("matplotlib")

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


@pytest.mark.parametrize("name", NAMES)
def test_axes_have_names_and_no_text_is_cut_off_or_under_another(name):
    """As small as the pictures are, so that they can be read beside each other in a README."""
    experiment, table = EXPERIMENTS[name], on_the_cpu(name)
    assert max(experiment.size) < 9.5
    figure = Figure(figsize=experiment.size, dpi=output.DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    experiment.draw(figure, table)
    assert any(axes.get_xlabel() for axes in figure.axes)
    assert any(axes.get_ylabel() for axes in figure.axes)
    assert any(axes.get_title() for axes in figure.axes)
    legends = [axes.get_legend() for axes in figure.axes if axes.get_legend()] + figure.legends
    assert legends or name == "activation-histograms"
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


def test_a_picture_has_the_same_bytes_each_time():
    experiment, table = EXPERIMENTS["weight-decay"], on_the_cpu("weight-decay")
    png = picture(experiment, table)
    assert png.startswith(b"\x89PNG")
    assert picture(experiment, table) == png


def drawn(name: str, table: Table) -> Figure:
    figure = Figure(figsize=EXPERIMENTS[name].size)
    EXPERIMENTS[name].draw(figure, table)
    return figure


def test_losses_are_labelled_in_plain_numbers():
    """Also if they stay within a decade, and a rate for each optimizer."""
    rows = [(name, step, 0.9 - 0.028 * step) for name in ("SGD", "Adam") for step in range(1, 31)]
    axes = drawn("optimizer-comparison", Table(("optimizer", "step", "loss"), rows)).axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels(minor=False) + axes.get_yticklabels(minor=True)]
    assert {"0.1", "0.2", "0.5"} <= set(labels)
    assert all(float(label) for label in labels if label)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["SGD, rate 0.01", "Adam, rate 0.001"]


def test_captions_say_that_test_accuracy_falls():
    rows = [("no weight decay", 1, 1.0, 0.76), ("weight decay 0.1", 1, 0.88, 0.70)]
    figure = drawn("weight-decay", Table(("weight_decay", "epoch", "train_acc", "test_acc"), rows))
    assert figure._suptitle.get_text().endswith("\nthe test accuracy falls, too, from 0.76 to 0.70")


def test_the_search_shows_its_twenty_best_in_training_too():
    columns = "trial", "learning_rate", "weight_decay", "epoch", "train_acc", "val_acc"
    rows = [(trial, 10**-trial, 1e-5, epoch, 0.9, trial / 30) for trial in range(1, 26) for epoch in (1, 2)]
    figure = drawn("hyperparameter-search", Table(columns, rows))
    panels = [axes for axes in figure.axes if len(axes.lines) == 2]
    best = [f"{rank}: {trial / 30:.2f}" for rank, trial in enumerate(range(25, 5, -1), 1)]
    assert [axes.get_title().split(",")[0] for axes in panels] == best
    assert [line.get_label() for line in panels[0].lines] == ["validation", "training"]


def test_a_quick_picture_says_so():
    assert all(on_the_cpu(name).note == "--quick: made-up data, few steps" for name in TRAINED[:2])
    assert on_the_cpu("optimizer-paths").note == ""
