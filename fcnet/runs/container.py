"""The file format of models and checkpoints: safetensors with a description in JSON and one digest over all of it.

What is read back is what was written, or a ValueError: the digest is over the description's text and over the name,
dtype, shape and bytes of every tensor. A file that should have a digest and has none is damaged. Files of fcnet 0.1.0,
format 1, have a SHA-256 for each tensor's bytes only: they are read, with a warning.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fcnet.errors import TrainingWarning

FORMAT = 2  # of models, checkpoints and runs alike
Tensors = Mapping[str, np.ndarray]


def pack(kind: str, description: Mapping[str, Any], tensors: Tensors) -> bytes:
    """Return the file's content; `kind` is "model" or "checkpoint"."""
    from safetensors.numpy import save

    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    text = json.dumps({"format": FORMAT, "kind": kind, **description})
    return save(contiguous, {"fcnet": f"{text}\n{digest(text, contiguous)}"})  # one text: two have no fixed order


def digest(text: str, tensors: Tensors) -> str:
    """Return the SHA-256 of the description and each tensor's name, dtype, shape and bytes."""
    total = hashlib.sha256(f"{len(text)} {text}".encode())
    for name in sorted(tensors):
        tensor = np.ascontiguousarray(tensors[name])
        total.update(json.dumps([name, tensor.dtype.str, tensor.shape]).encode())
        total.update(tensor.reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def unpack(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the description and the tensors of a file of this kind.

    Raises:
        ValueError: not such a file, truncated or changed since it was written, or of another format.
        OSError: it cannot be read.
    """
    metadata, tensors = _read(path, kind)
    text, line_end, stored = metadata.get("fcnet", "").partition("\n")
    try:
        description = json.loads(text)
        if not isinstance(description, dict):
            raise ValueError("no description")
    except (TypeError, ValueError, RecursionError):
        raise ValueError(f"{path}: a safetensors file, but not a {kind} saved by fcnet") from None
    version = description.get("format")
    if version == 1 and kind == "model" and not line_end:
        _check_first_format(path, description, tensors)
        return description, tensors
    if version != FORMAT:
        raise ValueError(
            f"{path}: expected file format {FORMAT}, got {str(version)[:20]}; it is damaged, or from another fcnet "
            "version; take a copy, or read it with that version"
        )
    if stored != digest(text, tensors):
        why = "its SHA-256 differs" if stored else "its digest is missing"
        raise ValueError(f"{path}: the file was changed since it was saved ({why}); take a copy of it")
    if description.get("kind") != kind:
        raise ValueError(f"{path}: expected a {kind} saved by fcnet, got a {description.get('kind')}")
    return description, tensors


def _read(path: Path, kind: str) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Return the metadata and tensors of a safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            return file.metadata() or {}, {name: file.get_tensor(name) for name in names}
    except OSError as error:
        if error.errno is not None:
            raise
        reason: object = error  # a file of no bytes cannot be mapped
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        reason = error
    raise ValueError(
        f"{path}: expected a {kind} saved by fcnet, got a truncated or foreign file "
        f"({' '.join(str(reason).split())[:120]}); save it again or take a copy"
    )


def _check_first_format(path: Path, description: Mapping[str, Any], tensors: Tensors) -> None:
    """Check that the tensors' bytes are those that were saved; nothing says so of the rest."""
    expected = description.get("sha256")
    if not isinstance(expected, dict) or set(expected) != set(tensors):
        odd = ", ".join(sorted(set(expected) ^ set(tensors))) if isinstance(expected, dict) else "no checksums"
        raise ValueError(f"{path}: tensors and checksums do not match: {odd}; take a copy of the file")
    for name, tensor in tensors.items():
        if hashlib.sha256(np.ascontiguousarray(tensor).tobytes()).hexdigest() != expected[name]:
            raise ValueError(f"{path}: tensor {name} was changed since it was saved (SHA-256); take a copy of the file")
    warnings.warn(
        f"{path}: saved by fcnet 0.1.0, which kept a checksum of the weights only, so it cannot be checked whole; "
        "load and save it once to have it checked from then on",
        TrainingWarning,
        stacklevel=5,
    )


def check_finite(path: Path, tensors: Tensors) -> None:
    """Raise ValueError naming the first tensor with a value that is NaN or infinite."""
    for name, tensor in tensors.items():
        if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
            raise ValueError(
                f"{path}: {name} holds NaN or infinite values: the training diverged; take another run, or "
                "fcnet.load(path, allow_nonfinite=True) to look at it"
            )
