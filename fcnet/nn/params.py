"""One flat buffer with named views: parameters, gradients, each moment of an optimizer.

Matrices come first, then vectors, each tensor C-contiguous on a 256-byte boundary; the padding between them is zero and
stays zero. Thus an optimizer makes one pass over one array, L2 acts on one slice, and a network is copied in one copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from math import prod
from typing import Any

from fcnet.backends import Array, Backend
from fcnet.backends.device import ALIGNMENT


class ParamBuffer(MutableMapping[str, Array]):
    """Hold tensors by name, all views of `flat`. Assigning to a name copies into the view; names and shapes are fixed.

    Attributes:
        flat: (P,), all tensors and the padding.
        matrices: the slice of `flat` with all tensors of two or more axes, on which L2 acts.
        shapes: name -> shape, in the order given.
    """

    def __init__(self, backend: Backend, shapes: Mapping[str, tuple[int, ...]], dtype: Any) -> None:
        """Make a buffer of zeros on the device of `backend`, for tensors of these shapes."""
        self.backend = backend
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}
        per_line = ALIGNMENT // backend.xp.dtype(dtype).itemsize
        self._starts: dict[str, int] = {}
        end = matrices_end = 0
        for wants_matrix in (True, False):
            for name, shape in self.shapes.items():
                if (len(shape) > 1) is wants_matrix:
                    self._starts[name] = end
                    end += -(-prod(shape) // per_line) * per_line
            if wants_matrix:
                matrices_end = end
        self.flat = backend.zeros(end, dtype)
        self.matrices = self.flat[:matrices_end]
        self._views = {
            name: self.flat[start : start + prod(self.shapes[name])].reshape(self.shapes[name])
            for name, start in self._starts.items()
        }

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle by value, so that the views of a copy are views of its own flat array."""
        return _restore, (self.backend, self.shapes, self.dtype, self.backend.to_numpy(self.flat))

    def spans(self) -> dict[str, tuple[int, int]]:
        """Return where each tensor lies in `flat`: start and stop, padding included, in the order of memory."""
        starts = list(self._starts.values())
        return dict(zip(self._starts, zip(starts, [*starts[1:], self.flat.size], strict=True), strict=True))

    def like(self) -> ParamBuffer:
        """Return a buffer of zeros with the same names, shapes, dtype and device."""
        return ParamBuffer(self.backend, self.shapes, self.dtype)

    @property
    def dtype(self) -> Any:
        """Return float32 or float64, as a NumPy dtype."""
        return self.flat.dtype

    def __getitem__(self, name: str) -> Array:
        if name not in self._views:
            raise KeyError(f"no parameter {name!r}; there are {', '.join(self.shapes)}")
        return self._views[name]

    def __setitem__(self, name: str, value: Array) -> None:
        """Copy `value`, a host or device array, into the view.

        Raises:
            KeyError: no such name. ValueError: another shape. TypeError: not an array of real numbers.
        """
        view = self[name]
        if value is view:  # what `params[name] -= step` ends with
            return
        try:
            source = self.backend.asarray(value)
        except ValueError:  # rows of different lengths
            raise TypeError(f"params[{name!r}]: expected an array, got {type(value).__name__}") from None
        if source.dtype.kind not in "fiub":
            raise TypeError(f"params[{name!r}]: expected an array of real numbers, got {source.dtype}")
        if source.shape != view.shape:
            raise ValueError(f"params[{name!r}]: expected shape {view.shape}, got {source.shape}")
        view[...] = source

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"params[{name!r}] cannot be deleted: the network's shape is fixed")

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def __repr__(self) -> str:
        count = sum(prod(shape) for shape in self.shapes.values())
        return f"<ParamBuffer {count:,} values, {self.dtype}, {self.backend.name}: {', '.join(self.shapes)}>"


def _restore(backend: Backend, shapes: Mapping[str, tuple[int, ...]], dtype: Any, flat: Any) -> ParamBuffer:
    buffer = ParamBuffer(backend, shapes, dtype)
    buffer.flat[...] = backend.asarray(flat)
    return buffer
