"""All that needs a GPU, in one command, `make gpu-check COMMIT=<hash>`, for a GPU that is at hand for minutes.

Every part has its share of the time, and what it leaves goes to those after it; the JSON is written anew after each
piece. Runs with the system's python3 and what is installed there: no network, no git, no install.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fcnet
from benchmarks import command, compare, gpu_tests, kernels, machine, own, report
from benchmarks import end_to_end as training
from benchmarks.clock import Clock, deadlines
from benchmarks.peers import CONTENDERS, PEERS, table, together
from benchmarks.peers.compare_peers import Effort
from benchmarks.peers.pool import stopped_cleanly
from benchmarks.run import HERE
from benchmarks.workloads import Workload, draw, workloads_for
from fcnet.backends import Status, get_backend, probe
from fcnet.files import write_atomically
from fcnet.optim import RULES

STEPS = 50  # of parity: more than two epochs
PARITY = Workload("parity", 64, (100, 100), 100, STEPS, norm=True, keep=0.8, rows=2000)  # of the digits' size
#: In this order, the dearest to know first; seconds of eight minutes for each.
SHARES = {"own": 75.0, "tests": 115.0, "parity": 15.0, "peers": 170.0, "training": 60.0, "kernels": 45.0}
PARTS = tuple(SHARES)
EFFORT = Effort(rounds=5, scale=0.5, pause=0.03, limit_s=60, losing=3.0)
MINUTES = 8.0
ON_GPU = tuple(name for name in PEERS if "cuda" in CONTENDERS[name].devices)
TRAININGS = 1  # that are timed of each contender, after a first one
Keep = Callable[[Any], None]


def parity(device: str, clock: Clock, keep: Keep) -> dict[str, Any]:
    """Return the largest relative difference of a small net's losses from the CPU's over the first steps, by rule."""
    drawn = draw(PARITY)
    data = fcnet.data.Dataset(X_train=drawn.X, y_train=drawn.y, X_val=drawn.X[:100], y_val=drawn.y[:100])
    rows: list[dict[str, Any]] = []
    left = [(dtype, rule) for dtype in ("float64", "float32") for rule in RULES]
    while left and clock.left() > 0:
        dtype, rule = left.pop(0)
        losses = []
        for where in ("cpu", device):
            model = fcnet.FullyConnectedNet(
                *(PARITY.hidden, PARITY.inputs, PARITY.outputs),
                normalization="batchnorm",
                dropout_keep_ratio=PARITY.keep,
                dtype=dtype,
                device=where,
            )
            how = {"update_rule": rule, "schedule": "constant", "batch_size": PARITY.batch, "verbose": False}
            solver = fcnet.Solver(model, data, **how)
            for _ in range(STEPS):
                solver.step()
            losses.append(np.array(solver.loss_history))
        difference = float(np.max(np.abs(losses[1] / losses[0] - 1)))
        rows.append({"dtype": dtype, "rule": rule, "steps": STEPS, "max_relative_difference": difference})
        keep({"rows": rows})
    return {"rows": rows, "left_out": [" ".join(pair) for pair in left]}


def chosen_workloads(device: str, only: Sequence[str]) -> list[Workload]:
    """Return the workloads named, all if none is. Raises ValueError for a name that there is not."""
    known = workloads_for(device)
    return [known[name] for name in command.chosen("--workloads", only or list(known), list(known))]


def peers(
    device: str,
    effort: Effort,
    commit: str | None,
    workloads: Sequence[Workload],
    clock: Clock,
    keep: Keep,
    ceiling: dict[str, Any] | None = None,
    names: Sequence[str] = (),
) -> dict[str, Any]:
    """Return what `python -m benchmarks.compare --device cuda` writes: steps beside the peers', the ceiling.

    names: of the peers; none: all.
    """
    contenders = compare.contenders_for(device, names or ON_GPU)
    threads = machine.cores()
    duels = together.duels(workloads, contenders, device=device, threads=threads, effort=effort, clock=clock, say=say)

    def kept(made: dict[str, Any]) -> bool:
        keep(made)
        return clock.left() > 0

    return compare.record(
        *(device, workloads, contenders),
        threads=threads,
        effort=effort,
        say=say,
        commit=commit,
        keep=kept,
        duels=duels,
        known_ceiling=ceiling,
    )


def say(text: str) -> None:
    """Print progress at once."""
    print(text, flush=True)


def head(device: str, commit: str | None) -> dict[str, Any]:
    """Return the head of the JSON file."""
    found = machine.describe(["cpu", device])
    return {
        "date": machine.today(),
        "commit": commit or machine.git_commit()[0],
        "gpu": {"name": found.get("gpu", [None])[0]} | {name: found.get(name) for name in ("driver", "cuda", "cupy")},
        "machine": found,
        "seconds": {},
        "errors": {},
    }


def earlier(content: Mapping[str, Any], files: Iterable[Path]) -> dict[str, Any]:
    """Return what another command found of the same commit on the same GPU, to be added to; else what is given."""
    for file in files:
        try:
            found = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError):
            continue
        if content["commit"] and all(found.get(name) == content[name] for name in ("commit", "gpu")):
            return found
    return dict(content)


def merged(before: Any, found: Any) -> Any:
    """Return a part with what an earlier command found of other workloads; any other part is the new one alone."""
    if not isinstance(before, dict) or not isinstance(found, dict) or "workloads" not in found:
        return found
    done = {workload["name"] for workload in found["workloads"]}
    both = {"workloads": [w for w in before["workloads"] if w["name"] not in done] + found["workloads"]}
    for name in ("rows", "ratios", "calls"):
        if name in found:
            both[name] = [row for row in before[name] if row["workload"] not in done] + found[name]
    if "versions" in found:
        both["versions"] = before["versions"] | found["versions"]
    names = {workload["name"] for workload in both["workloads"]}
    return found | both | {"left_out": [name for name in found["left_out"] if name not in names]}


def check(
    content: dict[str, Any], parts: Mapping[str, Callable[[Keep, Clock], Any]], clock: Clock, keep: Keep
) -> dict[str, Any]:
    """Add to the content of the JSON file, part after part; of a part that raises, the error.

    Each part is called with a clock of its own share, and with `keep`, to hand on piece after piece, so that a time
    limit loses one of them.
    """
    begun, seconds = time.monotonic(), max(0.0, clock.left())
    ends = deadlines({name: SHARES[name] for name in parts}, seconds)
    for name, part in parts.items():
        own_clock = clock.within(ends[name] - (time.monotonic() - begun))
        say(f"== {name}, {own_clock.left():.0f} of {clock.left():.0f} s")
        start = time.perf_counter()

        before = content.get(name)

        def piece(found: Any, name: str = name, before: Any = before) -> None:
            keep(content | {name: merged(before, found)})

        try:
            if own_clock.left() <= 0:
                raise TimeoutError(f"no time was left; run it alone: --parts {name}")
            content[name] = merged(before, part(piece, own_clock))
            content["errors"].pop(name, None)
        except Exception as error:  # whatever it is: the machine is lent for minutes, the other parts count
            traceback.print_exc()
            content["errors"][name] = f"{type(error).__name__}: {error}"  # beside what an earlier command found
        content["seconds"][name] = round(time.perf_counter() - start, 1)
        keep(content)
    return content


def tables(content: Mapping[str, Any], profile: bool = False) -> str:
    """Return what was found, for people; with `profile`, the calls of fcnet's steps too."""
    lines = []
    for name in (part for part in PARTS if part in content["errors"]):
        lines.append(f"{name} failed: {content['errors'][name]}")
    parts = {name: content[name] for name in PARTS if name in content}
    if "own" in parts:
        lines.append(own.markdown(parts["own"], profile))
    if "kernels" in parts:
        lines += _kernel_lines(parts["kernels"])
    if "peers" in parts:
        lines.append(table.markdown(parts["peers"]))
    if "training" in parts:
        lines.append(training.markdown(parts["training"]))
    if "parity" in parts:
        lines += _parity_lines(parts["parity"])
    if "tests" in parts:
        lines += _test_lines(parts["tests"])
    return "\n".join(lines)


def _kernel_lines(found: Mapping[str, Any]) -> list[str]:
    lines = [report.markdown(found)] if found["rows"] else []
    lines += [f"kernels, {op}: {why}" for op, why in found["failures"].items()]
    return lines + [f"no time was left for {op}" for op in found["left_out"] if op not in found["failures"]]


def _parity_lines(found: Mapping[str, Any]) -> list[str]:
    rows = found["rows"]
    over = [f"{r['max_relative_difference']:.2e} over {r['steps']} steps" for r in rows]
    lines = [f"parity {r['dtype']} {r['rule']}: {text}" for r, text in zip(rows, over, strict=True)]
    return lines + [f"no time was left for the parity of {name}" for name in found.get("left_out", [])]


def _test_lines(found: Mapping[str, Any]) -> list[str]:
    counts = f"{found['run']} run, {found['failed']} failed, {found['skipped']} skipped, {found['seconds']} s"
    left = [f"no time was left for {group}" for group in found.get("left_out", [])]
    return [f"tests: {counts}", *found["failures"], *left]


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 all well; 1 a test or a part failed; 2 no GPU can be used."""
    parser = argparse.ArgumentParser(prog="benchmarks.gpu_check", description=__doc__)
    parser.add_argument("--commit", help="what is checked, where git cannot tell")
    parser.add_argument("--grid", default="gpu", help="of the kernel benchmark (see grids.toml)")
    parser.add_argument("--parts", type=command.names, default=list(PARTS), help=f"default: {','.join(PARTS)}")
    parser.add_argument("--workloads", type=command.names, default=[], help="of own and peers; default: all")
    parser.add_argument("--peers", type=command.names, default=[], help=f"of {', '.join(ON_GPU)}; default: all")
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"shared by the parts; default: {MINUTES:g}")
    parser.add_argument("--profile", action="store_true", help="print the time of each call of fcnet's steps, too")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="where the JSON goes")
    options = parser.parse_args(arguments)
    try:
        chosen = command.chosen("--parts", options.parts, PARTS)
        rivals = command.chosen("--peers", options.peers or ON_GPU, ON_GPU)
    except ValueError as error:
        print(f"gpu-check: {error}", file=sys.stderr)
        return 2
    found = probe()
    if found.status is not Status.OK:
        print(f"gpu-check: no GPU can be used: {found.reason}; {found.remedy}", file=sys.stderr)
        return 2
    device = get_backend("cuda").name
    try:
        workloads = chosen_workloads(device, options.workloads)
    except ValueError as error:
        print(f"gpu-check: {error}", file=sys.stderr)
        return 2
    commit, clock, threads = options.commit or None, Clock(60 * options.minutes), machine.cores()
    begun = head(device, commit)
    name = f"gpu-check-{begun['date']}.json"
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / name

    def keep(content: dict[str, Any]) -> None:
        write_atomically(path, json.dumps(content, indent=1) + "\n")

    begun = earlier(begun, [path, HERE / "results" / name])
    every: dict[str, Callable[[Keep, Clock], Any]] = {
        "own": lambda keep, clock: own.record(
            device, workloads, threads=threads, effort=EFFORT, clock=clock, say=say, keep=keep
        ),
        "tests": lambda keep, clock: gpu_tests.run_groups(clock, keep),
        "parity": lambda keep, clock: parity(device, clock, keep),
        "peers": lambda keep, clock: peers(
            device, EFFORT, commit, workloads, clock, keep, begun.get("own", {}).get("ceiling"), rivals
        ),
        "training": lambda keep, clock: training.record(device, threads, commit, rounds=TRAININGS, clock=clock),
        "kernels": lambda keep, clock: kernels.record_within(
            clock, options.grid, device, threads=threads, commit=commit, keep=keep
        ),
    }
    try:
        with stopped_cleanly():
            content = check(begun, {name: every[name] for name in PARTS if name in chosen}, clock, keep)
    except KeyboardInterrupt:
        print(f"gpu-check: interrupted; what was found until then is in {path.name}", file=sys.stderr)
        return 130
    text = tables(content, options.profile)
    write_atomically(path.with_suffix(".md"), text + "\n")
    print(text)
    if "peers" in content:
        command.write_picture(content["peers"], path.with_suffix(".png"), table.bars)
    print(f"wrote {path.name}")
    failed = any(name in content["errors"] for name in chosen)
    return int(failed or ("tests" in chosen and bool(content.get("tests", {}).get("failed"))))


if __name__ == "__main__":
    sys.exit(main())
