"""The CUDA kernels' own source, run on the CPU, against the functions they replace; on a GPU those are tested."""

from __future__ import annotations

import sys
import threading

import numpy as np
import pytest

from fcnet import functional as F
from fcnet.backends import REGISTRY, MaskStream, get_backend
from fcnet.backends.caches import HiddenCache, relu_cache
from fcnet.backends.cuda.bf16 import rounded, widened
from fcnet.backends.cuda.checksum import Checksums
from fcnet.backends.cuda.hidden import HiddenKernels
from fcnet.backends.cuda.kernels import cuda_kernels
from fcnet.backends.cuda.launch import Launcher
from fcnet.backends.cuda.sources import ACTIVATIONS, MODULES, activated, source
from fcnet.optim import RULES, limits, rules
from tests import denormals
from tests.backends.cuda_fake import fake_cupy
from tests.needed import HANGS
from tests.tolerances import assert_close

SHAPES = [(1, 1), (5, 3), (40, 7), (33, 70), (3, 1030), (37, 36)]
CPU = get_backend("cpu")


@pytest.fixture(scope="module")
def cupy():
    return fake_cupy()


@pytest.fixture(scope="module")
def kernels(cupy):
    return cuda_kernels(Launcher(cupy), lambda a, b, out=None, **_: cupy.matmul(a, b, out=out))


@pytest.fixture
def up(cupy, dtype):
    """up(array): a copy on the device; floats in the dtype of the test."""

    def upload(array):
        array = np.asarray(array)
        return cupy.asarray(array.astype(dtype) if array.dtype.kind == "f" else array)

    return upload


def down(array):
    return np.array(array)


def run(kernel, *args, **kwargs):
    assert kernel.fits(*args, **kwargs)
    return kernel.function(*args, **kwargs)


def test_every_kernel_replaces_a_function(kernels):
    assert set(kernels) <= set(REGISTRY)


@pytest.mark.parametrize("need_dx", [False, True])
@pytest.mark.parametrize("given", [False, True])
def test_affine(need_dx, given, rng, kernels, up, cupy, dtype):
    x, w, b, dout = (rng.standard_normal(s).astype(dtype) for s in ((40, 5), (5, 35), (35,), (40, 35)))
    args = up(x), up(w), up(b)
    like = {"out": dout, "dx": x, "dw": w, "db": b}
    new = {name: cupy.empty(array.shape, dtype) if given else None for name, array in like.items()}
    out, cache = run(kernels["affine_forward"], *args, out=new.pop("out"))
    assert_close(down(out), x.astype(np.float64) @ w + b, dtype, "gemm")
    dx, dw, db = run(kernels["affine_backward"], up(dout), cache, need_dx=need_dx, **new)
    assert (dw is new["dw"]) is given
    expected = F.affine_backward.reference(dout.astype(np.float64), (x, w, b))
    assert_close(down(dw), expected[1], dtype, "gemm")
    assert_close(down(db), expected[2], dtype, "gemm")
    if need_dx:
        assert_close(down(dx), expected[0], dtype, "gemm")
    else:
        assert dx is None


@pytest.mark.parametrize("rows", [1024, 1025, 1280])
def test_bias_gradients_of_many_rows(rows, rng, kernels, up, cupy, dtype):
    x, w, b, dout = (rng.standard_normal(s).astype(dtype) for s in ((rows, 2), (2, 35), (35,), (rows, 35)))
    cupy.fake.log.clear()
    _, _, db = run(kernels["affine_backward"], up(dout), (up(x), up(w), up(b)))
    launched = [entry[1] for entry in cupy.fake.log]
    assert launched == ["bias_gradient", *(["sum_of_parts"] if rows > 1024 else [])]
    assert_close(down(db), dout.astype("float64").sum(axis=0), dtype, "gemm")


class TestNarrow:
    """Affine layers of few outputs: products of our own."""

    @pytest.fixture
    def always(self, monkeypatch):
        """For all shapes, not only where it pays."""
        monkeypatch.setattr("fcnet.backends.cuda.narrow.TAKEN", {1: (1 << 30, 32)})

    def arrays(self, rng, rows, inner, width):
        """x, w, b and dout in float64, scaled so that results are of order 1."""
        x, b = rng.standard_normal((rows, inner)), rng.standard_normal(width)
        w, dout = rng.standard_normal((inner, width)) / inner**0.5, rng.standard_normal((rows, width)) / rows**0.5
        return x, w, b, dout

    def expected(self, x, w, b, dout):
        return {"out": x @ w + b, "dx": dout @ w.T, "dw": x.T @ dout, "db": dout.sum(axis=0)}

    def guarded(self, cupy, shape, dtype, offset=0):
        """Return an array full of NaN, and its memory; with an offset it begins at no multiple of 16 bytes."""
        size = int(np.prod(shape))
        memory = cupy.empty(size + 64, dtype)
        memory[...] = np.nan
        begin = -memory.ctypes.data % 128 // memory.itemsize + offset
        return memory[begin : begin + size].reshape(shape), memory

    def given(self, cupy, array, dtype, offset):
        new, _ = self.guarded(cupy, array.shape, dtype, offset)
        new[...] = array
        return new

    @pytest.mark.parametrize(
        ("shape", "offset"),
        [
            *(((1, 1, 1), 0), ((1, 1030, 2), 0), ((5, 7, 3), 0), ((5, 4200, 10), 0), ((100, 100, 10), 0)),
            *(((257, 100, 17), 0), ((100, 1030, 32), 0), ((3000, 7, 2), 0), ((513, 132, 10), 0), ((513, 1, 32), 0)),
            *(((100, 100, 10), 1), ((513, 132, 10), 1)),
        ],
        ids=str,
    )
    def test_every_number_and_nothing_else_is_written(self, shape, offset, rng, kernels, cupy, dtype, always):
        arrays = [a.astype(dtype).astype(float) for a in self.arrays(rng, *shape)]
        x, w, b, dout = (self.given(cupy, a, dtype, offset) for a in arrays)
        expected = self.expected(*arrays)
        new = {name: self.guarded(cupy, value.shape, dtype, offset) for name, value in expected.items()}
        cupy.fake.log.clear()
        out, cache = run(kernels["affine_forward"], x, w, b, out=new["out"][0])
        gradients = {name: new[name][0] for name in ("dx", "dw", "db")}
        got = run(kernels["affine_backward"], dout, cache, **gradients)
        for array, name in zip((out, *got), expected, strict=True):
            assert array is new[name][0]
        for name, value in expected.items():
            array, memory = new[name]
            assert_close(down(array), value, dtype, "gemm")
            assert np.isnan(memory).sum() == 64, name
        launched = [entry[1] for entry in cupy.fake.log]
        columns = 12 if shape[2] <= 12 else 32
        sums = ["narrow_sums"] if shape[0] > 512 and columns == 12 else []
        assert launched == ["narrow_forward_12", f"narrow_backward_{columns}", *sums]
        if shape[0] > 257 or offset:  # for the sake of time
            return
        dx, dw, db = run(kernels["affine_backward"], dout, cache, need_dx=False)
        assert dx is None
        np.testing.assert_array_equal(down(dw), down(new["dw"][0]))
        np.testing.assert_array_equal(down(db), down(new["db"][0]))

    @pytest.mark.parametrize(
        ("shape", "own"),
        [((512, 2, 32), True), ((513, 2, 12), True), ((513, 2, 13), False), ((2, 2, 33), False), ((1, 4097, 1), False)],
        ids=str,
    )
    def test_the_shapes_decide_who_makes_it(self, shape, own, rng, kernels, up, cupy):
        x, w, b, dout = map(up, self.arrays(rng, *shape))
        cupy.fake.log.clear()
        run(kernels["affine_forward"], x, w, b)
        run(kernels["affine_backward"], dout, (x, w, b), need_dx=False)
        assert ("narrow_forward_12" in {entry[1] for entry in cupy.fake.log}) is own
        assert ("bias_gradient" not in {entry[1] for entry in cupy.fake.log}) is own

    def test_gradients_that_take_the_place_of_x(self, rng, kernels, up, dtype):
        """As they may: dx is written when x has been read."""
        arrays = self.arrays(rng, 40, 30, 10)
        x, w, b, dout = map(up, arrays)
        got = run(kernels["affine_backward"], dout, (x, w, b), dx=x)
        assert got[0] is x
        for array, value in zip(got, list(self.expected(*arrays).values())[1:], strict=True):
            assert_close(down(array), value, dtype, "gemm")


class TestUnits:
    def arguments(self, rng, shape, dtype, norm):
        z = (2 * rng.standard_normal(shape)).astype(dtype)
        vectors = rng.standard_normal((3 if norm else 1, shape[1])).astype(dtype)
        return z, *vectors

    @pytest.mark.corner(
        keep=0.6, norm="batchnorm", activation="relu"
    )  # the numbers of 32 rows at a time, between two barriers
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    @pytest.mark.parametrize("keep", [1.0, 0.6])
    @pytest.mark.parametrize("norm", ["", "batchnorm", "layernorm"])
    @pytest.mark.parametrize("activation", ["relu", *sorted(ACTIVATIONS.keys() - {"relu"})])
    def test_forward_and_backward(self, activation, shape, keep, norm, rng, kernels, up, dtype):
        name = f"{norm or 'bias'}_activation_dropout"
        forward, backward = kernels[f"{name}_forward"], kernels[f"{name}_backward"]
        host = self.arguments(rng, shape, dtype, norm)
        stream = MaskStream(CPU, 3, layer=2, step=7) if keep < 1 else None
        running = {n: rng.random(shape[1]).astype(dtype) + 1 for n in ("running_mean", "running_var")}
        running = running if norm == "batchnorm" else {}
        on_device = {n: up(v) for n, v in running.items()}
        dout = rng.standard_normal(shape).astype(dtype)

        expected, reference_cache = getattr(F, f"{name}_forward").reference(*host, activation, keep, stream, **running)
        gradients = getattr(F, f"{name}_backward").reference(dout, reference_cache)
        args = tuple(up(a) for a in host)
        out, cache = run(forward, *args, activation, keep, stream, **on_device)
        kind = "norm" if norm else "elementwise"
        assert_close(down(out), expected, dtype, kind)
        for n, value in running.items():  # the reference moved its own
            assert_close(down(on_device[n]), value, dtype, kind)
        np.testing.assert_array_equal(down(args[0]), host[0])  # nothing given back: z is left alone
        for got, want in zip(run(backward, up(dout), cache), gradients, strict=True):
            assert_close(down(got), want, dtype, "norm" if norm else "gemm")

    @pytest.mark.parametrize(("shape", "keep"), [((300, 36), 0.6), ((40, 7), 1.0)], ids=str)
    @pytest.mark.parametrize("norm", ["", "batchnorm", "layernorm"])
    @pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
    def test_layers_stored_in_bfloat16(self, activation, norm, shape, keep, rng, cupy, monkeypatch):
        """The rounded bits of what the same kernels give in float32, and the same sums."""
        monkeypatch.setattr("fcnet.backends.cuda.hidden.MANY", 1)
        on = Launcher(cupy)
        hidden, name = HiddenKernels(on), f"{norm or 'bias'}_activation_dropout"
        forward, backward = (getattr(hidden, f"{name}_{way}") for way in ("forward", "backward"))
        low_z, low_dout = (rounded(on, cupy.asarray(a.astype("float32"))) for a in rng.standard_normal((2, *shape)))
        z, dout = (widened(on, low, cupy.empty(shape, "float32")) for low in (low_z, low_dout))
        vectors = [cupy.asarray(v) for v in rng.standard_normal((3 if norm else 1, shape[1])).astype("float32")]
        how = *vectors, activation, keep, MaskStream(CPU, 3, 4)
        out, cache = forward(z, *how)
        expected = down(rounded(on, out))
        dz, *sums = (gradient.copy() for gradient in backward(dout, cache))
        for array in [cache.hidden, *(cache.norm or [])[:2]]:
            array[...] = np.nan  # it is filled again, or not read
        low = cupy.empty(shape, "uint16")
        forward(low_z, *how, out=low, cache=cache)
        np.testing.assert_array_equal(down(low), expected)
        if activation == "relu":
            cache = cache._replace(hidden=low, mask=cache.scale)
        low_dz = cupy.empty(shape, "float32" if norm == "layernorm" else "uint16")
        given = {"db": cupy.empty(shape[1], "float32")} | ({"work": cupy.empty(shape, "float32")} if norm else {})
        _, *same = backward(low_dout, cache, dz=low_dz, **given)
        np.testing.assert_array_equal(down(rounded(on, low_dz)), down(rounded(on, dz)))
        for got, want in zip(same, sums, strict=True):
            np.testing.assert_array_equal(down(got), down(want))

    def test_nan_and_infinity_come_through_in_bfloat16(self, cupy):
        on = Launcher(cupy)
        z, b = cupy.asarray(np.array([[np.nan, np.inf, -np.inf, 1.0]], "float32")), cupy.asarray(np.zeros(4, "float32"))
        hidden, low = HiddenKernels(on), cupy.empty((1, 4), "uint16")
        hidden.bias_activation_dropout_forward(rounded(on, z), b, out=low, cache=relu_cache(z, 1, None, b))
        np.testing.assert_array_equal(down(widened(on, low, z)), [[np.nan, np.inf, 0, 1]])

    @pytest.mark.parametrize("shape", [(257, 4), (700, 132), (300, 3), (256, 4), (1030, 260)], ids=str)
    @pytest.mark.parametrize("activation", ["relu", "elu"])
    def test_rows_shared_out_among_blocks(self, activation, shape, rng, kernels, up, cupy, dtype, monkeypatch):
        """Sums of parts of the rows, where there are many, and the width is one of whole units."""
        monkeypatch.setattr("fcnet.backends.cuda.hidden.MANY", 1)
        out, dout = rng.standard_normal((2, *shape)).astype(dtype)
        cache = relu_cache(up(np.maximum(out, 0)), np.dtype(dtype).type(1.25), None, up(out[0]))
        if activation == "elu":
            cache = cache._replace(activation="elu", activation_cache=up(out - 1), mask=None)
        cupy.fake.log.clear()
        dz, db = run(kernels["bias_activation_dropout_backward"], up(dout), cache)
        launched = [entry[1] for entry in cupy.fake.log]
        name = "bias_relu_backward" if activation == "relu" else "bias_activation_backward"
        aligned = "_aligned" if shape[0] > 256 and shape[1] % 4 == 0 else ""
        assert launched == [name + aligned, *(["sum_of_parts"] if shape[0] > 256 else [])]
        expected = np.where(out > 0, dout * cache.scale, 0) if activation == "relu" else dout * (out - 1 + 1)
        np.testing.assert_array_equal(down(dz), expected)
        assert_close(down(db), expected.astype("float64").sum(axis=0), dtype, "gemm")

    @pytest.mark.parametrize("keep", [1.0, 0.6])
    @pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
    def test_neighbours_give_the_bits_of_single_elements(self, activation, keep, rng, kernels, up, cupy, dtype):
        """In what is kept for the backward pass, too."""
        z, b = rng.standard_normal((70, 36)).astype(dtype), rng.standard_normal(36).astype(dtype)
        forward, stream = kernels["bias_activation_dropout_forward"], MaskStream(CPU, 3, layer=2, step=7)
        cupy.fake.log.clear()
        aligned = run(forward, up(z), up(b), activation, keep, stream)
        off = cupy.empty(37, dtype)[1:]
        off[...] = b
        single = run(forward, up(z), off, activation, keep, stream)
        at = {"relu": 6, "tanh": 10, "gelu": 10}[activation]
        assert [entry[5][at] for entry in cupy.fake.log] == [1, 0]
        for one, other in zip(self.kept(*aligned), self.kept(*single), strict=True):
            np.testing.assert_array_equal(one, other)

    def kept(self, out, cache):
        mask = [cache.mask] if cache.needs_mask else []
        kept = cache.activation_cache
        return [down(array) for array in (out, cache.hidden, *mask, *(kept if isinstance(kept, tuple) else (kept,)))]

    @pytest.mark.parametrize("keep", [1.0, 0.6])
    @pytest.mark.parametrize("norm", ["", "batchnorm", "layernorm"])
    def test_nan_comes_through(self, norm, keep, rng, kernels, up, dtype):
        z, *vectors = self.arguments(rng, (6, 5), dtype, norm)
        z[2] = np.nan
        stream = MaskStream(CPU, 3, layer=2, step=7) if keep < 1 else None
        forward = kernels[f"{norm or 'bias'}_activation_dropout_forward"]
        out, _ = run(forward, up(z), *map(up, vectors), "relu", keep, stream)
        assert np.isnan(down(out)[2]).any()

    @pytest.mark.parametrize("norm", ["", "batchnorm", "layernorm"])
    @pytest.mark.parametrize(("activation", "keep"), [("relu", 1.0), ("tanh", 1.0), ("tanh", 0.6), ("gelu", 0.6)])
    def test_what_is_given_back_is_filled_again(self, activation, keep, norm, rng, kernels, up, dtype):
        name = f"{norm or 'bias'}_activation_dropout"
        forward, backward = kernels[f"{name}_forward"], kernels[f"{name}_backward"]
        host = self.arguments(rng, (20, 9), dtype, norm)
        args, dout = tuple(up(a) for a in host), up(rng.standard_normal((20, 9)))
        overwritten = {"x_hat" if norm else "hidden": args[0]}
        how = activation, keep, MaskStream(CPU, 3, layer=2, step=7)
        out, cache = run(forward, *args, *how, **overwritten)
        first, gradients = down(out), [down(g) for g in run(backward, dout, cache)]
        args[0][...] = up(host[0])
        again, refilled = run(forward, *args, *how, **overwritten, out=out, cache=cache)
        assert again is out
        for name in ("hidden", "mask", "activation_cache"):
            before, after = (getattr(c, name) for c in (cache, refilled))
            pairs = zip(before, after, strict=True) if isinstance(before, tuple) else [(before, after)]
            assert all(one is two for one, two in pairs), name
        np.testing.assert_array_equal(down(out), first)
        names = ("dz", "db", "dgamma", "dbeta") if norm else ("dz", "db")
        given = {n: up(np.full_like(g, np.nan)) for n, g in zip(names, gradients, strict=True)}
        given["dz"] = dout  # may be dout itself
        for got, want in zip(run(backward, dout, cache, **given), gradients, strict=True):
            np.testing.assert_array_equal(down(got), want)

    def test_the_step_is_read_on_the_device(self, rng, kernels, up, cupy, dtype):
        z, b = up(np.ones((40, 9))), up(np.ones(9))
        step = cupy.asarray(np.array([5]))
        stream = MaskStream(CPU, 3, layer=1, step=step)
        forward = kernels["bias_activation_dropout_forward"]
        for number in (5, 6):
            step[...] = number
            fixed = MaskStream(CPU, 3, layer=1, step=number)
            got, _ = run(forward, z, b, "relu", 0.5, stream)
            expected, _ = F.bias_activation_dropout_forward.reference(down(z), down(b), "relu", 0.5, fixed)
            np.testing.assert_array_equal(down(got), expected)

    def test_what_is_refused(self, kernels, up, cupy, dtype):
        z, b = up(np.ones((4, 3))), up(np.ones(3))
        fits = kernels["bias_activation_dropout_forward"].fits
        assert fits(z, b)
        for args in [
            (z.T, b),
            (up(np.ones((2, 4, 3))), b),
            (z, b, "maxout:3"),
            (z.astype("float16"), b),
            (np.ones((4, 3), dtype), b),
            (up(np.ones((0, 3))), b),
        ]:
            assert not fits(*args)
        backward = kernels["bias_activation_dropout_backward"].fits
        assert backward(z, relu_cache(z, 1.0, None, b))
        assert backward(z, HiddenCache("tanh", z, z, None, None, b))
        assert not backward(z, HiddenCache("tanh", z, z, z.astype("float16"), None, b))
        assert not backward(z, HiddenCache("elu", z.T, z, None, None, b))
        assert not backward(z, HiddenCache("relu", z, z, z, None, b))


@pytest.mark.parametrize("name", ["softmax_loss", "svm_loss"])
@pytest.mark.parametrize(
    "shape", [(1, 2), (3, 1), (5, 3), (70, 10), (256, 10), (33, 70), (1100, 2), (1500, 7), (2100, 33)], ids=str
)
def test_losses(name, shape, rng, kernels, up, dtype):
    scores, y = 5 * rng.standard_normal(shape).astype(dtype), rng.integers(shape[1], size=shape[0])
    expected = F.LOSSES[name.removesuffix("_loss")].function.reference(scores.astype(np.float64), y)
    loss, dscores = run(kernels[name], up(scores), up(y))
    assert_close(down(loss), expected[0], dtype, "loss")
    assert_close(down(dscores), expected[1], dtype, "loss")


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("name", "targets"),
    [
        *(("softmax", kind) for kind in ("labels", "rows")),
        ("svm", "labels"),
        *((name, "rows") for name in ("mse", "bce", "poisson")),
    ],
)
@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (70, 10), (33, 70), (2100, 33)], ids=str)
def test_losses_of_targets(name, targets, weighted, shape, rng, kernels, up, dtype):
    scores, y = 5 * rng.standard_normal(shape).astype(dtype), rng.integers(shape[1], size=shape[0])
    if targets == "rows":
        y = (rng.dirichlet(np.ones(shape[1]), size=shape[0]) if name == "softmax" else rng.random(shape)).astype(dtype)
        if name == "poisson":
            y[0] = 0  # whose logarithm is left out
    weights = rng.random(shape[0]).astype(dtype) if weighted else np.ones(shape[0], dtype)
    expected = F.weighted_loss.reference(scores.astype(float), y, weights.astype(float), name)
    if weighted:
        found = run(kernels["weighted_loss"], up(scores), up(y), up(weights), name)
    else:
        found = run(kernels[f"{name}_loss"], up(scores), up(y))
    for got, want in zip(found, expected, strict=True):
        assert_close(down(got), np.asarray(want), dtype, "loss")


def test_smoothed_labels(kernels, up, dtype):
    y = np.array([2, 0, 7, -1])
    for kind in ("int64", "int32"):
        found = run(kernels["smooth_labels"], up(y.astype(kind)), 3, 0.3, dtype)
        np.testing.assert_array_equal(down(found), F.smooth_labels.reference(y, 3, 0.3, dtype))
    assert not kernels["smooth_labels"].fits(up(np.eye(3)), 3, 0.3, dtype)


@pytest.mark.parametrize("name", ["softmax_loss", "svm_loss"])
def test_nan_shows_in_the_loss(name, kernels, up):
    loss, _ = run(kernels[name], up(np.array([[0.5, np.nan, 1.0], [0.1, 0.2, 0.3]])), up(np.array([2, 0])))
    assert np.isnan(down(loss))


def test_a_class_that_cannot_be_has_no_part_in_the_loss(kernels, up, dtype):
    scores, y = np.array([[0.5, -np.inf, 1.0], [0.1, 0.2, 0.3]]).astype(dtype), np.array([0, 2])
    for got, want in zip(
        run(kernels["softmax_loss"], up(scores), up(y)), F.softmax_loss.reference(scores, y), strict=True
    ):
        assert_close(down(got), want.astype(float), dtype, "loss")


@pytest.mark.parametrize("name", ["softmax_loss", "svm_loss"])
def test_a_label_out_of_range_is_no_right_class(name, rng, kernels, up, dtype):
    scores, y = rng.standard_normal((4, 4)).astype(dtype), np.array([1, 4, 10**12, -1])
    expected = F.LOSSES[name.removesuffix("_loss")].function.reference(scores.astype(np.float64), y)
    for got, want in zip(run(kernels[name], up(scores), up(y)), expected, strict=True):
        assert_close(down(got), want, dtype, "loss")


def test_l2_penalty(rng, kernels, up, dtype):
    w, dw = rng.standard_normal((2, 70_000)).astype(dtype)
    arrays = up(w), up(dw), up(np.array(2.0))
    run(kernels["l2_penalty"], arrays[0], 0.1, arrays[2], arrays[1], None)
    w64 = w.astype(np.float64)
    np.testing.assert_allclose(down(arrays[2]), 2 + 0.05 * np.sum(w64**2), rtol=1e-6 if dtype == "float32" else 1e-13)
    assert_close(down(arrays[1]), dw + 0.1 * w64, dtype, "elementwise")


FUNCTIONS = {rule.update.reference.__name__: rule for rule in RULES.values()}
MOMENTS = {name: len(rule.moments) for name, rule in FUNCTIONS.items()}
SQUARING = ("adagrad", "adam", "rmsprop")


@pytest.mark.parametrize("rule", MOMENTS)
@pytest.mark.parametrize("size", [1, 300])
def test_rules(rule, size, rng, kernels, up, cupy, dtype):
    w, dw, *ms = rng.random((2 + MOMENTS[rule], size)).astype(dtype)
    dw[::7] *= np.finfo(dtype).max if rule in SQUARING else 1  # whose square overflows
    arrays = [up(a) for a in (w, dw, *ms)]
    step, rate = cupy.asarray(np.array([0])), cupy.asarray(np.array([0.1]))
    reference = getattr(rules, rule).reference
    for number in range(10):
        step[...] = number
        counts = [step] if FUNCTIONS[rule].counts else []
        assert run(kernels[rule], *arrays, *counts, rate, work=None) is arrays[0]
        reference(w, dw, *ms, *([number] if counts else []), 0.1, work=np.empty_like(w))
    for got, want in zip(arrays, (w, dw, *ms), strict=True):
        assert_close(down(got), want.astype(np.float64), dtype, "update")


@pytest.mark.parametrize("rule", sorted(name for name, rule in FUNCTIONS.items() if not rule.counts))
def test_rules_give_the_bits_of_the_references(rule, rng, kernels, up, cupy, dtype):
    """Whose every product and sum is rounded; Adam's powers are the mathematics library's."""
    w, dw, *ms = rng.random((2 + MOMENTS[rule], 300)).astype(dtype)
    dw[::7] *= np.finfo(dtype).max if rule in SQUARING else 1
    arrays, rate = [up(a) for a in (w, dw, *ms)], cupy.asarray(np.array([0.1]))
    for _ in range(3):
        run(kernels[rule], *arrays, rate, work=None)
        getattr(rules, rule).reference(w, dw, *ms, 0.1, work=np.empty_like(w))
    run(kernels["decay_weights"], arrays[0], rate, 0.25, work=None)
    limits.decay_weights.reference(w, 0.1, 0.25, work=np.empty_like(w))
    for got, want in zip(arrays, (w, dw, *ms), strict=True):
        np.testing.assert_array_equal(down(got), want)


@pytest.mark.parametrize("rule", sorted(name for name in MOMENTS if MOMENTS[name] and name != "adagrad"))
@pytest.mark.parametrize("gradient", denormals.GRADIENTS)
def test_moments_are_never_denormal_and_have_the_references_bits(rule, gradient, kernels, up, cupy, dtype):
    start = denormals.small(dtype)
    dw = denormals.GRADIENTS[gradient](start)
    kinds = FUNCTIONS[rule].moments
    ms = [np.abs(start) if kind in ("v", "cache") else start.copy() for kind in kinds]
    constants = dict.fromkeys(set(FUNCTIONS[rule].defaults) - {"learning_rate", "epsilon"}, 0.8)
    w, rate, step = np.ones(start.size, dtype), cupy.asarray(np.array([0.1])), cupy.asarray(np.array([0]))
    on_device = [up(array) for array in (w, dw, *ms)]
    for number in range(40):
        step[...] = number
        counts = [step] if FUNCTIONS[rule].counts else []
        run(kernels[rule], *on_device, *counts, rate, **constants, work=None)
        numbers = [number] if counts else []
        with denormals.flushed(dtype == "float32"):  # as the kernels are compiled
            getattr(rules, rule).reference(w, dw, *ms, *numbers, 0.1, **constants, work=np.empty_like(w))
        for got, want in zip(on_device[2:], ms, strict=True):
            assert not denormals.count(down(got))
            assert down(got).tobytes() == want.tobytes()
    assert gradient != "zero" or not any(down(moment).any() for moment in on_device[2:])


def test_weights_that_decay_are_never_denormal(kernels, up, cupy, dtype):
    w, rate = up(denormals.small(dtype)), cupy.asarray(np.array([0.5]))
    expected = denormals.small(dtype)
    for _ in range(20):
        run(kernels["decay_weights"], w, rate, 0.5, work=None)
        with denormals.flushed(dtype == "float32"):
            limits.decay_weights.reference(expected, 0.5, 0.5, work=np.empty_like(expected))
        assert not denormals.count(down(w))
        assert down(w).tobytes() == expected.tobytes()
    losses = abs(expected.astype("float64")) / 4  # a weight stays as soon as what it would lose counts as 0
    assert (losses < (np.finfo(dtype).smallest_normal if dtype == "float32" else 1e-320)).all()


def test_running_statistics_are_never_denormal(kernels, up, dtype):
    start = denormals.small(dtype)
    zeros = [up(np.zeros(shape, dtype)) for shape in ((4, start.size), *[start.size] * 3)]
    running = {"running_mean": up(start), "running_var": up(np.abs(start))}
    for _ in range(20):
        run(kernels["batchnorm_activation_dropout_forward"], *zeros, "relu", **running, momentum=0.75)
        assert [denormals.count(down(value)) for value in running.values()] == [0, 0]
    assert not any(down(value).any() for value in running.values())


@pytest.mark.parametrize("name", ["softmax_loss", "svm_loss"])
@pytest.mark.parametrize("kind", ["int32", "uint8", "uint64", "strided"])
def test_all_integer_labels_take_one_path(name, kind, rng, kernels, up, dtype):
    scores, y = up(rng.standard_normal((70, 10))), rng.integers(10, size=70)
    expected = run(kernels[name], scores, up(y))
    labels = up(np.repeat(y, 2))[::2] if kind == "strided" else up(y.astype(kind))
    for got, want in zip(run(kernels[name], scores, labels), expected, strict=True):
        np.testing.assert_array_equal(down(got), down(want))
    assert kernels[name].fits(scores, up(np.eye(10)[y])) is (name == "softmax_loss")
    assert not kernels[name].fits(scores, y)  # on the host


@pytest.mark.parametrize("rows", [1, 70, 1500])
def test_right_classes(rows, rng, kernels, up, dtype):
    scores = rng.integers(-3, 3, (rows, 5)).astype(dtype)  # many are equal: the first counts
    scores[::7, 2], scores[::9, 3] = np.nan, np.nan
    y = rng.integers(5, size=rows)
    assert int(run(kernels["right_classes"], up(scores), up(y))) == (scores.argmax(axis=1) == y).sum()
    for refused in (np.eye(5)[y], y.astype("uint8"), np.repeat(y, 2)):
        assert not kernels["right_classes"].fits(up(scores), up(refused))


def test_a_rate_on_the_host_is_refused(kernels, up):
    w = up(np.ones(3, np.float32))
    assert not kernels["sgd"].fits(w, w, 0.1, work=w)
    assert not kernels["decay_weights"].fits(w, 0.1, 0.01, work=w)


def test_every_rule_has_a_kernel(kernels):
    assert set(MOMENTS) <= set(kernels)


@pytest.mark.parametrize("size", [1, 300, 70_000])
def test_limits(size, rng, kernels, up, cupy, dtype):
    w, dw = rng.standard_normal((2, size)).astype(dtype)
    rate = cupy.asarray(np.array([0.1]))
    got = run(kernels["decay_weights"], up(w), rate, 0.25, work=None)
    assert_close(down(got), w.astype(np.float64) * (1 - 0.025), dtype, "elementwise")
    got = run(kernels["clip_by_value"], up(dw), 0.5)
    np.testing.assert_array_equal(down(got), np.clip(dw, -0.5, 0.5))
    for limit in (1e-3, 1e9) if dtype == "float32" else ():
        got = run(kernels["clip_by_norm"], up(dw), limit)
        length = np.sqrt(np.sum(dw.astype(np.float64) ** 2))
        assert_close(down(got), dw.astype(np.float64) * min(1, limit / length), dtype, "update")


def test_limits_let_nan_through(kernels, up, dtype):
    for name in ("clip_by_value", *(["clip_by_norm"] if dtype == "float32" else [])):
        assert np.isnan(down(run(kernels[name], up(np.array([1.0, np.nan])), 0.5))).any()


def test_a_norm_beyond_float_is_clipped_all_the_same(kernels, cupy):
    """Squares are summed in double; a norm of doubles, whose squares may overflow, is the reference's."""
    huge = np.full(3, np.finfo("float32").max / 2, "float32")
    expected = limits.clip_by_norm.reference(huge.copy(), 1.0)
    got = down(run(kernels["clip_by_norm"], cupy.asarray(huge), 1.0))
    assert_close(got, expected.astype(float), "float32", "elementwise")
    assert not kernels["clip_by_norm"].fits(cupy.asarray(huge.astype("float64")), 1.0)


class TestBatch:
    @pytest.mark.parametrize(
        ("kind", "scaled"), [("uint8", True), *((k, False) for k in ("uint8", "float32", "float64"))]
    )
    @pytest.mark.parametrize("width", [1, 3, 16, 300, 1500])
    @pytest.mark.parametrize("columns", [None, 1, 300])
    def test_next_batch(self, scaled, width, kind, columns, rng, kernels, up, cupy, dtype):
        X, order = rng.integers(200, size=(10, width)).astype(kind), rng.permutation(10)
        y = rng.integers(9, size=10) if columns is None else rng.random((10, columns)).astype(dtype)
        vectors = (up(rng.random(width)), up(rng.random(width))) if scaled else ()
        cursor = cupy.asarray(np.array([3]))
        args = cupy.asarray(X), cupy.asarray(y), cupy.asarray(order), cursor, cupy.asarray(np.arange(4))
        got = run(kernels["next_batch"], *args, None, *vectors)
        for start in (3, 8):
            cursor[...] = start
            run(
                kernels["next_batch"],
                *args,
                None,
                *vectors,
                **dict(zip(("batch", "targets", "rows"), got, strict=False)),
            )
            rows = order[np.minimum(start + np.arange(4), 9)]  # never outside the data
            np.testing.assert_array_equal(down(got[2]), rows)
            np.testing.assert_array_equal(down(got[1]), y[rows])
            expected = F.preprocess.reference(X[rows], *map(down, vectors)) if scaled else X[rows]
            np.testing.assert_array_equal(down(got[0]), expected)
        args[2][:] = 10**6
        run(kernels["next_batch"], *args, None, *vectors, **dict(zip(("batch", "targets"), got, strict=False)))
        np.testing.assert_array_equal(down(got[1]), y[[9] * 4])

    @pytest.mark.parametrize("kind", ["uint8", "float32", "float64", "int64"])
    @pytest.mark.parametrize("shape", [(10, 3), (10,), (10, 4, 4), (10, 1500)], ids=str)
    def test_gather(self, kind, shape, rng, kernels, cupy):
        data, rows = cupy.asarray(rng.integers(200, size=shape).astype(kind)), cupy.asarray(rng.integers(10, size=6))
        batch = run(kernels["gather"], data, rows)
        assert batch.dtype == kind
        np.testing.assert_array_equal(down(batch), down(data)[down(rows)])
        rows[:2] = 10**6, -5  # never outside the data
        run(kernels["gather"], data, rows, batch=batch)
        np.testing.assert_array_equal(down(batch)[:2], down(data)[[9, 0]])

    @pytest.mark.parametrize("kind", ["uint8", "float"])
    def test_preprocess(self, kind, rng, kernels, up, dtype):
        x = (200 * rng.random((7, 5))).astype("uint8" if kind == "uint8" else dtype)
        shift, scale = up(rng.random(5)), up(rng.random(5))
        got = run(kernels["preprocess"], up(x), shift, scale)
        np.testing.assert_array_equal(down(got), F.preprocess.reference(x, down(shift), down(scale)))

    def test_counters(self, kernels, up, cupy, dtype):
        counters, increments = cupy.asarray(np.array([30, 2])), cupy.asarray(np.array([10, 1]))
        losses = up(np.zeros(4))
        run(kernels["record_step"], losses, counters, increments, up(np.array(1.5)))
        np.testing.assert_array_equal(down(losses), [0, 0, 1.5, 0])
        np.testing.assert_array_equal(down(counters), [40, 3])
        run(kernels["advance"], counters, increments)
        np.testing.assert_array_equal(down(counters), [50, 4])


class TestChecksums:
    @pytest.mark.parametrize("size", [1, 3, 4, 7, 1024, 4099, 70_001])
    @pytest.mark.parametrize("start", [0, 1])
    def test_any_bit_shows(self, start, size, rng, cupy):
        array = cupy.asarray(rng.integers(256, size=start + size).astype("uint8"))[start:]
        checksums = Checksums(cupy)
        before = checksums([array])
        np.testing.assert_array_equal(checksums([array, array]), np.repeat(before, 2, axis=0))
        for place in {0, size // 2, size - 1}:
            array[place] ^= 1 << place % 8
            assert (checksums([array]) != before).any()
            array[place] ^= 1 << place % 8
        np.testing.assert_array_equal(checksums([array]), before)

    def test_places_show(self, rng, cupy):
        array = cupy.asarray(rng.standard_normal(200).astype("float32"))  # of one block
        checksums = Checksums(cupy)
        before = checksums([array])
        for other in (np.roll(array, 1), array[::-1], -array):
            array[...], kept = other.copy(), array.copy()
            assert (checksums([array]) != before).any()
            array[...] = kept


def test_kernels_are_compiled_when_first_called_and_at_the_same_time(monkeypatch, dtype):
    cupy = fake_cupy()
    made = []
    module = cupy.RawModule
    together = threading.Barrier(len(MODULES))
    monkeypatch.setattr(cupy, "RawModule", lambda **source: made.append(source["code"]) or module(**source))
    monkeypatch.setattr(module, "compile", lambda self: together.wait(HANGS))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    table = cuda_kernels(Launcher(cupy), cupy.matmul)
    assert made == []
    counters = cupy.asarray(np.array([1]))
    for _ in range(2):
        run(table["advance"], counters, counters)
    assert set(made) == {source(name) for name in MODULES}
    assert len(made) == len(MODULES)
    z, b = (cupy.asarray(np.ones(shape, "float32")) for shape in ((4, 3), 3))
    for activation in ("gelu", "silu", "gelu"):  # a module each, and no other activation's
        run(table["bias_activation_dropout_forward"], z, b, activation)
    assert made[len(MODULES) :] == [activated("gelu"), activated("silu")]
