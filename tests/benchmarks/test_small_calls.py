"""Small calls beside plain code: the same results, and a result that differs is not timed."""

from __future__ import annotations

import numpy as np

from benchmarks import small_calls


def test_every_pair_computes_the_same_and_is_timed():
    rows = small_calls.measure(1, 0.1)
    assert [row["name"] for row in rows if "ratio" not in row] == []
    assert all(row["ours_us"] > 0 for row in rows)


def test_another_result_is_not_timed(monkeypatch):
    pair = small_calls.Pair("wrong", lambda: np.ones(2), lambda: np.ones(2) + 1e-3)
    monkeypatch.setattr(small_calls, "pairs", lambda: [pair])
    (row,) = small_calls.measure(1, 0.1)
    assert row["kind"] == "wrong"
