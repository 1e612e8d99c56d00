"""The book's folder `dataset`."""

from fcnet.compat.dlfs.dataset.mnist import load_mnist

__all__ = ["load_mnist"]
