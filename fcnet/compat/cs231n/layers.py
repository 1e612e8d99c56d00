"""The course's `layers.py`: its names, argument dictionaries and caches over `fcnet.functional`.

Shapes: N batch, D features in, M features out, C classes. Arrays may mix float32, float64 and integers; the result
has the dtype that NumPy would promote them to.
Source: CS231n, assignments 1 and 2, <https://cs231n.github.io>.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from math import prod
from typing import Any

import numpy as np

import fcnet.functional as F
from fcnet.backends import backend_of
from fcnet.backends.caches import EPS, MOMENTUM
from fcnet.compat import _install
from fcnet.compat.cs231n import _random, _year
from fcnet.compat.cs231n._arrays import Array, number, promoted, zeros
from fcnet.errors import unknown
from fcnet.validation import check_labels, finite_real

__all__ = [
    "affine_backward",
    "affine_forward",
    "batchnorm_backward",
    "batchnorm_backward_alt",
    "batchnorm_forward",
    "dropout_backward",
    "dropout_forward",
    "layernorm_backward",
    "layernorm_forward",
    "np",  # the course's star import brings it, and notebooks use it
    "relu_backward",
    "relu_forward",
    "softmax_loss",
    "svm_loss",
]

LAYERS_OF_IMAGES = [
    f"{layer}_{way}{kind}"
    for layer, kind in (
        ("conv", "_naive"),
        ("max_pool", "_naive"),
        ("spatial_batchnorm", ""),
        ("spatial_groupnorm", ""),
    )
    for way in ("forward", "backward")
]
__getattr__ = _install.without(LAYERS_OF_IMAGES, "cs231n.layers", globals())

MODES = ("train", "test")


def affine_forward(x: Array, w: Array, b: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    """Compute out = x W + b, with each sample of x as one row.

    Args:
        x: (N, d1, ..., dk) with d1 * ... * dk = D. w: (D, M). b: (M,).

    Returns:
        out (N, M) and cache = (x, w, b).
    """
    rows, weights, bias = promoted("affine_forward", x=x, w=w, b=b)
    out, _ = F.affine_forward(_rows(rows), weights, bias)
    return out, (x, w, b)


def affine_backward(
    dout: Array, cache: tuple[Array, Array, Array], *, need_dx: bool = True
) -> tuple[Array, Array, Array]:
    """Return the gradients of `affine_forward`, from dout (N, M): dx in the shape of x, dw (D, M), db (M,).

    need_dx=False, which the course does not have, gives None for dx: the first layer of a network never needs it.
    """
    shape = cache[0].shape
    dout, x, w, b = promoted("affine_backward", dout=dout, x=cache[0], w=cache[1], b=cache[2])
    dx, dw, db = F.affine_backward(dout, (_rows(x), w, b), need_dx=need_dx)
    return dx if dx is None else dx.reshape(shape), dw, db


def _rows(x: Array) -> Array:
    """Return (N, d1, ..., dk) as (N, D)."""
    return x.reshape(x.shape[0], prod(x.shape[1:])) if x.ndim else x


def relu_forward(x: Array) -> tuple[Array, Array]:
    """Compute max(x, 0) for x of any shape, and cache = x."""
    out, _ = F.relu_forward(*promoted("relu_forward", x=x))
    return out, x


def relu_backward(dout: Array, cache: Array) -> Array:
    """Return dx = dout where x > 0, else 0; cache is x."""
    return F.relu_backward(*promoted("relu_backward", dout=dout, x=cache))


def softmax_loss(x: Array, y: Array) -> tuple[float, Array]:
    """Compute the softmax cross-entropy of scores x (N, C) for labels y (N,): the mean over the batch, dx (N, C)."""
    return _loss("softmax", x, y)


def svm_loss(x: Array, y: Array) -> tuple[float, Array]:
    """Compute the multiclass hinge loss of scores x (N, C) for labels y (N,): the mean over the batch, dx (N, C)."""
    return _loss("svm", x, y)


def _loss(name: str, x: Array, y: Array) -> tuple[float, Array]:
    (x,) = promoted(f"{name}_loss", x=x)
    if x.ndim != 2:
        raise ValueError(f"{name}_loss: x: expected scores (N, C), got shape {x.shape}")
    loss, dx = F.LOSSES[name](x, labels_for(f"{name}_loss", x, y))
    return number(loss), dx


def labels_for(function: str, x: Array, y: Any) -> Array:
    """Return the labels of scores x (N, C) as a checked array. Raises TypeError or ValueError."""
    y = y if hasattr(y, "dtype") else np.asarray(y)
    try:
        check_labels("y", y, x.shape[1], x.shape[0])
    except (TypeError, ValueError) as error:  # its remedies name the array
        raise type(error)(f"{function}: {error}") from None
    return y


def batchnorm_forward(
    x: Array, gamma: Array, beta: Array, bn_param: MutableMapping[str, Any]
) -> tuple[Array, F.NormCache | None]:
    """Compute batch normalisation with its options and running statistics in a dictionary.

    Args:
        x: (N, D). gamma, beta: (D,).
        bn_param: mode "train" or "test" (required); eps (1e-5); momentum (0.9, weighs the old running value);
            running_mean and running_var (D,), zeros at first. In training the running statistics are moved, and
            in both modes they are put into the dictionary, as new arrays.

    Returns:
        out (N, D) and a cache for either backward function; the cache is None when testing.

    Raises:
        ValueError: no mode, an unknown one, or shapes that do not fit.
    """
    mode = _mode("bn_param", bn_param)
    x, gamma, beta = promoted("batchnorm_forward", x=x, gamma=gamma, beta=beta)
    _two_axes("batchnorm_forward", x)
    eps = bn_param.get("eps", EPS)
    running = {name: _running(bn_param, name, x) for name in ("running_mean", "running_var")}
    if mode == "train":
        momentum = bn_param.get("momentum", MOMENTUM)
        out, cache = F.batchnorm_forward(x, gamma, beta, **running, momentum=momentum, eps=eps)
    else:
        out, cache = F.batchnorm_inference(x, gamma, beta, **running, eps=eps), None
    bn_param.update(running)
    return out, cache


def _running(bn_param: Mapping[str, Any], name: str, x: Array) -> Array:
    """Return a running statistic in the dtype of x, as an array that may be changed."""
    value = bn_param.get(name)
    if value is None:
        return zeros(x, x.shape[1])
    if getattr(value, "shape", None) != (x.shape[1],):
        raise ValueError(
            f"batchnorm_forward: bn_param[{name!r}]: expected shape {(x.shape[1],)} for x {x.shape}, "
            f"got {getattr(value, 'shape', type(value).__name__)}"
        )
    return value.astype(x.dtype)


def batchnorm_backward(dout: Array, cache: F.NormCache) -> tuple[Array, Array, Array]:
    """Return the gradients of `batchnorm_forward` in train mode, step by step along its graph.

    Args:
        dout: (N, D). cache: from the forward pass.

    Returns:
        dx (N, D), dgamma and dbeta (D,).
    """
    return F.batchnorm_backward_stepwise(*_norm_arguments("batchnorm_backward", dout, cache))


def batchnorm_backward_alt(dout: Array, cache: F.NormCache) -> tuple[Array, Array, Array]:
    """Return the same gradients as `batchnorm_backward`, by the formula simplified on paper."""
    return F.batchnorm_backward(*_norm_arguments("batchnorm_backward_alt", dout, cache))


def layernorm_forward(x: Array, gamma: Array, beta: Array, ln_param: Mapping[str, Any]) -> tuple[Array, F.NormCache]:
    """Compute layer normalisation, the same in training and testing.

    Args:
        x: (N, D). gamma, beta: (D,).
        ln_param: eps (1e-5); other keys are not read.

    Returns:
        out (N, D) and a cache.
    """
    x, gamma, beta = promoted("layernorm_forward", x=x, gamma=gamma, beta=beta)
    _two_axes("layernorm_forward", x)
    return F.layernorm_forward(x, gamma, beta, eps=ln_param.get("eps", EPS))


def layernorm_backward(dout: Array, cache: F.NormCache) -> tuple[Array, Array, Array]:
    """Return the gradients of `layernorm_forward`: dx (N, D), dgamma and dbeta (D,)."""
    return F.layernorm_backward(*_norm_arguments("layernorm_backward", dout, cache))


def _norm_arguments(function: str, dout: Array, cache: F.NormCache | None) -> tuple[Array, F.NormCache]:
    if cache is None:
        raise ValueError(f"{function}: cache: expected one of a forward pass in train mode, got None (test mode)")
    dout, *arrays = promoted(function, dout=dout, **cache._asdict())
    return dout, F.NormCache(*arrays)


def dropout_forward(x: Array, dropout_param: Mapping[str, Any]) -> tuple[Array, tuple[Mapping[str, Any], Array | None]]:
    """Compute inverted dropout.

    Args:
        x: any shape.
        dropout_param: mode "train" or "test" (required); p, the probability to *keep* a unit, after
            `install(year=2016)` or 2017 the share *dropped*; seed, optional: NumPy's global generator, from which the
            mask is drawn, is seeded with it first, as in the course, so that the mask is the same at every call.

    Returns:
        out, like x (x itself when testing), and cache = (dropout_param, mask), the mask None when testing.

    Raises:
        ValueError: no mode or an unknown one; no p, or one by which no unit is kept.
    """
    if _mode("dropout_param", dropout_param) == "test":
        return x, (dropout_param, None)
    dropped = _year.p_is_dropped()
    meaning = "the share of units dropped, 0 <= p < 1" if dropped else "the probability to keep a unit, 0 < p <= 1"
    if "p" not in dropout_param:
        raise ValueError(f"dropout_param: expected a key 'p', {meaning}, got none; try p=0.5")
    p = finite_real("dropout_param['p']", dropout_param["p"])
    keep_ratio = 1 - p if dropped else p
    if not 0 < keep_ratio <= 1:
        raise ValueError(f"dropout_param['p']: expected {meaning}, got {p:g}")
    if dropout_param.get("seed") is not None:
        np.random.seed(_random.checked(dropout_param["seed"]))  # noqa: NPY002
    (floats,) = promoted("dropout_forward", x=x)
    drawn = _random.generator().rand(*x.shape)
    kept = drawn >= p if dropped else drawn < p
    mask = backend_of(floats).asarray((kept / keep_ratio).astype(floats.dtype))
    out, _ = F.dropout_forward(floats, mask)
    return out.astype(x.dtype, copy=False), (dropout_param, mask)


def dropout_backward(dout: Array, cache: tuple[Mapping[str, Any], Array | None]) -> Array:
    """Return dx = dout * mask after a forward pass in train mode, dout itself in test mode."""
    _, mask = cache
    return dout if mask is None else F.dropout_backward(*promoted("dropout_backward", dout=dout, mask=mask))


def _mode(argument: str, param: Mapping[str, Any]) -> str:
    if "mode" not in param:
        raise ValueError(f"{argument}: expected a key 'mode', 'train' or 'test', got keys {list(param)}")
    if param["mode"] not in MODES:
        raise unknown(f"{argument}['mode']", param["mode"], MODES)
    return param["mode"]


def _two_axes(function: str, x: Array) -> None:
    if x.ndim != 2:
        raise ValueError(f"{function}: x: expected (N, D), got shape {x.shape}; use x.reshape(len(x), -1)")
