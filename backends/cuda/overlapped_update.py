"""Rewrite a recorded step so that most weights are updated while the lowest layer's gradients are computed.

An update is limited by memory, a product by arithmetic, so on two streams they hardly cost more than the longer one.
What the lowest layer's calls do not touch is updated beside them: the gradients of all layers above are there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fcnet.backends.cuda.rewriting import overlaps, replacement
from fcnet.backends.device import Array, Call
from fcnet.backends.rules import RuleKernel, roles_of

LEAST = 1 << 18  # weights whose update is worth a second stream
SMALL = 1 << 16  # numbers for which another launch takes longer than they do: updated with their neighbours


class OverlappedUpdate:
    """Rewrites the calls of a step."""

    def __init__(self, run_concurrently: Callable[[Callable[[], object], Callable[[], object]], None]) -> None:
        """Keep what makes two independent calls."""
        self._run_concurrently = run_concurrently

    def __call__(self, calls: Sequence[Call]) -> list[Call]:
        """Return calls with the same results to the last bit."""
        made = list(calls)
        for update in calls:
            if isinstance(update.func, RuleKernel):
                made = self._rewritten(made, update)
        return made

    def _rewritten(self, calls: list[Call], update: Call) -> list[Call]:
        end = calls.index(update)
        begin = 1 + max((i for i, call in enumerate(calls[:end]) if call.arguments.get("need_dx")), default=end)
        lowest = calls[begin:end]
        size = update.arguments["w"].size
        late = _merged(_written(lowest, update.arguments["dw"]), size)
        early = _between(late, size)
        aside = [_part(update, *part) for part in early]
        touched = [value for call in lowest for value in call.arguments.values()]
        if (
            sum(stop - start for start, stop in early) < LEAST
            or not late
            or any(overlaps(array, value) for call in aside for array in _arrays(call) for value in touched)
        ):
            return calls
        both = replacement(self.run_concurrently, [], aside=tuple(aside), calls=tuple(lowest))
        both.arguments = {}
        for i, call in enumerate((*aside, *lowest)):
            both.arguments |= {f"{name} of call {i}": value for name, value in call.arguments.items()}
            both.outputs |= {f"{name} of call {i}" for name in call.outputs}
        return [*calls[:begin], both, *(_part(update, *part) for part in late), *calls[end + 1 :]]

    def run_concurrently(self, aside: Sequence[Call], calls: Sequence[Call]) -> None:
        """Make the calls `aside` and the other calls, each in turn."""
        self._run_concurrently(lambda: _make(aside), lambda: _make(calls))


def _make(calls: Sequence[Call]) -> None:
    for call in calls:
        call()


def _arrays(update: Call) -> list[Array]:
    """Return what an update reads and changes."""
    return [update.arguments[name] for name in ("w", "dw", *roles_of(update.name).moments)]


def _written(calls: Sequence[Call], gradients: Array) -> list[tuple[int, int]]:
    """Return where in the flat gradients the calls' outputs lie, in numbers from its start."""
    found = []
    for call in calls:
        for name in call.outputs:
            output = call.arguments[name]
            if overlaps(gradients, output):
                start = (output.data.ptr - gradients.data.ptr) // gradients.itemsize
                found.append((start, start + output.size))
    return sorted(found)


def _merged(parts: Sequence[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """Return sorted intervals of 0 .. size, made one where less than SMALL lies between them or behind the last."""
    made: list[tuple[int, int]] = []
    for start, stop in parts:
        if made and start - made[-1][1] < SMALL:
            made[-1] = made[-1][0], max(stop, made[-1][1])
        else:
            made.append((start, stop))
    if made and size - made[-1][1] < SMALL:
        made[-1] = made[-1][0], size
    return made


def _between(parts: Sequence[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """Return what of 0 .. size lies outside sorted intervals."""
    starts, stops = [0, *(stop for _, stop in parts)], [*(start for start, _ in parts), size]
    return [(start, stop) for start, stop in zip(starts, stops, strict=True) if start < stop]


def _part(update: Call, start: int, stop: int) -> Call:
    """Return the call of a rule for a part of the parameters."""
    given, role = update.arguments, roles_of(update.name)
    parts = {name: given[name][start:stop] for name in ("w", "dw", *role.moments)}
    numbers = [given[name] for name in ("step",) if role.counts]
    constants = {name: given[name] for name in role.constants}
    call = Call(update.func, *parts.values(), *numbers, given["learning_rate"], work=given["work"], **constants)
    call.name, call.arguments, call.outputs = update.name, given | parts, update.outputs
    return call
