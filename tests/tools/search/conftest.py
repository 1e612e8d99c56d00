"""Searches in a folder of their own, without what takes time and proves nothing."""

from __future__ import annotations

import importlib.util

import pytest

from fcnet.tools.search import plan, searching


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def in_no_hurry_to_the_disk():
    """SQLite lets the system write when it likes, which only a power cut could tell."""
    if importlib.util.find_spec("optuna") is None:
        yield
        return
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def relax(connection, _):
        if type(connection).__module__.startswith("sqlite3"):
            connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", relax)
    yield
    event.remove(Engine, "connect", relax)


@pytest.fixture(autouse=True)
def in_a_journal(monkeypatch):
    """The study is in a journal by default: through SQLAlchemy a search takes twice as long."""
    monkeypatch.setattr(plan, "STUDY", "study.journal")


@pytest.fixture
def in_a_database(in_a_journal, monkeypatch):
    """The study is where users have it by default."""
    monkeypatch.setattr(plan, "STUDY", "study.db")


PICTURE = searching.parameters_png


@pytest.fixture(autouse=True)
def no_picture(monkeypatch):
    """Drawing takes longer than most searches here; tests that look at the picture ask for `drawn`."""
    monkeypatch.setattr(searching, "parameters_png", lambda *_: b"")


@pytest.fixture
def drawn(no_picture, monkeypatch):
    """Let searches draw their picture."""
    monkeypatch.setattr(searching, "parameters_png", PICTURE)
