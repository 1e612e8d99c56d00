"""What a reference and its kernels share, on any device: constants, the arithmetic of dropout, a ReLU layer's cache.

A ReLU output that is zero has a zero gradient, whether the unit was off or dropped, so the backward pass needs no mask:
only the output and the scale 1 / keep_ratio.
"""

from __future__ import annotations

from typing import Any, NamedTuple

EPS = 1e-5  # added to a normalisation's variance
MOMENTUM = 0.9  # weighs the old running value (CS231n, Keras); PyTorch's 0.1 weighs the new one
STEPS = 65536  # masks compare 16-bit integers, so the probability to keep is a multiple of 1/65536


def keep_threshold(keep_ratio: float) -> int:
    """The number of 16-bit values that keep a unit: 1 to 65536 (which is out of 16-bit range: keep all)."""
    return max(1, round(keep_ratio * STEPS))


class FusedNorm(NamedTuple):
    """Of a normalisation: x_hat (N, M), inv_std (M,) over columns or (N, 1) over rows, gamma, and scratch if the device
    needs some. As many fields, in the same order, as the reference's `NormCache`.
    """

    x_hat: Any
    inv_std: Any
    gamma: Any
    work: Any = None
    var: None = None


class FusedCache(NamedTuple):
    """For the backward pass: the unit's output, 1 / keep_ratio, and the normalisation's part. No mask is kept.

    The other names are those by which the reference reads its own cache: gradients into arrays that do not suit a
    kernel are its work.
    """

    hidden: Any
    scale: Any
    norm: FusedNorm | None = None

    @property
    def activation(self) -> str:
        return "relu"

    @property
    def activation_cache(self) -> Any:
        return self.hidden

    @property
    def mask(self) -> Any:
        return None if self.scale == 1 else self.scale

    @property
    def b(self) -> Any:
        """An array like b."""
        return self.hidden[0]


def again(function: str, cache: Any, z: Any, inv_std: tuple[int, ...] | None, suits: bool) -> bool:
    """Whether a kernel serves: the other arguments suit it, and there is no cache or one of its own to fill again.

    `inv_std` is the shape of a normalisation's. Raises ValueError if a kernel made the cache, but for other arguments:
    it would write beside the arrays, and the reference fills its own kind only.
    """
    if not isinstance(cache, FusedCache):
        return suits and cache is None
    norm = cache.norm
    arrays = [cache.hidden] if norm is None else [cache.hidden, norm.x_hat]
    alike = all(array.shape == z.shape and array.dtype == z.dtype for array in arrays)
    if not (suits and alike and (inv_std is None or (norm is not None and norm.inv_std.shape == inv_std))):
        raise ValueError(
            f"{function}: cache: expected one that it returned for arguments like these, z of {z.shape} and {z.dtype}, "
            f"got one of {cache.hidden.shape} and {cache.hidden.dtype}, or of another unit or layout; give none, or "
            "keep one for each"
        )
    return True
