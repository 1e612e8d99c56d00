"""The book's `dataset/mnist.py`, by fcnet's own readers."""

from __future__ import annotations

import gzip
import os
import pickle
import urllib.request
from pathlib import Path

import numpy as np

import fcnet.functional as F
from fcnet.data import catalogue
from fcnet.data.fetching import fetch
from fcnet.data.files import remedy
from fcnet.data.idx import read_images_and_labels

__all__ = ["download_mnist", "img_dim", "img_size", "init_mnist", "key_file", "load_mnist", "test_num", "train_num"]
__all__ += ["dataset_dir", "gzip", "np", "os", "pickle", "save_file", "url_base", "urllib"]  # as the book's star import

url_base = catalogue.SOURCES["mnist"].url
dataset_dir = str(catalogue.default_root() / catalogue.SOURCES["mnist"].folder)  # where `download_mnist` puts them
save_file = f"{dataset_dir}/mnist.pkl"  # the book's own, which is not written here
train_num, test_num = 60000, 10000
img_dim, img_size = (1, 28, 28), 784
#: What the book calls the files.
key_file = {
    "train_img": "train-images-idx3-ubyte.gz",
    "train_label": "train-labels-idx1-ubyte.gz",
    "test_img": "t10k-images-idx3-ubyte.gz",
    "test_label": "t10k-labels-idx1-ubyte.gz",
}

#: Where the book's own script puts the files, seen from a chapter's folder and from the one above.
BOOK_FOLDERS = (Path("../dataset"), Path("dataset"))

Part = tuple[np.ndarray, np.ndarray]


def load_mnist(normalize: bool = True, flatten: bool = True, one_hot_label: bool = False) -> tuple[Part, Part]:
    """Load all of MNIST in the files' order: (x_train, t_train), (x_test, t_test), of 60000 and 10000 images.

    Args:
        normalize: pixels as float32 in 0..1; False: as uint8 in 0..255.
        flatten: images as rows, (N, 784); False: (N, 1, 28, 28).
        one_hot_label: t as one-hot rows (N, 10) float64; False: as uint8 (N,).

    Raises:
        FileNotFoundError: no such files, in the book's folder `dataset` or where `fcnet.data.load("mnist")` looks; the
            book downloads them, here `fcnet fetch mnist` does. ValueError: damaged files.
    """
    images, labels, test_images, test_labels = _files().values()
    options = normalize, flatten, one_hot_label
    return _part(images, labels, *options), _part(test_images, test_labels, *options)


def download_mnist() -> None:
    """Do what `fcnet fetch mnist` does, keeping files that are there; see `fcnet.data.fetch`."""
    fetch("mnist")


def init_mnist() -> None:
    """Call `download_mnist`; the book makes one file of the four after that, here they are read as they are."""
    download_mnist()


def _part(images: Path, labels: Path, normalize: bool, flatten: bool, one_hot_label: bool) -> Part:
    x, t = read_images_and_labels(images, labels, remedy("mnist", images.parent))
    x = x.reshape(len(x), -1) if flatten else x[:, None]
    x = x.astype(np.float32) / 255 if normalize else x
    return x, F.one_hot(t, 10, "float64") if one_hot_label else t.astype(np.uint8)


def _files() -> dict[str, Path]:
    """Return images and labels to train, images and labels to test."""
    for folder in BOOK_FOLDERS:
        found = catalogue.files_in(folder, "mnist")
        if len(found) == len(catalogue.wanted_files("mnist")):
            return found
    return catalogue.find_files("mnist")
