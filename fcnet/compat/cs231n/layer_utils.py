"""The course's `layer_utils.py`: layers that go together. Its convolutional ones are not here."""

from __future__ import annotations

from fcnet.compat.cs231n import layers
from fcnet.compat.cs231n._arrays import Array
from fcnet.compat.cs231n.layers import *

__all__ = ["affine_relu_backward", "affine_relu_forward"]
__all__ += layers.__all__


def affine_relu_forward(x: Array, w: Array, b: Array) -> tuple[Array, tuple]:
    """relu(x W + b) for x (N, d1, ..., dk), w (D, M), b (M,): out (N, M) and a cache."""
    a, fc_cache = layers.affine_forward(x, w, b)
    out, relu_cache = layers.relu_forward(a)
    return out, (fc_cache, relu_cache)


def affine_relu_backward(dout: Array, cache: tuple) -> tuple[Array, Array, Array]:
    """Gradients of `affine_relu_forward`: dx in the shape of x, dw (D, M), db (M,)."""
    fc_cache, relu_cache = cache
    return layers.affine_backward(layers.relu_backward(dout, relu_cache), fc_cache)
