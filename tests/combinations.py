"""Which combinations of a test's parameters are run: not every product, but every pair of values.

Most mistakes need one value or two to show, so of a test with three parameters or more (fixtures count) as few
combinations are made as hold every pair of values of two of them, and with them the first combination and the last.
Where only certain values together reach a kernel, `corner(name=value, ...)` adds all combinations that have these. A
test marked `every_combination` is made for all of them, and so are all tests with `--every-combination`.

Devices: "cpu" and "cuda" have kernels, "guard" and "cupy" none. A test marked `references` is of functions that no
kernel replaces: the former would repeat the latter. Where no GPU can be used, no test for one is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

WITH_KERNELS = ("cpu", "cuda")  # values of the parameter `backend`

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
    if metafunc.definition.get_closest_marker("references"):
        calls[:] = [call for call in calls if call.params.get("backend") not in WITH_KERNELS]
    others: list[Any] = []
    needy: list[Any] = []
    for call in calls:
        (needy if any(mark.name == "gpu" for mark in call.marks) else others).append(call)
    groups = [others, needy if gpu else []]
    if not (metafunc.definition.get_closest_marker("every_combination") or metafunc.config.getoption(OPTION)):
        corners = [mark.kwargs for mark in metafunc.definition.iter_markers("corner")]
        groups = [_pairwise(group, corners) for group in groups]
    if calls and not any(groups):
        groups = [needy[:1]]  # or pytest would make the test without parameters; this one is left out later
    calls[:] = [call for group in groups for call in group]
    return 0 if gpu else len(needy)


def _pairwise(calls: list[Any], corners: list[dict[str, Any]]) -> list[Any]:
    names = sorted(calls[0].indices) if calls else []
    if len(names) < 3:
        return calls
    kept = set(chosen([tuple(call.indices[name] for name in names) for call in calls]))
    return [call for place, call in enumerate(calls) if place in kept or any(_in(call, corner) for corner in corners)]


def _in(call: Any, corner: dict[str, Any]) -> bool:
    """Whether the combination has these values of these parameters; a tuple holds several."""
    return all(call.params[name] in (of if isinstance(of, tuple) else (of,)) for name, of in corner.items())
