"""What the course draws from NumPy's global generator is drawn here in the same order.

Each test seeds the generator, writes down what the course's code would draw, seeds it again and looks at what fcnet
makes of it.
"""

import random

import numpy as np
import pytest

from fcnet.compat.cs231n import (
    FullyConnectedNet,
    LinearSVM,
    Softmax,
    Solver,
    TwoLayerNet,
    dropout_forward,
    grad_check_sparse,
)
from fcnet.compat.cs231n.classifiers import neural_net
from tests import oracles
from tests.small import blobs

SEED = 7


@pytest.fixture
def drawn():
    """Draws after the seed; when all are made, the generator is seeded again."""

    def draw(*calls):
        np.random.seed(SEED)
        values = [getattr(np.random, name)(*arguments) for name, *arguments in calls]
        np.random.seed(SEED)
        return values

    return draw


@pytest.mark.parametrize("kind", [LinearSVM, Softmax])
def test_a_linear_classifier(kind, drawn):
    data = blobs()
    X, y = data.X_train, data.y_train
    W, *batches = drawn(("randn", 6, 3), *[("choice", len(X), 20)] * 3)
    W *= 0.001
    loss_of = oracles.svm_loss if kind is LinearSVM else oracles.softmax_loss
    expected = []
    for rows in batches:
        loss, dscores = loss_of(oracles.affine(X[rows], W, np.zeros(3)), y[rows])
        expected.append(loss + 0.1 * (W**2).sum())
        W = W - 0.5 * (np.array(oracles.affine_backward(dscores, X[rows], W)[1]) + 0.2 * W)
    runs = []
    for model in (kind(), kind(seed=SEED)):
        runs.append(model.train(X, y, learning_rate=0.5, reg=0.1, num_iters=3, batch_size=20))
        np.testing.assert_allclose(runs[-1], expected, rtol=1e-10)
        np.testing.assert_allclose(model.W, W, rtol=1e-10, atol=1e-15)
    assert kind().train(X, y, num_iters=1) != kind().train(X, y, num_iters=1), "the generator goes on"


def test_weights_of_the_nets(drawn):
    first, second, third = drawn(("randn", 6, 5), ("randn", 5, 4), ("randn", 4, 3))
    net = FullyConnectedNet([5, 4], 6, 3, weight_scale=0.1, normalization="batchnorm", seed=3)
    for name, value in (("W1", first), ("W2", second), ("W3", third)):
        np.testing.assert_array_equal(net.params[name], (0.1 * value).astype("float32"))
    for kind in (TwoLayerNet, neural_net.TwoLayerNet):
        np.random.seed(SEED)
        two = kind(6, 5, 4, 0.1)
        np.testing.assert_array_equal(two.params["W1"], 0.1 * first)
        np.testing.assert_array_equal(two.params["W2"], 0.1 * second)


def test_masks_of_dropout(drawn):
    x = np.ones((4, 5))
    first, second = drawn(("rand", 4, 5), ("rand", 4, 5))
    for numbers in (first, second):
        np.testing.assert_array_equal(dropout_forward(x, {"mode": "train", "p": 0.3})[0], (numbers < 0.3) / 0.3)
    out, _ = dropout_forward(x, {"mode": "train", "p": 0.3, "seed": SEED})
    np.testing.assert_array_equal(out, (first < 0.3) / 0.3)
    np.testing.assert_array_equal(np.random.rand(4, 5), second, err_msg="a mask's seed is the whole generator's")
    with pytest.raises(ValueError, match=r"seed: expected 0 to 2\*\*32 - 1, got 4294967296"):
        dropout_forward(x, {"mode": "train", "p": 0.3, "seed": 2**32})


class Watched:
    """A model that is always wrong and remembers what it was shown."""

    def __init__(self):
        self.params = {"w": np.zeros(1)}
        self.seen = []

    def loss(self, X, y=None):
        self.seen.append(X.ravel().astype(int).tolist())
        return np.zeros((len(X), 2)) if y is None else (0.0, {"w": np.zeros(1)})


def test_batches_and_samples_of_the_solver(drawn):
    """A batch; after the first step and each epoch training samples, drawn with replacement, and validation samples."""
    data = {"X_train": np.arange(12.0)[:, None], "y_train": np.ones(12, int)}
    data |= {"X_val": np.arange(100.0, 109)[:, None], "y_val": np.ones(9, int)}
    batch, train, val = ("choice", 12, 4), ("choice", 12, 5), ("choice", 9, 3)
    order = [batch, train, val, batch, batch, train, val, batch, batch, batch, train, val]
    values = [rows + 100 * (call is val) for call, rows in zip(order, drawn(*order), strict=True)]
    for seed in (None, SEED):
        model = Watched()
        Solver(
            model, data, batch_size=4, num_epochs=2, num_train_samples=5, num_val_samples=3, verbose=False, seed=seed
        ).train()
        assert model.seen == [rows.tolist() for rows in values]


def test_a_seed_of_its_own_leaves_the_global_generator_alone():
    data = blobs()
    parts = {"X_train": data.X_train, "y_train": data.y_train, "X_val": data.X_val, "y_val": data.y_val}
    net = TwoLayerNet(6, 5, 3)
    before = np.random.get_state()[1:3]
    Solver(net, parts, num_epochs=1, verbose=False, seed=1).train()
    Softmax(seed=1).train(data.X_train, data.y_train, num_iters=2)
    assert all(np.array_equal(a, b) for a, b in zip(before, np.random.get_state()[1:3], strict=True))
    for seed, error in ((-1, ValueError), (2**32, ValueError), (1.5, TypeError)):
        with pytest.raises(error, match=r"^seed: expected"):
            LinearSVM(seed=seed)
        with pytest.raises(error, match=r"^seed: expected"):
            Solver(net, parts, seed=seed)


def test_the_old_net_that_trains_itself(drawn):
    data = blobs()
    _, _, *batches = drawn(("randn", 6, 5), ("randn", 5, 3), *[("choice", 130, 65)] * 3)
    net = neural_net.TwoLayerNet(6, 5, 3, std=0.1)
    seen = []
    loss = net.loss
    net.loss = lambda X, y=None, reg=0.0: (seen.append(X) if y is not None else None, loss(X, y, reg))[1]
    net.train(data.X_train, data.y_train, data.X_val, data.y_val, num_iters=3, batch_size=65)
    for X, rows in zip(seen, batches, strict=True):
        np.testing.assert_array_equal(X, data.X_train[rows])


def test_elements_of_the_sparse_gradient_check(capsys):
    """Drawn by Python's own generator."""
    x = np.arange(20.0).reshape(4, 5)
    random.seed(3)
    indices = [tuple(random.randrange(size) for size in x.shape) for _ in range(4)]
    random.seed(3)
    grad_check_sparse(lambda x: float((x**2).sum()), x, 2 * x, num_checks=4)
    printed = [float(line.split(" analytic: ")[1].split(",")[0]) for line in capsys.readouterr().out.splitlines()]
    assert printed == [2 * x[index] for index in indices]
