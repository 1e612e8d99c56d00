"""A training that was cut short goes on with the bits of the same training that was not."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest

import fcnet
from fcnet.cli import main
from fcnet.errors import TrainingWarning
from fcnet.optim import RULES
from fcnet.runs import rundir
from fcnet.runs.checkpoints import Checkpoints
from fcnet.runs.rundir import RunDirectory
from fcnet.training import checkpointing
from fcnet.training.checkpointing import parse_every
from fcnet.training.state import capture
from tests.small import blobs, net

FIXTURES = Path(__file__).parent / "fixtures"
ROOT = Path(__file__).parent.parent.parent


class Stop(Exception):
    pass


def make(out=None, epochs=3, net_options=None, **options):
    how = {"batch_size": 50, "num_epochs": epochs, "verbose": False, "checkpoint_every": "1h"} | options
    return fcnet.Solver(net(blobs(), **(net_options or {})), blobs(), out=out, **how)


def stopped(solver, step):
    """Train until so many steps are made, where a checkpoint is written; nothing after it is."""

    def between():
        if solver.steps == step:
            solver.checkpoint()
            raise Stop

    solver._between_steps = between
    solver._end_checkpoints = lambda **_: None
    with pytest.raises(Stop):
        solver.train()


def bits(solver):
    """All that a training leaves, but for the seconds."""
    moments = solver.optimizer.moments.values() if solver.full_batch is None else ()
    return {
        "params": solver.model.params.flat.tobytes(),
        "state": solver.model.state.flat.tobytes(),
        "moments": [moment.flat.tobytes() for moment in moments],
        "losses": solver.loss_history,
        "history": [{name: value for name, value in row.items() if name != "seconds"} for row in solver.history],
        "best": (solver.best_epoch, solver.best_val_metric),
        "predictions": solver.model.scores(blobs().X_test).tobytes(),
    }


CASES = {
    "batch norm, dropout": {"net_options": {"normalization": "batchnorm", "dropout_keep_ratio": 0.7}},
    "cosine, clipping": {"schedule": "cosine", "schedule_config": {"per": "step", "warmup": 2}, "clip_norm": 1.0},
    "decay, weights": {"lr_decay": 0.9, "lr_multipliers": {1: 0.5}, "class_weight": "balanced"},
    "early stopping": {"patience": 1, "update_rule": "sgd", "optim_config": {"learning_rate": 1e-9}},
    **{rule: {"update_rule": rule} for rule in RULES},
}


@pytest.mark.parametrize("kernels", ["0", "1"])
@pytest.mark.parametrize("case", CASES)
def test_the_same_bits_from_any_step(case, kernels, tmp_path, monkeypatch, request):
    if kernels == "1":
        request.getfixturevalue("cpu_kernels")
    options = {"update_rule": "adam"} | CASES[case]
    whole = make(**options)
    whole.train()
    steps = range(1, whole.steps) if case == "batch norm, dropout" else (1, 3, 5)
    for step in steps:
        if step >= whole.steps:
            continue
        out = tmp_path / str(step)
        stopped(make(out, **options), step)
        again = fcnet.Solver.resume(out, data=blobs(), verbose=False)
        assert again.steps == step
        again.train()
        assert bits(again) == bits(whole)
        assert rundir.is_finished(out)
        fcnet.load(out)


@pytest.mark.parametrize("rule", ["lbfgs", "bfgs"])
def test_full_batch_rules_go_on_with_the_same_bits(rule, tmp_path):
    pytest.importorskip("scipy")
    options = {"update_rule": rule, "batch_size": None, "epochs": 6, "net_options": {"normalization": "batchnorm"}}
    whole = make(**options)
    whole.train()
    for step in (1, 4):
        stopped(make(tmp_path / str(step), **options), step)
        again = fcnet.Solver.resume(tmp_path / str(step), data=blobs(), verbose=False)
        assert again.steps == step
        again.train()
        assert bits(again) == bits(whole)


def test_a_run_made_longer_is_one_that_was_to_be_so_long(tmp_path):
    make(tmp_path / "run", epochs=2).train()
    longer = fcnet.Solver.resume(tmp_path / "run", data=blobs(), extend=3, verbose=False)
    longer.train()
    whole = make(epochs=5)
    whole.train()
    assert bits(longer) == bits(whole)
    assert "epochs = 5" in (tmp_path / "run" / "config.toml").read_text()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"schedule": "cosine"}, "the schedule was made for 3 epochs; those that are added have the learning rate 0;"),
        (
            {"patience": 1, "update_rule": "sgd", "optim_config": {"learning_rate": 1e-9}},
            "with a patience of more than 1",
        ),
    ],
)
def test_an_extension_that_would_not_train_is_said(options, told, tmp_path):
    make(tmp_path / "run", **options).train()
    with pytest.warns(TrainingWarning, match=told):
        fcnet.Solver.resume(tmp_path / "run", data=blobs(), extend=2, verbose=False)


# What was changed


def changed(**arrays):
    return fcnet.data.Dataset(**{**vars(blobs()), **arrays})


@pytest.mark.parametrize("name", ["X_train", "y_val", "X_test", "sample_weight"])
def test_other_data_are_refused_by_name(name, tmp_path):
    stopped(make(tmp_path / "run"), 2)
    array = np.ones(130) if name == "sample_weight" else getattr(blobs(), name).copy()
    array[0] = array[1]
    with pytest.raises(ValueError, match=f"data: {name}: expected the array that the training began with"):
        fcnet.Solver.resume(tmp_path / "run", data=changed(**{name: array}))
    fcnet.Solver.resume(tmp_path / "run", data=blobs(), verbose=False).train()  # and the lock is free


def test_arrays_that_no_file_holds_are_asked_for(tmp_path):
    stopped(make(tmp_path / "run"), 2)
    with pytest.raises(ValueError, match=r"data: the training had arrays of its own .* give them again"):
        fcnet.Solver.resume(tmp_path / "run")


def test_a_changed_configuration_is_refused_by_name(tmp_path, capsys):
    stopped(make(tmp_path / "run"), 2)
    config = tmp_path / "run" / "config.toml"
    text = config.read_text()
    config.write_text(text.replace("batch-size = 50", "batch-size = 51"))
    with pytest.raises(ValueError, match="batch-size: expected 50, with which the training began, got 51"):
        fcnet.Solver.resume(tmp_path / "run", data=blobs())
    config.write_text(text.replace("epochs = 3", "epochs = 9"))
    with pytest.raises(ValueError, match=r"epochs: expected 3.*--extend is for more epochs"):
        fcnet.Solver.resume(tmp_path / "run", data=blobs())


def half(step):
    return 0.5 if step > 1 else 1.0


def test_a_captured_state_is_not_changed_by_the_steps_that_follow():
    """It is written, or gone back to, later."""
    solver, found = make(), []

    def between():
        state = capture(solver)
        found.append(
            (state, json.dumps(state.description), {name: part.tobytes() for name, part in state.tensors.items()})
        )

    solver._between_steps = between
    solver.train()
    for state, description, tensors in found:
        assert json.dumps(state.description) == description
        assert {name: part.tobytes() for name, part in state.tensors.items()} == tensors


def test_functions_are_given_again_and_that_is_said(tmp_path):
    whole = make(schedule=half)
    whole.train()
    stopped(make(tmp_path / "run", schedule=half), 4)
    with pytest.raises(ValueError, match=r"schedule: expected the function .* half, which no file holds"):
        fcnet.Solver.resume(tmp_path / "run", data=blobs())
    called = []
    with pytest.warns(TrainingWarning, match="cannot be checked"):
        again = fcnet.Solver.resume(
            tmp_path / "run", data=blobs(), schedule=half, after_epoch=lambda: called.append(1), verbose=False
        )
    again.train()
    assert bits(again) == bits(whole)
    assert len(called) == 2


def test_another_machine_is_said(tmp_path, monkeypatch):
    stopped(make(tmp_path / "run"), 2)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    with pytest.warns(TrainingWarning, match=r"OPENBLAS_NUM_THREADS is 7, was .*equal to rounding"):
        fcnet.Solver.resume(tmp_path / "run", data=blobs(), verbose=False).train()


# What ends a training


def test_a_callback_that_raises_keeps_the_best_model(tmp_path):
    solver = make(tmp_path / "run")

    def fail():
        if solver.epoch == 2:
            raise Stop

    solver.after_epoch = fail
    with pytest.raises(Stop) as caught:
        solver.train()
    assert any("the best model so far, of epoch" in note for note in caught.value.__notes__)
    fcnet.load(tmp_path / "run")
    assert not rundir.is_finished(tmp_path / "run")
    assert "interrupted after epoch 2 of 3" in (tmp_path / "run" / "config.toml").read_text()
    again = fcnet.Solver.resume(tmp_path / "run", data=blobs(), verbose=False)
    again.train()
    whole = make()
    whole.train()
    assert bits(again) == bits(whole)


def diverging(out, **options):
    """Return a training whose loss is not finite in its second epoch, with the rate that it begins with."""
    solver = make(out, update_rule="sgd", optim_config={"learning_rate": 0.1}, epochs=4, **options)
    real = solver._record_epoch

    def record(sizes):
        real(sizes)
        if solver.epoch == 1:
            solver.optimizer.learning_rate = 1e30

    solver._record_epoch = record
    return solver


def test_a_divergence_keeps_the_best_model_and_writes_no_bad_checkpoint(tmp_path):
    with np.errstate(all="ignore"), pytest.raises(fcnet.DivergedError) as caught:
        diverging(tmp_path / "run", checkpoint_every=1).train()
    assert any("epoch 1" in note for note in caught.value.__notes__)
    assert np.isfinite(fcnet.load(tmp_path / "run").params["W1"]).all()
    found = Checkpoints(tmp_path / "run" / "checkpoints").newest()
    assert found is None or all(np.isfinite(tensor).all() for tensor in found[1].values())


def test_rolling_back_goes_on_with_a_smaller_rate(tmp_path):
    solver = make(tmp_path / "run", update_rule="sgd", on_nonfinite="rollback", optim_config={"learning_rate": 1.0})
    check = solver._check_finite

    def diverge(since):
        check(since)
        if solver.epoch == 2 and solver.optimizer.learning_rate > 0.3:
            raise fcnet.DivergedError("as if")

    solver._check_finite = diverge
    solver._between_steps = lambda: (solver.checkpoint(), setattr(solver, "_good", capture(solver)))
    solver.train()
    assert [row["learning_rate"] for row in solver.history] == [1.0, 0.25, 0.25]
    assert solver.steps == 9
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps() == [9]


def test_rolling_back_has_an_end():
    solver = make(update_rule="sgd", optim_config={"learning_rate": 1e300}, on_nonfinite="rollback")
    with np.errstate(all="ignore"), pytest.raises(fcnet.DivergedError) as caught:
        solver.train()
    assert any("10 times" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("thread", ["begun", "none"])
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (RuntimeError("of a kind nobody thought of"), "RuntimeError: of a kind nobody thought of"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_what_fails_in_the_writers_thread_is_said_and_the_training_goes_on(error, told, thread, tmp_path, monkeypatch):
    solver = make(tmp_path / "run", epochs=2, checkpoint_every=3)
    monkeypatch.setattr(checkpointing, "SHARE", 1e9)
    real, by = Checkpoints.write, []

    def fail(self, step, *rest):
        by.append(threading.current_thread())
        if step > 3:
            raise error
        real(self, step, *rest)

    def no_thread(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Checkpoints, "write", fail)
    if thread == "none":
        monkeypatch.setattr(threading.Thread, "start", no_thread)
    with pytest.warns(TrainingWarning, match=rf"could not be written \({told}\); that of step 3 stays"):
        solver.train()
    assert (by[0] is threading.main_thread()) == (thread == "none")
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps() == [3]
    assert rundir.is_finished(tmp_path / "run")


# The folder


def test_the_last_ones_are_kept_and_a_damaged_one_is_passed_over(tmp_path):
    solver = make(tmp_path / "run", keep=2)
    solver._between_steps = lambda: solver.checkpoint()
    solver._end_checkpoints = lambda **_: None
    solver.train()
    folder = Checkpoints(tmp_path / "run" / "checkpoints")
    assert folder.steps() == [8, 9]
    data = bytearray(folder.path(9).read_bytes())
    data[-1] ^= 1
    folder.path(9).write_bytes(data)
    with pytest.warns(TrainingWarning, match="the one before, of step 8, takes its place"):
        again = fcnet.Solver.resume(tmp_path / "run", data=blobs(), verbose=False)
    again.train()
    assert again.steps == 9


def test_one_process_at_a_time_and_another_host_is_never_taken_over(tmp_path):
    stopped(make(tmp_path / "run"), 2)
    held = RunDirectory.to_go_on(tmp_path / "run")
    with pytest.raises(FileExistsError, match=f"in use by process {os.getpid()} on "):
        fcnet.Solver.resume(tmp_path / "run", data=blobs())
    held.release()
    (tmp_path / "run" / ".lock").write_text(json.dumps({"pid": 1, "host": "elsewhere"}))
    with pytest.raises(FileExistsError, match=r"process 1 on elsewhere; if that has ended, delete .*\.lock"):
        fcnet.Solver.resume(tmp_path / "run", data=blobs())


def test_a_whole_model_that_a_killed_process_left_is_adopted_and_a_torn_one_removed(tmp_path):
    run = tmp_path / "run"
    stopped(make(run), 2)
    make().model.save(tmp_path / "model")
    whole = (tmp_path / "model").read_bytes()
    (run / "model.safetensors").unlink(missing_ok=True)
    (run / ".model.safetensors.1.tmp").write_bytes(whole[:-1])
    (run / ".model.safetensors.2.tmp").write_bytes(whole)
    with pytest.raises(FileExistsError):
        make(run)
    RunDirectory.to_go_on(run).release()
    assert (run / "model.safetensors").read_bytes() == whole
    assert not list(run.glob("*.tmp"))


@pytest.mark.parametrize("length", [0, 1, 20])
def test_a_configuration_that_was_cut_does_not_block_the_folder(length, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").write_text(rundir.UNFINISHED[:length])
    make(tmp_path / "run", epochs=1).train()


def test_force_takes_the_place_by_one_rename_and_keeps_what_is_the_users(tmp_path):
    run = tmp_path / "run"
    make(run, epochs=1).train()
    (run / "notes.txt").write_text("mine")
    before = (run / "history.csv").read_bytes()
    new = make(run, epochs=2, force=True)
    new.after_epoch = lambda: seen.append((run / "history.csv").read_bytes())
    seen = []
    new.train()
    assert seen == [before, before]
    assert len((run / "history.csv").read_text().splitlines()) == 3
    assert (run / "notes.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert not list(run.glob(".*"))


def test_two_with_force_at_once(tmp_path):
    run = tmp_path / "run"
    make(run, epochs=1).train()
    first, second = make(run, force=True), make(run, force=True)
    first.run.begin(first.options())
    with pytest.raises(FileExistsError, match="in use by process"):
        second.train()
    first.train()


def test_a_forced_training_that_was_killed_goes_on_and_the_old_run_stays_until_then(tmp_path):
    run = tmp_path / "run"
    make(run, epochs=1).train()
    new = make(run, epochs=3, force=True)
    new.run.write = lambda _: new.run.release()
    stopped(new, 4)
    assert rundir.is_finished(run)
    again = fcnet.Solver.resume(run, data=blobs(), verbose=False)
    assert again.steps == 4
    again.train()
    assert len((run / "history.csv").read_text().splitlines()) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_forced_training_that_was_killed_when_all_was_written_takes_the_place(tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    make(run, epochs=1).train()
    new = make(run, epochs=3, force=True)
    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "_replace", lambda self: (_ for _ in ()).throw(Stop))
        with pytest.raises(Stop):
            new.train()
    assert len((run / "history.csv").read_text().splitlines()) == 2
    assert main(["resume", str(run)]) == 0
    said = capsys.readouterr()
    assert "finished, 3 epochs" in said.out
    if importlib.util.find_spec("matplotlib") is not None:  # what it was trained on is no file
        assert said.err.startswith("fcnet: no report.html: data: expected one of")
    assert len((run / "history.csv").read_text().splitlines()) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


# The command line, and what 0.1.0 wrote

KILLED = """
import os, signal, sys
import fcnet.training.solver as solver
from fcnet.cli import main
real = solver.Solver._make_steps
def make(self, most):
    if self.steps == int(sys.argv[1]):
        if int(sys.argv[2]):
            self.checkpoint()
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, most)
solver.Solver._make_steps = make
sys.exit(main(sys.argv[3:]))
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_killed_and_resumed_from_the_command_line(tmp_path, capsys):
    train = ["train", "--data", str(FIXTURES / "flowers.csv"), "--target", "kind", "--hidden", "4", "--epochs", "5"]
    train += ["--batch-size", "8", "--device", "cpu", "--quiet", "--out"]
    assert main([*train, str(tmp_path / "whole")]) == 0
    for step, written in ((0, 0), (13, 1)):
        run = tmp_path / f"at {step}"
        killed = subprocess.run(
            [sys.executable, "-c", KILLED, str(step), str(written), *train, str(run)], capture_output=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert killed.returncode == -9, killed.stderr
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TrainingWarning)  # whatever threads the tests have
            assert main(["resume", str(run), "--quiet"]) == 0
        assert (run / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()
        assert "test accuracy" in capsys.readouterr().out.splitlines()[-1]
        assert main(["resume", str(run)]) == 0
        assert "finished, 5 epochs" in capsys.readouterr().out
    assert main(["resume", str(run), "--extend", "2", "--quiet"]) == 0
    assert len((run / "history.csv").read_text().splitlines()) == 8


def test_runs_of_0_1_0_are_read_with_the_word_that_they_cannot_be_checked_whole(tmp_path, capsys):
    with pytest.warns(TrainingWarning, match="cannot be checked whole"):
        model = fcnet.load(FIXTURES / "run-0.1.0", device="cpu")
    assert model.classes == ("a", "b", "c")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["predict", str(FIXTURES / "run-0.1.0"), str(FIXTURES / "flowers.csv")]) == 0
    told = capsys.readouterr()
    assert told.out == (FIXTURES / "predictions-0.1.0.csv").read_text()
    assert "cannot be checked whole" in told.err


def test_a_changed_tensor_of_0_1_0_is_refused(tmp_path):
    """Its checksums are of the tensors alone; the last byte of the file is in one of them."""
    saved = bytearray((FIXTURES / "run-0.1.0" / "model.safetensors").read_bytes())
    saved[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(saved)
    with pytest.raises(ValueError, match=r"tensor \S+ was changed since it was saved \(SHA-256\)"):
        fcnet.load(tmp_path / "model.safetensors", device="cpu")


def test_a_killed_run_of_0_1_0_begins_again(tmp_path, monkeypatch, capsys):
    run = tmp_path / "killed"
    run.mkdir()
    (run / "config.toml").write_text((FIXTURES / "killed-0.1.0" / "config.toml").read_text())
    monkeypatch.chdir(FIXTURES)
    assert main(["resume", str(run), "--quiet"]) == 0
    assert rundir.is_finished(run)


@pytest.mark.parametrize(
    ("given", "expected"), [(500, (500, None)), ("500", (500, None)), ("60s", (None, 60.0)), ("1.5m", (None, 90.0))]
)
def test_how_often(given, expected):
    assert parse_every(given) == expected


@pytest.mark.parametrize("given", [0, -1, "0", "0s", "soon", "5 days", 1.5, True])
def test_how_often_is_refused_in_words(given):
    with pytest.raises((ValueError, TypeError), match="checkpoint_every"):
        parse_every(given)
