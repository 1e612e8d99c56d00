"""From the readable reference to the fastest function that fits: the only branch on the device in fcnet.

A reference function in `fcnet.functional` or `fcnet.optim.rules` is decorated with `accelerated`. Called directly,
it checks its arguments, then runs the kernel of the same name if the arrays' backend has one and its precondition
holds, else the reference. A planned step makes that choice once (`Op.choose`) and calls the chosen one afterwards.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from fcnet.backends.registry import REGISTRY
from fcnet.backends.select import backend_of


class Op:
    """A reference function that kernels may replace.

    Attributes:
        reference: the readable function, on any device.
        results: the names of what it returns, in order.
        outputs: those of `results` that are keyword-only parameters too: given back, they are filled instead of
            allocated. (A function that works in place returns a positional argument, which is no output.)
    """

    def __init__(self, reference: Callable, results: tuple[str, ...], check: Callable | None) -> None:
        functools.update_wrapper(self, reference)
        self.reference = reference
        self.results = results
        self.check = check
        parameters = inspect.signature(reference).parameters
        self.outputs = frozenset(
            name for name in results if name in parameters and parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
        )

    def choose(self, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        """Check the arguments and return the kernel or the reference that serves them."""
        if self.check is not None:
            self.check(*args, **kwargs)
        kernel = backend_of(*args).kernels.get(self.reference.__name__)
        if kernel is not None and kernel.fits(*args, **kwargs):
            return kernel.function
        return self.reference

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.choose(*args, **kwargs)(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<accelerated {self.reference.__module__}.{self.reference.__name__}>"


def accelerated(*results: str, check: Callable | None = None) -> Callable[[Callable], Op]:
    """Decorate a reference function that returns `results` (names) and may be replaced by a kernel.

    `check` is called with the same arguments before the function is chosen and raises ValueError or TypeError;
    it runs in direct calls and when a step is planned, not each time a planned step is repeated.
    """

    def decorate(reference: Callable) -> Op:
        op = Op(reference, results, check)
        REGISTRY[reference.__name__] = op
        return op

    return decorate
