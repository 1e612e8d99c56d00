"""What was found once, F1 to F12, tried from outside: `python -m tests.crash.findings TREE` says what holds there.

Through the command line and files, so that checkouts can be compared whose insides differ: in commit 058d939, before
any of it was mended, none holds. Which tests of this suite look after each: docs/tests.md.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROWS = "".join(f"{at * 7 % 40},{at % 3}.5,{('cat', 'dog')[at * 7 % 40 > 19]}\n" for at in range(120))

# Before `fcnet.cli.main`: the so-manieth call of os.replace that puts a file whose name ends so fails or is the last.
REPLACE = """
import errno, os, sys
real, left = os.replace, [int(sys.argv[2])]
def replace(source, target, **how):
    if str(target).endswith(sys.argv[1]):
        left[0] -= 1
        if left[0] == 0:
            os._exit(9) if sys.argv[3] == "end" else None
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return real(source, target, **how)
os.replace = replace
from fcnet.cli import main
sys.exit(main(sys.argv[4:]))
"""
NO_THREADS = """
import _thread, sys, threading
def none(*_, **__): raise RuntimeError("can't start new thread")
for module in (_thread, threading):
    for name in ("start_new_thread", "start_joinable_thread", "_start_new_thread", "_start_joinable_thread"):
        if hasattr(module, name): setattr(module, name, none)
from fcnet.cli import main
sys.exit(main(sys.argv[1:]))
"""
AT_ONCE = """
import os, signal, sys
numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
import fcnet
from fcnet.cli import main
real = fcnet.Solver.train
def train(self):
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    for number in numbers: os.kill(os.getpid(), number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
    return real(self)
fcnet.Solver.train = train
sys.argv[:1] = ["fcnet"]
sys.exit(main())
"""
RAISES = """
import sys, fcnet
ds = fcnet.data.load("spirals")
solver = fcnet.Solver(fcnet.FullyConnectedNet([8], 2, ds.num_classes, device="cpu"), ds, num_epochs=9, out=sys.argv[1],
                      verbose=False)
def after():
    if solver.epoch == 3: raise RuntimeError("as if")
solver.after_epoch = after
solver.train()
"""
PICKLE = """
import sys; from pathlib import Path; from fcnet.data.restricted_pickle import load_dict
try: load_dict(Path(sys.argv[1]), 1 << 20)
except ValueError: pass
"""


class Tree:
    """A checkout, and a folder to work in."""

    def __init__(self, root, folder):
        self.root, self.folder = Path(root).resolve(), Path(folder)
        (self.folder / "a.csv").write_text(f"size,legs,kind\n{ROWS}")

    def python(self, *arguments, **environment):
        """Run Python there; without compiled kernels, which take a minute, unless they are asked for."""
        return subprocess.run(
            [sys.executable, *map(str, arguments)], cwd=self.folder, capture_output=True, text=True, timeout=600,
            env=os.environ | {"PYTHONPATH": str(self.root), "FCNET_NUMBA": "0"} | environment,
        )  # fmt: skip

    def fcnet(self, *arguments, **environment):
        return self.python("-m", "fcnet", *arguments, **environment)

    def train(self, out, *more, program=("-m", "fcnet"), **environment):
        how = ("--target", "kind", "--hidden", "5", "--device", "cpu", "--quiet", "--seed", "1")
        return self.python(*program, "train", "--data", "a.csv", *how, "--out", out, *more, **environment)

    def path(self, *parts):
        return self.folder.joinpath(*parts)


def _line(done, code=2):
    """What is wrong with an answer that is to be one line and this code."""
    if done.returncode == code and done.stderr.count("\n") == 1:
        return None
    return f"exit {done.returncode}, {done.stderr.count(chr(10))} lines: {done.stderr.strip().splitlines()[-1:]}"


def f1(tree):
    """A flipped bit in a model's header."""
    tree.train("run", "--epochs", "2")
    model = tree.path("run", "model.safetensors")
    whole = model.read_bytes()
    model.write_bytes(whole.replace(b"cat", b"bat"))
    assert model.read_bytes() != whole
    tree.path("new.csv").write_text("size,legs\n1,0.5\n2,1.5\n")
    done = tree.fcnet("predict", "run", "new.csv")
    return f"exit {done.returncode}, predicts {done.stdout.split()[1:]}" if done.returncode == 0 else _line(done)


def f2(tree):
    """What a callback that raises, or a kill, leaves."""
    tree.python("-c", RAISES, "raised")
    if not tree.path("raised", "model.safetensors").exists():
        return "a callback that raised in epoch 3 left no model"
    return None


def f3(tree):
    """A kill between the last renames: the next training in that folder must not delete the whole model."""
    done = tree.train("run", "--epochs", "2", program=("-c", REPLACE, "history.csv", 1, "end"))
    assert done.returncode == 9, done.stderr
    before = {path.read_bytes() for path in tree.path("run").iterdir() if path.is_file()}
    tree.train("run", "--epochs", "1")
    after = {path.read_bytes() for path in tree.path("run").iterdir() if path.is_file()}
    lost = max(before, key=len) not in after
    return "the next training deleted the whole model" if lost else None


def f4(tree):
    """A flipped bit in the compiled kernels as they are kept."""
    cache = {"NUMBA_CACHE_DIR": str(tree.path("kernels")), "FCNET_NUMBA": "1"}
    tree.train("first", "--epochs", "1", **cache)
    kept = sorted(tree.path("kernels").rglob("*.nbc"))
    assert kept
    for path in kept:
        data = bytearray(path.read_bytes())
        data[data.index(b"\x7fELF") + 64 + 24] ^= 16  # in machine code, which follows 64 bytes of header
        path.write_bytes(data)
    done = tree.train("second", "--epochs", "1", **cache)
    return None if done.returncode == 0 else f"exit {done.returncode}, {len(kept)} damaged kernels"


def f5(tree):
    """--force is all or nothing, whichever rename fails."""
    mixed = []
    for name in ("history.csv", "curves.png", "model.safetensors", "config.toml"):
        out = f"run-{name}"
        tree.train(out, "--epochs", "2")
        before = {path.name: path.read_bytes() for path in tree.path(out).iterdir() if path.is_file()}
        # The first config.toml is put before training, the others after it.
        at = 2 if name == "config.toml" else 1
        done = tree.train(out, "--epochs", "3", "--force", program=("-c", REPLACE, f"/{name}", at, "fail"))
        after = {path.name: path.read_bytes() for path in tree.path(out).iterdir() if path.is_file()}
        files = ("history.csv", "model.safetensors")
        same = [after.get(file) == before[file] for file in files]
        if done.returncode and any(same) != all(same):
            mixed.append(name)
    return f"a mixture of two runs when the rename of {', '.join(mixed)} failed" if mixed else None


def f6(tree):
    """What killed writers leave is removed by the next."""
    tree.train("run", "--epochs", "1")
    tree.path("new.csv").write_text("size,legs\n1,0.5\n")
    predict = ("predict", "run", "new.csv", "--out", "p.csv")
    tree.python("-c", REPLACE, "p.csv", 1, "end", *predict)
    assert tree.fcnet(*predict).returncode == 0
    left = [path.name for path in tree.folder.glob(".*")]
    return f"left beside it: {left}" if left else None


def f7(tree):
    """No thread to be had."""
    kernels = {"NUMBA_CACHE_DIR": str(tree.path("kernels")), "FCNET_NUMBA": "1"}
    done = tree.train("run", "--epochs", "1", program=("-c", NO_THREADS), **kernels)
    failed = done.returncode or "Traceback" in done.stderr
    return f"exit {done.returncode}: {done.stderr.strip()[-80:]}" if failed else None


def f8(tree):
    """A pickle 200,000 deep."""
    tree.path("batch").write_bytes(b"\x80\x02})" + b"\x85" * 200_000 + b"K\x01s.")
    done = tree.python("-c", PICKLE, "batch")
    return None if done.returncode == 0 else f"exit {done.returncode}"


def f9(tree):
    """An npz with an unclosed header; TOML 3,000 deep."""
    text = b"{'descr': '<f8', 'fortran_order': False, 'shape': (3,"
    with zipfile.ZipFile(tree.path("a.npz"), "w") as archive:
        for name in ("X.npy", "y.npy"):
            archive.writestr(name, b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)
    tree.path("a.toml").write_text("hidden = " + "[" * 3000 + "]" * 3000)
    failures = [_line(tree.fcnet("train", "--data", "a.npz", "--out", "run"))]
    failures.append(_line(tree.fcnet("train", "--config", "a.toml", "--out", "run")))
    return "; ".join(one for one in failures if one) or None


def f10(tree):
    """A password in --mirror."""
    place = {"FCNET_DATA": str(tree.path("data"))}
    done = tree.fcnet("fetch", "mnist", "--mirror", "http://me:hush@127.0.0.1:9/data", **place)
    return "the password is echoed" if "hush" in done.stderr + done.stdout else None


def f11(tree):
    """A megabyte of npz whose members are no arrays."""
    with zipfile.ZipFile(tree.path("a.npz"), "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("X", "y"):
            archive.writestr(name, bytes(500_000_000))
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    tree.fcnet("train", "--data", "a.npz", "--out", "run")
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    size = tree.path("a.npz").stat().st_size
    return f"{most >> 10} MiB for {size:,} bytes" if most > max(before, 600 << 10) else None


def f12(tree):
    """Three signals at once; escapes in names of columns."""
    done = tree.train("run", program=("-c", AT_ONCE))
    failures = [None if done.stderr == "fcnet: interrupted\n" else f"signals: {done.stderr.strip().splitlines()[-1:]}"]
    tree.path("a.csv").write_text(f"size\x1b[2J,legs,kind\n{ROWS}")
    done = tree.fcnet("train", "--data", "a.csv", "--target", "no such", "--out", "other")
    failures.append("escapes reach the terminal" if "\x1b" in done.stderr else None)
    return "; ".join(one for one in failures if one) or None


ALL = (f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12)


def main():
    root, *only = sys.argv[1:] or ["."]
    failed = 0
    for find in ALL:
        if only and find.__name__ not in only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            failures = find(Tree(root, folder))
        failed += failures is not None
        print(f"{find.__name__.upper():4} {find.__doc__.rstrip('.')}: {failures or 'holds'}", flush=True)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
