"""Training on all samples at once: SciPy's L-BFGS and BFGS, on the loss as a function of one long vector.

They find the length of each step themselves, so there is no learning rate; and they compare losses, so the loss must
be a function of the parameters alone: no mini-batches, no dropout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from fcnet.backends import Array
from fcnet.backends.step import direct
from fcnet.errors import DivergedError, MissingExtra, unknown
from fcnet.nn.model import FullyConnectedNet
from fcnet.nn.params import ParamBuffer
from fcnet.training.losslog import to_scale
from fcnet.validation import nonnegative_real, positive_int

#: name -> hyperparameters and their defaults: `history`, pairs of steps that L-BFGS remembers; `tolerance`, the largest
#: element of the gradient at which to stop; `loss_tolerance`, the share of the loss that an iteration must take off it
#: to go on; `evaluations` of the loss, at most.
FULL_BATCH: dict[str, dict[str, float]] = {
    "lbfgs": {"history": 10, "tolerance": 1e-5, "loss_tolerance": 0.0, "evaluations": 10**9},
    "bfgs": {"tolerance": 1e-5},
}
MOST_FOR_BFGS = 5000  # parameters: 200 MB for each of the matrices that SciPy works on


#: Samples on the device: inputs (n, D), preprocessed, targets, and weights (n,) or None.
DeviceSamples = tuple[Array, Array, Array | None]
SampleParts = Callable[[], Iterable[DeviceSamples]]


class Ending(NamedTuple):
    """Report how a minimization ended: SciPy's `success`, `message` and `nfev`; no message if `report` stopped it."""

    converged: bool
    message: str | None
    evaluations: int


class FullBatch:
    """Minimize the loss of one network by a quasi-Newton method, named as in `FULL_BATCH`.

    Attributes:
        first_loss: the loss before the first iteration of the latest minimization.

    Source: Liu and Nocedal, "On the limited memory BFGS method for large scale optimization", 1989; Nocedal and Wright,
    "Numerical Optimization", 2006, chapter 6, for BFGS.
    """

    def __init__(self, model: FullyConnectedNet, rule: str, config: Mapping[str, float] | None) -> None:
        """Check the hyperparameters `config`, see `FULL_BATCH`, and that the method can train this network.

        Raises:
            ValueError, TypeError: an unknown or unfit hyperparameter; a net too large for BFGS. MissingExtra: no SciPy.
        """
        self.model, self.rule = model, rule
        self.first_loss = math.nan
        self.config, self.defaults = _config(rule, config), FULL_BATCH[rule]
        try:
            import scipy.optimize  # noqa: F401
        except ImportError:
            raise MissingExtra(f"update_rule={rule!r}", "SciPy", "scipy") from None
        count = sum(math.prod(model.params.shapes[name]) for name in model.trained)
        if rule == "bfgs" and count > MOST_FOR_BFGS:
            raise ValueError(
                f"update_rule: {rule!r} works on matrices of parameters by parameters, expected at most "
                f"{MOST_FOR_BFGS:,} of them, got {count:,}, which is {8e-9 * count**2:,.1f} GB for each matrix; "
                "use 'lbfgs'"
            )

    def minimize(self, parts: SampleParts, iterations: int, report: Callable[[float], bool]) -> Ending:
        """Make up to `iterations` iterations from the current parameters.

        It stops earlier if the gradient is practically zero, or if no step lowers the loss, which happens sooner in
        float32 than in float64. If that happens in the first iteration, the network is unchanged.

        Args:
            parts: called for each evaluation; returns all samples, in one part or several.
            report: called with the loss after each iteration, when the network has its parameters; True stops.

        Raises:
            DivergedError: the loss is not finite to begin with.
        """
        from scipy.optimize import minimize

        self.check()
        model, grads = self.model, self.model.params.like()
        statistics = model.state.flat
        stopped = False

        def loss_and_gradient(vector: np.ndarray) -> tuple[float, np.ndarray]:
            before = statistics.copy()
            self._write(vector)
            loss = self._loss(parts(), grads)
            if not math.isfinite(loss):  # a step far too long, which SciPy rejects: the running means must stay finite
                statistics[...] = before
            return loss, self._vector(grads)

        def after(intermediate_result: Any) -> None:  # SciPy passes this argument to a parameter of this name only
            nonlocal stopped
            self._write(intermediate_result.x)
            stopped = report(float(intermediate_result.fun))
            if stopped:
                raise StopIteration

        start, first_statistics = self._vector(model.params), statistics.copy()
        first, _ = loss_and_gradient(start)
        self.first_loss = first
        if not math.isfinite(first):
            raise DivergedError(
                f"the loss is {first} before the first step; scale {to_scale(model)}, or the initial weights"
            )
        options: dict[str, Any] = {"maxiter": iterations, "gtol": self.config["tolerance"]}
        if self.rule == "lbfgs":
            options |= {"maxcor": int(self.config["history"]), "ftol": self.config["loss_tolerance"]}
            options["maxfun"] = int(self.config["evaluations"])
        method = "L-BFGS-B" if self.rule == "lbfgs" else "BFGS"
        with np.errstate(over="ignore", invalid="ignore"):  # of a step far too long, which SciPy rejects
            found = minimize(loss_and_gradient, start, jac=True, method=method, callback=after, options=options)
        self._write(found.x)
        if found.nit == 0:
            statistics[...] = first_statistics
        return Ending(bool(found.success), None if stopped else str(found.message), int(found.nfev))

    def _loss(self, parts: Iterable[DeviceSamples], grads: ParamBuffer) -> float:
        """Return the mean loss over all samples, and write its gradients to `grads`.

        With n_k rows in part k: loss = Σ_k n_k loss_k / Σ_k n_k, accumulated as a running mean; the gradients likewise.
        """
        model = self.model
        streams = model.mask_streams(0)
        total, rows, here = 0.0, 0, grads
        for number, (x, y, weights) in enumerate(parts):
            if number == 1:
                here = model.params.like()
            loss = float(model.backend.to_numpy(model.loss_and_grads(direct, x, y, streams, here, weights)))
            rows += len(y)
            share = len(y) / rows  # of the rows so far
            total += share * (loss - total)
            if number:
                grads.flat[...] = grads.flat * (1 - share) + here.flat * share
        return total

    def remedy(self, ending: Ending) -> str:
        """Return advice, for people, after a minimization that ended in its first iteration."""
        if ending.converged:
            return "the gradient at the start is as good as zero; start from other weights"
        precise = "" if self.model.dtype == np.float64 else ", train in float64"
        scale = f"scale {to_scale(self.model)} to a standard deviation of about 1"
        return f"no step lowered the loss; {scale}{precise}, or use another rule"

    def check(self) -> None:
        """Check that the loss is smooth and a function of the parameters alone.

        Raises:
            ValueError: the network has dropout or an L1 penalty; the message names both options.
        """
        keep, l1 = self.model.config["dropout_keep_ratio"], self.model.reg_l1
        if keep < 1:
            raise ValueError(
                f"update_rule and dropout_keep_ratio: {self.rule!r} compares losses, expected a network "
                f"without dropout, got one that keeps {keep:g}; use another rule, or no dropout"
            )
        if l1:
            raise ValueError(
                f"update_rule and reg_l1: {self.rule!r} needs a smooth penalty, got an L1 strength of {l1:g}; "
                "use another rule, or the L2 penalty"
            )

    def refuse(self, options: Mapping[str, Any]) -> None:
        """Check that none of these options of mini-batch rules is set; calls `check`, too.

        Raises:
            ValueError: one is set; the message names both options.
        """
        self.check()
        for name, value in options.items():
            if value != {"lr_decay": 1}.get(name):
                raise ValueError(
                    f"update_rule and {name}: {self.rule!r} takes all samples at once and finds its steps itself, "
                    f"got {value!r}; leave the latter out, or use another rule"
                )

    def _vector(self, buffer: ParamBuffer) -> np.ndarray:
        """Return the trained parameters of a buffer as one vector, float64 on the host, without padding."""
        xp = self.model.backend.xp
        flat = xp.concatenate([buffer[name].reshape(-1) for name in self.model.trained])
        return self.model.backend.to_numpy(flat).astype(np.float64)

    def _write(self, vector: np.ndarray) -> None:
        params, at = self.model.params, 0
        source = self.model.backend.asarray(vector, params.dtype)
        for name in self.model.trained:
            size = math.prod(params.shapes[name])
            params[name][...] = source[at : at + size].reshape(params.shapes[name])
            at += size


def _config(rule: str, config: Mapping[str, float] | None) -> dict[str, float]:
    filled = dict(FULL_BATCH[rule])
    if config is not None and not isinstance(config, Mapping):
        raise TypeError(f"optim_config: expected a dict such as {{'tolerance': 1e-5}}, got {config!r}")
    for name, value in (config or {}).items():
        if name == "learning_rate":
            raise ValueError(
                f"update_rule and learning_rate: {rule!r} finds its steps itself, got {value!r}; "
                "leave the latter out, or use another rule"
            )
        if name not in filled:
            raise unknown(f"optim_config for {rule}", name, filled)
        where = f"optim_config[{name!r}]"
        whole = name in ("history", "evaluations")
        filled[name] = positive_int(where, value) if whole else nonnegative_real(where, value)
    return filled
