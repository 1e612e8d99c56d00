"""Tests that need a GPU: left out as a whole where there is none, all there where there is one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from fcnet.backends import Status
from tests import conftest


class Item:
    """As much of a test as the hook looks at."""

    def __init__(self, mark=None):
        self.mark = mark

    def get_closest_marker(self, name):
        return self.mark if self.mark == name else None


@pytest.mark.parametrize(("status", "kept"), [(Status.OK, 3), (Status.NOT_INSTALLED, 2)])
def test_they_are_left_out_where_there_is_no_gpu(status, kept, monkeypatch):
    deselected = []
    monkeypatch.setattr(conftest, "probe", lambda: SimpleNamespace(status=status, reason="why"))
    hook = SimpleNamespace(pytest_deselected=lambda items: deselected.extend(items))
    config = SimpleNamespace(hook=hook, stash=pytest.Stash())
    items = [Item(), Item("gpu"), Item("slow")]
    conftest.pytest_collection_modifyitems(config, items)
    assert [item.mark for item in items] == [None, "gpu", "slow"][:: 2 if kept == 2 else 1]
    assert len(deselected) == 3 - kept
    lines = []
    conftest.pytest_terminal_summary(SimpleNamespace(write_line=lines.append), config)
    assert lines == ([] if kept == 3 else ["1 gpu tests left out, no usable GPU: why"])
