"""Learning-rate schedules: functions of the step t (0 for the first) that return a factor of the initial rate.

They compose: `followed` puts one after another, `each_epoch` makes one count epochs. Any function of the step is a
schedule, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from fcnet.validation import finite_real, one_of, positive_int

Schedule = Callable[[int], float]


def constant(t: int) -> float:
    """Return factor = 1, the initial rate throughout."""
    return 1.0


def step(t: int, *, every: int, factor: float = 0.1) -> float:
    """Return factor^⌊t / every⌋. Source: CS231n's step decay; a half every few epochs, or a tenth every twenty."""
    return factor ** (t // every)


def exponential(t: int, *, decay: float) -> float:
    """Return exp(-decay t). Source: CS231n."""
    return math.exp(-decay * t)


def inverse(t: int, *, decay: float) -> float:
    """Return 1 / (1 + decay t). Source: CS231n; Robbins and Monro, "A Stochastic Approximation Method", 1951."""
    return 1 / (1 + decay * t)


def cosine(t: float, *, total: float, floor: float = 0.0) -> float:
    """Return floor + (1 - floor) (1 + cos(π t / total)) / 2, and floor from t = total on.

    Source: Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017, without the restarts.
    """
    return floor + (1 - floor) * (1 + math.cos(math.pi * min(t, total) / total)) / 2


def flat_cosine(t: int, *, total: int, floor: float = 0.02) -> float:
    """Return 1 for t ≤ total / 2; then floor + (1 - floor) (1 + cos(π (2 t / total - 1))) / 2, floor from total on.

    A network learns fast at a high rate and settles at a low one, whenever the training ends.

    Source: Hu et al., "MiniCPM", 2024 (warmup, stable, decay); Haegele et al., "Scaling Laws and Compute-Optimal
    Training Beyond Fixed Training Durations", 2024.
    """
    return 1.0 if 2 * t <= total else cosine(t - total / 2, total=total / 2, floor=floor)


def warmup(t: int, *, warmup: int) -> float:
    """Return (t + 1) / (warmup + 1), at most 1: so many smaller steps, rising in a line, before the first full one.

    Source: Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour", 2017.
    """
    return min(1.0, (t + 1) / (warmup + 1))


def followed(t: int, *, first: Schedule, length: int, then: Schedule) -> float:
    """Return factor = first(t) for t < length, else then(t - length): the second counts from 0 again."""
    return first(t) if t < length else then(t - length)


def each_epoch(t: int, *, schedule: Schedule, steps: int) -> float:
    """Return schedule(⌊t / steps⌋): constant within an epoch of so many steps."""
    return schedule(t // steps)


SCHEDULES: dict[str, Callable[..., float]] = {
    "constant": constant,
    "step": step,
    "exponential": exponential,
    "inverse": inverse,
    "cosine": cosine,
    "flat_cosine": flat_cosine,
    "warmup": warmup,
}
_TAKEN = {
    "step": ("every", "factor"),
    "exponential": ("decay",),
    "inverse": ("decay",),
    "cosine": ("total", "floor"),
    "flat_cosine": ("total", "floor"),
}
_EXAMPLES = {"every": 5, "decay": 0.05, "warmup": 5}  # of what has no default


def make_schedule(name: str, config: Mapping[str, Any] | None, epochs: int, steps_per_epoch: int) -> Schedule:
    """Return a schedule by its name in `SCHEDULES`, as a function of the step.

    Args:
        config: the function's parameters, and for any: `warmup`, so many smaller steps before it begins; `per`,
            what t and every length count, "epoch" (the default) or "step".
        epochs, steps_per_epoch: of the training: a cosine without `total` takes what the warm-up leaves.

    Raises:
        ValueError, TypeError: an unknown name or parameter, one missing or out of range.
    """
    one_of("schedule", name, SCHEDULES)
    if config is not None and not isinstance(config, Mapping):
        raise TypeError(f"schedule_config: expected a dict such as {{'warmup': 5}}, got {config!r}")
    own = _TAKEN.get(name, ())
    for key in config or {}:
        if key not in (*own, "warmup", "per"):
            names = ", ".join((*own, "warmup", "per"))
            raise ValueError(f"schedule_config[{key!r}]: expected what schedule={name!r} takes, {names}; got {key!r}")
    values = {key: _checked(key, value) for key, value in (config or {}).items()}
    for needed in ("warmup",) if name == "warmup" else own:
        if needed in _EXAMPLES and needed not in values:
            raise ValueError(
                f"schedule_config[{needed!r}]: expected a number with schedule={name!r}, such as "
                f"{_EXAMPLES[needed]}, got none"
            )
    per_epoch = values.pop("per", "epoch") == "epoch"
    length = values.pop("warmup", 0)
    if "total" in own:
        values.setdefault("total", max(1, (epochs if per_epoch else epochs * steps_per_epoch) - length))
    schedule: Schedule = constant if name == "warmup" else partial(SCHEDULES[name], **values)
    if length:
        schedule = partial(followed, first=partial(warmup, warmup=length), length=length, then=schedule)
    return partial(each_epoch, schedule=schedule, steps=steps_per_epoch) if per_epoch else schedule


def _checked(key: str, value: object) -> Any:
    name = f"schedule_config[{key!r}]"
    if key == "per":
        one_of(name, value, ("epoch", "step"))
        return value
    if key in ("every", "total", "warmup"):
        return positive_int(name, value)
    number = finite_real(name, value)
    if number < 0 or (key != "decay" and number > 1):
        raise ValueError(f"{name}: expected 0 {'or more' if key == 'decay' else f'<= {key} <= 1'}, got {number}")
    return number
