"""How good a network is: the figure that suits its loss, over many samples, read from the device once."""

from __future__ import annotations

from fcnet.backends import Array
from fcnet.nn.model import FullyConnectedNet


def measure(model: FullyConnectedNet, X: Array, y: Array, batch_size: int = 4096, *, prepared: bool = False) -> float:
    """What `model.objective.metric` makes of the samples X (N, ...) and targets y: accuracy 0 to 1, rmse, ...

    y are as the loss takes them, what `model.objective.to_device` gives. `prepared` says that X has been through
    `model.prepare`.
    """
    backend, objective = model.backend, model.objective
    backend.use()
    scores = model.evaluate_prepared if prepared else model.evaluate
    total = None
    with backend.allocating():
        for start in range(0, len(X), batch_size):
            part = slice(start, start + batch_size)
            pair = scores(backend.asarray(X[part])), backend.asarray(y[part])
            # Joined on the device; read once, at the end.
            here = objective.metric.total(*objective.errors_in_units(backend, *pair))
            total = here if total is None else objective.metric.join(total, here)
    return objective.metric.figure(float(backend.to_numpy(total)), len(X), objective.outputs)
