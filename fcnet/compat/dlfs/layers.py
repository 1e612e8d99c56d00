"""The book's `common/layers.py`: layers that remember their forward pass, over `fcnet.functional`.

Shapes: N batch, D features in, M features out, C classes. Arrays may mix float32, float64 and integers; the result
has the dtype that NumPy would promote them to. No layer changes the arrays it is given (the book's Relu changes dout).
Source: Saito, "Deep Learning from Scratch", chapters 5 and 6.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

import fcnet.functional as F
from fcnet.backends import backend_of
from fcnet.backends.caches import MOMENTUM
from fcnet.compat import _install
from fcnet.compat.cs231n._arrays import Array, number, promoted, zeros
from fcnet.compat.dlfs import functions
from fcnet.compat.dlfs._random import generator, own_generator
from fcnet.compat.dlfs.functions import *
from fcnet.validation import finite_real

ABSENT = ("Convolution", "Pooling", "im2col", "col2im")

__all__ = ["Affine", "BatchNormalization", "Dropout", "Relu", "Sigmoid", "SoftmaxWithLoss", "Tanh"]
__all__ += functions.__all__  # as the book's star import does

__getattr__ = _install.without(ABSENT, "common.layers", globals())

EPS = 10e-7  # as printed: 1e-6, not 1e-7


def _rows(x: Array) -> Array:
    """Return (N, d1, ..., dk) as (N, D)."""
    return x.reshape(x.shape[0], prod(x.shape[1:])) if x.ndim else x


def _seen(layer: object, cache: Any) -> Any:
    """Return the cache of the forward pass, if there was one."""
    if cache is None:
        raise ValueError(f"{type(layer).__name__}.backward: expected a forward pass in training before it, got none")
    return cache


class Affine:
    """Compute out = x W + b.

    Attributes:
        W, b: (D, M) and (M,), the arrays given, which an optimizer changes in place.
        x: the last input as rows (N, D). original_x_shape: the shape it came in.
        dW, db: gradients from the last `backward`, like W and b.
    """

    def __init__(self, W: Array, b: Array) -> None:
        self.W, self.b = W, b
        self.x: Array = None
        self.original_x_shape: tuple[int, ...] | None = None
        self.dW: Array = None
        self.db: Array = None

    def forward(self, x: Array) -> Array:
        """Return (N, M) of x (N, d1, ..., dk), whose samples are made rows of D = d1 * ... * dk."""
        x, W, b = promoted("Affine", x=x, W=self.W, b=self.b)
        if x.ndim < 2 or prod(x.shape[1:]) != W.shape[0]:
            raise ValueError(
                f"Affine: x: expected (N, {W.shape[0]}), or (N, d1, ..., dk) with as many numbers, "
                f"got shape {x.shape}; a single sample is x[None, :]"
            )
        self.original_x_shape, self.x = x.shape, _rows(x)
        return F.affine_forward(self.x, W, b)[0]

    def backward(self, dout: Array) -> Array:
        """Return dx in the shape of x, from dout (N, M); set dW and db."""
        shape = _seen(self, self.original_x_shape)
        dout, x, W, b = promoted("Affine", dout=dout, x=self.x, W=self.W, b=self.b)
        dx, self.dW, self.db = F.affine_backward(dout, (x, W, b))
        return dx.reshape(shape)


class _Activation:
    """Apply one of fcnet's activations. out: the last output, which is all that the backward pass needs."""

    name: str

    def __init__(self) -> None:
        self.out: Array = None

    def forward(self, x: Array) -> Array:
        """Return the activation of x, any shape, in a new array."""
        self.out, _ = F.ACTIVATIONS[self.name].forward(*promoted(type(self).__name__, x=x))
        return self.out

    def backward(self, dout: Array) -> Array:
        """Return dx, from dout like x."""
        dout, out = promoted(type(self).__name__, dout=dout, out=_seen(self, self.out))
        return F.ACTIVATIONS[self.name].backward(dout, out)


class Relu(_Activation):
    """Compute out = max(x, 0)."""

    name = "relu"

    @property
    def mask(self) -> Array:
        """Return where x <= 0 in the last forward pass."""
        return self.out <= 0


class Sigmoid(_Activation):
    """Compute out = 1 / (1 + exp(-x))."""

    name = "sigmoid"


class Tanh(_Activation):
    """Compute out = tanh(x)."""

    name = "tanh"


class SoftmaxWithLoss:
    """Compute softmax and cross-entropy, averaged over the batch, with 1e-7 added to the probability in the logarithm.

    So the loss of a sample ends at -log(1e-7) = 16.1, while the gradient is that of the loss without 1e-7.

    Attributes:
        loss: of the last forward pass. y: its probabilities, like x. t: its labels.
    """

    def __init__(self) -> None:
        self.loss: float | None = None
        self.y: Array = None
        self.t: Array = None

    def forward(self, x: Array, t: Array) -> float:
        """Return the loss of scores x (N, C), or (C,) for one sample, for t as in `functions.cross_entropy_error`."""
        self.t = t if hasattr(t, "dtype") else np.asarray(t)
        self.y = functions.softmax(x)
        self.loss = functions.cross_entropy_error(self.y, self.t)
        return self.loss

    def backward(self, dout: float = 1) -> Array:
        """Return dx = dout (y - t) / N, like x, with rows of t as they are. The book ignores dout, which is 1 there.

        For one sample with t (C,) the book divides by C, not by 1; so does this.
        """
        y, t = _seen(self, self.y), self.t
        count = len(t) if t.ndim else 1
        if not functions.has_rows(t, y.size // y.shape[-1], y.shape[-1]):
            t = F.one_hot(t.reshape(-1), y.shape[-1], y.dtype)
        return dout * (y - t.reshape(y.shape)) / count


class BatchNormalization:
    """Normalise a batch with 10e-7 added to the variance, and keep running statistics for testing.

    Attributes:
        gamma, beta: (D,), the arrays given, which an optimizer changes in place.
        momentum: weight of the old running value.
        running_mean, running_var: (D,), zeros at first if not given; new arrays at each forward pass in training.
        dgamma, dbeta: gradients from the last `backward`, (D,).
        input_shape: of the last x.
    """

    def __init__(
        self,
        gamma: Array,
        beta: Array,
        momentum: float = MOMENTUM,
        running_mean: Array | None = None,
        running_var: Array | None = None,
    ) -> None:
        self.gamma, self.beta, self.momentum = gamma, beta, momentum
        self.running_mean, self.running_var = running_mean, running_var
        self.input_shape: tuple[int, ...] | None = None
        self.dgamma: Array = None
        self.dbeta: Array = None
        self._cache: F.NormCache | None = None

    def forward(self, x: Array, train_flg: bool = True) -> Array:
        """Return x (N, d1, ..., dk) normalised by the batch's statistics or, when testing, by the running ones."""
        x, gamma, beta = promoted("BatchNormalization", x=x, gamma=self.gamma, beta=self.beta)
        self.input_shape, x = x.shape, _rows(x)
        running = [self._running(name, x) for name in ("running_mean", "running_var")]
        if not train_flg:
            return F.batchnorm_inference(x, gamma, beta, *running, eps=EPS).reshape(self.input_shape)
        self.running_mean, self.running_var = running = [statistic.copy() for statistic in running]
        out, self._cache = F.batchnorm_forward(
            x, gamma, beta, running_mean=running[0], running_var=running[1], momentum=self.momentum, eps=EPS
        )
        return out.reshape(self.input_shape)

    def _running(self, name: str, x: Array) -> Array:
        value = getattr(self, name)
        return zeros(x, x.shape[1]) if value is None else value.astype(x.dtype, copy=False)

    def backward(self, dout: Array) -> Array:
        """Return dx in the shape of x; set dgamma and dbeta."""
        cache = _seen(self, self._cache)
        dout, *arrays = promoted("BatchNormalization", dout=dout, **cache._asdict())
        dx, self.dgamma, self.dbeta = F.batchnorm_backward(_rows(dout), F.NormCache(*arrays))
        return dx.reshape(dout.shape)


class Dropout:
    """Apply plain dropout: drop units while training, and scale all of them by 1 - dropout_ratio when testing.

    Attributes:
        dropout_ratio: the share dropped, in [0, 1).
        mask: of the last forward pass in training, 1 where a unit was kept and 0 where not.
    """

    def __init__(self, dropout_ratio: float = 0.5, *, seed: Any = None) -> None:
        """Take the book's argument and the masks' seed; None draws from NumPy's global generator, as the book does.

        Raises:
            ValueError: dropout_ratio is not in [0, 1).
        """
        if not 0 <= finite_real("dropout_ratio", dropout_ratio) < 1:
            raise ValueError(f"dropout_ratio: expected a share to drop, 0 <= dropout_ratio < 1, got {dropout_ratio}")
        self.dropout_ratio = dropout_ratio
        self.mask: Array = None
        self._own = own_generator(seed)

    def forward(self, x: Array, train_flg: bool = True) -> Array:
        """Return an array like x, any shape: x * mask while training, x * (1 - dropout_ratio) when testing."""
        (x,) = promoted("Dropout", x=x)
        if not train_flg:
            return F.plain_dropout_inference(x, 1 - self.dropout_ratio)
        kept = generator(self._own).rand(*x.shape) > self.dropout_ratio
        out, self.mask = F.dropout_forward(x, backend_of(x).asarray(kept.astype(x.dtype)))
        return out

    def backward(self, dout: Array) -> Array:
        """Return dx = dout * mask."""
        return F.dropout_backward(*promoted("Dropout", dout=dout, mask=_seen(self, self.mask)))
