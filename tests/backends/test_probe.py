"""What the probe says of each kind of machine, and what `get_backend` makes of it."""

import importlib
import importlib.util
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fcnet import errors
from fcnet.backends import DeviceError, Probe, Status, get_backend, probe
from tests.backends.cuda_fake import OutOfMemoryError, fake_cupy
from tests.needed import HANGS

MODULE = importlib.import_module("fcnet.backends.probe")  # `fcnet.backends.probe` as an attribute is the function
ROOT = Path(MODULE.__file__).parents[1]
NO_DRIVER = "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version"


@pytest.fixture
def machine(monkeypatch):
    """Return a machine with one CuPy wheel, a driver for CUDA 12.9, nothing probed; machine(cupy) loads a CuPy."""
    monkeypatch.setattr(MODULE, "_found", None)
    monkeypatch.setattr(MODULE, "_driver_number", lambda: 12090)
    monkeypatch.setattr(MODULE, "_wheels", lambda: ["cupy-cuda12x"])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setitem(sys.modules, "cupy", None)  # so that the test's end puts back what was there
    del sys.modules["cupy"]
    return lambda cupy: monkeypatch.setitem(sys.modules, "cupy", cupy)


def raises(error):
    def function(*_, **__):
        raise error

    return function


def package(folder, text):
    """Return a package called cupy in `folder`."""
    (folder / "cupy").mkdir()
    (folder / "cupy" / "__init__.py").write_text(text)


def check(found, status):
    assert found.status is status
    for line in (found.reason, found.remedy):
        assert "\n" not in line
        assert bool(line) == (status is not Status.OK)
    return found


@pytest.mark.parametrize("editable", [False, True])
def test_the_command_that_installs_an_extra(editable, monkeypatch, tmp_path):
    """Of the folder in a checkout, which has its files; of the package where pip has put it."""
    flag = "-e " if editable else ""
    monkeypatch.setattr(errors, "_is_editable", lambda: editable)
    monkeypatch.chdir(Path(errors.__file__).parents[1])
    assert errors.install("cuda12") == f"pip install {flag}'.[cuda12]'"
    root = Path.cwd()
    monkeypatch.chdir(tmp_path)
    assert errors.install("cuda12") == f"pip install {flag}'{root}[cuda12]'"
    monkeypatch.setattr(errors, "__file__", str(tmp_path / "fcnet" / "errors.py"))
    assert errors.install("cuda12") == "pip install 'fcnet[cuda12]'"


# Each answer -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("driver", "extra"), [(0, "cuda12"), (12040, "cuda12"), (13000, "cuda13")])
def test_not_installed(machine, monkeypatch, driver, extra):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(MODULE, "_driver_number", lambda: driver)
    found = check(probe(), Status.NOT_INSTALLED)
    assert found.reason == "CuPy is not installed"
    assert found.remedy == errors.install(extra)


def test_two_wheels(machine, monkeypatch):
    machine(fake_cupy())
    monkeypatch.setattr(MODULE, "_wheels", lambda: ["cupy-cuda12x", "cupy-cuda13x"])
    found = check(probe(), Status.DUPLICATE_WHEELS)
    assert found.reason.startswith("cupy-cuda12x and cupy-cuda13x are both installed")
    assert found.remedy == f"pip uninstall cupy-cuda12x cupy-cuda13x, then {errors.install('cuda12')}"


def test_wheels_are_found_by_their_folders(tmp_path, monkeypatch):
    wheels = ["cupy_cuda12x-14.2.0.dist-info", "cupy-13.0.egg-info", "cupy.egg-info", "cupy_rocm_7_0-14.dist-info"]
    for name in [*wheels, "cupy_xarray-0.1.4.dist-info", "cupyx-info", "cupy", "numpy-2.0.dist-info"]:
        (tmp_path / name).mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(tmp_path / "not there"), __file__])
    assert MODULE._wheels() == ["cupy", "cupy-cuda12x", "cupy-rocm-7-0"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("raise SystemError('initialization failed')", "SystemError: initialization failed"),
        ("raise OSError('libx.so: cannot\\nopen')", "OSError: libx.so: cannot open"),
        (
            # What CuPy does: the cause wrapped in advice.
            "try:\n    import no_such_module\nexcept ImportError as e:\n    raise ImportError('a') from e",
            "ModuleNotFoundError: No module named 'no_such_module'",
        ),
        ("x = 1", "AttributeError: module 'cupy' has no attribute 'cuda'"),  # not CuPy at all
    ],
)
def test_broken_import(machine, monkeypatch, tmp_path, text, reason):
    package(tmp_path, text)
    monkeypatch.syspath_prepend(tmp_path)
    found = check(probe(), Status.BROKEN_IMPORT)
    assert found.reason == f"CuPy cannot be imported: {reason}"
    assert found.remedy == f"pip uninstall cupy-cuda12x, then {errors.install('cuda12')}"


def test_no_driver(machine):
    cupy = fake_cupy(driver=0)
    cupy.cuda.runtime.getDeviceCount = raises(RuntimeError(NO_DRIVER))
    machine(cupy)
    found = check(probe(), Status.NO_DRIVER_OR_DEVICE)
    assert found.reason == "no NVIDIA driver is found"
    assert "install the NVIDIA driver" in found.remedy
    assert found.versions == ("14.2.0", None, "12.9")


def test_driver_that_does_not_answer(machine):
    cupy = fake_cupy()
    cupy.cuda.runtime.driverGetVersion = raises(RuntimeError("cudaErrorUnknown: unknown error"))
    machine(cupy)
    found = check(probe(), Status.NO_DRIVER_OR_DEVICE)
    assert found.reason.endswith("does not answer: RuntimeError: cudaErrorUnknown: unknown error")


@pytest.mark.parametrize(
    ("driver", "runtime", "remedy"),
    [
        (
            12040,
            13000,
            f"update the NVIDIA driver, or pip uninstall this CuPy, then {errors.install('cuda12')}",
        ),
        (11080, 12090, "update the NVIDIA driver"),
    ],
)
def test_driver_too_old_for_the_wheel(machine, driver, runtime, remedy):
    cupy = fake_cupy(driver=driver, runtime=runtime)
    cupy.cuda.runtime.getDeviceCount = raises(RuntimeError(NO_DRIVER))
    machine(cupy)
    found = check(probe(), Status.NO_DRIVER_OR_DEVICE)
    versions = (driver // 1000, driver % 1000 // 10, runtime // 1000, runtime % 1000 // 10)
    assert "supports CUDA {}.{}, CuPy needs {}.{}: RuntimeError: cuda".format(*versions) in found.reason
    assert found.remedy == remedy


@pytest.mark.parametrize("visible", [None, "", "7"])
@pytest.mark.parametrize("error", [None, RuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")])
def test_driver_without_a_visible_device(machine, monkeypatch, visible, error):
    cupy = fake_cupy(count=0, driver=12040)  # an older driver of the same major version will do
    if error is not None:
        cupy.cuda.runtime.getDeviceCount = raises(error)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    machine(cupy)
    found = check(probe(), Status.NO_DRIVER_OR_DEVICE)
    why = "it lists none" if error is None else "RuntimeError: cudaErrorNoDevice: no CUDA-capable"
    assert found.reason.startswith(f"the NVIDIA driver (CUDA 12.4) shows no GPU: {why}")
    assert (f"(CUDA_VISIBLE_DEVICES={visible!r})" in found.reason) == (visible is not None)
    assert ("CUDA_VISIBLE_DEVICES" in found.remedy) == (visible is not None)
    assert found.versions.driver == "12.4"


@pytest.mark.parametrize(("runtime", "wheel"), [(12090, "cupy-cuda12x"), (13000, "cupy-cuda13x")])
@pytest.mark.parametrize(("function", "library"), [("multiply", "NVRTC with the CUDA headers"), ("matmul", "cuBLAS")])
def test_missing_libraries(machine, monkeypatch, runtime, wheel, function, library):
    cupy = fake_cupy(driver=13000, runtime=runtime)  # what is installed counts, not what the driver could do
    monkeypatch.setattr(cupy, function, raises(ImportError("libx.so.12: cannot open shared object file")))
    machine(cupy)
    found = check(probe(), Status.MISSING_CUDA_LIBS)
    assert f"not a working {library}: ImportError: libx.so.12: cannot open" in found.reason
    assert found.remedy.startswith(errors.install(wheel[5:11]))
    assert f'pip install "{wheel}[ctk]"' in found.remedy


@pytest.mark.parametrize(
    ("where", "function", "error"),
    [
        (
            "runtime",
            "malloc",
            RuntimeError("cudaErrorDevicesUnavailable: CUDA-capable device(s) is/are busy"),
        ),
        ("cupy", "empty", OutOfMemoryError("Out of memory allocating 512 bytes")),
        ("runtime", "getDeviceProperties", RuntimeError("cudaErrorUnknown: unknown error")),
    ],
)
def test_a_gpu_that_does_not_answer_is_not_a_missing_library(machine, where, function, error):
    cupy = fake_cupy()
    setattr(cupy if where == "cupy" else cupy.cuda.runtime, function, raises(error))
    machine(cupy)
    found = check(probe(), Status.NO_DRIVER_OR_DEVICE)
    assert str(error) in found.reason
    assert "nvidia-smi" in found.remedy


def test_ok(machine):
    machine(fake_cupy(count=2, driver=13010))
    found = check(probe(), Status.OK)
    assert found.device_count == 2
    assert found.devices == ("NVIDIA Fake 0", "NVIDIA Fake 1")
    assert found.versions == ("14.2.0", "13.1", "12.9")


def test_long_errors_are_cut(machine):
    cupy = fake_cupy()
    cupy.matmul = raises(RuntimeError("x" * 1000))
    machine(cupy)
    assert len(check(probe(), Status.MISSING_CUDA_LIBS).reason) < 400


# Once, and quietly -----------------------------------------------------------------------------------------


def test_second_call_costs_nothing_and_refresh_looks_again(machine, monkeypatch):
    looks = []
    monkeypatch.setattr(MODULE, "_examine", lambda: looks.append(1) or Probe(Status.OK))
    first = probe()
    assert probe() is first
    assert len(looks) == 1
    assert probe(refresh=True) is not first
    assert len(looks) == 2


def test_threads_share_one_look(machine, monkeypatch):
    looks, answers = [], []
    begun = threading.Event()

    def examine():
        looks.append(1)
        begun.wait(0.05)  # long enough for every thread to have come
        return Probe(Status.OK)

    monkeypatch.setattr(MODULE, "_examine", examine)
    threads = [threading.Thread(target=lambda: answers.append(probe())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(looks) == 1
    assert len(answers) == 8
    assert len(set(map(id, answers))) == 1


def test_warnings_of_cupy_do_not_leak(machine, monkeypatch, tmp_path):
    package(tmp_path, "import warnings\nwarnings.warn('leak')\nraise ImportError('after the warning')")
    monkeypatch.syspath_prepend(tmp_path)
    # The suite turns warnings into errors, so a leak would be the reason here.
    assert "after the warning" in check(probe(), Status.BROKEN_IMPORT).reason


# get_backend -----------------------------------------------------------------------------------------------


def test_cuda_refused_says_why_and_what_to_do_in_one_line(monkeypatch):
    monkeypatch.setattr("fcnet.backends.select.probe", lambda: Probe(Status.NOT_INSTALLED, "the reason", "the remedy"))
    for name in ("cuda", "cuda:1"):
        with pytest.raises(DeviceError) as caught:
            get_backend(name)
        message = str(caught.value)
        assert isinstance(caught.value, ValueError)
        assert "\n" not in message
        assert all(part in message for part in (repr(name), "the reason", "the remedy", "device='cpu'"))


def test_auto_falls_back_to_the_cpu(monkeypatch):
    monkeypatch.setattr("fcnet.backends.select.probe", lambda: Probe(Status.MISSING_CUDA_LIBS, "reason", "remedy"))
    assert get_backend("auto").name == "cpu"


def test_auto_and_cuda_are_the_first_gpu(machine, monkeypatch):
    machine(fake_cupy(count=2))
    monkeypatch.setattr("fcnet.backends.select._made", {})
    assert get_backend("auto").name == "cuda:0"
    assert get_backend("cuda") is get_backend("cuda:0") is get_backend("auto")
    assert get_backend("cuda:1").name == "cuda:1"


def test_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr("fcnet.backends.select.probe", lambda: Probe(Status.OK, device_count=1, devices=("GPU",)))
    with pytest.raises(DeviceError, match=r"'cuda:7' is not there; this machine has cuda:0$"):
        get_backend("cuda:7")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:-1", "cuda:x", "CUDA", ""])
def test_names_that_are_no_device(name):
    with pytest.raises(ValueError, match="expected 'auto', 'cpu', 'cuda' or 'cuda:N', got"):
        get_backend(name)


def test_numbers_are_no_device():
    with pytest.raises(TypeError, match=r"expected a string such as .* got 3"):
        get_backend(3)


# In a process of its own -----------------------------------------------------------------------------------


def python(code, *path, **environment):
    """Run code with the repository and `path` on sys.path, warnings as errors; its output."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT))), **environment}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=HANGS,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


@pytest.mark.parametrize("statement", ["import fcnet.backends", "import fcnet; fcnet.Solver"])
def test_import_and_the_cpu_never_import_cupy(tmp_path, statement):
    package(tmp_path, "")  # a CuPy that can be imported, whatever is installed
    code = f"{statement}\nimport sys, fcnet.backends\nfcnet.get_backend('cpu')\nprint('cupy' in sys.modules)"
    assert python(code, tmp_path) == "False"


@pytest.fixture
def real_cupy():
    if importlib.util.find_spec("cupy") is None:
        pytest.skip(f"CuPy is not installed: {errors.install('dev-cuda')}")


SHOW = """
from fcnet.backends import probe
found = probe()
print(found.status.name, found.reason, found.remedy, found.versions.cupy, found.versions.driver, sep="|")
"""


def test_the_real_cupy_without_a_gpu(real_cupy):
    status, reason, remedy, version, driver = python(SHOW, CUDA_VISIBLE_DEVICES="").split("|")
    assert status == "NO_DRIVER_OR_DEVICE"
    assert version[0].isdigit()
    if driver == "None":
        assert reason == "no NVIDIA driver is found"
        assert "install the NVIDIA driver" in remedy
    else:  # a GPU machine, with its GPUs hidden
        assert "shows no GPU: CUDARuntimeError: cudaErrorNoDevice" in reason
        assert "CUDA_VISIBLE_DEVICES=''" in reason


def test_the_real_cupy_is_refused_by_name_and_passed_over_by_auto(real_cupy):
    code = """
from fcnet.backends import DeviceError, get_backend
print(get_backend("auto").name)
try:
    get_backend("cuda")
except DeviceError as error:
    print(error)
"""
    auto, message = python(code, CUDA_VISIBLE_DEVICES="").splitlines()
    assert auto == "cpu"
    assert message.startswith("device: 'cuda' cannot be used: ")
    assert message.endswith("; or use device='cpu'")


def test_two_real_wheels(real_cupy, tmp_path):
    for wheel in ("cupy_cuda12x", "cupy_cuda13x"):
        information = tmp_path / f"{wheel}-14.2.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Name: {wheel.replace('_', '-')}\nVersion: 14.2.0\n")
        (information / "top_level.txt").write_text("cupy\n")
    status, reason, remedy, *_ = python(SHOW, tmp_path).split("|")
    assert status == "DUPLICATE_WHEELS"
    assert "cupy-cuda12x and cupy-cuda13x are both installed" in reason
    assert remedy.startswith(f"pip uninstall cupy-cuda12x cupy-cuda13x, then {errors.install('cuda1')[:-2]}")


def test_a_leftover_folder_is_not_cupy(tmp_path):
    if importlib.util.find_spec("cupy") is not None:
        pytest.skip("CuPy is installed, so Python never sees the folder")
    (tmp_path / "cupy").mkdir()  # what an uninstall may leave: Python imports it as an empty package
    status, reason, remedy, *_ = python(SHOW, tmp_path).split("|")
    assert status == "BROKEN_IMPORT"
    assert "no attribute 'cuda'" in reason
    assert remedy.startswith(f"remove {tmp_path / 'cupy'}, then {errors.install('cuda1')[:-2]}")


@pytest.mark.gpu
def test_the_probe_on_a_gpu():
    found = check(probe(), Status.OK)
    assert found.device_count == len(found.devices) >= 1
    assert found.devices[0].startswith("NVIDIA")
    assert all(found.versions)
