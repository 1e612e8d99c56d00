"""Real data, when $FCNET_DATA holds it: a short training reaches what such a net reaches."""

from __future__ import annotations

import os

import pytest

import fcnet

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not os.environ.get("FCNET_DATA"), reason="FCNET_DATA is not set: no real data sets"),
]


@pytest.mark.parametrize(("name", "wanted"), [("mnist", 0.96), ("fashion-mnist", 0.84)])
def test_two_epochs_on_images(name, wanted):
    data = fcnet.data.load(name)
    model = fcnet.FullyConnectedNet([128], 784, 10, normalization="batchnorm")
    solver = fcnet.Solver(model, data, update_rule="adam", num_epochs=2, batch_size=200, verbose=False)
    solver.train()
    assert solver.check_accuracy(data.X_test, data.y_test) > wanted
