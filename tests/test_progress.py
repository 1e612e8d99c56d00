"""The progress bar on a terminal that is narrow, wide or gone."""

from __future__ import annotations

import io
import sys

import pytest

from fcnet import progress
from fcnet.backends.notices import notice, watched_by
from fcnet.progress import Progress, line
from tests.small import blobs, solver

FIGURES = {
    "epoch": "epoch 25", "loss": "loss 0.0115", "train": "train 1.0000", "val": "val 0.9722",
    "rate": "12,345 samples/s",
}  # fmt: skip
ROW = {
    "epoch": 25,
    "step": 300,
    "loss": 0.0115,
    "train_acc": 1.0,
    "val_acc": 0.9722,
    "learning_rate": 0.1,
    "seconds": 2,
}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def eighty_columns(monkeypatch):
    """Return standard error as such a terminal; no fixture, as pytest replaces it before the test itself."""
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    return sys.stderr


def test_eighty_columns_show_what_matters(monkeypatch):
    terminal = eighty_columns(monkeypatch)
    with Progress("digits on cpu", 1000, 0, shown=True) as bar:
        bar.advance(1, lambda: 0.5)
        bar.epoch(25, ROW, 12345)
        bar._bar._bar.refresh()
    last = terminal.getvalue().rstrip("\n").split("\r")[-1]
    assert len(last) <= 80
    for figure in ("loss 0.0115", "val 0.9722", "12,345 samples/s", "epoch 25"):
        assert figure in last


@pytest.mark.parametrize("columns", [10, 20, 40, 60, 80, 100, 200])
def test_a_line_fits_its_columns(columns):
    text = line("digits on cpu", 0.17, FIGURES, "0:03<0:15", columns)
    assert len(text) < columns
    if columns >= 60:
        assert "loss 0.0115 val 0.9722 12,345 samples/s" in text or "train 1.0000" in text
    if columns >= 100:
        assert all(figure in text for figure in FIGURES.values())


def test_a_terminal_that_goes_away_does_not_stop_a_training(monkeypatch):
    terminal = eighty_columns(monkeypatch)

    def gone(_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(progress, "INTERVAL", 0)
    with Progress("digits on cpu", 1000, 0, shown=True) as bar:
        bar._bar.mininterval = 0
        monkeypatch.setattr(terminal, "write", gone)
        for _ in range(5):
            bar.advance(1, lambda: 0.5)
        bar.epoch(1, ROW)


def test_a_first_step_is_not_in_the_samples_per_second(monkeypatch):
    eighty_columns(monkeypatch)
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    with Progress("digits on cpu", 1000, 0, shown=True) as bar:
        for seconds, first in ((9.0, True), (1.0, False)):
            now[0] += seconds
            bar.advance(100, lambda: 0.5, first=first)
        assert bar._bar.figures["rate"] == "100 samples/s"


class TestLines:
    """Where standard error is no terminal."""

    def shown(self, capsys, epochs, done, shown=True):
        with Progress("digits on cpu", 10, 0, shown=shown, epochs=epochs) as bar:
            for number in range(1, done + 1):
                bar.advance(1, lambda: 0.5)
                bar.epoch(number, ROW, None if number == 1 else 12345.0)
        return capsys.readouterr().err.splitlines()

    def test_a_line_has_the_figures_of_its_epoch(self, capsys):
        first, second = self.shown(capsys, 2, 2)
        assert first == "epoch 1/2: loss 0.0115, train_acc 1, val_acc 0.9722, learning_rate 0.1, 2.00 s"
        assert second == f"{first.replace('1/2', '2/2')}, 12,345 samples/s"
        assert self.shown(capsys, 2, 2, shown=False) == []

    @pytest.mark.parametrize(
        ("epochs", "done", "every"), [(100, 100, 1), (101, 101, 2), (1000, 1000, 10), (1000, 333, 10)]
    )
    def test_many_epochs_have_about_a_hundred_the_first_and_the_last_among_them(self, epochs, done, every, capsys):
        printed = [int(line.split("/")[0].split()[1]) for line in self.shown(capsys, epochs, done)]
        assert printed == sorted({1, *range(every, done + 1, every), done})

    def test_one_a_minute_at_least(self, capsys, monkeypatch):
        monkeypatch.setattr(progress, "SILENCE", 0.0)
        assert len(self.shown(capsys, 1000, 25)) == 25

    def test_a_solver_prints_them_unless_told_not_to(self, capsys):
        for verbose, count in ((True, 3), (False, 0)):
            solver(blobs(), num_epochs=3, verbose=verbose).train()
            assert len(capsys.readouterr().err.splitlines()) == count


@pytest.mark.parametrize(("verbose", "said"), [(True, "fcnet: compiling for long\n"), (False, "")])
def test_what_takes_long_is_said_unless_training_is_quiet(verbose, said, capsys):
    one = solver(blobs(), num_epochs=1, verbose=verbose)
    one.after_epoch = lambda: notice("compiling for long")
    one.train()
    assert ("fcnet: compiling for long\n" in capsys.readouterr().err) == bool(said)


def test_a_quiet_training_leaves_what_takes_long_to_whoever_watches():
    heard, one = [], solver(blobs(), num_epochs=1)
    one.after_epoch = lambda: heard.append(notice("long"))
    one.train()
    with watched_by(heard.append):
        one.num_epochs = 2
        one.train()
    assert heard == [False, "long", True]


def test_a_line_does_not_run_into_the_bar(monkeypatch):
    terminal = eighty_columns(monkeypatch)
    with Progress("digits on cpu", 10, 0, shown=True) as bar:
        bar.epoch(1, ROW)
        bar.say("compiling")
    before = terminal.getvalue().split("fcnet: compiling\n")[0]
    assert before.split("\r")[-1] == "" or before.split("\r")[-1].isspace()


def test_several_steps_at_once_are_counted_each(monkeypatch):
    eighty_columns(monkeypatch)
    with Progress("digits on cpu", 1000, 10, shown=True) as bar:
        bar.advance(100, lambda: 0.5, steps=7)
        bar.advance(10, lambda: 0.5)
        bar.epoch(1, ROW)
        assert bar._bar._bar.n == 18
