"""Dispatch from a public function to a formula or a kernel: the only branch on the device in fcnet.

A formula in `fcnet.functional` or `fcnet.optim` is written once, for any device: its first parameter is the backend
whose array module it computes with. Decorated with `checked`, it becomes a public function without that parameter,
which checks its arguments and finds their backend. Decorated with `accelerated`, it is also replaced by the device's
kernel of the same name, if there is one and the kernel's precondition holds for the arguments.

A recorded step does all this once; repeated, it goes straight to what was chosen.
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
    """Call a public function of arrays, which a step can record.

    Attributes:
        formula: the readable function, whose first argument is a backend.
        reference: the formula as a function without backend, which finds it from the arguments and checks nothing.
        signature: of the public function.
        results: the names of what it returns, in order.
        outputs: the `results` that are keyword-only parameters, too: arrays passed for them are filled and returned.
            (What a function changes in place is a positional argument, and no output.)
        check: called with the same arguments before the formula; raises ValueError or TypeError.
    """

    def __init__(self, formula: Callable, results: tuple[str, ...], check: Callable | None) -> None:
        functools.update_wrapper(self, formula)
        with_backend = inspect.signature(formula)
        backend, *parameters = with_backend.parameters.values()
        if backend.name != "backend":  # a mistake in fcnet itself, found when the module is imported
            raise TypeError(f"{formula.__name__}: expected `backend` as the first parameter, got {backend.name}")
        self.signature = self.__signature__ = with_backend.replace(parameters=parameters)
        self.formula, self.results, self.check = formula, results, check
        self.reference = _on_their_device(formula, self.signature)
        self.outputs = frozenset(
            parameter.name
            for parameter in parameters
            if parameter.name in results and parameter.kind is inspect.Parameter.KEYWORD_ONLY
        )

    def kernel(self, backend: Backend, *args: Any, **kwargs: Any) -> Callable[..., Any] | None:
        """Return the kernel that serves these arguments, or None."""
        """Return the device's kernel for these arguments, or None: then the formula serves them."""
        return None

    def choose(self, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        """Check the arguments; return the kernel that serves them, or the reference."""
        if self.check is not None:
            self.check(*args, **kwargs)
        return self.kernel(backend_of(*args), *args, **kwargs) or self.reference

    def served(self, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        """Choose as `choose` does; what is returned is for arguments of the same layout, which it does not check."""
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
    """Call a function that kernels may replace."""

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
    """Return a decorator that makes a formula a public function, which no kernel replaces; `results` names its results.

    `check` is called with the public function's arguments and raises ValueError or TypeError; it runs in direct calls
    and when a step is recorded, not each time a recorded step is repeated.
    """
    return lambda formula: Function(formula, results, check)


def accelerated(*results: str, check: Callable | None = None) -> Callable[[Callable], Op]:
    """Return a decorator that makes a formula a public function, which kernels may replace; arguments as `checked`."""

    def decorate(formula: Callable) -> Op:
        op = REGISTRY[formula.__name__] = Op(formula, results, check)
        return op

    return decorate
