"""From a reference function to a kernel: chosen by name and precondition, once."""

import inspect

import numpy as np
import pytest

from fcnet.backends import (
    REGISTRY,
    Kernel,
    Op,
    accelerated,
    checked,
    get_backend,
    select,
)
from fcnet.backends.numpy_backend import NumpyBackend


@pytest.fixture
def calls():
    return []


@pytest.fixture
def op(calls, monkeypatch):
    """`shifted(x, by)`: returns x + by and a cache; check and reference leave a note of each call."""

    def check(x, by=1.0, **_):
        calls.append("check")
        if x.ndim != 1:
            raise ValueError("shifted: x: expected one axis")

    @accelerated("out", "cache", check=check)
    def shifted(backend, x, by=1.0, *, out=None):
        """Return the readable one."""
        calls.append("reference")
        return backend.xp.add(x, by, out=out), x

    yield shifted
    del REGISTRY["shifted"]


class Fast(NumpyBackend):
    """A device with a kernel for `shifted` that fits even lengths only."""

    name = "fast"
    kernels = {}  # noqa: RUF012 (set for each instance below)

    def __init__(self, calls):
        super().__init__()

        def shifted(x, by=1.0, *, out=None):
            calls.append("kernel")
            return x + by, x

        def fits(x, by=1.0, **_):
            calls.append("fits")
            return x.size % 2 == 0

        self.kernels = {"shifted": Kernel(shifted, fits)}

    def owns(self, array):
        return isinstance(array, Things)


class Things:
    """Not a NumPy array; as much of one as the reference needs."""

    def __init__(self, size):
        self.size, self.ndim = size, 1

    def __add__(self, other):
        return ("sum", other)


@pytest.fixture
def fast(calls, monkeypatch):
    backend = Fast(calls)
    backend.xp = type("xp", (), {"add": staticmethod(lambda x, by, out=None: ("sum", by))})
    monkeypatch.setitem(select._made, backend.name, backend)
    return backend


def test_without_a_kernel_the_reference_runs(op, calls):
    out, _ = op(np.ones(2), 2.0)
    np.testing.assert_array_equal(out, [3, 3])
    assert calls == ["check", "reference"]


def test_a_kernel_is_chosen_by_name_if_it_fits(op, calls, fast):
    assert op(Things(4), 2.0)[0] == ("sum", 2.0)
    assert calls == ["check", "fits", "kernel"]


def test_else_it_falls_back_to_the_reference(op, calls, fast):
    assert op(Things(3), 2.0)[0] == ("sum", 2.0)
    assert calls == ["check", "fits", "reference"]


def test_other_devices_do_not_get_the_kernel(op, calls, fast):
    op(np.ones(4))
    assert "kernel" not in calls


def test_a_kernel_of_another_name_is_not_chosen(op, calls, fast):
    fast.kernels = {"moved": fast.kernels["shifted"]}
    op(Things(4))
    assert calls == ["check", "reference"]


def test_the_check_comes_first_and_stops_the_call(op, calls):
    with pytest.raises(ValueError, match="shifted: x: expected one axis"):
        op(np.ones((2, 2)))
    assert calls == ["check"]


def test_choosing_does_not_call(op, calls, fast):
    assert op.choose(Things(4)) is fast.kernels["shifted"].function
    assert op.choose(Things(3)) is op.reference
    assert "kernel" not in calls
    assert "reference" not in calls


def test_the_reference_by_itself_checks_nothing(op, calls):
    op.reference(np.ones(2))
    assert calls == ["reference"]


def test_outputs_are_the_keyword_only_results(op):
    assert op.results == ("out", "cache")
    assert op.outputs == {"out"}

    @accelerated("w")
    def in_place(backend, w, dw, *, work):
        return w

    try:
        assert in_place.outputs == frozenset()
        assert in_place.check is None
    finally:
        del REGISTRY["in_place"]


def test_a_checked_function_meets_no_kernel(calls, fast):
    @checked("out", check=lambda *_: calls.append("check"))
    def shifted(backend, x, by=1.0, *, out=None):
        return backend.xp.add(x, by, out=out)

    assert shifted(Things(4), 2.0) == ("sum", 2.0)
    assert calls == ["check"]
    assert shifted.choose(Things(4)) is shifted.reference
    assert "shifted" not in REGISTRY


def test_a_formula_without_a_backend_is_refused():
    with pytest.raises(TypeError, match="doubled: expected `backend` as the first parameter, got x"):

        @checked("out")
        def doubled(x):
            return x


def test_it_looks_like_the_function(op):
    assert isinstance(op, Op)
    assert REGISTRY["shifted"] is op
    assert (op.__name__, op.__doc__) == ("shifted", "Return the readable one.")
    assert list(inspect.signature(op).parameters) == ["x", "by", "out"]
    assert "shifted" in repr(op)


def test_no_array_is_refused(op, monkeypatch):
    op.check = None
    with pytest.raises(TypeError, match="expected an array of NumPy or CuPy"):
        op([1.0])


def test_the_table_of_a_device_is_its_own():
    assert get_backend("cpu").kernels is not None
    assert all(isinstance(kernel, Kernel) for kernel in get_backend("cpu").kernels.values())
