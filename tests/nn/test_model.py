"""FullyConnectedNet and TwoLayerNet: what they compute, what they refuse."""

from __future__ import annotations

import copy
import itertools
import pickle

import numpy as np
import pytest

import fcnet
from tests import oracles
from tests.small import blobs, net


def by_hand(model, X, y):
    """Training loss of a plain ReLU net, in float64 and by the book."""
    p = {name: np.asarray(model.backend.to_numpy(value), dtype=np.float64) for name, value in model.params.items()}
    h = X.reshape(len(X), -1).astype(np.float64)
    depth = len(model.hidden_dims) + 1
    for i in range(1, depth):
        h = np.maximum(h @ p[f"W{i}"] + p[f"b{i}"], 0)
    scores = h @ p[f"W{depth}"] + p[f"b{depth}"]
    loss = {"softmax": oracles.softmax_loss, "svm": oracles.svm_loss}[model.objective.loss](scores, y)
    penalty = 0.5 * model.reg * sum(np.sum(p[f"W{i}"] ** 2) for i in range(1, depth + 1))
    return scores, (loss[0] if isinstance(loss, tuple) else loss) + penalty


@pytest.mark.parametrize("loss", ["softmax", "svm"])
@pytest.mark.parametrize("hidden", [(), (5,), (8, 7), (4, 3, 6, 5)])
def test_scores_and_loss_against_the_book(backend, hidden, loss):
    data = blobs()
    model = net(data, backend, hidden, loss=loss, reg=0.7, dtype="float64", weight_scale=0.3)
    X, y = data.X_train[:20], data.y_train[:20]
    scores, expected = by_hand(model, X, y)
    got, grads = model.loss(backend.asarray(X), backend.asarray(y))
    assert isinstance(got, float)
    assert got == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(model.scores(X), scores, rtol=1e-12, atol=1e-12)
    assert list(grads) == list(model.params)


def test_l2_counts_every_weight_matrix_and_no_vector():
    data = blobs()
    plain, heavy = (net(data, reg=reg, dtype="float64", normalization="batchnorm") for reg in (0.0, 2.0))
    X, y = data.X_train[:10], data.y_train[:10]
    (loss0, grads0), (loss1, grads1) = plain.loss(X, y), heavy.loss(X, y)
    weights = {name: heavy.params[name] for name in heavy.params if name.startswith("W")}
    assert len(weights) == 3
    assert loss1 - loss0 == pytest.approx(sum(np.sum(w**2) for w in weights.values()), rel=1e-12)
    for name, grad in grads1.items():
        np.testing.assert_allclose(grad - grads0[name], 2.0 * weights[name] if name in weights else 0, atol=1e-12)


@pytest.mark.parametrize(
    ("normalization", "keep", "loss", "reg"),
    list(itertools.product([None, "batchnorm", "layernorm"], [1.0, 0.6], ["softmax", "svm"], [0.0, 3.14])),
)
def test_gradients_against_numerical_ones(backend, normalization, keep, loss, reg):
    data = blobs()
    model = net(data, backend, normalization=normalization, dropout_keep_ratio=keep, loss=loss, reg=reg)
    errors = fcnet.gradcheck(model, data.X_train[:12], data.y_train[:12], samples=12)
    assert set(errors) == set(model.params)
    assert max(errors.values()) < 1e-5, errors


def test_running_statistics_serve_evaluation(backend):
    data = blobs()
    model = net(data, backend, normalization="batchnorm", dtype="float64")
    before = model.scores(data.X_val)
    for _ in range(200):
        model.loss(data.X_train, data.y_train)
    scores, _ = model.forward(fcnet.backends.step.direct, backend.asarray(data.X_train), model.mask_streams(0))
    after = model.scores(data.X_train)
    np.testing.assert_allclose(after, backend.to_numpy(scores), rtol=1e-3, atol=1e-4)  # eps and 0.9**200 remain
    assert not np.allclose(before, model.scores(data.X_val))


def test_dropout_is_for_training_only_and_a_function_of_the_step():
    data = blobs()
    model = net(data, dropout_keep_ratio=0.5)
    X, y = data.X_train[:10], data.y_train[:10]
    assert model.loss(X, y, step=3)[0] == model.loss(X, y, step=3)[0]
    assert model.loss(X, y, step=3)[0] != model.loss(X, y, step=4)[0]
    np.testing.assert_array_equal(model.scores(X), net(data).scores(X))


def test_images_are_flattened_and_bytes_are_numbers():
    X = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 4), dtype=np.uint8)
    model = fcnet.FullyConnectedNet([6], 48, 2, device="cpu")
    np.testing.assert_array_equal(model.scores(X), model.scores(X.reshape(5, 48).astype(np.float32)))


def test_one_hot_labels_are_labels(backend):
    data = blobs()
    model = net(data, backend, dtype="float64")
    X, y = data.X_train[:9], data.y_train[:9]
    assert model.loss(X, y)[0] == pytest.approx(model.loss(X, np.eye(3)[y])[0], rel=1e-14)


def test_predictions_agree_with_scores_and_with_each_other_in_parts(backend):
    data = blobs()
    model = net(data, backend)
    scores = model.scores(data.X_train)
    assert isinstance(scores, np.ndarray)
    np.testing.assert_array_equal(model.predict(data.X_train), scores.argmax(axis=1))
    np.testing.assert_allclose(model.scores(data.X_train, batch_size=7), scores, rtol=1e-5, atol=1e-6)
    proba = model.predict_proba(data.X_train)
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(np.log(proba[:, 0] / proba[:, 1]), scores[:, 0] - scores[:, 1], rtol=1e-4, atol=1e-4)


def test_results_are_where_the_inputs_were(backend):
    data = blobs()
    model = net(data, backend)
    assert isinstance(model.predict(data.X_val), np.ndarray)
    assert backend.owns(model.predict(backend.asarray(data.X_val)))


def test_gradients_of_two_calls_are_two_things():
    data = blobs()
    model = net(data)
    _, first = model.loss(data.X_train[:5], data.y_train[:5])
    kept = {name: grad.copy() for name, grad in first.items()}
    model.loss(data.X_train[5:10], data.y_train[5:10])
    for name in kept:
        np.testing.assert_array_equal(first[name], kept[name])


def test_inputs_are_not_changed():
    data = blobs(dtype="float32")
    X, y = data.X_train.copy(), data.y_train.copy()
    model = net(data, normalization="batchnorm", dropout_keep_ratio=0.5)
    model.loss(data.X_train, data.y_train)
    model.predict(data.X_train)
    np.testing.assert_array_equal(data.X_train, X)
    np.testing.assert_array_equal(data.y_train, y)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_a_copy_is_a_network_of_its_own(copied):
    data = blobs()
    model = net(data, normalization="batchnorm")
    other = copied(model)
    np.testing.assert_array_equal(other.scores(data.X_val), model.scores(data.X_val))
    other.params.flat[...] = 0  # still what the views of the copy see
    assert not other.params["W1"].any()
    assert model.params["W1"].any()


def test_two_layer_net_is_a_fully_connected_net_with_one_hidden_layer():
    two = fcnet.TwoLayerNet(6, 8, 3, device="cpu", seed=5)
    deep = fcnet.FullyConnectedNet([8], 6, 3, device="cpu", seed=5)
    X = blobs().X_val
    np.testing.assert_array_equal(two.scores(X), deep.scores(X))
    assert list(two.params) == ["W1", "b1", "W2", "b2"]


def test_astype_keeps_everything():
    data = blobs()
    model = net(data, normalization="batchnorm")
    model.set_preprocessing(np.arange(6.0), np.full(6, 2.0))
    double = model.astype("float64")
    assert double.dtype == np.float64
    np.testing.assert_allclose(double.scores(data.X_val), model.scores(data.X_val), rtol=1e-4, atol=1e-5)


def test_reg_may_be_set_at_any_time():
    data = blobs()
    model = net(data, dtype="float64")
    loss = model.loss(data.X_train, data.y_train)[0]
    model.reg = 1.0
    weights = sum(np.sum(model.params[f"W{i}"] ** 2) for i in (1, 2, 3))
    assert model.loss(data.X_train, data.y_train)[0] == pytest.approx(loss + 0.5 * weights)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_dims": 100}, r"hidden_dims: expected a list of widths such as \[100, 100\], got 100"),
        ({"hidden_dims": "100"}, "hidden_dims: expected a list of widths"),
        ({"hidden_dims": [0]}, "hidden_dims: expected 1 or more, got 0"),
        ({"hidden_dims": [2.5]}, "hidden_dims: expected an integer, got 2.5"),
        ({"input_dim": -1}, "input_dim: expected 1 or more, got -1"),
        ({"num_classes": 1}, "num_classes: expected at least 2, got 1"),
        ({"activation": "rleu"}, "activation: .*did you mean 'relu'"),
        ({"loss": "sofmax"}, "loss: .*did you mean 'softmax'"),
        ({"normalization": "batchnrm"}, "normalization: .*did you mean 'batchnorm'"),
        ({"dropout_keep_ratio": 0}, "dropout_keep_ratio: expected a probability to keep a unit"),
        ({"dropout_keep_ratio": 1.5}, "dropout_keep_ratio: .*got 1.5"),
        ({"dropout_keep_ratio": "half"}, "dropout_keep_ratio: expected a number, got 'half'"),
        ({"reg": -1}, "reg: expected 0 or more"),
        ({"reg": float("nan")}, "reg: expected a finite number"),
        ({"init": "hee"}, "init: .*did you mean 'he'"),
        ({"init": "he", "weight_scale": 0.1}, "init and weight_scale: expected one of them"),
        ({"weight_scale": -0.1}, "weight_scale: expected a standard deviation of 0 or more"),
        ({"dtype": "float16"}, "dtype: expected one of float32, float64; got 'float16'"),
        ({"dtype": "flaot32"}, "dtype: .*did you mean 'float32'"),
        ({"seed": -1}, "seed: expected 0 to"),
        ({"seed": 1.0}, "seed: expected an integer"),
        ({"device": "cpuu"}, "device: expected 'auto', 'cpu', 'cuda' or 'cuda:N', got 'cpuu'"),
    ],
)
def test_bad_arguments(options, message):
    arguments = {"hidden_dims": [5], "input_dim": 4, "num_classes": 3, "device": "cpu"} | options
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        fcnet.FullyConnectedNet(**arguments)
    assert "\n" not in str(caught.value)


GOOD_X, GOOD_Y = np.zeros((4, 6), np.float32), np.array([0, 1, 2, 0])


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        ([[1.0] * 6], GOOD_Y[:1], "X: expected an array, got list; use numpy.asarray"),
        (np.zeros((4, 5)), GOOD_Y, r"X: expected 6 features per sample, got 5 \(shape \(4, 5\)\)"),
        (np.zeros(6), GOOD_Y[:1], r"X: expected \(N, 6\), got shape \(6,\); a single sample is X\[None, :\]"),
        (np.zeros((0, 6)), GOOD_Y[:0], "X: expected at least one sample"),
        (np.full((4, 6), "a"), GOOD_Y, "X: expected real numbers"),
        (np.full((4, 6), 1j), GOOD_Y, "X: expected real numbers"),
        (np.where(np.arange(24).reshape(4, 6) == 8, np.nan, 0), GOOD_Y, r"X: .* got 1 NaN or infinite.*\[1, 2\]"),
        (np.full((4, 6), np.inf), GOOD_Y, "X: expected finite numbers, got 24"),
        (GOOD_X, [0, 1, 2, 0], "y: expected an array, got list"),
        (GOOD_X, GOOD_Y[:3], r"y: expected 4 labels.*got shape \(3,\)"),
        (GOOD_X, GOOD_Y[:, None], r"y: expected 4 labels"),
        (GOOD_X, np.array([0, 1, 3, 0]), "y: expected labels 0 to 2, got 3 at 2"),
        (GOOD_X, np.array([0, -1, 2, 0]), "y: expected labels 0 to 2, got -1 at 1"),
        (GOOD_X, GOOD_Y.astype(float), r"y: expected integer labels, got dtype float64; use y.astype\(int\)"),
        (GOOD_X, np.ones((4, 3)), "y: expected one-hot rows"),
    ],
)
def test_bad_data(X, y, message):
    model = fcnet.FullyConnectedNet([5], 6, 3, device="cpu")
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        model.loss(X, y)
    assert "\n" not in str(caught.value)


def test_large_finite_data_are_not_called_infinite():
    model = fcnet.FullyConnectedNet([5], 6, 3, device="cpu", dtype="float64")
    X = np.full((4, 6), 1e308)
    X[1] *= -1
    fcnet.validation.check_finite("X", X)
    with np.errstate(all="ignore"):
        model.scores(X / 1e300)


def test_probabilities_need_the_softmax_loss():
    model = fcnet.FullyConnectedNet([5], 6, 3, loss="svm", device="cpu")
    with pytest.raises(ValueError, match=r"predict_proba: expected a .* 'softmax' or 'bce', got loss='svm'"):
        model.predict_proba(GOOD_X)


def test_repr_says_what_it_is():
    model = fcnet.FullyConnectedNet([5], 6, 3, normalization="batchnorm", dropout_keep_ratio=0.5, device="cpu")
    assert repr(model) == ("<FullyConnectedNet 6-5-3, relu, batchnorm, softmax, dropout keeps 0.5, float32 on cpu>")


@pytest.mark.parametrize("value", [-1, float("nan"), None, [1], "a", 10**400])
def test_reg_is_checked_when_it_is_set(value):
    model = net(blobs())
    with pytest.raises((ValueError, TypeError), match="reg: expected"):
        model.reg = value
    model.reg = np.float32(0.5)
    assert type(model.config["reg"]) is float


def test_params_are_assigned_by_item():
    model = net(blobs())
    with pytest.raises(AttributeError):
        model.params = {}
    with pytest.raises(KeyError, match="no parameter 'W9'; there are W1, b1"):
        model.params["W9"]
    for value in ("a", [[1], [2, 3]], np.full((6, 8), 1j)):
        with pytest.raises(TypeError, match="expected an array"):
            model.params["W1"] = value


@pytest.mark.parametrize("step", [-1, 2**64, None, "a", 1.5, True])
def test_steps_are_checked(step):
    data = blobs()
    with pytest.raises((ValueError, TypeError), match="step: expected"):
        net(data, dropout_keep_ratio=0.5).loss(data.X_val, data.y_val, step=step)


@pytest.mark.parametrize("options", [{"samples": 0}, {"samples": 1.5}, {"h": 0}, {"h": float("nan")}, {"h": "a"}])
def test_gradcheck_options(options):
    data = blobs()
    with pytest.raises((ValueError, TypeError), match=rf"{next(iter(options))}: expected"):
        fcnet.gradcheck(net(data), data.X_val, data.y_val, **options)


def test_masked_arrays_are_refused():
    data = blobs()
    with pytest.raises(TypeError, match="X: expected an array without mask"):
        net(data).scores(np.ma.masked_array(data.X_val, data.X_val > 1))


@pytest.mark.parametrize("shift", [[0] * 6, None, np.zeros(5), np.full(6, np.nan), np.full(6, "a")])
def test_bad_preprocessing(shift):
    with pytest.raises(ValueError, match="shift: expected"):
        net(blobs()).set_preprocessing(shift, np.ones(6))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "tanh"}, "hidden_dims and activation: expected hidden layers for 'tanh', got none; name"),
        ({"activation": "maxout", "maxout_pieces": 3}, "hidden_dims and activation: expected hidden layers for 'max"),
        ({"normalization": "layernorm"}, "hidden_dims and normalization: expected hidden layers for 'layernorm'"),
        ({"dropout_keep_ratio": 0.5}, "hidden_dims and dropout_keep_ratio: expected hidden layers for 0.5, got none"),
    ],
)
def test_options_of_hidden_layers_without_any(options, message):
    with pytest.raises(ValueError, match=message):
        net(blobs(), hidden=(), **options)
    net(blobs(), hidden=(5,), **options)
    net(blobs(), hidden=(), activation=[], normalization=None, dropout_keep_ratio=1)


@pytest.mark.parametrize("ratio", [0.5, "0.5", 1])
def test_a_ratio_for_dropout_is_told_where_it_belongs(ratio):
    hint = r"; the probability to keep is --dropout-keep \(dropout_keep_ratio\)$"
    with pytest.raises(ValueError, match=f"dropout: expected one of inverted, plain; got {ratio!r}{hint}"):
        net(blobs(), dropout=ratio)
    with pytest.raises(ValueError, match=r"got 'plan'; did you mean 'plain'\?$"):
        net(blobs(), dropout="plan")


def test_a_copy_is_another_network_with_the_same_weights(backend, host):
    model = fcnet.FullyConnectedNet([5], 4, 3, normalization="batchnorm", seed=3, device=backend)
    model.set_preprocessing(np.ones(4), np.full(4, 2.0))
    model.classes = ("a", "b", "c")
    model.freeze([1])
    other = model.copy(dtype="float64", reg=0.5)
    assert (other.device, other.dtype, other.reg, other.classes, other.frozen) == (
        model.device, np.dtype("float64"), 0.5, model.classes, (),
    )  # fmt: skip
    for name in model.params:
        np.testing.assert_array_equal(host(other.params[name]), host(model.params[name]))
    np.testing.assert_array_equal(host(other.preprocessing[1]), np.full(4, 2.0))
    other.params["W1"] = np.zeros((4, 5))
    assert host(model.params["W1"]).any()
    assert model.copy(device="cpu").device == "cpu"
