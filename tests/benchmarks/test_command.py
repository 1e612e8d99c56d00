"""What the commands share: how they end, and which files they write."""

from __future__ import annotations

import json

import pytest

from benchmarks import command
from fcnet.errors import MissingExtra

RECORD = {"date": "2026-01-01", "rows": [{"contender": "a"}]}


def run(arguments, measure=lambda: RECORD, **more):
    return command.run("name", "about", arguments, lambda options: measure, lambda record: "| table |\n", **more)


def test_without_json_nothing_is_written(capsys):
    assert run([]) == 0
    assert capsys.readouterr().out == "| table |\n\n"


def test_record_table_and_picture_lie_beside_each_other(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep").mkdir()
    assert run(["--json", "deep/x.json"], picture=lambda record: b"picture") == 0
    assert sorted(file.name for file in (tmp_path / "deep").iterdir()) == ["x.json", "x.md", "x.png"]
    assert json.loads((tmp_path / "deep" / "x.json").read_text("utf-8")) == RECORD
    assert (tmp_path / "deep" / "x.md").read_text("utf-8") == "| table |\n"
    assert capsys.readouterr().out.splitlines()[-1] == "wrote deep/x.json, deep/x.md, deep/x.png"


def test_without_matplotlib_there_is_no_picture(tmp_path, capsys):
    def picture(record):
        raise MissingExtra("the picture", "matplotlib", "plot")

    assert run(["--json", str(tmp_path / "x.json")], picture=picture) == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.json", "x.md"]
    printed = capsys.readouterr()
    assert printed.err.startswith("no picture: the picture needs matplotlib")
    assert "x.png" not in printed.out


@pytest.mark.parametrize(
    ("row", "code"),
    [({"kind": kind, "refused": ""}, 1) for kind in ("failed", "crashed", "wrong")]
    + [({"kind": kind, "refused": ""}, 0) for kind in ("unavailable", "unsupported")]
    + [({"refused": "not installed"}, 0)],
)
def test_rows_decide_the_exit_code(row, code):
    assert run([], lambda: {"rows": [{"median_us": 1.0}, row]}) == code
    assert run([], lambda: {"rows": [row]}, failed=lambda row: "refused" in row) == 1


def test_an_interrupted_command_writes_nothing(tmp_path, capsys):
    def measure():
        raise KeyboardInterrupt

    assert run(["--json", str(tmp_path / "x.json")], measure) == 130
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "benchmarks.name: interrupted; nothing written\n")
    assert list(tmp_path.iterdir()) == []


def test_what_a_plan_refuses_is_one_line(capsys):
    def plan(options):
        raise ValueError("--size: expected 1 or more, got 0")

    assert command.run("name", "about", [], plan, lambda record: pytest.fail("measured in spite of it")) == 2
    assert capsys.readouterr().err == "benchmarks.name: --size: expected 1 or more, got 0\n"
