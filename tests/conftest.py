"""Fixtures shared by all tests: one test body over every device and dtype, with data of its own."""

from __future__ import annotations

import gc
import os
import signal
import sys
import zlib
from contextlib import contextmanager

import numpy as np
import pytest

from fcnet.backends import Status, get_backend, probe, select
from fcnet.backends.cpu import loader
from fcnet.backends.cupy_backend import CupyBackend
from fcnet.backends.numpy_backend import NumpyBackend
from fcnet.cli import resume, train
from fcnet.runs import rundir
from tests import combinations
from tests.guard import GuardBackend
from tests.needed import lacking

GUARD = GuardBackend()


def pytest_configure(config):
    select.keep(GUARD)
    # Some hundred processes are started: without files of bytecode each would compile fcnet, a third of the whole time.
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # What a script starts in the background is deaf to Ctrl-C, and so is what it starts: tests of Ctrl-C would hang.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption(
        combinations.OPTION, action="store_true", help="all combinations of parameters, not only every pair of values"
    )


LEFT_OUT = pytest.StashKey[int]()


@pytest.hookimpl(trylast=True)
def pytest_generate_tests(metafunc):
    left_out = combinations.thin(metafunc, gpu=probe().status is Status.OK)
    metafunc.config.stash[LEFT_OUT] = metafunc.config.stash.get(LEFT_OUT, 0) + left_out


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Where no GPU can be used, tests that need one are left out at once: thousands of skips would take their time."""
    left_out = [item for item in items if item.get_closest_marker("gpu")] if probe().status is not Status.OK else []
    config.stash[LEFT_OUT] = config.stash.get(LEFT_OUT, 0) + len(left_out)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("gpu")]


def pytest_terminal_summary(terminalreporter, config):
    if count := config.stash.get(LEFT_OUT, 0):
        terminalreporter.write_line(f"{count} gpu tests left out, no usable GPU: {probe().reason}")


def pytest_collection_finish():
    """Freeze the thousands of tests for the garbage collector, which some tests call often."""
    gc.collect()
    gc.freeze()


NAMES = {"cpu": "cpu", "guard": "guard", "cupy": "cuda:0", "cuda": "cuda:0"}


@pytest.fixture
def references_only(monkeypatch):
    """Devices on the references, as where no kernels can be had; the guard has their bits."""
    monkeypatch.setattr(NumpyBackend, "kernels", {})
    monkeypatch.setattr(CupyBackend, "kernels", {})


@pytest.fixture(autouse=True, scope="session")
def compiling_in_silence():
    """Whether a test is the first to need a kernel is chance; what is said then, processes of their own test."""
    if loader.load().kernels:
        from fcnet.backends.cpu import cache

        cache._said.add(cache.COMPILING)


CURVES, WRITE_REPORT = rundir.curves_png, train.write_report


@pytest.fixture(autouse=True)
def no_curves(monkeypatch):
    """Drawing curves.png and report.html takes longer than most trainings here; tests that look at them ask for
    `curves` and `report`.
    """

    def blank(record):
        from matplotlib.figure import Figure  # noqa: F401 -- where it is missing, curves.png is

        return b"\x89PNG\r\n\x1a\n"

    monkeypatch.setattr(rundir, "curves_png", blank)
    for command in (train, resume):
        monkeypatch.setattr(command, "write_report", lambda *_, **__: None)


@pytest.fixture
def curves(no_curves, monkeypatch):
    """Let runs draw their pictures."""
    monkeypatch.setattr(rundir, "curves_png", CURVES)


@pytest.fixture
def report(no_curves, monkeypatch):
    """Let runs write their reports."""
    for command in (train, resume):
        monkeypatch.setattr(command, "write_report", WRITE_REPORT)


@pytest.fixture
def cpu_kernels():
    """Make sure that the CPU has its Numba kernels, as it has by default."""
    loaded = loader.load()
    if loaded.broken:
        pytest.fail(f"broken CPU kernels: {loaded.status}")
    if not loaded.kernels:
        lacking(f"no CPU kernels: Numba is {loaded.status}")


GPU = [pytest.param(name, marks=pytest.mark.gpu) for name in ("cupy", "cuda")]


@pytest.fixture(params=["cpu", "guard", *GPU])
def backend(request):
    """Each device in turn: the CPU with its kernels, the guard, the first GPU without kernels and with them."""
    if request.param in ("guard", "cupy"):
        request.getfixturevalue("references_only")
    return get_backend(NAMES[request.param])


@pytest.fixture
def guard():
    """Return the guard device, with an empty log."""
    GUARD.log.clear()
    return GUARD


@pytest.fixture
def xp(backend):
    """Return the array module of `backend`."""
    return backend.xp


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    """Each floating dtype in turn, by its name."""
    return request.param


@pytest.fixture
def rng(request):
    """Return a generator of the test's own: the same numbers for each device, dtype, process and day."""
    name = f"{request.module.__name__}.{request.node.originalname}"
    return np.random.default_rng(zlib.crc32(name.encode()))


@pytest.fixture
def device(backend):
    """device(host_array, dtype=None): a copy on the device."""

    def upload(array, dtype=None):
        return backend.asarray(np.array(array, dtype=dtype))

    return upload


@pytest.fixture
def host(backend):
    """host(device_array): a copy on the host."""

    def download(array):
        return np.array(backend.to_numpy(array))

    return download


@pytest.fixture
def untouched(host):
    """with untouched(x, w): ... -- fails if a byte of these device arrays changed inside."""

    @contextmanager
    def watch(*arrays):
        before = [host(array).tobytes() for array in arrays]
        yield
        for number, (array, old) in enumerate(zip(arrays, before, strict=True)):
            assert host(array).tobytes() == old, f"argument {number} was modified"

    return watch


LAYOUTS = ("contiguous", "strided", "transposed")


@pytest.fixture(params=LAYOUTS)
def lay(request, device):
    """lay(host_array, dtype): a device array of these values, in each memory layout in turn."""

    def place(array, dtype=None):
        array = np.array(array, dtype=dtype)
        if request.param == "strided":
            wide = np.full((*array.shape[:-1], 2 * array.shape[-1]), 7, dtype=array.dtype)
            wide[..., ::2] = array
            return device(wide)[..., ::2]
        if request.param == "transposed" and array.ndim > 1:
            return device(np.ascontiguousarray(array.swapaxes(-1, -2))).swapaxes(-1, -2)
        return device(array)

    return place
