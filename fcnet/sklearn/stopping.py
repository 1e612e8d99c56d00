"""When a training has converged: no improvement by `tol` in more than `n_iter_no_change` epochs, as in scikit-learn.

It looks at the score of the validation rows where there are some to stop by, else at the training loss.
"""

from __future__ import annotations

import math
from typing import Any


def look_at_loss(estimator: Any, loss: float) -> None:
    """Count an epoch with this training loss."""
    worse = not loss <= estimator.best_loss_ - estimator._tolerance  # NaN, too
    estimator._no_improvement_count = estimator._no_improvement_count + 1 if worse else 0
    if loss < estimator.best_loss_:
        estimator.best_loss_ = loss


def look_at_score(estimator: Any, score: float) -> bool:
    """Count an epoch with this validation score; whether it is the best so far."""
    worse = not score >= estimator.best_validation_score_ + estimator._tolerance
    estimator._no_improvement_count = estimator._no_improvement_count + 1 if worse else 0
    best = score > estimator.best_validation_score_
    if best:
        estimator.best_validation_score_ = score
    return best


def has_converged(estimator: Any) -> bool:
    """Return whether there was no improvement for too long."""
    return estimator._no_improvement_count > estimator.n_iter_no_change


def epochs_before_it_can(estimator: Any) -> int | None:
    """Return how many epochs may pass, the last included, before it can have converged; None: no limit."""
    left = estimator.n_iter_no_change + 1 - estimator._no_improvement_count
    return None if math.isinf(left) else max(1, int(left))
