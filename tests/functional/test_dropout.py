"""Dropout: masks bit by bit, and the two passes."""

import numpy as np
import pytest

from fcnet import functional as F
from fcnet.backends import MaskStream, get_backend
from fcnet.backends.caches import keep_threshold
from fcnet.tools.gradcheck import numerical_gradient
from tests import oracles
from tests.tolerances import assert_close

pytestmark = pytest.mark.references

SHAPES = [(4, 5), (1, 1), (3, 4, 5), (17, 33)]
GOLDEN_MASK = "0010000000010110"  # seed 5, layer 2, step 3, keep 0.5


@pytest.fixture
def stream(backend):
    return MaskStream(backend, seed=5, layer=2, step=3)


@pytest.mark.parametrize("keep", [0.8, 0.5, 1 / 3, 0.999, 1.0])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_mask_is_the_oracle_of_the_bits(shape, keep, stream, host, dtype):
    bits = get_backend("cpu").random_bits(stream.key, 2, 3, 0, shape)
    mask = F.dropout_mask(stream, keep, shape, dtype)
    np.testing.assert_array_equal(host(mask), oracles.dropout_mask(bits, keep).astype(dtype))
    assert host(mask).dtype == dtype


def test_masks_are_pinned(stream, host):
    """The first row of a mask, literally: the same on every device, in every release."""
    kept = host(F.dropout_mask(stream, 0.5, (2, 16), "float32"))[0] > 0
    assert "".join("01"[int(k)] for k in kept) == GOLDEN_MASK


def test_a_step_on_the_device_gives_the_same_mask(backend, host, device):
    on_host = MaskStream(backend, 5, 2, 3)
    on_device = MaskStream(backend, 5, 2, device([3], "int64"))
    shape = (4, 5)
    expected = host(F.dropout_mask(on_host, 0.5, shape, "float32"))
    np.testing.assert_array_equal(host(F.dropout_mask(on_device, 0.5, shape, "float32")), expected)
    on_device.step[...] = 4
    assert (host(F.dropout_mask(on_device, 0.5, shape, "float32")) != expected).any()


def test_masks_differ_by_seed_layer_step_and_net(backend, host):
    def mask(**changes):
        options = {"seed": 1, "layer": 1, "step": 1, "net": 1} | changes
        return host(F.dropout_mask(MaskStream(backend, **options), 0.5, (8, 16), "float32"))

    np.testing.assert_array_equal(mask(), mask())
    for name in ("seed", "layer", "step", "net"):
        # 128 fair coins: two independent masks differ in 64 places, give or take 5.7.
        assert 30 < np.count_nonzero(mask() != mask(**{name: 2})) < 98, name


@pytest.mark.parametrize("keep", [0.8, 0.5, 0.1])
def test_share_kept_and_mean(keep, backend, host):
    mask = host(F.dropout_mask(MaskStream(backend, 0), keep, (400, 500), "float64"))
    count, sigma = mask.size, (keep * (1 - keep) / mask.size) ** 0.5
    assert set(np.unique(mask)) == {0.0, 1 / keep}
    assert abs(np.count_nonzero(mask) / count - keep) < 4 * sigma
    assert abs(mask.mean() - 1) < 4 * sigma / keep


def test_threshold_edges(backend, host):
    assert keep_threshold(1) == 65536
    assert keep_threshold(0.5) == 32768
    assert keep_threshold(1e-9) == 1  # never nothing: some unit may live
    assert keep_threshold(1 - 1e-9) == 65536
    stream = MaskStream(backend, 0)
    assert (host(F.dropout_mask(stream, 1, (300, 300), "float32")) == 1).all()
    # 90000 numbers of 16 bits hold the largest, 65535, with probability 0.75; this seed's do.
    bits = get_backend("cpu").random_bits(stream.key, 0, 0, 0, (300, 300))
    assert bits.max() == 65535
    almost = host(F.dropout_mask(stream, 65535 / 65536, (300, 300), "float32"))
    np.testing.assert_array_equal(almost == 0, bits == 65535)
    tiny = host(F.dropout_mask(stream, 1 / 65536, (300, 300), "float32"))
    np.testing.assert_array_equal(tiny > 0, bits == 0)


def test_given_mask_is_filled(stream, host, xp, dtype):
    out = xp.empty((4, 5), dtype=dtype)
    assert F.dropout_mask(stream, 0.5, (4, 5), dtype, out=out) is out
    np.testing.assert_array_equal(host(out), host(F.dropout_mask(stream, 0.5, (4, 5), dtype)))
    assert F.dropout_mask(stream, 1, (4, 5), dtype, out=out) is out
    assert (host(out) == 1).all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_both_passes_are_products(shape, rng, lay, host, dtype, untouched, stream):
    x, dout = (rng.standard_normal(shape).astype(np.float32) for _ in "ab")
    mask = F.dropout_mask(stream, 0.5, shape, dtype)
    args = lay(x, dtype), lay(dout, dtype)
    with untouched(*args, mask):
        out, cache = F.dropout_forward(args[0], mask)
        dx = F.dropout_backward(args[1], cache)
    assert cache is mask
    for got, factor in ((out, x), (dx, dout)):
        expected = [a * b for a, b in zip(factor.flat, host(mask).flat, strict=True)]
        assert_close(host(got), np.reshape(expected, shape), dtype, "elementwise")


def test_backward_is_the_numerical_gradient(rng, device, host, stream):
    x, dout = rng.standard_normal((4, 5)), rng.standard_normal((4, 5))
    mask = F.dropout_mask(stream, 0.5, (4, 5), "float64")
    numeric = numerical_gradient(lambda x: host(F.dropout_forward(device(x), mask)[0]), x, dout)
    assert_close(host(F.dropout_backward(device(dout), mask)), numeric, "float64", "gradient")


def test_outputs_are_filled_also_in_place(rng, device, host, stream, dtype, xp):
    x = device(rng.standard_normal((4, 5)), dtype)
    mask = F.dropout_mask(stream, 0.5, (4, 5), dtype)
    expected = host(F.dropout_forward(x, mask)[0])
    out = xp.empty((4, 5), dtype=dtype)
    assert F.dropout_forward(x, mask, out=out)[0] is out
    np.testing.assert_array_equal(host(out), expected)
    assert F.dropout_backward(x, mask, dx=out) is out
    np.testing.assert_array_equal(host(out), expected)
    assert F.dropout_forward(x, mask, out=x)[0] is x
    np.testing.assert_array_equal(host(x), expected)


@pytest.mark.parametrize(
    ("keep", "error", "message"),
    [
        (0, ValueError, "dropout_mask: keep_ratio: expected a probability to keep a unit, 0 < keep_ratio <= 1, got 0"),
        (1.5, ValueError, "got 1.5"),
        (1e-5, ValueError, "keep_ratio: expected at least 1/65536, got 1e-05"),
        (float("nan"), ValueError, "got nan"),
        ("0.5", TypeError, "dropout_mask: keep_ratio: expected a number, got '0.5'"),
        (True, TypeError, "expected a number, got True"),
    ],
)
def test_bad_keep_ratios_are_named(keep, error, message, stream):
    with pytest.raises(error) as caught:
        F.dropout_mask(stream, keep, (2, 2), "float32")
    assert message in str(caught.value)


def test_bad_arguments_are_named(device):
    with pytest.raises(ValueError, match=r"dropout_forward: mask: expected the shape \(2, 3\) of x, got \(3,\)"):
        F.dropout_forward(device(np.ones((2, 3))), device(np.ones(3)))
    with pytest.raises(TypeError, match="dropout_forward: mask is float32 but x is float64"):
        F.dropout_forward(device(np.ones((2, 3))), device(np.ones((2, 3)), "float32"))


@pytest.mark.parametrize("keep", [0.8, 0.5, 1.0])
def test_plain_mask_keeps_the_same_units_without_scaling(keep, stream, host, dtype):
    mask = host(F.plain_dropout_mask(stream, keep, (17, 33), dtype))
    assert mask.dtype == dtype
    np.testing.assert_array_equal(mask, host(F.dropout_mask(stream, keep, (17, 33), dtype)) > 0)


def test_plain_dropout_while_training(rng, lay, host, dtype, untouched, stream, xp):
    x = rng.standard_normal((4, 5)).astype(np.float32)
    x_ = lay(x, dtype)
    with untouched(x_):
        out, mask = F.plain_dropout_forward(x_, 0.5, stream)
    np.testing.assert_array_equal(host(mask), host(F.plain_dropout_mask(stream, 0.5, (4, 5), dtype)))
    np.testing.assert_array_equal(host(out), np.where(host(mask) > 0, x, 0).astype(dtype))
    given = xp.empty((4, 5), dtype=dtype), xp.empty((4, 5), dtype=dtype)
    again, cache = F.plain_dropout_forward(x_, 0.5, stream, out=given[0], cache=given[1])
    assert again is given[0]
    assert cache is given[1]
    np.testing.assert_array_equal(host(again), host(out))


def test_plain_dropout_evaluates_to_the_mean_of_training(rng, lay, host, dtype, backend, device):
    x = rng.standard_normal((4, 5)).astype(np.float32)
    out = host(F.plain_dropout_inference(lay(x, dtype), 0.7))
    assert_close(out, 0.7 * x.astype(float), dtype, "elementwise")
    x_ = device(x, "float64")
    trained = [host(F.plain_dropout_forward(x_, 0.7, MaskStream(backend, 1, 1, t))[0]) for t in range(400)]
    # The share kept in 400 steps is known to sqrt(0.7 * 0.3 / 400) = 0.023.
    np.testing.assert_allclose(np.mean(trained, axis=0), 0.7 * x, atol=4 * 0.023 * np.abs(x).max())
    assert F.plain_dropout_inference(x_, 0.7, out=x_) is x_


@pytest.mark.parametrize(
    "function", [F.plain_dropout_inference, lambda x, keep: F.plain_dropout_forward(x, keep, None)]
)
def test_plain_dropout_names_bad_arguments(function, device):
    with pytest.raises(ValueError, match=r"keep_ratio: expected a probability to keep a unit, .* got 1.5"):
        function(device(np.ones((2, 3))), 1.5)
    with pytest.raises(TypeError, match="x: expected float32 or float64, got int64"):
        function(device(np.ones((2, 3), int)), 0.5)


@pytest.mark.parametrize("keep", [1.0, 0.6])
def test_plain_dropouts_gradient_is_the_numerical_one(keep, rng, device, host, stream):
    x, dout = rng.standard_normal((4, 5)), rng.standard_normal((4, 5))
    _, cache = F.plain_dropout_forward(device(x), keep, stream)
    numeric = numerical_gradient(lambda x: host(F.plain_dropout_forward(device(x), keep, stream)[0]), x, dout)
    assert_close(host(F.dropout_backward(device(dout), cache)), numeric, "float64", "gradient")
