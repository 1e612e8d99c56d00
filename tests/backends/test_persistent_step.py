"""Small nets whose step is a launch of the persistent kernel: which do, and that they train as on the CPU.

On the stand-in for CuPy, whose kernels are the CUDA source.
"""

from __future__ import annotations

import copy
import sys

import numpy as np
import pytest

import fcnet
from fcnet.backends.cuda import graph, persistent_step
from fcnet.backends.cuda.persistent_step import PersistentStep
from fcnet.backends.cuda.recognize import Unfit, read
from fcnet.backends.cupy_backend import CupyBackend
from fcnet.backends.device import Call, CallSequence
from fcnet.optim import RULES
from tests.backends.cuda_fake import fake_backend, fake_cublas, fake_cupy
from tests.small import blobs


@pytest.fixture
def cupy(monkeypatch):
    module = fake_cupy(processors=8)
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setattr(persistent_step, "THREADS", 64)
    return module


@pytest.fixture
def device(cupy, monkeypatch):
    return fake_backend(cupy, fake_cublas(cupy), monkeypatch)


def arrays_of(data, change=lambda X: X):
    xs = {f"X_{part}": change(X) for part, (X, _) in data.splits().items()}
    return xs | {f"y_{part}": y for part, (_, y) in data.splits().items()}


def of_bytes(data):
    arrays = arrays_of(data, lambda X: (X * 20 + 128).clip(0, 255).astype("uint8"))
    return fcnet.data.Dataset(**arrays, preprocess="standardize")


FEW = blobs(n=24, dtype="float32")
LINEAR = {"hidden": [], "data": FEW}
PLAIN = {"hidden": [5], "data": FEW}
NORMED = {
    "hidden": [6, 5], "data": blobs(n=37, dtype="float32"),  # a lone last sample joins the third batch
    "normalization": "batchnorm", "dropout_keep_ratio": 0.7,
}  # fmt: skip


def solver(device, net, rule="adam", **options):
    net = dict(net)
    data, hidden = net.pop("data"), net.pop("hidden")
    model = fcnet.FullyConnectedNet(hidden, data.input_dim, data.num_classes, device=device, **net)
    options = {"optim_config": {"learning_rate": 0.01}, "batch_size": 12, "verbose": False, **options}
    return fcnet.Solver(model, data, update_rule=rule, **options)


def linear(device, **options):
    return solver(device, LINEAR, "sgd", **{"batch_size": 4} | options)


def state(one):
    arrays = [one.model.params.flat, one.model.state.flat, *(moment.flat for moment in one.optimizer.moments.values())]
    return [one.loss_history, *(np.array(array).tobytes() for array in arrays), one.optimizer.step_counter.tolist()]


def assert_near(there, here):
    np.testing.assert_allclose(there.loss_history, here.loss_history, rtol=1e-4)
    np.testing.assert_allclose(np.array(there.model.params.flat), here.model.params.flat, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(np.array(there.model.state.flat), here.model.state.flat, rtol=1e-4, atol=1e-6)


def launches(cupy):
    """Return the steps of each launch of the kernel so far."""
    return [int(entry[-1][3]) for entry in cupy.fake.log if entry[:2] == ("launch", "train_steps")]


BY_RULE_AND_OPTION = [
    (LINEAR, "sgd", {"schedule": "cosine", "schedule_config": {"per": "step"}, "batch_size": 4}),
    (LINEAR | {"data": blobs(n=28)}, "momentum", {"lr_decay": 0.5, "clip_value": 0.05}),  # a short last batch
    (PLAIN | {"dropout_keep_ratio": 0.8}, "nesterov", {"weight_decay": 0.3}),
    (LINEAR | {"data": of_bytes(FEW)}, "adagrad", {"schedule": lambda step: 1 / (1 + step)}),
    (PLAIN | {"normalization": "batchnorm"}, "rmsprop", {}),
    (NORMED, "adam", {"lr_decay": 0.5}),
    (
        PLAIN | {"data": blobs(n=28)},
        "adamw",
        {"lr_multipliers": {1: 0.1, 2: 3.0}, "weight_decay": 0.3, "lr_decay": 0.5},
    ),
]
TRIED = {rule for _, rule, _ in BY_RULE_AND_OPTION}


class TestTrainsAsOnTheCpu:
    @pytest.mark.parametrize(
        ("net", "rule", "options"),
        [*BY_RULE_AND_OPTION, *((LINEAR, rule, {"batch_size": 4}) for rule in RULES if rule not in TRIED)],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_by_each_rule_and_option(self, net, rule, options, device, cupy):
        there, here = (solver(where, net, rule, **options) for where in (device, "cpu"))
        there.step(7), here.step(7)
        assert {type(program) for program in there._compiled_steps.values()} == {PersistentStep}
        assert len(there._compiled_steps) == (2 if len(net["data"].X_train) % 12 else 1)
        assert sum(launches(cupy)) == 7
        assert max(launches(cupy)) > 1
        assert there.optimizer.learning_rate == here.optimizer.learning_rate
        assert_near(there, here)

    def test_a_shorter_batch_is_made_by_the_same_kernel(self, device):
        """Whichever of them is recorded first, so that a training that is resumed in between has the same bits."""
        there, here = solver(device, PLAIN, batch_size=10), solver("cpu", PLAIN, batch_size=10)
        for _ in range(6):
            there.step(), here.step()
        assert sorted(there._compiled_steps) == [4, 10]
        assert {step.plan.rows for step in there._compiled_steps.values()} == {10}
        np.testing.assert_allclose(there.loss_history, here.loss_history, rtol=1e-4)

    def test_the_precision_tf32_is_no_less_than_asked_for(self, device):
        one, other = solver(device, LINEAR | {"precision": "tf32"}, "sgd", batch_size=4), linear(device)
        one.step(3), other.step(3)
        assert state(one) == state(other)

    def test_a_rate_set_by_hand_and_a_penalty_set_by_hand(self, device, cupy):
        there, here = linear(device), linear("cpu")
        for one in (there, here):
            one.step(2)
            one.optimizer.learning_rate = 0.5
            one.step(3)
            (program,) = one._compiled_steps.values()
            one.model.reg = 0.1
            one.step(3)
            assert program not in one._compiled_steps.values()
        assert there.history == here.history
        assert_near(there, here)


class TestManySteps:
    def test_are_single_steps_bit_for_bit(self, device, cupy):
        one, other = solver(device, NORMED), solver(device, NORMED)
        one.step(7)
        for _ in range(7):
            other.step()
        assert state(one) == state(other)
        assert launches(cupy) == [1, 1, 1, 2, 1, 1] + 7 * [1]  # 12, 12 and 13 rows an epoch; the first of a kind alone

    def test_of_a_training_are_those_by_hand(self, device, cupy):
        one, other = (linear(device, num_epochs=2, schedule=lambda step: 1 / (1 + step)) for _ in range(2))
        one.train()
        assert launches(cupy) == [1, 5, 6]
        other.step(12)
        assert one.loss_history == other.loss_history
        assert one.optimizer.learning_rate == other.optimizer.learning_rate == 0.01 * (1 / 12)
        assert (one.steps, one.epoch) == (other.steps, other.epoch) == (12, 2)
        assert [row["learning_rate"] for row in one.history] == [0.01 * (1 / 6), 0.01 * (1 / 12)]

    @pytest.mark.parametrize("net", [LINEAR, PLAIN])
    def test_have_a_rate_each(self, net, device):
        options = {"schedule": lambda step: 1 / (1 + step), "lr_multipliers": {1: 0.5}}
        one, other, here = (solver(where, net, **options, batch_size=4) for where in (device, device, "cpu"))
        one.step(8), here.step(8)
        for _ in range(8):
            other.step()
        assert state(one) == state(other)
        assert_near(one, here)

    def test_end_where_the_log_of_losses_ends(self, device, cupy, monkeypatch):
        monkeypatch.setattr("fcnet.training.solver.LOSS_CHUNK", 3)
        one, other = linear(device), linear("cpu")
        one.step(6), other.step(6)
        assert launches(cupy) == [1, 2, 3]
        assert_near(one, other)


class TestFirstStep:
    @pytest.mark.parametrize("made", [0, 2])
    def test_gives_the_bits_of_one_in_the_middle(self, made, device, cupy):
        """It is made again by the kernel, from where it began."""
        one, other = solver(device, NORMED), solver(device, NORMED)
        one.step(), other.step()
        for _ in range(made):
            one.step(), other.step()
        one._compiled_steps.clear()
        cupy.fake.log.clear()
        one.step()
        assert cupy.fake.log[-1][1] == "train_steps"
        other.step()
        assert state(one) == state(other)

    def test_of_a_copy_goes_on_as_the_original(self, device):
        one = solver(device, NORMED)
        one.step(2)
        other = copy.deepcopy(one, {id(device): device})
        one.step(4), other.step(4)
        assert state(one) == state(other)
        assert one.__getstate__()["_compiled_steps"] == {}  # a pickle has no recorded step either


class TestDiverging:
    def trained(self, device, start, then):
        """Return a training whose rate is set after its first epoch, where its loss is best."""
        one = linear(device, num_epochs=3, optim_config={"learning_rate": start})
        if then:
            one.after_epoch = lambda: setattr(one.optimizer, "learning_rate", then)
        with np.errstate(all="ignore"), pytest.raises(fcnet.DivergedError) as caught:
            one.train()
        return one, str(caught.value)

    @pytest.mark.parametrize(("start", "then", "step"), [(3e38, None, 2), (0.01, 3e38, 8)])
    def test_names_the_step_and_puts_the_best_parameters_back(self, start, then, step, device, cupy):
        (there, said), (here, expected) = (self.trained(where, start, then) for where in (device, "cpu"))
        assert said == expected
        assert f"at step {step}: training diverged with learning_rate=3e+38" in said
        assert max(launches(cupy)) > 4  # of which one step is the first that is not finite
        assert there.steps == here.steps
        kept = np.array(there.model.params.flat)
        np.testing.assert_allclose(kept, here.model.params.flat, rtol=1e-4, atol=1e-6)
        assert np.isfinite(kept).all()
        assert np.isfinite(there.loss_history[: step - 1]).all()
        assert np.isnan(there.loss_history[step:]).all()


class TestWhoTakesIt:
    @pytest.fixture
    def graphs(self, monkeypatch):
        """Return the calls that graphs were made of, which are made in turn instead."""
        made = []
        monkeypatch.setattr(graph, "compile", lambda _, calls, ways: made.append(calls) or CallSequence(calls))
        return made

    @pytest.mark.parametrize(
        ("net", "options", "why"),
        [
            ({"precision": "bf16"}, {}, "its products are in bf16"),
            ({}, {"clip_norm": 1.0}, "clip_by_norm is not among"),
            ({}, {"max_norm": 1.0}, "max_norm is not among"),
        ],
        ids=lambda value: next(iter(value), "") if isinstance(value, dict) else "",
    )
    def test_others_are_graphs_and_the_device_says_why(self, net, options, why, device, graphs):
        one = solver(device, PLAIN | net, **options)
        one.step()
        assert device.not_persistent.startswith(why)
        assert len(graphs) == 1
        step = one._compiled_steps[12]
        assert type(getattr(step, "step", step)) is CallSequence  # in bf16 after calls that prepare it
        assert one.steps == len(one.loss_history) == 1

    def test_streamed_data(self, device, cupy, graphs):
        cupy.fake.free = -(1 << 20)
        one = solver(device, PLAIN)
        assert one._parts.train.streamed
        one.step(3)
        assert device.not_persistent == "its batches are not gathered from data on the device"
        assert len(graphs) == 1

    @pytest.mark.parametrize(
        ("properties", "why"),
        [
            ({"cooperativeLaunch": 0}, "the device has no cooperative launches"),
            ({"multiProcessorCount": 1}, "it is too large for the 1 blocks that the device keeps resident"),
            ({"sharedMemPerBlockOptin": 4096}, "it is too large for the 8 blocks that the device keeps resident"),
        ],
    )
    def test_devices_that_cannot(self, properties, why, device, cupy, graphs, monkeypatch):
        known = cupy.cuda.runtime.getDeviceProperties(0)
        monkeypatch.setattr(cupy.cuda.runtime, "getDeviceProperties", lambda index: known | properties)
        linear(device).step()
        assert device.not_persistent == why
        assert len(graphs) == 1

    def test_what_a_large_net_changes_is_not_copied(self, device, graphs, monkeypatch):
        monkeypatch.setattr("fcnet.backends.cupy_backend.SNAPSHOT", 100)
        linear(device).step()
        assert device.not_persistent == "what a step changes is too large to be put back"
        assert len(graphs) == 1

    def test_an_old_device(self, device, cupy, graphs, monkeypatch):
        monkeypatch.setattr("fcnet.backends.cuda.persistent_step.OLDEST", 91)
        linear(device).step()
        assert device.not_persistent == "its compute capability is below 9.1: blocks cannot await each other"
        assert len(graphs) == 1

    def test_a_device_of_which_others_have_a_share(self, device, cupy, graphs):
        cupy.fake.resident = 0
        linear(device).step()
        assert device.not_persistent.startswith("the device keeps 0 of the ")
        assert len(graphs) == 1

    def test_what_a_library_refuses_is_warned_of(self, device, graphs, monkeypatch):
        def refused(*_):
            raise RuntimeError("no room for a kernel")

        monkeypatch.setattr("fcnet.backends.cupy_backend.PersistentStep", refused)
        with pytest.warns(RuntimeWarning, match="not made by one kernel, and so is slower: RuntimeError: no room"):
            linear(device).step()
        assert len(graphs) == 1

    @pytest.mark.parametrize(
        ("change", "why"),
        [
            (lambda calls: altered(calls, "sgd", w=np.zeros(3)), "it computes in float64, and the kernel in float32"),
            (lambda calls: [*calls, calls[0]], "next_batch is not among what the kernel does"),
            (lambda calls: calls[:-1], "the end is not among what the kernel does"),
            (lambda calls: calls[1:], "its batches are not gathered from data on the device"),
            (lambda calls: [c for c in calls if c.name != "advance"], "no call counts the updates"),
            (
                lambda calls: altered(calls, "next_batch", y=np.zeros((24, 1))),
                "its data are float32 .* targets float64",
            ),
            (
                lambda calls: altered(calls, "next_batch", shift=np.zeros(6)),
                "its batches are not preprocessed as float",
            ),
            (lambda calls: altered(calls, "softmax_loss", y=np.zeros(4)), "its batches come from elsewhere"),
            (lambda calls: altered(calls, "affine_backward", need_dx=True), "some of its layers are frozen"),
            (lambda calls: cut(calls, "sgd", slice(18), slice(100, None)), "some of its parameters are not updated"),
            (lambda calls: cut(calls, "decay_weights", slice(18)), "the decay is not of all layers"),
            (lambda calls: cut(calls, "sgd", slice(64), slice(64, None)), "its learning rates come from elsewhere"),
        ],
    )
    def test_calls_that_are_other_than_they_seem(self, change, why, device, cupy, monkeypatch):
        given = []
        monkeypatch.setattr(CupyBackend, "_persistent", lambda self, calls, *_: given.extend(calls))
        monkeypatch.setattr(graph, "compile", lambda *_: CallSequence([]))
        linear(device, weight_decay=0.1).step()
        assert read(given, cupy.ndarray).widths == (6, 3)
        with pytest.raises(Unfit, match=why):
            read(change(given), cupy.ndarray)


def cut(calls, name, *parts):
    """Return the calls, in place of one of them several, of parts of its array w."""
    at = next(i for i, call in enumerate(calls) if call.name == name)
    w = calls[at].arguments["w"]
    return [*calls[:at], *(altered(calls[at : at + 1], name, w=w[part])[0] for part in parts), *calls[at + 1 :]]


def altered(calls, name, **arguments):
    """Return the calls, one of them with other arguments."""
    changed = []
    for call in calls:
        if call.name == name:
            given, call = call.arguments, Call(call.func)  # a copy would share its attributes
            call.name, call.arguments = name, given | arguments
        changed.append(call)
    return changed
