"""Losses, and the L2 term."""

import numpy as np
import pytest

from fcnet import functional as F
from fcnet.numerical import numerical_gradient
from tests import oracles
from tests.tolerances import assert_close

#: loss -> oracle(scores, labels); a loss without a line here fails.
ORACLES = {
    "softmax": oracles.softmax_loss,
    "svm": oracles.svm_loss,
}
SHAPES = [(5, 4), (1, 4), (5, 2), (1, 2), (9, 10)]


def test_every_loss_is_tested():
    assert set(ORACLES) == set(F.LOSSES)


@pytest.fixture(params=sorted(F.LOSSES))
def name(request):
    return request.param


def draw(rng, shape):
    scores = (3 * rng.standard_normal(shape)).astype(np.float32).astype(np.float64)
    return scores, rng.integers(shape[1], size=shape[0])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_the_oracle(name, shape, rng, lay, host, dtype, untouched):
    scores, y = draw(rng, shape)
    scores_, y_ = lay(scores, dtype), lay(y)
    with untouched(scores_, y_):
        loss, dscores = F.LOSSES[name](scores_, y_)
    expected = ORACLES[name](scores, y)
    assert_close(host(loss), expected[0], dtype, "loss")
    assert_close(host(dscores), expected[1], dtype, "loss")


def test_gradient_is_the_numerical_one(name, rng, device, host):
    scores, y = draw(rng, (5, 4))
    _, dscores = F.LOSSES[name](device(scores), device(y))
    numeric = numerical_gradient(lambda s: host(F.LOSSES[name](device(s), device(y))[0]), scores)
    assert_close(host(dscores), numeric, "float64", "gradient")


def test_it_is_torchs(name, rng, device, host, dtype):
    torch = pytest.importorskip("torch")
    scores, y = draw(rng, (6, 4))
    loss, dscores = F.LOSSES[name](device(scores, dtype), device(y))
    tensor, labels = torch.tensor(scores, requires_grad=True), torch.tensor(y)
    if name == "softmax":
        expected = torch.nn.functional.cross_entropy(tensor, labels)
    else:  # PyTorch divides by the number of classes as well
        expected = torch.nn.functional.multi_margin_loss(tensor, labels) * scores.shape[1]
    expected.backward()
    assert_close(host(loss), expected.item(), dtype, "loss")
    assert_close(host(dscores), tensor.grad.numpy(), dtype, "loss")


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


@pytest.mark.parametrize("offset", [0, 1e4, -1e4])
def test_equal_scores(name, offset, device, host, dtype):
    loss, dscores = F.LOSSES[name](device(np.full((3, 4), offset), dtype), device([0, 1, 3]))
    assert_close(host(loss), {"softmax": np.log(4), "svm": 3.0}[name], dtype, "loss")
    assert_close(host(dscores).sum(axis=1), np.zeros(3), dtype, "loss")


def test_large_scores_do_not_overflow(name, device, host, dtype):
    scores = np.array([[1e4, 0, -1e4], [-1e4, 1e4, 1e4]])
    loss, dscores = F.LOSSES[name](device(scores, dtype), device([2, 0]))
    expected = ORACLES[name](scores, [2, 0])
    assert_close(host(loss), expected[0], dtype, "loss")
    assert_close(host(dscores), expected[1], dtype, "loss")


def test_given_outputs_are_filled_and_returned(name, rng, device, host, xp, dtype):
    scores, y = draw(rng, (5, 4))
    expected = F.LOSSES[name](device(scores, dtype), device(y))
    loss, dscores = xp.empty((), dtype=dtype), xp.empty((5, 4), dtype=dtype)
    got = F.LOSSES[name](device(scores, dtype), device(y), loss=loss, dscores=dscores)
    assert got[0] is loss
    assert got[1] is dscores
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(host(a), host(b))


def test_networks_side_by_side_are_networks_one_by_one(name, rng, device, host, dtype):
    scores, y = rng.standard_normal((3, 5, 4)), rng.integers(4, size=(3, 5))
    one_hot = np.stack([oracles.one_hot(labels, 4) for labels in y])
    for target in (y, one_hot.astype(dtype)):
        loss, dscores = F.LOSSES[name](device(scores, dtype), device(target))
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


@pytest.mark.parametrize("block", [1, 7, 20, 64])
def test_l2_penalty(block, rng, device, host, xp, dtype, untouched):
    weights, dweights = rng.standard_normal(20).astype(np.float32), rng.standard_normal(20).astype(np.float32)
    weights_, dweights_, loss = device(weights, dtype), device(dweights, dtype), device(1.5, dtype)
    with untouched(weights_):
        F.l2_penalty(weights_, 0.3, loss, dweights_, xp.empty(block, dtype=dtype))
    value, gradient = oracles.l2(weights, 0.3)
    assert_close(host(loss), 1.5 + value, dtype, "loss")
    assert_close(host(dweights_), dweights + gradient, dtype, "elementwise")


def test_l2_penalty_copies_nothing(guard):
    """CuPy copies an input that overlaps `out` and is another object: here that would be every parameter."""
    xp = guard.xp
    arrays = xp.ones(64), 0.1, xp.zeros(()), xp.ones(64), xp.empty(16)
    with guard.recording() as log, guard.no_waits():
        F.l2_penalty(*arrays)
    assert max(event.nbytes for event in log.allocations) == 8


BAD = [
    (np.zeros((3, 4)), np.zeros(2, int), ValueError, "y: expected the shape (3,) of scores without classes, got (2,)"),
    (np.zeros((3, 4)), np.zeros((3, 5)), ValueError, "y: expected the shape (3, 4) of scores (one-hot), got (3, 5)"),
    (np.zeros((3, 4)), np.zeros(3), TypeError, "y: expected integer labels, got float64; use y.astype(int)"),
    (np.zeros((3, 4)), [0, 1, 2], TypeError, "y: expected an array, got list"),
    (np.zeros((0, 4)), np.zeros(0, int), ValueError, "scores: expected at least one row, got shape (0, 4)"),
    (np.zeros(4), np.zeros((), int), ValueError, "scores: expected (..., N, D), got shape (4,)"),
    (np.zeros((3, 4), int), np.zeros(3, int), TypeError, "scores: expected float32 or float64, got int64"),
]


@pytest.mark.parametrize(("scores", "y", "error", "message"), BAD)
def test_bad_arguments_are_named(name, scores, y, error, message, device):
    with pytest.raises(error) as caught:
        F.LOSSES[name](device(scores), device(y) if isinstance(y, np.ndarray) else y)
    assert f"{name}_loss: {message}" in str(caught.value)


def test_softmax_names_its_argument(device):
    with pytest.raises(TypeError, match="softmax: scores: expected float32 or float64, got int64"):
        F.softmax(device([[1, 2]]))
