"""The course's `gradient_check.py` over `fcnet.tools.gradcheck`; on the host, meant for float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fcnet.backends import Purpose, host_generator
from fcnet.tools.gradcheck import numerical_gradient, relative_error

__all__ = ["eval_numerical_gradient", "eval_numerical_gradient_array", "grad_check_sparse", "rel_error"]

Array = Any


def eval_numerical_gradient(
    f: Callable[[Array], float], x: np.ndarray, verbose: bool = True, h: float = 1e-5
) -> np.ndarray:
    """Gradient of the number f(x) in x (any shape), by central differences.

    x is changed in place, an element at a time, and put back. verbose prints each element of the gradient.
    """
    grad = numerical_gradient(f, _floating(x), h=h)
    if verbose:
        for index in np.ndindex(*x.shape):
            print(index, grad[index])
    return grad


def eval_numerical_gradient_array(f: Callable[[Array], Array], x: np.ndarray, df: Array, h: float = 1e-5) -> np.ndarray:
    """Gradient of sum(f(x) * df) in x (any shape), for an array f(x) and df of its shape."""
    return numerical_gradient(f, _floating(x), df, h=h)


def grad_check_sparse(
    f: Callable[[Array], float], x: np.ndarray, analytic_grad: Array, num_checks: int = 10, h: float = 1e-5
) -> None:
    """Print numerical and analytic gradient of f(x) at `num_checks` random elements of x.

    The elements are the same at every call with x of the same shape.
    """
    rng = host_generator(0, Purpose.DATA)
    _floating(x)
    for _ in range(num_checks):
        index = tuple(int(rng.integers(size)) for size in x.shape)
        element = x[tuple(slice(i, i + 1) for i in index)]  # a view: what is written there is in x
        numerical = numerical_gradient(lambda _: f(x), element, h=h).item()
        analytic = analytic_grad[index]
        error = rel_error(numerical, analytic)
        print(f"numerical: {numerical:f} analytic: {analytic:f}, relative error: {error:e}")


def rel_error(x: Array, y: Array) -> float:
    """max |x - y| / max(1e-8, |x| + |y|) over the elements of x and y, of one shape; as in the notebooks."""
    return relative_error(x, y)


def _floating(x: np.ndarray) -> np.ndarray:
    kind = x.dtype.kind if isinstance(x, np.ndarray) else None
    if kind != "f":
        got = type(x).__name__ if kind is None else x.dtype
        raise TypeError(f"x: expected a NumPy array of floats, to move by h, got {got}; use x.astype('float64')")
    return x
