"""An estimator's training: epoch after epoch until it has converged, or SciPy's L-BFGS; what it leaves on the way."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from fcnet.backends.step import direct
from fcnet.data.sparse import SparseRows
from fcnet.errors import counted
from fcnet.nn.model import FullyConnectedNet
from fcnet.sklearn import stopping
from fcnet.sklearn.callbacks import Followed
from fcnet.sklearn.validation import Validation
from fcnet.training.device_data import DeviceSplit
from fcnet.training.fullbatch import DeviceSamples, FullBatch
from fcnet.training.steps import Steps

MOST_UNSEEN = 1000  # steps between two looks at their losses
SMALLEST_RATE = 1e-6  # at which an adaptive rate is divided no more
DIVISOR = 5.0  # of an adaptive rate


class Epochs:
    """Train an estimator by mini-batches, and fill its fitted attributes."""

    def __init__(
        self,
        estimator: Any,
        steps: Steps,
        scale: float,
        validation: Validation | None,
        *,
        by_score: bool,
        followed: Followed,
    ) -> None:
        """Prepare.

        Args:
            estimator: has the attributes of a training that has begun, `loss_curve_` and so on.
            scale: what fcnet's loss is multiplied by to be scikit-learn's.
            validation: what is measured after each epoch, or None. by_score: its score decides when to stop.
            followed: tells the callbacks.
        """
        self.estimator, self.steps, self.scale = estimator, steps, scale
        self.validation, self.by_score, self.followed = validation, by_score, followed
        self._best: tuple[Any, Any] | None = None

    def run(self, most: int) -> str | None:
        """Train for up to so many epochs; return why it has not converged, unless it has, or was asked to end.

        The best weights by the validation score are put back.
        """
        ended = False
        try:
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # said by what is not finite in the end
                while not ended and self.estimator.n_iter_ < most:
                    ended = self._some_epochs(most - self.estimator.n_iter_)
        except KeyboardInterrupt:
            warnings.warn("training interrupted by Ctrl-C: the estimator is fitted as far as it came", stacklevel=4)
            ended = True
        self._put_best_back()
        if self._best is not None and not math.isfinite(self.estimator.loss_):
            return (
                f"its loss became {self.estimator.loss_}; the weights of the best epoch are put back; lower "
                "learning_rate_init, or scale the inputs"
            )
        return None if ended else _too_few(most)

    def _some_epochs(self, most: int) -> bool:
        """Make as many epochs as may pass before one of them must be evaluated; return whether to end."""
        estimator, steps = self.estimator, self.steps
        count = most
        if self.validation is not None or self.followed.watched or self._rate_changes or estimator.verbose:
            count = 1
        else:
            before = stopping.epochs_before_it_can(estimator)
            count = min(most, MOST_UNSEEN // len(steps.batch_sizes) or 1, *([] if before is None else [before]))
        self.followed.begin_epoch()
        sizes, since = steps.batch_sizes, steps.made_here
        steps.step(count * len(sizes))
        losses = np.reshape(steps.losses_since(since), (count, len(sizes)))
        for loss in self.scale * (losses @ np.array(sizes)) / sum(sizes):
            if self._end_epoch(float(loss), sum(sizes)):
                return True
        return False

    @property
    def _rate_changes(self) -> bool:
        return self.estimator.learning_rate != "constant" and self.steps.update_rule in LINEAR

    def _end_epoch(self, loss: float, rows: int) -> bool:
        estimator = self.estimator
        estimator.n_iter_ += 1
        estimator.t_ += rows
        estimator.loss_ = loss
        estimator.loss_curve_.append(loss)
        self._say(f"Iteration {estimator.n_iter_}, loss = {loss:.8f}")
        self._look(loss)
        if estimator.learning_rate == "invscaling" and self._rate_changes:
            self._set_rate(self.steps.updates.first_learning_rate / (estimator.t_ + 1) ** estimator.power_t)
        over = stopping.has_converged(estimator) and self._stop_or_slow_down()
        return self.followed.end_epoch() or over

    def _look(self, loss: float) -> None:
        estimator = self.estimator
        if self.validation is not None:
            val_loss, score = self.validation.measure()
            estimator.val_loss_curve_.append(self.scale * val_loss)
            if self.by_score:
                estimator.validation_scores_.append(score)
                self._say(f"Validation score: {score:f}")
                if stopping.look_at_score(estimator, score):
                    model = self.steps.model
                    self._best = model.params.flat.copy(), model.state.flat.copy()
                return
        stopping.look_at_loss(estimator, loss)

    def _stop_or_slow_down(self) -> bool:
        """Return what is done when there was no improvement for too long; whether to stop."""
        estimator = self.estimator
        what = "validation score" if self.by_score else "training loss"
        reason = f"no {what} better by tol={estimator._tolerance:g} in {estimator.n_iter_no_change} epochs"
        rate = self.steps.optimizer.learning_rate
        if estimator.learning_rate != "adaptive" or not self._rate_changes or rate <= SMALLEST_RATE:
            self._say(f"{reason}: stopping")
            return True
        self._set_rate(rate / DIVISOR)
        self._say(f"{reason}: learning rate {rate / DIVISOR:g}")
        estimator._no_improvement_count = 0
        return False

    def _set_rate(self, rate: float) -> None:
        self.steps.optimizer.learning_rate = rate

    def _put_best_back(self) -> None:
        if self._best is not None:
            model = self.steps.model
            for buffer, best in zip((model.params, model.state), self._best, strict=True):
                buffer.flat[...] = best

    def _say(self, text: str) -> None:
        if self.estimator.verbose:
            sys.stdout.write(f"{text}\n")


LINEAR = ("sgd", "momentum", "nesterov")  # the rules of solver="sgd", whose rate `learning_rate` may change


def minimize(
    estimator: Any, method: FullBatch, split: DeviceSplit, most: int, scale: float, followed: Followed
) -> str | None:
    """Train on all rows at once for up to so many iterations; return why it has not converged, as `Epochs.run` does."""

    def report(loss: float) -> bool:
        estimator.n_iter_ += 1
        estimator.t_ += len(split)
        estimator.loss_ = scale * loss
        estimator.loss_curve_.append(estimator.loss_)
        if estimator.verbose:
            sys.stdout.write(f"Iteration {estimator.n_iter_}, loss = {estimator.loss_:.8f}\n")
        if followed.end_epoch():
            return True
        if estimator.n_iter_ < most:
            followed.begin_epoch()
        return False

    followed.begin_epoch()
    ending = method.minimize(lambda: _parts(method.model, split), most, report)
    if estimator.n_iter_ == 0:  # it was in a minimum, or found no way down
        estimator.loss_ = scale * method.first_loss
    if ending.converged or ending.message is None:
        return None
    if estimator.n_iter_ >= most:
        return _too_few(most)
    if ending.evaluations >= method.config.get("evaluations", math.inf):
        return f"{estimator.max_fun} evaluations of the loss reached (max_fun); raise max_fun, or tol"
    return f"{method.remedy(ending)} (after {counted(estimator.n_iter_, 'iteration')}: {ending.message})"


def _too_few(most: int) -> str:
    return f"{most} iterations reached (max_iter); raise max_iter, or tol"


def _parts(model: FullyConnectedNet, split: DeviceSplit) -> Iterable[DeviceSamples]:
    """Yield all rows on the device: as they lie there, or dense parts of sparse ones, one after the other."""
    if not isinstance(split.X, SparseRows):
        asarray = model.backend.asarray
        x = asarray(split.X)
        weights = None if split.weights is None else asarray(split.weights)
        yield x if split.prepared else model.prepare(direct, x), asarray(split.y), weights
        return
    asarray = model.backend.asarray
    for rows, X in split.X.parts():
        weights = None if split.weights is None else asarray(split.weights[rows])
        yield model.prepare(direct, asarray(X)), asarray(split.y[rows]), weights


def warn_of_the_end(estimator: Any, why: str) -> None:
    """Say that the training has ended and had not converged."""
    warnings.warn(
        f"{type(estimator).__name__}: the training has not converged: {why}",
        ConvergenceWarning,
        stacklevel=5,
    )
