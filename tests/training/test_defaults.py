"""What a Solver does without options: length, patience, spacing of evaluations, the rule for ties."""

from __future__ import annotations

import numpy as np
import pytest

import fcnet
from fcnet import defaults
from tests.small import blobs, net, solver


def plain(n: int, **options) -> fcnet.Solver:
    """Return a Solver with these options only."""
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


def test_the_penalty_counts_the_less_the_more_samples_there_are_and_only_where_nobody_says():
    assert plain(150).model.reg == pytest.approx(0.02)
    assert plain(150, num_epochs=9).model.reg == 0  # of given length: no default penalty
    assert plain(150, schedule="constant").model.reg == 0
    assert plain(150, weight_decay=0.1).model.reg == 0
    assert plain(150, update_rule="adamw").model.reg == 0
    for said in (0.0, 0.5):
        data = blobs(150)
        one = fcnet.Solver(net(data, reg=said), data, verbose=False)
        assert (one.model.reg, one.model.config["reg"]) == (said, said)
    assert net(blobs()).config["reg"] is None


@pytest.mark.parametrize(("loss", "reg"), [("mse", 0.02), ("bce", 0.01)])
def test_the_penalty_is_as_strong_beside_each_loss(loss, reg):
    """The mean over two outputs of squares (s - y)² is Σ ½ (s - y)², of labels half the sum of cross-entropies."""
    rng = np.random.default_rng(0)
    parts = {f"X_{part}": rng.standard_normal((150, 4)) for part in ("train", "val")}
    y = (rng.standard_normal((150, 2)) > 0).astype("float64")
    data = fcnet.data.Dataset(**parts, y_train=y, y_val=y, targets="numbers")
    model = fcnet.FullyConnectedNet([3], 4, 2, loss=loss, device="cpu")
    assert fcnet.Solver(model, data, verbose=False).model.reg == pytest.approx(reg)
