"""Whether readers take time and memory in proportion to the file: each in a process of its own, beside a smaller file.

Ratios of processor time, so that it does not matter how busy the machine is.
"""

from __future__ import annotations

import contextlib
import io
import resource
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np

import fcnet
from fcnet.data.npz import read_npz
from tests.crash.trial import Child

TIMES, SLACK = 4, 2.5  # a file so many times as large may take SLACK times as much more
MEMORY = 40  # bytes for each of the file, beside 64 MiB


def _csv(path, columns, rows=40):
    cells = np.arange(columns * rows).reshape(rows, columns) % 97 + 0.5
    names = ",".join(f"c{number}" for number in range(columns))
    lines = [",".join(map(str, row)) + f",{'ab'[at % 2]}" for at, row in enumerate(cells.tolist())]
    path.write_text("\n".join([f"{names},kind", *lines]) + "\n")


def _many_rows(path, rows):
    _csv(path, 4, rows)


def _levels(path, rows):
    lines = [f"{at % 7},level {at},{'ab'[at % 2]}" for at in range(rows)]
    path.write_text("\n".join(["x,word,kind", *lines]) + "\n")


def _foreign(path, size):
    """Return an npz with members that are no arrays, of zeros: a thousandth of their size when packed."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("X", "y"):
            archive.writestr(name, bytes(size))


def _promising(path, size):
    """Return an npz whose header promises far more than there is."""
    head = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({size * 1000},), }}".encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("X.npy", "y.npy"):
            archive.writestr(name, b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + bytes(size))


def _arrays(path, rows):
    np.savez(path, X=np.arange(20.0 * rows).reshape(rows, 20), y=np.arange(rows) % 3)


def _model(path, width):
    fcnet.FullyConnectedNet([width], 100, 3, device="cpu").save(path)


def _table(path):
    return fcnet.data.load(path, target="kind")


#: Name -> (writes a file of a size, the larger size, its suffix, reads it).
CASES = {
    "csv of 20,000 columns": (_csv, 20_000, "csv", _table),
    "csv of 200,000 rows": (_many_rows, 200_000, "csv", _table),
    "csv of 200,000 levels": (_levels, 200_000, "csv", _table),
    "npz whose members are no arrays": (_foreign, 400_000_000, "npz", read_npz),
    "npz that promises more": (_promising, 1_000_000, "npz", read_npz),
    "npz of 400,000 rows": (_arrays, 400_000, "npz", read_npz),
    "model of 12 million weights": (_model, 120_000, "safetensors", fcnet.load),
}


def proportion(count, seed):
    """Each case, or as many as are asked for."""
    for name in list(CASES)[seed % 2 :: 2][:count]:
        write, size, suffix, read = CASES[name]
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder, f"{times}.{suffix}") for times in (1, TIMES)]
            found = []
            for file, small in zip(files, (size // TIMES, size), strict=True):
                write(file, small)
                status, cost = Child(lambda file=file, read=read: _cost(file, read)).wait()
                if status != 0:
                    yield f"{name}: ended with {status}"
                    break
                found.append(cost)
            else:
                yield _judged(name, files, *found)


def _cost(file, read):
    """Processor seconds, and bytes that the process grew by at most; a refusal is as good as reading."""
    before, started = _peak(), time.process_time()
    with contextlib.suppress(ValueError), contextlib.redirect_stderr(io.StringIO()):
        read(file)
    return time.process_time() - started, _peak() - before


def _peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _judged(name, files, one, other):
    seconds, grown = other
    size = files[1].stat().st_size
    longer = seconds / max(one[0], 0.05)  # what takes less is all beginning
    line = f"{name}: {size:,} bytes, {longer:.1f} times the time of a file of a quarter, {grown >> 20} MiB"
    return f"{line}: out of proportion" if longer > TIMES * SLACK or grown > (64 << 20) + MEMORY * size else [line]
