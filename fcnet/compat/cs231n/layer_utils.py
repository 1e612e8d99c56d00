"""The course's `layer_utils.py`: layers that go together, but for its convolutional ones."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from fcnet.compat import _install
from fcnet.compat.cs231n import layers
from fcnet.compat.cs231n._arrays import Array
from fcnet.compat.cs231n.layers import *

__all__ = ["affine_bn_relu_backward", "affine_bn_relu_forward", "affine_relu_backward", "affine_relu_forward"]
__all__ += layers.__all__

UNITS_OF_IMAGES = [
    f"{unit}_{way}" for unit in ("conv_relu", "conv_bn_relu", "conv_relu_pool") for way in ("forward", "backward")
]
__getattr__ = _install.without(UNITS_OF_IMAGES, "cs231n.layer_utils", globals())


def affine_relu_forward(x: Array, w: Array, b: Array) -> tuple[Array, tuple]:
    """Compute relu(x W + b) for x (N, d1, ..., dk), w (D, M), b (M,): out (N, M) and a cache."""
    a, fc_cache = layers.affine_forward(x, w, b)
    out, relu_cache = layers.relu_forward(a)
    return out, (fc_cache, relu_cache)


def affine_relu_backward(dout: Array, cache: tuple) -> tuple[Array, Array, Array]:
    """Return the gradients of `affine_relu_forward`: dx in the shape of x, dw (D, M), db (M,)."""
    fc_cache, relu_cache = cache
    return layers.affine_backward(layers.relu_backward(dout, relu_cache), fc_cache)


def affine_bn_relu_forward(
    x: Array, w: Array, b: Array, gamma: Array, beta: Array, bn_param: MutableMapping[str, Any]
) -> tuple[Array, tuple]:
    """Compute relu(batchnorm(x W + b)) for x (N, d1, ..., dk), w (D, M), b, gamma, beta (M,): out (N, M), cache.

    bn_param: as `batchnorm_forward` takes it.
    """
    a, fc_cache = layers.affine_forward(x, w, b)
    normed, bn_cache = layers.batchnorm_forward(a, gamma, beta, bn_param)
    out, relu_cache = layers.relu_forward(normed)
    return out, (fc_cache, bn_cache, relu_cache)


def affine_bn_relu_backward(dout: Array, cache: tuple) -> tuple[Array, Array, Array, Array, Array]:
    """Return the gradients of `affine_bn_relu_forward`: dx in the shape of x, dw (D, M), db, dgamma and dbeta (M,)."""
    fc_cache, bn_cache, relu_cache = cache
    dnormed = layers.relu_backward(dout, relu_cache)
    da, dgamma, dbeta = layers.batchnorm_backward_alt(dnormed, bn_cache)
    return *layers.affine_backward(da, fc_cache), dgamma, dbeta
