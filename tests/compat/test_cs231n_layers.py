"""The course's layers against slow loops, numerical gradients and the notebooks' own numbers."""

import math

import numpy as np
import pytest

from fcnet.compat.cs231n import (
    affine_backward,
    affine_forward,
    affine_relu_backward,
    affine_relu_forward,
    batchnorm_backward,
    batchnorm_backward_alt,
    batchnorm_forward,
    dropout_backward,
    dropout_forward,
    eval_numerical_gradient,
    eval_numerical_gradient_array,
    layernorm_backward,
    layernorm_forward,
    rel_error,
    relu_backward,
    relu_forward,
    softmax_loss,
    svm_loss,
)

TOLERANCE = 1e-6  # of central differences in float64, with gradients of order one


@pytest.fixture
def rng():
    return np.random.default_rng(231)


def slow_affine(x, w, b):
    rows = x.reshape(len(x), -1)
    out = np.zeros((len(x), w.shape[1]))
    for n in range(len(x)):
        for m in range(w.shape[1]):
            out[n, m] = b[m] + sum(rows[n, d] * w[d, m] for d in range(w.shape[0]))
    return out


def slow_normalized(values, eps):
    """(value - mean) / sqrt(variance + eps) of a list of numbers."""
    mean = sum(values) / len(values)
    var = sum((v - mean) ** 2 for v in values) / len(values)
    return [(v - mean) / math.sqrt(var + eps) for v in values]


def slow_losses(x, y):
    """Softmax and SVM loss, term by term."""
    softmax = svm = 0.0
    for row, label in zip(x.tolist(), y, strict=True):
        softmax += math.log(sum(math.exp(s) for s in row)) - row[label]
        svm += sum(max(0.0, s - row[label] + 1) for c, s in enumerate(row) if c != label)
    return softmax / len(x), svm / len(x)


def test_affine_forward_gives_the_notebooks_numbers():
    x = np.linspace(-0.1, 0.5, num=240).reshape(2, 4, 5, 6)
    w = np.linspace(-0.2, 0.3, num=360).reshape(120, 3)
    b = np.linspace(-0.3, 0.1, num=3)
    expected = [[1.49834967, 1.70660132, 1.91485297], [3.25553199, 3.5141327, 3.77273342]]
    np.testing.assert_allclose(slow_affine(x, w, b), expected, rtol=1e-8)
    out, cache = affine_forward(x, w, b)
    np.testing.assert_allclose(out, expected, rtol=1e-8)
    assert cache[0] is x
    assert cache[1] is w
    assert cache[2] is b


def test_affine_gradients(rng):
    x, w, b = rng.normal(size=(5, 2, 3)), rng.normal(size=(6, 4)), rng.normal(size=4)
    dout = rng.normal(size=(5, 4))
    out, cache = affine_forward(x, w, b)
    np.testing.assert_allclose(out, slow_affine(x, w, b), rtol=1e-12)
    grads = affine_backward(dout, cache)
    assert grads[0].shape == x.shape
    for array, grad in zip((x, w, b), grads, strict=True):
        numeric = eval_numerical_gradient_array(lambda _: affine_forward(x, w, b)[0], array, dout)
        assert rel_error(numeric, grad) < TOLERANCE


def test_affine_backward_can_leave_out_dx(rng):
    x, w, b, dout = (rng.normal(size=s) for s in ((3, 4), (4, 2), (2,), (3, 2)))
    cache = (x, w, b)
    dx, dw, db = affine_backward(dout, cache, need_dx=False)
    assert dx is None
    _, full_dw, full_db = affine_backward(dout, cache)
    assert np.array_equal(dw, full_dw)
    assert np.array_equal(db, full_db)


def test_relu(rng):
    out, cache = relu_forward(np.linspace(-0.5, 0.5, num=12).reshape(3, 4))
    expected = [[0, 0, 0, 0], [0, 0, 0.04545455, 0.13636364], [0.22727273, 0.31818182, 0.40909091, 0.5]]
    np.testing.assert_allclose(out, expected, rtol=1e-7)
    x, dout = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 3, 4))
    before = x.copy()
    _, cache = relu_forward(x)
    assert cache is x
    numeric = eval_numerical_gradient_array(lambda x: relu_forward(x)[0], x, dout)
    assert rel_error(numeric, relu_backward(dout, cache)) < TOLERANCE
    np.testing.assert_allclose(x, before, rtol=1e-12)
    assert relu_backward(np.ones(1), np.zeros(1)) == 0, "the derivative at 0 is 0"


def test_affine_relu(rng):
    x, w, b = rng.normal(size=(2, 3, 4)), rng.normal(size=(12, 10)), rng.normal(size=10)
    dout = rng.normal(size=(2, 10))
    out, cache = affine_relu_forward(x, w, b)
    np.testing.assert_allclose(out, np.maximum(slow_affine(x, w, b), 0), rtol=1e-12)
    for array, grad in zip((x, w, b), affine_relu_backward(dout, cache), strict=True):
        numeric = eval_numerical_gradient_array(lambda _: affine_relu_forward(x, w, b)[0], array, dout)
        assert rel_error(numeric, grad) < TOLERANCE


@pytest.mark.parametrize(("function", "which"), [(softmax_loss, 0), (svm_loss, 1)])
def test_losses(rng, function, which):
    x, y = rng.normal(size=(7, 5)), rng.integers(5, size=7)
    loss, dx = function(x, y)
    assert type(loss) is float
    assert loss == pytest.approx(slow_losses(x, y)[which], rel=1e-12)
    numeric = eval_numerical_gradient(lambda x: function(x, y)[0], x, verbose=False)
    assert rel_error(numeric, dx) < TOLERANCE
    assert function(x, y.tolist())[0] == loss, "labels may be a list, as indexing allows in the course"


def test_losses_of_small_scores(rng):
    """The notebook's sanity check: scores near 0 give log 10 and 9 margins of 1."""
    x, y = 0.001 * rng.normal(size=(50, 10)), rng.integers(10, size=50)
    assert softmax_loss(x, y)[0] == pytest.approx(math.log(10), abs=1e-2)
    assert svm_loss(x, y)[0] == pytest.approx(9, abs=1e-2)


@pytest.mark.parametrize("function", [softmax_loss, svm_loss])
@pytest.mark.parametrize("label", [5, -1])
def test_a_label_out_of_range_is_refused(function, label):
    with pytest.raises(ValueError, match=r"y: expected labels 0 to 4.*" + str(label)):
        function(np.zeros((2, 5)), np.array([0, label]))


def test_batchnorm_forward_in_training(rng):
    x, gamma, beta = 5 * rng.normal(size=(6, 3)) + 12, rng.normal(size=3), rng.normal(size=3)
    bn_param = {"mode": "train", "eps": 0.1, "momentum": 0.75}
    expected = np.array([slow_normalized(column, 0.1) for column in x.T.tolist()]).T * gamma + beta
    means = []
    for batch in (x, 2 * x):
        out, _ = batchnorm_forward(batch, gamma, beta, bn_param)
        means.append([sum(column) / len(column) for column in batch.T.tolist()])
    np.testing.assert_allclose(batchnorm_forward(x, gamma, beta, {"mode": "train", "eps": 0.1})[0], expected)
    assert not np.allclose(out, expected), "another eps relative to the batch's variance"
    running = [0.75 * 0.25 * first + 0.25 * second for first, second in zip(*means, strict=True)]
    np.testing.assert_allclose(bn_param["running_mean"], running, rtol=1e-12)
    var = np.array([sum((v - sum(c) / 6) ** 2 for v in c) / 6 for c in x.T.tolist()])
    np.testing.assert_allclose(bn_param["running_var"], (0.75 * 0.25 + 0.25 * 4) * var, rtol=1e-12)


def test_batchnorm_forward_when_testing(rng):
    x, gamma, beta = rng.normal(size=(6, 3)), rng.normal(size=3), rng.normal(size=3)
    mean, var = rng.normal(size=3), rng.random(3)
    bn_param = {"mode": "test", "running_mean": mean, "running_var": var, "eps": 0.2}
    out, cache = batchnorm_forward(x, gamma, beta, bn_param)
    for n in range(6):
        for d in range(3):
            expected = gamma[d] * (x[n, d] - mean[d]) / math.sqrt(var[d] + 0.2) + beta[d]
            assert out[n, d] == pytest.approx(expected, rel=1e-12)
    assert cache is None
    np.testing.assert_array_equal(bn_param["running_mean"], mean)
    with pytest.raises(ValueError, match=r"cache.*train mode.*None"):
        batchnorm_backward(x, cache)


def test_batchnorm_keeps_the_callers_running_arrays(rng):
    mean, var = np.ones(3), np.ones(3)
    bn_param = {"mode": "train", "running_mean": mean, "running_var": var}
    batchnorm_forward(rng.normal(size=(4, 3)), np.ones(3), np.zeros(3), bn_param)
    assert np.array_equal(mean, np.ones(3))
    assert np.array_equal(var, np.ones(3))
    assert not np.array_equal(bn_param["running_mean"], mean)


def test_batchnorm_statistics_start_at_zero_when_testing_first(rng):
    bn_param = {"mode": "test"}
    batchnorm_forward(rng.normal(size=(4, 3)), np.ones(3), np.zeros(3), bn_param)
    assert np.array_equal(bn_param["running_mean"], np.zeros(3))
    assert np.array_equal(bn_param["running_var"], np.zeros(3))


@pytest.mark.parametrize("backward", [batchnorm_backward, batchnorm_backward_alt])
def test_batchnorm_gradients(rng, backward):
    x, gamma, beta = 5 * rng.normal(size=(4, 5)) + 12, rng.normal(size=5), rng.normal(size=5)
    dout = rng.normal(size=(4, 5))
    _, cache = batchnorm_forward(x, gamma, beta, {"mode": "train"})
    for array, grad in zip((x, gamma, beta), backward(dout, cache), strict=True):
        numeric = eval_numerical_gradient_array(
            lambda _: batchnorm_forward(x, gamma, beta, {"mode": "train"})[0], array, dout
        )
        assert rel_error(numeric, grad) < TOLERANCE


def test_layernorm(rng):
    x, gamma, beta = 5 * rng.normal(size=(4, 5)) + 12, rng.normal(size=5), rng.normal(size=5)
    dout = rng.normal(size=(4, 5))
    for ln_param, eps in (({}, 1e-5), ({"mode": "train", "eps": 0.3}, 0.3)):
        out, cache = layernorm_forward(x, gamma, beta, ln_param)
        expected = np.array([slow_normalized(row, eps) for row in x.tolist()]) * gamma + beta
        np.testing.assert_allclose(out, expected, rtol=1e-11)
        for array, grad in zip((x, gamma, beta), layernorm_backward(dout, cache), strict=True):
            numeric = eval_numerical_gradient_array(
                lambda _, p=ln_param: layernorm_forward(x, gamma, beta, p)[0], array, dout
            )
            assert rel_error(numeric, grad) < TOLERANCE


@pytest.mark.parametrize("p", [0.25, 0.4, 0.7])
def test_dropout_keeps_the_mean(rng, p):
    x = rng.normal(size=(300, 300)) + 10
    out, (param, mask) = dropout_forward(x, {"mode": "train", "p": p, "seed": 1})
    assert (out == 0).mean() == pytest.approx(1 - p, abs=0.01), "p is the probability to keep"
    assert out.mean() == pytest.approx(x.mean(), rel=0.02)
    np.testing.assert_allclose(out[out != 0], (x / p)[out != 0], rtol=1e-12)
    assert param["p"] == p
    np.testing.assert_array_equal(out, x * mask)


def test_dropout_gradient(rng):
    x, dout = rng.normal(size=(5, 6)) + 10, rng.normal(size=(5, 6))
    param = {"mode": "train", "p": 0.4, "seed": 123}
    out, cache = dropout_forward(x, param)
    assert 0 < (out == 0).sum() < out.size
    numeric = eval_numerical_gradient_array(lambda x: dropout_forward(x, param)[0], x, dout)
    assert rel_error(numeric, dropout_backward(dout, cache)) < TOLERANCE


def test_dropout_mask_by_seed():
    x = np.ones((20, 20))
    seeded, free = {"mode": "train", "p": 0.5, "seed": 3}, {"mode": "train", "p": 0.5}
    first, again = dropout_forward(x, seeded)[0], dropout_forward(x, seeded)[0]
    assert np.array_equal(first, again)
    assert not np.array_equal(first, dropout_forward(x, seeded | {"seed": 4})[0])
    assert not np.array_equal(dropout_forward(x, free)[0], dropout_forward(x, free)[0])
    assert free == {"mode": "train", "p": 0.5}, "the dictionary is the caller's"


def test_dropout_when_testing():
    x = np.ones((2, 3))
    out, cache = dropout_forward(x, {"mode": "test", "p": 0.5})
    assert out is x
    assert cache[1] is None
    assert dropout_backward(x, cache) is x


@pytest.mark.parametrize(
    ("x", "w", "expected"),
    [("float32", "float32", "float32"), ("float32", "float64", "float64"), ("int64", "float64", "float64"),
     ("int64", "int64", "float64"), ("float16", "float16", "float32")],
)  # fmt: skip
def test_mixed_dtypes_are_promoted(x, w, expected):
    x, w, b = np.ones((2, 3), x), np.ones((3, 4), w), np.zeros(4, w)
    out, cache = affine_forward(x, w, b)
    assert out.dtype == expected
    assert np.all(out == 3)
    assert all(grad.dtype == expected for grad in affine_backward(out, cache))


def test_dtypes_of_the_other_layers():
    x = np.arange(6, dtype="float32").reshape(2, 3)
    assert relu_forward(x)[0].dtype == "float32"
    assert softmax_loss(x, np.array([0, 1]))[1].dtype == "float32"
    bn_param = {"mode": "train"}
    out, cache = batchnorm_forward(x, np.ones(3), np.zeros(3), bn_param)
    assert out.dtype == bn_param["running_mean"].dtype == "float64"
    assert batchnorm_backward(x, cache)[0].dtype == "float64"
    assert layernorm_backward(x.astype("float64"), layernorm_forward(x, x[0], x[0], {})[1])[0].dtype == "float64"
    whole = np.ones((2, 3), dtype="int64")
    assert dropout_forward(whole, {"mode": "train", "p": 0.5, "seed": 0})[0].dtype == "int64", "as the course"


BN = np.ones((4, 3)), np.ones(3), np.zeros(3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: affine_forward([[1.0]], np.ones((1, 1)), np.ones(1)), TypeError, r"x: expected an array.*list"),
        (lambda: affine_forward(np.ones((2, 3)), np.ones((4, 5)), np.ones(5)), ValueError, r"w: expected \(D, M\)"),
        (lambda: affine_forward(np.ones((2, 3), "c16"), np.ones((3, 1)), np.ones(1)), TypeError, r"x: .*complex128"),
        (lambda: softmax_loss(np.ones(3), np.array(0)), ValueError, r"x: expected scores \(N, C\)"),
        (lambda: batchnorm_forward(*BN, {}), ValueError, r"bn_param: expected a key 'mode'"),
        (lambda: batchnorm_forward(*BN, {"mode": "trian"}), ValueError, r"bn_param\['mode'\].*did you mean 'train'"),
        (lambda: batchnorm_forward(np.ones((2, 3, 3)), *BN[1:], {"mode": "train"}), ValueError, r"expected \(N, D\)"),
        (lambda: batchnorm_forward(*BN, {"mode": "train", "running_mean": np.ones(2)}), ValueError, r"running_mean"),
        (lambda: layernorm_forward(np.ones(3), *BN[1:], {}), ValueError, r"x: expected \(N, D\)"),
        (lambda: dropout_forward(BN[0], {"p": 0.5}), ValueError, r"dropout_param: expected a key 'mode'"),
        (lambda: dropout_forward(BN[0], {"mode": "train"}), ValueError, r"dropout_param: expected a key 'p'"),
        (lambda: dropout_forward(BN[0], {"mode": "train", "p": 0}), ValueError, r"^dropout_param\['p'\]: .* to keep"),
        (lambda: dropout_forward(BN[0], {"mode": "train", "p": 2}), ValueError, r"^dropout_param\['p'\]: .*got 2$"),
        (lambda: softmax_loss(BN[0], np.ones(4)), TypeError, r"^softmax_loss: y: .* float64; use y.astype\(int\)$"),
        (lambda: svm_loss(BN[0], np.arange(4)), ValueError, r"^svm_loss: y: expected labels 0 to 2, got 3 at 3"),
        (lambda: dropout_forward(BN[0], {"mode": "train", "p": 0.5, "seed": 1.5}), TypeError, r"seed: expected"),
    ],
)  # fmt: skip
def test_bad_arguments_give_one_clear_line(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
