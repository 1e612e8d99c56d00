"""The course's `classifiers/linear_svm.py`: the multiclass hinge loss of a linear classifier."""

from __future__ import annotations

import numpy as np

from fcnet.compat.cs231n import layers
from fcnet.compat.cs231n._arrays import Array
from fcnet.compat.cs231n.classifiers._linear import linear_loss

__all__ = ["np", "svm_loss_naive", "svm_loss_vectorized"]


def svm_loss_vectorized(W: Array, X: Array, y: Array, reg: float) -> tuple[float, Array]:
    """Compute the multiclass hinge loss mean_n Σ_{c ≠ y_n} max(0, s_c - s_{y_n} + 1) + reg Σ W², s = X W.

    The L2 term has no half (in 2016 it has).

    Args:
        W: (D, C). X: (N, D), with a column of ones if there is to be a bias. y: labels (N,).
        reg: strength of the L2 term.

    Returns:
        The loss, a float, and its gradient in W (D, C).

    Raises:
        ValueError, TypeError: shapes that do not fit, labels that are no classes.

    Source: CS231n, assignment 1.
    """
    return linear_loss(layers.svm_loss, W, X, y, reg)


def svm_loss_naive(W: Array, X: Array, y: Array, reg: float) -> tuple[float, Array]:
    """Return the same as `svm_loss_vectorized`, by the same code: the course's loops are there to be slow.

    Source: CS231n, assignment 1.
    """
    return svm_loss_vectorized(W, X, y, reg)
