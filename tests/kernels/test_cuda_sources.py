"""Every CUDA source compiles for the oldest architecture and the newest; NVRTC needs no GPU for that."""

import hashlib
import os
from importlib.resources import files

import pytest

from fcnet.backends.cuda.persistent import Plan
from fcnet.backends.cuda.sources import ACTIVATIONS, KEPT, SOURCES, STORED_IN_BF16, activated, source
from fcnet.errors import install
from tests.kernels.cuda_cpu import build_folder
from tests.needed import lacking

# Architecture -> the first NVRTC that knows it.
ARCHITECTURES = {"sm_75": (10, 0), "sm_90": (11, 8), "sm_100": (12, 8)}


@pytest.fixture(scope="module")
def nvrtc():
    """CuPy's binding to NVRTC, or a skip that says what is missing."""
    try:
        import cupy
    except ImportError:
        lacking(f"CuPy is not installed: {install('dev-cuda')}")
    try:
        cupy.cuda.nvrtc.getVersion()
    except (ImportError, RuntimeError) as error:  # pathfinder's error for a missing library is a RuntimeError
        lacking(f"NVRTC cannot be loaded (pip install nvidia-cuda-nvrtc-cu12): {str(error).splitlines()[0]}")
    return cupy.cuda.nvrtc


def cubin(nvrtc, code, architecture):
    """Compile to machine code as CuPy's RawModule does; fails with the compiler's log."""
    program = nvrtc.createProgram(code, "fcnet.cu", (), ())
    try:
        nvrtc.compileProgram(program, (f"-arch={architecture}", "-std=c++17"))
        # A warning marks a mistake more often than not; NVRTC has no option that makes it an error.
        assert not nvrtc.getProgramLog(program).strip("\0\n"), nvrtc.getProgramLog(program)
        return nvrtc.getCUBIN(program)
    except nvrtc.NVRTCError as error:
        raise AssertionError(f"{error}\n{nvrtc.getProgramLog(program)}") from error
    finally:
        nvrtc.destroyProgram(program)


def compiles(nvrtc, code, architecture):
    """Compile once for a source and a compiler, which takes seconds: a file in the folder of the tests says so."""
    if nvrtc.getVersion() < ARCHITECTURES[architecture]:
        pytest.skip(f"NVRTC {nvrtc.getVersion()} is too old for {architecture}")
    name = hashlib.sha256("\0".join([str(nvrtc.getVersion()), architecture, code]).encode()).hexdigest()[:24]
    done = build_folder() / f"{name}.cubin"
    if not done.exists():
        part = done.with_suffix(f".{os.getpid()}")
        part.write_bytes(cubin(nvrtc, code, architecture))
        part.replace(done)
    return done.read_bytes().startswith(b"\x7fELF")


NAMES = [name for name in SOURCES if name not in ("activated", "persistent")]


@pytest.mark.parametrize(
    ("name", "real", "architecture"),
    [*((name, "float", "sm_75") for name in NAMES), ("narrow", "double", "sm_100"), ("optim", "double", "sm_100")],
)
def test_source_compiles(nvrtc, name, real, architecture):
    """Each for the oldest architecture, which lacks most; the newest must know what all share. g++ sees both types."""
    assert compiles(nvrtc, source(name, real), architecture)


@pytest.mark.parametrize(
    ("activation", "real", "architecture"),
    [("tanh", "float", "sm_75"), ("softplus", "float", "sm_90"), ("gelu", "double", "sm_100")],
)
def test_the_kernels_of_an_activation_compile(nvrtc, activation, real, architecture):
    """One that keeps nothing but its output, one that keeps an array, one that keeps two."""
    assert compiles(nvrtc, activated(activation, real), architecture)


@pytest.mark.parametrize("name", [*STORED_IN_BF16, "gelu"])
def test_layers_stored_in_bfloat16_compile(nvrtc, name):
    code = activated(name, "float", "bf16") if name == "gelu" else source(name, "float", "bf16")
    assert compiles(nvrtc, code, "sm_90")


def test_what_activations_keep_is_listed():
    assert KEPT.keys() == ACTIVATIONS.keys()
    assert [KEPT[name] for name in ("tanh", "softplus", "gelu")] == [0, 1, 2]


NORMED = Plan((20, 13, 5), 11, 2, 5, 9, 5, 6, 1, norm=1, regularized=True, decayed=True, clipped=True, rates_at=(0, 64))
LINEAR = Plan((20, 5), 9, 4, 5, 10, 4, 4, rule="sgd", x_type="unsigned char")


@pytest.mark.parametrize(("plan", "architecture"), [(NORMED, "sm_75"), (LINEAR, "sm_90")])
def test_the_kernel_of_a_plan_compiles(nvrtc, plan, architecture):
    """The constants of a network are in its source, and before sm_80 other copies to shared memory."""
    at = [64 * layer for layer in range(plan.layers + 1)]
    offsets = {f"{tensor}_AT": at for tensor in ("W", "B", "GAMMA", "BETA", "MEAN", "VAR")}
    assert compiles(nvrtc, plan.definitions(offsets) + source("persistent"), architecture)


def test_a_broken_source_fails_with_the_file_and_line(nvrtc):
    code = source("philox").replace("k0 += W0;", "k0 += NONSENSE;")
    line = next(i for i, text in enumerate(code.splitlines()) if "NONSENSE" in text) - 1  # for typedef and #line
    with pytest.raises(AssertionError, match=rf'philox\.cu\({line}\): error: identifier "NONSENSE"'):
        cubin(nvrtc, code, "sm_75")


def test_every_file_is_listed_and_every_listed_file_is_there():
    there = {file.name for file in files("fcnet.backends.cuda").iterdir() if file.name.endswith(".cu")}
    assert {file for parts in SOURCES.values() for file in parts} == there


def test_sources_of_several_files_are_joined_in_order(monkeypatch):
    monkeypatch.setitem(SOURCES, "twice", ("philox.cu", "philox.cu"))
    text = source("philox").removeprefix("typedef float real;\n")
    assert source("twice", "double") == f"typedef double real;\n{text}\n{text}"


def test_unknown_source():
    with pytest.raises(KeyError):
        source("no such kernel")


def test_a_warning_fails_too(nvrtc):
    code = source("philox").replace("u64 word[4];", "u64 word[4]; int nobody_uses_this;")
    with pytest.raises(AssertionError, match='"nobody_uses_this" was declared but never referenced'):
        cubin(nvrtc, code, "sm_75")
