"""What a Solver does with gradients and with its learning rate: each option, in recorded steps, and its refusals."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest

import fcnet
from tests.small import blobs, net, solver


def run(one, steps):
    for _ in range(steps):
        one.step()
    return one


def test_the_options_are_made_in_order(backend):
    """Value clipping, norm clipping, decay, rule, max-norm: by hand, of the gradients that the network gives."""
    data = blobs(n=20)
    options = {"clip_value": 0.05, "clip_norm": 0.2, "weight_decay": 0.3, "max_norm": 1.2}
    model_options = {"reg": 0.02, "reg_l1": 0.01, "dtype": "float64"}
    one = solver(
        data, backend, net_options=model_options, batch_size=20, optim_config={"learning_rate": 0.5}, **options
    )
    twin = net(data, "cpu", **model_options)
    clipped = shortened = 0
    for epoch in range(3):
        order = one.model.backend.to_numpy(one._batches.order)
        _, grads = twin.loss(data.X_train[order], data.y_train[order])
        clipped += sum(int((abs(grad) > 0.05).sum()) for grad in grads.values())
        limited = {name: np.clip(grad, -0.05, 0.05) for name, grad in grads.items()}
        length = math.sqrt(math.fsum(g * g for grad in limited.values() for g in grad.ravel().tolist()))
        for name, grad in limited.items():
            w = np.array(twin.params[name])
            w = w - 0.5 * grad * min(1, 0.2 / length) - (0.5 * 0.3 * w if w.ndim == 2 else 0)
            if w.ndim == 2:
                lengths = np.linalg.norm(w, axis=0)
                shortened += int((lengths > 1.2).sum())
                w = w * np.minimum(1, 1.2 / lengths)
            twin.params[name] = w
        one.step()
        for name in twin.params:
            got = one.model.backend.to_numpy(one.model.params[name])
            np.testing.assert_allclose(got, twin.params[name], rtol=1e-9, atol=1e-12, err_msg=f"{name} {epoch}")
        assert length > 0.2
    assert clipped > 10
    assert shortened > 3


def test_the_l1_term_is_in_the_loss_and_its_gradient():
    data = blobs()
    plain, with_l1 = net(data, dtype="float64"), net(data, dtype="float64", reg_l1=0.1)
    (loss, grads), (larger, others) = (model.loss(data.X_train, data.y_train) for model in (plain, with_l1))
    weights = [plain.params[f"W{i}"] for i in (1, 2, 3)]
    assert larger - loss == pytest.approx(0.1 * sum(abs(w).sum() for w in weights), rel=1e-10)
    np.testing.assert_allclose(others["W2"] - grads["W2"], 0.1 * np.sign(weights[1]), atol=1e-12)
    np.testing.assert_array_equal(others["b2"], grads["b2"])
    assert max(fcnet.gradcheck(with_l1, data.X_train[:20], data.y_train[:20]).values()) < 1e-6
    with_l1.reg = 0.5
    both, _ = with_l1.loss(data.X_train, data.y_train)
    assert both - larger == pytest.approx(0.25 * sum((w**2).sum() for w in weights), rel=1e-10)
    assert with_l1.config["reg_l1"] == 0.1
    with pytest.raises(ValueError, match="reg_l1: expected 0 or more, got -1"):
        with_l1.reg_l1 = -1


def test_l1_changed_between_steps_counts_from_then_on():
    data = blobs()
    one, other = solver(data), solver(data)
    for changing in (one, other):
        changing.step()
    one.model.reg_l1 = 5.0
    assert run(one, 1).loss_history[1] > run(other, 1).loss_history[1] + 10


def test_a_schedule_sets_the_rate_of_each_step(backend):
    data = blobs(n=30)
    seen = []

    def schedule(step):
        seen.append(step)
        return 1 / (1 + step)

    one = solver(data, backend, batch_size=10, schedule=schedule, optim_config={"learning_rate": 0.6}, num_epochs=2)
    seen.clear()
    one.train()
    assert seen == [0, 1, 2, 3, 4, 5]
    assert [row["learning_rate"] for row in one.history] == [0.6 / 3, 0.6 / 6]  # of the epoch's last step
    twin = solver(data, backend, batch_size=10, num_epochs=2)
    for step in range(6):
        twin.optimizer.learning_rate = 0.6 / (1 + step)
        twin.step()
    assert one.loss_history == twin.loss_history


def test_a_schedule_by_name_counts_epochs_or_steps():
    data = blobs(n=30)

    def rates(**config):
        one = solver(
            data, batch_size=10, num_epochs=4, schedule="step", optim_config={"learning_rate": 1.0},
            schedule_config={"every": 2, "factor": 0.5, **config},
        )  # fmt: skip
        found = []
        for _ in range(12):
            one.step()
            found.append(one.optimizer.learning_rate)
        return found

    assert rates() == [1] * 6 + [0.5] * 6
    assert rates(per="step") == [0.5 ** (step // 2) for step in range(12)]
    assert rates(warmup=1) == [0.5] * 3 + [1] * 6 + [0.5] * 3


def test_cosine_knows_the_length_of_the_training():
    one = solver(blobs(n=30), batch_size=10, num_epochs=4, schedule="cosine", schedule_config={"per": "step"})
    one.train()
    assert one.history[1]["learning_rate"] == pytest.approx(0.01 * (1 + math.cos(math.pi * 5 / 12)) / 2)
    assert one.history[3]["learning_rate"] == pytest.approx(0.01 * (1 + math.cos(math.pi * 11 / 12)) / 2)


def test_the_schedule_neither_waits_nor_uploads(guard):
    one = solver(blobs(n=40), "guard", batch_size=10, schedule="cosine", schedule_config={"per": "step", "warmup": 3},
                 clip_norm=1.0, clip_value=0.5, max_norm=2.0, weight_decay=0.1, lr_multipliers={1: 0.1},
                 net_options={"reg": 0.1, "reg_l1": 0.1, "dtype": "float64"})  # fmt: skip
    one.step()
    with guard.no_waits(), guard.recording() as log:
        run(one, 2)
    assert log.uploads == []


def test_multipliers_are_by_layer():
    data = blobs()
    slow, usual = (
        solver(data, update_rule="adam", lr_multipliers=multipliers, net_options={"normalization": "batchnorm"})
        for multipliers in ({2: 0.125}, None)
    )
    before = {name: value.copy() for name, value in usual.model.params.items()}
    for one in (slow, usual):
        one.step()
    for name, start in before.items():
        factor = 0.125 if name.endswith("2") else 1
        moved = (one.model.params[name] - start for one in (slow, usual))
        mine, others = moved
        np.testing.assert_allclose(mine, factor * others, rtol=1e-4, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))], ids=["deepcopy", "pickle"])
def test_a_copy_goes_on_as_the_original_would(copied):
    one = solver(
        blobs(n=25), update_rule="adamw", batch_size=10, schedule="cosine", schedule_config={"warmup": 1},
        clip_norm=0.5, max_norm=2.0, lr_multipliers={1: 0.1},
    )  # fmt: skip
    run(one, 4)
    other = copied(one)
    run(one, 8)
    run(other, 8)
    assert other.loss_history == one.loss_history
    assert other.optimizer.learning_rate == one.optimizer.learning_rate
    np.testing.assert_array_equal(other.model.params.flat, one.model.params.flat)


def test_the_configuration_holds_what_was_set():
    options = {"clip_norm": 2.0, "clip_value": 0.5, "max_norm": 3.0, "weight_decay": 0.1}
    config = {"every": 3, "factor": 0.5, "warmup": 2, "per": "step"}
    options = solver(blobs(), schedule="step", schedule_config=config, **options).options()
    assert {name: options[name] for name in options if name.startswith("schedule") or name == "warmup"} == {
        "schedule": "step", "schedule-every": 3, "schedule-factor": 0.5, "schedule-per": "step", "warmup": 2,
    }  # fmt: skip
    assert [options[name] for name in ("clip-norm", "clip-value", "max-norm", "weight-decay")] == [2.0, 0.5, 3.0, 0.1]
    options = solver(blobs(), schedule=lambda step: 1.0).options()
    assert options["schedule"] == "(a function of the step)"  # which nobody can run again by mistake


def test_limits_that_only_float64_holds():
    limits = {"clip_norm": 1e39, "clip_value": 1e39, "max_norm": 1e39, "lr_multipliers": {1: 1.0}}
    one, other = (solver(blobs(), net_options={"dtype": "float64"}, **options) for options in (limits, {}))
    run(one, 3)
    run(other, 3)
    assert one.loss_history == other.loss_history


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_norm": 0}, "clip_norm: expected more than 0 in float32, got 0; leave it out"),
        ({"clip_value": -1}, "clip_value: expected more than 0"),
        ({"max_norm": 1e-60}, "max_norm: expected more than 0 in float32, got 1e-60"),
        ({"clip_norm": 1e39}, "clip_norm: expected at most 3.4e.38, as float32 holds no more, got 1e.39; leave it out"),
        ({"clip_value": 1e39}, "clip_value: expected at most 3.4e.38"),
        ({"max_norm": 1e300}, "max_norm: expected at most 3.4e.38"),
        ({"lr_multipliers": {2: 1e39}}, "lr_multipliers.2.: expected at most 3.4e.38, .* got 1e.39; factors"),
        ({"max_norm": "x"}, "max_norm: expected a number, got 'x'"),
        ({"weight_decay": -1}, "weight_decay: expected 0 or more, got -1"),
        ({"schedule": "cosin"}, "schedule: expected one of constant, step.*did you mean 'cosine'"),
        ({"schedule": 3}, "schedule: expected a name or a function of the step, got 3"),
        ({"schedule": lambda step: "x"}, "schedule: expected a number, got 'x'"),
        ({"schedule": lambda step: -1}, "schedule: expected a factor of 0 or more at step 0, got -1"),
        ({"schedule": "cosine", "lr_decay": 0.9}, "schedule and lr_decay: expected one of them, got .*'cosine'.*0.9"),
        ({"schedule_config": {"every": 1}}, "schedule_config: expected it with the name of a schedule"),
        ({"schedule": abs, "schedule_config": {}}, "schedule_config: expected it with the name of a schedule"),
        ({"lr_multipliers": {4: 1}}, "lr_multipliers and hidden_dims: expected layers 1 to 3, .* got 4"),
        ({"lr_multipliers": {0: 1}}, "lr_multipliers and hidden_dims: expected layers 1 to 3, .* got 0"),
        ({"lr_multipliers": {1: 0}}, "lr_multipliers.1.: expected more than 0, got 0; freeze the layer instead"),
        ({"lr_multipliers": 0.1}, "lr_multipliers: expected a dict such as"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        solver(blobs(), **options)
    assert "\n" not in str(caught.value)


class TestBeginningSteps:
    def test_each_step_has_its_rate_and_the_last_ones_is_set(self):
        updates = solver(blobs(), schedule=lambda step: 1 / (1 + step), optim_config={"learning_rate": 0.6}).updates
        assert updates.begin_steps(0, 3) == [[0.6], [0.3], [0.6 * (1 / 3)]]
        assert updates.optimizer.learning_rate == 0.6 * (1 / 3)
        assert updates.begin_steps(3, 1) is None
        assert [updates.rate_of(step) for step in range(5)] == [0.6 * (1 / (1 + min(step, 3))) for step in range(5)]
        assert not updates.rate_set_by_hand

    def test_each_step_has_a_rate_for_each_group_of_layers(self):
        options = {"schedule": lambda step: 1 / (1 + step), "optim_config": {"learning_rate": 0.6}}
        updates = solver(blobs(), lr_multipliers={2: 0.1}, **options).updates
        assert updates.optimizer.factors == (1, 0.1, 1, 0.1, 1)  # W1; W2; W3 and b1; b2; b3
        expected = [[rate, 0.1 * rate, rate, 0.1 * rate, rate] for rate in (0.6, 0.3)]
        assert updates.begin_steps(0, 2) == expected
        assert np.array(updates.optimizer._rates).tolist() == expected[-1]

    def test_rates_that_are_equal_are_those_that_are_set(self):
        updates = solver(blobs(), schedule=lambda step: 0.5 if step >= 4 else 1.0).updates
        assert updates.begin_steps(0, 4) is None
        assert updates.begin_steps(4, 4) is None
        assert updates.optimizer.learning_rate == 0.005
        assert [updates.rate_of(step) for step in (0, 3, 4, 7)] == [0.01, 0.01, 0.005, 0.005]

    def test_a_rate_set_by_hand_is_noticed_and_kept(self):
        updates = solver(blobs()).updates
        assert updates.begin_steps(0, 5) is updates.begin_steps(5, 5) is None
        assert not updates.rate_set_by_hand
        updates.optimizer.learning_rate = 0.2
        assert updates.begin_steps(10, 10) is None
        assert updates.rate_set_by_hand
        assert [updates.rate_of(step) for step in (9, 10, 19)] == [0.01, 0.2, 0.2]

    def test_a_schedule_that_fails_within_leaves_everything_as_it_was(self):
        one = solver(blobs(), schedule=lambda step: 1.0 if step < 2 else -1)
        with pytest.raises(ValueError, match="a factor of 0 or more at step 2, got -1"):
            one.updates.begin_steps(0, 5)
        assert one.optimizer.learning_rate == 0.01
        assert one.updates._rates == []
