"""What both `install` functions do: a course's module names find fcnet's modules."""

from __future__ import annotations

import argparse
import os
import pkgutil
import runpy
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import NoReturn


def install(names: Mapping[str, str]) -> None:
    """Make `import NAME`, and its submodules, find the module of fcnet that `names` maps it to.

    Raises:
        ImportError: another module of such a name has been imported already; then nothing is changed.
    """
    modules = {name: import_module(module) for name, module in names.items()}
    for name, this in modules.items():
        other = sys.modules.get(name, this)
        if other is not this:
            where = getattr(other, "__file__", None) or list(getattr(other, "__path__", ["?"]))
            raise ImportError(
                f"install: expected no other {name} to be imported, got the one in {where}; "
                f"start Python again and call install() before importing {name}"
            )
    for name, this in modules.items():
        sys.modules[name] = _ABSENT.roots[name] = this
        for module in pkgutil.walk_packages(getattr(this, "__path__", []), f"{this.__name__}."):
            sys.modules[module.name.replace(this.__name__, name, 1)] = import_module(module.name)
    if _ABSENT not in sys.meta_path:
        sys.meta_path.append(_ABSENT)  # last: asked only when nothing else finds the module


class _Absent(MetaPathFinder):
    """Says why a module of a course is not there, such as one about convolutions."""

    def __init__(self) -> None:
        self.roots: dict[str, ModuleType] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        root = fullname.partition(".")[0]
        if root in self.roots and root != fullname and sys.modules.get(root) is self.roots[root]:
            raise ModuleNotFoundError(_reason(fullname), name=fullname)
        return None


_ABSENT = _Absent()


class _Starred(str):
    """A name in `__all__`: a star import asks the module for this very object, whoever else asks gives a plain str."""


def starred(names: Iterable[str]) -> list[str]:
    """For `__all__`: names that a star import is to bring although fcnet has not what they name; see `without`."""
    return [_Starred(name) for name in names]


def without(names: Sequence[str], module: str) -> Callable[[str], object]:
    """A `__getattr__` for a module of a course that fcnet has but for these names.

    Asking for one raises an ImportError with the reason. A star import, which must not fail for the sake of one name,
    gets a class for each of the names in `starred`; making an object of it, or calling it, raises the same.
    """

    def get(name: str) -> object:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}", name=name)

        def refuse(*args: object, **kwargs: object) -> NoReturn:
            # An AttributeError would become "cannot import name", without the reason.
            raise ImportError(_reason(f"{module}.{name}"), name=module)

        if isinstance(name, _Starred):
            return type(str(name), (), {"__new__": refuse})
        refuse()

    return get


def run_script(install: Callable[[], None]) -> None:
    """The command `python -m PACKAGE SCRIPT ...`: call `install`, then run the script as Python itself would."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {install.__module__}", description="Run a script of the course, unmodified, on fcnet."
    )
    parser.add_argument("script", help="a file of Python code")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="what the script finds in sys.argv[1:]")
    options = parser.parse_args()
    if not os.path.isfile(options.script):
        parser.error(f"script: expected a file of Python code, got {options.script!r}, which is none")
    sys.argv = [options.script, *options.arguments]
    if not sys.flags.safe_path:
        sys.path[0] = os.path.dirname(os.path.abspath(options.script))
    install()
    runpy.run_path(options.script, run_name="__main__")


def _reason(name: str) -> str:
    return (
        f"{name}: fcnet has what is about fully connected nets, not this; "
        "use the course's own file, in a session without install()"
    )
