"""Whole training steps beside other frameworks': `python -m benchmarks.compare --peers torch,jax,naive`."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import ceiling, machine, report
from benchmarks.peers import AHEAD, CONTENDERS, FLOOR, OWN, PEERS, Contender
from benchmarks.peers.duel import JOB, QUICK, Answer, Effort, Row, best, duel, ratio
from benchmarks.peers.pool import Failure, Worker, stopped_cleanly
from benchmarks.peers.table import bars, markdown
from benchmarks.run import _Parser, _short
from benchmarks.workloads import Workload, workloads_for
from fcnet.backends import get_backend
from fcnet.errors import MissingExtra, unknown
from fcnet.files import write_atomically

WEIGHED = "wide"  # the workload whose memory is measured
WEIGH_STEPS = 25  # more than an epoch
Say = Callable[[str], None]


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def names(text: str) -> list[str]:
    """A list as the options take it: "torch,jax" -> its parts, each once."""
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def add_common(parser: argparse.ArgumentParser) -> None:
    """The options that the companions of this command share."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record there; table and picture beside it")
    parser.add_argument("--threads", type=int, default=cores(), metavar="T", help="of each contender; default: all")
    parser.add_argument("--quick", action="store_true", help="short rounds: does it work, not how fast is it")


def check_common(options: argparse.Namespace) -> None:
    """Before anything is measured.

    Raises:
        ValueError, OSError: an option cannot be; one line says why.
    """
    if not 1 <= options.threads <= cores():
        raise ValueError(f"--threads: expected 1 to {cores()}, got {options.threads}")
    if options.json is not None:
        if options.json.is_dir():
            raise ValueError(f"--json: expected a file, got the folder {_short(options.json)}")
        write_atomically(options.json.with_name(f".{options.json.name}.writable"), "")
        options.json.with_name(f".{options.json.name}.writable").unlink()


def chosen(option: str, given: Sequence[str], valid: Sequence[str]) -> list[str]:
    """The names given, checked.

    Raises:
        ValueError: none, or one that is not valid.
    """
    if not given:
        raise ValueError(f"{option}: expected some of {', '.join(valid)}; got none")
    for name in given:
        if name not in valid:
            raise unknown(option, name, valid)
    return list(given)


def describe(device: str, threads: int, commit: str | None = None) -> dict[str, Any]:
    """Date, commit and machine: the head of every record. `commit`, if given, is taken for git's answer."""
    head, dirty = (commit, None) if commit else machine.commit()
    found = machine.describe([device]) | {"blas_threads": threads}  # of the contenders; this process has its own
    if found["load"] is not None and found["load"] > found["cores"] / 2:
        busy = f"load {found['load']} on {found['cores']} cores"
        print(f"the machine is busy ({busy}): the timings will be noisy", file=sys.stderr)
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {"date": date, "commit": head, "dirty": dirty, "machine": found, "device": device, "threads": threads}


def contenders_for(device: str, peers: Sequence[str]) -> list[Contender]:
    """fcnet, the peers, the floor: those that run on this device."""
    asked = [*OWN, *peers, FLOOR]
    found = [c for name, c in CONTENDERS.items() if name in asked or c.beside in asked]
    return [c for c in found if device.partition(":")[0] in c.devices]


def measure(
    workloads: Sequence[Workload],
    contenders: Sequence[Contender],
    *,
    device: str = "cpu",
    threads: int = 1,
    effort: Effort = QUICK,
    say: Say = lambda text: None,
) -> Iterator[dict[str, Any]]:
    """Workload by workload, the rows of every contender and the ratios."""
    counting = [contender.name for contender in contenders if contender.counts]
    known: list[Answer] = []
    for workload in workloads:
        say(f"{workload.name}: {workload.describe()}")
        rows = duel(workload, contenders, device=device, threads=threads, effort=effort, say=say, known=known)
        ratios: list[Row] = []
        fastest = best(rows, counting)
        waiting = best(rows, [name for name in counting if name != AHEAD])
        pairs = [
            (fastest, "fcnet", workload.goal),
            (waiting, "fcnet", workload.goal),
            ("naive", "fcnet-numpy", workload.goal_numpy),
        ]
        for above, below, goal in dict.fromkeys(pairs):
            if above is not None and (made := ratio(rows, above, below)):
                ratios.append({"workload": workload.name, **made, "goal": goal})
        yield {"ratios": ratios, "rows": rows}


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
) -> dict[str, Any]:
    """All of the JSON file but the memory. `keep` is given what there is after each workload, and says whether to go
    on; workloads that it leaves out are named.
    """
    made = describe(device, threads, commit) | {
        "effort": dataclasses.asdict(effort),
        "workloads": [],
        "left_out": [workload.name for workload in workloads],
        "versions": {},
        "memory": [],
        "ratios": [],
        "rows": [],
    }
    if device != "cpu":
        say("ceiling: one large product in each precision")
        made["ceiling"] = ceiling.measure(device)
    found = measure(workloads, contenders, device=device, threads=threads, effort=effort, say=say)
    for workload, part in zip(workloads, found, strict=False):
        for row in part["rows"]:
            made["versions"] |= row.pop("versions", {})
        made["workloads"].append(workload.to_dict())
        made["left_out"].remove(workload.name)
        made["rows"] += part["rows"]
        made["ratios"] += part["ratios"]
        if not keep(made):
            break
    if made["left_out"]:
        say(f"no time was left for {', '.join(made['left_out'])}")
    return made


def weigh(contenders: Sequence[Contender], device: str, threads: int, say: Say) -> list[Row]:
    """Peak memory of training the wide net, each in a fresh process."""
    say(f"memory: {WEIGHED}, each in a fresh process")
    workload, rows = workloads_for(device)[WEIGHED], []
    for contender in contenders:
        if contender.name == FLOOR or contender.beside:
            continue
        row: Row = {"contender": contender.name, "workload": WEIGHED}
        with Worker(JOB, threads, contender.environment) as worker:
            try:
                worker.ask("load", target=contender.target, device=device, packages=())
                row |= worker.ask("weigh", workload=workload.to_dict(), steps=WEIGH_STEPS)
            except Failure as failure:
                row |= {"refused": str(failure), "kind": failure.kind}
        rows.append(row)
    return rows


def write(record: dict[str, Any], path: Path, table: str, picture: Callable[[], bytes] | None) -> list[Path]:
    """The record, its table and its picture beside each other; each whole or not at all."""
    write_atomically(path, report.to_json(record))
    write_atomically(path.with_suffix(".md"), table)
    files = [path, path.with_suffix(".md")]
    if picture is not None:
        try:
            write_atomically(path.with_suffix(".png"), picture())
            files.append(path.with_suffix(".png"))
        except MissingExtra as error:
            print(f"no picture: {error}", file=sys.stderr)
    return files


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="benchmarks.compare", description=__doc__, allow_abbrev=False)
    parser.add_argument("--device", default="cpu", metavar="NAME", help="cpu, cuda or cuda:N")
    parser.add_argument("--peers", type=names, default=None, metavar="LIST", help=f"of {', '.join(PEERS)}")
    parser.add_argument("--workloads", type=names, metavar="LIST", help="default: all of the device")
    parser.add_argument("--rounds", type=int, metavar="R", help=f"default: {Effort().rounds}")
    parser.add_argument("--no-memory", action="store_true", help=f"leave out the peak memory of {WEIGHED}")
    add_common(parser)
    return parser


def _plan(options: argparse.Namespace) -> tuple[str, list[Workload], list[Contender], Effort]:
    check_common(options)
    device = get_backend(options.device).name
    known = workloads_for(device)
    asked = list(known) if options.workloads is None else options.workloads
    workloads = [known[name] for name in chosen("--workloads", asked, list(known))]
    fitting = [name for name in PEERS if device.partition(":")[0] in CONTENDERS[name].devices]
    peers = fitting if options.peers is None else chosen("--peers", options.peers, PEERS)
    effort = QUICK if options.quick else Effort()
    if options.rounds is not None:
        if options.rounds < 1:
            raise ValueError(f"--rounds: expected 1 or more, got {options.rounds}")
        effort = dataclasses.replace(effort, rounds=options.rounds)
    return device, workloads, contenders_for(device, peers), effort


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 all measured (but what is not installed); 1 something was refused or crashed; 2 bad options;
    130 interrupted."""
    options = _parser().parse_args(arguments)
    try:
        device, workloads, contenders, effort = _plan(options)
    except (ValueError, OSError) as error:
        print(f"benchmarks.compare: {error}", file=sys.stderr)
        return 2

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    try:
        with stopped_cleanly():
            made = record(device, workloads, contenders, threads=options.threads, effort=effort, say=say)
            if any(w.name == WEIGHED for w in workloads) and device == "cpu" and not options.no_memory:
                made["memory"] = weigh(contenders, device, options.threads, say)
    except KeyboardInterrupt:
        print("benchmarks.compare: interrupted; nothing written", file=sys.stderr)
        return 130
    table = markdown(made)
    print(table)
    if options.json is not None:
        files = write(made, options.json, table, lambda: bars(made))
        print("wrote", ", ".join(map(_short, files)))
    return int(any(row.get("kind") in ("failed", "crashed", "wrong") for row in made["rows"]))


if __name__ == "__main__":
    sys.exit(main())
