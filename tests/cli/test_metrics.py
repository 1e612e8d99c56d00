"""The command line's metrics: which is chosen by, what evaluate prints, refusals."""

import csv
from pathlib import Path

import numpy as np
import pytest

import fcnet
from fcnet.cli import main
from fcnet.training import judging


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Each test in a folder of its own, with two classes of which one is rare."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((400, 3))
    y = np.where(X[:, 0] + 0.8 * rng.standard_normal(400) > 1.5, "rare", "plenty")
    rows = [["a", "b", "c", "kind"], *([*x, kind] for x, kind in zip(X.round(3).tolist(), y, strict=True))]
    with open("two.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)


def run(*arguments, capsys):
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


TRAIN = [
    "train",
    "--data",
    "two.csv",
    "--target",
    "kind",
    "--hidden",
    "8",
    "--epochs",
    "8",
    "--lr",
    "0.03",
    "--out",
    "run",
]


def test_the_chosen_metric_stands_before_the_accuracy(capsys):
    code, out, _ = run(*TRAIN, "--metric", "f1", capsys=capsys)
    *_, chosen, last = out.splitlines()
    assert (code, chosen.startswith("test f1 "), last.startswith("test accuracy 0.")) == (0, True, True)
    with open("run/history.csv") as file:
        rows = list(csv.DictReader(file))
    best = max(range(8), key=lambda epoch: float(rows[epoch]["val_f1"]))
    assert f"best validation f1 {float(rows[best]['val_f1']):.4f} at epoch {best + 1}" in out
    code, out, _ = run("evaluate", "run", "--metric", "roc-auc", capsys=capsys)
    *_, auc, accuracy = out.splitlines()
    assert (code, accuracy, auc.split(" 0.")[0]) == (0, last, "test roc auc")
    assert chosen in out
    model = fcnet.load("run")
    data = fcnet.data.load("two.csv", target="kind")
    assert float(auc.split()[-1]) == pytest.approx(
        judging.roc_auc_of_classes(data.y_test, model.scores(data.X_test)), abs=5e-5
    )
    matrix = judging.confusion_matrix(data.y_test, model.predict(data.X_test), 2)
    lines = [line.split() for line in out.splitlines()]
    for name, row in zip(model.classes, matrix.tolist(), strict=True):
        assert [name, *map(str, row)] in lines


def test_without_a_test_part_the_last_line_is_of_the_validation(capsys):
    data = fcnet.data.load("two.csv", target="kind")
    np.savez("two.npz", X_train=data.X_train, y_train=data.y_train, X_val=data.X_val, y_val=data.y_val)
    command = ["train", "--data", "two.npz", "--hidden", "8", "--epochs", "2", "--metric", "balanced-accuracy"]
    code, out, _ = run(*command, "--quiet", capsys=capsys)
    assert code == 0
    assert [line.rsplit(" ", 1)[0] for line in out.splitlines()] == [
        "best validation balanced accuracy", "validation accuracy"
    ]  # fmt: skip


def test_many_classes_have_the_pairs_that_are_confused_most(capsys):
    rng = np.random.default_rng(1)
    X = rng.standard_normal((900, 30))
    y = np.where(rng.random(900) < 0.8, X.argmax(axis=1), 7)
    np.savez("many.npz", X=X, y=y)
    run("train", "--data", "many.npz", "--epochs", "5", "--out", "run", capsys=capsys)
    out = run("evaluate", "run", "--data", "many.npz", capsys=capsys)[1]
    pairs = [line for line in out.splitlines() if " taken for " in line]
    counts = [int(line.rsplit(" ", 1)[1]) for line in pairs]
    assert counts == sorted(counts, reverse=True)
    assert len(counts) == 10


@pytest.mark.parametrize("command", [["train", "--data", "two.csv", "--target", "kind"], ["evaluate", "run"]])
def test_metrics_that_do_not_suit_are_refused_in_a_line(command, capsys):
    run(*TRAIN, "--quiet", capsys=capsys)
    code, _, err = run(*command, "--metric", "r2", capsys=capsys)
    assert (code, err.count("\n")) == (2, 1)
    assert "expected one of accuracy, balanced_accuracy, f1, f1_macro, roc_auc, log_loss with loss 'softmax'" in err
    code, _, err = run(*command, "--metric", "logloss", capsys=capsys)
    assert (code, "did you mean 'log_loss'?" in err) == (2, True)


def test_balanced_classes_find_more_of_the_rare_one(capsys):
    recalls = []
    for flags in ([], ["--class-weight", "balanced"], ["--class-weight", "rare=0,plenty=2"]):
        assert run(*TRAIN, "--force", "--quiet", "--batch-size", 20, *flags, capsys=capsys)[0] == 0
        out = run("evaluate", "run", "--data", "two.csv", capsys=capsys)[1]
        recalls.append(float(next(line for line in out.splitlines() if line.startswith("rare ")).split()[2]))
    assert recalls[1] > recalls[0] > recalls[2]
    model = fcnet.load("run")
    assert run("train", "--config", "run/config.toml", "--out", "again", "--quiet", capsys=capsys)[0] == 0
    np.testing.assert_array_equal(model.params["W1"], fcnet.load("again").params["W1"])
    for bad in ("rare", "rare=x", "rare=1,rare=2", "scarce=2", "balance"):
        code, _, err = run(*TRAIN, "--class-weight", bad, "--force", capsys=capsys)
        assert (code, err.count("\n"), "--class-weight: expected" in err) == (2, 1, True), err


def test_a_threshold_is_chosen_kept_and_gone_by(capsys):
    code, out, _ = run(*TRAIN, "--threshold", "auto", "--metric", "f1", capsys=capsys)
    model, data = fcnet.load("run"), fcnet.data.load("two.csv", target="kind")
    assert (code, f"threshold {model.threshold:.4g} of" in out) == (0, True), out
    assert judging.f1(data.y_val, model.predict(data.X_val)) == pytest.approx(
        float(out.split("chosen by validation f1 ")[1].split()[0]), abs=5e-5
    )
    assert model.threshold != 0.5
    last = out.splitlines()[-2:]
    assert run("evaluate", "run", "--metric", "f1", capsys=capsys)[1].splitlines()[-2:] == last
    said = run("predict", "run", "two.csv", "--proba", capsys=capsys)[1]
    rows = list(csv.DictReader(said.splitlines()))
    assert all((row["prediction"] == "rare") == (float(row["p(rare)"]) > model.threshold) for row in rows)
    for bad in ("high", "2"):
        code, _, err = run(*TRAIN, "--force", "--threshold", bad, capsys=capsys)
        assert (code, err.count("\n"), "--threshold: expected a probability between 0 and 1" in err) == (2, 1, True)


def test_cross_validation(capsys):
    command = [*TRAIN, "--metric", "f1"]
    code, out, _ = run(*command, "--cv", "3", capsys=capsys)
    assert code == 0
    each = [line.split(": ")[1] for line in out.splitlines() if line.startswith("fold ")]
    for line, place in zip(out.splitlines()[-2:], (0, 1), strict=True):
        title, figures = line.split(" 0.", 1)
        mean, _, deviation, *_ = f"0.{figures}".split()
        values = [float(fold.split(", ")[place].removeprefix(f"{title} ")) for fold in each]
        assert (float(mean), float(deviation)) == pytest.approx((np.mean(values), np.std(values, ddof=1)), abs=1e-4)
        assert "3 folds" in line
    assert out.splitlines()[-1].startswith("test accuracy ")
    assert "two: 360 train, 40 val, 3 features" in out
    model, data = fcnet.load("run"), fcnet.data.load("two.csv", target="kind")
    assert model.preprocessing[0][0] != pytest.approx(data.X_train[:, 0].mean())  # learned from other rows, too
    code, _, err = run("evaluate", "run", capsys=capsys)
    assert (code, "with --cv 3 it was trained on all of" in err, err.count("\n")) == (2, True, 1)
    assert run("evaluate", "run", "--data", "two.csv", capsys=capsys)[0] == 0
    code, out, err = run(*command, "--cv", "1", "--out", "other", capsys=capsys)
    assert (code, out, "--cv: expected 2 or more folds" in err) == (2, "", True)  # before the network is described
    assert not Path("other").exists()
