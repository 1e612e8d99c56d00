"""What the course's two linear losses share: scores X W without a bias, and their L2 term."""

from __future__ import annotations

from collections.abc import Callable

import fcnet.functional as F
from fcnet.backends import array_module
from fcnet.compat.cs231n import _year
from fcnet.compat.cs231n._arrays import Array, number, promoted
from fcnet.validation import finite_real


def linear_loss(
    loss: Callable[[Array, Array], tuple[float, Array]], W: Array, X: Array, y: Array, reg: float
) -> tuple[float, Array]:
    """Return `loss` (one of the course's) of scores X W, plus reg Σ W² (in 2016 half of it), and the gradient."""
    W, X = promoted("loss", W=W, X=X)
    if W.ndim != 2 or X.ndim != 2 or X.shape[1] != W.shape[0]:
        raise ValueError(f"W, X: expected (D, C) and (N, D), got shapes {W.shape} and {X.shape}")
    data_loss, dscores = loss(F.matmul(X, W), y)
    _, dW = F.matmul_backward(dscores, X, W, need_dx=False)
    xp = array_module(W)
    total = xp.asarray(data_loss, dtype="float64")
    flat, gradient = W.reshape(-1), dW.reshape(-1)
    F.l2_penalty(
        flat, _year.l2_strength(finite_real("reg", reg)), total, gradient, xp.empty(flat.shape, dtype=flat.dtype)
    )
    return number(total), gradient.reshape(W.shape)
