"""Statistics of activations against loops over the layers, written out."""

import math

import numpy as np
import pytest

import fcnet
from fcnet.tools.diagnostics import activation_statistics
from fcnet.tools.diagnostics.activations import histograms_csv, statistics_csv, table
from tests.small import blobs, net

ACTIVATIONS = sorted(fcnet.functional.ACTIVATIONS)


def test_statistics_are_those_of_a_loop_over_the_layers(backend):
    data = blobs()
    model = net(data, backend, dropout_keep_ratio=0.5, activation=["relu", "tanh"])
    model.params["W1"][:, 3:4] = 0
    model.params["b1"][3:4] = -1  # a dead unit
    model.params["W2"] = 20 * backend.to_numpy(model.params["W2"])  # saturated ones
    first, second = activation_statistics(model, data.X_train)
    x = data.X_train.astype(float)
    weights = {name: backend.to_numpy(value).astype(float) for name, value in model.params.items()}
    h1 = [[max(0.0, float(v)) for v in row] for row in x @ weights["W1"] + weights["b1"]]
    h2 = [[math.tanh(v) for v in row] for row in np.array(h1) @ weights["W2"] + weights["b2"]]
    for layer, number, values in ((first, 1, h1), (second, 2, h2)):
        flat = [v for row in values for v in row]
        mean = math.fsum(flat) / len(flat)
        std = math.sqrt(math.fsum((v - mean) ** 2 for v in flat) / len(flat))
        assert (layer.layer, layer.units) == (number, len(values[0]))
        assert layer.mean == pytest.approx(mean, rel=1e-4, abs=1e-5)
        assert layer.std == pytest.approx(std, rel=1e-4)
        assert layer.counts.sum() == len(flat)
        assert len(layer.edges) == len(layer.counts) + 1
    units = list(zip(*h1, strict=True))
    assert first.dead == sum(not any(unit) for unit in units) / len(units) >= 1 / 8
    assert first.saturated is None
    assert second.dead is None
    ends = [v for row in h2 for v in row if abs(v) >= 0.95]
    assert second.saturated == pytest.approx(len(ends) / (len(h2) * len(h2[0])), abs=2e-3)
    assert 0.1 < second.saturated < 1
    assert (second.edges[0], second.edges[-1]) == (-1, 1)


def test_sigmoid_saturates_at_0_and_1():
    data = blobs()
    model = net(data, hidden=(4,), activation="sigmoid", init="zeros")
    for bias, share in ((0.0, 0.0), (2.9, 0.0), (3.0, 1.0), (-3.0, 1.0)):  # σ(2.944) = 0.95
        model.params["b1"][...] = bias
        assert activation_statistics(model, data.X_train)[0].saturated == share


def test_what_neither_dies_nor_saturates_has_no_share():
    data = blobs()
    for name in ACTIVATIONS:
        layer = activation_statistics(net(data, hidden=(5,), activation=name), data.X_train)[0]
        assert (layer.dead is None) == (name != "relu")
        assert (layer.saturated is None) == (name not in ("sigmoid", "tanh"))
        assert layer.units == 5


def test_batch_norm_is_by_the_batch_and_its_running_statistics_stay():
    data = blobs()
    model = net(data, normalization="batchnorm", activation="tanh")
    params, state = model.params.flat.copy(), model.state.flat.copy()
    first, _ = activation_statistics(model, data.X_train)
    assert 0.5 < first.std < 0.8  # tanh of standard normal numbers; by the start of 0 and 0 all would saturate
    np.testing.assert_array_equal(model.params.flat, params)
    np.testing.assert_array_equal(model.state.flat, state)


def test_tables_of_the_statistics():
    data = blobs()
    found = activation_statistics(net(data, activation=["relu", "tanh"]), data.X_train)
    lines = table(found).splitlines()
    assert lines[0].split() == ["layer", "activation", "units", "mean", "std", "dead", "saturated"]
    assert [line.split()[:3] for line in lines[1:]] == [["1", "relu", "8"], ["2", "tanh", "7"]]
    assert lines[1].endswith("-")  # saturation does not apply
    rows = statistics_csv(found).splitlines()
    assert rows[0] == "layer,activation,units,mean,std,dead,saturated"
    assert float(rows[1].split(",")[5]) == found[0].dead
    assert rows[1].endswith(",")
    assert len(histograms_csv(found).splitlines()) == 1 + 2 * 50
    assert activation_statistics(net(data, hidden=()), data.X_train) == []


def test_inputs_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="X: expected 6 features"):
        activation_statistics(net(blobs()), np.zeros((3, 5)))
