"""Whole training steps beside other frameworks': `python -m benchmarks.compare --peers torch,jax,naive`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks import ceiling, command
from benchmarks.command import chosen, describe, names, say
from benchmarks.peers import AHEAD, CONTENDERS, FLOOR, OWN, PEERS, Contender
from benchmarks.peers.compare_peers import JOB, QUICK, Answer, Effort, Row, Say, best, phases, ratio
from benchmarks.peers.pool import Failure, Worker
from benchmarks.peers.table import bars, markdown
from benchmarks.workloads import LATER, Workload, workloads_for
from fcnet.backends import get_backend

MEMORY_WORKLOAD = "wide"  # the workload whose memory is measured
MEMORY_STEPS = 25  # more than an epoch


def contenders_for(device: str, peers: Sequence[str]) -> list[Contender]:
    """Return fcnet, the peers and the floor, those that run on this device."""
    asked = [*OWN, *peers, FLOOR]
    found = [c for name, c in CONTENDERS.items() if name in asked or c.beside in asked]
    return [c for c in found if device.partition(":")[0] in c.devices]


def one_by_one(
    workloads: Sequence[Workload],
    contenders: Sequence[Contender],
    *,
    device: str = "cpu",
    threads: int = 1,
    effort: Effort = QUICK,
    say: Say = lambda text: None,
    long: bool = False,
) -> Iterator[list[Row]]:
    """Yield the rows of every contender, workload by workload: each is built alone. `long`: and later on."""
    known: list[Answer] = []
    for workload in workloads:
        say(f"{workload.name}: {workload.describe()}")
        options: dict[str, Any] = {"device": device, "threads": threads, "effort": effort, "say": say, "known": known}
        yield from phases(workload, contenders, later=workload.later() if long else None, **options)


def forms(workloads: Sequence[Workload], long: bool) -> list[Workload]:
    """Return what `one_by_one` yields rows of."""
    return [form for workload in workloads for form in ((workload, workload.later()) if long else (workload,))]


def ratios(workload: Workload, rows: Sequence[Row], contenders: Sequence[Contender]) -> list[Row]:
    """Return the best frameworks' times over fcnet's and plain NumPy's over that of fcnet without Numba."""
    counting = [contender.name for contender in contenders if contender.counts]
    pairs = [
        (best(rows, counting), "fcnet", workload.goal),
        (best(rows, [name for name in counting if name not in AHEAD]), "fcnet", workload.goal),
        ("naive", "fcnet-numpy", workload.goal_numpy),
    ]
    found: list[Row] = []
    for above, below, goal in dict.fromkeys(pairs):
        if above is not None and (made := ratio(rows, above, below)):
            found.append({"workload": workload.name, **made, "goal": goal})
    return found


def record(
    device: str,
    workloads: Sequence[Workload],
    contenders: Sequence[Contender],
    *,
    threads: int,
    effort: Effort,
    say: Say,
    commit: str | None = None,
    keep: Callable[[dict[str, Any]], bool] = lambda made: True,
    duels: Iterator[list[Row]] | None = None,
    known_ceiling: dict[str, Any] | None = None,
    long: bool = False,
) -> dict[str, Any]:
    """Return all of the JSON file but the memory.

    Args:
        keep: is given what there is after each workload, and says whether to go on; workloads that it leaves out are
            named.
        long: time each net later on, too; see `forms`.
        duels: the rows of workload after workload; None: those of `one_by_one`.
        known_ceiling: the device's, if it was measured.
    """
    made = describe(device, threads, commit) | {
        "effort": dataclasses.asdict(effort),
        "workloads": [],
        "left_out": [workload.name for workload in forms(workloads, long)],
        "versions": {},
        "memory": [],
        "ratios": [],
        "rows": [],
    }
    if known_ceiling is not None:
        made["ceiling"] = known_ceiling
    elif device != "cpu":
        say("ceiling: one large product in each precision")
        made["ceiling"] = ceiling.measure(device)
    if duels is None:
        duels = one_by_one(workloads, contenders, device=device, threads=threads, effort=effort, say=say, long=long)
    try:
        for workload, rows in zip(forms(workloads, long), duels, strict=False):
            for row in rows:
                made["versions"] |= row.pop("versions", {})
            made["workloads"].append(workload.to_dict())
            made["left_out"].remove(workload.name)
            made["rows"] += rows
            made["ratios"] += ratios(workload, rows, contenders)
            if not keep(made):
                break
    except KeyboardInterrupt:
        if not made["rows"]:
            raise
        made["interrupted"] = True
    if made["left_out"]:
        say(f"no time was left for {', '.join(made['left_out'])}")
    return made


def measure_memory(contenders: Sequence[Contender], device: str, threads: int, say: Say) -> list[Row]:
    """Return the peak memory of training the wide net, by contender, each in a fresh process."""
    say(f"memory: {MEMORY_WORKLOAD}, each in a fresh process")
    workload, rows = workloads_for(device)[MEMORY_WORKLOAD], []
    for contender in contenders:
        if contender.name == FLOOR or contender.beside:
            continue
        row: Row = {"contender": contender.name, "workload": MEMORY_WORKLOAD}
        with Worker(JOB, threads, contender.environment) as worker:
            try:
                worker.ask("load", target=contender.target, device=device, packages=())
                row |= worker.ask("measure_memory", workload=workload.to_dict(), steps=MEMORY_STEPS)
            except Failure as failure:
                row |= {"refused": str(failure), "kind": failure.kind}
        rows.append(row)
    return rows


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cpu", metavar="NAME", help="cpu, cuda or cuda:N")
    parser.add_argument("--peers", type=names, default=None, metavar="LIST", help=f"of {', '.join(PEERS)}")
    parser.add_argument("--workloads", type=names, metavar="LIST", help="default: all of the device")
    parser.add_argument("--rounds", type=int, metavar="R", help=f"default: {Effort().rounds}")
    parser.add_argument("--long", action="store_true", help=f"each net also after {LATER:,} steps on few samples")
    parser.add_argument("--no-memory", action="store_true", help=f"leave out the peak memory of {MEMORY_WORKLOAD}")


def _plan(options: argparse.Namespace) -> Callable[[], dict[str, Any]]:
    device = get_backend(options.device).name
    known = workloads_for(device)
    asked = list(known) if options.workloads is None else options.workloads
    workloads = [known[name] for name in chosen("--workloads", asked, list(known))]
    fitting = [name for name in PEERS if device.partition(":")[0] in CONTENDERS[name].devices]
    peers = fitting if options.peers is None else chosen("--peers", options.peers, PEERS)
    contenders = contenders_for(device, peers)
    effort = QUICK if options.quick else Effort()
    if options.rounds is not None:
        if options.rounds < 1:
            raise ValueError(f"--rounds: expected 1 or more, got {options.rounds}")
        effort = dataclasses.replace(effort, rounds=options.rounds)

    def measured() -> dict[str, Any]:
        made = record(device, workloads, contenders, threads=options.threads, effort=effort, say=say, long=options.long)
        if "interrupted" in made:
            return made
        if any(w.name == MEMORY_WORKLOAD for w in workloads) and device == "cpu" and not options.no_memory:
            made["memory"] = measure_memory(contenders, device, options.threads, say)
        return made

    return measured


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code, as `command.run` says."""
    return command.run("compare", __doc__, arguments, _plan, markdown, picture=bars, add=_options)


if __name__ == "__main__":
    sys.exit(main())
