"""`search`: choose the options of a training by their validation value."""

from __future__ import annotations

import contextlib
import os
import shutil
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import fcnet.errors as errors
from fcnet.backends.signals import Deferred
from fcnet.data import Dataset
from fcnet.errors import counted
from fcnet.files import check_parent, make_folder, unless_it_fails, write_atomically
from fcnet.nn.model import FullyConnectedNet, load
from fcnet.progress import write
from fcnet.runs.checkpoint import FILE_NAME
from fcnet.runs.rundir import to_toml
from fcnet.tools.search import jobs, worker
from fcnet.tools.search.optuna_quietly import quietly
from fcnet.tools.search.picture import parameters_png
from fcnet.tools.search.plan import Plan, make, saved
from fcnet.tools.search.rows import Row, csv_text, ranked, table
from fcnet.tools.search.shared import Shared
from fcnet.tools.search.watch import Watch

CONFIG, TRIALS, PICTURE, BEST = "search.toml", "trials.csv", "parameters.png", "best"
TOP = 10  # trials in a table


@dataclass(frozen=True)
class Result:
    """Hold what a search found.

    Attributes:
        trials: a `Row` for each trial: number, stage, state, value, best_epoch, epochs, seconds, values, why, run.
        metric: what a value is, such as accuracy. maximize: whether larger is better.
        out: the folder: best/ (a run directory), trials.csv, parameters.png, trials/, search.toml.
        no_picture: why there is no parameters.png, or None.
    """

    trials: list[Row]
    metric: str
    maximize: bool
    out: Path
    no_picture: str | None

    @property
    def best(self) -> Row | None:
        """Return the best finished trial."""
        return next(iter(ranked(self.trials, self.maximize)), None)

    def model(self, device: str = "auto") -> FullyConnectedNet:
        """Return the best network. Raises FileNotFoundError if no trial has finished."""
        return load(self.out / BEST, device=device)

    def table(self, top: int = TOP) -> str:
        """Return the best trials as text."""
        return table(self.trials, self.metric, self.maximize, top)

    def __repr__(self) -> str:
        return f"{self.table()}\nin {self.out}"


def search(
    vary: Mapping[str, Any] | Iterable[str], data: str | Dataset = "digits", *, verbose: bool = True, **options: Any
) -> Result:
    """Search the options of a training: many short trainings, compared by validation value.

    >>> result = fcnet.search({"lr": "1e-4:1e-2:log", "hidden": [[100], [200, 100]]}, "digits")  # doctest: +SKIP
    >>> result.best.values, result.model().predict(X)  # doctest: +SKIP

    The same call again goes on with the study where it was, and is quick if it was done. The test part of the data is
    never looked at. A trial that is hopeless (below the median of the others at its epoch) is stopped; one that
    diverges is a failed trial, no more. Random search: Bergstra and Bengio, JMLR 13, 2012; from coarse to fine:
    CS231n, "Hyperparameter optimization".

    Args:
        vary: what to search, by the names of `fcnet train`'s options: a text "LOW:HIGH", "LOW:HIGH:log" or "A|B|C", a
            tuple (low, high) or (low, high, "log"), or a list of choices.
        data: a `Dataset`, or what `fcnet train --data` takes.
        verbose: a progress bar, on a terminal, and a line on standard error for each trial that ends.
        options: fixed values of `fcnet train`'s options (`epochs=10, norm="batchnorm"`), and trials, sampler, refine,
            prune, study, storage, out, jobs as `fcnet search --help` describes them.

    Returns:
        A `Result`; its `repr` is a table.

    Raises:
        ValueError, TypeError: an option, range or choice that is none, or a study that searched something else.
        MissingExtra: Optuna is not installed. FileExistsError: `out` holds something else.
        KeyboardInterrupt: passed on, after what was found so far has been written; the same call goes on.
    """
    given = dict(options) | ({"data": data} if isinstance(data, str) else {})
    plan = make(given | {"vary": vary}, None if isinstance(data, str) else data)
    return run(plan, shown=verbose, tell=write if verbose else lambda text: None)


def run(plan: Plan, *, shown: bool, tell: Callable[[str], None]) -> Result:
    """Carry a plan out; `tell` gets a line for each trial that ends. Raises as `search`."""
    with quietly():
        dataset = worker.load(plan)
        _check_out(plan)
        rehearse = cache(lambda: worker.rehearse(plan, dataset))
        if plan.storage_file is not None and not plan.storage_file.exists():
            rehearse()  # before the file is made
        with unless_it_fails(make_folder(plan.out)):
            shared = Shared(plan, rehearse)
            _claim_out(plan)
        try:
            with Watch(shared, shown=shown, tell=tell) as watch:
                try:
                    if plan.jobs == 1:
                        worker.work(shared, dataset, watch.look)
                    else:
                        jobs.run(plan, watch.look)
                finally:
                    watch.last_look()
            shared.bury_dead()
            result = _write(shared, plan)
            if result.best is not None and not _has_run(result.best):  # another machine has it
                retrained = worker.make(result.best.values, plan.out / "again", plan, dataset)
                retrained.train()
                _put_best(plan, plan.out / "again")
                shutil.rmtree(plan.out / "again")
            return result
        except KeyboardInterrupt:
            with Deferred():
                result = _write(shared, plan)
                done = sum(r.is_over for r in result.trials)
            raise KeyboardInterrupt(
                f"after {done} of {counted(plan.trials, 'trial')}; the same command goes on from there; so far: "
                f"{plan.out / TRIALS}"
            ) from None


def _check_out(plan: Plan) -> None:
    """Check that the folder is free, or this study's, and the one for the storage exists.

    Raises:
        FileExistsError, NotADirectoryError, FileNotFoundError: as the message says.
    """
    if plan.out.exists() and not plan.out.is_dir():
        raise NotADirectoryError(f"out: expected a folder for the search, got the file {plan.out}; name another")
    if plan.storage_file is not None and plan.storage_file.parent != plan.out.resolve():
        check_parent(plan.storage_file)
    config = plan.out / CONFIG
    if config.exists():
        with contextlib.suppress(tomllib.TOMLDecodeError, UnicodeDecodeError):
            before, now = tomllib.loads(config.read_text("utf-8")), saved(plan)
            if all(before.get(key) == now.get(key) for key in ("study", "storage")):
                return
        raise FileExistsError(f"out: {plan.out} holds another study; choose another folder with --out")
    mine = None if plan.storage_file is None else plan.storage_file.name
    if plan.out.is_dir() and any(path.name.removesuffix("-journal") != mine for path in plan.out.iterdir()):
        raise FileExistsError(f"out: {plan.out} is not empty; choose another folder with --out")


def _claim_out(plan: Plan) -> None:
    write_atomically(plan.out / CONFIG, to_toml(saved(plan)))


def _has_run(best: Row) -> bool:
    """Return whether the run of this trial is here."""
    return best.run is not None and (Path(best.run) / FILE_NAME).is_file()


def _put_best(plan: Plan, run: Path) -> None:
    """Copy a run to OUT/best, whole, in place of what is there."""
    best = plan.out / BEST
    staged, old = (best.with_name(f".{BEST}.{os.getpid()}.{what}") for what in ("new", "old"))
    try:
        shutil.rmtree(staged, ignore_errors=True)
        shutil.copytree(run, staged)
        with Deferred():
            for _ in range(5):  # another process may be doing the same
                with contextlib.suppress(FileNotFoundError):
                    os.rename(best, old)
                with contextlib.suppress(OSError):
                    os.rename(staged, best)
                    return
                shutil.rmtree(old, ignore_errors=True)
    finally:
        for folder in (staged, old):
            shutil.rmtree(folder, ignore_errors=True)


def _write(shared: Any, plan: Plan) -> Result:
    """Return the table, the picture and the best run, from what is there."""
    rows = shared.rows()
    write_atomically(plan.out / TRIALS, csv_text(rows))
    no_picture = None
    try:
        title = f"{plan.study}: {counted(sum(r.is_over for r in rows), 'trial')}"
        write_atomically(plan.out / PICTURE, parameters_png(rows, plan.space, shared.maximize, shared.metric, title))
    except ImportError:
        no_picture = errors.no_picture()
    result = Result(rows, shared.metric, shared.maximize, plan.out, no_picture)
    if result.best is not None and result.best.run is not None and _has_run(result.best):
        _put_best(plan, Path(result.best.run))
    return result
