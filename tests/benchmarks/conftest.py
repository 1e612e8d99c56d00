"""Benchmarks that are tried out, not measured."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def workers_on_numpy(monkeypatch):
    """Workers are a second quicker without kernels to load; those of a whole command, a module's fixture, have them."""
    monkeypatch.setenv("FCNET_NUMBA", "0")
