"""The parts of the crash test. Each makes so many tries and yields, for each, what was lost or believed, or None."""

from __future__ import annotations

import _thread
import contextlib
import errno
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import fcnet
from fcnet.runs import rundir
from fcnet.runs.checkpoint import FILE_NAME
from fcnet.runs.container import unpack
from tests.crash import fuzz
from tests.crash.trial import Child, bits, quickly, resumed, training


def kills(count, seed):
    """SIGKILL at any moment, of the training and of what goes on with it; in the end the bits are the same."""
    chance = random.Random(seed)
    with quickly() as folder:
        started = time.perf_counter()
        expected = bits_of(training(Path(folder, "whole")))
        lasts = time.perf_counter() - started
        for number in range(count):
            out = Path(folder, str(number))
            left = 1 + (chance.random() < 0.3)
            work = _train(out)
            while left:
                child = Child(work)
                time.sleep(chance.random() * lasts)
                child.kill()
                child.wait()
                left, work = left - 1, _go_on(out)
            status, found = Child(_go_on(out)).wait()
            yield None if (status, found) == (0, expected) and _is_clean(out) else f"kill {number}: {status} {found}"
            shutil.rmtree(out, ignore_errors=True)


def bits_of(solver):
    solver.train()
    return bits(solver)


def _train(out):
    return lambda: bits_of(training(out))


def _go_on(out):
    def work():
        if out.is_dir() and (out / rundir.MARKER).exists():  # killed after its last file was written
            if not list((out / "checkpoints").glob("step-*")):  # its last could not be written, and that was said
                whole = training()
                found, same = bits_of(whole), (fcnet.load(out).params.flat == whole.model.params.flat).all()
                return found if same else "another model"
            return bits(again(out))
        return bits_of(resumed(out)) if out.is_dir() else bits_of(training(out))

    return work


def again(out):
    """A finished training as it ended: its last checkpoint, with the best parameters put back."""
    solver = resumed(out)
    solver.run.release()
    solver._restore_best()
    return solver


def _is_clean(out):
    fcnet.load(out)
    return rundir.is_finished(out) and not list(out.rglob(".*"))


# File calls

CALLS = ("open", "replace", "fsync", "unlink", "mkdir", "rmdir", "chmod", "pwrite", "ftruncate", "fdopen")
MODES = ("fail", "cut", "stop")


class Fault:
    """The so-manieth file call fails, is cut short, or is the last that the process makes."""

    def __init__(self, at, mode):
        self.at, self.mode, self.count = at, mode, 0

    def install(self):
        for name in CALLS:
            setattr(os, name, self._faulty(getattr(os, name)))
        self._fdopen = os.fdopen
        os.fdopen = lambda *a, **k: _Cut(self, self._fdopen(*a, **k))

    def strike(self):
        """Whether it is this call's turn."""
        self.count += 1
        if self.count == self.at and self.mode == "stop":
            os._exit(9)
        return self.count == self.at

    def _faulty(self, real):
        def call(*arguments, **how):
            if threading.current_thread() is threading.main_thread() and self.strike():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*arguments, **how)

        return call


class _Cut:
    """A file whose writes may be cut short."""

    def __init__(self, fault, file):
        self._fault, self._file = fault, file

    def write(self, data):
        if self._fault.strike():
            if self._fault.mode == "cut":
                self._file.write(data[: len(data) // 2])
                self._file.flush()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._file.write(data)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()

    def __getattr__(self, name):
        return getattr(self._file, name)


def _faulted(work, at, mode):
    """How many calls it made, if it lived; "refused" if it said so in an OSError."""

    def inside():
        fault = Fault(at, mode)
        fault.install()
        try:
            work()
        except OSError:
            return "refused"
        return fault.count

    return Child(inside).wait()


def calls(count, seed):
    """Every call of a save failed, cut short, or the last: of a model, a run, a run that replaces another."""
    with quickly() as folder:
        old, new = training(epochs=1), training(epochs=2)
        old.train()
        new.train()
        expected = bits_of(training())
        tries = [
            *_tries(Path(folder, "m"), lambda at: old.model.save(at), lambda at: new.model.save(at), _is_model),
            *_tries(Path(folder, "r"), None, lambda at: training(at, checkpoint_every="1h").train(), _is_run(expected)),
            *_tries(
                Path(folder, "f"),
                lambda at: training(at, epochs=1).train(),
                lambda at: training(at, force=True, checkpoint_every="1h").train(),
                _is_run(expected),
            ),
        ]
        random.Random(seed).shuffle(tries)
        for one in tries[:count]:
            yield one()


def _tries(place, before, work, check):
    def prepare(at):
        shutil.rmtree(at, ignore_errors=True)
        at.mkdir()
        if before is not None:
            before(at / "it")

    prepare(place)
    _, total = _faulted(lambda: work(place / "it"), 0, "fail")

    def one(number, mode):
        at = place.with_name(f"{place.name}{number}{mode}")

        def run():
            prepare(at)
            status, _ = _faulted(lambda: work(at / "it"), number, mode)
            try:
                if mode != "stop" and status != 0:
                    return f"{at.name}: neither done nor an OSError: {status}"
                return check(at / "it", had=before is not None)
            finally:
                shutil.rmtree(at, ignore_errors=True)

        return run

    return [one(number, mode) for number in range(1, total + 1) for mode in MODES]


def _is_model(path, had):
    try:
        fcnet.load(path)
    except (ValueError, OSError) as error:
        return f"model: {error}"
    return None


def _is_run(expected):
    def check(path, had):
        """What is there is a whole run, the old or the new one, and the new one can be had with its bits."""
        if had:
            try:
                fcnet.load(path)
                lines = len((path / rundir.HISTORY).read_text().splitlines())
                if lines not in (2, 5) or not rundir.is_finished(path):
                    return f"{path.parent.name}: a mixture"
                if lines == 2:
                    return None
            except (ValueError, OSError) as error:
                return f"{path.parent.name}: {error}"
        status, found = Child(_go_on(path)).wait()
        return None if (status, found) == (0, expected) else f"{path.parent.name}: {status} {found}"

    return check


# Bits and lengths


def flips(count, seed):
    """Flipped bits of the payload of a model and of a checkpoint."""
    yield from _flipped(count, seed, lambda data, chance, size: chance.randrange(8 * size, 8 * len(data)))


def header(count, seed):
    """Every bit of the header of a model and of a checkpoint; seed/step choose a share of them."""
    yield from _flipped(count, seed, None)


def header_bits():
    """How many there are, the larger of the two files' counted for both."""
    with quickly() as folder:
        return sum(8 * _size(path.read_bytes()) for path, _ in _files(folder))


def _size(data):
    return 8 + int.from_bytes(data[:8], "little")


def _files(folder):
    out = Path(folder, "run")
    if not out.exists():
        training(out).train()
    (checkpoint,) = (out / "checkpoints").iterdir()
    return [(out / FILE_NAME, "model"), (checkpoint, "checkpoint")]


def _flipped(count, seed, choose):
    chance = random.Random(seed)
    with quickly() as folder:
        files = [(path.read_bytes(), kind) for path, kind in _files(folder)]
        bits_ = [(data, kind, bit) for data, kind in files for bit in range(8 * _size(data))] if choose is None else []
        place = Path(folder, "flipped")
        for number in range(count):
            if choose is None:
                data, kind, bit = bits_[(seed + number * fuzz.WORKERS) % len(bits_)]
            else:
                data, kind = files[number % 2]
                bit = choose(data, chance, _size(data))
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            yield _believed(place, flipped, kind, f"bit {bit}")


def truncations(count, seed):
    """Models and checkpoints of every length less than their own."""
    with quickly() as folder:
        files = [(path.read_bytes(), kind) for path, kind in _files(folder)]
        lengths = [(data, kind, length) for data, kind in files for length in range(len(data))]
        for number in range(count):
            data, kind, length = lengths[(seed + number * fuzz.WORKERS) * max(1, len(lengths) // count) % len(lengths)]
            yield _believed(Path(folder, "cut"), data[:length], kind, f"length {length}")


def lengths():
    """How many there are."""
    with quickly() as folder:
        return sum(path.stat().st_size for path, _ in _files(folder))


def _believed(place, data, kind, what):
    place.write_bytes(data)
    try:
        unpack(place, kind)
    except ValueError:
        return None
    return f"{kind}, {what}: believed"


# A full disk, no threads, damaged caches


def full(count, seed):
    """A training on a disk that is too small, in memory if one can be mounted: the last good one stays."""
    chance = random.Random(seed)
    with quickly() as folder:
        for number in range(count):
            size = chance.randrange(4, 120)
            place = Path(folder, str(number))
            place.mkdir()
            mounted = _mount(place, size)

            def work(place=place, size=size, mounted=mounted):
                if not mounted:
                    sys.dont_write_bytecode = True  # Python would not notice that it is cut off
                    resource.setrlimit(resource.RLIMIT_FSIZE, (size * 256, size * 256))
                    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                with contextlib.suppress(OSError):
                    training(place / "run").train()
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    for path in (place / "run" / "checkpoints").glob("step-*"):
                        unpack(path, "checkpoint")
                    if (place / "run" / FILE_NAME).exists():
                        fcnet.load(place / "run")
                return "whole"

            try:
                status, told = Child(work).wait()
                yield None if told == "whole" else f"disk of {size} kB: {status}"
            finally:
                if mounted:
                    subprocess.run(["umount", place], check=True)


def _mount(place, size):
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(place)], capture_output=True, check=False
    )
    return done.returncode == 0


def threads(count, seed):
    """No thread to be had: the same bits."""

    def none(*_, **__):
        raise RuntimeError("can't start new thread")

    def work(out):
        for module in (_thread, threading):
            for name in ("start_new_thread", "start_joinable_thread", "_start_new_thread", "_start_joinable_thread"):
                if hasattr(module, name):
                    setattr(module, name, none)
        return bits_of(training(out))

    with quickly() as folder:
        expected = bits_of(training())
        for number in range(count):
            status, found = Child(lambda number=number: work(Path(folder, str(number)))).wait()
            yield None if found == expected else f"no threads: {status}"


def caches(count, seed):
    """Flipped bits in compiled kernels as they are kept: none is loaded."""
    from fcnet.backends.cpu.cache import _Summed

    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        file = _Summed(folder, "kernel", "stamp")
        file.save("signature", chance.randbytes(20_000))
        stored = [(path, path.read_bytes()) for path in Path(folder).iterdir()]
        for number in range(count):
            path, whole = stored[number % len(stored)]
            bit = chance.randrange(8 * len(whole))
            flipped = bytearray(whole)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            try:
                file.load("signature")
            except ValueError:
                yield None
            else:
                yield f"{path.name}, bit {bit}: believed"
            path.write_bytes(whole)
