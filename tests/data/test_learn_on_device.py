"""What is learned of inputs on a device is what is learned of them on the host."""

import numpy as np
import pytest

from fcnet.data import learn
from fcnet.data.learn_on_device import learn_on_device
from fcnet.data.preprocessing import KINDS


def table(kind):
    rng = np.random.default_rng(0)
    X = np.abs(rng.standard_normal((60, 5))) * [1, 10, 0.1, 30, 1] + [0, 50, 0, 7, 0]
    X[:, 4] = 3  # constant
    return X.astype(kind)


@pytest.mark.parametrize("numbers", ["float32", "float64", "uint8", "int64"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_what_the_host_learns(kind, numbers, guard, monkeypatch):
    monkeypatch.setattr("fcnet.data.learn_on_device.AT_ONCE", 130)  # two columns at a time
    X = table(numbers)
    expected = learn(kind, X)
    x = guard.asarray(X)
    with guard.recording() as log:
        found = learn_on_device(kind, x)
    assert max([event.nbytes for event in log.waits], default=0) < X.nbytes / 3
    np.testing.assert_allclose(found.shift, expected.shift, rtol=1e-12)
    np.testing.assert_allclose(found.scale, expected.scale, rtol=1e-12)
    assert (found.kind, found.limit) == (expected.kind, expected.limit)


def test_what_is_not_finite_is_said(guard):
    X = table("float64")
    X[3, 1] = np.nan
    for kind in ("standardize", "robust"):
        with pytest.raises(ValueError, match="got others in feature 1"):
            learn_on_device(kind, guard.asarray(X))
    with pytest.raises(ValueError, match="did you mean 'scale'"):
        learn_on_device("scales", guard.asarray(X))
