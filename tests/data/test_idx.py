"""The idx format: whole files packed and not, and every way in which one can be damaged."""

import gzip
import lzma
import struct

import numpy as np
import pytest

from fcnet.data.idx import read_idx, read_images_and_labels

IMAGES = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
LABELS = np.array([3, 0, 9, 1, 2], dtype=np.uint8)


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def write(tmp_path):
    def write(data, name="train-images-idx3-ubyte"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


@pytest.mark.parametrize(("pack", "suffix"), [(bytes, ""), (gzip.compress, ".gz"), (lzma.compress, ".xz")])
def test_a_whole_file(write, pack, suffix):
    array = read_idx(write(pack(idx(IMAGES)), "images" + suffix), 3)
    np.testing.assert_array_equal(array, IMAGES)
    assert array.dtype == np.uint8
    assert array.flags.writeable


def test_larger_than_one_reading_step(write):
    large = np.arange(3_000_000, dtype=np.uint8)
    np.testing.assert_array_equal(read_idx(write(gzip.compress(idx(large), 1), "large.gz"), 1), large)


def refuse(path, ndim, *words):
    with pytest.raises(ValueError) as caught:
        read_idx(path, ndim, "delete it and run: fcnet fetch mnist")
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    for word in ("expected", "got", "fcnet fetch mnist", *words):
        assert word in message


@pytest.mark.parametrize("length", [0, 1, 3, 4, 5, 15, 16, 17, 40, 16 + 59])
def test_cut_short(write, length):
    refuse(write(idx(IMAGES)[:length]), 3)


@pytest.mark.parametrize("missing", [1, 4, 8, 9, 20, 40])
def test_gzip_cut_short(write, missing):
    packed = gzip.compress(idx(IMAGES))
    refuse(write(packed[:-missing], "images.gz"), 3)


def test_gzip_with_a_wrong_checksum(write):
    packed = bytearray(gzip.compress(idx(IMAGES)))
    packed[-8] ^= 1
    refuse(write(packed, "images.gz"), 3, "CRC")


def test_xz_cut_short(write):
    refuse(write(lzma.compress(idx(IMAGES))[:-10], "images.xz"), 3)


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
@pytest.mark.parametrize("seed", range(5))
def test_random_bytes(write, suffix, seed):
    refuse(write(np.random.default_rng(seed).bytes(200), "images" + suffix), 3)


def test_plain_file_called_gz(write):
    refuse(write(idx(IMAGES), "images.gz"), 3, "gz")


def test_html_error_page_instead_of_the_file(write):
    refuse(write(b"<html>404</html>"), 3, "magic 2051", "3c 68 74 6d")


def test_magic_of_labels_where_images_are_due(write):
    refuse(write(idx(LABELS)), 3, "magic 2051", "got 2049 (1-dimensional uint8)")
    refuse(write(idx(IMAGES)), 1, "magic 2049", "got 2051 (3-dimensional uint8)")


def test_another_type(write):
    data = struct.pack(">HBBI", 0, 0x0D, 1, 2) + bytes(8)
    refuse(write(data), 1, "1-dimensional float32")


def test_trailing_bytes(write):
    refuse(write(idx(IMAGES) + b"\0"), 3, "60 bytes", "got more")
    refuse(write(gzip.compress(idx(IMAGES) + bytes(9)), "images.gz"), 3, "got more")


def test_absurd_lengths_need_no_memory(write):
    data = struct.pack(">HBB3I", 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1) + bytes(10)
    refuse(write(data), 3, "got only 10")
    refuse(write(gzip.compress(data), "images.gz"), 3, "got only 10")


def test_pairs(write):
    X, y = read_images_and_labels(write(idx(IMAGES), "i"), write(idx(LABELS), "l"), "advice")
    assert X.shape == (5, 4, 3)
    assert y.dtype == np.int64
    assert y.tolist() == LABELS.tolist()


def test_pairs_that_do_not_fit(write):
    images = write(idx(IMAGES), "i")
    with pytest.raises(ValueError, match="expected 5 labels, as many as images in i; got 4; advice"):
        read_images_and_labels(images, write(idx(LABELS[:4]), "l"), "advice")
    with pytest.raises(ValueError, match=r"expected labels 0\.\.9; got 10 at 1; advice"):
        read_images_and_labels(images, write(idx(LABELS + np.uint8(1) * (LABELS == 0) * 10), "l"), "advice")
    with pytest.raises(ValueError, match="expected at least one image"):
        read_images_and_labels(write(idx(IMAGES[:0]), "i"), write(idx(LABELS[:0]), "l"), "advice")
