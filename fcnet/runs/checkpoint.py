"""Models on disk: one safetensors file, its metadata in JSON, each tensor with its SHA-256. No pickle.

What the description and the tensors of a network are, only `fcnet.nn.model` knows.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fcnet.files import write_atomically

FORMAT = 1
FILE_NAME = "model.safetensors"


def write_model(path: str | Path, description: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
    """Write a network's description and tensors to `path`, or to `path`/model.safetensors if that is a folder; whole
    or not at all.

    Raises:
        TypeError, ValueError: no path, or an empty one. OSError: it cannot be written there.
    """
    from safetensors.numpy import save

    path = _path(path)
    if path.is_dir():
        path = path / FILE_NAME
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    checksums = {name: _sha256(tensor) for name, tensor in sorted(contiguous.items())}
    metadata = json.dumps({**description, "format": FORMAT, "sha256": checksums}, sort_keys=True)
    write_atomically(path, save(contiguous, {"fcnet": metadata}))


def find_model(path: str | Path) -> Path:
    """The model file that `path` names: itself, or that of a run directory.

    Raises:
        FileNotFoundError: nothing there. ValueError: an empty path. TypeError: no path.
    """
    path = _path(path)
    if path.is_dir():
        if not (path / FILE_NAME).exists():
            raise FileNotFoundError(f"{path}: expected a run directory with {FILE_NAME}, found none in it")
        path = path / FILE_NAME
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; expected a model saved by fcnet, such as {FILE_NAME}")
    return path


def _path(path: Any) -> Path:
    """A path of a file or folder that was named. Raises TypeError or ValueError."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path: expected the name of a file or folder, got {path!r}; name one")
    if not os.fspath(path):
        raise ValueError("path: expected the name of a file or folder, got ''; name one, such as model.safetensors")
    return Path(path)


def read_model(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The description and the tensors in a model file.

    Raises:
        ValueError: not a model of fcnet, truncated or changed since it was written.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: expected a model saved by fcnet, got a truncated or foreign file ({error}); "
            "save it again or take a copy"
        ) from None
    try:
        description = json.loads(metadata["fcnet"])
        expected = description["sha256"]
        version = description["format"]
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path}: a safetensors file, but not a model saved by fcnet") from None
    if version != FORMAT:
        raise ValueError(f"{path}: expected file format {FORMAT}, got {version}; it is from another fcnet version")
    if set(expected) != set(tensors):
        odd = ", ".join(sorted(set(expected) ^ set(tensors)))
        raise ValueError(f"{path}: tensors and checksums do not match: {odd}; take a copy of the file")
    for name, tensor in tensors.items():
        if _sha256(tensor) != expected[name]:
            raise ValueError(f"{path}: tensor {name} was changed since it was saved (SHA-256); take a copy of the file")
    return description, tensors


def _sha256(tensor: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(tensor).tobytes()).hexdigest()
