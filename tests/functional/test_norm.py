"""Batch and layer normalisation."""

import statistics

import numpy as np
import pytest

from fcnet import functional as F
from fcnet.tools.gradcheck import numerical_gradient
from tests import denormals, oracles
from tests.guard import shares_memory
from tests.tolerances import assert_close

SHAPES = [(6, 5), (1, 5), (6, 1), (2, 2), (17, 9)]
FORWARD = {"batchnorm": F.batchnorm_forward, "layernorm": F.layernorm_forward}
BACKWARD = {"batchnorm": F.batchnorm_backward, "layernorm": F.layernorm_backward}


@pytest.fixture(params=sorted(FORWARD))
def norm(request):
    return request.param


def forward_oracle(norm, x, gamma, beta, **options):
    out = getattr(oracles, norm)(x, gamma, beta, **options)
    return out[0] if norm == "batchnorm" else out


def backward_oracle(norm, *args, **options):
    return getattr(oracles, f"{norm}_backward")(*args, **options)


def draw(rng, shape):
    """x off centre and off scale, gamma, beta, dout: float64 values that float32 can hold."""
    x = 2 * rng.standard_normal(shape) + 3
    arrays = x, *(rng.standard_normal(s) for s in (shape[-1], shape[-1], shape))
    return [array.astype(np.float32).astype(np.float64) for array in arrays]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.references
def test_forward_is_the_oracle(norm, shape, rng, lay, host, dtype, untouched):
    x, gamma, beta, _ = draw(rng, shape)
    args = lay(x, dtype), lay(gamma, dtype), lay(beta, dtype)
    with untouched(*args):
        out, cache = FORWARD[norm](*args)
    assert_close(host(out), forward_oracle(norm, x, gamma, beta), dtype, "norm")
    assert cache.gamma is args[1]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.references
def test_backward_is_the_oracle(norm, shape, rng, lay, host, dtype, untouched):
    x, gamma, beta, dout = draw(rng, shape)
    args = lay(x, dtype), lay(gamma, dtype), lay(beta, dtype), lay(dout, dtype)
    _, cache = FORWARD[norm](*args[:3])
    with untouched(*args, cache.x_hat, cache.inv_std):
        grads = BACKWARD[norm](args[3], cache)
    if min(shape[:1] if norm == "batchnorm" else shape[1:]) == 1:
        # One value has no spread: x_hat = 0, 1 / std = 316, and dx is 0 up to rounding of values 316 times as big.
        assert np.abs(host(grads[0])).max() < 1e3 * np.finfo(dtype).eps
        grads, expected = grads[1:], backward_oracle(norm, dout, x, gamma)[1:]
    else:
        expected = backward_oracle(norm, dout, x, gamma)
    for got, want in zip(grads, expected, strict=True):
        assert_close(host(got), want, dtype, "norm")


@pytest.mark.parametrize("eps", [1e-5, 0.5])
@pytest.mark.references
def test_backward_is_the_numerical_gradient(norm, eps, rng, device, host):
    x, gamma, beta, dout = draw(rng, (6, 5))
    _, cache = FORWARD[norm](device(x), device(gamma), device(beta), eps=eps)
    grads = BACKWARD[norm](device(dout), cache)

    def forward(_):
        return host(FORWARD[norm](device(x), device(gamma), device(beta), eps=eps)[0])

    for value, grad in zip((x, gamma, beta), grads, strict=True):
        assert_close(host(grad), numerical_gradient(forward, value, dout), "float64", "gradient")


@pytest.mark.references
def test_it_is_torchs(norm, rng, device, host, dtype):
    torch = pytest.importorskip("torch")
    x, gamma, beta, dout = draw(rng, (6, 5))
    out, cache = FORWARD[norm](*(device(value, dtype) for value in (x, gamma, beta)))
    tensors = [torch.tensor(value, requires_grad=True) for value in (x, gamma, beta)]
    if norm == "batchnorm":
        expected = torch.nn.functional.batch_norm(tensors[0], None, None, *tensors[1:], training=True)
    else:
        expected = torch.nn.functional.layer_norm(tensors[0], (5,), *tensors[1:])
    expected.backward(torch.tensor(dout))
    assert_close(host(out), expected.detach().numpy(), dtype, "norm")
    for grad, tensor in zip(BACKWARD[norm](device(dout, dtype), cache), tensors, strict=True):
        assert_close(host(grad), tensor.grad.numpy(), dtype, "norm")


@pytest.mark.parametrize("shape", [(6, 5), (2, 2), (3, 6, 5)], ids=str)
@pytest.mark.references
def test_stepwise_is_simplified(shape, rng, device, host, dtype, untouched):
    x, gamma, beta, dout = (device(value, dtype) for value in draw(rng, shape))
    _, cache = F.batchnorm_forward(x, gamma, beta)
    expected = F.batchnorm_backward(dout, cache)
    with untouched(dout, cache.x_hat, cache.inv_std, gamma):
        got = F.batchnorm_backward_stepwise(dout, cache)
    for a, b in zip(got, expected, strict=True):
        assert_close(host(a), host(b).astype(float), dtype, "norm")


@pytest.mark.references
def test_outputs_and_cache_are_filled_and_returned(norm, rng, device, host, xp, dtype):
    x, gamma, beta, dout = (device(value, dtype) for value in draw(rng, (6, 5)))
    first, _ = FORWARD[norm](x, gamma, beta)
    out, cache = FORWARD[norm](device(host(x) + 1), gamma, beta)  # buffers with other contents
    again, cache_again = FORWARD[norm](x, gamma, beta, out=out, cache=cache)
    assert again is out
    assert all(a is b for a, b in zip(cache_again, cache, strict=True))
    np.testing.assert_array_equal(host(again), host(first))

    expected = BACKWARD[norm](dout, cache_again)
    buffers = {name: xp.empty(v.shape, dtype=dtype) for name, v in (("dx", x), ("dgamma", gamma), ("dbeta", beta))}
    got = BACKWARD[norm](dout, cache_again, **buffers)
    for a, b, buffer in zip(got, expected, buffers.values(), strict=True):
        assert a is buffer
        np.testing.assert_array_equal(host(a), host(b))


@pytest.mark.references
def test_x_may_be_the_buffer_of_x_hat(norm, rng, device, host, dtype):
    x, gamma, beta, _ = (device(value, dtype) for value in draw(rng, (6, 5)))
    expected, cache = FORWARD[norm](x, gamma, beta)
    x_hat = host(cache.x_hat)
    out, cache = FORWARD[norm](x, gamma, beta, cache=cache._replace(x_hat=x))
    assert cache.x_hat is x
    np.testing.assert_array_equal(host(x), x_hat)
    np.testing.assert_array_equal(host(out), host(expected))


@pytest.mark.references
def test_layernorm_backward_takes_scratch(rng, device, host, xp, dtype):
    x, gamma, beta, dout = (device(value, dtype) for value in draw(rng, (6, 5)))
    _, cache = F.layernorm_forward(x, gamma, beta)
    expected = F.layernorm_backward(dout, cache)
    for work in (xp.empty((6, 5), dtype=dtype), dout):
        for a, b in zip(F.layernorm_backward(dout, cache, work=work), expected, strict=True):
            np.testing.assert_array_equal(host(a), host(b))


@pytest.mark.parametrize("own", [True, False], ids=["gamma (K, D)", "gamma (D,)"])
@pytest.mark.references
def test_networks_side_by_side_are_networks_one_by_one(norm, own, rng, device, host, dtype):
    x, gamma, beta, dout = draw(rng, (3, 6, 5))
    if own:
        gamma, beta = gamma + rng.standard_normal((3, 5)), beta + rng.standard_normal((3, 5))
    x, gamma, beta, dout = (value.astype(dtype) for value in (x, gamma, beta, dout))
    out, cache = FORWARD[norm](device(x), device(gamma), device(beta))
    dx, dgamma, dbeta = (host(grad) for grad in BACKWARD[norm](device(dout), cache))
    assert dgamma.shape == dbeta.shape == gamma.shape
    total = np.zeros((2, 5))
    for k in range(3):
        mine = (gamma[k], beta[k]) if own else (gamma, beta)
        assert_close(host(out)[k], forward_oracle(norm, x[k], *mine), dtype, "norm")
        dx_k, dgamma_k, dbeta_k = backward_oracle(norm, dout[k], x[k], mine[0])
        assert_close(dx[k], dx_k, dtype, "norm")
        total += dgamma_k, dbeta_k
        if own:
            assert_close(dgamma[k], dgamma_k, dtype, "norm")
            assert_close(dbeta[k], dbeta_k, dtype, "norm")
    if not own:
        assert_close(dgamma, total[0], dtype, "norm")
        assert_close(dbeta, total[1], dtype, "norm")


@pytest.mark.references
def test_running_statistics_after_one_step_and_several(rng, device, host, dtype):
    batches = [draw(rng, (6, 4))[0] for _ in range(5)]
    gamma, beta = device(np.ones(4), dtype), device(np.zeros(4), dtype)
    mean, var = device(np.zeros(4), dtype), device(np.zeros(4), dtype)
    by_hand = [[0.0, 0.0] for _ in range(4)]
    for batch in batches:
        F.batchnorm_forward(device(batch, dtype), gamma, beta, running_mean=mean, running_var=var)
        for d, column in enumerate(batch.T.tolist()):
            old_mean, old_var = by_hand[d]
            # momentum 0.9 weighs the old value; the variance is the biased one.
            by_hand[d] = [
                0.9 * old_mean + 0.1 * statistics.fmean(column),
                0.9 * old_var + 0.1 * statistics.pvariance(column),
            ]
        assert_close(host(mean), [row[0] for row in by_hand], dtype, "norm")
        assert_close(host(var), [row[1] for row in by_hand], dtype, "norm")


@pytest.mark.references
def test_momentum_is_a_parameter_and_one_statistic_may_be_left_out(rng, device, host, dtype):
    x, gamma, beta, _ = draw(rng, (6, 4))
    mean = device(np.full(4, 2.0), dtype)
    args = device(x, dtype), device(gamma, dtype), device(beta, dtype)
    F.batchnorm_forward(*args, running_mean=mean, momentum=0.25)
    expected = [0.25 * 2.0 + 0.75 * statistics.fmean(column) for column in x.T.tolist()]
    assert_close(host(mean), expected, dtype, "norm")


@pytest.mark.references
def test_running_statistics_of_networks_side_by_side(rng, device, host, dtype):
    x, gamma, beta, _ = draw(rng, (3, 6, 4))
    mean, var = device(np.zeros((3, 4)), dtype), device(np.zeros((3, 4)), dtype)
    args = device(x, dtype), device(gamma, dtype), device(beta, dtype)
    F.batchnorm_forward(*args, running_mean=mean, running_var=var)
    for k in range(3):
        assert_close(host(mean)[k], [0.1 * statistics.fmean(c) for c in x[k].T.tolist()], dtype, "norm")
        assert_close(host(var)[k], [0.1 * statistics.pvariance(c) for c in x[k].T.tolist()], dtype, "norm")


@pytest.mark.references
def test_repeated_steps_with_buffers_are_steps_without(rng, device, host, dtype):
    """The forward pass uses up cache.mean and cache.var; given back, they must not leak into the next step."""
    batches = [draw(rng, (6, 4))[0] for _ in range(3)]
    gamma, beta = device(np.ones(4), dtype), device(np.zeros(4), dtype)
    statistics_of = []
    for reuse in (False, True):
        mean, var, buffers, outs = device(np.zeros(4), dtype), device(np.zeros(4), dtype), {}, []
        for batch in batches:
            out, cache = F.batchnorm_forward(
                device(batch, dtype), gamma, beta, running_mean=mean, running_var=var, **buffers
            )
            buffers = {"out": out, "cache": cache} if reuse else {}
            outs.append(host(out))
        statistics_of.append((host(mean), host(var), np.stack(outs)))
    for a, b in zip(*statistics_of, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.references
def test_batchnorm_of_one_row_gives_beta(device, host, dtype):
    beta = [1.0, -2.0]
    mean, var = device(np.zeros(2), dtype), device(np.ones(2), dtype)
    args = device([[5.0, 7.0]], dtype), device([3.0, 3.0], dtype), device(beta, dtype)
    out, cache = F.batchnorm_forward(*args, running_mean=mean, running_var=var)
    np.testing.assert_array_equal(host(out), [beta])
    assert_close(host(mean), [0.5, 0.7], dtype, "norm")
    assert_close(host(var), [0.9, 0.9], dtype, "norm")
    dx, dgamma, dbeta = F.batchnorm_backward(device([[1.0, 1.0]], dtype), cache)
    np.testing.assert_array_equal(host(dx), [[0, 0]])
    np.testing.assert_array_equal(host(dgamma), [0, 0])
    np.testing.assert_array_equal(host(dbeta), [1, 1])


@pytest.mark.parametrize("shape", [(6, 5), (1, 1), (3, 6, 5)], ids=str)
@pytest.mark.references
def test_inference_is_the_definition(shape, rng, lay, host, dtype, untouched):
    x, gamma, beta, _ = draw(rng, shape)
    mean = rng.standard_normal(shape[-1]).astype(np.float32)
    var = rng.uniform(0.5, 2, shape[-1]).astype(np.float32)
    args = [lay(value, dtype) for value in (x, gamma, beta, mean, var)]
    with untouched(*args):
        out = F.batchnorm_inference(*args)
    expected = np.empty(shape)
    for index in np.ndindex(*shape):
        d = index[-1]
        std = (float(var[d]) + 1e-5) ** 0.5
        expected[index] = gamma[d] * (x[index] - float(mean[d])) / std + beta[d]
    assert_close(host(out), expected, dtype, "norm")
    result = host(out)
    assert F.batchnorm_inference(*args, out=args[0]) is args[0]  # in place
    np.testing.assert_array_equal(host(args[0]), result)


@pytest.mark.references
def test_inference_with_the_batchs_own_statistics_is_training(rng, device, host):
    x, gamma, beta, _ = (device(value) for value in draw(rng, (6, 5)))
    mean, var = device(np.zeros(5)), device(np.zeros(5))
    out, _ = F.batchnorm_forward(x, gamma, beta, running_mean=mean, running_var=var, momentum=0.0)
    assert_close(host(F.batchnorm_inference(x, gamma, beta, mean, var)), host(out), "float64", "norm")


@pytest.mark.references
def test_constant_features_give_beta(norm, device, host, dtype):
    beta = device([1.0, -2.0, 0.5], dtype)
    out, _ = FORWARD[norm](device(np.full((4, 3), 0.5), dtype), device(np.ones(3), dtype), beta)
    np.testing.assert_array_equal(host(out), np.tile([1.0, -2.0, 0.5], (4, 1)))


@pytest.mark.references
def test_a_large_mean_does_not_cancel_the_variance(norm, rng, device, host, dtype):
    """E[x²] - E[x]² would be noise here: the squares are 1e8 in float32, the variance is 1."""
    x = (rng.standard_normal((8, 8)) + 1e4).astype(np.float32)
    ones, zeros = np.ones(8), np.zeros(8)
    out, _ = FORWARD[norm](device(x, dtype), device(ones, dtype), device(zeros, dtype))
    # Sums of 8e4 in float32 are rounded by 4e-3; squares of 1e8 would be by 8, and the variance is 1.
    np.testing.assert_allclose(host(out), forward_oracle(norm, x, ones, zeros), atol=2e-2)


@pytest.mark.references
def test_the_parameter_views_keep_their_memory(norm, rng, device, dtype):
    x, gamma, beta, _ = (device(value, dtype) for value in draw(rng, (6, 5)))
    out, cache = FORWARD[norm](x, gamma, beta)
    for array in (cache.x_hat, out):
        assert not shares_memory(array, x)


def z(*shape, dtype="float64"):
    return np.zeros(shape, dtype)


BAD = [
    ((z(4, 3), z(2), z(3)), ValueError, "gamma: expected shape (3,) to match x, got (2,)"),
    ((z(4, 3), z(3), z(2)), ValueError, "beta: expected the shape (3,) of gamma, got (2,)"),
    ((z(3), z(3), z(3)), ValueError, "x: expected (..., N, D), got shape (3,)"),
    ((z(0, 3), z(3), z(3)), ValueError, "x: expected at least one row, got shape (0, 3)"),
    ((z(4, 3), z(3, dtype="float32"), z(3)), TypeError, "gamma is float32 but x is float64"),
    ((z(4, 3, dtype="int32"), z(3), z(3)), TypeError, "x: expected float32 or float64, got int32"),
]


@pytest.mark.parametrize(("args", "error", "message"), BAD)
@pytest.mark.references
def test_bad_arguments_are_named(norm, args, error, message, device):
    with pytest.raises(error) as caught:
        FORWARD[norm](*map(device, args))
    assert f"{norm}_forward: {message}" in str(caught.value)


@pytest.mark.parametrize(("args", "error", "message"), BAD)
@pytest.mark.references
def test_bad_arguments_of_inference_are_named(args, error, message, device):
    with pytest.raises(error) as caught:
        F.batchnorm_inference(*map(device, args), device(z(3)), device(z(3)))
    assert f"batchnorm_inference: {message}" in str(caught.value)


@pytest.mark.parametrize("name", ["running_mean", "running_var"])
@pytest.mark.references
def test_bad_running_statistics_are_named(name, device):
    x, vector = device(z(4, 3)), device(z(3))
    others = {"running_mean": vector, "running_var": vector}
    for bad, error, message in (
        (z(1, 3), ValueError, f"{name}: expected "),
        (z(3, dtype="float32"), TypeError, f"{name} is float32 but x is float64"),
    ):
        with pytest.raises(error) as caught:
            F.batchnorm_forward(x, vector, vector, **{name: device(bad)})
        assert f"batchnorm_forward: {message}" in str(caught.value)
        with pytest.raises(error) as caught:
            F.batchnorm_inference(x, vector, vector, **(others | {name: device(bad)}))
        assert f"batchnorm_inference: {message}" in str(caught.value)


CONSTANTS = [(0.1, 1000), (7.3, 1000), (1234.567, 1000), (123456.7, 100), (1e30, 33)]


@pytest.mark.parametrize(("value", "count"), CONSTANTS)
@pytest.mark.references
def test_what_is_constant_becomes_beta(norm, value, count, device, host, dtype, xp):
    """Exactly: the rounding of a mean would be magnified by 1 / sqrt(eps)."""
    x = np.full((count, 3) if norm == "batchnorm" else (3, count), value)
    gamma, beta = device(np.full(x.shape[1], 2.0), dtype), device(np.full(x.shape[1], 0.25), dtype)
    out, cache = FORWARD[norm](device(x, dtype), gamma, beta)
    np.testing.assert_array_equal(host(out), np.full(x.shape, 0.25))
    assert not host(cache.x_hat).any()


@pytest.mark.parametrize(("value", "count"), CONSTANTS)
def test_a_constant_column_of_a_hidden_layer_becomes_beta(norm, value, count, device, host, dtype, xp):
    """Through the kernels, where there are some; the running mean is the constant itself."""
    z = np.full((count, 3) if norm == "batchnorm" else (3, count), value)
    width = z.shape[1]
    gamma, beta, b = (device(np.full(width, number), dtype) for number in (2.0, 0.25, 0.0))
    forward = getattr(F, f"{norm}_activation_dropout_forward")
    if norm == "layernorm":
        out, _ = forward(device(z, dtype), b, gamma, beta)
    else:
        running = xp.zeros((width,), dtype=dtype), xp.ones((width,), dtype=dtype)
        out, _ = forward(
            device(z, dtype), b, gamma, beta, running_mean=running[0], running_var=running[1], momentum=0.0
        )
        assert_close(host(running[0]) / value, np.ones(width), dtype, "elementwise")
        assert not host(running[1]).any()
    np.testing.assert_array_equal(host(out), np.full(z.shape, 0.25))


@pytest.mark.parametrize("forward", [F.batchnorm_forward, F.batchnorm_activation_dropout_forward])
def test_running_statistics_become_zero_and_are_never_denormal(forward, device, host, dtype):
    """Units whose inputs have become constant; the reference's numbers on each device."""
    start = denormals.small(dtype)
    vectors = 2 if forward is F.batchnorm_forward else 3  # b, too
    arrays = [np.zeros(shape, dtype) for shape in ((4, start.size), *[start.size] * vectors)]
    mean, var = device(start), device(np.abs(start))
    expected = {"running_mean": start.copy(), "running_var": np.abs(start)}
    for _ in range(20):
        forward(*(device(array) for array in arrays), running_mean=mean, running_var=var, momentum=0.75)
        forward.reference(*arrays, **expected, momentum=0.75)
        for got, want in zip((mean, var), expected.values(), strict=True):
            assert not denormals.count(host(got))
            np.testing.assert_array_equal(host(got), want)
    assert not host(mean).any()
    assert not host(var).any()


def test_a_tiny_bias_leaves_no_denormal_in_the_running_mean(device, host, dtype):
    b = denormals.small(dtype)
    z, gamma, beta, mean, var = (np.zeros(shape, dtype) for shape in ((4, b.size), *[b.size] * 4))
    running = {"running_mean": device(mean), "running_var": device(var)}
    for _ in range(20):
        vectors = (device(array) for array in (z, b, gamma, beta))
        F.batchnorm_activation_dropout_forward(*vectors, **running, momentum=0.75)
        assert not denormals.count(host(running["running_mean"]))
