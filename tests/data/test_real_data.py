"""The real sets under $FCNET_DATA: shapes, counts, and that splits hold them all."""

import os

import numpy as np
import pytest

from fcnet.data import cifar, learn, load
from fcnet.data.catalogue import SOURCES, find_files

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not os.environ.get("FCNET_DATA"), reason="$FCNET_DATA is not set"),
]

# Official counts per class.
MNIST_TRAIN = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
MNIST_TEST = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_mnist():
    ds = load("mnist")
    assert ds.summary() == "mnist: 54000 train, 6000 val, 10000 test, 784 features, 10 classes"
    assert (np.bincount(ds.y_train) + np.bincount(ds.y_val)).tolist() == MNIST_TRAIN
    np.testing.assert_allclose(np.bincount(ds.y_val), np.array(MNIST_TRAIN) / 10, atol=1)
    assert np.bincount(ds.y_test).tolist() == MNIST_TEST
    assert ds.image_shape == (1, 28, 28)
    assert ds.X_train.dtype == np.uint8
    # The mean pixel of the whole training part is known to be 0.1307 of 255.
    total = ds.X_train.sum(dtype=np.int64) + ds.X_val.sum(dtype=np.int64)
    assert total / (60_000 * 784 * 255) == pytest.approx(0.1307, abs=1e-4)


def test_fashion_mnist():
    ds = load("fashion-mnist")
    assert (np.bincount(ds.y_train) + np.bincount(ds.y_val)).tolist() == [6000] * 10
    assert np.bincount(ds.y_val).tolist() == [600] * 10
    assert np.bincount(ds.y_test).tolist() == [1000] * 10
    assert ds.classes[0] == "T-shirt/top"
    Z = learn(ds.preprocess, ds.X_train).apply(ds.X_train[:1000])
    assert np.abs(Z).max() <= 1
    assert abs(Z.mean()) < 0.05


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_checksums_of_fetch_are_those_of_the_files(name):
    pooch = pytest.importorskip("pooch")
    for path in find_files(name).values():
        if path.suffix == ".gz":
            assert pooch.file_hash(str(path)) == SOURCES[name].checksums[path.name]


@pytest.mark.slow
def test_one_cifar10_batch():
    path = find_files("cifar10")["test_batch"]
    X, y = np.empty((10_000, 3072), np.uint8), np.empty(10_000, np.int64)
    cifar.read_batch(path, X, y)
    assert np.bincount(y).tolist() == [1000] * 10
    names = cifar.read_class_names(path.parent)
    assert [names[code] for code in y[:4]] == ["cat", "ship", "ship", "airplane"]


@pytest.mark.slow
def test_cifar10():
    ds = load("cifar10")
    assert ds.summary() == "cifar10: 45000 train, 5000 val, 10000 test, 3072 features, 10 classes"
    assert np.bincount(ds.y_train).tolist() == [4500] * 10
    assert np.bincount(ds.y_val).tolist() == [500] * 10
    assert np.bincount(ds.y_test).tolist() == [1000] * 10
    # Mean of the red, green and blue values in the 50000 training images, known to three places.
    total = sum(X.reshape(-1, 3, 1024).sum(axis=(0, 2), dtype=np.int64) for X in (ds.X_train, ds.X_val))
    np.testing.assert_allclose(total / (50_000 * 1024 * 255), [0.4914, 0.4822, 0.4465], atol=1e-4)
