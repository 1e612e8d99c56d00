"""One code on every device: a GPU gives the CPU's weights, shuffles and masks exactly, its losses up to rounding."""

from __future__ import annotations

import numpy as np
import pytest

import fcnet
from fcnet import backends
from fcnet.optim import RULES
from tests import oracles

STEPS = 50
# Relative difference of the losses over the first 50 steps. float64: rounding only. float32: rounding grows through
# the steps; rules that divide by the root of tiny squared gradients magnify it. Their first steps are those of the
# gradient's sign: where rounding turns a sign, the weight goes the other way at full length, which for rmsprop is ten
# rates. Under batch norm, weights that begin half a unit in the last place apart then give losses up to 10 % apart on
# the CPU alone (rmsprop), 0.1 % (adagrad) and 0.02 % (adam), of a dozen such beginnings.
TOLERANCE = {"float64": 1e-9} | {rule: oracle.parity for rule, oracle in oracles.RULES.items()}


@pytest.fixture(scope="module")
def digits():
    pytest.importorskip("sklearn", reason="the digits data set is scikit-learn's")
    return fcnet.data.load("digits")


def losses(digits, device, rule, dtype, normalization, keep, seed=0):
    model = fcnet.FullyConnectedNet(
        [100, 100], 64, 10, normalization=normalization, dropout_keep_ratio=keep, dtype=dtype, device=device, seed=seed
    )
    solver = fcnet.Solver(model, digits, update_rule=rule, verbose=False, seed=seed)
    for _ in range(STEPS):
        solver.step()
    return np.array(solver.loss_history)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("normalization", "keep"), [(None, 1.0), ("batchnorm", 0.8), ("layernorm", 0.8)])
@pytest.mark.parametrize("other", ["guard", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_losses_of_the_first_steps(digits, other, rule, dtype, normalization, keep, request):
    if other == "guard":
        request.getfixturevalue("references_only")
    cpu = losses(digits, "cpu", rule, dtype, normalization, keep)
    got = losses(digits, other, rule, dtype, normalization, keep)
    if other == "guard":  # the guard computes with NumPy: every bit
        np.testing.assert_array_equal(got, cpu)
        return
    np.testing.assert_allclose(got, cpu, rtol=TOLERANCE[dtype if dtype == "float64" else rule], atol=0)


def test_another_seed_is_another_run(digits):
    """Else the comparison above would compare constants."""
    assert not np.array_equal(
        losses(digits, "cpu", "sgd", "float32", None, 1.0), losses(digits, "cpu", "sgd", "float32", None, 1.0, seed=1)
    )


@pytest.mark.parametrize("other", ["guard", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_weights_shuffles_and_masks_are_the_same_bits(digits, other):
    options = {"normalization": "batchnorm", "dropout_keep_ratio": 0.8, "seed": 3}
    one, two = (fcnet.FullyConnectedNet([100, 50], 64, 10, device=d, **options) for d in ("cpu", other))
    np.testing.assert_array_equal(two.backend.to_numpy(two.params.flat), one.params.flat)
    a, b = (fcnet.Solver(model, digits, verbose=False, seed=9, batch_size=500) for model in (one, two))
    for _ in range(4):  # into the second epoch
        np.testing.assert_array_equal(b.model.backend.to_numpy(b._batches.order), a._batches.order)
        a.step()
        b.step()
    for stream, others in zip(one.mask_streams(17), two.mask_streams(17), strict=True):
        mask = fcnet.functional.dropout_mask(stream, 0.8, (123, 50), "float32")
        other_mask = fcnet.functional.dropout_mask(others, 0.8, (123, 50), "float32")
        np.testing.assert_array_equal(two.backend.to_numpy(other_mask), mask)
        assert set(np.unique(mask)) == {np.float32(0), np.float32(1 / 0.8)}
    assert backends.backend_of(one.params.flat).name == "cpu"
