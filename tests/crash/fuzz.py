"""Hostile and damaged inputs for every reader: mutations of small files that are whole."""

from __future__ import annotations

import gzip
import io
import pickle
import random
import resource
import signal
import struct
import tempfile
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import fcnet
from fcnet.data import inputs as data_inputs
from fcnet.data.idx import read_idx
from fcnet.data.npz import read_npz
from fcnet.data.restricted_pickle import load_dict
from fcnet.runs import lock, rundir
from fcnet.runs.container import pack, unpack
from fcnet.runs.options import read_toml

WORKERS = 2
TENSORS, DESCRIPTION = {"W1": np.ones((3, 2), np.float32)}, {"config": {"hidden_dims": []}, "classes": ["a"]}
SECONDS = 5  # of processor time; an input that takes longer hangs
MEMORY = 1 << 30  # bytes more than there are in use; an input that takes more is out of proportion
REFUSALS = (ValueError, OSError)


def corpus():
    """Reader -> (function of a path, whole files, the name of the file, how often it is tried)."""
    X, y = np.arange(12.0).reshape(4, 3), np.arange(4) % 2
    npz = io.BytesIO()
    np.savez_compressed(npz, X=X, y=y)
    plain = io.BytesIO()
    np.savez(plain, X=X, y=y)
    idx = struct.pack(">HBB3I", 0, 8, 3, 2, 2, 2) + bytes(8)
    batch = {b"data": np.zeros((2, 3), np.uint8), b"labels": [0, 1]}
    rows = "".join(f"{i},{i % 7}.5,{'ab'[i % 2]}\n" for i in range(24)).encode()
    csv = [b"x,z,kind\n" + rows, b"x;z;kind\n" + rows.replace(b",", b";").replace(b".", b",")]
    toml = b'data = "a"\nhidden = [3, 4]\nlr = 0.5\nepochs = 3 # three\n[x]\ny = 1979-05-27T07:32:00Z\n'
    found = {
        "npz": (read_npz, [npz.getvalue(), plain.getvalue()], "a.npz", 6),
        "idx": (lambda path: read_idx(path, 3), [idx], "a-idx", 8),
        "idx.gz": (lambda path: read_idx(path, 3), [gzip.compress(idx)], "a-idx.gz", 5),
        "pickle": (lambda path: load_dict(path, 1 << 20), [pickle.dumps(batch, n) for n in range(6)], "batch", 12),
        "csv": (_table, csv, "a.csv", 2),
        "csv.gz": (_table, [gzip.compress(text) for text in csv], "a.csv.gz", 1),
        "csv, predicted": (_samples(csv[0]), csv[:1], "new.csv", 2),
        "toml": (read_toml, [toml], "a.toml", 12),
        "model": (_same("model"), [pack("model", DESCRIPTION, TENSORS)], "m", 14),
        "checkpoint": (_same("checkpoint"), [pack("checkpoint", DESCRIPTION, TENSORS)], "c", 14),
        "run.json": (_marker, [b'{"format": 2, "finished": true, "epochs": 3}\n'], rundir.MARKER, 12),
        ".lock": (_lock, [b'{"pid": 12345, "host": "here"}'], lock.NAME, 6),
    }
    if find_spec("pyarrow") is not None:
        found["parquet"] = (_table, [_parquet(csv[0])], "a.parquet", 2)
    return found


def _table(path):
    return fcnet.data.load(path, target="kind")


def _samples(csv):
    """Return what `fcnet predict` reads, with the plan of a table."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Path(folder, "a.csv").write_bytes(csv)
        learned = _table(Path(folder, "a.csv"))
    return lambda path: data_inputs.samples(str(path), learned.features, None, None, learned.plan)


def _parquet(csv):
    import pyarrow.csv
    import pyarrow.parquet

    written = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.csv.read_csv(io.BytesIO(csv)), written)
    return written.getvalue()


def _same(kind):
    """Read a model or checkpoint, of which nothing that was saved may be another."""

    def read(path):
        content = unpack(path, kind)
        if pack(kind, *content) != whole:
            raise Believed
        return content

    whole = pack(kind, DESCRIPTION, TENSORS)
    return read


class Believed(Exception):
    """What was read is not what was saved."""


def _marker(path):
    return rundir.is_finished(path.parent)


def _lock(path):
    lock.Lock(path.parent).release()


TOKENS = (
    b"", b"\0", b"\xff" * 8, b"[" * 2000, b"(" * 500, b"9" * 5000, b"{}", b"nan", b"1e999", b'"', b"\x80\x04", b"-1",
    b"\x85" * 3000, b"\xef\xbb\xbf", "\u202e".encode(), b"\n" * 50, b"null", b"true", b"__metadata__", b"'" * 3,
)  # fmt: skip


def mutated(whole, chance):
    """Return the file with one to eight changes: bits, bytes, cuts, doublings, swaps, and what readers choke on."""
    data = bytearray(whole)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        at = chance.randrange(len(data) + 1)
        kind = chance.randrange(7)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 1 and at < len(data):
            data[at] = chance.choice((0, 1, 127, 128, 255, chance.randrange(256)))
        elif kind == 2:
            del data[at : at + chance.choice((1, 2, 4, 30))]
        elif kind == 3:
            data[at:at] = chance.choice(TOKENS)
        elif kind == 4:
            data[at:at] = data[at : at + chance.randrange(1, 40)]
        elif kind == 5:
            del data[at:]
        elif at + 4 <= len(data):
            data[at : at + 4] = struct.pack(chance.choice("<>") + "I", chance.choice((0, 2**31, 2**32 - 1, len(data))))
    return bytes(data)


class Hangs(Exception):
    """The reader takes too long."""


def inputs(count, seed):
    """Give each reader a mutated input, which it must read or refuse in one line."""
    chance = random.Random(seed)
    found = corpus()
    names = [name for name, (_, _, _, share) in found.items() for _ in range(share)]
    limit = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_in_use() + MEMORY, limit[1]))

    def too_long(*_):
        raise Hangs

    before = signal.signal(signal.SIGPROF, too_long)
    try:
        with (
            tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder,
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            for _ in range(count):
                name = chance.choice(names)
                read, wholes, file, _ = found[name]
                content = mutated(chance.choice(wholes), chance)
                yield tried(read, Path(folder, file), content, name)
    finally:
        signal.signal(signal.SIGPROF, before)
        resource.setrlimit(resource.RLIMIT_AS, limit)


def _in_use():
    """Bytes of addresses that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def tried(read, path, content, name):
    """Return what went wrong with this content, or None."""
    path.write_bytes(content)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        read(path)
    except REFUSALS as error:
        message = str(error)
        good = "\n" not in message and path.name in message and len(message) < 1000
        return None if good else f"{name}: not a line that names the file: {message[:300]!r}: {content[:200]!r}"
    except BaseException as error:
        return f"{name}: {type(error).__name__} {str(error)[:100]}: {content[:300]!r}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return None
