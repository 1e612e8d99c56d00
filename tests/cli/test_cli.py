"""The command line: what a newcomer runs, what it writes, and one line for each mistake."""

from __future__ import annotations

import csv
import re
import shlex
import signal
import subprocess
import time
import tomllib

import numpy as np
import pytest

import fcnet
from fcnet.cli import main
from tests.command import COMMAND, environment
from tests.needed import HANGS
from tests.small import blobs

pytest.importorskip("sklearn", reason="the digits data set is scikit-learn's")
QUICK = ["--data", "spirals", "--epochs", "2", "--hidden", "8"]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FCNET_DATA", raising=False)
    return tmp_path


@pytest.fixture
def table(tmp_path):
    """Write a CSV file of blobs with text labels; return its path."""
    data = blobs(n=150)
    path = tmp_path / "flowers.csv"
    names = ["rose", "tulip", "oak, old"]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*(f"f{i}" for i in range(6)), "kind"])
        for x, y in zip(data.X_train, data.y_train, strict=True):
            writer.writerow([*x, names[y]])
    return path


def read(path, reader=csv.DictReader) -> list:
    with open(path, newline="") as file:
        return list(reader(file))


def run(*arguments: object, capsys) -> tuple[int, str, str]:
    code = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def fails(*arguments: object, capsys) -> str:
    """Return the one line of a command that ends with exit code 2."""
    code, out, err = run(*arguments, capsys=capsys)
    assert code == 2, out + err
    assert err.startswith("fcnet: error: ")
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    return err


def test_train_writes_a_run_and_ends_with_the_accuracy(tmp_path, curves, capsys):
    code, out, err = run("train", "--config", examples() / "digits.toml", "--epochs", 5, capsys=capsys)
    assert code == 0
    last = out.splitlines()[-1]
    assert last.startswith("test accuracy 0.9")
    assert [line.split(":")[0] for line in err.splitlines()] == [f"epoch {n}/5" for n in range(1, 6)]  # no terminal
    folder = tmp_path / "runs" / "digits-0001"
    names = {path.name for path in folder.iterdir()}
    assert {"model.safetensors", "config.toml", "history.csv", "run.json", "checkpoints"} <= names <= {
        "model.safetensors", "config.toml", "history.csv", "run.json", "checkpoints", "curves.png"
    }  # fmt: skip
    rows = read(folder / "history.csv")
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5"]
    config = tomllib.loads((folder / "config.toml").read_text())
    assert (config["epochs"], config["dropout-keep"], config["hidden"]) == (5, 0.6, [128, 128])
    code, out, _ = run("evaluate", folder, capsys=capsys)
    assert out.splitlines()[-1] == last


def examples():
    from pathlib import Path

    return Path(__file__).parents[2] / "examples"


def test_the_configuration_of_a_run_makes_it_again(tmp_path, capsys):
    options = ["--norm", "batchnorm", "--dropout-keep", "0.7", "--reg", "1e-3", "--seed", "5", "--lr", "0.01"]
    run("train", *QUICK, *options, capsys=capsys)
    run("train", "--config", "runs/spirals-0001/config.toml", capsys=capsys)
    one, two = (tmp_path / f"runs/spirals-000{i}" for i in (1, 2))
    for name in ("model.safetensors", "config.toml"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_flags_go_before_the_file(tmp_path, capsys):
    (tmp_path / "a.toml").write_text('data = "spirals"\nhidden = "4,4"\nbatch_size = 50\nlr = 1\nepochs = 9\n')
    out = run("train", "--config", "a.toml", "--epochs", "1", "--lr", "0.5", capsys=capsys)[1]
    assert "\n1 epoch, " in out
    config = tomllib.loads((tmp_path / "runs/spirals-0001/config.toml").read_text())
    assert (config["hidden"], config["batch-size"], config["epochs"], config["lr"]) == ([4, 4], 50, 1, 0.5)


def test_every_option_is_a_flag_and_is_kept(tmp_path, capsys):
    flags = {
        "data": "spirals", "hidden": "5,4", "activation": "relu,maxout", "norm": "layernorm", "dropout-keep": "0.9",
        "maxout-pieces": "3", "dropout": "plain", "label-smoothing": "0.0",
        "loss": "svm", "reg": "0.01", "reg-l1": "0.002", "weight-scale": "0.1", "optimizer": "rmsprop", "lr": "0.001",
        "lr-decay": "0.9", "batch-size": "7", "epochs": "1", "patience": "2", "seed": "3", "device": "cpu",
        "dtype": "float64", "preprocess": "standardize", "checkpoint-every": "500", "keep": "3",
        "on-nonfinite": "rollback", "out": "here",
    }  # fmt: skip
    run("train", *(part for name, value in flags.items() for part in (f"--{name}", value)), capsys=capsys)
    config = tomllib.loads((tmp_path / "here/config.toml").read_text())
    del flags["out"]
    assert config.pop("checkpoints")  # its flag has no value
    assert set(config) == set(flags)
    assert {name: str(value) for name, value in config.items() if name != "hidden"} == {
        name: value for name, value in flags.items() if name != "hidden"
    }
    model = fcnet.load(tmp_path / "here")
    assert repr(model) == "<FullyConnectedNet 2-5-4-3, relu,maxout, layernorm, svm, dropout keeps 0.9, float64 on cpu>"


def test_a_table_from_file_to_predictions(tmp_path, table, capsys):
    code, out, _ = run("train", "--data", table, "--target", "kind", "--out", "run", "--lr", "0.01", capsys=capsys)
    assert code == 0
    assert out.splitlines()[-1] >= "test accuracy 0.9"
    assert run("predict", "run", table, "--out", "p.csv", "--proba", capsys=capsys)[0] == 0
    rows = read(tmp_path / "p.csv")
    truth = [row["kind"] for row in read(table)]
    assert np.mean([row["prediction"] == kind for row, kind in zip(rows, truth, strict=True)]) > 0.9
    assert sum(float(rows[0][f"p({name})"]) for name in ("rose", "tulip", "oak, old")) == pytest.approx(1, abs=1e-4)
    code, out, _ = run("evaluate", "run", "--data", table, "--target", "kind", capsys=capsys)
    assert out.splitlines()[-1] >= "accuracy 0.9"
    code, out, _ = run("predict", "run", table, capsys=capsys)
    assert out.splitlines()[:1] == ["prediction"]
    assert len(out.splitlines()) == 151


def test_columns_are_found_by_name(tmp_path, table, capsys):
    run("train", "--data", table, "--target", "kind", "--out", "run", "--epochs", "2", capsys=capsys)
    rows = read(table, csv.reader)
    with (tmp_path / "mixed.csv").open("w", newline="") as file:
        csv.writer(file).writerows([row[::-1] for row in rows])
    first, second = (run("predict", "run", path, capsys=capsys)[1] for path in (table, "mixed.csv"))
    assert first == second
    with (tmp_path / "less.csv").open("w", newline="") as file:
        csv.writer(file).writerows([row[1:] for row in rows])
    assert "column 'f0': expected it, as in training" in fails("predict", "run", "less.csv", capsys=capsys)


def test_an_npz_from_file_to_predictions(tmp_path, capsys):
    data = blobs()
    np.savez(tmp_path / "d.npz", X=data.X_train, y=data.y_train)
    np.savez(tmp_path / "new.npz", X=data.X_val)
    run("train", "--data", "d.npz", "--out", "run", "--lr", "0.01", capsys=capsys)
    code, out, _ = run("predict", "run", "new.npz", capsys=capsys)
    assert code == 0
    assert np.mean(np.array(out.split()[1:], dtype=int) == data.y_val) > 0.9
    assert run("evaluate", "run", "--data", "d.npz", capsys=capsys)[1].splitlines()[-1] >= "accuracy 0.9"


def test_info_names_devices_and_remedies(capsys):
    code, out, _ = run("info", capsys=capsys)
    assert code == 0
    assert "cpu     usable: NumPy" in out
    assert "cuda" in out
    if "not usable" in out:
        assert "to use it: " in out
    assert "mnist          not found" in out
    assert "fcnet fetch mnist" in out


MISTAKES = [
    (
        ["trian"],
        "command: expected one of train, resume, evaluate, predict, info, .*; got 'trian'; did you mean 'train'?",
    ),
    (["train", "--batchsize", "3"], "unknown argument --batchsize; did you mean --batch-size?"),
    (["train", "--val-fraction", "3"], "unknown argument --val-fraction; see fcnet train --help\n"),
    (["train", "--learning-rate", "3"], "unknown argument --learning-rate; did you mean --lr?"),
    (["train", "--checkpoint-every", "-5s"], "--checkpoint-every: expected steps such as 500, or a time such as"),
    (["train", "--target"], "--target: expected a value after it, got none; see fcnet train --help"),
    (["train", "--epochs", "ten"], "--epochs: expected an integer, got 'ten'"),
    (["train", "--epochs", "0"], "expected 1 or more, got 0"),
    (["train", "--lr", "fast"], "--lr: expected a number, got 'fast'"),
    (["train", "--hidden", "5,x"], "--hidden: expected widths such as 100,100, got '5,x'"),
    (["train", "--hidden", "5,-1"], "--hidden: expected 1 or more, got -1"),
    (["train", "--data", "mnits"], "data: expected one of .*got 'mnits'; did you mean 'mnist'?"),
    (["train", "--data", "mnist"], "fcnet fetch mnist"),
    (["train", "--data", "no.csv", "--target", "y"], "'no.csv' does not exist"),
    (["train", *QUICK, "--optimizer", "adma"], "did you mean 'adam'"),
    (["train", *QUICK, "--norm", "batch"], "did you mean 'batchnorm'"),
    (["train", *QUICK, "--dropout-keep", "0"], "--dropout-keep: expected a probability to keep"),
    (["train", *QUICK, "--device", "cuda:99"], "cuda:99"),
    (["train", *QUICK, "--device", "gpu"], "device: expected 'auto', 'cpu', 'cuda' or 'cuda:N', got 'gpu'"),
    (["train", *QUICK, "--target", "y"], "target: expected only with a table"),
    (["train", *QUICK, "--epochs", "0"], "error: --epochs: expected 1 or more, got 0"),
    (["train", *QUICK, "--lr", "-1"], "error: --lr: expected"),
    (["train", *QUICK, "--optimizer", "adma"], "error: --optimizer: expected one of"),
    (["train", *QUICK, "--batch-size", "0"], "error: --batch-size: expected"),
    (["train", *QUICK, "--lr-decay", "2"], "error: --lr-decay: expected"),
    (["train", *QUICK, "--norm", "None"], "error: --norm: expected one of none, batchnorm, layernorm; got 'None'"),
    (["train", *QUICK, "--hidden", "99999999999"], "--hidden: expected layers that fit into memory, got 99999999999"),
    (["train", *QUICK, "--hidden", "9" * 30], "--hidden: expected layers that fit into memory, got 9999"),
    (["train", *QUICK, "--out", ""], "--out: expected the name of a folder, got ''"),
    (["train", *QUICK, "--out", "/proc/x"], "/proc/x: .*; --out names the folder"),
    (["train", "--config", "/"], "config: expected a TOML file, got the folder /; name the file"),
    (["train", "--config", "no.toml"], "config: no such file: no.toml"),
    (["train", *QUICK, "--init", "he", "--weight-scale", "1"], "--init and --weight-scale: expected one of them"),
    (["evaluate"], "the following arguments are required: RUN"),
    (["evaluate", "nowhere"], "nowhere: no such file"),
    (["predict", "nowhere", "x.csv"], "nowhere: no such file"),
    (["fetch", "mnits"], "did you mean 'mnist'"),
    (
        ["predict", "nowhere", "x.csv", "--out", "no/p.csv"],
        "no/p.csv: expected a folder .*; make it first (mkdir -p no)",
    ),
    (
        ["train", *QUICK, "--label-smoothing", "0.1", "--loss", "svm"],
        "with --label-smoothing 0.1, .*; leave --label-smo",
    ),
    (["fetch", "mnits", "--mirrors", "x"], "did you mean --mirror?"),
    (["help", "trian"], "did you mean 'train'?"),
    (["completion", "bsh"], "shell: expected one of bash, zsh, fish; got 'bsh'; did you mean 'bash'?"),
    (["--colour"], "unknown argument --colour; see fcnet --help"),
    (["-V2"], "fcnet --help"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[" ".join(m[0])[:40] for m in MISTAKES])
def test_one_line_for_a_mistake_and_nothing_written(arguments, message, tmp_path, capsys):
    line = fails(*arguments, capsys=capsys)
    assert re.search(re.sub(r"[()?]", r"\\\g<0>", message), line), line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs = ten", "is not valid TOML"),
        ("epochs = 'ten'", "epochs: expected an integer, got 'ten'"),
        ("epochs = true", "epochs: expected an integer, got True"),
        ("lr = [1]", "lr: expected a number"),
        ("hidden = '3;4'", "hidden: expected widths such as 100,100"),
        ("hidden = 3", "hidden: expected a list of widths"),
        ("epoch = 3", "expected an option that fcnet train --help lists; got 'epoch'; did you mean 'epochs'?\n"),
        ("val_fraction = 3", "expected an option that fcnet train --help lists; got 'val_fraction'\n"),
        ("learning_rate = 3", "got 'learning_rate'; did you mean 'lr'?"),
        ("decay = 3", "got 'decay'; did you mean 'lr-decay' or 'weight-decay'?"),
        ("[train]\nepochs = 3", "got the section [train]; sections are not used"),
        ("batch-size = 3\nbatch_size = 4", "batch-size: expected it once"),
        ("epochs = 0", "config a.toml: epochs: expected 1 or more, got 0"),
        ("\x00", "is not valid TOML"),
    ],
)
def test_bad_configurations(text, message, tmp_path, capsys):
    (tmp_path / "a.toml").write_text(text)
    assert message in fails("train", "--config", "a.toml", capsys=capsys)


def test_a_run_is_not_overwritten_unless_forced(tmp_path, capsys):
    run("train", *QUICK, "--out", "here", capsys=capsys)
    before = (tmp_path / "here/model.safetensors").read_bytes()
    assert "here is not empty; choose another folder, or replace the run in it with --force" in fails(
        "train", *QUICK, "--out", "here", "--seed", "1", capsys=capsys
    )
    assert (tmp_path / "here/model.safetensors").read_bytes() == before
    assert run("train", *QUICK, "--out", "here", "--seed", "1", "--force", capsys=capsys)[0] == 0
    assert (tmp_path / "here/model.safetensors").read_bytes() != before
    run("predict", "here", "spirals", "--out", "p.csv", capsys=capsys)
    assert "p.csv is there already" in fails("predict", "here", "spirals", "--out", "p.csv", capsys=capsys)


def test_a_training_that_diverges_leaves_nothing(tmp_path, capsys):
    with np.errstate(all="ignore"):
        code, _, err = run("train", *QUICK, "--optimizer", "sgd", "--lr", "1e30", "--epochs", "50", capsys=capsys)
    assert code == 1
    assert "the loss became" in err
    assert err.count("\n") == 1
    assert not list((tmp_path / "runs").iterdir())


def test_interrupted_training_keeps_what_was_finished(tmp_path, capsys, monkeypatch):
    evaluate = fcnet.Solver._record_epoch

    def interrupt(self, *arguments):
        evaluate(self, *arguments)
        if self.epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(fcnet.Solver, "_record_epoch", interrupt)
    code, out, err = run("train", *QUICK, "--epochs", "9", "--out", "here", capsys=capsys)
    assert code == 130
    assert err.splitlines()[-1] == "fcnet: interrupted after epoch 2 of 9; fcnet resume here goes on"
    assert (tmp_path / "here/config.toml").read_text().startswith("# interrupted after epoch 2 of 9\n")
    assert "2 epochs" in out
    assert len((tmp_path / "here/history.csv").read_text().splitlines()) == 3
    fcnet.load(tmp_path / "here")


def test_two_processes_get_two_run_directories(tmp_path):
    train = [*COMMAND, "train", *QUICK, "--quiet"]
    processes = [subprocess.Popen(train, cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    runs = sorted((tmp_path / "runs").iterdir())
    assert [run.name for run in runs] == ["spirals-0001", "spirals-0002"]
    assert len({(run / "model.safetensors").read_bytes() for run in runs}) == 1


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    done = shell(f"fcnet train {' '.join(QUICK)} --out r --quiet && fcnet predict r spirals | head -1", tmp_path)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "prediction"


def shell(command, folder, **how):
    """Return a command line of the shell, where "fcnet" is the command of these sources."""
    return subprocess.run(
        ["bash", "-c", f'fcnet() {{ {shlex.join(COMMAND)} "$@"; }}; {command}'],
        cwd=folder, env=environment(), capture_output=True, text=True, check=False, timeout=HANGS, **how,
    )  # fmt: skip


@pytest.mark.parametrize("streams", ["| true", "2>&-", ">&- 2>&- <&-"])
def test_training_goes_on_without_anybody_to_print_to(streams, tmp_path):
    done = shell(f"set -o pipefail; fcnet train {' '.join(QUICK)} --out r {streams}", tmp_path)
    assert done.returncode == 0
    assert all(line.startswith("epoch ") for line in done.stderr.splitlines())
    fcnet.load(tmp_path / "r")


def test_a_diverging_training_says_one_line(tmp_path):
    done = shell(f"fcnet train {' '.join(QUICK)} --optimizer sgd --lr 1e30 --epochs 50 --quiet", tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_signals_end_a_training_with_its_results(name, code, tmp_path, capsys, monkeypatch):
    record = fcnet.Solver._record_epoch
    number = getattr(signal, name)

    def interrupt(self, *arguments):
        record(self, *arguments)
        if self.epoch == 2:
            signal.raise_signal(number)

    def again(*arguments):
        signal.raise_signal(signal.SIGINT)  # Ctrl-C once more, while the best parameters are put back
        restore(*arguments)

    restore = fcnet.Solver._restore_best
    before = signal.getsignal(number)
    monkeypatch.setattr(fcnet.Solver, "_record_epoch", interrupt)
    monkeypatch.setattr(fcnet.Solver, "_restore_best", again)
    assert run("train", *QUICK, "--epochs", "9", "--out", "r", "--quiet", capsys=capsys) == (
        code, "", "fcnet: interrupted after epoch 2 of 9; fcnet resume r goes on\n"
    )  # fmt: skip
    fcnet.load(tmp_path / "r")
    assert signal.getsignal(number) is before


def test_an_interrupt_that_python_drops_is_raised_once_more(capsys, monkeypatch):
    """What is raised in a destructor is dropped, and the work went on, deaf to any further signal."""

    class Dropping:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)

    def carry_out(*_):
        Dropping()
        for _ in range(100):
            time.sleep(0.01)
        raise AssertionError("nobody interrupts this")

    monkeypatch.setattr("fcnet.cli.train.carry_out", carry_out)
    assert run("train", *QUICK, "--quiet", capsys=capsys) == (143, "", "fcnet: interrupted\n")


def test_configurations_with_a_mark_at_the_begin_and_homes(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home/a.toml").write_bytes(b'\xef\xbb\xbfdata = "spirals"\nepochs = 1\n')
    assert run("train", "--config", "~/a.toml", "--out", "~/run", capsys=capsys)[0] == 0
    fcnet.load(tmp_path / "home/run")


def test_a_missing_picture_is_explained_by_what_happened(tmp_path, capsys, monkeypatch):
    def fail(_):
        raise RuntimeError("no fonts")

    monkeypatch.setattr("fcnet.runs.rundir.curves_png", fail)
    out = run("train", *QUICK, capsys=capsys)[1]
    assert "no curves.png: RuntimeError: no fonts" in out
    assert "needs matplotlib" not in out


def test_info_says_what_the_digits_need(capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "digits         needs scikit-learn" in run("info", capsys=capsys)[1]
