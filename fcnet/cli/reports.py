"""Reports: a few files (tables, pictures) written together into a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from fcnet.cli.parser import say
from fcnet.files import write_atomically

Content = str | Callable[[], bytes]  # text, or what draws a picture


def check_folder(out: str | None, names: Iterable[str], *, force: bool) -> Path | None:
    """The folder that a report shall go to, None for a fresh one; called before the work, so that it is not lost.

    Raises:
        FileExistsError: one of the files is there and force is False. NotADirectoryError: `out` is a file.
    """
    if out is None:
        return None
    if out == "":
        raise ValueError("--out: expected the name of a folder, got ''; name one, or leave it out")
    folder = Path(out).expanduser()
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"--out: expected a folder, got the file {folder}; name another")
    there = [name for name in names if (folder / name).exists()]
    if there and not force:
        raise FileExistsError(f"--out: {folder / there[0]} is there; choose another folder, or replace it with --force")
    return folder


def write_report(folder: Path, files: Mapping[str, Content]) -> None:
    """Write the files and say so; a picture that cannot be drawn for want of matplotlib is left out, with a line."""
    written = []
    for name, content in files.items():
        try:
            write_atomically(folder / name, content if isinstance(content, str) else content())
            written.append(name)
        except ImportError:
            (folder / name).unlink(missing_ok=True)  # that of an earlier report
            say(f"no {name}: it needs matplotlib, pip install 'fcnet[plot]'")
    say(f"wrote {folder}: {', '.join(written)}")


def fresh_folder(name: str) -> Path:
    """A new folder, the first free of runs/NAME-0001, runs/NAME-0002, ..."""
    Path("runs").mkdir(exist_ok=True)
    number = 1
    while True:
        folder = Path("runs") / f"{name}-{number:04d}"
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1
