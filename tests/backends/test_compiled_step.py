"""Recorded steps thunk_of from tapes: the same bits as call by call, and only what can be thunk_of."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

from fcnet import functional as F
from fcnet.backends import get_backend
from fcnet.backends.cpu import loader
from fcnet.backends.device import CallSequence
from fcnet.backends.step import StepRecorder
from fcnet.optim import rules
from tests.small import blobs, solver

pytestmark = pytest.mark.usefixtures("cpu_kernels")


def entries(program):
    return [entry for part in program.calls for entry in getattr(part, "thunks", ())]


NETS = [
    {"update_rule": "adam"},
    {"update_rule": "sgd", "net_options": {"reg": 0.1}},
    {"update_rule": "momentum", "net_options": {"normalization": "batchnorm"}},
    {"update_rule": "sgd", "net_options": {"normalization": "batchnorm", "activation": "gelu"}},
    {"update_rule": "rmsprop", "net_options": {"normalization": "layernorm"}},
    {"update_rule": "adam", "net_options": {"dropout_keep_ratio": 0.7}},
    {"update_rule": "adam", "net_options": {"normalization": "batchnorm", "dropout_keep_ratio": 0.7}},
    {"update_rule": "adam", "net_options": {"loss": "svm"}},
]


@pytest.mark.parametrize("options", NETS, ids=str)
def test_a_compiled_step_is_the_step_call_by_call(options, monkeypatch):
    data = blobs(dtype="float32")
    compiled = solver(data, **options)
    plain = solver(data, **options)
    for number in range(45):  # several epochs, with a short last batch each
        compiled.step()
        with monkeypatch.context() as patch:
            patch.setattr(loader, "compile", CallSequence)
            plain.step()
        if number == 20:
            compiled.optimizer.learning_rate = plain.optimizer.learning_rate = 3e-3
    assert compiled.loss_history == plain.loss_history
    np.testing.assert_array_equal(compiled.model.params.flat, plain.model.params.flat)
    np.testing.assert_array_equal(compiled.model.state.flat, plain.model.state.flat)
    assert any(entries(program) for program in compiled._compiled_steps.values())
    assert not any(entries(program) for program in plain._compiled_steps.values())


def test_a_small_step_is_one_call():
    one = solver(blobs(dtype="float32"), update_rule="adam", net_options={"normalization": "batchnorm"})
    one.step()
    (program,) = one._compiled_steps.values()
    products = "matmul" in loader.load().kernels  # NumPy's BLAS does them elsewhere, in between
    assert len(program.calls) == 1 if products else len(program.calls) > 1
    assert len(entries(program)) > 10


def test_float64_has_no_thunks():
    one = solver(blobs(dtype="float64"), update_rule="adam", net_options={"dtype": "float64"})
    one.step()
    (program,) = one._compiled_steps.values()
    names = {entry.thunk._function.__name__ for entry in entries(program)}
    assert names == {"_thunk_advance", "_thunk_batch_rows", "_thunk_gather"}  # integers, and rows of any kind


class TestCompile:
    """What `Backend.compile` does with single calls."""

    def program(self, op, *args, **kwargs):
        recorder = StepRecorder(get_backend("cpu"))
        recorder(op, *args, **kwargs)
        return get_backend("cpu").compile(recorder.calls)

    def test_the_call_is_made_once_when_it_is_recorded(self):
        w = np.ones(8, np.float32)
        rate = np.array([0.5])
        program = self.program(rules.sgd, w, np.ones_like(w), rate, work=w)
        assert len(entries(program)) == 1
        assert (w == 0.5).all()
        program()
        assert (w == 0).all()
        rate[0] = 0.25
        program()
        assert (w == -0.25).all()

    def test_a_rate_given_as_a_number_stays_a_call(self):
        w = np.ones(8, np.float32)
        program = self.program(rules.sgd, w, np.ones_like(w), 0.5, work=w)
        assert entries(program) == []
        assert (w == 0.5).all()
        program()
        assert (w == 0).all()

    def test_large_arrays_stay_calls(self):
        w = np.ones(100_001, np.float32)
        assert entries(self.program(rules.sgd, w, w, np.ones(1), work=w)) == []
        w = w[:-1]
        assert len(entries(self.program(rules.sgd, w, w, np.ones(1), work=w))) == 1

    def test_labels_that_are_converted_stay_a_call(self):
        scores, y = np.zeros((3, 4), np.float32), np.array([1, 2, 3], np.int32)
        loss, dscores = np.zeros((), np.float32), np.zeros_like(scores)
        program = self.program(F.softmax_loss, scores, y, loss=loss, dscores=dscores)
        assert entries(program) == []
        program()
        y[:] = 0
        program()
        np.testing.assert_allclose(dscores[:, 0], -0.25)

    def test_the_memory_of_a_recorded_call_is_kept(self):
        data, rows = np.arange(12, dtype=np.float32).reshape(4, 3), np.array([2, 0])
        batch = np.zeros((2, 3), np.float32)
        program = self.program(F.gather, data, rows, batch=batch)
        (entry,) = entries(program)
        assert any(argument is data for argument in entry.arguments)
        expected = data[[2, 0]]
        del data, rows
        gc.collect()
        _ = [np.full((4, 3), 9, np.float32) for _ in range(100)]
        program()
        np.testing.assert_array_equal(batch, expected)

    def test_other_threads_are_not_traced_while_one_records(self):
        from fcnet.backends.cpu import jit

        w = np.ones(8, np.float32)
        with jit.tracing() as trace:
            thread = threading.Thread(target=rules.sgd, args=(w, w.copy(), np.array([0.5])), kwargs={"work": w})
            thread.start()
            thread.join()
            assert (w == 0.5).all()
            assert trace.loops == []
            rules.sgd(w, w.copy(), np.array([0.5]), work=w)
            assert len(trace.loops) == 1
        assert jit.traces == {}

    def test_after_an_error_nothing_is_traced(self):
        from fcnet.backends.cpu import compiled_step, jit

        with pytest.raises(ZeroDivisionError):
            compiled_step.first_call(lambda: 1 / 0)
        assert jit.traces == {}
