"""The book's functions, gradient, util and two_layer_net, against its printed figures and against loops."""

import math

import numpy as np
import pytest

from fcnet.compat import dlfs
from fcnet.compat.dlfs import TwoLayerNet, functions, shuffle_dataset, smooth_curve
from fcnet.tools.gradcheck import relative_error
from tests import oracles
from tests.small import blobs

ELEMENTWISE = {
    "identity_function": lambda x: x,
    "step_function": lambda x: int(x > 0),
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "sigmoid_grad": lambda x: math.exp(-x) / (1 + math.exp(-x)) ** 2,
    "relu": lambda x: max(x, 0.0),
    "relu_grad": lambda x: float(x >= 0),
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_element_by_element(name, rng):
    function, expected = getattr(functions, name), ELEMENTWISE[name]
    for x in (np.array([-1.0, 0.0, 2.0]), rng.normal(size=(2, 3)), rng.normal(size=(2, 6))[:, ::2]):
        before = x.copy()
        out = function(x)
        np.testing.assert_allclose(out, [[expected(v) for v in row] for row in np.atleast_2d(x).tolist()]
                                   if x.ndim == 2 else [expected(v) for v in x.tolist()], rtol=1e-13)  # fmt: skip
        assert out.shape == x.shape
        assert np.array_equal(x, before)
    assert function(0.5) == pytest.approx(expected(0.5), rel=1e-14), "a number"
    assert np.ndim(function(0.5)) == 0
    np.testing.assert_allclose(function(np.array([-2, 0, 3])), [expected(v) for v in (-2, 0, 3)])
    integers = "float64" if name.startswith("sigmoid") else "int64"
    assert np.asarray(function(np.array([-2, 3]))).dtype == integers
    assert np.asarray(function(np.float32([1.0]))).dtype == ("int64" if name == "step_function" else "float32")


def test_the_books_examples():
    np.testing.assert_allclose(functions.sigmoid(np.array([-1.0, 1.0, 2.0])), [0.26894142, 0.73105858, 0.88079708])
    assert functions.step_function(np.array([-1.0, 1.0, 2.0])).tolist() == [0, 1, 1]
    assert functions.sigmoid(np.array([-1e6, 1e6])).tolist() == pytest.approx([0, 1])
    np.testing.assert_allclose(
        functions.softmax(np.array([0.3, 2.9, 4.0])), [0.01821127, 0.24519181, 0.73659691], atol=1e-8
    )
    np.testing.assert_allclose(functions.softmax(np.array([1010, 1000, 990])), [9.99954600e-01, 4.53978686e-05, 0.0],
                               atol=1e-8)  # fmt: skip
    t = [0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
    right = [0.1, 0.05, 0.6, 0.0, 0.05, 0.1, 0.0, 0.1, 0.0, 0.0]
    wrong = [0.1, 0.05, 0.1, 0.0, 0.05, 0.1, 0.0, 0.6, 0.0, 0.0]
    for y, squares, entropy in ((right, 0.0975, 0.51082545709933802), (wrong, 0.5975, 2.3025840929945458)):
        assert functions.sum_squared_error(np.array(y), np.array(t)) == pytest.approx(squares, rel=1e-14)
        assert functions.mean_squared_error(np.array(y), np.array(t)) == functions.sum_squared_error(y, t)
        assert functions.cross_entropy_error(np.array(y), np.array(t)) == pytest.approx(entropy, rel=1e-15)


def test_softmax_of_rows(rng):
    x = 3 * rng.normal(size=(4, 5))
    expected = [[math.exp(v) / math.fsum(map(math.exp, row)) for v in row] for row in x.tolist()]
    np.testing.assert_allclose(functions.softmax(x), expected, rtol=1e-13)
    np.testing.assert_allclose(functions.softmax(x[2]), expected[2], rtol=1e-13)
    np.testing.assert_allclose(functions.softmax(x.tolist()), expected, rtol=1e-13)
    np.testing.assert_allclose(functions.softmax(np.stack([x, x[::-1]])), [expected, expected[::-1]], rtol=1e-13)
    assert functions.softmax(2.5) == functions.softmax(np.array(-3)) == 1, "a number is the score of one class"
    assert np.ndim(functions.softmax(2.5)) == 0


def test_losses_of_a_batch(rng):
    x, labels = rng.normal(size=(4, 5)), np.array([3, 0, 4, 3])
    one_hot = np.eye(5)[labels]
    y = functions.softmax(x)
    entropy = math.fsum(-math.log(y[n, label] + 1e-7) for n, label in enumerate(labels)) / 4
    squares = 0.5 * math.fsum((y[n, c] - one_hot[n, c]) ** 2 for n in range(4) for c in range(5))
    assert functions.sum_squared_error(y, one_hot) == pytest.approx(squares, rel=1e-13), "a sum, over the batch too"
    for t in (labels, one_hot, one_hot.astype(int), labels.astype(np.uint8), labels.tolist()):
        assert functions.cross_entropy_error(y, t) == pytest.approx(entropy, rel=1e-13)
        assert functions.softmax_loss(x, t) == pytest.approx(entropy, rel=1e-13)
    soft = 0.2 + 0.5 * one_hot  # the largest of a row alone counts
    assert functions.cross_entropy_error(y, soft) == functions.cross_entropy_error(y, labels)
    for t in (np.array([3]), 3, one_hot[0]):
        assert functions.cross_entropy_error(y[0], t) == pytest.approx(-math.log(y[0, 3] + 1e-7), rel=1e-13)
        assert functions.softmax_loss(x[0], t) == functions.cross_entropy_error(y[0], t)
    assert functions.cross_entropy_error(np.array([[1.0, 0.0]]), [1]) == pytest.approx(-math.log(1e-7))
    with pytest.raises(ValueError, match=r"t: expected 4 labels, shape \(4,\) or one-hot \(4, 5\), got shape \(3,\)"):
        functions.cross_entropy_error(y, labels[:3])
    with pytest.raises(ValueError, match=r"t: expected labels 0 to 4, got 5 at 1"):
        functions.softmax_loss(x, np.array([1, 5, 0, 0]))


def test_losses_on_each_device(rng, device):
    x, labels = rng.normal(size=(4, 5)), np.array([3, 0, 4, 3])
    for t in (labels, np.eye(5)[labels]):
        for name in ("cross_entropy_error", "softmax_loss"):
            function, scores = getattr(functions, name), abs(x)
            assert function(device(scores), device(t)) == pytest.approx(function(scores, t), rel=1e-13)
    there = functions.sum_squared_error(device(x), device(2 * x))
    assert there == pytest.approx(0.5 * math.fsum(v * v for v in x.ravel()))


def test_numerical_gradient():
    x = np.array([3.0, 4.0])
    np.testing.assert_allclose(dlfs.numerical_gradient(lambda x: np.sum(x**2), x), [6, 8], rtol=1e-8)
    assert x.tolist() == [3, 4]
    W = np.array([[0.5, -1.0], [2.0, 3.0]])
    grad = dlfs.numerical_gradient(lambda _: (W**3).sum(), W)
    np.testing.assert_allclose(grad, 3 * W**2 + 1e-8, rtol=1e-9, err_msg="f may not read its argument; h is 1e-4")


def test_numerical_gradients_of_integers_are_the_books():
    """x + h is 3 again and x - h is 2, so (25 - 20) / 2e-4; the gradient is rounded towards 0 as well."""
    x = np.array([3, -4])
    grad = dlfs.numerical_gradient(lambda x: np.sum(x**2), x)
    assert grad.dtype == x.dtype
    assert grad.tolist() == [25_000, -35_000]
    assert x.tolist() == [3, -4]


def test_numerical_gradients_row_by_row():
    X = np.array([[3.0, 4.0], [0.0, 2.0], [1.0, -1.0]])
    seen = []
    grad = dlfs.gradient.numerical_gradient_2d(lambda row: seen.append(row.shape) or np.sum(row**2), X)
    np.testing.assert_allclose(grad, 2 * X, atol=1e-8)
    assert set(seen) == {(2,)}
    np.testing.assert_allclose(dlfs.gradient.numerical_gradient_2d(lambda x: np.sum(x**2), X[0]), [6, 8], rtol=1e-8)


def test_the_size_of_a_feature_map():
    assert dlfs.util.conv_output_size(28, 5) == 24
    assert dlfs.util.conv_output_size(7, 3, stride=2, pad=1) == 4


def test_the_two_layer_net(rng):
    net = TwoLayerNet(input_size=6, hidden_size=5, output_size=3)
    assert {name: value.shape for name, value in net.params.items()} == {
        "W1": (6, 5), "b1": (5,), "W2": (5, 3), "b2": (3,)
    }  # fmt: skip
    assert list(net.layers) == ["Affine1", "Relu1", "Affine2"]
    assert net.lastLayer is net.last_layer
    wide = TwoLayerNet(300, 200, 3)
    assert wide.params["W1"].std() == pytest.approx(0.01, rel=0.02)
    net = TwoLayerNet(6, 5, 3, weight_init_std=0.7)
    for name in ("b1", "b2"):
        net.params[name] += rng.normal(size=net.params[name].shape)
    x, labels = rng.normal(size=(7, 6)), rng.integers(3, size=7)
    hidden = np.maximum(x @ net.params["W1"] + net.params["b1"], 0)
    scores = hidden @ net.params["W2"] + net.params["b2"]
    np.testing.assert_allclose(net.predict(x), scores, rtol=1e-12)
    assert net.loss(x, labels) == pytest.approx(oracles.softmax_loss(scores, labels)[0], abs=1e-5)  # but for the 1e-7
    assert net.accuracy(x, np.eye(3)[labels]) == np.mean(scores.argmax(axis=1) == labels)
    numeric, analytic = net.numerical_gradient(x, labels), net.gradient(x, labels)
    for name, grad in analytic.items():
        assert relative_error(numeric[name], grad, floor=1e-4) < 1e-5, name


def test_the_two_layer_net_learns():
    data = blobs()
    net = TwoLayerNet(6, 20, 3)
    for _ in range(200):
        for name, grad in net.gradient(data.X_train, data.y_train).items():
            net.params[name] -= 0.5 * grad
    assert net.accuracy(data.X_test, data.y_test) > 0.9


def test_shuffle_dataset():
    x, t = np.arange(40).reshape(20, 2, 1, 1), np.arange(20)
    x_new, t_new = shuffle_dataset(x, t, seed=0)
    assert np.array_equal(x_new[:, 0, 0, 0], 2 * t_new), "samples keep their labels"
    assert sorted(t_new.tolist()) == list(range(20))
    assert not np.array_equal(t_new, t)
    assert t.tolist() == list(range(20))
    assert np.array_equal(shuffle_dataset(x, t, seed=0)[1], t_new)
    assert not np.array_equal(shuffle_dataset(x, t, seed=1)[1], t_new)
    with pytest.raises(ValueError, match="t: expected a label for each sample of x, 20, got 19"):
        shuffle_dataset(x, t[1:])
    assert smooth_curve(np.ones(20)).tolist() == pytest.approx([1] * 20)
