"""`fcnet check` and `fcnet lr-range`: what they print and write, with the flags of `train`, and how they fail."""

from __future__ import annotations

import csv
import dataclasses
import errno
import struct
import sys

import pytest

from fcnet.cli import main
from fcnet.cli.commands import parser_of
from fcnet.errors import no_picture
from fcnet.files import write_atomically
from fcnet.runs.options import TRAIN_ALONE, TrainOptions, flag

SPIRALS = ["--data", "spirals", "--hidden", "50", "--lr", "0.01", "--device", "cpu"]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: object, capsys) -> tuple[int, str, str]:
    code = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def is_picture(path) -> bool:
    """Check that this is a PNG of a sensible size."""
    data = path.read_bytes()
    width, height = struct.unpack(">II", data[16:24])
    return data.startswith(b"\x89PNG") and 300 < width < 3000 and 200 < height < 3000


def test_check_prints_a_table_and_ends_with_0(tmp_path, capsys):
    code, out, err = run("check", *SPIRALS, capsys=capsys)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert sum(line.endswith("  ok") for line in lines) == 3 + 1 + 4  # losses, samples by heart, W1 b1 W2 b2
    assert lines[-1] == "all checks passed"
    assert "Activations before training" in lines
    assert list(tmp_path.iterdir()) == []  # nothing is written unasked


def test_check_ends_with_1_and_says_why(capsys):
    code, out, _ = run("check", *SPIRALS, "--init", "zeros", "--overfit-steps", 20, capsys=capsys)
    assert code == 1
    assert "overfits 50 samples: usually a learning rate" in out
    assert out.splitlines()[-1] == "1 of 8 checks failed"


def test_check_writes_statistics_and_histograms(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "notes").touch()  # others' files are not in the way
    code, out, _ = run("check", *SPIRALS, "--hidden", "8,9,10,11,12,13", "--activation", "tanh", "--out", "a/b",
                       capsys=capsys)  # fmt: skip
    assert code == 0
    folder = tmp_path / "a" / "b"
    assert {path.name for path in folder.iterdir()} == {
        "activations.csv", "histograms.csv", "activations.png", "notes"
    }  # fmt: skip
    assert f"wrote {folder.relative_to(tmp_path)}: activations.csv, histograms.csv, activations.png" in out
    with (folder / "activations.csv").open() as file:
        assert [row["units"] for row in csv.DictReader(file)] == ["8", "9", "10", "11", "12", "13"]
    assert is_picture(folder / "activations.png")


def test_a_linear_net_has_no_activations(tmp_path, capsys):
    code, out, _ = run("check", *SPIRALS, "--hidden", "none", "--out", "a", "--overfit-steps", 5, capsys=capsys)
    assert code == 1  # spirals are not for lines
    assert "Activations" not in out
    assert "nothing written to a: without hidden layers there are no activations" in out
    assert list(tmp_path.iterdir()) == []
    assert "nothing" not in run("check", *SPIRALS, "--hidden", "none", "--overfit-steps", 5, capsys=capsys)[1]


def test_lr_range_writes_a_fresh_folder_each_time(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    for number in (1, 2):
        code, out, err = run("lr-range", *SPIRALS, capsys=capsys)
        folder = tmp_path / "runs" / f"lr-range-000{number}"
        assert (code, err) == (0, "")
        assert {path.name for path in folder.iterdir()} == {"lr-range.csv", "lr-range.png"}
        assert out.splitlines()[-1].startswith("suggested learning rate 0.0")
        assert "a tenth of" in out
    assert len(list((tmp_path / "runs").iterdir())) == 2
    with (folder / "lr-range.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["learning_rate", "loss", "smoothed"]
    assert float(rows[0]["learning_rate"]) == pytest.approx(1e-6)
    assert is_picture(folder / "lr-range.png")


def test_on_a_full_disk_the_suggestion_is_said_and_nothing_left(tmp_path, capsys, monkeypatch):
    def full(path, content):
        if path.suffix == ".png":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write_atomically(path, content)

    monkeypatch.setattr("fcnet.cli.reports.write_atomically", full)
    code, out, err = run("lr-range", *SPIRALS, capsys=capsys)
    assert (code, out.splitlines()[-1].split(":")[0][:23]) == (2, "suggested learning rate")
    assert "No space left on device; free some space" in err
    assert list(tmp_path.iterdir()) == []


def test_lr_range_has_bounds(tmp_path, capsys):
    _, out, _ = run("lr-range", *SPIRALS, "--lowest", 1e-9, "--highest", 1e-8, "--sweep-steps", 12, "--out", "here",
                    capsys=capsys)  # fmt: skip
    assert "12 steps, 1e-09 to 1e-08; the loss did not diverge" in out
    assert out.splitlines()[-1].startswith("no suggestion: the loss did not fall")
    assert len((tmp_path / "here" / "lr-range.csv").read_text().splitlines()) == 13


@pytest.mark.parametrize(("command", "stem"), [("check", "activations"), ("lr-range", "lr-range")])
def test_without_matplotlib_there_are_tables_and_a_hint(tmp_path, capsys, monkeypatch, command, stem):
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / f"{stem}.png").write_bytes(b"of an earlier time")
    code, out, _ = run(command, *SPIRALS, "--out", "here", "--force", capsys=capsys)
    assert code == 0
    assert f"no {stem}.png: {no_picture()}" in out
    assert (tmp_path / "here" / f"{stem}.csv").exists()
    assert not (tmp_path / "here" / f"{stem}.png").exists()


@pytest.mark.parametrize(("command", "stem"), [("check", "activations"), ("lr-range", "lr-range")])
def test_what_is_there_is_replaced_only_by_force(tmp_path, capsys, command, stem):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / f"{stem}.csv").write_text("mine")
    code, out, err = run(command, *SPIRALS, "--out", "here", capsys=capsys)
    assert (code, out) == (2, "")  # before any work
    assert f"--out: here/{stem}.csv is there" in err
    assert err.count("\n") == 1
    assert (tmp_path / "here" / f"{stem}.csv").read_text() == "mine"
    assert run(command, *SPIRALS, "--out", "here", "--force", capsys=capsys)[0] == 0
    assert (tmp_path / "here" / f"{stem}.csv").read_text() != "mine"


@pytest.mark.parametrize("command", ["check", "lr-range"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--activation", "relo"], "--activation: expected one of"),
        (["--hiden", "3"], "did you mean --hidden?"),
        (["--lr", "fast"], "expected a number, got 'fast'"),
        (["--out", ""], "--out: expected the name of a folder"),
        (["--out", "file"], "--out: expected a folder, got the file file"),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, command, arguments, message):
    (tmp_path / "file").touch()
    code, _, err = run(command, *SPIRALS, *arguments, capsys=capsys)
    assert code == 2
    assert message in err
    assert err.startswith("fcnet: error: ")
    assert err.count("\n") == 1


def test_numbers_out_of_range_are_one_line(capsys):
    for command, arguments, message in (
        ("lr-range", ["--lowest", "2", "--highest", "1"], "--lowest and --highest: expected 0 < lowest < highest"),
        ("lr-range", ["--sweep-steps", "3"], "error: --sweep-steps: expected 10 or more"),
        ("check", ["--overfit-steps", "0"], "error: --overfit-steps: expected 1 or more"),
    ):
        code, _, err = run(command, *SPIRALS, *arguments, capsys=capsys)
        assert code == 2
        assert message in err


@pytest.mark.parametrize("command", ["check", "lr-range"])
def test_every_option_of_train_is_a_flag(command):
    flags = parser_of(command).flags()
    options = {field.name for field in dataclasses.fields(TrainOptions)} - {*TRAIN_ALONE}
    assert {f"--{flag(name)}" for name in options} <= set(flags)


def test_options_come_from_a_file_too(tmp_path, capsys):
    (tmp_path / "a.toml").write_text('data = "spirals"\nhidden = [5, 4]\nout = "elsewhere"\nforce = true\n')
    code, out, _ = run("check", "--config", "a.toml", "--hidden", "6", "--overfit-steps", "1", capsys=capsys)
    assert "2-6-3" in out
    assert code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.toml"]


@pytest.mark.parametrize("command", ["check", "lr-range"])
def test_where_nothing_can_be_written_is_found_before_the_work(command, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    code, out, err = run(command, "--quiet", "--out", tmp_path / "file" / "x", capsys=capsys)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert str(tmp_path / "file" / "x") in err
    run(command, "--quiet", "--out", tmp_path / "new" / "x", "--data", "nosuch.csv", capsys=capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["file"], "a folder to try is taken away again"
