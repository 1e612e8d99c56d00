"""What the kernels do not do goes to the reference: every combination gives the reference's values, or its refusal.

The kernels serve ReLU, inverted dropout, and the softmax and hinge losses of labels; everything else must not reach
them, nor arrays that they would read or write beside.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fcnet import functional as F
from fcnet.backends import REGISTRY, MaskStream, get_backend
from fcnet.backends.caches import GatedCache, HiddenCache, NormCache, relu_cache
from fcnet.backends.cpu import loader
from fcnet.backends.cuda.kernels import cuda_kernels
from fcnet.backends.cuda.launch import Launcher
from fcnet.optim import RULES, rules
from tests.backends.cuda_fake import fake_cupy
from tests.small import blobs, net
from tests.tolerances import assert_close

CPU = get_backend("cpu")
FUNCTIONS = {rule.update.reference.__name__: rule for rule in RULES.values()}
SERVED = {
    *("matmul", "matmul_backward", "affine_forward", "affine_backward", "l2_penalty", "right_classes"),
    *("softmax_loss", "svm_loss", "mse_loss", "bce_loss", "poisson_loss", "weighted_loss", "smooth_labels"),
    *(f"{kind}_activation_dropout_forward" for kind in ("bias", "batchnorm", "layernorm")),
    *(f"{kind}_activation_dropout_backward" for kind in ("bias", "batchnorm", "layernorm")),
    *FUNCTIONS,
    *("decay_weights", "clip_by_norm", "clip_by_value"),
    *("advance", "gather", "next_batch", "preprocess", "record_step", "shuffle"),
}
ACTIVATIONS = [*sorted(F.ACTIVATIONS), "maxout:3"]
KINDS = ["bias", "batchnorm", "layernorm"]


@pytest.fixture(scope="module")
def cupy():
    return fake_cupy()


@pytest.fixture(scope="module")
def tables(cupy):
    """Both devices' kernels; `upload` makes what a device's kernels work on."""
    cuda = cuda_kernels(Launcher(cupy), cupy.matmul)
    return {"cpu": (loader.load().kernels, np.array), "cuda": (cuda, cupy.asarray)}


def test_only_these_are_served(tables):
    """A new kernel needs a look at what it must refuse, here."""
    for device, (kernels, _) in tables.items():
        assert set(kernels) <= SERVED, device
    assert not any(name in SERVED for name in ("plain_dropout_forward", "activate", "l1_penalty", "max_norm"))


def layouts(array):
    """Return the same values in every layout that a kernel may meet."""
    wide = np.full((*array.shape[:-1], 2 * array.shape[-1]), 7, array.dtype)
    wide[..., ::2] = array
    yield "contiguous", array
    yield "strided", wide[..., ::2]
    yield "transposed", np.ascontiguousarray(array.swapaxes(-1, -2)).swapaxes(-1, -2)
    yield "stack", np.stack([array, -array])
    yield "reversed", array[::-1].copy()[::-1]
    read_only = array.copy()
    read_only.flags.writeable = False
    yield "read-only", read_only
    yield "one row", array[:1]


def others_too(activation, dtype):
    """Whether Numba has a kernel for a hidden layer with this activation, which is not ReLU, or with layer norm."""
    return pieces_of(activation) == 1 and dtype == "float32"


def pieces_of(activation):
    return F.activation_named("activation", activation).pieces


def vectors_of(kind, rng, width, dtype):
    return [rng.standard_normal(width).astype(dtype) for _ in range(1 if kind == "bias" else 3)]


@pytest.mark.usefixtures("cpu_kernels")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("keep", [1.0, 0.6])
def test_units(kind, activation, keep, rng, dtype):
    forward, backward = (getattr(F, f"{kind}_activation_dropout_{way}") for way in ("forward", "backward"))
    values = rng.standard_normal((6, 5 * pieces_of(activation))).astype(dtype)
    for layout, z in layouts(values):
        vectors = vectors_of(kind, rng, z.shape[-1], dtype)
        stream = MaskStream(CPU, 3, layer=1, step=7) if keep < 1 else None
        args = z, *vectors, activation, keep, stream
        served = forward.choose(*args) is not forward.reference
        has_kernel = others_too(activation, dtype) or (activation == "relu" and kind != "layernorm")
        assert served <= (has_kernel and z.ndim == 2), (layout, "not what the kernel does")
        if has_kernel and layout in ("contiguous", "one row"):
            assert served, layout
        out, cache = forward(*args)
        expected, reference_cache = forward.reference(*args)
        assert_close(out, expected.astype(float), dtype, "norm")
        if layout == "one row":
            continue  # a norm of one row: gradients are noise around 0
        dout = rng.standard_normal(out.shape).astype(dtype)
        for _, given in layouts(dout) if dout.ndim == 2 else [("", dout)]:
            if given.shape != dout.shape:
                continue
            for got, want in zip(backward(given, cache), backward.reference(given, reference_cache), strict=True):
                assert_close(got, want.astype(float), dtype, "norm")


@pytest.mark.usefixtures("cpu_kernels")
@pytest.mark.parametrize("name", [name for name in F.LOSSES if name != "poisson"])  # which the CPU has no kernel for
def test_losses(name, rng, dtype):
    op, y = F.LOSSES[name].function, rng.integers(4, size=6)
    one_hot = np.eye(4)[y]
    smooth = 0.7 * one_hot + 0.3 / 4 if name == "softmax" else one_hot
    targets = [y, y.astype("uint8"), y.astype("int32"), np.repeat(y, 2)[::2], one_hot.astype(dtype), one_hot > 0]
    targets += [one_hot.astype(int), smooth.astype(dtype), smooth.astype("float64")]
    if name in F.NUMERIC:
        targets = [given for _, given in layouts(one_hot.astype(dtype)) if given.shape == one_hot.shape]
    for (layout, scores), target in itertools.product(layouts(rng.standard_normal((6, 4)).astype(dtype)), targets):
        t = target[: scores.shape[-2]]
        t = np.stack([t, t]) if layout == "stack" else t
        served = op.choose(scores, t) is not op.reference
        rows = name != "svm" and t.ndim == 2 and t.dtype == dtype
        assert served <= (scores.ndim == 2 and (t.ndim == 1 or rows)), (layout, "other rows are the reference's")
        if layout == "contiguous":
            assert served == (t.ndim == 1 or (rows and t.flags.c_contiguous and t.flags.writeable))
        expected = op.reference(scores, t)
        given = {"loss": np.empty(scores.shape[:-2], dtype), "dscores": np.empty(scores.shape, dtype)}
        strided = {"dscores": np.empty((*scores.shape[:-1], 8), dtype)[..., ::2]}
        for outputs in ({}, given, strided):
            for got, want in zip(op(scores, t, **outputs), expected, strict=True):
                assert_close(np.asarray(got), np.asarray(want).astype(float), dtype, "loss")
        weights = rng.random(scores.shape[:-1]).astype(dtype)
        assert (F.weighted_loss.choose(scores, t, weights, name) is not F.weighted_loss.reference) is served
        expected = F.weighted_loss.reference(scores, t, weights, name)
        for got, want in zip(F.weighted_loss(scores, t, weights, name), expected, strict=True):
            assert_close(np.asarray(got), np.asarray(want).astype(float), dtype, "loss")


@pytest.mark.usefixtures("cpu_kernels")
def test_smoothed_labels(dtype):
    y = np.array([2, 0, 7, -1])
    expected = F.smooth_labels.reference(y, 3, 0.3, dtype)
    for labels in (y, y.astype("int32"), np.repeat(y, 2)[::2]):
        np.testing.assert_array_equal(
            REGISTRY["smooth_labels"].choose(y % 3, 3, 0.3, dtype)(labels, 3, 0.3, dtype), expected
        )
    rows = np.eye(3, dtype=dtype)
    assert F.smooth_labels.choose(rows, 3, 0.3, dtype) is F.smooth_labels.reference


@pytest.mark.usefixtures("cpu_kernels")
@pytest.mark.parametrize("name", ["softmax", "bce"])
def test_many_rows_of_targets_are_the_references_in_float64(name, dtype):
    """NumPy takes several exponentials at once, and so do the kernels in float32."""
    op = F.LOSSES[name].function
    few, many = np.ones((2, 3), dtype), np.ones((20, 1000), dtype)
    assert op.choose(few, few) is not op.reference
    assert (op.choose(many, many) is op.reference) == (dtype == "float64")


MODELS = [
    {"activation": ["relu", "maxout"]},
    {"activation": ["maxout", "relu"], "maxout_pieces": 3, "normalization": "batchnorm"},
    {"activation": ["tanh", "relu"], "normalization": "layernorm", "dropout_keep_ratio": 0.7},
    {"dropout": "plain", "dropout_keep_ratio": 0.7},
    {"dropout": "plain", "dropout_keep_ratio": 0.7, "normalization": "batchnorm"},
    {"label_smoothing": 0.2},
    {"loss": "svm", "dropout_keep_ratio": 0.7},
    {"loss": "mse"},
    {"loss": "bce", "reg": 0.1, "reg_l1": 0.1},
    *({"activation": name} for name in ACTIVATIONS if ":" not in name),
]


@pytest.mark.usefixtures("cpu_kernels")
@pytest.mark.parametrize("options", MODELS, ids=str)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("hot", [False, True])
def test_networks(options, weighted, hot, monkeypatch):
    """Losses and gradients with kernels, in each combination, are those of the references alone."""
    data = blobs(dtype="float32")
    numeric = options.get("loss") in F.NUMERIC
    y = np.eye(3)[data.y_train] if hot or numeric else data.y_train
    how = {"sample_weight": np.linspace(0, 2, len(y))} if weighted else {}
    results = []
    for kernels in (None, {}):
        if kernels is not None:
            monkeypatch.setattr(type(CPU), "kernels", kernels)
        loss, grads = net(data, **options).loss(data.X_train, y, step=2, **how)
        results.append((loss, grads))
    (loss, grads), (expected, expected_grads) = results
    assert loss == pytest.approx(expected, rel=1e-5)
    for name, grad in grads.items():
        np.testing.assert_allclose(grad, expected_grads[name], rtol=2e-3, atol=2e-5, err_msg=name)


class TestOnEitherDevice:
    """The preconditions themselves."""

    @pytest.fixture(params=["cpu", "cuda"])
    def fits(self, request, tables):
        kernels, upload = tables[request.param]

        def ask(name, *args, **kwargs):
            if name not in kernels:
                pytest.skip(f"no kernel for {name} here")

            def up(value):
                if isinstance(value, HiddenCache):
                    norm, kept = value.norm and up(value.norm), up(value.activation_cache)
                    return value._replace(
                        hidden=upload(value.hidden), norm=norm, activation_cache=kept, mask=up(value.mask)
                    )
                if isinstance(value, NormCache | GatedCache):
                    return type(value)(*map(up, value))
                return upload(value) if type(value) is np.ndarray else value

            given = {key: up(value) for key, value in kwargs.items()}
            return bool(kernels[name].fits(*(up(arg) for arg in args), **given))

        return ask

    @pytest.mark.parametrize("kind", KINDS)
    def test_units(self, fits, kind, dtype, request):
        on_cpu = "cpu" in request.node.callspec.params.values()
        name, z = f"{kind}_activation_dropout_forward", np.ones((4, 6), dtype)
        vectors = [np.ones(6, dtype)] * (1 if kind == "bias" else 3)
        of_relu = not on_cpu or kind != "layernorm" or dtype == "float32"
        assert fits(name, z, *vectors, "relu", 0.5, MaskStream(CPU, 1)) == of_relu
        for activation in ACTIVATIONS:
            others = others_too(activation, dtype) if on_cpu else pieces_of(activation) == 1
            expected = of_relu if activation == "relu" else others
            assert fits(name, z, *vectors, activation) == expected
            assert fits(name, z, *vectors, activation=activation) == expected
        assert not fits(name, np.ones((2, 4, 6), dtype), *vectors)
        assert not fits(name, z.astype("int64"), *vectors)
        other = "float32" if dtype == "float64" else "float64"
        assert not fits(name, z, *vectors, out=np.ones((4, 6), other))
        if kind != "bias":  # shapes are the op's own check
            for place in range(3):
                with pytest.raises(ValueError, match="expected shape"):
                    REGISTRY[name](z, *(np.ones((1, 6) if i == place else 6, dtype) for i in range(3)))

    @pytest.mark.parametrize("name", ["softmax_loss", "svm_loss"])
    def test_losses(self, fits, name, dtype):
        scores, y = np.ones((4, 3), dtype), np.array([0, 1, 2, 0])
        assert fits(name, scores, y)
        assert fits(name, scores, np.eye(3, dtype=dtype)[y]) is (name == "softmax_loss")
        assert not fits(name, scores, np.eye(3, dtype=int)[y])
        assert not fits(name, scores, y.astype(dtype))
        assert not fits(name, np.stack([scores, scores]), np.stack([y, y]))
        assert not fits(name, np.stack([scores, scores]), y)
        assert not fits(name, scores.astype("int64"), y)

    @pytest.mark.parametrize("name", FUNCTIONS)
    def test_rules(self, fits, name, dtype):
        moments = len(FUNCTIONS[name].moments)

        def arguments(*sizes):
            last = [np.array([0])] * FUNCTIONS[name].counts + [np.array([0.1])]
            return *(np.ones(size, dtype) for size in sizes), *last

        assert fits(name, *arguments(*[5] * (2 + moments)), work=None)
        assert not fits(name, *arguments(*[0] * (2 + moments)), work=None)
        for place in range(2 + moments):
            sizes = [5] * (2 + moments)
            sizes[place] = 3
            assert not fits(name, *arguments(*sizes), work=None), f"argument {place} of another size"
        assert not fits(name, *(np.ones((5, 2), dtype) for _ in range(2 + moments)), *arguments()[:], work=None)

    @pytest.mark.parametrize("kind", KINDS)
    def test_caches(self, fits, kind, dtype, request):
        """A kernel reads the reference's caches, too, where they hold no more than its own."""
        on_cpu = "cpu" in request.node.callspec.params.values()
        z, b = np.ones((4, 6), dtype), np.ones(6, dtype)
        vectors, forward = [b] * (1 if kind == "bias" else 3), REGISTRY[f"{kind}_activation_dropout_forward"].reference
        name = f"{kind}_activation_dropout_backward"
        of_relu = not on_cpu or kind != "layernorm" or dtype == "float32"
        assert fits(name, z, forward(z, *vectors)[1]) == of_relu
        for activation in ("tanh", "gelu"):
            for how in ((), (0.5, MaskStream(CPU, 1))):
                cache = forward(z, *vectors, activation, *how)[1]
                assert fits(name, z, cache) == (not on_cpu or others_too(activation, dtype))
        assert not fits(name, z, forward(z, *vectors, "relu", 0.5, MaskStream(CPU, 1))[1])
        other = z.astype("float32" if dtype == "float64" else "float64")
        assert not fits(name, other, forward(z, *vectors)[1])
        assert not fits(name, z, forward(z, *vectors)[1], dz=other)
        assert fits("bias_activation_dropout_backward", z, relu_cache(z, 1.0, None, b))


WRONG = np.zeros((2, 3))
Z, V, W, Y = np.ones((6, 5)), np.ones(5), np.ones((5, 4)), np.zeros(6, int)
OF_UNITS = [(f"{kind}_activation_dropout_forward", (Z, *[V] * (1 if kind == "bias" else 3))) for kind in KINDS]
NEXT = np.ones((9, 5)), np.zeros(9, int), np.arange(9), np.array([0]), np.arange(4), np.empty(4, int)
GIVEN = [
    *((name, args, output) for name, args in OF_UNITS for output in ("out",)),
    ("bias_activation_dropout_forward", (Z, V), "hidden"),
    *((name, args, "x_hat") for name, args in OF_UNITS[1:]),
    *(("batchnorm_activation_dropout_forward", (Z, V, V, V), f"running_{what}") for what in ("mean", "var")),
    *((f"{name}_loss", (Z, Y), output) for name in ("softmax", "svm") for output in ("loss", "dscores")),
    *((f"{name}_loss", (Z, Z), output) for name in ("mse", "bce", "poisson") for output in ("loss", "dscores")),
    ("weighted_loss", (Z, Y, np.ones(6)), "dscores"),
    ("smooth_labels", (Y, 5, 0.1, "float64"), "targets"),
    ("matmul", (Z, W), "out"),
    ("affine_forward", (Z, W, np.ones(4)), "out"),
    *(("matmul_backward", (np.ones((6, 4)), Z, W), output) for output in ("dx", "dw")),
    *(("affine_backward", (np.ones((6, 4)), (Z, W, np.ones(4))), output) for output in ("dx", "dw", "db")),
    *(("next_batch", NEXT, output) for output in ("batch", "targets", "rows", "raw")),
    ("gather", (Z, np.arange(4)), "batch"),
    ("preprocess", (Z, V, V), "out"),
]


@pytest.mark.parametrize("kernels", ["references_only", "cpu_kernels"])
@pytest.mark.parametrize(("name", "args", "output"), GIVEN, ids=lambda value: value if isinstance(value, str) else "")
def test_an_output_of_another_shape_is_named(name, args, output, kernels, request):
    """Also by the kernels, which would write beside it."""
    request.getfixturevalue(kernels)
    with pytest.raises(ValueError, match=f"{name}: {output}: expected an array of shape .* to fill, got"):
        getattr(F, name)(*args, **{output: WRONG})


@pytest.mark.usefixtures("cpu_kernels")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("output", ["dout", "dz", "db", "dgamma", "work"])
def test_a_units_gradients_of_another_shape_are_named(kind, output):
    if kind == "bias" and output in ("dgamma", "work"):
        pytest.skip("it has none")
    forward, backward = (getattr(F, f"{kind}_activation_dropout_{way}") for way in ("forward", "backward"))
    _, cache = forward(Z, *[V] * (1 if kind == "bias" else 3))
    dout, given = (WRONG, {}) if output == "dout" else (Z, {output: WRONG})
    with pytest.raises(ValueError, match=f"{kind}_activation_dropout_backward: {output}: expected"):
        backward(dout, cache, **given)


def test_one_running_statistic_alone_is_refused():
    for given, lacking in (("running_mean", "running_var"), ("running_var", "running_mean")):
        with pytest.raises(ValueError, match=f"{lacking}: expected both running statistics or neither"):
            F.batchnorm_activation_dropout_forward(Z, V, V, V, **{given: np.ones(5)})


@pytest.mark.usefixtures("cpu_kernels")
def test_rules_of_other_sizes_do_not_reach_a_kernel():
    w, short, work = np.ones(5), np.ones(3), np.ones(5)
    with pytest.raises(ValueError, match="broadcast"):
        rules.adam(w, short, w.copy(), w.copy(), 0, 0.1, work=work)


FILLED = [
    ("gather", (Z, np.arange(4)), "batch"),
    *(("next_batch", NEXT, output) for output in ("batch", "targets", "rows")),
    ("preprocess", (Z, V, V), "out"),
]


@pytest.mark.usefixtures("cpu_kernels")
@pytest.mark.parametrize(("name", "args", "output"), FILLED, ids=lambda value: value if isinstance(value, str) else "")
def test_a_read_only_output_is_refused(name, args, output):
    results = REGISTRY[name](*args)
    place = REGISTRY[name].results.index(output)
    given = np.zeros_like(results[place] if isinstance(results, tuple) else results)
    given.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        REGISTRY[name](*args, **{output: given})
    assert (given == 0).all()


@pytest.mark.usefixtures("cpu_kernels")
def test_read_only_counters_are_refused():
    counters, increments = np.zeros(2, int), np.ones(2, int)
    counters.flags.writeable = False
    for call in (
        lambda: F.advance(counters, increments),
        lambda: F.record_step(np.zeros(3), counters, increments, np.array(1.0)),
        lambda: F.shuffle(counters, 0, 0),
    ):
        with pytest.raises(ValueError, match="read-only"):
            call()
    increments.flags.writeable = False  # which are only read
    np.testing.assert_array_equal(F.advance(np.zeros(2, int), increments), 1)


@pytest.mark.usefixtures("cpu_kernels")
@pytest.mark.parametrize("kind", KINDS[:2])
def test_units_without_columns(kind):
    forward, backward = (getattr(F, f"{kind}_activation_dropout_{way}") for way in ("forward", "backward"))
    z, vectors = np.ones((4, 0)), [np.ones(0)] * (1 if kind == "bias" else 3)
    out, cache = forward(z, *vectors)
    assert [array.shape for array in (out, *backward(z, cache))][:2] == [(4, 0), (4, 0)]


@pytest.mark.usefixtures("cpu_kernels")
@pytest.mark.parametrize("loss", [F.softmax_loss, F.svm_loss])
def test_scores_without_classes_or_rows(loss):
    with pytest.raises(ValueError, match="y: expected labels 0 to -1, got 0"):
        loss(np.ones((3, 0)), np.zeros(3, int))
    with pytest.raises(ValueError, match="scores: expected at least one row"):
        loss(np.ones((0, 3)), np.zeros(0, int))
