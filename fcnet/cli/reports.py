"""Reports: a few files (tables, pictures) written together into a folder."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from fcnet.cli.parser import say
from fcnet.errors import no_picture
from fcnet.files import make_folder, make_numbered_folder, naming, remove_folders, unless_it_fails, write_atomically

Content = str | Callable[[], bytes]  # text, or what draws a picture


def check_folder(out: str | None, names: Iterable[str], *, force: bool) -> Path | None:
    """Return the folder of the results, None for a fresh one; called before the work, so that no work is lost.

    Raises:
        FileExistsError: one of the files is there and force is False. NotADirectoryError: `out` is a file.
        OSError: nothing can be written there.
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
    with naming(folder):
        made = make_folder(folder)
        try:
            tempfile.TemporaryFile(dir=folder).close()
        finally:
            remove_folders(made)
    return folder


@contextlib.contextmanager
def as_flags(**flags: str) -> Iterator[None]:
    """Make errors about these Python arguments name the flags that they came from."""
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        names, colon, rest = str(error).partition(": ")
        parsed = [flags.get(name) for name in names.split(" and ")]
        if colon and None not in parsed:
            error.args = (f"{' and '.join(f'--{name}' for name in parsed)}: {rest}",)
        raise


def write_report(folder: Path | None, name: str, files: Mapping[str, Content]) -> None:
    """Write the files and print their names; pictures are left out, with a line, if matplotlib is missing.

    A folder of None is the first free of runs/NAME-0001, runs/NAME-0002, .... If a file cannot be written, those before
    it are taken away again.
    """
    made = make_numbered_folder(name) if folder is None else make_folder(folder)
    folder = made[0] if folder is None else folder
    written: list[str] = []
    with unless_it_fails(made):
        try:
            for file, content in files.items():
                try:
                    write_atomically(folder / file, content if isinstance(content, str) else content())
                    written.append(file)
                except ImportError:
                    (folder / file).unlink(missing_ok=True)  # that of an earlier report
                    say(f"no {file}: {no_picture()}")
        except BaseException:
            for file in written:
                (folder / file).unlink()
            raise
    say(f"wrote {folder}: {', '.join(written)}")
