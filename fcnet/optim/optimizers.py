"""Optimizers: a rule, its moments and its hyperparameters, over the flat buffers of a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from backends import Array
from fcnet.boundary import finite_real, one_of
from fcnet.errors import unknown
from fcnet.functional import advance
from fcnet.optim import rules
from fcnet.params import ParamBuffer
from fcnet.program import Run, direct


class Rule(NamedTuple):
    """A rule by its function, the moments it keeps, whether it counts steps, and its hyperparameters' defaults."""

    update: Callable[..., Any]
    moments: tuple[str, ...]
    counts: bool
    defaults: Mapping[str, float]


#: To add an optimizer: a function in `rules.py` and a line here; the tests walk this table.
RULES: dict[str, Rule] = {
    "sgd": Rule(rules.sgd, (), False, {"learning_rate": 1e-2}),
    "momentum": Rule(rules.momentum, ("velocity",), False, {"learning_rate": 1e-2, "momentum": 0.9}),
    "rmsprop": Rule(rules.rmsprop, ("cache",), False, {"learning_rate": 1e-2, "decay_rate": 0.99, "epsilon": 1e-8}),
    "adam": Rule(
        rules.adam,
        ("m", "v"),
        True,
        {"learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8},
    ),
}
_FRACTIONS = ("momentum", "decay_rate", "beta1", "beta2")


class Optimizer:
    """Updates `params` from `grads`, in place.

    Attributes:
        moments: name -> ParamBuffer, zeros at first.
        config: the rule's hyperparameters, defaults filled in; read only (but see `learning_rate`).
    """

    def __init__(self, rule: str, params: ParamBuffer, config: Mapping[str, float] | None = None) -> None:
        """An optimizer by its rule's name ("sgd", "momentum", "rmsprop", "adam").

        Args:
            config: hyperparameters by name, such as {"learning_rate": 1e-3}; those left out take the defaults.

        Raises:
            ValueError: an unknown rule or hyperparameter, or a value out of range. TypeError: not a number.
        """
        one_of("update_rule", rule, RULES)
        if not isinstance(params, ParamBuffer):
            raise TypeError(f"params: expected the params of a network, got {type(params).__name__}")
        self.rule, self.params = rule, params
        self._config = check_config(rule, config)
        if not params.dtype.type(self._config.get("epsilon", 1)) > 0:
            raise ValueError(
                f"optim_config['epsilon']: expected more than 0 in {params.dtype}, got {self._config['epsilon']}; "
                "without it a gradient of zero is divided by zero"
            )
        backend = params.backend
        backend.use()
        self.moments = {name: params.like() for name in RULES[rule].moments}
        # Read by the update on the device, so that a recorded step sees them change.
        self._step = backend.xp.zeros((1,), dtype="int64")
        self._rate = backend.xp.full((1,), self._config["learning_rate"], dtype="float64")
        self._one = backend.xp.ones((1,), dtype="int64")
        self._work = backend.xp.empty(min(backend.block_size or params.flat.size, params.flat.size), dtype=params.dtype)

    @property
    def config(self) -> Mapping[str, float]:
        """The hyperparameters by name. A recorded step has them as constants, so they are not to be changed."""
        return MappingProxyType(self._config)

    @property
    def learning_rate(self) -> float:
        """The rate that the next update uses; may be set at any time, without a wait."""
        return self._config["learning_rate"]

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._config["learning_rate"] = _positive("learning_rate", value)
        self._rate[...] = self._config["learning_rate"]

    def _gathered(self, grads: Mapping[str, Array]) -> ParamBuffer:
        if not isinstance(grads, Mapping):
            raise TypeError(f"grads: expected gradients by name, got {type(grads).__name__}")
        if set(grads) != set(self.params):
            odd = ", ".join(sorted(set(grads) ^ set(self.params)))
            raise ValueError(f"grads: expected one for each of {', '.join(self.params)}; missing or unknown: {odd}")
        buffer = self.params.like()
        buffer.update(grads)
        return buffer

    @property
    def step_counter(self) -> Array:
        """(1,) int64 on the device: updates made so far."""
        return self._step

    def update(self, grads: Mapping[str, Array], run: Run = direct) -> None:
        """One update of the parameters, with a gradient for each: a buffer like `params`, or what `model.loss` gives.

        Raises:
            ValueError: other names, shapes or dtype than those of the parameters.
        """
        if not isinstance(grads, ParamBuffer):
            grads = self._gathered(grads)
        elif grads.shapes != self.params.shapes or grads.dtype != self.params.dtype:
            raise ValueError(f"grads: expected gradients of {self.params!r}, got {grads!r}")
        rule = RULES[self.rule]
        moments = [buffer.flat for buffer in self.moments.values()]
        counter = [self._step] if rule.counts else []
        constants = {name: value for name, value in self._config.items() if name != "learning_rate"}
        run(
            rule.update,
            self.params.flat,
            grads.flat,
            *moments,
            *counter,
            self._rate,
            **constants,
            work=self._work,
        )
        run(advance, self._step, self._one)


def check_config(rule: str, config: Mapping[str, float] | None) -> dict[str, float]:
    """The rule's defaults, with `config` over them. Raises ValueError or TypeError as `Optimizer` does."""
    filled = dict(RULES[rule].defaults)
    if config is not None and not isinstance(config, Mapping):
        raise TypeError(f"optim_config: expected a dict such as {{'learning_rate': 1e-3}}, got {config!r}")
    for name, value in (config or {}).items():
        if name not in filled:
            raise unknown(f"optim_config for {rule}", name, filled)
        number = finite_real(f"optim_config[{name!r}]", value)
        if name in _FRACTIONS and not 0 <= number < 1:
            raise ValueError(f"optim_config[{name!r}]: expected 0 <= {name} < 1, got {number}")
        if name not in _FRACTIONS:
            _positive(f"optim_config[{name!r}]", number)
        filled[name] = number
    return filled


def _positive(name: str, value: object) -> float:
    number = finite_real(name, value)
    if number < 0:
        raise ValueError(f"{name}: expected 0 or more, got {number}")
    return number
