"""The exact bits of ten small trainings: `python -m tests.golden record` keeps them, `check` compares.

Bits depend on the BLAS and the code that it picks for this CPU, on NumPy, on Numba and on the number of threads. So
they are kept under a key of all these, and `check` says in one line when it knows no bits for this machine. A change
that means to change bits records them anew in the same commit, and says so.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import fcnet
from fcnet.backends.cpu import loader

FILE = Path(__file__).with_name("golden.json")
STEPS = (1, 2, 10, 60)  # after which the bits are looked at

#: Name -> the network's options, the Solver's, and what data it learns.
NETS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "relu, adam": ({}, {"update_rule": "adam"}, "classes"),
    "batch norm, dropout, momentum": (
        {"normalization": "batchnorm", "dropout_keep_ratio": 0.7},
        {"update_rule": "momentum", "lr_decay": 0.9},
        "classes",
    ),
    "batch norm, wide, adam, L2": (
        {"hidden_dims": [300, 120], "normalization": "batchnorm", "reg": 1e-3},
        {"update_rule": "adam", "batch_size": 128},
        "classes",
    ),
    "layer norm, sgd, L2": ({"normalization": "layernorm", "reg": 0.01}, {"update_rule": "sgd"}, "classes"),
    "dropout, rmsprop, bytes": (
        {"dropout_keep_ratio": 0.5},
        {"update_rule": "rmsprop", "preprocess": "standardize"},
        "bytes",
    ),
    "gelu and tanh, squares, clipped": (
        {"activation": ["gelu", "tanh", "relu"], "loss": "mse"},
        {"update_rule": "rmsprop", "clip_norm": 1.0, "schedule": "cosine", "schedule_config": {"warmup": 1}},
        "numbers",
    ),
    "hinge, L1, nesterov": ({"loss": "svm", "reg_l1": 1e-3}, {"update_rule": "nesterov"}, "classes"),
    "silu, labels, adagrad": (
        {"activation": "silu", "loss": "bce", "normalization": "layernorm"},
        {"update_rule": "adagrad", "clip_value": 0.01},
        "labels",
    ),
    "maxout, adamw, max-norm": (
        {"activation": "maxout", "normalization": "batchnorm"},
        {"update_rule": "adamw", "weight_decay": 0.1, "max_norm": 2.0},
        "classes",
    ),
    "elu, plain dropout, float64, smoothed": (
        {"activation": "elu", "dropout_keep_ratio": 0.8, "dropout": "plain", "dtype": "float64",
         "label_smoothing": 0.1},
        {"update_rule": "adam"},
        "weighted",
    ),
}  # fmt: skip


def data(kind: str) -> fcnet.data.Dataset:
    """700 samples of 60 features, 10 classes, 3 numbers or 3 labels; from a fixed seed."""
    rng = np.random.default_rng(20261126)
    n, d = 700, 60
    X = rng.standard_normal((n, d)).astype("float32")
    y: Any = (X[:, :10] + 0.5 * rng.standard_normal((n, 10))).argmax(axis=1)
    more: dict[str, Any] = {}
    if kind == "bytes":
        X = (40 * X + 128).clip(0, 255).astype("uint8")
    elif kind == "numbers":
        y, more = (X[:, :3] * X[:, 3:6]).astype("float64"), {"targets": "numbers"}
    elif kind == "labels":
        y, more = (X[:, :3] > 0).astype("float64"), {"targets": "numbers"}
    elif kind == "weighted":
        more = {"sample_weight": rng.uniform(0.5, 2, 600)}
    return fcnet.data.Dataset(X_train=X[:600], y_train=y[:600], X_val=X[600:], y_val=y[600:], **more)


def bits(name: str) -> dict[str, str]:
    """Return a net's losses, parameters and running statistics after each of STEPS, and its predictions then."""
    net, how, kind = NETS[name]
    ds = data(kind)
    outputs = 10 if ds.targets == "classes" else ds.y_train.shape[1]
    options = {"hidden_dims": [48, 40, 32], "input_dim": 60, "num_classes": outputs, "seed": 3, "device": "cpu"}
    model = fcnet.FullyConnectedNet(**(options | net))
    plain = {"batch_size": 50, "num_epochs": 5, "seed": 4, "preprocess": "none", "verbose": False}
    if "lr_decay" not in how:
        plain["schedule"] = "constant"
    solver = fcnet.Solver(model, ds, **(plain | how))
    found = {}
    for step in range(1, STEPS[-1] + 1):
        solver.step()
        if step in STEPS:
            found[str(step)] = digest(np.array(solver.loss_history), *model.params.values(), *model.state.values())
    found["scores"] = digest(model.scores(ds.X_val))
    return found


def digest(*arrays: np.ndarray) -> str:
    """Of the arrays' bytes."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()[:16]


def key() -> dict[str, Any] | None:
    """All that bits depend on but the code of fcnet; None where threadpoolctl is not there to ask the BLAS."""
    if importlib.util.find_spec("threadpoolctl") is None:
        return None
    from threadpoolctl import threadpool_info

    features = sorted(name for name, has in np._core._multiarray_umath.__cpu_features__.items() if has)
    loaded = [library for library in threadpool_info() if library["user_api"] == "blas"]
    # SciPy may have brought another one.
    blas = next((library for library in loaded if "numpy.libs" in library["filepath"]), loaded[0])
    return {
        "numpy": np.__version__,
        "blas": f"{blas['internal_api']} {blas['version']} {blas.get('architecture')}",
        "threads": blas["num_threads"],
        "kernels": fcnet.get_backend("cpu").describe().partition(", Numba ")[2] or "NumPy only",
        "libc": " ".join(platform.libc_ver()),
        "simd": hashlib.sha256(" ".join(features).encode()).hexdigest()[:8],
    }


def main(arguments: list[str] | None = None) -> int:
    """Record or check; 1 if bits differ."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("record", "check"))
    parser.add_argument("--file", type=Path, default=FILE)
    parser.add_argument("--commit", help="what `record` says the bits are of (default: git's HEAD)")
    options = parser.parse_args(arguments)
    if loader.load().broken:
        print(f"golden: kernels that shall be compared cannot be loaded: {loader.load().status}")
        return 1
    mine = key()
    if mine is None:
        print("golden: threadpoolctl is not installed, so nothing is compared: pip install -e '.[dev]'")
        return 0
    if options.what == "check" and not options.file.is_file():
        parser.error(
            f"--file: expected a file that `record` wrote, got {str(options.file)!r}; leave it out for {FILE.name}"
        )
    kept = json.loads(options.file.read_text()) if options.file.exists() else []
    others = [entry for entry in kept if entry["key"] != mine]
    if options.what == "record":
        nets = {name: bits(name) for name in NETS}
        others.append({"commit": options.commit or _head(), "key": mine, "nets": nets})
        options.file.write_text(json.dumps(others, indent=1) + "\n")
        print(f"golden: recorded {len(nets)} nets for {_told(mine)}")
        return 0
    known = [entry for entry in kept if entry["key"] == mine]
    if not known:
        print(f"golden: no bits are kept for {_told(mine)}; python -m tests.golden record, at a commit that is trusted")
        return 0
    wrong = list(_differences(known[0]["nets"]))
    for line in wrong:
        print(f"golden: {line}, unlike at {known[0]['commit']}")
    print(f"golden: {len(NETS)} nets, {len(wrong) or 'no'} differences from {known[0]['commit']}; {_told(mine)}")
    return 1 if wrong else 0


def _differences(kept: dict[str, dict[str, str]]) -> Iterator[str]:
    for name in sorted(kept.keys() | NETS.keys()):
        if name not in kept or name not in NETS:
            yield f"{name}: it is in one of the two only"
            continue
        now = bits(name)
        odd = [when for when, value in kept[name].items() if now.get(when) != value]
        if odd:
            yield f"{name}: other bits after step {odd[0]}" if odd[0] != "scores" else f"{name}: other scores"


def _told(key: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in key.items())


def _head() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "(no git)"


if __name__ == "__main__":
    sys.exit(main())
