"""CIFAR-10 in both versions, with small batches; damaged files, and pickles with other intents."""

import gzip
import lzma
import os
import pickle
import struct

import numpy as np
import pytest

import fcnet.data
from fcnet.data import cifar
from fcnet.data.restricted_pickle import load_dict

N = 20
BATCHES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
NAMES = [f"class {i}" for i in range(10)]


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch, tmp_path):
    monkeypatch.setattr(cifar, "RECORDS", N)
    monkeypatch.delenv("FCNET_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def content(i):
    rng = np.random.default_rng(i)
    return rng.integers(0, 256, (N, 3072)).astype(np.uint8), (np.arange(N) + i) % 10


def binary(X, y):
    return np.column_stack([y.astype(np.uint8), X]).tobytes()


def python2_string(data):
    return b"U" + bytes([len(data)]) + data if len(data) < 256 else b"T" + struct.pack("<i", len(data)) + data


def python2_pickle(X, y):
    """Return what Python 2 and an old NumPy wrote, byte by byte: cPickle protocol 2, byte strings, numpy.core."""
    s = python2_string
    shape = b"M" + struct.pack("<H", X.shape[0]) + b"M" + struct.pack("<H", X.shape[1]) + b"\x86"
    dtype = (
        b"cnumpy\ndtype\n"
        + s(b"u1")
        + b"K\x00K\x01\x87R(K\x03"
        + s(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + s(b"b") + b"\x87R"
    array += b"(K\x01" + shape + dtype + b"\x89" + s(X.tobytes()) + b"tb"
    labels = b"](" + b"".join(b"K" + bytes([c]) for c in y.tolist()) + b"e"
    return b"\x80\x02}(" + s(b"data") + array + s(b"labels") + labels + b"u."


def python3_pickle(protocol):
    return lambda X, y: pickle.dumps({b"data": X, b"labels": y.tolist()}, protocol=protocol)


def write_set(folder, make, suffix, meta=()):
    folder.mkdir(parents=True)
    for i, name in enumerate(BATCHES):
        (folder / (name + suffix)).write_bytes(make(*content(i)))
    for name, data in meta:
        (folder / name).write_bytes(data)


TEXT_META = [("batches.meta.txt", "\n".join(NAMES).encode() + b"\n\n")]
PICKLED_META = [("batches.meta", pickle.dumps({b"label_names": [n.encode() for n in NAMES]}, 2))]
FORMS = {
    "binary": ("cifar-10-batches-bin", binary, ".bin", TEXT_META),
    "binary-gz": ("cifar10", lambda X, y: gzip.compress(binary(X, y), 1), ".bin.gz", TEXT_META),
    "binary-xz": ("cifar10", lambda X, y: lzma.compress(binary(X, y), preset=0), ".bin.xz", TEXT_META),
    "python2": ("cifar-10-batches-py", python2_pickle, "", PICKLED_META),
    "python3-protocol2": ("cifar-10-batches-py", python3_pickle(2), "", PICKLED_META),
    "python3-protocol4": ("cifar-10-batches-py", python3_pickle(4), "", PICKLED_META),
    "python3-protocol5": ("cifar-10-batches-py", python3_pickle(5), "", PICKLED_META),
}


@pytest.mark.parametrize("form", FORMS)
def test_load_every_form(tmp_path, form):
    folder, make, suffix, meta = FORMS[form]
    write_set(tmp_path / folder, make, suffix, meta)
    for data_dir in (tmp_path, tmp_path / folder):
        ds = fcnet.data.load("cifar10", data_dir=data_dir)
        assert ds.summary() == "cifar10: 90 train, 10 val, 20 test, 3072 features, 10 classes"
        assert ds.classes == tuple(NAMES)
        assert ds.image_shape == (3, 32, 32)
        assert ds.X_train.dtype == np.uint8
        assert ds.y_train.dtype == np.int64
        X_test, y_test = content(5)
        np.testing.assert_array_equal(ds.X_test, X_test)
        np.testing.assert_array_equal(ds.y_test, y_test)
        assert np.bincount(ds.y_val).tolist() == [1] * 10
        # Every training image is there once, with its own label.
        X = np.concatenate([content(i)[0] for i in range(5)])
        y = np.concatenate([content(i)[1] for i in range(5)])
        expected = sorted((row.tobytes(), int(label)) for row, label in zip(X, y, strict=True))
        got = [
            (row.tobytes(), int(label))
            for part in ("train", "val")
            for row, label in zip(*ds.splits()[part], strict=True)
        ]
        assert sorted(got) == expected


def test_class_names_without_a_file(tmp_path):
    assert cifar.read_class_names(tmp_path)[:2] == ("airplane", "automobile")


@pytest.mark.parametrize("name", ["batches.meta.txt", "batches.meta"])
def test_class_names_from_a_damaged_file(tmp_path, name):
    data = b"one\ntwo\n" if name.endswith("txt") else pickle.dumps({b"label_names": [b"one"]}, 2)
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=r"expected 10 class names; got [12]; again"):
        cifar.read_class_names(tmp_path, "again")


def refuse(path, *words):
    X, y = np.empty((N, 3072), np.uint8), np.empty(N, np.int64)
    with pytest.raises(ValueError) as caught:
        cifar.read_batch(path, X, y, "run: fcnet fetch cifar10")
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    for word in ("fcnet fetch cifar10", *words):
        assert word in message


@pytest.mark.parametrize("length", [0, 1, 3072, 3073, N * 3073 - 1, N * 3073 + 1])
@pytest.mark.parametrize("suffix", [".bin", ".bin.gz", ".bin.xz"])
def test_binary_of_another_size(tmp_path, length, suffix):
    path = tmp_path / ("data_batch_1" + suffix)
    data = (binary(*content(0)) + b"\0")[:length]
    path.write_bytes({".gz": gzip.compress, ".xz": lzma.compress}.get(path.suffix, bytes)(data))
    refuse(path, f"expected {N * 3073} bytes", "more" if length > N * 3073 else f"only {length}")


@pytest.mark.parametrize("suffix", [".bin.gz", ".bin.xz"])
@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.9999])
def test_packing_cut_short(tmp_path, suffix, keep):
    packed = (gzip if suffix == ".bin.gz" else lzma).compress(binary(*content(0)))
    path = tmp_path / ("data_batch_1" + suffix)
    path.write_bytes(packed[: int(len(packed) * keep)])
    refuse(path, "expected")


def test_packing_of_random_bytes(tmp_path):
    for suffix in (".bin.gz", ".bin.xz"):
        path = tmp_path / ("data_batch_1" + suffix)
        path.write_bytes(np.random.default_rng(0).bytes(500))
        refuse(path, "damaged")


def test_label_out_of_range(tmp_path):
    X, y = content(0)
    y[7] = 10
    path = tmp_path / "data_batch_1.bin"
    path.write_bytes(binary(X, y))
    refuse(path, "labels 0..9; got 10 at image 7")
    path = tmp_path / "data_batch_1"
    path.write_bytes(python3_pickle(2)(X, y))
    refuse(path, "labels 0..9", "at image 7")


@pytest.mark.parametrize("make", [python2_pickle, python3_pickle(2), python3_pickle(5)])
def test_pickle_cut_short_anywhere(tmp_path, make):
    whole = make(*content(0))
    path = tmp_path / "data_batch_1"
    for length in [0, 1, 2, 10, 50, 100, 150, len(whole) // 2, len(whole) - 60, len(whole) - 1]:
        path.write_bytes(whole[:length])
        refuse(path)


def test_pickle_of_random_bytes(tmp_path):
    path = tmp_path / "data_batch_1"
    for seed in range(20):
        path.write_bytes(b"\x80\x02" + np.random.default_rng(seed).bytes(100))
        refuse(path)


@pytest.mark.parametrize(
    ("thing", "words"),
    [
        ([1, 2], ["expected a dict; got list"]),
        ({b"labels": []}, ["'data'", "got NoneType"]),
        ({b"data": np.zeros((N, 5), np.uint8), b"labels": [0] * N}, ["'data'", "(20, 5)"]),
        ({b"data": np.zeros((N, 3072)), b"labels": [0] * N}, ["an array of 'f8'", "refused"]),
        (
            {b"data": np.zeros((N, 3072), np.uint8), b"labels": [0] * 3},
            ["'labels' as a list of 20 integers; got 3"],
        ),
        ({b"data": np.zeros((N, 3072), np.uint8), b"labels": ["a"] * N}, ["'labels' as a list"]),
        (
            {b"data": np.zeros((N, 3072), np.uint8), b"labels": [0] * 19 + [10**30]},
            ["labels 0..9", "image 19"],
        ),
    ],
)
def test_pickle_of_something_else(tmp_path, thing, words):
    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps(thing, 2))
    refuse(path, *words)


class Evil:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, protocol):
    created = tmp_path / "created"
    path = tmp_path / "data_batch_1"
    data = pickle.dumps({b"data": Evil(os.mkdir, str(created))}, protocol)
    path.write_bytes(data)
    refuse(path, "wants to load", f"{os.mkdir.__module__}.mkdir", "refused and not run")
    assert not created.exists()
    pickle.loads(data)
    assert created.exists()  # the pickle does work where it is let


@pytest.mark.parametrize(
    "name",
    [
        "builtins\neval",
        "__builtin__\neval",
        "builtins\ngetattr",
        "os\nsystem",
        "numpy\nload",
        "numpy\nfromfile",
        "numpy\nndarray.tofile",
        "numpy.core.multiarray\nscalar",
        "numpy.testing\nrundocs",
        "codecs\nencode",
    ],
)
def test_other_names_are_refused(tmp_path, name):
    path = tmp_path / "p"
    path.write_bytes(b"\x80\x02c" + name.encode() + b"\n(tR.")
    with pytest.raises(ValueError, match=name.replace("\n", r"\.") + ", which was refused"):
        load_dict(path, 1000)


def test_no_attribute_is_reached_through_a_dotted_name(tmp_path):
    path = tmp_path / "p"
    path.write_bytes(b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.")
    with pytest.raises(ValueError, match=r"numpy\.ndarray\.tofile, which was refused"):
        load_dict(path, 1000)


def test_codecs_encode_knows_latin1_only(tmp_path):
    path = tmp_path / "p"
    path.write_bytes(pickle.dumps({"a": b"\xe9\x00"}, 2))  # Python 3 writes this as _codecs.encode(..., "latin1")
    assert b"_codecs" in path.read_bytes()
    assert load_dict(path, 1000) == {"a": b"\xe9\x00"}
    path.write_bytes(path.read_bytes().replace(b"latin1", b"rot_13"))
    with pytest.raises(ValueError, match=r"_codecs.encode to 'rot_13', which was refused"):
        load_dict(path, 1000)


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_both_spellings_of_numpys_core(tmp_path, module):
    path = tmp_path / "p"
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    data = pickle.dumps({"a": array, "f": np.asfortranarray(array)}, 2)
    path.write_bytes(data.replace(b"numpy._core.multiarray", module).replace(b"numpy.core.multiarray", module))
    content = load_dict(path, 1000)
    np.testing.assert_array_equal(content["a"], array)
    np.testing.assert_array_equal(content["f"], array)


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("array", [np.array([None]), np.arange(3.0), np.zeros(2, "V4,O")], ids=["O", "f8", "V"])
def test_arrays_of_anything_but_bytes_are_refused(tmp_path, protocol, array):
    path = tmp_path / "p"
    path.write_bytes(pickle.dumps({"a": array}, protocol))
    with pytest.raises(ValueError, match="not 'u1', which was refused"):
        load_dict(path, 1000)


@pytest.mark.parametrize(
    "asks",
    [
        b"\x80\x04K\x01r\xff\xff\xff\xff.",  # a memo entry far away, for which the C unpickler takes 64 GB
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\x00\x00\x00.",  # bytes of a length that the file does not have
        b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\x00\x00.",
    ],
)
def test_absurd_numbers_need_no_memory(tmp_path, asks):
    path = tmp_path / "p"
    path.write_bytes(asks)
    with pytest.raises(ValueError, match="expected a"):
        load_dict(path, 1000)


def test_a_pickle_larger_than_the_limit_is_not_read(tmp_path):
    path = tmp_path / "p"
    path.write_bytes(bytes(101))
    with pytest.raises(ValueError, match="expected at most 100 bytes; got 101"):
        load_dict(path, 100)
