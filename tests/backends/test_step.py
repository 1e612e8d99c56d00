"""Programs: recording a step and repeating it is making its calls one by one."""

import dataclasses
import sys

import numpy as np
import pytest

import fcnet
from fcnet import functional as F
from fcnet.backends import array_module, backend_of, checked
from fcnet.backends.step import StepRecorder, direct
from fcnet.optim import RULES, Optimizer
from tests.guard import shares_memory
from tests.small import blobs, solver

N, D, C = 6, 5, 3
MODELS = [
    {"normalization": normalization, "dropout_keep_ratio": keep, "reg": reg}
    for normalization in (None, "batchnorm", "layernorm")
    for keep, reg in ((1.0, 0.1), (0.6, 0.0))
]


@pytest.fixture(params=MODELS, ids=lambda m: f"{m['normalization']} {m['dropout_keep_ratio']}")
def options(request):
    return request.param


class Step:
    """A training step of a small network, on buffers that are refilled between steps."""

    def __init__(self, backend, options):
        self.backend = backend
        self.model = fcnet.FullyConnectedNet([7, 4], D, C, seed=2, dtype="float64", device=backend, **options)
        self.optimizer = Optimizer("adam", self.model.params)
        self.grads = self.model.params.like()
        self.x = backend.xp.zeros((N, D), dtype="float64")
        self.y = backend.xp.zeros((N,), dtype="int64")

    def fill(self, number):
        rng = np.random.default_rng(number)
        self.backend.upload(rng.standard_normal((N, D)), self.x)
        self.backend.upload(rng.integers(C, size=N), self.y)

    def make(self, run):
        streams = self.model.mask_streams(self.optimizer.step_counter)
        loss = self.model.loss_and_grads(run, self.x, self.y, streams, self.grads)
        self.optimizer.update(self.grads, run)
        return loss


def test_repeating_is_calling_again(options, backend, host):
    recorded, plain = Step(backend, options), Step(backend, options)
    recorder = StepRecorder(backend)
    for number in range(5):
        recorded.fill(number)
        plain.fill(number)
        if number == 0:
            loss = recorded.make(recorder)
        else:
            recorder.repeat()
        expected = plain.make(direct)
        np.testing.assert_array_equal(host(loss), host(expected), err_msg=f"loss of step {number}")
        np.testing.assert_array_equal(host(recorded.grads.flat), host(plain.grads.flat))
        np.testing.assert_array_equal(host(recorded.model.params.flat), host(plain.model.params.flat))
        np.testing.assert_array_equal(host(recorded.model.state.flat), host(plain.model.state.flat))


class Spy(StepRecorder):
    """A recorder that keeps what each call returned, at first and when repeated."""

    def __init__(self, backend):
        super().__init__(backend)
        self.first, self.later = [], []

    def __call__(self, function, *args, **kwargs):
        result = super().__call__(function, *args, **kwargs)
        self.first.append(result)
        return result

    def repeat(self):
        self.later = [call() for call in self.calls]


def arrays(result):
    """Every array in what a function returned, caches included."""
    if isinstance(result, tuple):
        for part in result:
            yield from arrays(part)
    elif not (result is None or np.isscalar(result)):
        yield result


def test_every_repeated_call_returns_the_first_times_arrays(options, backend):
    step, recorder = Step(backend, options), Spy(backend)
    step.fill(0)
    step.make(recorder)
    recorder.repeat()
    assert len(recorder.later) == len(recorder.first) == len(recorder.calls) > 8
    compared = 0
    for first, later in zip(recorder.first, recorder.later, strict=True):
        for a, b in zip(arrays(first), arrays(later), strict=True):
            assert a.shape == b.shape
            assert shares_memory(a, b)
            compared += 1
    assert compared > 20


def test_recorders_of_one_network_do_not_disturb_each_other(backend, host):
    """One for each batch size, in turn, as the solver has them."""
    model = fcnet.FullyConnectedNet([7], D, C, dtype="float64", normalization="batchnorm", device=backend)
    grads, rng = model.params.like(), np.random.default_rng(0)
    recorders = []
    for size in (6, 4):
        x, y = (backend.asarray(v) for v in (rng.standard_normal((size, D)), rng.integers(C, size=size)))
        recorder = StepRecorder(backend)
        loss = model.loss_and_grads(recorder, x, y, [None], grads)
        recorders.append((recorder, host(loss), host(grads.flat), loss))
    for recorder, expected_loss, expected_grads, loss in recorders * 2:
        recorder.repeat()
        np.testing.assert_array_equal(host(loss), expected_loss)
        np.testing.assert_array_equal(host(grads.flat), expected_grads)


def test_scratch_is_shared_by_slot_and_dtype(backend, device):
    recorder = StepRecorder(backend)
    large = recorder.scratch(1, device(np.ones((4, 5))))
    assert (large.shape, large.dtype) == ((4, 5), np.float64)
    small = recorder.scratch(1, device(np.ones((2, 3))))
    assert small.shape == (2, 3)
    assert shares_memory(small, large)
    assert not shares_memory(recorder.scratch(0, device(np.ones((2, 3)))), large)
    assert not shares_memory(recorder.scratch(1, device(np.ones((2, 3)), "float32")), large)
    assert recorder.scratch(1, device(np.ones((9, 9)))).shape == (9, 9)
    assert small.flags.c_contiguous


def test_direct_has_no_scratch_and_just_calls(device, host):
    assert direct.scratch(0, device(np.ones(3))) is None
    out, _ = direct(F.relu_forward, device([-1.0, 2.0]))
    np.testing.assert_array_equal(host(out), [0, 2])


def test_a_program_checks_and_chooses_once(backend, device):
    seen, made = [], []

    @checked("out", check=lambda *_, **__: seen.append(1))
    def doubled(backend, x, *, out=None):
        made.append(1)
        return backend.xp.add(x, x, out=out)

    recorder = StepRecorder(backend)
    first = recorder(doubled, device([1.0]))
    for _ in range(3):
        recorder.repeat()
    assert (len(seen), len(made)) == (1, 4)
    assert recorder.calls[0]() is first


def test_given_outputs_stay_and_missing_results_are_not_given_back(backend, device, xp):
    x, w, b = device(np.ones((4, 5))), device(np.ones((5, 3))), device(np.ones(3))
    dw = xp.zeros((5, 3))
    recorder = StepRecorder(backend)
    out, cache = recorder(F.affine_forward, x, w, b)
    dx, got_dw, db = recorder(F.affine_backward, out, cache, need_dx=False, dw=dw)
    assert dx is None
    assert got_dw is dw
    again = recorder.calls[1]()
    assert again[0] is None
    assert again[1] is dw
    assert again[2] is db


def test_functions_that_are_no_ops_are_repeated_with_their_arguments(backend):
    seen, recorder = [], StepRecorder(backend)
    assert recorder(lambda value, other: seen.append((value, other)) or "result", 1, other=2) == "result"
    recorder.repeat()
    assert seen == [(1, 2)] * 2


def test_a_call_has_the_functions_name_and_its_arguments_by_name(backend, device):
    x, w, b = device(np.ones((4, 5))), device(np.ones((5, 3))), device(np.ones(3))
    recorder = StepRecorder(backend)
    out, _ = recorder(F.affine_forward, x, w, b=b)
    (call,) = recorder.calls
    assert call.name == "affine_forward"
    assert list(call.arguments) == ["x", "w", "b", "out", "precision"]
    assert call.arguments["b"] is b
    assert call.arguments["out"] is out
    assert call.arguments["precision"] is None
    assert call.outputs == {"out"}


EVERY_FUNCTION = [
    {"activation": name, "normalization": norm, "dropout_keep_ratio": 0.8, "reg": 0.1, "reg_l1": 0.1}
    for name, norm in zip([*F.ACTIVATIONS], [None, "batchnorm", "layernorm"] * 3, strict=False)
]
EVERY_FUNCTION += [{"loss": loss} for loss in F.LOSSES] + [{"label_smoothing": 0.1}, {"dropout": "plain"}]
LIMITS = {"clip_value": 1.0, "clip_norm": 1.0, "max_norm": 3.0, "weight_decay": 0.1}


@pytest.mark.parametrize("kernels", ["references_only", "cpu_kernels"])
def test_a_repeated_step_asks_no_array_for_its_device(kernels, request):
    """All that depends on the device is settled while a step is recorded."""
    request.getfixturevalue(kernels)
    asked = []

    def watch(frame, event, _):
        if event == "call" and frame.f_code in (backend_of.__code__, array_module.__code__):
            asked.append(frame.f_back.f_code.co_name)

    for number, options in enumerate(EVERY_FUNCTION):
        data = blobs(n=20, dtype="float32")
        if options.get("loss") in F.NUMERIC:
            data = dataclasses.replace(data, **{y: np.eye(3)[getattr(data, y)] for y in ("y_train", "y_val", "y_test")})
        how = LIMITS if options.get("reg_l1") else {"update_rule": [*RULES][number % len(RULES)]}
        one = solver(data, batch_size=10, net_options=options, **how)
        one.step(2)
        sys.setprofile(watch)
        try:
            one.step()
        finally:
            sys.setprofile(None)
        assert asked == [], options
