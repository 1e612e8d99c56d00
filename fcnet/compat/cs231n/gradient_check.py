"""The course's `gradient_check.py` over `fcnet.tools.gradcheck`; on the host, meant for float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import randrange
from typing import Any

import numpy as np

from fcnet.tools.gradcheck import numerical_gradient, relative_error

__all__ = [
    "eval_numerical_gradient",
    "eval_numerical_gradient_array",
    "eval_numerical_gradient_blobs",
    "eval_numerical_gradient_net",
    "grad_check_sparse",
    "np",
    "randrange",
    "rel_error",
]

Array = Any


def eval_numerical_gradient(
    f: Callable[[Array], float], x: np.ndarray, verbose: bool = True, h: float = 1e-5
) -> np.ndarray:
    """Return the gradient of the number f(x) in x (any shape), by central differences.

    x is changed in place, an element at a time, and put back. verbose prints each element of the gradient.
    """
    grad = numerical_gradient(f, _floating(x), h=h)
    if verbose:
        for index in np.ndindex(*x.shape):
            print(index, grad[index])
    return grad


def eval_numerical_gradient_array(f: Callable[[Array], Array], x: np.ndarray, df: Array, h: float = 1e-5) -> np.ndarray:
    """Return the gradient of sum(f(x) * df) in x (any shape), for an array f(x) and df of its shape."""
    return numerical_gradient(f, _floating(x), df, h=h)


def eval_numerical_gradient_blobs(
    f: Callable[..., object], inputs: Sequence[Any], output: Any, h: float = 1e-5
) -> list[np.ndarray]:
    """Return the gradients of sum(output.vals * output.diffs) in the values of each of `inputs`.

    Args:
        f: called as f(*inputs, output); it writes output.vals.
        inputs, output: what holds an array `vals`, of any shape, and one of gradients, `diffs`, of that shape.
    """

    def forward(_: Array) -> Array:
        f(*inputs, output)
        return output.vals.copy()

    return [numerical_gradient(forward, _floating(blob.vals), output.diffs, h=h) for blob in inputs]


def eval_numerical_gradient_net(net: Any, inputs: Sequence[Any], output: Any, h: float = 1e-5) -> list[np.ndarray]:
    """Return the same for a net whose `forward()` reads `inputs` and writes `output`."""
    return eval_numerical_gradient_blobs(lambda *_: net.forward(), inputs, output, h=h)


def grad_check_sparse(
    f: Callable[[Array], float], x: np.ndarray, analytic_grad: Array, num_checks: int = 10, h: float = 1e-5
) -> None:
    """Print numerical and analytic gradient of f(x) at `num_checks` random elements of x.

    They are drawn as in the course, by Python's own `random`: `random.seed` decides them.
    """
    _floating(x)
    for _ in range(num_checks):
        index = tuple(randrange(size) for size in x.shape)
        element = x[tuple(slice(i, i + 1) for i in index)]  # a view: what is written there is in x
        numerical = numerical_gradient(lambda _: f(x), element, h=h).item()
        analytic = analytic_grad[index]
        error = rel_error(numerical, analytic)
        print(f"numerical: {numerical:f} analytic: {analytic:f}, relative error: {error:e}")


def rel_error(x: Array, y: Array) -> float:
    """Return max |x - y| / max(1e-8, |x| + |y|) over the elements of x and y, of one shape; as in the notebooks."""
    return relative_error(x, y)


def _floating(x: np.ndarray) -> np.ndarray:
    kind = x.dtype.kind if isinstance(x, np.ndarray) else None
    if kind != "f":
        got = type(x).__name__ if kind is None else x.dtype
        raise TypeError(f"x: expected a NumPy array of floats, to move by h, got {got}; use x.astype('float64')")
    return x
