"""What both `install` functions do: a course's module names find fcnet's modules."""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


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


def without(names: Sequence[str], module: str) -> Callable[[str], object]:
    """A `__getattr__` for a module of a course that fcnet has but for these names."""

    def get(name: str) -> object:
        if name in names:  # an AttributeError would become "cannot import name", without the reason
            raise ImportError(_reason(f"{module}.{name}"), name=module)
        raise AttributeError(f"module {module!r} has no attribute {name!r}", name=name)

    return get


def _reason(name: str) -> str:
    return (
        f"{name}: fcnet has what is about fully connected nets, not this; "
        "use the course's own file, in a session without install()"
    )
