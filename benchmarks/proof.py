"""Nothing is timed before it is proved: every result equals the float64 answer, and those of the other devices.

An array is right if its largest error is at most `tolerance` times the root mean square of the right values.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from benchmarks.problem import Arguments, Host, Problem, draw
from benchmarks.problems import PROBLEMS
from benchmarks.variants import VARIANTS, Step
from fcnet.backends import Backend, get_backend

UNIT = float(np.finfo(np.float32).eps)
SMALLEST = 0.1  # the inputs are of order 1, and so is what rounding does to a result that should vanish
WHOLE = 1 << 32  # products batch*width*width up to which every column is compared with the float64 answer


class WrongResult(ArithmeticError):
    """Signal that a kernel gave something else than the right answer; the message says what and by how much."""


class Contender(NamedTuple):
    """Hold one device and variant at one size: a proved step, or None and the reason why it may not be timed."""

    backend: Backend
    step: Step | None
    refusal: str = ""


def tolerance(width: int, batch: int) -> float:
    """Return the allowed error for sums of up to `width` or `batch` float32 terms.

    Rounding errors of a sum of n random terms grow like sqrt(n) next to the sum; 8 leaves room for the worst of
    millions of elements. A kernel that rounds its inputs to fewer bits (TF32, bfloat16) does not pass.
    """
    return 8 * UNIT * max(width, batch) ** 0.5


def compare(name: str, got: np.ndarray, want: np.ndarray, limit: float, against: str) -> float:
    """Return the largest error of `got` over the root mean square of `want` (or over 0.1 if that is larger).

    Raises:
        WrongResult: it is above `limit` or not a number; or shape or dtype are not as expected.
    """
    if got.shape != want.shape or got.dtype != np.float32:
        raise WrongResult(f"{name} is {got.dtype} {got.shape}, expected float32 {want.shape} as {against}")
    scale = max(float(np.sqrt(np.mean(np.square(want, dtype=np.float64)))), SMALLEST)
    error = float(np.max(np.abs(got - want))) / scale
    if not error <= limit:  # also if it is NaN
        raise WrongResult(f"{name} differs from {against}: relative error {error:.2g}, allowed {limit:.2g}")
    return error


def prove(
    problem: Problem, backend: Backend, step: Step, call: Arguments, answer: Host, columns: np.ndarray, limit: float
) -> Host:
    """Run the step once on poisoned outputs and compare; the results on the host, whole, by name.

    Raises:
        WrongResult: a result is wrong, missing or not written everywhere.
    """
    given = inspect.signature(problem.op.reference).bind(*call[0], **call[1]).arguments
    filled = step.filled | {name: given[name] for name in problem.starts}
    for name, array in filled.items():
        array.fill(problem.starts.get(name, np.nan))
    step.run()
    results = {name: backend.to_numpy(array) for name, array in filled.items()}
    for name, want in answer.items():
        if name not in results:
            raise WrongResult(f"{name} is not among the results {', '.join(results)}")
        got = results[name]
        compare(name, got if got.shape == want.shape else got[..., columns], want, limit, "the float64 answer")
    return results


def prepare(op: str, width: int, batch: int, contenders: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Contender]:
    """Build and prove every (device, variant) at one size; those that a device does not have are left out."""
    problem, host = PROBLEMS[op], draw(width, batch)
    count = min(width, max(16, WHOLE // (batch * width)))
    columns = np.unique(np.linspace(0, width - 1, count).round().astype(np.intp))
    answer, limit = problem.answer(host, columns), tolerance(width, batch)
    found: dict[tuple[str, str], Contender] = {}
    first: tuple[str, Host] | None = None
    for device, variant in contenders:
        backend = get_backend(device)
        step, refusal = None, ""
        try:
            call = problem.arguments(backend, host)
            step = VARIANTS[variant](backend, problem.op, call)
            if step is None:
                continue
            results = prove(problem, backend, step, call, answer, columns, limit)
            if first is None:
                first = f"{device} {variant}", {name: array.copy() for name, array in results.items()}
            else:
                for name, want in first[1].items():
                    compare(name, results[name], want, 2 * limit, f"that of {first[0]}")
        except WrongResult as error:
            refusal = f"wrong result: {error}"
        except Exception as error:  # out of memory, a kernel that does not launch: the others are still timed
            refusal = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        found[device, variant] = Contender(backend, None if refusal else step, refusal)
    return found
