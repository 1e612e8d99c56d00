"""Networks with each activation and kind of dropout: gradients, shapes, starts, files, refusals."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import fcnet
from fcnet import functional as F
from fcnet.backends.step import direct
from tests import oracles_activation as oracles
from tests.small import blobs, net, solver

ACTIVATIONS = sorted(F.ACTIVATIONS)
LOSSES = [
    {"loss": "softmax"},
    {"loss": "softmax", "label_smoothing": 0.2},
    {"loss": "svm"},
    {"loss": "mse"},
    {"loss": "bce"},
]


def targets(loss, rng, count, columns):
    if loss == "mse":
        return rng.standard_normal((count, columns))
    if loss == "bce":
        return rng.integers(2, size=(count, columns))
    return rng.integers(columns, size=count)


@pytest.mark.parametrize("options", LOSSES, ids=lambda o: ",".join(map(str, o.values())))
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_of_every_activation_and_loss(activation, options, rng):
    data = blobs()
    model = net(data, activation=activation, reg=0.1, **options)
    errors = fcnet.gradcheck(model, data.X_train[:12], targets(options["loss"], rng, 12, 3), samples=12)
    assert set(errors) == set(model.params)
    assert max(errors.values()) < 1e-5, errors


@pytest.mark.parametrize("activation", [*ACTIVATIONS, ["maxout", "tanh"]], ids=str)
@pytest.mark.parametrize("dropout", ["inverted", "plain"])
@pytest.mark.parametrize("normalization", [None, "batchnorm", "layernorm"])
def test_gradients_with_norm_and_dropout(backend, activation, normalization, dropout):
    data = blobs()
    model = net(
        data, backend, activation=activation, normalization=normalization, dropout=dropout, dropout_keep_ratio=0.6
    )
    errors = fcnet.gradcheck(model, data.X_train[:12], data.y_train[:12], samples=6)
    assert max(errors.values()) < 1e-5, errors


def by_hand(model, X, activations, pieces):
    """Scores of a plain net, with the oracles' activations."""
    p = {name: np.asarray(model.backend.to_numpy(value), dtype=np.float64) for name, value in model.params.items()}
    h = X
    for i, name in enumerate(activations, 1):
        h = oracles.forward(name, h @ p[f"W{i}"] + p[f"b{i}"], pieces)
    return h @ p[f"W{len(activations) + 1}"] + p[f"b{len(activations) + 1}"]


@pytest.mark.parametrize("activation", [*ACTIVATIONS, ["sigmoid", "maxout"]], ids=str)
def test_scores_are_the_oracles(backend, activation):
    data = blobs()
    pieces = {"maxout_pieces": 3} if "maxout" in activation else {}
    model = net(data, backend, activation=activation, dtype="float64", **pieces)
    names = [activation] * 2 if isinstance(activation, str) else activation
    expected = by_hand(model, data.X_val, names, 3)
    np.testing.assert_allclose(model.scores(data.X_val), expected, rtol=1e-11, atol=1e-12)
    scores, _ = model.forward(direct, backend.asarray(data.X_val), [None, None])
    np.testing.assert_allclose(backend.to_numpy(scores), expected, rtol=1e-11, atol=1e-12)


def test_maxout_has_columns_for_every_piece():
    model = net(blobs(), activation=["maxout", "relu"], maxout_pieces=3, normalization="batchnorm")
    assert {name: model.params.shapes[name] for name in ("W1", "b1", "gamma1", "W2", "b2")} == {
        "W1": (6, 24), "b1": (24,), "gamma1": (24,), "W2": (8, 7), "b2": (7,),
    }  # fmt: skip
    assert model.state.shapes["running_var1"] == (24,)


def test_each_layer_starts_as_its_activation_needs():
    """And the output layer as the one below it."""
    model = fcnet.FullyConnectedNet([400, 300], 400, 200, activation=["tanh", "relu"], device="cpu")
    for name, variance, fan_in in (("W1", 1, 400), ("W2", 2, 400), ("W3", 2, 300)):
        assert model.params[name].std() == pytest.approx((variance / fan_in) ** 0.5, rel=0.02)


@pytest.mark.parametrize(
    "options",
    [
        {"activation": "maxout", "maxout_pieces": 3},
        {"activation": ["tanh", "maxout"], "dropout_keep_ratio": 0.5, "dropout": "plain"},
        {"loss": "softmax", "label_smoothing": 0.1},
        {"loss": "mse"},
        {"loss": "bce"},
    ],
    ids=str,
)
def test_a_file_brings_it_all_back(options, tmp_path):
    data = blobs()
    model = net(data, **options)
    model.save(tmp_path / "m.safetensors")
    again = fcnet.load(tmp_path / "m.safetensors", device="cpu")
    assert again.config == model.config
    np.testing.assert_array_equal(again.scores(data.X_val), model.scores(data.X_val))
    np.testing.assert_array_equal(again.astype("float32").scores(data.X_val), model.scores(data.X_val))


def test_a_description_without_the_newer_options_is_read(tmp_path, monkeypatch):
    model = net(blobs())
    newer = ("maxout_pieces", "dropout", "label_smoothing")
    older = {name: value for name, value in model.config.items() if name not in newer}
    monkeypatch.setattr(fcnet.FullyConnectedNet, "config", property(lambda self: older))
    model.save(tmp_path / "m.safetensors")
    monkeypatch.undo()
    assert fcnet.load(tmp_path / "m.safetensors", device="cpu").config == model.config


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": ["relu", "tanh", "relu"]}, r"activation and hidden_dims: .* each of the 2, got 3 \(relu, tanh"),
        ({"activation": []}, r"activation and hidden_dims: .* got 0"),
        ({"activation": ["relu", "tnah"]}, "activation: .*did you mean 'tanh'"),
        ({"activation": 3}, "activation: expected a name or a list of names, got 3"),
        ({"activation": "maxout:3"}, "activation: expected one of"),
        ({"maxout_pieces": 3}, "maxout_pieces and activation: expected activation 'maxout' .*=3, got 'relu'"),
        ({"activation": "maxout", "maxout_pieces": 0}, "maxout_pieces and activation: expected 2 or more .* got 0"),
        ({"activation": "maxout", "maxout_pieces": 2.0}, "maxout_pieces: expected an integer, got 2.0"),
        ({"dropout": "plan"}, "dropout: expected one of inverted, plain; .*did you mean 'plain'"),
    ],
)  # fmt: skip
def test_bad_options(options, message):
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        fcnet.FullyConnectedNet([5, 4], 6, 3, device="cpu", **options)
    assert "\n" not in str(caught.value)


def test_plain_dropout_scales_evaluation_not_training(backend):
    data = blobs()
    inverted, plain = (
        net(data, backend, hidden=(50,), dropout_keep_ratio=0.6, dropout=kind, dtype="float64")
        for kind in ("inverted", "plain")
    )
    X = backend.asarray(data.X_val)
    hidden = F.relu_forward(F.affine_forward(X, plain.params["W1"], plain.params["b1"])[0])[0]
    evaluated = plain.hidden[0].evaluate(direct, plain.params, plain.state, X)
    np.testing.assert_allclose(backend.to_numpy(evaluated), 0.6 * backend.to_numpy(hidden), rtol=1e-12)
    streams = plain.mask_streams(3)
    trained, _ = plain.hidden[0].forward(direct, plain.params, plain.state, X, streams[0])
    kept = backend.to_numpy(trained) != 0
    np.testing.assert_allclose(backend.to_numpy(trained)[kept], backend.to_numpy(hidden)[kept], rtol=1e-12)
    other, _ = inverted.hidden[0].forward(direct, inverted.params, inverted.state, X, streams[0])
    np.testing.assert_allclose(backend.to_numpy(other), backend.to_numpy(trained) / 0.6, rtol=1e-12)


@pytest.mark.parametrize("dropout", ["inverted", "plain"])
def test_monte_carlo_prediction(backend, dropout):
    data = blobs()
    model = net(data, backend, dropout_keep_ratio=0.7, dropout=dropout, normalization="batchnorm", dtype="float64")
    model.loss(data.X_train, data.y_train)  # running statistics off their start
    before = backend.to_numpy(model.state.flat).copy()
    mean, std = model.predict_proba(data.X_val, mc_samples=5)
    samples = []
    for number in range(5):
        x, streams = backend.asarray(data.X_val), model.mask_streams(number)
        samples.append(backend.to_numpy(F.softmax(model.evaluate_prepared(x, streams))))
    np.testing.assert_allclose(mean, np.mean(samples, axis=0), rtol=1e-11)
    np.testing.assert_allclose(std, np.std(samples, axis=0), rtol=1e-9, atol=1e-14)
    assert (std > 0).all()
    np.testing.assert_array_equal(backend.to_numpy(model.state.flat), before)
    again, _ = model.predict_proba(data.X_val, mc_samples=5)
    np.testing.assert_array_equal(again, mean)
    parts = model.predict_proba(data.X_val, mc_samples=5, batch_size=7)
    assert [part.shape for part in parts] == [(40, 3)] * 2
    np.testing.assert_allclose(parts[0][:7], mean[:7], rtol=1e-11)


@pytest.mark.parametrize("dropout", ["inverted", "plain"])
def test_the_mean_over_many_masks_is_the_evaluation(dropout):
    """With one hidden layer the scores are linear in the mask, so their mean over all masks is evaluation's."""
    data = blobs()
    model = net(data, hidden=(60,), dropout_keep_ratio=0.8, dropout=dropout, dtype="float64")
    drawn = np.array([model.evaluate_prepared(data.X_val, model.mask_streams(t)) for t in range(400)])
    off = (drawn.mean(axis=0) - model.scores(data.X_val)) / (drawn.std(axis=0) / 20)
    assert np.abs(off).max() < 5  # standard errors, over 120 scores


@pytest.mark.parametrize(("options", "count", "message"), [
    ({}, 5, "mc_samples: expected a network with dropout for 5 samples, got one that drops no unit"),
    ({"hidden": ()}, 5, "mc_samples: expected a network with dropout"),
    ({"dropout_keep_ratio": 0.5}, 0, "mc_samples: expected 1 or more, got 0"),
    ({"dropout_keep_ratio": 0.5, "loss": "svm"}, 2, "predict_proba: expected a network with loss"),
])  # fmt: skip
def test_monte_carlo_refusals(options, count, message):
    data = blobs()
    with pytest.raises(ValueError, match=message):
        net(data, **options).predict_proba(data.X_val, mc_samples=count)


def test_plain_dropout_is_inverted_dropout_of_scaled_weights(backend):
    """The same masks, and the weights above divided by the ratio: the same network, in training and evaluation."""
    data = blobs()
    how = {"hidden": (30,), "dropout_keep_ratio": 0.6, "dtype": "float64"}
    inverted, plain = (net(data, backend, dropout=kind, **how) for kind in ("inverted", "plain"))
    plain.params["W2"] = inverted.params["W2"] / 0.6
    np.testing.assert_allclose(plain.scores(data.X_val), inverted.scores(data.X_val), rtol=1e-11)
    (loss, grads), (other, other_grads) = (m.loss(data.X_train, data.y_train, step=3) for m in (plain, inverted))
    assert loss == pytest.approx(other, rel=1e-12)
    for name in grads:
        scale = 0.6 if name == "W2" else 1.0
        mine, theirs = (backend.to_numpy(g[name]) for g in (grads, other_grads))
        np.testing.assert_allclose(mine, scale * theirs, rtol=1e-9, atol=1e-14)
    for mine, theirs in zip(*(m.predict_proba(data.X_val, mc_samples=3) for m in (plain, inverted)), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("loss", ["softmax", "bce"])
def test_monte_carlo_prediction_by_seed_in_parts_and_on_the_device(backend, loss):
    data = blobs()
    model = net(data, backend, dropout_keep_ratio=0.7, loss=loss, dtype="float64")
    mean, std = model.predict_proba(data.X_val, mc_samples=6, batch_size=16)
    # Each part of 16 rows has the masks of the first: what a sample gets depends on its place in the part alone.
    for start in range(0, 40, 16):
        part = model.predict_proba(data.X_val[start : start + 16], mc_samples=6)
        for whole, own in zip((mean, std), part, strict=True):
            np.testing.assert_allclose(whole[start : start + 16], own, rtol=1e-11)
    on_device = model.predict_proba(backend.asarray(data.X_val), mc_samples=6, batch_size=16)
    for whole, array in zip((mean, std), on_device, strict=True):
        np.testing.assert_array_equal(backend.to_numpy(array), whole)
    once, none = model.predict_proba(data.X_val, mc_samples=1)
    assert not none.any()
    assert (once != model.predict_proba(data.X_val)).any()
    other = net(data, backend, dropout_keep_ratio=0.7, loss=loss, dtype="float64", seed=1)
    for name in model.params:
        other.params[name] = model.params[name]
    assert (other.predict_proba(data.X_val, mc_samples=6, batch_size=16)[0] != mean).any()


def test_monte_carlo_prediction_is_that_of_every_device(backend):
    data = blobs()
    means = [
        net(data, device, dropout_keep_ratio=0.7, dtype="float64").predict_proba(data.X_val, mc_samples=5)
        for device in (backend, "cpu")
    ]
    for mine, cpus in zip(*means, strict=True):
        np.testing.assert_allclose(mine, cpus, rtol=1e-11, atol=1e-15)


def test_every_activation_learns():
    data = blobs()
    for activation, dropout in itertools.product(ACTIVATIONS, ["inverted", "plain"]):
        one = solver(
            data,
            net_options={"activation": activation, "dropout": dropout, "dropout_keep_ratio": 0.9},
            update_rule="adam",
            optim_config={"learning_rate": 1e-2},
            num_epochs=25,
        )
        one.train()
        assert one.best_val_acc >= 0.9, (activation, dropout)
