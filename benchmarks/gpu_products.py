"""What cuBLASLt and other passes over memory could gain in the steps of medium and large nets on a GPU.

`python -m benchmarks.gpu_products --out DIR`: each product of two nets' steps as fcnet makes it, by each of the
algorithms that cuBLASLt names, and with epilogues; then kernels for Adam, bias and ReLU in several shapes. Everything
is timed in CUDA graphs, as fcnet runs it. The JSON is written anew after each piece.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import command
from benchmarks.epilogues import mask_row, with_epilogue
from benchmarks.gpu_check import Clock, head
from benchmarks.run import HERE
from fcnet.backends import Status, get_backend, probe
from fcnet.backends.caches import relu_cache
from fcnet.backends.cuda import cublaslt, gemm
from fcnet.backends.cuda.cublaslt import BFLOAT16, FLOAT32, Algorithm, Lt, LtError, Problem, Product
from fcnet.backends.cuda.hidden import HiddenKernels
from fcnet.backends.cuda.launch import Launcher
from fcnet.files import write_atomically

SECONDS = 75.0
SWEEP_S = 8.0  # kept for the last part
PIECE_S = 4.0  # of a product or an epilogue at most
CALLS = 20  # in a graph
ROUNDS, ROUND_S = 3, 0.006
PLAIN, FUSED = 12, 6  # algorithms to try, without and with an epilogue
RUNS = 5  # that must give the same bits
COLD = 128 << 20  # bytes that no cache holds: operands have as many sets, up to one for each call of a graph
ROWS, COLUMNS = 4, 256  # of a result that are compared with float64
PADDED = 16  # to so many columns: a row of 10 numbers is not aligned
THREADS = 256
COMPUTE = {"float32": cublaslt.COMPUTE_FLOAT32, "tf32": cublaslt.COMPUTE_TF32, "bf16": cublaslt.COMPUTE_FLOAT32}
# (operands, result) -> the largest difference from float64, of the root mean square of the result.
TOLERANCE = {("float32", "float32"): 1e-3, ("tf32", "float32"): 1e-2, ("bf16", "float32"): 1e-3, ("bf16", "bf16"): 3e-2}
KINDS = {"float32": FLOAT32, "bf16": BFLOAT16}
ADAM_SIZE = 48 << 20  # parameters
SPLIT = 32  # parts of the rows of a backward pass, where there is no choice
HEIGHT, WIDTH = 8192, 4096  # of the matrix that kernels pass over
NO_ZEROS, NEGATIVE, ANY = 0, 1, 2  # which half of random numbers is zero: as after a ReLU, as in its gradient
PROCESSORS = 132  # of an H100
PARTS = ("large-tf32", "large-bf16", "wide-tf32", "layers", "wide-float32", "kernels")  # the dearest to know first
Keep = Callable[[], None]


class Net(NamedTuple):
    """Describe a fully connected net with hidden layers of one width."""

    batch: int
    inputs: int
    width: int
    hidden: int
    classes: int = 10


NETS = {"large": Net(8192, 3072, 4096, 4), "wide": Net(256, 3072, 1024, 2)}


class Case(NamedTuple):
    """Describe one of the products of a step: out = a @ b."""

    net: str
    precision: str
    layer: str  # first, inner, output, padded
    way: str  # forward, dx, dw
    times: int  # in a step
    rows: int
    inner: int
    columns: int

    @property
    def flops(self) -> int:
        return 2 * self.rows * self.inner * self.columns

    @property
    def storage(self) -> str:
        return "bf16" if self.precision == "bf16" else "float32"

    @property
    def turned(self) -> tuple[bool, bool]:
        """Return whether a and b lie transposed in memory: dx = dz wᵀ, dw = xᵀ dz."""
        return self.way == "dw", self.way == "dx"

    def problem(self, result: str) -> Problem:
        shape = self.rows, self.inner, self.columns
        return Problem(*shape, *self.turned, KINDS[self.storage], KINDS[result], COMPUTE[self.precision])


def cases(name: str, net: Net, precision: str) -> list[Case]:
    """Return the products of a step, the longest first; `padded`: an output layer with more columns."""
    layers = {
        "inner": (net.hidden - 1, net.width, net.width),
        "first": (1, net.inputs, net.width),
        "output": (1, net.width, net.classes),
        "padded": (0, net.width, PADDED),
    }
    found = []
    for layer, (count, inputs, outputs) in layers.items():
        shapes = {
            "forward": (net.batch, inputs, outputs),
            "dx": (net.batch, outputs, inputs),
            "dw": (inputs, net.batch, outputs),
        }
        found += [
            Case(name, precision, layer, way, count, *shapes[way]) for way in shapes if (layer, way) != ("first", "dx")
        ]
    return found


class Fused(NamedTuple):
    """Describe an epilogue to try, and the type of the bias or its gradient."""

    epilogue: str
    result: str
    bias: str


def epilogues(case: Case) -> list[Fused]:
    """Return the epilogues that belong to a product, the one that saves most first."""
    own = case.storage
    if case.way == "dw":
        return [Fused("bgrada", "float32", "float32")]
    if case.way == "dx":
        found = [Fused("drelu_bgrad", own, own), Fused("drelu", own, own)]
        return [*found, Fused("drelu_bgrad", own, "float32")] if own == "bf16" and case.layer == "inner" else found
    if case.layer in ("output", "padded"):
        return [Fused("bias", "float32", "float32")]
    found = [Fused(epilogue, own, own) for epilogue in ("relu_aux_bias", "relu_bias", "bias")]
    if own == "bf16" and case.layer == "inner":
        found += [Fused("relu_aux_bias", "bf16", "float32"), Fused("relu_aux_bias", "float32", "float32")]
    return found


class Bench:
    """Hold what measures everything: libraries, kernels, a workspace; and the best algorithms found."""

    def __init__(self, cupy: Any, clock: Clock) -> None:
        self.cupy, self.clock = cupy, clock
        self.lt = Lt(gemm.library("cublasLt"))
        self.launcher = Launcher(cupy)
        self.gemm = gemm.Gemm(self.launcher, gemm.library())
        self.hidden = HiddenKernels(self.launcher)
        self.workspace = cupy.empty(cublaslt.WORKSPACE, np.uint8)
        self._module = cupy.RawModule(code=Path(__file__).with_suffix(".cu").read_text("utf-8"))
        self._kernels: dict[str, Any] = {}
        one = cupy.zeros((1, 1), np.float32)
        self.launcher.each("add_bias", one, 1, one, one, one, np.int64(1), np.int32(1))  # compiles fcnet's kernels
        self.best: dict[tuple[Case, str, str], Algorithm] = {}  # of a case, a result and an epilogue

    def launch(self, name: str, grid: tuple[int, ...], block: tuple[int, ...], *arguments: Any) -> None:
        """Launch a kernel of gpu_products.cu."""
        if name not in self._kernels:
            self._kernels[name] = self._module.get_function(name)
        self._kernels[name](grid, block, arguments)

    def each(self, name: str, size: int, *arguments: Any) -> None:
        """Launch a thread for each of `size` elements."""
        self.launch(name, (-(-size // THREADS),), (THREADS,), *arguments)

    def normal(self, shape: tuple[int, ...], seed: int, scale: float = 1.0, zeros: int = NO_ZEROS) -> Any:
        """Draw normal numbers in float32; half of them may be zero."""
        out = self.cupy.empty(shape, np.float32)
        self.each("fill", out.size, out, np.int64(out.size), np.uint32(seed), np.float32(scale), np.int32(zeros))
        return out

    def stored(self, x: Any, storage: str) -> Any:
        """Return x itself, or rounded to the bits of bfloat16."""
        if storage == "float32":
            return x
        out = self.cupy.empty(x.shape, np.uint16)
        self.each("round_bf16", out.size, out, x, np.int64(out.size))
        return out

    def mask(self, x: Any) -> Any:
        """Return the bits of x > 0, as cuBLASLt has them."""
        row = mask_row(x.shape[1])
        out = self.cupy.empty((x.shape[0], row // 8), np.uint8)
        self.each("pack_mask", out.size, out, x, np.int64(x.shape[0]), np.int32(x.shape[1]), np.int32(row))
        return out

    def empty(self, shape: tuple[int, ...], storage: str) -> Any:
        return self.cupy.empty(shape, np.uint16 if storage == "bf16" else np.float32)

    def poison(self, x: Any) -> None:
        """Fill an array with NaN."""
        x.data.memset(255, x.nbytes)

    def copied(self, x: Any) -> Any:
        """Return a copy that needs no kernel of CuPy's, whose first takes a second to compile."""
        out = self.cupy.empty(x.shape, x.dtype)
        out.data.copy_from_device_async(x.data, x.nbytes)
        return out

    def differing(self, a: Any, b: Any) -> int:
        """Count the words of 32 bits that are not the same."""
        count = self.cupy.zeros(1, np.uint32)
        self.launch("differing", (1024,), (THREADS,), count, a, b, np.int64(a.nbytes // 4))
        return int(count.get()[0])

    @property
    def stream(self) -> int:
        return self.cupy.cuda.get_current_stream().ptr

    def captured(self, call: Callable[[int], object], calls: int) -> tuple[Any, Any]:
        """Return a graph of call(0), call(1), ... and the memory that belongs to it."""
        cupy = self.cupy
        cupy.cuda.get_current_stream().synchronize()
        pool, stream = cupy.cuda.MemoryPool(), cupy.cuda.Stream(non_blocking=True)
        with cupy.cuda.using_allocator(pool.malloc), stream:
            stream.begin_capture()
            try:
                for i in range(calls):
                    call(i)
            finally:
                graph = stream.end_capture()
        return graph, pool

    def milliseconds(self, graph: Any, launches: int) -> float:
        """Return the duration of so many launches, by the device's clock."""
        events = self.cupy.cuda
        begin, end = events.Event(), events.Event()
        begin.record()
        for _ in range(launches):
            graph.launch()
        end.record()
        end.synchronize()
        return float(events.get_elapsed_time(begin, end))

    def race(
        self, contenders: Mapping[str, Callable[[int], object]], until: float = 0, calls: int = CALLS
    ) -> dict[str, float]:
        """Return microseconds per call of each that can be captured: the median of rounds in which all take turns.

        At least one round is made; no other begins when less than `until` seconds are left.
        """
        graphs = {}
        for name, call in contenders.items():
            try:
                graphs[name] = self.captured(call, calls)
            except Exception:  # whatever the library refuses: the others count
                traceback.print_exc()
        launches = {}
        for name, (graph, _) in graphs.items():
            self.milliseconds(graph, 1)
            launches[name] = max(1, min(200, round(ROUND_S * 1e3 / self.milliseconds(graph, 1))))
        taken: dict[str, list[float]] = {name: [] for name in graphs}
        for i in range(ROUNDS):
            if i and self.clock.left() < until:
                break
            for name, (graph, _) in graphs.items():
                count = launches[name]
                taken[name].append(1e3 * self.milliseconds(graph, count) / count / calls)
        return {name: round(statistics.median(each), 3) for name, each in taken.items()}


def host(x: Any) -> np.ndarray:
    """Return an array on the host, in float32."""
    found = x.get()
    return (found.astype(np.uint32) << 16).view(np.float32) if found.dtype == np.uint16 else found


class Data:
    """Hold operands of a case, several sets if a cache would hold one; what an epilogue needs; part of the answer."""

    def __init__(self, bench: Bench, case: Case) -> None:
        self.bench, self.case = bench, case
        shapes = (case.rows, case.inner), (case.inner, case.columns)
        a, b = (tuple(reversed(s)) if turned else s for s, turned in zip(shapes, case.turned, strict=True))
        size = 4 * (case.rows * case.inner + case.inner * case.columns + case.rows * case.columns)
        self.sets = max(1, min(CALLS, -(-COLD // size)))
        activations = NO_ZEROS if case.layer == "first" else NEGATIVE
        gradients = ANY if case.layer in ("inner", "first") else NO_ZEROS  # of a loss none is zero
        zeros = {
            "forward": (activations, NO_ZEROS),
            "dx": (gradients, NO_ZEROS),
            "dw": (activations, gradients),
        }[case.way]
        self.full = [
            (bench.normal(a, 2 * i + 1, zeros=zeros[0]), bench.normal(b, 2 * i + 2, case.inner**-0.5, zeros[1]))
            for i in range(self.sets)
        ]
        self.operands = [tuple(bench.stored(x, case.storage) for x in pair) for pair in self.full]
        self._results: dict[str, list[Any]] = {}
        self.hidden = bench.normal((case.rows, case.columns), 99, zeros=NEGATIVE)
        self.mask = bench.mask(self.hidden)
        self.bias = bench.normal((case.columns,), 98, 0.1)
        self.biases = {storage: bench.stored(self.bias, storage) for storage in ("float32", "bf16")}
        self.gradient = bench.cupy.empty(case.columns, np.float32)  # of the bias
        self.lines = sorted({0, case.rows // 3, case.rows // 2, case.rows - 1})[:ROWS]
        self.step = max(1, case.columns // COLUMNS)
        left, right = (host(x) for x in self.operands[0])
        left, right = (x.T if turned else x for x, turned in zip((left, right), case.turned, strict=True))
        self.answer = left[self.lines].astype(np.float64) @ right[:, :: self.step].astype(np.float64)
        self.sums = right[:, :: self.step].sum(0, dtype=np.float64)  # of b over its rows
        self.scale = float(np.sqrt(np.mean(self.answer**2)))

    def results(self, storage: str) -> list[Any]:
        """Return an array for each set."""
        if storage not in self._results:
            shape = self.case.rows, self.case.columns
            self._results[storage] = [self.bench.empty(shape, storage) for _ in range(self.sets)]
        return self._results[storage]

    def sampled(self, x: Any) -> np.ndarray:
        """Return what of an array of the result's shape is compared."""
        return np.stack([host(x[line]) for line in self.lines])[:, :: self.step]

    def project(self, i: int, out: Any = None) -> None:
        """Compute the product as fcnet makes it."""
        a, b = self.full[i % self.sets]
        turned = self.case.turned
        out = self.results("float32")[i % self.sets] if out is None else out
        precision = None if self.case.precision == "float32" else self.case.precision
        self.bench.gemm(a.T if turned[0] else a, b.T if turned[1] else b, out=out, precision=precision)

    def caller(self, product: Product, algorithm: Algorithm, storage: str) -> Callable[[int], None]:
        """Return the product of set i by cuBLASLt."""
        outs, workspace, bench = self.results(storage), self.bench.workspace.data.ptr, self.bench

        def call(i: int) -> None:
            (a, b), out = self.operands[i % self.sets], outs[i % self.sets]
            product(algorithm, a.data.ptr, b.data.ptr, out.data.ptr, workspace, bench.stream)

        return call


def difference(found: np.ndarray, expected: np.ndarray, scale: float) -> float:
    """Return the largest, in units of `scale`; infinite if there is a NaN."""
    worst = float(np.max(np.abs(found - expected))) / scale
    return worst if np.isfinite(worst) else 1e30


def steady(bench: Bench, call: Callable[[int], object], outputs: Sequence[Any]) -> bool:
    """Return whether runs give the same bits in all outputs, which begin as NaN."""
    copies = []
    for run in range(RUNS):
        for out in outputs:
            bench.poison(out)
        call(0)
        if not run:
            copies = [bench.copied(out) for out in outputs]
        elif any(bench.differing(out, copy) for out, copy in zip(outputs, copies, strict=True)):
            return False
    return True


def described(algorithm: Algorithm, rank: int) -> dict[str, Any]:
    return {
        "rank": rank, **algorithm.configuration, "workspace": algorithm.workspace, "waves": round(algorithm.waves, 3)
    }  # fmt: skip


def tried(
    bench: Bench,
    product: Product,
    data: Data,
    storage: str,
    count: int,
    outputs: Sequence[Any],
    errors: Callable[[], dict[str, float]],
    until: float,
) -> tuple[list[dict[str, Any]], dict[str, Callable[[int], None]], dict[str, Algorithm]]:
    """Run each algorithm a few times: its description, whether it is right, and how to call it."""
    rows, calls, algorithms = [], {}, {}
    for rank, algorithm in enumerate(product.algorithms(count)):
        if rank and bench.clock.left() < until:
            break
        row = described(algorithm, rank)
        rows.append(row)
        call = data.caller(product, algorithm, storage)
        try:
            row["same_bits"] = steady(bench, call, outputs)
        except LtError as error:
            row["error"] = str(error)
            continue
        row["differences"] = errors()
        row["correct"] = max(row["differences"].values()) < TOLERANCE[data.case.precision, storage]
        row["deterministic"] = row["same_bits"] and row["reduction"] != cublaslt.INPLACE
        calls[str(rank)], algorithms[str(rank)] = call, algorithm
    return rows, calls, algorithms


def settle(rows: list[dict[str, Any]], times: Mapping[str, float]) -> dict[str, Any] | None:
    """Note the times; the fastest that is right and deterministic."""
    for row in rows:
        row["us"] = times.get(str(row["rank"]))
    sound = [row for row in rows if row["us"] and row["correct"] and row["deterministic"]]
    return min(sound, key=lambda row: row["us"], default=None)


def row_of(case: Case, result: str, epilogue: str, data: Data) -> dict[str, Any]:
    return {**case._asdict(), "result": result, "epilogue": epilogue, "sets": data.sets}


def plain(bench: Bench, case: Case, data: Data, result: str) -> dict[str, Any]:
    """Compare fcnet's product with those of cuBLASLt."""
    until = bench.clock.left() - PIECE_S
    product = Product(bench.lt, case.problem(result))
    out = data.results(result)[0]

    def errors() -> dict[str, float]:
        return {"result": difference(data.sampled(out), data.answer, data.scale)}

    rows, calls, algorithms = tried(bench, product, data, result, PLAIN, [out], errors, until)
    data.project(0)
    own = difference(data.sampled(data.results("float32")[0]), data.answer, data.scale)
    times = bench.race({"project": data.project, **calls}, until)
    best = settle(rows, times)
    found = row_of(case, result, "none", data) | {"baseline_us": times["project"], "baseline_difference": own}
    if best is not None:
        algorithm = bench.best[case, result, "none"] = algorithms[str(best["rank"])]
        if data.sets > 1:  # as if what it reads had just been written

            def own_again(_: int) -> None:
                data.project(0)

            again = data.caller(product, algorithm, result)
            hot = bench.race({"project": own_again, "best": lambda _: again(0)}, until)
            found |= {"baseline_hot_us": hot["project"], "best_hot_us": hot["best"]}
    product.close()
    return found | summary(case, rows, best)


def summary(case: Case, rows: list[dict[str, Any]], best: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "first_us": rows[0]["us"] if rows else None,
        "best_us": best["us"] if best else None,
        "best_rank": best["rank"] if best else None,
        "tflops": round(case.flops / best["us"] / 1e6, 1) if best else None,
        "algorithms": rows,
    }


def separate_pass(bench: Bench, data: Data, epilogue: str) -> Callable[[int], None]:
    """Return what fcnet does after the product instead of an epilogue: float32, in the result's shape."""
    outs, case, on = data.results("float32"), data.case, bench.launcher
    shape = np.int32(case.rows), np.int32(case.columns)
    cache = relu_cache(data.hidden, 1, None, data.bias)

    def bias(i: int) -> None:
        out = outs[i % data.sets]
        on.each("add_bias", out, out.size, out, out, data.bias, np.int64(out.size), shape[1])

    def relu(i: int) -> None:
        out = outs[i % data.sets]
        bench.hidden.bias_activation_dropout_forward(out, data.bias, out=out)

    def backward(i: int) -> None:
        out = outs[i % data.sets]
        bench.hidden.bias_activation_dropout_backward(out, cache, dz=out, db=data.gradient)

    def gradient(i: int) -> None:
        b = data.full[i % data.sets][1]
        on.columns("bias_gradient", b, case.columns, data.gradient, b, np.int32(case.inner), shape[1])

    if epilogue.startswith("drelu"):
        return backward
    return {"bias": bias, "bgrada": gradient}.get(epilogue, relu)


def expected(bench: Bench, data: Data, epilogue: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Return what an epilogue makes of the answer, and its gradient of the bias."""
    if epilogue == "bgrada":
        return data.answer, data.sums
    if epilogue.startswith("drelu"):
        data.project(0)
        separate_pass(bench, data, epilogue)(0)  # a sum over all rows, of which the answer has a few
        sums = host(data.gradient)[:: data.step].astype(np.float64) if epilogue == "drelu_bgrad" else None
        return np.where(data.sampled(data.hidden) > 0, data.answer, 0), sums
    biased = data.answer + host(data.bias)[:: data.step]
    return biased if epilogue == "bias" else np.maximum(biased, 0), None


def mask_fits(data: Data, mask: Any, out: Any) -> bool:
    """Return whether the bits that are set are those of the positive results."""
    for line in data.lines:
        bits = np.unpackbits(mask[line].get(), bitorder="little")[: data.case.columns]
        if np.any(bits.astype(bool) != (host(out[line]) > 0)):
            return False
    return True


def fused(bench: Bench, case: Case, data: Data, wanted: Fused) -> dict[str, Any]:
    """Return an epilogue beside the best plain product and the pass that it would save."""
    until = bench.clock.left() - PIECE_S
    epilogue, result, kind = wanted
    made = epilogue in ("drelu_bgrad", "bgrada")  # the gradient of a bias
    vector = bench.empty((case.columns,), kind) if made else data.biases[kind]
    mask = bench.mask(data.hidden)  # which a forward pass fills anew
    product = with_epilogue(
        bench.lt, case.problem(result), epilogue,
        bias=vector.data.ptr if "bias" in epilogue or made else 0, bias_type=KINDS[kind],
        mask=mask.data.ptr if "aux" in epilogue or "drelu" in epilogue else 0,
    )  # fmt: skip
    answer, sums = expected(bench, data, epilogue)
    out = data.results(result)[0]
    outputs = [out, *([vector] if made else []), *([mask] if "aux" in epilogue else [])]

    def errors() -> dict[str, float]:
        found = {"result": difference(data.sampled(out), answer, data.scale)}
        if sums is not None:
            size = float(np.sqrt(np.mean(sums**2)))
            found["bias_gradient"] = difference(host(vector)[:: data.step], sums, size)
        if "aux" in epilogue:
            found["mask"] = 0.0 if mask_fits(data, mask, out) else 1e30
        return found

    found = row_of(case, result, epilogue, data) | {"bias": kind}
    rows, calls, algorithms = tried(bench, product, data, result, FUSED, outputs, errors, until)
    contenders: dict[str, Callable[[int], object]] = dict(calls)
    after = contenders["pass"] = separate_pass(bench, data, epilogue)
    algorithm = bench.best.get((case, "float32", "none"))
    plain = Product(bench.lt, case.problem("float32"))
    if algorithm is not None:
        before = data.caller(plain, algorithm, "float32")

        def both(i: int) -> None:
            before(i)
            after(i)

        contenders["separate"] = both
    after(0)  # a kernel is loaded at its first launch: not in a capture
    times = bench.race(contenders, until)
    best = settle(rows, times)
    if best is not None:
        bench.best.setdefault((case, result, epilogue), algorithms[str(best["rank"])])
    product.close()
    plain.close()
    return found | summary(case, rows, best) | {"pass_us": times["pass"], "separate_us": times.get("separate")}


def results_of(case: Case) -> list[str]:
    """Return the types in which a product's result is wanted."""
    if case.precision != "bf16":
        return ["float32"]
    return ["float32"] if case.way == "dw" else ["bf16", "float32"]


def pieces(case: Case, bench: Bench) -> Iterator[tuple[str, Callable[[Data], dict[str, Any]]]]:
    """Yield what is measured of a product, and its name."""
    name = f"{case.net} {case.precision} {case.layer} {case.way}"
    for result in results_of(case):
        yield f"{name} -> {result}", partial(_plain, bench, case, result)
    for wanted in epilogues(case):
        yield f"{name} {'/'.join(wanted)}", partial(_fused, bench, case, wanted)


def _plain(bench: Bench, case: Case, result: str, data: Data) -> dict[str, Any]:
    return plain(bench, case, data, result)


def _fused(bench: Bench, case: Case, wanted: Fused, data: Data) -> dict[str, Any]:
    return fused(bench, case, data, wanted)


class Chain(NamedTuple):
    """Describe a way through an inner layer, forward and backward."""

    name: str
    precision: str
    epilogues: bool


CHAINS = [Chain("tf32, epilogues", "tf32", True), Chain("bf16, epilogues", "bf16", True), Chain("bf16", "bf16", False)]


class Layer:
    """Hold an inner layer's arrays in one storage, and its products by cuBLASLt."""

    def __init__(self, bench: Bench, net: str, chain: Chain) -> None:
        shape = NETS[net]
        self.bench, self.own = bench, "bf16" if chain.precision == "bf16" else "float32"
        square, batch = (shape.width, shape.width), (shape.batch, shape.width)
        self.x = bench.stored(bench.normal(batch, 1, zeros=NEGATIVE), self.own)
        self.w = bench.stored(bench.normal(square, 2, shape.width**-0.5), self.own)
        self.h, self.dx = (bench.empty(batch, self.own) for _ in range(2))
        self.dw = bench.empty(square, "float32")
        self.bias = bench.normal((shape.width,), 3, 0.1)
        below = bench.normal(batch, 4, zeros=NEGATIVE)
        self.below, self.mask, self.above = bench.stored(below, self.own), bench.mask(below), bench.mask(below)
        self.db = bench.empty((shape.width,), self.own)
        self.parts = bench.empty((SPLIT, shape.width), "float32")
        self.sums = bench.empty((shape.width,), "float32")
        self.given = bench.stored(bench.normal(batch, 5, shape.width**-0.5, ANY), self.own)
        known = {case.way: case for case in cases(net, shape, chain.precision) if case.layer == "inner"}
        self.ways = {
            "forward": ("relu_aux_bias", bench.stored(self.bias, self.own), self.above),
            "dx": ("drelu_bgrad", self.db, self.mask),
            "dw": ("none", None, None),
        }
        self.products = {way: self._product(known[way], *self.ways[way], chain.epilogues) for way in known}

    def _product(self, case: Case, epilogue: str, vector: Any, mask: Any, fuse: bool) -> tuple[Product, Algorithm]:
        epilogue, result = epilogue if fuse else "none", "float32" if case.way == "dw" else self.own
        plain = epilogue == "none"
        product = with_epilogue(
            self.bench.lt, case.problem(result), epilogue, bias=0 if plain else vector.data.ptr,
            mask=0 if plain else mask.data.ptr, bias_type=KINDS[self.own],
        )  # fmt: skip
        known = self.bench.best.get((case, result, epilogue))
        return product, known or product.algorithms(1)[0]

    def make(self, way: str, a: Any, b: Any, out: Any) -> None:
        product, algorithm = self.products[way]
        bench = self.bench
        product(algorithm, a.data.ptr, b.data.ptr, out.data.ptr, bench.workspace.data.ptr, bench.stream)

    def fused(self, _: int) -> None:
        """Make three products; the gradient of the layer above comes masked, from its own."""
        self.make("forward", self.x, self.w, self.h)
        self.make("dw", self.x, self.given, self.dw)
        self.make("dx", self.given, self.w, self.dx)

    def separate(self, _: int) -> None:
        """Make three products and two passes over bfloat16."""
        rows, width = (np.int32(n) for n in self.h.shape)
        self.make("forward", self.x, self.w, self.h)
        grid = -(-self.h.shape[1] // (8 * 128)), -(-self.h.shape[0] // 2)
        self.bench.launch("forward_8x2_bf16", grid, (128,), self.h, self.h, self.bias, rows, width)
        self.make("dw", self.x, self.given, self.dw)
        self.make("dx", self.given, self.w, self.dx)
        backward(self.bench, "backward_8x2_bf16", 8, 8, SPLIT, self.dx, self.sums, self.parts, self.dx, self.below)


def project_layer(bench: Bench, net: str, precision: str) -> Callable[[int], None]:
    """Return an inner layer as fcnet makes it: three products and two passes over float32."""
    shape = NETS[net]
    batch = shape.batch, shape.width
    x, below = (bench.normal(batch, seed, zeros=NEGATIVE) for seed in (1, 4))
    given = bench.normal(batch, 5, shape.width**-0.5, ANY)
    w, bias = bench.normal((shape.width, shape.width), 2, shape.width**-0.5), bench.normal((shape.width,), 3, 0.1)
    h, dx, dw, db = (bench.cupy.empty_like(like) for like in (x, x, w, bias))
    cache = relu_cache(below, 1, None, bias)

    def call(_: int) -> None:
        bench.gemm(x, w, out=h, precision=precision)
        bench.hidden.bias_activation_dropout_forward(h, bias, out=h)
        bench.gemm(x.T, given, out=dw, precision=precision)
        bench.gemm(given, w.T, out=dx, precision=precision)
        bench.hidden.bias_activation_dropout_backward(dx, cache, dz=dx, db=db)

    return call


def chains(bench: Bench, net: str) -> list[dict[str, Any]]:
    """Return an inner layer, forward and backward, in each way."""
    ways: dict[str, Callable[[int], object]] = {
        f"fcnet {precision}": project_layer(bench, net, precision) for precision in ("tf32", "bf16")
    }
    failed = []
    for chain in CHAINS:
        try:
            layer = Layer(bench, net, chain)
            way = layer.fused if chain.epilogues else layer.separate
            way(0)
            ways[chain.name] = way
        except (LtError, IndexError) as error:  # refused, or no algorithm
            failed.append({"net": net, "way": chain.name, "us": None, "error": f"{type(error).__name__}: {error}"})
    for call in ways.values():
        call(0)
    times = bench.race(ways, calls=5)
    return [{"net": net, "way": name, "us": us} for name, us in times.items()] + failed


class Sweep(NamedTuple):
    """Describe a variant of a kernel: how it is called, and the bytes that it moves."""

    kernel: str
    variant: str
    moved: int
    call: Callable[[int], object]
    outputs: tuple  # begin poisoned
    right: Callable[[], bool]


def adams(bench: Bench) -> Iterator[Sweep]:
    """Time Adam over one large buffer."""
    size = ADAM_SIZE
    names = ("adam_1x1", "adam_1x4", "adam_2x1", "adam_2x2", "adam_4x1", "adam_4x2", "adam_4x1_once")
    rounded = ("adam_1x4_bf16", "adam_4x1_bf16", "adam_4x2_bf16")
    w, dw, m = (bench.normal((size,), seed) for seed in (1, 2, 3))
    v = bench.normal((size,), 4, 1e-2, zeros=NEGATIVE)
    copy = bench.cupy.empty(size, np.uint16)
    step, rate = bench.cupy.zeros(1, np.int64), bench.cupy.zeros(1, np.float64)
    constants = np.float64(0.9), np.float64(0.999), np.float64(1e-8)

    def own(_: int) -> None:
        bench.launcher.each("adam", w, size, w, dw, m, v, np.int64(size), step, rate, *constants, each=4)

    yield Sweep("adam", "fcnet", 28 * size, own, (), lambda: True)
    for name in (*names, *rounded):
        each, moved = _elements(name), 28 + 2 * (name in rounded)
        for threads in (128, 256, 512):
            whole = -(-size // (each * threads))
            grids = (whole,) if "once" in name or threads != 256 else (whole, PROCESSORS * 8, PROCESSORS * 32)
            for blocks in grids:
                arguments = (w, dw, m, v, copy, np.int64(size), np.float32(1e-3), np.float32(1e-8))
                call = partial(_call, bench, name, (blocks,), (threads,), arguments)
                right = partial(adam_is_right, bench, name, threads)
                yield Sweep("adam", f"{name} {threads} x {blocks}", moved * size, call, (), right)


def _elements(name: str) -> int:
    """Return the elements of a thread: the product of the numbers in a kernel's name."""
    vector, rows = name.split("_")[1].split("x")
    return int(vector) * int(rows)


def _call(bench: Bench, name: str, grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple, _: int) -> None:
    bench.launch(name, grid, block, *arguments)


def adam_is_right(bench: Bench, name: str, threads: int) -> bool:
    """Check Adam on a small buffer against NumPy; over half as many blocks where a block may go on."""
    size = 1 << 16
    blocks = -(-size // (_elements(name) * threads)) // (1 if "once" in name else 2)
    arrays = [bench.normal((size,), seed, zeros=NEGATIVE if seed == 4 else NO_ZEROS) for seed in (1, 2, 3, 4)]
    copy = bench.cupy.empty(size, np.uint16)
    w, dw, m, v = (x.get().astype(np.float64) for x in arrays)
    arguments = (*arrays, copy, np.int64(size), np.float32(1e-3), np.float32(1e-8))
    bench.launch(name, (blocks,), (threads,), *arguments)
    m, v = 0.9 * m + 0.1 * dw, 0.999 * v + 0.001 * dw * dw
    w -= 1e-3 * m / (np.sqrt(v) + 1e-8)
    close = [
        np.allclose(x.get(), y, rtol=1e-4, atol=1e-5) for x, y in zip((arrays[0], *arrays[2:]), (w, m, v), strict=True)
    ]
    return all(close) and (not name.endswith("bf16") or np.allclose(host(copy), arrays[0].get(), rtol=2**-8, atol=0))


def forwards(bench: Bench) -> Iterator[Sweep]:
    """Time relu(z + b) over a matrix."""
    shape = HEIGHT, WIDTH
    z, bias = bench.normal(shape, 1), bench.normal((WIDTH,), 2, 0.1)
    answer, out = bench.cupy.empty_like(z), bench.cupy.empty_like(z)
    low, low_out = bench.stored(z, "bf16"), bench.empty(shape, "bf16")

    def own(_: int) -> None:
        bench.hidden.bias_activation_dropout_forward(z, bias, out=answer)

    own(0)
    rounded = bench.stored(answer, "bf16")
    yield Sweep("bias_relu", "fcnet", 8 * z.size, own, (), lambda: True)
    kinds = {"to_bf16": (z, low_out, 6), "bf16": (low, low_out, 4), "": (z, out, 8)}
    for name in (
        "forward_1x4", "forward_4x1", "forward_4x2", "forward_4x4", "forward_4x8", "forward_4x4_once",
        "forward_4x4_to_bf16", "forward_8x2_bf16", "forward_8x4_bf16",
    ):  # fmt: skip
        given, to, moved = next(kind for end, kind in kinds.items() if name.endswith(end))
        vector, rows = (int(n) for n in name.split("_")[1].split("x"))
        for threads in (128, 256, 512):
            grid = -(-WIDTH // (vector * threads)), -(-HEIGHT // rows)
            arguments = (to, given, bias, np.int32(HEIGHT), np.int32(WIDTH))
            call = partial(_call, bench, name, grid, (threads,), arguments)
            right = partial(_same, bench, out, answer) if to is out else partial(_near, to, rounded)
            yield Sweep("bias_relu", f"{name} {threads}", moved * z.size, call, (to,), right)


def _same(bench: Bench, a: Any, b: Any) -> bool:
    return bench.differing(a, b) == 0


def _near(a: Any, b: Any) -> bool:
    """Return whether two matrices of bfloat16 are near each other, in a few rows."""
    lines = 0, a.shape[0] // 2, a.shape[0] - 1
    return all(np.allclose(host(a[line]), host(b[line]), rtol=2**-6, atol=2**-6) for line in lines)


def backward(
    bench: Bench, name: str, vector: int, high: int, parts: int, dz: Any, db: Any, work: Any, dout: Any, out: Any
) -> None:
    """Run the two kernels of a backward pass."""
    rows, width = dz.shape
    grid = -(-width // (32 * vector)), parts
    bench.launch(name, grid, (32, high), dz, work, dout, out, np.int32(rows), np.int32(width))
    bench.each("sum_parts", width, db, work, np.int32(parts), np.int32(width))


def backwards(bench: Bench) -> Iterator[Sweep]:
    """Time dz = dout where out > 0, and its column sums, over a matrix."""
    shape = HEIGHT, WIDTH
    dout, hidden = bench.normal(shape, 1), bench.normal(shape, 2, zeros=NEGATIVE)
    answer, dz = bench.cupy.empty_like(dout), bench.cupy.empty_like(dout)
    sums, db = bench.empty((WIDTH,), "float32"), bench.empty((WIDTH,), "float32")
    work = bench.empty((64, WIDTH), "float32")
    cache = relu_cache(hidden, 1, None, sums)
    low = [bench.stored(x, "bf16") for x in (dout, hidden)]
    low_dz = bench.empty(shape, "bf16")

    def own(_: int) -> None:
        bench.hidden.bias_activation_dropout_backward(dout, cache, dz=answer, db=sums)

    own(0)
    expected_sums = sums.get()
    yield Sweep("relu_backward", "fcnet", 12 * dout.size, own, (), lambda: True)
    for name in (
        "backward_1x4", "backward_2x4", "backward_4x2", "backward_4x4", "backward_4x4_bf16", "backward_8x2_bf16",
    ):  # fmt: skip
        vector = int(name.split("_")[1].split("x")[0])
        half = name.endswith("bf16")
        arrays = (low_dz, db, work, *low) if half else (dz, db, work, dout, hidden)
        for high in (8, 16):
            for parts in (16, 32, 64):
                call = partial(_backward, bench, name, vector, high, parts, arrays)

                def right(half: bool = half) -> bool:
                    summed = np.allclose(db.get(), expected_sums, rtol=1e-2, atol=1.0 if half else 1e-2)
                    return summed and (half or _same(bench, dz, answer))

                moved = (6 if half else 12) * dout.size
                yield Sweep("relu_backward", f"{name} 32x{high} in {parts}", moved, call, arrays[:2], right)


def _backward(bench: Bench, name: str, vector: int, high: int, parts: int, arrays: tuple, _: int) -> None:
    backward(bench, name, vector, high, parts, *arrays)


def sweep(bench: Bench, variants: Iterable[Sweep], content: dict[str, Any]) -> None:
    """Time each variant, on its own: there are too many to keep all their graphs."""
    for variant in variants:
        if bench.clock.left() < 0.5:
            content["left_out"].append(f"{variant.kernel} {variant.variant} and what follows it")
            return
        for output in variant.outputs:
            bench.poison(output)
        variant.call(0)
        right = bool(variant.right())
        us = bench.race({"": variant.call}, calls=5)[""]
        content["sweeps"].append(
            {
                "kernel": variant.kernel,
                "variant": variant.variant,
                "us": us,
                "gb_per_s": round(variant.moved / us / 1e3, 1),
                "right": right,
            }
        )


def attempt(content: dict[str, Any], name: str, call: Callable[[], object]) -> None:
    """Run one piece; report one that raises in its place."""
    try:
        call()
    except Exception as error:  # whatever it is: the machine is lent for minutes, the other pieces count
        traceback.print_exc()
        content["errors"][name] = f"{type(error).__name__}: {error}"


def measure_products(bench: Bench, content: dict[str, Any], net: str, precision: str, keep: Keep) -> None:
    """Measure every product of a net in one precision, and its epilogues."""
    for case in cases(net, NETS[net], precision):
        data: Data | None = None
        gc.collect()
        for name, piece in pieces(case, bench):
            if bench.clock.left() < SWEEP_S:
                content["left_out"].append(name)
                continue
            data = data or Data(bench, case)
            attempt(content, name, partial(_append, content["products"], piece, data))
            keep()


def _append(rows: list[Any], piece: Callable[[Data], dict[str, Any]], data: Data) -> None:
    rows.append(piece(data))


def measure(bench: Bench, content: dict[str, Any], chosen: Sequence[str], keep: Keep) -> None:
    """Measure the chosen parts, in the order of PARTS."""

    def products(net: str, precision: str) -> None:
        measure_products(bench, content, net, precision, keep)

    def layers() -> None:
        content["chains"] += chains(bench, "large")

    def kernels() -> None:
        for variants in (adams, forwards, backwards):
            sweep(bench, variants(bench), content)
            keep()

    parts: dict[str, Callable[[], None]] = {
        "large-tf32": partial(products, "large", "tf32"),
        "large-bf16": partial(products, "large", "bf16"),
        "wide-tf32": partial(products, "wide", "tf32"),
        "layers": layers,
        "wide-float32": partial(products, "wide", "float32"),
        "kernels": kernels,
    }
    gc.disable()  # nothing is to be freed while a graph is being captured
    for name in (part for part in PARTS if part in chosen):
        begun = bench.clock.left()
        print(f"== {name}, {begun:.0f} s left", file=sys.stderr, flush=True)
        attempt(content, name, parts[name])
        content["seconds"][name] = round(begun - bench.clock.left(), 1)
        keep()


def product_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the table of products without epilogue: fcnet's beside cuBLASLt's."""
    lines = [
        "| product | rows x inner x columns | result | baseline us | best us | rank | first us | TFLOP/s |",
        "|---|---|---|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        name = f"{row['net']} {row['precision']} {row['layer']} {row['way']}"
        shape = f"{row['rows']} x {row['inner']} x {row['columns']}"
        numbers = (row[key] for key in ("baseline_us", "best_us", "best_rank", "first_us", "tflops"))
        lines.append(f"| {name} | {shape} | {row['result']} | {' | '.join(_text(n) for n in numbers)} |")
    return lines


def epilogue_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the table of epilogues beside the product and the pass."""
    lines = [
        "| product with | result, bias | tried | right | best us | rank | product + pass us | pass us |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        name = f"{row['net']} {row['precision']} {row['layer']} {row['way']} {row['epilogue']}"
        right = sum(bool(found.get("correct")) for found in row["algorithms"])
        numbers = len(row["algorithms"]), right, *(row[k] for k in ("best_us", "best_rank", "separate_us", "pass_us"))
        lines.append(f"| {name} | {row['result']}, {row['bias']} | {' | '.join(_text(n) for n in numbers)} |")
    return lines


def sweep_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the table of each kernel: fcnet's own and the best variants."""
    lines = ["| kernel | variant | us | GB/s | right |", "|---|---|--:|--:|---|"]
    for kernel in dict.fromkeys(row["kernel"] for row in rows):
        for kind in ("fcnet", "float32", "bf16"):
            those = [row for row in rows if row["kernel"] == kernel and _kind(row["variant"]) == kind]
            for row in sorted(those, key=lambda row: row["us"])[:3]:
                lines.append(
                    f"| {kernel} | {row['variant']} | {row['us']:.1f} | {row['gb_per_s']:.0f} | {row['right']} |"
                )
    return lines


def _kind(variant: str) -> str:
    if variant == "fcnet":
        return variant
    return "bf16" if "bf16" in variant else "float32"


def _text(number: float | None) -> str:
    return "-" if number is None else f"{number:g}" if isinstance(number, int) else f"{number:.1f}"


def step_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a step's products with their passes, added up: as they are, by the best algorithms, with epilogues."""
    lines = ["| net | products + passes now us | best algorithms us | with epilogues us |", "|---|--:|--:|--:|"]
    for net, precision in dict.fromkeys((row["net"], row["precision"]) for row in rows):
        those = [row for row in rows if (row["net"], row["precision"]) == (net, precision) and row["times"]]
        totals = [0.0, 0.0, 0.0]
        for layer, way in dict.fromkeys((row["layer"], row["way"]) for row in those):
            here = [row for row in those if (row["layer"], row["way"]) == (layer, way)]
            for i, us in enumerate(_costs(here)):
                totals[i] += us * here[0]["times"]
        lines.append(f"| {net} {precision} | {' | '.join(f'{total:.0f}' for total in totals)} |")
    return lines


def _costs(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float, float]:
    """Return the cost of one product with the pass that follows it in fcnet."""
    plain = [row for row in rows if row["epilogue"] == "none"]
    others = [row for row in rows if row["epilogue"] != "none"]
    now = min((row["baseline_us"] for row in plain), default=0.0)
    tuned = min((row["best_us"] for row in plain if row["best_us"]), default=now)
    way, layer = rows[0]["way"], rows[0]["layer"]
    if way == "dw" and layer != "output":  # the pass of the layer above has summed already
        return now, tuned, tuned
    after = max((row["pass_us"] for row in others), default=0.0)
    complete = ("relu_aux_bias", "drelu_bgrad", "bgrada", *(["bias"] if layer == "output" else []))
    best = min(
        (row["best_us"] for row in others if row["best_us"] and row["epilogue"] in complete), default=tuned + after
    )
    return now + after, tuned + after, best


def markdown(content: Mapping[str, Any]) -> str:
    """Return what was found, for people."""
    products, left = content["products"], content["left_out"]
    parts = [
        [f"{content['gpu']['name']}, cuBLASLt {content['cublas_lt']}"],
        [f"{name} failed: {why}" for name, why in content["errors"].items()],
        product_table([row for row in products if row["epilogue"] == "none"]),
        epilogue_table([row for row in products if row["epilogue"] != "none"]),
        step_table(products),
        ["| inner layer, forward and backward | us |", "|---|--:|"]
        + [f"| {row['net']}: {row['way']} | {_text(row['us'])} |" for row in content["chains"]],
        sweep_table(content["sweeps"]),
        [f"no time was left for {len(left)} pieces: {left[0]} to {left[-1]}"] if left else [],
    ]
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 all well; 1 a piece failed; 2 no GPU can be used."""
    parser = argparse.ArgumentParser(prog="benchmarks.gpu_products", description=__doc__)
    parser.add_argument("--commit", help="what is measured, where git cannot tell")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"in all; default: {SECONDS:g}")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="where the JSON goes")
    parser.add_argument("--parts", type=command.names, default=list(PARTS), help=f"default: {','.join(PARTS)}")
    options = parser.parse_args(arguments)
    try:
        chosen = command.chosen("--parts", options.parts, PARTS)
    except ValueError as error:
        print(f"gpu-products: {error}", file=sys.stderr)
        return 2
    clock = Clock(options.seconds / 60)
    found = probe()
    if found.status is not Status.OK:
        print(f"gpu-products: no GPU can be used: {found.reason}; {found.remedy}", file=sys.stderr)
        return 2
    content = head(get_backend("cuda").name, options.commit or None)
    content |= {"products": [], "chains": [], "sweeps": [], "left_out": [], "cublas_lt": None}
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"gpu-products-{content['date']}.json"

    def keep() -> None:
        write_atomically(path, json.dumps(content) + "\n")

    import cupy

    bench = Bench(cupy, clock)
    content["cublas_lt"] = bench.lt.version
    measure(bench, content, chosen, keep)
    print(markdown(content))
    print(f"wrote {path.name}")
    return int(bool(content["errors"]))


if __name__ == "__main__":
    sys.exit(main())
