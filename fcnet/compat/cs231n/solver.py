"""The course's `solver.py`: mini-batch training of any model that has `params` and `loss`."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np

from fcnet.compat.cs231n import _random, optim
from fcnet.compat.cs231n._arrays import Array
from fcnet.errors import unknown
from fcnet.validation import finite_real, positive_int

__all__ = ["Solver", "np", "optim"]

PARTS = ("X_train", "y_train", "X_val", "y_val")


class Solver:
    """Train a model and keep the parameters that did best on the validation set.

    The model has `params`, a dictionary of arrays, and `loss`: `loss(X)` gives scores (N, C), `loss(X, y)` gives
    the loss and a dictionary of gradients with the names of `params`.

    Attributes:
        loss_history: the loss of each step.
        train_acc_history, val_acc_history: accuracy after the first step, each epoch and the last step.
        best_val_acc, best_params: the highest of val_acc_history (0 before there is one), the parameters then.
        epoch: epochs finished.
        optim_configs: for each parameter the rule's hyperparameters and state, with the course's keys.
    """

    def __init__(self, model: Any, data: Mapping[str, Array], **kwargs: Any) -> None:
        """Prepare training.

        Args:
            model: as above; trained in place.
            data: X_train, X_val (n, d1, ..., dk), y_train, y_val (n,).
            update_rule: "sgd" (the default), "sgd_momentum", "rmsprop" or "adam".
            optim_config: the rule's hyperparameters, such as {"learning_rate": 1e-3}; {} for the defaults.
            lr_decay: factor on the learning rate after each epoch; 1.0.
            batch_size: N, drawn with replacement; 100.
            num_epochs: 10, each of n // batch_size steps (at least one).
            num_train_samples: training samples that measure the accuracy; 1000, None for all.
            num_val_samples: the same for validation; None, all.
            checkpoint_name: the model is saved to "<checkpoint_name>_epoch_<n>.safetensors" after each epoch, by
                its method `save(path)`; None, not saved. The course pickles, fcnet never does.
            print_every: steps between two printed losses; 10.
            verbose: True; False prints nothing.
            seed: of the mini-batches and of the samples that accuracy is measured on. None, the default: they come
                from NumPy's global generator, in the course's order, so that `np.random.seed` decides them.

        Raises:
            ValueError, TypeError: other keywords, an unknown rule, data or values that do not fit.
        """
        self.model = model
        for name in PARTS:
            if not isinstance(data, Mapping) or name not in data:
                raise ValueError(f"data: expected a dictionary with {', '.join(PARTS)}, got no {name}")
        self.X_train, self.y_train, self.X_val, self.y_val = (data[name] for name in PARTS)
        _check_part("train", self.X_train, self.y_train)
        _check_part("val", self.X_val, self.y_val)

        rule = kwargs.pop("update_rule", "sgd")
        self.optim_config = kwargs.pop("optim_config", None) or {}
        self.lr_decay = finite_real("lr_decay", kwargs.pop("lr_decay", 1.0))
        self.batch_size = positive_int("batch_size", kwargs.pop("batch_size", 100))
        self.num_epochs = positive_int("num_epochs", kwargs.pop("num_epochs", 10))
        self.num_train_samples = kwargs.pop("num_train_samples", 1000)
        self.num_val_samples = kwargs.pop("num_val_samples", None)
        self.checkpoint_name = kwargs.pop("checkpoint_name", None)
        every = kwargs.pop("print_every", 10)  # -n is n, as t % -n is 0 as often
        self.print_every = positive_int("print_every", -every if isinstance(every, int) and every < 0 else every)
        self.verbose = kwargs.pop("verbose", True)
        self._random = _random.generator(kwargs.pop("seed", None))
        if kwargs:
            extra = ", ".join(f'"{name}"' for name in kwargs)
            raise ValueError(
                f"Unrecognized arguments {extra}; expected update_rule, optim_config, lr_decay, batch_size, "
                "num_epochs, num_train_samples, num_val_samples, checkpoint_name, print_every, verbose, seed"
            )
        if rule not in optim.RULE_NAMES:
            raise unknown("update_rule", rule, optim.RULE_NAMES)
        self.update_rule = getattr(optim, rule)
        if self.checkpoint_name is not None and not hasattr(model, "save"):
            raise TypeError(f"checkpoint_name: expected a model with save(path), got {type(model).__name__}")
        self._reset()

    def _reset(self) -> None:
        self.epoch = 0
        self.best_val_acc = 0.0
        self.best_params: dict[str, Array] = {}
        self._best_bn_params: Any = None
        self.loss_history: list[float] = []
        self.train_acc_history: list[float] = []
        self.val_acc_history: list[float] = []
        self.optim_configs = {name: dict(self.optim_config) for name in self.model.params}

    def _step(self) -> None:
        """Draw one mini-batch and update every parameter once."""
        rows = self._random.choice(self.X_train.shape[0], self.batch_size)
        loss, grads = self.model.loss(self.X_train[rows], self.y_train[rows])
        self.loss_history.append(loss)
        for name, w in self.model.params.items():
            if name not in grads:
                raise ValueError(f"model.loss: expected a gradient for each of params, got none for {name!r}")
            next_w, self.optim_configs[name] = self.update_rule(w, grads[name], self.optim_configs[name])
            self.model.params[name] = next_w

    def check_accuracy(self, X: Array, y: Array, num_samples: int | None = None, batch_size: int = 100) -> float:
        """Share of the samples X (n, ...), y (n,) that the model classifies right, 0 to 1.

        Args:
            num_samples: measure it on so many of them, drawn with replacement; None, or as many or more than there
                are: on all.
            batch_size: rows worked on at a time.
        """
        batch_size = positive_int("batch_size", batch_size)
        if num_samples is not None and positive_int("num_samples", num_samples) < X.shape[0]:
            rows = self._random.choice(X.shape[0], num_samples)
            X, y = X[rows], y[rows]
        predicted = [
            np.argmax(self.model.loss(X[start : start + batch_size]), axis=1)
            for start in range(0, X.shape[0], batch_size)
        ]
        return float(np.mean(np.hstack(predicted) == y))

    def train(self) -> None:
        """Train for `num_epochs` epochs, then put the best parameters into the model.

        The running statistics of a model that has the course's `bn_params` are put back with them, so that the
        model left behind has the validation accuracy `best_val_acc`.
        """
        steps_per_epoch = max(self.X_train.shape[0] // self.batch_size, 1)
        steps = self.num_epochs * steps_per_epoch
        for t in range(steps):
            self._step()
            if self.verbose and t % self.print_every == 0:
                print(f"(Iteration {t + 1} / {steps}) loss: {float(self.loss_history[-1]):f}")
            epoch_end = (t + 1) % steps_per_epoch == 0
            if epoch_end:
                self.epoch += 1
                for config in self.optim_configs.values():
                    config["learning_rate"] *= self.lr_decay
            if t == 0 or epoch_end:  # the last step ends an epoch
                self._evaluate()
            if epoch_end:
                self._save_checkpoint()
        self.model.params = {name: value.copy() for name, value in self.best_params.items()}
        if self._best_bn_params is not None:
            self.model.bn_params = copy.deepcopy(self._best_bn_params)

    def _evaluate(self) -> None:
        train_acc = self.check_accuracy(self.X_train, self.y_train, num_samples=self.num_train_samples)
        val_acc = self.check_accuracy(self.X_val, self.y_val, num_samples=self.num_val_samples)
        self.train_acc_history.append(train_acc)
        self.val_acc_history.append(val_acc)
        if self.verbose:
            print(f"(Epoch {self.epoch} / {self.num_epochs}) train acc: {train_acc:f}; val_acc: {val_acc:f}")
        # The first result counts even if it is 0: the course would end with no parameters at all.
        if not self.best_params or val_acc > self.best_val_acc:
            self.best_val_acc = val_acc
            self.best_params = {name: value.copy() for name, value in self.model.params.items()}
            self._best_bn_params = copy.deepcopy(getattr(self.model, "bn_params", None))

    def _save_checkpoint(self) -> None:
        if self.checkpoint_name is None:
            return
        filename = f"{self.checkpoint_name}_epoch_{self.epoch}.safetensors"
        if self.verbose:
            print(f'Saving checkpoint to "{filename}"')
        self.model.save(filename)


def _check_part(part: str, X: Array, y: Array) -> None:
    for name, array in ((f"X_{part}", X), (f"y_{part}", y)):
        if not getattr(array, "shape", None):
            raise TypeError(f"data[{name!r}]: expected an array, got {type(array).__name__}")
    if X.shape[0] == 0 or y.shape != X.shape[:1]:
        raise ValueError(
            f"data['y_{part}']: expected a label for each of the {X.shape[0]} samples of X_{part}, at least one, "
            f"got shape {y.shape}"
        )
