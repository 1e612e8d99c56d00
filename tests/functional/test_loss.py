"""Losses with their gradients."""

import numpy as np
import pytest

from fcnet import functional as F
from fcnet.tools.gradcheck import numerical_gradient
from tests import combinations, oracles
from tests.tolerances import assert_close

#: loss -> oracle(scores, labels); a loss without a line here fails.
ORACLES = {
    "softmax": oracles.softmax_loss,
    "svm": oracles.svm_loss,
    "mse": oracles.mse_loss,
    "bce": oracles.bce_loss,
    "poisson": oracles.poisson_loss,
}
LABELLED = ["softmax", "svm"]  # whose targets are the labels of classes
SHAPES = [(5, 4), (1, 4), (5, 2), (1, 2), (9, 10)]


def test_every_loss_is_tested():
    assert set(ORACLES) == set(F.LOSSES) == set(F.METRICS)
    assert set(F.NUMERIC) == set(ORACLES) - set(LABELLED)


@pytest.fixture(params=sorted(F.LOSSES))
def name(request):
    return request.param


labelled = pytest.mark.parametrize("name", LABELLED)


def draw(rng, shape, name="softmax"):
    """Scores and targets: values that float32 can hold."""
    scores = (3 * rng.standard_normal(shape)).astype(np.float32).astype(np.float64)
    if name == "mse":
        return scores, rng.standard_normal(shape).astype(np.float32).astype(np.float64)
    if name == "poisson":
        return scores, rng.integers(5, size=shape).astype(np.float64)
    if name == "bce":
        return scores, rng.integers(2, size=shape).astype(np.float64)
    return scores, rng.integers(shape[1], size=shape[0])


def on_device(device, y, dtype):
    """Targets as the loss takes them: numbers in the dtype of the scores."""
    return device(y, dtype if y.dtype.kind == "f" else None)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.corner(backend=combinations.WITH_KERNELS, lay="contiguous", dtype="float32")
def test_it_is_the_oracle(name, shape, rng, lay, host, dtype, untouched):
    scores, y = draw(rng, shape, name)
    scores_, y_ = lay(scores, dtype), on_device(lay, y, dtype)
    with untouched(scores_, y_):
        loss, dscores = F.LOSSES[name](scores_, y_)
    expected = ORACLES[name](scores, y)
    assert_close(host(loss), expected[0], dtype, "loss")
    assert_close(host(dscores), expected[1], dtype, "loss")


def test_gradient_is_the_numerical_one(name, rng, device, host):
    scores, y = draw(rng, (5, 4), name)
    _, dscores = F.LOSSES[name](device(scores), device(y))
    numeric = numerical_gradient(lambda s: host(F.LOSSES[name](device(s), device(y))[0]), scores)
    assert_close(host(dscores), numeric, "float64", "gradient")


def test_it_is_torchs(name, rng, device, host, dtype):
    torch = pytest.importorskip("torch")
    theirs = {
        "softmax": torch.nn.functional.cross_entropy,
        # PyTorch divides by the number of classes as well
        "svm": lambda s, y: torch.nn.functional.multi_margin_loss(s, y) * s.shape[1],
        "mse": torch.nn.functional.mse_loss,
        "bce": torch.nn.functional.binary_cross_entropy_with_logits,
        "poisson": lambda s, y: torch.nn.functional.poisson_nll_loss(s, y) + (torch.special.xlogy(y, y) - y).mean(),
    }
    scores, y = draw(rng, (6, 4), name)
    loss, dscores = F.LOSSES[name](device(scores, dtype), on_device(device, y, dtype))
    tensor = torch.tensor(scores, requires_grad=True)
    expected = theirs[name](tensor, torch.tensor(y))
    expected.backward()
    assert_close(host(loss), expected.item(), dtype, "loss")
    assert_close(host(dscores), tensor.grad.numpy(), dtype, "loss")


@labelled
@pytest.mark.parametrize("kind", ["int32", "uint8", "one-hot", "one-hot bool", "one-hot int64", "one-hot float64"])
def test_kinds_of_labels_give_the_same_bits(name, kind, rng, device, host, dtype, backend):
    scores, y = draw(rng, (5, 4))
    expected = F.LOSSES[name](device(scores, dtype), device(y))
    one_hot = oracles.one_hot(y, 4)
    target = one_hot.astype(kind[8:] or dtype) if kind.startswith("one-hot") else y.astype(kind)
    got = F.LOSSES[name](device(scores, dtype), device(target))
    for a, b in zip(got, expected, strict=True):
        assert host(a).dtype == dtype
        if kind.startswith("one-hot") and backend.kernels:  # labels go to the kernel, rows to the reference
            assert_close(host(a), host(b).astype(float), dtype, "loss")
        else:
            np.testing.assert_array_equal(host(a), host(b))


def test_softmax_takes_probabilities(rng, device, host, dtype):
    scores, _ = draw(rng, (5, 4))
    targets = rng.dirichlet(np.ones(4), size=5)
    loss, dscores = F.softmax_loss(device(scores, dtype), device(targets, dtype))
    expected = oracles.softmax_loss(scores, targets)
    assert_close(host(loss), expected[0], dtype, "loss")
    assert_close(host(dscores), expected[1], dtype, "loss")


@labelled
@pytest.mark.parametrize("offset", [0, 1e4, -1e4])
def test_equal_scores(name, offset, device, host, dtype):
    loss, dscores = F.LOSSES[name](device(np.full((3, 4), offset), dtype), device([0, 1, 3]))
    assert_close(host(loss), {"softmax": np.log(4), "svm": 3.0}[name], dtype, "loss")
    assert_close(host(dscores).sum(axis=1), np.zeros(3), dtype, "loss")


def test_nan_shows_in_the_loss(name, device, host, dtype):
    scores = np.array([[0.5, np.nan, 1.0], [0.1, 0.2, 0.3]])
    y = np.array([2, 0]) if name in LABELLED else np.array([[0.0, 1, 1], [0, 1, 0]])
    loss, _ = F.LOSSES[name](device(scores, dtype), on_device(device, y, dtype))
    assert np.isnan(host(loss))


@pytest.mark.parametrize("name", sorted(set(F.LOSSES) - {"poisson"}))  # of which they are logarithms
def test_large_scores_do_not_overflow(name, device, host, dtype):
    scores = np.array([[1e4, 0, -1e4], [-1e4, 1e4, 1e4]])
    y = np.array([2, 0]) if name in LABELLED else np.array([[0.0, 1, 1], [0, 1, 0]])
    loss, dscores = F.LOSSES[name](device(scores, dtype), on_device(device, y, dtype))
    expected = ORACLES[name](scores, y)
    assert_close(host(loss), expected[0], dtype, "loss")
    assert_close(host(dscores), expected[1], dtype, "loss")


def test_given_outputs_are_filled_and_returned(name, rng, device, host, xp, dtype):
    scores, y = draw(rng, (5, 4), name)
    y = on_device(device, y, dtype)
    expected = F.LOSSES[name](device(scores, dtype), y)
    loss, dscores = xp.empty((), dtype=dtype), xp.empty((5, 4), dtype=dtype)
    got = F.LOSSES[name](device(scores, dtype), y, loss=loss, dscores=dscores)
    assert got[0] is loss
    assert got[1] is dscores
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(host(a), host(b))


def test_networks_side_by_side_are_networks_one_by_one(name, rng, device, host, dtype):
    scores, y = rng.standard_normal((3, 5, 4)), rng.integers(4, size=(3, 5))
    one_hot = np.stack([oracles.one_hot(labels, 4) for labels in y])
    y = y if name in LABELLED else one_hot
    for target in (y, one_hot.astype(dtype)) if name in LABELLED else (one_hot,):
        loss, dscores = F.LOSSES[name](device(scores, dtype), on_device(device, target, dtype))
        assert loss.shape == (3,)
        for k in range(3):
            expected = ORACLES[name](scores[k].astype(dtype), y[k])
            assert_close(host(loss)[k], expected[0], dtype, "loss")
            assert_close(host(dscores)[k], expected[1], dtype, "loss")


def test_softmax(rng, lay, host, dtype, untouched, xp, device):
    scores = (3 * rng.standard_normal((5, 4))).astype(np.float32)
    scores_ = lay(scores, dtype)
    with untouched(scores_):
        probabilities = F.softmax(scores_)
    # The gradient of the cross-entropy is (p - t) / N.
    _, dscores = oracles.softmax_loss(scores, oracles.one_hot([0] * 5, 4))
    assert_close(host(probabilities), 5 * dscores + oracles.one_hot([0] * 5, 4), dtype, "loss")
    out = xp.empty((5, 4), dtype=dtype)
    assert F.softmax(scores_, out=out) is out
    np.testing.assert_array_equal(host(out), host(probabilities))
    plain = device(scores, dtype)
    assert F.softmax(plain, out=plain) is plain
    np.testing.assert_array_equal(host(plain), host(probabilities))
    assert_close(host(F.softmax(device([[1e4, 1e4], [-1e4, 1e4]], dtype))), [[0.5, 0.5], [0, 1]], dtype, "loss")


def test_one_hot(device, host, dtype):
    rows = host(F.one_hot(device([[2, 0], [1, 1]]), 3, dtype))
    np.testing.assert_array_equal(rows, [[[0, 0, 1], [1, 0, 0]], [[0, 1, 0], [0, 1, 0]]])
    assert rows.dtype == dtype
    np.testing.assert_array_equal(host(F.one_hot(device([3, -1]), 3, dtype)), np.zeros((2, 3)))


BAD = [
    (np.zeros((3, 4)), np.zeros(2, int), ValueError, "y: expected the shape (3,) of scores without classes, got (2,)"),
    (np.zeros((3, 4)), np.zeros((3, 5)), ValueError, "y: expected the shape (3, 4) of scores (one-hot), got (3, 5)"),
    (np.zeros((3, 4)), np.zeros(3), TypeError, "y: expected integer labels, got float64; use y.astype(int)"),
    (np.zeros((3, 4)), [0, 1, 2], TypeError, "y: expected an array, got list"),
    (np.zeros((0, 4)), np.zeros(0, int), ValueError, "scores: expected at least one row, got shape (0, 4)"),
    (np.zeros(4), np.zeros((), int), ValueError, "scores: expected (..., N, D), got shape (4,)"),
    (np.zeros((3, 4), int), np.zeros(3, int), TypeError, "scores: expected float32 or float64, got int64"),
]


@labelled
@pytest.mark.parametrize(("scores", "y", "error", "message"), BAD)
def test_bad_arguments_are_named(name, scores, y, error, message, device):
    with pytest.raises(error) as caught:
        F.LOSSES[name](device(scores), device(y) if isinstance(y, np.ndarray) else y)
    assert f"{name}_loss: {message}" in str(caught.value)


def test_softmax_names_its_argument(device):
    with pytest.raises(TypeError, match="softmax: scores: expected float32 or float64, got int64"):
        F.softmax(device([[1, 2]]))


@pytest.mark.parametrize("name", sorted(F.NUMERIC))
@pytest.mark.parametrize(
    ("scores", "y", "error", "message"),
    [
        (np.zeros((3, 4)), np.zeros(3), ValueError, "y: expected the shape (3, 4) of scores, got (3,)"),
        (np.zeros((3, 4)), np.zeros((3, 4), int), TypeError, "y: expected float32 or float64, got int64"),
        (np.zeros((3, 4)), np.zeros((3, 4), "float32"), TypeError, "y is float32 but scores is float64"),
        (np.zeros((0, 4)), np.zeros((0, 4)), ValueError, "scores: expected at least one row, got shape (0, 4)"),
    ],
)
def test_bad_numbers_are_named(name, scores, y, error, message, device):
    with pytest.raises(error) as caught:
        F.LOSSES[name](device(scores), device(y))
    assert f"{name}_loss: {message}" in str(caught.value)


def test_bce_takes_probabilities(rng, device, host, dtype):
    scores, _ = draw(rng, (5, 4))
    targets = rng.random((5, 4)).astype(np.float32)
    loss, dscores = F.bce_loss(device(scores, dtype), device(targets, dtype))
    expected = oracles.bce_loss(scores, targets)
    assert_close(host(loss), expected[0], dtype, "loss")
    assert_close(host(dscores), expected[1], dtype, "loss")


def test_bce_of_one_label_is_softmax_of_two_classes(rng, device, host):
    """With scores (0, s); so its sign is that of every other loss."""
    scores, y = rng.standard_normal((6, 1)), rng.integers(2, size=6)
    one, d_one = F.bce_loss(device(scores), device(y[:, None].astype(float)))
    two, d_two = F.softmax_loss(device(np.hstack([np.zeros((6, 1)), scores])), device(y))
    assert host(one) == pytest.approx(host(two), rel=1e-12)
    np.testing.assert_allclose(host(d_one)[:, 0], host(d_two)[:, 1], rtol=1e-12)


def test_label_smoothing(rng, device, host, dtype, xp):
    scores, y = draw(rng, (5, 4))
    expected = oracles.smooth(y, 4, 0.1)
    targets = xp.empty((5, 4), dtype=dtype)
    assert F.smooth_labels(device(y), 4, 0.1, dtype, targets=targets) is targets
    assert_close(host(targets), expected, dtype, "elementwise")
    rows = device(oracles.one_hot(y, 4), dtype)
    np.testing.assert_array_equal(host(F.smooth_labels(rows, 4, 0.1, dtype)), host(targets))
    np.testing.assert_array_equal(host(F.smooth_labels(device(y), 4, 0.0, dtype)), host(rows))
    loss, dscores = F.softmax_loss(device(scores, dtype), targets)
    assert_close(host(loss), oracles.softmax_loss(scores, expected)[0], dtype, "loss")
    assert_close(host(dscores), oracles.softmax_loss(scores, expected)[1], dtype, "loss")
    with pytest.raises(ValueError, match="smooth_labels: smoothing: expected 0 <= smoothing < 1, got 1"):
        F.smooth_labels(device(y), 4, 1, dtype)


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (np.array([0, 4]), ValueError, "y: expected labels 0 to 3, got 4"),
        (np.ones((2, 3)), ValueError, r"y: expected rows \(..., 4\), got shape \(2, 3\)"),
        (np.array([True, False]), TypeError, "y: expected integer labels or floating rows, got bool"),
        ([0, 1], TypeError, "y: expected an array, got list"),
    ],
)
def test_bad_labels_to_smooth_are_named(y, error, message):
    with pytest.raises(error, match=f"smooth_labels: {message}"):
        F.smooth_labels(y, 4, 0.1, "float64")


def test_label_smoothing_is_torchs(rng, device, host, dtype):
    torch = pytest.importorskip("torch")
    scores, y = draw(rng, (6, 4))
    loss, dscores = F.softmax_loss(device(scores, dtype), F.smooth_labels(device(y), 4, 0.2, dtype))
    tensor = torch.tensor(scores, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(tensor, torch.tensor(y), label_smoothing=0.2)
    expected.backward()
    assert_close(host(loss), expected.item(), dtype, "loss")
    assert_close(host(dscores), tensor.grad.numpy(), dtype, "loss")


def test_weighted_loss(name, rng, device, host, dtype, xp):
    scores, y = draw(rng, (5, 4), name)
    weights = np.array([0.0, 1.0, 0.25, 3.0, 0.5])
    y_ = on_device(device, y, dtype)
    given = {"loss": xp.empty((), dtype=dtype), "dscores": xp.empty((5, 4), dtype=dtype)}
    loss, dscores = F.weighted_loss(device(scores, dtype), y_, device(weights, dtype), name, **given)
    assert loss is given["loss"]
    assert dscores is given["dscores"]
    expected = oracles.weighted(ORACLES[name], scores, y, weights)
    assert_close(host(loss), expected[0], dtype, "loss")
    assert_close(host(dscores), expected[1], dtype, "loss")


def test_a_mean_squared_error_that_the_dtype_holds_is_finite(device, host):
    """Though the sum of the squares is beyond float32, and one square too."""
    scores = np.zeros((50, 4), np.float32)
    scores[0, 0] = 4e19  # whose square is 1.6e39, a two hundredth of which fits
    loss, dscores = F.mse_loss(device(scores), device(0 * scores))
    assert float(host(loss)) == pytest.approx(8e36, rel=1e-5)
    assert np.isfinite(host(dscores)).all()
    tiny = np.full((2, 2), 1e-25, np.float32)  # whose squares float32 takes for 0; so is the loss, but not before
    weights = device(np.full(2, 1e20, np.float32))
    loss, _ = F.weighted_loss(device(tiny), device(0 * tiny), weights, "mse")
    assert float(host(loss)) == pytest.approx(1e-30, rel=1e-5)


def test_weighted_loss_is_the_numerical_gradient(name, rng, device, host):
    scores, y = draw(rng, (5, 4), name)
    weights = device(rng.random(5))
    _, dscores = F.weighted_loss(device(scores), device(y), weights, name)
    numeric = numerical_gradient(lambda s: host(F.weighted_loss(device(s), device(y), weights, name)[0]), scores)
    assert_close(host(dscores), numeric, "float64", "gradient")


def test_a_class_that_cannot_be_has_no_part_in_the_loss(device, host, dtype):
    """A score of -inf: its p is zero, and 0 · log 0 counts as 0. Labels, one-hot rows and probabilities alike."""
    scores = np.array([[0.5, -np.inf, 1.0], [0.1, 0.2, 0.3], [-np.inf, 1.0, -np.inf]])
    rows = np.array([[1.0, 0, 0], [0, 0, 1], [0, 1, 0]])
    finite = oracles.softmax_loss(np.maximum(scores, -200), np.array([0, 2, 1]))
    for y in (np.array([0, 2, 1]), np.array([0, 2, 1], "uint8"), rows):
        loss, dscores = F.softmax_loss(device(scores, dtype), device(y))
        assert_close(host(loss), finite[0], dtype, "loss")
        assert_close(host(dscores), finite[1], dtype, "loss")
    mixed = np.array([[0.25, 0, 0.75], [0.5, 0.25, 0.25], [0, 1, 0]])
    loss, _ = F.softmax_loss(device(scores, dtype), device(mixed, dtype))
    p = np.exp(np.maximum(scores, -200))
    log_p = np.log(p / p.sum(1, keepdims=True))
    assert_close(host(loss), -np.mean(np.sum(mixed * log_p, axis=1)), dtype, "loss")
    weighted, _ = F.weighted_loss(device(scores, dtype), device([0, 2, 1]), device(np.ones(3), dtype))
    assert_close(host(weighted), finite[0], dtype, "loss")


def test_a_right_class_that_cannot_be_is_an_infinite_loss(device, host, dtype):
    scores = device(np.array([[0.5, -np.inf, 1.0], [0.1, 0.2, 0.3]]), dtype)
    for y in ([1, 2], np.array([[0.0, 1, 0], [0, 0, 1]])):
        assert host(F.softmax_loss(scores, device(y))[0]) == np.inf


def test_nan_and_a_label_without_a_class_beside_minus_infinity(device, host, dtype):
    scores = np.array([[0.5, -np.inf, 1.0], [0.1, np.nan, 0.3]])
    for y in ([0, 2], np.array([[1.0, 0, 0], [0, 0, 1]])):
        assert np.isnan(host(F.softmax_loss(device(scores, dtype), device(y))[0]))
    scores[1, 1] = -np.inf
    loss, _ = F.softmax_loss.reference(device(scores[:, ::-1].copy(), dtype), device(np.array([-1, 10**12])))
    expected = np.mean(np.log(np.sum(np.exp(scores - scores.max(1, keepdims=True)), axis=1)))
    assert_close(host(loss), expected, dtype, "loss")


def test_bad_weights_are_named(device):
    scores, y = device(np.zeros((3, 4))), device([0, 1, 2])
    with pytest.raises(ValueError, match="weighted_loss: weights: expected the shape"):
        F.weighted_loss(scores, y, device(np.ones(4)))
    with pytest.raises(TypeError, match="weighted_loss: weights is float32"):
        F.weighted_loss(scores, y, device(np.ones(3), "float32"))
    with pytest.raises(ValueError, match="weighted_loss: name: expected one of softmax"):
        F.weighted_loss(scores, y, device(np.ones(3)), "sofmax")


def test_weighted_loss_is_torchs(name, rng, device, host, dtype):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    each = {
        "softmax": lambda s, y: functional.cross_entropy(s, y, reduction="none"),
        "svm": lambda s, y: functional.multi_margin_loss(s, y, reduction="none") * s.shape[1],
        "mse": lambda s, y: functional.mse_loss(s, y, reduction="none").mean(1),
        "bce": lambda s, y: functional.binary_cross_entropy_with_logits(s, y, reduction="none").mean(1),
        "poisson": lambda s, y: (
            functional.poisson_nll_loss(s, y, reduction="none") + torch.special.xlogy(y, y) - y
        ).mean(1),
    }
    (scores, y), weights = draw(rng, (6, 4), name), rng.integers(4, size=6) / 2
    y_ = on_device(device, y, dtype)
    loss, dscores = F.weighted_loss(device(scores, dtype), y_, device(weights, dtype), name)
    tensor = torch.tensor(scores, requires_grad=True)
    expected = (torch.tensor(weights) * each[name](tensor, torch.tensor(y))).mean()
    expected.backward()
    assert_close(host(loss), expected.item(), dtype, "loss")
    assert_close(host(dscores), tensor.grad.numpy(), dtype, "loss")


def test_softmax_and_its_gradient_are_torchs(rng, device, host, dtype):
    torch = pytest.importorskip("torch")
    scores, _ = draw(rng, (5, 4))
    expected = torch.softmax(torch.tensor(scores), -1).numpy()
    assert_close(host(F.softmax(device(scores, dtype))), expected, dtype, "loss")
