"""The study that several processes share: a queue of trials in Optuna's storage.

A study of n trials has n slots. Each slot is a waiting trial in the storage, which one process takes. What a slot
draws depends on the seed and the slot alone for random and grid, so who takes it does not matter. A slot whose trial
was interrupted, or whose process died, is queued again under a new number.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from fcnet.functional.metric import Metric
from fcnet.runs.options import flag
from fcnet.tools.search.optuna_quietly import need_optuna
from fcnet.tools.search.plan import Plan, is_local
from fcnet.tools.search.ranges import Choices, Range
from fcnet.tools.search.rows import Row, ranked, row
from fcnet.training.metrics import Figure

SILENT = 900.0  # seconds without an epoch after which another machine's trial counts as dead
_ATTEMPTS = 20  # to open a storage that another process is just making
#: What brings a database's driver, where it is not called as the module is.
_PACKAGES = {"psycopg": "'psycopg[binary]'", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}
_VOID = ("interrupted", "killed", "surplus")  # outcomes of trials that do not count


class Shared:
    """Share one study in its storage."""

    def __init__(self, plan: Plan, find_metric: Callable[[], Metric | Figure]) -> None:
        """Open the study, or make it: only then the metric is asked for.

        Raises:
            ValueError: a study of this name is there, and searches something else. OSError: no storage.
        """
        optuna = need_optuna()
        self.plan = plan
        storage = _storage(plan.storage)
        description = plan.describe()
        known = plan.study in optuna.get_all_study_names(storage)
        if known:
            self.study = optuna.load_study(study_name=plan.study, storage=storage)
            self._wait_until_described()
        if not known or ("fcnet" not in self.study.user_attrs and not self._all()):
            metric = find_metric()
            self.study = optuna.create_study(
                study_name=plan.study,
                storage=storage,
                direction="minimize" if metric.smaller_is_better else "maximize",
                load_if_exists=True,
            )
            self.study.set_user_attr("metric", metric.title)
            if "fcnet" not in self.study.user_attrs:
                self.study.set_user_attr("fcnet", description)
        before = self.study.user_attrs.get("fcnet")
        if before is None:
            raise ValueError(f"study: {plan.study!r} in this storage is not one of fcnet search; choose another name")
        if before != description:
            odd = [key for key in {**before, **description} if before.get(key) != description.get(key)]
            given = ", ".join(str(description.get(key, "-")) for key in odd)
            differ = ", ".join(f"{key} {before.get(key, '(not given)')}" for key in odd)
            raise ValueError(
                f"study: {plan.study!r} was begun with {differ}; got {given}; "
                "give the same, or begin another with --study NAME"
            )
        self.study.pruner = (
            optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2)
            if plan.prune
            else optuna.pruners.NopPruner()
        )
        self.metric: str = self.study.user_attrs["metric"]
        self.maximize = self.study.direction == optuna.study.StudyDirection.MAXIMIZE

    def _wait_until_described(self) -> None:
        """Wait if another process is just making the study; if it was killed at that, describe it here."""
        for _ in range(_ATTEMPTS):
            if "fcnet" in self.study.user_attrs or self._all():
                return
            time.sleep(0.1)

    # The queue

    def claim(self) -> Any:
        """Take the next trial (an Optuna `Trial`), or None if all slots are taken."""
        optuna = need_optuna()
        while True:
            self.bury_dead()
            self._queue_free_slots()
            if not any(t.state == optuna.trial.TrialState.WAITING for t in self._counted()):
                return None
            trial = self.study.ask()
            slot = trial.user_attrs.get("slot")
            earlier = {t.user_attrs["slot"] for t in self._counted() if t.number < trial.number}
            if slot is None or slot >= self.plan.trials or slot in earlier:  # others were quicker
                self.void(trial, "surplus")
                continue
            trial.set_user_attr("owner", [platform.node(), os.getpid()])
            trial.set_user_attr("alive", time.time())
            self.study.sampler = self._sampler(slot)
            return trial

    def _all(self) -> list[Any]:
        return self.study.get_trials(deepcopy=False)

    def _counted(self) -> list[Any]:
        """Return all trials but those that came to nothing."""
        return [
            t
            for t in self._all()
            if "slot" in t.user_attrs
            and t.user_attrs.get("outcome") not in _VOID
            and t.user_attrs["slot"] < self.plan.trials
        ]

    def _queue_free_slots(self) -> None:
        taken = {t.user_attrs["slot"] for t in self._counted()}
        for slot in range(self.plan.trials):
            if slot not in taken:
                attributes = {"slot": slot, "stage": self.plan.stage(slot)}
                self.study.enqueue_trial(self._grid_point(slot), user_attrs=attributes)

    def _grid_point(self, slot: int) -> dict[str, Any]:
        """Return what the trial in this slot tries, as Optuna holds it; nothing if that is left to a sampler."""
        if self.plan.sampler != "grid":
            return {}
        grid = self.plan.grid()
        # In an order of its own, so that a part of the grid is a sample of it and no corner.
        number = int(np.random.default_rng(self.plan.seed).permutation(self.plan.grid_size())[slot])
        picked = np.unravel_index(number, [len(points) for points in grid.values()])
        return {flag(name): points[i] for (name, points), i in zip(grid.items(), picked, strict=True)}

    def bury_dead(self) -> None:
        """Fail the trials whose process has ended without a report."""
        optuna = need_optuna()
        for t in self._all():
            if t.state == optuna.trial.TrialState.RUNNING and _is_dead(t):
                try:
                    self.void(optuna.Trial(self.study, t._trial_id), "killed")
                except optuna.exceptions.UpdateFinishedTrialError:  # it lives, and has just ended
                    continue
                shutil.rmtree(self.plan.trial_folder(t.number), ignore_errors=True)

    def void(self, trial: Any, outcome: str) -> None:
        """Void a trial that came to nothing and free its slot."""
        trial.set_user_attr("outcome", outcome)
        self.study.tell(trial, state=need_optuna().trial.TrialState.FAIL)

    # What a trial tries

    def suggested(self, trial: Any) -> dict[str, Any]:
        """Return the values of a trial, by option."""
        space = self.space_of(trial.user_attrs["stage"])
        values: dict[str, Any] = {}
        for name, what in sorted(space.items()):
            called = flag(name)
            if isinstance(what, Choices):
                values[name] = what.values[what.texts.index(trial.suggest_categorical(called, list(what.texts)))]
            elif what.integer:
                values[name] = trial.suggest_int(called, int(what.low), int(what.high), log=what.log)
            else:
                values[name] = trial.suggest_float(called, what.low, what.high, log=what.log)
        trial.set_user_attr("values", values)
        return values

    def space_of(self, stage: int) -> dict[str, Range | Choices]:
        """Return what a stage searches: the first all, each further one half of the one before, around the best so far.

        The best are the best quarter of the finished trials, three at least. What a stage searches is settled, in
        the storage, when its first trial begins.
        """
        if stage == 0:
            return dict(self.plan.space)
        key = f"ranges of stage {stage}"
        if key not in self.study.user_attrs:
            good = ranked([r for r in self.rows() if r.stage < stage], self.maximize)
            best = [r.values for r in good[: max(3, math.ceil(len(good) / 4))]]
            before = self.space_of(stage - 1)
            narrow = {
                name: what.narrowed([values[name] for values in best])
                for name, what in before.items()
                if isinstance(what, Range) and best
            }
            self.study.set_user_attr(key, {name: [what.low, what.high] for name, what in narrow.items()})
        space = dict(self.plan.space)
        for name, (low, high) in self.study.user_attrs[key].items():
            what = space[name]
            assert isinstance(what, Range)  # only ranges are narrowed
            space[name] = Range(low, high, what.log, what.points, what.integer)
        return space

    def _sampler(self, slot: int) -> Any:
        optuna = need_optuna()
        seed = int(np.random.SeedSequence([self.plan.seed, slot]).generate_state(1)[0])
        if self.plan.sampler == "tpe":
            return optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        return optuna.samplers.RandomSampler(seed=seed)

    # What came of it

    def rows(self) -> list[Row]:
        """Return the trials that are done or running, by number."""
        return [row(t, self.plan.space, self.maximize) for t in self._counted() if "values" in t.user_attrs]


def _is_dead(trial: Any) -> bool:
    """Return whether nobody works at it any more: its process is gone, is this one, or has been silent for long."""
    host, pid = trial.user_attrs.get("owner", [None, None])
    if host == platform.node() and os.name == "posix":
        if pid == os.getpid():  # a process makes one trial at a time, and this one asks for the next
            return True
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # another user's
            return False
        return False
    heard = trial.user_attrs.get("alive")
    if heard is None:  # taken a moment ago, or by a process that died in that moment
        heard = trial.datetime_start.timestamp() if trial.datetime_start else time.time()
    return time.time() - heard > SILENT


def _storage(where: str) -> Any:
    """Return Optuna's storage at a URL or in a journal. Raises OSError or ValueError."""
    optuna = need_optuna()
    if "://" not in where:
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

        # A lock file in place of the default, a link: some network folders know no links.
        backend = JournalFileBackend(where, lock_obj=JournalFileOpenLock(where))
        try:
            return optuna.storages.JournalStorage(backend)
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"storage: expected a journal of Optuna, got {where} ({error}); name another") from None
    from sqlalchemy import event
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

    options: dict[str, Any] = {}
    sqlite = where.startswith("sqlite")
    if sqlite:
        # Seconds to wait while another process writes; and transactions begin where the listener below says.
        options = {"connect_args": {"timeout": 100, "isolation_level": None}}
    for attempt in range(_ATTEMPTS):
        try:
            storage = optuna.storages.RDBStorage(where, engine_kwargs=options)
            if sqlite:  # it knows no SELECT FOR UPDATE, by which Optuna lets only one process take a trial
                event.listen(storage.engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
            return storage
        except (ArgumentError, NoSuchModuleError) as error:
            raise ValueError(f"storage: expected a file or an SQLAlchemy URL, got {_shown(where)} ({error})") from None
        except ImportError as error:
            raise ValueError(f"storage: {_lacking(where, error)}") from None
        except ValueError as error:  # what Optuna makes of the two
            raise ValueError(f"storage: expected a file or an SQLAlchemy URL, got {_shown(where)} ({error})") from None
        except (SQLAlchemyError, RuntimeError, optuna.exceptions.StorageInternalError) as error:
            why = str(getattr(error, "orig", None) or error)
            if attempt == _ATTEMPTS - 1 or "not a database" in why or "unable to open" in why:
                remedy = "free some space, or name another" if "full" in why else "name another"
                raise OSError(f"storage: cannot use {_shown(where)}: {why}; {remedy}") from None
            time.sleep(0.1 + 0.01 * (os.getpid() % 10))  # two processes that make the same tables
    raise OSError(f"storage: cannot use {_shown(where)}")


def _lacking(where: str, error: ImportError) -> str:
    """Return what to install for a database whose driver cannot be imported; Optuna wraps the error that names it."""
    cause = error.__cause__ or error.__context__ or error
    module = getattr(cause, "name", None)
    expected = f"expected a database whose driver is installed, got {_shown(where)}"
    if not module:
        return f"{expected} ({cause}); install the driver, or name a file"
    return f"{expected}, which needs {module}: pip install {_PACKAGES.get(module, module)}, or name a file"


def _shown(where: str) -> str:
    return where if is_local(where) else where.partition("://")[0] + "://..."
