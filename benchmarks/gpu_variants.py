"""Variants of the persistent kernel on a GPU, in one go of a minute: `python -m benchmarks.gpu_variants --out DIR`.

For small nets: how many rows each row block takes, how many threads a block has, how the first layer's weights are cut
into tiles. All are compiled at once; each variant's first steps are compared with
the CPU's; then it is timed, many steps a launch and one, and at the end again, in turns. Of some the time of each phase
of a step is read from the clock of their blocks. The file is written anew after each variant.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import fcnet
from benchmarks import machine
from benchmarks.command import Parser
from fcnet.backends import Status, probe
from fcnet.backends.caches import EPS, MOMENTUM, keep_threshold
from fcnet.backends.cuda.persistent import JOB, THREADS, Plan, plans
from fcnet.backends.cuda.sources import source
from fcnet.files import write_atomically

PROOF, STEPS, LAUNCHES, ROUNDS = 5, 150, 3, 7
FAR = 1e-3  # from the CPU's first losses, relative: the kernel is wrong
ROWS = 100 * (STEPS + PROOF + 5)
MARKS = 24
#: What comes before each mark of a step in persistent.cu, of a tile block and of a row block.
PHASES = {
    1: "product", 2: "arrive", 3: "gather the next batch", 4: "await the rows", 5: "load dz", 6: "gradient and rule",
    9: "await the weights", 10: "load the weights", 11: "await the tiles", 12: "sum the parts", 13: "finish layer 1",
    14: "later layers", 15: "loss", 16: "backward", 17: "arrive", 18: "await the rows", 19: "stage",
    20: "update norms", 21: "update tiles", 22: "arrive",
}  # fmt: skip
#: In front of the source where the phases are timed; the last step but one of a launch is kept.
CLOCKED = f"""
__device__ long long marks[256 * {MARKS}];
#define MARK(place) if (threadIdx.x == 0 && s == job.steps - 2) marks[blockIdx.x * {MARKS} + place] = clock64()
"""


class Net:
    """Train a net of the table of whole steps on random data, by Adam."""

    def __init__(
        self,
        name: str,
        inputs: int,
        hidden: Sequence[int],
        norm: bool,
        keep: float,
        batch: int = 100,
        many: bool = False,
    ) -> None:
        """Build the net; `many`: whether threads and tiles are varied, too."""
        self.name, self.inputs, self.hidden, self.norm, self.keep, self.batch = name, inputs, hidden, norm, keep, batch
        self.many = many
        rng = np.random.default_rng(0)
        self.X = rng.standard_normal((ROWS, inputs), dtype=np.float32)
        self.y = rng.integers(0, 10, ROWS)
        self.expected = self._solver()
        self.start = [self._state(self.expected)]
        for _ in range(PROOF):
            self.expected.step()
        self.losses = np.array(self.expected.loss_history)
        self.there: dict[str, Any] = {}  # on the device, for all variants

    def _solver(self) -> fcnet.Solver:
        how = {"normalization": "batchnorm" if self.norm else None, "dropout_keep_ratio": self.keep}
        model = fcnet.FullyConnectedNet(self.hidden, self.inputs, 10, device="cpu", **how)
        data = {"X_train": self.X, "y_train": self.y, "X_val": self.X[:100], "y_val": self.y[:100]}
        how = {"update_rule": "adam", "schedule": "constant", "batch_size": self.batch, "preprocess": "none"}
        return fcnet.Solver(model, data, **how, verbose=False)

    def _state(self, solver: fcnet.Solver) -> dict[str, np.ndarray]:
        moments = solver.optimizer.moments
        state = solver.model.state.flat
        return {
            "params": solver.model.params.flat.copy(),
            "moment1": moments["m"].flat.copy(),
            "moment2": moments["v"].flat.copy(),
            "running": state.copy() if state.size else np.zeros(1, np.float32),
            "order": solver._batches.order.copy(),
        }

    @property
    def widths(self) -> tuple[int, ...]:
        return (self.inputs, *self.hidden, 10)

    def offsets(self) -> dict[str, list[int]]:
        """Return where each layer's tensors lie in the flat buffers."""
        model, layers = self.expected.model, range(len(self.hidden) + 2)
        found = model.params.spans() | (model.state.spans() if self.norm else {})
        names = {"W": "W", "B": "b", "GAMMA": "gamma", "BETA": "beta", "MEAN": "running_mean", "VAR": "running_var"}
        return {
            f"{key}_AT": [found.get(f"{name}{layer}", (0, 0))[0] for layer in layers] for key, name in names.items()
        }


class Variant:
    """Compile a plan on the device."""

    def __init__(self, cupy: Any, net: Net, plan: Plan, cubin: Path) -> None:
        self.cupy, self.net, self.plan = cupy, net, plan
        module = cupy.RawModule(path=str(cubin), enable_cooperative_groups=True)
        self.module, self.kernel = module, module.get_function("train_steps")
        self.kernel.max_dynamic_shared_size_bytes = plan.shared
        self.arrays = {name: cupy.zeros(size, kind) for name, (size, kind) in plan.buffers().items()}
        net.there = net.there or {"x": cupy.asarray(net.X), "y": cupy.asarray(net.y)}
        self.arrays |= net.there | {
            "counters": cupy.zeros(2, "int64"),
            "step": cupy.zeros(1, "int64"), "rates": cupy.full(1, 1e-3), "losses": cupy.zeros(1024, "float32"),
        }  # fmt: skip
        self.arrays |= {name: cupy.asarray(value) for name, value in net.start[0].items()}
        stream = self.net.expected.model.mask_streams(0)[0]
        job = np.zeros(1, JOB)
        for name, array in self.arrays.items():
            if name != "rates":
                job[name] = array.data.ptr
        values = {
            "count": ROWS, "slots": 1024, "constants": (0.9, 0.999, 1e-8), "momentum": MOMENTUM,
            "eps": EPS, "threshold": keep_threshold(net.keep), "keep_scale": 1 / net.keep, "rows": net.batch,
        }  # fmt: skip
        if stream is not None:
            values |= {"seed": stream.key[0], "purpose": stream.key[1], "net": stream.net}
        for name, value in values.items():
            job[name] = value
        self.job = cupy.asarray(job.view(np.uint8))

    def launch(self, steps: int) -> None:
        arguments = self.job, self.arrays["rates"], np.int32(1), np.int32(steps)
        self.kernel((self.plan.blocks,), (self.plan.threads,), arguments, shared_mem=self.plan.shared)

    def rewind(self) -> None:
        self.arrays["counters"][...] = 0

    def proof(self) -> dict[str, float]:
        """Return the largest differences from the CPU's after the first steps."""
        for steps in (1, 1, PROOF - 2):
            self.launch(steps)
        expected = self.net.expected
        losses = self.arrays["losses"][:PROOF].get()
        weights = np.abs(self.arrays["params"].get() - expected.model.params.flat).max()
        far = float(np.abs(losses / self.net.losses - 1).max())
        if not far < FAR:
            raise ArithmeticError(f"losses {losses.tolist()}, not {self.net.losses.tolist()}")
        return {"loss": far, "weights": float(weights)}

    def microseconds(self, steps: int, launches: int) -> float:
        """Return the duration of a step, in launches of so many."""
        self.rewind()
        begin, end = self.cupy.cuda.Event(), self.cupy.cuda.Event()
        begin.record()
        for _ in range(launches):
            self.launch(steps)
        end.record()
        end.synchronize()
        return self.cupy.cuda.get_elapsed_time(begin, end) * 1e3 / steps / launches


def candidates(net: Net, blocks: int, shared: int) -> dict[str, Plan]:
    """Return plans by what is varied, the one that training would take first: for threads and rows of a block, the best
    tiles by the model; of two rows and four, the second best, too."""
    found: dict[str, Plan] = {}
    for threads in sorted((256, 512), key=THREADS.__ne__) if net.many else (THREADS,):
        how = {"norm": int(net.norm), "threads": threads}
        fitting = list(plans(net.widths, net.batch, blocks=blocks, shared=shared, **how))
        for rows in dict.fromkeys(plan.rows_of_block for plan in fitting if plan.rows_of_block in (2, 4)):
            best = [plan for plan in fitting if plan.rows_of_block == rows]
            for number, plan in enumerate(best[: 2 if net.many and threads == THREADS else 1]):
                name = f"{net.name} {rows} rows, {threads} threads{', other tiles' if number else ''}"
                found[name] = plan
    return found


def compiled(folder: Path, jobs: list[tuple[str, str]], arch: str) -> Iterator[tuple[str, Path | str]]:
    """Return for each source by its name the cubin, or what the compiler said."""
    from cupy.cuda import nvrtc

    def compile_one(job: tuple[str, str]) -> tuple[str, Path | str]:
        name, text = job
        program = nvrtc.createProgram(text, "persistent.cu", (), ())
        try:
            nvrtc.compileProgram(program, (f"-arch={arch}", "-std=c++17"))
        except nvrtc.NVRTCError:
            return name, nvrtc.getProgramLog(program)[-500:]
        path = folder / f"{name}.cubin"
        path.write_bytes(nvrtc.getCUBIN(program) + b"\0")  # whose last byte CuPy takes for the end of a string
        return name, path

    with ThreadPoolExecutor(16) as pool:
        yield from pool.map(compile_one, jobs)


def phases(variant: Variant) -> dict[str, dict[str, float]]:
    """Return cycles of each phase in one step: the median over the row blocks, and over the tile blocks."""
    variant.rewind()
    variant.launch(STEPS)
    pointer = variant.module.get_global("marks")
    marks = variant.cupy.ndarray((256, MARKS), "int64", memptr=pointer).get()
    rows, tiles = marks[: variant.plan.row_blocks], marks[variant.plan.row_blocks : variant.plan.blocks]
    found = {}
    for kind, part, places in (("tile", tiles, range(1, 7)), ("row", rows, range(9, 23))):
        found[kind] = {PHASES[i]: float(np.median(part[:, i] - part[:, i - 1])) for i in places}
        found[f"{kind}, most"] = {PHASES[i]: float(np.max(part[:, i] - part[:, i - 1])) for i in places}
    return found


def measure(cupy: Any, content: dict[str, Any], keep: Callable[[], None], until: float) -> None:
    """Measure the variants of all nets, as far as there is time; `keep` after each."""
    properties = cupy.cuda.runtime.getDeviceProperties(0)
    blocks, shared = properties["multiProcessorCount"], properties["sharedMemPerBlockOptin"] - 1024
    nets = [
        Net("cifar", 3072, [100] * 3, norm=True, keep=0.8, many=True),
        Net("mnist", 784, [100] * 4, norm=False, keep=1.0),
        Net("digits", 64, [100, 100], norm=True, keep=1.0),
    ]
    work = {name: (net, plan) for net in nets for name, plan in candidates(net, blocks, shared).items()}
    texts = [(name, head_of(net, plan)) for name, (net, plan) in work.items()]
    clocked = [name for name, (net, _) in work.items() if net.many and "other" not in name]
    texts += [(f"{name}, clocked", CLOCKED + head_of(*work[name])) for name in clocked]
    timed: list[tuple[dict[str, Any], Variant]] = []
    with tempfile.TemporaryDirectory() as folder:
        cubins = compiled(Path(folder), texts, f"sm_{cupy.cuda.Device().compute_capability}")
        for name, cubin in cubins:
            of = name.removesuffix(", clocked")
            row: dict[str, Any] = {"name": name, "net": work[of][0].name, "plan": described(work[of][1])}
            content["phases" if of != name else "variants"].append(row)
            if time.monotonic() > until:
                row["error"] = "no time was left"
                continue
            try:
                if isinstance(cubin, str):
                    raise RuntimeError(cubin)
                content["running"] = name
                keep()
                variant = Variant(cupy, *work[of], cubin)
                row["proof"] = variant.proof()
                if of != name:
                    row["cycles"] = phases(variant)
                else:
                    row["us"] = [variant.microseconds(STEPS, 1) for _ in range(LAUNCHES)]
                    row["us_single"] = variant.microseconds(1, STEPS)
                    timed.append((row, variant))
            except Exception as error:  # the others count
                row["error"] = f"{type(error).__name__}: {error}"
            content["running"] = None
            keep()
    for _ in range(ROUNDS):
        for row, variant in timed:
            if time.monotonic() < until:
                row.setdefault("us_in_turns", []).append(variant.microseconds(STEPS, 1))
    keep()


def head_of(net: Net, plan: Plan) -> str:
    """Return the source for this plan."""
    return plan.definitions(net.offsets()) + source("persistent")


def described(plan: Plan) -> dict[str, Any]:
    """Return the plan and what follows from it."""
    derived = {name: getattr(plan, name) for name in ("row_blocks", "tile_blocks", "k_slices", "later_tiles", "shared")}
    names = ("rows_of_block", "j1", "k1", "j2", "k2", "x_buffers", "threads")
    return {name: getattr(plan, name) for name in names} | derived


def table(content: dict[str, Any]) -> str:
    """Return what was found, for people."""
    lines = []
    for row in content["variants"]:
        if "error" in row:
            lines.append(f"{row['name']}: FAILED {row['error'][:300]}")
        else:
            proof = " ".join(f"{name} {value:.1e}" for name, value in row["proof"].items())
            turns = row.get("us_in_turns", row["us"])
            lines.append(
                f"{row['name']}: {median(turns):.2f} us ({min(turns):.2f} to {max(turns):.2f}), "
                f"alone {row['us_single']:.1f}; {proof}"
            )
    for row in content["phases"]:
        for kind, cycles in row.get("cycles", {"FAILED": {}}).items():
            lines.append(f"{row['name']} {kind}: " + ", ".join(f"{n} {c:.0f}" for n, c in cycles.items()))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 all measured; 1 a variant failed; 2 no GPU can be used; 3 one did not end in time."""
    parser = Parser(prog="benchmarks.gpu_variants", description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=Path("."), help="where gpu-variants.json goes")
    parser.add_argument("--limit", type=float, default=60, help="seconds after which no further variant is begun")
    options = parser.parse_args(arguments)
    found = probe()
    if found.status is not Status.OK:
        print(f"gpu-variants: no GPU can be used: {found.reason}; {found.remedy}", file=sys.stderr)
        return 2
    import cupy

    content: dict[str, Any] = {
        "date": machine.today(),
        "machine": machine.describe(["cpu", "cuda:0"]),
        "running": None,
        "variants": [],
        "phases": [],
    }
    options.out.mkdir(parents=True, exist_ok=True)

    def keep() -> None:
        write_atomically(options.out / "gpu-variants.json", json.dumps(content, indent=1) + "\n")

    def give_up() -> None:
        print(f"gpu-variants: {content['running']} did not end in time", file=sys.stderr, flush=True)
        os._exit(3)  # a kernel whose blocks wait for ever cannot be stopped otherwise

    start = time.monotonic()
    watch = threading.Timer(options.limit + 10, give_up)
    watch.daemon = True
    watch.start()
    measure(cupy, content, keep, start + options.limit)
    watch.cancel()
    print(table(content))
    print(f"{time.monotonic() - start:.0f} s")
    return int(any("error" in row for row in content["variants"]))


if __name__ == "__main__":
    sys.exit(main())
