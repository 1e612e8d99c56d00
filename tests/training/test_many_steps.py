"""Solver: many steps at a time, on devices that make one after another, and on such as make several at once."""

from __future__ import annotations

import signal

import numpy as np
import pytest

import fcnet
from fcnet.backends.device import CallSequence
from fcnet.backends.numpy_backend import NumpyBackend
from fcnet.progress import Progress
from tests.small import blobs, solver


class TestManySteps:
    """`step(count)`, on devices that make one after another."""

    def options(self, **changes):
        return {"batch_size": 32, "update_rule": "adam", "net_options": {"normalization": "batchnorm"}} | changes

    @pytest.mark.parametrize("counts", [[11], [4, 7], [1, 9, 1]])
    def test_are_single_steps_bit_for_bit_across_epochs(self, counts, backend):
        """97 samples make batches of 32, 32 and 33."""
        one, other = (solver(blobs(n=97), backend, lr_decay=0.5, **self.options()) for _ in range(2))
        for count in counts:
            one.step(count)
        for _ in range(11):
            other.step()
        assert (one.steps, one.epoch, one._batches.position) == (11, 3, 64)
        assert one.loss_history == other.loss_history
        assert one.optimizer.learning_rate == other.optimizer.learning_rate == 0.5**3 * one.first_learning_rate
        for mine, others in ((one.model.params, other.model.params), (one.model.state, other.model.state)):
            np.testing.assert_array_equal(backend.to_numpy(mine.flat), backend.to_numpy(others.flat))

    @pytest.mark.parametrize("count", [0, -1, 1.5, "2", None, True])
    def test_wrong_counts_are_refused_before_any_step(self, count):
        one = solver(blobs())
        with pytest.raises((ValueError, TypeError), match="count: expected "):
            one.step(count)
        assert one.steps == 0

    def test_full_batch_methods_make_none(self):
        pytest.importorskip("scipy")
        with pytest.raises(ValueError, match="makes no steps by itself"):
            solver(blobs(), update_rule="lbfgs").step(3)

    def test_ctrl_c_comes_between_them(self, monkeypatch):
        one = solver(blobs())
        ready = one._batches.ready

        def pressed():
            if one.steps == 2:
                signal.raise_signal(signal.SIGINT)
            ready()

        monkeypatch.setattr(one._batches, "ready", pressed)
        with pytest.raises(KeyboardInterrupt):
            one.step(9)
        assert one.steps == len(one.loss_history) == 3

    def test_batches_alike_are_counted_to_the_end_of_the_epoch(self):
        for n, normalization, expected in ((97, "batchnorm", [2, 1, 1]), (97, None, [3, 2, 1, 1]), (64, None, [2, 1])):
            one = solver(blobs(n=n), **self.options(net_options={"normalization": normalization}))
            found = []
            while one.epoch == 0:
                found.append(one._batches.alike)
                one.step()
            assert found == expected, (n, normalization)


class TestDeviceThatMakesManySteps:
    """As the stand-in for one, which makes the recorded calls again and again."""

    @pytest.fixture
    def made(self, monkeypatch):
        """Return the steps that each program was asked for, with their rates."""
        made = []

        def compiled(self, calls, *_):
            step = CallSequence(calls)

            def steps(count, rates=None, again=False):
                made.append((count, rates))
                for _ in range(count):
                    step()

            step.steps, step.most = steps, 5
            return step

        monkeypatch.setattr(NumpyBackend, "compile", compiled)
        return made

    def test_is_asked_for_as_many_as_it_can_within_an_epoch(self, made):
        one, other = (solver(blobs(n=90), batch_size=10, num_epochs=3) for _ in range(2))
        one.step(20)
        assert [count for count, _ in made] == [5, 3, 5, 4, 2]  # the first is recorded
        assert (one.steps, one.epoch) == (20, 2)
        made.clear()
        other.train()
        assert [count for count, _ in made] == [5, 3, 5, 4, 5, 4]
        assert other.loss_history[:20] == one.loss_history
        assert [row["loss"] for row in other.history] == [np.mean(other.loss_history[at : at + 9]) for at in (0, 9, 18)]

    def test_is_told_the_rate_of_each_step_that_has_its_own(self, made):
        one = solver(blobs(n=40), batch_size=10, num_epochs=3, schedule=lambda step: 1 / (1 + step // 3))
        one.train()
        rates = [0.01 * (1 / (1 + step // 3)) for step in range(12)]
        assert made == [(len(part), [[rate] for rate in part]) for part in (rates[1:4], rates[4:8], rates[8:])]
        assert [row["learning_rate"] for row in one.history] == [rates[3], rates[7], rates[11]]

    def test_is_not_told_rates_that_are_as_set(self, made):
        one = solver(blobs(n=40), batch_size=10, lr_decay=0.5, num_epochs=3)
        one.train()
        assert made == [(3, None), (4, None), (4, None)]

    def test_progress_counts_steps_and_samples(self, made, monkeypatch):
        counted = []
        advance = Progress.advance
        monkeypatch.setattr(
            Progress, "advance",
            lambda self, samples, loss, *, steps=1, first=False:
                (counted.append((samples, steps, first)), advance(self, samples, loss, steps=steps, first=first))[1],
        )  # fmt: skip
        solver(blobs(n=45), batch_size=10, num_epochs=2).train()
        assert counted == [(10, 1, True), (30, 3, False), (5, 1, True), (40, 4, False), (5, 1, False)]

    def test_a_loss_that_is_not_finite_is_found_within_a_chunk(self, made, monkeypatch):
        monkeypatch.setattr("fcnet.training.solver.LOSS_CHUNK", 7)
        one = solver(blobs(n=400), batch_size=2)
        one.step()
        one.model.params["W1"] = np.full((6, 8), np.nan, "float32")
        with np.errstate(all="ignore"), pytest.raises(fcnet.DivergedError, match="at step 2"):
            one.train()
        assert one.steps == 7
