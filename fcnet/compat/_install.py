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
from typing import Any, NoReturn


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
            if not module.name.endswith(".__main__"):
                sys.modules[module.name.replace(this.__name__, name, 1)] = import_module(module.name)
    if _ABSENT not in sys.meta_path:
        sys.meta_path.append(_ABSENT)  # last: asked only when nothing else finds the module


class _Absent(MetaPathFinder):
    """Say why a module of a course is not there, such as one about convolutions."""

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


def without(names: Iterable[str], module: str, namespace: dict[str, Any]) -> Callable[[str], object]:
    """Return a `__getattr__` for a module of a course that fcnet has but for these names.

    Asked for by `from module import name` or as an attribute, such a name raises ImportError with the reason. A star
    import brings all names at once, most of them wanted: there it is an object that raises the same when it is used.

    Args:
        names: what the course's module has and fcnet has not; what star imports brought of this kind is added.
        module: the course's name of the module.
        namespace: the module's globals(), with its `__all__`, to which the names are added.
    """
    brought = [name for name, value in namespace.items() if isinstance(value, _NotHere)]
    for name in brought:
        del namespace[name]  # or `from module import name` would find it
    absent = dict.fromkeys([*names, *brought])
    namespace["__all__"] = [name for name in namespace["__all__"] if name not in absent] + [*map(_Starred, absent)]

    def get(name: str) -> object:
        if name not in absent:
            raise AttributeError(f"module {module!r} has no attribute {name!r}", name=name)
        if isinstance(name, _Starred):
            return _NotHere(f"{module}.{name}")
        # An AttributeError would become "cannot import name", without the reason.
        raise ImportError(_reason(f"{module}.{name}"), name=module)

    return get


class _Starred(str):
    """Stand for a name in an `__all__` that the module does not have.

    Python asks a module for the names of a star import with the very strings of its `__all__`.
    """

    __slots__ = ()


class _NotHere:
    """Stand in a star import for something that fcnet does not have: to use it raises ImportError."""

    def __init__(self, name: str) -> None:
        self._name = name

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise ImportError(_reason(self._name), name=self._name)

    def __repr__(self) -> str:
        return f"<{_reason(self._name)}>"

    __call__ = __getitem__ = __iter__ = __len__ = _refuse

    def __getattr__(self, name: str) -> NoReturn:
        # Of the attributes that Python itself looks for, those of a base class and of one for isinstance.
        if name.startswith("__") and name not in ("__mro_entries__", "__bases__"):
            raise AttributeError(name)
        self._refuse()


def _reason(name: str) -> str:
    return (
        f"{name}: fcnet has what is about fully connected nets, not this; "
        "use the course's own file, in a session without install()"
    )
