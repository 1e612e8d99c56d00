"""The short form of `make crash-test`."""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.crash import fuzz, parts
from tests.crash.trial import training

pytestmark = pytest.mark.skipif(
    os.name != "posix" or not sys.platform.startswith("linux"), reason="forks, and limits as Linux has them"
)

SHORT = {
    parts.kills: 7,
    parts.calls: 30,
    parts.header: 400,
    parts.flips: 400,
    parts.truncations: 300,
    fuzz.inputs: 2000,
    parts.full: 3,
    parts.threads: 1,
    parts.caches: 100,
}


@pytest.mark.parametrize("part", SHORT, ids=lambda part: part.__name__)
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_nothing_is_lost_or_believed(part, monkeypatch):
    import warnings

    from fcnet.runs import rundir
    from fcnet.training import checkpointing

    monkeypatch.setattr(checkpointing, "SHARE", checkpointing.SHARE)  # put back afterwards
    monkeypatch.setattr(rundir, "curves_png", rundir.curves_png)
    with warnings.catch_warnings():
        training().train()
        found = list(part(SHORT[part], 1))
    assert len(found) == SHORT[part]
    assert [lost for lost in found if isinstance(lost, str)] == []


@pytest.mark.parametrize("name", fuzz.corpus())
@pytest.mark.filterwarnings("ignore::fcnet.errors.DataNotice")
def test_the_corpus_is_read(name, tmp_path):
    """Else the fuzzing would be of files that are refused anyway."""
    read, wholes, file, _ = fuzz.corpus()[name]
    for whole in wholes:
        (tmp_path / file).write_bytes(whole)
        if name == "toml":
            whole = whole.partition(b"[x]")[0]
            (tmp_path / file).write_bytes(whole)
        if name == ".lock":
            (tmp_path / file).write_bytes(b"")
        read(tmp_path / file)


@pytest.mark.parametrize("name", ["npz", "pickle", "toml", "model"])
def test_anything_at_all_is_read_or_refused(name, tmp_path):
    read, _, file, _ = fuzz.corpus()[name]

    @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.binary(max_size=200))
    def check(content):
        assert fuzz.tried(read, tmp_path / file, content, name) is None

    check()
