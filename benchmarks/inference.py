"""How many rows a second `predict` classifies, beside scikit-learn and PyTorch: `python -m benchmarks.inference`."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
import tempfile
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks import command
from benchmarks.command import describe
from benchmarks.peers.compare_peers import QUICK, Effort, Row, ratio, take_turns
from benchmarks.peers.pool import Failure, Worker
from benchmarks.peers.predicting import CHUNK, VARIANTS, rows, temporary
from benchmarks.report import Record, digits, heading, table
from benchmarks.workloads import Workload, initial

JOB = "benchmarks.peers.predicting:Prediction"
NET = Workload("predict", 784, (256, 256), CHUNK, 1, rows=100_000)
TIE = 1e-4  # scores closer than this, relative to the largest, may be ordered either way in float32


def right_answer(workload: Workload) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes in float64, and where the two best scores are so close that rounding may decide."""
    weights = {name: value.astype(np.float64) for name, value in initial(workload).items()}
    classes, ties = [], []
    X = rows(workload)
    for start in range(0, len(X), CHUNK):
        x = X[start : start + CHUNK].astype(np.float64)
        for i in range(1, workload.layers + 1):
            x = x @ weights[f"W{i}"] + weights[f"b{i}"]
            x = np.maximum(x, 0) if i < workload.layers else x
        best = np.sort(x, axis=1)[:, -2:]
        classes.append(x.argmax(axis=1))
        ties.append(best[:, 1] - best[:, 0] <= TIE * np.abs(x).max(axis=1))
    return np.concatenate(classes), np.concatenate(ties)


def objection(predicted: np.ndarray, right: np.ndarray, ties: np.ndarray) -> str:
    """Return what is wrong with the predictions, or ""."""
    if predicted.shape != right.shape:
        return f"{predicted.shape} predictions, expected {right.shape}"
    wrong = int(np.count_nonzero((predicted != right) & ~ties))
    return f"{wrong} of {len(right)} rows are given another class" if wrong else ""


def measure(workload: Workload, threads: int, effort: Effort) -> list[Row]:
    """Return a row for every way to predict."""
    found: dict[str, Row] = {}
    workers: dict[str, Worker] = {}
    right, ties = right_answer(workload)

    def refuse(name: str, failure: Failure) -> None:
        found[name] |= {"refused": str(failure), "kind": failure.kind}
        if name in workers:
            workers.pop(name).close()
        print(f"{name} is not timed: {failure}", file=sys.stderr)

    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="fcnet-inference-"))
        for name, (_, _, _, environment) in VARIANTS.items():
            row: Row = {"contender": name}
            found[name] = row
            try:
                worker = Worker(JOB, threads, environment)
                stack.callback(worker.close)
                workers[name] = worker
                row |= worker.ask("make", way=name, workload=workload.to_dict())
                row |= worker.ask("measure_memory")
                worker.ask("prove", path=temporary(name, folder))
                if wrong := objection(np.load(temporary(name, folder)), right, ties):
                    raise Failure(f"wrong result: {wrong}", "wrong")
            except Failure as failure:
                refuse(name, failure)
        take_turns(workload.steps, workers, found, effort, refuse)
    for row in found.values():
        if "median_us" in row:
            row["rows_per_s"] = round(workload.count / row["median_us"] * 1e6)
    return list(found.values())


def markdown(record: Record) -> str:
    """Return the table."""
    net = Workload.from_dict(record["workload"])
    cells = []
    for row in record["rows"]:
        if "refused" in row:
            cells.append([row["contender"], row["refused"], "", "", ""])
            continue
        made = ratio(record["rows"], row["contender"], "fcnet")
        times = f"{digits(row['median_us'] / 1e3)} ± {digits(row['iqr_us'] / 1e3)}"
        speed = [f"{row['rows_per_s']:,}", times, f"{made['ratio']:.2f}" if made else ""]
        cells.append([row["contender"], *speed, f"{row['growth'] / 2**20:.0f}"])
    title = f"Predicting {net.count:,} rows with {net.describe().partition(',')[0]}, {record['date']}"
    lines = [
        *heading(title, record, record["versions"]),
        f"float32, {record['threads']} threads; `-chunked`: {CHUNK} rows at a time, as fcnet does of itself. Median "
        "over rounds that took turns; the classes were compared with float64's first. Memory: peak above the rows "
        "and the net themselves.",
        "",
        *table(["", "rows per second", "ms ± IQR", "time ÷ fcnet's", "memory, MiB"], cells),
    ]
    return "\n".join(lines) + "\n"


def _plan(options: argparse.Namespace) -> Callable[[], Record]:
    net = dataclasses.replace(NET, rows=10_000) if options.quick else NET
    effort = QUICK if options.quick else Effort()

    def measured() -> Record:
        record = describe("cpu", options.threads) | {"workload": net.to_dict(), "versions": {}}
        record["rows"] = measure(net, options.threads, effort)
        for row in record["rows"]:
            record["versions"] |= row.pop("versions", {})
        return record

    return measured


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code, as `command.run` says."""
    return command.run("inference", __doc__, arguments, _plan, markdown)


if __name__ == "__main__":
    sys.exit(main())
