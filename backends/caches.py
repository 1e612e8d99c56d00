"""What references and kernels share on every device: constants, the arithmetic of dropout, and the cache types.

A forward function returns a cache, which the backward function reads, whether a reference or a kernel made it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

EPS = 1e-5  # added to a normalisation's variance
MOMENTUM = 0.9  # weighs the old running value (CS231n, Keras); PyTorch's 0.1 weighs the new one
STEPS = 65536  # masks compare 16-bit integers, so the probability to keep is a multiple of 1/65536

Array = Any


def keep_threshold(keep_ratio: float) -> int:
    """Return how many of the 65536 values of a 16-bit random number keep a unit: 1 to 65536."""
    return max(1, round(keep_ratio * STEPS))


class GatedCache(NamedTuple):
    """Keep, of out = x σ(h(x)), steepness = x h'(x) and gate = σ(h(x)), like x."""

    steepness: Array
    gate: Array


class NormCache(NamedTuple):
    """Keep what the backward pass of a normalisation needs, and buffers that a repeated forward pass reuses.

    x_hat (..., N, D); inv_std broadcasts against it, (..., 1, D) over columns or (..., N, 1) over rows; gamma is the
    argument itself, not a copy. mean and var have the shape of inv_std; after the forward pass they are scratch, and a
    kernel that needs no such buffers leaves them out.
    """

    x_hat: Array
    inv_std: Array
    gamma: Array
    mean: Array = None
    var: Array = None


class HiddenCache(NamedTuple):
    """Keep what the backward pass of a fused hidden layer needs; a repeated forward pass fills the same arrays again.

    Attributes:
        activation: its name, as in `fcnet.functional.ACTIVATIONS`.
        activation_cache: what the activation's backward function reads.
        hidden: (..., N, M), the activation before dropout. With a number as `mask`, the layer's output itself.
        mask: what dropout multiplied `hidden` by, like it; None without dropout. A number, 1 / keep_ratio, where
            `hidden` is 0 wherever a unit was dropped: a ReLU that is 0 has a zero gradient, off or dropped.
        norm: the normalisation's part; None without one.
        b: the argument itself.
        x: what maxout acted on; None for the other activations, which act in place.
    """

    activation: str
    activation_cache: Any
    hidden: Array
    mask: Any
    norm: NormCache | None
    b: Array
    x: Array | None = None

    @property
    def needs_mask(self) -> bool:
        """Return whether the backward pass must multiply by a mask of the shape of `hidden`."""
        return getattr(self.mask, "ndim", 0) > 0

    @property
    def scale(self) -> Any:
        """Return 1 / keep_ratio in the dtype of `hidden`, where no mask is needed."""
        return self.hidden.dtype.type(1) if self.mask is None else self.mask


def relu_cache(out: Array, scale: Any, norm: NormCache | None, b: Array) -> HiddenCache:
    """Return the cache of a ReLU layer that keeps no mask; `scale` is 1 / keep_ratio, in the dtype of `out`."""
    return HiddenCache("relu", out, out, None if scale == 1 else scale, norm, b)
