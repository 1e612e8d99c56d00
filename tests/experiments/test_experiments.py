"""The courses' experiments: their numbers on every device, their pictures, and the command."""

from __future__ import annotations

import csv
import functools
import io
import os
import sys

import numpy as np
import pytest

from fcnet.cli import main
from fcnet.errors import no_picture
from fcnet.experiments import EXPERIMENTS, Settings, training
from fcnet.experiments.base import Table
from fcnet.experiments.hyperparameter_search import parameters
from tests.test_progress import Terminal

NAMES = [
    "optimizer-paths",
    "optimizer-comparison",
    "activation-histograms",
    "init-comparison",
    "batchnorm-gradients",
    "batchnorm-scales",
    "weight-decay",
    "dropout",
    "depth-sensitivity",
    "hyperparameter-search",
]
TRAINED = [name for name in NAMES if name not in ("optimizer-paths", "activation-histograms", "batchnorm-gradients")]


def quick(name: str, device: str = "cpu", seed: int = 0) -> Table:
    return EXPERIMENTS[name].run(Settings(device=device, seed=seed, quick=True))


@functools.cache
def on_the_cpu(name: str) -> Table:
    """Return an experiment's table, made once for all tests of this process."""
    return quick(name)


def test_names():
    assert list(EXPERIMENTS) == NAMES


def test_optimizer_paths_end_where_the_book_has_them(backend):
    table = quick("optimizer-paths", backend.name)
    assert table.findings == [
        "SGD ends at (-0.350393, 0.084782)",
        "Momentum ends at (0.896414, 0.088086)",
        "AdaGrad ends at (-0.120162, 0.000000)",
        "Adam ends at (0.136007, 0.318245)",
    ]
    assert len(table.rows) == 4 * 31
    assert set(table.where(update=0).column("x")) == {-7.0}
    for _, _, x, y, f in table.rows:
        assert f == pytest.approx(x * x / 20 + y * y, rel=1e-12)


ROWS = {
    "optimizer-comparison": 4 * 30,
    "activation-histograms": 12 * 5,
    "init-comparison": 3 * 30,
    "batchnorm-gradients": 10,
    "batchnorm-scales": 3 * 2 * 2,
    "weight-decay": 2 * 3,
    "dropout": 3 * 3,
    "depth-sensitivity": 2 * 3 * 2,
    "hyperparameter-search": 4 * 2,
}


@pytest.mark.parametrize("name", NAMES[1:])
def test_the_numbers_on_each_device(name, backend):
    table = on_the_cpu(name) if backend.name == "cpu" else quick(name, backend.name)
    assert len(table.rows) == ROWS[name]
    assert table.findings
    for column in ("train_acc", "test_acc", "val_acc"):
        if column in table.columns:
            values = table.column(column)
            assert all(0 <= value <= 1 for value in values)
            assert len(set(values)) > 1, "something is learned or not"
    if backend.name == "guard":  # the reference's own bits
        assert table.csv() == quick(name).csv()


@pytest.mark.parametrize("name", NAMES[1:])
def test_a_seed_repeats_an_experiment(name):
    first = on_the_cpu(name).csv()
    assert quick(name).csv() == first
    assert quick(name, seed=4).csv() != first


@pytest.fixture
def setups(monkeypatch):
    """Return the keywords of the networks and solvers that an experiment makes, in order."""
    made = []

    class Net(training.FullyConnectedNet):
        def __init__(self, hidden, *sizes, **options):
            made.append([hidden, options])
            super().__init__(hidden, *sizes, **options)

    class Solver(training.Solver):
        def __init__(self, model, data, **options):
            made[-1].append(options)
            super().__init__(model, data, **options)

    monkeypatch.setattr(training, "FullyConnectedNet", Net)
    monkeypatch.setattr(training, "Solver", Solver)
    return made


def chosen(setups, *names):
    """Of each setup the depth and these options, of the network or the solver."""
    return [(len(hidden), *((net | solver).get(name) for name in names)) for hidden, net, solver in setups]


def test_what_is_compared(setups):
    quick("optimizer-comparison")
    assert {tuple(hidden) for hidden, _, _ in setups} == {(100, 100, 100, 100)}
    rules = ["sgd", "momentum", "adagrad", "adam"]
    assert chosen(setups, "update_rule", "batch_size") == [(4, rule, 128) for rule in rules]
    assert [config["learning_rate"] for _, config in chosen(setups, "optim_config")] == [0.01, 0.01, 0.01, 0.001]
    setups.clear()
    quick("init-comparison")
    starts = [(0.01, None), (None, "xavier"), (None, "he")]
    assert chosen(setups, "weight_scale", "init", "update_rule") == [(4, *start, "sgd") for start in starts]
    setups.clear()
    quick("batchnorm-scales")
    scales = [scale for scale in (1.0, 0.01, 0.0001) for _ in range(2)]
    norms = ["batchnorm", None] * 3
    expected = [(5, scale, norm, 100) for scale, norm in zip(scales, norms, strict=True)]
    assert chosen(setups, "weight_scale", "normalization", "batch_size") == expected
    setups.clear()
    quick("weight-decay")
    quick("dropout")
    expected = [(6, 0.0, None, None), (6, 0.1, None, None)]
    expected += [(6, None, 1.0, None), (6, None, 0.8, "plain"), (6, None, 0.8, None)]
    assert chosen(setups, "reg", "dropout_keep_ratio", "dropout") == expected
    setups.clear()
    quick("depth-sensitivity")
    assert [depth + 1 for (depth,) in chosen(setups)] == [3] * 6 + [5] * 6
    setups.clear()
    quick("hyperparameter-search", seed=2)
    rates = [(parameters(2, trial)[0], parameters(2, trial)[1]) for trial in range(1, 5)]
    made = [(config["learning_rate"], reg) for _, config, reg in chosen(setups, "optim_config", "reg")]
    assert made == rates


def test_all_optimizers_start_alike():
    table = quick("optimizer-comparison")
    first, last = table.where(step=1).column("loss"), table.where(step=30).column("loss")
    assert first == [first[0]] * 4
    assert len(set(last)) == 4
    assert max(last) < first[0]


def test_weight_decay_counts_in_the_loss_only_while_training():
    """The two nets differ after the first epoch, so the option reaches the training."""
    table = quick("weight-decay")
    plain, decayed = (table.where(weight_decay=name) for name in table.values("weight_decay"))
    assert plain.column("train_acc") != decayed.column("train_acc")


def test_random_parameters_are_log_uniform():
    rates, decays = np.log10([parameters(0, trial) for trial in range(2000)]).T
    for values, low, high in ((rates, -6, -2), (decays, -8, -4)):
        assert low <= values.min() < low + 0.1
        assert high - 0.1 < values.max() <= high
        quarters, _ = np.histogram(values, 4, (low, high))
        np.testing.assert_allclose(quarters, 500, atol=80)
    assert abs(np.corrcoef(rates, decays)[0, 1]) < 0.1


def test_activations_shrink_grow_or_keep_their_size():
    table = quick("activation-histograms")

    def stds(activation, init):
        return np.array(table.where(activation=activation, init=init).column("std"))

    np.testing.assert_allclose(stds("tanh", "std 0.01")[1:] / stds("tanh", "std 0.01")[:-1], 0.1, rtol=0.1)
    assert stds("relu", "std 1")[4] > 1e4
    assert stds("relu", "std 0.01")[4] < 1e-5
    assert stds("relu", "Xavier")[4] < 0.3 * stds("relu", "Xavier")[0]
    he = table.where(activation="relu", init="He")
    squares = np.array(he.column("mean")) ** 2 + np.array(he.column("std")) ** 2
    np.testing.assert_allclose(squares, 1, atol=0.4)  # He keeps the mean square of the inputs
    saturated = table.where(activation="sigmoid", init="std 1").column("dead_or_saturated")
    # sigmoid(z) is within 0.01 of an end where |z| > 4.6; z has standard deviation 10 at first.
    assert saturated[0] == pytest.approx(0.646, abs=0.01)
    assert min(saturated) > 0.4
    assert max(table.where(activation="sigmoid", init="std 0.01").column("dead_or_saturated")) == 0
    for row in table.where(activation="tanh").rows:
        assert sum(row[table.columns.index("count_0") :]) == 100_000
    for row in table.where(activation="relu").rows:  # none grows or shrinks out of the picture
        counted, zero = sum(row[table.columns.index("count_0") :]), row[table.columns.index("zero")]
        assert counted > 0.99 * (1 - zero) * 100_000
    for row in he.rows:
        assert 0.4 < row[table.columns.index("zero")] < 0.6


@pytest.mark.parametrize("seed", range(3))
def test_gradients_with_batch_norm_agree(seed):
    table = quick("batchnorm-gradients", seed=seed)
    assert table.column("parameter") == ["W1", "b1", "gamma1", "beta1", "W2", "b2", "gamma2", "beta2", "W3", "b3"]
    for name, count, gradient, difference, largest in table.rows:
        assert count == (10 if name == "b3" else 20)
        assert (gradient == 0) == (name in ("b1", "b2")), "batch norm takes these biases off"
        assert gradient == 0 or gradient > 1e-4
        assert difference < 5e-11, name
        assert largest < 1e-9, name


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not os.environ.get("FCNET_DATA"), reason="$FCNET_DATA is not set")
def test_what_the_courses_say_holds_on_mnist():
    def losses(name, column):
        table = EXPERIMENTS[name].run(Settings(device="cpu"))
        assert len(table.rows) == 2000 * len(table.values(column))
        return [np.mean(table.where(**{column: value}).column("loss")[-100:]) for value in table.values(column)]

    sgd, momentum, adagrad, adam = losses("optimizer-comparison", "optimizer")
    assert max(momentum, adagrad, adam) < 0.5 * sgd
    small, xavier, he = losses("init-comparison", "initial weights")
    assert he < xavier < 0.5 < 2 < small
    table = EXPERIMENTS["batchnorm-scales"].run(Settings(device="cpu"))
    assert len(table.values("weight_scale")) == 16
    good = {name: sum(acc > 0.5 for acc in table.where(net=name, epoch=20).column("train_acc"))
            for name in table.values("net")}  # fmt: skip
    assert good["with batch norm"] >= 10 > 5 > good["without"]
    table = EXPERIMENTS["depth-sensitivity"].run(Settings(device="cpu"))
    three, five = (int(finding.split()[-6]) for finding in table.findings)
    assert three > five
    for name in ("weight-decay", "dropout"):
        table = EXPERIMENTS[name].run(Settings(device="cpu"))
        last = [table.where(**{name.replace("-", "_"): net}).rows[-1] for net in table.values(table.columns[0])]
        (_, _, train, test), (_, _, remedied, on_test) = last[:2]
        assert train == 1, "without a remedy all images are learned by heart"
        assert remedied < 0.95
        assert remedied - on_test < train - test - 0.05


# The command


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch, request):
    if "slow" not in request.keywords:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.delenv("FCNET_DATA", raising=False)


@pytest.fixture
def no_matplotlib(monkeypatch):
    for module in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "matplotlib", None)


def run(*arguments, capsys) -> tuple[int, list[str], str]:
    code = main(["experiment", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out.splitlines(), err


def fails(*arguments, capsys) -> str:
    code, out, err = run(*arguments, capsys=capsys)
    assert (code, out) == (2, [])
    assert err.count("\n") == 1
    return err


def test_without_a_name_they_are_listed(capsys):
    code, lines, _ = run(capsys=capsys)
    assert code == 0
    assert [line.split()[0] for line in lines] == NAMES
    assert all(len(line.split()) > 5 for line in lines)


def test_results_go_to_fresh_folders(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    for number in (1, 2):
        code, lines, err = run("optimizer-paths", "--device", "cpu", capsys=capsys)
        assert (code, err) == (0, "")
        folder = tmp_path / "runs" / f"optimizer-paths-000{number}"
        assert lines[0] == "SGD ends at (-0.350393, 0.084782)"
        assert lines[-1] == f"wrote {folder.relative_to(tmp_path)}: optimizer-paths.csv, optimizer-paths.png"
        assert {path.name for path in folder.iterdir()} == {"optimizer-paths.csv", "optimizer-paths.png"}
    rows = list(csv.DictReader(io.StringIO((folder / "optimizer-paths.csv").read_text())))
    assert rows[-1]["optimizer"] == "Adam"
    assert f"{float(rows[-1]['x']):.6f}" == "0.136007"


def test_several_share_a_folder_and_none_is_overwritten(tmp_path, capsys):
    assert run("dropout", "--quick", "--out", "a/b", "--quiet", capsys=capsys)[0] == 0
    assert run("optimizer-paths", "--out", "a/b", "--quiet", capsys=capsys)[0] == 0
    before = (tmp_path / "a/b/dropout.csv").read_bytes()
    err = fails("dropout", "--quick", "--out", "a/b", "--seed", "1", capsys=capsys)
    assert "--out: a/b/dropout.csv is there already" in err
    assert "--force" in err
    assert (tmp_path / "a/b/dropout.csv").read_bytes() == before
    assert run("dropout", "--quick", "--out", "a/b", "--seed", "1", "--force", capsys=capsys)[0] == 0
    assert (tmp_path / "a/b/dropout.csv").read_bytes() != before


def test_quiet(capsys):
    _, lines, err = run("optimizer-paths", "--quiet", capsys=capsys)
    assert len(lines) == 1
    assert lines[0].startswith("wrote runs/optimizer-paths-0001: ")
    assert err == ""


def test_without_matplotlib_there_is_the_table(tmp_path, no_matplotlib, capsys):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/optimizer-paths.png").write_bytes(b"of an earlier run")
    _, lines, _ = run("optimizer-paths", "--out", "a", "--force", capsys=capsys)
    assert lines[-2:] == [
        f"no picture: {no_picture()}",
        "wrote a: optimizer-paths.csv",
    ]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["optimizer-paths.csv"]


def test_bad_input(tmp_path, capsys):
    err = fails("optimizer-path", capsys=capsys)
    assert "experiment: expected one of optimizer-paths, " in err
    assert "did you mean 'optimizer-paths'?" in err
    assert "--device: expected" in fails("dropout", "--device", "gpu", capsys=capsys)
    assert "--seed: expected 0 to 2**64 - 1, got -1" in fails("dropout", "--seed", "-1", capsys=capsys)
    assert "--seed: expected an integer, got 'x'" in fails("dropout", "--seed", "x", capsys=capsys)
    assert "did you mean --quick?" in fails("dropout", "--quik", capsys=capsys)
    assert "--out: expected the name of a folder" in fails("dropout", "--out", "", capsys=capsys)
    (tmp_path / "file").touch()
    assert "--out: expected a folder for the results, got the file" in fails("dropout", "--out", "file", capsys=capsys)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"], "nothing is left behind"


def test_without_the_data_it_says_how_to_get_them(tmp_path, capsys):
    assert "--data-dir: expected a folder" in fails("weight-decay", "--data-dir", "nowhere", capsys=capsys)
    (tmp_path / "empty").mkdir()
    err = fails("weight-decay", "--data-dir", "empty", "--out", "new/folder", capsys=capsys)
    assert "fcnet fetch mnist" in err
    assert not (tmp_path / "new").exists()


def test_interrupted(tmp_path, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(training.Solver, "step", interrupt)
    code, lines, err = run("dropout", "--quick", capsys=capsys)
    assert (code, lines, err) == (130, [], "fcnet: interrupted\n")
    assert list(tmp_path.glob("runs/*")) == []


def test_a_bar_on_a_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("COLUMNS", "80")
    settings = Settings(device="cpu", quick=True, verbose=True, title="dropout")
    EXPERIMENTS["dropout"].run(settings)
    last = sys.stderr.getvalue().rstrip("\n").split("\r")[-1]
    assert last.startswith("dropout on cpu 100%|####")
