"""Who multiplies faster, by shape: `python -m benchmarks.cpu_products --json FILE`.

The products of the nets in `workloads.py` in float32: fcnet's own sharing out of a private OpenBLAS
(`fcnet/backends/cpu/product.py`), beside NumPy's. Results are compared before they are timed; the two take turns, with
a pause after NumPy's, whose threads go on spinning for 0.1 s.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks import command
from benchmarks.command import describe
from benchmarks.report import Record, digits, heading, table
from benchmarks.workloads import workloads_for
from fcnet.backends.cpu import blas, pool, product

PAUSE = 0.12  # seconds, until OpenBLAS's threads sleep
WORK = 1e9  # operations of a turn


class Product(NamedTuple):
    """Describe one product of a layer with N rows, D inputs and M outputs."""

    layer: str
    kind: str  # "forward", "dW" or "dX"
    shape: tuple[int, int, int]


def products() -> Iterator[Product]:
    """Yield those of all nets, each shape once; no net needs the dX of its first layer."""
    seen = set()
    for workload in workloads_for("cpu").values():
        for i, width in enumerate(workload.widths[:-1], 1):
            shape = workload.batch, width, workload.widths[i]
            for kind in ("forward", "dW", "dX")[: 2 if i == 1 else 3]:
                if (shape, kind) not in seen:
                    seen.add((shape, kind))
                    yield Product(f"{workload.name} {i}", kind, shape)


def calls(made: Product) -> tuple[Callable[[], Any], Callable[[], Any], np.ndarray, np.ndarray]:
    """Return fcnet's call, NumPy's, and where each puts its result."""
    N, D, M = made.shape
    rng = np.random.default_rng(0)
    x, w, dout = (rng.standard_normal(shape, dtype=np.float32) for shape in ((N, D), (D, M), (N, M)))
    a, b, a_transposed, b_transposed = {
        "forward": (x, w, False, False),
        "dW": (x, dout, True, False),
        "dX": (dout, w, False, True),
    }[made.kind]
    left, right = (a.T if a_transposed else a), (b.T if b_transposed else b)
    out, numpys = (np.empty((left.shape[0], right.shape[1]), np.float32) for _ in range(2))
    task = product.task()

    def ours() -> None:
        pool.run(product.multiply, a, b, out, a_transposed, b_transposed, task, work=N * D * M)

    return ours, lambda: np.matmul(left, right, out=numpys), out, numpys


def measure(rounds: int) -> list[dict[str, Any]]:
    """Return a row for each product: GFLOP/s, medians, and NumPy's time over fcnet's round by round."""
    rows = []
    for made in products():
        ours, numpys, out, right = calls(made)
        ours(), numpys()
        row: dict[str, Any] = {"layer": made.layer, "kind": made.kind, "shape": list(made.shape)}
        rows.append(row)
        if not np.allclose(out, right, rtol=1e-3, atol=1e-2):
            row |= {"kind": "wrong", "refused": "another product than NumPy's"}
            continue
        flops = 2 * made.shape[0] * made.shape[1] * made.shape[2]
        count = max(3, round(WORK / flops))
        taken = []
        for _ in range(rounds):
            time.sleep(PAUSE)
            taken.append([_seconds(call, count) for call in (ours, numpys)])
        times = np.array(taken)
        low, ratio, high = np.percentile(times[:, 1] / times[:, 0], [25, 50, 75])
        row["gflops"], row["numpy_gflops"] = (round(float(flops / t / 1e9), 1) for t in np.median(times, axis=0))
        row |= {"ratio": round(float(ratio), 2), "low": round(float(low), 2), "high": round(float(high), 2)}
    return rows


def _seconds(call: Callable[[], Any], count: int) -> float:
    call()
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count


def markdown(record: Record) -> str:
    """Return the table."""
    cells = []
    for row in record["rows"]:
        shape = "x".join(map(str, row["shape"]))
        if "refused" in row:
            cells.append([row["layer"], shape, row["kind"], row["refused"], "", ""])
            continue
        spread = f"{row['ratio']:.2f} ({row['low']:.2f}–{row['high']:.2f})"
        cells.append([row["layer"], shape, row["kind"], digits(row["gflops"]), digits(row["numpy_gflops"]), spread])
    lines = [
        *heading(f"Products on the CPU, {record['date']}", record),
        f"GFLOP/s in float32, medians of {record['rounds']} rounds in turns; fcnet by OpenBLAS {record['library']}.",
        "Called from Python: 1 to 2 microseconds a call, which a recorded step of small arrays does not pay.",
        "",
        *table(
            ["layer", "N x D x M", "", "fcnet", "NumPy", "time of NumPy's ÷ fcnet's (quartiles)"], cells, left=(0, 1, 2)
        ),
    ]
    return "\n".join(lines) + "\n"


def _plan(options: argparse.Namespace) -> Callable[[], Record]:
    library = blas.loaded()
    if library is None or not product.served():
        raise ValueError("fcnet has no products of its own here; pip install 'fcnet[fast]'")
    rounds = 3 if options.quick else 5
    about = {"rounds": rounds, "library": f"{library.version} ({library.core})"}
    return lambda: describe("cpu", options.threads) | about | {"rows": measure(rounds)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code, as `command.run` says."""
    return command.run("cpu_products", __doc__, arguments, _plan, markdown)


if __name__ == "__main__":
    sys.exit(main())
