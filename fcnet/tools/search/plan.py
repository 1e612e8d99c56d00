"""What a search is to do, checked before anything is written."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from fcnet.data import Dataset
from fcnet.errors import counted, unknown
from fcnet.runs.options import ARGUMENTS, COMMON, CommaList, TrainOptions, flag, merged, option, to_save, typed
from fcnet.tools.search.ranges import Range, Space, space

SAMPLERS = ("random", "grid", "tpe")
TRIALS = 20  # of a search that does not say

STUDY = "study.db"  # of --out, where the study is kept by default


@dataclass
class SearchOptions(TrainOptions):
    """Hold the options of `fcnet search`: those of every trial, and how to search."""

    see: ClassVar[str] = "fcnet search --help"

    vary: list[str] = option(COMMON, (), tuple, "what to search, see below", metavar="NAME=RANGE")
    trials: int | None = option(
        COMMON,
        None,
        int,
        f"trials of the study in all, by all processes (default: {TRIALS}; the whole grid for --sampler grid)",
    )
    sampler: str = option(
        COMMON,
        "random",
        str,
        "random, grid or tpe (Optuna's own: it goes where earlier trials were good)",
        names=SAMPLERS,
    )
    refine: int = option(
        COMMON, 0, int, "further stages, coarse to fine: each halves every range around the best trials of those before"
    )
    prune: bool = option(COMMON, True, bool, "stop trials that are below the median of the others at the same epoch")
    study: str = option(COMMON, "search", str, "name of the study; the same name and storage go on with it")
    storage: str | None = option(
        COMMON,
        None,
        str,
        "where the study is kept: an SQLite file, FILE.journal (for network folders), or a database URL such as "
        "sqlite:///study.db (default: study.db in --out)",
        metavar="FILE|URL",
    )
    jobs: int = option(COMMON, 1, int, "processes on this machine")
    out: str | None = option(COMMON, None, str, "its folder (default: runs/STUDY)", metavar="FOLDER")


@dataclass
class Plan:
    """Describe a search. `fixed` and the names of `space` are those of `TrainOptions`."""

    fixed: dict[str, Any]
    space: Space
    sampler: str
    refine: int
    prune: bool
    study: str
    storage: str
    out: Path
    jobs: int
    trials: int
    dataset: Dataset | None  # None: the one that `fixed` names

    @property
    def seed(self) -> int:
        """Return the seed of the samplers; the trainings have it too."""
        return merged(self.fixed).seed

    @property
    def storage_file(self) -> Path | None:
        """Return where the study is, if it is a file."""
        return Path(self.storage.removeprefix("sqlite:///")) if is_local(self.storage) else None

    def trial_folder(self, number: int) -> Path:
        """Return where the run of a trial goes; numbers are unique in a study."""
        return self.out / "trials" / f"{number:04d}"

    def stage(self, slot: int) -> int:
        """Return which of the stages, coarse to fine, the trial in this slot belongs to."""
        return slot * (self.refine + 1) // self.trials

    def grid_size(self) -> int:
        """Return the number of points in the grid. Raises ValueError naming a range that does not say."""
        return math.prod(len(points) for points in self.grid().values())

    def grid(self) -> dict[str, list[Any]]:
        """Return the points of the grid, by option."""
        grid = {}
        for name, what in sorted(self.space.items()):
            points = what.grid()
            if points is None:
                raise ValueError(
                    f"vary {flag(name)}: expected a number of points for a grid, such as {what}:5, got {what}"
                )
            grid[name] = points
        return grid

    def describe(self) -> dict[str, Any]:
        """Return what makes two studies the same one: all but how many trials, by how many processes, kept where."""
        defaults = to_save(TrainOptions())
        given = {name: value for name, value in to_save(merged(self.fixed)).items() if defaults.get(name) != value}
        given["data"] = merged(self.fixed).data if self.dataset is None else self.dataset.summary()
        for path in ("data-dir", "device"):  # each machine its own
            given.pop(path, None)
        vary = {f"vary {flag(name)}": str(what) for name, what in self.space.items()}
        return given | vary | {"sampler": self.sampler, "refine": self.refine, "prune": self.prune}


def make(given: Mapping[str, Any], dataset: Dataset | None = None) -> Plan:
    """Return a plan from the values of `SearchOptions` that were given.

    Raises:
        ValueError, TypeError: a name, range or number that is none, or two that contradict each other.
    """
    kinds = {field.name: field.metadata["kind"] for field in dataclasses.fields(SearchOptions)}
    for name in given:
        if name not in kinds:
            raise unknown("search", name, kinds, see=SearchOptions.see, meant=ARGUMENTS.get(name))
    given = {
        name: typed(name, value, CommaList) if kinds[name] is CommaList and value is not None else value
        for name, value in given.items()
    }
    train = {field.name for field in dataclasses.fields(TrainOptions)}
    options = SearchOptions(**given)
    vary = space(options.vary)
    for name in vary:
        if name in given:
            raise ValueError(f"{flag(name)}: expected a value or a range, got both; leave out one")
    if options.sampler not in SAMPLERS:
        raise unknown("sampler", options.sampler, SAMPLERS)
    for name, least in (("trials", 1), ("refine", 0), ("jobs", 1)):
        value = getattr(options, name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise ValueError(f"{name}: expected an integer of {least} or more, got {value!r}")
    for name in ("study", "out", "storage"):
        if getattr(options, name) is not None and not str(getattr(options, name)).strip():
            raise ValueError(f"{name}: expected a name, got ''; leave it out for the default")
    if options.out is None and (not options.study.isprintable() or {"/", "\\"} & set(options.study)):
        raise ValueError(f"study: expected a name that a folder can have, got {options.study!r}; or name --out")
    out = Path("runs") / options.study if options.out is None else Path(options.out).expanduser()
    fixed = {name: value for name, value in given.items() if name in train and name not in ("out", "force")}
    plan = Plan(
        fixed=fixed, space=vary, sampler=options.sampler, refine=options.refine, prune=options.prune,
        study=options.study, storage=_storage(options.storage, out), out=out, jobs=options.jobs,
        trials=options.trials or TRIALS, dataset=dataset,
    )  # fmt: skip
    if plan.sampler == "grid":
        if plan.refine:
            raise ValueError(
                "refine and sampler: expected no stages with a grid, got both; search finer in a second study, "
                "or take the sampler random"
            )
        plan.trials = min(options.trials or plan.grid_size(), plan.grid_size())
    if plan.refine and not any(isinstance(what, Range) for what in vary.values()):
        raise ValueError("refine: expected a range that can be narrowed, got choices only; leave it out")
    if plan.trials <= plan.refine:
        raise ValueError(
            f"refine: expected fewer stages than trials, got {plan.refine} of {counted(plan.trials, 'trial')}"
        )
    return plan


def saved(plan: Plan) -> dict[str, Any]:
    """Return OUT/search.toml's text: `fcnet search --config` with it continues the search."""
    fixed = {flag(name): value for name, value in plan.fixed.items() if value is not None}
    how: dict[str, Any] = {
        "vary": [f"{flag(name)}={what}" for name, what in plan.space.items()],
        "trials": plan.trials,
        "sampler": plan.sampler,
        "refine": plan.refine,
        "prune": plan.prune,
        "study": plan.study,
        "out": str(plan.out.resolve()),
        "jobs": plan.jobs,
    }
    if is_local(plan.storage):  # another's address may hold a password
        how["storage"] = plan.storage
    return fixed | how


def is_local(storage: str) -> bool:
    """Return whether a storage is a file."""
    return "://" not in storage or storage.startswith("sqlite://")


def _storage(given: str | None, out: Path) -> str:
    """Return a database URL or the absolute path of a journal."""
    if given is not None and "://" in given:
        path = given.removeprefix("sqlite:///")
        return given if path == given or not path else f"sqlite:///{Path(path).expanduser().resolve()}"
    path = str((out / STUDY if given is None else Path(given).expanduser()).resolve())
    return path if path.endswith(".journal") else f"sqlite:///{path}"
