"""Numba's kernels: when they serve, when NumPy does, what is said. Their results: the tests of functions."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from fcnet import backends
from fcnet import functional as F
from fcnet.backends import MaskStream
from fcnet.backends.cpu import loader
from fcnet.cli import main
from fcnet.errors import KernelError, install
from fcnet.optim import rules
from fcnet.training.solver import Solver
from tests.small import blobs, solver
from tests.tolerances import assert_close

ROOT = Path(__file__).parent.parent.parent


def forget(name, monkeypatch):
    """Let a module be imported anew, and be the old one again after the test."""
    monkeypatch.delitem(sys.modules, name)
    package, _, module = name.rpartition(".")
    monkeypatch.delattr(sys.modules[package], module)


@pytest.fixture
def anew(monkeypatch):
    """Let the kernels be looked for again, now and after the test."""
    monkeypatch.setattr(loader, "_loaded", None)
    for name in [name for name in sys.modules if name.startswith("fcnet.backends.cpu.")]:
        if name != loader.__name__:
            forget(name, monkeypatch)


def test_numba_missing(anew, monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    assert loader.load().kernels == {}
    assert loader.load().status == f"not installed: {install('fast')}"


def test_numba_broken(anew, monkeypatch, tmp_path):
    (tmp_path / "numba.py").write_text("raise OSError('libllvm is\\n not what it was')")
    monkeypatch.delitem(sys.modules, "numba", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    with pytest.warns(RuntimeWarning, match=r"CPU kernels cannot be used, NumPy serves .*affine.*libllvm is not what"):
        assert loader.load().kernels == {}
    assert loader.load().status == f"not usable: {', '.join(loader.MODULES)} (OSError: libllvm is not what it was)"
    monkeypatch.delitem(sys.modules, "numba", raising=False)


@pytest.mark.parametrize("error", ["SystemExit(3)", "SyntaxError('no')"])
def test_numba_ends_or_fails_in_any_way(error, anew, monkeypatch, tmp_path):
    (tmp_path / "numba.py").write_text(f"raise {error}")
    monkeypatch.delitem(sys.modules, "numba", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    with pytest.warns(RuntimeWarning, match="CPU kernels cannot be used"):
        assert loader.load().kernels == {}
    assert f"({error.replace('(', ': ').strip(')').replace(chr(39), '')})" in loader.load().status


def test_every_kernel_serves_where_numba_is_installed():
    """Or the tests' device "cpu" would stand for NumPy alone."""
    loaded = loader.load()
    assert loaded.broken == {}, loaded.status
    if importlib.util.find_spec("numba") is not None and not loaded.status.startswith("off"):
        assert {"softmax_loss", "adam", "next_batch", "bias_activation_dropout_forward"} <= set(loaded.kernels)


def test_a_name_that_numba_no_longer_has_is_said_once_and_numpy_serves():
    code = (
        "import numba.core.ccallback as private; del private.CFunc\n"
        "import numpy as np\nfrom fcnet import functional as F, get_backend\n"
        "for _ in range(2): print(F.softmax_loss(np.zeros((1, 2)), np.zeros(1, int))[0])\n"
        "print(get_backend('cpu').kernels)"
    )
    done = python(code, PYTHONWARNINGS="")
    assert done.stdout.split() == ["0.6931471805599453"] * 2 + ["{}"]
    assert done.stderr.count("CPU kernels cannot be used, NumPy serves in their place: affine, batch, hidden") == 1
    assert "cannot import name 'CFunc'" in done.stderr
    assert "FCNET_NUMBA=0" in done.stderr


def test_kernels_that_can_be_loaded_serve_without_the_others(anew, cpu_kernels, monkeypatch):
    monkeypatch.setattr(loader, "_loaded", None)
    monkeypatch.setitem(sys.modules, "fcnet.backends.cpu.loss", None)
    with pytest.warns(RuntimeWarning, match=r"in their place: loss \(ModuleNotFoundError: .*\); pip install"):
        loaded = loader.load()
    assert "softmax_loss" not in loaded.kernels
    assert "adam" in loaded.kernels
    assert loaded.status.startswith("Numba ")
    assert "not usable: loss (" in loaded.status


def test_a_kernel_that_cannot_be_compiled_says_so(cpu_kernels):
    from fcnet.backends.cpu.jit import Jit

    def odd(x):
        x.no_such_method()

    with pytest.raises(KernelError, match=r"odd: this CPU kernel cannot be compiled by Numba .*FCNET_NUMBA=0"):
        Jit(odd)(np.ones(3))


@pytest.mark.parametrize("value", ["0", "false", "No", "OFF", " 0 "])
def test_numba_switched_off(value, anew, monkeypatch):
    monkeypatch.setenv("FCNET_NUMBA", value)
    assert loader.load().kernels == {}
    assert loader.load().status == f"off: FCNET_NUMBA={value.strip()}"


@pytest.mark.usefixtures("cpu_kernels")
@pytest.mark.parametrize("value", ["1", "yes", "", "perhaps"])
def test_numba_not_switched_off(value, anew, monkeypatch):
    monkeypatch.setenv("FCNET_NUMBA", value)
    assert loader.load().kernels
    unknown = "; FCNET_NUMBA: expected 0 or 1, got 'perhaps': on"
    assert loader.load().status.endswith(unknown) == (value == "perhaps")
    assert ("FCNET_NUMBA" in loader.load().status) == (value == "perhaps")


def test_the_backend_tells_which(cpu_kernels):
    assert f", {loader.load().status}" in backends.get_backend("cpu").describe()
    assert loader.load().status.startswith("Numba ")


def test_the_backend_is_silent_about_kernels_that_do_not_serve(references_only):
    assert "Numba" not in backends.get_backend("cpu").describe()


def test_info_says_why_numpy_serves(capsys, monkeypatch):
    monkeypatch.setattr(loader, "_loaded", loader.Loaded({}, "not usable: for a test"))
    assert main(["info"]) == 0
    assert "kernels (Numba) not usable: for a test" in capsys.readouterr().out


def chosen(op, *args, **kwargs):
    """Whether a kernel was chosen for these arguments."""
    return op.choose(*args, **kwargs) is not op.reference


def kernels_of(program):
    """Yield the modules whose kernels a compiled step runs, by calls or thunks."""
    for part in program.calls:
        entries = getattr(part, "thunks", None)
        yield from [part.func.__module__] if entries is None else [e.thunk._function.__module__ for e in entries]


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

    @pytest.mark.parametrize("width", [3, 40_000])  # by one thread, by several
    def test_rows_beyond_the_data_are_its_first_and_last(self, width):
        more, rows = np.random.default_rng(0).random((6, width)), np.array([1, 4, -2, 2])
        np.testing.assert_array_equal(F.gather(more[:3], rows), more[[1, 2, 0, 2]])

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

    @pytest.mark.parametrize("kind", ["batchnorm", "layernorm"])
    def test_rows_in_several_blocks_and_lanes(self, kind):
        """70 x 70: more elements than an activation takes at a time, and rows longer than the lanes of a sum."""
        rng = np.random.default_rng(0)
        z, dout, *vectors = (rng.standard_normal(shape).astype("f") for shape in ((70, 70), (70, 70), 70, 70, 70))
        forward, backward = (getattr(F, f"{kind}_activation_dropout_{way}") for way in ("forward", "backward"))
        for activation in ("relu", "gelu"):
            args = z, *vectors, activation, 0.6, MaskStream(backends.get_backend("cpu"), 1)
            (out, cache), (expected, reference_cache) = forward(*args), forward.reference(*args)
            assert backward.choose(dout, cache) is not backward.reference
            pairs = zip(
                (out, *backward(dout, cache)), (expected, *backward.reference(dout, reference_cache)), strict=True
            )
            for got, want in pairs:
                assert_close(got, want.astype(float), "float32", "norm")

    def test_a_step_is_made_of_kernels(self):
        one = solver(blobs(dtype="float32"), update_rule="adam", net_options={"normalization": "batchnorm"})
        one.step()
        names = set(kernels_of(one._compiled_steps[100]))
        assert {"fcnet.backends.cpu.hidden", "fcnet.backends.cpu.loss", "fcnet.backends.cpu.optim"} <= names

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


CALL = """
import sys, numpy as np, fcnet
from fcnet.backends.cpu import batch
from fcnet.backends.notices import watched_by
counters = np.zeros(2, int)
with watched_by(print):
    for _ in range(2):
        fcnet.functional.advance(counters, counters + 1)
stats = batch._advance.compiled.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
assert not any("workqueue" in name or "omppool" in name for name in sys.modules), "Numba's thread pool was started"
"""


@pytest.mark.usefixtures("cpu_kernels")
def test_a_command_ends_in_a_line_where_a_kernel_cannot_be_compiled(tmp_path):
    """Also for other errors than Numba's own: here a name of Numba's is gone that compiled code looks up."""
    command = ["train", "--data", "spirals", "--epochs", "1", "--quiet", "--out", str(tmp_path / "run")]
    one_of_them = "from fcnet.backends.cpu import loader; loader.MODULES = ('loss',)"  # to compile all takes long
    command = f"from tests.command import main; sys.exit(main({command!r}))"
    code = f"import sys, numba; del numba.carray\n{one_of_them}\n{command}"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("fcnet: error: ")
    assert "with FCNET_NUMBA=0 in the environment NumPy serves" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.usefixtures("cpu_kernels")
def test_compiling_is_said_once_and_cached(tmp_path):
    first, second = (python(CALL, NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2))
    assert first.stdout == "compiling CPU kernels, once for this machine ...\n0 1\n"
    assert second.stdout == "1 0\n", "what is found in the cache is not compiled"
    assert first.stderr == second.stderr == ""


@pytest.mark.usefixtures("cpu_kernels")
@pytest.mark.parametrize(("flags", "said"), [((), 1), (("--quiet",), 0)])
def test_a_command_says_that_it_compiles_unless_it_shall_be_quiet(flags, said, tmp_path, monkeypatch, capsys):
    from fcnet.backends.cpu import cache

    make = Solver._make_steps
    monkeypatch.setattr(cache, "_said", set())
    monkeypatch.setattr(Solver, "_make_steps", lambda *args: cache._say_once(cache.COMPILING) or make(*args))
    assert main(["train", "--data", "spirals", "--epochs", "1", "--out", str(tmp_path / "run"), *flags]) == 0
    assert capsys.readouterr().err.count("fcnet: compiling CPU kernels, once for this machine ...\n") == said


def test_importing_fcnet_does_not_import_numba():
    assert python("import sys, fcnet; print('numba' in sys.modules)").stdout == "False\n"
