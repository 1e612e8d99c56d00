"""Contenders on one workload: each in its process, proved first, then timed in rounds that take turns."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.peers import FLOOR, OWN, Contender
from benchmarks.peers.pool import Failure, Worker
from benchmarks.timing import summarize
from benchmarks.workloads import Workload, draw, prepared

JOB = "benchmarks.peers.training:Training"
DROPOUT_MEAN = 0.035  # allowed relative difference of the mean loss under other masks: four times its spread
MASK_SEEDS = 3
FAR = 1.5  # times the best framework's time: who takes more will not be the best one later on

Row = dict[str, Any]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Effort:
    """Describe how long to measure.

    Attributes:
        rounds: turns of each contender.
        scale: of each turn's steps.
        pause: seconds between turns, in which the last contender's threads fall asleep (OpenMP's spin 0.2 s).
        limit_s: after so many seconds without an answer a contender is given up.
        losing: who takes more than so many times fcnet's time has one round; None: all have all of them. The first,
            uncounted turns are then short.
    """

    rounds: int = 15
    scale: float = 1.0
    pause: float = 0.3
    limit_s: float = 600.0
    losing: float | None = None


QUICK = Effort(rounds=5, scale=0.2, pause=0.05)


@dataclass
class Answer:
    """Hold the right losses of a workload, for each of Adam's two rules; computed once, when first asked for."""

    workload: Workload
    _found: dict[bool, tuple[np.ndarray, float | None]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, workload: Workload, known: list[Answer]) -> Answer:
        """Return the oracle of a workload, using and extending what is `known` of it from another precision."""
        answer = cls(workload)
        for other in known:
            if cls._problem(other.workload) == cls._problem(workload):
                answer._found = other._found
        known.append(answer)
        return answer

    @staticmethod
    def _problem(workload: Workload) -> dict[str, Any]:
        leave = ("name", "precision", "first", "tolerance", "goal", "goal_numpy", "goal_ceiling", "steps")
        return {name: value for name, value in workload.to_dict().items() if name not in leave}

    def losses(self, raw_epsilon: bool = False) -> tuple[np.ndarray, float | None]:
        """Return the first losses without dropout and, with dropout, their mean over several draws of masks."""
        if raw_epsilon not in self._found:
            from benchmarks.peers import oracle

            data, steps = prepared(self.workload, draw(self.workload)), self.workload.proof_steps
            mean = None
            if self.workload.keep < 1:
                runs = [oracle.losses(self.workload, data, steps, seed) for seed in range(MASK_SEEDS)]
                mean = float(np.mean(runs))
            right = oracle.losses(self.workload, data, steps, raw_epsilon=raw_epsilon)
            self._found[raw_epsilon] = np.array(right), mean
        return self._found[raw_epsilon]

    def objection(self, proof: dict[str, Any]) -> tuple[float, str]:
        """Return the largest relative difference of the losses, and what is wrong with them or "".

        >>> answer = Answer(Workload("w", 4, (3,), 2, 1), {False: (np.array([2.0, 1.0]), None)})
        >>> answer.objection({"losses": [2.0, 1.1]})[1]
        'loss 1.1 at step 2, expected 1: relative difference 0.1, allowed 0.005'
        """
        right, mean = self.losses(proof.get("raw_epsilon", False))
        losses = np.array(proof["losses"], dtype=np.float64)
        if losses.shape != right.shape:
            return np.inf, f"{losses.size} losses, expected {right.size}"
        difference = np.abs(losses / right - 1)
        allowed = np.full(right.shape, self.workload.tolerance)
        allowed[0] = self.workload.first
        wrong = np.flatnonzero(~(difference <= allowed))  # also if it is NaN
        worst = float(np.max(difference))
        if wrong.size:
            at = int(wrong[0])
            text = f"loss {losses[at]:.6g} at step {at + 1}, expected {right[at]:.6g}"
            return worst, f"{text}: relative difference {difference[at]:.2g}, allowed {allowed[at]:.2g}"
        if mean is not None:
            dropped = np.array(proof.get("dropped", []), dtype=np.float64)
            if dropped.shape != right.shape or np.array_equal(dropped, losses):
                return worst, "dropout changes nothing"
            off = float(np.mean(dropped)) / mean - 1
            if not abs(off) <= DROPOUT_MEAN:
                text = f"mean loss {np.mean(dropped):.4g} with dropout, expected {mean:.4g}"
                return worst, f"{text}: relative difference {off:.2g}, allowed {DROPOUT_MEAN:g}"
        return worst, ""


def phases(
    workload: Workload,
    contenders: Sequence[Contender],
    *,
    device: str = "cpu",
    threads: int = 1,
    effort: Effort = QUICK,
    say: Say = lambda text: None,
    known: list[Answer] | None = None,
    later: Workload | None = None,
) -> Iterator[list[Row]]:
    """Yield a row for each contender: its rounds and their median, or why it was not timed.

    A row has workload, contender, and either `refused` (with `kind`: unavailable, unsupported, failed, crashed, wrong
    or slow), or median_us, iqr_us, rounds, rounds_us; and what is known beside: import_s, make_s, about, versions,
    loss_difference, and of fcnet's steps before the first round paces_us, the median of each hundred.

    later: the same net at another time of its training, compared thereafter in the same processes, for rows of its own;
    frameworks that took more than FAR times the best one's time are left out.
    """
    comparison = _Comparison(workload, device, effort, say)
    known = [] if known is None else known
    with contextlib.ExitStack() as stack:
        for contender in contenders:
            comparison.start(contender, threads, stack)
        comparison.prove(Answer.of(workload, known))
        comparison.time()
        yield comparison.rows()
        if later is not None:
            say(f"{later.name}: {later.describe()}")
            comparison.go_on(later, [contender.name for contender in contenders if contender.counts])
            comparison.prove(Answer.of(later, known))
            comparison.time()
            yield comparison.rows()


def compare_peers(workload: Workload, contenders: Iterable[Contender], **options: Any) -> list[Row]:
    """Return the rows of `phases` for one time of a training."""
    (rows,) = phases(workload, list(contenders), **options)
    return rows


class _Comparison:
    """Hold the processes that are still compared on a workload, and what is known of each contender."""

    def __init__(self, workload: Workload, device: str, effort: Effort, say: Say) -> None:
        self.workload, self.device, self.effort, self.say = workload, device, effort, say
        self.workers: dict[str, Worker] = {}
        self._rows: dict[str, Row] = {}
        self._again = False

    def rows(self) -> list[Row]:
        """Return one for each contender."""
        return list(self._rows.values())

    def start(self, contender: Contender, threads: int, stack: contextlib.ExitStack) -> None:
        """Start its process, which imports the framework meanwhile."""
        name = contender.name
        self._rows[name] = {"workload": self.workload.name, "contender": name}
        try:
            if self.device.partition(":")[0] not in contender.devices:
                raise Failure(f"does not run on {self.device}", "unsupported")
            self.workers[name] = worker = Worker(JOB, threads, contender.environment)
            stack.callback(worker.close)
            worker.post("load", target=contender.target, device=self.device, packages=contender.packages)
        except Failure as failure:
            self._refuse(name, failure)

    def go_on(self, later: Workload, frameworks: Sequence[str]) -> None:
        """Compare on another workload from now on, without those of the frameworks that are far behind."""
        self.workload, self._again = later, True
        timed = {name: row["median_us"] for name, row in self._rows.items() if "median_us" in row}
        lowest = min((us for name, us in timed.items() if name in frameworks), default=0)
        left = [name for name in self.workers if name not in frameworks or timed[name] <= FAR * lowest]
        self._rows = {name: {"workload": later.name, "contender": name} for name in self._rows}
        for name in self._rows.keys() - set(left):
            self._refuse(name, Failure(f"at first not timed, or above {FAR:g} times the best framework's time", "slow"))

    def prove(self, answer: Answer) -> None:
        """Build each net, alone, and compare its first losses."""
        workload, effort = self.workload, self.effort
        for name, worker in list(self.workers.items()):
            row = self._rows[name]
            try:
                if not self._again:
                    row |= worker.answer("load", effort.limit_s)
                made = worker.ask("make", workload=workload.to_dict(), as_before=self._again, limit_s=effort.limit_s)
                row |= made
                if name != FLOOR:
                    proof = worker.ask("prove", count=workload.proof_steps, limit_s=effort.limit_s)
                    row["about"] = proof["about"]
                    difference, objection = answer.objection(proof)
                    row["loss_difference"] = float(f"{difference:.2g}") if np.isfinite(difference) else None
                    if objection:
                        raise Failure(f"wrong result: {objection}", "wrong")
            except Failure as failure:
                self._refuse(name, failure)

    def time(self) -> None:
        """Make the steps that come before, then take turns."""
        before, limit = self.workload.before, self.effort.limit_s
        for name, worker in list(self.workers.items()) if before else ():
            try:
                if name in OWN:
                    paces = worker.ask("paces", steps=before, each=100, limit_s=limit)
                    self._rows[name]["paces_us"] = [round(seconds * 1e6, 2) for seconds in paces]
                elif name != FLOOR:  # the products take the same time whatever came before
                    worker.ask("run", steps=before, warm=0, limit_s=limit)
            except Failure as failure:
                self._refuse(name, failure)
        take_turns(self.workload.steps, self.workers, self._rows, self.effort, self._refuse)
        timed = [f"{name} {row['median_us']:,.0f}" for name, row in self._rows.items() if "median_us" in row]
        self.say(f"{self.workload.name}: {', '.join(timed)} us")

    def _refuse(self, name: str, failure: Failure) -> None:
        self._rows[name] |= {"refused": str(failure), "kind": failure.kind}
        if name in self.workers:
            self.workers.pop(name).close()
        if failure.kind not in ("unsupported", "slow"):
            self.say(f"{self.workload.name}: {name} is not timed: {failure}")


def take_turns(
    steps: int,
    workers: dict[str, Worker],
    rows: dict[str, Row],
    effort: Effort,
    refuse: Callable[[str, Failure], None],
    epoch: int = 1,
) -> None:
    """Fill the rows with times, from rounds in rotating order. The first, uncounted one warms up.

    epoch: steps and those that warm up are multiples of it, so that who makes a whole one in a call always can.
    """
    steps = max(1, round(steps * effort.scale / epoch)) * epoch
    warm = max(1, steps // epoch // 10) * epoch
    taken: dict[str, list[float]] = {name: [] for name in workers}
    for turn in range(effort.rounds + 1):
        made = warm if effort.losing and not turn else steps
        names = [name for name in workers if not _lost(taken, name, effort.losing)]
        first = turn % max(1, len(names))
        for name in names[first:] + names[:first]:
            time.sleep(effort.pause)
            try:
                seconds = workers[name].ask("run", steps=made, warm=warm, limit_s=effort.limit_s)
            except Failure as failure:
                refuse(name, failure)
                continue
            if turn:
                taken[name].append(seconds / steps)
    for name in workers:
        summary = summarize(taken[name])
        rows[name] |= summary._asdict() | {"rounds_us": [round(t * 1e6, 2) for t in taken[name]], "steps": steps}


def _lost(taken: dict[str, list[float]], name: str, losing: float | None) -> bool:
    """Return whether one more round would tell nothing new."""
    ours = taken.get("fcnet")
    return bool(losing and ours and taken[name] and taken[name][-1] > losing * ours[-1])


def ratio(rows: Sequence[Row], above: str, below: str) -> dict[str, Any] | None:
    """Time of one contender over that of another, round by round: median and quartiles; None if either has none."""
    times = {row["contender"]: row["rounds_us"] for row in rows if "rounds_us" in row}
    if above not in times or below not in times:
        return None
    pairs = [first / second for first, second in zip(times[above], times[below], strict=False)]  # one may have lost
    low, middle, high = np.percentile(pairs, [25, 50, 75])
    return {
        "of": above,
        "to": below,
        "ratio": round(float(middle), 3),
        "low": round(float(low), 3),
        "high": round(float(high), 3),
    }


def best(rows: Sequence[Row], among: Iterable[str]) -> str | None:
    """Return the contender with the lowest median."""
    names = set(among)
    timed = [row for row in rows if "median_us" in row and row["contender"] in names]
    return min(timed, key=lambda row: row["median_us"])["contender"] if timed else None
