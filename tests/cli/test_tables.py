"""Tables as people have them, on the command line: from file to predictions, and one line for what does not fit."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path

import numpy as np
import pytest

import fcnet
from fcnet.cli import main
from fcnet.data.table import read_table

pytestmark = pytest.mark.filterwarnings("always::fcnet.errors.DataNotice")
QUICK = ["--epochs", "2", "--hidden", "8", "--device", "cpu", "--quiet"]
KINDS = ("small", "mid", "large")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(*arguments, capsys):
    code = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def fails(*arguments, capsys):
    code, _, err = run(*arguments, capsys=capsys)
    assert (code, err.count("\n")) == (2, 1), err
    return err


def rows():
    rng = np.random.default_rng(0)
    for i in range(90):
        size = "" if i % 10 == 0 else f"{rng.normal():.3f}"
        yield [size, KINDS[i % 3], f"2024-{1 + i % 12:02}-03", "yes" if i % 4 else "no", str(i), "ab"[i % 2]]


NAMES = ["size", "kind", "day", "asked", "id", "label"]


def write(name, table, sep=","):
    with open(name, "w", newline="") as file:
        csv.writer(file, delimiter=sep).writerows(table)


@pytest.fixture
def trained(capsys):
    """Train a run on t.csv; return what was said."""
    write("t.csv", [NAMES, *rows()])
    code, out, err = run("train", "--data", "t.csv", "--target", "label", "--out", "run", *QUICK, capsys=capsys)
    assert code == 0, err
    assert err == f"fcnet: {Path('t.csv').resolve()}: left out: id (it counts the rows)\n"
    assert out.startswith("test accuracy ")
    return out


def test_from_file_to_predictions(trained, capsys):
    assert run("evaluate", "run", capsys=capsys)[1].splitlines()[-1] == trained.strip()
    write("new.csv", [row[:5] for row in [NAMES, *rows()]])
    code, whole, _ = run("predict", "run", "t.csv", capsys=capsys)
    assert code == 0
    assert len(whole.splitlines()) == 91
    assert run("predict", "run", "new.csv", capsys=capsys)[1] == whole
    write("other.csv", [[row[at] for at in (3, 2, 1, 0)] for row in [NAMES, *rows()]], sep=";")
    assert run("predict", "run", "other.csv", capsys=capsys)[1] == whole
    assert run("evaluate", "run", "--data", "t.csv", capsys=capsys)[0] == 0  # the target is that of the training
    shown = fcnet.load("run", device="cpu").describe()
    assert re.search("^kind +category", shown, re.M)
    assert "left out: it counts the rows" in shown


def test_a_run_to_start_from_says_what_becomes_of_the_columns(trained, capsys):
    table = [NAMES, *rows()]
    few = [table[0], *(row for row in table[1:] if row[1] != "large")]  # another plan, were one learned
    write("few.csv", few, sep=";")
    command = ["train", "--data", "few.csv", "--target", "label", "--from", "run", "--out", "more", *QUICK]
    code, _, err = run(*command, "--sep", ";", capsys=capsys)
    assert code == 0, err
    assert fcnet.load("more").plan == fcnet.load("run").plan
    assert "--only and --from: expected one of them" in fails(*command, "--force", "--only", "size", capsys=capsys)
    said = fails(*command[:4], "kind", *command[5:], "--force", capsys=capsys)
    assert "--target and --from: expected a column that is no input" in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row[1:], "column 'size': expected it, as in training; got kind, day, asked, id, label; add it"),
        (lambda row: ["red" if row[0] == "" else row[0], *row[1:]], "line 2, column 'size': expected a number, as in"),
        (lambda row: [row[0], "5" if row[1] in KINDS else row[1], *row[2:]], "expected text such as large, mid, small"),
        (lambda row: [*row[:2], row[2].replace("2024", "in "), *row[3:]], "line 2, column 'day': expected a date"),
        (lambda row: [*row[:3], row[3].replace("no", "maybe"), *row[4:]], "line 2, column 'asked': expected yes or no"),
        (lambda row: row if row != NAMES else ["0", "mid", "2024-01-03", "no", "1", "a"], "the first row hold the"),
    ],
)  # fmt: skip
def test_what_is_unlike_the_training_is_refused(trained, change, message, capsys):
    write("new.csv", [change(row) for row in [NAMES, *rows()]])
    err = fails("predict", "run", "new.csv", "--out", "p.csv", capsys=capsys)
    assert err.startswith("fcnet: error: new.csv: ")
    assert message in err
    assert not Path("p.csv").exists()


def test_a_target_that_was_a_number_is_found_by_its_name(capsys):
    write("t.csv", [NAMES, *rows()])
    run("train", "--data", "t.csv", "--target", "-1", "--out", "run", *QUICK, capsys=capsys)
    said = run("evaluate", "run", "--data", "t.csv", capsys=capsys)[1]
    write("t.csv", [row[::-1] for row in [NAMES, *rows()]])
    assert run("evaluate", "run", "--data", "t.csv", capsys=capsys)[1] == said


def test_a_file_without_header_keeps_its_places(capsys):
    write("t.csv", list(rows()))
    assert run("train", "--data", "t.csv", "--target", "-1", "--out", "run", *QUICK, capsys=capsys)[0] == 0
    write("new.csv", [row[:5] for row in rows()])
    whole, new = (run("predict", "run", name, capsys=capsys)[1] for name in ("t.csv", "new.csv"))
    assert len(whole.splitlines()) == 91
    assert new == whole
    write("one.csv", [["1", "mid", "2024-05-03", "no", "7"]])
    assert len(run("predict", "run", "one.csv", capsys=capsys)[1].splitlines()) == 2
    write("named.csv", [NAMES, *rows()])
    assert "expected a file without header, as in training; got names in its first row (size, kind, day" in fails(
        "predict", "run", "named.csv", capsys=capsys
    )
    for count in (4, 7):
        write("odd.csv", [[*row, "more"][:count] for row in rows()])
        assert f"expected 6 columns, as in training, or 5 without the target; got {count}" in fails(
            "predict", "run", "odd.csv", capsys=capsys
        )


def test_the_decimal_sign_is_that_of_the_training(capsys):
    def comma(row):
        return [row[0].replace(".", ","), *row[1:]]

    write("t.csv", [NAMES, *map(comma, rows())], sep=";")
    assert run("train", "--data", "t.csv", "--target", "label", "--out", "run", *QUICK, capsys=capsys)[0] == 0
    write("one.csv", [NAMES[:4], ["1,5", "mid", "2024-05-03", "no"]], sep=";")
    assert run("predict", "run", "one.csv", capsys=capsys)[0] == 0
    write("point.csv", [NAMES[:4], ["1.5", "mid", "2024-05-03", "no"]], sep=";")
    assert "line 2, column 'size': expected a number, as in training; got '1.5'; the decimal sign is ',', as" in fails(
        "predict", "run", "point.csv", capsys=capsys
    )


def test_options_of_the_reading(capsys):
    write("t.csv", [NAMES, *([*row[:4], "9" if row[0] else "-", row[5]] for row in rows())], sep="|")
    how = ["--target", "label", "--sep", "|", "--header", "yes", "--missing=-", "--ordinal", "kind=small,mid,large"]
    assert run("train", "--data", "t.csv", *how, "--drop", "day", "--out", "run", *QUICK, capsys=capsys)[0] == 0
    model = fcnet.load("run", device="cpu")
    assert model.features == ("size", "size missing", "kind", "asked", "id missing")
    run("train", "--config", "run/config.toml", "--out", "again", *QUICK[-1:], capsys=capsys)
    assert fcnet.load("again", device="cpu").plan == model.plan
    code, out, _ = run("info", "--data", "t.csv", *how, capsys=capsys)
    assert code == 0
    assert "90 rows, 6 columns; separated by vertical bars" in out
    assert re.search("^kind +ordinal +the place in small, mid, large$", out, re.M)
    assert "label: a (45), b (45)" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--drop", "0.8"], "day, asked, id; got '0.8'; did you mean --dropout-keep 0.8?"),
        (["--drop", "kinds"], "got 'kinds'; did you mean 'kind'?"),
        (["--drop", "label"], "drop: expected other columns than the target; got 'label'"),
        (["--only", "nothing"], ": --only: expected one of size, kind"),
        (["--header", "maybe"], "--header: expected yes or no; got 'maybe'"),
        (["--sep", "ab"], "--sep: expected one character, or tab or blank; got 'ab'"),
        (["--decimal", ";"], "--decimal: expected '.' or ','; got ';'"),
        (["--ordinal", "kind"], "--ordinal: expected a column and its levels, such as size=small,large; got 'kind'"),
        (["--ordinal", "kind=small,large"], "'kind': expected one of the ordinal levels small, large; got 'mid'"),
    ],
)  # fmt: skip
def test_one_line_for_a_mistake(arguments, message, capsys):
    write("t.csv", [NAMES, *rows()])
    assert message in fails(
        "train", "--data", "t.csv", "--target", "label", *arguments, "--out", "run", *QUICK, capsys=capsys
    )
    assert not Path("run").exists()


def test_whole_numbers_of_many_values_are_hardly_classes(capsys):
    write("t.csv", [["a", "price"], *([i * 7 % 90, 1000 + i] for i in range(90))])
    train = ["train", "--data", "t.csv", "--target", "price", "--out", "run", *QUICK]
    err = fails(*train, capsys=capsys)
    assert "expected at most 50 classes, unless more are asked for; got 90 different whole numbers" in err
    assert "--loss mse" in err
    assert "--loss softmax" in err
    assert run(*train, "--loss", "mse", capsys=capsys)[0] == 0
    assert "at least 112 samples" in fails(*train, "--loss", "softmax", "--force", capsys=capsys)


TABLES = Path(os.environ.get("FCNET_DATA", "none")) / "tables"
REAL = [
    ("titanic.csv", "survived", 14, ["--drop", "alive"]),
    ("penguins.csv", "species", 6, []),
    ("diamonds.csv", "price", 9, ["--loss", "mse"]),
    ("adult-test.csv", "-1", 14, []),
    ("abalone.csv", "-1", 8, ["--loss", "mse"]),
    ("ecoli.csv", "-1", 7, []),
    ("iris.csv", "4", 4, []),
    ("breast-cancer-wisconsin.data", "Class", 10, []),
    ("winequality_uci.csv", "quality", 11, []),
    ("winequality_semicolon.csv", "quality", 12, ["--loss", "mse"]),
]


@pytest.mark.data
@pytest.mark.skipif(not TABLES.is_dir(), reason="no tables under $FCNET_DATA")
@pytest.mark.parametrize(("name", "target", "columns", "flags"), REAL, ids=lambda value: str(value)[:12])
def test_real_tables(name, target, columns, flags, capsys):
    path = TABLES / name
    how = ["--data", path, "--target", target, *flags, "--out", "run", "--batch-size", "1000"]
    code, out, err = run("train", *how, "--epochs", "1", "--hidden", "4", "--quiet", capsys=capsys)
    assert code == 0, err
    assert out.startswith("test ")
    read = read_table(path)
    at = read.place(read.find("target", target))
    with open(path, newline="") as file:
        table = [row for row in csv.reader(file, delimiter=read.sep, skipinitialspace=True) if row][:50]
    assert len(table[0]) == columns + 1
    write("new.csv", [row[:at] + row[at + 1 :] for row in table], sep=read.sep)
    assert len(run("predict", "run", "new.csv", capsys=capsys)[1].splitlines()) == 51 - read.header
    assert run("evaluate", "run", "--data", path, capsys=capsys)[0] == 0
