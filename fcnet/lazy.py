"""Public names that are imported when first asked for (PEP 562), so that `import fcnet` costs next to nothing."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any


def attach(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package whose public names its stub, `__init__.pyi`, imports.

    The stub is what type checkers and editors read, so there is one list for them and for Python. A name that it
    imports from the package itself is a module in it. What was asked for once is an attribute afterwards.
    """
    stub = ast.parse(Path(file).with_suffix(".pyi").read_text("utf-8"))
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
        if module == package:
            value: Any = import_module(f"{package}.{original}")
        else:
            value = getattr(import_module(module), original)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *where})

    return get, names, sorted(where)
