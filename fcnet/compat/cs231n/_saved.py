"""Parameters in files of the course's form: a dictionary of arrays in an .npy file, which is a pickle."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from fcnet.backends import backend_of
from fcnet.compat.cs231n._arrays import Array
from fcnet.data.restricted_pickle import load_npy_dict
from fcnet.files import write_atomically

#: Where the course's starter code has it, seen from the folder that the notebooks run in.
FOLDER = Path("cs231n/saved")


def write(fname: str | os.PathLike[str], params: Mapping[str, Array]) -> None:
    """Write the arrays, and say so as the course does; `FOLDER` is made if it is needed and not there."""
    if not Path(fname).is_absolute():
        FOLDER.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    np.save(content, np.array({name: backend_of(value).to_numpy(value) for name, value in params.items()}))
    write_atomically(_path(fname), content.getvalue())
    print(f"{os.fspath(fname)} saved.")


def read(fname: str | os.PathLike[str], names: Iterable[str]) -> dict[str, np.ndarray] | None:
    """Return the arrays, or None if there is no such file; either is said as the course does.

    Raises:
        ValueError: damaged, or not arrays of these names; nothing that it may tell Python to run is run.
    """
    path = _path(fname)
    if not path.exists():
        print(f"{os.fspath(fname)} not available.")
        return None
    params = load_npy_dict(path, "save it again")
    if sorted(params) != sorted(names):
        raise ValueError(
            f"{path}: expected {', '.join(sorted(names))}, got {', '.join(sorted(params))}; load it "
            "into a model of the kind that wrote it"
        )
    print(f"{os.fspath(fname)} loaded.")
    return params


def _path(fname: str | os.PathLike[str]) -> Path:
    """Return the path to which NumPy adds the ending where it is missing."""
    name = os.fspath(fname)
    return FOLDER / (name if name.endswith(".npy") else f"{name}.npy")
