"""The products of the compared nets, fcnet's beside NumPy's."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import command

pytest.importorskip("numba")
from benchmarks import cpu_products
from fcnet.backends.cpu import blas

pytestmark = pytest.mark.skipif(blas.loaded() is None, reason="no scipy-openblas32")


def test_every_product_is_numpys():
    """The one of a net's first layer with its input has no dX."""
    found = list(cpu_products.products())
    assert len(set(found)) == len(found)
    assert ("mnist 1", "dX") not in {(made.layer, made.kind) for made in found}
    for made in found:
        if np.prod(made.shape) < 1e6:
            ours, numpys, out, right = cpu_products.calls(made)
            ours(), numpys()
            np.testing.assert_allclose(out, right, rtol=1e-4, atol=1e-3)


def test_rows_become_a_table(monkeypatch):
    monkeypatch.setattr(cpu_products, "products", lambda: [cpu_products.Product("a 1", "dW", (64, 54, 7))])
    monkeypatch.setattr(cpu_products, "PAUSE", 0.0)
    monkeypatch.setattr(cpu_products, "WORK", 1e5)
    record = command.describe("cpu", 1, "abc") | {"rounds": 1, "library": "0"}
    table = cpu_products.markdown(record | {"rows": cpu_products.measure(1)})
    assert "| a 1 | 64x54x7 | dW |" in table
