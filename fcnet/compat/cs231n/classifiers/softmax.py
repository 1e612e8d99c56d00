"""The course's `classifiers/softmax.py`: the softmax cross-entropy of a linear classifier."""

from __future__ import annotations

import numpy as np

from fcnet.compat.cs231n import layers
from fcnet.compat.cs231n._arrays import Array
from fcnet.compat.cs231n.classifiers._linear import linear_loss

__all__ = ["np", "softmax_loss_naive", "softmax_loss_vectorized"]


def softmax_loss_vectorized(W: Array, X: Array, y: Array, reg: float) -> tuple[float, Array]:
    """Return loss = mean_n -log softmax(s)_{y_n} + reg Σ W², s = X W, and its gradient; in 2016 half the L2 term.

    Args and returns: as `svm_loss_vectorized`. Source: CS231n, assignment 1.
    """
    return linear_loss(layers.softmax_loss, W, X, y, reg)


def softmax_loss_naive(W: Array, X: Array, y: Array, reg: float) -> tuple[float, Array]:
    """Return the same as `softmax_loss_vectorized`, by the same code: the course's loops are there to be slow.

    Source: CS231n, assignment 1.
    """
    return softmax_loss_vectorized(W, X, y, reg)
