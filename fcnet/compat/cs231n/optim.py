"""The course's `optim.py`: update rules that keep their state in a dictionary, over `fcnet.optim.rules`.

Each is `rule(w, dw, config=None) -> (next_w, config)`. w and dw, of one shape, are not modified. `config` holds
hyperparameters and state, is filled with the defaults, and gets new state arrays at every call.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import numpy as np

from fcnet.backends import backend_of
from fcnet.compat.cs231n._arrays import Array, promoted, zeros
from fcnet.optim import RULES

RULE_NAMES = ("adam", "rmsprop", "sgd", "sgd_momentum")
__all__ = [*RULE_NAMES, "np"]

Config = MutableMapping[str, Any]


def sgd(w: Array, dw: Array, config: Config | None = None) -> tuple[Array, Config]:
    """Update by stochastic gradient descent. config: learning_rate (1e-2)."""
    return _update("sgd", w, dw, config)


def sgd_momentum(w: Array, dw: Array, config: Config | None = None) -> tuple[Array, Config]:
    """Update with momentum. config: learning_rate (1e-2), momentum (0.9); state: velocity."""
    return _update("momentum", w, dw, config)


def rmsprop(w: Array, dw: Array, config: Config | None = None) -> tuple[Array, Config]:
    """Update by RMSProp. config: learning_rate (1e-2), decay_rate (0.99), epsilon (1e-8); state: cache."""
    return _update("rmsprop", w, dw, config)


def adam(w: Array, dw: Array, config: Config | None = None) -> tuple[Array, Config]:
    """Update by Adam. config: learning_rate (1e-3), beta1 (0.9), beta2 (0.999), epsilon (1e-8); state: m, v, t.

    t counts updates; it is incremented before it is used.
    """
    return _update("adam", w, dw, config)


def _update(name: str, w: Array, dw: Array, config: Config | None) -> tuple[Array, Config]:
    rule = RULES[name]
    config = {} if config is None else config
    for key, value in rule.defaults.items():
        config.setdefault(key, value)
    function = "sgd_momentum" if name == "momentum" else name
    w, dw = promoted(function, w=_array(w), dw=_array(dw))
    if w.shape != dw.shape:
        raise ValueError(f"{function}: dw: expected the shape {w.shape} of w, got {dw.shape}")
    moments = [_moment(function, config, key, w) for key in rule.moments]
    counter = []
    if rule.counts:
        counter.append(config.setdefault("t", 0))
        config["t"] += 1
    next_w = w.reshape(-1).copy()
    constants = {key: config[key] for key in rule.defaults if key != "learning_rate"}
    block = min(backend_of(w).block_size or w.size, w.size)
    rule.update(
        next_w,
        dw.reshape(-1),
        *moments,
        *counter,
        config["learning_rate"],
        **constants,
        work=zeros(w, max(block, 1)),
    )
    config.update({key: moment.reshape(w.shape) for key, moment in zip(rule.moments, moments, strict=True)})
    return next_w.reshape(w.shape), config


def _array(value: Any) -> Array:
    """Return plain numbers and NumPy scalars as arrays: a parabola in one variable is a common first try."""
    return np.asarray(value) if isinstance(value, int | float | np.generic) else value


def _moment(function: str, config: Config, key: str, w: Array) -> Array:
    """Return the state called `key`, flat, in the dtype of w, as an array that may be changed."""
    if config.get(key) is None:
        return zeros(w, w.size)
    (state,) = promoted(function, **{f"config[{key!r}]": _array(config[key])})
    if state.shape != w.shape:
        raise ValueError(f"{function}: config[{key!r}]: expected the shape {w.shape} of w, got {state.shape}")
    return state.astype(w.dtype).reshape(-1)
