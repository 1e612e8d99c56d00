"""The progress bar on a terminal that is narrow, wide or gone."""

from __future__ import annotations

import io
import sys

import pytest

from fcnet import progress
from fcnet.progress import Progress, line

FIGURES = {
    "epoch": "epoch 25", "loss": "loss 0.0115", "train": "train 1.0000", "val": "val 0.9722",
    "rate": "12,345 samples/s",
}  # fmt: skip
ROW = {"loss": 0.0115, "train_acc": 1.0, "val_acc": 0.9722}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def eighty_columns(monkeypatch):
    """Standard error as such a terminal; not a fixture, for pytest sets it anew before the test itself."""
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    return sys.stderr


def test_eighty_columns_show_what_matters(monkeypatch):
    terminal = eighty_columns(monkeypatch)
    with Progress("digits on cpu", 1000, 0, shown=True) as bar:
        bar._samples = 12345
        bar.advance(1, lambda: 0.5)
        bar.epoch(25, ROW)
        bar._bar._bar.refresh()
    last = terminal.getvalue().rstrip("\n").split("\r")[-1]
    assert len(last) <= 80
    for figure in ("loss 0.0115", "val 0.9722", "samples/s", "epoch 25"):
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


def test_elsewhere_nothing_is_shown(capsys):
    with Progress("digits on cpu", 10, 0, shown=True) as bar:
        bar.epoch(1, ROW)
    assert capsys.readouterr().err == ""
