"""The courses' two baselines: k-nearest neighbours here, and the linear classifier, a network without hidden layers.

>>> import fcnet
>>> ds = fcnet.data.load("spirals")
>>> neighbors = fcnet.KNearestNeighbors(k=5, device="cpu").fit(ds.X_train, ds.y_train)
>>> bool((neighbors.predict(ds.X_val) == ds.y_val).mean() > 0.95)
True
>>> softmax = fcnet.FullyConnectedNet([], ds.input_dim, ds.num_classes, device="cpu")  # logistic regression
>>> svm = fcnet.FullyConnectedNet([], ds.input_dim, ds.num_classes, loss="svm", reg=1e-3, device="cpu")
>>> svm.params.shapes
{'W1': (2, 3), 'b1': (3,)}

Shapes: N samples to classify, M known samples, D features, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import numpy as np

from fcnet.backends import Array, Backend, backend_of, get_backend
from fcnet.errors import counted
from fcnet.validation import check_input, check_labels, one_of, positive_int

DISTANCES = ("l1", "l2")
MEMORY = 2**28  # bytes that the work on top of the data may take: 256 MiB
CLOSE = 256  # times the largest error: a squared distance below is computed by differences
LOST = 16  # the most that an expansion may be shorter than what it is made of, if nothing else is done about it
LEAST = 1e-30  # squared distances from here on are far from the smallest numbers of float32
UNSURE = 64  # samples looked up at a time by differences
QUERIES = 1024  # samples looked up at a time, where memory allows


def pairwise_distances(X: Array, Y: Array, *, distance: str = "l2", dtype: str = "float64") -> Array:
    """Return the distance of every row of X to every row of Y, (N, M).

    l1: Σ_d |x_d - y_d|.  l2: √Σ_d (x_d - y_d)², by the expansion |x|² + |y|² - 2 x·y, one matrix product.

    The expansion loses digits where two points are much closer to each other than to the origin. If any are, the mean
    of Y (roughly) is subtracted from both first, and where a squared distance is not well above its possible error,
    (D + 2) eps (|x|² + |y|²) measured from that mean, it is computed by differences. Whole numbers, such as pixels, are
    exact in float64: the same bits on every device.

    Args:
        X: (N, d1, ..., dk), Y: (M, d1, ..., dk), real numbers, both on one device.
        distance: "l1" or "l2". dtype: of the arithmetic and the result.

    Raises:
        ValueError, TypeError: shapes, dtypes or names other than these; not finite, or squares that overflow or vanish.

    Source: CS231n, assignment 1 (the version without loops).
    """
    one_of("distance", distance, DISTANCES)
    one_of("dtype", dtype, ("float32", "float64"))
    width = _width(Y)
    for name, array in (("Y", Y), ("X", X)):
        _check_samples(name, array, width, dtype, "Y")
    backend = backend_of(X, Y)
    backend.use()
    X, Y = X.reshape(len(X), -1), Y.reshape(len(Y), -1)
    if distance == "l2" and X.dtype == Y.dtype == dtype:
        squares = _squares_of_far_apart(backend, X, Y)
        if squares is not None:
            return backend.xp.sqrt(squares, out=squares)
    metric = _Metric(backend, distance, dtype, _origin(backend, Y), MEMORY)
    metric.check_spread("X and Y", X, Y)
    exact = metric.expands_exactly(X, Y)
    X, Y = metric.rows(X), metric.rows(Y)
    out = metric.between(X, Y)
    if distance == "l2" and not exact:
        metric.refine(out, X, Y)
    return metric.finish(out)


class KNearestNeighbors:
    """Classify a sample as most of its k nearest known samples are. Source: Cover and Hart, 1967; CS231n.

    Attributes:
        k, distance, memory, dtype, device: as given.
        num_classes: C, the largest label + 1; None before `fit`.
    """

    def __init__(
        self,
        k: int = 1,
        *,
        distance: str = "l2",
        memory: int = MEMORY,
        dtype: str = "float64",
        device: str | Backend = "auto",
    ) -> None:
        """Make a classifier that knows no samples yet.

        Args:
            k: neighbours that vote; of equal distances the sample with the lower index counts as nearer, and equal
                votes go to the smaller label.
            distance: "l1" or "l2", as in `pairwise_distances`.
            memory: bytes that the work may take on the device, on top of the samples themselves and the results.
            dtype: of the arithmetic. "float64" is exact for whole numbers; "float32" is twice as fast, on many GPUs
                thirty times, and decides near ties by its rounding.
            device: "auto" (a GPU if one can be used), "cpu", "cuda" or "cuda:N".

        Raises:
            ValueError, TypeError: an argument is not as above; DeviceError (a ValueError): no such device.
        """
        self.k = positive_int("k", k)
        one_of("distance", distance, DISTANCES)
        one_of("dtype", dtype, ("float32", "float64"))
        self.distance, self.dtype = distance, dtype
        self.memory = positive_int("memory", memory)
        self.backend = get_backend(device)
        self.num_classes: int | None = None
        self._known: _Known | None = None

    @property
    def device(self) -> str:
        """Return the device of the known samples: "cpu", "cuda:0", ..."""
        return self.backend.name

    def fit(self, X: Array, y: Array) -> KNearestNeighbors:
        """Remember samples, in the dtype they have: bytes stay bytes, and on the CPU nothing is copied.

        Args:
            X: (M, d1, ..., dk), M >= k. y: integer labels (M,) from 0, or one-hot (M, C).

        Returns:
            The classifier itself.

        Raises:
            ValueError, TypeError: they are not as above, or `memory` is too little for one sample.
        """
        width = _width(X)
        _check_samples("X", X, width, self.dtype)
        if len(X) < self.k:
            raise ValueError(f"X: expected at least k = {self.k} samples, got {len(X)}; choose a smaller k")
        backend = self.backend
        backend.use()
        classes = y.shape[1] if getattr(y, "ndim", 0) == 2 else None
        if classes is None and getattr(y, "shape", None) == (len(X),) and y.dtype.kind in "iu":
            codes = backend.to_numpy(backend.asarray(y))
            if (codes < 0).any():
                at = int(np.argmax(codes < 0))
                raise ValueError(
                    f"y: expected labels of 0 or more, got {codes[at]} at {at}; renumber them, "
                    "y = numpy.unique(y, return_inverse=True)[1]"
                )
            classes = int(codes.max()) + 1
        check_labels("y", y, classes or 1, len(X))
        labels = backend.asarray(y)
        labels = backend.xp.argmax(labels, axis=1) if labels.ndim == 2 else labels.astype("int64")
        samples = backend.asarray(X).reshape(len(X), -1)
        metric = _Metric(backend, self.distance, self.dtype, _origin(backend, samples), self.memory)
        metric.check_spread("X", samples)
        blocks = metric.blocks(samples, self.k, classes or 1)
        self._known = _Known(samples, labels, metric, blocks, metric.longest(samples))
        self.num_classes = classes
        return self

    def kneighbors(self, X: Array) -> tuple[Array, Array]:
        """Return distances (N, k) to the k nearest known samples, nearest first, and their indices (N, k) in `fit`'s X.

        Args:
            X: (N, d1, ..., dk), a host or device array; the results are of the same kind.

        Raises:
            RuntimeError: before `fit`. ValueError, TypeError: X does not match the samples of `fit`.
        """
        return self._by_blocks(X, lambda known, squares, indices: (known.metric.finish(squares), indices))

    def predict(self, X: Array) -> Array:
        """Return the label that most of the k nearest have, (N,) integers; see `kneighbors` for X and errors."""
        xp = self.backend.xp
        return self._by_blocks(X, lambda known, _, indices: (xp.argmax(self._votes(known, indices), axis=1),))[0]

    def predict_proba(self, X: Array) -> Array:
        """Return the share of the k nearest that has each label, (N, C); see `kneighbors` for X and errors."""
        return self._by_blocks(X, lambda known, _, indices: (self._votes(known, indices) / self.k,))[0]

    def _votes(self, known: _Known, indices: Array) -> Array:
        """Count how many of the neighbours (N, k) have each label, (N, C)."""
        xp = self.backend.xp
        classes = xp.arange(self.num_classes, dtype=known.labels.dtype)
        votes = xp.zeros((len(indices), len(classes)), dtype=self.dtype)
        for j in range(self.k):
            votes += xp.equal(xp.take(known.labels, indices[:, j])[:, None], classes)
        return votes

    def _by_blocks(self, X: Array, finish: Callable[..., tuple[Array, ...]]) -> tuple[Array, ...]:
        """Return `finish` of each block of samples' nearest, put together; on the host if X is."""
        known = self._known
        if known is None:
            raise RuntimeError("KNearestNeighbors: expected fit(X, y) before this call; it knows no samples yet")
        _check_samples("X", X, known.samples.shape[1], self.dtype, "fit")
        backend = self.backend
        backend.use()
        on_host = isinstance(X, np.ndarray)
        step = known.blocks[0]
        parts = []
        for start in range(0, len(X), step):
            block = backend.asarray(X[start : start + step])
            found = finish(known, *_nearest_known(known, block.reshape(len(block), -1), self.k))
            parts.append([backend.to_numpy(array) if on_host else array for array in found])
        join = np.concatenate if on_host else backend.xp.concatenate
        return tuple(column[0] if len(column) == 1 else join(column) for column in zip(*parts, strict=True))


class _Known(NamedTuple):
    """Hold what `fit` remembers.

    Attributes:
        samples: (M, D) as they came. labels: (M,).
        blocks: how the work is cut, see `blocks`.
        longest: the largest squared length of a sample, measured from the origin.
    """

    samples: Array
    labels: Array
    metric: _Metric
    blocks: tuple[int, int]
    longest: Array


class _Metric:
    """Compute distances in blocks; the L2 distance stays squared until `finish`: order and whole numbers are kept."""

    def __init__(self, backend: Backend, distance: str, dtype: str, origin: Array, memory: int) -> None:
        self.backend, self.distance, self.dtype = backend, distance, dtype
        # The same for both sides, so rounding it costs nothing. L1 takes differences only, of the values themselves.
        self.origin = (origin if distance == "l2" else origin * 0).astype(dtype)
        self.memory, self.elements = memory, memory // np.dtype(dtype).itemsize
        # Of the (n, m, D) that L1 takes at a time: pieces that stay in a cache, where the device has a size for that.
        self.differences = min(backend.block_size or self.elements, self.elements // 8)

    def blocks(self, samples: Array, k: int, classes: int) -> tuple[int, int]:
        """Return how many samples to look up at a time, and among how many known ones, within the memory.

        For n and m of them: the rows, measured from the origin, and their squares, 2 (n + m) D, or what they were
        before they were rounded, 3 (n + m) D; the distances, n m; the (n, k) nearest so far, of this block and merged,
        with indices of 8 bytes; votes; differences for L1.
        """
        known, width = samples.shape
        rows = (2 if np.result_type(samples.dtype, self.dtype) == self.dtype else 3) * width
        fixed = max(self.differences, width)
        for n in (2**i for i in reversed(range(QUERIES.bit_length()))):
            left = self.elements - n * (rows + 16 * (k + 1) + 4 * classes) - fixed
            m = left // (rows + n)
            if m >= min(known, max(n, k)) or (n == 1 and m >= 1):
                return n, min(m, known)
        least = (16 * (k + 1) + 4 * classes + 8 * width + 1) * 8 // 7 * np.dtype(self.dtype).itemsize
        raise ValueError(
            f"memory: expected at least {least} bytes for {counted(width, 'feature')}, k = {k} and "
            f"{counted(classes, 'class', 'classes')}, "
            f"got {self.memory}"
        )

    def rows(self, samples: Array) -> Array:
        """Return samples (n, D) of any real dtype, measured from the origin."""
        return self.backend.xp.subtract(samples, self.origin).astype(self.dtype, copy=False)

    def between(self, x: Array, y: Array) -> Array:
        """Return |x - y| (l1) or |x - y|² (l2) of rows x (n, D) and y (m, D): (n, m)."""
        xp = self.backend.xp
        if self.distance == "l1":
            return self.directly(x, y)
        out = xp.empty((len(x), len(y)), dtype=self.dtype)
        self.backend.gemm(x, y.T, out=out)
        xp.multiply(out, -2, out=out)
        xp.add(out, xp.sum(x * x, axis=1)[:, None], out=out)
        xp.add(out, xp.sum(y * y, axis=1)[None, :], out=out)
        return xp.maximum(out, 0, out=out)

    def directly(self, x: Array, y: Array) -> Array:
        """Compute `between` by differences, which lose no digits."""
        xp = self.backend.xp
        out = xp.empty((len(x), len(y)), dtype=self.dtype)
        width = x.shape[1]
        m = max(1, min(len(y), self.differences // width))
        n = max(1, min(len(x), self.differences // (m * width)))
        work = xp.empty((n, m, width), dtype=self.dtype)
        for i in range(0, len(x), n):
            for j in range(0, len(y), m):
                here = out[i : i + n, j : j + m]
                piece = work[: here.shape[0], : here.shape[1]]
                xp.subtract(x[i : i + n, None], y[None, j : j + m], out=piece)
                xp.abs(piece, out=piece) if self.distance == "l1" else xp.multiply(piece, piece, out=piece)
                xp.sum(piece, axis=2, out=here)
        return out

    def of_pairs(self, x: Array, samples: Array, indices: Array) -> Array:
        """Return |x - y| or |x - y|² by differences, of rows x (n, D) and their own samples, indices (n, k): (n, k)."""
        xp = self.backend.xp
        out = xp.empty(indices.shape, dtype=self.dtype)
        n = max(1, self.differences // (indices.shape[1] * x.shape[1]))
        for i in range(0, len(x), n):
            here = indices[i : i + n]
            y = self.rows(xp.take(samples, here.reshape(-1), axis=0)).reshape(*here.shape, -1)
            y -= x[i : i + n, None]
            xp.abs(y, out=y) if self.distance == "l1" else xp.multiply(y, y, out=y)
            xp.sum(y, axis=2, out=out[i : i + n])
        return out

    def expands_exactly(self, *samples: Array) -> bool:
        """Return whether `between` makes no rounding error, as of whole numbers in float64."""
        return self.dtype == "float64" and all(array.dtype.kind in "iub" for array in samples)

    def error(self, x: Array, y: Array) -> Array:
        """Return the largest error of the expansion, for squared lengths x = |x|² and y = |y|² from the origin."""
        return float(np.finfo(self.dtype).eps) * (len(self.origin) + 2) * (x + y)

    def refine(self, squares: Array, x: Array, y: Array) -> None:
        """Compute those of `between` anew, by differences, that are not well above their error; in place."""
        xp, backend = self.backend.xp, self.backend
        limit = CLOSE * self.error(xp.sum(x * x, axis=1)[:, None], xp.sum(y * y, axis=1)[None, :])
        close = backend.to_numpy(xp.less_equal(squares, limit))
        step = max(1, self.differences // x.shape[1])
        first, second = close.nonzero()
        for start in range(0, len(first), step):
            i, j = (backend.asarray(part[start : start + step]) for part in (first, second))
            off = xp.subtract(xp.take(x, i, axis=0), xp.take(y, j, axis=0))
            squares[i, j] = xp.sum(xp.multiply(off, off, out=off), axis=1)

    def longest(self, samples: Array) -> Array:
        """Return the largest |y|² of these samples, measured from the origin."""
        xp, largest = self.backend.xp, self.backend.xp.zeros((), dtype=self.dtype)
        step = max(1, self.differences // samples.shape[1])
        for start in range(0, len(samples), step):
            rows = self.rows(samples[start : start + step])
            xp.maximum(largest, xp.max(xp.sum(rows * rows, axis=1)), out=largest)
        return largest

    def check_spread(self, name: str, *arrays: Array) -> None:
        """Check that the squares of what these samples differ by do not vanish in the dtype. Raises ValueError."""
        if self.distance != "l2":
            return
        xp, kind, largest = self.backend.xp, np.finfo(self.dtype), 0.0
        for samples in arrays:
            step = max(1, self.differences // samples.shape[1])
            for start in range(0, len(samples), step):
                off = xp.max(xp.abs(self.rows(samples[start : start + step])))
                largest = max(largest, float(self.backend.to_numpy(off)))
        if 0 < largest < float(kind.tiny / kind.eps) ** 0.5:
            other = "" if self.dtype == "float64" else " or use dtype='float64'"
            raise ValueError(
                f"{name}: expected values whose squared distances {self.dtype} can hold, got some that differ by "
                f"{largest:g} at most; multiply the data by a constant{other}"
            )

    def finish(self, out: Array) -> Array:
        """Return the distances, of what `between` gives; in place."""
        return self.backend.xp.sqrt(out, out=out) if self.distance == "l2" else out


def _squares_of_far_apart(backend: Backend, X: Array, Y: Array) -> Array | None:
    """Return |x|² + |y|² - 2 x·y of all rows, (n, m), where few digits are lost by it; None: more may be.

    Its error is at most (D + 2) eps (|x|² + |y|²), so (D + 2) eps LOST of what it is, if that is no less than the
    longest |x|² + |y|² over LOST.
    """
    xp = backend.xp
    x, y = xp.sum(X * X, axis=1), xp.sum(Y * Y, axis=1)
    longest = xp.max(x) + xp.max(y)
    out = backend.gemm(X * -2.0, Y.T)
    xp.add(out, x[:, None], out=out)
    xp.add(out, y[None, :], out=out)
    longest = xp.maximum(longest, LOST * LEAST)  # squares that vanish are for `check_spread` to refuse
    far = xp.less_equal(longest, xp.min(out) * LOST)
    return out if backend.to_numpy(far) else None


def _origin(backend: Backend, samples: Array) -> Array:
    """Return (D,) float64: about the mean of the samples (M, D), on a grid of powers of two, an eighth of the range.

    Measured from there, whole numbers have few bits after the point, and their squares are still exact.
    """
    xp, to_numpy = backend.xp, backend.to_numpy
    mean = to_numpy(xp.mean(samples, axis=0, dtype="float64"))
    low, high = (to_numpy(edge(samples, axis=0)).astype(np.float64) for edge in (xp.min, xp.max))
    varied = high > low
    grid = np.exp2(np.floor(np.log2(np.where(varied, high - low, 1.0)))) / 8
    return backend.asarray(np.where(varied, np.rint(mean / grid) * grid, low))


def _nearest_known(known: _Known, x: Array, k: int) -> tuple[Array, Array]:
    """Return what `between` gives for the k nearest known samples of each x, (n, k), and their indices.

    The expansion of a squared distance has an error of up to (D + 2) eps (|x|² + |y|²). Where that leaves no doubt
    which k are the nearest, their distances are computed once more, by differences; else those to all known samples.
    """
    metric, xp = known.metric, known.metric.backend.xp
    exact = metric.distance == "l1" or metric.expands_exactly(x, known.samples)
    x, count = metric.rows(x), len(known.samples)
    if exact:
        return _nearest(known, x, k, metric.between)
    values, indices = _nearest(known, x, min(k + 1, count), metric.between)
    found = _in_order(xp, indices[:, :k])
    nearest, places = smallest(xp, metric.of_pairs(x, known.samples, found), k)
    found = found[xp.arange(len(x))[:, None], places]
    if count > k:
        doubt = 2 * metric.error(xp.sum(x * x, axis=1), known.longest)
        unsure = metric.backend.to_numpy(xp.less_equal(values[:, k] - values[:, k - 1], doubt)).nonzero()[0]
        for start in range(0, len(unsure), UNSURE):
            rows = metric.backend.asarray(unsure[start : start + UNSURE])
            nearest[rows], found[rows] = _nearest(known, xp.take(x, rows, axis=0), k, metric.directly)
    return nearest, found


def _nearest(known: _Known, x: Array, k: int, distances: Callable[[Array, Array], Array]) -> tuple[Array, Array]:
    """Return the k smallest of these distances of rows x (n, D) to all known samples, (n, k), and their indices."""
    metric, xp, count = known.metric, known.metric.backend.xp, len(known.samples)
    best = indices = None
    for start in range(0, count, known.blocks[1]):
        block = known.samples[start : start + known.blocks[1]]
        values, found = smallest(xp, distances(x, metric.rows(block)), min(k, len(block)))
        found += start
        if best is None:
            best, indices = values, found
            continue
        # Earlier samples stand first, so that equal distances stay in the order of their indices.
        best, found = xp.concatenate([best, values], axis=1), xp.concatenate([indices, found], axis=1)
        best, places = smallest(xp, best, min(k, best.shape[1]))
        indices = found[xp.arange(len(x))[:, None], places]
    return best, indices


def _in_order(xp: Any, indices: Array) -> Array:
    """Return indices (n, k), each row from the smallest to the largest."""
    return smallest(xp, indices.astype("float64"), indices.shape[1])[0].astype("int64")


def smallest(xp: Any, values: Array, k: int) -> tuple[Array, Array]:
    """Return the k smallest of each row of (n, m), in order, the first of equals first, and where they are: two (n, k).

    `values` is used up. One pass for each of k: against a sort, and k is small.
    """
    rows, infinity = xp.arange(len(values)), xp.full((1,), float("inf"), dtype=values.dtype)
    smallest = xp.empty((len(values), k), dtype=values.dtype)
    places = xp.empty((len(values), k), dtype="int64")
    for j in range(k):
        place = xp.argmin(values, axis=1)
        smallest[:, j], places[:, j] = values[rows, place], place
        values[rows, place] = infinity
    return smallest, places


def _width(X: Array) -> int:
    """Return D of samples (M, d1, ..., dk), at least 1; `_check_samples` refuses whatever is no such array."""
    return max(1, prod(getattr(X, "shape", ())[1:]))


def _check_samples(name: str, X: Array, width: int, dtype: str, like: str = "") -> None:
    """Check as `check_input`, and that squared distances do not overflow (looked at on the host only).

    `like`: whose features those of X must match.
    """
    shape = getattr(X, "shape", ())
    if len(shape) > 1 and prod(shape[1:]) == 0:
        raise ValueError(f"{name}: expected at least one feature per sample, got shape {shape}")
    if len(shape) > 1 and prod(shape[1:]) != width:
        raise ValueError(
            f"{name}: expected {counted(width, 'feature')} per sample, as in {like}, got {prod(shape[1:])} "
            f"(shape {shape}); give both the same columns"
        )
    check_input(name, X, width, dtype)
    if isinstance(X, np.ndarray) and X.dtype.kind == "f":
        largest, limit = max(-float(X.min()), float(X.max())), float(np.finfo(dtype).max)
        if largest > (limit / (8 * width)) ** 0.5:
            raise ValueError(
                f"{name}: expected values whose squared distances {dtype} can hold, got one of size {largest:g}; "
                "scale the data" + ("" if dtype == "float64" else " or use dtype='float64'")
            )
