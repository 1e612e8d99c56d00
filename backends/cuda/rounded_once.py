"""Rewrite a recorded step whose products are in bfloat16 so that what they read and give is stored so.

As recorded, all arrays are float32: each product rounds its operands itself and widens its rounded result. In the
rewritten step batches, the inputs and outputs of hidden layers and their gradients are bfloat16, written once where
they are made, unless something reads them that cannot read bfloat16; weights have a bfloat16 copy that the update rule
writes beside them. Master weights and their gradients, moments, statistics, scores and loss are float32. The bits are
those of the recorded calls, except that a hidden unit counts as off where its output is below half the smallest
bfloat16, 2^-134.

What the copies of the weights hold when a step begins is what the step before left. Somebody else may have written to
the weights in between, so they are rounded anew whenever steps are asked for (`Refreshed`), once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from fcnet.backends.cuda import narrow
from fcnet.backends.cuda.affine import AffineKernels
from fcnet.backends.cuda.batch import BatchKernels
from fcnet.backends.cuda.bf16 import BITS, rounded
from fcnet.backends.cuda.hidden import HiddenKernels
from fcnet.backends.cuda.launch import Launcher
from fcnet.backends.cuda.optim import OptimKernels
from fcnet.backends.cuda.rewriting import overlaps, replacement
from fcnet.backends.cuda.sources import RULES
from fcnet.backends.device import Array, Call
from fcnet.backends.rules import RuleKernel

KINDS = "bias", "batchnorm", "layernorm"
FORWARD, BACKWARD = ([f"{kind}_activation_dropout_{way}" for kind in KINDS] for way in ("forward", "backward"))
PRODUCTS = ("matmul", "matmul_backward", "affine_forward", "affine_backward")
#: Calls that write to nothing but their outputs.
FOLLOWED = {
    *(*PRODUCTS, *FORWARD, *BACKWARD, "next_batch", "gather"),
    *("smooth_labels", "weighted_loss", "softmax_loss", "svm_loss", "mse_loss", "bce_loss", "poisson_loss"),
}
STEPS_AT_ONCE = 64  # which end within a second also where one takes ten milliseconds


class Refreshed:
    """Make a compiled step after calls that prepare it, once for any number of steps in a row; `ManySteps`.

    Attributes:
        step: the compiled step. before: the calls before it. calls: those that it makes.
    """

    most = STEPS_AT_ONCE

    def __init__(self, step: Callable[[], Any], before: Sequence[Call], calls: Sequence[Call]) -> None:
        self.step, self.before, self.calls = step, before, calls
        self._rates = [call.arguments["learning_rate"] for call in calls if call.name in RULES]

    @property
    def description(self) -> str | None:
        """Return how a step is made, as a line of text, if it is known."""
        return getattr(self.step, "description", None)

    def __call__(self) -> None:
        self.steps(1, None)

    def steps(self, count: int, rates: Sequence[Sequence[float]] | None, again: bool = False) -> None:
        """See `ManySteps`."""
        for call in () if again else self.before:
            call()
        for number in range(count):
            if rates is not None:
                for array, rate in zip(self._rates, rates[number], strict=True):
                    array.fill(rate)
            self.step()


class RoundedOnce:
    """Rewrite the calls of a step."""

    def __init__(self, launcher: Launcher, gemm: Callable[[], Any], run_concurrently: Callable[..., None]) -> None:
        """Keep what the calls use: `gemm` returns this thread's `Gemm`; `run_concurrently` as in `AffineKernels`."""
        self._on, self._gemm = launcher, gemm
        self._optim = OptimKernels(launcher)
        self._affine = AffineKernels(launcher, self.multiply, run_concurrently)
        self._buffers: dict[tuple[int, int], Array] = {}  # by the float32 array's address and size
        self._valid: list[tuple[Array, Array]] = []  # float32 arrays with their rounded copies

    def __call__(self, calls: Sequence[Call]) -> tuple[list[Call], list[Call]]:
        """Return the calls to be made before some steps in a row, and the calls of a step.

        Their results are those of `calls`, as far as anything reads them, in fewer passes over memory. If one of them
        is no call of fcnet's functions, and so may read and write anything, they remain as they are.
        """
        if not all(call.known for call in calls):
            return [], list(calls)
        self._valid = []
        before, copies = self._copies_of_weights(calls)
        low = self._stored_low(calls)
        made: list[Call] = []
        for call in calls:
            if self._multiplies(call):
                made += self._product(call, low)
            elif id(call) in low:
                made.append(self._stored(call))
            elif id(call) in copies:
                made.append(self._update_with_copy(call, copies[id(call)]))
                self._forget(call)
            else:
                made.append(call)
                self._forget(call)
        return before, made

    # Which calls

    def _multiplies(self, call: Call) -> bool:
        """Return whether this call multiplies in bfloat16, also where only x is rounded (`narrow`)."""
        return call.name in PRODUCTS and call.arguments["precision"] == "bf16"

    def _stored_low(self, calls: Sequence[Call]) -> set[int]:
        """Return the ids of the calls whose result is stored in bfloat16 only; of gradients of a product that is dx."""
        low: set[int] = set()
        for i, call in enumerate(calls):
            kernels = getattr(call.func, "__self__", None)
            if call.name == "next_batch" and isinstance(kernels, BatchKernels):
                if call.arguments["batch"].dtype == np.float32 and self._only_multiplied(calls, i, "batch"):
                    low.add(id(call))
            elif call.name in FORWARD and isinstance(kernels, HiddenKernels):
                low |= self._layer(calls, i)
        return low

    def _layer(self, calls: Sequence[Call], at: int) -> set[int]:
        """Return the ids of what makes a hidden layer's input, output and gradients if all can be in bfloat16.

        `calls[at]` is its forward pass. None of them are if somebody reads one in float32.
        """
        forward, cache = calls[at], calls[at].arguments["cache"]
        backs = [i for i, call in enumerate(calls) if call.name in BACKWARD and call.arguments["cache"] is cache]
        backward = calls[backs[0]] if backs else None  # a frozen layer has none
        makers = [self._maker(calls, at, "z"), *(self._maker(calls, i, "dout") for i in backs)]
        fine = (
            all(makers)
            and self._only_multiplied(calls, at, "out", backward)
            and all(isinstance(getattr(calls[i].func, "__self__", None), HiddenKernels) for i in backs)
            and all(self._only_multiplied(calls, i, "dz") for i in backs if _gives_low(calls[i]))
        )
        return {id(call) for call in (forward, backward, *makers)} if fine else set()

    def _maker(self, calls: Sequence[Call], at: int, name: str) -> Call | None:
        """Return the product whose result is `name` of `calls[at]`, if nothing besides reads that."""
        array = calls[at].arguments[name]
        for i in range(at - 1, -1, -1):
            call = calls[i]
            if not any(overlaps(array, value) for value in call.arguments.values()):
                continue
            result = next((given for given in ("out", "dx") if given in call.outputs), "")
            if not self._multiplies(call) or call.name == "affine_forward" or not result:
                return None
            alone = all(reader is calls[at] for reader, _ in _readers(calls, i, result))
            return call if alone and _same(array, call.arguments[result]) else None
        return None

    def _only_multiplied(self, calls: Sequence[Call], at: int, name: str, backward: Call | None = None) -> bool:
        """Return whether an output of `calls[at]` is read only by products, and by `backward` as a layer's output."""
        array = calls[at].arguments[name]
        return all(
            any(_same(array, x) for x in self._operands(call))
            and not (call.name == "affine_backward" and _same(array, call.arguments["dout"]))  # summed in float32
            if self._multiplies(call)
            else call is backward and read == ["cache"]
            for call, read in _readers(calls, at, name)
        )

    def _operands(self, call: Call) -> list[Array]:
        """Return the matrices that a product reads in bfloat16: dout, x, w, as far as it has them."""
        *dout, x, w = _matrices(call)
        return [x] if call.name.startswith("affine") and narrow.taken(x, w) else [*dout, x, w]

    # The calls in their place

    def _product(self, call: Call, low: set[int]) -> list[Call]:
        given = call.arguments
        made: list[Call] = []
        operands = {id(x): self._rounded(x, made) for x in self._operands(call)}
        *dout, x, w = [operands.get(id(x), x) for x in _matrices(call)]
        self._forget(call)
        results = {name: given[name] for name in ("out", "dx", "dw") if given.get(name) is not None}
        if id(call) in low:
            results |= {name: self._made(results[name]) for name in results.keys() - {"dw"}}
        how = {"precision": "bf16"} | ({"need_dx": given["need_dx"]} if dout else {})
        if call.name == "matmul":
            made.append(replacement(self.multiply, results, x=x, w=w, stored="bf16", **how, **results))
        elif call.name == "affine_forward":
            made.append(replacement(self._affine.affine_forward, results, x=x, w=w, b=given["b"], **how, **results))
        elif call.name == "affine_backward" and len(operands) == 1:  # `narrow`
            results["db"], cache = given["db"], (x, w, given["cache"][2])
            made.append(replacement(self._affine.affine_backward, results, dout=dout[0], cache=cache, **how, **results))
        else:
            made.append(replacement(self._affine.matmul_backward, results, dout=dout[0], x=x, w=w, **how, **results))
            if call.name == "affine_backward":
                made.append(replacement(self._affine.bias_gradient, ["db"], dout=given["dout"], db=given["db"]))
        return made

    def _stored(self, call: Call) -> Call:
        """Return the call of a batch or of a hidden layer with what it reads and writes in bfloat16."""
        if call.name in FORWARD:
            return self._forward(call)
        if call.name in BACKWARD:
            return self._backward(call)
        self._forget(call)
        return replacement(call.func, call.outputs, **call.arguments | {"batch": self._made(call.arguments["batch"])})

    def _forward(self, call: Call) -> Call:
        given, z = call.arguments, self._copy_of(call.arguments["z"])
        self._forget(call)
        again = given | {"z": z, "out": self._made(given["out"])}
        return replacement(call.func, ["out"], **again)

    def _backward(self, call: Call) -> Call:
        given, cache = call.arguments, call.arguments["cache"]
        dout = self._copy_of(given["dout"])
        if cache.activation == "relu":
            cache = cache._replace(hidden=self._copy_of(cache.hidden), mask=cache.scale)
        self._forget(call)
        results = {"dz": self._made(given["dz"])} if _gives_low(call) else {}
        return replacement(call.func, call.outputs, **given | {"dout": dout, "cache": cache} | results)

    def multiply(
        self, x: Array, w: Array, out: Array, precision: str | None = None, stored: str | None = None
    ) -> Array:
        """Compute out = x @ w of bfloat16 matrices; see `Gemm.of_rounded`. `precision` is that of x and w."""
        return self._gemm().of_rounded(x, w, out, stored)

    def round_to_bf16(self, x: Array, out: Array) -> None:
        """Fill `out` with x rounded to bfloat16."""
        rounded(self._on, x, out)

    # The weights' copies

    def _copies_of_weights(self, calls: Sequence[Call]) -> tuple[list[Call], dict[int, Array]]:
        """Return the calls that round weights before a step, and by a rule's id the copy of all that it updates.

        That is, of weights that nothing writes to before their last product, and nothing after a rule that has their
        copy: so what the copy holds at the end of a step is what the next one needs.
        """
        before: list[Call] = []
        copies: dict[int, Array] = {}
        products = [i for i, call in enumerate(calls) if self._multiplies(call)]
        for w in {_matrices(calls[i])[-1].data.ptr: _matrices(calls[i])[-1] for i in products}.values():
            readers = [i for i in products if any(_same(w, x) for x in self._operands(calls[i]))]
            writers = [i for i, call in enumerate(calls) if _may_write(call, w)]
            if not readers or (writers and writers[0] < readers[-1]):
                continue
            copy = None
            if writers:
                last = calls[writers[-1]]
                if not isinstance(last.func, RuleKernel):
                    continue
                whole = last.arguments["w"]
                copy = copies.setdefault(id(last), self._on.cupy.empty(whole.size, BITS))
                begin = (w.data.ptr - whole.data.ptr) // 4
                copy = copy[begin : begin + w.size].reshape(w.shape)
            before.append(replacement(self.round_to_bf16, ["out"], x=w, out=self._made(w, copy)))
        return before, copies

    def _update_with_copy(self, call: Call, copy: Array) -> Call:
        rule = RuleKernel(call.name, partial(self._optim.update, rounded=copy))
        made = Call(rule, *call.args, **call.keywords)
        made.arguments, made.known = call.arguments | {"rounded": copy}, True
        return made

    # The rounded copies

    def _rounded(self, x: Array, rounding: list[Call]) -> Array:
        """Return the rounded copy of x; if it has to be made, the call is added to `rounding`."""
        copy = next((copy for array, copy in self._valid if _same(array, x)), None)
        if copy is None:
            copy = self._made(x)
            rounding.append(replacement(self.round_to_bf16, ["out"], x=x, out=copy))
        return copy

    def _copy_of(self, x: Array) -> Array:
        """Return the rounded copy of x that a call before has made."""
        return next(copy for array, copy in self._valid if _same(array, x))

    def _made(self, x: Array, copy: Array | None = None) -> Array:
        """Return the array for a rounded copy of x, valid from now on: `copy`, if given."""
        if copy is None:
            key = x.data.ptr, x.size
            if key not in self._buffers:
                self._buffers[key] = self._on.cupy.empty(x.size, BITS)
            copy = self._buffers[key].reshape(x.shape)
        self._valid.append((x, copy))
        return copy

    def _forget(self, call: Call) -> None:
        """Forget the copies of arrays that this call may write to."""
        self._valid = [(x, copy) for x, copy in self._valid if not _may_write(call, x)]


def _matrices(call: Call) -> list[Array]:
    """Return the matrices that a product multiplies; the last two are x and the weights."""
    if call.name == "affine_backward":
        return [call.arguments["dout"], *call.arguments["cache"][:2]]
    return [call.arguments[name] for name in ("dout", "x", "w") if name in call.arguments]


def _readers(calls: Sequence[Call], at: int, name: str) -> Iterator[tuple[Call, list[str]]]:
    """Yield the calls that read an output of `calls[at]` before it is written again, and which arguments it is."""
    array = calls[at].arguments[name]
    for call in calls[at + 1 :]:
        read = [name for name, value in call.arguments.items() if name not in call.outputs and overlaps(array, value)]
        if read:
            yield call, read
        if any(overlaps(array, call.arguments[name]) for name in call.outputs):
            return


def _may_write(call: Call, array: Array) -> bool:
    """Return whether a call may write to `array`: some write to what they read."""
    names = call.outputs if call.name in FOLLOWED else call.arguments.keys()
    return any(overlaps(array, call.arguments[name]) for name in names)


def _gives_low(backward: Call) -> bool:
    """Return whether a layer's backward pass can write dz in bfloat16; layer norm's reads it again."""
    return not backward.name.startswith("layernorm")


def _same(x: Array, y: Array) -> bool:
    return x.data.ptr == y.data.ptr and x.shape == y.shape
