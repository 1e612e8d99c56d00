"""What only a GPU's comparison uses, run on the CPU."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from benchmarks.peers.compare_peers import Answer
from benchmarks.workloads import draw, initial
from tests.benchmarks.test_compare import NORMED, SMALL


class TestJax:
    """Several steps in a call, and products in bfloat16."""

    @pytest.fixture
    def stepper(self):
        jax = pytest.importorskip("jax")
        from benchmarks.peers import with_jax

        jax.config.update("jax_default_matmul_precision", "highest")

        def make(kind, workload):
            parts = draw(workload), initial(workload)
            return getattr(with_jax, kind)(workload, *parts, "cpu", with_jax.hand_written)

        return make

    def test_several_steps_in_a_call_are_the_same_steps(self, stepper):
        workload = dataclasses.replace(NORMED, batch=4, rows=4 * 30)
        one, many = stepper("Jitted", workload), stepper("Scanned", workload)
        expected = one.losses(70)
        np.testing.assert_allclose(many.losses(1) + many.losses(69), expected, rtol=1e-5)
        many.reset()
        many.many(69)
        assert many.steps == 69
        np.testing.assert_allclose(many.losses(1), expected[-1:], rtol=1e-5)

    def test_every_product_of_bf16_has_bf16_operands(self, stepper):
        one = stepper("Jitted", dataclasses.replace(SMALL, precision="bf16"))
        text = one.jitted.lower(one.state, one.X, one.y, one.order).as_text()
        products = [line for line in text.splitlines() if "dot_general" in line]
        assert len(products) == 3 * 3 - 1
        assert all("bf16" in line and "f32>" not in line.replace("bf16>", "") for line in products)


def test_answers_are_shared_among_precisions_only():
    known = []
    first, second, other = (
        Answer.of(workload, known)
        for workload in (SMALL, dataclasses.replace(SMALL, name="b", precision="tf32", tolerance=1.0), NORMED)
    )
    assert second._found is first._found
    assert other._found is not first._found
