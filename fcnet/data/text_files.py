"""Tables from text files: .csv, .tsv, .txt, .data, packed by gzip or not, in blocks of rows."""

from __future__ import annotations

import codecs
import csv
import gzip
import re
import zlib
from array import array
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

from fcnet.data.cells import all_numbers, is_missing, number
from fcnet.data.columns import Cells, Columns, Numbering, in_line, normalised, without_missing
from fcnet.data.sniffing import BLANKS, SEPARATORS, cells_of, decimal_sign, header, sample_rows, separator
from fcnet.errors import counted, shown

BLOCK = 1 << 18  # cells
SAMPLE = 1 << 16  # characters
_FALLBACK = "cp1252"  # what Windows saves where it does not save UTF-8; it has latin-1's letters


@dataclass(frozen=True)
class Reading:
    """Describe how to read a file; None: to be found out.

    header: whether the first row holds names. sep: separator, " " for blanks. decimal: "." or ",".
    missing: what stands for a missing value, besides the usual.
    names: of all columns of a file without header. optional: those of them that it may lack. prefer: the separator, if
    it fits.
    """

    header: bool | None = None
    sep: str | None = None
    decimal: str | None = None
    missing: frozenset[str] = frozenset()
    names: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    prefer: str | None = None


AsText = Callable[[tuple[str, ...]], Collection[str]]


def read_text(path: Path, reading: Reading, as_text: AsText = lambda names: ()) -> Columns:
    """Read a text table: numbers as such, anything else as text.

    as_text: the columns, of those that there are, whose cells are kept as they are spelled, numbers too.

    Raises ValueError with the file, and where it applies the line, for whatever is not a table.
    """
    encoding = _encoding(path)
    notes: list[str] = []
    try:
        return _read(path, reading, as_text, encoding, notes)
    except UnicodeDecodeError:
        if encoding != "utf-8-sig":
            raise ValueError(f"{path}: expected text in {encoding}; got other bytes; save it as UTF-8") from None
    try:
        return _read(path, reading, as_text, _FALLBACK, ["it is not UTF-8; read as Windows-1252 (latin-1)"])
    except UnicodeDecodeError:
        raise ValueError(f"{path}: expected UTF-8 text; got other bytes; save it as UTF-8") from None


def _read(path: Path, reading: Reading, as_text: AsText, encoding: str, notes: list[str]) -> Columns:
    with _opened(path, encoding) as stream:
        sample = re.sub(r"\A\s*#+[ \t]*", "", _sample(path, stream))  # before names that NumPy's savetxt wrote
    if not sample.strip():
        raise ValueError(f"{path}: expected a header and rows; got an empty file")
    sep = reading.sep
    if sep is None:
        sep, other = separator(sample, reading.prefer)
        if other is not None:
            notes.append(f"taken for separated by {SEPARATORS[sep]}; for {SEPARATORS[other]} give --sep")
    rows = sample_rows(sample, sep)
    if not rows:
        raise ValueError(
            f"{path}: expected a header and rows, with {SEPARATORS.get(sep, repr(sep))} between cells; got none"
        )
    decimal, mixed = (reading.decimal, False) if reading.decimal else decimal_sign(rows[1:] or rows, sep)
    if mixed:
        notes.append(f"numbers with both decimal signs; {decimal!r} is taken; --decimal says otherwise")
    has_header = _has_header(path, rows, decimal, reading, notes)
    layout = _layout(path, rows, sep, has_header, reading)
    text = frozenset(as_text(layout.names))
    found = _Blocks(path, layout, decimal, reading.missing, [name in text for name in layout.names])
    _parse(path, encoding, sep, found)
    if mixed_columns := [at for at, column in enumerate(found.columns) if column.mixed]:
        only_mixed = [at in mixed_columns for at in range(layout.width)]
        second_pass = _Blocks(path, layout, decimal, reading.missing, only_mixed)
        second_pass.only = mixed_columns
        _parse(path, encoding, sep, second_pass)
        for at in mixed_columns:
            found.columns[at] = second_pass.columns[at]
    cells = tuple(column.cells(reading.missing) for column in found.columns)
    lines = np.frombuffer(found.lines, dtype=np.int64)
    if not len(lines):
        raise ValueError(f"{path}: expected rows below the header; got none")
    return Columns(
        layout.names, cells, len(lines), str(path), lines, has_header, decimal, sep, reading.missing, tuple(notes)
    )


# Opening


def _encoding(path: Path) -> str:
    """Return the encoding that a file's first bytes say, else UTF-8. Raises ValueError for what is no text at all."""
    with _binary(path) as stream:
        start = stream.read(4096)
    if start.startswith(b"PK\x03\x04"):
        raise ValueError(
            f"{path}: expected text; got a spreadsheet or a zip archive; save the sheet as CSV, or unpack it"
        )
    if start.startswith(b"PAR1"):
        raise ValueError(f"{path}: expected text; got a Parquet file; give it a name that ends in .parquet")
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    odd = sum(byte < 32 and byte not in b"\t\n\r\f" for byte in start)
    if b"\0" in start or (odd > 0.05 * len(start) and not start.isascii()):
        raise ValueError(f"{path}: expected UTF-8 text; got other bytes; save the table as CSV in UTF-8")
    return "utf-8-sig"


@contextmanager
def _binary(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
        stream.seek(0)
        if not packed:
            yield stream
            return
        try:
            with gzip.GzipFile(fileobj=stream) as unpacked:
                yield unpacked  # type: ignore[misc]
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(
                f"{path}: expected a complete gzip file; got a damaged one ({error}); copy it again"
            ) from None


@contextmanager
def _opened(path: Path, encoding: str) -> Iterator[IO[str]]:
    import io

    with _binary(path) as stream, io.TextIOWrapper(stream, encoding=encoding, newline="") as text:
        yield text


def _sample(path: Path, stream: IO[str]) -> str:
    """Return the first characters of a file, and of more than fit its whole lines; always two lines."""
    sample = stream.read(SAMPLE)
    if len(sample) < SAMPLE:
        return sample
    sample += stream.readline()
    while sample.count("\n") + sample.count("\r") < 3 and (line := stream.readline()):
        sample += line
    return sample


# Names and widths


@dataclass(frozen=True)
class _Layout:
    """Hold the names of the columns, and how many rows before the first are no data."""

    names: tuple[str, ...]
    skip: int

    @property
    def width(self) -> int:
        return len(self.names)


def _has_header(path: Path, rows: Sequence[Sequence[str]], decimal: str, reading: Reading, notes: list[str]) -> bool:
    found = header(rows, decimal)
    if reading.header is None:
        if not found.obvious:
            first = ", ".join(in_line(cell.strip()[:20]) for cell in rows[0][:4])
            taken = "for names" if found.found else "for data"
            notes.append(
                f"the first row ({first}{', ...' if len(rows[0]) > 4 else ''}) is taken {taken}: {found.why}; "
                f"--header {'no' if found.found else 'yes'} takes it otherwise"
            )
        return found.found
    if not reading.header and reading.names and found.found and found.obvious:
        raise ValueError(
            f"{path}: expected a file without header, as in training; got names in its first row "
            f"({', '.join(in_line(cell.strip()[:20]) for cell in rows[0][:4])}); remove that row"
        )
    return reading.header


def _layout(path: Path, rows: Sequence[Sequence[str]], sep: str, has_header: bool, reading: Reading) -> _Layout:
    width = len(rows[0])
    body = rows[1:] or rows
    if not has_header:
        if width > 1 and all(len(row) == width and not row[-1].strip() for row in rows):
            width -= 1  # each line ends in a separator
        if not reading.names:
            return _Layout(tuple(map(str, range(width))), 0)
        for names in (reading.names, tuple(name for name in reading.names if name not in reading.optional)):
            if width == len(names):
                return _Layout(names, 0)
        least = len(reading.names) - len(reading.optional)
        either = f"{len(reading.names)} columns, as in training" + (
            f", or {least} without the target" if reading.optional else ""
        )
        raise ValueError(f"{path}: expected {either}; got {width}; give the same columns in the same order")
    titles = [cell.strip() for cell in rows[0]]
    if all(len(row) == width + 1 for row in body) and any(row[-1].strip() for row in body):
        titles.insert(0, "")  # R writes names of the rows, and no name above them
    elif width > 1 and not titles[-1] and all(len(row) < width or not row[-1].strip() for row in body):
        del titles[-1]
    return _Layout(tuple(title or f"Unnamed: {at}" for at, title in enumerate(titles)), 1)


# All rows, in blocks


def _parse(path: Path, encoding: str, sep: str, blocks: _Blocks) -> None:
    try:
        with _opened(path, encoding) as stream:
            line = 0
            for line, row in cells_of(stream, sep, strict=True):
                blocks.add(line, row)
            blocks.flush()
    except csv.Error as error:
        raise ValueError(
            f"{path}: expected {SEPARATORS.get(sep, repr(sep))} between cells; got a damaged row after line {line} "
            f"({error}); a cell with a separator, a quote or a line end stands in quotes, and its own quotes are "
            'doubled: "a ""b"""'
        ) from None


class _Blocks:
    """Take rows, and give each column the cells of many at once."""

    def __init__(
        self, path: Path, layout: _Layout, decimal: str, missing: frozenset[str], as_text: Sequence[bool]
    ) -> None:
        self.path, self.width, self.skip = path, layout.width, layout.skip
        self.decimal, self.missing = decimal, missing
        self.columns = [_Column(Numbering() if text else None) for text in as_text]
        self.only: list[int] | None = None
        self.lines = array("q")
        self.rows: list[list[str]] = []
        self.most = max(1, BLOCK // layout.width)

    def add(self, line: int, row: list[str]) -> None:
        """Take a row that ends in this line of the file. Raises ValueError for one of another width."""
        if self.skip:
            self.skip -= 1
            return
        if len(row) != self.width:
            if len(row) == self.width + 1 and not row[-1].strip():  # the line ends in a separator
                row.pop()
            else:
                raise ValueError(
                    f"{self.path}: line {line}: expected {counted(self.width, 'cell')}; got {len(row)}; "
                    "fill in or quote what is off, or give the separator with --sep"
                )
        self.lines.append(line)
        self.rows.append(row)
        if len(self.rows) == self.most:
            self.flush()

    def flush(self) -> None:
        """Append the collected rows to the columns."""
        if not self.rows:
            return
        if self.only is None:
            for column, cells in zip(self.columns, zip(*self.rows, strict=True), strict=True):
                column.add(cells, self.decimal, self.missing)
        else:
            for at in self.only:
                self.columns[at].add([row[at] for row in self.rows], self.decimal, self.missing)
        self.rows = []


@dataclass
class _Column:
    """Collect the cells of a column: numbers, or codes of texts; `mixed` if text came after numbers."""

    words: Numbering | None
    parts: list[np.ndarray] = field(default_factory=list)
    mixed: bool = False

    def add(self, cells: Sequence[str], decimal: str, missing: frozenset[str]) -> None:
        if self.mixed:
            return
        if self.words is None:
            values = all_numbers(cells, decimal)
            if values is None:
                values = _numbers_or_missing(cells, decimal, missing)
            if values is not None:
                self.parts.append(values)
                return
            if self.parts:
                self.mixed = True
                return
            self.words = Numbering()
        self.parts.append(np.fromiter(map(self.words.__getitem__, cells), np.int64, len(cells)))

    def cells(self, missing: frozenset[str]) -> Cells:
        """Return all cells."""
        values = np.concatenate(self.parts) if self.parts else np.empty(0)
        if self.words is None:
            return without_missing(values, missing)
        return normalised(values, self.words, missing)


def _numbers_or_missing(cells: Sequence[str], decimal: str, missing: frozenset[str]) -> np.ndarray | None:
    """Return numbers, NaN where a cell is missing; None if one is anything else."""
    values = []
    for cell in cells:
        value = number(cell, decimal)
        if value is None:
            if not is_missing(cell.strip(), missing):
                return None
            value = np.nan
        values.append(value)
    return np.array(values, dtype=np.float64)


def separator_named(text: str) -> str:
    """Return the separator that a user names: itself, or tab, blank, comma, semicolon. Raises ValueError."""
    named = {"tab": "\t", "\\t": "\t", "blank": BLANKS, "blanks": BLANKS, "space": BLANKS, "whitespace": BLANKS}
    named |= {"comma": ",", "semicolon": ";", "bar": "|", "\\s+": BLANKS}
    sep = named.get(text.lower(), text)
    if len(sep) != 1 or sep in '"\n\r' or sep.isalnum():
        raise ValueError(f"sep: expected one character, or tab or blank; got {shown(text)}; for example ;")
    return sep
