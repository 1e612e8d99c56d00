"""What a Solver does when it is told nothing: length, patience, spacing of evaluations, the rule for ties."""

from __future__ import annotations

import numpy as np
import pytest

import fcnet
from fcnet import defaults
from tests.small import blobs, net, solver


def plain(n: int, **options) -> fcnet.Solver:
    """Return a Solver that is told nothing but the options."""
    data = blobs(n)
    return fcnet.Solver(net(data), data, verbose=False, **options)


@pytest.mark.parametrize(
    ("rows", "batch", "epochs", "patience", "every"),
    [
        (130, 130, 1000, 300, 25),  # an epoch is a step
        (201, 200, 500, 150, 12),  # two steps
        (2000, 200, 100, 30, 2),
        (30_000, 200, 20, 6, 1),  # 150 steps: the 1,000 are over long before 20 epochs are
    ],
)
def test_length_patience_and_spacing(rows, batch, epochs, patience, every):
    one = plain(rows)
    assert (one.batch_size, one.num_epochs, one.patience, one.epochs_per_evaluation) == (batch, epochs, patience, every)


def test_who_says_how_long_gets_no_patience_and_evaluations_by_the_length():
    one = plain(130, num_epochs=90)
    assert (one.patience, one.epochs_per_evaluation) == (None, 2)
    assert plain(130, num_epochs=90, patience=7).patience == 7


def test_the_network_is_looked_at_as_often_as_it_says_and_at_the_end():
    one = solver(blobs(), num_epochs=83, batch_size=130)  # an epoch is a step; 83 // 40 = 2
    one.train()
    assert [row["epoch"] for row in one.history] == [*range(2, 83, 2), 83]


def test_default_patience_ends_a_training_that_learns_nothing():
    one = plain(130, optim_config={"learning_rate": 0.0})
    one.train()
    assert (one.best_epoch, one.epoch) == (25, 325)  # looked at first after 25; 300 more without a better one


@pytest.mark.parametrize(("later", "best"), [(0.991, 1), (0.989, 2)], ids=["not-clearly-less", "clearly-less"])
def test_of_equal_figures_the_later_one_wins_if_its_loss_is_less_by_more_than_a_hundredth(later, best, monkeypatch):
    one = solver(blobs(), num_epochs=2)
    losses = iter([1.0, later])
    monkeypatch.setattr("fcnet.training.solver.measure", lambda *_, **__: 0.5)
    monkeypatch.setattr("fcnet.training.solver.loss_of", lambda *_, **__: next(losses))
    one.train()
    assert one.best_epoch == best


def test_the_rate_stays_for_half_of_the_length_and_then_falls():
    one = plain(30_000)  # 20 epochs; it counts whole ones
    first, rates = one.first_learning_rate, [one.updates.schedule(150 * epoch) for epoch in range(20)]
    assert first == pytest.approx(1e-3)
    assert rates[:11] == [1] * 11
    assert np.all(np.diff(rates[10:]) < 0)
    assert defaults.SCHEDULE == "flat_cosine"
