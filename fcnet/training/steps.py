"""Training steps: mini-batch, loss and gradients, update; recorded once for each batch size, then repeated.

A step must be fast: recorded (`fcnet.backends.step`), it allocates nothing when repeated and never waits for the
device. Nothing here evaluates, prints or decides when to stop; that is up to those who ask for the steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

import fcnet.functional as F
from fcnet.backends import Array
from fcnet.backends.signals import DeferredInterrupt
from fcnet.backends.step import StepRecorder
from fcnet.nn.model import FullyConnectedNet
from fcnet.optim import RULES, Optimizer
from fcnet.training.batches import Batches
from fcnet.training.losslog import LossLog
from fcnet.training.speed import Speed
from fcnet.training.updates import Updates
from fcnet.validation import positive_int


class Steps:
    """Makes the training steps of a network on a training part.

    Attributes:
        model: trained in place. steps: made so far. epoch: epochs finished. Both go on from what was given.
        update_rule: a name in `RULES`, or of a method that makes no such steps.
        speed: samples a second, see `fcnet.training.speed.Speed`.
    """

    def __init__(
        self,
        model: FullyConnectedNet,
        update_rule: str,
        updates: Updates | None,
        batches: Callable[[Array], Batches],
        *,
        log_length: int,
        steps: int = 0,
        epoch: int = 0,
    ) -> None:
        """Prepare the steps.

        Args:
            updates: what is done with the gradients; None for a rule that makes no steps by itself.
            batches: makes the mini-batches, given the counters (2,) of `Batches`.
            log_length: losses kept on the device before they are set aside in one copy.
            steps, epoch: made and finished before, on other data, with these updates.
        """
        self.model, self.update_rule = model, update_rule
        self._updates = updates
        self._grads = model.params.like()
        self._log = LossLog(model.backend, model.dtype, log_length)
        self._batches = batches(self._log.counters)
        self._programs: dict[int, Any] = {}  # by batch size
        self._recorded_for: tuple[Any, ...] | None = None
        self.speed = Speed()
        self.steps, self.epoch = steps, epoch
        self._before = steps

    @property
    def updates(self) -> Updates:
        """What a step does with its gradients. Raises ValueError under "lbfgs" and "bfgs", which make no such steps."""
        if self._updates is None:
            raise ValueError(
                f"update_rule: {self.update_rule!r} takes all samples at once and makes no steps by itself; "
                f"call train(), or use one of {', '.join(RULES)}"
            )
        return self._updates

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer; its `learning_rate` may be set at any time, unless a schedule sets it."""
        return self.updates.optimizer

    def step(self, count: int = 1) -> None:
        """Gather a mini-batch, compute, update, `count` times; at an epoch's end decay the rate and shuffle again.

        Never evaluates, prints or waits for the device. Some devices make many steps of a small network at once, with
        the same bits. Ctrl-C comes after the steps that are being made; pressed twice, at once.

        Raises:
            ValueError: "lbfgs" and "bfgs" make no steps by themselves; use `train`.
        """
        left = positive_int("count", count)
        while left:
            with DeferredInterrupt():
                left -= self._make_steps(left)

    def _make_steps(self, most: int) -> int:
        """Make up to so many steps, as many at once as the device can, of batches of one size; how many."""
        updates = self.updates
        self.model.backend.use()
        self._batches.ready()
        size = self._batches.size
        model = self.model
        recorded_for = model.reg, model.reg_l1, model.preprocessing is None, model.limit, model.frozen
        if recorded_for != self._recorded_for:  # what a recorded step has as a constant was changed
            self._programs.clear()
            self._recorded_for = recorded_for
            self._grads.flat[...] = 0  # what is frozen now has none
            updates.refreeze()
        program, count = self._programs.get(size), 1
        if program is None:
            started = time.perf_counter()
            updates.begin_steps(self.steps, 1)
            with model.backend.allocating():
                self._programs[size] = self._record(size)
            self.speed.first(size, time.perf_counter() - started)
        elif hasattr(program, "most"):  # `ManySteps`; to ask a protocol takes as long as a small step
            count = min(most, program.most, self._batches.alike, self._log.room)
            program.steps(count, updates.begin_steps(self.steps, count))
        else:
            updates.begin_steps(self.steps, 1)
            program()
        self.steps += count
        self._log.stepped(count)
        if self._batches.advance(count):
            self.epoch += 1
            updates.end_epoch()
            self._batches.shuffle(self.epoch)
        return count

    def _record(self, size: int) -> Callable[[], None]:
        """Make the next step of this batch size; the program that repeats it."""
        model, backend = self.model, self.model.backend
        moments = [buffer.flat for buffer in self.optimizer.moments.values()]
        changed = [model.params.flat, model.state.flat, *moments, self.optimizer.step_counter, self._log.counters]
        put_back = backend.snapshot(changed)
        run = StepRecorder(backend)
        x, targets, weights = self._batches.record(run, size)
        streams = model.mask_streams(self.optimizer.step_counter)
        loss = model.loss_and_grads(run, x, targets, streams, self._grads, weights)
        self.updates.apply(run, self._grads)
        run(F.record_step, self._log.buffer, self._log.counters, backend.asarray(np.array([size, 1])), loss)
        return backend.compile(run.calls, put_back)

    @property
    def how_steps_are_made(self) -> list[str]:
        """In which way the device makes the steps of each batch size so far, and why not in a faster one; nothing where
        there is but one way.
        """
        told = [getattr(program, "description", None) for program in self._programs.values()]
        return sorted({line for line in told if line is not None})

    @property
    def made_here(self) -> int:
        """Steps made since this began."""
        return self.steps - self._before

    def losses_since(self, step: int) -> list[float]:
        """Return the losses of the steps made here after so many. Waits for the device, as `loss_history`."""
        return self._log.fetched()[step:]

    @property
    def batch_sizes(self) -> list[int]:
        """Rows of each batch of an epoch, in order."""
        return self._batches.sizes

    @property
    def loss_history(self) -> list[float]:
        """The loss of each step made here so far. Reading it waits for the device if there are losses not yet read."""
        return list(self._log.fetched())

    def __getstate__(self) -> dict[str, Any]:
        """Copied and pickled without the recorded steps, which hold views of these arrays."""
        return self.__dict__ | {"_programs": {}, "_recorded_for": None}
