"""The course's `classifiers/linear_classifier.py`: a linear classifier trained with mini-batches."""

from __future__ import annotations

import os

import numpy as np

from fcnet.backends import array_module
from fcnet.compat.cs231n import _random, _saved, optim
from fcnet.compat.cs231n._arrays import Array
from fcnet.compat.cs231n.classifiers import linear_svm, softmax
from fcnet.compat.cs231n.classifiers.linear_svm import *
from fcnet.compat.cs231n.classifiers.softmax import *
from fcnet.validation import positive_int

__all__ = ["LinearClassifier", "LinearSVM", "Softmax"]
__all__ += linear_svm.__all__ + [name for name in softmax.__all__ if name not in linear_svm.__all__]

STD = 0.001  # of the initial weights


class LinearClassifier:
    """Compute scores X W; their loss is `loss`, which `LinearSVM` and `Softmax` have.

    Attributes:
        W: (D, C); None before `train` or `load`.
    """

    def __init__(self, *, seed: int | None = None) -> None:
        """Make a classifier without weights.

        seed is of the initial weights and the mini-batches; None: they come from NumPy's global generator, as in the
        course, so that `np.random.seed` decides them.
        """
        self.W: Array = None
        self._random = _random.generator(seed)

    def train(
        self,
        X: Array,
        y: Array,
        learning_rate: float = 1e-3,
        reg: float = 1e-5,
        num_iters: int = 100,
        batch_size: int = 200,
        verbose: bool = False,
    ) -> list[float]:
        """Train by gradient descent on mini-batches drawn with replacement; a second call continues from the weights.

        Args:
            X: (n, D). y: labels (n,) from 0; at the first call the largest says how many classes there are.
            learning_rate: of plain SGD. reg: strength of reg * sum(W**2), which has no half (in 2016 it has).
            num_iters, batch_size: how many steps, and N.
            verbose: print the loss of every hundredth step.

        Returns:
            The loss of each step.

        Raises:
            ValueError, TypeError: shapes that do not fit, labels that are no classes.
        """
        y = y if hasattr(y, "dtype") else np.asarray(y)
        if X.ndim != 2 or len(X) == 0 or y.shape != X.shape[:1]:
            raise ValueError(f"X, y: expected samples (n, D) and labels (n,), got shapes {X.shape} and {y.shape}")
        positive_int("batch_size", batch_size)
        if self.W is None:
            start = STD * self._random.randn(X.shape[1], int(y.max()) + 1)
            self.W = array_module(X).asarray(start)
        losses = []
        for step in range(num_iters):
            rows = self._random.choice(len(X), batch_size)
            loss, dW = self.loss(X[rows], y[rows], reg)
            self.W, _ = optim.sgd(self.W, dW, {"learning_rate": learning_rate})
            losses.append(loss)
            if verbose and step % 100 == 0:
                print(f"iteration {step} / {num_iters}: loss {loss:f}")
        return losses

    def predict(self, X: Array) -> Array:
        """Return the class of the largest score for each sample X (N, D): (N,) integers."""
        if self.W is None:
            raise ValueError(f"{type(self).__name__}: expected train(X, y) before this call, it has no weights yet")
        return array_module(X, self.W).argmax(X @ self.W, axis=1)

    def loss(self, X_batch: Array, y_batch: Array, reg: float) -> tuple[float, Array]:
        """Return the loss of a batch X (N, D), y (N,) and its gradient dW (D, C). Here: NotImplementedError."""
        raise NotImplementedError("LinearClassifier.loss: expected a class with a loss; use LinearSVM or Softmax")

    def save(self, fname: str | os.PathLike[str]) -> None:
        """Write W to cs231n/saved/ in the working directory, in the course's form, an .npy file for `load`."""
        if self.W is None:
            raise ValueError(f"{type(self).__name__}: expected train(X, y) before this call, it has no weights yet")
        _saved.write(fname, {"W": self.W})

    def load(self, fname: str | os.PathLike[str]) -> bool:
        """Take W from what `save`, or the course's, wrote; return whether there is such a file.

        Raises:
            ValueError: the file is damaged, or of something else; nothing that it may tell Python to run is run.
        """
        params = _saved.read(fname, ["W"])
        if params is not None:
            self.W = params["W"]
        return params is not None


class LinearSVM(LinearClassifier):
    """Classify linearly with the multiclass hinge loss, `svm_loss_vectorized`."""

    def loss(self, X_batch: Array, y_batch: Array, reg: float) -> tuple[float, Array]:
        """Return `svm_loss_vectorized(W, X_batch, y_batch, reg)`."""
        return linear_svm.svm_loss_vectorized(self.W, X_batch, y_batch, reg)


class Softmax(LinearClassifier):
    """Classify linearly with the softmax loss, `softmax_loss_vectorized`."""

    def loss(self, X_batch: Array, y_batch: Array, reg: float) -> tuple[float, Array]:
        """Return `softmax_loss_vectorized(W, X_batch, y_batch, reg)`."""
        return softmax.softmax_loss_vectorized(self.W, X_batch, y_batch, reg)
