"""Which mutants the tests kill: `python -m tests.mutants` makes those of mutants.toml, one at a time, in a copy.

The tests of a mutant are those that execute its lines, by a coverage map that is made once for a state of the tree; of
lines that Numba compiles, which coverage cannot see, those that execute anything in its file; of lines executed when a
module is imported, those that execute anything in its folder; of CUDA sources those that run them through g++. They run
in order of how near and how quick they are, and the first failure ends it. Tests within subprocesses are not seen by
the map, so they are not chosen.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Queue
from typing import Any

from tests.mutants_plugin import CHOICE, COVERED, MAP

HERE = Path(__file__).parent
LIST = HERE / "mutants.toml"
MAPS = ".mutants"  # a folder of the tree, for its coverage maps
SECONDS = 90.0  # of processor time for a mutant's tests
FIRST_FILES = 6  # test files whose tests come first: to collect all of them takes longer than most failures
HANGS = 600  # seconds after which the tests of a mutant are taken to hang
RUNS_CUDA = re.compile(r"cuda_cpu|cuda_grid|cuda_fake|tests\.kernels")  # in a test file


@dataclass(frozen=True)
class Mutant:
    """A change of one place in a file, and what became of it."""

    name: str
    file: str
    old: str
    new: str
    outcome: str = "not run"
    by: str = ""
    chosen: int = 0
    ran: int = 0
    seconds: float = 0.0  # of processor time


def read_list() -> list[Mutant]:
    """Return the mutants of mutants.toml."""
    listed = tomllib.loads(LIST.read_text("utf-8"))
    return [
        Mutant(f"{file}:{number}", file, old, new)
        for file, pairs in listed.items()
        for number, (old, new) in enumerate(pairs, 1)
    ]


def files_of(tree: Path) -> list[Path]:
    """Return what git knows of a tree and what it does not ignore, relative to it."""
    command = ["git", "-C", str(tree), "ls-files", "-co", "--exclude-standard", "-z"]
    names = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")
    kept = (name for name in set(names) if name and not name.startswith(f"{MAPS}/"))
    return sorted(Path(name) for name in kept if os.path.lexists(tree / name))


def state_of(tree: Path) -> str:
    """Return a digest of the tree's files, but for those of this program."""
    total = hashlib.sha256()
    for file in files_of(tree):
        if file.name not in (LIST.name, "mutants.py", "mutants_plugin.py") and (tree / file).is_file():
            total.update(f"{file}\0".encode() + hashlib.sha256((tree / file).read_bytes()).digest())
    return total.hexdigest()[:12]


def copy_tree(tree: Path, to: Path) -> None:
    """Make a copy with a repository of its own, which some tests ask."""
    for file in files_of(tree):
        (to / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(tree / file, to / file, follow_symlinks=False)
    for command in (["init", "-q"], ["add", "-A"]):
        subprocess.run(["git", "-C", str(to), *command], check=True, capture_output=True)


def environment(copy: Path, **others: str) -> dict[str, str]:
    """Return the environment of pytest in a copy."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "FCNET_MUTANTS"))}
    return plain | {"PYTHONPATH": f"{copy}{os.pathsep}{HERE}", "OPENBLAS_NUM_THREADS": "1"} | others


PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "mutants_plugin", "-p", "no:cacheprovider"]


@dataclass(frozen=True)
class Map:
    """Which tests execute what.

    Attributes:
        tests: processor seconds of each test that passed.
        lines: file -> line -> tests; places in `tests`.
        cuda: test files that run CUDA sources.
    """

    tests: dict[str, float]
    lines: dict[str, dict[int, list[str]]]
    cuda: list[str]


def make_map(copy: Path, mutated: list[str], jobs: int) -> Map:
    """Run the whole suite in a copy, under coverage of the files that have mutants."""
    from coverage import CoverageData

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        covered = folder / "covered"
        paths = [str(path) for file in mutated for path in {copy / file, (copy / file).resolve()}]
        covered.write_text("\n".join(paths), "utf-8")
        print("coverage map: the whole suite runs once ...", flush=True)
        workers = ["-n", str(jobs), "--dist", "worksteal"] if jobs > 1 else []
        done = subprocess.run(
            [*PYTEST, *workers],
            cwd=copy,
            env=environment(copy, **{MAP: str(folder), COVERED: str(covered)}),
            capture_output=True,
            text=True,
        )
        tests: dict[str, float] = {}
        failed: set[str] = set()
        for notes in folder.glob("tests-*.json"):
            read = json.loads(notes.read_text("utf-8"))
            tests |= read["tests"]
            failed |= set(read["failed"])
        if not tests:
            raise SystemExit(f"the suite did not run:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        for name in sorted(failed):
            print(f"  fails without a mutant, and is left out: {name}")
        tests = {name: seconds for name, seconds in tests.items() if name not in failed}
        lines: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
        for data_file in folder.glob("coverage.*"):
            data = CoverageData(str(data_file))
            data.read()
            for measured in data.measured_files():
                file = Path(measured).resolve().relative_to(copy.resolve()).as_posix()
                for line, contexts in data.contexts_by_lineno(measured).items():
                    lines[file][line] += [name for name in contexts if name in tests]
        cuda = [
            path.relative_to(copy).as_posix()
            for path in sorted((copy / "tests").rglob("test_*.py"))
            if RUNS_CUDA.search(path.read_text("utf-8"))
        ]
        return Map(tests, {file: dict(of) for file, of in lines.items()}, cuda)


def keep_map(made: Map, path: Path) -> None:
    """Write a map, its tests by number."""
    number = {name: place for place, name in enumerate(made.tests)}
    lines = {file: {line: [number[n] for n in names] for line, names in of.items()} for file, of in made.lines.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"tests": made.tests, "lines": lines, "cuda": made.cuda}), "utf-8")


def read_map(path: Path) -> Map:
    """Return a map as `keep_map` wrote it."""
    read = json.loads(path.read_text("utf-8"))
    names = list(read["tests"])
    lines = {
        file: {int(line): [names[n] for n in of] for line, of in lines.items()} for file, lines in read["lines"].items()
    }
    return Map(read["tests"], lines, read["cuda"])


def chosen_tests(mutant: Mutant, source: str, known: Map) -> list[list[str]]:
    """Return the tests of a mutant in order, in parts: the tests of the nearest files, then those of the others."""
    if not mutant.file.endswith(".py"):
        names = {name for name in known.tests if name.partition("::")[0] in known.cuda}
    else:
        at = source.index(mutant.old)
        first = source.count("\n", 0, at) + 1
        of = known.lines.get(mutant.file, {})
        lines = range(first, first + mutant.old.count("\n") + 1)
        names = {name for line in lines for name in of.get(line, ())}
        if not names:  # compiled by Numba, or executed when the module is imported, which its neighbours do, too
            folder = mutant.file.rpartition("/")[0] if any(line in of for line in lines) else mutant.file
            alike = [tests for file, of in known.lines.items() if file.startswith(folder) for tests in of.values()]
            names = {name for tests in alike for name in tests}
    words = set(re.split(r"\W|_", mutant.file)) - {"fcnet", "py", "cu", ""}
    by_file: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_file[name.partition("::")[0]].append(name)

    def nearness(file: str) -> tuple[int, float]:
        own = set(re.split(r"\W|_", file))
        return -len(words & own), sum(known.tests[name] for name in by_file[file]) / len(by_file[file])

    order: list[str] = []
    for file in sorted(by_file, key=nearness):
        seen: Counter[str] = Counter()
        ranked = []
        for name in sorted(by_file[file], key=lambda name: (known.tests[name], name)):
            function = name.partition("[")[0]
            ranked.append((seen[function], name))  # each function once before any of them twice
            seen[function] += 1
        order += [name for _, name in sorted(ranked, key=lambda pair: pair[0])]
    near = set(sorted(by_file, key=nearness)[:FIRST_FILES])
    parts = [[n for n in order if n.partition("::")[0] in near], [n for n in order if n.partition("::")[0] not in near]]
    return [part for part in parts if part]


def run_tests(copy: Path, tests: list[str], seconds: float, numba: Path | None) -> dict[str, Any]:
    """Run these tests until one fails; what the plugin said, and `hangs` or `broken` if it could say nothing."""
    with tempfile.TemporaryDirectory() as temporary:
        choice = Path(temporary, "choice.json")
        choice.write_text(json.dumps({"tests": tests, "seconds": seconds}), "utf-8")
        files = list(dict.fromkeys(name.partition("::")[0] for name in tests))
        own_numba = {} if numba is None else {"NUMBA_CACHE_DIR": str(numba)}
        limit = int(seconds) + 180
        process = subprocess.Popen(
            [*PYTEST, "-x", *files],
            cwd=copy,
            env=environment(copy, **{CHOICE: str(choice)}, **own_numba),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5)),
        )
        try:
            output, _ = process.communicate(timeout=HANGS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return {"ran": 0, "failed": ["(no end)"], "out_of_time": False, "seconds": 0.0}
        said = choice.with_suffix(".said")
        nothing = {"ran": 0, "failed": [], "out_of_time": False, "seconds": 0.0}
        result = json.loads(said.read_text("utf-8")) if said.exists() else nothing
        if not result["failed"] and process.returncode not in (0, 2 if result["out_of_time"] else 0):
            lines = [line for line in output.splitlines() if line.startswith(("E ", "ERROR", "Fatal"))]
            result["failed"] = [f"(exit {process.returncode}) {lines[0][:120] if lines else ''}".strip()]
        return result


def try_out(mutant: Mutant, copy: Path, number: int, known: Map, seconds: float) -> Mutant:
    """Make the mutant in the copy, run its tests, and take it back."""
    path = copy / mutant.file
    source = path.read_text("utf-8") if path.exists() else ""
    if source.count(mutant.old) != 1:
        return replace(mutant, outcome="gone" if mutant.old not in source else "in several places")
    parts = chosen_tests(mutant, source, known)
    if not parts:
        return replace(mutant, outcome="no test executes it")
    stamp = path.stat()
    compiled = mutant.file.startswith("backends/cpu/")
    outcome, by, ran, used = "survived", "", 0, 0.0
    with tempfile.TemporaryDirectory() as numba:
        try:
            path.write_text(source.replace(mutant.old, mutant.new), "utf-8")
            # A time of its own, so that no compiled file of another state is taken for this one's.
            os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + (number + 1) * 10**9))
            for part in parts:
                said = run_tests(copy, part, seconds - used, Path(numba) if compiled else None)
                ran, used = ran + said["ran"], used + said["seconds"]
                if said["failed"]:
                    outcome, by = "killed", said["failed"][0]
                    break
                if said["out_of_time"]:
                    outcome = "survived for want of time"
                    break
        finally:
            path.write_text(source, "utf-8")
            os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    return replace(mutant, outcome=outcome, by=by, chosen=sum(map(len, parts)), ran=ran, seconds=round(used, 1))


def run_all(mutants: list[Mutant], copies: list[Path], known: Map, seconds: float) -> Iterator[Mutant]:
    """Each mutant's outcome, as it comes; one mutant at a time in each copy."""
    free: Queue[Path] = Queue()
    for copy in copies:
        free.put(copy)

    def one(numbered: tuple[int, Mutant]) -> Mutant:
        copy = free.get()
        try:
            return try_out(numbered[1], copy, numbered[0], known, seconds)
        finally:
            free.put(copy)

    with ThreadPoolExecutor(len(copies)) as pool:
        yield from pool.map(one, enumerate(mutants))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="mutants whose name contains one of these; default: all")
    parser.add_argument("--tree", type=Path, default=HERE.parent, help="of the tests and the code; default: this one")
    parser.add_argument("--jobs", type=int, default=2, help="processes; default 2")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help=f"of processor time a mutant; default {SECONDS:g}"
    )
    parser.add_argument("--out", type=Path, help="a JSON file for the results")
    given = parser.parse_args(arguments)
    tree = given.tree.resolve()
    mutants = [m for m in read_list() if not given.names or any(name in m.name for name in given.names)]
    started = time.perf_counter()
    map_file = tree / MAPS / f"map-{state_of(tree)}.json"
    with tempfile.TemporaryDirectory(prefix="fcnet-mutants-") as temporary:
        copies = [Path(temporary, f"copy{number}") for number in range(given.jobs)]
        copies[0].mkdir()
        copy_tree(tree, copies[0])
        if not map_file.exists():
            keep_map(make_map(copies[0], sorted({m.file for m in read_list()}), given.jobs), map_file)
        known = read_map(map_file)
        for copy in copies[1:]:
            shutil.copytree(copies[0], copy, symlinks=True)
        done: list[Mutant] = []
        for mutant in run_all(mutants, copies, known, given.seconds):
            done.append(mutant)
            how = f"{mutant.ran} of {mutant.chosen} tests, {mutant.seconds:.0f} s"
            print(f"[{len(done)}/{len(mutants)}] {mutant.outcome}: {mutant.name} ({how}) {mutant.by}", flush=True)
    count = Counter(mutant.outcome for mutant in done)
    print(", ".join(f"{number} {outcome}" for outcome, number in count.most_common()))
    print(f"{len(known.tests)} tests in the map; {time.perf_counter() - started:.0f} s")
    if given.out:
        results = {"tests": len(known.tests), "outcomes": count, "mutants": [vars(mutant) for mutant in done]}
        given.out.write_text(json.dumps(results, indent=1), "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
