"""Sparse matrices as inputs: rows are made dense when they are asked for, a batch at a time, never all of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

DENSE = 1 << 20  # elements that are made dense at once, unless the rows are given: 8 MiB in float64


class SparseRows:
    """Give rows of SciPy's CSR matrix as dense arrays, with the methods that batches ask of a host array.

    Attributes:
        csr: the matrix (n, D). shape, dtype, ndim, size: of the dense array that is never made.
    """

    ndim = 2

    def __init__(self, csr: Any) -> None:
        self.csr = csr
        self.shape: tuple[int, int] = csr.shape
        self.dtype = csr.dtype
        self.size = self.shape[0] * self.shape[1]

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, rows: np.ndarray, axis: int = 0, out: np.ndarray | None = None, mode: str = "raise") -> np.ndarray:
        """Return these rows (N, D), dense, in `out` if given; the other arguments are those of `numpy.take`."""
        return self.csr[rows].toarray(out=out)

    def some(self, rows: np.ndarray) -> SparseRows:
        """Return these rows, sparse."""
        return SparseRows(self.csr[rows])

    @property
    def rows_at_once(self) -> int:
        """Return how many rows make about `DENSE` elements, 1 or more."""
        return max(1, DENSE // max(1, self.shape[1]))

    def parts(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield all rows in order, dense, `rows_at_once` at a time: which they are, and the array."""
        for start in range(0, len(self), self.rows_at_once):
            part = slice(start, min(start + self.rows_at_once, len(self)))
            yield part, self.csr[part].toarray()

    def columns(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield all columns, dense, some (n, k) at a time, of about `DENSE` elements: their numbers, and the array."""
        yield from self._columns(self.csr.tocsc(), np.arange(self.shape[1]))

    def columns_by_quartiles(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield what `columns` does, shortened with the same quartiles and extremes for those that are mostly zero."""
        csc = self.csr.tocsc()
        zero = np.diff(csc.indptr) < len(self) / 4  # then so are the quartiles
        places = np.flatnonzero(zero)
        if len(places):
            short = np.zeros((9, len(places)), dtype=self.dtype)
            some = csc[:, places]
            short[0], short[-1] = some.min(axis=0).toarray(), some.max(axis=0).toarray()
            yield places, short
        yield from self._columns(csc, np.flatnonzero(~zero))

    def _columns(self, csc: Any, places: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        at_once = max(1, DENSE // max(1, len(self)))
        for start in range(0, len(places), at_once):
            some = places[start : start + at_once]
            yield some, csc[:, some].toarray()
