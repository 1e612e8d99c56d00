"""From gradients to changed parameters: clipping, the optimizer's rule and decay, max-norm; and the learning rate."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fcnet.backends.step import Run
from fcnet.nn.model import FullyConnectedNet
from fcnet.nn.params import ParamBuffer
from fcnet.optim import Optimizer, clip_by_norm, clip_by_value, max_norm
from fcnet.optim.schedules import Schedule, make_schedule
from fcnet.validation import finite_real, nonnegative_real


class UpdateStep:
    """Turn gradients into changed parameters, and set the learning rate before each step.

    Attributes:
        optimizer: applies the rule. first_learning_rate: what a schedule's factors multiply.
        lr_decay, clip_norm, clip_value, max_norm, lr_multipliers: as given.
        schedule: a function of the step, or None.
        rate_set_by_hand: whether a step was made with a rate that neither `lr_decay` nor a schedule gave.
    """

    def __init__(
        self,
        model: FullyConnectedNet,
        update_rule: str,
        optim_config: Mapping[str, float] | None,
        *,
        lr_decay: float,
        schedule: str | Callable[[int], float] | None,
        schedule_config: Mapping[str, Any] | None,
        weight_decay: float | None,
        clip_norm: float | None,
        clip_value: float | None,
        max_norm: float | None,
        lr_multipliers: Mapping[int, float] | None,
        epochs: int,
        steps_per_epoch: int,
        gives_way: bool = False,
    ) -> None:
        """Check the arguments, those of `Solver`; a schedule that `gives_way` ends when a rate is set by hand."""
        self.model = model
        self.lr_decay = finite_real("lr_decay", lr_decay)
        if not 0 < self.lr_decay <= 1:
            raise ValueError(f"lr_decay: expected 0 < lr_decay <= 1, got {lr_decay}")
        self.clip_norm = _limit("clip_norm", clip_norm, model.dtype)
        self.clip_value = _limit("clip_value", clip_value, model.dtype)
        self.max_norm = _limit("max_norm", max_norm, model.dtype)
        self.lr_multipliers = _layers_of(model, lr_multipliers)
        self.optimizer = Optimizer(
            update_rule,
            model.params,
            optim_config,
            weight_decay=weight_decay,
            multipliers=self._by_parameter(),
        )
        self.first_learning_rate = self.optimizer.learning_rate
        self.schedule_config = schedule_config
        if schedule is not None and self.lr_decay != 1:
            raise ValueError(
                f"schedule and lr_decay: expected one of them, got schedule={schedule!r} and lr_decay={lr_decay}; "
                "leave one out"
            )
        if schedule_config is not None and not isinstance(schedule, str):
            raise ValueError(
                f"schedule_config: expected it with the name of a schedule, got {schedule_config!r} with "
                f"schedule={schedule!r}; leave it out"
            )
        #: The schedule in a configuration, which cannot hold a function and says so.
        self.schedule_name = "(a function of the step)" if callable(schedule) else schedule
        self.schedule: Schedule | None = (
            make_schedule(schedule, schedule_config, epochs, steps_per_epoch) if isinstance(schedule, str) else schedule
        )
        if schedule == "constant" and not schedule_config:
            self.schedule = None  # so that the rate may be set by hand
        self.gives_way = gives_way
        self._own_rate = self.optimizer.learning_rate  # of the next step, unless another is set by hand
        self._own_rate = self.optimizer.learning_rate = self._rate(0)
        self.rate_set_by_hand = False
        self._rates: list[tuple[int, float]] = []  # (first step, rate) of each stretch of steps with one rate

    def _by_parameter(self) -> dict[str, float]:
        """Return the multipliers by parameter name, 0 for frozen ones."""
        factors = self.lr_multipliers | dict.fromkeys(self.model.frozen, 0.0)
        for layer in self.lr_multipliers.keys() & set(self.model.frozen):
            raise ValueError(
                f"lr_multipliers and freeze: layer {layer} is frozen, expected no factor for it, "
                f"got {self.lr_multipliers[layer]:g}; leave one out"
            )
        return {name: factor for layer, factor in factors.items() for name in self.model.parameters_of(layer)}

    def refreeze(self) -> None:
        """Adopt the model's current frozen layers, for steps that are recorded after this."""
        self.optimizer.multipliers = self._by_parameter()

    def _rate(self, step: int) -> float:
        """Return the rate of a step: the schedule's, or without a schedule the one that is set.

        Raises:
            ValueError, TypeError: the schedule's function does not give a finite number of 0 or more.
        """
        if self.schedule is None:
            return self.optimizer.learning_rate
        if not callable(self.schedule):
            raise TypeError(f"schedule: expected a name or a function of the step, got {self.schedule!r}")
        factor = nonnegative_real("schedule", self.schedule(step), f"a factor of 0 or more at step {step}")
        return self.first_learning_rate * factor

    def begin_steps(self, step: int, count: int) -> list[list[float]] | None:
        """Set the rate for `count` steps from number `step` on, and note it for `rate_of`. Never waits for the device.

        Returns:
            The rate of each step times each of the optimizer's `factors`; None if all steps have the rate that is set.
            The optimizer keeps the rate of the last one.

        Raises:
            ValueError, TypeError: the schedule's function does not give a finite number of 0 or more.
        """
        if self.gives_way and self.optimizer.learning_rate != self._own_rate:
            self.schedule, self.rate_set_by_hand = None, True
        rates = [self._rate(number) for number in range(step, step + (1 if self.schedule is None else count))]
        self.rate_set_by_hand |= self.schedule is None and rates[0] != self._own_rate
        self._own_rate = rates[-1]
        for number, rate in enumerate(rates, step):
            if not self._rates or self._rates[-1][1] != rate:
                self._rates.append((number, rate))
        if rates[-1] != self.optimizer.learning_rate:
            self.optimizer.learning_rate = rates[-1]
        if len(set(rates)) == 1:
            return None
        factors = self.optimizer.factors
        return [[factor * rate for factor in factors] for rate in rates]

    def rate_of(self, step: int) -> float:
        """Return the rate with which a past step was made; 0 is the first step."""
        return self._rates[bisect_right(self._rates, step, key=lambda since: since[0]) - 1][1]

    def scale_rate(self, factor: float) -> None:
        """Multiply the rate, and the rate on which a schedule is based, from the next step on."""
        self.first_learning_rate *= factor
        self.optimizer.learning_rate *= factor
        self._own_rate = self.optimizer.learning_rate

    def end_epoch(self) -> None:
        """Multiply the rate by `lr_decay`."""
        if self.lr_decay != 1:
            self.optimizer.learning_rate *= self.lr_decay
            self._own_rate = self.optimizer.learning_rate

    def apply(self, run: Run, grads: ParamBuffer) -> None:
        """Clip the gradients in place, update the parameters, then limit the norm of each unit's weights."""
        if self.clip_value is not None:
            run(clip_by_value, grads.flat, self.clip_value)
        if self.clip_norm is not None:
            block = grads.flat[: self.model.backend.block_size]
            run(clip_by_norm, grads.flat, self.clip_norm, work=run.scratch(0, block))
        self.optimizer.update(grads, run)
        if self.max_norm is not None:
            for w in (self.model.params[name] for name in self.model.trained):
                if w.ndim > 1:
                    run(max_norm, w, self.max_norm, work=run.scratch(0, w))


def _limit(name: str, value: float | None, dtype: np.dtype) -> float | None:
    if value is None:
        return None
    number = _in_dtype(name, value, dtype, "leave it out for no limit")
    if not dtype.type(number) > 0:
        raise ValueError(f"{name}: expected more than 0 in {dtype}, got {value}; leave it out for no limit")
    return number


def _in_dtype(name: str, value: float, dtype: np.dtype, remedy: str) -> float:
    """Return a number that is finite in this dtype, too. Raises TypeError or ValueError."""
    number, largest = finite_real(name, value), float(np.finfo(dtype).max)
    if number > largest:
        raise ValueError(f"{name}: expected at most {largest:.2g}, as {dtype} holds no more, got {value}; {remedy}")
    return number


def _layers_of(model: FullyConnectedNet, multipliers: Mapping[int, float] | None) -> dict[int, float]:
    """Return the multipliers by layer, checked. Raises TypeError or ValueError."""
    if multipliers is None:
        return {}
    if not isinstance(multipliers, Mapping):
        raise TypeError(f"lr_multipliers: expected a dict such as {{1: 0.1}}, got {multipliers!r}")
    last = len(model.hidden_dims) + 1
    checked = {}
    for layer, factor in multipliers.items():
        if isinstance(layer, bool) or not isinstance(layer, int) or not 1 <= layer <= last:
            raise ValueError(
                f"lr_multipliers and hidden_dims: expected layers 1 to {last}, the last of which is the output layer, "
                f"got {layer!r}"
            )
        number = _in_dtype(f"lr_multipliers[{layer}]", factor, model.dtype, "factors are of about 1 or less")
        if number <= 0:
            raise ValueError(f"lr_multipliers[{layer}]: expected more than 0, got {factor}; freeze the layer instead")
        checked[int(layer)] = number
    return checked
