"""From a public function to what serves it on a device: the only branch on the device in fcnet.

A formula in `fcnet.functional` or `fcnet.optim` is written once, for any device: its first parameter is the backend
whose array module it computes with. Decorated with `checked`, it becomes a public function without that parameter,
which checks its arguments and finds their backend. Decorated with `accelerated`, it is replaced, on a device that has
one, by the kernel of the same name where the kernel's precondition holds.

A step that is recorded asks all this once, and makes the planned calls ever after.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from fcnet.backends.device import Backend
from fcnet.backends.registry import REGISTRY
from fcnet.backends.select import backend_of


class Function:
    """A public function of arrays, which a step can record.

    Attributes:
        formula: the readable function, whose first argument is a backend.
        reference: the same, which finds the backend from its arguments and checks nothing.
        signature: of the public function.
        results: the names of what it returns, in order.
        outputs: those of `results` that are keyword-only parameters too: given back, they are filled instead of
            allocated. (A function that works in place returns a positional argument, which is no output.)
        check: called with the same arguments before the formula; raises ValueError or TypeError.
    """

    def __init__(self, formula: Callable, results: tuple[str, ...], check: Callable | None) -> None:
        functools.update_wrapper(self, formula)
        whole = inspect.signature(formula)
        backend, *parameters = whole.parameters.values()
        if backend.name != "backend":  # a mistake in fcnet itself, found when the module is imported
            raise TypeError(f"{formula.__name__}: expected `backend` as the first parameter, got {backend.name}")
        self.signature = self.__signature__ = whole.replace(parameters=parameters)
        self.formula, self.results, self.check = formula, results, check
        self.reference = _on_their_device(formula, self.signature)
        self.outputs = frozenset(
            parameter.name
            for parameter in parameters
            if parameter.name in results and parameter.kind is inspect.Parameter.KEYWORD_ONLY
        )

    def kernel(self, backend: Backend, *args: Any, **kwargs: Any) -> Callable[..., Any] | None:
        """Return the kernel of this device that serves these arguments; None: the formula does."""
        return None

    def choose(self, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        """Check the arguments and return the kernel or the reference that serves them."""
        if self.check is not None:
            self.check(*args, **kwargs)
        return self.kernel(backend_of(*args), *args, **kwargs) or self.reference

    def served(self, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        """As `choose`, for calls to come on arguments alike: neither checks them, nor asks for their backend."""
        if self.check is not None:
            self.check(*args, **kwargs)
        backend = backend_of(*args)
        return self.kernel(backend, *args, **kwargs) or functools.partial(self.formula, backend)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.check is not None:
            self.check(*args, **kwargs)
        backend = backend_of(*args)
        kernel = self.kernel(backend, *args, **kwargs)
        if kernel is not None:
            return kernel(*args, **kwargs)
        return self.formula(backend, *args, **kwargs)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.formula.__module__}.{self.formula.__name__}>"


class Op(Function):
    """A function that kernels may replace."""

    def kernel(self, backend: Backend, *args: Any, **kwargs: Any) -> Callable[..., Any] | None:
        kernel = backend.kernels.get(self.formula.__name__)
        return kernel.function if kernel is not None and kernel.fits(*args, **kwargs) else None


def _on_their_device(formula: Callable, signature: inspect.Signature) -> Callable:
    @functools.wraps(formula)
    def reference(*args: Any, **kwargs: Any) -> Any:
        return formula(backend_of(*args), *args, **kwargs)

    reference.__signature__ = signature  # type: ignore[attr-defined]
    return reference


def checked(*results: str, check: Callable | None = None) -> Callable[[Callable], Function]:
    """Make a formula that returns `results` (names) a public function; no device replaces it.

    `check` is called with the public function's arguments and raises ValueError or TypeError; it runs in direct calls
    and when a step is recorded, not each time a recorded step is repeated.
    """
    return lambda formula: Function(formula, results, check)


def accelerated(*results: str, check: Callable | None = None) -> Callable[[Callable], Op]:
    """Make a formula that returns `results` a public function that kernels may replace; `check` as in `checked`."""

    def decorate(formula: Callable) -> Op:
        op = REGISTRY[formula.__name__] = Op(formula, results, check)
        return op

    return decorate
