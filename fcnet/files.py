"""Files that are there whole or not at all; folders that are taken away again if nothing comes of them."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import shlex
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path


def write_atomically(path: str | Path, data: bytes | str) -> None:
    """Write a file so that at any moment, a crash included, `path` holds the old content or the new, never a part.

    What writers that were killed left beside it is removed.

    Raises:
        FileNotFoundError: the folder is not there; none is made.
        OSError: the folder cannot be written to; it names `path`, and nothing is left behind.
    """
    path = Path(path)
    check_parent(path)
    staged = stage(path, data)
    try:
        staged.put()
    except BaseException:
        staged.discard()
        raise


def check_parent(path: Path) -> None:
    """Check that the folder of the file `path` exists. Raises FileNotFoundError, which says how to make it."""
    if not path.parent.exists():
        raise FileNotFoundError(
            f"{path}: expected a folder that is there, got {path.parent}, which is not; make it first "
            f"(mkdir -p {shlex.quote(str(path.parent))}), or name another"
        )


class Staged:
    """Write a file completely under a temporary name, locked while its writer lives."""

    def __init__(self, path: Path, temporary: Path, descriptor: int) -> None:
        """Begin a file: `temporary`, open as `descriptor`, is to become `path`."""
        self.path, self.temporary, self._descriptor = path, temporary, descriptor

    def put(self) -> None:
        """Rename the file to its own name, down to the disk. Raises OSError: the folder is no longer writable."""
        with naming(self.path):
            os.replace(self.temporary, self.path)
        sync_folder(self.path.parent)
        os.close(self._descriptor)

    def discard(self) -> None:
        """Remove it, if it has not got its name."""
        with contextlib.suppress(OSError):
            self.temporary.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            os.close(self._descriptor)


def stage(path: Path, data: bytes | str) -> Staged:
    """Write `data` whole, and down to the disk, under a temporary name next to `path`.

    Raises:
        OSError: as `write_atomically`.
    """
    with naming(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        remove_temporaries(path)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        staged = Staged(path, Path(temporary), descriptor)
        try:
            lock(descriptor)
            with os.fdopen(os.dup(descriptor), "wb") as file:
                file.write(data.encode() if isinstance(data, str) else data)
                file.flush()
                os.fsync(file.fileno())
            # mkstemp makes files private; a model is as readable as any file its user makes.
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)
        except BaseException:
            staged.discard()
            raise
    return staged


def temporaries(path: Path) -> list[Path]:
    """Return what writers of this file that were killed left beside it; a writer that lives has locked its own."""
    dead = []
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with contextlib.suppress(OSError):  # gone meanwhile
            descriptor = os.open(left, os.O_RDONLY)
            try:
                if lock(descriptor):
                    dead.append(left)
            finally:
                os.close(descriptor)
    return dead


def remove_temporaries(path: Path) -> None:
    """Remove `temporaries`."""
    for left in temporaries(path):
        with contextlib.suppress(OSError):
            left.unlink()


def sync_folder(path: Path) -> None:
    """Write a folder's names to the disk (fsync), so that they survive a loss of power; only where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # a file system that has no such thing
            raise
    finally:
        os.close(descriptor)


def exchange(one: Path, other: Path) -> bool:
    """Swap the names of two folders in one step; return False where the system has no such step."""
    if not sys.platform.startswith("linux"):
        return False
    import ctypes

    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if rename(here, os.fsencode(one), here, os.fsencode(other), swap) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(one))


@contextlib.contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Make an OSError name the file that the user knows, not a temporary one or none."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            error.filename, error.filename2 = str(path), None
        raise


def lock(descriptor: int, *, wait: bool = False) -> bool | None:
    """Lock an open file until it is closed: True; False if another process has it; None if locks do not work here."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def make_folder(path: str | Path) -> list[Path]:
    """Make a folder that may be there already, and its parents.

    Returns:
        Those that were not there, the innermost first: what `remove_folders` takes away again.

    Raises:
        OSError: it cannot be made; nothing is left behind.
    """
    return _make(Path(path), may_exist=True)


def make_numbered_folder(name: str, root: str | Path = "runs") -> list[Path]:
    """Make the first free of runs/NAME-0001, runs/NAME-0002, ..., also when other processes do the same.

    Returns:
        That folder, then its parents that were not there: what `remove_folders` takes away again.

    Raises:
        OSError: it cannot be made; nothing is left behind.
    """
    while True:
        path = first_free(name, root)
        with contextlib.suppress(FileExistsError):  # another process was quicker
            return _make(path, may_exist=False)


def first_free(name: str, root: str | Path = "runs") -> Path:
    """Return the first of runs/NAME-0001, runs/NAME-0002, ... that is not there yet."""
    number = 1
    while os.path.lexists(path := Path(root) / f"{name}-{number:04d}"):  # a link to nowhere is there, too
        number += 1
    return path


def remove_folders(made: Iterable[Path]) -> None:
    """Remove folders, the innermost first, but for those in which somebody put something meanwhile."""
    for folder in made:
        with contextlib.suppress(OSError):
            folder.rmdir()


@contextlib.contextmanager
def unless_it_fails(made: Iterable[Path]) -> Iterator[None]:
    """Remove the folders that were made for what is done inside if that fails."""
    try:
        yield
    except BaseException:
        remove_folders(made)
        raise


def _make(path: Path, *, may_exist: bool) -> list[Path]:
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    with unless_it_fails(missing[1:]):  # not the folder itself: if it is there now, it is another's
        path.mkdir(parents=True, exist_ok=may_exist)
    return missing
