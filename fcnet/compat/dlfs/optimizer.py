"""The book's `common/optimizer.py`: rules over dictionaries of arrays, over `fcnet.optim.rules`.

Each has `update(params, grads)`. Arrays in `params` are changed in place; for a plain number the entry is replaced by a
number, for a list by an array, as the book's lines do.
Hyperparameters are attributes and may be changed at any time; state, too, is an attribute with the book's name, None
before the first update and then a dictionary of arrays (an array without axes for a number).
Source: Saito, "Deep Learning from Scratch", chapter 6.1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping
from typing import Any

import numpy as np

from fcnet.backends import backend_of
from fcnet.compat.cs231n._arrays import Array, promoted
from fcnet.optim import rules
from fcnet.validation import finite_real

__all__ = ["SGD", "AdaGrad", "Adam", "Momentum", "Nesterov", "RMSprop"]
__all__ += ["np"]  # the book's star import brings it, and optimizer_compare_mnist.py of chapter 6 uses it

EPSILON = 1e-7


class _Optimizer:
    """Apply a rule to every entry of a dictionary, and keep state of the parameters' shapes."""

    state: tuple[str, ...] = ()  # attributes that hold it

    def __init__(self, **hyperparameters: float) -> None:
        for name, value in hyperparameters.items():
            number = finite_real(name, value)
            if not 0 <= number < (math.inf if name == "lr" else 1):
                raise ValueError(f"{name}: expected 0 {'or more' if name == 'lr' else f'<= {name} < 1'}, got {value}")
            setattr(self, name, number)
        for name in self.state:
            setattr(self, name, None)

    def update(self, params: MutableMapping[str, Any], grads: Mapping[str, Any]) -> None:
        """Update every parameter once.

        Args:
            params: arrays of floats, any shape, or numbers, or lists of them, by name.
            grads: by the same names (others are not read), in the same shapes.

        Raises:
            ValueError: a gradient is missing or has another shape. TypeError: not floats, so that an update in place
                would be rounded away.
        """
        for argument, value in (("params", params), ("grads", grads)):
            if not isinstance(value, Mapping):
                raise TypeError(f"{argument}: expected a dict of arrays by name, got {type(value).__name__}")
        values = {name: _parameter(name, value) for name, value in params.items()}
        slopes = {}
        for name, w in values.items():
            if name not in grads:
                raise ValueError(f"grads: expected one for each of {', '.join(params)}, got none for {name!r}")
            (dw,) = promoted("update", **{f"grads[{name!r}]": _array(f"grads[{name!r}]", grads[name])})
            if dw.shape != w.shape:
                raise ValueError(f"grads[{name!r}]: expected the shape {w.shape} of params[{name!r}], got {dw.shape}")
            slopes[name] = dw.astype(w.dtype, copy=False)
        for attribute in self.state:
            known = getattr(self, attribute)
            if known is None:
                zeros = {name: backend_of(w).xp.zeros(w.shape, dtype=w.dtype) for name, w in values.items()}
                setattr(self, attribute, zeros)
                continue
            for name, w in values.items():
                if name not in known or known[name].shape != w.shape:
                    raise ValueError(
                        f"params[{name!r}]: expected parameters like those of the first update, whose state this "
                        f"{type(self).__name__} keeps, got shape {w.shape}; make an optimizer for each network"
                    )
        self._count()
        for name, w in values.items():
            self._update_one(name, w, slopes[name])
            if params[name] is not w:
                params[name] = float(w[()]) if _is_number(params[name]) else w

    def _update_one(self, name: str, w: Array, dw: Array) -> None:
        moments = [getattr(self, attribute)[name] for attribute in self.state]
        # The rules take flat arrays; a view where memory allows, else a copy that is put back.
        flat = [array.reshape(-1) for array in (w, dw, *moments)]
        backend = backend_of(w)
        size = min(backend.block_size or w.size, w.size)
        self._rule(*flat, work=backend.xp.empty((max(size, 1),), dtype=w.dtype))
        for array, changed in zip((w, *moments), (flat[0], *flat[2:]), strict=True):
            if not array.flags.c_contiguous:
                array[...] = changed.reshape(array.shape)

    def _count(self) -> None:
        """Count an update."""

    def _rule(self, w: Array, dw: Array, *moments: Array, work: Array) -> None:
        raise NotImplementedError


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.generic)


def _array(name: str, value: Any) -> Array:
    """Return an array is itself; of a number or a list of them, a new array of floats."""
    if not _is_number(value) and not isinstance(value, list | tuple):
        return value
    try:
        return np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected numbers in rows of one length, got {value!r}") from None


def _parameter(name: str, value: Any) -> Array:
    """Return a parameter as an array of floats that may be changed."""
    array = _array(f"params[{name!r}]", value)
    if not hasattr(array, "dtype") or array.dtype not in ("float32", "float64"):
        got = getattr(array, "dtype", None)
        what = f"{type(value).__name__}" if got is None else f"{got}; use .astype('float64')"
        raise TypeError(f"params[{name!r}]: expected an array of float32 or float64, got {what}")
    return array


class SGD(_Optimizer):
    """Apply w -= lr g."""

    lr: float

    def __init__(self, lr: float = 0.01) -> None:
        super().__init__(lr=lr)

    def _rule(self, w: Array, dw: Array, *moments: Array, work: Array) -> None:
        rules.sgd(w, dw, self.lr, work=work)


class Momentum(_Optimizer):
    """Apply v = momentum v - lr g; w += v. State: v."""

    state = ("v",)
    lr: float
    momentum: float

    def __init__(self, lr: float = 0.01, momentum: float = 0.9) -> None:
        super().__init__(lr=lr, momentum=momentum)

    def _rule(self, w: Array, dw: Array, *moments: Array, work: Array) -> None:
        rules.momentum(w, dw, *moments, self.lr, momentum=self.momentum, work=work)


class Nesterov(Momentum):
    """Apply w += momentum² v - (1 + momentum) lr g, v as before; then v = momentum v - lr g. State: v.

    This is the order of the book's present code. Its first version moved v before it used it in the same two lines
    for w, which counts the gradient once too often; that was a mistake, and is not here.
    """

    def _rule(self, w: Array, dw: Array, *moments: Array, work: Array) -> None:
        rules.nesterov(w, dw, *moments, self.lr, momentum=self.momentum, work=work)


class AdaGrad(_Optimizer):
    """Apply h += g²; w -= lr g / (sqrt(h) + 1e-7). State: h."""

    state = ("h",)
    lr: float

    def __init__(self, lr: float = 0.01) -> None:
        super().__init__(lr=lr)

    def _rule(self, w: Array, dw: Array, *moments: Array, work: Array) -> None:
        rules.adagrad(w, dw, *moments, self.lr, epsilon=EPSILON, work=work)


class RMSprop(_Optimizer):
    """Apply h = decay_rate h + (1 - decay_rate) g²; w -= lr g / (sqrt(h) + 1e-7). State: h."""

    state = ("h",)
    lr: float
    decay_rate: float

    def __init__(self, lr: float = 0.01, decay_rate: float = 0.99) -> None:
        super().__init__(lr=lr, decay_rate=decay_rate)

    def _rule(self, w: Array, dw: Array, *moments: Array, work: Array) -> None:
        rules.rmsprop(w, dw, *moments, self.lr, decay_rate=self.decay_rate, epsilon=EPSILON, work=work)


class Adam(_Optimizer):
    """Apply m += (1 - beta1) (g - m); v += (1 - beta2) (g² - v); w -= lr_t m / (sqrt(v) + 1e-7). State: m, v, iter.

    lr_t = lr sqrt(1 - beta2^t) / (1 - beta1^t) at update t, which `iter` counts. fcnet's rule adds its epsilon to
    sqrt(v / (1 - beta2^t)); it is this one with epsilon = 1e-7 / sqrt(1 - beta2^t).
    """

    state = ("m", "v")
    lr: float
    beta1: float
    beta2: float

    def __init__(self, lr: float = 0.001, beta1: float = 0.9, beta2: float = 0.999) -> None:
        super().__init__(lr=lr, beta1=beta1, beta2=beta2)
        self.iter = 0

    def _count(self) -> None:
        self.iter += 1

    def _rule(self, w: Array, dw: Array, *moments: Array, work: Array) -> None:
        epsilon = EPSILON / (1 - self.beta2**self.iter) ** 0.5
        betas = {"beta1": self.beta1, "beta2": self.beta2}
        rules.adam(w, dw, *moments, self.iter - 1, self.lr, **betas, epsilon=epsilon, work=work)
