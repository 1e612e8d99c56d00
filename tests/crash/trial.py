"""The trial training of the crash test, its bits, and children that may die."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import fcnet
from fcnet.errors import TrainingWarning
from fcnet.runs import rundir
from fcnet.training import checkpointing
from tests.needed import HANGS
from tests.small import blobs, net

DATA = blobs(n=60)


def training(out=None, force=False, epochs=4, net_options=None, **options):
    """Return a training of 24 steps with every kind of state: batch norm, dropout, moments, schedule, best weights."""
    model = net(DATA, **{"normalization": "batchnorm", "dropout_keep_ratio": 0.8} | (net_options or {}))
    how = {"update_rule": "adam", "schedule": "cosine", "batch_size": 10, "num_epochs": epochs, "verbose": False}
    return fcnet.Solver(model, DATA, out=out, force=force, **{"checkpoint_every": 1} | how | options)


class Kind(NamedTuple):
    """What is trained, in which way."""

    options: Mapping[str, Any] = MappingProxyType({})
    replaces: bool = False  # an old run
    threads: int = 1

    def training(self, out=None, force=False):
        """Set it up; the threads are those of this process from now on."""
        os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(self.threads)
        return training(out, force, **self.options)

    def fits(self):
        """Whether it can be had here."""
        is_there = self.options.get("update_rule") != "lbfgs" or find_spec("scipy") is not None
        return is_there and self.threads <= len(os.sched_getaffinity(0))


PLAIN = Kind()
KINDS = {
    "plain": PLAIN,
    "seldom": Kind({"checkpoint_every": 7}),
    "never": Kind({"checkpoint_every": "1h"}),
    "rare rule": Kind(
        {"update_rule": "lion", "net_options": {"normalization": "layernorm", "dtype": "float32"}, "keep": 1}
    ),
    "lbfgs": Kind(
        {
            "update_rule": "lbfgs",
            "schedule": None,
            "batch_size": None,
            "epochs": 6,
            "net_options": {"dropout_keep_ratio": 1},
        }
    ),
    "replaces": Kind(replaces=True),
    "two threads": Kind({"net_options": {"hidden": (256, 256)}, "epochs": 2}, threads=2),
}


def of_a_table(folder):
    """Return a training on a table: its model has a plan."""
    rows = "".join(f"{i % 7}.5,{'abc'[i % 3]},2024-0{1 + i % 9}-11,{'yes' if i % 2 else 'no'}\n" for i in range(60))
    (folder / "a.csv").write_text(f"size,kind,day,bought\n{rows}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = fcnet.data.load(folder / "a.csv", target="bought")
    solver = fcnet.Solver(net(data, hidden=(3,)), data, num_epochs=1, verbose=False)
    solver.train()
    return solver


def resumed(out, kind=PLAIN):
    """Return the training in a folder, to continue; begun again if it was killed before its first checkpoint."""
    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(kind.threads)
    try:
        return fcnet.Solver.resume(out, data=DATA, verbose=False)
    except FileNotFoundError:  # before it had written its configuration
        return kind.training(out)
    except ValueError as error:
        if "found none" not in str(error):
            raise
        return kind.training(out, force=True)


def bits(solver):
    """SHA-256 of all that a training leaves, but for the seconds."""
    total = hashlib.sha256(solver.model.params.flat.tobytes() + solver.model.state.flat.tobytes())
    for moment in solver.optimizer.moments.values() if solver.full_batch is None else ():
        total.update(moment.flat.tobytes())
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in solver.history]
    total.update(json.dumps([rows, solver.loss_history, solver.best_epoch]).encode())
    total.update(solver.model.scores(DATA.X_test).tobytes())
    return total.hexdigest()


def quickly():
    """Checkpoints at every step, whatever they cost; the temporary folder in memory if there is one.

    Nor are pictures drawn, which takes ten times as long as all that is tried here: their file holds a word.
    """
    checkpointing.SHARE = 1e9
    rundir.curves_png = lambda record: b"a picture"
    warnings.simplefilter("ignore", TrainingWarning)
    return tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)


class Child:
    """A forked process that runs a function; what it returns comes back as JSON, if it lives to return it."""

    def __init__(self, work):
        self._read, write = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid:
            os.close(write)
            return
        code = 1
        try:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.alarm(HANGS)
            os.close(self._read)
            with os.fdopen(write, "w") as out:
                json.dump(work(), out)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)

    def wait(self):
        """Its exit status (negative: the signal) and what it returned, or None."""
        with os.fdopen(self._read) as pipe:
            text = pipe.read()
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return status, json.loads(text) if status == 0 else None
