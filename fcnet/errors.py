"""What every message to the user shares: the nearest valid name, and the errors with a name of their own."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class MissingExtra(ImportError):
    """An optional dependency is needed and not installed; the message says which extra brings it."""

    def __init__(self, need: str, package: str, extra: str) -> None:
        super().__init__(f"{need} needs {package}, which is not installed: pip install 'fcnet[{extra}]'")


class DivergedError(ArithmeticError):
    """The loss became NaN or infinite during training."""


def unknown(argument: str, got: object, valid: Iterable[object]) -> ValueError:
    """ValueError for a name that is not one of `valid`, with the nearest valid one.

    >>> str(unknown("update_rule", "adma", ["sgd", "adam"]))
    "update_rule: expected one of sgd, adam; got 'adma'; did you mean 'adam'?"
    """
    names = [str(name) for name in valid]
    near = get_close_matches(str(got), names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return ValueError(f"{argument}: expected one of {', '.join(names)}; got {got!r}{hint}")
