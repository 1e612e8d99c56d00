"""Ways to run a kernel on a device: the readable reference, the kernel that replaces it, the recorded step.

All of them are timed as a training step makes the call: with the arrays of the first call given back as outputs
(`out=`, `dx=`, `cache=`), so nothing that the function returns is allocated repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks.problem import Arguments
from fcnet.backends import Array, Backend, Op
from fcnet.backends.device import CallSequence
from fcnet.backends.step import refilling


class Step(NamedTuple):
    """Repeat a call, and name the arrays it fills each time."""

    run: Callable[[], Any]
    filled: dict[str, Array]


def _with_outputs(function: Callable, op: Op, call: Arguments) -> Step:
    args, kwargs = call
    repeated = refilling(op, function, function(*args, **kwargs), *args, **kwargs)
    filled = {name: repeated.arguments[name] for name in op.results if name in repeated.outputs}
    return Step(repeated, {name: value for name, value in filled.items() if hasattr(value, "dtype")})


def reference(backend: Backend, op: Op, call: Arguments) -> Step:
    """Return the readable function in `fcnet.functional`."""
    return _with_outputs(op.reference, op, call)


def fused(backend: Backend, op: Op, call: Arguments) -> Step | None:
    """Return the kernel that fcnet chooses for these arrays; None where that is the reference."""
    chosen = op.choose(*call[0], **call[1])
    return None if chosen is op.reference else _with_outputs(chosen, op, call)


def captured(backend: Backend, op: Op, call: Arguments) -> Step | None:
    """Return the chosen function, recorded by the device; None where the device does not record."""
    step = fused(backend, op, call) or reference(backend, op, call)
    compiled = backend.compile([step.run])
    left_as_it_was = isinstance(compiled, CallSequence) and compiled.calls == (step.run,)
    return None if left_as_it_was else step._replace(run=compiled)


VARIANTS: dict[str, Callable[[Backend, Op, Arguments], Step | None]] = {
    "reference": reference,
    "fused": fused,
    "captured": captured,
}
