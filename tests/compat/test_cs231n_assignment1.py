"""Cells like those of assignment 1's notebooks, run after `install()`: knn, svm, softmax, two_layer_net, features."""

import os
import re

import numpy as np
import pytest

from fcnet.compat.cs231n import KNearestNeighbor, affine_bn_relu_backward, affine_bn_relu_forward, data_utils
from fcnet.tools.gradcheck import numerical_gradient, relative_error

KNN = """
from cs231n.classifiers import KNearestNeighbor
X_train, X_test = np.reshape(X_train, (X_train.shape[0], -1)), np.reshape(X_test, (X_test.shape[0], -1))
classifier = KNearestNeighbor()
classifier.train(X_train, y_train)
dists = classifier.compute_distances_two_loops(X_test)
assert dists.shape == (num_test, num_training)
for k in (1, 5):
    y_test_pred = classifier.predict_labels(dists, k=k)
    num_correct = np.sum(y_test_pred == y_test)
    accuracy = float(num_correct) / num_test
for other in (classifier.compute_distances_one_loop(X_test), classifier.compute_distances_no_loops(X_test)):
    assert np.linalg.norm(dists - other, ord="fro") < 0.001
num_folds = 5
X_train_folds, y_train_folds = np.array_split(X_train, num_folds), np.array_split(y_train, num_folds)
k_to_accuracies = {}
for k in (1, 3, 10):
    k_to_accuracies[k] = []
    for i in range(num_folds):
        classifier = KNearestNeighbor()
        classifier.train(np.concatenate(X_train_folds[:i] + X_train_folds[i + 1:]),
                         np.concatenate(y_train_folds[:i] + y_train_folds[i + 1:]))
        y_pred = classifier.predict(X_train_folds[i], k=k, num_loops=0)
        k_to_accuracies[k].append(np.mean(y_pred == y_train_folds[i]))
"""

LINEAR = """
mean_image = np.mean(X_train, axis=0)
X_train, X_test = X_train - mean_image, X_test - mean_image
X_train = np.hstack([X_train.reshape(num_training, -1), np.ones((num_training, 1))])
X_test = np.hstack([X_test.reshape(num_test, -1), np.ones((num_test, 1))])
X_dev, y_dev = X_train[:50], y_train[:50]
"""

SVM = """
from cs231n.classifiers.linear_svm import svm_loss_naive
from cs231n.gradient_check import grad_check_sparse
W = np.random.randn(X_dev.shape[1], 10) * 0.0001
loss, grad = svm_loss_naive(W, X_dev, y_dev, 0.000005)
print('loss: %f' % (loss, ))
for reg in (0.0, 5e1):
    loss, grad = svm_loss_naive(W, X_dev, y_dev, reg)
    f = lambda w: svm_loss_naive(w, X_dev, y_dev, reg)[0]
    grad_numerical = grad_check_sparse(f, W, grad)
from cs231n.classifiers.linear_svm import svm_loss_vectorized
loss_naive, grad_naive = svm_loss_naive(W, X_dev, y_dev, 0.000005)
loss_vectorized, grad_vectorized = svm_loss_vectorized(W, X_dev, y_dev, 0.000005)
difference = np.linalg.norm(grad_naive - grad_vectorized, ord='fro') + abs(loss_naive - loss_vectorized)
from cs231n.classifiers import LinearSVM
classifier = LinearSVM()
loss_hist = classifier.train(X_train, y_train, learning_rate=1e-7, reg=2.5e4, num_iters=300, verbose=True)
accuracy = np.mean(y_test == classifier.predict(X_test))
w = classifier.W[:-1, :].reshape(32, 32, 3, 10)
"""

SOFTMAX = """
from cs231n.classifiers.softmax import softmax_loss_naive
W = np.random.randn(X_dev.shape[1], 10) * 0.0001
loss, grad = softmax_loss_naive(W, X_dev, y_dev, 0.0)
print('loss: %f' % loss)
print('sanity check: %f' % (-np.log(0.1)))
from cs231n.gradient_check import grad_check_sparse
for reg in (0.0, 5e1):
    loss, grad = softmax_loss_naive(W, X_dev, y_dev, reg)
    f = lambda w: softmax_loss_naive(w, X_dev, y_dev, reg)[0]
    grad_numerical = grad_check_sparse(f, W, grad, 10)
from cs231n.classifiers.softmax import softmax_loss_vectorized
loss_vectorized, grad_vectorized = softmax_loss_vectorized(W, X_dev, y_dev, 50.0)
difference = np.linalg.norm(grad - grad_vectorized, ord='fro') + abs(loss - loss_vectorized)
from cs231n.classifiers import Softmax
classifier = Softmax()
loss_hist = classifier.train(X_train, y_train, learning_rate=1e-7, reg=2.5e4, num_iters=300, verbose=True)
accuracy = np.mean(y_test == classifier.predict(X_test))
"""

TWO_LAYER_NET = """
from cs231n.classifiers.fc_net import TwoLayerNet
from cs231n.solver import Solver
data = {'X_train': X_train, 'y_train': y_train, 'X_val': X_test, 'y_val': y_test}
net = TwoLayerNet(32 * 32 * 3, 20, 10)
solver = Solver(net, data, optim_config={'learning_rate': 1e-3}, num_epochs=6, batch_size=20, print_every=5)
solver.train()
accuracy = np.mean(np.argmax(net.loss(X_test), axis=1) == y_test)

from cs231n.classifiers.neural_net import TwoLayerNet
rows, test_rows = X_train.reshape(num_training, -1), X_test.reshape(num_test, -1)
old = TwoLayerNet(32 * 32 * 3, 20, 10)
stats = old.train(rows, y_train, test_rows, y_test, num_iters=101, batch_size=50, learning_rate=1e-3,
                  learning_rate_decay=0.95, reg=0.25, verbose=True)
old_accuracy = (old.predict(test_rows) == y_test).mean()
"""

FEATURES = """
from cs231n.features import *
num_color_bins = 10
feature_fns = [hog_feature, lambda img: color_histogram_hsv(img, nbin=num_color_bins)]
X_train_feats = extract_features(X_train, feature_fns, verbose=True)
X_test_feats = extract_features(X_test, feature_fns)
mean_feat = np.mean(X_train_feats, axis=0, keepdims=True)
std_feat = np.std(X_train_feats - mean_feat, axis=0, keepdims=True)
X_train_feats, X_test_feats = [(X - mean_feat) / std_feat for X in (X_train_feats, X_test_feats)]
X_train_feats = np.hstack([X_train_feats, np.ones((X_train_feats.shape[0], 1))])
X_test_feats = np.hstack([X_test_feats, np.ones((X_test_feats.shape[0], 1))])
from cs231n.classifiers.linear_classifier import LinearSVM
svm = LinearSVM()
loss_hist = svm.train(X_train_feats, y_train, learning_rate=1e-3, reg=1e-2, num_iters=300)
accuracy = np.mean(svm.predict(X_test_feats) == y_test)
from cs231n.classifiers.fc_net import TwoLayerNet
from cs231n.solver import Solver
net = TwoLayerNet(X_train_feats[:, :-1].shape[1], 50, 10)
"""


@pytest.fixture
def run(installed):
    """run(cell, ...): the namespace after these cells, over small images of ten kinds."""
    rng = np.random.default_rng(0)
    pictures = rng.uniform(0, 255, size=(10, 32, 32, 3))
    namespace = {"np": np, "num_training": 100, "num_test": 30}
    for part, count in (("train", 100), ("test", 30)):
        y = np.arange(count) % 10
        noisy = pictures[y] + 40 * rng.normal(size=(count, 32, 32, 3))
        namespace |= {f"X_{part}": np.clip(noisy, 0, 255), f"y_{part}": y}

    def execute(*cells):
        np.random.seed(231)
        for cell in cells:
            exec(compile(cell, "<cell>", "exec"), namespace)
        return namespace

    return execute


def test_knn(run):
    found = run(KNN)
    assert found["accuracy"] == 1
    assert [len(accuracies) for accuracies in found["k_to_accuracies"].values()] == [5, 5, 5]
    assert min(found["k_to_accuracies"][1]) == 1


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not os.environ.get("FCNET_DATA"), reason="FCNET_DATA is not set: no real data sets")
def test_the_knn_notebooks_figures():
    """137 and 139 of 500 test images right, by 5000 training images: what the notebook prints."""
    X, y, X_test, y_test = data_utils._read(data_utils.COURSE_FOLDER)
    model = KNearestNeighbor()
    model.train(X[:5000], y[:5000])
    dists = model.compute_distances_no_loops(X_test[:500])
    assert [int(np.sum(model.predict_labels(dists, k=k) == y_test[:500])) for k in (1, 5)] == [137, 139]


@pytest.mark.parametrize(("cell", "first"), [(SVM, 9.0), (SOFTMAX, np.log(10))])
def test_svm_and_softmax(run, capsys, cell, first):
    found = run(LINEAR, cell)
    printed = capsys.readouterr().out
    assert float(re.search(r"loss: (\S+)", printed)[1]) == pytest.approx(first, rel=0.15)
    errors = [float(error) for error in re.findall(r"relative error: (\S+)", printed)]
    assert len(errors) == 20
    assert sorted(errors)[-3] < 1e-5, "one or two may lie on a hinge's kink"
    assert found["difference"] == 0
    assert found["loss_hist"][-1] < 0.1 * found["loss_hist"][0]
    assert "iteration 200 / 300: loss " in printed
    assert found["accuracy"] > 0.9


def test_two_layer_net(run, capsys):
    found = run("X_train, X_test = X_train - X_train.mean(axis=0), X_test - X_train.mean(axis=0)", TWO_LAYER_NET)
    assert found["accuracy"] == found["old_accuracy"] == 1
    assert sorted(found["stats"]) == ["loss_history", "train_acc_history", "val_acc_history"]
    assert "iteration 0 / 101: loss 2.302" in capsys.readouterr().out


def test_features(run):
    found = run(FEATURES)
    assert found["X_train_feats"].shape == (100, 144 + 10 + 1)
    assert found["accuracy"] > 0.9
    assert found["net"].loss(found["X_test_feats"][:, :-1]).shape == (30, 10)


def test_affine_bn_relu(rng):
    x, w, dout = rng.normal(size=(6, 2, 3)), rng.normal(size=(6, 4)), rng.normal(size=(6, 4))
    b, gamma, beta = rng.normal(size=(3, 4))

    def forward(_=None):
        return affine_bn_relu_forward(x, w, b, gamma, beta, {"mode": "train"})

    out, cache = forward()
    a = x.reshape(6, 6) @ w + b
    normed = gamma * (a - a.mean(axis=0)) / np.sqrt(a.var(axis=0) + 1e-5) + beta
    np.testing.assert_allclose(out, np.where(normed > 0, normed, 0), rtol=1e-11, atol=1e-14)
    grads = affine_bn_relu_backward(dout, cache)
    for array, grad in zip((x, w, b, gamma, beta), grads, strict=True):
        numeric = numerical_gradient(lambda _: forward()[0], array, dout)
        assert relative_error(numeric, grad, floor=1e-4) < 1e-4
    bn_param = {"mode": "train"}
    affine_bn_relu_forward(x, w, b, gamma, beta, bn_param)
    np.testing.assert_allclose(bn_param["running_mean"], 0.1 * a.mean(axis=0))
    tested, _ = affine_bn_relu_forward(x, w, b, gamma, beta, bn_param | {"mode": "test"})
    assert not np.allclose(tested, out)
