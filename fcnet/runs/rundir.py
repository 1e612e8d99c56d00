"""A run directory: everything about one training, under one name.

config.toml         what `fcnet train --config` needs to repeat the training
checkpoints/        the last states of the training, from which `fcnet resume` continues
model.safetensors   the best parameters, preprocessing, classes
history.csv         a row per epoch
curves.png          loss and accuracies, if matplotlib is there
run.json            written last: it says how the training ended, which is unknown without it

While a training runs, `.lock` exists and is locked. A run that is to replace another is made beside it, in .NAME.new,
and takes its place by one rename.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fcnet.backends.signals import Deferred
from fcnet.errors import no_picture
from fcnet.files import (
    Staged,
    exchange,
    first_free,
    make_folder,
    make_numbered_folder,
    naming,
    remove_folders,
    stage,
    sync_folder,
    temporaries,
    write_atomically,
)
from fcnet.runs import lock
from fcnet.runs.checkpoint import FILE_NAME, read_model
from fcnet.runs.checkpoints import FOLDER, Checkpoints
from fcnet.runs.container import FORMAT
from fcnet.runs.options import flag, read_toml
from fcnet.runs.record import Record, curves_png, history_csv

CONFIG, HISTORY, CURVES, MARKER = "config.toml", "history.csv", "curves.png", "run.json"
REPORT = "report.html"  # of the command line, after the run
FILES = (CONFIG, HISTORY, CURVES, FILE_NAME, MARKER)
REPLACES = ".replaces"  # in a run that is to take another's place
UNFINISHED = "# unfinished: the training is running, or was killed\n"
_TEMPORARY = re.compile(rf"\.+({'|'.join(map(re.escape, FILES))})\..*\.tmp")


class RunDirectory:
    """Own the folder of one run, free, to be replaced, or to be continued.

    Attributes:
        path: what it is called. work: where its files are written: `path`, or beside it until it replaces a run there.
    """

    def __init__(self, path: str | Path, *, force: bool = False) -> None:
        """Choose `path`, which need not exist; nothing is written yet.

        Raises:
            FileExistsError: something is there, and force is False. NotADirectoryError: a file is there.
            ValueError: an empty name.
        """
        if str(path) == "":
            raise ValueError("out: expected the name of a folder, got ''; name one, or leave it out")
        self.path = self.work = Path(path)
        self.force = force
        self.config: Mapping[str, Any] | None = None  # the command line's options; None: made in Python
        self.no_picture: str | None = None  # why `write` made none
        self.begun = self._written = False
        self._made: list[Path] = []  # folders made by `begin`, the innermost first
        self._locks: list[lock.Lock] = []
        self._numbered: tuple[str, str | Path] | None = None
        if self.path.exists() and not self.path.is_dir():
            raise NotADirectoryError(f"out: expected a folder for the run, got the file {self.path}; name another")
        if not force and not self._is_free():
            raise self._occupied()

    @classmethod
    def numbered(cls, name: str, root: str | Path = "runs") -> RunDirectory:
        """Return the first free of runs/NAME-0001, runs/NAME-0002, ...; which one is settled when it is claimed."""
        directory = cls(first_free(name, root))
        directory._numbered = name, root
        return directory

    @classmethod
    def to_go_on(cls, path: str | Path) -> RunDirectory:
        """Lock a run that is there, to go on in it; what a killed process left is put in order.

        Raises:
            FileNotFoundError: no run there. FileExistsError: another process is at work in it.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise FileNotFoundError(f"{path}: expected a run directory, found none; check the name")
        directory = cls(folder, force=True)
        directory._lock()
        try:
            if (directory._beside / REPLACES).exists():  # it was killed before it could take the place
                directory.work = directory._beside
                directory._locks.append(lock.Lock(directory.work))
            elif not (folder / CONFIG).is_file():
                raise FileNotFoundError(f"{path}: expected a run directory with {CONFIG}, found none in it")
            directory._adopt()
        except BaseException:
            directory.release()
            raise
        directory.begun = True
        return directory

    @property
    def checkpoints(self) -> Checkpoints:
        """Return its checkpoints."""
        return Checkpoints(self.work / FOLDER)

    @property
    def _beside(self) -> Path:
        """Return where a run that replaces this one is made."""
        real = self.path.resolve()
        return real.with_name(f".{real.name}.new")

    def _is_free(self) -> bool:
        """Return whether nothing is there, or only what a training killed before its first checkpoint leaves."""
        if not self.path.is_dir():
            return True
        return not self._holds_model() and all(
            _TEMPORARY.fullmatch(path.name)
            or path.name == lock.NAME
            or (path.name == FOLDER and not Checkpoints(path).steps())
            or (path.name == CONFIG and _is_unfinished(path))
            for path in self.path.iterdir()
        )

    def _holds_model(self) -> bool:
        """Return whether a process that was killed left a complete model that has not got its name."""
        return any(_is_whole(path) for path in temporaries(self.path / FILE_NAME))

    def _holds_run(self) -> bool:
        """Return whether fcnet made what is there: a training that ended, was interrupted or is running."""
        return (
            any((self.path / name).exists() for name in (MARKER, FILE_NAME, REPLACES))
            or ((self.path / CONFIG).exists() and _is_unfinished(self.path / CONFIG))
            or bool(Checkpoints(self.path / FOLDER).steps())
            or self._holds_model()
        )

    def _check_replaceable(self) -> None:
        """Check that what `force` is to replace is a run, and not where the process stands: it becomes another folder.

        Raises:
            FileExistsError: it is neither.
        """
        if not self._holds_run():
            raise self._occupied()
        real = self.path.resolve()
        with contextlib.suppress(FileNotFoundError):  # of a process whose folder is gone
            here = Path.cwd()
            if here == real or real in here.parents:
                raise FileExistsError(
                    f"out: {self.path} is the current folder, which cannot be replaced from within; leave it "
                    f"(cd {shlex.quote(str(real.parent))}), or choose another folder"
                )

    def _in_use(self, owner: object) -> FileExistsError:
        return FileExistsError(f"out: {self.path} is in use by {owner}; choose another folder, or wait for it")

    def _occupied(self) -> FileExistsError:
        if not self._holds_run():
            return FileExistsError(f"out: {self.path} is not empty, and holds no run; choose another folder")
        why, what = "is not empty", "the run in it"
        if not (self.path / MARKER).exists() and Checkpoints(self.path / FOLDER).steps():
            why, what = f"holds a training that was cut short: fcnet resume {self.path} goes on with it", "it"
        return FileExistsError(f"out: {self.path} {why}; choose another folder, or replace {what} with force=True")

    # Before training

    def begin(self, options: Mapping[str, Any]) -> None:
        """Claim the folder by writing the configuration; a run to be replaced stays until `write`.

        Args:
            options: of the training, in the spelling of TOML.

        Raises:
            FileExistsError: the folder has become another's meanwhile. OSError: it cannot be written to.
        """
        if self.begun:  # `train` again, or a training that goes on: in the same folder
            self._lock()
            return
        try:
            self._make_folder()
            self._lock()
            if not self._is_free():
                if not self.force:
                    raise self._occupied()
                self._check_replaceable()
                self._begin_beside()
            self._tidy(self.work)
            write_atomically(self.work / CONFIG, UNFINISHED + to_toml(options))
        except BaseException:
            self.abandon()
            remove_folders(self._made)
            raise
        self.begun = True

    def _make_folder(self) -> None:
        self._made = []
        if self._numbered is None:
            self._made = make_folder(self.path)
        else:
            self._made = make_numbered_folder(*self._numbered)
            self.path = self.work = self._made[0]

    def _lock(self) -> None:
        """Lock the folder, and end what a process that was killed had begun there."""
        if self._locks:
            return
        try:
            self._locks.append(lock.Lock(self.path))
        except BlockingIOError as owner:
            raise self._in_use(owner) from None
        if (self.path / REPLACES).exists():
            self._end_replacing()
        elif (self._beside / REPLACES).exists() and (self._beside / MARKER).exists():  # all but its place
            self.work = self._beside
            self._locks.append(lock.Lock(self.work))
            self._replace()

    def _begin_beside(self) -> None:
        """Make the folder that is to take this one's place; what is there was left by a process that was killed."""
        beside = self._beside
        with naming(beside):
            if beside.exists():
                shutil.rmtree(beside)
            beside.mkdir()
            shutil.copymode(self.path, beside)
        self.work = beside
        self._locks.append(lock.Lock(beside))
        write_atomically(beside / REPLACES, "")

    def release(self) -> None:
        """Unlock the folder."""
        while self._locks:
            self._locks.pop().release()

    def _tidy(self, folder: Path) -> None:
        """Remove temporary files of processes that were killed; no other process is at work here."""
        for path in list(folder.iterdir()):
            if _TEMPORARY.fullmatch(path.name):
                path.unlink(missing_ok=True)
        Checkpoints(folder / FOLDER).tidy()

    def _adopt(self) -> None:
        """Rename a complete model that a killed process left under a temporary name; remove incomplete ones."""
        path = self.work / FILE_NAME
        if not path.exists():
            for left in temporaries(path):
                if _is_whole(left):
                    os.replace(left, path)
                    sync_folder(self.work)
                    break
        self._tidy(self.work)

    # After it

    def abandon(self) -> None:
        """Remove what `begin` wrote, as nothing came of it."""
        if self._locks and not self._written and not self._has_results():
            with contextlib.suppress(OSError):
                (self.work / CONFIG).unlink(missing_ok=True)
                self._tidy(self.work)
            self._give_up_beside()
            self.release()
            remove_folders(self._made[:1])
            self.begun = False
        self.release()

    def _has_results(self) -> bool:
        return bool(self.checkpoints.steps()) or (self.work / FILE_NAME).exists()

    def _give_up_beside(self) -> None:
        if self.work != self.path:
            shutil.rmtree(self.work, ignore_errors=True)
            self.work = self.path

    def write(self, record: Record) -> None:
        """Write all files of a training that ended: first each whole under a temporary name, then all in their places.

        A failure leaves an earlier run as it was; without one, the model stays if it could be written.

        Raises:
            OSError: the disk is full, or the folder cannot be written to any more.
        """
        staged: dict[str, Staged] = {}
        with Deferred():
            try:
                self.work.mkdir(parents=True, exist_ok=True)
                self._stage(record, staged)
                with naming(self.work / MARKER):
                    (self.work / MARKER).unlink(missing_ok=True)  # until all is there again, nothing is finished
                for name in [CURVES, REPORT] if CURVES not in staged else [REPORT]:  # those of an earlier call
                    with contextlib.suppress(OSError):
                        (self.work / name).unlink(missing_ok=True)
                for name in (HISTORY, CURVES, FILE_NAME, CONFIG, MARKER):
                    if name in staged:
                        staged[name].put()
                        del staged[name]
                if self.work != self.path:
                    self._replace()
            except BaseException as error:
                self._rescue(error, staged)
                raise
            finally:
                for left in staged.values():
                    left.discard()
                self.release()
            self.begun = self._written = True

    def _stage(self, record: Record, staged: dict[str, Staged]) -> None:
        """Write the files under temporary names: the model first, for it is what matters, the picture last."""
        staged[FILE_NAME] = stage(self.work / FILE_NAME, record.model())
        staged[CONFIG] = stage(self.work / CONFIG, _config(record))
        staged[HISTORY] = stage(self.work / HISTORY, history_csv(record))
        staged[MARKER] = stage(self.work / MARKER, marker(record))
        self.no_picture = None
        try:
            staged[CURVES] = stage(self.work / CURVES, curves_png(record))
        except ImportError:
            self.no_picture = no_picture()
        except Exception as error:  # whatever it is, a picture is not worth a run
            self.no_picture = f"{type(error).__name__}: {error}"

    def _replace(self) -> None:
        """Swap the new run and the old one, then remove the old."""
        old, new = self.path.resolve(), self.work
        with naming(self.path):
            if not exchange(new, old):
                away = old.with_name(f".{old.name}.old")
                os.replace(old, away)
                os.replace(new, old)
                os.replace(away, new)
        self.work = self.path
        for held, folder in zip(self._locks, (new, old), strict=True):
            held.move(folder)
        sync_folder(old.parent)
        self._end_replacing()

    def _end_replacing(self) -> None:
        """Remove the run that was replaced; what a user put there stays, in the new one."""
        old = self._beside
        if old.is_dir():
            for path in list(old.iterdir()):
                if path.name == FOLDER:
                    shutil.rmtree(path)
                elif path.name in (*FILES, REPORT, lock.NAME, REPLACES) or _TEMPORARY.fullmatch(path.name):
                    path.unlink(missing_ok=True)
                elif not (self.path / path.name).exists():
                    os.replace(path, self.path / path.name)
            with contextlib.suppress(OSError):
                old.rmdir()
        (self.path / REPLACES).unlink(missing_ok=True)

    def _rescue(self, error: BaseException, staged: dict[str, Staged]) -> None:
        """Keep the trained model after a failure if it takes no other's place, and say what is where."""
        steps = self.checkpoints.steps()
        if self.work != self.path:
            error.add_note(f"the earlier run in {self.path} is kept")
            if steps:
                error.add_note(f"fcnet resume {self.path} goes on from step {steps[-1]}")
            else:
                self._give_up_beside()
        elif (self.work / FILE_NAME).exists():
            error.add_note(f"a model is in {self.path / FILE_NAME}")
        elif FILE_NAME in staged:
            with contextlib.suppress(OSError):
                staged.pop(FILE_NAME).put()
            if (self.work / FILE_NAME).exists():
                self._written = True
                error.add_note(f"the trained model is in {self.path / FILE_NAME}")
        else:
            self.abandon()


def marker(record: Record) -> str:
    """Return what the last file says: the format, and how the training ended."""
    best = None if record.best is None else record.best[0]
    epochs = int(record.history[-1]["epoch"]) if record.history else 0
    said = {"format": FORMAT, "finished": record.interrupted is None, "epochs": epochs, "best_epoch": best}
    return json.dumps(said | {"interrupted": record.interrupted}) + "\n"


def is_finished(folder: Path) -> bool:
    """Return whether the training of a run came to its end.

    Raises:
        ValueError: what the run says is damaged, or of another format.
    """
    path = folder / MARKER
    if not path.is_file():  # a run of fcnet 0.1.0 has none: its model is there last
        config = folder / CONFIG
        first = config.read_text("utf-8", errors="replace")[:40] if config.is_file() else UNFINISHED
        cut = first.startswith(("# unfinished", "# interrupted")) or Checkpoints(folder / FOLDER).steps()
        return (folder / FILE_NAME).is_file() and not cut
    try:
        said = json.loads(path.read_text("utf-8"))
        version, finished = said["format"], said["finished"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"{path}: expected what fcnet wrote at the end of the training; it is damaged") from None
    if version != FORMAT or not isinstance(finished, bool):
        raise ValueError(f"{path}: expected file format {FORMAT}, got {version!r}; it is from another fcnet version")
    return finished


def _is_whole(path: Path) -> bool:
    try:
        read_model(path, allow_nonfinite=True)
    except (ValueError, OSError):
        return False
    return True


def _config(record: Record) -> str:
    """Return the configuration, under a comment if the training was cut short or its method said how it ended."""
    notes = [text for text in (record.interrupted, record.message) if text]
    return "".join(f"# {' '.join(text.split())}\n" for text in notes) + to_toml(record.options)


def _is_unfinished(config: Path) -> bool:
    """Return whether `begin` wrote it, or was killed while it did; a user's own configuration is neither."""
    first = UNFINISHED.encode()
    try:
        return config.read_bytes()[: len(first)] in (first[:length] for length in range(len(first) + 1))
    except FileNotFoundError:  # gone meanwhile
        return True


def to_toml(values: Mapping[str, Any]) -> str:
    """Return flat TOML of strings, numbers, booleans and lists of them; None is left out.

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
    """Return the run directory of a Solver's `out`.

    Raises:
        TypeError: `out` is something else. FileExistsError, NotADirectoryError, ValueError: see `RunDirectory`.
    """
    if isinstance(out, RunDirectory):
        return out
    if isinstance(out, str | Path):
        return RunDirectory(out, force=force)
    raise TypeError(f"out: expected a path or None, got {out!r}")
