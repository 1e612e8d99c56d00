"""Numba's kernels: when they serve, when NumPy does, what is said. Their results: the tests of functions."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import backends
from backends import MaskStream, cpu
from fcnet import functional as F
from fcnet.cli import main
from fcnet.optim import rules
from tests.small import blobs, solver

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def anew(monkeypatch):
    """Let the kernels be looked for again, now and after the test."""
    monkeypatch.setattr(cpu, "_loaded", None)
    for name in [name for name in sys.modules if name.startswith("backends.cpu.")]:
        monkeypatch.delitem(sys.modules, name)


def test_numba_missing(anew, monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    assert cpu.kernels() == {}
    assert cpu.status() == "not installed: pip install 'fcnet[fast]'"


def test_numba_broken(anew, monkeypatch, tmp_path):
    (tmp_path / "numba.py").write_text("raise OSError('libllvm is\\n not what it was')")
    monkeypatch.delitem(sys.modules, "numba", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    assert cpu.kernels() == {}
    assert cpu.status() == "not usable: OSError: libllvm is not what it was"
    monkeypatch.delitem(sys.modules, "numba", raising=False)


@pytest.mark.parametrize("error", ["SystemExit(3)", "SyntaxError('no')"])
def test_numba_ends_or_fails_in_any_way(error, anew, monkeypatch, tmp_path):
    (tmp_path / "numba.py").write_text(f"raise {error}")
    monkeypatch.delitem(sys.modules, "numba", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    assert cpu.kernels() == {}
    assert cpu.status() == f"not usable: {error.replace('(', ': ').strip(')').replace(chr(39), '')}"


@pytest.mark.parametrize("value", ["0", "false", "No", "OFF", " 0 "])
def test_numba_switched_off(value, anew, monkeypatch):
    monkeypatch.setenv("FCNET_NUMBA", value)
    assert cpu.kernels() == {}
    assert cpu.status() == f"off: FCNET_NUMBA={value.strip()}"


@pytest.mark.usefixtures("cpu_kernels")
@pytest.mark.parametrize("value", ["1", "yes", "", "perhaps"])
def test_numba_not_switched_off(value, anew, monkeypatch):
    monkeypatch.setenv("FCNET_NUMBA", value)
    assert cpu.kernels()
    unknown = "; FCNET_NUMBA: expected 0 or 1, got 'perhaps': on"
    assert cpu.status().endswith(unknown) == (value == "perhaps")
    assert ("FCNET_NUMBA" in cpu.status()) == (value == "perhaps")


def test_the_backend_tells_which(cpu_kernels):
    assert f", {cpu.status()}" in backends.get_backend("cpu").describe()
    assert cpu.status().startswith("Numba ")


def test_the_backend_is_silent_about_kernels_that_do_not_serve():
    assert "Numba" not in backends.get_backend("cpu").describe()


def test_info_says_why_numpy_serves(capsys, monkeypatch):
    monkeypatch.setattr(cpu, "_loaded", ({}, "not usable: for a test"))
    assert main(["info"]) == 0
    assert "kernels (Numba) not usable: for a test" in capsys.readouterr().out


def chosen(op, *args, **kwargs):
    """Whether a kernel was chosen for these arguments."""
    return op.choose(*args, **kwargs) is not op.reference


def kernels_of(program):
    """The modules whose kernels a compiled step calls or plays."""
    for part in program.calls:
        entries = getattr(part, "entries", None)
        yield from [part.func.__module__] if entries is None else [e.player._function.__module__ for e in entries]


@pytest.mark.usefixtures("cpu_kernels")
class TestPreconditions:
    z, b = np.ones((6, 4), np.float32), np.ones(4, np.float32)

    def test_plain_arrays_are_served(self):
        assert chosen(F.bias_activation_dropout_forward, self.z, self.b)
        assert chosen(F.batchnorm_activation_dropout_forward, self.z, self.b, self.b, self.b)
        assert chosen(F.softmax_loss, self.z, np.zeros(6, int))
        w = np.zeros(5)
        assert chosen(rules.adam, w, w, w, w, 0, 0.1, work=w)

    @pytest.mark.parametrize(
        "z",
        [
            np.ones((6, 8), np.float32)[:, ::2],
            np.ones((4, 6), np.float32).T,
            np.ones((2, 6, 4), np.float32),
            np.ones((6, 4), np.float32).view(type("Sub", (np.ndarray,), {})),
        ],
        ids=["strided", "transposed", "stack", "subclass"],
    )
    def test_others_go_to_the_reference(self, z):
        assert not chosen(F.bias_activation_dropout_forward, z, self.b)
        assert not chosen(F.softmax_loss, z, np.zeros(z.shape[:-1], int))
        assert not chosen(F.softmax_loss, self.z, np.eye(4, dtype=np.float32)[[0] * 6])

    def test_read_only_arrays_go_to_the_reference(self):
        z = self.z.copy()
        z.flags.writeable = False
        assert not chosen(F.bias_activation_dropout_forward, z, self.b)
        out, _ = F.bias_activation_dropout_forward(z, self.b)
        np.testing.assert_array_equal(out, 2)

    def test_labels_out_of_range_read_and_write_nothing_else(self):
        """The reference gives such a row no right class; a kernel must not reach beside its arrays."""
        scores = np.random.default_rng(0).standard_normal((3, 4))
        kernel = F.softmax_loss.choose(scores, np.array([1, 2, 3]))
        for y in (np.array([1, 4, -1]), np.array([10**12, 0, 3])):  # as a recorded step could meet: nobody checks
            loss, dscores = kernel(scores, y)
            expected = F.softmax_loss.reference(scores, y)
            np.testing.assert_allclose(loss, expected[0], rtol=1e-12)
            np.testing.assert_allclose(dscores, expected[1], rtol=1e-12, atol=1e-15)

    def test_gradients_of_a_strided_dout(self):
        rng = np.random.default_rng(0)
        z, dout = rng.standard_normal((6, 4)), rng.standard_normal((6, 8))[:, ::2]
        vectors = rng.standard_normal((3, 4))
        stream = MaskStream(backends.get_backend("cpu"), 1)
        for unit in ("bias", "batchnorm"):
            forward = getattr(F, f"{unit}_activation_dropout_forward")
            backward = getattr(F, f"{unit}_activation_dropout_backward")
            args = z, *vectors[: 1 if unit == "bias" else 3], "relu", 0.5, stream
            kernel, reference = forward(*args), forward.reference(*args)
            np.testing.assert_allclose(kernel[0], reference[0], rtol=1e-12, atol=1e-14)
            pairs = zip(backward(dout, kernel[1]), backward.reference(dout, reference[1]), strict=True)
            for got, expected in pairs:
                np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-13)

    def test_a_step_is_made_of_kernels(self):
        one = solver(blobs(dtype="float32"), update_rule="adam", net_options={"normalization": "batchnorm"})
        one.step()
        names = set(kernels_of(one._programs[100]))
        assert {"backends.cpu.units", "backends.cpu.loss", "backends.cpu.update"} <= names

    def test_solvers_in_threads_are_as_alone(self):
        def train(results, at):
            one = solver(
                blobs(), update_rule="adam", net_options={"normalization": "batchnorm", "dropout_keep_ratio": 0.7}
            )
            for _ in range(60):
                one.step()
            results[at] = one.loss_history

        results: list = [None] * 3
        train(results, 2)
        threads = [threading.Thread(target=train, args=(results, at)) for at in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results[0] == results[1] == results[2]


def python(code, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True, text=True, check=True,
    )  # fmt: skip


STEP = """
import sys, time, numpy as np, backends.cpu, fcnet
from backends.cpu import jit, update
jit.PATIENCE = 0.0
compiled, inner = update._update.compiled, update._update
if "slow" in sys.argv:
    inner.compiled = lambda *args: (time.sleep(0.2), compiled(*args))
w = np.ones(8, np.float32)
for _ in range(2):
    fcnet.optim.rules.adam(w, w.copy(), w * 0, w * 0, 0, 0.1, work=w * 0)
print(sum(compiled.stats.cache_hits.values()), sum(compiled.stats.cache_misses.values()))
assert not any("workqueue" in name or "omppool" in name for name in sys.modules), "Numba's thread pool was started"
"""


@pytest.mark.usefixtures("cpu_kernels")
def test_compiling_is_announced_once_and_cached(tmp_path):
    first, second = (python(STEP, "slow", NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2))
    assert first.stderr == "fcnet: compiling CPU kernels, once for this machine ...\n"
    assert (first.stdout, second.stdout) == ("0 1\n", "1 0\n")  # compiled, then found in the cache


@pytest.mark.usefixtures("cpu_kernels")
def test_nothing_is_announced_when_it_is_quick(tmp_path):
    assert python(STEP.replace("0.0", "60.0")).stderr == ""


def test_importing_fcnet_does_not_import_numba():
    assert python("import sys, fcnet; print('numba' in sys.modules)").stdout == "False\n"
