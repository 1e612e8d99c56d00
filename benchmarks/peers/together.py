"""Contenders on many workloads, for a machine that is lent for minutes: all are built at once, then timed in turns.

Most of a comparison's time is that of compilers, each busy on one processor. So every contender of every workload is
built in its own process beside all others; nothing is timed until all of them are silent. Then, workload by workload,
each takes its fastest way, is proved and timed while no other computes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from benchmarks.clock import Clock
from benchmarks.peers import FLOOR, Contender
from benchmarks.peers.compare_peers import JOB, Answer, Effort, Row, Say, take_turns
from benchmarks.peers.pool import Failure, Worker
from benchmarks.workloads import Workload
from fcnet.backends import get_backend

CONTEXT = 700 << 20  # bytes of a GPU's memory that a process takes for itself
COPIES = 2.5  # of what a training needs, in each process: two ways to write it, and what a compiler tries
FILLED = 0.9  # of the free memory
BUILD = 0.6  # of the time that is left: what is not built then is left out
LONG = 1e11  # operations of a step that is long beside any call
BUILDING = {"TORCHINDUCTOR_COMPILE_THREADS": "1"}  # a pool of compilers in each of dozens of processes helps nobody


def duels(
    workloads: Sequence[Workload],
    contenders: Sequence[Contender],
    *,
    device: str,
    threads: int,
    effort: Effort,
    clock: Clock,
    say: Say = lambda text: None,
) -> Iterator[list[Row]]:
    """Yield the rows of each workload, as `compare_peers` does; kind "late" for what was not built in time."""
    known: list[Answer] = []
    room = get_backend(device).memory().free
    for group in groups(workloads, contenders, room):
        within = clock.within(BUILD * clock.left())
        with ExitStack() as stack:
            sides = [
                [stack.enter_context(Side(w, c, device, threads, within.left())) for c in contenders] for w in group
            ]
            every = [side for sides_of in sides for side in sides_of]
            say(f"building {sum(side.there for side in every)} contenders at once, at most {within.left():.0f} s")
            answers = [Answer.of(workload, known) for workload in group]
            for answer in answers:
                answer.losses()  # worked out while they are built
            for side in every:
                side.wait(within, say)
            say(f"built, {clock.left():.0f} s left")
            for workload, answer, sides_of in zip(group, answers, sides, strict=True):
                say(f"{workload.name}: {workload.describe()}")
                yield timed(workload, answer, sides_of, effort, say)


def groups(workloads: Sequence[Workload], contenders: Sequence[Contender], room: int) -> Iterator[list[Workload]]:
    """Yield workloads that are built at once, in order: as many as have room in so many bytes; 0: it is not known."""
    group: list[Workload] = []
    held = 0.0
    for workload in workloads:
        processes = len([c for c in contenders if suits(c, workload)]) * (1 + (workload.keep < 1))
        need = processes * (CONTEXT + COPIES * workload.device_memory)
        if group and room and held + need > FILLED * room:
            yield group
            group, held = [], 0.0
        group.append(workload)
        held += need
    if group:
        yield group


def suits(contender: Contender, workload: Workload) -> bool:
    """Return whether a contender is of use: several steps in a call are for nets with short steps."""
    return not (contender.short and workload.flops > LONG)


class Side:
    """Hold one contender on one workload: its processes and its row.

    With dropout there is a second process, whose net has none: the one whose losses can be proved.
    """

    def __init__(self, workload: Workload, contender: Contender, device: str, threads: int, build_s: float) -> None:
        """Start to build it, without waiting."""
        self.workload, self.name = workload, contender.name
        self.row: Row = {"workload": workload.name, "contender": contender.name}
        self.workers: list[Worker] = []
        nets = [workload]
        if workload.keep < 1 and contender.name != FLOOR:
            nets.append(dataclasses.replace(workload, keep=1.0))
        try:
            if device.partition(":")[0] not in contender.devices:
                raise Failure(f"does not run on {device}", "unsupported")
            if not suits(contender, workload):
                raise Failure("a step is long beside a call", "unsupported")
            for net in nets:
                worker = Worker(JOB, threads, BUILDING | dict(contender.environment))
                self.workers.append(worker)
                worker.post("load", target=contender.target, device=device, packages=contender.packages)
                worker.post("make", workload=net.to_dict(), limit_s=build_s / 2)
        except Failure as failure:
            self.refuse(failure)

    @property
    def there(self) -> bool:
        """Return whether it takes part."""
        return bool(self.workers)

    def refuse(self, failure: Failure, say: Say = lambda text: None) -> None:
        """Drop a contender; its row says why."""
        self.row |= {"refused": str(failure), "kind": failure.kind}
        self.close()
        if failure.kind != "unsupported":
            say(f"{self.workload.name}: {self.name} is not timed: {failure}")

    def wait(self, clock: Clock, say: Say) -> None:
        """Wait until it is built, or the clock is over."""
        try:
            for worker in reversed(self.workers):  # the row is in the end that of the first
                for call in ("load", "make"):
                    self.row |= self._built(worker, call, clock)
        except Failure as failure:
            self.refuse(failure, say)

    @staticmethod
    def _built(worker: Worker, call: str, clock: Clock) -> Any:
        given = clock.left()
        try:
            return worker.answer(call, max(0.0, given))
        except Failure as failure:
            if clock.left() > 0 or failure.kind != "crashed":
                raise
            raise Failure("was not built in time; take more --minutes or fewer --workloads", "late") from None

    def prove(self, answer: Answer, limit_s: float, say: Say) -> None:
        """Take the fastest way, and compare its losses with the right ones."""
        try:
            self._prove(answer, limit_s)
        except Failure as failure:
            self.refuse(failure, say)

    def _prove(self, answer: Answer, limit_s: float) -> None:
        first, *plain = self.workers
        choice = first.ask("settle", limit_s=limit_s)["choice"]
        if self.name == FLOOR:
            return
        count = self.workload.proof_steps
        proof = first.ask("first_losses", count=count, limit_s=limit_s)
        self.row["about"] = proof["about"]
        if plain:
            plain[0].ask("settle", choice=choice, limit_s=limit_s)
            sure = plain[0].ask("first_losses", count=count, limit_s=limit_s)
            proof |= {"losses": sure["losses"], "dropped": proof["losses"]}
            self.workers.pop().close()
        difference, objection = answer.objection(proof)
        self.row["loss_difference"] = float(f"{difference:.2g}") if difference < float("inf") else None
        if objection:
            raise Failure(f"wrong result: {objection}", "wrong")

    def close(self) -> None:
        """End the processes."""
        for worker in self.workers:
            worker.close()
        self.workers = []

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def timed(workload: Workload, answer: Answer, sides: Sequence[Side], effort: Effort, say: Say) -> list[Row]:
    """Return the rows of a workload whose contenders are built; their processes are ended."""
    for side in sides:
        if side.there:
            side.prove(answer, effort.limit_s, say)
    by_name = {side.name: side for side in sides}
    workers = {name: side.workers[0] for name, side in by_name.items() if side.there}

    def refuse(name: str, failure: Failure) -> None:
        del workers[name]
        by_name[name].refuse(failure, say)

    rows = {name: side.row for name, side in by_name.items()}
    take_turns(workload.steps, workers, rows, effort, refuse, workload.count // workload.batch)
    for side in sides:
        side.close()
    return list(rows.values())
