"""Dropout: while training, units are kept with probability `keep_ratio`, the others are 0.

Inverted (CS231n): what is kept is scaled by 1 / keep_ratio while training; evaluation does nothing. Plain ("Deep
Learning from Scratch", and the paper): nothing is scaled while training; evaluation multiplies by keep_ratio.

The number is the probability to *keep* a unit (CS231n), not to drop it (the book, PyTorch, Keras).

Source: Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", 2014.
"""

from __future__ import annotations

from typing import Any

from fcnet.backends import Backend, MaskStream, checked
from fcnet.backends.caches import STEPS, keep_threshold
from fcnet.functional import checks

Array = Any


def plain_dropout_mask(
    rng: MaskStream, keep_ratio: float, shape: tuple[int, ...], dtype: Any, *, out: Array | None = None
) -> Array:
    """Return a mask: 1 with probability keep_ratio, else 0, mask = (bits < keep_ratio * 65536).

    The same for the same seed, layer, step and net, on every device.

    Args:
        rng: whose bits decide; a unit is kept where they are below `keep_threshold(keep_ratio)`.
        shape: of the units, (..., N, D).
        dtype: float32 or float64.
        out: filled if given.

    Raises:
        ValueError: keep_ratio is not in [1/65536, 1].
    """
    checks.fraction("dropout_mask", "keep_ratio", keep_ratio)
    if keep_ratio < 1 / STEPS:
        raise ValueError(f"dropout_mask: keep_ratio: expected at least 1/{STEPS}, got {keep_ratio}")
    xp = rng.backend.xp
    mask = xp.empty(shape, dtype=dtype) if out is None else out
    threshold = keep_threshold(keep_ratio)
    if threshold == STEPS:
        mask[...] = 1.0
        return mask
    # Compared as integers below `threshold`, that is at most threshold - 1, which always fits in 16 bits.
    return xp.less_equal(rng.bits(shape), threshold - 1, out=mask)


def dropout_mask(
    rng: MaskStream, keep_ratio: float, shape: tuple[int, ...], dtype: Any, *, out: Array | None = None
) -> Array:
    """Return mask = `plain_dropout_mask` / keep_ratio, of the same units; same arguments and errors."""
    mask = plain_dropout_mask(rng, keep_ratio, shape, dtype, out=out)
    return rng.backend.xp.multiply(mask, 1.0 / keep_ratio, out=mask)


def _check_forward(x: Array, mask: Array, **_: Any) -> None:
    checks.floating("dropout_forward", x=x, mask=mask)
    checks.same_shape("dropout_forward", "mask", mask, x.shape, "x")


@checked("out", "cache", check=_check_forward)
def dropout_forward(backend: Backend, x: Array, mask: Array, *, out: Array | None = None) -> tuple[Array, Array]:
    """Compute dropout in training, out = x * mask. In evaluation, inverted dropout needs no call: out = x.

    Args:
        x: (..., N, D).
        mask: like x, from `dropout_mask` or `plain_dropout_mask`; may be kept and used again.
        out: like x, filled if given; may be x itself.

    Returns:
        out and cache = mask (not a copy).
    """
    return backend.xp.multiply(x, mask, out=out), mask


@checked("dx", check=lambda dout, cache, **_: checks.gradient("dropout_backward", dout, cache))
def dropout_backward(backend: Backend, dout: Array, cache: Array, *, dx: Array | None = None) -> Array:
    """Return dx = dout * mask; `dx` is filled if given and may be dout itself."""
    return backend.xp.multiply(dout, cache, out=dx)


def _check_plain(function: str, x: Array, keep_ratio: float) -> None:
    checks.floating(function, x=x)
    checks.fraction(function, "keep_ratio", keep_ratio)


@checked("out", "cache", check=lambda x, keep_ratio, rng, **_: _check_plain("plain_dropout_forward", x, keep_ratio))
def plain_dropout_forward(
    backend: Backend,
    x: Array,
    keep_ratio: float,
    rng: MaskStream,
    *,
    out: Array | None = None,
    cache: Array | None = None,
) -> tuple[Array, Array]:
    """Compute plain dropout in training: out = x * mask, with a new mask of 0 and 1. Backward: `dropout_backward`.

    Args:
        x: (..., N, D).
        keep_ratio, rng: as in `plain_dropout_mask`.
        out: like x, filled if given; may be x itself.
        cache: like x, filled if given; must not overlap x.

    Returns:
        out and cache = the mask.
    """
    mask = plain_dropout_mask(rng, keep_ratio, x.shape, x.dtype, out=cache)
    return dropout_forward.formula(backend, x, mask, out=out)


@checked("out", check=lambda x, keep_ratio, **_: _check_plain("plain_dropout_inference", x, keep_ratio))
def plain_dropout_inference(backend: Backend, x: Array, keep_ratio: float, *, out: Array | None = None) -> Array:
    """Compute plain dropout in evaluation: out = keep_ratio * x, the mean in training; `out` may be x itself."""
    return backend.xp.multiply(x, keep_ratio, out=out)
