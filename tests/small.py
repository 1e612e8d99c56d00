"""Small data sets and networks that several test files use."""

from __future__ import annotations

from typing import Any

import numpy as np

import fcnet


def blobs(n: int = 130, d: int = 6, c: int = 3, seed: int = 0, dtype: str = "float64") -> fcnet.data.Dataset:
    """Gaussian clouds, one per class, far enough apart to be learned in a few epochs."""
    rng = np.random.default_rng(seed)
    centres = 2.5 * rng.standard_normal((c, d))
    parts = {}
    for part, count in (("train", n), ("val", 40), ("test", 30)):
        y = np.arange(count) % c
        parts[f"X_{part}"] = (centres[y] + rng.standard_normal((count, d))).astype(dtype)
        parts[f"y_{part}"] = y
    return fcnet.data.Dataset(**parts, name="blobs", preprocess="none")


def net(data: fcnet.data.Dataset, device: Any = "cpu", hidden: tuple[int, ...] = (8, 7), **options: Any):
    """Return a network for a data set."""
    return fcnet.FullyConnectedNet(list(hidden), data.input_dim, data.num_classes, device=device, **options)


def solver(
    data: fcnet.data.Dataset,
    device: Any = "cpu",
    *,
    net_options: dict | None = None,
    **options: Any,
):
    """Return a quiet Solver with a network of its own, plain: ten epochs of SGD at a constant rate."""
    plain: dict[str, Any] = {"update_rule": "sgd", "num_epochs": 10, "verbose": False}
    if options.get("update_rule") not in ("lbfgs", "bfgs"):
        plain["batch_size"] = 100
        if not options.keys() & {"lr_decay", "schedule_config"}:
            plain["schedule"] = "constant"
    return fcnet.Solver(net(data, device, **(net_options or {})), data, **(plain | options))
