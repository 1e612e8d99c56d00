"""Ctrl-C comes between steps."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest

import fcnet
from fcnet.backends.signals import Deferred, DeferredInterrupt
from fcnet.cli import main
from tests.small import blobs, solver

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are sent as POSIX has them")


def press():
    signal.raise_signal(signal.SIGINT)


def pressed(times, after):
    """Press Ctrl-C within, so many times; then do the rest."""
    with DeferredInterrupt():
        for _ in range(times):
            press()
        after()


def test_it_comes_at_the_end():
    done = []
    with pytest.raises(KeyboardInterrupt):
        pressed(1, lambda: done.append(1))
    assert done == [1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt):  # and afterwards as ever
        press()


def test_pressed_twice_it_comes_at_once():
    done = []
    with pytest.raises(KeyboardInterrupt):
        pressed(2, lambda: done.append(1))
    assert done == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_inside_is_not_lost():
    with pytest.raises(IndexError) as caught:
        pressed(1, lambda: [][0])
    assert caught.value.__notes__ == ["it was interrupted, too"]
    with pytest.raises(IndexError):
        pressed(0, lambda: [][0])


def test_other_signals_are_answered_before_the_one_that_raises():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        block = Deferred()
        block.__enter__()
        press()
        signal.raise_signal(signal.SIGTERM)
        assert heard == []
        with pytest.raises(KeyboardInterrupt):
            block.__exit__(None, None, None)
        assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("signals", [["SIGTERM"], ["SIGHUP", "SIGTERM", "SIGTERM", "SIGHUP"]], ids=str)
def test_the_command_line_ends_between_steps(signals, tmp_path, monkeypatch, capsys):
    """SIGTERM and SIGHUP are Ctrl-C by another name, and more of them are not Ctrl-C pressed again."""
    make_steps, made = fcnet.Solver._make_steps, []

    def stepping(self, most):
        if len(made) == 2:
            for name in signals:
                signal.raise_signal(getattr(signal, name))
        count = make_steps(self, most)
        made.append(self.steps)
        return count

    monkeypatch.setattr(fcnet.Solver, "_make_steps", stepping)
    code = main(["train", "--data", "spirals", "--epochs", "9", "--quiet", "--out", str(tmp_path / "run")])
    assert code == 128 + getattr(signal, signals[0])
    assert made == [1, 2, 3]
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_what_is_no_function_stays(handler):
    before = signal.signal(signal.SIGINT, handler)
    try:
        with DeferredInterrupt():
            assert signal.getsignal(signal.SIGINT) is handler
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_what_is_set_inside_stays():
    """As the command line does when another signal ends it: it ignores Ctrl-C from then on."""
    before = signal.getsignal(signal.SIGINT)
    try:
        with DeferredInterrupt():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_have_nothing_to_fear():
    done = []

    def work():
        with DeferredInterrupt():
            done.append(signal.getsignal(signal.SIGINT) is signal.default_int_handler)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


@pytest.mark.usefixtures("cpu_kernels")
@pytest.mark.parametrize("where", ["_batches.ready", "_log.stepped", "_batches.advance", "_batches.shuffle"])
def test_a_training_goes_on_as_if_nothing_had_happened(where):
    """Wherever in the step it is pressed."""
    options = {"net_options": {"normalization": "batchnorm"}, "batch_size": 32, "update_rule": "adam"}
    one, other = (solver(blobs(), **options) for _ in range(2))
    owner, name = getattr(one, where.split(".")[0]), where.split(".")[1]
    method, interrupted = getattr(owner, name), []

    def pressing(*args):
        press()
        return method(*args)

    for number in range(12):
        if number in (2, 4, 9):  # 4 and 9 end an epoch
            setattr(owner, name, pressing)
        try:
            one.step()
        except KeyboardInterrupt:
            interrupted.append(number)
        setattr(owner, name, method)
        other.step()
        assert (one.steps, one.epoch) == (other.steps, other.epoch)
    assert interrupted == ([4, 9] if name == "shuffle" else [2, 4, 9])
    assert one.loss_history == other.loss_history
    np.testing.assert_array_equal(one.model.params.flat, other.model.params.flat)


def test_an_epoch_that_is_over_has_its_row():
    """Also if Ctrl-C came in its last step."""
    one = solver(blobs(), num_epochs=3, batch_size=130)
    make_steps = one._make_steps

    def pressing(most):
        press()
        return make_steps(most)

    for _ in range(3):
        one._make_steps = pressing
        with pytest.raises(KeyboardInterrupt):
            one.train()
    one._make_steps = make_steps
    one.train()
    assert [row["epoch"] for row in one.history] == [1, 2, 3]
