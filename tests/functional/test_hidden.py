"""Units equal the composition of their parts, in values and gradients, with and without buffers."""

import inspect

import numpy as np
import pytest

from fcnet import functional as F
from fcnet.backends import MaskStream
from fcnet.tools.gradcheck import numerical_gradient
from tests import combinations
from tests.guard import shares_memory
from tests.tolerances import assert_close

KINDS = {"bias": None, "batchnorm": F.batchnorm_forward, "layernorm": F.layernorm_forward}
BACKWARD = {"batchnorm": F.batchnorm_backward, "layernorm": F.layernorm_backward}
SCRATCH = {"bias": "hidden", "batchnorm": "x_hat", "layernorm": "x_hat"}  # what z itself may serve as


@pytest.fixture(params=sorted(KINDS))
def kind(request):
    return request.param


@pytest.fixture(params=[1.0, 0.6], ids=["no dropout", "dropout"])
def keep(request):
    return request.param


#: Caches of each sort: the output, arrays of their own, and a width of its own.
ACTIVATIONS = ["relu", "sigmoid", "gelu", "maxout:3"]


@pytest.fixture(params=ACTIVATIONS)
def activation(request):
    return request.param


def fused(kind, direction):
    return getattr(F, f"{kind}_activation_dropout_{direction}")


def draw(kind, rng, shape=(6, 5), activation="relu"):
    """z and the vectors of the unit, and dout: float64 values that float32 can hold."""
    vectors = 1 if kind == "bias" else 3
    wide = (*shape[:-1], F.activation_named("activation", activation).pieces * shape[-1])
    shapes = [wide, *[wide[-1:]] * vectors, shape]
    return [rng.standard_normal(s).astype(np.float32).astype(np.float64) for s in shapes]


def parts_forward(kind, activation, z, vectors, keep, rng, **options):
    """Compute the same by one small function after the other; return what the backward pass needs as well."""
    h, norm, mask = F.add_bias(z, vectors[0]), None, None
    if kind != "bias":
        h, norm = KINDS[kind](h, *vectors[1:], **options)
    h, gate = F.activation_named("activation", activation).forward(h)
    if keep < 1:
        mask = F.dropout_mask(rng, keep, h.shape, h.dtype)
        h, _ = F.dropout_forward(h, mask)
    return h, (norm, gate, mask)


def parts_backward(kind, activation, dout, caches, b):
    norm, gate, mask = caches
    if mask is not None:
        dout = F.dropout_backward(dout, mask)
    dz, rest = F.activation_named("activation", activation).backward(dout, gate), ()
    if kind != "bias":
        dz, *rest = BACKWARD[kind](dz, norm)
    return dz, F.bias_gradient(dz, b), *rest


def stream(backend, keep):
    return MaskStream(backend, seed=3, layer=1, step=7) if keep < 1 else None


@pytest.mark.parametrize("shape", [(6, 5), (1, 5), (6, 1), (3, 6, 5)], ids=str)
@pytest.mark.corner(backend=combinations.WITH_KERNELS, activation="relu", lay="contiguous")
def test_it_is_its_parts(kind, activation, keep, shape, rng, lay, host, dtype, untouched, backend):
    z, *vectors, dout = (lay(value, dtype) for value in draw(kind, rng, shape, activation))
    expected, caches = parts_forward(kind, activation, z, vectors, keep, stream(backend, keep))
    expected_grads = parts_backward(kind, activation, dout, caches, vectors[0])
    with untouched(z, *vectors, dout):
        out, cache = fused(kind, "forward")(z, *vectors, activation, keep, stream(backend, keep))
        grads = fused(kind, "backward")(dout, cache)
    assert_close(host(out), host(expected).astype(float), dtype, "norm")
    if (shape[-2] == 1 and kind == "batchnorm") or (shape[-1] == 1 and kind == "layernorm"):
        return  # x̂ = 0: gradients are noise around 0, tested with the normalisations
    for got, want in zip(grads, expected_grads, strict=True):
        assert_close(host(got), host(want).astype(float), dtype, "norm")


def test_nan_comes_through(kind, keep, rng, device, host, dtype, backend):
    """So that a training that has gone wrong shows it."""
    z, *vectors, _ = draw(kind, rng, (6, 5))
    z[2] = np.nan
    z, *vectors = (device(value, dtype) for value in (z, *vectors))
    out, _ = fused(kind, "forward")(z, *vectors, "relu", keep, stream(backend, keep))
    assert np.isnan(host(out)[2]).any()


def test_its_gradients_are_the_numerical_ones(kind, activation, keep, rng, device, host, backend):
    values = draw(kind, rng, activation=activation)
    arguments, dout = values[:-1], values[-1]

    def forward(_=None):
        args = [device(value) for value in arguments]
        return fused(kind, "forward")(*args, activation, keep, stream(backend, keep))

    _, cache = forward()
    grads = fused(kind, "backward")(device(dout), cache)
    # Bias before a batch norm changes nothing: its numerical gradient is 0 up to the rounding of the differences.
    for value, grad in zip(arguments, grads, strict=True):
        numeric = numerical_gradient(lambda _: host(forward()[0]), value, dout)
        assert_close(host(grad), numeric, "float64", "gradient")


@pytest.mark.corner(backend=combinations.WITH_KERNELS, activation="relu")
def test_repeating_it_fills_the_same_arrays(kind, activation, keep, rng, device, host, dtype, backend):
    """As a recorded step does: everything given back, other inputs in between."""
    z, *vectors, dout = (device(value, dtype) for value in draw(kind, rng, activation=activation))
    forward, backward = fused(kind, "forward"), fused(kind, "backward")
    how = (activation, keep, stream(backend, keep))
    expected, cache = forward(z, *vectors, *how)
    expected_grads = backward(dout, cache)
    expected = host(expected)

    out, cache = forward(device(host(z) + 1), *vectors, *how)  # buffers with other contents
    grads = backward(device(host(dout) + 1), cache)
    again, cache_again = forward(z, *vectors, *how, out=out, cache=cache)
    assert again is out
    for a, b in zip(_arrays(cache_again), _arrays(cache), strict=True):
        assert a is b
    np.testing.assert_array_equal(host(again), expected)
    names = ("dz", "db", "dgamma", "dbeta")
    grads_again = backward(dout, cache_again, **dict(zip(names, grads, strict=False)))
    for a, b, want in zip(grads_again, grads, expected_grads, strict=True):
        assert a is b
        np.testing.assert_array_equal(host(a), host(want))


def _arrays(cache):
    for value in cache:
        if isinstance(value, tuple):
            yield from _arrays(value)
        elif value is not None and not np.isscalar(value):
            yield value


@pytest.mark.corner(backend=combinations.WITH_KERNELS, activation="relu")
def test_z_may_be_scratch(kind, activation, keep, rng, device, host, dtype, backend):
    """As layers do: the activations overwrite z, so that a step needs no array of their own."""
    z, *vectors, dout = (device(value, dtype) for value in draw(kind, rng, activation=activation))
    how = (activation, keep, stream(backend, keep))
    expected, cache = fused(kind, "forward")(z, *vectors, *how)
    expected, expected_grads = host(expected), [host(g) for g in fused(kind, "backward")(dout, cache)]
    kept = host(z)
    out = buffers = None
    for _ in range(2):
        z[...] = device(kept, dtype)
        given = {} if buffers is None else {"out": out, "cache": buffers}
        out, buffers = fused(kind, "forward")(z, *vectors, *how, **{SCRATCH[kind]: z}, **given)
        wide = activation.startswith("maxout")  # acts on z + b, and has its result elsewhere
        assert shares_memory(z, buffers.norm.x_hat if buffers.norm else buffers.x if wide else buffers.hidden)
        np.testing.assert_array_equal(host(out), expected)
        for got, want in zip(fused(kind, "backward")(dout, buffers), expected_grads, strict=True):
            np.testing.assert_array_equal(host(got), want)


@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if name != "maxout:3"])  # there dz is wider
@pytest.mark.corner(backend=combinations.WITH_KERNELS, activation="relu")
def test_dz_may_be_dout(kind, activation, keep, rng, device, host, dtype, backend, xp):
    z, *vectors, dout = (device(value, dtype) for value in draw(kind, rng, activation=activation))
    _, cache = fused(kind, "forward")(z, *vectors, activation, keep, stream(backend, keep))
    expected = [host(grad) for grad in fused(kind, "backward")(dout, cache)]
    scratch = {} if kind == "bias" else {"work": xp.empty((6, 5), dtype=dtype)}
    grads = fused(kind, "backward")(dout, cache, dz=dout, **scratch)
    assert grads[0] is dout
    for got, want in zip(grads, expected, strict=True):
        np.testing.assert_array_equal(host(got), want)


def test_batchnorm_unit_moves_the_running_statistics(keep, rng, device, host, dtype, backend):
    z, *vectors, _ = (device(value, dtype) for value in draw("batchnorm", rng))
    results = []
    for make in (
        lambda **o: parts_forward("batchnorm", "relu", z, vectors, keep, stream(backend, keep), **o),
        lambda **o: F.batchnorm_activation_dropout_forward(z, *vectors, "relu", keep, stream(backend, keep), **o),
    ):
        mean, var = device(np.full(5, 0.5), dtype), device(np.full(5, 2.0), dtype)
        make(running_mean=mean, running_var=var, momentum=0.7, eps=0.1)
        results.append((host(mean), host(var)))
    for a, b in zip(*results, strict=True):
        assert_close(a, b.astype(float), dtype, "norm")
        assert (a != 0.5).all()


@pytest.mark.parametrize("rng_given", [True, False])
def test_keeping_all_is_no_dropout(kind, rng_given, rng, device, backend, dtype):
    z, *vectors, _ = (device(value, dtype) for value in draw(kind, rng))
    how = 1.0, MaskStream(backend, 0) if rng_given else None
    _, cache = fused(kind, "forward")(z, *vectors, "relu", *how)
    assert cache.mask is None


def test_signatures_agree():
    """A kernel for one unit is easily written from another's: the shared arguments are the same, in order."""
    names = {kind: list(inspect.signature(fused(kind, "forward")).parameters) for kind in KINDS}
    assert names["bias"][:2] == names["batchnorm"][:2] == ["z", "b"]
    assert names["batchnorm"][:7] == names["layernorm"][:7]
    assert names["bias"][2:5] == names["batchnorm"][4:7]


def test_bad_arguments_are_named(kind, rng, device, backend):
    z, *vectors, _ = (device(value) for value in draw(kind, rng))
    name = f"{kind}_activation_dropout_forward"
    short, single = device(np.zeros(4)), device(np.zeros(5), "float32")
    cases = [
        ((z, short, *vectors[1:]), {}, ValueError, "b: expected shape (5,) to match z, got (4,)"),
        ((z, single, *vectors[1:]), {}, TypeError, "b is float32 but z is float64"),
        ((z[0], *vectors), {}, ValueError, "z: expected (..., N, D), got shape (5,)"),
        ((z, *vectors), {"activation": "rleu"}, ValueError, "activation: expected one of relu"),
        ((z, *vectors), {"activation": "maxout"}, ValueError, "z: expected 2 M columns for maxout, got shape (6, 5)"),
        (
            (z, *vectors),
            {"keep_ratio": 0.5},
            ValueError,
            "rng: expected a MaskStream because keep_ratio is 0.5",
        ),
        ((z, *vectors), {"keep_ratio": 0}, ValueError, "keep_ratio: expected a probability to keep a unit"),
    ]
    if kind != "bias":
        cases += [
            ((z, vectors[0], short, vectors[2]), {}, ValueError, "gamma: expected shape (5,) to match z, got (4,)"),
            ((z, *vectors[:2], short), {}, ValueError, "beta: expected shape (5,) to match z, got (4,)"),
        ]
    for args, options, error, message in cases:
        with pytest.raises(error) as caught:
            fused(kind, "forward")(*args, **options)
        assert f"{name}: {message}" in str(caught.value)


@pytest.mark.parametrize("kind", ["batchnorm", "layernorm"])
def test_the_cache_of_another_unit_is_refused(kind, rng, device):
    z, b, dout = (device(value) for value in draw("bias", rng))
    _, cache = F.bias_activation_dropout_forward(z, b)
    with pytest.raises(ValueError, match=f"{kind}_activation_dropout_backward: cache: expected one of"):
        fused(kind, "backward")(dout, cache)


def test_a_row_wider_than_the_lanes_of_its_sums(rng):
    z, dout = (rng.standard_normal((3, 70)).astype("float32") for _ in range(2))
    b, gamma, beta = rng.standard_normal((3, 70)).astype("float32")
    function, backward = F.layernorm_activation_dropout_forward, F.layernorm_activation_dropout_backward
    out, cache = function(z, b, gamma, beta, "tanh")
    expected, kept = function.reference(z, b, gamma, beta, "tanh")
    assert_close(out, expected, "float32", "norm")
    for got, want in zip(backward(dout.copy(), cache), backward.reference(dout.copy(), kept), strict=True):
        assert_close(got, want, "float32", "norm")
