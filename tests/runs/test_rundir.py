"""Run directories when something goes wrong: a full disk, a second process, a kill, a signal."""

from __future__ import annotations

import errno
import os
import signal
import tomllib

import numpy as np
import pytest

import fcnet
from fcnet.functional import METRICS
from fcnet.runs import rundir
from fcnet.runs.options import read_toml
from fcnet.runs.record import Record
from fcnet.runs.rundir import RunDirectory
from tests import small
from tests.small import blobs, net


def trained(out, epochs=2, seed=0, force=False):
    """Return a solver that has trained into the folder `out`; its run is written."""
    made = solver(out, epochs, seed, force)
    made.train()
    return made


def solver(out, epochs=2, seed=0, force=False):
    model = fcnet.FullyConnectedNet([5], 6, 3, device="cpu", seed=seed)
    return fcnet.Solver(
        model, blobs(n=60), num_epochs=epochs, verbose=False, out=out, force=force, checkpoint_every=None
    )


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def full_at(monkeypatch, number):
    """Let the disk be full from the given file on."""
    count = 0
    real = os.fsync

    def fsync(descriptor):
        nonlocal count
        count += 1
        if count >= number:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize(("number", "name"), [(1, "model.safetensors"), (2, "config.toml"), (3, "history.csv")])
def test_a_full_disk_keeps_the_run_to_be_replaced(number, name, tmp_path, monkeypatch):
    trained(tmp_path / "run")
    before = contents(tmp_path / "run")
    new = solver(tmp_path / "run", seed=1, force=True)
    begin = new.run.begin
    monkeypatch.setattr(new.run, "begin", lambda options: (begin(options), full_at(monkeypatch, number)))
    with pytest.raises(OSError, match="No space left") as caught:
        new.train()
    assert os.path.basename(caught.value.filename) == name
    assert list(tmp_path.iterdir()) == [tmp_path / "run"]
    assert any("is kept" in note for note in caught.value.__notes__)
    assert contents(tmp_path / "run") == before


def test_a_full_disk_after_the_model_keeps_the_model(tmp_path, monkeypatch):
    new = solver(tmp_path / "run")
    begin = new.run.begin
    monkeypatch.setattr(new.run, "begin", lambda options: (begin(options), full_at(monkeypatch, 2)))
    with pytest.raises(OSError, match="No space left") as caught:
        new.train()
    assert "the trained model is in" in caught.value.__notes__[0]
    assert {"model.safetensors"} <= set(contents(tmp_path / "run")) <= {"model.safetensors", "config.toml"}
    fcnet.load(tmp_path / "run")


def test_a_full_disk_at_the_begin_leaves_no_folder(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    new = solver(tmp_path / "deep" / "run")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device.*config\.toml"):
        new.train()
    assert list(tmp_path.iterdir()) == []


def test_a_disk_too_full_for_the_lock_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    new = solver(tmp_path / "run")
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match=r"No space left on device.*run/\.lock"):
        new.train()
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_a_model_says_what_it_is(tmp_path):
    begun = solver(tmp_path / "run")
    begun.run.begin(begun.options())
    with pytest.raises(FileNotFoundError, match=r"found none in it yet; .* or fcnet resume .*run goes on with it"):
        fcnet.load(tmp_path / "run")


def test_a_picture_that_fails_costs_nothing(tmp_path, monkeypatch):
    def fail(_):
        raise RuntimeError("no fonts")

    monkeypatch.setattr(rundir, "curves_png", fail)
    run = trained(tmp_path / "run").run
    assert set(contents(tmp_path / "run")) == {"model.safetensors", "config.toml", "history.csv", "run.json"}
    assert run.no_picture == "RuntimeError: no fonts"


def test_of_two_trainings_to_one_folder_the_second_is_refused(tmp_path):
    first, second = solver(tmp_path / "run"), solver(tmp_path / "run")
    first.run.begin(first.options())
    with pytest.raises(FileExistsError, match=r"is in use by process \d+ on .*; choose another folder"):
        second.train()
    third = solver(tmp_path / "run", force=True)
    with pytest.raises(FileExistsError, match="is in use by process"):
        third.train()
    first.train()
    with pytest.raises(FileExistsError, match="is not empty"):
        second.train()
    fcnet.load(tmp_path / "run")


def test_force_replaces_runs_only(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.toml").write_text("of another program\n")
    with pytest.raises(FileExistsError, match=r"holds no run; choose another folder$"):
        trained(tmp_path / "mine", force=True)
    run = trained(tmp_path / "run").run.path
    run.chmod(0o750)
    before = contents(run)
    (run / "figures").mkdir()
    for here, out in ((run, "."), (run / "figures", "..")):  # a process would stand in a folder that is gone
        monkeypatch.chdir(here)
        with pytest.raises(FileExistsError, match=rf"current folder, .*\(cd {tmp_path}\)"):
            trained(out, force=True)
    (run / "figures").rmdir()
    assert contents(run) == before
    assert set(tmp_path.iterdir()) == {run, tmp_path / "mine"}
    monkeypatch.chdir(tmp_path)
    trained("run", force=True, seed=1)
    assert run.stat().st_mode & 0o777 == 0o750


def test_what_a_killed_training_left_is_taken_over(tmp_path):
    killed = solver(tmp_path / "run")
    killed.run.begin(killed.options())
    (tmp_path / "run" / ".model.safetensors.1.tmp").write_bytes(b"half")
    killed.run.release()  # as the system does when a process ends
    trained(tmp_path / "run")
    assert not [name for name in contents(tmp_path / "run") if name.startswith(".")]
    assert "unfinished" not in (tmp_path / "run" / "config.toml").read_text()


def test_a_configuration_of_the_users_own_is_no_unfinished_run(tmp_path):
    (tmp_path / "config.toml").write_text("# my experiment\nepochs = 3\n")
    with pytest.raises(FileExistsError, match="is not empty"):
        RunDirectory(tmp_path)


def test_training_again_goes_on_in_the_same_folder(tmp_path):
    made = trained(tmp_path / "run")
    made.num_epochs = 3
    made.train()
    assert tomllib.loads((tmp_path / "run/config.toml").read_text())["epochs"] == 3


def test_control_c_while_writing_comes_when_all_is_written(tmp_path, monkeypatch):
    made = solver(tmp_path / "run")
    saved = made.model.saved

    def interrupt():
        signal.raise_signal(signal.SIGINT)
        return saved()

    monkeypatch.setattr(made.model, "saved", interrupt)
    with pytest.raises(KeyboardInterrupt):
        made.train()
    assert set(contents(tmp_path / "run")) == {
        "model.safetensors",
        "config.toml",
        "history.csv",
        "curves.png",
        "run.json",
    }
    fcnet.load(tmp_path / "run")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_control_c_while_the_losses_are_read_comes_when_all_is_written(tmp_path, monkeypatch):
    made = solver(tmp_path / "run")
    record = made.record

    def interrupt():
        signal.raise_signal(signal.SIGINT)
        return record()

    monkeypatch.setattr(made, "record", interrupt)
    with pytest.raises(KeyboardInterrupt):
        made.train()
    fcnet.load(tmp_path / "run")


def test_a_full_disk_is_said_also_if_control_c_was_pressed(tmp_path, monkeypatch):
    made = solver(tmp_path / "run")

    def full():
        signal.raise_signal(signal.SIGINT)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(made.model, "saved", full)
    with pytest.raises(OSError, match="No space left"):
        made.train()


def test_an_empty_name_is_refused():
    with pytest.raises(ValueError, match="out: expected the name of a folder, got ''"):
        RunDirectory("")


class TestWhatNoOptionSays:
    """A training that was set up in Python is not run again as another by `fcnet train --config`."""

    def text(self, tmp_path, change=None, **options):
        one = small.solver(blobs(), num_epochs=1, out=tmp_path / "run", **options)
        if change is not None:
            change(one)
        one.train()
        return (tmp_path / "run" / "config.toml").read_text("utf-8")

    @pytest.mark.parametrize(
        ("options", "change", "told"),
        [
            ({"net_options": {"seed": 5}, "seed": 7}, None, "seed 5 of the network"),
            ({"update_rule": "momentum", "optim_config": {"momentum": 0.5}}, None, "momentum 0.5"),
            ({"update_rule": "lbfgs", "optim_config": {"history": 3}}, None, "history 3"),
            ({}, lambda one: one.model.params.__setitem__("b1", np.ones(8)), "parameters that are not the network's"),
            ({}, lambda one: [one.step() for _ in range(3)], "3 steps made before"),
        ],
        ids=["seed", "momentum", "history", "parameters", "steps"],
    )
    def test_is_told_and_refused(self, options, change, told, tmp_path):
        if "lbfgs" in options.values():
            pytest.importorskip("scipy")
        text = self.text(tmp_path, change, **options)
        (line,) = [line for line in text.splitlines() if line.startswith("made-in-python")]
        assert told in line
        with pytest.raises(ValueError, match=f"this training was set up in Python, with .*{told}.*; do it there again"):
            read_toml(tmp_path / "run" / "config.toml")

    def test_there_is_no_such_line_otherwise(self, tmp_path):
        text = self.text(tmp_path, seed=3, net_options={"seed": 3}, optim_config={"learning_rate": 0.5})
        assert "made-in-python" not in text
        read_toml(tmp_path / "run" / "config.toml")

    def test_networks_with_a_constructor_of_their_own(self, tmp_path):
        class Mine(fcnet.FullyConnectedNet):
            def __init__(self, width):
                super().__init__([width], 6, 3, device="cpu")

        for name, made in (("two", fcnet.TwoLayerNet(6, 5, 3, device="cpu")), ("mine", Mine(4))):
            fcnet.Solver(made, blobs(), num_epochs=1, verbose=False, out=tmp_path / name).train()
            assert "made-in-python" not in (tmp_path / name / "config.toml").read_text("utf-8")

    def test_weights_of_samples(self, tmp_path):
        ds = blobs()
        weighted = fcnet.data.Dataset(**{**vars(ds), "sample_weight": np.ones(130)})
        one = fcnet.Solver(net(ds), weighted, num_epochs=1, verbose=False, out=tmp_path / "run")
        one.train()
        assert "weights of the samples" in (tmp_path / "run" / "config.toml").read_text("utf-8")


@pytest.mark.parametrize(
    ("loss", "values", "title"),
    [
        ("mse", [180433.8288, 190000.0, 170000.25], "Rmse (best 1.7e+05, epoch 3)"),
        ("mse", [0.5, 0.4, 0.123456], "Rmse (best 0.12346, epoch 3)"),
        ("mse", [0.1, 0.4, 0.6], "Rmse (best 0.6, epoch 3)"),  # into the corner where most such curves leave room
        ("bce", [0.5, 0.6, 0.98765432], "Label accuracy (best 0.98765, epoch 1000)"),
    ],
)
def test_the_picture_has_room_for_its_words(loss, values, title, curves, monkeypatch):
    figures = pytest.importorskip("matplotlib.figure")
    drawn, save = [], figures.Figure.savefig
    monkeypatch.setattr(figures.Figure, "savefig", lambda self, *a, **k: (drawn.append(self), save(self, *a, **k)))
    last = 1000 if loss == "bce" else 3
    record = Record(
        model=lambda: b"", options={}, history=[{"epoch": epoch, "loss": 1.0} for epoch in (1, 2, last)],
        losses=[3.0, 2.0, 1.0], metric=METRICS[loss].title, train_metric=values, val_metric=values,
        best=(last, values[-1]), interrupted=None,
    )  # fmt: skip
    rundir.curves_png(record)
    (figure,) = drawn
    right = figure.axes[1]
    assert right.get_title() == title
    for text in (right.title, figure.axes[0].title):
        box = text.get_window_extent()
        assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    legend = right.get_legend()
    assert "best validation" in [text.get_text() for text in legend.get_texts()]
    box, axes = legend.get_window_extent(), right.transData
    for x, y in zip((1, 2, last), values, strict=True):
        assert not box.contains(*axes.transform((x, y)))


def test_the_losses_of_an_epoch_cut_short_lie_beyond_the_last_one(curves, monkeypatch):
    figures = pytest.importorskip("matplotlib.figure")
    drawn, save = [], figures.Figure.savefig
    monkeypatch.setattr(figures.Figure, "savefig", lambda self, *a, **k: (drawn.append(self), save(self, *a, **k)))
    rows = [{"epoch": epoch, "step": 2 * epoch, "loss": 1.0} for epoch in (1, 2)]
    record = Record(
        model=lambda: b"", options={}, history=rows, losses=[3.0, 2.0, 1.0, 1.0, 1.0], metric="rmse",
        train_metric=[1, 1], val_metric=[1, 1], best=(1, 1.0), interrupted="interrupted after epoch 2 of 9",
    )  # fmt: skip
    rundir.curves_png(record)
    assert list(drawn[0].axes[0].lines[0].get_xdata()) == [0.5, 1.0, 1.5, 2.0, 2.5]
