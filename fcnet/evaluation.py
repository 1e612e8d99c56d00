"""How good a network is: the figure that suits its loss, over many samples, read from the device once."""

from __future__ import annotations

from backends import Array
from fcnet.boundary import check_input, positive_int
from fcnet.functional import Metric
from fcnet.model import FullyConnectedNet


def measure(model: FullyConnectedNet, X: Array, y: Array, batch_size: int = 4096, *, prepared: bool = False) -> float:
    """What `model.objective.metric` makes of the samples X (N, ...) and targets y: accuracy 0 to 1, rmse, ...

    `prepared` says that X has been through `model.prepare`.
    """
    backend, objective = model.backend, model.objective
    backend.use()
    scores = model.evaluate_prepared if prepared else model.evaluate
    total = 0
    with backend.allocating():
        for start in range(0, len(X), batch_size):
            part = slice(start, start + batch_size)
            targets = objective.to_device(backend, y[part], model.dtype)
            # Added up on the device; read once, at the end.
            total = total + objective.metric.total(scores(backend.asarray(X[part])), targets)
    return objective.metric.figure(float(backend.to_numpy(total)), len(X), objective.outputs)


class MetricHistory:
    """The metric of a training's parts after each epoch; for a classifier by the names of the accuracy, too."""

    def __init__(self, model: FullyConnectedNet) -> None:
        self.model = model
        self.train_metric_history: list[float] = []
        self.val_metric_history: list[float] = []
        self.best_val_metric: float | None = None

    @property
    def metric(self) -> Metric:
        """The figure by which the best epoch is chosen."""
        return self.model.objective.metric

    def check_accuracy(self, X: Array, y: Array, num_samples: int | None = None, batch_size: int = 4096) -> float:
        """Share of samples whose class the network predicts, 0 to 1; on the first `num_samples` if given."""
        self._only_accuracy("check_accuracy", "check_metric")
        return self.check_metric(X, y, num_samples, batch_size)

    def check_metric(self, X: Array, y: Array, num_samples: int | None = None, batch_size: int = 4096) -> float:
        """The `metric` of these samples; on the first `num_samples` if given."""
        check_input("X", X, self.model.input_dim, self.model.dtype)
        self.model.objective.check_targets("y", y, len(X), self.model.dtype)
        if num_samples is not None:
            X, y = X[: positive_int("num_samples", num_samples)], y[:num_samples]
        return measure(self.model, X, y, positive_int("batch_size", batch_size))

    def _only_accuracy(self, name: str, instead: str) -> None:
        if self.metric.key != "acc":
            raise AttributeError(f"{name}: a network with loss {self.model.loss_name!r} has none; use {instead}")

    @property
    def train_acc_history(self) -> list[float]:
        """`train_metric_history` of a classifier."""
        self._only_accuracy("train_acc_history", "train_metric_history")
        return self.train_metric_history

    @property
    def val_acc_history(self) -> list[float]:
        """`val_metric_history` of a classifier."""
        self._only_accuracy("val_acc_history", "val_metric_history")
        return self.val_metric_history

    @property
    def best_val_acc(self) -> float | None:
        """`best_val_metric` of a classifier."""
        self._only_accuracy("best_val_acc", "best_val_metric")
        return self.best_val_metric
