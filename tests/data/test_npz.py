""".npz files: the keys, the labels, the parts, and damaged archives."""

import pickle

import numpy as np
import pytest

from fcnet.data import load
from fcnet.data.npz import read_npz

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 5)).astype(np.float32)
Y = np.arange(60) % 3


@pytest.fixture
def save(tmp_path):
    def save(**arrays):
        path = tmp_path / "toy.npz"
        np.savez(path, **arrays)
        return path

    return save


def refuse(path, *words):
    with pytest.raises(ValueError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_one_table_is_split_80_10_10(save):
    ds = load(save(X=X, y=Y))
    assert ds.summary() == "toy: 48 train, 6 val, 6 test, 5 features, 3 classes"
    assert ds.X_train.dtype == np.float32
    assert ds.y_train.dtype == np.int64
    assert ds.preprocess == "auto"
    assert ds.image_shape is None
    rows = {row.tobytes(): label for row, label in zip(X, Y, strict=True)}
    for part, labels in ds.splits().values():
        for row, label in zip(part, labels, strict=True):
            assert rows.pop(row.tobytes()) == label
    assert not rows


def test_keys_in_any_case_and_an_official_test_part(save):
    images = RNG.integers(0, 256, (60, 4, 3)).astype(np.uint8)
    ds = load(str(save(x_train=images, Y_TRAIN=Y, x_test=images[:9], y_test=Y[:9])))
    assert ds.summary() == "toy: 54 train, 6 val, 9 test, 12 features, 3 classes"
    assert ds.image_shape == (1, 4, 3)
    assert ds.X_train.dtype == np.uint8
    assert ds.preprocess == "center"
    np.testing.assert_array_equal(ds.X_test, images[:9].reshape(9, 12))


def test_training_part_alone_is_split_in_three(save):
    assert load(save(X_train=X, y_train=Y)).summary().startswith("toy: 48 train, 6 val, 6 test")


def test_given_parts_are_kept(save):
    ds = load(save(X_train=X, y_train=Y, X_val=X[:7], y_val=Y[:7]))
    assert list(ds.splits()) == ["train", "val"]
    np.testing.assert_array_equal(ds.X_train, X)
    np.testing.assert_array_equal(ds.X_val, X[:7])


def test_colour_images_stay_in_their_own_order(save):
    images = RNG.integers(0, 256, (60, 4, 3, 2)).astype(np.uint8)
    ds = load(save(X_train=images, y_train=Y, X_val=images, y_val=Y))
    assert ds.image_shape == (4, 3, 2)
    np.testing.assert_array_equal(ds.X_train, images.reshape(60, 24))


def test_split_seed(save):
    path = save(X=X, y=Y)
    np.testing.assert_array_equal(load(path, split_seed=4).X_val, load(path, split_seed=4).X_val)
    assert not np.array_equal(load(path, split_seed=4).X_val, load(path).X_val)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (Y.astype(np.uint8), ("0", "1", "2")),
        (Y * 10 - 5, ("-5", "5", "15")),
        (Y == 1, ("False", "True")),
        (np.array(["b", "a", "c"])[Y], ("a", "b", "c")),
        (np.array([b"b", b"a", b"c"])[Y], ("a", "b", "c")),
        (Y.astype(np.float32), ("0", "1", "2")),
        (Y.reshape(-1, 1), ("0", "1", "2")),
        (np.eye(3)[Y], ("0", "1", "2")),
        (Y.astype(">i4"), ("0", "1", "2")),
        (Y * 4096.0 + 2.0**60, tuple(str(2**60 + 4096 * i) for i in range(3))),
        (Y * 4096.0 + 2.0**63, tuple(str(2**63 + 4096 * i) for i in range(3))),
        (np.char.encode(np.array(["é", "è", "e"])[Y], "utf-8"), ("e", "è", "é")),
        (Y.astype(np.uint64) + np.uint64(2**63), tuple(str(2**63 + i) for i in range(3))),
    ],
)
def test_labels_of_every_kind(save, labels, classes):
    ds = load(save(X_train=X, y_train=labels, X_val=X, y_val=labels))
    assert ds.classes == classes
    assert ds.y_train.dtype == np.int64
    plain = labels.argmax(axis=1) if labels.ndim == 2 and labels.shape[1] > 1 else labels.ravel()
    names = [c.decode() if isinstance(c, bytes) else c for c in plain.tolist()]
    assert [ds.classes[code] for code in ds.y_train] == [
        str(int(name)) if isinstance(name, float) else str(name) for name in names
    ]


@pytest.mark.parametrize("kinds", [("u8", "i8"), ("i8", "u8"), ("u8", "f8"), ("i4", "bool")])
def test_labels_of_two_dtypes_are_compared_exactly(save, kinds):
    start = 2**60 if kinds[1] in ("i8", "u8") else 0
    y = Y % 2 + start
    ds = load(save(X_train=X, y_train=y.astype(kinds[0]), X_val=X, y_val=y.astype(kinds[1])))
    assert ds.classes == (str(start), str(start + 1))
    np.testing.assert_array_equal(ds.y_val, Y % 2)


def test_other_byte_order_becomes_the_machines(save):
    ds = load(save(X=X.astype(">f4"), y=Y))
    assert ds.X_train.dtype.isnative
    assert sorted(ds.X_val.ravel().tolist())[0] in X


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"X": X}, ["expected arrays X, y", "got X; lacking y: add"]),
        ({"images": X, "labels": Y}, ["got images, labels"]),
        ({"X_train": X, "y_train": Y, "X_val": X}, ["lacking y_val"]),
        ({"X_train": X, "y_train": Y, "y_test": Y}, ["lacking X_test"]),
        ({"X": X, "y": Y, "X_train": X, "y_train": Y}, ["got both"]),
        ({"X": X, "y": Y, "X_test": X, "y_test": Y}, ["expected arrays X, y or"]),
        ({"X": X, "x": X, "y": Y}, ["one array for X; got X and x"]),
        ({"X": X, "y": Y[:50]}, ["y: expected 60 labels", "sample of X;", "got 50"]),
        ({"X": X, "y": Y + 0.5}, ["labels are not integers: got 0.5 at 0"]),
        ({"X": X, "y": Y * 1e300}, ["y: expected whole numbers of 64 bits; got 2e+300 at 2; use y.astype(str)"]),
        ({"X": X, "y": np.array([b"caf\xe9", b"caf\xe8"])[Y % 2]}, [r"y: expected text in UTF-8; got b'caf\xe9' at 0"]),
        ({"X": X, "y": np.where(Y == 1, np.nan, Y)}, ["labels are not integers: got nan at 1"]),
        ({"X": X, "y": np.zeros((60, 2, 2))}, ["labels of shape (N,)"]),
        ({"X": X, "y": np.full((60, 2), 7)}, ["one-hot rows"]),
        ({"X": X, "y": Y * 1j}, ["got dtype complex128"]),
        ({"X": X, "y": Y * 0}, [".npz: y: expected at least 2 classes"]),
        ({"X": X[:0], "y": Y[:0]}, ["X: expected at least one sample; got shape (0, 5)"]),
        ({"X": X[:, 0], "y": Y}, ["(N, D)", "(60,)"]),
        ({"X": X[:4], "y": Y[:4]}, [".npz: y: expected at least 5 samples", "got 4 samples", "X_train, X_val"]),
        ({"X": X.astype(str), "y": Y}, ["expected numbers; got dtype <U"]),
        ({"X": np.where(X > 2, np.nan, X), "y": Y}, [".npz: X: expected finite", "NaN"]),
        ({"X_train": X, "y_train": Y, "X_val": X[:3], "y_val": Y[:3] + 1}, ["only labels", "3 at 2"]),
        ({"X_train": X, "y_train": Y, "X_val": X[:1], "y_val": np.array(["a"])}, ["labels like"]),
        ({"X_train": X, "y_train": Y, "X_val": X[:3, :4], "y_val": Y[:3]}, ["X_val: expected 5 features"]),
    ],
)  # fmt: skip
def test_errors(save, arrays, words):
    refuse(save(**arrays), *words)


def test_objects_are_not_unpickled(save):
    refuse(
        save(X=np.array([[1, None]] * 60, dtype=object), y=Y),
        "X: expected numbers or text; got Python objects",
    )


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_cut_short(save, keep):
    path = save(X=X, y=Y)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    refuse(path, "expected an .npz file")


@pytest.mark.parametrize("seed", range(5))
def test_random_bytes(tmp_path, seed):
    path = tmp_path / "toy.npz"
    path.write_bytes(np.random.default_rng(seed).bytes(300))
    refuse(path, "expected an .npz file")


def test_changed_bytes_never_pass_unnoticed(save):
    path = save(X=X, y=Y)
    data = path.read_bytes()
    whole, refused = load(path), 0
    for at in range(0, len(data), 37):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
        try:
            ds = load(path)
        except ValueError:
            refused += 1
        else:  # a byte nobody reads, such as a date
            np.testing.assert_array_equal(ds.X_train, whole.X_train)
    assert refused > 30


def test_a_single_array_called_npz(tmp_path):
    np.save(tmp_path / "a.npy", X)
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    refuse(tmp_path / "a.npz", "got a single array")


def test_without_labels_only_the_inputs_are_read(save):
    assert list(read_npz(save(x=X), labels=False)) == ["X"]
    objects = np.array([None] * 60)
    arrays = read_npz(save(X_train=X, y_train=objects, X_test=X[:3]), labels=False)
    assert list(arrays) == ["X_train", "X_test"]
    np.testing.assert_array_equal(arrays["X_test"], X[:3])
    with pytest.raises(ValueError, match="expected an array X, X_test or X_train; got images"):
        read_npz(save(images=X), labels=False)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "an empty file"),
        (b"a,b\n1,2\n", "a text file"),
        (pickle.dumps({"X": [1]}), "a pickle, which is never loaded"),
        (b"\x89PNG\0", "another kind of file"),
    ],
)
def test_another_file_called_npz_is_named_in_our_own_words(tmp_path, content, kind):
    path = tmp_path / "toy.npz"
    path.write_bytes(content)
    refuse(path, f"expected an .npz file; got {kind}; save the arrays with np.savez")
    with pytest.raises(ValueError, match="got") as caught:
        read_npz(path, labels=False)
    assert "allow_pickle" not in str(caught.value)


def test_an_archive_without_arrays(save):
    refuse(save(), "got an archive without any")


def test_places_are_those_of_the_file_not_of_a_part(save):
    bad = X.copy()
    bad[50, 2] = np.nan
    refuse(save(X=bad, y=Y), "X: expected finite numbers", "at (50, 2)")
