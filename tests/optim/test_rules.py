"""Update rules against the papers, element by element."""

import inspect

import numpy as np
import pytest

from fcnet.backends import get_backend
from fcnet.optim import RULES
from tests import combinations, denormals, oracles
from tests.tolerances import assert_close

STEPS, SIZE = 10, 23
HYPER = {name: oracle.hyper for name, oracle in oracles.RULES.items() if oracle.hyper is not None}
RATE = 0.125  # a number that float32 holds


def test_every_rule_has_an_oracle_and_hyperparameters():
    """A new rule that nobody tests fails here."""
    assert set(RULES) == set(oracles.RULES)
    for name, rule in RULES.items():
        function, own = rule.update.reference.__name__, oracles.RULES[name].decays
        assert function == name if name in HYPER else function in HYPER
        assert own == bool(rule.weight_decay)
        parameters = set(inspect.signature(oracles.RULES[name].after).parameters)
        assert parameters == {"w", "gradients", *rule.defaults, *(["weight_decay"] if own else [])}
        if name in HYPER:
            assert set(rule.defaults) == {"learning_rate", *HYPER[name]}
            assert all(rule.defaults[key] != value for key, value in HYPER[name].items())


@pytest.fixture(params=sorted(HYPER))
def name(request):
    return request.param


class Setup:
    """A rule with its arrays on a device: `step(gradient)` makes one update."""

    def __init__(self, backend, name, w, dtype, *, block=None, rate=RATE, hyper=None):
        self.backend, self.name, self.rate = backend, name, rate
        self.hyper = HYPER[name] if hyper is None else hyper
        self.w = backend.asarray(np.array(w, dtype=dtype))
        self.moments = [backend.xp.zeros(self.w.shape, dtype=dtype) for _ in RULES[name].moments]
        self.work = backend.xp.empty((block or self.w.size,), dtype=dtype)
        self.made = 0
        self.update = RULES[name].update

    def step(self, gradient, step=None):
        dw = self.backend.asarray(np.array(gradient, dtype=self.w.dtype))
        before = self.backend.to_numpy(dw).tobytes()
        counter = [self.made if step is None else step] if RULES[self.name].counts else []
        got = self.update(self.w, dw, *self.moments, *counter, self.rate, **self.hyper, work=self.work)
        assert got is self.w
        assert self.backend.to_numpy(dw).tobytes() == before, "dw was changed"
        self.made += 1

    @property
    def value(self):
        return np.array(self.backend.to_numpy(self.w))


def gradients(rng, count=STEPS):
    """Gradients of the sizes that occur together in a network, and zeros."""
    scales = np.logspace(-4, 1, SIZE)
    drawn = (rng.standard_normal((count, SIZE)) * scales).astype(np.float32)
    drawn[:, 5] = 0
    drawn[::2, 6] = 0
    return drawn


@pytest.mark.corner(backend=combinations.WITH_KERNELS)
def test_ten_steps_are_the_oracles(name, rng, backend, dtype):
    w, drawn = rng.standard_normal(SIZE).astype(np.float32), gradients(rng)
    setup = Setup(backend, name, w, dtype)
    for number in range(1, STEPS + 1):
        setup.step(drawn[number - 1])
        expected = oracles.RULES[name].after(w, drawn[:number], learning_rate=RATE, **HYPER[name])
        assert_close(setup.value, expected, dtype, "update")
    assert all(moment.dtype == dtype for moment in setup.moments)


def test_a_float32_update_is_float32_whatever_the_rate(name, rng, backend):
    for rate in (RATE, backend.asarray(np.array([RATE])), backend.asarray(np.array(RATE))):
        setup = Setup(backend, name, rng.standard_normal(SIZE), "float32", rate=rate)
        setup.step(gradients(rng)[0])
        assert setup.value.dtype == np.float32
        assert setup.value.shape == (SIZE,)


@pytest.mark.parametrize("name", [name for name in HYPER if not RULES[name].counts])
def test_float32_arithmetic_knows_the_rate_in_float32_only(name, rng, backend):
    """0.1 and its nearest float32 then give the same bits; arithmetic in float64 would tell them apart."""
    w, drawn = rng.standard_normal(SIZE), gradients(rng)
    exact = Setup(backend, name, w, "float32", rate=backend.asarray(np.array([0.1])))
    rounded = Setup(backend, name, w, "float32", rate=float(np.float32(0.1)))
    for gradient in drawn:
        exact.step(gradient)
        rounded.step(gradient)
    np.testing.assert_array_equal(exact.value, rounded.value)


def test_rate_and_step_may_live_on_the_device(name, rng, backend, dtype):
    w, drawn = rng.standard_normal(SIZE), gradients(rng)
    rate, counter = backend.asarray(np.array([RATE])), backend.asarray(np.array([0]))
    on_host, on_device = Setup(backend, name, w, dtype), Setup(backend, name, w, dtype, rate=rate)
    for number in range(STEPS):
        if number == 5:
            on_host.rate, rate[...] = RATE / 2, RATE / 2
        counter[...] = number
        on_host.step(drawn[number])
        on_device.step(drawn[number], step=counter)
    assert_close(on_device.value, on_host.value.astype(float), dtype, "elementwise")


@pytest.mark.parametrize("block", [1, 4, 7, 22, SIZE, 64])
def test_blocks_give_the_bits_of_one_block(name, block, rng, backend, dtype):
    w, drawn = rng.standard_normal(SIZE), gradients(rng)
    whole, blocks = Setup(backend, name, w, dtype), Setup(backend, name, w, dtype, block=block)
    for gradient in drawn:
        whole.step(gradient)
        blocks.step(gradient)
    np.testing.assert_array_equal(blocks.value, whole.value)
    for a, b in zip(blocks.moments, whole.moments, strict=True):
        np.testing.assert_array_equal(backend.to_numpy(a), backend.to_numpy(b))


def test_a_zero_gradient_changes_nothing_at_first(name, rng, backend, dtype):
    w = rng.standard_normal(SIZE)
    setup = Setup(backend, name, w, dtype)
    setup.step(np.zeros(SIZE))
    np.testing.assert_array_equal(setup.value, w.astype(dtype))


DECAYING = sorted(name for name in HYPER if RULES[name].moments and name != "adagrad")  # whose moments do


def decayed(setup, gradient, steps):
    """Return the moments' bytes after each of these steps, none of which may leave a denormal."""
    found = []
    for number in range(steps):
        setup.step(gradient)
        moments = [np.array(setup.backend.to_numpy(moment)) for moment in setup.moments]
        assert [denormals.count(moment) for moment in moments] == [0] * len(moments), f"step {number}"
        found.append([moment.tobytes() for moment in moments])
    return found


@pytest.mark.parametrize("name", DECAYING, indirect=True)
@pytest.mark.parametrize("gradient", denormals.GRADIENTS)
@pytest.mark.corner(backend=combinations.WITH_KERNELS)
def test_moments_are_never_denormal_and_have_the_references_bits(gradient, name, backend, dtype):
    """A weight whose gradient has become 0 has moments that decay. The reference's denormals are 0 as the device's."""
    start = denormals.small(dtype)
    dw = denormals.GRADIENTS[gradient](start)
    found = []
    for each in (backend, get_backend("cpu")):
        setup = Setup(each, name, np.ones(start.size), dtype)
        for moment, kind in zip(setup.moments, RULES[name].moments, strict=True):
            moment[...] = each.asarray(abs(start) if kind in ("v", "cache") else start)
        if each is not backend:
            setup.update = RULES[name].update.reference
        with denormals.flushed(each is not backend and denormals.flushes(backend, dtype)):
            found.append(decayed(setup, dw, 60))
        if gradient == "zero":
            assert not any(np.any(each.to_numpy(moment)) for moment in setup.moments), "all have decayed to 0"
    assert found[0] == found[1]


@pytest.mark.parametrize("name", DECAYING, indirect=True)
def test_what_is_not_finite_stays_so(name, backend, dtype):
    setup = Setup(backend, name, np.ones(3), dtype)
    for moment in setup.moments:
        moment[...] = backend.asarray(np.array([np.nan, np.inf, 1e-30], dtype))
    with np.errstate(invalid="ignore"):
        setup.step(np.zeros(3))
    for moment in setup.moments:
        value = backend.to_numpy(moment)
        assert np.isnan(value[0])
        assert value[1] == np.inf
        assert value[2] > 0


SQUARING = ["adagrad", "adam", "rmsprop"]


@pytest.mark.parametrize("name", SQUARING, indirect=True)
@pytest.mark.corner(backend=combinations.WITH_KERNELS)
def test_gradients_whose_squares_overflow_move_weights_as_smaller_ones_do(name, backend, dtype):
    """The size of a constant gradient does not matter to these rules; PyTorch's and optax's stop for good."""
    largest = float(np.finfo(dtype).max)
    w, sizes = np.linspace(-1, 1, 6), np.array([largest, -largest, largest / 3, -(largest**0.75), largest**0.6, 1e12])
    setup, reference = Setup(backend, name, w, dtype), Setup(get_backend("cpu"), name, w, dtype)
    reference.update = RULES[name].update.reference
    for _ in range(5):
        setup.step(sizes)
        reference.step(sizes)
    expected = oracles.RULES[name].after(w, [np.sign(sizes) * 1e12] * 5, learning_rate=RATE, **HYPER[name])
    assert_close(setup.value, expected, dtype, "update")
    for got, want in zip([setup.w, *setup.moments], [reference.w, *reference.moments], strict=True):
        got, want = backend.to_numpy(got), np.asarray(want)
        assert np.all(np.isfinite(got))
        assert_close(got, want.astype(np.float64), dtype, "elementwise")


@pytest.mark.parametrize("name", SQUARING, indirect=True)
@pytest.mark.parametrize("beside", [1.0, 1e30])
@pytest.mark.corner(backend=combinations.WITH_KERNELS)
def test_a_gradient_that_is_not_finite_shows_in_its_weight(beside, name, backend, dtype):
    setup = Setup(backend, name, np.ones(4), dtype)
    with np.errstate(invalid="ignore"):
        setup.step([np.inf, -np.inf, np.nan, beside])
    assert np.isfinite(setup.value).tolist() == [False, False, False, True]


def test_it_minimises_a_quadratic(name, backend, dtype):
    target = np.linspace(-2, 2, 9)
    hyper = {key: value for key, value in RULES[name].defaults.items() if key != "learning_rate"}
    rate = 0.5 if name == "adagrad" else 0.02  # whose steps only ever shrink
    setup = Setup(backend, name, np.zeros(9), dtype, rate=rate, hyper=hyper)
    for _ in range(500):
        setup.step(setup.value - target)
    np.testing.assert_allclose(setup.value, target, atol=0.05)


def test_adams_epsilon_is_added_to_the_corrected_root(backend):
    """Gradients of eps itself, where the variants differ visibly.

    At the first step m̂ = g and sqrt(v̂) = |g|, so with g = eps w falls by η g / (g + eps) = η / 2. With eps added
    to the raw sqrt(v) = 0.0316 g it would fall by η * 0.0316 g / (0.0316 g + eps) = 0.031 η.
    """
    setup = Setup(backend, "adam", [0.0, 0.0], "float64", rate=1.0, hyper={"epsilon": 1e-8})
    setup.step([1e-8, -3e-8])
    np.testing.assert_allclose(setup.value, [-0.5, 0.75], rtol=1e-9)


def test_adams_step_counts_from_zero_and_far(backend, dtype):
    """1 - beta2**t at t = 1 is 0.001 to full precision, also in float32 networks; at t = 10**9 it is 1."""
    setup = Setup(backend, "adam", [0.0], dtype, rate=1.0, hyper={})
    setup.step([0.5])
    np.testing.assert_allclose(setup.value, [-1.0], rtol=2e-6 if dtype == "float32" else 1e-7)
    late = Setup(backend, "adam", [0.0], dtype, rate=1.0, hyper={})
    late.step([0.5], step=10**9)
    np.testing.assert_allclose(late.value, [-0.1 / 0.001**0.5], rtol=1e-5)


def test_moments_and_constants_are_read_from_the_signature():
    adam = RULES["adam"]
    assert (adam.moments, adam.counts) == (("m", "v"), True)
    assert adam.defaults == {"learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}
    assert list(adam.defaults) == ["learning_rate", "beta1", "beta2", "epsilon"]
    assert (RULES["sgd"].moments, RULES["sgd"].counts) == ((), False)


def test_it_is_torchs(name, rng, backend, dtype):
    torch = pytest.importorskip("torch")
    w, drawn = rng.standard_normal(SIZE).astype(np.float32), gradients(rng)
    tensor = torch.tensor(w, dtype=torch.float64, requires_grad=True)
    optimizer = oracles.RULES[name].torch
    if optimizer is None:
        pytest.skip(f"PyTorch has no {name}")
    optimizer, setup = optimizer(torch.optim, [tensor], RATE, **HYPER[name]), Setup(backend, name, w, dtype)
    for gradient in drawn:
        tensor.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        setup.step(gradient)
    assert_close(setup.value, tensor.detach().numpy(), dtype, "update")
