"""Choosing a device by name and by arrays, with and without a GPU."""

import copy
import os
import pickle
import sys
import time
import types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fcnet import backends
from fcnet.backends import (
    DeviceError,
    Probe,
    Status,
    array_module,
    backend_of,
    get_backend,
    select,
)
from fcnet.backends.device import Call
from fcnet.backends.numpy_backend import NumpyBackend


@pytest.fixture
def no_gpu(monkeypatch):
    found = Probe(Status.NO_DRIVER_OR_DEVICE, "no CUDA driver", "install the driver")
    monkeypatch.setattr(select, "probe", lambda: found)


class OneGpu(NumpyBackend):
    """What stands in for a CupyBackend: the names are what matters here."""

    def __init__(self, index):
        super().__init__()
        self.name = f"cuda:{index}"


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(select, "probe", lambda: Probe(Status.OK, device_count=2, devices=("A", "B")))
    monkeypatch.setattr(select, "_made", {"cpu": select.CPU})
    module = types.ModuleType("fcnet.backends.cupy_backend")
    module.CupyBackend = OneGpu
    monkeypatch.setitem(sys.modules, "fcnet.backends.cupy_backend", module)


def test_the_cpu_is_numpy():
    cpu = get_backend("cpu")
    assert (cpu.name, cpu.xp) == ("cpu", np)
    assert get_backend("cpu") is cpu
    assert "NumPy" in cpu.describe()
    memory = cpu.memory()
    assert 0 < memory.used < memory.total
    assert 0 < memory.free <= memory.total


def on_macos(name):
    if name == "SC_AVPHYS_PAGES":
        raise ValueError("unrecognized configuration name")
    return {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 10}[name]


def test_memory_that_the_system_does_not_tell_is_0(monkeypatch):
    monkeypatch.setattr(os, "sysconf", on_macos)
    assert get_backend("cpu").memory()[1:] == (0, 40960)
    monkeypatch.delattr(os, "sysconf")  # Windows
    assert get_backend("cpu").memory()[1:] == (0, 0)


def test_a_backend_is_its_own_name():
    cpu = get_backend("cpu")
    assert get_backend(cpu) is cpu
    assert copy.deepcopy(cpu) is cpu
    assert pickle.loads(pickle.dumps(cpu)) is cpu
    assert repr(cpu) == "<NumpyBackend cpu>"


def test_auto_without_a_gpu_is_the_cpu(no_gpu):
    assert get_backend("auto") is get_backend() is get_backend("cpu")


def test_cuda_without_a_gpu_says_why_and_what_to_do(no_gpu):
    for device in ("cuda", "cuda:0", "cuda:3"):
        with pytest.raises(DeviceError) as caught:
            get_backend(device)
        assert str(caught.value) == (
            f"device: {device!r} cannot be used: no CUDA driver; install the driver; or use device='cpu'"
        )
    assert issubclass(DeviceError, ValueError)


def test_with_gpus(two_gpus):
    assert get_backend("auto") is get_backend("cuda") is get_backend("cuda:0")
    assert get_backend("cuda:1").name == "cuda:1"
    assert get_backend("cuda:1") is get_backend("cuda:1")
    with pytest.raises(DeviceError, match="device: 'cuda:2' is not there; this machine has cuda:0, cuda:1"):
        get_backend("cuda:2")


OTHER_CUDA = ["cuda:", "cuda:-1", "cuda:1.5", "xcuda", "cuda:0 "]


@pytest.mark.parametrize("name", ["gpu", *OTHER_CUDA, "CPU", "", "cpu:0"])
def test_other_names_are_refused(name, no_gpu):
    with pytest.raises(ValueError) as caught:
        get_backend(name)
    hint = "; an NVIDIA GPU is 'cuda'" if name in ("gpu", *OTHER_CUDA) else ""
    assert str(caught.value) == f"device: expected 'auto', 'cpu', 'cuda' or 'cuda:N', got {name!r}{hint}"
    assert not isinstance(caught.value, DeviceError)


@pytest.mark.parametrize("device", [None, 0, np.float32])
def test_other_types_are_refused(device):
    with pytest.raises(TypeError, match="device: expected a string such as 'auto', 'cpu' or 'cuda:0', got"):
        get_backend(device)


def test_the_backend_of_arrays(guard):
    cpu, x = get_backend("cpu"), np.ones(2)
    assert backend_of(x) is backend_of(x, None, 3, 2.0, "relu", (1, 2), x) is cpu
    assert backend_of(object(), x, {"a": 1}) is cpu
    assert backend_of(np.array(1.0)) is cpu
    assert backend_of(guard.xp.ones(2), None) is guard
    assert array_module(x) is np
    assert array_module(guard.xp.ones(2)) is guard.xp


def test_subclasses_of_numpys_arrays_are_on_the_cpu(tmp_path):
    mapped = np.lib.format.open_memmap(tmp_path / "x.npy", mode="w+", shape=(2,))
    assert backend_of(mapped) is get_backend("cpu")


def test_mixtures_are_refused(guard):
    with pytest.raises(TypeError, match="arrays of two devices in one call: guard and cpu; move them to one with"):
        backend_of(guard.xp.ones(2), 1, np.ones(2))


@pytest.mark.parametrize(("arguments", "kinds"), [((), "nothing"), ((1, None), "int, NoneType"), (([1.0],), "list")])
def test_no_array_at_all_is_refused(arguments, kinds):
    with pytest.raises(TypeError) as caught:
        backend_of(*arguments)
    assert str(caught.value) == f"expected an array of NumPy or CuPy, got {kinds}; use numpy.asarray(...)"


def test_arrays_of_cupy_are_known_only_when_cupy_is_loaded(two_gpus, monkeypatch):
    class ndarray:
        device = types.SimpleNamespace(id=1)

    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    with pytest.raises(TypeError, match="got ndarray"):
        backend_of(ndarray())
    cupy = types.ModuleType("cupy")
    cupy.ndarray = ndarray
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    assert backend_of(ndarray()) is get_backend("cuda:1")


def test_a_further_device(no_gpu, monkeypatch):
    class Thing:
        pass

    class ThingBackend(NumpyBackend):
        name = "thing"

        def owns(self, array):
            return isinstance(array, Thing)

    thing = ThingBackend()
    with monkeypatch.context() as patch:
        patch.setattr(select, "_made", dict(select._made))
        select.keep(thing)
        assert get_backend("thing") is thing
        assert copy.deepcopy(thing) is thing
        assert backend_of(Thing()) is thing
        assert backend_of(np.ones(2)) is get_backend("cpu")
    with pytest.raises(ValueError, match="got 'thing'"):
        get_backend("thing")


def test_public_names_are_there_and_sorted_as_ruff_sorts_them():
    assert all(hasattr(backends, name) for name in backends.__all__)
    assert len(set(backends.__all__)) == len(backends.__all__)


class TestOperations:
    """What every backend offers beside xp, on each device."""

    def test_transfers(self, backend):
        values = np.arange(6.0).reshape(2, 3)
        array = backend.asarray(values, "float32")
        assert backend.owns(array)
        assert not backend.owns([1.0])
        assert array.dtype == np.float32
        assert backend.asarray(array) is array
        np.testing.assert_array_equal(backend.to_numpy(array), values)
        assert type(backend.to_numpy(array)) is np.ndarray
        backend.upload(values * 2, array)  # casts and broadcasts as numpy.copyto
        np.testing.assert_array_equal(backend.to_numpy(array), values * 2)
        backend.upload(np.float32([1, 2, 3]), array)
        np.testing.assert_array_equal(backend.to_numpy(array), [[1, 2, 3]] * 2)
        backend.synchronize()

    @pytest.mark.parametrize(
        "shapes", [((2, 3), (3, 4)), ((5, 2, 3), (5, 3, 4)), ((2, 3), (5, 3, 4)), ((5, 2, 3), (3, 4))]
    )
    def test_gemm(self, shapes, backend, rng, device, host, dtype):
        a, b = (rng.integers(-4, 5, shape).astype(float) for shape in shapes)
        expected = np.einsum("...nk,...km->...nm", a, b)  # small integers: exact
        a_, b_ = device(a, dtype), device(b, dtype)
        np.testing.assert_array_equal(host(backend.gemm(a_, b_)), expected)
        out = backend.xp.empty(expected.shape, dtype=dtype)
        assert backend.gemm(a_, b_, out=out) is out
        np.testing.assert_array_equal(host(out), expected)
        a_t = device(np.ascontiguousarray(a.swapaxes(-1, -2)), dtype).swapaxes(-1, -2)
        b_t = device(np.ascontiguousarray(b.swapaxes(-1, -2)), dtype).swapaxes(-1, -2)
        np.testing.assert_array_equal(host(backend.gemm(a_t, b_t, out=out)), expected)

    def test_take_rows(self, backend, device, host):
        data, rows = np.arange(12, dtype=np.uint8).reshape(4, 3), [3, 0, 0]
        array, picked = device(data), device(rows)
        np.testing.assert_array_equal(host(backend.take_rows(array, picked)), data[rows])
        out = backend.xp.empty((3, 3), dtype="uint8")
        assert backend.take_rows(array, picked, out=out) is out
        np.testing.assert_array_equal(host(out), data[rows])

    def test_compile_gives_what_makes_the_calls_in_turn(self, backend, device, host):
        counter, one = device([0]), device([1])
        step = backend.compile([Call(backend.xp.add, counter, one, out=counter)] * 2)
        for _ in range(3):
            step()
        assert host(counter).tolist() == [6]

    def test_compile_refuses_what_it_cannot_look_into(self, backend):
        made = []
        with pytest.raises(TypeError, match=r"compile: expected recorded calls, fcnet.backends.device.Call, got <func"):
            backend.compile([Call(made.append, 1), lambda: made.append(2)])
        assert made == []


def test_threads_that_ask_first_get_one_backend(monkeypatch):
    """Backends are compared by identity, so a second one for the same GPU would be another device."""

    def slow(index):
        time.sleep(0.05)
        return OneGpu(index)

    monkeypatch.setitem(sys.modules, "fcnet.backends.cupy_backend", types.SimpleNamespace(CupyBackend=slow))
    monkeypatch.setattr(select, "_made", {"cpu": select.CPU})
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(select._cuda_backend, [0] * 4))
    assert len(set(map(id, found))) == 1
