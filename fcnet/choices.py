"""What a table of rules, activations or losses offers, read from its source: `fcnet --help` does not wait for NumPy."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import PurePath
from typing import Any


def rows(file: str, table: str) -> dict[str, dict[str, Any]]:
    """Return each name in a table with what its row says in plain values, without importing the module.

    Args:
        file: below fcnet/, such as "optim/rules.py".
        table: a dict that is written out there, NAME: row; of a row, a call, the keyword arguments that are literals
            are read.

    Raises:
        LookupError: the file has no such table.
    """
    package: Any = sys.modules["fcnet"]
    path = PurePath(package.__file__).parent / file
    text = package.__spec__.loader.get_data(str(path)).decode()  # of files, or of a zip
    found = re.search(rf"^{table}\b[^=\n]*= (\{{.*?\}})$", text, re.M | re.S)
    if found is None:
        raise LookupError(f"{path}: expected a dict {table} = {{...}} written out there, found none")
    display: Any = ast.parse(found[1], mode="eval").body
    return {key.value: _literals(row) for key, row in zip(display.keys, display.values, strict=True)}


def _literals(row: ast.expr) -> dict[str, Any]:
    keywords = row.keywords if isinstance(row, ast.Call) else []
    return {
        keyword.arg: ast.literal_eval(keyword.value)
        for keyword in keywords
        if keyword.arg is not None and isinstance(keyword.value, ast.Constant | ast.UnaryOp)
    }
