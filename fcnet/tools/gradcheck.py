"""Numerical gradients, to check analytic ones; on the host, meant for float64.

Central differences: (f(x + h) - f(x - h)) / 2h has an error of order h². Source: CS231n, `gradient_check.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fcnet.backends import host_generator
from fcnet.backends.random import Purpose
from fcnet.nn.model import FullyConnectedNet
from fcnet.validation import finite_real, positive_int

Array = Any


def numerical_gradient(
    f: Callable[[Array], Any], x: np.ndarray, df: np.ndarray | float = 1.0, *, h: float = 1e-5
) -> np.ndarray:
    """Return the gradient of Σ f(x) df in x, by central differences, one element at a time.

    Args:
        f: of x, read in place: x is changed and put back element by element. Scalar or array.
        x: float64, any shape.
        df: weight of each output of f, broadcast against it.
        h: half the distance between the two points.

    Raises:
        TypeError: x is not a floating array, so that x + h would be rounded away.
    """
    if not isinstance(x, np.ndarray) or x.dtype.kind != "f":
        got = getattr(x, "dtype", type(x).__name__)
        raise TypeError(f"numerical_gradient: x: expected a floating array, got {got}; use x.astype(float)")
    grad = np.empty(x.shape, dtype=np.float64)
    for index in np.ndindex(*x.shape):
        old = x[index]
        x[index] = old + h
        above = _kept(f(x))
        x[index] = old - h
        below = _kept(f(x))
        x[index] = old
        change = (above - below) * df
        grad[index] = (change if isinstance(change, float) else np.sum(change)) / (2 * h)
    return grad


def _kept(value: Any) -> Any:
    """Return a number as it is and a copy of anything else: f may return the same array twice."""
    return value if isinstance(value, float) else np.array(value, dtype=np.float64)


def relative_error(a: Array, b: Array, floor: float = 1e-8) -> float:
    """Return max |a - b| / max(floor, |a| + |b|) over the elements: 0 for equal arrays, 1 for opposite signs."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"relative_error: expected two arrays of one shape, got {a.shape} and {b.shape}")
    return float(np.max(np.abs(a - b) / np.maximum(floor, np.abs(a) + np.abs(b)), initial=0.0))


def gradcheck(
    model: FullyConnectedNet, X: Array, y: Array, *, samples: int | None = 50, h: float = 1e-5, step: int = 0
) -> dict[str, float]:
    """Compare numerical and analytic gradients of `model.loss`, in a float64 copy of the network.

    In the copy, elements of vectors (biases, beta) that are exactly 0, as they start, are moved a little: behind a
    sample whose units are all off, a bias of 0 puts the next ReLU exactly on its kink, where no numerical gradient is
    right.

    Args:
        X, y: a small batch, as for `model.loss`.
        samples: elements checked per parameter, drawn with a fixed seed; None checks all.
        h: half the distance of the central difference.
        step: of the dropout masks.

    Returns:
        For each parameter max |analytic - numerical| over the elements checked, relative to the largest
        |analytic| + |numerical| of them: about 1e-8 when right, 1e-2 to 1 when wrong. A parameter whose gradient is
        (nearly) zero, such as a bias under batch norm, is measured against 1e-4 of the largest gradient of all. A
        ReLU that changes its side within h raises the error without being wrong: try a smaller h.
    """
    if not isinstance(model, FullyConnectedNet):
        raise TypeError(f"model: expected a FullyConnectedNet, got {type(model).__name__}")
    if samples is not None:
        positive_int("samples", samples)
    if not 1e-12 <= finite_real("h", h) <= 0.1:
        raise ValueError(f"h: expected a small step between 1e-12 and 0.1, got {h}; 1e-5 is usual")
    double = model.astype("float64")
    to_numpy = double.backend.to_numpy
    rng = host_generator(0, Purpose.DATA)
    for name, shape in double.params.shapes.items():
        if len(shape) == 1:
            value = to_numpy(double.params[name])
            double.params[name] = np.where(value == 0, rng.uniform(0.02, 0.1, shape), value)
    _, analytic = double.loss(X, y, step)
    pairs = {}
    for name in double.params:
        value = np.array(to_numpy(double.params[name]))
        flat = value.reshape(-1)
        picked = np.arange(flat.size)
        if samples is not None and flat.size > samples:
            picked = np.sort(rng.choice(flat.size, samples, replace=False))
        numeric = np.empty(picked.size)
        for k, i in enumerate(picked):
            old = flat[i]
            losses = []
            for moved in (old + h, old - h):
                flat[i] = moved
                double.params[name] = value
                losses.append(double.loss(X, y, step)[0])
            flat[i] = old
            numeric[k] = (losses[0] - losses[1]) / (2 * h)
        double.params[name] = value
        pairs[name] = to_numpy(analytic[name]).reshape(-1)[picked], numeric
    scales = {name: float(np.max(np.abs(exact) + np.abs(numeric))) for name, (exact, numeric) in pairs.items()}
    floor = 1e-4 * max(scales.values()) or 1.0
    return {
        name: float(np.max(np.abs(exact - numeric))) / max(scales[name], floor)
        for name, (exact, numeric) in pairs.items()
    }
