"""fcnet's defaults beside others' on real tables: `python -m benchmarks.tables --json FILE`.

Accuracy or R² and the time of `fit`, of fcnet's estimators, scikit-learn's MLP and linear models in the pipeline that
their users write, and boosted trees, all with their defaults, on the same splits, in turns. With --json, what was
measured so far lies in FILE.part from table to table, and the same command goes on from there after an interruption.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.metadata
import json
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import command
from benchmarks.command import describe, say
from benchmarks.pictures import mark, new_figure, time_text, to_png
from benchmarks.report import Record, Row, heading, table, to_json
from benchmarks.table_contenders import CATBOOST_ITERATIONS, CONTENDERS, Make
from benchmarks.table_sets import TABLES, Table
from fcnet.files import write_atomically

US, PEER, TREES = "fcnet", "MLP pipeline", "HistGradientBoosting"
SHARE = 12 / 14  # of the tables on which fcnet is to be as good and as fast as the peer
WITHIN = 0.98  # of the trees' mean score, to be reached
ROWS, QUICK_ROWS = 5000, 300
SPLITS, QUICK_SPLITS = 5, 2
QUICK_TABLES = ("iris", "diabetes", "titanic")
PACKAGES = ("scikit-learn", "pandas", "lightgbm", "catboost")
COLORS = ("#000000", "#8A6BBE", "#009E73", "#999999", "#56B4E9", "#E69F00")  # Okabe and Ito's


class Fit(NamedTuple):
    """Hold what one fit on one split gave."""

    score: float
    seconds: float
    converged: bool


def some_rows(found: Table, most: int) -> Table:
    """Return the table, or `most` of its rows drawn with seed 0, in their order."""
    if len(found.y) <= most:
        return found
    rows = np.sort(np.random.default_rng(0).choice(len(found.y), most, replace=False))
    return dataclasses.replace(found, X=found.X.iloc[rows].reset_index(drop=True), y=found.y[rows])


def splits_of(found: Table, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the rows to train on and to test on, `count` times."""
    from sklearn.model_selection import KFold, StratifiedKFold

    kind = StratifiedKFold if found.classes else KFold
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class of fewer rows than splits: so are tables
        return list(kind(count, shuffle=True, random_state=0).split(found.X, found.y))


def fit(make: Make, found: Table, train: np.ndarray, test: np.ndarray, threads: int) -> Fit:
    """Fit on the first rows, which is timed, and score the others."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import accuracy_score, r2_score

    model = make(found, threads)
    X, y = found.X.iloc[train], found.y[train]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        start = time.perf_counter()
        model.fit(X, y)
        seconds = time.perf_counter() - start
        predicted = np.ravel(model.predict(found.X.iloc[test]))
    score = (accuracy_score if found.classes else r2_score)(found.y[test], predicted)
    return Fit(float(score), seconds, not any(issubclass(one.category, ConvergenceWarning) for one in said))


def refusal(error: Exception) -> Row:
    """Return why a contender or a table has no result."""
    if isinstance(error, ModuleNotFoundError):
        return {"refused": f"{error.name} is not installed", "kind": "unavailable"}
    kind = "unavailable" if isinstance(error, FileNotFoundError) else "failed"
    return {"refused": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}", "kind": kind}


def warm_up(contenders: Mapping[str, Make], threads: int) -> None:
    """Fit classes and numbers of iris with each, so that what is imported and compiled once is not timed."""
    iris = TABLES["iris"]()
    numbers = dataclasses.replace(iris, y=iris.X.iloc[:, 3].to_numpy(), classes=False)
    rows = np.arange(len(iris.y))
    for name, make in contenders.items():
        for found in (iris, numbers):
            try:
                fit(make, found, rows, rows, threads)
            except Exception as error:  # the rows of the tables say so again
                say(f"{name}: {refusal(error)['refused']}")
                break


def measure_table(found: Table, contenders: Mapping[str, Make], count: int, threads: int) -> list[Row]:
    """Return a row for each contender; they take turns in each split, another first each time."""
    size = {"rows": len(found.y), "columns": found.X.shape[1], "metric": "accuracy" if found.classes else "R²"}
    rows: dict[str, Row] = {name: {"table": found.name, "contender": name} | size for name in contenders}
    fits: dict[str, list[Fit]] = {name: [] for name in contenders}
    for turn, (train, test) in enumerate(splits_of(found, count)):
        for name in rotated(list(contenders), turn):
            if "refused" in rows[name]:
                continue
            try:
                fits[name].append(fit(contenders[name], found, train, test, threads))
            except Exception as error:  # whatever it is, it stands in the row
                rows[name] |= refusal(error)
    for name, row in rows.items():
        if "refused" not in row:
            row["scores"] = [round(one.score, 5) for one in fits[name]]
            row["seconds"] = [round(one.seconds, 4) for one in fits[name]]
            row["unconverged"] = sum(not one.converged for one in fits[name])
    return list(rows.values())


def rotated(names: list[str], turn: int) -> list[str]:
    """Return the names, beginning with another one each turn."""
    first = turn % len(names)
    return names[first:] + names[:first]


def measure(
    tables: Mapping[str, Callable[[], Table]],
    contenders: Mapping[str, Make],
    most: int,
    count: int,
    threads: int,
    rows: Sequence[Row] = (),
    keep: Callable[[list[Row]], None] = lambda rows: None,
) -> list[Row]:
    """Return the rows of all tables, a line of progress for each.

    Args:
        rows: of tables that were measured before. keep: is given all rows so far after each table.
    """
    rows = list(rows)
    before = {row["table"] for row in rows}
    with limited(threads):
        warm_up(contenders, threads)
        for at, (name, load) in enumerate(tables.items(), 1):
            if name in before:
                say(f"[{at}/{len(tables)}] {name}: measured before")
                continue
            start = time.perf_counter()
            try:
                found = load()
            except (ImportError, OSError) as error:
                rows.append({"table": name} | refusal(error))
                say(f"[{at}/{len(tables)}] {name} is left out: {rows[-1]['refused']}")
                continue
            some = measure_table(some_rows(found, most), contenders, count, threads)
            for row in some:
                row["of_rows"] = len(found.y)
            rows += some
            text = ", ".join(
                f"{row['contender']} {row['refused'] if 'refused' in row else _score(row)}" for row in some
            )
            say(f"[{at}/{len(tables)}] {name}, {time.perf_counter() - start:.0f} s: {text}")
            keep(rows)
    return rows


class Kept:
    """Keep what was measured so far in a file beside the record: FILE.part."""

    def __init__(self, path: Path | None, head: Record) -> None:
        """Open the record at `path`, or none; `head`: what all its rows are measured with."""
        self.path = None if path is None else path.with_name(f"{path.name}.part")
        self.head = head

    def rows(self) -> list[Row]:
        """Return the rows there, if they are of the same code, versions and options."""
        if self.path is None or not self.path.is_file():
            return []
        found = json.loads(self.path.read_text("utf-8"))
        same = ("commit", "versions", "splits", "most_rows", "threads")
        if found["dirty"] or self.head["dirty"] or any(found[name] != self.head[name] for name in same):
            say(f"{command.short(self.path)} is of other code, versions or options, and is measured anew")
            return []
        say(f"{command.short(self.path)} is gone on from")
        return found["rows"]

    def write(self, rows: list[Row]) -> None:
        """Write them, in the place of those before."""
        if self.path is not None:
            write_atomically(self.path, to_json({**self.head, "rows": rows}))

    def remove(self) -> None:
        """Remove the file, after all were measured."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


@contextlib.contextmanager
def limited(threads: int) -> Iterator[None]:
    """Limit NumPy's BLAS, OpenMP and fcnet's own pool to so many threads."""
    from threadpoolctl import threadpool_limits

    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # fcnet's pool heeds them when it starts
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, str(threads)))
    try:
        with threadpool_limits(limits=threads):
            yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def by_table(rows: Sequence[Row]) -> dict[str, dict[str, Row]]:
    """Return the rows by table and contender, without the tables that are left out."""
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        if "contender" in row:
            found.setdefault(row["table"], {})[row["contender"]] = row
    return found


def against(ours: Row, theirs: Row) -> tuple[str, float, float]:
    """Return better, tie or worse; the mean of the paired differences of scores; its standard error."""
    differences = np.subtract(ours["scores"], theirs["scores"])
    mean, error = float(differences.mean()), float(differences.std(ddof=1) / math.sqrt(len(differences)))
    # Where one split alone differs, mean and error are the same number: a tie, however they are rounded.
    tie = abs(mean) <= error or math.isclose(abs(mean), error, rel_tol=1e-9)
    return ("tie" if tie else "better" if mean > 0 else "worse"), mean, error


def time_ratio(ours: Row, theirs: Row) -> float:
    """Return the median over the splits of the ratio of times."""
    return float(np.median(np.divide(ours["seconds"], theirs["seconds"])))


class Goals:
    """Judge the three goals: as good as the peer, near the trees in the mean, not slower than the peer.

    Attributes:
        tables: how many were measured. needed: on how many of them the first goal and the last are to be reached.
        better, ties, worse, slower: names of tables against the peer; slower ones with the ratio of times.
        ours, trees: mean scores of the tables that both have, or NaN. refused: names of tables not compared.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        found = by_table(rows)
        self.tables = len(found)
        self.needed = math.ceil(SHARE * self.tables - 1e-9)
        kinds: dict[str, list[str]] = {"better": [], "tie": [], "worse": []}
        self.slower: dict[str, float] = {}
        self.refused: list[str] = []
        scores: list[tuple[float, float]] = []
        for name, row in found.items():
            ours, peer, trees = (row.get(who, {}) for who in (US, PEER, TREES))
            if "scores" in ours and "scores" in peer:
                kinds[against(ours, peer)[0]].append(name)
                if time_ratio(ours, peer) > 1:
                    self.slower[name] = time_ratio(ours, peer)
            else:
                self.refused.append(name)
            if "scores" in ours and "scores" in trees:
                scores.append((float(np.mean(ours["scores"])), float(np.mean(trees["scores"]))))
        self.better, self.ties, self.worse = kinds.values()
        self.ours, self.trees = np.mean(scores, axis=0).tolist() if scores else (math.nan, math.nan)

    @property
    def good(self) -> int:
        """Return on how many tables it is as good as the peer."""
        return len(self.better) + len(self.ties)

    @property
    def faster(self) -> int:
        """Return on how many tables it is not slower than the peer."""
        return self.tables - len(self.refused) - len(self.slower)

    @property
    def reached(self) -> tuple[str, str, str]:
        """Return "reached" or "missed", for each goal."""
        each = self.good >= self.needed, self.ours >= WITHIN * self.trees, self.faster >= self.needed
        good, mean, fast = ("reached" if one else "missed" for one in each)
        return good, mean, fast


def verdicts(rows: Sequence[Row]) -> list[str]:
    """Return a line for each of the three goals, with what lost."""
    goals = Goals(rows)
    if not goals.tables:
        return ["No table was measured."]
    good, mean, fast = goals.reached
    slower = ", ".join(f"{name} ({ratio:.2f}×)" for name, ratio in goals.slower.items())
    lines = [
        f"At least as good as the {PEER} (one standard error of the paired differences counts as a tie): {goals.good} "
        f"of {goals.tables} ({len(goals.better)} better, {len(goals.ties)} ties); goal {goals.needed}: {good}. Worse: "
        f"{', '.join(goals.worse) or 'none'}.",
        f"Mean score: {goals.ours:.4f}, {TREES} {goals.trees:.4f}, {goals.ours / goals.trees - 1:+.1%}; goal "
        f"{WITHIN - 1:+.0%}: {mean}.",
        f"Fit not slower than the {PEER}'s: {goals.faster} of {goals.tables}; goal {goals.needed}: {fast}. Slower: "
        f"{slower or 'none'}.",
    ]
    if goals.refused:
        lines.append(f"Not compared, because one of the two failed: {', '.join(goals.refused)}.")
    return lines


def last_line(rows: Sequence[Row]) -> str:
    """Return the goals in one line."""
    goals = Goals(rows)
    good, mean, fast = goals.reached
    return (
        f"goals: as good on {goals.good} of {goals.tables} ({goals.needed} needed: {good}); mean "
        f"{goals.ours / goals.trees - 1:+.1%} of {TREES} (-2% allowed: {mean}); not slower on {goals.faster} of "
        f"{goals.tables} ({goals.needed} needed: {fast})"
    )


def readme(record: Record) -> list[str]:
    """Return the lines that README has of a record, between `MARKS`."""
    rows, goals = record["rows"], Goals(record["rows"])
    n, needed = goals.tables, goals.needed
    good, mean, fast = goals.reached
    lines = [
        f"| Goal, on {n} tables ({record['date']}, commit {(record['commit'] or 'unknown')[:7]}) | Found | |",
        "|---|---|---|",
        f"| as good as the MLP pipeline, or within one standard error of the paired differences: on {needed} | "
        f"{goals.good}: {len(goals.better)} better, {len(goals.ties)} ties | {good} |",
        f"| within 2 % of {TREES} in the mean of the scores | {goals.ours:.3f} and {goals.trees:.3f}: "
        f"{goals.ours / goals.trees - 1:+.1%} | {mean} |",
        f"| `fit` not slower than the MLP pipeline's, compilation apart: on {needed} | {goals.faster} | {fast} |",
    ]
    found = by_table(rows)
    lost = [f"{name} ({_pair(found[name], PEER)})" for name in goals.worse]
    trees = [
        f"{name} ({_pair(row, TREES)})"
        for name, row in found.items()
        if "scores" in row.get(US, {}) and "scores" in row.get(TREES, {}) and against(row[US], row[TREES])[0] == "worse"
    ]
    slower = [f"{name} ({ratio:.2f} times its time)" for name, ratio in goals.slower.items()]
    text = [
        f"Worse than the pipeline: {_listed(lost)}.",
        f"Slower: {_listed(slower)}.",
        f"Worse than boosted trees: {_listed(trees)}.",
    ]
    return [*lines, "", *text]


#: Around what README has of the record.
MARKS = "<!-- benchmarks.tables -->", "<!-- end of benchmarks.tables -->"


def write_readme(path: Path, record: Record) -> None:
    """Put the lines of a record between the marks of a text.

    Raises:
        ValueError: it has no such marks.
    """
    text = path.read_text("utf-8")
    before, first, rest = text.partition(MARKS[0])
    _, last, after = rest.partition(MARKS[1])
    if not (first and last):
        raise ValueError(f"{path}: expected the lines {MARKS[0]} and {MARKS[1]}; put them where the table belongs")
    write_atomically(path, "\n".join([f"{before}{first}", *readme(record), f"{last}{after}"]))


def _pair(row: Mapping[str, Row], other: str) -> str:
    return f"{_score(row[US])}, theirs {_score(row[other])}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def markdown(record: Record) -> str:
    """Return verdicts, scores and times."""
    found = by_table(record["rows"])
    names = list(dict.fromkeys(row["contender"] for row in record["rows"] if "contender" in row))
    scores, times = [], []
    for name, row in found.items():
        first = next(iter(row.values()))
        cut = f" of {first['of_rows']:,}" if first["rows"] < first["of_rows"] else ""
        size = f"{first['rows']:,}{cut} × {first['columns']}"
        both = "scores" in row.get(US, {}) and "scores" in row.get(PEER, {})
        kind, mean, error = against(row[US], row[PEER]) if both else ("", 0.0, 0.0)
        difference = f"{mean:+.3f} ± {error:.3f}" if both else ""
        scores.append([name, size, first["metric"], *(_score(row[who]) for who in names), difference, kind])
        ratio = f"{time_ratio(row[US], row[PEER]):.2f}" if both else ""
        times.append([name, *(_seconds(row[who]) for who in names), ratio])
    against_peer = f"fcnet − {PEER} ± s.e."
    lines = [
        *heading(f"Tables, {record['date']}", record, record["versions"]),
        f"Defaults everywhere (but {CATBOOST_ITERATIONS} iterations of CatBoost's 1,000), random_state 0, at most "
        f"{record['threads']} thread(s) each, the same {record['splits']} splits (shuffled, seed 0; stratified for "
        f"classes), contenders in turns. Tables of more than {record['most_rows']:,} rows: so many of them, drawn with "
        "seed 0. Every contender was fitted on iris once before, untimed: imports and compilation are apart. fcnet, "
        "HistGradientBoosting and LightGBM get the raw frame; MLP and linear model (LogisticRegression or Ridge) stand "
        "behind SimpleImputer, OneHotEncoder and StandardScaler.",
        "",
        *(f"- {line}" for line in verdicts(record["rows"])),
        "",
        "## Mean score on the held-out rows",
        "",
        *table(["", "rows × columns", "", *names, against_peer, ""], scores, left=(0, 2, len(names) + 4)),
        "",
        "## Seconds of a fit, median of the splits",
        "",
        *table(["", *names, f"fcnet ÷ {PEER}"], times),
    ]
    refused = [row for row in record["rows"] if "refused" in row]
    if refused:
        lines += ["", "## Left out or failed", ""]
        lines += [f"- {', '.join([row['table'], *_named(row)])}: {row['refused']}" for row in refused]
    return "\n".join(lines) + "\n"


def _named(row: Row) -> list[str]:
    return [row["contender"]] if "contender" in row else []


def _score(row: Row) -> str:
    return row["kind"] if "refused" in row else f"{np.mean(row['scores']):.3f}"


def _seconds(row: Row) -> str:
    return row["kind"] if "refused" in row else f"{np.median(row['seconds']):.3f}"


def picture(record: Record) -> bytes:
    """Return a PNG: scores and times of all contenders, a line for each table.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    found = by_table(record["rows"])
    names = list(dict.fromkeys(row["contender"] for row in record["rows"] if "contender" in row))
    figure = new_figure("the picture of the benchmark", 9.5, 1.6 + 0.3 * len(found), dpi=90)
    left, right = figure.subplots(1, 2, sharey=True)
    for at, who in enumerate(names):
        measured = [(y, row[who]) for y, row in enumerate(found.values()) if "scores" in row[who]]
        style = {"color": COLORS[at % len(COLORS)], "marker": "oDs^vP"[at % 6], "zorder": 3 + (who == US)}
        style |= {"linestyle": "", "markersize": 8 if who == US else 5, "label": who}
        means = [float(np.mean(row["scores"])) for _, row in measured]
        left.plot([max(0.0, mean) for mean in means], [y for y, _ in measured], **style)
        right.plot([float(np.median(row["seconds"])) for _, row in measured], [y for y, _ in measured], **style)
    left.set_yticks(range(len(found)), list(found))
    left.set_ylim(len(found) - 0.5, -0.5)
    left.set(xlabel="accuracy or R² (below 0: at 0)", xlim=(-0.03, 1.03))
    right.set(xlabel="fit, without compilation", xscale="log")
    low, high = right.get_xlim()  # whole decades, so that each has its number
    decades = [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    right.set_xlim(decades[0], decades[-1])
    mark(right.xaxis, decades, lambda seconds, at: time_text(1e6 * seconds, at))
    for panel in (left, right):
        panel.grid(alpha=0.25, linewidth=0.6)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(names), frameon=False, fontsize=8)
    return to_png(figure)


def versions() -> dict[str, str]:
    """Return those of the packages of the contenders that are installed."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _plan(options: argparse.Namespace) -> Callable[[], Record]:
    if options.readme is not None:
        if options.json is None:
            raise ValueError("--readme: expected a record, with --json FILE, got none")
        record = json.loads(options.json.read_text("utf-8"))
        write_readme(options.readme, record)
        return lambda: record
    default = QUICK_TABLES if options.quick else tuple(TABLES)
    given = default if options.tables is None else command.names(options.tables)
    tables = {name: TABLES[name] for name in command.chosen("--tables", given, list(TABLES))}
    most, count = (QUICK_ROWS, QUICK_SPLITS) if options.quick else (ROWS, SPLITS)

    def measured() -> Record:
        head = describe("cpu", options.threads) | {"versions": versions(), "splits": count, "most_rows": most}
        kept = Kept(options.json, head)
        try:
            rows = measure(tables, CONTENDERS, most, count, options.threads, kept.rows(), kept.write)
        except KeyboardInterrupt as error:
            if kept.path is None or not kept.path.is_file():
                raise
            path = command.short(kept.path)
            raise KeyboardInterrupt(f"{path} has what was measured; the same command goes on from there") from error
        kept.remove()
        return head | {"rows": rows}

    return measured


def _add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tables", metavar="LIST", help=f"some of {','.join(TABLES)}; default: all")
    parser.add_argument(
        "--readme", type=Path, metavar="FILE", help="measure nothing: write there what it shows of the record --json"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code, as `command.run` says."""
    return command.run(
        "tables",
        __doc__,
        arguments,
        _plan,
        markdown,
        picture=picture,
        add=_add,
        threads=1,
        last=lambda record: last_line(record["rows"]),
    )


if __name__ == "__main__":
    sys.exit(main())
