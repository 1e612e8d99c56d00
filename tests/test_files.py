"""Folders made for a result: numbered ones, each for one process; taken away again when nothing comes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fcnet import files


def test_the_first_free_number(tmp_path):
    for number in (1, 2, 4):
        (tmp_path / f"digits-000{number}").mkdir()
    assert files.make_numbered_folder("digits", tmp_path) == [tmp_path / "digits-0003"]
    assert files.make_numbered_folder("digits", tmp_path) == [tmp_path / "digits-0005"]
    (tmp_path / "digits-0006").symlink_to("nowhere")
    assert files.make_numbered_folder("digits", tmp_path) == [tmp_path / "digits-0007"], "it comes to an end"


def test_another_process_is_quicker(tmp_path, monkeypatch):
    real = Path.mkdir

    def mkdir(path, *args, **kwargs):
        if path.name == "digits-0001" and not path.exists():
            real(path, parents=True)
        real(path, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    made = files.make_numbered_folder("digits", tmp_path / "runs")
    assert made == [tmp_path / "runs" / "digits-0002"]
    assert (tmp_path / "runs" / "digits-0001").is_dir(), "the other's stays"


def test_what_was_made_is_told_and_taken_away_again(tmp_path):
    made = files.make_folder(tmp_path / "a" / "b")
    assert made == [tmp_path / "a" / "b", tmp_path / "a"]
    assert files.make_folder(tmp_path / "a" / "b") == [], "it was there"
    with pytest.raises(KeyboardInterrupt), files.unless_it_fails(made):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_what_holds_something_stays(tmp_path):
    made = files.make_numbered_folder("digits", tmp_path / "runs")
    (tmp_path / "runs" / "letter.txt").write_text("dear")
    files.remove_folders(made)
    assert [path.name for path in tmp_path.rglob("*")] == ["runs", "letter.txt"]


def test_nothing_is_left_of_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    for make in (files.make_folder, lambda path: files.make_numbered_folder(path.name, path.parent)):
        with pytest.raises(OSError):
            make(tmp_path / "file" / "x")
    with pytest.raises(OSError):
        files.make_folder(tmp_path / "new" / ("x" * 300))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
