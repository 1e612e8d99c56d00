"""Named columns of a table before anything is made of them, from files, data frames, dictionaries and lists."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fcnet.data.cells import all_numbers, amounts, is_missing, number
from fcnet.errors import alike, cut, printable, shown

NONE = -1  # the code of a missing cell


@dataclass(frozen=True, eq=False)
class Text:
    """Hold cells (N,) of text: `codes` are places in `words`, which are different, or NONE for a missing cell.

    levels: the words that may come, where their kind says so (a categorical of a data frame). ordered: in that order.
    """

    codes: np.ndarray
    words: tuple[str, ...]
    levels: tuple[str, ...] | None = None
    ordered: bool = False

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, rows: np.ndarray | slice) -> Text:
        """Return these rows; words that none of them has stay."""
        return Text(self.codes[rows], self.words, self.levels, self.ordered)

    def numbers(self, decimal: str = ".") -> np.ndarray | None:
        """Return the cells as float64, NaN where one is missing, if each spells a number; else None."""
        values = all_numbers(self.words, decimal) if self.words else np.empty(0)
        return None if values is None else self.spread(values, np.nan)

    def amounts(self, decimal: str = ".", sign: str | None = None) -> tuple[np.ndarray, str] | None:
        """Return the cells as float64, NaN where one is missing, and their sign; see `fcnet.data.cells.amounts`."""
        found = amounts(self.words, decimal, sign)
        return None if found is None else (self.spread(found[0], np.nan), found[1])

    def spread(self, values: np.ndarray, missing: Any) -> np.ndarray:
        """Return a value (W,) of each word for each cell (N,), and `missing` for a missing one."""
        return np.append(values, np.asarray(missing, values.dtype))[self.codes]  # code -1 is the last

    def counts(self) -> np.ndarray:
        """Return how often each word comes, (W,)."""
        return np.bincount(self.codes[self.codes >= 0], minlength=len(self.words))


#: The cells of one column: float64 with NaN for a missing one, bool, datetime64 with NaT, or text.
Cells = np.ndarray | Text


@dataclass(frozen=True, eq=False)
class Columns:
    """Hold columns of N cells each, by name and in order.

    source: what messages begin with, a file's name. lines: (N,) where the rows stand in it; None: rows count from 0.
    header: whether the names stand in the file, or are 0, 1, ... decimal: its decimal sign, sep: its separator.
    missing: what the user said stands for a missing value. notes: what was decided that the user may want otherwise.
    """

    names: tuple[str, ...]
    cells: tuple[Cells, ...]
    count: int
    source: str = ""
    lines: np.ndarray | None = None
    header: bool = True
    decimal: str = "."
    sep: str | None = None
    missing: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    _places: dict[str, int] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._places.update((name, at) for at, name in enumerate(self.names))
        if len(self._places) < len(self.names):
            seen: set[str] = set()
            twice = next(name for name in self.names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
            raise ValueError(f"{self.begin}expected different column names; got {shown(twice)} twice; rename one")

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def __getitem__(self, name: str) -> Cells:
        return self.cells[self._places[name]]

    def __iter__(self) -> Iterator[tuple[str, Cells]]:
        return iter(zip(self.names, self.cells, strict=True))

    def place(self, name: str) -> int:
        """Return the place of a column, 0 for the first."""
        return self._places[name]

    @property
    def begin(self) -> str:
        """Return how a message about the table begins."""
        return f"{self.source}: " if self.source else ""

    def where(self, row: int, name: str) -> str:
        """Return how a message calls a cell: file, line (or row) and column."""
        place = f"row {row}" if self.lines is None else f"line {self.lines[row]}"
        return f"{self.begin}{place}, column {shown(name)}"

    def take(self, rows: np.ndarray) -> Columns:
        """Return these rows, numbers or a mask."""
        if rows.dtype == bool:
            rows = np.flatnonzero(rows)
        cells = tuple(cell.take(rows) if isinstance(cell, Text) else cell[rows] for cell in self.cells)
        lines = None if self.lines is None else self.lines[rows]
        return Columns(
            self.names, cells, len(rows), self.source, lines, self.header, self.decimal, self.sep, self.missing,
            self.notes,
        )  # fmt: skip

    def find(
        self,
        argument: str,
        name: str | int,
        hint: Callable[[str], str] = lambda name: "",
        besides: Collection[str] = (),
    ) -> str:
        """Return the column that `name` means: its name, or its number, 0 for the first and -1 for the last.

        Raises ValueError, with the nearest name but those of `besides`, and what `hint` says of it.
        """
        text = str(name)
        if text in self._places:
            return text
        if (at := place_of(text)) is not None and -len(self.names) <= at < len(self.names):
            return self.names[at]
        names = [name for name in self.names if name not in besides]
        near = alike(text, names, most=1) if len(names) <= 2000 else []
        remedy = hint(text) or (f"; did you mean {shown(near[0])}?" if near else "")
        if len(self.names) == 1 and self.sep is not None:
            remedy = "; is the separator another one? give it with --sep"
        raise ValueError(
            f"{self.begin}{argument}: expected one of {listed(names)}{self.unnamed}; got {shown(text)}{remedy}"
        )

    @property
    def unnamed(self) -> str:
        """Return what a message adds where columns have no names."""
        return "" if self.header else " (numbers, for the first row holds no names; --header yes takes it for names)"


def place_of(text: str) -> int | None:
    """Return the whole number that a text spells, or None."""
    try:
        return int(text) if text.strip().lstrip("+-").isdecimal() else None
    except ValueError:
        return None


def in_line(text: str) -> str:
    """Return a text for a line of a message or a table: its control characters and line ends spelled."""
    return printable(text).replace("\t", "\\t").replace("\n", "\\n")


def listed(names: Sequence[str], most: int = 20) -> str:
    """Return names for a message: all of them, or the first few and how many more."""
    more = f", ... ({len(names)} in all)" if len(names) > most else ""
    return ", ".join(in_line(cut(name)) for name in names[:most]) + more


class Numbering(dict[str, int]):
    """Number texts in order of appearance."""

    def __missing__(self, text: str) -> int:
        self[text] = code = len(self)
        return code


def text_of(cells: Iterable[str], count: int, missing: frozenset[str]) -> Text:
    """Return cells as text: without blanks around them, missing ones by `is_missing`."""
    numbering = Numbering()
    codes = np.fromiter(map(numbering.__getitem__, cells), np.int64, count)
    return normalised(codes, numbering, missing)


def normalised(codes: np.ndarray, numbering: Mapping[str, int], missing: frozenset[str]) -> Text:
    """Return raw cells as `Text`: words without blanks around them, each once, and no missing ones."""
    words = Numbering()
    table = np.array([NONE if is_missing(w := raw.strip(), missing) else words[w] for raw in numbering], dtype=np.int64)
    return Text(table[codes] if len(table) else codes, tuple(words))


def as_text(cells: Cells) -> Text:
    """Return cells of any kind as words."""
    if isinstance(cells, Text):
        return cells
    values = cells.astype(object) if cells.dtype.kind == "b" else cells
    absent = np.isnat(cells) if cells.dtype.kind == "M" else np.isnan(cells) if cells.dtype.kind == "f" else None
    found, codes = np.unique(values if absent is None else values[~absent], return_inverse=True)
    words = tuple(word_of(value) for value in found.tolist())
    if absent is None:
        return Text(codes.reshape(-1), words)
    places = np.full(len(cells), -1, dtype=np.int64)
    places[~absent] = codes.reshape(-1)
    return Text(places, words)


# Data frames


def is_table(value: object) -> bool:
    """Return whether a value has columns by name, or rows of anything but numbers: it wants `columns_of`."""
    if isinstance(value, np.ndarray):
        return value.ndim == 2 and value.dtype.kind in "OUS"
    if is_frame(value):
        return True
    return isinstance(value, list | tuple) and len(value) > 0 and isinstance(value[0], list | tuple)


def is_frame(value: Any) -> bool:
    """Return whether a value has columns by name."""
    named = hasattr(value, "columns") or hasattr(value, "column_names")
    return isinstance(value, Mapping | Columns) or (named and hasattr(value, "__getitem__"))


def columns_of(
    frame: Any, missing: Collection[str] = (), name: str = "X", names: Sequence[str] | None = None
) -> Columns:
    """Return the columns of a data frame (pandas, polars, pyarrow and what works alike), a dictionary of columns, a
    list of rows or an array (N, D) of anything.

    missing: what stands for a missing value besides `MISSING`, None and NaN. name: what messages call it.
    names: of the columns of an array or a list.

    Raises TypeError or ValueError for anything else, columns of different lengths, or a name that comes twice.
    """
    if isinstance(frame, Columns):
        return frame
    more = frozenset(map(str, missing))
    if isinstance(frame, Mapping):
        titles, series = list(frame), [_as_sequence(column) for column in frame.values()]
    elif is_frame(frame):
        frame = getattr(frame, "collect", lambda: frame)() if hasattr(frame, "collect_schema") else frame
        titles = list(frame.column_names if hasattr(frame, "column_names") else frame.columns)
        if len({str(title) for title in titles}) < len(titles):
            Columns(tuple(map(str, titles)), (np.empty(0),) * len(titles), 0, source=name)  # says which comes twice
        get = frame.column if hasattr(frame, "column_names") else frame.__getitem__
        series = [get(title) for title in titles]
    else:
        titles, series = _array_columns(frame, name, names)
    counts = [len(column) for column in series]
    if len(set(counts)) > 1:
        at = next(at for at, count in enumerate(counts) if count != counts[0])
        raise ValueError(
            f"{name}: expected columns of the same length, {counts[0]}; got {counts[at]} cells in "
            f"{shown(str(titles[at]))}; give each a cell for each row"
        )
    texts = tuple(map(str, titles))
    cells = tuple(_cells(f"{name}: column {shown(t)}", s, more) for t, s in zip(texts, series, strict=True))
    return Columns(texts, cells, counts[0] if counts else 0, source=name, missing=more)


def _as_sequence(column: Any) -> Any:
    return column if hasattr(column, "__len__") and not isinstance(column, str) else list(column)


def _array_columns(rows: Any, name: str, names: Sequence[str] | None) -> tuple[list[Any], list[np.ndarray]]:
    if isinstance(rows, list | tuple) and any(not hasattr(row, "__len__") or isinstance(row, str) for row in rows):
        raise TypeError(f"{name}: expected rows, each a list of cells; got {rows[0]!r}; give [[...], ...]")
    if isinstance(rows, list | tuple) and len({len(row) for row in rows}) > 1:
        short = next(at for at, row in enumerate(rows) if len(row) != len(rows[0]))
        raise ValueError(f"{name}: row {short}: expected {len(rows[0])} cells; got {len(rows[short])}; fill them in")
    if isinstance(rows, list | tuple):
        array = np.empty((len(rows), len(rows[0]) if len(rows) else 0), dtype=object)
        for at, row in enumerate(rows):
            array[at] = row
    elif hasattr(rows, "shape") and len(rows.shape) == 2:
        array = np.asarray(rows)
    else:
        raise TypeError(
            f"{name}: expected a data frame, a dictionary of columns, or an array (N, D); got {type(rows).__name__}"
        )
    titles = list(range(array.shape[1])) if names is None else list(names)
    if len(titles) != array.shape[1]:
        raise ValueError(f"{name}: expected {len(titles)} columns, as there are names; got {array.shape[1]}")
    return titles, list(array.T)


def _cells(where: str, series: Any, missing: frozenset[str]) -> Cells:
    """Return one column of a frame, whatever its library calls its type."""
    levels, ordered = _levels(series)
    values = _to_numpy(series)
    if values.ndim != 1:
        raise ValueError(f"{where}: expected one cell for each row; got shape {values.shape}")
    kind = values.dtype.kind
    if levels is not None:
        text = _text_of_objects(values.astype(object), missing)
        return Text(text.codes, text.words, levels, ordered)
    if kind == "b" or kind == "M":
        return values if kind == "b" else values.astype("datetime64[s]")
    if kind in "iuf":
        return without_missing(values.astype(np.float64), missing)
    if kind == "m":
        return np.where(np.isnat(values), np.nan, values / np.timedelta64(1, "s"))
    if kind == "S":
        values = np.char.decode(values, "utf-8")
    if kind in "OUS" or kind == "T":
        return _of_objects(where, values.astype(object), missing)
    raise TypeError(f"{where}: expected numbers, text, truth values or dates; got dtype {values.dtype}; convert it")


def without_missing(values: np.ndarray, missing: frozenset[str]) -> np.ndarray:
    """Return numbers with NaN in place of those that `missing` names."""
    for word in missing:
        if (value := number(word)) is not None:
            values = np.where(values == value, np.nan, values)
    return values


def _levels(series: Any) -> tuple[tuple[str, ...] | None, bool]:
    """Return the levels of a categorical column, and whether they have an order."""
    dtype: Any = getattr(series, "dtype", None)
    found: Any = getattr(dtype, "categories", None)
    if not hasattr(found, "__len__"):  # of pandas an Index, of polars' Enum a Series; its Categorical has no fixed ones
        return None, False
    return tuple(word_of(value) for value in found) or None, bool(getattr(dtype, "ordered", False))


def _to_numpy(series: Any) -> np.ndarray:
    if isinstance(series, np.ndarray):
        return series
    if hasattr(series, "to_numpy"):
        try:
            values = series.to_numpy()
        except (ValueError, TypeError):  # pyarrow, where a copy is needed
            values = np.array(series.to_pylist(), dtype=object)
        return np.asarray(values)
    values = np.asarray(series) if not isinstance(series, list | tuple) else np.array(list(series), dtype=object)
    return values


def _is_none(value: Any) -> bool:
    return value is None or (value != value) is True or type(value).__name__ in ("NAType", "NaTType")


def _of_objects(where: str, values: np.ndarray, missing: frozenset[str]) -> Cells:
    """Return Python's objects as a column: truth values, numbers and dates as such, anything else as text."""
    present = [value for value in values.tolist() if not _is_none(value)]
    kinds = {type(value) for value in present}
    if kinds and all(issubclass(kind, bool | np.bool_) for kind in kinds):
        if len(present) == len(values):
            return values.astype(bool)
    elif kinds and all(_is_number(kind) for kind in kinds):
        return without_missing(np.array([np.nan if _is_none(v) else float(v) for v in values.tolist()]), missing)
    elif kinds and all(hasattr(kind, "isoformat") and hasattr(kind, "year") for kind in kinds):
        return np.array([np.datetime64("NaT") if _is_none(v) else np.datetime64(v, "s") for v in values.tolist()])
    return _text_of_objects(values, missing)


def _is_number(kind: type) -> bool:
    import decimal
    import numbers

    return issubclass(kind, numbers.Real | decimal.Decimal) and not issubclass(kind, bool | np.bool_)


def _text_of_objects(values: np.ndarray, missing: frozenset[str]) -> Text:
    return text_of(("" if _is_none(v) else word_of(v) for v in values.tolist()), len(values), missing)


def word_of(value: Any) -> str:
    """Return how a table spells a value: as str() does, but whole floats without their point."""
    if isinstance(value, float | np.floating) and np.isfinite(value) and value == int(value):
        return str(int(value))
    return str(value)
