"""README's examples of the library run as they are written, and the first prints what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"


def test_the_first_example_prints_what_is_shown(tmp_path, monkeypatch, capsys):
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    found = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    assert found is not None
    assert found.start() == README.read_text("utf-8").index("```python")
    names: dict[str, object] = {}
    exec(compile(found[1], "README.md", "exec"), names)
    assert capsys.readouterr().out == found[2]
    for following in re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)[1:3]:
        exec(compile(following, "README.md", "exec"), names)
