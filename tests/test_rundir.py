"""Run directories when something goes wrong: a full disk, a second process, a kill, a signal."""

from __future__ import annotations

import errno
import os
import signal
import tomllib

import pytest

import fcnet
from fcnet import rundir
from fcnet.rundir import RunDirectory
from tests.small import blobs


def trained(out, epochs=2, seed=0, force=False):
    """A solver that has trained into the folder `out`; its run is written."""
    made = solver(out, epochs, seed, force)
    made.train()
    return made


def solver(out, epochs=2, seed=0, force=False):
    model = fcnet.FullyConnectedNet([5], 6, 3, device="cpu", seed=seed)
    return fcnet.Solver(model, blobs(n=60), num_epochs=epochs, verbose=False, out=out, force=force)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def full_at(monkeypatch, number):
    """The disk is full from the so-manieth file on."""
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
    monkeypatch.setattr(new.run, "begin", lambda _: full_at(monkeypatch, number))
    with pytest.raises(OSError, match="No space left") as caught:
        new.train()
    assert caught.value.filename == str(tmp_path / "run" / name)
    assert any("is kept" in note for note in caught.value.__notes__)
    assert contents(tmp_path / "run") == before


def test_a_full_disk_after_the_model_keeps_the_model(tmp_path, monkeypatch):
    new = solver(tmp_path / "run")
    full_at(monkeypatch, 2)
    with pytest.raises(OSError, match="No space left") as caught:
        new.train()
    assert "the trained model is in" in caught.value.__notes__[0]
    assert {"model.safetensors"} <= set(contents(tmp_path / "run")) <= {"model.safetensors", "config.toml"}
    fcnet.load(tmp_path / "run")


def test_a_full_disk_at_the_begin_leaves_no_folder(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    new = solver(tmp_path / "deep" / "run")
    monkeypatch.setattr(os, "ftruncate", full)
    with pytest.raises(OSError, match=r"No space left on device.*config\.toml"):
        new.train()
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_fails_costs_nothing(tmp_path, monkeypatch):
    def fail(_):
        raise RuntimeError("no fonts")

    monkeypatch.setattr(rundir, "curves_png", fail)
    run = trained(tmp_path / "run").run
    assert set(contents(tmp_path / "run")) == {"model.safetensors", "config.toml", "history.csv"}
    assert run.no_picture == "RuntimeError: no fonts"


def test_of_two_trainings_to_one_folder_the_second_is_refused(tmp_path):
    first, second = solver(tmp_path / "run"), solver(tmp_path / "run")
    first.run.begin(first)
    with pytest.raises(FileExistsError, match="is in use by another training; choose another folder"):
        second.train()
    third = solver(tmp_path / "run", force=True)
    with pytest.raises(FileExistsError, match="is in use by another training"):
        third.train()
    first.train()
    with pytest.raises(FileExistsError, match="is not empty"):
        second.train()
    fcnet.load(tmp_path / "run")


def test_what_a_killed_training_left_is_taken_over(tmp_path):
    killed = solver(tmp_path / "run")
    killed.run.begin(killed)
    (tmp_path / "run" / ".model.safetensors.1.tmp").write_bytes(b"half")
    killed.run._release()  # as the system does when a process ends
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


def test_control_c_while_writing_is_ignored(tmp_path, monkeypatch):
    save = rundir.save_model

    def interrupt(*arguments):
        signal.raise_signal(signal.SIGINT)
        save(*arguments)

    monkeypatch.setattr(rundir, "save_model", interrupt)
    trained(tmp_path / "run")
    fcnet.load(tmp_path / "run")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_empty_name_is_refused():
    with pytest.raises(ValueError, match="out: expected the name of a folder, got ''"):
        RunDirectory("")
