"""The learning-rate range test: one step at each of a row of growing rates."""

from __future__ import annotations

import copy
import csv
import io
import math
from dataclasses import dataclass

import numpy as np

from fcnet.optim import RULES
from fcnet.progress import Progress
from fcnet.tools.diagnostics.copies import quietly
from fcnet.training.solver import Solver
from fcnet.validation import finite_real, positive_int

SMOOTHING = 0.9  # weight of the past in the smoothed loss
DIVERGED = 4  # times the best smoothed loss
FLAT = 0.05  # of the fall of the smoothed loss: as good as none


@dataclass(frozen=True)
class LrRange:
    """Hold the results of a learning-rate range test.

    Attributes:
        rates, losses, smoothed: of each step made; the loss is that before the step.
        suggestion: a learning rate to train with, or None. reason: how it was derived, or why there is none.
        diverged: whether the sweep ended early.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    suggestion: float | None
    reason: str
    diverged: bool

    def csv(self) -> str:
        """Return a row per step: learning_rate, loss, smoothed."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["learning_rate", "loss", "smoothed"])
        writer.writerows(zip(self.rates, self.losses, self.smoothed, strict=True))
        return text.getvalue()


def lr_range(
    solver: Solver, *, lowest: float = 1e-6, highest: float = 10.0, steps: int = 200, verbose: bool = False
) -> LrRange:
    """Sweep the learning rate from `lowest` to `highest`, in equal factors, one step of training at each.

    At rates that are too low the loss stays, in between it falls, at rates that are too high it grows. The smoothed
    loss s_t is the exponential average of the losses l_t, s_t = Σ_i 0.9^(t-i) l_i / Σ_i 0.9^(t-i); the sweep ends when
    it exceeds four times its best value, or a loss is not finite. The suggestion is a tenth of the
    first rate at which the smoothed loss is down to its least value but for a twentieth of its fall: there training
    is near the brink, and its noise needs a margin. (On few samples, soon learned by heart, the curve stays flat far
    beyond that point, and where on the flat part it is least says nothing.)

    Args:
        solver: its network, data, batch size and optimizer are tried in a copy; it is left as it is. Schedules and
            decay are switched off.
        lowest, highest: 0 < lowest < highest. steps: 10 or more.
        verbose: show a progress bar (on a terminal only).

    Raises:
        ValueError, TypeError: an argument is not as above.

    Source: Smith, "Cyclical learning rates for training neural networks", 2017.
    """
    if not isinstance(solver, Solver):
        raise TypeError(f"solver: expected a Solver, got {type(solver).__name__}; it brings the data and the rule")
    if solver.full_batch is not None:
        raise ValueError(
            f"update_rule: expected one of {', '.join(RULES)}, got {solver.update_rule!r}, which finds the length of "
            "its steps itself; it needs no learning rate"
        )
    lowest, highest = finite_real("lowest", lowest), finite_real("highest", highest)
    if not 0 < lowest < highest:
        raise ValueError(f"lowest and highest: expected 0 < lowest < highest, got {lowest:g} and {highest:g}")
    if positive_int("steps", steps) < 10:
        raise ValueError(f"steps: expected 10 or more, for a curve, got {steps}")
    trial = _trial(solver)
    rates: list[float] = []
    losses: list[float] = []
    smoothed: list[float] = []
    average = weight = 0.0
    diverged = False
    with quietly(), Progress("learning rates", steps, 0, shown=verbose) as progress:
        for rate in np.geomspace(lowest, highest, steps).tolist():
            trial.optimizer.learning_rate = rate
            trial.step()
            loss = trial.loss_history[-1]
            if not math.isfinite(loss):
                diverged = True
                break
            average = SMOOTHING * average + (1 - SMOOTHING) * loss
            weight = SMOOTHING * weight + (1 - SMOOTHING)
            rates.append(rate)
            losses.append(loss)
            smoothed.append(average / weight)
            progress.advance(trial.batch_size, lambda: losses[-1])
            if smoothed[-1] > DIVERGED * min(smoothed):
                diverged = True
                break
    suggestion, reason = suggest(rates, smoothed, diverged)
    return LrRange(tuple(rates), tuple(losses), tuple(smoothed), suggestion, reason, diverged)


def _trial(solver: Solver) -> Solver:
    """Return a copy of the solver that shares its data, lets its rate be set and writes nothing."""
    trial = copy.deepcopy(solver, {id(shared): shared for shared in (solver.data, solver._parts)})
    trial.run, trial.updates.schedule = None, None
    return trial


def suggest(rates: list[float], smoothed: list[float], diverged: bool) -> tuple[float | None, str]:
    """Return a learning rate and how it was derived, or None and why, from a sweep's smoothed losses."""
    if not smoothed:
        return None, "the loss is not finite before the first step; look at the data and the initial weights"
    least = int(np.argmin(smoothed))
    if smoothed[least] > 0.98 * smoothed[0]:
        where = (
            "it diverged at once, try a lower range"
            if diverged and len(rates) < 20
            else "try a wider range, or see what fcnet check says"
        )
        return None, f"the loss did not fall between {rates[0]:.2g} and {rates[-1]:.2g}; {where}"
    low = smoothed[least] + FLAT * (smoothed[0] - smoothed[least])
    there = next(number for number, loss in enumerate(smoothed) if loss <= low)
    reason = f"a tenth of {rates[there]:.2g}, from where on the smoothed loss hardly falls ({smoothed[there]:.4g})"
    if there == len(rates) - 1 and not diverged:
        reason += "; it was still falling there, so a higher range may give a higher rate"
    return rates[there] / 10, reason
