"""The parts of the crash test: each makes so many tries, and yields for each a text: what was lost or believed.

Where nothing was, it yields None, or in a list what was seen, to be counted.
"""

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
from fcnet.runs.checkpoints import Checkpoints
from fcnet.runs.container import unpack
from tests.crash import fuzz
from tests.crash.trial import KINDS, PLAIN, Child, bits, of_a_table, quickly, resumed, training


def kills(count, seed):
    """SIGKILL at any moment, of the training and of what goes on with it; in the end the bits are the same."""
    chance = random.Random(seed)
    with quickly() as folder:
        old = Path(folder, "old")
        training(old, epochs=1).train()
        whole = {name: _whole(Path(folder, name), kind) for name, kind in KINDS.items() if kind.fits()}
        for number in range(count):
            name = list(whole)[number % len(whole)]
            kind, (expected, lasts), out = KINDS[name], whole[name], Path(folder, str(number))
            if kind.replaces:
                shutil.copytree(old, out)
            left, seen = 1 + (chance.random() < 0.3), []
            work = _train(out, kind)
            while left:
                child = Child(work)
                time.sleep(chance.random() ** chance.choice((1, 3)) * lasts)
                child.kill()
                child.wait()
                seen.append(_stage(out))
                left, work = left - 1, _go_on(out, kind)
            status, found = Child(_go_on(out, kind)).wait()
            if (status, found) == (0, expected) and _is_clean(out):
                yield [f"{name}: killed {seen[-1]}"]
            else:
                yield f"kill {number}, {name}, {', then '.join(seen)}: {status} {found}, expected {expected}"
            shutil.rmtree(out, ignore_errors=True)


def _whole(out, kind):
    """Return the bits of a training that is not killed, and the seconds that it takes, of two trainings."""
    runs = []
    for number in range(2):
        started = time.perf_counter()
        status, found = Child(_train(out.with_name(f"{out.name}-{number}"), kind)).wait()
        assert status == 0
        runs.append((found, time.perf_counter() - started))
    assert runs[0][0] == runs[1][0]
    return min(runs)


def bits_of(solver):
    solver.train()
    return bits(solver)


def _train(out, kind):
    return lambda: bits_of(kind.training(out, force=kind.replaces))


def _go_on(out, kind=PLAIN):
    def work():
        if not out.is_dir():
            return bits_of(kind.training(out))
        if (out / rundir.MARKER).exists() and not list((out / "checkpoints").glob("step-*")):
            # Its last checkpoint could not be written, and that was said.
            whole = kind.training()
            found, same = bits_of(whole), (fcnet.load(out).params.flat == whole.model.params.flat).all()
            return found if same else "another model"
        solver = resumed(out, kind)
        if solver.num_epochs == 1:  # the old run, whole: killed before the new one had begun
            solver.run.release()
            fcnet.load(out)
            return bits_of(kind.training(out, force=True))
        if (solver.run.work / rundir.MARKER).exists() and solver._is_over():  # killed after its last file was written
            solver.run.release()
            solver._restore_best()
            return bits(solver)
        return bits_of(solver)

    return work


def _stage(out):
    """Return what a process that was killed had come to, as its folder tells."""
    beside = out.with_name(f".{out.name}.new")
    folder = beside if (beside / rundir.REPLACES).exists() else out
    if not (folder / rundir.CONFIG).exists():
        return "before its configuration was there"
    if (folder / rundir.MARKER).exists():
        return "when all was written" if folder == out else "before it took the old run's place"
    if (folder / FILE_NAME).exists() or list(folder.glob(f".{FILE_NAME}.*")):
        return "while its files were written"
    if list(folder.rglob("step-*.safetensors")):
        return "among its steps"
    return "before its first checkpoint"


def _is_clean(out):
    fcnet.load(out)
    left = [path for place in (out, out.parent / f".{out.name}.new", out.parent / f".{out.name}.old")
            for path in place.rglob(".*")]  # fmt: skip
    return rundir.is_finished(out) and not left


# File calls

CALLS = ("open", "replace", "fsync", "unlink", "mkdir", "rmdir", "chmod", "pwrite", "ftruncate", "fdopen")
MODES = ("fail", "cut", "stop")


class Fault:
    """The so-manieth file call fails, is cut short, or is the last that the process makes (a write: half of it).

    `inside`: of a class and the name of its method, calls made in it only.
    """

    def __init__(self, at, mode, inside=None):
        self.at, self.mode, self.count, self.inside, self.counts = at, mode, 0, inside, inside is None

    def install(self):
        for name in CALLS:
            setattr(os, name, self._faulty(getattr(os, name)))
        self._fdopen = os.fdopen
        os.fdopen = lambda *a, **k: _Cut(self, self._fdopen(*a, **k))
        if self.inside is not None:
            owner, name = self.inside
            setattr(owner, name, self._counting(getattr(owner, name)))

    def strike(self, last=lambda: None):
        """Whether it is this call's turn; where it is the last, `last` is done first."""
        self.count += self.counts
        strikes = self.counts and self.count == self.at
        if strikes and self.mode == "stop":
            last()
            os._exit(9)
        return strikes

    def _faulty(self, real):
        def call(*arguments, **how):
            if threading.current_thread() is threading.main_thread() and self.strike():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*arguments, **how)

        return call

    def _counting(self, real):
        def call(*arguments, **how):
            self.counts = True
            try:
                return real(*arguments, **how)
            finally:
                self.counts = False

        return call


class _Cut:
    """A file whose writes may be cut short."""

    def __init__(self, fault, file):
        self._fault, self._file = fault, file

    def write(self, data):
        def half():
            self._file.write(data[: len(data) // 2])
            self._file.flush()

        if self._fault.strike(half):
            if self._fault.mode == "cut":
                half()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._file.write(data)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()

    def __getattr__(self, name):
        return getattr(self._file, name)


def _faulted(work, at, mode, inside=None):
    """How many calls it made, if it lived; "refused" if it said so in an OSError."""

    def run():
        fault = Fault(at, mode, inside)
        fault.install()
        try:
            work()
        except OSError:
            return "refused"
        return fault.count

    return Child(run).wait()


def calls(count, seed):
    """Every call of a save failed, cut short, or the last: of a model, a checkpoint, a run, a run that replaces one."""
    with quickly() as folder:
        old, new = training(epochs=1), training(epochs=2)
        old.train()
        new.train()
        expected = bits_of(training())
        tries = [
            *_tries(Path(folder, "m"), lambda at: old.model.save(at), lambda at: new.model.save(at), _is_model),
            *_tries(Path(folder, "c"), None, _with_checkpoints, _is_run(expected), (Checkpoints, "write")),
            *_tries(Path(folder, "r"), None, lambda at: training(at, checkpoint_every="1h").train(), _is_run(expected)),
            *_tries(
                Path(folder, "f"),
                lambda at: training(at, epochs=1).train(),
                lambda at: training(at, force=True, checkpoint_every="1h").train(),
                _is_run(expected),
            ),
        ]
        random.Random(0).shuffle(tries)  # the same for all that share them
        for one in tries[seed % fuzz.WORKERS :: fuzz.WORKERS][:count]:
            yield one()


def _with_checkpoints(at):
    """Return a training whose checkpoints are written by its own thread, so that their calls can be counted."""
    threading.Thread.start = no_thread
    training(at, checkpoint_every=7).train()


def _tries(place, before, work, check, inside=None):
    def prepare(at):
        shutil.rmtree(at, ignore_errors=True)
        at.mkdir()
        if before is not None:
            before(at / "it")

    prepare(place)
    _, total = _faulted(lambda: work(place / "it"), 0, "fail", inside)

    def one(number, mode):
        at = place.with_name(f"{place.name}{number}{mode}")

        def run():
            prepare(at)
            status, done = _faulted(lambda: work(at / "it"), number, mode, inside)
            try:
                if mode != "stop" and status != 0:
                    return f"{at.name}: neither done nor an OSError: {status}"
                if mode != "stop" and inside is not None and done == "refused":
                    return f"{at.name}: the training did not go on"
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
        """Check that a whole run is there, the old or the new one, and that the new one can be had with its bits."""
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
    """Flipped bits of the payload of models and of a checkpoint."""
    chance = random.Random(seed)
    with quickly() as folder:
        files, place = _files(folder), Path(folder, "flipped")
        for number in range(count):
            data, kind = files[number % len(files)]
            yield _flipped(place, data, kind, chance.randrange(8 * _size(data), 8 * len(data)))


def header(count, seed):
    """Every bit of the header of models and of a checkpoint, or of them as many as are asked for."""
    with quickly() as folder:
        found, place = _header_bits(folder), Path(folder, "flipped")
        for number in _share(len(found), count, seed):
            yield _flipped(place, *found[number])


def header_bits():
    """How many there are."""
    with quickly() as folder:
        return len(_header_bits(folder))


def _header_bits(folder):
    return [(data, kind, bit) for data, kind in _files(folder) for bit in range(8 * _size(data))]


def _share(total, count, seed):
    """So many of so many numbers, far apart, that no other process takes; all of them where the shares are enough."""
    return ((seed % fuzz.WORKERS + number * fuzz.WORKERS) * total // (count * fuzz.WORKERS) for number in range(count))


def _size(data):
    return 8 + int.from_bytes(data[:8], "little")


def _files(folder):
    """Content and kind: of a model, of one of a table, which has a plan, of a checkpoint."""
    training(Path(folder, "run")).train()
    (checkpoint,) = Path(folder, "run", "checkpoints").iterdir()
    of_a_table(Path(folder)).model.save(Path(folder, "of-a-table"))
    files = {Path(folder, "run", FILE_NAME): "model", Path(folder, "of-a-table"): "model", checkpoint: "checkpoint"}
    return [(path.read_bytes(), kind) for path, kind in files.items()]


def _flipped(place, data, kind, bit):
    flipped = bytearray(data)
    flipped[bit // 8] ^= 1 << bit % 8
    return _believed(place, flipped, kind, f"bit {bit}")


def truncations(count, seed):
    """Models and checkpoints of every length less than their own, or of them as many as are asked for."""
    with quickly() as folder:
        found = _lengths(folder)
        for number in _share(len(found), count, seed):
            data, kind, length = found[number]
            yield _believed(Path(folder, "cut"), data[:length], kind, f"length {length}")


def lengths():
    """How many there are."""
    with quickly() as folder:
        return len(_lengths(folder))


def _lengths(folder):
    return [(data, kind, length) for data, kind in _files(folder) for length in range(len(data))]


def _believed(place, data, kind, what):
    place.write_bytes(data)
    try:
        unpack(place, kind)
    except ValueError:
        return None
    return f"{kind}, {what}: believed"


# A full disk, no threads, damaged caches


def full(count, seed):
    """Train on a disk that is too small, in memory if one can be mounted: the last good checkpoint stays.

    What is there goes on where there is room, with the bits of a training that always had it.
    """
    chance = random.Random(seed)
    with quickly() as folder:
        expected = bits_of(training())
        for number in range(count):
            size = chance.randrange(4, 120)
            place, roomy = Path(folder, str(number)), Path(folder, f"{number}-roomy")
            place.mkdir()
            mounted = _mount(place, size)

            def work(place=place, size=size, mounted=mounted):
                if not mounted:
                    sys.dont_write_bytecode = True  # Python would not notice that it is cut off
                    resource.setrlimit(resource.RLIMIT_FSIZE, (size * 256, size * 256))
                    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                with contextlib.suppress(OSError):
                    training(place / "run").train()
                    return "written"
                return "refused"

            try:
                status, answer = Child(work).wait()
                if (place / "run").exists():
                    shutil.copytree(place / "run", roomy)
                _, found = Child(_go_on(roomy)).wait()
                if status == 0 and found == expected:
                    yield [f"{answer}, {'in memory' if mounted else 'files limited'}"]
                else:
                    yield f"disk of {size} kB: {status} {answer} {found}"
            finally:
                shutil.rmtree(roomy, ignore_errors=True)
                if mounted:
                    subprocess.run(["umount", place], check=True)


def _mount(place, size):
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(place)], capture_output=True, check=False
    )
    return done.returncode == 0


def no_thread(*_, **__):
    """In place of what starts one."""
    raise RuntimeError("can't start new thread")


def threads(count, seed):
    """No thread to be had: the same bits."""

    def work(out):
        for module in (_thread, threading):
            for name in ("start_new_thread", "start_joinable_thread", "_start_new_thread", "_start_joinable_thread"):
                if hasattr(module, name):
                    setattr(module, name, no_thread)
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
