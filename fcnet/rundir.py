"""A run directory: everything about one training, under one name.

model.safetensors   the best parameters, preprocessing, classes; put there last: its presence means "finished"
config.toml         what `fcnet train --config` needs to do the same again; locked while the training runs
history.csv         a row per epoch
curves.png          loss and accuracies, if matplotlib is there
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcnet.checkpoint import FILE_NAME, save_model
from fcnet.files import lock, naming, stage, uninterrupted
from fcnet.folders import first_free, make_folder, make_numbered_folder, remove_folders
from fcnet.options import IN_PYTHON, from_solver, python_only

if TYPE_CHECKING:
    from fcnet.solver import Solver

CONFIG, HISTORY, CURVES = "config.toml", "history.csv", "curves.png"
UNFINISHED = "# unfinished: the training is running, or was killed\n"
_TEMPORARY = re.compile(rf"\.+({'|'.join(map(re.escape, (FILE_NAME, CONFIG, HISTORY, CURVES)))})\..*\.tmp")


class RunDirectory:
    """The folder of one run, free or to be replaced."""

    def __init__(self, path: str | Path, *, force: bool = False) -> None:
        """Choose `path`, which need not exist; nothing is written yet.

        Raises:
            FileExistsError: a run is there and force is False. NotADirectoryError: a file is there.
            ValueError: an empty name.
        """
        if str(path) == "":
            raise ValueError("out: expected the name of a folder, got ''; name one, or leave it out")
        self.path = Path(path)
        self.force = force
        self.config: dict[str, Any] | None = None  # the command line's options; None: told from the solver
        self.no_picture: str | None = None  # why `write` made none
        self._begun = self._written = False
        self._python_only: list[str] = []  # what the options told from the solver do not say
        self._made: list[Path] = []  # folders made by `begin`, the innermost first
        self._lock: int | None = None  # the configuration's descriptor while the training runs
        self._numbered: tuple[str, str | Path] | None = None
        if self.path.exists() and not self.path.is_dir():
            raise NotADirectoryError(f"out: expected a folder for the run, got the file {self.path}; name another")
        if not force and not self._is_free():
            raise self._occupied()

    @classmethod
    def numbered(cls, name: str, root: str | Path = "runs") -> RunDirectory:
        """The first free of runs/NAME-0001, runs/NAME-0002, ...; which one is settled when it is claimed."""
        directory = cls(first_free(name, root))
        directory._numbered = name, root
        return directory

    def _is_free(self) -> bool:
        """Nothing there, or no more than a training that was killed leaves."""
        if not self.path.is_dir():
            return True
        return all(
            _TEMPORARY.fullmatch(path.name) or (path.name == CONFIG and _is_unfinished(path))
            for path in self.path.iterdir()
        )

    def _in_use(self) -> FileExistsError:
        return FileExistsError(f"out: {self.path} is in use by another training; choose another folder, or wait for it")

    def _occupied(self, why: str = "is not empty") -> FileExistsError:
        return FileExistsError(
            f"out: {self.path} {why}; choose another folder, or replace the run in it with --force (force=True)"
        )

    # Before training

    def begin(self, solver: Solver) -> None:
        """Claim a free folder by writing the configuration; a run to be replaced stays until `write`.

        Raises:
            FileExistsError: the folder has become another's meanwhile. OSError: it cannot be written to.
        """
        if self._begun:  # `train` again: it goes on in the same folder
            return
        self._python_only = [] if self.config is not None else python_only(solver)
        try:
            self._make_folder()
            if self._is_free():
                self._claim(UNFINISHED + self._text(solver))
            elif self.force:
                stage(self.path / CONFIG, self._text(solver)).unlink()  # better to fail now than after training
            else:
                raise self._occupied()
        except BaseException:
            self._release()
            remove_folders(self._made)
            raise
        self._begun = True

    def _make_folder(self) -> None:
        self._made = []
        if self._numbered is None:
            self._made = make_folder(self.path)
        else:
            self._made = make_numbered_folder(*self._numbered)
            self.path = self._made[0]

    def _claim(self, text: str) -> None:
        """Make and lock the configuration, or take over one that a killed training left."""
        path = self.path / CONFIG
        with naming(path):
            try:
                self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
                new = True
            except FileExistsError:
                self._lock = os.open(path, os.O_RDWR)
                new = False
        locked = lock(self._lock)
        if locked is False or not _same_file(self._lock, path) or not self._is_free():
            raise self._in_use()
        if locked is None and not new and not self.force:
            raise self._occupied("holds an unfinished run")
        try:
            with naming(path):
                os.ftruncate(self._lock, 0)
                with os.fdopen(os.dup(self._lock), "wb") as file:
                    file.write(text.encode())
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        self._remove_temporaries()

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _remove_temporaries(self) -> None:
        for path in list(self.path.iterdir()):
            if _TEMPORARY.fullmatch(path.name):
                path.unlink(missing_ok=True)

    # After it

    def abandon(self) -> None:
        """Nothing came of it: take back what `begin` wrote."""
        if self._lock is not None and not self._written:
            with contextlib.suppress(OSError):
                (self.path / CONFIG).unlink(missing_ok=True)
                self._remove_temporaries()
            remove_folders(self._made[:1])
            self._begun = False
        self._release()

    def write(self, solver: Solver) -> None:
        """Write all files of a finished training: first each whole under a temporary name, then all in their places.

        A failure leaves an earlier run as it was; without one, the model stays if it could be written.

        Raises:
            OSError: the disk is full, or the folder cannot be written to any more.
        """
        staged: dict[str, Path] = {}
        with uninterrupted():
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                self._stage(solver, staged)
                if CURVES not in staged:  # that of an earlier run
                    with contextlib.suppress(OSError):
                        (self.path / CURVES).unlink(missing_ok=True)
                # The configuration, which is locked, late: without history.csv the folder would look free.
                for name in (HISTORY, CURVES, CONFIG, FILE_NAME):
                    if name in staged:
                        self._put(name, staged)
            except BaseException as error:
                self._rescue(error, staged)
                raise
            finally:
                for path in staged.values():
                    path.unlink(missing_ok=True)
                self._release()
        self._begun = self._written = True

    def _stage(self, solver: Solver, staged: dict[str, Path]) -> None:
        """The files under temporary names: the model first, for it is what matters, the picture last."""
        model = self.path / f".{FILE_NAME}.{os.getpid()}.tmp"
        with naming(self.path / FILE_NAME):
            save_model(solver.model, model)
        staged[FILE_NAME] = model
        staged[CONFIG] = stage(self.path / CONFIG, self._text(solver))
        staged[HISTORY] = stage(self.path / HISTORY, history_csv(solver))
        self.no_picture = None
        try:
            staged[CURVES] = stage(self.path / CURVES, curves_png(solver))
        except ImportError:
            self.no_picture = "it needs matplotlib, pip install 'fcnet[plot]'"
        except Exception as error:  # whatever it is, a picture is not worth a run
            self.no_picture = f"{type(error).__name__}: {error}"

    def _put(self, name: str, staged: dict[str, Path]) -> None:
        with naming(self.path / name):
            os.replace(staged[name], self.path / name)
        del staged[name]

    def _rescue(self, error: BaseException, staged: dict[str, Path]) -> None:
        """After a failure: keep the trained model if it takes no other's place, and say what is where."""
        if (self.path / FILE_NAME).exists():
            error.add_note(f"the earlier run in {self.path} is kept")
        elif FILE_NAME in staged:
            with contextlib.suppress(OSError):
                self._put(FILE_NAME, staged)
                self._written = True
                error.add_note(f"the trained model is in {self.path / FILE_NAME}")
        else:
            self.abandon()

    def _text(self, solver: Solver) -> str:
        """The configuration, under a comment if the training was cut short."""
        told = interrupted(solver)
        options = self.config
        if options is None:
            options = from_solver(solver) | ({IN_PYTHON: ", ".join(self._python_only)} if self._python_only else {})
        return (f"# {told}\n" if told else "") + to_toml(options)


def interrupted(solver: Solver) -> str | None:
    """ "interrupted after epoch 2 of 9" for a training that neither came to its end nor ran out of patience."""
    if not solver.history or solver.converged:
        return None
    last = int(solver.history[-1]["epoch"])
    patient = solver.patience is None or last - solver.best_epoch < solver.patience
    return f"interrupted after epoch {last} of {solver.num_epochs}" if last < solver.num_epochs and patient else None


def _is_unfinished(config: Path) -> bool:
    """Whether `begin` wrote it, or was killed before it could; a user's own configuration is neither."""
    try:
        return config.read_bytes().startswith(UNFINISHED.encode()) or config.stat().st_size == 0
    except FileNotFoundError:  # gone meanwhile
        return True


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def to_toml(values: Mapping[str, Any]) -> str:
    """Flat TOML of strings, numbers, booleans and lists of them; None is left out.

    JSON's spelling of these is TOML's too, but for DEL, which TOML wants escaped.
    """
    lines = [
        f"{name} = {json.dumps(value, ensure_ascii=False)}".replace("\x7f", "\\u007f")
        for name, value in values.items()
        if value is not None
    ]
    return "\n".join(lines) + "\n"


def history_csv(solver: Solver) -> str:
    """`solver.history` as CSV with a header."""
    text = io.StringIO()
    if solver.history:
        writer = csv.DictWriter(text, list(solver.history[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(solver.history)
    return text.getvalue()


def curves_png(solver: Solver) -> bytes:
    """Loss and metric over the epochs as a PNG. Raises ImportError without matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    losses = solver.loss_history
    per_epoch = max(1, len(losses) / max(1, len(solver.history)))
    left.plot([i / per_epoch for i in range(1, len(losses) + 1)], losses, linewidth=0.5, alpha=0.4, label="step")
    epochs = [row["epoch"] for row in solver.history]
    left.plot(epochs, [row["loss"] for row in solver.history], marker="o", markersize=3, label="epoch mean")
    scale = "log" if max(losses, default=0.0) > 0 else "linear"  # a loss of 0 throughout has no logarithm
    left.set(xlabel="epoch", ylabel="loss", title="Training loss", yscale=scale)
    left.legend()
    right.plot(epochs, solver.train_metric_history, marker="o", markersize=3, label="train")
    right.plot(epochs, solver.val_metric_history, marker="o", markersize=3, label="validation")
    title = solver.metric.title
    if solver.best_val_metric is not None:
        right.axvline(solver.best_epoch, linewidth=0.8, linestyle=":", color="grey", label="best validation")
        best = f"best {solver.best_val_metric:.5g}, epoch {solver.best_epoch}"
        right.set_title(f"{title[:1].upper()}{title[1:]} ({best})")
    right.set(xlabel="epoch", ylabel=title)
    right.legend(loc="best")
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()


def as_run_directory(out: str | Path | RunDirectory, *, force: bool) -> RunDirectory:
    """The run directory of a Solver's `out`.

    Raises:
        TypeError: `out` is something else. FileExistsError, NotADirectoryError, ValueError: see `RunDirectory`.
    """
    if isinstance(out, RunDirectory):
        return out
    if isinstance(out, str | Path):
        return RunDirectory(out, force=force)
    raise TypeError(f"out: expected a path or None, got {out!r}")
