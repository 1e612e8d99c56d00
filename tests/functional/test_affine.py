"""The affine layer and its parts."""

import numpy as np
import pytest

from fcnet import functional as F
from fcnet.functional.affine import per_row
from fcnet.tools.gradcheck import numerical_gradient
from tests import combinations, oracles
from tests.guard import shares_memory
from tests.tolerances import assert_close

SHAPES = [(4, 5, 3), (1, 5, 3), (4, 1, 3), (4, 5, 1), (1, 1, 1), (7, 13, 11)]


@pytest.fixture
def make(rng):
    """make(N, D, M): x, w, b, dout on the host, float64 values that float32 can hold."""

    def draw(*shapes):
        return [rng.standard_normal(shape).astype(np.float32).astype(np.float64) for shape in shapes]

    return lambda n, d, m: draw((n, d), (d, m), (m,), (n, m))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.corner(backend=combinations.WITH_KERNELS, lay="contiguous", dtype="float32")
def test_forward_is_the_oracle(shape, make, lay, host, dtype, untouched):
    x, w, b, _ = make(*shape)
    args = lay(x, dtype), lay(w, dtype), lay(b, dtype)
    with untouched(*args):
        out, cache = F.affine_forward(*args)
    assert_close(host(out), oracles.affine(x, w, b), dtype, "gemm")
    assert all(kept is given for kept, given in zip(cache, args, strict=True))
    with untouched(*args):
        product = F.matmul(args[0], args[1])
    assert_close(host(product), oracles.affine(x, w, np.zeros(shape[2])), dtype, "gemm")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.corner(backend=combinations.WITH_KERNELS, lay="contiguous", dtype="float32")
def test_backward_is_the_oracle(shape, make, lay, host, dtype, untouched):
    x, w, b, dout = make(*shape)
    args = lay(x, dtype), lay(w, dtype), lay(b, dtype)
    dout_ = lay(dout, dtype)
    _, cache = F.affine_forward(*args)
    with untouched(*args, dout_):
        grads = F.affine_backward(dout_, cache)
        parts = F.matmul_backward(dout_, args[0], args[1])
    expected = oracles.affine_backward(dout, x, w)
    for got, want in zip(grads, expected, strict=True):
        assert_close(host(got), want, dtype, "gemm")
    for got, want in zip(parts, expected, strict=False):
        assert_close(host(got), want, dtype, "gemm")


def test_backward_is_the_numerical_gradient(make, device, host):
    x, w, b, dout = make(4, 5, 3)
    _, cache = F.affine_forward(device(x), device(w), device(b))
    grads = F.affine_backward(device(dout), cache)

    def forward(_):
        return host(F.affine_forward(device(x), device(w), device(b))[0])

    for value, grad in zip((x, w, b), grads, strict=True):
        assert_close(host(grad), numerical_gradient(forward, value, dout), "float64", "gradient")


def test_it_is_torchs(make, device, host, dtype):
    torch = pytest.importorskip("torch")
    x, w, b, dout = make(6, 5, 3)
    out, cache = F.affine_forward(device(x, dtype), device(w, dtype), device(b, dtype))
    tensors = [torch.tensor(value, requires_grad=True) for value in (x, w, b)]
    expected = torch.nn.functional.linear(tensors[0], tensors[1].T, tensors[2])
    expected.backward(torch.tensor(dout))
    assert_close(host(out), expected.detach().numpy(), dtype, "gemm")
    for grad, tensor in zip(F.affine_backward(device(dout, dtype), cache), tensors, strict=True):
        assert_close(host(grad), tensor.grad.numpy(), dtype, "gemm")


MANY = 33  # outputs: a GPU adds up the products of fewer by a kernel of its own, and so in another order than matmul


@pytest.mark.parametrize("outputs", [3, MANY])
def test_given_outputs_are_filled_and_returned(outputs, make, device, host, xp, dtype):
    x, w, b, dout = (device(value, dtype) for value in make(4, 5, outputs))
    plain, cache = F.affine_forward(x, w, b)
    out = xp.empty((4, outputs), dtype=dtype)
    got, _ = F.affine_forward(x, w, b, out=out)
    assert got is out
    np.testing.assert_array_equal(host(out), host(plain))

    expected = F.affine_backward(dout, cache)
    dx, dw, db = (xp.empty(value.shape, dtype=dtype) for value in (x, w, b))
    grads = F.affine_backward(dout, cache, dx=dx, dw=dw, db=db)
    assert all(a is b for a, b in zip(grads, (dx, dw, db), strict=True))
    for got, want in zip(grads, expected, strict=True):
        np.testing.assert_array_equal(host(got), host(want))


def test_it_is_the_product_and_the_bias(make, device, host, xp, dtype):
    x, w, b, dout = (device(value, dtype) for value in make(4, 5, MANY))
    expected, cache = F.affine_forward(x, w, b)
    out, dx, dw = (xp.empty(shape, dtype=dtype) for shape in ((4, MANY), x.shape, w.shape))
    assert F.matmul(x, w, out=out) is out
    assert F.add_bias(out, b, out=out) is out
    np.testing.assert_array_equal(host(out), host(expected))
    assert F.matmul_backward(dout, x, w, dx=dx, dw=dw)[1] is dw
    for got, want in zip((dx, dw), F.affine_backward(dout, cache), strict=False):
        np.testing.assert_array_equal(host(got), host(want))


def test_dx_can_be_left_out(make, device, host, dtype, xp):
    x, w, b, dout = (device(value, dtype) for value in make(4, 5, 3))
    _, cache = F.affine_forward(x, w, b)
    dx = xp.zeros((4, 5), dtype=dtype)
    got = F.affine_backward(dout, cache, need_dx=False, dx=dx)
    full = F.affine_backward(dout, cache)
    assert got[0] is None
    assert not host(dx).any()
    for a, b in zip(got[1:], full[1:], strict=True):
        np.testing.assert_array_equal(host(a), host(b))
    assert F.matmul_backward(dout, x, w, need_dx=False)[0] is None
    beside = (a[None] for a in (dout, x, w))  # networks side by side
    assert F.matmul_backward(*beside, need_dx=False)[0] is None


K = 3
NETWORKS = [  # shapes of x, w and b
    ((4, 5), (K, 5, 2), (K, 2)),
    ((4, 5), (K, 5, 2), (2,)),
    ((K, 4, 5), (K, 5, 2), (K, 2)),
    ((K, 4, 5), (K, 5, 2), (2,)),
    ((K, 4, 5), (1, 5, 2), (2,)),
    ((K, 4, 5), (1, 5, 2), (1, 2)),
    ((K, 4, 5), (5, 2), (2,)),
    ((1, 4, 5), (K, 5, 2), (K, 2)),
    ((4, 5), (1, 5, 2), (1, 2)),
]


@pytest.mark.parametrize("given", [False, True], ids=["new", "given"])
@pytest.mark.parametrize("shapes", NETWORKS, ids=str)
def test_networks_side_by_side_are_networks_one_by_one(shapes, given, rng, device, host, xp, dtype):
    x, w, b = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    count = max(value.shape[0] if value.ndim == 3 else 1 for value in (x, w))
    dout = rng.standard_normal((count, 4, 2)).astype(np.float32)
    expected = [np.zeros(shape) for shape in shapes]  # dx, dw, db, summed over the networks that share a value
    outs = []
    for k in range(count):
        pick = [
            (k if value.shape[0] > 1 else 0) if value.ndim == axes else ... for value, axes in ((x, 3), (w, 3), (b, 2))
        ]
        xk, wk, bk = x[pick[0]], w[pick[1]], b[pick[2]]
        outs.append(oracles.affine(xk, wk, bk))
        for total, at, grad in zip(expected, pick, oracles.affine_backward(dout[k], xk, wk), strict=True):
            total[at] += grad
    args = [device(value, dtype) for value in (x, w, b)]
    out, cache = F.affine_forward(*args)
    assert_close(host(out), np.stack(outs), dtype, "gemm")
    buffers = {name: xp.empty(shape, dtype=dtype) for name, shape in zip(("dx", "dw", "db"), shapes, strict=True)}
    grads = F.affine_backward(device(dout, dtype), cache, **(buffers if given else {}))
    for got, want, buffer in zip(grads, expected, buffers.values(), strict=True):
        assert_close(host(got), want, dtype, "gemm")
        assert (got is buffer) is given


def test_per_row(device):
    vector = device(np.arange(6.0).reshape(2, 3))
    assert per_row(vector).shape == (2, 1, 3)
    assert shares_memory(per_row(vector), vector)
    assert per_row(vector[0]).shape == (3,)


def zeros(*shape, dtype="float64"):
    return np.zeros(shape, dtype)


BAD = [
    (
        F.affine_forward,
        (zeros(4, 5), zeros(6, 3), zeros(3)),
        ValueError,
        "affine_forward: w: expected (D, M) with D = 5",
    ),
    (F.affine_forward, (zeros(4, 5), zeros(5), zeros(3)), ValueError, "got shape (5,)"),
    (
        F.affine_forward,
        (zeros(4, 5), zeros(5, 3), zeros(4)),
        ValueError,
        "affine_forward: b: expected shape (3,) to match w, got (4,)",
    ),
    (
        F.affine_forward,
        (zeros(5), zeros(5, 3), zeros(3)),
        ValueError,
        "affine_forward: x: expected (..., N, D), got shape (5,)",
    ),
    (
        F.affine_forward,
        (zeros(0, 5), zeros(5, 3), zeros(3)),
        ValueError,
        "affine_forward: x: expected at least one row, got shape (0, 5)",
    ),
    (
        F.affine_forward,
        (zeros(4, 5, dtype="int64"), zeros(5, 3), zeros(3)),
        TypeError,
        "affine_forward: x: expected float32 or float64, got int64",
    ),
    (
        F.affine_forward,
        (zeros(4, 5), zeros(5, 3, dtype="float32"), zeros(3)),
        TypeError,
        "affine_forward: w is float32 but x is float64",
    ),
    (F.affine_forward, ([[1.0]], zeros(1, 3), zeros(3)), TypeError, "affine_forward: x: expected an array, got list"),
    (F.matmul, (zeros(4, 5), zeros(4, 3)), ValueError, "matmul: w: expected (D, M) with D = 5"),
    (
        F.matmul,
        (zeros(4, 5, dtype="float16"), zeros(5, 3)),
        TypeError,
        "matmul: x: expected float32 or float64, got float16",
    ),
]


@pytest.mark.parametrize(("function", "args", "error", "message"), BAD)
def test_bad_arguments_are_named(function, args, error, message, backend):
    args = [backend.asarray(value) if isinstance(value, np.ndarray) else value for value in args]
    with pytest.raises(error) as caught:
        function(*args)
    assert message in str(caught.value)


def test_arrays_of_two_devices_are_refused(guard):
    with pytest.raises(TypeError, match="arrays of two devices in one call: cpu and guard"):
        F.affine_forward(zeros(4, 5), guard.asarray(zeros(5, 3)), zeros(3))


@pytest.mark.parametrize(
    ("bias", "shape"), [((2, 1, 4), (2, 3, 5, 4)), ((2, 1, 1), (2, 3, 5, 1)), ((1, 4), (7, 2, 5, 4))]
)
def test_a_bias_stretched_over_networks_has_the_sum_of_their_gradients(bias, shape, rng, device, host, xp):
    dout = rng.standard_normal(shape)
    expected = np.zeros(bias)
    for index in np.ndindex(shape):
        lead = index[len(shape) - 1 - len(bias) : -2]
        expected[(*(0 if size == 1 else i for size, i in zip(bias, lead, strict=False)), index[-1])] += dout[index]
    np.testing.assert_allclose(
        host(F.bias_gradient(device(dout), device(np.zeros(bias)))), expected, rtol=1e-12, atol=1e-13
    )
    db = xp.empty(bias, dtype="float64")
    assert F.bias_gradient(device(dout), device(np.zeros(bias)), db) is db
    np.testing.assert_allclose(host(db), expected, rtol=1e-12, atol=1e-13)
