"""What messages to the user share: nearest valid names, plurals, errors and warnings with a name of their own."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from difflib import get_close_matches


class MissingExtra(ImportError):
    """An optional dependency is needed and not installed; the message says which extra brings it."""

    def __init__(self, need: str, package: str, extra: str) -> None:
        super().__init__(f"{need} needs {package}, which is not installed: pip install 'fcnet[{extra}]'")


class DivergedError(ArithmeticError):
    """The loss became NaN or infinite during training."""


class TrainingWarning(UserWarning):
    """A training goes on, but a figure that it is judged by is NaN or infinite."""


# Each time: by default Python keeps quiet when the same line is said of the next training.
warnings.simplefilter("always", TrainingWarning, append=True)


def counted(count: int, noun: str, nouns: str | None = None) -> str:
    """A number of things; `nouns` is the plural where that is not `noun` with an s.

    >>> counted(1, "epoch"), counted(2000, "epoch"), counted(0, "class", "classes")
    ('1 epoch', '2000 epochs', '0 classes')
    """
    return f"{count} {noun if count == 1 else nouns or noun + 's'}"


def unknown(argument: str, got: object, valid: Iterable[object]) -> ValueError:
    """ValueError for a name that is not one of `valid`, with the nearest valid one.

    >>> str(unknown("update_rule", "adma", ["sgd", "adam"]))
    "update_rule: expected one of sgd, adam; got 'adma'; did you mean 'adam'?"
    """
    names = [str(name) for name in valid]
    near = get_close_matches(str(got), names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return ValueError(f"{argument}: expected one of {', '.join(names)}; got {got!r}{hint}")
