"""Optimizers: a rule, its moments and its hyperparameters, over the flat buffers of a network."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from fcnet.backends import Array
from fcnet.backends.step import Run, direct
from fcnet.errors import unknown
from fcnet.functional import advance
from fcnet.nn.params import ParamBuffer
from fcnet.optim.limits import decay_weights
from fcnet.optim.rules import RULES
from fcnet.validation import finite_real, nonnegative_real, one_of

_FRACTIONS = ("momentum", "decay_rate", "beta1", "beta2")


class Optimizer:
    """Update `params` from `grads`, in place.

    Attributes:
        moments: name -> ParamBuffer, zeros at first.
        config: the rule's hyperparameters, defaults filled in; read only (but see `learning_rate`).
        weight_decay: strength of the decoupled decay of the matrices (biases, gamma and beta do not decay).
    """

    def __init__(
        self,
        rule: str,
        params: ParamBuffer,
        config: Mapping[str, float] | None = None,
        *,
        weight_decay: float | None = None,
        multipliers: Mapping[str, float] | None = None,
    ) -> None:
        """Make an optimizer by its rule's name, one of `RULES`.

        Args:
            config: hyperparameters by name, such as {"learning_rate": 1e-3}; those left out take the defaults.
            weight_decay: see `fcnet.optim.limits.decay_weights`; None: the rule's default, mostly 0.
            multipliers: factors of the learning rate by the parameter's name, such as {"W1": 0.1, "b1": 0.1}; 1 for
                those left out. A parameter with 0 is frozen: no update, no decay, its moments stay.

        Raises:
            ValueError: an unknown rule, hyperparameter or parameter, or a value out of range. TypeError: not a number.
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
        self.weight_decay = (
            RULES[rule].weight_decay if weight_decay is None else nonnegative_real("weight_decay", weight_decay)
        )
        backend = params.backend
        backend.use()
        self.moments = {name: params.like() for name in RULES[rule].moments}
        self.multipliers = multipliers or {}
        # Read by the update on the device, as the rates are, so that a recorded step sees them change.
        self._step = backend.xp.zeros((1,), dtype="int64")
        self._one = backend.asarray([1], dtype="int64")
        self._work = backend.xp.empty(min(backend.block_size or params.flat.size, params.flat.size), dtype=params.dtype)

    @property
    def config(self) -> Mapping[str, float]:
        """Return the hyperparameters by name. A recorded step has them as constants, so they are not to be changed."""
        return MappingProxyType(self._config)

    @property
    def defaults(self) -> Mapping[str, float]:
        """Return the rule's own hyperparameters."""
        return RULES[self.rule].defaults

    @property
    def learning_rate(self) -> float:
        """Return the rate that the next update uses; it may be set at any time, without a wait."""
        return self._config["learning_rate"]

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._config["learning_rate"] = nonnegative_real("learning_rate", value)
        self._set_rates()

    def _set_rates(self) -> None:
        xp = self.params.backend.xp
        xp.multiply(self._factors, self._config["learning_rate"], out=self._rates)

    @property
    def multipliers(self) -> Mapping[str, float]:
        """Return factors on the learning rate by the parameter's name; a recorded step keeps those it began with."""
        return MappingProxyType(self._multipliers)

    @multipliers.setter
    def multipliers(self, value: Mapping[str, float]) -> None:
        if not isinstance(value, Mapping):
            raise TypeError(f"multipliers: expected a dict such as {{'W1': 0.1}}, got {value!r}")
        checked = {}
        for name, factor in value.items():
            one_of("multipliers", name, self.params)
            checked[name] = nonnegative_real(f"multipliers[{name!r}]", factor)
        self._multipliers = checked
        self._groups = _groups(self.params, checked)
        backend = self.params.backend
        self._factors = backend.asarray([factor for _, _, factor in self._groups], dtype="float64")
        self._rates = backend.xp.zeros((len(self._groups),), dtype="float64")  # of each group, on the device
        self._set_rates()

    @property
    def factors(self) -> tuple[float, ...]:
        """Return the multiplier of each group of parameters that `update` changes at once, in the order of memory."""
        return tuple(factor for _, _, factor in self._groups)

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
        """Return (1,) int64 on the device: the number of updates made."""
        return self._step

    def update(self, grads: Mapping[str, Array], run: Run = direct) -> None:
        """Update the parameters once, with a gradient for each: a buffer like `params`, or what `model.loss` returns.

        Raises:
            ValueError: other names, shapes or dtype than those of the parameters.
        """
        if not isinstance(grads, ParamBuffer):
            grads = self._gathered(grads)
        elif grads.shapes != self.params.shapes or grads.dtype != self.params.dtype:
            raise ValueError(f"grads: expected gradients of {self.params!r}, got {grads!r}")
        rule, w, work = RULES[self.rule], self.params.flat, self._work
        moments = [buffer.flat for buffer in self.moments.values()]
        counter = [self._step] if rule.counts else []
        constants = {name: value for name, value in self._config.items() if name != "learning_rate"}
        for group, (start, stop, _) in enumerate(self._groups):
            part, rate = slice(start, stop), self._rates[group : group + 1]
            decaying = w[start : min(stop, self.params.matrices.size)]
            if self.weight_decay and decaying.size:
                run(decay_weights, decaying, rate, self.weight_decay, work=work)
            run(
                rule.update,
                w[part],
                grads.flat[part],
                *(m[part] for m in moments),
                *counter,
                rate,
                **constants,
                work=work,
            )
        run(advance, self._step, self._one)


def _groups(params: ParamBuffer, multipliers: Mapping[str, float]) -> list[tuple[int, int, float]]:
    """Return runs of neighbours in memory that share a factor, as (start, stop, factor), without those of 0.

    So one launch updates a whole network, and a frozen layer costs nothing.
    """
    groups: list[tuple[int, int, float]] = []
    for name, (start, stop) in params.spans().items():
        factor = multipliers.get(name, 1.0)
        if groups and groups[-1][1:] == (start, factor):
            groups[-1] = groups[-1][0], stop, factor
        elif factor:
            groups.append((start, stop, factor))
    return groups


def check_config(rule: str, config: Mapping[str, float] | None) -> dict[str, float]:
    """Return the rule's defaults, with `config` over them. Raises ValueError or TypeError as `Optimizer` does."""
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
            nonnegative_real(f"optim_config[{name!r}]", number)
        filled[name] = number
    return filled
