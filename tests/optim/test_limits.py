"""What limits a step beside the rule: clipping, weight decay, max-norm; each against the definition, in place."""

import math

import numpy as np
import pytest

from fcnet.optim import clip_by_norm, clip_by_value, decay_weights, max_norm
from tests import denormals
from tests.tolerances import assert_close

pytestmark = pytest.mark.references


def test_clip_by_value(rng, device, host, dtype):
    dw = np.array([-3, -0.5, -0.25, 0, 0.1, 0.5, 7, *rng.standard_normal(20)]).astype(np.float32)
    dw_ = device(dw, dtype)
    assert clip_by_value(dw_, 0.5) is dw_
    expected = [0.5 if g > 0.5 else -0.5 if g < -0.5 else g for g in dw.tolist()]
    np.testing.assert_array_equal(host(dw_), np.array(expected).astype(dtype))


@pytest.mark.parametrize("block", [1, 7, 40, 64, None])
def test_clip_by_norm(block, rng, device, host, dtype, xp):
    dw = (3 * rng.standard_normal(40)).astype(np.float32)
    length = math.sqrt(math.fsum(float(g) ** 2 for g in dw))
    for limit in (0.25 * length, 2 * length):
        dw_ = device(dw, dtype)
        assert clip_by_norm(dw_, limit, work=None if block is None else xp.empty(block, dtype=dtype)) is dw_
        got = host(dw_)
        expected = [float(g) * limit / length for g in dw] if limit < length else dw.astype(float)
        assert_close(got, expected, dtype, "gemm")
        assert math.hypot(*got.tolist()) == pytest.approx(min(limit, length), rel=1e-5)


def test_a_gradient_of_zeros_stays(device, host, dtype):
    dw = device(np.zeros(5), dtype)
    clip_by_norm(dw, 1e-3)
    assert not host(dw).any()


@pytest.mark.parametrize("block", [1, None])
def test_a_gradient_whose_squares_overflow_keeps_its_direction(block, device, host, dtype, xp):
    large = {"float32": 2.0**100, "float64": 2.0**900}[dtype]
    dw = device(np.array([3, -4, 0, 12]) * large, dtype)
    clip_by_norm(dw, 13.0, work=None if block is None else xp.empty(block, dtype=dtype))
    assert_close(host(dw), [3, -4, 0, 12], dtype, "elementwise")
    most = float(np.finfo(dtype).max) / 2
    dw = device(np.full(100, most), dtype)  # whose norm itself the dtype does not hold
    clip_by_norm(dw, 10.0)
    assert_close(host(dw), np.ones(100), dtype, "elementwise")


def test_a_gradient_within_the_limit_stays_to_the_bit(rng, device, host, dtype):
    tiny = np.array([1.0, -3.0]) * float(np.finfo(dtype).tiny)
    for dw in (rng.standard_normal(50), tiny):
        before = device(dw, dtype)
        after = device(dw, dtype)
        clip_by_norm(after, 100.0)
        np.testing.assert_array_equal(host(after), host(before))


def test_clipping_is_torchs(rng, device, host, dtype):
    torch = pytest.importorskip("torch")
    dw = (2 * rng.standard_normal(30)).astype(np.float32)
    for limit in (0.5, 100.0):
        tensor = torch.zeros(30, dtype=torch.float64, requires_grad=True)
        tensor.grad = torch.tensor(dw, dtype=torch.float64)
        dw_ = device(dw, dtype)
        torch.nn.utils.clip_grad_norm_([tensor], limit)
        clip_by_norm(dw_, limit)
        np.testing.assert_allclose(host(dw_), tensor.grad.numpy(), rtol=1e-5)  # it adds 1e-6 to the norm
        tensor.grad = torch.tensor(dw, dtype=torch.float64)
        torch.nn.utils.clip_grad_value_([tensor], limit)
        dw_ = device(dw, dtype)
        clip_by_value(dw_, limit)
        np.testing.assert_array_equal(host(dw_), tensor.grad.numpy().astype(dtype))


@pytest.mark.parametrize("block", [1, 7, 20, 64])
@pytest.mark.parametrize("on_device", [False, True])
def test_decay_weights(block, on_device, rng, device, host, dtype, xp):
    w = rng.standard_normal(20).astype(np.float32)
    w_ = device(w, dtype)
    rate = device([0.25]) if on_device else 0.25
    assert decay_weights(w_, rate, 0.5, work=xp.empty(block, dtype=dtype)) is w_
    assert_close(host(w_), [float(value) * 0.875 for value in w], dtype, "elementwise")


def test_max_norm(rng, device, host, dtype, xp):
    w = rng.standard_normal((9, 6)).astype(np.float32) * np.array([0.1, 0.5, 2, 3, 4, 0], np.float32)
    expected = np.array(w, dtype=np.float64)
    for m in range(6):
        length = math.sqrt(math.fsum(float(value) ** 2 for value in w[:, m]))
        if length > 2.5:
            expected[:, m] = [float(value) / length * 2.5 for value in w[:, m]]
    assert (expected != w).any(axis=0).tolist() == [False, False, True, True, True, False]
    for work in (None, xp.empty((9, 6), dtype=dtype)):
        w_ = device(w, dtype)
        assert max_norm(w_, 2.5, work=work) is w_
        assert_close(host(w_), expected, dtype, "gemm")
    stack = device(np.stack([w, w[::-1]]), dtype)
    max_norm(stack, 2.5)
    assert_close(host(stack)[0], expected, dtype, "gemm")
    assert_close(host(stack)[1], expected[::-1], dtype, "gemm")


def test_weights_whose_squares_overflow_keep_their_direction(device, host, dtype):
    large = {"float32": 2.0**100, "float64": 2.0**900}[dtype]
    w = device(np.array([[3 * large, 3], [-4 * large, 4]]), dtype)
    max_norm(w, 10.0)
    assert_close(host(w), [[6, 3], [-8, 4]], dtype, "elementwise")


def test_max_norm_is_torchs(rng, device, host):
    torch = pytest.importorskip("torch")
    w = rng.standard_normal((9, 6))
    w_ = device(w)
    max_norm(w_, 2.0)
    np.testing.assert_allclose(host(w_), torch.renorm(torch.tensor(w), 2, 1, 2.0).numpy(), rtol=1e-6)


def test_they_neither_wait_nor_copy(guard):
    xp = guard.xp
    dw, w, work = xp.ones((64, 64)), xp.ones((64, 64)), xp.empty((64, 64))
    rate = xp.ones(1)
    with guard.no_waits(), guard.recording() as log:
        clip_by_value(dw, 0.5)
        clip_by_norm(dw.reshape(-1), 0.5, work=work[:4].reshape(-1))
        decay_weights(w.reshape(-1), rate, 0.5, work=work[:4].reshape(-1))
        max_norm(w, 0.5, work=work)
    assert max(event.nbytes for event in log.allocations) <= 8 * 64
    assert log.uploads == []


def test_weights_that_decay_become_zero_and_are_never_denormal(backend, device, host, dtype, xp):
    """Where denormals count as 0, a weight stays as soon as what it would lose is denormal."""
    w = device(denormals.small(dtype))
    for _ in range(20):
        decay_weights(w, 0.5, 0.5, work=xp.empty(7, dtype=dtype))
        assert not denormals.count(host(w))
    losses = abs(host(w).astype("float64")) / 4
    assert (losses < np.finfo(dtype).smallest_normal if denormals.flushes(backend, dtype) else losses == 0).all()
