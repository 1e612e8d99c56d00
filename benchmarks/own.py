"""fcnet's own steps on every net, alone, and what they consist of; the first part of `make gpu-check`.

The losses are proved where the steps are timed beside other frameworks' (`benchmarks.compare`); here they have to be
finite.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from benchmarks import calls, ceiling
from benchmarks.clock import Clock
from benchmarks.peers import CONTENDERS
from benchmarks.peers.compare_peers import Effort, Say
from benchmarks.peers.pool import Failure, Worker
from benchmarks.peers.training import Training
from benchmarks.report import digits, table
from benchmarks.timing import summarize
from benchmarks.workloads import Workload, draw, initial
from fcnet.backends import get_backend

JOB = "benchmarks.own:Own"
CEILING = "benchmarks.own:Ceiling"
AT_A_TIME = (1, 2, 5, 10, 50)  # steps that are asked for before the device is waited for
CEILING_S = 20.0  # of the time, kept for the ceiling


class Own(Training):
    """Measure one workload in a worker."""

    def start(self, workload: Mapping[str, Any]) -> dict[str, Any]:
        """Construct the training and make the first step, whose calls are kept; return how long that took."""
        self._workload = made = Workload.from_dict(workload)
        data, weights = draw(made), initial(made)
        start = time.perf_counter()
        self.peer = self._build(made, data, weights, None)
        constructed = time.perf_counter()
        with calls.recorded(get_backend(self._device)) as self.calls:
            self.peer.step()
        self.peer.synchronize()
        done = time.perf_counter()
        return {"construct_s": round(constructed - start, 3), "first_step_s": round(done - start, 3)}

    def at_a_time(self, counts: Sequence[int], steps: int) -> dict[str, float]:
        """Return microseconds per step by the number of steps that are asked for before the device is waited for."""
        found = {}
        for count in counts:
            turns = max(1, steps // count)
            start = time.perf_counter()
            for _ in range(turns):
                self.peer.many(count)
                self.peer.synchronize()
            found[str(count)] = round((time.perf_counter() - start) / (turns * count) * 1e6, 2)
        return found

    def look(self) -> dict[str, Any]:
        """Return the loss of one more step, and what is known of the program."""
        return {"loss": self.peer.losses(1)[0], "about": self.peer.about}

    def profile(self) -> list[dict[str, Any]]:
        """Time each recorded call alone; comes last, as the training is not the same afterwards."""
        return calls.profile(get_backend(self._device), self.calls)


class Ceiling:
    """Run a process of its own, which gives the device's memory back when it ends."""

    def measure(self, device: str) -> dict[str, Any]:
        """Measure as `ceiling.measure` does."""
        return ceiling.measure(device)


def record(
    device: str,
    workloads: Sequence[Workload],
    *,
    threads: int,
    effort: Effort,
    clock: Clock,
    say: Say = lambda text: None,
    keep: Callable[[dict[str, Any]], object] = lambda made: None,
) -> dict[str, Any]:
    """Measure the steps of every workload, their calls, the ceiling; call `keep` with what there is after each."""
    made: dict[str, Any] = {
        "device": device,
        "workloads": [],
        "left_out": [workload.name for workload in workloads],
        "rows": [],
        "calls": [],
    }
    with ExitStack() as stack:
        workers = [stack.enter_context(_loaded(device, threads)) for _ in workloads]  # all import at once
        for number, (workload, worker) in enumerate(zip(workloads, workers, strict=True)):
            if clock.left() < CEILING_S:
                break
            say(f"own: {workload.name}, {clock.left():.0f} s left")
            row, found = measure(workload, worker, effort, clock, at_a_time=not number)
            worker.close()
            made["workloads"].append(workload.to_dict())
            made["left_out"].remove(workload.name)
            made["rows"].append(row)
            made["calls"] += found
            keep(made)
    say(f"own: ceiling, {clock.left():.0f} s left")
    with Worker(CEILING, threads) as worker:
        try:
            made["ceiling"] = worker.ask("measure", device=device, limit_s=max(CEILING_S, clock.left()))
        except Failure as failure:
            made["ceiling_refused"] = str(failure)
    return made


def _loaded(device: str, threads: int) -> Worker:
    worker = Worker(JOB, threads)
    worker.post("load", target=CONTENDERS["fcnet"].target, device=device, packages=CONTENDERS["fcnet"].packages)
    return worker


def measure(
    workload: Workload, worker: Worker, effort: Effort, clock: Clock, at_a_time: bool
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the row of one workload, and the rows of its calls; the row says what could not be measured."""
    row: dict[str, Any] = {"workload": workload.name}
    found: list[dict[str, Any]] = []

    def ask(call: str, **arguments: Any) -> Any:
        return worker.ask(call, limit_s=max(1.0, clock.left()), **arguments)

    try:
        worker.answer("load", max(1.0, clock.left()))
        row |= ask("start", workload=workload.to_dict())
        row |= _timed(workload, ask, effort)
        if at_a_time:
            row["at_a_time"] = ask("at_a_time", counts=AT_A_TIME, steps=row["steps"])
        row |= ask("look")
        if not math.isfinite(row["loss"]):
            raise Failure(f"wrong result: the loss is {row['loss']} after the steps that were timed", "wrong")
        found = [{"workload": workload.name} | each for each in ask("profile")]
    except Failure as failure:
        row |= {"refused": str(failure), "kind": failure.kind}
    return row, found


def _timed(workload: Workload, ask: Callable[..., Any], effort: Effort) -> dict[str, Any]:
    steps = max(1, round(workload.steps * effort.scale))
    taken = [ask("run", steps=steps, warm=max(1, steps // 10)) / steps for _ in range(effort.rounds)]
    return summarize(taken)._asdict() | {"rounds_us": [round(t * 1e6, 2) for t in taken], "steps": steps}


def markdown(record: Mapping[str, Any], profile: bool = False) -> str:
    """Return the steps, and with `profile` their calls."""
    nets = {fields["name"]: Workload.from_dict(fields) for fields in record["workloads"]}
    lines = [
        f"# fcnet's own steps on {record['device']}",
        "",
        "Each net alone, in a process of its own; seconds from the construction to the first step done.",
        "",
    ]
    cells = []
    for row in record["rows"]:
        net = f"{row['workload']}: {nets[row['workload']].describe()}"
        timed = f"{digits(row['median_us'])} ± {digits(row['iqr_us'])}" if "median_us" in row else ""
        first = f"{row['first_step_s']:.2f}" if "first_step_s" in row else ""
        cells.append([net, timed, first, row.get("refused", "")])
    lines += table(["workload", "µs a step", "first step, s", ""], cells, left=(0, 3))
    for row in record["rows"]:
        if "at_a_time" in row:
            each = ", ".join(f"{digits(us)} ({count})" for count, us in row["at_a_time"].items())
            lines += ["", f"{row['workload']}, µs a step where so many are asked for at a time: {each}."]
    if "ceiling" in record:
        lines += ["", ceiling.described(record["ceiling"])]
    if "ceiling_refused" in record:
        lines += ["", f"The ceiling was not measured: {record['ceiling_refused']}."]
    if record["left_out"]:
        lines += ["", f"No time was left for {', '.join(record['left_out'])}."]
    if profile:
        steps = {row["workload"]: row["median_us"] for row in record["rows"] if "median_us" in row}
        lines += ["", calls.markdown(record["calls"], steps)]
    return "\n".join(lines)
