"""report.html of `fcnet train`: after the last line, within two seconds or when asked for."""

import sys

import pytest

import fcnet
from fcnet.cli import main
from fcnet.tools import report as tools

TRAIN = ["train", "--data", "spirals", "--epochs", "2", "--out", "run"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch, report):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_comes_with_a_run_and_goes_with_it(elsewhere, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    path = elsewhere / "run" / "report.html"
    assert main(TRAIN) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("test accuracy ")
    assert "<title>spirals" in path.read_text("utf-8")
    monkeypatch.setattr(tools, "seconds_of_predictions", lambda solver: 1.5)
    assert main([*TRAIN, "--force"]) == 0
    assert not path.exists()
    assert "no report.html: it would take more than 2 s; --report makes one" in capsys.readouterr().err
    assert main([*TRAIN, "--force", "--report", "--quiet"]) == 0
    assert path.exists()
    out, err = capsys.readouterr()
    assert (out.count("\n"), err) == (1, "")


def test_what_goes_wrong_is_said_and_the_run_is_kept(elsewhere, capsys, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("no ink")

    monkeypatch.setattr(tools, "report_html", broken)
    assert main(TRAIN) == 0
    assert "fcnet: no report.html: RuntimeError: no ink\n" in capsys.readouterr().err
    assert (elsewhere / "run" / "model.safetensors").exists()


def test_without_matplotlib_one_that_is_asked_for_is_refused_at_once(elsewhere, capsys, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main([*TRAIN, "--report"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("fcnet: error: --report needs matplotlib")
    assert not (elsewhere / "run").exists()


def test_a_run_that_goes_on_has_one_too_and_a_solver_leaves_no_old_one(elsewhere, capsys):
    pytest.importorskip("matplotlib")
    path = elsewhere / "run" / "report.html"
    assert main([*TRAIN, "--checkpoint-every", "1"]) == 0
    assert "Settings" in path.read_text("utf-8")
    path.write_text("old")
    assert main(["resume", "run", "--extend", "1"]) == 0
    assert "3 epochs" in path.read_text("utf-8")
    fcnet.Solver.resume("run", extend=1, verbose=False).train()
    assert not path.exists()
    kept = (elsewhere / "run" / "model.safetensors").read_bytes()
    assert main(["resume", "run"]) == 0  # it is finished, but has no report
    assert "4 epochs" in path.read_text("utf-8")
    assert (elsewhere / "run" / "model.safetensors").read_bytes() == kept
