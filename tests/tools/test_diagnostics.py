"""Sanity checks pass what is right and catch what is wrong; the range test finds rates that work."""

import copy
import dataclasses
import math

import numpy as np
import pytest

import fcnet
from fcnet.tools.diagnostics import (
    Overfit,
    activation_statistics,
    check,
    check_gradients,
    check_initial_loss,
    check_overfit,
    lr_range,
)
from fcnet.tools.diagnostics.rates import suggest
from fcnet.tools.diagnostics.sanity import few
from tests.small import blobs, net, solver

ACTIVATIONS = sorted(fcnet.functional.ACTIVATIONS)


def numbers(loss: str, outputs: int = 3) -> fcnet.data.Dataset:
    """Targets that are numbers (mse), or labels that may each be on or off (bce)."""
    rng = np.random.default_rng(2)
    parts = {}
    for part, count in (("train", 120), ("val", 30)):
        X = rng.standard_normal((count, 6))
        y = 5 + 2 * np.tanh(X[:, :outputs]) if loss == "mse" else (X[:, :outputs] > 0.3).astype(float)
        parts |= {f"X_{part}": X, f"y_{part}": y}
    return fcnet.data.Dataset(**parts, name=loss, targets="numbers")


def snapshot(trained):
    """All that a check must leave as it is."""
    model = trained.model
    to_numpy = model.backend.to_numpy
    arrays = [to_numpy(buffer.flat).copy() for buffer in (model.params, model.state)]
    return arrays, trained.steps, trained.epoch, trained.loss_history, model.config, model.reg


@pytest.fixture
def untouched_solver():
    """untouched_solver(solver) remembers it; at the end of the test it must be the same."""
    seen = []

    def watch(trained):
        seen.append((trained, snapshot(trained)))
        return trained

    yield watch
    for trained, before in seen:
        after = snapshot(trained)
        for mine, other in zip(after[0], before[0], strict=True):
            np.testing.assert_array_equal(mine, other)
        assert after[1:] == before[1:]


# Initial loss


@pytest.mark.parametrize(("loss", "at_chance"), [("softmax", math.log(5)), ("svm", 4.0)])
@pytest.mark.parametrize("reg", [0.0, 3.0])
def test_initial_loss_is_at_chance_and_grows(backend, loss, at_chance, reg):
    data = blobs(c=5)
    model = net(data, backend, loss=loss, reg=reg, dropout_keep_ratio=0.8, normalization="batchnorm")
    found = check_initial_loss(model, data.X_train, data.y_train)
    assert found.passed
    assert found.expected == pytest.approx(at_chance)
    assert found.small == pytest.approx(at_chance, rel=0.01)
    squares = sum(float((backend.to_numpy(w).astype(float) ** 2).sum()) for w in model.params.values() if w.ndim > 1)
    bare, once, twice = found.with_reg
    assert once - bare == pytest.approx(0.5 * found.reg * squares, rel=1e-6)
    assert twice - bare == pytest.approx(found.reg * squares, rel=1e-6)
    assert model.reg == reg


@pytest.mark.parametrize("loss", ["mse", "bce"])
def test_other_losses_have_their_value_at_scores_of_0(loss):
    data = numbers(loss)
    found = check_initial_loss(net(data, loss=loss), data.X_train, data.y_train)
    expected = math.log(2) if loss == "bce" else (data.y_train**2).mean()
    assert found.passed
    assert found.expected == pytest.approx(expected)


def failed(found):
    return [finding.check.split(",")[0].strip() for finding in found.findings if not finding.passed]


def wrong_loss(monkeypatch, change):
    right = fcnet.FullyConnectedNet.loss
    monkeypatch.setattr(fcnet.FullyConnectedNet, "loss", lambda self, *args: change(self, *right(self, *args)))


@pytest.mark.parametrize(
    ("change", "checks"),
    [
        (lambda self, loss, grads: (1.05 * loss, grads), ["initial loss", "grows with reg"]),
        (lambda self, loss, grads: (-loss, grads), ["initial loss", "grows with reg"]),
        (lambda self, loss, grads: (loss + 0.5 * self.reg, grads), ["grows with reg"]),
    ],
)
def test_a_wrong_loss_is_caught(monkeypatch, change, checks):
    data = blobs()
    wrong_loss(monkeypatch, change)
    found = [name[:14] for name in failed(check_initial_loss(net(data), data.X_train, data.y_train))]
    assert found == [name[:14] for name in checks]


def test_large_weights_and_inputs_that_are_not_scaled_are_caught():
    data = blobs()
    assert failed(check_initial_loss(net(data, weight_scale=3), data.X_train, data.y_train)) == ["initial loss"]
    found = check_initial_loss(net(data, hidden=()), 1000 * data.X_train, data.y_train)
    assert [f.check for f in found.findings if not f.passed] == [
        "initial loss, small weights",
        "initial loss, as initialised",
    ]


# Overfitting


@pytest.mark.parametrize("options", [{}, {"update_rule": "adam"}, {"update_rule": "lbfgs"}], ids=str)
def test_a_right_network_learns_few_samples_by_heart(backend, untouched_solver, options):
    if options.get("update_rule") == "lbfgs":
        pytest.importorskip("scipy")
    penalties = {"reg": 10.0, "reg_l1": 0.0 if options.get("update_rule") == "lbfgs" else 10.0}
    trained = untouched_solver(solver(blobs(), backend, net_options=penalties, **options))
    found = check_overfit(trained, samples=30)
    assert found.passed
    assert (found.samples, found.score) == (30, 1.0)
    assert 0 < found.steps <= 1000


@pytest.mark.parametrize("loss", ["mse", "bce"])
def test_numbers_are_learned_by_heart_too(loss):
    found = check_overfit(solver(numbers(loss), net_options={"loss": loss, "hidden": (100, 100)}, update_rule="adam"))
    assert found.passed
    assert found.target == (0.99 if loss == "mse" else 1.0)


def test_numbers_that_are_not_explained_are_not_learned():
    found = check_overfit(solver(numbers("mse"), net_options={"loss": "mse", "init": "zeros"}), steps=1)
    assert abs(found.score) < 0.5  # no better than the mean
    assert not found.passed


@pytest.mark.parametrize("factor", [1e5, 1e-3])
def test_targets_of_another_size_are_learned_by_heart(factor):
    data = numbers("mse")
    data = dataclasses.replace(data, y_train=factor * data.y_train, y_val=factor * data.y_val)
    assert check_overfit(solver(data, net_options={"loss": "mse", "hidden": (100, 100)}, update_rule="adam")).passed


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_passes(activation):
    trained = solver(blobs(), net_options={"activation": activation}, update_rule="adam")
    assert check(trained).passed
    assert len(activation_statistics(trained.model, trained.data.X_train)) == 2


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"optim_config": {"learning_rate": 1e-9}}, "too low"),
        ({"optim_config": {"learning_rate": 1e9}}, "too high"),
        ({"net_options": {"init": "zeros"}}, "init zeros"),
    ],
)
def test_what_cannot_learn_is_caught(options, why):
    found = check_overfit(solver(blobs(), **options), steps=60)
    assert not found.passed
    assert why in found.findings[0].cause


def test_it_stops_at_once_when_the_loss_is_not_finite():
    found = check_overfit(solver(blobs(), net_options={"loss": "svm"}, optim_config={"learning_rate": 1e30}))
    assert found.steps < 1000
    assert not math.isfinite(found.loss)


def test_few_takes_as_many_of_each_class_as_there_are():
    data = blobs(n=200)
    rare = data.y_train != 2
    rare[2] = True  # one of class 2 stays
    data = fcnet.data.Dataset(data.X_train[rare], data.y_train[rare], data.X_val, data.y_val)
    X, y = few(solver(data), 21)
    assert np.bincount(y).tolist() == [10, 10, 1]
    for x, label in zip(X, y, strict=True):
        assert label in data.y_train[(data.X_train == x).all(axis=1)]
    assert len(few(solver(data), 10_000)[0]) == len(data.X_train)


# Gradients


@pytest.mark.parametrize("options", [{}, {"normalization": "batchnorm"}, {"normalization": "layernorm"}], ids=str)
def test_right_gradients_pass(backend, options):
    data = blobs()
    found = check_gradients(net(data, backend, dropout_keep_ratio=0.7, **options), data.X_train[:10], data.y_train[:10])
    assert found.passed
    assert set(found.errors) == set(net(data, **options).params)


def test_frozen_layers_are_checked_too():
    data = blobs()
    model = net(data)
    model.freeze([1])
    found = check_gradients(model, data.X_train[:10], data.y_train[:10])
    assert found.passed
    assert set(found.errors) == set(model.params)
    assert model.frozen == (1,)


def test_a_gradient_with_the_wrong_sign_is_caught(monkeypatch):
    data = blobs()

    def change(self, loss, grads):
        grads["b1"] *= -1
        return loss, grads

    wrong_loss(monkeypatch, change)
    found = check_gradients(net(data), data.X_train[:10], data.y_train[:10])
    assert [name for name, error in found.errors.items() if error > 0.5] == ["b1"]
    assert failed(found) == ["gradient of b1"]


# All together


def test_the_report_is_a_table_that_says_what_failures_come_from(untouched_solver):
    right = check(untouched_solver(solver(blobs(), update_rule="adam")))
    assert right.passed
    lines = str(right).splitlines()
    assert lines[0].split() == ["check", "measured", "expected"]
    assert len(lines) == 1 + len(right.findings)
    assert all(line.endswith("ok") for line in lines[1:])
    wrong = check(untouched_solver(solver(blobs(), net_options={"weight_scale": 30})), overfit_steps=10)
    assert not wrong.passed
    text = str(wrong)
    assert text.count("FAILED") == sum(not finding.passed for finding in wrong.findings)
    assert "initial loss, as initialised: usually initial weights too large" in text


@pytest.mark.parametrize("call", [check, check_overfit, lr_range])
def test_other_things_than_solvers_are_refused(call):
    with pytest.raises(TypeError, match="solver: expected a Solver, got FullyConnectedNet"):
        call(net(blobs()))
    with pytest.raises(TypeError, match="model: expected a FullyConnectedNet, got int"):
        check_initial_loss(3, None, None)


def test_numbers_of_samples_and_steps_are_checked():
    with pytest.raises(ValueError, match="samples: expected 1 or more"):
        check_overfit(solver(blobs()), samples=0)
    assert not Overfit(5, 0.99, 1.0, 0.1, 3).passed


def test_equal_numbers_are_learned_too():
    """They have no variance, of which a share could be explained; scaled, they are 0."""
    data = fcnet.data.Dataset(*(part for count in (60, 20) for part in _equal(count)), targets="numbers")
    found = check_overfit(solver(data, net_options={"loss": "mse"}), steps=1500)
    assert found.passed
    assert 0.99 <= found.score <= 1
    assert check_overfit(solver(data, net_options={"loss": "mse", "init": "zeros"}), steps=1).passed


def _equal(count):
    return np.random.default_rng(count).standard_normal((count, 6)), np.full(count, 0.7)


# Learning-rate range


def test_the_range_test_suggests_a_rate_that_works(backend, untouched_solver):
    data = blobs(n=300)
    trained = untouched_solver(solver(data, backend, batch_size=30))
    found = lr_range(trained)
    assert found.diverged
    assert 1e-3 < found.suggestion < 1
    assert found.suggestion <= found.rates[int(np.argmin(found.smoothed))] / 10
    better = solver(data, backend, batch_size=30, num_epochs=3, optim_config={"learning_rate": found.suggestion})
    better.train()
    assert better.val_acc_history[-1] > 0.8


def test_the_curve_is_what_one_step_at_each_rate_gives():
    """By hand, with plain gradient descent on all samples: so the batches are known."""
    data = blobs(n=50)
    trained = solver(data, batch_size=50, net_options={"dtype": "float64", "seed": 3})
    found = lr_range(trained, lowest=1e-4, highest=1e-1, steps=10)
    model = net(data, dtype="float64", seed=3)
    average = weight = 0.0
    for k, (rate, loss, smoothed) in enumerate(zip(found.rates, found.losses, found.smoothed, strict=True)):
        assert rate == pytest.approx(1e-4 * 10 ** (k / 3))
        expected, grads = model.loss(data.X_train, data.y_train)
        assert loss == pytest.approx(expected, rel=1e-9)
        for name in model.params:
            model.params[name] -= rate * grads[name]
        average, weight = 0.9 * average + loss, 0.9 * weight + 1
        assert smoothed == pytest.approx(average / weight)
    assert len(found.rates) == 10
    assert not found.diverged
    assert "still falling" in found.reason


def test_schedules_and_decay_are_off_but_limits_stay():
    data = blobs(n=50)
    free = lr_range(solver(data, batch_size=25))
    assert lr_range(solver(data, batch_size=25, lr_decay=0.1)).losses == free.losses
    assert lr_range(solver(data, batch_size=25, schedule="cosine")).losses == free.losses
    assert lr_range(solver(data, batch_size=25, clip_norm=1e-3)).losses != free.losses


def test_it_does_not_copy_the_data_set(monkeypatch):
    trained = solver(blobs())
    seen = []
    right = fcnet.Solver.step
    monkeypatch.setattr(fcnet.Solver, "step", lambda self: seen.append(self) or right(self))
    lr_range(trained, steps=10)
    assert seen[0] is not trained
    assert seen[0].data is trained.data
    assert seen[0]._parts is trained._parts
    assert copy.deepcopy(trained)._parts is not trained._parts  # what would be without the care


def test_it_ends_when_the_loss_grows_to_four_times_its_best(monkeypatch):
    losses = [2.0, 1.0] + [1.1**k for k in range(60)]  # grows slowly, so that the end is sharp
    monkeypatch.setattr(fcnet.Solver, "step", lambda self: setattr(self, "steps", self.steps + 1))
    monkeypatch.setattr(fcnet.Solver, "loss_history", property(lambda self: losses[: self.steps]))
    found = lr_range(solver(blobs()), steps=60)
    assert found.diverged
    assert 4 < found.smoothed[-1] / min(found.smoothed) < 4.5
    assert found.smoothed[-2] / min(found.smoothed) < 4
    monkeypatch.undo()
    at_once = lr_range(solver(blobs(), net_options={"loss": "svm"}), lowest=1e20, highest=1e38, steps=10)
    assert at_once.diverged
    assert at_once.suggestion is None
    assert "try a lower range" in at_once.reason


def test_what_is_suggested_and_what_is_not():
    rates = [1e-3, 1e-2, 1e-1, 1.0]
    assert suggest(rates, [2.0, 1.5, 1.0, 3.0], True) == (
        pytest.approx(1e-2),
        "a tenth of 0.1, from where on the smoothed loss hardly falls (1)",
    )
    assert suggest(rates, [2.0, 1.04, 1.01, 1.0], False)[0] == pytest.approx(1e-3), "flat: learned by heart"
    assert suggest(rates, [2.0, 1.06, 1.04, 1.0], False)[0] == pytest.approx(1e-2)
    assert "still falling" not in suggest(rates, [2.0, 1.06, 1.04, 1.0], False)[1]
    assert "still falling" in suggest(rates, [2.0, 1.8, 1.5, 1.0], False)[1]
    assert suggest(rates, [2.0, 1.99, 1.99, 3.0], False)[0] is None
    assert "did not fall between 0.001 and 1; try a wider range" in suggest(rates, [2.0] * 4, False)[1]
    assert "not finite before the first step" in suggest([], [], True)[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lowest": 0.0}, "lowest and highest: expected 0 < lowest < highest, got 0 and 10"),
        ({"lowest": 2, "highest": 1}, "lowest and highest: expected 0 < lowest < highest, got 2 and 1"),
        ({"highest": float("nan")}, "highest: expected a finite number"),
        ({"steps": 9}, "steps: expected 10 or more"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        lr_range(solver(blobs()), **arguments)


def test_full_batch_rules_have_no_rate_to_sweep():
    pytest.importorskip("scipy")
    with pytest.raises(ValueError, match=r"update_rule: expected one of sgd, .* got 'lbfgs'"):
        lr_range(solver(blobs(), update_rule="lbfgs"))
