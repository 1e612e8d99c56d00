"""Public names that are imported when first asked for (PEP 562), so that `import fcnet` costs next to nothing."""

from __future__ import annotations

import ast
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any

# Two threads that enter a package at once, one by itself and one by a module in it, wait for each other's import. The
# modules of fcnet never ask for a name in this way while they are imported: only askers wait for this lock.
_importing = threading.RLock()


def attach(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return `__getattr__`, `__dir__` and `__all__` of a package whose public names its stub, `__init__.pyi`, imports.

    The stub is what type checkers and editors read, so there is one list for them and for Python. A name that it
    imports from the package itself is a module in it. What was asked for once is an attribute afterwards.
    """
    loader: Any = sys.modules[package].__spec__.loader  # type: ignore[union-attr]  # of files, or of a zip
    stub = ast.parse(loader.get_data(f"{file.removesuffix('c').removesuffix('.py')}.pyi"))
    where = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in stub.body
        if isinstance(node, ast.ImportFrom) and node.module is not None
        for alias in node.names
    }

    def get(name: str) -> Any:
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name, obj=sys.modules[package])
        module, original = where[name]
        with _importing:
            if module == package:
                value: Any = import_module(f"{package}.{original}")
            else:
                value = getattr(import_module(module), original)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *where})

    return get, names, sorted(where)
