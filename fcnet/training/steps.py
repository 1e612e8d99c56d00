"""Training steps: mini-batch, loss and gradients, update; recorded once for each batch size, then repeated.

A step must be fast: recorded (`fcnet.backends.step`), it allocates nothing when repeated and never waits for the
device. Nothing here evaluates, prints or decides when to stop; that is left to the caller.
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
from fcnet.training.updates import UpdateStep
from fcnet.validation import positive_int


class Steps:
    """Make the training steps of a network on a training part.

    Attributes:
        model: trained in place. steps: steps made so far. epoch: epochs finished. Both continue from what was given.
        update_rule: a name in `RULES`, or that of a full-batch method, which makes no such steps.
        speed: samples a second, see `fcnet.training.speed.Speed`.
    """

    def __init__(
        self,
        model: FullyConnectedNet,
        update_rule: str,
        updates: UpdateStep | None,
        batches: Callable[[Array], Batches],
        *,
        log_length: int,
        steps: int = 0,
        epoch: int = 0,
    ) -> None:
        """Prepare the steps.

        Args:
            updates: turn gradients into changed parameters; None for a full-batch method.
            batches: returns the mini-batches, given the counters (2,) of `Batches`.
            log_length: losses kept on the device before they are copied at once.
            steps, epoch: steps made and epochs finished before, on other data, with the same updates.
        """
        self.model, self.update_rule = model, update_rule
        self._updates = updates
        self._grads = model.params.like()
        self._log = LossLog(model.backend, model.dtype, log_length)
        self._batches = batches(self._log.counters)
        self._compiled_steps: dict[int, Any] = {}  # by batch size
        self._latest: Any = None  # the compiled step that made the steps before
        self._recorded_for: tuple[Any, ...] | None = None
        self.speed = Speed()
        self.steps, self.epoch = steps, epoch
        self._before = steps

    @property
    def updates(self) -> UpdateStep:
        """Return what turns gradients into changed parameters. Raises ValueError under "lbfgs" and "bfgs"."""
        if self._updates is None:
            raise ValueError(
                f"update_rule: {self.update_rule!r} takes all samples at once and makes no steps by itself; "
                f"call train(), or use one of {', '.join(RULES)}"
            )
        return self._updates

    @property
    def optimizer(self) -> Optimizer:
        """Return the optimizer; its `learning_rate` may be set at any time, unless a schedule sets it."""
        return self.updates.optimizer

    def step(self, count: int = 1) -> None:
        """Make `count` training steps; at the end of an epoch decay the rate and shuffle again.

        Never evaluates, prints or waits for the device. Some devices make many steps of a small network at once, with
        the same bits. Ctrl-C takes effect after the steps in progress; pressed twice, at once.

        Raises:
            ValueError: "lbfgs" and "bfgs" make no steps by themselves; use `train`.
        """
        left = count = positive_int("count", count)
        while left:
            with DeferredInterrupt():
                left -= self._make_steps(left, untouched=left < count)

    def _make_steps(self, most: int, untouched: bool = False) -> int:
        """Make up to `most` steps on batches of one size, as many as the device makes at once; return their number.

        `untouched`: nobody has had the chance to write to the parameters since the steps before.
        """
        updates = self.updates
        self.model.backend.use()
        self._batches.ready()
        size = self._batches.size
        model = self.model
        recorded_for = model.reg, model.reg_l1, model.preprocessing is None, model.limit, model.frozen
        if recorded_for != self._recorded_for:  # a value that recorded steps hold as a constant has changed
            self._compiled_steps.clear()
            self._recorded_for = recorded_for
            self._grads.flat[...] = 0  # frozen layers get no gradients from now on
            updates.refreeze()
        compiled_step, count = self._compiled_steps.get(size), 1
        if compiled_step is None:
            started = time.perf_counter()
            updates.begin_steps(self.steps, 1)
            with model.backend.allocating():
                compiled_step = self._compiled_steps[size] = self._record(size)
            self.speed.first(size, time.perf_counter() - started)
        elif hasattr(compiled_step, "most"):  # `ManySteps`; to ask a protocol takes as long as a small step
            count = min(most, compiled_step.most, self._batches.alike, self._log.room)
            again = untouched and compiled_step is self._latest
            compiled_step.steps(count, updates.begin_steps(self.steps, count), again)
        else:
            updates.begin_steps(self.steps, 1)
            compiled_step()
        self._latest = compiled_step
        self.steps += count
        self._log.stepped(count)
        if self._batches.advance(count):
            self.epoch += 1
            updates.end_epoch()
            self._batches.shuffle(self.epoch)
        return count

    def _record(self, size: int) -> Callable[[], None]:
        """Make the next step on a batch of this size while recording it; return what repeats it."""
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
        return backend.compile(run.calls, put_back, min(self._batches.batch_size, len(self._batches)))

    @property
    def how_steps_are_made(self) -> list[str]:
        """Return how the device makes the steps of each batch size, and why not faster; empty if it has but one way."""
        lines = [getattr(step, "description", None) for step in self._compiled_steps.values()]
        return sorted({line for line in lines if line is not None})

    @property
    def made_here(self) -> int:
        """Return how many steps this object made, without those given at the start."""
        return self.steps - self._before

    def losses_since(self, step: int) -> list[float]:
        """Return the losses of the steps made here after the first `step` of them. Waits for the device, if needed."""
        return self._log.fetched()[step:]

    @property
    def batch_sizes(self) -> list[int]:
        """Return the rows of each batch of an epoch, in order."""
        return self._batches.sizes

    @property
    def loss_history(self) -> list[float]:
        """Return the loss of each step made here so far. Waits for the device if some losses are not read yet."""
        return list(self._log.fetched())

    def __getstate__(self) -> dict[str, Any]:
        """Return what is copied and pickled: all but the compiled steps, which hold views of these arrays."""
        return self.__dict__ | {"_compiled_steps": {}, "_latest": None, "_recorded_for": None}
