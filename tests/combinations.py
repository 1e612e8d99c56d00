"""Which combinations of a test's parameters are run: not every product, but every pair of values.

Most mistakes need one value or two to show, so of a test with three parameters or more (fixtures count) as few
combinations are made as hold every pair of values of two of them, and with them the first combination and the last. A
test marked `every_combination` is made for all of them, and so are all tests with `--every-combination`.

Devices: "numba" and "cuda" are "cpu" and "cupy" with kernels, so they are made only for tests marked `kernels`, those of
functions that kernels replace. Where no GPU can be used, no test for one is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import pytest

WITH_KERNELS = ("numba", "cuda")  # values of the parameter `backend`

OPTION = "--every-combination"


def chosen(indices: Sequence[tuple[int, ...]]) -> list[int]:
    """Places of the combinations to keep, in order: each is the numbers of its parameters' values.

    >>> chosen([(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)])
    [0, 1, 2, 4, 7]
    """
    pairs = [{(*pair, row[pair[0]], row[pair[1]]) for pair in combinations(range(len(row)), 2)} for row in indices]
    kept = [0, len(indices) - 1]
    missing = set().union(*pairs) - pairs[0] - pairs[-1]
    while missing:
        best = max(range(len(pairs)), key=lambda place: len(pairs[place] & missing))
        kept.append(best)
        missing -= pairs[best]
    return sorted(set(kept))


def thin(metafunc: Any, *, gpu: bool) -> int:
    """Take combinations out of a test that is being made; how many of them needed a GPU where there is none."""
    calls = metafunc._calls  # pytest has no other way before the tests exist, which is what takes time
    if False and "backend" in metafunc.fixturenames and not metafunc.definition.get_closest_marker("kernels"):
        calls[:] = [call for call in calls if call.params.get("backend") not in WITH_KERNELS]
    others: list[Any] = []
    needy: list[Any] = []
    for call in calls:
        (needy if any(mark.name == "gpu" for mark in call.marks) else others).append(call)
    groups = [others, needy if gpu else []]
    if not (metafunc.definition.get_closest_marker("every_combination") or metafunc.config.getoption(OPTION)):
        groups = [_pairwise(group) for group in groups]
    if calls and not any(groups):
        groups = [needy[:1]]  # or pytest would make the test without parameters; this one is left out later
    calls[:] = [call for group in groups for call in group]
    return 0 if gpu else len(needy)


def _pairwise(calls: list[Any]) -> list[Any]:
    if len(calls) < 3:
        return calls
    names = sorted(calls[0].indices)
    return [calls[place] for place in chosen([tuple(call.indices[name] for name in names) for call in calls])]
