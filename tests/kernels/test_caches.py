"""A kernel's cache: gradients into arrays of any kind, and never filled again for other arguments."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from fcnet.backends import REGISTRY, MaskStream, get_backend
from fcnet.backends.caches import HiddenCache
from fcnet.backends.cpu import loader
from fcnet.backends.cuda.kernels import cuda_kernels
from fcnet.backends.cuda.launch import Launcher
from tests.backends.cuda_fake import fake_cupy
from tests.tolerances import assert_close

CPU = get_backend("cpu")
KINDS = ["bias", "batchnorm", "layernorm"]


@pytest.fixture(params=["cpu", "cuda"])
def fused_layers(request, cpu_kernels):
    """fused_layers(kind): forward and backward as they are served on a device, and `upload` for their arrays."""
    cupy = fake_cupy()
    upload = cupy.asarray if request.param == "cuda" else np.array
    kernels = cuda_kernels(Launcher(cupy), cupy.matmul) if request.param == "cuda" else loader.load().kernels

    def serve(name):
        def call(*args, **kwargs):
            op, kernel = REGISTRY[name], kernels[name]
            op.check(*args, **kwargs)
            call.served = kernel.fits(*args, **kwargs)
            return (kernel.function if call.served else op.reference)(*args, **kwargs)

        return call

    def pair(kind):
        names = [f"{kind}_activation_dropout_{way}" for way in ("forward", "backward")]
        if names[0] not in kernels:
            pytest.skip(f"no kernel for {kind} here")
        return SimpleNamespace(forward=serve(names[0]), backward=serve(names[1]), upload=upload)

    return pair


def arguments(rng, kind, shape, dtype):
    return rng.standard_normal(shape).astype(dtype), *rng.standard_normal((1 if kind == "bias" else 3, 5)).astype(dtype)


def odd_arrays(shape, dtype):
    """Arrays of a shape that a kernel cannot fill, and what must stay as it is beside them."""
    wide = np.full((*shape[:-1], 2 * shape[-1]), 7, dtype)
    yield "strided", wide[..., ::2], wide[..., 1::2]
    if len(shape) > 1:
        yield "Fortran order", np.empty(shape, dtype, order="F"), None
    yield "reversed", np.empty(shape, dtype)[::-1], None
    yield "another dtype", np.empty(shape, "float32" if dtype == "float64" else "float64"), None
    yield "half", np.empty(shape, "float16"), None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep", [1.0, 0.6])
def test_gradients_go_into_any_array(kind, keep, rng, dtype, fused_layers):
    fused, host = fused_layers(kind), arguments(rng, kind, (6, 5), dtype)
    dout = rng.standard_normal((6, 5)).astype(dtype)
    stream = MaskStream(CPU, 3, layer=1, step=7)
    op = REGISTRY[f"{kind}_activation_dropout_backward"]
    _, reference_cache = REGISTRY[f"{kind}_activation_dropout_forward"].reference(*host, "relu", keep, stream)
    expected = dict(zip(op.results, op.reference(dout, reference_cache), strict=True))
    _, cache = fused.forward(*map(fused.upload, host), "relu", keep, stream)
    assert isinstance(cache, HiddenCache)
    names = [*expected, *(["work"] if kind != "bias" else [])]
    for name in names:
        shape = expected.get(name, dout).shape
        for what, given, beside in odd_arrays(shape, dtype):
            given = given if fused.upload is np.array else given.view(type(cache.hidden))
            got = dict(zip(expected, fused.backward(fused.upload(dout), cache, **{name: given}), strict=True))
            assert not fused.backward.served, (name, what)
            assert beside is None or (beside == 7).all(), (name, what)
            for result, want in expected.items():
                near = 2e-2 if what == "half" else 2e-4
                np.testing.assert_allclose(got[result], want, rtol=near, atol=near, err_msg=f"{name} {what} {result}")
            if name in expected:
                assert got[name] is given
    fused.backward(fused.upload(dout), cache)
    assert fused.backward.served


@pytest.mark.usefixtures("cpu_kernels")
@pytest.mark.parametrize("kind", KINDS[:2])
def test_a_read_only_gradient_is_refused(kind, rng):
    _, cache = REGISTRY[f"{kind}_activation_dropout_forward"](*arguments(rng, kind, (6, 5), "float32"))
    dz = np.zeros((6, 5), np.float32)
    dz.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        REGISTRY[f"{kind}_activation_dropout_backward"](np.ones((6, 5), np.float32), cache, dz=dz)
    assert (dz == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_cache_of_another_shape_is_named(kind, rng, dtype, fused_layers):
    fused = fused_layers(kind)
    z, *vectors = arguments(rng, kind, (6, 5), dtype)
    vectors = [fused.upload(vector) for vector in vectors]
    _, cache = fused.forward(fused.upload(z), *vectors)
    for shape in ((6000, 5), (3, 5), (5, 6)):
        others = vectors if shape[1] == 5 else [fused.upload(np.ones(6, dtype)) for _ in vectors]
        with pytest.raises(ValueError, match=rf"{kind}_activation_dropout_forward: cache: expected .*\({shape[0]}, "):
            fused.forward(fused.upload(np.ones(shape, dtype)), *others, cache=cache)
    other = "float32" if dtype == "float64" else "float64"
    arrays = [fused.upload(array.astype(other)) for array in (z, *map(np.asarray, vectors))]
    with pytest.raises(ValueError, match=f"cache: expected .*{other}"):
        fused.forward(*arrays, cache=cache)
    with pytest.raises(ValueError, match=r"cache: expected .* relu"):
        fused.forward(fused.upload(z), *vectors, "tanh", cache=cache)
    out, _ = fused.forward(fused.upload(z), *vectors, out=cache.hidden, cache=cache)
    assert out is cache.hidden


def test_a_cache_of_another_layer_is_named(rng, fused_layers):
    bias, batch = fused_layers("bias"), fused_layers("batchnorm")
    args = [batch.upload(array) for array in arguments(rng, "batchnorm", (6, 5), "float32")]
    _, cache = bias.forward(*args[:2])
    with pytest.raises(ValueError, match=r"cache: expected one .* or of another normalization"):
        batch.forward(*args, cache=cache)
    with pytest.raises(ValueError, match="got that of a layer without norm"):
        batch.backward(args[0], cache)


def test_statistics_of_columns_are_not_filled_with_those_of_rows(rng, fused_layers):
    batch, layer = fused_layers("batchnorm"), fused_layers("layernorm")
    args = [batch.upload(array) for array in arguments(rng, "batchnorm", (600, 5), "float32")]
    for one, two in ((batch, layer), (layer, batch)):
        with pytest.raises(ValueError, match="or of another normalization"):
            two.forward(*args, cache=one.forward(*args)[1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_cache_that_is_filled_again_is_that_of_the_last_call(kind, rng, dtype, fused_layers):
    """Another keep_ratio, another output: the gradients are of what was computed last."""
    fused, host = fused_layers(kind), arguments(rng, kind, (6, 5), dtype)
    args = [fused.upload(array) for array in host]
    dout, stream = rng.standard_normal((6, 5)).astype(dtype), MaskStream(CPU, 3, layer=1, step=7)
    _, cache = fused.forward(*args)
    for keep, out in ((0.6, None), (0.6, fused.upload(np.empty((6, 5), dtype))), (0.8, "the last one"), (1.0, None)):
        out = cache.hidden if isinstance(out, str) else out
        got, cache = fused.forward(*args, "relu", keep, stream, out=out, cache=cache)
        assert out is None or got is out
        op = REGISTRY[f"{kind}_activation_dropout_forward"]
        expected, reference_cache = op.reference(*host, "relu", keep, stream)
        assert_close(np.asarray(got), expected.astype(float), dtype, "norm")
        backward = REGISTRY[f"{kind}_activation_dropout_backward"].reference
        pairs = zip(fused.backward(fused.upload(dout), cache), backward(dout, reference_cache), strict=True)
        for grad, want in pairs:
            assert_close(np.asarray(grad), want.astype(float), dtype, "norm")
        host = (-host[0], *host[1:])
        args = [fused.upload(host[0]), *args[1:]]


def test_a_strided_gradient_has_no_thunk(cpu_kernels):
    from fcnet import functional as F
    from fcnet.backends.step import StepRecorder

    rng = np.random.default_rng(0)
    z, *vectors = arguments(rng, "batchnorm", (6, 5), "float32")
    _, cache = F.batchnorm_activation_dropout_forward(z, *vectors)
    dout = rng.standard_normal((6, 10)).astype(np.float32)[:, ::2]
    dz = np.empty((6, 5), np.float32)
    backward = F.batchnorm_activation_dropout_backward
    recorder = StepRecorder(CPU)
    recorder(backward, dout, cache, dz=dz)
    program = CPU.compile(recorder.calls)
    dout[:] = rng.standard_normal((6, 5))
    program()
    np.testing.assert_allclose(dz, backward(dout.copy(), cache)[0], rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep", [1.0, 0.6])
@pytest.mark.parametrize("first", ["kernel", "reference"])
def test_a_cache_may_change_hands(kind, keep, first, rng, dtype, cpu_kernels):
    """What the reference made, a kernel fills again and reads, and the other way round."""
    if f"{kind}_activation_dropout_forward" not in loader.load().kernels:
        pytest.skip("no kernel")
    host, dout = arguments(rng, kind, (6, 5), dtype), rng.standard_normal((6, 5)).astype(dtype)
    stream = MaskStream(CPU, 3, layer=1, step=7)
    ops = [REGISTRY[f"{kind}_activation_dropout_{way}"] for way in ("forward", "backward")]
    kernels = [loader.load().kernels[op.__name__].function for op in ops]
    one, two = (kernels, [op.reference for op in ops])[:: 1 if first == "kernel" else -1]
    _, cache = one[0](-host[0], *host[1:], "relu", keep, stream)
    out, cache = two[0](*host, "relu", keep, stream, cache=cache)
    expected, expected_cache = ops[0].reference(*host, "relu", keep, stream)
    assert_close(out, expected.astype(float), dtype, "norm")
    for backward in (two[1], one[1]):
        if backward is kernels[1] and cache.needs_mask:
            assert not loader.load().kernels[ops[1].__name__].fits(dout, cache)
            continue
        for grad, want in zip(backward(dout, cache), ops[1].reference(dout, expected_cache), strict=True):
            assert_close(grad, want.astype(float), dtype, "norm")
