"""Helpers to rewrite the calls of a recorded step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from fcnet.backends.device import Array, Call


def replacement(function: Callable[..., Any], outputs: Iterable[str], **arguments: Any) -> Call:
    """Return a call that is to take a recorded call's place; `outputs` as in `Call`."""
    call = Call(function, **arguments)
    call.outputs, call.known = frozenset(outputs), True
    return call


def overlaps(x: Array, value: Any) -> bool:
    """Return whether `value`, or an array in it, shares memory with x."""
    if isinstance(value, tuple | list):
        return any(overlaps(x, part) for part in value)
    if not hasattr(value, "data") or not hasattr(value, "nbytes") or not hasattr(value.data, "ptr"):
        return False
    return x.data.ptr < value.data.ptr + value.nbytes and value.data.ptr < x.data.ptr + x.nbytes
