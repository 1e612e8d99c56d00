"""The course's `classifiers/neural_net.py`, assignment 1 until 2019: the two-layer net that trains itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from fcnet.compat.cs231n import _random, _year, optim
from fcnet.compat.cs231n._arrays import Array
from fcnet.compat.cs231n.classifiers import fc_net
from fcnet.validation import positive_int

__all__ = ["TwoLayerNet", "np"]


class TwoLayerNet(fc_net.TwoLayerNet):
    """Build affine - relu - affine - softmax in float64, with the L2 term reg * sum(W**2), which has no half.

    In 2016 the L2 term has the half. Initial weights and mini-batches are drawn from NumPy's global generator.

    Attributes:
        params: W1 (D, H), b1 (H,), W2 (H, C), b2 (C,).
    """

    def __init__(self, input_size: int, hidden_size: int, output_size: int, std: float = 1e-4) -> None:
        """Take D, H and C, and the standard deviation of the initial weights; biases start at 0."""
        super().__init__(input_size, hidden_size, output_size, weight_scale=std)

    def loss(self, X: Array, y: Array | None = None, reg: float = 0.0) -> Any:
        """Return scores (N, C) of X (N, D) without labels; with y (N,) loss and gradients by the names of params."""
        self.reg = _year.l2_strength(reg)
        return super().loss(X, y)

    def train(
        self,
        X: Array,
        y: Array,
        X_val: Array,
        y_val: Array,
        learning_rate: float = 1e-3,
        learning_rate_decay: float = 0.95,
        reg: float = 5e-6,
        num_iters: int = 100,
        batch_size: int = 200,
        verbose: bool = False,
    ) -> dict[str, list[float]]:
        """Train by gradient descent on mini-batches drawn with replacement.

        Args:
            X, X_val: (n, D). y, y_val: labels (n,).
            learning_rate: of plain SGD; multiplied by learning_rate_decay at the first step of each epoch. An epoch
                is n / batch_size steps, at least 1, and begins, as in the course, where a step's number, from 0, is a
                multiple of that: where batch_size does not divide n this is seldom.
            reg: strength of the L2 term. num_iters, batch_size: how many steps, and N.
            verbose: print the loss of every hundredth step.

        Returns:
            loss_history, the loss of each step; train_acc_history and val_acc_history, the accuracies on the
            mini-batch and on X_val after the first step of each epoch.
        """
        steps_per_epoch = max(len(X) / positive_int("batch_size", batch_size), 1)
        history: dict[str, list[float]] = {"loss_history": [], "train_acc_history": [], "val_acc_history": []}
        for step in range(num_iters):
            rows = _random.generator().choice(len(X), batch_size)
            X_batch, y_batch = X[rows], y[rows]
            loss, grads = self.loss(X_batch, y_batch, reg)
            history["loss_history"].append(loss)
            for name, w in self.params.items():
                self.params[name], _ = optim.sgd(w, grads[name], {"learning_rate": learning_rate})
            if verbose and step % 100 == 0:
                print(f"iteration {step} / {num_iters}: loss {loss:f}")
            if step % steps_per_epoch == 0:
                history["train_acc_history"].append(float((self.predict(X_batch) == y_batch).mean()))
                history["val_acc_history"].append(float((self.predict(X_val) == y_val).mean()))
                learning_rate *= learning_rate_decay
        return history

    def predict(self, X: Array) -> Array:
        """Return the class of the largest score for each sample X (N, D): (N,) integers."""
        return self.loss(X).argmax(axis=1)
