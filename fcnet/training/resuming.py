"""Resume a training that was cut short, from its run's last complete checkpoint, with the same bits."""

from __future__ import annotations

import tomllib
import warnings
from collections.abc import Callable, Mapping
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

import fcnet.data
from fcnet.data import Dataset
from fcnet.errors import TrainingWarning
from fcnet.nn.model import made_again
from fcnet.nn.objective import kind_of_targets
from fcnet.runs.checkpoints import FOLDER
from fcnet.runs.container import unpack
from fcnet.runs.options import IN_PYTHON
from fcnet.runs.rundir import CONFIG, RunDirectory, is_finished
from fcnet.training.batches import per_epoch
from fcnet.training.device_data import as_dataset
from fcnet.training.state import Absent, State, arguments_of, check_data, differences, environment, put_back

Solver = Any  # fcnet.training.solver.Solver, which imports this


class Standing(NamedTuple):
    """Describe a run's progress: whether its training finished, its last complete checkpoint's step, its plain values.

    step: None if there is no checkpoint. values: the attributes `state.ATTRIBUTES` of the Solver at that step.
    """

    finished: bool
    step: int | None
    values: Mapping[str, Any]


def standing(path: str | Path) -> Standing:
    """Return the progress of the run at `path`, after clearing up what a killed process left behind.

    Raises:
        FileNotFoundError: no run there. FileExistsError: another process is at work in it. ValueError: it is damaged.
    """
    run = RunDirectory.to_go_on(path)
    try:
        found = run.checkpoints.newest()
        finished = is_finished(run.work)
    finally:
        run.release()
    if found is None:
        return Standing(finished, None, {})
    try:
        values = found[0]["plain"]
        return Standing(finished and found[0]["over"], values["steps"], values)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: the checkpoint does not hold together ({error})") from None


LITTLE = 0.1  # of the first learning rate

#: Options that no bit depends on, or whose change is reported elsewhere.
_FREE = {"data", "data-dir", "device", "checkpoint-every", "keep", "checkpoints", "on-nonfinite", IN_PYTHON}


def resumed(
    kind: Any,
    path: str | Path,
    data: Dataset | Mapping[str, Any] | None,
    schedule: Callable[[int], float] | None,
    *,
    extend: int,
    device: str | None,
    verbose: bool,
) -> Solver:
    """Return a Solver of the class `kind` that continues the run at `path`; see `Solver.resume`."""
    place = Path(path)
    run = RunDirectory.to_go_on(place.parent.parent if place.is_file() else place)
    try:
        found = unpack(place, "checkpoint") if place.is_file() else run.checkpoints.newest()
        if found is None:
            raise ValueError(
                f"{path}: expected a checkpoint in {FOLDER}, found none: it was cut short before its first, "
                f"or made none; fcnet resume {path} begins it again from its configuration"
            )
        state = State(*found)
        try:
            solver = _made(kind, run, state, data, schedule, device=device, verbose=verbose)
            put_back(solver, state)
            solver._goes_on = True
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(
                f"{path}: the checkpoint does not hold together ({type(error).__name__}: {error})"
            ) from error
        if extend:
            _warn_of_the_end(solver)
        solver.num_epochs += extend
        if run.config is not None:
            run.config = {**run.config, "epochs": solver.num_epochs}
    except BaseException:
        run.release()
        raise
    return solver


def _made(
    kind: Any,
    run: RunDirectory,
    state: State,
    data: Dataset | Mapping[str, Any] | None,
    schedule: Callable[[int], float] | None,
    *,
    device: str | None,
    verbose: bool,
) -> Solver:
    """Return a Solver made with the arguments of the first one, on the same data."""
    description, tensors = state
    options = description["options"]
    _check_configuration(run.work / CONFIG, options, description["plain"]["num_epochs"])
    arguments = arguments_of(description["solver"]) | {"verbose": verbose}
    _take_schedule(arguments, schedule)
    of_model = {name.removeprefix("model/"): value for name, value in tensors.items() if name.startswith("model/")}
    model = made_again(run.work, description["model"], of_model, device or description["environment"]["device"])
    model.freeze(description["frozen"])
    if data is None:
        dataset, remedy = _loaded(options, model.loss_name), "put the data back, or train anew"
    else:
        dataset, remedy = as_dataset(data, kind_of_targets(model.loss_name)), "give the same arrays"
    check_data(dataset, description["data"], lambda: remedy)
    if IN_PYTHON not in options and (run.work / CONFIG).is_file():
        run.config = options
    solver = kind(model, dataset, **arguments, out=run)
    changed = differences(description["environment"], environment(solver))
    if changed:
        _warn(f"the training goes on elsewhere: {'; '.join(changed)}: equal to rounding, not to the bit")
    return solver


def _check_configuration(file: Path, options: Mapping[str, Any], epochs: int) -> None:
    """Check that the run's configuration file is unchanged. Raises ValueError naming the option that differs."""
    if not file.is_file():
        return
    try:
        found = tomllib.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: expected the configuration of the run, got other text ({error}); mend it") from None
    for name in dict.fromkeys([*options, *found]):
        was, now = options.get(name), found.get(name)
        if name in _FREE or was == now or (name == "epochs" and now == epochs):
            continue
        remedy = "--extend is for more epochs" if name == "epochs" else "for another training, fcnet train --config"
        raise ValueError(
            f"{file}: {name}: expected {was!r}, with which the training began, got {now!r}; put it back; {remedy}"
        )


def _take_schedule(arguments: dict[str, Any], schedule: Callable[[int], float] | None) -> None:
    absent = arguments["schedule"]
    if isinstance(absent, Absent):
        if schedule is None:
            raise ValueError(
                f"schedule: expected the function of the step that the training began with, {absent.name}, which no "
                "file holds; give it again, fcnet.Solver.resume(path, schedule=...)"
            )
        arguments["schedule"] = schedule
        _warn("schedule: that it is the function which the training began with cannot be checked")
    elif schedule is not None:
        raise ValueError(f"schedule: expected none, as the training has schedule={absent!r}, got a function")
    for name, value in arguments.items():
        if isinstance(value, Absent):
            raise ValueError(f"{name}: the training had a function, {value.name}, which no file holds")


def _loaded(options: Mapping[str, Any], loss: str) -> Dataset:
    """Return the data that the options name, read again. Raises ValueError if they name none."""
    names = signature(fcnet.data.load).parameters
    given = {name: options[flag] for name in names if (flag := name.replace("_", "-")) in options}
    if "targets" in names:
        given["targets"] = kind_of_targets(loss)
    try:
        return fcnet.data.load(options["data"], **{name: given[name] for name in given if name not in ("name", "data")})
    except (ValueError, OSError) as error:
        if IN_PYTHON in options or "expected one of" in str(error):
            raise ValueError(
                f"data: the training had arrays of its own ({options['data']}), which no file holds; give them again: "
                "fcnet.Solver.resume(path, data=...)"
            ) from error
        raise


def _warn_of_the_end(solver: Solver) -> None:
    """Warn where more epochs would not train: the training ended by itself, or its schedule has little left."""
    if solver.converged:
        _warn(f"extend: {solver.update_rule} has converged, so nothing is added")
    elif solver._out_of_patience():
        _warn(
            f"extend: the best epoch was {solver.best_epoch} of {solver.epoch}, with a patience of {solver.patience}, "
            f"so nothing is added; train anew with a patience of more than {solver.patience}"
        )
    elif solver.full_batch is None and solver.updates.schedule is not None:
        updates = solver.updates
        end = solver.num_epochs * per_epoch(solver.model, len(solver.data.X_train), solver.batch_size)
        if (factor := updates.schedule(end)) <= LITTLE:
            _warn(
                f"extend: the schedule was made for {solver.num_epochs} epochs; those that are added have the learning "
                f"rate {factor * updates.first_learning_rate:.3g}; for a rate that falls later, train anew with more "
                "epochs"
            )


def _warn(text: str) -> None:
    warnings.warn(text, TrainingWarning, stacklevel=2)
