"""The course's features.py against loops over pixels and cells, and the standard library's HSV."""

import colorsys
import math

import numpy as np
import pytest

from fcnet.compat.cs231n import color_histogram_hsv, extract_features, hog_feature
from fcnet.compat.cs231n.features import color_histogram, color_histogram_cross, color_histogram_spatial, rgb2gray


def slow_hog(im):
    """Cell by cell, pixel by pixel; the sum of strengths over 64 in nine bins of 20 degrees."""
    height, width = im.shape[:2]
    weights = (0.299, 0.587, 0.144)
    bright = [
        [math.fsum(w * v for w, v in zip(weights, im[i, j], strict=True)) if im.ndim == 3 else float(im[i, j])
         for j in range(width)] for i in range(height)
    ]  # fmt: skip
    features = []
    for column in range(width // 8):
        for row in range(height // 8):
            bins = [0.0] * 9
            for i in range(8 * row, 8 * row + 8):
                for j in range(8 * column, 8 * column + 8):
                    gx = bright[i][j + 1] - bright[i][j] if j + 1 < width else 0.0
                    gy = bright[i + 1][j] - bright[i][j] if i + 1 < height else 0.0
                    degrees = math.degrees(math.atan2(gy, gx + 1e-15)) + 90
                    if 0 < degrees < 180:
                        bins[int(degrees // 20)] += math.sqrt(gx * gx + gy * gy) / 64
            features += bins
    return features


@pytest.mark.parametrize("shape", [(32, 32, 3), (16, 24, 3), (29, 19, 3), (16, 16)])
def test_hog(shape, rng):
    im = rng.uniform(0, 255, size=shape)
    feature = hog_feature(im)
    assert feature.shape == (shape[0] // 8 * (shape[1] // 8) * 9,)
    np.testing.assert_allclose(feature, slow_hog(im), rtol=1e-10, atol=1e-12)


def test_brightness_is_rounded_as_in_the_course(rng):
    """By np.dot: another rounding gives edges where neighbours are equal, of any direction."""
    im = rng.integers(0, 256, size=(32, 32, 4)).astype(float)
    np.testing.assert_array_equal(rgb2gray(im), np.dot(im[..., :3], [0.299, 0.587, 0.144]))
    upright = np.repeat(im[:, :1, :3], 32, axis=1)
    np.testing.assert_array_equal(hog_feature(upright), hog_feature(np.dot(upright, [0.299, 0.587, 0.144])))


def test_hog_finds_an_edge():
    im = np.zeros((16, 16), np.uint8)
    im[:, 5:] = 200  # brighter to the right: 0 degrees, moved to 90, the fifth bin
    feature = hog_feature(im).reshape(2, 2, 9)
    expected = np.zeros((2, 2, 9))
    expected[0, :, 4] = 200 * 8 / 64
    np.testing.assert_allclose(feature, expected)
    back = hog_feature(200 - im)
    np.testing.assert_allclose(back, 0, err_msg="directions beyond 180 degrees do not count")


@pytest.mark.parametrize("kind", [np.uint8, np.float64])
@pytest.mark.parametrize("normalized", [True, False])
def test_hue_histogram(kind, normalized, rng):
    im = rng.integers(0, 256, size=(9, 7, 3)).astype(kind)
    im[0, 0], im[0, 1], im[0, 2], im[0, 3] = (9, 9, 9), (200, 0, 200), (200, 200, 0), (255, 0, 0)
    expected = [0.0] * 6
    for pixel in im.reshape(-1, 3).tolist():
        hue, _, _ = colorsys.rgb_to_hsv(*(value / 255 for value in pixel))
        expected[min(int(hue * 6), 5)] += 1 / 63 if normalized else 255 / 6
    np.testing.assert_allclose(color_histogram_hsv(im, nbin=6, normalized=normalized), expected, rtol=1e-12)
    assert color_histogram_hsv(im).shape == (10,)
    assert color_histogram_hsv(im).sum() == pytest.approx(1)


def test_extract_features(rng, capsys):
    imgs = rng.uniform(0, 255, size=(5, 32, 32, 3))
    features = extract_features(imgs, [hog_feature, lambda im: color_histogram_hsv(im, nbin=10)], verbose=True)
    assert features.shape == (5, 144 + 10)
    assert features.dtype == "float64"
    assert np.array_equal(features[3, :144], hog_feature(imgs[3]))
    assert np.array_equal(features[3, 144:], color_histogram_hsv(imgs[3]))
    assert capsys.readouterr().out == ""
    extract_features(np.zeros((2001, 1, 1)), [lambda im: np.zeros(1)], verbose=True)
    assert capsys.readouterr().out.splitlines() == [
        f"Done extracting features for {n} / 2001 images" for n in (1000, 2000)
    ]
    with pytest.raises(ValueError, match="expected images and functions, got 5 and 0"):
        extract_features(imgs, [])
    gray = extract_features(imgs[..., :1], [hog_feature])
    assert np.array_equal(gray[1], hog_feature(imgs[1, ..., 0])), "images of one channel come as (H, W)"


def test_colour_histograms():
    im = np.array([[[0, 10, 255], [20, 10, 255]], [[40, 10, 0], [60, 200, 0]]], np.uint8)
    np.testing.assert_allclose(color_histogram(im, nbin=2), [1, 0, 0.75, 0.25, 0.5, 0.5])
    np.testing.assert_allclose(color_histogram(im, nbin=2, normalized=False), 127.5 * np.array([4, 0, 3, 1, 2, 2]))
    np.testing.assert_allclose(color_histogram(im[..., 0], nbin=3, xmax=60), [1 / 80, 1 / 80, 2 / 80])
    np.testing.assert_allclose(color_histogram(im[..., 0], nbin=3, xmax=60, normalized=False), [1, 1, 2])
    with pytest.raises(ValueError, match=r"im: expected an image \(H, W\) or \(H, W, C\), got shape \(4,\)"):
        color_histogram(np.zeros(4))
    # Low or high in each channel: low, low, high; low, low, high; high, low, low; high, high, low.
    counts = np.array([0, 2, 0, 0, 1, 0, 1, 0])
    np.testing.assert_allclose(color_histogram_cross(im, nbin=2, normalized=False), counts)
    np.testing.assert_allclose(color_histogram_cross(im, nbin=2), counts / 4 / (30 * 95 * 127.5))
    pyramid = color_histogram_spatial(im.astype(float), levels=2, nbin=2)
    assert pyramid.shape == (5 * 8,)
    np.testing.assert_array_equal(pyramid[:8], color_histogram_cross(im, nbin=2))
    np.testing.assert_array_equal(pyramid[16:24], color_histogram_cross(im[:1, 1:].astype(float), nbin=2))
