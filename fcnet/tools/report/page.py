"""One HTML page without anything from outside: text is escaped, pictures are in it, and it fits a narrow screen."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

from fcnet.data.columns import in_line

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
body { overflow-wrap: break-word; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
.wide { overflow-x: auto; margin: .6rem 0; }
table { border-collapse: collapse; } th, td { padding: .15rem .7rem .15rem 0; text-align: left; vertical-align: top; }
th { border-bottom: 1px solid #8888; } td.n, th.n { text-align: right; white-space: nowrap; }
td:last-child:not(.n) { min-width: 10rem; }
img { max-width: max(100%, 34rem); height: auto; background: white; }
.bar { display: inline-block; height: .8em; background: #3b7dd8; border-radius: 2px; }
.note { color: #777; }
"""


class Page:
    """Write HTML piece by piece: `text` is plain text, never markup."""

    def __init__(self, title: str) -> None:
        """Begin with a title."""
        self.title = title
        self.parts: list[str] = []

    def heading(self, text: str) -> None:
        """Begin a section."""
        self.parts.append(f"<h2>{_plain(text)}</h2>")

    def note(self, text: str) -> None:
        """Add a line of text."""
        self.parts.append(f'<p class="note">{_plain(text)}</p>')

    def picture(self, png: bytes, about: str) -> None:
        """Add a picture; `about` says what it shows to readers who cannot see it."""
        data = base64.b64encode(png).decode()
        self.parts.append(f'<div class="wide"><img alt="{_plain(about)}" src="data:image/png;base64,{data}"></div>')

    def table(self, header: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> None:
        """Add a table; the columns whose places are in `numbers` are aligned right."""
        self._table(header, ([_plain(cell) for cell in row] for row in rows), numbers)

    def bars(self, header: Sequence[str], rows: Iterable[tuple[str, str, float]]) -> None:
        """Add a table of name, figure and a bar of this share, 0 to 1."""
        self._table(
            [*header, ""],
            (
                [_plain(name), _plain(said), f'<span class="bar" style="width: {12 * share:.2f}rem"></span>']
                for name, said, share in rows
            ),
            [1],
        )

    def shaded(self, header: Sequence[str], rows: Iterable[tuple[str, Sequence[tuple[str, float]]]]) -> None:
        """Add a table of cells, each darkened by its share, 0 to 1."""
        lines = []
        for name, cells in rows:
            shades = "".join(
                f'<td class="n" style="background: rgb(59 125 216 / {0.7 * share:.2f}); padding: .15rem .6rem">'
                f"{_plain(text)}</td>"
                for text, share in cells
            )
            lines.append(f"<tr><td>{_plain(name)}</td>{shades}</tr>")
        self._raw_table(header, lines, range(1, len(header)))

    def _table(self, header: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int]) -> None:
        """Return rows of HTML."""
        lines = []
        for row in rows:
            cells = (
                f'<td class="{"n" if at in numbers else "l"}">{cell}</td>' for at, cell in enumerate(row)
            )  # fmt: skip
            lines.append(f"<tr>{''.join(cells)}</tr>")
        self._raw_table(header, lines, numbers)

    def _raw_table(self, header: Sequence[str], lines: Sequence[str], numbers: Sequence[int] | range) -> None:
        titles = "".join(
            f'<th class="n">{_plain(title)}</th>' if at in numbers else f"<th>{_plain(title)}</th>"
            for at, title in enumerate(header)
        )
        head = f"<thead><tr>{titles}</tr></thead>" if any(header) else ""
        self.parts.append(f'<div class="wide"><table>{head}<tbody>{"".join(lines)}</tbody></table></div>')

    def html(self) -> str:
        """Return the whole file."""
        policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
        body = "\n".join(self.parts)
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            f"<title>{_plain(self.title)}</title>\n<style>{STYLE}</style>\n</head>\n"
            f"<body>\n<h1>{_plain(self.title)}</h1>\n{body}\n</body>\n</html>\n"
        )


def _plain(text: str) -> str:
    """Return text as HTML shows it, without signs that have no shape or turn the line around."""
    return escape(in_line(text), quote=True)
