"""What a network is trained for: regression, several labels, smoothed and weighted classes, and how it is judged."""

from __future__ import annotations

import numpy as np
import pytest

import fcnet
from fcnet.runs.checkpoint import write_model
from fcnet.runs.record import curves_png
from tests import oracles
from tests.small import blobs, net

N, D = 60, 4


def numbers(outputs=2, seed=0, kind="mse", flat=False):
    """Return a data set of numbers that a linear function of X gives, or of labels on or off."""
    rng = np.random.default_rng(seed)
    w = rng.standard_normal((D, outputs))
    parts = {}
    for part, count in (("train", N), ("val", 20), ("test", 15)):
        X = rng.standard_normal((count, D))
        y = X @ w + 0.5
        y = (y > 0).astype(int) if kind == "bce" else y
        parts |= {f"X_{part}": X, f"y_{part}": y[:, 0] if flat else y}
    return fcnet.data.Dataset(**parts, targets="numbers", name="numbers")


def train(data, loss, backend="cpu", **options):
    model = fcnet.FullyConnectedNet([16], D, data.num_classes, loss=loss, device=backend)
    how = {"update_rule": "adam", "optim_config": {"learning_rate": 1e-2}, "num_epochs": 60, "batch_size": 20}
    one = fcnet.Solver(model, data, verbose=False, **(how | options))
    one.train()
    return one


@pytest.mark.parametrize("flat", [False, True], ids=["(N, C)", "(N,)"])
def test_regression(backend, flat):
    data = numbers(1 if flat else 2, flat=flat)
    one = train(data, "mse", backend)
    predicted = one.model.predict(data.X_test)
    assert predicted.shape == data.y_test.shape
    rmse = np.sqrt(np.mean((predicted - data.y_test) ** 2))
    assert rmse < 0.3 < data.y_test.std()
    assert one.check_metric(data.X_test, data.y_test) == pytest.approx(rmse, rel=1e-5)
    assert one.metric.title == "rmse"
    assert one.best_val_metric == min(one.val_metric_history) < one.val_metric_history[0]
    assert one.history[one.best_epoch - 1]["val_rmse"] == one.best_val_metric
    assert one.history[-1]["train_rmse"] == one.train_metric_history[-1]
    assert "train_acc" not in one.history[0]
    for name in ("train_acc_history", "val_acc_history", "best_val_acc"):
        with pytest.raises(AttributeError, match=f"{name}: a network with loss 'mse' has none; use"):
            getattr(one, name)
    with pytest.raises(AttributeError, match="use check_metric"):
        one.check_accuracy(data.X_test, data.y_test)


@pytest.mark.parametrize("flat", [False, True], ids=["(N, C)", "(N,)"])
def test_several_labels(backend, flat):
    data = numbers(1 if flat else 3, kind="bce", flat=flat)
    one = train(data, "bce", backend)
    predicted, probable = one.model.predict(data.X_test), one.model.predict_proba(data.X_test)
    assert predicted.shape == data.y_test.shape
    assert predicted.dtype.kind == "i"
    assert set(np.unique(predicted)) == {0, 1}
    np.testing.assert_array_equal(predicted.reshape(probable.shape), probable > 0.5)
    np.testing.assert_allclose(probable, 1 / (1 + np.exp(-one.model.scores(data.X_test))), rtol=1e-5)
    share = np.mean(predicted == data.y_test)
    assert share > 0.85
    assert one.check_metric(data.X_test, data.y_test) == pytest.approx(share)
    assert one.best_val_metric == max(one.val_metric_history) == max(row["val_label_acc"] for row in one.history)


@pytest.mark.parametrize("loss", ["mse", "bce"])
def test_the_loss_is_the_oracles(backend, loss):
    data = numbers(3, kind=loss)
    model = fcnet.FullyConnectedNet([5], D, 3, loss=loss, device=backend, dtype="float64")
    expected = getattr(oracles, f"{loss}_loss")(model.scores(data.X_train), data.y_train)[0]
    assert model.loss(data.X_train, data.y_train)[0] == pytest.approx(expected, rel=1e-12)


def test_one_output_takes_both_shapes():
    data = numbers(1)
    model = fcnet.FullyConnectedNet([5], D, 1, loss="mse", device="cpu")
    flat, column = (model.loss(data.X_train, y)[0] for y in (data.y_train[:, 0], data.y_train))
    assert flat == column


def test_label_smoothing_in_a_network(backend):
    data = blobs()
    model = net(data, backend, label_smoothing=0.2, dtype="float64")
    expected = oracles.softmax_loss(model.scores(data.X_val), oracles.smooth(data.y_val, 3, 0.2))[0]
    for y in (data.y_val, np.eye(3)[data.y_val], np.eye(3, dtype=int)[data.y_val]):
        assert model.loss(data.X_val, y)[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.2}, {"loss": "svm"}], ids=str)
def test_sample_weights(backend, options):
    data = blobs()
    model = net(data, backend, dtype="float64", **options)
    X, y = data.X_train[:10], data.y_train[:10]
    loss, grads = model.loss(X, y, sample_weight=np.ones(10))
    plain, plain_grads = model.loss(X, y)
    assert loss == pytest.approx(plain, rel=1e-14)
    # A weight of 2 is a sample seen twice; a weight of 0 one never seen.
    weights = np.array([2.0, *[1.0] * 7, 0.0, 0.0])
    loss, grads = model.loss(X, y, sample_weight=weights)
    rows = [0, 0, *range(1, 8)]
    other, other_grads = model.loss(X[rows], y[rows])
    assert loss == pytest.approx(other * 9 / 10, rel=1e-13)
    for name in grads:
        mine, theirs = (model.backend.to_numpy(g[name]) for g in (grads, other_grads))
        np.testing.assert_allclose(mine, theirs * 9 / 10, rtol=1e-10, atol=1e-14)
    assert any((model.backend.to_numpy(grads[n]) != model.backend.to_numpy(plain_grads[n])).any() for n in grads)


X = np.zeros((4, D))


@pytest.mark.parametrize(
    ("loss", "y", "message"),
    [
        ("mse", np.zeros(4), r"y: expected numbers of shape \(4, 2\), got shape \(4,\)"),
        ("mse", np.zeros((4, 3)), r"y: expected numbers of shape \(4, 2\), got shape \(4, 3\)"),
        ("mse", np.full((4, 2), np.nan), "y: expected finite numbers, got 8 NaN"),
        ("mse", np.full((4, 2), 1e300), "y: expected values that float32 can hold"),
        ("mse", np.full((4, 2), "a"), "y: expected numbers, got dtype <U1"),
        ("mse", [[0.0, 1.0]] * 4, "y: expected an array, got list"),
        ("bce", np.full((4, 2), 2), "y: expected labels of 0 and 1, .* got 2; for other classes use loss 'softmax'"),
        ("bce", np.full((4, 2), -0.5), "y: expected labels of 0 and 1, or probabilities between, got -0.5"),
        ("softmax", np.full(4, 0.5), "y: expected integer labels"),
        ("svm", np.full((4, 2), 0.5), "y: expected labels, or rows of zeros with a one, with loss 'svm', got other"),
    ],
)
def test_targets_that_do_not_suit(loss, y, message):
    model = fcnet.FullyConnectedNet([5], D, 2, loss=loss, device="cpu")
    with pytest.raises((ValueError, TypeError), match=message):
        model.loss(X, y)
    if "float32 can hold" in message:
        return  # a Solver scales them
    with pytest.raises((ValueError, TypeError), match=message.replace("y: ", "y_train: ", 1)):
        fcnet.Solver(model, _unchecked(X, y), verbose=False)


def _unchecked(X, y):
    """Return a Dataset that has let anything through, to see what the Solver says."""
    data = object.__new__(fcnet.data.Dataset)
    for name, value in {"X_train": X, "y_train": y, "X_val": X, "y_val": y, "X_test": None, "y_test": None}.items():
        object.__setattr__(data, name, value)
    return data


@pytest.mark.parametrize(
    "weights", [np.ones(3), np.full(4, -1.0), np.full(4, np.nan), [1.0] * 4, np.full(4, "a")], ids=str
)
def test_bad_sample_weights(weights):
    model = fcnet.FullyConnectedNet([5], D, 2, device="cpu")
    with pytest.raises(ValueError, match="sample_weight: expected"):
        model.loss(X, np.zeros(4, int), sample_weight=weights)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "svm", "label_smoothing": 0.1}, "label_smoothing and loss: expected loss 'softmax'.* got loss 'svm'"),
        ({"label_smoothing": 1}, "label_smoothing: expected 0 <= label_smoothing < 1, got 1"),
        ({"label_smoothing": -0.1}, "label_smoothing: expected 0 <= label_smoothing < 1"),
        ({"label_smoothing": "a"}, "label_smoothing: expected a number"),
        ({"num_classes": 1}, "num_classes: expected at least 2, got 1"),
        ({"num_classes": 0, "loss": "mse"}, "num_classes: expected 1 or more, got 0"),
        ({"loss": "msee"}, "loss: expected one of softmax, svm, mse, bce, poisson; .*did you mean 'mse'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        fcnet.FullyConnectedNet(**({"hidden_dims": [5], "input_dim": D, "num_classes": 3, "device": "cpu"} | options))


def test_a_dictionary_is_read_as_the_loss_needs():
    data = numbers(2)
    arrays = {f"{a}_{part}": array for part, pair in data.splits().items() for a, array in zip("Xy", pair, strict=True)}
    model = fcnet.FullyConnectedNet([5], D, 2, loss="mse", device="cpu")
    assert fcnet.Solver(model, arrays, verbose=False).data.targets == "numbers"
    model = fcnet.FullyConnectedNet([5], D, 2, device="cpu")
    with pytest.raises(TypeError, match="y_train: expected integer labels"):
        fcnet.Solver(model, arrays | {"y_train": data.y_train[:, 0]}, verbose=False)


def test_a_loss_of_zero_is_drawn():
    """Its logarithm is not; a warning fails the test."""
    pytest.importorskip("matplotlib")
    X, y = np.eye(D), np.zeros((D, 2))
    model = fcnet.FullyConnectedNet([3], D, 2, loss="mse", init="zeros", device="cpu")
    one = fcnet.Solver(model, fcnet.data.Dataset(X, y, X, y, targets="numbers"), num_epochs=2, verbose=False)
    one.train()
    assert one.loss_history == [0, 0]
    assert curves_png(one.record()).startswith(b"\x89PNG")


def test_no_smoothing_unless_asked_for():
    assert fcnet.nn.objective.Objective("softmax", 3).label_smoothing == 0 == net(blobs()).objective.label_smoothing


# Targets of any size


def houses(shift=0.0, scale=1.0, dtype="float64"):
    """Two outputs in units of their own, of which the first is a number of this size."""
    rng = np.random.default_rng(5)
    X = rng.standard_normal((120, D))
    y = np.c_[shift + scale * (X[:, 0] + X[:, 1]), 10 * X[:, 2] - 3]
    parts = {"X_train": X[:80], "y_train": y[:80], "X_val": X[80:], "y_val": y[80:]}
    return fcnet.data.Dataset(**parts, targets="numbers"), X[80:], y[80:]


def trained(data, backend, **options):
    model = fcnet.FullyConnectedNet([16], D, 2, loss="mse", device=backend, **options)
    how = {"update_rule": "adam", "optim_config": {"learning_rate": 0.01}, "num_epochs": 40, "batch_size": 16}
    one = fcnet.Solver(model, data, **how, verbose=False, preprocess="none")
    one.train()
    return one


@pytest.mark.parametrize(("shift", "scale"), [(1e9, 1.0), (-3e5, 2e5), (0.0, 1e-12), (7e300, 1e300)])
def test_targets_of_any_size_are_learned_alike(shift, scale, backend):
    plain, (data, X, y) = trained(houses()[0], backend), houses(shift, scale)
    one = trained(data, backend)
    np.testing.assert_allclose(one.loss_history, plain.loss_history, rtol=2e-2)
    predicted = one.model.predict(X)
    assert predicted.dtype == "float64"
    rmse = [np.sqrt(np.mean(((predicted - y)[:, k] / scale) ** 2)) for k, scale in enumerate((scale, 1.0))]
    assert rmse[0] < 0.5
    assert rmse[1] < 5
    largest = max(scale, 1.0)
    both = largest * np.sqrt(np.mean(((predicted - y) / largest) ** 2))
    assert one.check_metric(X, y) == pytest.approx(both, rel=1e-4)
    assert one.best_val_metric == pytest.approx(both, rel=1e-4)


def test_loss_and_gradients_are_those_of_the_scaled_targets(backend):
    data, X, y = houses(1e4, 1e3)
    model = trained(data, backend, dtype="float64").model
    shift, scale = data.y_train.mean(axis=0), 1 / data.y_train.std(axis=0)
    np.testing.assert_allclose(model.target_scaling, (shift, scale), rtol=1e-12)
    np.testing.assert_allclose(model.scores(X) / scale + shift, model.predict(X), rtol=1e-12)
    error = model.scores(X) - (y - shift) * scale
    assert model.loss(X, y)[0] == pytest.approx(np.mean(error**2), rel=1e-12)
    assert max(fcnet.gradcheck(model, X[:10], y[:10]).values()) < 1e-6


def test_the_scaling_stays_with_the_model(tmp_path, backend):
    data, X, _ = houses(1e4, 1e3)
    model = trained(data, backend).model
    model.save(tmp_path / "m")
    for other in (fcnet.load(tmp_path / "m", device=backend), model.copy()):
        np.testing.assert_array_equal(other.predict(X), model.predict(X))
    kept = model.target_scaling
    fcnet.Solver(model, houses()[0], verbose=False)
    np.testing.assert_array_equal(model.target_scaling, kept)
    with pytest.raises(ValueError, match="target_scaling and loss: expected loss 'mse', got 'softmax'"):
        fcnet.FullyConnectedNet([3], 2, 2, device="cpu").set_target_scaling([0, 0], [1, 1])
    for scale, message in (([1.0], "expected numbers of shape"), ([1.0, 0.0], "other than 0"), ([1, np.nan], "finite")):
        with pytest.raises(ValueError, match=f"scale: .*{message}"):
            model.set_target_scaling([0, 0], scale)


def test_a_model_from_before_there_was_a_scaling_keeps_its_units(tmp_path):
    data, X, _ = houses(1e4, 1e3)
    model = fcnet.FullyConnectedNet([3], D, 2, loss="mse", device="cpu")
    description = {"config": model.config, "classes": None, "features": None}
    write_model(tmp_path / "m", description, dict(model.params))
    old = fcnet.load(tmp_path / "m", device="cpu")
    np.testing.assert_array_equal(old.predict(X), model.predict(X))
    one = fcnet.Solver(old, data, update_rule="adam", num_epochs=1, verbose=False, preprocess="none")
    assert one.train()[0]["loss"] > 1e6


def test_counts_are_predicted_in_their_units_by_the_poisson_loss(backend):
    X = np.linspace(-1, 1, 40).reshape(-1, 1)
    y = np.round(500 * np.exp(X[:, 0]))
    data = fcnet.data.Dataset(X, y, X, y, targets="numbers")
    model = fcnet.FullyConnectedNet([5], 1, 1, loss="poisson", dtype="float64", device=backend)
    one = fcnet.Solver(model, data, num_epochs=1, verbose=False)
    assert model.predict(X).mean() == pytest.approx(y.mean(), rel=1)  # before any step: the output's bias is log(mean)
    one.train()
    np.testing.assert_allclose(model.predict(X), np.exp(model.scores(X)[:, 0]))
    rmse = np.sqrt(np.mean((model.predict(X) - y) ** 2))
    assert one.best_val_metric == pytest.approx(rmse)
    with pytest.raises(ValueError, match="y: expected counts or rates of 0 or more with loss 'poisson', got -1"):
        model.loss(X, -np.ones(40))
