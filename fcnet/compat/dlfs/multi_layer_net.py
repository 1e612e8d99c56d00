"""The book's `common/multi_layer_net.py`: a fully connected network of any depth, from its layers."""

from __future__ import annotations

import os
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

import fcnet.functional as F
from fcnet.compat.cs231n._arrays import Array, number
from fcnet.compat.dlfs import layers
from fcnet.compat.dlfs._random import generator, own_generator
from fcnet.compat.dlfs.functions import labels_of
from fcnet.compat.dlfs.gradient import numerical_gradient
from fcnet.compat.dlfs.layers import *
from fcnet.compat.dlfs.layers import Affine, Relu, Sigmoid, SoftmaxWithLoss, Tanh
from fcnet.nn.init import weight_std
from fcnet.validation import nonnegative_real, one_of, positive_int

__all__ = ["MultiLayerNet", "OrderedDict", "numerical_gradient", "os", "sys"]
__all__ += layers.__all__  # as the book's star import does

ACTIVATIONS = {"relu": Relu, "sigmoid": Sigmoid, "tanh": Tanh}
#: What the book calls fcnet's initialisers: by name, or by the activation they suit.
SCHEMES = {"relu": "he", "he": "he", "sigmoid": "xavier", "xavier": "xavier"}


class MultiLayerNet:
    """Build {affine - activation} x hidden_layer_num - affine - softmax, in float64.

    Attributes:
        params: name -> array: W1, b1, W2, ...; change them in place, for the layers hold the same arrays.
        layers: the layers by the book's names, Affine1, Activation_function1, Affine2, ..., in order.
        last_layer: the `SoftmaxWithLoss`.
        weight_decay_lambda: strength of 0.5 * lambda * sum(W**2) over every weight matrix; may be set at any time.
        input_size, hidden_size_list, hidden_layer_num, output_size: as the arguments say.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size_list: Sequence[int],
        output_size: int,
        activation: str = "relu",
        weight_init_std: str | float = "relu",
        weight_decay_lambda: float = 0,
        *,
        seed: Any = None,
    ) -> None:
        """Make a network with biases 0 and normal weights.

        Args:
            input_size: D. hidden_size_list: width of each hidden layer. output_size: C.
            activation: "relu" or "sigmoid"; also "tanh", which the book only draws.
            weight_init_std: "relu" or "he" for He's standard deviation sqrt(2 / n), n the layer's inputs; "sigmoid"
                or "xavier" for sqrt(1 / n); or a number. In any case.
            weight_decay_lambda: L2 strength.
            seed: of the weights; None, the book's way, draws them from NumPy's global generator.

        Raises:
            ValueError, TypeError: an unknown name, a width below 1, a negative number.
        """
        one_of("activation", activation, ACTIVATIONS)
        self.input_size = positive_int("input_size", input_size)
        if isinstance(hidden_size_list, str) or not isinstance(hidden_size_list, Iterable):
            raise TypeError(f"hidden_size_list: expected a list of widths such as [100, 100], got {hidden_size_list!r}")
        self.hidden_size_list = [positive_int("hidden_size_list", size) for size in hidden_size_list]
        self.output_size = positive_int("output_size", output_size)
        self.hidden_layer_num = len(self.hidden_size_list)
        self.weight_decay_lambda = nonnegative_real("weight_decay_lambda", weight_decay_lambda)
        self._own = own_generator(seed)
        self.params: dict[str, Array] = {}
        self._init_weight(weight_init_std)
        self.layers: dict[str, Any] = {}
        for idx in range(1, self.hidden_layer_num + 1):
            self.layers[f"Affine{idx}"] = self._affine(idx)
            self._add_hidden(idx, ACTIVATIONS[activation]())
        idx = self.hidden_layer_num + 1
        self.layers[f"Affine{idx}"] = self._affine(idx)
        self.last_layer = SoftmaxWithLoss()

    def _init_weight(self, weight_init_std: str | float) -> None:
        scheme, scale = None, None
        if isinstance(weight_init_std, str):
            one_of("weight_init_std", weight_init_std.lower(), SCHEMES)
            scheme = SCHEMES[weight_init_std.lower()]
        else:
            scale = nonnegative_real("weight_init_std", weight_init_std, "a standard deviation of 0 or more")
        sizes = [self.input_size, *self.hidden_size_list, self.output_size]
        for idx, shape in enumerate(pairwise(sizes), 1):
            std = weight_std(scheme, scale, "he", shape[0])
            self.params[f"W{idx}"] = std * generator(self._own).randn(*shape)
            self.params[f"b{idx}"] = np.zeros(shape[1])

    def _affine(self, idx: int) -> Affine:
        return Affine(self.params[f"W{idx}"], self.params[f"b{idx}"])

    def _add_hidden(self, idx: int, activation: Any) -> None:
        """Add what follows the affine layer of hidden layer `idx`."""
        self.layers[f"Activation_function{idx}"] = activation

    def predict(self, x: Array) -> Array:
        """Return scores (N, C) of x (N, d1, ..., dk), before softmax."""
        return self._predict(x, False)

    def loss(self, x: Array, t: Array) -> float:
        """Return the loss for labels t, (N,) or one-hot (N, C), and the term of the weight decay."""
        return self._loss(x, t, False)

    def accuracy(self, x: Array, t: Array) -> float:
        """Share of the samples x whose class, t (N,) or the largest in a row of t (N, C), is predicted, 0 to 1."""
        labels = labels_of(t, x.shape[0], self.output_size)
        return float(np.mean(np.argmax(self._predict(x, False), axis=1) == labels))

    def gradient(self, x: Array, t: Array) -> dict[str, Array]:
        """Return the gradient of the training loss in each of `params`, by backpropagation."""
        self._loss(x, t, True)
        dout = self.last_layer.backward()
        for layer in reversed(self.layers.values()):
            dout = layer.backward(dout)
        grads = {name: self._layer_gradient(name) for name in self._by_layer()}
        self._decay(0.0, grads)
        return grads

    def numerical_gradient(self, x: Array, t: Array) -> dict[str, Array]:
        """Return the same by central differences, h = 1e-4: slow, to check `gradient`."""

        def loss(_: Array) -> float:
            return self._loss(x, t, True)

        return self._differences(loss)

    def _differences(self, loss: Callable[[Array], float]) -> dict[str, Array]:
        return {name: numerical_gradient(loss, self.params[name]) for name in self._by_layer()}

    def _by_layer(self) -> list[str]:
        """Return the names in `params` in the order of the book's gradients: W1, b1, gamma1, beta1, W2...."""
        return sorted(self.params, key=lambda name: int(name.lstrip("Wabegmt")))

    def _predict(self, x: Array, train_flg: bool) -> Array:
        for layer in self.layers.values():
            x = layer.forward(x)
        return x

    def _loss(self, x: Array, t: Array, train_flg: bool) -> float:
        return self._decay(self.last_layer.forward(self._predict(x, train_flg), t), {})

    def _layer_gradient(self, name: str) -> Array:
        layer = self.layers[f"Affine{name[1:]}"]
        return layer.dW if name[0] == "W" else layer.db

    def _decay(self, loss: float, grads: dict[str, Array]) -> float:
        """Return the loss with the weight decay; its gradient is added to the matrices in `grads`."""
        if not self.weight_decay_lambda:
            return loss
        total = np.array(loss)
        for idx in range(1, self.hidden_layer_num + 2):
            W = self.params[f"W{idx}"]
            dW = grads[f"W{idx}"].copy() if grads else np.zeros_like(W)  # the layer keeps its own, without the decay
            F.l2_penalty(W.reshape(-1), self.weight_decay_lambda, total, dW.reshape(-1), np.empty(W.size))
            grads |= {f"W{idx}": dW} if grads else {}
        return number(total)
