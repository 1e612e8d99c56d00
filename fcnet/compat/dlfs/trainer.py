"""The book's `common/trainer.py`: mini-batch training of any network with its methods."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Mapping
from typing import Any

from fcnet.compat.cs231n._arrays import Array
from fcnet.compat.dlfs import optimizer as optimizers
from fcnet.compat.dlfs._random import generator, own_generator
from fcnet.compat.dlfs.optimizer import SGD, AdaGrad, Adam, Momentum, Nesterov, RMSprop, np
from fcnet.validation import one_of, positive_int

__all__ = ["Trainer", "os", "sys"]
__all__ += optimizers.__all__  # as the book's star import does

OPTIMIZERS = {
    "sgd": SGD,
    "momentum": Momentum,
    "nesterov": Nesterov,
    "adagrad": AdaGrad,
    "rmsprop": RMSprop,
    "adam": Adam,
}


class Trainer:
    """Train a network with mini-batches drawn with replacement, and measure accuracies once an epoch.

    Attributes:
        train_loss_list: the loss of each step, on its mini-batch after the update.
        train_acc_list, test_acc_list: after the first step of each epoch.
        iter_per_epoch: max(train_size / mini_batch_size, 1), which need not be whole. max_iter: steps of `train`.
        current_iter, current_epoch: steps made, epochs begun.
        optimizer: of the class that `optimizer` names.
    """

    def __init__(
        self,
        network: Any,
        x_train: Array,
        t_train: Array,
        x_test: Array,
        t_test: Array,
        epochs: int = 20,
        mini_batch_size: int = 100,
        optimizer: str = "SGD",
        optimizer_param: Mapping[str, float] | None = None,
        evaluate_sample_num_per_epoch: int | None = None,
        verbose: bool = True,
        *,
        seed: Any = None,
    ) -> None:
        """Prepare training.

        Args:
            network: has `params`, `gradient(x, t)`, `loss(x, t)` and `accuracy(x, t)`; trained in place.
            x_train, x_test: (n, d1, ..., dk). t_train, t_test: labels (n,), or one-hot (n, C).
            epochs, mini_batch_size: how long, and N.
            optimizer: "SGD", "Momentum", "Nesterov", "AdaGrad", "RMSprop" or "Adam", in any case.
            optimizer_param: its arguments; None for {"lr": 0.01}.
            evaluate_sample_num_per_epoch: accuracies are measured on so many samples, the first; None: on all.
            verbose: print the book's lines.
            seed: of the mini-batches; None, the book's way, draws them from NumPy's global generator.

        Raises:
            ValueError, TypeError: an unknown optimizer or argument of it, a number below 1, data that do not fit.
        """
        for part, x, t in (("train", x_train, t_train), ("test", x_test, t_test)):
            if len(x) == 0 or len(x) != len(t):
                raise ValueError(f"t_{part}: expected a label for each sample of x_{part}, {len(x)}, got {len(t)}")
        rule = optimizer.lower() if isinstance(optimizer, str) else optimizer
        one_of("optimizer", rule, OPTIMIZERS)
        self.network, self.verbose = network, verbose
        self.x_train, self.t_train, self.x_test, self.t_test = x_train, t_train, x_test, t_test
        self.epochs = positive_int("epochs", epochs)
        self.batch_size = positive_int("mini_batch_size", mini_batch_size)
        if evaluate_sample_num_per_epoch is not None:
            positive_int("evaluate_sample_num_per_epoch", evaluate_sample_num_per_epoch)
        self.evaluate_sample_num_per_epoch = evaluate_sample_num_per_epoch
        self.optimizer = OPTIMIZERS[rule](**_arguments(rule, optimizer_param))
        self._own = own_generator(seed)
        self.train_size = len(x_train)
        self.iter_per_epoch = max(self.train_size / self.batch_size, 1)
        self.max_iter = int(self.epochs * self.iter_per_epoch)
        self.current_iter = self.current_epoch = 0
        self.train_loss_list: list[float] = []
        self.train_acc_list: list[float] = []
        self.test_acc_list: list[float] = []

    def train_step(self) -> None:
        """Make one update on a mini-batch; at the beginning of an epoch compute the accuracies, too."""
        batch = generator(self._own).choice(self.train_size, self.batch_size)
        x, t = self.x_train[batch], self.t_train[batch]
        self.optimizer.update(self.network.params, self.network.gradient(x, t))
        loss = self.network.loss(x, t)
        self.train_loss_list.append(loss)
        self._tell(f"train loss:{loss}")
        # The book compares current_iter % iter_per_epoch with 0, which a rate that is not whole seldom meets.
        if self.current_iter >= self.current_epoch * self.iter_per_epoch:
            self._evaluate()
        self.current_iter += 1

    def _evaluate(self) -> None:
        self.current_epoch += 1
        first = slice(self.evaluate_sample_num_per_epoch)
        train_acc = self.network.accuracy(self.x_train[first], self.t_train[first])
        test_acc = self.network.accuracy(self.x_test[first], self.t_test[first])
        self.train_acc_list.append(train_acc)
        self.test_acc_list.append(test_acc)
        self._tell(f"=== epoch:{self.current_epoch}, train acc:{train_acc}, test acc:{test_acc} ===")

    def train(self) -> None:
        """Make `max_iter` steps."""
        for _ in range(self.max_iter):
            self.train_step()
        if self.verbose:
            test_acc = self.network.accuracy(self.x_test, self.t_test)
            self._tell(f"=============== Final Test Accuracy ===============\ntest acc:{test_acc}")

    def _tell(self, text: str) -> None:
        if self.verbose:
            print(text)


def _arguments(rule: str, given: Mapping[str, float] | None) -> Mapping[str, float]:
    """Return the arguments of the optimizer's class. Raises TypeError or ValueError naming one it does not take."""
    if given is None:
        return {"lr": 0.01}
    if not isinstance(given, Mapping):
        raise TypeError(f"optimizer_param: expected a dict such as {{'lr': 0.01}}, got {given!r}")
    for name in given:
        one_of(f"optimizer_param for {rule}", name, inspect.signature(OPTIMIZERS[rule]).parameters)
    return given
