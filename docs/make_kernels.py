"""Write docs/kernels.md: for each function its kernel on each device, the test that proves it, and its speed.

`python docs/make_kernels.py`, or `make docs`. The kernels come from the tables in which fcnet looks them up, the speeds
from the last results of `make bench` in benchmarks/results/. It needs Numba.
"""

from __future__ import annotations

import inspect
import json
import re
import statistics
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from fcnet import functional, optim  # noqa: E402 -- from the folder beside, installed or not
from fcnet.backends.cpu import loader  # noqa: E402
from fcnet.backends.cpu.jit import Jit  # noqa: E402
from fcnet.backends.cuda.kernels import cuda_kernels  # noqa: E402
from fcnet.backends.cuda.sources import ACTIVATIONS, RULES  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
RECORDS = ("kernels", "kernels-training")  # what `make bench` writes: NAME-DEVICES-DATE.json
TITLES = {"cpu": "Numba", "cuda": "CUDA"}
HIDDEN = "*_activation_dropout_{way}"
#: Parts of a fused function: what a step runs in their place, where that has a kernel.
WITHIN = {
    **{
        f"{part}_{way}": HIDDEN.format(way=way) for part in ("dropout", *ACTIVATIONS) for way in ("forward", "backward")
    },
    **{
        f"{norm}_{way}": f"{norm}_activation_dropout_{way}"
        for norm in ("batchnorm", "layernorm")
        for way in ("forward", "backward")
    },
    "add_bias": HIDDEN.format(way="forward"),
    "bias_gradient": HIDDEN.format(way="backward"),
    "dropout_mask": HIDDEN.format(way="forward"),
    "batchnorm_backward_stepwise": "batchnorm_activation_dropout_backward",
}
HEAD = """# Kernels: function x device

For every function of `fcnet.functional` and `fcnet.optim`: its readable reference, the kernel that replaces it on each
device, the test that compares both with an independent answer, and how many times as fast as the reference the kernel
is. Where it says **reference**, there is no kernel, and the reference itself runs, on NumPy's or CuPy's arrays. Written
by `make docs`.

For example layer norm's backward pass: search for `layernorm_backward`. Its row names the formula's file, the fused
function that a training step calls in its place, that function's kernels on each device, the test, and the gain.

- **Numba** is the CPU with Numba, `backends/cpu/`; without Numba the CPU runs the references. **CUDA** is
  `backends/cuda/`, call by call or in a CUDA graph. One further kernel makes whole training steps of small nets, with
  all losses, update rules and element-wise activations: [persistent.cu](../backends/cuda/persistent.cu), tested in
  [test_persistent_kinds.py](../tests/backends/test_persistent_kinds.py), measured in [gpu.md](gpu.md). On the CPU a
  large batch goes through a small net's layers and back some rows at a time, from the first product to the last
  gradient: [row_blocks.py](../backends/cpu/row_blocks.py), proved in
  [test_row_blocks.py](../tests/backends/test_row_blocks.py), measured as `matrix` by `python -m benchmarks.compare`.
- **In a step**: training does not call this function, but a fused one that contains it, and that one has a kernel. On
  Numba, ReLU has kernels in float64, too, but not with `layernorm_`; the other activations in float32 only.
- **Proof**: the test runs on NumPy, on Numba, on a device that refuses hidden copies (`tests/guard/`) and, with a GPU,
  on CuPy and CUDA. [test_cuda_kernels.py](../tests/kernels/test_cuda_kernels.py) runs the CUDA sources on the CPU, too.
  [test_kernels_refuse.py](../tests/kernels/test_kernels_refuse.py) lists the arguments that kernels refuse.
- **Gain**: the reference's time divided by the kernel's: the median, and the range over the sizes (of hidden layers
  also over the activations) that `make bench` measures. Below 1 the kernel is slower at that size. The times:
  [hidden layers, losses, rules](../benchmarks/results/kernels-training.md), [affine and batch
  norm](../benchmarks/results/kernels.md). Kernels that are not timed singly are part of the steps that are:
  [benchmarks](../benchmarks/README.md).{cuda}
"""


NOT_ON_CUDA = (
    " No GPU has timed CUDA kernels singly yet, only whole steps\n  ([gpu.md](gpu.md)); `make bench` on a GPU does."
)


class Function(NamedTuple):
    """Describe a function: its name, the reference without decorations, and its kernels by device as links."""

    name: str
    reference: Callable[..., Any]
    kernels: dict[str, str]


def functions() -> Iterator[Function]:
    """Yield every public function that has a formula, file by file."""
    cpu, cuda = _cpu_kernels(), cuda_kernels(None, None)  # type: ignore[arg-type]
    tables = {"functional": functional, "optim": optim}
    found: dict[Callable[..., Any], str] = {}
    for module in tables.values():
        for name in module.__all__:
            value = getattr(module, name)
            reference = getattr(value, "reference", value)
            if inspect.isfunction(reference) and "Array" in str(inspect.signature(reference)):
                found[reference] = name
    for rule in optim.RULES.values():
        reference = getattr(rule.update, "reference", rule.update)
        found[reference] = reference.__name__
    for reference in sorted(found, key=_place):
        name = found[reference]
        kernels = {}
        if name in cpu:
            kernels["cpu"] = cpu[name]
        if name in cuda:
            kernels["cuda"] = _cuda_link(name, cuda[name].function)
        yield Function(name, reference, kernels)


def _place(reference: Callable[..., Any]) -> tuple[str, int]:
    return reference.__module__, inspect.getsourcelines(reference)[1]


def _link(text: str, path: Path) -> str:
    return f"[{text}](../{path.relative_to(ROOT).as_posix()})"


def _cpu_kernels() -> dict[str, str]:
    """Return a link for each function with a Numba kernel, also where this processor would not use it."""
    found = {}
    for name in loader.MODULES:
        module = import_module(f"fcnet.backends.cpu.{name}")
        own = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        names = {key for key in own if key in functional.__all__} | set(module.KERNELS)
        for function in names:
            kernel = module.KERNELS[function].function if function in module.KERNELS else getattr(module, function)
            found[function] = _cpu_link(module, kernel)
    return found


def _cpu_link(module: ModuleType, kernel: Callable[..., Any]) -> str:
    """Return links to a kernel's file and to those of the loops of other files that it runs, and these loops' names."""
    source = inspect.getsource(kernel) if inspect.isfunction(kernel) else ""
    called = {
        word: getattr(getattr(module, of, None), word, None) for of, word in re.findall(r"(\w+)\.(\w+)\(", source)
    }
    loops = {name: loop.compiled.__module__ for name, loop in called.items() if isinstance(loop, Jit)}
    files = dict.fromkeys([module.__name__, *loops.values()])
    paths = [ROOT / Path("backends", "cpu", f"{file.rpartition('.')[2]}.py") for file in files]
    text = ": " + ", ".join(f"`{name}`" for name in loops) if loops else ""
    return ", ".join(_link(path.name, path) for path in paths) + text


KERNEL = re.compile(r"^(?:extern \"C\" __global__ void|KERNEL\([^)]*\)) (\w+)\(", re.M)


def _source_with_methods(function: Callable[..., Any]) -> str:
    """Return the source of a method, and that of the methods of its class that it calls."""
    own = inspect.getsource(function)
    called = [getattr(type(function.__self__), name, None) for name in re.findall(r"self\.(\w+)\(", own)]  # type: ignore[attr-defined]
    return "".join([own, *(inspect.getsource(method) for method in called if inspect.isfunction(method))])


def _cuda_link(name: str, function: Callable[..., Any]) -> str:
    """Return links to a function's file and to the CUDA kernels that it launches, by name."""
    folder = ROOT / "backends" / "cuda"
    if name in RULES:
        return _link(f"{RULES[name]} in rules.cu", folder / "rules.cu")
    where = {kernel: path for path in folder.glob("*.cu") for kernel in KERNEL.findall(path.read_text("utf-8"))}
    said = re.findall(r"\"(\w+)\"", _source_with_methods(function))
    kernels = list(dict.fromkeys(word for word in [*said, name] if word in where))
    path = ROOT / Path("backends", *function.__module__.split(".")[2:]).with_suffix(".py")
    files = [path, *dict.fromkeys(where[kernel] for kernel in kernels)]
    text = ": " + ", ".join(f"`{kernel}`" for kernel in kernels) if kernels else ""
    return ", ".join(_link(path.name, path) for path in files) + text


def proof(reference: Callable[..., Any]) -> Path:
    """Return the test of a function's file: tests follow the source file by file."""
    *_, room, file = reference.__module__.split(".")
    path = ROOT / "tests" / room / f"test_{file}.py"
    if not path.exists():
        raise LookupError(f"{reference.__module__}: expected its test {path}, found none")
    return path


class Gain(NamedTuple):
    """Compare a kernel with its reference: how many times as fast it is, at each size."""

    ratios: list[float]
    record: Path

    def __str__(self) -> str:
        low, middle, high = (f"{f(self.ratios):.2g}" for f in (min, statistics.median, max))
        return f"{middle} ({low} to {high})" if len(self.ratios) > 1 else middle


def gains() -> dict[tuple[str, str], Gain]:
    """Return (function, "cpu" or "cuda") -> its gain in the last record that has it."""
    found: dict[tuple[str, str], Gain] = {}
    for kind in RECORDS:
        for path in sorted(RESULTS.glob(f"{kind}-*.json"), key=lambda path: path.name[-15:]):
            if kind == "kernels" and path.name.startswith("kernels-training"):
                continue
            rows = json.loads(path.read_text("utf-8"))["rows"]
            times = {
                (row["op"], row["width"], row["batch"], row["device"].split(":")[0], row["variant"]): row["median_us"]
                for row in rows
                if "median_us" in row
            }
            ratios: dict[tuple[str, str], list[float]] = {}
            for (op, width, batch, device, variant), time in times.items():
                if variant == "fused" and (op, width, batch, device, "reference") in times:
                    function = op.partition(":")[0]  # a hidden layer is timed with several activations
                    gain = times[op, width, batch, device, "reference"] / time
                    ratios.setdefault((function, device), []).append(gain)
            found |= {key: Gain(each, path) for key, each in ratios.items()}
    return found


def _without(name: str, served: dict[str, str]) -> str:
    """Return the cell of a function that has no kernel on a device; `served`: the functions that have one -> link."""
    within = WITHIN.get(name, "")
    kinds = [within.replace("*", kind) for kind in ("bias", "batchnorm", "layernorm")]
    fused = [kind for kind in dict.fromkeys(kinds) if kind in served]
    if not fused:
        return "reference"
    return f"reference; in a step `{within}`" + ("" if "*" in within else f": {served[within]}")


def matrix() -> str:
    """Return the text of the file."""
    gained = gains()
    timed_on_cuda = any(device == "cuda" for _, device in gained)
    lines = [HEAD.format(cuda="" if timed_on_cuda else NOT_ON_CUDA)]
    lines += ["| Function | Reference | Numba | CUDA | Proof | Gain, Numba | Gain, CUDA |", f"|{' --- |' * 7}"]
    room = ""
    found = list(functions())
    served = {device: {f.name: f.kernels[device] for f in found if device in f.kernels} for device in TITLES}
    for function in found:
        source = Path(*function.reference.__module__.split(".")).with_suffix(".py")
        if source.as_posix() != room:
            room = source.as_posix()
            lines.append(f"| **{room}** | | | | | | |")
        cells = [f"`{function.name}`", _link(source.name, ROOT / source)]
        cells += [function.kernels.get(device) or _without(function.name, served[device]) for device in TITLES]
        test = proof(function.reference)
        cells.append(_link(test.name, test))
        for device in TITLES:
            timed = function.name if device in function.kernels else WITHIN.get(function.name, "")
            gain = gained.get((timed, device), "not timed" if timed in served[device] else "")
            cells.append(f"{gain}" if timed == function.name or not gain else f"in a step: {gain}")
        lines.append(f"| {' | '.join(cells)} |")
    machines = dict.fromkeys(gain.record for gain in gained.values())
    lines += ["", "Measured on:", ""]
    for path in machines:
        record = json.loads(path.read_text("utf-8"))
        on = ", ".join([record["machine"]["cpu"], *record["machine"].get("gpu", [])])
        lines.append(f"- {_link(path.name, path)}: {on}, commit {(record['commit'] or 'unknown')[:12]}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("kernels.md").write_text(matrix(), encoding="utf-8")
