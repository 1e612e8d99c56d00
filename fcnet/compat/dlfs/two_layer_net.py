"""The book's `two_layer_net.py` of chapter 5, which serves the scripts of chapter 4 too."""

from __future__ import annotations

from typing import Any

from fcnet.compat.dlfs import multi_layer_net
from fcnet.compat.dlfs.layers import SoftmaxWithLoss
from fcnet.compat.dlfs.multi_layer_net import *
from fcnet.compat.dlfs.multi_layer_net import MultiLayerNet

__all__ = ["TwoLayerNet", *(name for name in multi_layer_net.__all__ if name != "MultiLayerNet")]


class TwoLayerNet(MultiLayerNet):
    """Build affine - relu - affine - softmax, in float64.

    Chapter 4's has a sigmoid in place of the relu, and its `predict` returns probabilities, not scores.

    Attributes:
        params: W1 (D, H), b1 (H,), W2 (H, C), b2 (C,); change them in place, for the layers hold the same arrays.
        layers: Affine1, Relu1, Affine2. lastLayer: the `SoftmaxWithLoss`.
    """

    def __init__(
        self, input_size: int, hidden_size: int, output_size: int, weight_init_std: float = 0.01, *, seed: Any = None
    ) -> None:
        """Take D, H and C, the standard deviation of the weights, and their seed, which is as in `MultiLayerNet`."""
        super().__init__(input_size, [hidden_size], output_size, weight_init_std=weight_init_std, seed=seed)

    def _add_hidden(self, idx: int, activation: Any) -> None:
        self.layers[f"Relu{idx}"] = activation

    @property
    def lastLayer(self) -> SoftmaxWithLoss:
        """Return `last_layer`, by this chapter's name."""
        return self.last_layer
