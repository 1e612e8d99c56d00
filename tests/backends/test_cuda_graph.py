"""Steps as graphs: the Python of it, on a stand-in; on a GPU, the real thing."""

from __future__ import annotations

import contextlib
import gc
import itertools
import sys

import numpy as np
import pytest

import fcnet
from fcnet import functional as F
from fcnet.backends.cuda import graph
from fcnet.backends.cuda.checksum import Checksums
from fcnet.backends.cuda.graph import Captured
from fcnet.backends.cuda.persistent_step import PersistentStep
from fcnet.backends.cupy_backend import CupyBackend
from fcnet.backends.device import Call, CallSequence
from tests.backends.cuda_fake import fake_backend, fake_cublas, fake_cupy
from tests.small import blobs


@pytest.fixture
def cupy(monkeypatch):
    module = fake_cupy()
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


@pytest.fixture
def cublas(cupy):
    return fake_cublas(cupy)


@pytest.fixture
def device(cupy, cublas, monkeypatch):
    return fake_backend(cupy, cublas, monkeypatch)


BATCH = 16  # of the 34 rows below: two whole batches, and one of two rows
NETS = [
    {},
    {"normalization": "batchnorm", "dropout_keep_ratio": 0.7},
    {"normalization": "layernorm", "reg": 0.1},
    {"loss": "svm", "dtype": "float64"},
]


class TestSteps:
    def solver(self, device, options, rule="adam", dtype="float64"):
        net = fcnet.FullyConnectedNet([12, 8], input_dim=6, num_classes=3, device=device, **options)
        config = {"learning_rate": 1e-2}
        return fcnet.Solver(
            net, blobs(34, dtype=dtype), update_rule=rule, optim_config=config, batch_size=BATCH, verbose=False
        )

    @pytest.mark.parametrize(
        ("options", "rule"), list(zip(NETS, ("adam", "momentum", "rmsprop", "sgd"), strict=True)), ids=str
    )
    def test_a_step_is_one_launch_and_trains_as_on_the_cpu(self, options, rule, device, cupy):
        there, here = self.solver(device, options, rule), self.solver("cpu", options, rule)
        there.step()
        cupy.fake.log.clear()
        there.step()
        assert [entry[0] for entry in cupy.fake.log] == ["graph"]
        here.step(), here.step()
        for _ in range(4):
            there.step(), here.step()
        assert len(there._compiled_steps) == 2  # a short last batch has its own
        assert all(isinstance(program, Captured) for program in there._compiled_steps.values())
        np.testing.assert_allclose(there.loss_history, here.loss_history, rtol=1e-4)

    @pytest.mark.parametrize(("precision", "compute"), [("tf32", 77), ("bf16", 68)])
    def test_every_product_of_a_step_and_of_evaluation_is_of_the_precision(self, precision, compute, device, cublas):
        there = self.solver(device, NETS[1] | {"precision": precision})
        here = self.solver("cpu", NETS[1])
        there.step(), here.step()
        there.model.scores(blobs().X_val)
        operands, computes = ({call[i] for call in cublas.log if call[0] == "gemm" and call[4] > 1} for i in (9, 18))
        assert (operands, computes) == ({14 if precision == "bf16" else 0}, {compute})
        for _ in range(5):
            there.step(), here.step()
        programs = [getattr(program, "step", program) for program in there._compiled_steps.values()]
        assert all(isinstance(program, Captured) for program in programs)
        np.testing.assert_allclose(there.loss_history, here.loss_history, rtol=0.05)
        assert there.loss_history != here.loss_history

    @pytest.mark.parametrize("room", [1 << 30, 20_000, 0])
    def test_capturing_leaves_everything_as_it_was(self, room, device, cupy, monkeypatch):
        captured = self.solver(device, NETS[1])
        cupy.fake.free = room  # of which a quarter may be taken for copies
        fetched = []
        fetch = cupy.asnumpy
        monkeypatch.setattr(cupy, "asnumpy", lambda array: fetched.append(array) or fetch(array))
        captured.step()
        sums = [array for array in fetched if array.dtype == np.uint64]  # of all arrays: the calls', and the graph's
        assert len(sums) == 2
        copied, all_arrays = len(fetched) - len(sums), len(sums[0])
        assert {1 << 30: copied == 0, 20_000: 0 < copied < all_arrays, 0: copied == all_arrays}[room]
        monkeypatch.setattr(CupyBackend, "compile", lambda self, calls, *_: CallSequence(calls))
        plain = self.solver(device, NETS[1])
        plain.step()
        np.testing.assert_array_equal(np.array(captured.model.params.flat), np.array(plain.model.params.flat))
        np.testing.assert_array_equal(np.array(captured.model.state.flat), np.array(plain.model.state.flat))
        for _ in range(4):
            captured.step(), plain.step()
        assert captured.loss_history == plain.loss_history


class TestSideBySide:
    """The two products of a layer's gradients, on two streams."""

    def test_each_has_a_handle_and_a_workspace(self, device, cublas):
        one = TestSteps().solver(device, NETS[1])
        cublas.log.clear()
        one.step()
        own, beside = device._own_gemm(), device._local.side_stream_made.gemm
        assert own._workspace.data.ptr != beside._workspace.data.ptr
        handles = [call[1] for call in cublas.log if call[0] == "gemm" and call[4] > 1]  # not the first one of a handle
        # Captured once on two streams: of the second layer. The first needs no dx, the output layer no cuBLAS.
        assert handles.count(beside._handle) == 1
        assert {id(h) for h in handles} == {id(own._handle), id(beside._handle)}

    def test_work_that_is_not_waited_for_is_refused(self, device, cupy, monkeypatch):
        """By CUDA; then a graph of one stream will do."""
        wait = cupy.cuda.Stream.wait_event
        monkeypatch.setattr(
            cupy.cuda.Stream, "wait_event", lambda self, event: None if self.taken is not None else wait(self, event)
        )
        made = []
        end = cupy.cuda.Stream.end_capture
        monkeypatch.setattr(cupy.cuda.Stream, "end_capture", lambda self: made.append(1) or end(self))
        one = TestSteps().solver(device, NETS[0])
        one.step()
        assert made == [1, 1]
        assert all(isinstance(program, Captured) for program in one._compiled_steps.values())

    @pytest.mark.parametrize(("seconds", "way"), [((1, 2), "two streams"), ((2, 1), "one stream")])
    def test_the_faster_way_is_taken_and_told(self, seconds, way, device, monkeypatch):
        taken = iter(seconds)
        monkeypatch.setattr(graph, "_seconds", lambda *_: next(taken))
        one = TestSteps().solver(device, NETS[0])
        one.step()
        (program,) = one._compiled_steps.values()
        assert (program.strategy, program.rejected) == (way, {})
        assert way in program.description

    def test_nothing_is_compiled_in_a_capture(self, device, cupy, monkeypatch):
        module = cupy.RawModule

        def compiled(**source):
            assert cupy.fake.streams[-1].taken is None
            return module(**source)

        monkeypatch.setattr(cupy, "RawModule", compiled)
        one = TestSteps().solver(device, NETS[1] | {"precision": "bf16"})
        one.step()
        (program,) = one._compiled_steps.values()
        assert program.step.rejected == {}

    def test_eager_calls_are_made_in_turn(self, device):
        done = []
        device.run_concurrently(lambda: done.append(1), lambda: done.append(2))
        assert done == [1, 2]

    def test_a_failure_leaves_this_threads_products_alone(self, device):
        own = device._own_gemm()
        with device._forking(), pytest.raises(ZeroDivisionError):
            device.run_concurrently(lambda: 1 / 0, lambda: None)
        assert device._own_gemm() is own
        assert device._local.side_stream is None

    def test_a_graph_keeps_what_its_products_use(self, device):
        one = TestSteps().solver(device, NETS[0])
        one.step()
        (program,) = one._compiled_steps.values()
        assert program._kept == (device._own_gemm(), device._local.side_stream_made)


class TestWays:
    @pytest.mark.parametrize(
        ("seconds", "rejected", "checks"),
        [((1, 2), {"losing": "1 of its 1 arrays came out with other bits"}, 3), ((2, 1), {}, 2)],
    )
    def test_the_fastest_that_is_sound_is_taken(self, seconds, rejected, checks, device, cupy, monkeypatch):
        lost = []

        def work(array):
            if not lost:
                cupy.fake.do(lambda: np.add(array, 1, out=array))

        @contextlib.contextmanager
        def losing():
            lost.append(1)
            yield
            lost.clear()

        taken, checked, check = iter(seconds), [], Checksums.__call__
        monkeypatch.setattr(graph, "_seconds", lambda *_: next(taken))
        monkeypatch.setattr(Checksums, "__call__", lambda *args: checked.append(1) or check(*args))
        array = device.asarray(np.zeros(3, np.float32))
        step = graph.compile(cupy, [Call(work, array)], {"losing": losing, "sound": contextlib.nullcontext})
        assert (step.strategy, step.rejected) == ("sound", rejected)
        assert len(checked) == checks  # of the calls, and of each graph that was to be taken
        assert np.array(array).tolist() == [0, 0, 0]
        step()
        assert np.array(array).tolist() == [1, 1, 1]


class TestFallingBack:
    def calls(self, device, work):
        array = device.asarray(np.zeros(3, np.float32))
        return array, [Call(work, array)]

    def test_other_bits_are_noticed(self, device):
        def forgotten(array):  # NumPy's work is not captured by the stand-in
            array += 1

        array, calls = self.calls(device, forgotten)
        with pytest.warns(
            RuntimeWarning, match="not captured in a CUDA graph, .*: 1 of its 1 arrays came out with other"
        ):
            step = device.compile(calls)
        assert isinstance(step, CallSequence)
        assert np.array(array).tolist() == [0, 0, 0]
        step()
        assert np.array(array).tolist() == [1, 1, 1]

    def test_a_call_that_the_graph_lacks_is_noticed_though_its_output_is_as_before(self, device):
        x = device.asarray(np.arange(3, dtype=np.uint8))
        out = F.cast.reference(x, "float32")
        step = Call(F.cast.reference, x, "float32", out=out)  # NumPy's work is not captured by the stand-in
        step.outputs = frozenset(["out"])
        with pytest.warns(RuntimeWarning, match="1 of its 2 arrays came out with other bits"):
            assert isinstance(device.compile([step]), CallSequence)
        assert np.array(out).tolist() == [0, 1, 2]

    @pytest.mark.parametrize("at", ["eager", "captured"])
    def test_a_failure_of_the_check_leaves_the_state_alone(self, at, device, monkeypatch):
        runs = []

        def step(array):
            runs.append(array)
            array += 1
            if at == "eager":
                raise RuntimeError("the check fails here")

        def launch(self):
            raise RuntimeError("the check fails here")

        if at == "captured":
            monkeypatch.setattr(Captured, "__call__", launch)
        array, calls = self.calls(device, step)
        with pytest.warns(RuntimeWarning, match="slower: RuntimeError: the check fails here"):
            device.compile(calls)
        assert runs
        assert np.array(array).tolist() == [0, 0, 0]

    def test_a_refusal_ends_the_capture_and_is_told(self, device, cupy, monkeypatch):
        ended = []
        stream = cupy.cuda.Stream
        end = stream.end_capture
        monkeypatch.setattr(stream, "end_capture", lambda self: ended.append(1) or end(self))

        def refused(array):
            if cupy.fake.streams[-1].taken is not None:
                raise NotImplementedError("calling cuRAND API during stream capture")

        _, calls = self.calls(device, refused)
        with pytest.warns(RuntimeWarning, match="slower: NotImplementedError: calling cuRAND API during"):
            device.compile(calls)()
        assert ended == [1, 1]  # with two streams, and with one
        assert len(cupy.fake.streams) == 1


MAXOUT = {"activation": "maxout", "normalization": "batchnorm", "dropout_keep_ratio": 0.7}
SEVERAL = {"activation": ["relu", "tanh"], "normalization": "layernorm", "reg": 0.1}


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("options", "kind"),
    [(NETS[0], PersistentStep), (NETS[1], PersistentStep), *((net, Captured) for net in (NETS[3], MAXOUT, SEVERAL))],
    ids=str,
)
def test_gpu_steps_are_one_kernel_or_captured(options, kind):
    steps = TestSteps()
    there, here = steps.solver("cuda:0", options), steps.solver("cpu", options)
    for _ in range(12):
        there.step(), here.step()
    for program in there._compiled_steps.values():
        assert isinstance(program, kind)
        if kind is Captured:
            assert program.rejected == {}  # both strategies can be captured, and the faster one is sound
    np.testing.assert_allclose(there.loss_history, here.loss_history, rtol=1e-3)


def test_memory_counts_what_graphs_hold_as_long_as_they_live(device):
    gc.collect()
    before = device.memory().used
    one = TestSteps().solver(device, NETS[0])
    one.step()
    assert device.memory().used == before + (1 << 20)
    del one
    gc.collect()
    assert device.memory().used == before


class TestFull:
    """A device without room says so, and what was there goes on."""

    MESSAGE = r"cuda:0 is out of memory: 3\d.\d MiB were asked for, 5.0 GiB of 139.0 GiB are free, .* smaller batch"

    def test_a_network(self, device, cupy):
        cupy.fake.limit = 1000
        with pytest.raises(MemoryError, match=r"cuda:0 is out of memory: a float32 .* needs 1.2 KiB, 5.0 GiB of"):
            fcnet.FullyConnectedNet([50], 6, 3, device=device)

    def test_a_step_and_an_evaluation(self, device, cupy):
        one = TestSteps().solver(device, NETS[0])
        before = np.array(one.model.params.flat)
        cupy.fake.limit = 2000
        with pytest.raises(MemoryError, match=self.MESSAGE):
            one.step()
        with pytest.raises(MemoryError, match="cuda:0 is out of memory: "):
            one.model.predict(np.ones((500, 6)))
        np.testing.assert_array_equal(np.array(one.model.params.flat), before)
        cupy.fake.limit = 1 << 30
        other = TestSteps().solver(device, NETS[0])
        for _ in range(4):
            one.step(), other.step()
        assert one.loss_history == other.loss_history

    def test_an_error_that_does_not_say_how_much(self, device, cupy):
        with pytest.raises(MemoryError, match="out of memory: an array has no room"), device.allocating():
            raise cupy.cuda.memory.OutOfMemoryError


class TestStreaming:
    def test_a_step_is_two_copies_and_one_launch_and_the_bits_are_those_of_resident_data(self, device, cupy):
        resident = TestSteps().solver(device, NETS[1], dtype="float32")
        cupy.fake.free = -(1 << 20)  # and the pool has a MiB ready
        streamed = TestSteps().solver(device, NETS[1], dtype="float32")
        assert streamed._parts.train.streamed
        for _ in range(3):
            resident.step(), streamed.step()
        cupy.fake.log.clear()
        resident.step(), streamed.step()
        sizes = [entry[1] for entry in cupy.fake.log if entry[0] == "copy"]
        assert sizes == [BATCH * 6 * 4, BATCH * 8]  # X and y of the batch after this one, and nothing else
        assert sum(entry[0] == "graph" for entry in cupy.fake.log) == 2
        for _ in range(5):
            resident.step(), streamed.step()
        assert resident.loss_history == streamed.loss_history
        np.testing.assert_array_equal(np.array(resident.model.params.flat), np.array(streamed.model.params.flat))

    def test_the_host_waits_only_for_the_batch_before_the_last(self, device, cupy):
        X = np.arange(40.0).reshape(20, 2)
        feed = device.prefetcher([X], 4)
        batches = [np.arange(4) + 4 * i for i in range(5)]
        feed.send(batches[0]), feed.send(batches[1])
        assert [entry[0] for entry in cupy.fake.log] == ["copy", "copy"]
        feed.send(batches[2])  # the first slot again: its copy has to be over
        assert [entry[0] for entry in cupy.fake.log] == ["copy", "copy", "wait", "copy"]

    def test_each_batch_comes_in_its_turn(self, device, cupy):
        X, y = np.arange(40.0).reshape(20, 2), np.arange(20)
        feed = device.prefetcher([X, y], 4)
        batches = [np.arange(4) * 5 % 20 + i for i in range(5)]
        feed.send(batches[0])
        for now, then in itertools.pairwise(batches):
            feed.send(then)
            feed.receive()
            np.testing.assert_array_equal(np.array(feed.arrays[0]), X[now])
            np.testing.assert_array_equal(np.array(feed.arrays[1]), y[now])
        feed.receive()
        np.testing.assert_array_equal(np.array(feed.arrays[0]), X[batches[-1]])


def test_room_is_what_is_free_less_a_fifth(device, cupy):
    cupy.fake.free = 4 << 20  # and the pool has a MiB ready
    assert device.has_room(4 << 20)
    assert not device.has_room((4 << 20) + 1)
