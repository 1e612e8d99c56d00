"""Data that do not fit into memory: chunks written to files, which are then read page by page."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from fcnet.data.checks import row_chunks
from fcnet.data.columns import columns_of, is_table
from fcnet.data.dataset import TARGETS, Dataset
from fcnet.data.given import codes_of, targets_of
from fcnet.data.plan import Plan
from fcnet.data.splits import split_rows
from fcnet.errors import unknown


def from_chunks(
    chunks: Iterable[tuple[Any, Any]],
    folder: str | os.PathLike[str],
    split_seed: int = 0,
    targets: str = "classes",
    name: str = "data",
) -> Dataset:
    """Return a data set of memory-mapped arrays, made of chunks of rows that need never be in memory together.

    Args:
        chunks: pairs of X (n, D), arrays or tables, and y (n,) or (n, C); each is written before the next is asked for.
            The plan of tables is learned from the first of them.
        folder: where X_train.npy, X_val.npy and X_test.npy are made, which must stay as long as the data set is used.
        split_seed, targets: as `load`; a tenth of the rows each becomes the validation and the test part.
        name: what `summary` calls it.

    Raises:
        ValueError: no chunks, or one that does not fit the first. FileExistsError: such files are in the folder.
    """
    if targets not in TARGETS:
        raise unknown("targets", targets, TARGETS)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train", "val", "test"):
        if (folder / f"X_{part}.npy").exists():
            raise FileExistsError(f"folder: expected one without X_{part}.npy; got {folder}; choose another")
    with tempfile.TemporaryFile(dir=folder) as file:
        y, dtype, width, plan = _write(chunks, file)
        X = np.memmap(file, dtype=dtype, mode="r", shape=(len(y), width))
        classes = None
        if targets == "classes":
            found, classes = codes_of({"y_train": y}, None)
            y = found["y_train"]
        strata = y if targets == "classes" else np.zeros(len(y), dtype=np.int64)
        parts: dict[str, Any] = {}
        for part, rows in split_rows(strata, ("val", "test"), split_seed).items():
            path = folder / f"X_{part}.npy"
            out = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(len(rows), width))
            for some in row_chunks(out):
                out[some] = X[rows[some]]
            out.flush()
            parts[f"X_{part}"], parts[f"y_{part}"] = np.load(path, mmap_mode="r"), y[rows]
    return Dataset(
        **parts,
        name=name,
        classes=classes,
        features=None if plan is None else plan.features,
        preprocess="standardize",
        targets=targets,
        plan=plan,
    )


def _write(chunks: Iterable[tuple[Any, Any]], file: Any) -> tuple[np.ndarray, np.dtype[Any], int, Plan | None]:
    """Write each X; all y together, the dtype and the width of X, and the plan that made arrays of tables."""
    plan, first, labels = None, None, []
    for at, (X, y) in enumerate(chunks):
        if is_table(X):
            table = columns_of(X, name=f"chunk {at}")
            plan = plan or Plan.learn(table)
            X = plan.apply(table)
        X = np.asarray(X)
        X = X.reshape(len(X), -1)
        if X.dtype.kind not in "buif":
            raise ValueError(f"chunk {at}: expected numbers or a table; got dtype {X.dtype}; convert it")
        if first is None:
            first = X
        if X.shape[1] != first.shape[1] or not np.can_cast(X.dtype, first.dtype, "same_kind"):
            raise ValueError(
                f"chunk {at}: expected {first.shape[1]} columns of {first.dtype}, as in the first; got {X.shape[1]} of "
                f"{X.dtype}; prepare all alike"
            )
        y = np.asarray(targets_of(f"chunk {at}: y", y))
        if len(y) != len(X):
            raise ValueError(f"chunk {at}: expected {len(X)} targets, one for each row; got {len(y)}")
        file.write(np.ascontiguousarray(X, dtype=first.dtype))
        first = first[:0]
        labels.append(y)
    if first is None:
        raise ValueError("chunks: expected pairs of X and y; got none")
    file.flush()
    return np.concatenate(labels), first.dtype, first.shape[1], plan
