"""Transfer: layers taken over, frozen, or learning at a rate of their own."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import fcnet
from fcnet.backends.step import direct
from fcnet.optim import RULES
from tests.small import blobs, net, solver


@pytest.fixture
def source():
    """Return a trained network with preprocessing and running statistics."""
    one = solver(blobs(), preprocess="standardize", num_epochs=3, net_options={"normalization": "batchnorm"})
    one.train()
    return one.model


def few(classes=2, **options):
    """Another task on the same inputs."""
    return blobs(c=classes, seed=5, **options)


def arrays(model, *names):
    return [np.array(model.backend.to_numpy({**model.params, **model.state}[name])) for name in names]


FIRST = ("W1", "b1", "gamma1", "beta1", "running_mean1", "running_var1")
SECOND = tuple(name.replace("1", "2") for name in FIRST)


def test_lower_layers_and_preprocessing_come_along(source, backend):
    model = fcnet.pretrained(source, 2, device=backend)
    assert (model.hidden_dims, model.num_classes, model.classes) == ((8, 7), 2, None)
    for name, mine, theirs in zip(
        FIRST + SECOND, arrays(model, *FIRST, *SECOND), arrays(source, *FIRST, *SECOND), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs, err_msg=name)
    for mine, theirs in zip(model.preprocessing, source.preprocessing, strict=True):
        np.testing.assert_array_equal(model.backend.to_numpy(mine), theirs)
    assert model.params["W3"].shape == (7, 2)
    assert arrays(model, "W3")[0].any()
    one = fcnet.Solver(model, few(), preprocess="scale", verbose=False)  # which does not replace it
    np.testing.assert_array_equal(model.backend.to_numpy(one.model.preprocessing[0]), source.preprocessing[0])


def test_what_the_frozen_layers_say_is_what_they_said(source, backend):
    """The hidden features of the new network stay the old one's: batch norm by its statistics, no dropout."""
    model = fcnet.pretrained(source, 2, device=backend, dropout_keep_ratio=0.5)
    model.freeze([1, 2])
    data = few()
    one = fcnet.Solver(
        model,
        data,
        update_rule="adam",
        optim_config={"learning_rate": 0.05},
        batch_size=16,
        num_epochs=3,
        verbose=False,
    )
    one.train()
    x = source.prepare(direct, data.X_train)
    for layer in source.hidden:
        x = layer.evaluate(direct, source.params, source.state, x)
    weights, bias = arrays(model, "W3", "b3")
    np.testing.assert_allclose(model.scores(data.X_train), x @ weights + bias, rtol=1e-4, atol=1e-4)
    assert one.best_val_acc >= 0.75


def test_a_frozen_network_trains_as_its_head_alone(source, backend):
    """The recorded step against a linear classifier on the features: the same losses."""
    data = few(n=50)
    model = fcnet.pretrained(source, 2, dtype="float64", device=backend, reg=0.1)
    model.freeze([1, 2])
    how = {"update_rule": "momentum", "batch_size": 16, "preprocess": "none", "verbose": False}
    one = fcnet.Solver(model, data, **how)
    double = source.astype("float64")

    def features(X):
        x = double.prepare(direct, X)
        for layer in double.hidden:
            x = layer.evaluate(direct, double.params, double.state, x)
        return x

    head = fcnet.FullyConnectedNet([], 7, 2, dtype="float64", device="cpu", reg=0.1)
    head.params["W1"], head.params["b1"] = arrays(model, "W3", "b3")
    parts = {"X_train": features(data.X_train), "X_val": features(data.X_val)}
    other = fcnet.Solver(head, {**parts, "y_train": data.y_train, "y_val": data.y_val}, **how)
    for _ in range(12):
        one.step()
        other.step()
    np.testing.assert_allclose(one.loss_history, other.loss_history, rtol=1e-10)
    np.testing.assert_allclose(arrays(model, "W3")[0], head.params["W1"], rtol=1e-9)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("normalization", [None, "batchnorm", "layernorm"])
def test_frozen_layers_stay_to_the_bit(rule, normalization, backend):
    options = {"normalization": normalization, "dropout_keep_ratio": 0.7, "reg": 0.1, "reg_l1": 0.1}
    one = solver(
        blobs(n=40), backend, net_options=options, update_rule=rule, batch_size=16, weight_decay=0.1, max_norm=0.5
    )
    model = one.model
    for _ in range(3):
        one.step()
    model.freeze([1])
    model.params["W1"][...] = 10 * model.params["W1"]  # beyond max_norm
    names = [name for name in (*model.params, *model.state) if name.endswith("1")]
    before, above = arrays(model, *names), arrays(model, "W2", "b3")
    moments = [model.backend.to_numpy(moment["W1"]).copy() for moment in one.optimizer.moments.values()]
    for _ in range(6):
        one.step()
    for name, old, new in zip(names, before, arrays(model, *names), strict=True):
        np.testing.assert_array_equal(new, old, err_msg=name)
    assert all((old != new).any() for old, new in zip(above, arrays(model, "W2", "b3"), strict=True))
    for old, moment in zip(moments, one.optimizer.moments.values(), strict=True):
        np.testing.assert_array_equal(model.backend.to_numpy(moment["W1"]), old)
    model.freeze([])
    one.step()
    assert (arrays(model, "W1")[0] != before[names.index("W1")]).any()


def test_no_gradient_is_computed_for_what_is_frozen(references_only):
    data = blobs()
    one = solver(data, batch_size=65, net_options={"normalization": "layernorm", "reg": 0.1})
    one.step()
    calls = len(one._compiled_steps[65].calls)
    one.model.freeze([1, 2])
    one.step()
    program = one._compiled_steps[65].calls
    assert len(program) < calls
    backwards = [call for call in program if call.name.endswith("_backward")]
    assert [call.name for call in backwards] == ["affine_backward"]
    assert backwards[0].keywords["need_dx"] is False
    assert not one._grads["W1"].any()
    assert not one._grads["W2"].any()
    assert one._grads["W3"].any()


def test_the_gradient_stops_above_the_frozen_layers():
    """The trained layers have the gradients that the whole network gives them; penalties act on what is trained."""
    data = blobs()
    whole, part = net(data, dtype="float64", reg=0.3, reg_l1=0.2), net(data, dtype="float64", reg=0.3, reg_l1=0.2)
    part.freeze([1])
    (loss, grads), (less, others) = (model.loss(data.X_train, data.y_train) for model in (whole, part))
    w = whole.params["W1"]
    assert loss - less == pytest.approx(0.15 * (w**2).sum() + 0.2 * abs(w).sum(), rel=1e-9)
    for name in whole.params:
        expected = np.zeros_like(grads[name]) if name in ("W1", "b1") else grads[name]
        np.testing.assert_allclose(others[name], expected, rtol=1e-12, atol=1e-15, err_msg=name)


def test_clipping_by_norm_does_not_count_what_is_frozen():
    data = blobs()
    model = net(data, dtype="float64")
    how = {"update_rule": "sgd", "optim_config": {"learning_rate": 1.0}, "schedule": "constant", "batch_size": 200}
    one = fcnet.Solver(model, data, clip_norm=1e-3, verbose=False, **how)
    one.step()
    model.freeze([1, 2])
    before = arrays(model, "W3", "b3")
    one.step()
    moved = [new - old for old, new in zip(before, arrays(model, "W3", "b3"), strict=True)]
    assert np.sqrt(sum((part**2).sum() for part in moved)) == pytest.approx(1e-3, rel=1e-6)


CASES = [
    {"normalization": normalization, "dropout_keep_ratio": keep, "activation": activation, "dropout": dropout}
    for normalization, keep, activation, dropout in [
        (None, 1.0, "relu", "inverted"), ("batchnorm", 0.7, "relu", "inverted"), ("layernorm", 0.7, "tanh", "plain"),
        ("batchnorm", 1.0, "maxout", "inverted"), (None, 0.5, "gelu", "plain"),
    ]
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_frozen_step_neither_waits_nor_allocates(case, guard):
    data = blobs(n=64, d=20)
    model = fcnet.FullyConnectedNet([300, 310, 200], 20, 3, device="guard", **case)
    model.freeze([1, 2])
    one = fcnet.Solver(
        model, data, batch_size=32, update_rule="adam", lr_multipliers={3: 0.1}, clip_norm=1.0, verbose=False
    )
    one.step()
    one.step()
    with guard.no_waits():
        for _ in range(2):
            with guard.recording() as log:
                one.step()
    large = [e for e in log.allocations if e.nbytes > 16 * 32 * 5 + 600 + 8 * 310 and e.what != "random_bits"]
    assert large == []
    twin = fcnet.FullyConnectedNet([300, 310, 200], 20, 3, device="cpu", **case)
    twin.freeze([1, 2])
    other = fcnet.Solver(
        twin, data, batch_size=32, update_rule="adam", lr_multipliers={3: 0.1}, clip_norm=1.0, verbose=False
    )
    for _ in range(4):
        other.step()
    np.testing.assert_allclose(one.loss_history, other.loss_history, rtol=1e-4)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))], ids=["deepcopy", "pickle"])
def test_a_copy_goes_on_as_the_original_would(copied):
    one = solver(blobs(n=25), batch_size=10, update_rule="adam", lr_multipliers={2: 0.1})
    one.model.freeze([1])
    for _ in range(4):
        one.step()
    other = copied(one)
    for either in (one, other):
        for _ in range(5):
            either.step()
    assert other.loss_history == one.loss_history
    np.testing.assert_array_equal(other.model.params.flat, one.model.params.flat)


def test_lbfgs_moves_what_is_trained_only():
    pytest.importorskip("scipy")
    one = solver(blobs(), update_rule="lbfgs", num_epochs=5)
    one.model.freeze([1])
    before, above = arrays(one.model, "W1", "b1"), arrays(one.model, "W2")
    one.train()
    for old, new in zip(before, arrays(one.model, "W1", "b1"), strict=True):
        np.testing.assert_array_equal(new, old)
    assert (arrays(one.model, "W2")[0] != above[0]).any()


def test_fewer_layers_and_other_layers_above(source, tmp_path):
    source.features = ("a", "b", "c", "d", "e", "f")
    source.save(tmp_path / "a.safetensors")
    model = fcnet.pretrained(tmp_path / "a.safetensors", 4, layers=1, hidden_dims=[8, 5, 6], seed=3, device="cpu")
    assert model.hidden_dims == (8, 5, 6)
    assert model.features == source.features
    np.testing.assert_array_equal(arrays(model, "W1")[0], arrays(source, "W1")[0])
    anew = fcnet.FullyConnectedNet([8, 5, 6], 6, 4, normalization="batchnorm", seed=3, device="cpu")
    np.testing.assert_array_equal(arrays(model, "W2")[0], arrays(anew, "W2")[0])
    assert arrays(model, "running_mean2")[0].tolist() == [0] * 5
    same = fcnet.pretrained(source, 3, layers=1, seed=9)
    assert (arrays(same, "W2")[0] != arrays(source, "W2")[0]).any()


def test_without_preprocessing_none_is_learned():
    data = blobs()
    model = fcnet.pretrained(net(data), 2)
    one = fcnet.Solver(model, few(), preprocess="standardize", verbose=False)
    x = few().X_val
    np.testing.assert_array_equal(one.model.prepare(direct, x), x.astype("float32"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_dims": [9, 7]}, "hidden_dims: expected 8, 7 first, as in the network to start from, got 9, 7"),
        ({"hidden_dims": [8]}, "hidden_dims: expected 8, 7 first, as in the network to start from, got 8"),
        ({"input_dim": 5}, "input_dim: expected 6 inputs, as the network to start from has, got 5"),
        ({"normalization": None}, "normalization: expected batchnorm in layer 1, as in .*, got None"),
        ({"activation": ["relu", "tanh"]}, "activation: expected relu in layer 2, as in .*, got tanh"),
        ({"layers": 3}, "layers: expected a network with as many hidden layers, got 3 of"),
        ({"layers": 0}, "layers: expected 1 or more, got 0"),
    ],
)
def test_layers_that_do_not_fit_are_refused(source, change, message):
    with pytest.raises(ValueError, match=message):
        fcnet.pretrained(source, 2, **change)
    with pytest.raises(TypeError, match="source: expected a FullyConnectedNet or a path, got int"):
        fcnet.pretrained(3, 2)


ALL_HIDDEN = (
    "freeze and hidden_dims: expected the lowest layers, 1, 2, ... without a gap, at most the 2 hidden ones "
    "(the output layer is always trained), "
)


@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        ([2], ValueError, ALL_HIDDEN + "got 2"),
        ([1, 3], ValueError, ALL_HIDDEN + "got 1, 3"),
        ([1, 2, 3], ValueError, ALL_HIDDEN + "got 1, 2, 3"),
        ([0], ValueError, "freeze: expected 1 or more, got 0"),
        (["a"], TypeError, "freeze: expected an integer, got 'a'"),
        ("12", TypeError, "freeze: expected a list of layers such as [1, 2], got '12'"),
        (1, TypeError, "freeze: expected a list of layers such as [1, 2], got 1"),
    ],
)
def test_bad_layers_to_freeze_are_named(layers, error, message):
    model = net(blobs())
    with pytest.raises(error) as caught:
        model.freeze(layers)
    assert str(caught.value) == message
    assert model.frozen == ()


def test_a_factor_for_a_frozen_layer_contradicts():
    model = net(blobs())
    model.freeze([1])
    with pytest.raises(ValueError, match=r"lr_multipliers and freeze: layer 1 is frozen.*got 0\.5; leave one out"):
        fcnet.Solver(model, blobs(), lr_multipliers={1: 0.5}, verbose=False)
