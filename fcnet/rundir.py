"""A run directory: everything about one training, under one name.

model.safetensors   the best parameters, preprocessing, classes; written last: its presence means "finished"
config.toml         what `fcnet train --config` needs to do the same again
history.csv         a row per epoch
curves.png          loss and accuracies, if matplotlib is there
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcnet.checkpoint import FILE_NAME, save_model
from fcnet.files import write_atomically
from fcnet.options import from_solver

if TYPE_CHECKING:
    from fcnet.solver import Solver

CONFIG, HISTORY, CURVES = "config.toml", "history.csv", "curves.png"


class RunDirectory:
    """The folder of one run, free or to be replaced."""

    def __init__(self, path: str | Path, *, force: bool = False) -> None:
        """Choose `path`, which need not exist; nothing is written yet.

        Raises:
            FileExistsError: a run is there and force is False. NotADirectoryError: a file is there.
        """
        self.path = Path(path)
        self.config: dict[str, Any] | None = None  # the command line's options; None: told from the solver
        self._claimed = False
        self._number_again: tuple[str, str | Path] | None = None
        if self.path.exists() and not self.path.is_dir():
            raise NotADirectoryError(f"out: expected a folder for the run, got the file {self.path}")
        if not self._is_free() and not force:
            raise FileExistsError(
                f"out: {self.path} is not empty; choose another folder, or replace the run in it with --force "
                "(force=True)"
            )

    @classmethod
    def numbered(cls, name: str, root: str | Path = "runs") -> RunDirectory:
        """The first free of runs/NAME-0001, runs/NAME-0002, ...; which one is settled when it is claimed."""
        directory = cls(_fresh(name, root))
        directory._number_again = name, root
        return directory

    def _is_free(self) -> bool:
        return not self.path.is_dir() or not any(self.path.iterdir())

    def begin(self, solver: Solver) -> None:
        """Claim a free folder by writing the configuration; a run to be replaced stays until `write`."""
        while self._number_again is not None:
            try:
                self.path.mkdir(parents=True)
                break
            except FileExistsError:  # another process was quicker
                self.path = _fresh(*self._number_again)
        if self._is_free():
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path / CONFIG, to_toml(self._options(solver)))
            self._claimed = True

    def abandon(self) -> None:
        """Nothing came of it: take back what `begin` wrote."""
        if self._claimed:
            (self.path / CONFIG).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # somebody else put something there
                self.path.rmdir()

    def write(self, solver: Solver) -> None:
        """Write all files of a finished training, each whole or not at all, the model last."""
        self.path.mkdir(parents=True, exist_ok=True)
        for old in (CURVES, FILE_NAME):
            (self.path / old).unlink(missing_ok=True)
        write_atomically(self.path / CONFIG, to_toml(self._options(solver)))
        write_atomically(self.path / HISTORY, history_csv(solver))
        curves = curves_png(solver)
        if curves is not None:
            write_atomically(self.path / CURVES, curves)
        save_model(solver.model, self.path / FILE_NAME)

    def _options(self, solver: Solver) -> dict[str, Any]:
        return self.config if self.config is not None else from_solver(solver)


def _fresh(name: str, root: str | Path) -> Path:
    number = 1
    while (path := Path(root) / f"{name}-{number:04d}").exists():
        number += 1
    return path


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


def curves_png(solver: Solver) -> bytes | None:
    """Loss and accuracies over the epochs as a PNG, or None without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=(9, 3.6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    losses = solver.loss_history
    per_epoch = max(1, len(losses) / max(1, len(solver.history)))
    left.plot([i / per_epoch for i in range(1, len(losses) + 1)], losses, linewidth=0.5, alpha=0.4, label="step")
    epochs = [row["epoch"] for row in solver.history]
    left.plot(epochs, [row["loss"] for row in solver.history], marker="o", markersize=3, label="epoch mean")
    left.set(xlabel="epoch", ylabel="loss", title="Training loss", yscale="log")
    left.legend()
    right.plot(epochs, solver.train_acc_history, marker="o", markersize=3, label="train")
    right.plot(epochs, solver.val_acc_history, marker="o", markersize=3, label="validation")
    if solver.best_val_acc is not None:
        right.axvline(solver.best_epoch, linewidth=0.8, linestyle=":", color="grey")
        right.set_title(f"Accuracy (best validation {solver.best_val_acc:.4f}, epoch {solver.best_epoch})")
    right.set(xlabel="epoch", ylabel="accuracy")
    right.legend(loc="lower right")
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()
