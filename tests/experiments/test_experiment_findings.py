"""What the courses' experiments say of their tables, counted again from these."""

from __future__ import annotations

import math

from fcnet.experiments.base import Table
from fcnet.experiments.depth_sensitivity import working_scales
from fcnet.experiments.hyperparameter_search import best_trials
from fcnet.experiments.overfitting import price
from tests.experiments.test_experiments import quick


def test_gaps_are_training_less_test_accuracy():
    table = quick("weight-decay")
    for finding, name in zip(table.findings[1:], table.values("weight_decay"), strict=False):
        _, _, train, test = table.where(weight_decay=name).rows[-1]
        assert finding == f"{name}: train {train:.4f}, test {test:.4f}, gap {train - test:.4f} after 3 epochs"


def test_a_test_accuracy_that_falls_is_said():
    def price_of(*ends):
        rows = [(name, epoch, acc) for name, end in zip("abc", ends, strict=False) for epoch, acc in ((1, 1), (2, end))]
        return price(Table(("net", "epoch", "test_acc"), rows))

    assert price_of(0.761, 0.702) == "the test accuracy falls, too, from 0.76 to 0.70"
    assert price_of(0.76, 0.52, 0.71) == "the test accuracy falls, too, from 0.76 to 0.52 and 0.71"
    assert price_of(0.76, 0.77, 0.71) == "the test accuracy falls, too, from 0.76 to 0.71"
    assert price_of(0.76, 0.76) == ""


def test_losses_in_the_end_are_means_of_the_last_steps():
    table = quick("init-comparison")
    for finding, name in zip(table.findings[1:], table.values("initial weights"), strict=True):
        last = table.where(**{"initial weights": name}).column("loss")[10:]
        assert finding.startswith(f"{name}: mean loss of the last 20 steps {math.fsum(last) / 20:.4f}, ")


def test_scales_that_learn_are_counted():
    table = quick("batchnorm-scales")
    for finding, name in zip(table.findings[1:], table.values("net"), strict=True):
        learned = [acc for _, net, epoch, acc in table.rows if net == name and epoch == 2 and acc > 0.5]
        assert finding.startswith(f"{name}: {len(learned)} of 3 scales above 0.5")


def test_scales_that_work_are_counted_by_rate():
    rows = [("a", scale, rate, acc) for scale, accs in ((1, (0.96, 0.2)), (2, (1.0, 0.95)), (3, (0.1, 0.99)))
            for rate, acc in zip((0.1, 0.2), accs, strict=True)]  # fmt: skip
    table = Table(("net", "weight_scale", "learning_rate", "train_acc"), [*rows, ("b", 1, 0.1, 1.0)])
    assert working_scales(table, "a") == [2, 1]


def test_the_best_trials_come_first():
    rows = [(trial, epoch, acc) for trial, accs in ((1, (0.9, 0.2)), (2, (0.1, 0.8)), (3, (0.3, 0.5)))
            for epoch, acc in enumerate(accs, 1)]  # fmt: skip
    assert best_trials(Table(("trial", "epoch", "val_acc"), rows)) == [2, 3, 1]
