"""The guarded list against the real CuPy, whose functions can be looked at without a GPU."""

import inspect

import numpy as np
import pytest

from tests.guard import GUARDED, UFUNCS, GuardArray


@pytest.fixture
def cupy():
    return pytest.importorskip("cupy")


def test_cupy_has_every_name(cupy):
    assert [name for name in sorted(GUARDED) if not hasattr(cupy, name)] == []


def test_the_ufuncs_are_ufuncs(cupy):
    for name in UFUNCS:
        function = getattr(cupy, name)
        assert isinstance(function, cupy.ufunc), name
        assert function.nin == getattr(np, name).nin
        for keyword in ("out=", "dtype="):
            assert keyword in function.__doc__.splitlines()[0], name


@pytest.mark.parametrize("name", sorted(GUARDED - set(UFUNCS) - {"dtype"}))
def test_the_signatures_are_cupys(cupy, guard, name):
    theirs = inspect.signature(getattr(cupy, name)).parameters
    mine = inspect.signature(getattr(guard.xp, name)).parameters
    positions = {parameter: i for i, parameter in enumerate(theirs)}
    for i, (parameter, described) in enumerate(mine.items()):
        assert parameter in theirs, f"cupy.{name} has no {parameter}"
        if parameter != "dtype":  # given by keyword everywhere
            assert positions[parameter] == i, f"cupy.{name}: {parameter} stands elsewhere"
        assert (described.default is inspect.Parameter.empty) == (
            theirs[parameter].default is inspect.Parameter.empty
        ), f"cupy.{name}: {parameter}: another default"


def test_arrays_have_the_attributes(cupy):
    mine = [name for name in vars(GuardArray) if not name.startswith("_")]
    assert {"reshape", "swapaxes", "astype", "copy", "T", "item"} <= set(mine)
    assert [name for name in mine if not hasattr(cupy.ndarray, name)] == []


def test_what_the_guard_lacks_cupy_lacks_too(cupy):
    assert "mode" not in inspect.signature(cupy.take).parameters
    assert not hasattr(cupy.ndarray, "__index__")
    assert not hasattr(cupy.ndarray, "__array_interface__")
