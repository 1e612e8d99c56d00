"""Tables from files, as named columns: text in any of its spellings, and Parquet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fcnet.data.columns import Columns, columns_of
from fcnet.data.plan import LARGEST, Plan, as_numbers
from fcnet.data.text_files import AsText, Reading, read_text, separator_named
from fcnet.errors import MissingExtra, shown

if TYPE_CHECKING:
    import numpy.typing as npt

TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".data")
TABLE_SUFFIXES = (*TEXT_SUFFIXES, *(f"{suffix}.gz" for suffix in TEXT_SUFFIXES), ".parquet")
SUFFIXES_TOLD = ".csv, .tsv, .txt, .data (each also .gz) or .parquet"


def is_table_file(path: Path) -> bool:
    """Return whether a file's name is that of a table."""
    return path.name.lower().endswith(TABLE_SUFFIXES)


def table_name(path: Path) -> str:
    """Return a table's name: its file's without suffixes."""
    return path.name[
        : -len(next(s for s in sorted(TABLE_SUFFIXES, key=len, reverse=True) if path.name.lower().endswith(s)))
    ]


def read_table(path: Path, reading: Reading | None = None, as_text: AsText = lambda names: ()) -> Columns:
    """Read a table's columns; see `fcnet.data.text_files.read_text`. Raises ValueError for whatever is no table."""
    reading = reading or Reading()
    if path.suffix.lower() != ".parquet":
        return read_text(path, reading, as_text)
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise MissingExtra(f"reading {path.name}", "pyarrow", "data") from None
    try:
        frame = parquet.read_table(path)
        frame.validate(full=True)  # bytes that are no text among others
    except (ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # not of the content, as Arrow's own are
            raise
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"{path}: expected a Parquet file; got a damaged or other one ({reason})") from None
    if not frame.num_rows:
        raise ValueError(f"{path}: expected rows; got none")
    return columns_of(frame, reading.missing, name=str(path))


def read_for(plan: Plan, path: Path, kept: AsText = lambda names: (), sep: str | None = None) -> Columns:
    """Return another table for a plan, read as the one was that it was learned from.

    kept: the columns, besides those that are words to the plan, whose cells are kept as they are spelled. sep: its
    separator; None: that is found out.
    """
    reading = Reading(
        plan.header,
        sep,
        plan.decimal,
        frozenset(plan.missing),
        () if plan.header else plan.names,
        plan.targets,
        plan.sep,
    )
    return read_table(path, reading, lambda names: {*plan.text_columns, *kept(names)})


@dataclass(frozen=True)
class TableChoices:
    """Hold the user's choices for a table: how it is read and which columns are used how, as for `fcnet.data.load`."""

    reading: Reading = Reading()
    drop: tuple[str, ...] = ()
    only: tuple[str, ...] | None = None
    ordinal: Mapping[str, tuple[str, ...]] | None = None

    @classmethod
    def of(
        cls,
        header: bool | str | None = None,
        sep: str | None = None,
        decimal: str | None = None,
        missing: Any = None,
        drop: Any = None,
        only: Any = None,
        ordinal: Any = None,
    ) -> TableChoices:
        """Return them checked. Raises TypeError or ValueError naming the argument."""
        if isinstance(header, str) and header.lower() in ("yes", "no"):
            header = header.lower() == "yes"
        if not isinstance(header, bool | None):
            raise ValueError(f"header: expected yes or no; got {header!r}")
        if decimal not in (None, ".", ","):
            raise ValueError(f"decimal: expected '.' or ','; got {decimal!r}")
        if sep is not None:
            sep = separator_named(sep)
        if sep is not None and sep == decimal:
            raise ValueError(f"sep and decimal: expected two different signs; got {sep!r} for both")
        return cls(
            Reading(header, sep, decimal, frozenset(_names("missing", missing) or ())),
            _names("drop", drop) or (),
            _names("only", only),
            _ordinal(ordinal),
        )

    @property
    def given(self) -> dict[str, Any]:
        """Return the choices that were made, by the name of the argument."""
        of = self.reading
        said: dict[str, Any] = {
            "header": of.header,
            "sep": of.sep,
            "decimal": of.decimal,
            "missing": sorted(of.missing) or None,
        }
        said |= {"drop": self.drop or None, "only": self.only, "ordinal": self.ordinal}
        return {name: value for name, value in said.items() if value is not None}


def _names(argument: str, value: Any) -> tuple[str, ...] | None:
    """Return "a,b" or a list of names as a tuple of them."""
    if value is None:
        return None
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, int):
        return (str(value),)
    if not isinstance(value, Sequence | set | frozenset) or not all(
        isinstance(name, str | int | float) for name in value
    ):
        raise TypeError(f"{argument}: expected names such as 'a,b' or ['a', 'b']; got {value!r}")
    return tuple(str(name) for name in value)


def _ordinal(value: Any) -> dict[str, tuple[str, ...]] | None:
    """Return ["col=a,b,c"] or {"col": ["a", "b", "c"]} as the latter."""
    if not value:
        return None
    if isinstance(value, str):
        value = [value]
    if isinstance(value, Mapping):
        return {str(name): _names("ordinal", levels) or () for name, levels in value.items()}
    found = {}
    for text in value:
        name, equals, levels = str(text).partition("=")
        if not equals:
            raise ValueError(
                f"ordinal: expected a column and its levels, such as size=small,large; got {shown(str(text))}"
            )
        found[name.strip()] = _names("ordinal", levels) or ()
    return found


def read_features(path: str | Path, features: Sequence[str], dtype: npt.DTypeLike = np.float64) -> np.ndarray:
    """Return the columns `features` of a table's file, in that order, as X (N, D). Other columns are ignored.

    Raises ValueError if a column is missing or holds anything but numbers that `dtype` can hold,
    FileNotFoundError without a file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a table's file; there is none")
    if isinstance(features, str) or not features:
        raise ValueError(f"features: expected a sequence of column names; got {features!r}")
    read = read_table(path)
    for feature in features:
        if feature not in read:
            read.find("column", feature)
    kind = np.dtype(dtype)
    largest = min(LARGEST, float(np.finfo(kind).max)) if kind.kind == "f" else LARGEST
    return as_numbers(read, features, largest).astype(kind, copy=False)
