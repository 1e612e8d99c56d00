"""Optimizers, schedules and transfer from the command line: flags, files, and one line for each mistake."""

from __future__ import annotations

import csv
import re
import tomllib

import numpy as np
import pytest

import fcnet
from fcnet.cli import main
from fcnet.optim import RULES

QUICK = ["--data", "spirals", "--epochs", "2", "--hidden", "8,6"]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(*arguments: object, code: int = 0) -> None:
    assert main(["train", "--quiet", *map(str, arguments)]) == code


def rates(run: str) -> list[float]:
    with open(f"{run}/history.csv", newline="") as file:
        return [float(row["learning_rate"]) for row in csv.DictReader(file)]


def config(run: str) -> dict:
    with open(f"{run}/config.toml", "rb") as file:
        return tomllib.load(file)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule(rule):
    train(*QUICK, "--optimizer", rule, "--out", "a")
    assert config("a")["optimizer"] == rule


def test_lbfgs():
    pytest.importorskip("scipy")
    train("--data", "spirals", "--hidden", "30", "--optimizer", "lbfgs", "--epochs", 60, "--out", "a")
    with open("a/history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert max(float(row["val_acc"]) for row in rows) > 0.9
    assert "learning_rate" not in rows[0]


def test_a_schedule_by_flags_is_in_the_table_and_runs_again():
    flags = ["--schedule", "step", "--schedule-every", 2, "--schedule-factor", 0.5, "--warmup", 1, "--lr", 0.8]
    train(*QUICK, "--epochs", 5, *flags, "--out", "a")
    assert rates("a") == [0.4, 0.8, 0.8, 0.4, 0.4]
    train("--config", "a/config.toml", "--out", "b")
    assert rates("b") == rates("a")
    with open("a/model.safetensors", "rb") as one, open("b/model.safetensors", "rb") as two:
        assert one.read() == two.read()


def test_a_schedule_in_a_file(tmp_path):
    (tmp_path / "a.toml").write_text('schedule = "inverse"\nschedule-decay = 1\nlr = 1.0\nwarmup = 1\n')
    train("--config", "a.toml", *QUICK, "--epochs", 4, "--out", "a")
    assert rates("a") == [0.5, 1, 1 / 2, 1 / 3]
    train(*QUICK, "--warmup", 1, "--lr", 1, "--out", "b")
    assert rates("b") == [0.5, 1]


def test_limits_are_kept_with_the_run():
    flags = {"weight-decay": 0.1, "clip-norm": 0.5, "clip-value": 0.25, "max-norm": 0.7, "reg-l1": 0.01}
    train(*QUICK, *(part for name, value in flags.items() for part in (f"--{name}", value)), "--out", "a")
    assert {name: config("a")[name] for name in flags} == flags
    model = fcnet.load("a")
    assert model.reg_l1 == 0.01
    assert max(np.linalg.norm(model.params[f"W{i}"], axis=0).max() for i in (1, 2, 3)) <= 0.7001


def test_transfer():
    train(*QUICK, "--norm", "batchnorm", "--preprocess", "standardize", "--out", "a")
    flags = ["--data", "spirals", "--epochs", 2, "--from", "a", "--freeze", 1, "--lr-mult", "2=0.1,3=0.5"]
    train(*flags, "--out", "b")
    first, second = fcnet.load("a"), fcnet.load("b")
    for name in ("W1", "gamma1"):
        np.testing.assert_array_equal(first.params[name], second.params[name])
    np.testing.assert_array_equal(first.state["running_var1"], second.state["running_var1"])
    np.testing.assert_array_equal(first.preprocessing[0], second.preprocessing[0])
    assert (first.params["W2"] != second.params["W2"]).any()
    saved = config("b")
    assert (saved["hidden"], saved["norm"], saved["freeze"], saved["lr-mult"]) == (
        [8, 6],
        "batchnorm",
        "1",
        "2=0.1,3=0.5",
    )
    train("--config", "b/config.toml", "--out", "c")
    np.testing.assert_array_equal(fcnet.load("c").params.flat, second.params.flat)
    train(*flags[:6], "--hidden", "8,5", "--out", "d")  # the layers that are the same come along
    assert fcnet.load("d").hidden_dims == (8, 5)


def test_more_layers_come_from_the_lower_ones_of_a_run():
    train(*QUICK, "--lr", 0.0, "--out", "a")
    train(*QUICK, "--from", "a", "--hidden", "8,6,5", "--lr", 0.0, "--seed", 1, "--out", "b")
    one, two = fcnet.load("a"), fcnet.load("b")
    np.testing.assert_array_equal(one.params["W2"], two.params["W2"])
    assert two.params["W3"].shape == (6, 5)


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--schedule", "cosin"], "--schedule: expected one of constant, .*did you mean 'cosine'"),
        (["--schedule", "step"], "--schedule-every: expected a number with --schedule step, such as 5, got none"),
        (["--schedule", "cosine", "--schedule-every", 3], "--schedule-every: expected what --schedule cosine takes"),
        (["--schedule-decay", 3], "--schedule-decay: expected it with a schedule, got none; name one as well"),
        (["--warmup", 0], "--warmup: expected 1 or more, got 0"),
        (["--schedule", "cosine", "--lr-decay", 0.5], "--schedule and --lr-decay: expected one of them"),
        (["--clip-norm", -1], "--clip-norm: expected more than 0 in float32, got -1.0; leave it out for no limit"),
        (["--weight-decay", -1], "--weight-decay: expected 0 or more, got -1.0"),
        (["--reg-l1", -1], "--reg-l1: expected 0 or more, got -1.0"),
        (["--optimizer", "lbfgs", "--dropout-keep", 0.5], "--optimizer and --dropout-keep: .*without dropout"),
        (["--optimizer", "lbfgs", "--lr", 0.5], "--optimizer and --lr: 'lbfgs' finds its steps itself, got 0.5; leave"),
        (["--optimizer", "lbfgs", "--batch-size", 5], "--optimizer and --batch-size: 'lbfgs' takes .*, got 5; leave"),
        (["--optimizer", "lbfgs", "--lr-mult", "1=0.1"], "--optimizer and --lr-mult: 'lbfgs' .*; leave the latter out"),
        (["--optimizer", "bfgs", "--hidden", 1000], "--optimizer: 'bfgs' works on .* for each matrix; use 'lbfgs'\n"),
        (["--clip-norm", 1e39], "--clip-norm: expected at most 3.4e.38, as float32 holds no more, got 1e.39; leave"),
        (["--max-norm", 1e300], "--max-norm: expected at most 3.4e[+]38, as float32 holds no more, got 1e[+]300"),
        (["--lr-mult", "1=1e300"], "--lr-mult: expected at most 3.4e[+]38, as float32 .*; factors are of about 1"),
        (["--dropout", 0.5], "--dropout: expected one of .*; the probability to keep is --dropout-keep"),
        (["--hidden", "none", "--dropout-keep", 0.5], "--hidden and --dropout-keep: expected hidden layers for 0.5, "),
        (["--hidden", "none", "--norm", "batchnorm"], "--hidden and --norm: expected hidden layers for 'batchnorm', "),
        (
            ["--hidden", "none", "--activation", "maxout", "--maxout-pieces", 3],
            "--hidden and --activation: expected hidden layers for 'maxout', got none",
        ),
        (
            ["--activation", "maxout", "--maxout-pieces", 10**13],
            "--hidden and --maxout-pieces: .* memory, got 8,6 of 10000000000000 pieces for 2 inputs; .*fewer pieces",
        ),
        (["--freeze", "a"], "--freeze: expected layers such as 1,2, got 'a'"),
        (["--freeze", "2"], "--freeze and --hidden: .*1, 2, ... without a gap, at most the 2 hidden ones .*, got 2"),
        (["--freeze", "1,2,3"], "--freeze and --hidden: .*the output layer is always trained.*, got 1, 2, 3"),
        (["--hidden", "none", "--freeze", "1"], "--freeze and --hidden: .*at most the 0 hidden ones .*, got 1"),
        (["--lr-mult", "2"], "--lr-mult: expected layers, each once, with factors, such as 3=0.1,4=0.5, got '2'"),
        (["--lr-mult", "2=1,2=3"], "--lr-mult: expected layers, each once"),
        (["--lr-mult", "9=1"], "--lr-mult and --hidden: expected layers 1 to 3, .*, got 9"),
        (["--lr-mult", "1=0"], "--lr-mult: expected more than 0, got 0.0; freeze the layer instead"),
        (["--activation", "tanh,relu,elu"], "--activation and --hidden: .*each of the 2, got 3 "),
        (["--activation", "maxout", "--maxout-pieces", 0], "--maxout-pieces and --activation: .* got 0; one piece"),
        (["--maxout-pieces", 3], "--maxout-pieces and --activation: expected activation 'maxout' with .* got 'relu'"),
        (["--freeze", "1", "--lr-mult", "1=0.5"], "--lr-mult and --freeze: layer 1 is frozen"),
        (["--from", "nothing"], "nothing: no such file; expected a model saved by fcnet"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(flags, line, capsys):
    if "lbfgs" in flags:
        pytest.importorskip("scipy")
    train(*QUICK, *flags, code=2)
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert re.match(f"fcnet: error: {line}", err), err


def test_a_run_that_does_not_fit_is_one_line(capsys):
    train(*QUICK, "--preprocess", "standardize", "--out", "a")
    for flags, line in [
        (["--hidden", "9"], "--hidden: expected 8 first, as in the network to start from, got 9"),
        (["--norm", "batchnorm"], "--norm: expected None in layer 1, as in the network to start from, got batchnorm"),
        (["--activation", "tanh"], "--activation: expected relu in layer 1, as in the network to start from, got tanh"),
        (["--hidden", "none"], "--hidden: expected 8 first, as in the network to start from, got none"),
        (["--data", "digits"], "--data and --from: expected 2 inputs, as the run to start from has, got 64 of digits"),
        (
            ["--hidden", "8,5", "--freeze", "1,2"],
            "--freeze and --from: expected layers taken over from the run to start from, 1 to 1, got",
        ),
        (["--preprocess", "scale"], "--preprocess and --from: expected one of them, for the run to start from brings"),
    ]:
        train("--data", "spirals", "--from", "a", *flags, code=2)
        assert capsys.readouterr().err.startswith(f"fcnet: error: {line}")
