"""A run directory: everything about one training, under one name.

model.safetensors   the best parameters, preprocessing, classes; put there last: its presence means "finished"
config.toml         what `fcnet train --config` needs to do the same again; locked while the training runs
history.csv         a row per epoch
curves.png          loss and accuracies, if matplotlib is there
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fcnet.backends.signals import Deferred
from fcnet.errors import no_picture
from fcnet.files import first_free, lock, make_folder, make_numbered_folder, naming, remove_folders, stage
from fcnet.runs.checkpoint import FILE_NAME
from fcnet.runs.options import flag, read_toml
from fcnet.runs.record import Record, curves_png, history_csv

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
        self.config: Mapping[str, Any] | None = None  # the command line's options; None: made in Python
        self.no_picture: str | None = None  # why `write` made none
        self.begun = self._written = False
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
            f"out: {self.path} {why}; choose another folder, or replace the run in it with force=True"
        )

    # Before training

    def begin(self, options: Mapping[str, Any]) -> None:
        """Claim a free folder by writing the configuration; a run to be replaced stays until `write`.

        Args:
            options: of the training, in the spelling of TOML.

        Raises:
            FileExistsError: the folder has become another's meanwhile. OSError: it cannot be written to.
        """
        if self.begun:  # `train` again: it goes on in the same folder
            return
        try:
            self._make_folder()
            if self._is_free():
                self._claim(UNFINISHED + to_toml(options))
            elif self.force:
                stage(self.path / CONFIG, to_toml(options)).unlink()  # better to fail now than after training
            else:
                raise self._occupied()
        except BaseException:
            self._release()
            remove_folders(self._made)
            raise
        self.begun = True

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
            self.begun = False
        self._release()

    def write(self, record: Record) -> None:
        """Write all files of a finished training: first each whole under a temporary name, then all in their places.

        A failure leaves an earlier run as it was; without one, the model stays if it could be written.

        Raises:
            OSError: the disk is full, or the folder cannot be written to any more.
        """
        staged: dict[str, Path] = {}
        with Deferred():
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                self._stage(record, staged)
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
            self.begun = self._written = True

    def _stage(self, record: Record, staged: dict[str, Path]) -> None:
        """The files under temporary names: the model first, for it is what matters, the picture last."""
        model = self.path / f".{FILE_NAME}.{os.getpid()}.tmp"
        with naming(self.path / FILE_NAME):
            record.save(model)
        staged[FILE_NAME] = model
        staged[CONFIG] = stage(self.path / CONFIG, _config(record))
        staged[HISTORY] = stage(self.path / HISTORY, history_csv(record))
        self.no_picture = None
        try:
            staged[CURVES] = stage(self.path / CURVES, curves_png(record))
        except ImportError:
            self.no_picture = no_picture()
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


def _config(record: Record) -> str:
    """The configuration, under a comment if the training was cut short or its method said how it ended."""
    told = [text for text in (record.interrupted, record.message) if text]
    return "".join(f"# {' '.join(text.split())}\n" for text in told) + to_toml(record.options)


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


def trained_on(run: str | Path) -> dict[str, Any]:
    """Return the options of the training that made a run directory, by flag; empty for a mere model file."""
    path = Path(run)
    config = (path if path.is_dir() else path.parent) / CONFIG
    if not config.is_file():
        return {}
    return {flag(name): value for name, value in read_toml(config).items()}


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
