"""The book's layers against slow loops, numerical gradients and the book's conventions."""

import math

import numpy as np
import pytest

from fcnet.compat.dlfs import Affine, BatchNormalization, Dropout, Relu, Sigmoid, SoftmaxWithLoss, Tanh
from fcnet.tools.gradcheck import numerical_gradient, relative_error
from tests.tolerances import assert_close

TOLERANCE = 1e-6  # of central differences in float64, with gradients of order one


def test_affine(rng):
    x, W, b, dout = (rng.normal(size=shape) for shape in ((5, 2, 3), (6, 4), (4,), (5, 4)))
    layer = Affine(W, b)
    out = layer.forward(x)
    rows = x.reshape(5, 6)
    expected = [
        [b[m] + math.fsum(rows[n, d] * W[d, m] for d in range(6)) for m in range(4)]
        for n in range(5)
    ]  # fmt: skip
    assert_close(out, expected, "float64", "gemm")
    dx = layer.backward(dout)
    assert dx.shape == layer.original_x_shape == (5, 2, 3)
    assert layer.x.shape == (5, 6)
    for array, grad in ((x, dx), (W, layer.dW), (b, layer.db)):
        assert relative_error(numerical_gradient(lambda _: layer.forward(x), array, dout), grad) < TOLERANCE


def test_affine_holds_the_arrays_it_is_given(rng):
    W, b = rng.normal(size=(2, 2)), np.zeros(2)
    layer = Affine(W, b)
    before = layer.forward(np.ones((1, 2)))
    W += 1
    b -= 3
    np.testing.assert_allclose(layer.forward(np.ones((1, 2))), before + 2 - 3, rtol=1e-12)


@pytest.mark.parametrize(
    ("layer", "formula"),
    [
        (Relu, lambda v: max(v, 0.0)),
        (Sigmoid, lambda v: 1 / (1 + math.exp(-v))),
        (Tanh, lambda v: (math.exp(v) - math.exp(-v)) / (math.exp(v) + math.exp(-v))),
    ],
)
def test_activations(layer, formula, rng):
    layer = layer()
    x, dout = rng.normal(size=(2, 3, 2, 2)), rng.normal(size=(2, 3, 2, 2))
    kept = x.copy(), dout.copy()
    out = layer.forward(x)
    assert_close(out, [[[[formula(v) for v in row] for row in a] for a in b] for b in x.tolist()], "float64", "loss")
    dx = layer.backward(dout)
    assert np.array_equal(x, kept[0])
    assert np.array_equal(dout, kept[1]), "the book's Relu writes into dout"
    numeric = numerical_gradient(type(layer)().forward, x, dout)
    assert relative_error(numeric, dx) < TOLERANCE


def test_relu_mask():
    layer = Relu()
    layer.forward(np.array([[-1.0, 0.0, 2.0]]))
    assert layer.mask.tolist() == [[True, True, False]]
    assert layer.backward(np.ones((1, 3))).tolist() == [[0, 0, 1]]


@pytest.mark.parametrize("one_hot", [False, True])
def test_softmax_with_loss(one_hot, rng):
    x, labels = 3 * rng.normal(size=(4, 3)), np.array([2, 0, 1, 1])
    t = np.eye(3, dtype=int)[labels] if one_hot else labels
    layer = SoftmaxWithLoss()
    loss = layer.forward(x, t)
    p = [[math.exp(s) / math.fsum(map(math.exp, row)) for s in row] for row in x.tolist()]
    logs = [math.log(row[label] + 1e-7) for row, label in zip(p, labels, strict=True)]
    assert loss == pytest.approx(-math.fsum(logs) / 4, rel=1e-13)
    assert isinstance(loss, float)
    assert layer.loss == loss
    assert layer.t is t
    assert_close(layer.y, p, "float64", "loss")
    numeric = numerical_gradient(lambda x: SoftmaxWithLoss().forward(x, t), x)
    assert relative_error(numeric, layer.backward()) < 5e-6, "the gradient leaves out the 1e-7"
    np.testing.assert_allclose(layer.backward(3), 3 * layer.backward(), rtol=1e-12)


def test_a_certain_mistake_has_a_finite_loss():
    loss = SoftmaxWithLoss().forward(np.array([[0.0, 800.0]]), np.array([0]))
    assert loss == pytest.approx(-math.log(1e-7), rel=1e-14)


def test_soft_labels_count_by_their_largest_in_the_loss_and_as_they_are_in_the_gradient():
    x, soft = np.array([[0.5, -1.0, 2.0], [0.0, 1.0, 1.5]]), np.array([[0.2, 0.7, 0.3], [0.6, 0.5, 0.1]])
    layer, hard = SoftmaxWithLoss(), SoftmaxWithLoss()
    assert layer.forward(x, soft) == hard.forward(x, np.array([1, 0]))
    np.testing.assert_allclose(layer.backward(), (layer.y - soft) / 2, rtol=1e-14)


@pytest.mark.parametrize("t", [np.array(2), np.array([2]), 2, np.array([0.0, 0.0, 1.0])])
def test_softmax_with_loss_of_one_sample(t):
    x = np.array([0.5, -1.0, 2.0])
    layer, batch = SoftmaxWithLoss(), SoftmaxWithLoss()
    assert layer.forward(x, t) == pytest.approx(batch.forward(x[None], np.array([2])), rel=1e-15)
    assert layer.y.shape == (3,)
    divided_by = 3 if np.size(t) == 3 else 1  # the book divides by the length of t
    np.testing.assert_allclose(layer.backward(), batch.backward()[0] / divided_by, rtol=1e-14)


def slow_batchnorm(columns, gamma, beta):
    """By the book: divide by sqrt(variance + 10e-7)."""
    out, means, variances = [], [], []
    for column, g, b in zip(columns, gamma, beta, strict=True):
        mean = math.fsum(column) / len(column)
        var = math.fsum((v - mean) ** 2 for v in column) / len(column)
        out.append([g * (v - mean) / math.sqrt(var + 0.000001) + b for v in column])
        means.append(mean)
        variances.append(var)
    return np.array(out).T, np.array(means), np.array(variances)


def test_batch_normalization(rng):
    # Of a spread at which 1e-6, 1e-7 and fcnet's own 1e-5 in the root can be told apart.
    x, dout = 3 + 0.01 * rng.normal(size=(6, 4)), rng.normal(size=(6, 4))
    gamma, beta = 0.01 * rng.normal(size=4), rng.normal(size=4)
    layer = BatchNormalization(gamma, beta)
    out = layer.forward(x)
    expected, mean, var = slow_batchnorm(x.T.tolist(), gamma, beta)
    assert_close(out, expected, "float64", "norm")
    assert_close(layer.running_mean, 0.1 * mean, "float64", "norm")
    assert_close(layer.running_var, 0.1 * var, "float64", "norm")
    dx = layer.backward(dout)
    for array, grad in ((x, dx), (gamma, layer.dgamma), (beta, layer.dbeta)):
        numeric = numerical_gradient(lambda _: BatchNormalization(gamma, beta).forward(x), array, dout, h=1e-6)
        assert relative_error(numeric, grad) < 1e-5

    layer = BatchNormalization(gamma, beta, 0.75, running_mean=np.full(4, 2.0), running_var=np.full(4, 5e-6))
    expected = gamma * (x - 2) / math.sqrt(6e-6) + beta
    np.testing.assert_allclose(layer.forward(x, train_flg=False), expected, rtol=1e-9)
    first = layer.running_mean
    layer.forward(x)
    assert_close(layer.running_mean, 0.75 * 2 + 0.25 * mean, "float64", "norm")
    assert first.tolist() == [2.0] * 4, "new arrays, as in the book"


def test_batch_normalization_of_images(rng):
    x, dout = rng.normal(size=(5, 2, 3, 2)), rng.normal(size=(5, 2, 3, 2))
    flat, images = (BatchNormalization(np.ones(12), np.zeros(12)) for _ in range(2))
    assert np.array_equal(images.forward(x), flat.forward(x.reshape(5, 12)).reshape(x.shape))
    assert np.array_equal(images.backward(dout), flat.backward(dout.reshape(5, 12)).reshape(x.shape))
    assert images.input_shape == x.shape


def test_dropout_drops_the_share_and_scales_when_testing(rng):
    x = 1 + rng.random(size=(400, 500))
    layer = Dropout(0.2, seed=3)
    out = layer.forward(x)
    kept = out != 0
    assert np.array_equal(out[kept], x[kept]), "plain: nothing is scaled while training"
    assert 1 - kept.mean() == pytest.approx(0.2, abs=5e-3), "the share dropped, not kept"
    assert np.array_equal(layer.mask, kept)
    assert np.array_equal(layer.backward(x), x * kept)
    np.testing.assert_allclose(layer.forward(x, train_flg=False), 0.8 * x, rtol=1e-12)
    assert np.array_equal(layer.mask, kept), "testing draws no mask"
    assert not np.array_equal(layer.forward(x), out), "each forward pass has a new one"


def test_dropout_seeds():
    x = np.ones((20, 20))
    assert np.array_equal(Dropout(seed=1).forward(x), Dropout(seed=1).forward(x))
    assert not np.array_equal(Dropout(seed=1).forward(x), Dropout(seed=2).forward(x))
    assert not np.array_equal(Dropout().forward(x), Dropout().forward(x))
    assert np.array_equal(Dropout(0).forward(x), x)


@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_dtypes_may_be_mixed(dtype):
    x = np.arange(6).reshape(2, 3).astype(dtype)
    out = Affine(np.ones((3, 2)), np.zeros(2)).forward(x)
    assert out.dtype == "float64"
    assert BatchNormalization(np.ones(3), np.zeros(3)).forward(x).dtype == "float64"
    expected = "float32" if dtype == "float32" else "float64"
    for layer in (Relu(), Sigmoid(), Tanh(), Dropout()):
        assert layer.forward(x).dtype == expected
        assert layer.backward(np.ones((2, 3), expected)).dtype == expected


@pytest.mark.parametrize("layer", [Affine(np.eye(2), np.zeros(2)), Relu(), BatchNormalization(1, 0), Dropout()])
def test_backward_before_forward(layer):
    with pytest.raises(ValueError, match=rf"{type(layer).__name__}\.backward: expected a forward pass"):
        layer.backward(np.ones((1, 2)))


def test_bad_input():
    with pytest.raises(ValueError, match=r"dropout_ratio: expected a share to drop.* got 1"):
        Dropout(1)
    for x in (np.ones(3), np.ones((3, 2)), np.ones((2, 2, 2))):
        with pytest.raises(
            ValueError, match=r"Affine: x: expected \(N, 3\), .* got shape .*a single sample is x\[None"
        ):
            Affine(np.ones((3, 2)), np.zeros(2)).forward(x)
    with pytest.raises(ValueError, match=r"cross_entropy_error: y: expected \(N, C\) or \(C,\), got shape \(2, 1, 3\)"):
        SoftmaxWithLoss().forward(np.ones((2, 1, 3)), np.array([1, 1]))
    for seed, error in ((-1, ValueError), (2**32, ValueError), (0.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match=rf"^seed: expected .* got {seed}$"):
            Dropout(seed=seed)
    with pytest.raises(ValueError, match=r"t: expected labels 0 to 2, got 3"):
        SoftmaxWithLoss().forward(np.ones((1, 3)), np.array([3]))
