"""Optuna, when it is there, without its own log lines and warnings of experiments."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

from fcnet.errors import MissingExtra


def need_optuna() -> Any:
    """Return the module. Raises MissingExtra."""
    try:
        with warnings.catch_warnings(action="ignore"):  # tqdm's, in a notebook without ipywidgets, of Optuna's own bar
            import optuna
    except ImportError:
        raise MissingExtra("a search", "Optuna", "search") from None
    return optuna


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Silence Optuna within the context; afterwards its level and Python's warnings are as before."""
    optuna = need_optuna()
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
