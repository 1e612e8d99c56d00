"""Rewrite a recorded step whose products are in bfloat16 so that each matrix is rounded only once, where it is made.

As recorded, each product rounds its operands itself: a hidden layer's output, its gradient and the weights are read
twice as float32 and written twice as bfloat16. In the rewritten step their bfloat16 copies are kept until the matrices
change, and a matrix that only products read is not written as float32 at all. The bits are those of the recorded calls,
except that a hidden unit counts as off where its output is below half the smallest bfloat16, 2^-134.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fcnet.backends.cuda import narrow
from fcnet.backends.cuda.affine import AffineKernels
from fcnet.backends.cuda.hidden import HiddenKernels
from fcnet.backends.cuda.launch import Launcher
from fcnet.backends.cuda.rewriting import overlaps, replacement
from fcnet.backends.device import Array, Call

FORWARD, BACKWARD = "bias_activation_dropout_forward", "bias_activation_dropout_backward"
#: Calls that write to nothing but their outputs; after any other call, all copies are considered outdated.
FOLLOWED = {
    *("matmul", "matmul_backward", "affine_forward", "affine_backward", FORWARD, BACKWARD, "next_batch", "gather"),
    *("smooth_labels", "weighted_loss", "softmax_loss", "svm_loss", "mse_loss", "bce_loss"),
}


class RoundedOnce:
    """Rewrite the calls of a step."""

    def __init__(self, launcher: Launcher, gemm: Callable[[], Any], run_concurrently: Callable[..., None]) -> None:
        """Keep what the calls use: `gemm` returns this thread's `Gemm`; `run_concurrently` as in `AffineKernels`."""
        self._cupy, self._gemm = launcher.cupy, gemm
        self._hidden = HiddenKernels(launcher)
        self._affine = AffineKernels(launcher, self.multiply, run_concurrently)
        self._buffers: dict[tuple[int, int], Array] = {}  # by the float32 array's address and size
        self._valid: list[tuple[Array, Array]] = []  # float32 arrays with their rounded copies

    def __call__(self, calls: Sequence[Call]) -> list[Call]:
        """Return calls with the same results, as far as anything reads them, in fewer passes over memory."""
        backward = [call for i, call in enumerate(calls) if self._rounds_gradient(call, calls[i + 1 :])]
        made: list[Call] = []
        self._valid = []  # nothing is known of what happens between steps
        for i, call in enumerate(calls):
            if self._multiplies(call):
                made += self._with_rounded_operands(call)
                self._forget(call)
            elif call in backward:
                made.append(self._backward_of(call))
            elif call.name == FORWARD and self._rounds_output(call, calls[i + 1 :], backward):
                made.append(self._forward_of(call))
            else:
                made.append(call)
                self._forget(call)
        return made

    # Which calls

    def _multiplies(self, call: Call) -> bool:
        """Return whether this call multiplies in bfloat16; layers of few outputs are multiplied in full precision."""
        if call.name not in ("matmul", "matmul_backward", "affine_forward", "affine_backward"):
            return False
        x, w = _operands(call)[-2:]
        return call.arguments["precision"] == "bf16" and not (call.name.startswith("affine") and narrow.taken(x, w))

    def _served(self, call: Call) -> bool:
        """Return whether this pass of a hidden layer is made by ReLU's kernels, which can write bfloat16."""
        given = call.arguments
        activation = given["cache"].activation if call.name == BACKWARD else given["activation"]
        return activation == "relu" and isinstance(getattr(call.func, "__self__", None), HiddenKernels)

    def _rounds_gradient(self, call: Call, later: Sequence[Call]) -> bool:
        """Return whether this is a hidden layer's backward pass whose gradient only products read."""
        return call.name == BACKWARD and self._served(call) and self._only_multiplied(call.arguments["dz"], later)

    def _rounds_output(self, call: Call, later: Sequence[Call], backward: Sequence[Call]) -> bool:
        """Return whether this is a hidden layer's forward pass whose output only products and `backward` read."""
        return self._served(call) and self._only_multiplied(_output(call), later, backward)

    def _only_multiplied(self, array: Array, later: Sequence[Call], backward: Sequence[Call] = ()) -> bool:
        """Return whether `array`, until it is written again, is read only by products and by the calls `backward`.

        Products read it as an operand, `backward` as the output of their layer.
        """
        for call in later:
            read = [
                name for name, value in call.arguments.items() if name not in call.outputs and overlaps(array, value)
            ]
            if self._multiplies(call):
                if read and not any(_same(array, x) for x in _operands(call)):
                    return False
                if call.name == "affine_backward" and _same(array, call.arguments["dout"]):
                    return False  # its sum, the bias's gradient, is taken in float32
            elif read and not (read == ["cache"] and call in backward and _same(array, call.arguments["cache"].hidden)):
                return False
            if any(overlaps(array, call.arguments[name]) for name in call.outputs):
                return True
        return True

    # The calls in their place

    def _with_rounded_operands(self, call: Call) -> list[Call]:
        given = call.arguments
        rounding: list[Call] = []
        operands = [self._rounded(x, rounding) for x in _operands(call)]
        if call.name == "matmul":
            x, w = operands
            return [*rounding, replacement(self.multiply, ["out"], x=x, w=w, out=given["out"])]
        if call.name == "affine_forward":
            x, w = operands
            return [
                *rounding,
                replacement(self._affine.affine_forward, ["out"], x=x, w=w, b=given["b"], out=given["out"]),
            ]
        dout, x, w = operands
        results = {name: given[name] for name in ("dx", "dw") if given[name] is not None}
        needed = {"need_dx": given["need_dx"]}
        made = [*rounding, replacement(self._affine.matmul_backward, results, dout=dout, x=x, w=w, **needed, **results)]
        if call.name == "affine_backward":
            made.append(replacement(self._affine.bias_gradient, ["db"], dout=given["dout"], db=given["db"]))
        return made

    def _forward_of(self, call: Call) -> Call:
        given, out = call.arguments, _output(call)
        self._forget(call)
        rounded = self._made(out)
        arguments = {name: given[name] for name in ("z", "b", "keep_ratio", "rng")}
        return replacement(self._hidden.bias_relu, ["out"], out=rounded, **arguments)

    def _backward_of(self, call: Call) -> Call:
        given, cache = call.arguments, call.arguments["cache"]
        hidden = next((rounded for array, rounded in self._valid if _same(array, cache.hidden)), cache.hidden)
        self._forget(call)
        results = {"dz": self._made(given["dz"]), "db": given["db"]}
        arguments = {"dout": given["dout"], "hidden": hidden, "scale": cache.scale}
        return replacement(self._hidden.bias_relu_backward, results, **results, **arguments)

    def multiply(self, x: Array, w: Array, out: Array, precision: str | None = None) -> Array:
        """Compute out = x @ w from the bits of bfloat16 matrices; `precision` is ignored."""
        return self._gemm().of_rounded(x, w, out)

    def round_to_bf16(self, x: Array, out: Array) -> None:
        """Fill `out` with the bits of x rounded to bfloat16."""
        self._gemm().rounded(x, out)

    # The rounded copies

    def _rounded(self, x: Array, rounding: list[Call]) -> Array:
        """Return the rounded copy of x; if it has to be made, the call is added to `rounding`."""
        for array, rounded in self._valid:
            if _same(array, x):
                return rounded
        rounded = self._made(x)
        rounding.append(replacement(self.round_to_bf16, ["out"], x=x, out=rounded))
        return rounded

    def _made(self, x: Array) -> Array:
        """Return the array for a rounded copy of x, valid from the next call on."""
        key = x.data.ptr, x.size
        if key not in self._buffers:
            self._buffers[key] = self._cupy.empty(x.size, np.uint16)
        rounded = self._buffers[key].reshape(x.shape)
        self._valid.append((x, rounded))
        return rounded

    def _forget(self, call: Call) -> None:
        """Forget the copies of arrays that this call writes to."""
        written = [call.arguments[name] for name in call.outputs]
        self._valid = [
            (x, r) for x, r in self._valid if call.name in FOLLOWED and not any(overlaps(x, w) for w in written)
        ]


def _operands(call: Call) -> list[Array]:
    """Return the matrices that a call multiplies; the last two are x and the weights."""
    if call.name == "affine_backward":
        return [call.arguments["dout"], *call.arguments["cache"][:2]]
    return [call.arguments[name] for name in ("dout", "x", "w") if name in call.arguments]


def _output(call: Call) -> Array:
    given = call.arguments
    return given["hidden"] if given["out"] is None else given["out"]


def _same(x: Array, y: Array) -> bool:
    return x.data.ptr == y.data.ptr and x.shape == y.shape
