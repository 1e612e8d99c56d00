"""Where an experiment's results go: NAME.csv and, with Matplotlib, NAME.png in one folder, whole or not at all."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

from fcnet.backends.signals import Deferred
from fcnet.experiments.base import Experiment, Table
from fcnet.files import make_folder, make_numbered_folder, unless_it_fails, write_atomically

DPI = 130


@contextlib.contextmanager
def results_folder(name: str, out: str | Path | None, *, force: bool = False) -> Iterator[Path]:
    """Yield a folder for the results, made if need be; None: the first free of runs/NAME-0001, -0002, ....

    What was made is taken away again if nothing came of the experiment.

    Raises:
        ValueError: an empty name. NotADirectoryError: a file is there.
        FileExistsError: results of this experiment are there, and force is False.
    """
    if out is None:
        made = make_numbered_folder(name)
        path = made[0]
    else:
        path = Path(out)
        _check(name, out, path, force)
        made = make_folder(path)
    with unless_it_fails(made):
        yield path


def _check(name: str, out: str | Path, path: Path, force: bool) -> None:
    if str(out) == "":
        raise ValueError("out: expected the name of a folder, got ''; name one, or leave it out")
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"out: expected a folder for the results, got the file {path}; name another")
    there = [file for file in _files(name, path) if file.exists()]
    if there and not force:
        raise FileExistsError(f"out: {there[0]} is there already; choose another folder, or replace it with force=True")


def _files(name: str, folder: Path) -> tuple[Path, Path]:
    return folder / f"{name}.csv", folder / f"{name}.png"


def write_results(name: str, experiment: Experiment, table: Table, folder: Path) -> list[Path]:
    """Write the table and the picture; the files written. Without Matplotlib that is the table alone.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    numbers, image = _files(name, folder)
    try:
        png = picture(experiment, table)
    except ImportError:
        png = None
    with Deferred():
        write_atomically(numbers, table.csv())
        if png is None:
            image.unlink(missing_ok=True)  # that of an earlier run
            return [numbers]
        write_atomically(image, png)
    return [numbers, image]


def picture(experiment: Experiment, table: Table) -> bytes:
    """Return the table as a PNG. Raises ImportError without Matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=experiment.size, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    experiment.draw(figure, table)
    figure.text(0.5, 0.5, table.note, rotation=20, fontsize=26, color="red", alpha=0.3, ha="center", va="center")
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()
