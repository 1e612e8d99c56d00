"""docs/defaults.md has each default once, with the value of fcnet/defaults.py."""

from __future__ import annotations

import re
from pathlib import Path

from fcnet import defaults


def test_the_table_is_what_the_code_says():
    written = (Path(__file__).parent.parent / "docs" / "defaults.md").read_text("utf-8")
    rows = re.findall(r"^\| `([A-Z0-9_]+)` \| (\S+) \|", written, re.MULTILINE)
    code = {name: value for name, value in vars(defaults).items() if name.isupper()}
    assert rows == [(name, value if isinstance(value, str) else f"{value:g}") for name, value in code.items()]
