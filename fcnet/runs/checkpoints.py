"""The checkpoints of a run: the last few, each whole or not there."""

from __future__ import annotations

import contextlib
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from fcnet.errors import TrainingWarning
from fcnet.files import remove_temporaries, write_atomically
from fcnet.runs.container import Tensors, pack, unpack

FOLDER = "checkpoints"
_NAME = re.compile(r"step-(\d{10,})\.safetensors")


class Checkpoints:
    """Keep a folder of files step-0000000500.safetensors."""

    def __init__(self, folder: Path) -> None:
        """Keep checkpoints in `folder`, which need not exist yet."""
        self.folder = folder

    def path(self, step: int) -> Path:
        """Return where the checkpoint after so many steps is."""
        return self.folder / f"step-{step:010d}.safetensors"

    def steps(self) -> list[int]:
        """Return the steps of which there are checkpoints, in order."""
        if not self.folder.is_dir():
            return []
        found = (_NAME.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def write(self, step: int, description: dict[str, Any], tensors: Tensors, keep: int) -> None:
        """Write one, whole, and remove all but the last `keep`. Raises OSError: the others stay as they are."""
        self.folder.mkdir(exist_ok=True)
        write_atomically(self.path(step), pack("checkpoint", description, tensors))
        for old in self.steps()[:-keep]:
            self.remove(old)

    def newest(self) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
        """Return the newest that is whole, or None; one that is damaged is warned of. Raises ValueError: none is."""
        damaged: ValueError | None = None
        for step in reversed(self.steps()):
            try:
                found = unpack(self.path(step), "checkpoint")
            except ValueError as error:
                damaged = damaged or error
                continue
            if damaged is not None:
                warnings.warn(
                    f"{damaged}; the one before, of step {step}, takes its place", TrainingWarning, stacklevel=2
                )
            return found
        if damaged is not None:
            raise damaged
        return None

    def remove(self, step: int) -> None:
        """Remove one."""
        self.path(step).unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove what writers that were killed left."""
        if self.folder.is_dir():
            for path in list(self.folder.glob(".*.tmp")):
                remove_temporaries(path.with_name(path.name[1:].rsplit(".", 2)[0]))
            with contextlib.suppress(OSError):
                self.folder.rmdir()
