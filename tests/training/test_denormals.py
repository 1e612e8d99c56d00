"""A training whose inputs are nearly always 0 stores no denormals, which would slow each of its steps down."""

import numpy as np
import pytest

import fcnet
from tests import denormals, small

STEPS, ROWS = 3000, 2


@pytest.fixture(scope="module")
def data():
    """Of 12 inputs, one is always 0, and eight are so in all rows but one: each is seen every 1,500 steps."""
    rng = np.random.default_rng(0)
    parts = {}
    for part, count in (("train", 1500 * ROWS), ("val", 20), ("test", 20)):
        y = rng.integers(3, size=count)
        X = np.zeros((count, 12), np.float32)
        X[:, :3] = 2 * np.eye(3)[y] + rng.standard_normal((count, 3))
        X[rng.permutation(count)[:8], np.arange(3, 11)] = 1
        parts |= {f"X_{part}": X, f"y_{part}": y}
    return fcnet.data.Dataset(**parts, name="rare inputs")


@pytest.mark.parametrize("kernels", [True, False], ids=["kernels", "references"])
@pytest.mark.parametrize(
    ("rule", "config"),
    [
        ("momentum", {"learning_rate": 1e-2}),
        ("nesterov", {"learning_rate": 1e-2}),
        ("rmsprop", {"decay_rate": 0.9, "learning_rate": 1e-3}),
        ("adam", {"beta2": 0.95}),
        ("adamw", {}),
    ],
)
def test_no_buffer_ever_holds_a_denormal(rule, config, data, kernels, request):
    if not kernels:
        request.getfixturevalue("references_only")
    options = {"net_options": {"normalization": "batchnorm"}, "num_epochs": 2, "batch_size": ROWS}
    solver = small.solver(data, "cpu", update_rule=rule, optim_config=config, **options)
    buffers = {**solver.model.params, **solver.model.state}
    buffers |= {name: moment.flat for name, moment in solver.optimizer.moments.items()}
    for step in range(1, STEPS + 1):
        solver.step()
        if step % 25 == 0:
            held = {name: denormals.count(array) for name, array in buffers.items()}
            assert not any(held.values()), f"step {step}: {held}"
