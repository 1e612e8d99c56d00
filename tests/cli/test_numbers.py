"""The command line with numbers to predict and with several labels: train, evaluate, predict, refusals."""

import csv
import io

import numpy as np
import pytest

import fcnet
from fcnet.cli import main
from fcnet.cli.figures import spelled
from fcnet.functional import METRICS


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Each test in a folder of its own, with a table of numbers and an archive of labels."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 3))
    price = X @ [1.0, 2.0, -1.0] + 0.5
    np.savetxt("houses.csv", np.c_[X, price], delimiter=",", header="a,b,c,price", comments="")
    np.savez("labels.npz", X=X, y=np.c_[X[:, 0] > 0, X[:, 1] + X[:, 2] > 0].astype(int))
    np.savez("two.npz", X=X, y=np.c_[price, -price])


def run(*arguments, capsys):
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


QUICK = ["--epochs", "40", "--batch-size", "20", "--lr", "0.01", "--hidden", "20", "--out", "run"]


def test_regression_from_a_table(capsys):
    code, out, err = run("train", "--data", "houses.csv", "--target", "price", "--loss", "mse", *QUICK, capsys=capsys)
    assert code == 0
    assert "epoch 40/40: " in err
    *_, best, _, last = out.splitlines()
    assert "; best validation rmse 0." in best
    name, rmse = last.rsplit(" ", 1)
    assert name == "test rmse"
    assert 0 < float(rmse) < 0.5
    with open("run/history.csv") as file:
        rows = list(csv.DictReader(file))
    assert min(float(row["val_rmse"]) for row in rows) < 0.5 < float(rows[0]["val_rmse"])
    assert run("evaluate", "run", capsys=capsys)[1].splitlines()[-1] == last
    code, out, _ = run("evaluate", "run", "--data", "houses.csv", capsys=capsys)
    assert out.splitlines()[-1].startswith("rmse 0.")
    code, out, _ = run("predict", "run", "houses.csv", capsys=capsys)
    rows = list(csv.reader(io.StringIO(out)))
    assert rows[0] == ["prediction"]
    price = np.loadtxt("houses.csv", delimiter=",", skiprows=1)[:, -1]
    assert np.sqrt(np.mean((np.array(rows[1:], float)[:, 0] - price) ** 2)) < 0.5
    code, out, err = run("predict", "run", "houses.csv", "--proba", capsys=capsys)
    assert code == 2
    assert err.startswith(
        "fcnet: error: --proba: expected a network with loss softmax or bce, got run with loss mse, which gives no "
        "probabilities; leave --proba out"
    )


@pytest.mark.parametrize("test_part", [True, False])
def test_a_net_no_better_than_the_mean_says_so(test_part, capsys):
    """After steps of no size: once with, once without a test part; and once with a good rate."""
    X = np.random.default_rng(1).standard_normal((90, 3))
    y = 1e4 * np.c_[X[:, 0] + 20, X[:, 1]]  # any size: they are scaled
    parts = {"X_train": X[:50], "y_train": y[:50], "X_val": X[50:70], "y_val": y[50:70]}
    part = {"X_test": X[70:], "y_test": y[70:]} if test_part else {}
    np.savez("large.npz", **parts, **part)
    command = ["train", "--data", "large.npz", "--loss", "mse", "--hidden", "9", "--epochs", "2"]
    bad = [*command, "--lr", "1e-9"]
    code, out, _ = run(*bad, capsys=capsys)
    assert code == 0
    *_, warning, last = out.splitlines()
    truth = y[70:] if test_part else y[50:70]
    plain = np.sqrt(np.mean((truth - y[:50].mean(axis=0)) ** 2))
    mine = last.split()[-1]
    assert last.startswith("test rmse" if test_part else "best validation rmse")
    assert warning.startswith(f"rmse {mine} is no better than {plain:.4f}, which always predicting the mean of the tr")
    assert "--lr or more --epochs" in warning
    assert run(*bad, "--quiet", capsys=capsys)[1] == f"{last}\n"
    good = run(*command, "--optimizer", "sgd", "--lr", "0.2", "--hidden", "none", "--epochs", "300", capsys=capsys)[1]
    assert "no better than" not in good
    assert float(good.split()[-1]) < plain / 5


@pytest.mark.parametrize("target", ["l", "k,l"])
def test_a_label_that_is_none_is_named_by_file_line_and_column(target, capsys):
    rng = np.random.default_rng(2)
    table = np.c_[rng.standard_normal((60, 2)), rng.random((60, 2)) > 0.5]
    table[7, 3] = 3
    np.savetxt("l.csv", table, delimiter=",", header="a,b,k,l", comments="", fmt="%g")
    line = "l.csv: line 9, column 'l': expected a label of 0 or 1, or a probability between, for loss 'bce'; got '3';"
    code, _, err = run("train", "--data", "l.csv", "--target", target, "--loss", "bce", capsys=capsys)
    assert code == 2
    assert err.count("\n") == 1
    assert line in err
    np.savez("l.npz", X=table[:, :2], y=table[:, 2:])
    code, _, err = run("train", "--data", "l.npz", "--loss", "bce", capsys=capsys)
    assert (code, "l.npz: y: expected labels of 0 and 1" in err, "got 3.0 at [7, 1]; correct" in err) == (2, True, True)
    table[7, 3] = 1
    np.savetxt("good.csv", table, delimiter=",", header="a,b,k,l", comments="", fmt="%g")
    how = ["--target", target, "--loss", "bce", "--epochs", "1", "--out", "run"]
    assert run("train", "--data", "good.csv", *how, capsys=capsys)[0] == 0
    code, _, err = run("evaluate", "run", "--data", "l.csv", capsys=capsys)
    assert (code, line in err) == (2, True)


def test_what_has_no_probabilities_says_so_in_flags(capsys):
    run("train", "--data", "spirals", "--loss", "svm", "--epochs", "1", "--out", "run", capsys=capsys)
    for flags in (["--proba"], ["--mc-samples", "3"]):
        code, _, err = run("predict", "run", "spirals", *flags, capsys=capsys)
        expected = f"fcnet: error: {flags[0]}: expected a network with loss softmax or bce, got run with loss svm"
        assert (code, err.startswith(expected), err.endswith(f"; leave {flags[0]} out\n")) == (2, True, True)


def test_several_outputs(capsys):
    code, trained, _ = run("train", "--data", "two.npz", "--loss", "mse", *QUICK, capsys=capsys)
    assert code == 0
    code, out, _ = run("evaluate", "run", capsys=capsys)
    _, names, *rows, mae, r2, last = out.splitlines()
    assert names.split() == ["output", "rmse", "mae", "r2"]
    each, maes, r2s = np.array([row.split()[1:] for row in rows], float).T
    assert len(each) == 2
    assert float(mae.removeprefix("test mae ")) == pytest.approx(np.mean(maes), abs=2e-4)
    assert float(r2.removeprefix("test r2 ")) == pytest.approx(np.mean(r2s), abs=2e-4)
    assert float(last.split()[-1]) == pytest.approx(np.sqrt(np.mean(np.square(each))), abs=2e-4)
    again = [line.split() for line in trained.splitlines()[-4:]]
    assert again == [["test", *names.split()], *map(str.split, rows), last.split()]
    assert run("predict", "run", "two.npz", capsys=capsys)[1].startswith("prediction(0),prediction(1)\n")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("loss", "flags"), [("mse", []), ("bce", ["--proba"]), ("bce", ["--mc-samples", "3"])])
def test_predictions_read_back_as_the_same_numbers(loss, flags, dtype, capsys):
    """With the fewest digits; values of targets, which are scaled, are given back in float64."""
    data = np.load("two.npz" if loss == "mse" else "labels.npz")
    np.savez("a.npz", **data)
    options = ["--epochs", "1", "--hidden", "5", "--dropout-keep", "0.8", "--dtype", dtype, "--out", "run"]
    run("train", "--data", "a.npz", "--loss", loss, *options, capsys=capsys)
    rows = list(csv.reader(io.StringIO(run("predict", "run", "a.npz", *flags, capsys=capsys)[1])))[1:]
    model, X = fcnet.load("run"), data["X"]
    if "--mc-samples" in flags:
        expected = np.hstack(model.predict_proba(X, mc_samples=3))
    else:
        expected = model.predict_proba(X) if flags else model.predict(X)
    assert [row[-expected.shape[1] :] for row in rows] == [[str(value) for value in row] for row in expected]
    np.testing.assert_array_equal(np.array(rows)[:, -expected.shape[1] :].astype(expected.dtype), expected)
    if (loss, dtype) == ("mse", "float32"):
        assert max(len(cell) for row in rows for cell in row) <= 12


def test_figures_have_the_digits_that_they_need():
    assert spelled(METRICS["mse"], 1.23456789e-9) == "1.235e-09"
    assert spelled(METRICS["mse"], 123456.78901) == "123456.7890"
    assert spelled(METRICS["softmax"], 2 / 3) == "0.6667"


def test_several_labels(capsys):
    code, out, _ = run("train", "--data", "labels.npz", "--loss", "bce", *QUICK, capsys=capsys)
    assert code == 0
    last = out.splitlines()[-1]
    assert last.startswith("test label accuracy ")
    assert float(last.split()[-1]) > 0.85
    code, out, _ = run("evaluate", "run", capsys=capsys)
    assert out.splitlines()[1].split() == [
        "output",
        "accuracy",
        "balanced",
        "accuracy",
        *("f1", "roc", "auc", "log", "loss"),
    ]
    assert out.splitlines()[-1] == last
    code, out, _ = run("predict", "run", "labels.npz", "--proba", capsys=capsys)
    rows = list(csv.reader(io.StringIO(out)))
    assert rows[0] == ["prediction(0)", "prediction(1)", "p(0)", "p(1)"]
    cells = np.array(rows[1:], float)
    np.testing.assert_array_equal(cells[:, :2], cells[:, 2:] > 0.5)
    truth = np.load("labels.npz")["y"]
    assert np.mean(cells[:, :2] == truth) > 0.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--data", "digits", "--loss", "mse"],
            "--loss and --data: expected a table or an .npz file of numbers to predict",
        ),
        (["--data", "two.npz", "--loss", "bce"], "two.npz: y: expected labels of 0 and 1, or probabilities between"),
        (["--data", "houses.csv", "--target", "price"], "labels are not integers"),
        (["--data", "labels.npz"], "y: expected one-hot rows"),
        (["--data", "spirals", "--label-smoothing", "0.1", "--loss", "svm"], "--label-smoothing and --loss: expected"),
        (
            ["--data", "spirals", "--maxout-pieces", "3"],
            "--maxout-pieces and --activation: expected activation 'maxout'",
        ),
        (["--data", "spirals", "--activation", "maxout", "--maxout-pieces", "0"], "--maxout-pieces and --activation"),
        (["--data", "spirals", "--activation", "tanh,relu,elu"], "--activation and --hidden: expected one activation"),
        (["--data", "spirals", "--activation", "tanh,"], "--activation: expected one of relu"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_one_line_for_a_mistake(arguments, message, capsys, tmp_path):
    code, _, err = run("train", *arguments, "--out", "run", capsys=capsys)
    assert code == 2
    assert err.count("\n") == 1
    assert message in err
    assert not (tmp_path / "run").exists()


def test_other_data_than_numbers_are_refused(capsys):
    run("train", "--data", "houses.csv", "--target", "price", "--loss", "mse", *QUICK, capsys=capsys)
    code, _, err = run("evaluate", "run", "--data", "digits", capsys=capsys)
    assert code == 2
    assert "expected a table or an .npz file of numbers to predict" in err
    code, _, err = run("evaluate", "run", "--data", "two.npz", capsys=capsys)
    assert code == 2
    assert "two.npz: y: expected numbers of shape (300, 1), or (300,), got shape (300, 2)" in err


def test_activations_by_layer_are_kept_and_made_again(capsys):
    options = ["--activation", "maxout,tanh", "--maxout-pieces", "3", "--dropout", "plain", "--dropout-keep", "0.8"]
    run("train", "--data", "spirals", "--epochs", "2", "--hidden", "6,5", *options, "--out", "one", capsys=capsys)
    run("train", "--config", "one/config.toml", "--out", "two", capsys=capsys)
    models = []
    for name in ("one", "two"):
        with open(f"{name}/model.safetensors", "rb") as file:
            models.append(file.read())
    assert models[0] == models[1]


def test_several_columns_of_a_table(capsys):
    """Named by commas; their names are those of the outputs, in evaluate and predict."""
    table = np.loadtxt("houses.csv", delimiter=",", skiprows=1)
    np.savetxt("two.csv", np.c_[table, 2 - table[:, :1]], delimiter=",", header="a,b,c,price,area", comments="")
    options = ["--data", "two.csv", "--target", "area,price", "--loss", "mse"]
    assert run("train", *options, *QUICK, capsys=capsys)[0] == 0
    out = run("evaluate", "run", "--data", "two.csv", capsys=capsys)[1]
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["output", "area", "price", "mae", "r2", "rmse"]
    rows = list(csv.reader(io.StringIO(run("predict", "run", "two.csv", capsys=capsys)[1])))
    assert rows[0] == ["prediction(area)", "prediction(price)"]
    off = np.array(rows[1:], float) - np.c_[2 - table[:, 0], table[:, 3]]
    assert np.sqrt(np.mean(off**2)) < 0.5
    code, _, err = run("evaluate", "run", "--data", "two.csv", "--target", "price,area", capsys=capsys)
    assert (code, err) == (
        2,
        "fcnet: error: --target: expected the order of the training, area,price; got price,area\n",
    )
    run("train", "--config", "run/config.toml", "--out", "again", capsys=capsys)
    with open("run/model.safetensors", "rb") as one, open("again/model.safetensors", "rb") as two:
        assert one.read() == two.read()


def test_several_columns_of_labels(capsys):
    data = np.load("labels.npz")
    np.savetxt("labels.csv", np.c_[data["X"], data["y"]], delimiter=",", header="a,b,c,hot,big", comments="")
    run("train", "--data", "labels.csv", "--target", "hot,big", "--loss", "bce", *QUICK, capsys=capsys)
    rows = list(csv.reader(io.StringIO(run("predict", "run", "labels.csv", "--proba", capsys=capsys)[1])))
    assert rows[0] == ["prediction(hot)", "prediction(big)", "p(hot)", "p(big)"]
    assert np.mean(np.array(rows[1:], float)[:, :2] == data["y"]) > 0.9
    for target, loss, message in (
        ("hot,bgi", "bce", "target: expected one of a, b, c, hot, big; got 'bgi'; did you mean 'big'?"),
        ("hot,hot", "bce", "target: expected each column once; got 'hot,hot'"),
        ("hot,big", "softmax", "several columns are for numbers to predict, with loss 'mse' or 'bce'"),
    ):
        code, _, err = run("train", "--data", "labels.csv", "--target", target, "--loss", loss, capsys=capsys)
        assert code == 2
        assert message in err


def test_one_label_has_one_column(capsys):
    data = np.load("labels.npz")
    np.savez("one.npz", X=data["X"], y=data["y"][:, 0])
    run("train", "--data", "one.npz", "--loss", "bce", *QUICK, capsys=capsys)
    assert run("predict", "run", "one.npz", "--proba", capsys=capsys)[1].startswith("prediction,p\n")


@pytest.mark.parametrize("loss", ["softmax", "bce"])
def test_monte_carlo_columns(loss, capsys):
    data = np.load("labels.npz")
    np.savez("a.npz", X=data["X"], y=data["y"][:, 0] if loss == "softmax" else data["y"])
    run("train", "--data", "a.npz", "--loss", loss, "--dropout-keep", "0.8", *QUICK, capsys=capsys)
    out = run("predict", "run", "a.npz", "--mc-samples", "7", capsys=capsys)[1]
    rows = list(csv.reader(io.StringIO(out)))
    first = ["prediction"] if loss == "softmax" else ["prediction(0)", "prediction(1)"]
    assert rows[0] == [*first, "p(0)", "p(1)", "sd(0)", "sd(1)"]
    mean, deviation = fcnet.load("run").predict_proba(data["X"], mc_samples=7)
    cells = np.array(rows[1:], float)
    np.testing.assert_allclose(cells[:, -4:], np.hstack([mean, deviation]), rtol=1e-5)
    expected = mean.argmax(axis=1)[:, None] if loss == "softmax" else mean > 0.5
    np.testing.assert_array_equal(cells[:, :-4], expected)
    assert run("predict", "run", "a.npz", "--mc-samples", "7", capsys=capsys)[1] == out
    code, _, err = run("predict", "run", "a.npz", "--mc-samples", "0", capsys=capsys)
    assert (code, err) == (2, "fcnet: error: --mc-samples: expected 1 or more, got 0\n")


@pytest.mark.parametrize(
    ("data", "loss", "title"),
    [("two.npz", "mse", "rmse"), ("labels.npz", "bce", "label accuracy"), ("spirals", "svm", "accuracy")],
)
def test_curves_and_history_say_what_is_measured(data, loss, title, curves, capsys, monkeypatch):
    figures = pytest.importorskip("matplotlib.figure")
    drawn = []
    monkeypatch.setattr(figures.Figure, "savefig", lambda self, *args, **kwargs: drawn.append(self))
    how = ["--epochs", "2", "--hidden", "4", "--device", "cpu", "--out", "run"]
    run("train", "--data", data, "--loss", loss, *how, capsys=capsys)
    left, right = drawn[0].axes
    assert (left.get_ylabel(), left.get_xlabel()) == ("loss", "epoch")
    assert (right.get_ylabel(), right.get_xlabel()) == (title, "epoch")
    assert right.get_title().lower().startswith(f"{title} (best ")
    with open("run/history.csv") as file:
        columns = next(csv.reader(file))
    key = {"rmse": "rmse", "label accuracy": "label_acc", "accuracy": "acc"}[title]
    assert [f"train_{key}", f"val_{key}"] == [name for name in columns if "_" in name and name != "learning_rate"]


def test_a_method_that_finds_no_step_ends_in_words(capsys, monkeypatch):
    """As when float32 does not see a first step; a trial of a search is a failed one."""
    optimize = pytest.importorskip("scipy.optimize")
    message = "Desired error not necessarily achieved due to precision loss."

    def minimize(f, start, **_):
        return optimize.OptimizeResult(x=start, nit=0, nfev=1, success=False, message=message, fun=f(start)[0])

    monkeypatch.setattr(optimize, "minimize", minimize)
    rng = np.random.default_rng(1)
    parts = {f"X_{part}": rng.standard_normal((60, 3)) for part in ("train", "val")}
    np.savez("large.npz", **parts, **{f"y_{part}": rng.standard_normal(60) for part in ("train", "val")})
    how = ["--data", "large.npz", "--loss", "mse", "--optimizer", "bfgs", "--epochs", "5", "--hidden", "4"]
    code, out, err = run("train", *how, "--out", "run", capsys=capsys)
    assert code == 0
    assert err.startswith("fcnet: bfgs made no iteration, and the network is as it was: no step lowered the l")
    assert err.count("\n") == 1
    assert "0 epochs, 0 steps in " in out
    assert "bfgs ended without success after 0 of 5 epochs: Desired error not nec" in out
    assert "try another --optimizer" in out
    last = out.splitlines()[-1]
    assert last.endswith(" (untrained: bfgs made no iteration)")
    assert run("evaluate", "run", capsys=capsys)[0] == 0
    assert run("train", *how, "--out", "run", "--force", "--quiet", capsys=capsys) == (0, f"{last}\n", "")
    pytest.importorskip("optuna")
    monkeypatch.setattr("fcnet.tools.search.searching.parameters_png", lambda *_: b"")
    code, out, err = run("search", *how, "--vary", "reg=0:1", "--trials", "1", "--out", "study", capsys=capsys)
    assert (code, err) == (1, "")
    assert "- failed; reg " in out
    assert "1 trial: 1 failed" in out
    assert "(bfgs made no iteration: Desired error" in out
    with open("study/trials.csv") as file:
        (row,) = csv.DictReader(file)
    assert (row["state"], row["value"], row["run"]) == ("failed", "", "")


@pytest.mark.parametrize(("figures", "value"), [([np.nan, 0.5, np.inf], 0.5), ([np.inf] * 3, None)])
def test_a_search_compares_finite_figures_alone(figures, value, capsys, monkeypatch):
    pytest.importorskip("optuna")
    scripted = iter([figure for figure in figures for _ in range(2)])  # of the training and the validation part
    monkeypatch.setattr("fcnet.training.solver.measure", lambda model, X, y, prepared: next(scripted))
    monkeypatch.setattr("fcnet.tools.search.searching.parameters_png", lambda *_: b"")
    how = ["--data", "houses.csv", "--target", "price", "--loss", "mse", "--epochs", "3", "--hidden", "4"]
    code, out, err = run("search", *how, "--vary", "lr=0.01:0.1", "--trials", "1", "--out", "study", capsys=capsys)
    assert (code, err) == (int(value is None), "")
    with open("study/trials.csv") as file:
        (row,) = csv.DictReader(file)
    assert row["value"] == ("" if value is None else str(value))
    assert (row["state"], row["best-epoch"]) == (("failed", "") if value is None else ("finished", "2"))
    assert ("best validation rmse 0.5000" if value else "was not finite in any epoch") in out
