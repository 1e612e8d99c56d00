"""`fcnet search`: what it tries, keeps, goes on with and refuses."""

from __future__ import annotations

import csv
import dataclasses
import os
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import fcnet
from fcnet import errors
from fcnet.cli import main
from tests.small import blobs
from tests.tools.search.searches import CLI, LR, QUICK, command

optuna = pytest.importorskip("optuna")


def summary(result):
    """Return what came of the trials but for times and places."""
    return [(r.stage, r.state, r.value, r.best_epoch, r.epochs, r.values) for r in result.trials]


def fails(*arguments, capsys):
    """Return the one line of a command that ends with exit code 2."""
    code, out, err = command(*arguments, capsys=capsys)
    assert code == 2, out + err
    assert err.startswith("fcnet: error: ")
    assert err.count("\n") == 1, err
    return err


def test_the_best_run_is_kept_and_the_tables_tell_the_rest(tmp_path, capsys):
    code, out, err = command(*CLI, "--vary", "norm=none|batchnorm", "--trials", 6, "--out", "here", capsys=capsys)
    assert (code, err) == (0, ""), "no word of Optuna's, and no bar: not a terminal"
    with open("here/trials.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["trial"] for row in rows] == [str(i) for i in range(6)]
    assert list(rows[0]) == [
        *("trial", "stage", "state", "value", "best-epoch", "epochs", "seconds"), "lr", "norm", "why", "run"
    ]  # fmt: skip
    finished = [row for row in rows if row["state"] == "finished"]
    best = max(finished, key=lambda row: float(row["value"]))
    assert out.splitlines()[-1] == f"best validation accuracy {float(best['value']):.4f}: fcnet evaluate here/best"
    assert sum(line.startswith("trial ") for line in out.splitlines()) == 7, "one each, and the head of the table"
    config = tomllib.loads(Path("here/best/config.toml").read_text())
    assert (str(config["lr"]), config["norm"]) == (best["lr"], best["norm"])
    data = fcnet.data.load("spirals")
    model = fcnet.load("here/best", device="cpu")
    assert np.mean(model.predict(data.X_val) == data.y_val) == pytest.approx(float(best["value"]), abs=1e-9)
    assert command("evaluate", "here/best", capsys=capsys)[0] == 0
    for row in rows:
        assert (Path(row["run"]) / "model.safetensors").is_file() if row["run"] else row["state"] != "finished"


def test_the_picture(tmp_path, drawn):
    pytest.importorskip("matplotlib")
    result = fcnet.search(LR | {"hidden": [[6], []]}, blobs(), trials=3, epochs=2, out="o", verbose=False)
    assert (tmp_path / "o/parameters.png").read_bytes().startswith(b"\x89PNG")
    assert result.no_picture is None


def test_without_matplotlib_it_says_so(drawn, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    code, out, _ = command(*CLI, "--trials", 1, "--quiet", capsys=capsys)
    assert code == 0
    assert f"no parameters.png: {errors.no_picture()}" in out


def test_without_optuna_it_says_which_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert f"needs Optuna, which is not installed: {errors.install('search')}" in fails(*CLI, capsys=capsys)


def test_the_same_study_gives_the_same_trials(tmp_path, capsys):
    one, two = (fcnet.search(LR, blobs(), trials=3, out=name, **QUICK) for name in ("a", "b"))
    assert summary(one) == summary(two)
    assert one.best.values == two.best.values
    assert len({r.values["lr"] for r in one.trials}) == 3
    capsys.readouterr()
    other = fcnet.search(LR, blobs(), trials=3, out="c", seed=1, **QUICK | {"verbose": True})
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == ["trial 0", "trial 1", "trial 2"]
    assert {r.values["lr"] for r in other.trials}.isdisjoint(r.values["lr"] for r in one.trials)


def test_the_test_part_decides_nothing():
    data = blobs()
    without = dataclasses.replace(data, X_test=None, y_test=None)
    upside_down = dataclasses.replace(data, y_test=(data.y_test + 1) % 3)
    results = [fcnet.search(LR, d, trials=2, out=f"o{i}", **QUICK) for i, d in enumerate((data, without, upside_down))]
    assert summary(results[0]) == summary(results[1]) == summary(results[2])


@pytest.mark.parametrize("storage", ["s.journal", "sqlite:///s.sqlite"])
def test_a_study_goes_on_and_trials_are_the_total(storage):
    whole = fcnet.search(LR, blobs(), trials=3, out="whole", **QUICK)
    first = fcnet.search(LR, blobs(), trials=2, out="a", storage=storage, **QUICK)
    assert len(first.trials) == 2
    stamp = Path("a/trials/0000/model.safetensors").stat().st_mtime_ns
    more = fcnet.search(LR, blobs(), trials=3, out="a", storage=storage, **QUICK)
    assert summary(more) == summary(whole)
    assert Path("a/trials/0000/model.safetensors").stat().st_mtime_ns == stamp, "what is finished is kept"
    fewer = fcnet.search(LR, blobs(), trials=1, out="a", storage=storage, **QUICK)
    assert len(fewer.trials) == 1


def test_its_own_configuration_goes_on_from_anywhere(tmp_path, monkeypatch, capsys):
    command(*CLI, "--trials", 2, "--study", "mine", "--out", "here", "--prune", capsys=capsys)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    code, out, _ = command("search", "--config", tmp_path / "here/search.toml", "--trials", 3, capsys=capsys)
    assert code == 0
    assert [line.split(":")[0] for line in out.splitlines()[:1]] == ["trial 2"]


def test_options_in_a_file(tmp_path, capsys):
    (tmp_path / "s.toml").write_text(
        'data = "spirals"\nhidden = [5]\nepochs = 2\nvary = ["lr=1e-3:1:log:2", "norm=none|batchnorm"]\n'
        'sampler = "grid"\nprune = false\nstudy = "of a file"\n'
    )
    code, _, _ = command("search", "--config", "s.toml", "--quiet", capsys=capsys)
    assert code == 0
    with open("runs/of a file/trials.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted((float(row["lr"]), row["norm"]) for row in rows) == [
        (0.001, "batchnorm"), (0.001, "none"), (1.0, "batchnorm"), (1.0, "none")
    ]  # fmt: skip
    assert {row["state"] for row in rows} == {"finished"}


def test_each_stage_searches_half_of_the_one_before(monkeypatch):
    vary = {"lr": "1e-4:1:log", "dropout_keep": "0.5:1", "norm": "none|batchnorm"}
    result = fcnet.search(vary, blobs(), trials=12, refine=2, prune=False, out="o", **QUICK)
    lows, highs = np.log10(1e-4), 0.0
    for stage in (1, 2):
        before = sorted((r for r in result.trials if r.stage < stage), key=lambda r: (-r.value, r.number))
        best = [r.values["lr"] for r in before[: max(3, -(-len(before) // 4))]]
        width = (highs - lows) / 2
        middle = np.clip(np.median(np.log10(best)), lows + width / 2, highs - width / 2)
        lows, highs = middle - width / 2, middle + width / 2
        inside = [np.log10(r.values["lr"]) for r in result.trials if r.stage == stage]
        assert len(inside) == 4
        assert all(lows - 1e-9 <= value <= highs + 1e-9 for value in inside)
    assert {r.values["norm"] for r in result.trials if r.stage} == {"none", "batchnorm"}


def test_hopeless_trials_are_stopped_unless_told_otherwise():
    vary = {"lr": [0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 1e-9, 2e-9]}
    how = {"sampler": "grid", "hidden": [8], "epochs": 5, "verbose": False, "seed": 3}
    result = fcnet.search(vary, blobs(), out="o", **how)
    pruned = [r for r in result.trials if r.state == "pruned"]
    assert pruned
    assert {r.values["lr"] for r in pruned} >= {r.values["lr"] for r in result.trials[5:] if r.values["lr"] < 1e-8}
    assert all(2 <= r.epochs < 5 and r.run is None for r in pruned)
    assert not any(Path("o/trials", f"{r.number:04d}").exists() for r in pruned)
    whole = fcnet.search(vary, blobs(), out="p", prune=False, **how)
    assert {(r.state, r.epochs) for r in whole.trials} == {("finished", 5)}


def test_what_diverges_or_is_refused_is_no_end():
    result = fcnet.search({"lr": [0.1, 1e30]}, blobs(), sampler="grid", optimizer="sgd", out="o", **QUICK)
    assert {r.values["lr"]: r.state for r in result.trials} == {0.1: "finished", 1e30: "diverged"}
    assert result.best.values["lr"] == 0.1
    assert "diverged" in next(r.why for r in result.trials if r.state == "diverged")
    mixed = fcnet.search(
        {"activation": ["relu", "maxout"], "maxout_pieces": [2, 3]}, blobs(), sampler="grid", out="p", **QUICK
    )
    for r in mixed.trials:
        assert r.state == ("finished" if r.values["activation"] == "maxout" else "refused")
        assert bool(r.why) == (r.state == "refused")


def test_smaller_is_better_where_the_metric_says_so():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((140, 3))
    y = X @ np.array([1.0, -2.0, 0.5])
    data = fcnet.data.Dataset(X[:100], y[:100], X[100:], y[100:], targets="numbers")
    result = fcnet.search({"lr": [1e-6, 0.05]}, data, loss="mse", sampler="grid", hidden=[], epochs=20, verbose=False)
    assert (result.metric, result.maximize) == ("rmse", False)
    assert result.best.values == {"lr": 0.05}
    assert result.best.value == min(r.value for r in result.trials)
    assert "val rmse" in repr(result)


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_an_interrupted_study_goes_on_as_if_it_had_not_been(sampler, monkeypatch):
    how = {"sampler": sampler, "trials": 4, "prune": False, **QUICK}
    whole = fcnet.search(LR, blobs(), out="whole", **how)
    make, calls = fcnet.Solver._make_steps, []

    def interrupt(self, most):
        calls.append(None)
        if len(calls) == 6:  # a step an epoch, 2 epochs a trial
            raise KeyboardInterrupt
        return make(self, most)

    with monkeypatch.context() as patched:
        patched.setattr(fcnet.Solver, "_make_steps", interrupt)
        with pytest.raises(KeyboardInterrupt, match="after 2 of 4 trials; the same command goes on from there"):
            fcnet.search(LR, blobs(), out="o", **how)
    assert {path.name for path in Path("o/trials").iterdir()} == {"0000", "0001"}, "nothing half-done is left"
    assert Path("o/best/model.safetensors").is_file()
    again = fcnet.search(LR, blobs(), out="o", **how)
    assert {r.number for r in again.trials} == {0, 1, 3, 4}, "a number is used once"
    assert sorted(summary(again), key=str) == sorted(summary(whole), key=str)


def test_a_best_run_that_is_elsewhere_is_made_again():
    first = fcnet.search(LR, blobs(), trials=2, out="o", storage="s.db", **QUICK)
    os.rename("o", "away")
    again = fcnet.search(LR, blobs(), trials=2, out="o", storage="s.db", **QUICK)
    assert summary(again) == summary(first)
    for name in ("model.safetensors", "config.toml"):
        assert Path("o/best", name).read_bytes() == Path("away/best", name).read_bytes()


def test_what_is_refused_before_anything_is_written(tmp_path, capsys):
    assert "--vary lr-decay: " in fails(*CLI, "--vary", "lr-decay=0.5:2", capsys=capsys)
    assert "--vary norm: expected one of none" in fails(*CLI, "--vary", "norm=none|bathnorm", capsys=capsys)
    assert "--vary loss: " in fails(*CLI, "--vary", "loss=softmax|bce", capsys=capsys)
    assert "--batch-size: expected" in fails(*CLI, "--batch-size", 0, capsys=capsys)
    assert "--lr: expected a value or a range" in fails(*CLI, "--lr", 1, capsys=capsys)
    assert "unknown argument --force" in fails(*CLI, "--force", capsys=capsys)
    assert "--vary: expected at least one range" in fails("search", "--data", "spirals", capsys=capsys)
    assert "did you mean --vary?" in fails("search", "--vray", "lr=0:1", capsys=capsys)
    assert "--storage: " in fails(*CLI, "--storage", "nosuch://x", capsys=capsys)
    for storage in ("new/s.db", "new/s.journal", "sqlite:///new/s.db"):
        assert "make it first (mkdir -p " in fails(*CLI, "--storage", storage, capsys=capsys)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "text.db").write_text("no database at all, " * 99)
    assert "text.db: file is not a database" in fails(*CLI, "--storage", "text.db", capsys=capsys)
    assert not (tmp_path / "runs/search/search.toml").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    assert "out: mine is not empty" in fails(*CLI, "--out", "mine", capsys=capsys)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]


def test_another_search_is_not_gone_on_with(capsys):
    assert command(*CLI, "--trials", 1, "--out", "o", capsys=capsys)[0] == 0
    err = fails(*CLI, "--trials", 1, "--out", "o", "--batch-size", 9, capsys=capsys)
    assert "--study: 'search' was begun with batch-size (not given); got 9" in err
    assert "o holds another study" in fails(*CLI, "--study", "other", "--out", "o", capsys=capsys)


def test_every_flag_of_train_is_one_of_search(capsys):
    flags = []
    for name in ("train", "search"):
        with pytest.raises(SystemExit):
            main([name, "--help"])
        flags.append({part.strip("[],") for part in capsys.readouterr().out.split() if part.startswith(("--", "[--"))})
    assert flags[0] - flags[1] <= {"--force", "--cv", "--report"}


def test_optuna_is_quiet_and_left_as_it_was(capfd):
    optuna.logging.set_verbosity(optuna.logging.INFO)
    fcnet.search(LR, blobs(), trials=2, sampler="tpe", **QUICK)
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == optuna.logging.INFO


@pytest.mark.parametrize(
    ("module", "package"), [("psycopg", "'psycopg[binary]'"), ("MySQLdb", "mysqlclient"), ("oracledb", "oracledb")]
)
def test_a_database_without_its_driver_names_the_package(module, package, monkeypatch, capsys):
    def fail(*_, **__):
        try:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)
        except ImportError as error:
            raise ImportError("Failed to import DB access module") from error

    monkeypatch.setattr(optuna.storages, "RDBStorage", fail)
    err = fails(*CLI, "--storage", "postgresql://user:secret@host/x", "--out", "new", capsys=capsys)
    assert err == (
        "fcnet: error: --storage: expected a database whose driver is installed, got postgresql://..., "
        f"which needs {module}: pip install {package}, or name a file\n"
    )
    assert not Path("new").exists()


def test_a_search_may_have_nets_without_hidden_layers(capsys):
    """With the defaults for hidden layers, beside nets that have some."""
    vary = ["--vary", "hidden=none|6", "--trials", 2, "--sampler", "grid"]
    code, out, _ = command("search", "--data", "spirals", "--epochs", 1, *vary, capsys=capsys)
    assert (code, "2 trials: 2 finished" in out) == (0, True)
    code, out, _ = command(
        "search", "--data", "spirals", "--epochs", 1, *vary, "--norm", "batchnorm", "--study", "b", capsys=capsys
    )
    assert (code, "2 trials: 1 finished, 1 refused" in out) == (0, True)


def test_lists_for_what_has_commas_elsewhere():
    with_lists = {"hidden": [6, 6], "activation": ["relu", "tanh"], "freeze": [1], "lr_mult": {3: 0.5}}
    texts = with_lists | {"activation": "relu,tanh", "freeze": "1", "lr_mult": "3=0.5"}
    how = {"trials": 1, "epochs": 2, "verbose": False}
    one, two = (fcnet.search(LR, blobs(), out=out, **o, **how) for out, o in (("a", with_lists), ("b", texts)))
    assert summary(one) == summary(two)
    again = fcnet.search(LR, blobs(), out="a", **texts, **how)
    assert summary(again) == summary(one)
