"""Assignment 1's classifiers: nearest neighbours, linear ones and the two-layer net that trains itself."""

import math

import numpy as np
import pytest

from fcnet.compat import cs231n
from fcnet.compat.cs231n import KNearestNeighbor, LinearClassifier, LinearSVM, Softmax
from fcnet.compat.cs231n.classifiers.neural_net import TwoLayerNet
from fcnet.tools.gradcheck import numerical_gradient, relative_error
from tests import oracles
from tests.small import blobs
from tests.tolerances import assert_close

DISTANCES = ("compute_distances_no_loops", "compute_distances_one_loop", "compute_distances_two_loops")
LOSSES = {
    "svm_loss_naive": oracles.svm_loss,
    "svm_loss_vectorized": oracles.svm_loss,
    "softmax_loss_naive": oracles.softmax_loss,
    "softmax_loss_vectorized": oracles.softmax_loss,
}


@pytest.mark.parametrize("name", DISTANCES)
def test_distances(name, rng, device, host):
    X, known = rng.normal(size=(4, 2, 3)), rng.normal(size=(7, 2, 3))
    model = KNearestNeighbor()
    model.train(device(known), device(np.arange(7) % 2))
    dists = host(getattr(model, name)(device(X)))
    expected = [[math.dist(x.ravel(), other.ravel()) for other in known] for x in X]
    np.testing.assert_allclose(dists, expected, rtol=1e-12)


def test_the_nearest_vote(device, host):
    model = KNearestNeighbor()
    model.train(device(np.zeros((6, 1))), device(np.array([5, 2, 2, 9, 5, 9])))
    dists = device(
        np.array(
            [
                [1.0, 3.0, 4.0, 2.0, 5.0, 6.0],  # 5, 9, 2, 2, 5, 9 by distance
                [3.0, 9.0, 9.0, 1.0, 2.0, 9.0],  # 9, 5, 5, ...
                [1.0, 1.0, 1.0, 1.0, 1.0, 1.0],  # in the order of the samples: 5, 2, 2, 9, 5, 9
            ]
        )
    )
    expected = {1: [5, 9, 5], 2: [5, 5, 2], 3: [2, 5, 2], 4: [2, 5, 2], 6: [2, 2, 2]}
    for k, labels in expected.items():
        assert host(model.predict_labels(dists, k=k)).tolist() == labels, k
    assert host(model.predict_labels(dists)).tolist() == expected[1]


def test_neighbors_learn_blobs():
    data = blobs()
    model = KNearestNeighbor()
    model.train(data.X_train, data.y_train)
    predicted = [model.predict(data.X_test, k=5, num_loops=loops) for loops in (0, 1, 2)]
    assert np.mean(predicted[0] == data.y_test) > 0.9
    for other in (*predicted[1:], model.predict(data.X_test, 5), model.predict_labels(
        model.compute_distances_no_loops(data.X_test), 5
    )):  # fmt: skip
        assert np.array_equal(predicted[0], other)
    model.train(data.X_train.tolist(), [*data.y_train.tolist()[:-1], 0])
    assert model.y_train.shape == data.y_train.shape


def test_neighbors_refuse():
    model = KNearestNeighbor()
    with pytest.raises(ValueError, match=r"KNearestNeighbor: expected train\(X, y\) before this call"):
        model.predict(np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"y: expected a label for each of the 4 samples of X, got shape \(3,\)"):
        model.train(np.ones((4, 3)), np.arange(3))
    model.train(np.ones((4, 3)), np.arange(4))
    with pytest.raises(ValueError, match=r"num_loops: expected 0, 1 or 2, got 3"):
        model.predict(np.ones((2, 3)), num_loops=3)
    with pytest.raises(ValueError, match=r"dists: expected \(N, 4\), a column for each training sample, got \(4, 2\)"):
        model.predict_labels(np.ones((4, 2)))
    with pytest.raises(ValueError, match=r"k: expected at most 4, the number of training samples, got 5"):
        model.predict_labels(np.ones((2, 4)), k=5)
    with pytest.raises(ValueError, match=r"k: expected 1 or more, got 0"):
        model.predict_labels(np.ones((2, 4)), k=0)


@pytest.mark.parametrize("name", LOSSES)
def test_linear_losses(name, rng, device, host, untouched, dtype):
    W, X, y, reg = rng.normal(size=(4, 3)), rng.normal(size=(6, 4)), rng.integers(3, size=6), 0.7
    W, X = W.astype(dtype), X.astype(dtype)
    data_loss, dscores = LOSSES[name](oracles.affine(X, W, np.zeros(3)), y)
    squares = math.fsum(float(w) ** 2 for w in W.ravel())
    _, dW, _ = oracles.affine_backward(dscores, X, W)
    arrays = device(W), device(X), device(y)
    with untouched(*arrays):
        loss, grad = getattr(cs231n, name)(*arrays, reg)
    assert isinstance(loss, float)
    assert loss == pytest.approx(data_loss + reg * squares, rel=1e-5 if dtype == "float32" else 1e-12)
    assert_close(host(grad), np.array(dW) + 2 * reg * np.asarray(W, np.float64), dtype, "gemm")


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("reg", [0.0, 0.5])
def test_linear_gradients(name, reg, rng):
    W, X, y = rng.normal(size=(4, 3)), rng.normal(size=(6, 4)), rng.integers(3, size=6)
    loss = getattr(cs231n, name)
    numeric = numerical_gradient(lambda W: loss(W, X, y, reg)[0], W)
    assert relative_error(numeric, loss(W, X, y, reg)[1]) < 1e-7


def test_linear_losses_mix_dtypes_and_refuse(rng):
    W, X, y = rng.normal(size=(4, 3)), rng.integers(9, size=(6, 4)), [0, 1, 2, 0, 1, 2]
    loss, grad = cs231n.svm_loss_naive(W, X, y, 1)
    assert (loss, grad.dtype) == (cs231n.svm_loss_naive(W, X.astype(float), np.array(y), 1)[0], np.float64)
    with pytest.raises(ValueError, match=r"W, X: expected \(D, C\) and \(N, D\), got shapes \(3, 4\) and \(6, 4\)"):
        cs231n.softmax_loss_vectorized(W.T, X, y, 0.0)
    with pytest.raises(ValueError, match=r"labels 0 to 2, got 3 at 5"):
        cs231n.softmax_loss_vectorized(W, X, [0, 1, 2, 0, 1, 3], 0.0)


@pytest.mark.parametrize(("kind", "loss"), [(LinearSVM, "svm_loss_vectorized"), (Softmax, "softmax_loss_vectorized")])
def test_linear_classifiers_learn(kind, loss, capsys):
    data = blobs()
    with_bias = [np.hstack([X, np.ones((len(X), 1))]) for X in (data.X_train, data.X_test)]
    model = kind()
    history = model.train(with_bias[0], data.y_train, learning_rate=0.05, reg=1e-3, num_iters=201, verbose=True)
    assert len(history) == 201
    assert capsys.readouterr().out.splitlines() == [
        f"iteration {step} / 201: loss {history[step]:f}" for step in (0, 100, 200)
    ]
    assert history[0] == pytest.approx(math.log(3) if kind is Softmax else 2.0, rel=0.02), "small weights: ln C, C - 1"
    assert np.mean(model.predict(with_bias[1]) == data.y_test) > 0.9
    value, grad = model.loss(with_bias[0][:9], data.y_train[:9], 0.3)
    expected, expected_grad = getattr(cs231n, loss)(model.W, with_bias[0][:9], data.y_train[:9], 0.3)
    assert value == expected
    assert np.array_equal(grad, expected_grad)


def test_a_step_of_a_linear_classifier(rng):
    """One sample, so that every batch is known."""
    X, y, W = np.array([[1.0, -2.0]]), np.array([1]), rng.normal(size=(2, 2))
    model = Softmax()
    model.W = W.copy()
    history = model.train(X, y, learning_rate=0.1, reg=0.5, num_iters=1, batch_size=3)
    loss, grad = cs231n.softmax_loss_vectorized(W, np.repeat(X, 3, axis=0), np.repeat(y, 3), 0.5)
    assert history == [loss]
    np.testing.assert_allclose(model.W, W - 0.1 * grad, rtol=1e-14)


def test_batches_of_a_linear_classifier():
    y = np.arange(200) % 5

    class Recorder(LinearClassifier):
        def loss(self, X_batch, y_batch, reg):
            rows.append(X_batch.argmax(axis=1))
            assert np.array_equal(y_batch, rows[-1] % 5), "labels go with their samples"
            return 0.0, np.zeros_like(self.W)

    rows = []
    model = Recorder()
    assert model.W is None
    model.train(np.eye(200), y, num_iters=2, batch_size=190)
    assert model.W.shape == (200, 5)
    assert model.W.std() == pytest.approx(0.001, rel=0.06)
    model.train(np.eye(200), y, num_iters=1, batch_size=190)
    assert len({tuple(batch) for batch in rows}) == 3, "a second call goes on"
    assert all(len(set(batch.tolist())) < 160 for batch in rows), "drawn with replacement"


def test_linear_classifiers_refuse():
    with pytest.raises(ValueError, match=r"LinearSVM: expected train\(X, y\) before this call, it has no weights yet"):
        LinearSVM().predict(np.ones((2, 3)))
    with pytest.raises(NotImplementedError, match="use LinearSVM or Softmax"):
        LinearClassifier().train(np.ones((2, 3)), [0, 1])
    with pytest.raises(ValueError, match=r"X, y: expected samples \(n, D\) and labels \(n,\), got shapes \(2, 3\)"):
        Softmax().train(np.ones((2, 3)), [0, 1, 1])
    with pytest.raises(ValueError, match=r"Softmax: expected train\(X, y\) before this call, it has no weights yet"):
        Softmax().save("best_softmax.npy")


def toy():
    """Seed the global generator as the notebook does, with 0 for the weights, with 1 for the samples."""
    np.random.seed(0)
    net = TwoLayerNet(4, 10, 3, std=1e-1)
    np.random.seed(1)
    return net, 10 * np.random.randn(5, 4), np.array([0, 1, 2, 2, 1])


def test_the_toy_nets_published_figures():
    """Those that the notebook compares with, and the loss that its readers report after training."""
    net, X, y = toy()
    scores = [
        [-0.81233741, -1.27654624, -0.70335995],
        [-0.17129677, -1.18803311, -0.47310444],
        [-0.51590475, -1.01354314, -0.8504215],
        [-0.15419291, -0.48629638, -0.52901952],
        [-0.00618733, -0.12435261, -0.15226949],
    ]
    assert np.abs(net.loss(X) - scores).sum() < 1e-7
    loss, grads = net.loss(X, y, reg=0.05)
    assert abs(loss - 1.30378789133) < 1e-11
    assert sorted(grads) == ["W1", "W2", "b1", "b2"]
    np.random.seed(0)
    net = TwoLayerNet(4, 10, 3, std=1e-1)
    stats = net.train(X, y, X, y, learning_rate=1e-1, reg=5e-6, num_iters=100, verbose=False)
    assert stats["loss_history"][-1] == pytest.approx(0.0171496079387, abs=1e-11)
    assert np.array_equal(net.predict(X), y)


def test_the_toy_nets_gradients():
    net, X, y = toy()
    _, grads = net.loss(X, y, reg=0.05)
    for name, grad in grads.items():
        numeric = numerical_gradient(lambda _: net.loss(X, y, reg=0.05)[0], net.params[name])
        assert relative_error(numeric, grad) < 1e-6, name
    plain = net.loss(X, y)[0]
    squares = math.fsum(w * w for name in ("W1", "W2") for w in net.params[name].ravel())
    assert net.loss(X, y, reg=0.3)[0] == pytest.approx(plain + 0.3 * squares, rel=1e-13), "no half"


def test_the_two_layer_net_keeps_the_courses_histories(capsys):
    data = blobs(n=130)
    parts = data.X_train, data.y_train, data.X_val, data.y_val
    np.random.seed(0)
    net = TwoLayerNet(6, 20, 3, std=0.1)
    stats = net.train(*parts, learning_rate=0.5, reg=0.0, num_iters=105, batch_size=50, verbose=True)
    assert capsys.readouterr().out.splitlines() == [
        f"iteration {step} / 105: loss {stats['loss_history'][step]:f}" for step in (0, 100)
    ]
    assert len(stats["loss_history"]) == 105
    # 2.6 steps an epoch: the course meets the beginnings of epochs 0, 5, 10, ... as far as 2.6 is 2.6.
    assert len(stats["train_acc_history"]) == len(stats["val_acc_history"]) == sum(i % 2.6 == 0 for i in range(105))
    np.random.seed(0)
    stats = TwoLayerNet(6, 20, 3, std=0.1).train(*parts, learning_rate=0.5, reg=0.0, num_iters=9, batch_size=65)
    assert len(stats["val_acc_history"]) == 5
    assert stats["val_acc_history"][-1] > 0.9
    np.random.seed(0)
    slow = TwoLayerNet(6, 20, 3, std=0.1)
    frozen = slow.train(*parts, learning_rate=0.5, learning_rate_decay=0.0, reg=0.0, num_iters=9, batch_size=130)
    assert len(set(frozen["val_acc_history"])) == 1, "the rate is decayed at the first step of each epoch"
