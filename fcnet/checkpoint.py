"""Models on disk: one safetensors file, its metadata in JSON, each tensor with its SHA-256. No pickle.

The tensors are those of `model.params` and `model.state` by name, and `preprocessing.shift`, `preprocessing.scale`.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from backends import Backend, get_backend
from fcnet.files import write_atomically
from fcnet.model import FullyConnectedNet

FORMAT = 1
FILE_NAME = "model.safetensors"


def save_model(model: FullyConnectedNet, path: str | Path) -> None:
    """Write `model` to `path`, or to `path`/model.safetensors if that is a folder; whole or not at all.

    Raises:
        TypeError, ValueError: no path, or an empty one. OSError: it cannot be written there.
    """
    from safetensors.numpy import save

    path = _path(path)
    if path.is_dir():
        path = path / FILE_NAME
    to_numpy = model.backend.to_numpy
    tensors = {name: np.ascontiguousarray(to_numpy(value)) for name, value in model.params.items()}
    tensors |= {name: np.ascontiguousarray(to_numpy(value)) for name, value in model.state.items()}
    if model.preprocessing is not None:
        for name, value in zip(("shift", "scale"), model.preprocessing, strict=True):
            tensors[f"preprocessing.{name}"] = to_numpy(value)
    description = {
        "format": FORMAT,
        "config": model.config,
        "classes": model.classes,
        "features": model.features,
        "sha256": {name: _sha256(tensor) for name, tensor in sorted(tensors.items())},
    }
    write_atomically(path, save(tensors, {"fcnet": json.dumps(description, sort_keys=True)}))


def load(path: str | Path, device: str | Backend = "auto") -> FullyConnectedNet:
    """The network saved at `path`: a file, or a run directory that holds model.safetensors.

    Args:
        device: where it shall live, as in `FullyConnectedNet`.

    Raises:
        FileNotFoundError: nothing there. ValueError: not a model of fcnet, truncated or changed since it was written;
            an empty path. TypeError: no path.
    """
    path = _path(path)
    if path.is_dir():
        if not (path / FILE_NAME).exists():
            raise FileNotFoundError(f"{path}: expected a run directory with {FILE_NAME}, found none in it")
        path = path / FILE_NAME
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; expected a model saved by fcnet, such as {FILE_NAME}")
    backend = get_backend(device)
    description, tensors = _read(path)
    try:
        model = FullyConnectedNet(**description["config"], device=backend)
        _fill(model, tensors, path)
        model.classes = _names(description["classes"])
        model.features = _names(description["features"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        message = str(error).removeprefix(f"{path}: ")
        raise ValueError(f"{path}: the description of the model does not hold together ({message})") from error
    return model


def _path(path: Any) -> Path:
    """A path of a file or folder that was named. Raises TypeError or ValueError."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path: expected the name of a file or folder, got {path!r}; name one")
    if not os.fspath(path):
        raise ValueError("path: expected the name of a file or folder, got ''; name one, such as model.safetensors")
    return Path(path)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
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


def _fill(model: FullyConnectedNet, tensors: dict[str, np.ndarray], path: Path) -> None:
    preprocessing = tensors.pop("preprocessing.shift", None), tensors.pop("preprocessing.scale", None)
    wanted = {**model.params.shapes, **model.state.shapes}
    if set(wanted) != set(tensors):
        odd = ", ".join(sorted(set(wanted) ^ set(tensors)))
        raise ValueError(f"{path}: its tensors are not those of the network it describes: {odd}")
    for name, tensor in tensors.items():
        (model.params if name in model.params else model.state)[name] = tensor
    if preprocessing[0] is not None and preprocessing[1] is not None:
        model.set_preprocessing(*preprocessing)


def _names(names: list[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names)


def _sha256(tensor: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(tensor).tobytes()).hexdigest()
