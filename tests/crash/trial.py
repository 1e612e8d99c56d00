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
from pathlib import Path

import fcnet
from fcnet.errors import TrainingWarning
from fcnet.training import checkpointing
from tests.small import blobs, net

DATA = blobs(n=60)


def training(out=None, force=False, epochs=4, **options):
    """A training of 24 steps with all that has a state: batch norm, dropout, moments, a schedule, best parameters."""
    model = net(DATA, normalization="batchnorm", dropout_keep_ratio=0.8)
    how = {"update_rule": "adam", "schedule": "cosine", "batch_size": 10, "num_epochs": epochs, "verbose": False}
    return fcnet.Solver(model, DATA, out=out, force=force, **{"checkpoint_every": 1} | how | options)


def resumed(out):
    """The training in a folder, to go on; begun again if it was killed before its first checkpoint."""
    try:
        return fcnet.Solver.resume(out, data=DATA, verbose=False)
    except FileNotFoundError:  # before it had written its configuration
        return training(out)
    except ValueError as error:
        if "found none" not in str(error):
            raise
        return training(out, force=True)


def bits(solver):
    """SHA-256 of all that a training leaves, but for the seconds."""
    total = hashlib.sha256(solver.model.params.flat.tobytes() + solver.model.state.flat.tobytes())
    for moment in solver.optimizer.moments.values():
        total.update(moment.flat.tobytes())
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in solver.history]
    total.update(json.dumps([rows, solver.loss_history, solver.best_epoch]).encode())
    total.update(solver.model.scores(DATA.X_test).tobytes())
    return total.hexdigest()


def quickly():
    """Checkpoints at every step, whatever they cost; the temporary folder in memory if there is one."""
    checkpointing.SHARE = 1e9
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
        with os.fdopen(self._read) as told:
            text = told.read()
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return status, json.loads(text) if status == 0 else None
