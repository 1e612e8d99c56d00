"""Folders that are made for a result, and taken away again if nothing comes of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path


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
    """The first of runs/NAME-0001, runs/NAME-0002, ... that is not there yet."""
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
