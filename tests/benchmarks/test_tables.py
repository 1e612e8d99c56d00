"""Tables beside the peers: paired scores, verdicts, and contenders or tables that fail stand in a row."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import tables
from benchmarks.table_contenders import CONTENDERS
from benchmarks.table_sets import Table

pandas = pytest.importorskip("pandas")
linear_model = pytest.importorskip("sklearn.linear_model")

RECORD = {
    "date": "2026-01-01",
    "commit": "0" * 40,
    "dirty": False,
    "machine": {
        "cpu": "a CPU",
        "cores": 2,
        "blas_threads": 1,
        "python": "3",
        "numpy": "2",
        "blas": "BLAS",
        "load": None,
        "fcnet": "0",
    },
    "versions": {},
    "splits": 2,
    "most_rows": 20,
    "threads": 1,
}


def tiny():
    x = np.arange(40.0) ** 1.5  # no column that merely counts the rows
    frame = pandas.DataFrame({"x": x, "kind": pandas.Categorical(["a", "b"] * 20)})
    frame.loc[3, "kind"] = None
    return Table("tiny", frame, np.where(np.arange(40) < 20, "low", "high"), True, "made")


def absent():
    raise ModuleNotFoundError("No module named 'absent'", name="absent")


class Fails:
    def fit(self, X, y):
        raise RuntimeError("no,\nnever")


def row(contender, scores, seconds, table="t"):
    size = {"rows": 20, "of_rows": 40, "columns": 2, "metric": "accuracy", "unconverged": 0}
    return {"table": table, "contender": contender, "scores": scores, "seconds": seconds} | size


def test_who_fails_stands_in_the_row_and_the_others_go_on(capsys):
    stub = {"stub": CONTENDERS["linear pipeline"], "broken": lambda found, threads: Fails()}
    rows = tables.measure({"gone": absent, "tiny": tiny}, stub, 30, 2, 1)
    assert rows[0] == {"table": "gone", "refused": "absent is not installed", "kind": "unavailable"}
    good, bad = rows[1:]
    assert (len(good["scores"]), len(good["seconds"])) == (2, 2)
    assert (good["rows"], good["of_rows"], good["columns"]) == (30, 40, 2)
    assert min(good["scores"]) > 0.8
    assert (bad["refused"], bad["kind"]) == ("RuntimeError: no, never", "failed")
    said = capsys.readouterr().err
    assert "[1/2] gone is left out: absent is not installed" in said
    assert "[2/2] tiny" in said
    text = tables.markdown(RECORD | {"rows": rows})
    assert "- tiny, broken: RuntimeError: no, never" in text
    assert "30 of 40 × 2" in text


@pytest.mark.parametrize("name", ["fcnet", "MLP pipeline", "HistGradientBoosting", "linear pipeline"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_contenders_take_categories_and_missing_values(name):
    found = tiny()
    rows = np.arange(40)
    assert tables.fit(CONTENDERS[name], found, rows, rows, 1).score > 0.8


@pytest.mark.parametrize(
    ("ours", "kind"), [([0.9, 0.8, 0.9], "better"), ([0.8, 0.71, 0.74], "tie"), ([0.7, 0.6, 0.7], "worse")]
)
def test_paired_differences_within_one_standard_error_are_a_tie(ours, kind):
    found = tables.against(row("a", ours, []), row("b", [0.8, 0.7, 0.75], []))
    assert found[0] == kind
    differences = np.subtract(ours, [0.8, 0.7, 0.75])
    assert found[2] == pytest.approx(np.std(differences, ddof=1) / np.sqrt(3))


def test_one_split_that_differs_is_one_standard_error():
    theirs = [0.86765, 0.83582, 0.86567, 0.89552, 0.86567]
    ours = [0.86765, 0.8209, 0.86567, 0.89552, 0.86567]
    assert tables.against(row("a", ours, []), row("b", theirs, []))[0] == "tie"


def test_verdicts_count_and_name_the_losses():
    rows = [
        *(row(who, [0.9, 0.9], [s, s], "won") for who, s in (("fcnet", 1.0), ("MLP pipeline", 2.0))),
        row("HistGradientBoosting", [0.9, 0.9], [1.0, 1.0], "won"),
        row("fcnet", [0.5, 0.5], [3.0, 3.0], "lost"),
        row("MLP pipeline", [0.7, 0.7], [2.0, 2.0], "lost"),
        row("HistGradientBoosting", [0.7, 0.7], [1.0, 1.0], "lost"),
    ]
    good, mean, fast = tables.verdicts(rows)
    assert "1 of 2 (0 better, 1 ties); goal 2: missed. Worse: lost." in good
    assert "0.7000, HistGradientBoosting 0.8000, -12.5%; goal -2%: missed" in mean
    assert "1 of 2; goal 2: missed. Slower: lost (1.50×)." in fast
    pytest.importorskip("matplotlib")
    assert tables.picture(RECORD | {"rows": rows}).startswith(b"\x89PNG")


def test_tables_are_checked_before_anything_runs(capsys):
    assert tables.main(["--tables", "irs"]) == 2
    assert "--tables" in capsys.readouterr().err


def test_a_run_that_is_interrupted_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    """Of the same code: of other code it begins anew."""
    fitted = []

    def loaded(name, stops=()):
        def load():
            if name in stops:
                raise KeyboardInterrupt
            fitted.append(name)
            return tiny()

        return load

    monkeypatch.setattr(tables, "CONTENDERS", {"stub": CONTENDERS["linear pipeline"]})
    monkeypatch.setattr(tables, "warm_up", lambda contenders, threads: None)
    monkeypatch.setattr(tables, "describe", lambda device, threads: {**RECORD, "commit": commit})
    monkeypatch.setattr(tables, "picture", lambda record: b"")
    file, commit = tmp_path / "t.json", "a"
    monkeypatch.setattr(tables, "TABLES", {"tiny": loaded("tiny"), "more": loaded("more", stops=["more"])})
    assert tables.main(["--json", str(file)]) == 130
    assert "t.json.part has what was measured; the same command goes on" in capsys.readouterr().err
    assert not file.exists()
    monkeypatch.setattr(tables, "TABLES", {"tiny": loaded("tiny"), "more": loaded("more")})
    commit = "b"
    part = (tmp_path / "t.json.part").read_text("utf-8")
    assert tables.main(["--json", str(file)]) == 0
    assert fitted == ["tiny", "tiny", "more"]
    commit = "a"
    (tmp_path / "t.json.part").write_text(part, "utf-8")
    assert tables.main(["--json", str(file)]) == 0
    assert fitted == ["tiny", "tiny", "more", "more"]
    assert [row["table"] for row in json.loads(file.read_text("utf-8"))["rows"]] == ["tiny", "tiny"]
    assert not (tmp_path / "t.json.part").exists()


def test_readme_says_what_the_record_says():
    root = Path(tables.__file__).parents[1]
    record = json.loads((root / "benchmarks" / "results" / "tables.json").read_text("utf-8"))
    told = (root / "README.md").read_text("utf-8").partition(tables.MARKS[0])[2].partition(tables.MARKS[1])[0]
    command = "python -m benchmarks.tables --json benchmarks/results/tables.json --readme README.md"
    assert told.strip().splitlines() == tables.readme(record), command
