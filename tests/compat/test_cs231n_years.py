"""The old keywords of 2016 to 2020, each with the meaning of its year, and what `install(year=...)` decides."""

import numpy as np
import pytest

from fcnet.compat import cs231n
from fcnet.compat.cs231n import FullyConnectedNet, dropout_backward, dropout_forward, svm_loss_vectorized
from fcnet.compat.cs231n.classifiers.neural_net import TwoLayerNet
from fcnet.tools.gradcheck import numerical_gradient, relative_error

OFF = None  # no dropout


@pytest.mark.parametrize("year", [None, 2016, 2017, 2018, 2020, 2026])
@pytest.mark.parametrize(
    ("old", "until_2017", "from_2018", "by_the_call"),
    [
        ({"dropout": 0}, OFF, "refused", OFF),
        ({"dropout": 1}, "refused", OFF, OFF),
        ({"dropout": 0.25}, 0.75, 0.25, 0.25),
        ({"dropout": 0.25, "use_batchnorm": False}, 0.75, 0.25, 0.75),
        ({"dropout": 0, "use_batchnorm": True}, OFF, "refused", OFF),
        ({"dropout": 1, "use_batchnorm": True}, "refused", OFF, "refused"),
        ({"dropout": 0.25, "normalization": "layernorm"}, 0.75, 0.25, 0.25),
        ({"dropout": 1.5}, "refused", "refused", "refused"),
        ({"dropout": -0.5}, "refused", "refused", "refused"),
    ],
)
def test_dropout_as_it_was_called(no_course, year, old, until_2017, from_2018, by_the_call):
    cs231n.install(year=year)
    keep = by_the_call if year is None else until_2017 if year < 2018 else from_2018
    if keep == "refused":
        with pytest.raises(ValueError, match=r"^dropout: expected the (share|probability) .* for none, got "):
            FullyConnectedNet([40], 6, 3, **old)
        return
    net = FullyConnectedNet([40], 6, 3, **old)
    assert net.use_dropout == (keep is not OFF)
    assert net.to_fcnet("cpu").config["dropout_keep_ratio"] == (keep or 1)
    if keep is not OFF:
        dropped = year in (2016, 2017)
        assert net.dropout_param == {"mode": "train", "p": 1 - keep if dropped else keep}
        zeros = (dropout_forward(np.ones((100, 100)), net.dropout_param)[0] == 0).mean()
        assert zeros == pytest.approx(1 - keep, abs=0.03)


def test_batch_norm_as_it_was_called():
    X, y = np.random.randn(5, 6), np.arange(5) % 3
    old = FullyConnectedNet([8], 6, 3, use_batchnorm=True, dtype=np.float64)
    new = FullyConnectedNet([8], 6, 3, normalization="batchnorm", dtype=np.float64)
    new.params = old.params
    assert old.bn_params == [{"mode": "train"}]
    assert old.loss(X, y)[0] == new.loss(X, y)[0]
    assert FullyConnectedNet([8], 6, 3, use_batchnorm=False).bn_params == []


@pytest.mark.parametrize(
    "both",
    [{"dropout": 0.5, "dropout_keep_ratio": 0.5}, {"use_batchnorm": False, "normalization": "layernorm"}],
)
def test_an_old_keyword_beside_the_new_one(both):
    with pytest.raises(ValueError, match="expected one of them, got both; leave one out"):
        FullyConnectedNet([8], 6, 3, **both)


@pytest.mark.parametrize(
    ("year", "p", "kept"), [(2016, 0.3, 0.7), (2017, 0.3, 0.7), (2018, 0.3, 0.3), (None, 0.3, 0.3)]
)
def test_p_of_dropout_forward(no_course, year, p, kept):
    cs231n.install(year=year)
    x = np.random.randn(300, 300) + 10
    out, cache = dropout_forward(x, {"mode": "train", "p": 0.3, "seed": 1})
    below = np.random.RandomState(1).rand(300, 300) < 0.3
    np.testing.assert_array_equal(out != 0, ~below if kept == 0.7 else below)
    np.testing.assert_allclose(out[out != 0], (x / kept)[out != 0], rtol=1e-12)
    np.testing.assert_allclose(dropout_backward(np.ones_like(x), cache), (out != 0) / kept, rtol=1e-12)


@pytest.mark.parametrize(("year", "p"), [(2017, 1), (2017, -0.1), (2018, 0), (2018, 1.1)])
def test_a_p_by_which_nothing_or_more_than_all_is_kept(no_course, year, p):
    cs231n.install(year=year)
    meaning = "the share of units dropped, 0 <= p < 1" if year == 2017 else "the probability to keep a unit, 0 < p <= 1"
    with pytest.raises(ValueError, match=f"expected {meaning}, got {p}"):
        dropout_forward(np.ones((2, 3)), {"mode": "train", "p": p})


@pytest.mark.parametrize(("year", "half"), [(2016, 0.5), (2017, 1), (None, 1)])
def test_the_l2_term_of_assignment_1(no_course, year, half):
    cs231n.install(year=year)
    W, X, y = np.random.randn(4, 3), np.random.randn(5, 4), np.arange(5) % 3
    plain, loss = (svm_loss_vectorized(W, X, y, reg)[0] for reg in (0, 2.0))
    assert loss == pytest.approx(plain + half * 2 * (W**2).sum(), rel=1e-12)
    net = TwoLayerNet(4, 6, 3, std=0.5)
    squares = sum((net.params[name] ** 2).sum() for name in ("W1", "W2"))
    loss, grads = net.loss(X, y, reg=0.3)
    assert loss == pytest.approx(net.loss(X, y)[0] + half * 0.3 * squares, rel=1e-12)
    for name, grad in grads.items():
        numeric = numerical_gradient(lambda _: net.loss(X, y, reg=0.3)[0], net.params[name])
        assert relative_error(numeric, grad) < 1e-6, name


@pytest.mark.parametrize(
    ("year", "error", "message"),
    [
        (2015, ValueError, "year: expected 2016 to 2026, got 2015; leave it out for 2018 and later"),
        ("2017", TypeError, "year: expected an integer or None, got '2017' of type str"),
        (True, TypeError, "year: expected an integer or None, got True of type bool"),
    ],
)
def test_other_years(no_course, year, error, message):
    with pytest.raises(error, match=message):
        cs231n.install(year=year)
