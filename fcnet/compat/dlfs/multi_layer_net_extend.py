"""The book's `common/multi_layer_net_extend.py`: the network with batch normalisation and dropout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fcnet.compat.cs231n._arrays import Array
from fcnet.compat.dlfs import multi_layer_net
from fcnet.compat.dlfs._random import generator
from fcnet.compat.dlfs.layers import BatchNormalization, Dropout
from fcnet.compat.dlfs.multi_layer_net import *
from fcnet.compat.dlfs.multi_layer_net import MultiLayerNet

__all__ = ["MultiLayerNetExtend", *(name for name in multi_layer_net.__all__ if name != "MultiLayerNet")]


class MultiLayerNetExtend(MultiLayerNet):
    """Build {affine - [batch norm] - activation - [dropout]} x hidden_layer_num - affine - softmax, in float64.

    Attributes:
        params: as in `MultiLayerNet`, and gamma1, beta1, ... with batch norm.
        layers: as there, and BatchNorm1, ... and Dropout1, ....
        use_dropout, use_batchnorm: as the arguments say.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size_list: Sequence[int],
        output_size: int,
        activation: str = "relu",
        weight_init_std: str | float = "relu",
        weight_decay_lambda: float = 0,
        use_dropout: bool = False,
        dropout_ration: float = 0.5,
        use_batchnorm: bool = False,
        *,
        seed: Any = None,
    ) -> None:
        """Take the arguments of `MultiLayerNet`, and:

        Args:
            use_dropout, dropout_ration: whether to drop units, and the share to drop (the book's spelling).
            use_batchnorm: normalise between affine and activation.
            seed: also of the dropout masks, which are drawn after the weights.

        Raises:
            ValueError, TypeError: as there, or dropout_ration is not in [0, 1).
        """
        self.use_dropout, self.use_batchnorm = use_dropout, use_batchnorm
        self._dropout_ratio = dropout_ration
        super().__init__(
            input_size, hidden_size_list, output_size, activation, weight_init_std, weight_decay_lambda, seed=seed
        )

    def _add_hidden(self, idx: int, activation: Any) -> None:
        width = self.hidden_size_list[idx - 1]
        if self.use_batchnorm:
            gamma, beta = np.ones(width), np.zeros(width)
            self.params |= {f"gamma{idx}": gamma, f"beta{idx}": beta}
            self.layers[f"BatchNorm{idx}"] = BatchNormalization(gamma, beta)
        super()._add_hidden(idx, activation)
        if self.use_dropout:
            self.layers[f"Dropout{idx}"] = Dropout(self._dropout_ratio, seed=self._own)

    def predict(self, x: Array, train_flg: bool = False) -> Array:
        """Return scores (N, C) of x (N, d1, ..., dk), before softmax."""
        return self._predict(x, train_flg)

    def loss(self, x: Array, t: Array, train_flg: bool = False) -> float:
        """Return the loss for labels t, (N,) or one-hot (N, C), and the term of the weight decay."""
        return self._loss(x, t, train_flg)

    def numerical_gradient(self, x: Array, t: Array) -> dict[str, Array]:
        """Return the gradient by central differences, with the masks and statistics that `gradient` uses next.

        In the book every evaluation draws new masks, and the result is noise. Here the random numbers and statistics
        are put back each time.
        """
        layers = [layer for layer in self.layers.values() if isinstance(layer, Dropout | BatchNormalization)]
        before = [dict(vars(layer)) for layer in layers]
        draws = generator(self._own)
        drawn = draws.get_state()

        def put_back() -> None:
            for layer, state in zip(layers, before, strict=True):
                vars(layer).update(state)
            draws.set_state(drawn)

        def loss(_: Array) -> float:
            put_back()
            return self._loss(x, t, True)

        grads = self._differences(loss)
        put_back()
        return grads

    def _predict(self, x: Array, train_flg: bool) -> Array:
        for layer in self.layers.values():
            two_modes = isinstance(layer, Dropout | BatchNormalization)
            x = layer.forward(x, train_flg) if two_modes else layer.forward(x)
        return x

    def _layer_gradient(self, name: str) -> Array:
        for parameter in ("gamma", "beta"):
            if name.startswith(parameter):
                return getattr(self.layers[f"BatchNorm{name.removeprefix(parameter)}"], f"d{parameter}")
        return super()._layer_gradient(name)
