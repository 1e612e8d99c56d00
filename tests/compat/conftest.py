"""A session in which the courses' module names are free, and one in which they are installed."""

import sys

import numpy as np
import pytest

from fcnet.compat import cs231n, dlfs
from fcnet.compat.cs231n import _year

NAMES = ("cs231n", "common", "dataset", "two_layer_net")


@pytest.fixture(autouse=True)
def beginning():
    """Restore what the courses' code changes in the process: the global generator and the course's year."""
    np.random.seed(231)
    yield
    _year.set_year(None)


def course_modules():
    return [name for name in sys.modules if name.split(".")[0] in NAMES]


@pytest.fixture
def no_course(monkeypatch):
    """Nobody has imported a course's module, before and after."""
    for name in course_modules():
        monkeypatch.delitem(sys.modules, name)
    yield
    for name in course_modules():
        del sys.modules[name]


@pytest.fixture
def installed(no_course):
    """`install()` of both courses has been called."""
    cs231n.install()
    dlfs.install()
