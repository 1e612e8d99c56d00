"""Solver: what is recorded is what was done: rates, speed, the best epoch; and the caller's arrays are left alone."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pytest

import fcnet
from fcnet.runs.options import IN_PYTHON
from fcnet.runs.record import curves_png
from fcnet.training import speed
from tests.small import blobs, solver


class TestLearningRates:
    """Measured: a step of sgd is the rate times the gradient."""

    def line(self, **how):
        rng = np.random.default_rng(0)
        X = rng.standard_normal((20, 2))
        y = X @ [1.0, -2.0]
        data = fcnet.data.Dataset(X, y, X, y, targets="numbers", preprocess="none")
        options = {
            "update_rule": "sgd",
            "batch_size": 20,
            "num_epochs": 3,
            "optim_config": {"learning_rate": 0.1},
        } | how
        net_options = {"loss": "mse", "dtype": "float64"}
        model = fcnet.FullyConnectedNet([], 2, 1, device="cpu", **net_options)
        return fcnet.Solver(model, data, verbose=False, **options)

    def rates(self, one, multiplier=1.0):
        """Return the rate of the last step of each epoch, from what it did to the weights, and that in the history."""
        used, make_steps = {}, one._make_steps

        def measured(most):
            before, rows = (
                one.model.params["W1"].copy(),
                one._batches.order[one._batches.position :][: one._batches.size],
            )
            gradient = one.model.loss(one.data.X_train[rows], one.data.y_train[rows])[1]["W1"]
            epoch = one.epoch + 1
            count = make_steps(most)
            used[epoch] = float(np.mean((before - one.model.params["W1"]) / gradient)) / multiplier
            return count

        one._make_steps = measured
        one.train()
        one.num_epochs += 2
        one.train()
        assert [row["epoch"] for row in one.history] == list(used)
        return list(used.values()), [row["learning_rate"] for row in one.history]

    @pytest.mark.parametrize(
        "how",
        [
            {"lr_decay": 0.5},
            {"lr_decay": 0.5, "lr_multipliers": {1: 0.25}},
            {"schedule": "step", "schedule_config": {"every": 1, "factor": 0.5}},
            {"schedule": "exponential", "schedule_config": {"decay": 0.3, "per": "step"}, "batch_size": 10},
            {"lr_decay": 0.5, "batch_size": 7},
        ],
        ids=["decay", "multipliers", "per-epoch", "per-step", "batches"],
    )
    def test_the_history_has_the_rate_of_the_epoch(self, how):
        used, recorded = self.rates(self.line(**how), how.get("lr_multipliers", {1: 1.0})[1])
        np.testing.assert_allclose(recorded, used, rtol=1e-6)
        assert recorded[0] > recorded[1] > recorded[4]

    def test_a_rate_set_by_hand_is_recorded(self):
        one = self.line(lr_decay=0.5)

        def change():
            one.optimizer.learning_rate = 0.03

        one.after_epoch = change
        used, recorded = self.rates(one)
        np.testing.assert_allclose(recorded, used, rtol=1e-6)
        assert recorded == [0.1, 0.03, 0.03, 0.03, 0.03]
        assert one.options()[IN_PYTHON] == "a learning rate set by hand"
        assert IN_PYTHON not in self.line(lr_decay=0.5).options()

    @pytest.mark.parametrize("batch_size", [130, 65])
    def test_a_divergence_names_the_rate_that_made_it(self, batch_size):
        """The loss of step 2 is that after the first update, be it in the same epoch or in the one before."""
        config = {"learning_rate": 1e30}
        one = solver(blobs(), optim_config=config, lr_decay=0.5, batch_size=batch_size)
        with pytest.raises(fcnet.DivergedError, match=r"at step 2: .*learning_rate=1e\+30;"):
            one.train()

    def test_training_again_is_not_the_training_that_the_configuration_says(self, tmp_path):
        one = self.line(out=tmp_path / "run")
        one.train()
        one.train()  # nothing was left to do
        assert IN_PYTHON not in (tmp_path / "run/config.toml").read_text()
        one.num_epochs = 5
        one.train()
        assert f'{IN_PYTHON} = "3 steps made before"' in (tmp_path / "run/config.toml").read_text()


NAN, INF = math.nan, math.inf


class TestFiguresThatAreNotFinite:
    @pytest.mark.parametrize("loss", ["softmax", "mse"])
    @pytest.mark.parametrize(
        ("figures", "best"),
        [
            ([NAN, 0.5, 0.5, INF], 2),  # finite is better than not, and of equals the first of about one loss
            ([-INF, NAN, 0.7, NAN], 3),
            ([0.5, NAN, INF, -INF], 1),
            ([NAN, INF, NAN, INF], None),  # by the loss
        ],
    )
    def test_the_best_is_finite_or_has_the_least_loss(self, loss, figures, best, monkeypatch):
        data = blobs()
        if loss == "mse":
            data = fcnet.data.Dataset(data.X_train, data.y_train, data.X_val, data.y_val, targets="numbers")
        one = solver(data, num_epochs=4, net_options={"loss": loss, "seed": 1}, optim_config={"learning_rate": 0.05})
        monkeypatch.setattr("fcnet.training.solver.loss_of", lambda *_, **__: 1.0)
        scripted = iter(figures)
        monkeypatch.setattr(
            "fcnet.training.solver.measure", lambda model, X, y, prepared: next(scripted) if len(X) == 40 else 0.5
        )
        kept = []
        one.after_epoch = lambda: kept.append(one.model.params.flat.copy())
        with pytest.warns(fcnet.TrainingWarning) as caught:
            one.train()
        losses = [row["loss"] for row in one.history]
        assert one.best_epoch == (best or 1 + losses.index(min(losses)))
        np.testing.assert_array_equal(one.model.params.flat, kept[one.best_epoch - 1])
        odd = [epoch for epoch, figure in enumerate(figures, 1) if not math.isfinite(figure)]
        said = [str(warning.message) for warning in caught]
        assert said[0].startswith(f"the validation {one.metric.title} of epoch {odd[0]} is {figures[odd[0] - 1]}: ")
        assert len(said) == min(2, len(odd))
        if len(odd) > 1:
            spans = {(1, 4): "1, 4", (1, 2, 4): "1 to 2, 4", (2, 3, 4): "2 to 4", (1, 2, 3, 4): "1 to 4"}[tuple(odd)]
            assert said[1] == f"the validation {one.metric.title} was not finite in epochs {spans}"

    def test_the_training_figure_is_said_and_patience_counts_from_the_least_loss(self, monkeypatch):
        one = solver(blobs(), num_epochs=50, patience=2, optim_config={"learning_rate": 0.0})
        monkeypatch.setattr("fcnet.training.solver.measure", lambda model, X, y, prepared: NAN)
        with pytest.warns(fcnet.TrainingWarning) as caught:
            one.train()
        losses = [row["loss"] for row in one.history]
        assert one.epoch == one.best_epoch + 2 == 3 + losses.index(min(losses))
        assert {str(warning.message).split()[1] for warning in caught} == {"training", "validation"}
        assert math.isnan(one.best_val_metric)
        pytest.importorskip("matplotlib")
        assert curves_png(one.record()).startswith(b"\x89PNG")


class TestSpeed:
    def test_first_steps_are_apart(self, monkeypatch):
        now = iter([0.0, 12.0, 20.0, 24.0, 30.0, 33.0])
        monkeypatch.setattr(speed.time, "perf_counter", lambda: next(now))
        clock = speed.Speed()
        clock.begin()
        clock.first(100, 10.0)
        assert (clock.end(300), clock.latest) == (12.0, 100.0)
        clock.begin()
        clock.first(50, 4.0)
        assert (clock.end(50), clock.latest, clock.overall) == (4.0, None, 100.0)  # none but a first step
        clock.begin()
        assert (clock.end(300), clock.latest, clock.overall) == (3.0, 100.0, 100.0)
        assert clock.first_seconds == 14.0

    def test_a_solver_counts_the_repeated_steps(self):
        one = solver(blobs(n=130), batch_size=50, num_epochs=1)  # batches of 50, 50 and 30
        one.train()
        assert one.speed._samples == 50
        one.num_epochs = 3
        one.train()
        assert one.speed._samples == 50 + 2 * 130
        only = solver(blobs(), batch_size=130, num_epochs=1)
        only.train()
        assert only.speed.overall is None


@pytest.mark.parametrize("rule", ["adam", "lbfgs"])
def test_the_callers_arrays_stay_as_they_are(rule):
    """To the byte, whatever is done to the features before they are trained on, and whether or not memory is shared."""
    if rule == "lbfgs":
        pytest.importorskip("scipy")
    rng = np.random.default_rng(0)
    labels = np.arange(24) % 3
    targets = {"classes": labels, "one-hot": np.eye(3)[labels], "numbers": labels[:, None] * [0.5, 2.0]}
    kinds = itertools.product(
        fcnet.data.KINDS, ["uint8", "int16", "float32", "float64"], ["float32", "float64"], targets
    )
    for number, (kind, dtype, net_dtype, target) in enumerate(kinds):
        X = (50 * rng.standard_normal((24, 2, 2)) + 100).clip(0, 255).astype(dtype)
        y = targets[target].astype(net_dtype) if target == "numbers" else targets[target]
        data = fcnet.data.Dataset(
            X, y, X[:9], y[:9], targets="numbers" if target == "numbers" else "classes", sample_weight=np.ones(24)
        )
        before = [array.tobytes() for array in (X, y, data.sample_weight)]
        norm = (None, "batchnorm", "layernorm")[number % 3]
        model = fcnet.FullyConnectedNet(
            [3], 4, y.shape[1] if y.ndim > 1 else 3, loss="mse" if target == "numbers" else "softmax",
            normalization=norm, dtype=net_dtype, device="cpu",
        )  # fmt: skip
        one = fcnet.Solver(model, data, update_rule=rule, preprocess=kind, num_epochs=1, verbose=False)
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", fcnet.TrainingWarning)  # raw pixels are too large for some
            one.train()
        one.check_metric(X, y)
        model.predict(X)
        assert [array.tobytes() for array in (X, y, data.sample_weight)] == before, (kind, dtype, net_dtype, target)
