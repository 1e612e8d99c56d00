"""The course's networks: its numbers, numerical gradients, its dictionaries, and agreement with fcnet's own."""

import copy
import math

import numpy as np
import pytest

import fcnet
from fcnet.compat.cs231n import FullyConnectedNet, TwoLayerNet, eval_numerical_gradient


def error(a, b):
    """max |a - b| relative to the largest element: tiny elements have no digits in a numerical gradient."""
    return float(np.max(np.abs(a - b)) / np.max(np.abs(a) + np.abs(b)))


def batch(count=6, dim=15, classes=10, seed=231):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, dim)), rng.integers(classes, size=count)


def notebook_two_layer_net():
    model = TwoLayerNet(input_dim=5, hidden_dim=50, num_classes=7, weight_scale=1e-3)
    model.params["W1"] = np.linspace(-0.7, 0.3, num=250).reshape(5, 50)
    model.params["b1"] = np.linspace(-0.1, 0.9, num=50)
    model.params["W2"] = np.linspace(-0.3, 0.4, num=350).reshape(50, 7)
    model.params["b2"] = np.linspace(-0.9, 0.1, num=7)
    return model, np.linspace(-5.5, 4.5, num=15).reshape(5, 3).T, np.array([0, 5, 1])


def test_two_layer_net_gives_the_notebooks_numbers():
    model, X, y = notebook_two_layer_net()
    p = model.params
    scores = np.maximum(X @ p["W1"] + p["b1"], 0) @ p["W2"] + p["b2"]
    losses = [math.log(sum(math.exp(s) for s in row)) - row[c] for row, c in zip(scores, y, strict=True)]
    data_loss = sum(losses) / 3
    l2 = float(np.sum(p["W1"] ** 2) + np.sum(p["W2"] ** 2))
    assert data_loss == pytest.approx(3.4702243556, abs=1e-10)
    assert data_loss + 0.5 * l2 == pytest.approx(26.5948426952, abs=1e-10)
    np.testing.assert_allclose(model.loss(X), scores, rtol=1e-12)
    np.testing.assert_allclose(scores[0, :2], [11.53165108, 12.2917344], rtol=1e-8)
    assert model.loss(X, y)[0] == pytest.approx(3.4702243556, abs=1e-10)
    model.reg = 1.0
    assert model.loss(X, y)[0] == pytest.approx(26.5948426952, abs=1e-10)


@pytest.mark.parametrize("reg", [0.0, 0.7])
def test_two_layer_net_gradients(reg):
    model, X, y = notebook_two_layer_net()
    model.reg = reg
    _, grads = model.loss(X, y)
    for name in grads:
        numeric = eval_numerical_gradient(lambda _: model.loss(X, y)[0], model.params[name], verbose=False)
        assert error(numeric, grads[name]) < 1e-6, name


def test_two_layer_net_defaults():
    model = TwoLayerNet()
    assert {name: value.shape for name, value in model.params.items()} == {
        "W1": (3072, 100), "b1": (100,), "W2": (100, 10), "b2": (10,)
    }  # fmt: skip
    assert all(value.dtype == "float64" for value in model.params.values())
    assert model.params["W1"].std() == pytest.approx(1e-3, rel=0.01)
    assert not model.params["b1"].any()
    assert not model.params["b2"].any()
    small = TwoLayerNet(input_dim=5, hidden_dim=50, num_classes=7, weight_scale=1e-3).params
    for name in ("W1", "W2"):
        assert abs(small[name].std() - 1e-3) < 1e-4, "what the notebook asserts"


@pytest.mark.parametrize("normalization", [None, "batchnorm", "layernorm"])
@pytest.mark.parametrize("reg", [0, 3.14])
@pytest.mark.parametrize("keep", [1, 0.75])
def test_gradients(normalization, reg, keep):
    X, y = batch()
    model = FullyConnectedNet(
        [12, 9], input_dim=15, num_classes=10, reg=reg, weight_scale=0.3, dtype=np.float64,
        normalization=normalization, dropout_keep_ratio=keep, seed=123,
    )  # fmt: skip
    _, grads = model.loss(X, y)
    assert set(grads) == set(model.params)
    for name in grads:
        numeric = eval_numerical_gradient(lambda _: model.loss(X, y)[0], model.params[name], verbose=False)
        if normalization == "batchnorm" and name in ("b1", "b2"):
            assert max(np.abs(numeric).max(), np.abs(grads[name]).max()) < 1e-7, "batch norm takes the bias off"
        else:
            assert error(numeric, grads[name]) < 1e-6, name


def test_the_loss_is_that_of_the_formulas():
    """A network with everything on, written out in plain NumPy."""
    X, y = batch()
    model = FullyConnectedNet([8, 5], 15, 10, normalization="batchnorm", reg=0.5, weight_scale=0.4, dtype=np.float64)
    out = X
    for i in (1, 2):
        out = out @ model.params[f"W{i}"] + model.params[f"b{i}"]
        out = np.maximum((out - out.mean(axis=0)) / np.sqrt(out.var(axis=0) + 1e-5), 0)
    scores = out @ model.params["W3"] + model.params["b3"]
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    expected = -np.log(p[np.arange(6), y]).mean() + 0.25 * sum((model.params[f"W{i}"] ** 2).sum() for i in (1, 2, 3))
    assert model.loss(X, y)[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("normalization", [None, "batchnorm", "layernorm"])
def test_it_is_fcnets_own_network(normalization):
    X, y = batch(8, 12, 4)
    X = X.reshape(8, 3, 2, 2)
    options = {"normalization": normalization, "weight_scale": 0.3, "dtype": "float64", "seed": 7}
    model = FullyConnectedNet([6, 5], 12, 4, **options)
    own = fcnet.FullyConnectedNet([6, 5], 12, 4, device="cpu", **options)
    assert list(model.params) == list(own.params)
    own.params.update(model.params)
    model.reg = own.reg = 0.3
    for _ in range(3):
        (loss, grads), (own_loss, own_grads) = model.loss(X, y), own.loss(X, y)
        assert loss == pytest.approx(own_loss, rel=1e-12)
        for name in grads:
            np.testing.assert_allclose(grads[name], own_grads[name], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(model.loss(X), own.scores(X), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(model.to_fcnet("cpu").scores(X), model.loss(X), rtol=1e-10, atol=1e-12)


def test_params_are_a_plain_dictionary():
    X, y = batch()
    model = FullyConnectedNet([8], 15, 10, weight_scale=0.1, dtype=np.float64)
    old = model.params["W1"]
    before, _ = model.loss(X, y)
    old[0, 0] += 1  # in place, as gradient checks do
    changed, _ = model.loss(X, y)
    assert changed != before
    model.params["W1"] = old - 0.5
    assert model.loss(X, y)[0] != changed
    assert old[0, 0] != model.params["W1"][0, 0], "an array taken before does not follow what is assigned later"
    model.params = {name: np.zeros_like(value) for name, value in model.params.items()}
    assert model.loss(X, y)[0] == pytest.approx(math.log(10))


def test_reg_may_be_set_at_any_time():
    X, y = batch()
    model = FullyConnectedNet([8], 15, 10, dtype=np.float64)
    plain, grads = model.loss(X, y)
    model.reg = 2.0
    loss, regularized = model.loss(X, y)
    weights = [model.params["W1"], model.params["W2"]]
    assert loss - plain == pytest.approx(sum((w**2).sum() for w in weights), rel=1e-9)
    for name in ("W1", "W2"):
        np.testing.assert_allclose(regularized[name] - grads[name], 2 * model.params[name], atol=1e-12)
    assert np.array_equal(regularized["b1"], grads["b1"]), "biases are not regularised"


@pytest.mark.parametrize("normalization", [None, "batchnorm", "layernorm"])
def test_gradients_of_two_calls_do_not_share_memory(normalization):
    X, y = batch()
    model = FullyConnectedNet([8, 8], 15, 10, normalization=normalization, reg=0.1)
    _, first = model.loss(X, y)
    kept = {name: value.copy() for name, value in first.items()}
    _, second = model.loss(-X, y)
    assert all(np.array_equal(first[name], kept[name]) for name in first)
    others = [*second.values(), *model.params.values()]
    assert not any(np.shares_memory(grad, other) for grad in first.values() for other in others)


def test_running_statistics_live_in_bn_params():
    X, y = batch()
    model = FullyConnectedNet([8, 7], 15, 10, normalization="batchnorm", weight_scale=0.3, dtype=np.float64)
    assert model.bn_params == [{"mode": "train"}, {"mode": "train"}]
    model.loss(X, y)
    z = X @ model.params["W1"] + model.params["b1"]
    np.testing.assert_allclose(model.bn_params[0]["running_mean"], 0.1 * z.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(model.bn_params[0]["running_var"], 0.1 * z.var(axis=0), rtol=1e-12)
    assert model.bn_params[1]["running_var"].shape == (7,)
    kept = model.bn_params[0]["running_mean"].copy()
    model.loss(X)
    assert model.bn_params[0]["mode"] == "test"
    assert np.array_equal(model.bn_params[0]["running_mean"], kept), "testing does not move them"
    model.loss(X, y)
    assert not np.array_equal(model.bn_params[0]["running_mean"], kept)
    model.bn_params[0]["momentum"] = 0.0  # the course's options are read at each call
    model.loss(X, y)
    np.testing.assert_allclose(model.bn_params[0]["running_mean"], z.mean(axis=0), rtol=1e-12)
    with pytest.raises(ValueError, match=r"bn_params\[0\]\['momentum'\]: expected fcnet's 0.9, got 0.0"):
        model.to_fcnet("cpu")


def test_dropout_by_seed():
    X, y = batch(20)
    options = {"dropout_keep_ratio": 0.5, "weight_scale": 0.3, "dtype": np.float64}
    seeded = FullyConnectedNet([30, 30], 15, 10, seed=5, **options)
    assert seeded.use_dropout
    assert seeded.dropout_param == {"mode": "train", "p": 0.5, "seed": 5}
    assert seeded.loss(X, y)[0] == seeded.loss(X, y)[0]
    free = FullyConnectedNet([30, 30], 15, 10, **options)
    losses = [free.loss(X, y)[0] for _ in range(3)]
    assert len(set(losses)) == 3, "a new mask at every call"
    assert np.array_equal(free.loss(X), free.loss(X)), "none when testing"
    assert np.array_equal(copy.deepcopy(free).loss(X), free.loss(X))


def test_the_layers_of_a_free_network_have_masks_of_their_own(monkeypatch):
    from fcnet.compat.cs231n import layers

    masks = []
    forward = layers.dropout_forward
    monkeypatch.setattr(layers, "dropout_forward", lambda x, p: masks.append(forward(x, p)[1][1]) or forward(x, p))
    X, y = batch(20)
    FullyConnectedNet([30, 30], 15, 10, dropout_keep_ratio=0.5).loss(X, y)
    assert len(masks) == 2
    assert not np.array_equal(*masks)


def test_without_dropout_there_is_no_dropout_param():
    model = FullyConnectedNet([8], 15, 10, seed=3)
    assert not model.use_dropout
    assert model.dropout_param == {}
    assert model.bn_params == []
    assert model.num_layers == 2
    assert FullyConnectedNet([8, 8], 15, 10, normalization="layernorm").bn_params == [{}, {}]


def test_everything_is_computed_in_the_networks_dtype():
    X, y = batch()
    model = FullyConnectedNet([8], 15, 10, normalization="batchnorm", reg=0.1)
    assert model.dtype is np.float32
    for data in (X, X.astype("float32"), (10 * X).astype("int64"), (10 * X).astype("uint8")):
        loss, grads = model.loss(data, y)
        assert type(loss) is float
        assert all(grad.dtype == "float32" for grad in grads.values())
        assert model.loss(data).dtype == "float32"


def test_initial_weights():
    assert FullyConnectedNet([200], input_dim=300).params["W1"].std() == pytest.approx(1e-2, rel=0.02)
    scaled = FullyConnectedNet([200], input_dim=300, normalization="batchnorm").params
    assert np.all(scaled["gamma1"] == 1)
    assert not scaled["beta1"].any()


def test_save(tmp_path):
    X, y = batch()
    model = FullyConnectedNet([8], 15, 10, normalization="batchnorm", weight_scale=0.2)
    model.loss(X, y)
    model.reg = 0.5
    model.save(tmp_path / "net.safetensors")
    loaded = fcnet.load(tmp_path / "net.safetensors", device="cpu")
    assert loaded.reg == 0.5
    np.testing.assert_allclose(loaded.scores(X), model.loss(X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: m.loss(np.zeros((2, 4))), ValueError, r"X: expected 15 features"),
        (lambda m: m.loss([[0.0] * 15]), TypeError, r"X: expected an array, got list"),
        (lambda m: m.loss(np.full((2, 15), np.nan)), ValueError, r"X: expected finite numbers"),
        (lambda m: m.loss(np.zeros((2, 15)), np.array([0, 10])), ValueError, r"y: expected labels 0 to 9, got 10"),
        (lambda m: m.loss(np.zeros((2, 15)), np.array([0])), ValueError, r"y: expected 2 labels"),
        (lambda m: FullyConnectedNet([8], normalization="batch"), ValueError, r"normalization.*'batchnorm'"),
        (lambda m: FullyConnectedNet([8], dropout_keep_ratio=0), ValueError, r"dropout_keep_ratio"),
        (lambda m: FullyConnectedNet([0]), ValueError, r"hidden_dims: expected 1 or more"),
        (lambda m: FullyConnectedNet([8], dtype=np.int32), ValueError, r"dtype"),
        (lambda m: TwoLayerNet(reg=-1), ValueError, r"reg: expected 0 or more"),
    ],
)
def test_bad_arguments_give_one_clear_line(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call(FullyConnectedNet([8], 15, 10))
    assert "\n" not in str(caught.value)


def test_what_a_net_remembers_of_its_calls_is_no_number():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((5, 4)), np.array([0, 1, 2, 2, 1])
    net = TwoLayerNet(4, 10, 3, weight_scale=0.1, reg=0.1)
    (loss, grads), (again, others) = net.loss(X, y), net.loss(X, y)
    assert loss == again
    assert all(np.array_equal(grads[name], others[name]) and grads[name] is not others[name] for name in grads)
    assert net.loss(X, np.eye(3)[y])[0] == net.loss(X, np.eye(3)[y])[0]
    for bad, labels, why in (
        (np.full_like(X, np.nan), y, "X: expected finite numbers"),
        (X, y + 1, "softmax_loss: y: expected labels 0 to 2, got 3"),
        (X, y.astype(float), "softmax_loss: y: expected integer labels"),
        (X[:, :3], y, "X: expected 4 features"),
        (X, y[:4], "softmax_loss: y: expected 5 labels"),
    ):
        with pytest.raises((TypeError, ValueError), match=why):
            net.loss(bad, labels)
    other = copy.deepcopy(net)
    other.params["W2"] = other.params["W2"].astype("float32")  # converted, each time anew
    for _ in range(2):
        assert other.loss(X, y)[0] == pytest.approx(loss, rel=1e-6)
        other.params["W2"] += 0
    other.params["W2"][...] = 0
    assert other.loss(X, y)[0] != pytest.approx(loss, rel=1e-6)
    net.params["W2"] = net.params["W2"][:, :2]
    with pytest.raises(ValueError, match="b: expected shape"):
        net.loss(X, y)
