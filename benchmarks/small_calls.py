"""Small calls beside the courses' own way to write them: `python -m benchmarks.small_calls --json FILE`.

What a notebook calls on a few numbers costs what its checks and its dispatch cost. The plain versions are written anew
in the courses' style; results are compared before anything is timed, and both take turns in one process.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks import command
from benchmarks.command import describe
from benchmarks.report import Record, digits, heading, table
from benchmarks.timing import plan, summarize
from fcnet.compat.cs231n.classifiers.k_nearest_neighbor import KNearestNeighbor
from fcnet.compat.cs231n.classifiers.neural_net import TwoLayerNet
from fcnet.compat.dlfs.functions import softmax
from fcnet.compat.dlfs.gradient import numerical_gradient

GOAL = 1.3  # time of fcnet's over the plain version's, at most
REG = 0.05


class Pair(NamedTuple):
    """Compute one thing by fcnet and plainly."""

    name: str
    ours: Callable[[], Any]
    plain: Callable[[], Any]


def pairs() -> list[Pair]:
    """Draw the inputs and return what is compared."""
    rng = np.random.default_rng(0)
    row, rows, point = rng.standard_normal(10), rng.standard_normal((100, 10)), rng.standard_normal((20, 5))
    samples, labels = rng.standard_normal((500, 64)), rng.integers(0, 10, 500)
    asked = rng.standard_normal((50, 64))
    knn = KNearestNeighbor()
    knn.train(samples, labels)
    distances = knn.compute_distances_no_loops(asked)
    net = TwoLayerNet(4, 10, 3, std=0.1)
    X, y = 10 * rng.standard_normal((5, 4)), np.array([0, 1, 2, 2, 1])
    return [
        Pair("softmax of 10 numbers", lambda: softmax(row), lambda: plain_softmax(row)),
        Pair("softmax of 100 rows of 10", lambda: softmax(rows), lambda: plain_softmax(rows)),
        Pair(
            "numerical gradient in 100 numbers",
            lambda: numerical_gradient(_squares, point),
            lambda: plain_gradient(_squares, point),
        ),
        Pair(
            "votes of 5 neighbours, 50 x 500",
            lambda: knn.predict_labels(distances, k=5),
            lambda: plain_votes(distances, labels, 5),
        ),
        Pair(
            "distances, 50 x 500 x 64",
            lambda: knn.compute_distances_no_loops(asked),
            lambda: plain_distances(asked, samples),
        ),
        Pair(
            "loss and gradients, 4-10-3, 5 samples",
            lambda: net.loss(X, y, reg=REG),
            lambda: plain_loss(net.params, X, y),
        ),
    ]


def _squares(x: np.ndarray) -> float:
    return np.sum(x**2)


def plain_softmax(x: np.ndarray) -> np.ndarray:
    """Return exp(x) over its sum along the last axis."""
    e = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


def plain_gradient(f: Callable[[np.ndarray], float], x: np.ndarray, h: float = 1e-4) -> np.ndarray:
    """Return the central differences of f at x."""
    grad = np.zeros_like(x)
    it = np.nditer(x, flags=["multi_index"], op_flags=[["readwrite"]])
    while not it.finished:
        at, old = it.multi_index, x[it.multi_index]
        x[at] = old + h
        above = f(x)
        x[at] = old - h
        grad[at] = (above - f(x)) / (2 * h)
        x[at] = old
        it.iternext()
    return grad


def plain_votes(distances: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """Return the most frequent label of the k nearest, row by row."""
    found = np.zeros(len(distances), labels.dtype)
    for i, row in enumerate(distances):
        found[i] = np.argmax(np.bincount(labels[np.argsort(row)[:k]]))
    return found


def plain_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the distances between rows, by expanding the square."""
    squares = np.sum(x**2, axis=1)[:, None] + np.sum(y**2, axis=1) - 2 * x.dot(y.T)
    return np.sqrt(np.maximum(squares, 0))


def plain_loss(params: dict[str, np.ndarray], X: np.ndarray, y: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
    """Return the loss of a two-layer net and its gradients."""
    w1, b1, w2, b2 = (params[name] for name in ("W1", "b1", "W2", "b2"))
    count = len(X)
    hidden = np.maximum(0, X.dot(w1) + b1)
    probs = plain_softmax(hidden.dot(w2) + b2)
    loss = -np.log(probs[range(count), y]).mean() + REG * (np.sum(w1 * w1) + np.sum(w2 * w2))
    probs[range(count), y] -= 1
    dscores = probs / count
    grads = {"W2": hidden.T.dot(dscores) + 2 * REG * w2, "b2": dscores.sum(axis=0)}
    dhidden = dscores.dot(w2.T)
    dhidden[hidden <= 0] = 0
    return loss, grads | {"W1": X.T.dot(dhidden) + 2 * REG * w1, "b1": dhidden.sum(axis=0)}


def differs(ours: Any, plain: Any) -> bool:
    """Return whether two results are not the same to rounding (numerical gradients included)."""
    if isinstance(ours, tuple):
        return differs(ours[0], plain[0]) or any(differs(ours[1][name], plain[1][name]) for name in plain[1])
    return not np.allclose(ours, plain, rtol=1e-6, atol=1e-8)


def measure(rounds: int, round_ms: float) -> list[dict[str, Any]]:
    """Return a row for each pair: medians in microseconds, and the ratio round by round."""
    found = []
    for pair in pairs():
        row: dict[str, Any] = {"name": pair.name}
        found.append(row)
        if differs(pair.ours(), pair.plain()):
            row |= {"kind": "wrong", "refused": "another result than the plain version"}
            continue
        calls = [plan(call, round_ms, 1, 1, 1.0).calls for call in (pair.ours, pair.plain)]
        times: tuple[list[float], list[float]] = ([], [])
        for turn in range(rounds):
            for which in (0, 1) if turn % 2 else (1, 0):
                times[which].append(_seconds((pair.ours, pair.plain)[which], calls[which]))
        low, ratio, high = np.percentile(np.array(times[0]) / np.array(times[1]), [25, 50, 75])
        row |= {"ours_us": summarize(times[0]).median_us, "plain_us": summarize(times[1]).median_us}
        row |= {"ratio": round(float(ratio), 3), "low": round(float(low), 3), "high": round(float(high), 3)}
    return found


def _seconds(call: Callable[[], Any], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def markdown(record: Record) -> str:
    """Return the table."""
    cells = []
    for row in record["rows"]:
        if "refused" in row:
            cells.append([row["name"], row["refused"], "", "", ""])
            continue
        verdict = "reached" if row["ratio"] <= GOAL else "missed"
        spread = f"{row['ratio']:.2f} ({row['low']:.2f}–{row['high']:.2f})"
        cells.append([row["name"], digits(row["ours_us"]), digits(row["plain_us"]), spread, verdict])
    lines = [
        *heading(f"Small calls, {record['date']}", record),
        f"Microseconds, medians of {record['rounds']} rounds in turns, float64; the ratio's goal is at most {GOAL}.",
        "",
        *table(["", "fcnet", "plain NumPy", "ratio (quartiles)", ""], cells, left=(0, 4)),
    ]
    return "\n".join(lines) + "\n"


def _plan(options: argparse.Namespace) -> Callable[[], Record]:
    rounds, round_ms = (3, 2.0) if options.quick else (21, 20.0)
    return lambda: describe("cpu", options.threads) | {"rounds": rounds, "rows": measure(rounds, round_ms)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code, as `command.run` says."""
    return command.run("small_calls", __doc__, arguments, _plan, markdown)


if __name__ == "__main__":
    sys.exit(main())
