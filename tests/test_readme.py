"""README's examples run as they are written, and what README and the other pages point to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"


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


PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))


def headings(page):
    """Return the anchors that GitHub makes of a page's headings."""
    titles = re.findall(r"^#+ (.*)", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_links_lead_somewhere():
    """Links to files, and to headings in pages."""
    broken = []
    for page in PAGES:
        for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text("utf-8")):
            path, _, anchor = link.partition("#")
            there = page.parent / path if path else page
            if not there.exists() or (anchor and anchor not in headings(there)):
                broken.append(f"{page.relative_to(ROOT)}: {link}")
    assert broken == []


def test_paths_are_there():
    """Paths in code spans of README and CONTRIBUTING that begin with a folder of the repository."""
    for page in PAGES[:2]:
        spans = re.findall(r"`((?:fcnet|backends|tests|benchmarks|docs|examples)/[\w./-]*)`", page.read_text("utf-8"))
        assert spans
        assert [span for span in spans if not (ROOT / span).exists()] == []
