"""The preconditions of the kernels of each op, on any device; `on` knows the memory layouts that the device takes.

Before a kernel is looked up, the op's own check has compared shapes and dtypes. What remains to be checked is the
number of axes, and whether the arrays lie in memory as the kernels read them.
"""

from __future__ import annotations

from typing import Any, Protocol

from fcnet.backends.caches import EPS, MOMENTUM, Array, HiddenCache


class Layout(Protocol):
    """Accept or refuse arrays by the memory layouts that the kernels of a device take."""

    def floats(self, *arrays: Any) -> bool:
        """Return whether these are contiguous, writable arrays of one floating dtype."""

    def integers(self, *arrays: Any) -> bool:
        """Return whether these are contiguous int64 vectors."""

    def activates(self, activation: str, z: Any) -> bool:
        """Return whether layers have a kernel for this activation and such a z.

        Of ReLU it is not asked.
        """


def given(*arrays: Array | None) -> list[Array]:
    """Return the arrays that are not None."""
    return [array for array in arrays if array is not None]


def matmul(on: Layout, x: Array, w: Array, *, out: Array | None = None, precision: str | None = None) -> bool:
    return x.ndim == w.ndim == 2 and on.floats(x, w, *given(out))


def matmul_backward(
    on: Layout, dout: Array, x: Array, w: Array, *, need_dx: bool = True, dx: Array | None = None,
    dw: Array | None = None, precision: str | None = None,
) -> bool:  # fmt: skip
    return dout.ndim == x.ndim == w.ndim == 2 and on.floats(dout, x, w, *given(dx, dw))


def affine_forward(
    on: Layout, x: Array, w: Array, b: Array, *, out: Array | None = None, precision: str | None = None
) -> bool:
    return x.ndim == w.ndim == 2 and on.floats(x, w, b, *given(out))


def affine_backward(
    on: Layout, dout: Array, cache: tuple, *, need_dx: bool = True, dx: Array | None = None, dw: Array | None = None,
    db: Array | None = None, precision: str | None = None,
) -> bool:  # fmt: skip
    return dout.ndim == cache[0].ndim == cache[1].ndim == 2 and on.floats(dout, *cache, *given(dx, dw, db))


def preprocess(on: Layout, x: Array, shift: Array, scale: Array, *, out: Array | None = None) -> bool:
    return x.ndim == 2 and on.floats(shift, scale, *given(out))


def advance(on: Layout, counters: Array, increments: Array) -> bool:
    return on.integers(counters, increments)


def record_step(on: Layout, losses: Array, counters: Array, increments: Array, loss: Array) -> bool:
    return losses.ndim == 1 and on.floats(losses, loss) and on.integers(counters, increments)


# Fused hidden layers. ReLU's output holds all that its backward pass needs; the other activations keep more.


def bias_activation_dropout_forward(
    on: Layout, z: Array, b: Array, activation: str = "relu", keep_ratio: float = 1.0, rng: Any = None, *,
    hidden: Array | None = None, out: Array | None = None, cache: HiddenCache | None = None,
) -> bool:  # fmt: skip
    return _hidden(on, activation, cache, z, b, hidden, out)


def batchnorm_activation_dropout_forward(
    on: Layout, z: Array, b: Array, gamma: Array, beta: Array, activation: str = "relu", keep_ratio: float = 1.0,
    rng: Any = None, *, running_mean: Array | None = None, running_var: Array | None = None,
    momentum: float = MOMENTUM, eps: float = EPS, x_hat: Array | None = None, out: Array | None = None,
    cache: HiddenCache | None = None,
) -> bool:  # fmt: skip
    return _hidden(on, activation, cache, z, b, gamma, beta, running_mean, running_var, x_hat, out)


def layernorm_activation_dropout_forward(
    on: Layout, z: Array, b: Array, gamma: Array, beta: Array, activation: str = "relu", keep_ratio: float = 1.0,
    rng: Any = None, *, eps: float = EPS, x_hat: Array | None = None, out: Array | None = None,
    cache: HiddenCache | None = None,
) -> bool:  # fmt: skip
    return _hidden(on, activation, cache, z, b, gamma, beta, x_hat, out)


def _hidden(on: Layout, activation: str, cache: HiddenCache | None, z: Array, *others: Array | None) -> bool:
    if z.ndim != 2 or not (activation == "relu" or on.activates(activation, z)):
        return False
    return on.floats(z, *given(*others), *_arrays_of(cache))


def activation_dropout_backward(on: Layout, dout: Array, cache: HiddenCache, **grads: Array | None) -> bool:
    """Return whether a kernel serves the backward pass of a fused hidden layer, with or without normalisation."""
    if cache.hidden.ndim != 2:
        return False
    if cache.activation != "relu":
        if not on.activates(cache.activation, cache.hidden):
            return False
    elif cache.needs_mask:
        return False
    # dout is read only once, so any layout will do.
    return dout.dtype == cache.hidden.dtype and on.floats(*_arrays_of(cache), *given(*grads.values()))


def _arrays_of(cache: HiddenCache | None) -> list[Array]:
    if cache is None:
        return []
    arrays = [cache.hidden, *given(*(cache.norm or ()))]
    if cache.activation == "relu":
        return arrays
    kept = cache.activation_cache
    return [*arrays, *(kept if isinstance(kept, tuple) else (kept,)), *([cache.mask] if cache.needs_mask else [])]
