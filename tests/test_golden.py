"""The golden check notices other bits, and says when it knows none for this machine."""

from __future__ import annotations

import json

import pytest

from tests import golden

NET = "relu, adam"


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Return a record of one net, made here."""
    monkeypatch.setattr(golden, "NETS", {NET: golden.NETS[NET]})
    path = tmp_path / "golden.json"
    assert golden.main(["record", "--file", str(path), "--commit", "abc"]) == 0
    return path


def edit(file, change):
    kept = json.loads(file.read_text())
    change(kept[0])
    file.write_text(json.dumps(kept))


def check(file, capsys):
    capsys.readouterr()
    return golden.main(["check", "--file", str(file)]), capsys.readouterr().out


def test_the_same_code_has_the_same_bits(file, capsys):
    code, said = check(file, capsys)
    assert code == 0
    assert "1 nets, no differences from abc" in said


def test_other_bits_fail_and_are_named(file, capsys):
    edit(file, lambda entry: entry["nets"][NET].update({"10": "0" * 16, "60": "0" * 16}))
    code, said = check(file, capsys)
    assert code == 1
    assert f"{NET}: other bits after step 10, unlike at abc" in said


def test_another_formula_has_other_bits(file, capsys, monkeypatch):
    options = golden.NETS[NET]
    monkeypatch.setattr(golden, "NETS", {NET: ({"reg": 1e-4}, *options[1:])})
    assert check(file, capsys)[0] == 1


def test_a_machine_without_a_record_is_told_so_in_a_line(file, capsys):
    edit(file, lambda entry: entry["key"].update(numpy="1.0"))
    code, said = check(file, capsys)
    assert code == 0
    assert said.startswith("golden: no bits are kept for numpy ")
    assert said.count("\n") == 1


def test_recording_again_replaces_what_was_kept_for_this_machine_only(file):
    edit(file, lambda entry: entry["key"].update(numpy="1.0"))
    for commit in ("b", "c"):
        golden.main(["record", "--file", str(file), "--commit", commit])
    assert [entry["commit"] for entry in json.loads(file.read_text())] == ["abc", "c"]


def test_a_file_that_is_not_there_and_broken_kernels_are_no_success(tmp_path, capsys, monkeypatch):
    with pytest.raises(SystemExit, match="2"):
        golden.main(["check", "--file", str(tmp_path / "none.json")])
    assert "expected a file that `record` wrote" in capsys.readouterr().err
    monkeypatch.setattr(golden.loader, "_loaded", golden.loader.Loaded({}, "not usable: loss", {"loss": "why"}))
    assert golden.main(["check"]) == 1
    assert "cannot be loaded: not usable: loss" in capsys.readouterr().out
