"""The course's `features.py`: what its notebook makes of images before a classifier sees them; on the host.

Source: CS231n, assignment 1, features.ipynb.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

__all__ = [
    "color_histogram",
    "color_histogram_cross",
    "color_histogram_hsv",
    "color_histogram_spatial",
    "extract_features",
    "hog_feature",
    "np",
    "rgb2gray",
]

GRAY = np.array([0.299, 0.587, 0.144])  # as the course has it; the usual weight of blue is 0.114
CELL = 8  # pixels, high and wide
ORIENTATIONS = 9


def extract_features(
    imgs: np.ndarray, feature_fns: Sequence[Callable[[np.ndarray], np.ndarray]], verbose: bool = False
) -> np.ndarray:
    """Return every function's vector for every image, side by side: (N, F) float64.

    Args:
        imgs: (N, H, W, C). feature_fns: functions of an image (H, W, C), of (H, W) if C is 1, that each give a vector
            (F_j,).
        verbose: print a line after every thousand images.
    """
    if len(imgs) == 0 or not feature_fns:
        raise ValueError(f"extract_features: expected images and functions, got {len(imgs)} and {len(feature_fns)}")
    rows = []
    for number, image in enumerate(imgs, 1):
        rows.append(np.concatenate([np.ravel(function(np.squeeze(image))) for function in feature_fns]))
        if verbose and number % 1000 == 0:
            print(f"Done extracting features for {number} / {len(imgs)} images")
    return np.array(rows, dtype=np.float64)


def rgb2gray(rgb: np.ndarray) -> np.ndarray:
    """Return the brightness (...) of pixels (..., 3): 0.299 red + 0.587 green + 0.144 blue, no further channels."""
    # Rounded as in the course, where equal neighbours give a gradient of exactly 0: `hog_feature` has an edge there.
    return np.dot(rgb[..., :3], GRAY)


def hog_feature(im: np.ndarray) -> np.ndarray:
    """Return a histogram of oriented gradients: per cell of 8 x 8 pixels the mean strength of edges in 9 directions.

    For the brightness I: gx = I[i, j + 1] - I[i, j], gy = I[i + 1, j] - I[i, j], strength √(gx² + gy²), direction
    atan2(gy, gx + 1e-15) + 90°, of which only those between 0° and 180° count, in bins of 20°.

    Args:
        im: (H, W, 3), or (H, W) of one channel.

    Returns:
        (W // 8 * (H // 8) * 9,), cells column by column as in the course; pixels beyond the last whole cell are left
        out. Source: Dalal and Triggs, 2005, in the course's form.
    """
    bright = np.asarray(im, dtype=np.float64)
    bright = rgb2gray(bright) if bright.ndim == 3 else bright
    rows, columns = (size // CELL for size in bright.shape)
    gx = np.diff(bright, axis=1, append=bright[:, -1:])
    gy = np.diff(bright, axis=0, append=bright[-1:])
    angle = np.arctan2(gy, gx + 1e-15) * (180 / np.pi) + 90
    width, strength = 180 / ORIENTATIONS, np.hypot(gx, gy)
    histogram = np.empty((columns, rows, ORIENTATIONS))
    for i in range(ORIENTATIONS):
        inside = (angle > 0) & (i * width <= angle) & (angle < (i + 1) * width)
        chosen = np.where(inside, strength, 0)[: rows * CELL, : columns * CELL]
        histogram[:, :, i] = chosen.reshape(rows, CELL, columns, CELL).mean(axis=(1, 3)).T
    return histogram.ravel()


def color_histogram_hsv(
    im: np.ndarray, nbin: int = 10, xmin: float = 0, xmax: float = 255, normalized: bool = True
) -> np.ndarray:
    """Count the pixels of im (H, W, 3) whose hue is in each of nbin equal parts of xmin to xmax: (nbin,).

    The hue is that of HSV times xmax. normalized: shares of all pixels, which sum to 1; else numbers times the width
    of a bin, as in the course.
    """
    red, green, blue = np.moveaxis(np.asarray(im, dtype=np.float64) / xmax, -1, 0)
    top = np.max([red, green, blue], axis=0)
    spread = top - np.min([red, green, blue], axis=0)
    by = np.where(spread > 0, spread, 1)
    sixths = np.select(
        [spread == 0, top == blue, top == green],
        [0, 4 + (red - green) / by, 2 + (blue - red) / by],
        (green - blue) / by,
    )
    edges = np.linspace(xmin, xmax, nbin + 1)
    counts, _ = np.histogram(sixths / 6 % 1 * xmax, bins=edges, density=normalized)
    return counts * np.diff(edges)


def color_histogram(
    im: np.ndarray, nbin: int = 10, xmin: float = 0, xmax: float = 255, normalized: bool = True
) -> np.ndarray:
    """Count the values of each channel in each of nbin equal parts of xmin to xmax.

    For im (H, W, C): (3 * nbin,), as `color_histogram_hsv` for each of the first three channels. For im (H, W):
    (nbin,), as densities if normalized, else as numbers.
    """
    im = np.asarray(im)
    if im.ndim not in (2, 3):
        raise ValueError(f"im: expected an image (H, W) or (H, W, C), got shape {im.shape}")
    edges = np.linspace(xmin, xmax, nbin + 1)
    if im.ndim == 2:
        return np.histogram(im, bins=edges, density=normalized)[0]
    counts = [np.histogram(im[..., channel], bins=edges, density=normalized)[0] for channel in range(3)]
    return np.concatenate(counts) * np.tile(np.diff(edges), 3)


def color_histogram_cross(img: np.ndarray, nbin: int = 5, normalized: bool = True) -> np.ndarray:
    """Count the pixels of img (H, W, C) in each cell of colours: (nbin ** C,), densities if normalized.

    Each channel's values, from its smallest to its largest in the image, are cut into nbin equal parts.
    """
    return np.histogramdd(img.reshape(-1, img.shape[-1]), bins=nbin, density=normalized)[0].ravel()


def color_histogram_spatial(img: np.ndarray, levels: int = 3, nbin: int = 4) -> np.ndarray:
    """Return `color_histogram_cross` of img (H, W, C) cut into 1 x 1, ..., levels x levels pieces, side by side."""
    pieces = [
        piece
        for level in range(1, levels + 1)
        for rows in np.array_split(img, level, axis=0)
        for piece in np.array_split(rows, level, axis=1)
    ]
    return np.hstack([color_histogram_cross(piece, nbin=nbin) for piece in pieces])
