"""The state of a training: captured between two steps, restored into a Solver made with the same arguments.

All randomness of a step is a function of the seed and of counters, so no random state is kept. The state consists of
the parameters, moments, running statistics, counters and rates, and of what `train` keeps (history, best parameters).
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np

from fcnet.data import Dataset

Solver = Any  # fcnet.training.solver.Solver, which imports this

#: The part of the state that is no array, by the names of the Solver's attributes.
ATTRIBUTES = (
    *("steps", "epoch", "num_epochs", "history", "train_metric_history", "val_metric_history", "best_val_metric"),
    *("best_epoch", "_best_loss", "_best_val_loss", "converged", "message", "preprocess", "_python_only", "_sizes"),
)
OF_RATES = ("first_learning_rate", "rate_set_by_hand", "_own_rate")
PARTS = ("X_train", "y_train", "X_val", "y_val", "X_test", "y_test", "sample_weight")


class State(NamedTuple):
    """Hold the content of a checkpoint: a description that JSON can hold, and tensors on the host."""

    description: dict[str, Any]
    tensors: dict[str, np.ndarray]


def capture(solver: Solver) -> State | None:
    """Return a copy of the state between two steps; None if a parameter or loss is not finite. Waits for the device."""
    model, to_numpy = solver.model, solver.model.backend.to_numpy
    described, of_model = model.saved()
    tensors = {f"model/{name}": tensor for name, tensor in of_model.items()}
    if not all(np.isfinite(tensor).all() for tensor in of_model.values()):
        return None
    tensors |= zip(("best/params", "best/state"), solver._best, strict=True)
    losses = np.array(solver._log.fetched(), np.float64)
    if not np.isfinite(losses).all():
        return None
    tensors["losses"] = _compact(losses)
    description: dict[str, Any] = {
        "model": described,
        "frozen": list(model.frozen),
        "solver": _to_json(solver._arguments),
        "plain": {name: _copied(getattr(solver, name)) for name in ATTRIBUTES},
        "options": dict(solver.options()),
        "over": solver._is_over(),
    }
    if solver.full_batch is None:
        updates, optimizer = solver.updates, solver.optimizer
        for name, buffer in optimizer.moments.items():
            tensors[f"moments/{name}"] = to_numpy(buffer.flat).copy()
        tensors["rates/since"] = np.array([since for since, _ in updates._rates], np.int64)
        tensors["rates/rate"] = np.array([rate for _, rate in updates._rates], np.float64)
        description["rates"] = {name: getattr(updates, name) for name in OF_RATES}
        description["learning_rate"] = optimizer.learning_rate
        description["updates"] = int(to_numpy(optimizer.step_counter)[0])
        description["position"] = solver._batches.position
    elif solver._minimization is not None:
        start = solver._minimization
        description["minimization"] = start.epoch
        tensors |= zip(("start/params", "start/state"), (start.params, start.state), strict=True)
    return State(description, tensors)


def _compact(values: np.ndarray) -> np.ndarray:
    """Return float64 numbers as float32 where all of them are that, as the losses of a float32 network are."""
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    return single if np.array_equal(single, values) else values


def put_back(solver: Solver, state: State) -> None:
    """Restore a state into a Solver made with the same network, data and arguments.

    Raises:
        ValueError, KeyError, TypeError: the state does not hold together.
    """
    description, tensors = state
    model, asarray = solver.model, solver.model.backend.asarray
    for part in (model.params, model.state):
        for name in part:
            part[name] = tensors[f"model/{name}"]
    for name in ATTRIBUTES:
        setattr(solver, name, _copied(description["plain"][name]))
    solver._best = (tensors["best/params"].copy(), tensors["best/state"].copy())
    solver._log.restart(tensors["losses"].tolist())
    if solver.full_batch is not None:
        if "minimization" in description:
            solver._minimization = Minimization(
                description["minimization"], tensors["start/params"], tensors["start/state"]
            )
        return
    updates, optimizer = solver.updates, solver.optimizer
    for name, buffer in optimizer.moments.items():
        buffer.flat[...] = asarray(tensors[f"moments/{name}"])
    optimizer.step_counter[...] = description["updates"]
    optimizer.learning_rate = description["learning_rate"]
    for name in OF_RATES:
        setattr(updates, name, description["rates"][name])
    since, rate = tensors["rates/since"].tolist(), tensors["rates/rate"].tolist()
    updates._rates = list(zip(since, rate, strict=True))
    solver._batches.go_to(solver.epoch, description["position"])


class Minimization(NamedTuple):
    """Hold the start of a full-batch minimization: its epoch, parameters and running statistics.

    SciPy does not give out its estimate of the curvature, so such a training is resumed by repeating its iterations.
    """

    epoch: int
    params: np.ndarray
    state: np.ndarray


def _copied(value: Any) -> Any:
    """Return a list copied with the rows in it, for the training goes on to fill its own; all else as it is."""
    if isinstance(value, list):
        return [dict(item) if isinstance(item, dict) else item for item in value]
    return value


def _to_json(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a Solver in a form that JSON can hold."""

    def to_json(value: Any) -> Any:
        if callable(value):
            return {"function": getattr(value, "__qualname__", type(value).__name__)}
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, np.ndarray):
            return value.tolist()
        if isinstance(value, Mapping):  # with keys that JSON would make strings of
            return {"items": [[to_json(key), to_json(item)] for key, item in value.items()]}
        if isinstance(value, list | tuple):
            return [to_json(item) for item in value]
        return value

    return {name: to_json(value) for name, value in arguments.items()}


def arguments_of(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that `capture` stored; an `Absent` stands for each function."""

    def value(stored: Any) -> Any:
        if isinstance(stored, Mapping):
            if "items" in stored:
                return {value(key): value(item) for key, item in stored["items"]}
            return Absent(stored["function"])
        return [value(item) for item in stored] if isinstance(stored, list) else stored

    return {name: value(item) for name, item in stored.items()}


class Absent(NamedTuple):
    """Stand for a function that a training was given, which no file can hold."""

    name: str


def fingerprint(data: Dataset) -> dict[str, str]:
    """Return dtype, shape and SHA-256 of each array of a data set, by its name."""
    return {name: _fingerprint(array) for name in PARTS if (array := getattr(data, name)) is not None}


def _fingerprint(array: Any) -> str:
    host = np.ascontiguousarray(array)
    total = hashlib.sha256(host.reshape(-1).view(np.uint8).data if host.size else b"")
    return f"{host.dtype.str} {'x'.join(map(str, host.shape))} {total.hexdigest()}"


def check_data(data: Dataset, stored: Mapping[str, str], remedy: Callable[[], str]) -> None:
    """Check that the data are those that the training began with. Raises ValueError naming the array that is not.

    `remedy` is called for the end of that message.
    """
    found = fingerprint(data)
    for name in dict.fromkeys([*stored, *found]):
        if stored.get(name) != found.get(name):
            raise ValueError(
                f"data: {name}: expected the array that the training began with, {_short(stored.get(name))}, got "
                f"{_short(found.get(name))}; {remedy()}"
            )


def _short(text: str | None) -> str:
    """Return a fingerprint shortened for people: "<f4 100x2 (SHA-256 0123abcd...)"."""
    if text is None:
        return "none"
    head, _, sum_ = text.rpartition(" ")
    return f"{head} (SHA-256 {sum_[:8]}...)"


def environment(solver: Solver) -> dict[str, Any]:
    """Return what the bits of a training depend on besides its arguments: versions, kernels, threads, device."""
    backend = solver.model.backend
    found: dict[str, Any] = {
        "machine": platform.machine(),
        "device": backend.name,
        "libraries": backend.describe(),
        "precision": solver.model.precision,
        "processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        found[variable] = os.environ.get(variable)
    for package in ("fcnet", "numpy", "numba", "scipy"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def differences(stored: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Return what has changed between two environments, one line of text each."""
    return [f"{name} is {found[name]}, was {stored.get(name)}" for name in found if found[name] != stored.get(name)]
