"""Models on disk: one file, as `fcnet.runs.container` has it. No pickle.

What the description and the tensors of a network are, only `fcnet.nn.model` knows.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fcnet.files import write_atomically
from fcnet.runs.container import check_finite, pack, unpack

FILE_NAME = "model.safetensors"


def write_model(path: str | Path, description: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
    """Write a network's description and tensors to `path`, or to `path`/model.safetensors if that is a folder; whole
    or not at all.

    Raises:
        TypeError, ValueError: no path, or an empty one. OSError: it cannot be written there.
    """
    path = _path(path)
    if path.is_dir():
        path = path / FILE_NAME
    write_atomically(path, pack("model", description, tensors))


def find_model(path: str | Path) -> Path:
    """Return the model file that `path` names: itself, or that of a run directory.

    Raises:
        FileNotFoundError: nothing there. ValueError: an empty path. TypeError: no path.
    """
    path = _path(path)
    if path.is_dir():
        if not (path / FILE_NAME).exists():
            is_begun = (path / "config.toml").exists()
            hint = f" yet; the training is at work, or fcnet resume {path} goes on with it" if is_begun else ""
            raise FileNotFoundError(f"{path}: expected a run directory with {FILE_NAME}, found none in it{hint}")
        path = path / FILE_NAME
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; expected a model saved by fcnet, such as {FILE_NAME}")
    return path


def _path(path: Any) -> Path:
    """Return a path of a file or folder that was named. Raises TypeError or ValueError."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path: expected the name of a file or folder, got {path!r}; name one")
    if not os.fspath(path):
        raise ValueError("path: expected the name of a file or folder, got ''; name one, such as model.safetensors")
    return Path(path)


def read_model(path: Path, *, allow_nonfinite: bool = False) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the description and the tensors in a model file.

    Raises:
        ValueError: not a model of fcnet, truncated or changed since it was written; values that are not finite, unless
            they are allowed.
    """
    description, tensors = unpack(path, "model")
    if not allow_nonfinite:
        check_finite(path, tensors)
    return description, tensors
