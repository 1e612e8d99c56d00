"""load: names and paths, where files are looked for, and what is said when they are not there."""

import gzip
import struct
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import fcnet.data
from fcnet import errors
from fcnet.data import digits, fetch, inputs, load

FILES = [f"{a}-{b}" for a in ("train", "t10k") for b in ("images-idx3-ubyte", "labels-idx1-ubyte")]


@pytest.fixture(autouse=True)
def _no_other_data(monkeypatch, tmp_path):
    monkeypatch.delenv("FCNET_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_mnist(folder, first_pixel=0, pack=gzip.compress, suffix=".gz", rename=lambda name: name):
    """100 training and 20 test images of 3 x 2; the first pixel says which copy this is."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, n in (("train", 100), ("t10k", 20)):
        images = np.full((n, 3, 2), first_pixel, dtype=np.uint8)
        images[:, 1, 1] = np.arange(n)
        labels = (np.arange(n) % 10).astype(np.uint8)
        for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            (folder / (rename(name) + suffix)).write_bytes(pack(idx(array)))


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_mnist_in_small(tmp_path, name):
    write_mnist(tmp_path / name)
    ds = load(name, data_dir=tmp_path)
    assert ds.summary() == f"{name}: 90 train, 10 val, 20 test, 6 features, 10 classes"
    assert ds.X_train.dtype == np.uint8
    assert ds.image_shape == (1, 3, 2)
    assert ds.preprocess == "center"
    assert ds.classes[9] == {"mnist": "9", "fashion-mnist": "Ankle boot"}[name]
    assert np.bincount(ds.y_val).tolist() == [1] * 10
    for part in ("train", "val"):  # each image still has its own label
        X, y = ds.splits()[part]
        np.testing.assert_array_equal(X[:, 3] % 10, y)
    assert sorted(np.concatenate([ds.X_train, ds.X_val])[:, 3].tolist()) == list(range(100))
    np.testing.assert_array_equal(ds.X_test[:, 3], np.arange(20))


def test_split_seed_moves_the_validation_part_only(tmp_path):
    write_mnist(tmp_path / "mnist")
    a, b = (load("mnist", data_dir=tmp_path, split_seed=seed) for seed in (0, 1))
    assert not np.array_equal(a.X_val, b.X_val)
    np.testing.assert_array_equal(a.X_test, b.X_test)


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("mnist", "mnist"),
        ("mnist", "MNIST/raw"),
        ("mnist", "."),
        ("fashion-mnist", "fashion-mnist"),
        ("fashion-mnist", "FashionMNIST/raw"),
        ("fashion-mnist", "."),
    ],
)
def test_layouts(tmp_path, name, layout):
    write_mnist(tmp_path / layout)
    assert len(load(name, data_dir=tmp_path).X_test) == 20


def test_files_unpacked_or_with_a_dot(tmp_path):
    write_mnist(tmp_path / "mnist", pack=bytes, suffix="")
    assert len(load("MNIST", data_dir=str(tmp_path)).X_test) == 20
    write_mnist(tmp_path / "b", pack=bytes, suffix="", rename=lambda n: n.replace("-idx", ".idx"))
    assert len(load("mnist", data_dir=tmp_path / "b").X_test) == 20


def test_search_order(tmp_path, monkeypatch):
    for place, mark in (("arg", 1), ("env", 2), ("cache/fcnet", 3)):
        write_mnist(tmp_path / place / "mnist", first_pixel=mark)
    (tmp_path / "empty").mkdir()

    def which(**arguments):
        return load("mnist", **arguments).X_test[0, 0]

    assert which() == 3
    monkeypatch.setenv("FCNET_DATA", str(tmp_path / "env"))
    assert which() == 2
    assert which(data_dir=tmp_path / "arg") == 1
    with pytest.raises(FileNotFoundError, match=r"data_dir: expected the files of mnist in .*empty; got none there"):
        which(data_dir=tmp_path / "empty")
    monkeypatch.setenv("FCNET_DATA", str(tmp_path / "empty"))
    assert which() == 3


@pytest.mark.parametrize("layout", ["fashion-mnist", "FashionMNIST/raw"])
def test_the_folder_of_the_one_never_serves_as_the_other(tmp_path, layout):
    write_mnist(tmp_path / layout)
    assert len(load("fashion-mnist", data_dir=tmp_path / layout).X_test) == 20
    with pytest.raises(FileNotFoundError, match="data_dir: expected the files of mnist in"):
        load("mnist", data_dir=tmp_path / layout)


def test_a_missing_set_says_where_it_looked_and_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("FCNET_DATA", str(tmp_path / "env"))
    with pytest.raises(FileNotFoundError) as caught:
        load("cifar10")
    message = str(caught.value)
    assert "\n" not in message
    for place in ("env", "cache/fcnet"):
        assert str(tmp_path / place / "cifar-10-batches-bin") in message
    assert "fcnet fetch cifar10" in message
    assert "FCNET_DATA" in message


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10"])
def test_a_folder_that_is_named_is_the_only_place(tmp_path, monkeypatch, name):
    monkeypatch.setenv("FCNET_DATA", str(tmp_path / "env"))
    write_mnist(tmp_path / "env" / "mnist")
    folder = tmp_path / "a b"
    folder.mkdir()
    with pytest.raises(FileNotFoundError) as caught:
        load(name, data_dir=folder)
    message = str(caught.value)
    assert message.startswith(f"data_dir: expected the files of {name} in {folder}; got none there; ")
    assert f"fcnet fetch {name} --data-dir '{folder}'" in message
    assert "env" not in message
    for read in (load, fetch):
        with pytest.raises(ValueError, match="data_dir: expected a folder; got ''; name one, or leave it out"):
            read(name, data_dir="")


@pytest.mark.parametrize("missing", FILES)
def test_a_set_that_is_partly_there_names_what_is_missing(tmp_path, missing):
    write_mnist(tmp_path / "mnist")
    (tmp_path / "mnist" / f"{missing}.gz").unlink()
    with pytest.raises(FileNotFoundError, match=f"mnist lacks {missing} .*fcnet fetch mnist --data-dir "):
        load("mnist", data_dir=tmp_path)


def test_data_dir_that_is_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data_dir: .* got .*nowhere.*fcnet fetch mnist --data-dir .*nowhere"):
        load("mnist", data_dir=tmp_path / "nowhere")


@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_is_named_with_the_remedy(tmp_path, file):
    write_mnist(tmp_path / "mnist")
    path = tmp_path / "mnist" / f"{file}.gz"
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(ValueError, match="delete it and run: fcnet fetch mnist --data-dir ") as caught:
        load("mnist", data_dir=tmp_path)
    assert str(path) in str(caught.value)


def test_test_images_of_another_size(tmp_path):
    write_mnist(tmp_path / "mnist")
    path = tmp_path / "mnist" / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(idx(np.zeros((20, 2, 2), np.uint8))))
    with pytest.raises(ValueError, match=r"expected images of \(3, 2\), as in training; got \(2, 2\)"):
        load("mnist", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mnits", "data: expected one of digits, mnist, .*'mnits'; did you mean 'mnist'"),
        ("cifar-10", "did you mean 'cifar10'"),
        ("", "data: expected one of digits"),
    ],
)
def test_unknown_names(name, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=words):
        load(name)


@pytest.mark.parametrize("name", ["none.npz", "none.csv", "folder/none.CSV"])
def test_paths_that_do_not_exist(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=r"none.* does not exist"):
        load(tmp_path / name)


@pytest.mark.parametrize("target", [None, "y"])
@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("t.table", "save a table with commas between its cells under a name that ends in .csv"),
        ("t.csv.bz2", r"unpack it: bunzip2 \S*t.csv.bz2"),
        ("t.feather", "save the table as .parquet"),
        ("t.npy", r"save its arrays with np.savez\('data.npz', X=X, y=y\)"),
        ("t.xlsx", "save the sheet as CSV"),
    ],
)
def test_files_of_another_kind(tmp_path, name, remedy, target):
    (tmp_path / name).write_text("x,y\n1,2\n")
    with pytest.raises(ValueError, match=rf"data: expected an .npz file, or a table: .csv.*; got .*{name}'; {remedy}"):
        load(tmp_path / name, target=target)
    with pytest.raises(ValueError, match=rf"an .npz file, or a table: .*; got .*{name}'; {remedy}"):
        inputs.samples(str(tmp_path / name), None)


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "dir.csv").mkdir()
    with pytest.raises(
        ValueError, match=r"data: expected an .npz file, or a table: .*; got the folder .*; name a file"
    ):
        load(tmp_path / "dir.csv")


def test_target_belongs_to_csv(tmp_path):
    with pytest.raises(ValueError, match=r"target: expected only with a table; got 'label' with"):
        load("spirals", target="label")
    with pytest.raises(ValueError, match=r"target: expected only with a table; got 'label' with"):
        load(tmp_path / "a.npz", target="label")


def test_arrays_are_no_name():
    with pytest.raises(TypeError, match=r"data: expected a name or a path; got ndarray; .*Dataset"):
        load(np.zeros(3))


def test_digits():
    pytest.importorskip("sklearn")
    ds = load("digits")
    assert ds.summary() == "digits: 1437 train, 180 val, 180 test, 64 features, 10 classes"
    assert ds.X_train.dtype == np.uint8
    assert ds.X_train.max() == 16
    assert ds.image_shape == (1, 8, 8)
    assert ds.preprocess == "standardize"
    expected = sorted((row.tobytes(), int(label)) for row, label in zip(*digits.read_digits(), strict=True))
    got = [(r.tobytes(), int(c)) for part in ds.splits().values() for r, c in zip(*part, strict=True)]
    assert sorted(got) == expected


@pytest.mark.parametrize("file", ["scikit-learn's", "not there"])
def test_digits_are_scikit_learns_which_is_not_imported_for_them(file, tmp_path, monkeypatch):
    X, y = pytest.importorskip("sklearn.datasets").load_digits(return_X_y=True)
    if file == "not there":
        spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
        monkeypatch.setattr(digits, "find_spec", lambda name: spec)
    else:
        monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    pixels, labels = digits.read_digits()
    assert (pixels.dtype, labels.dtype) == (np.uint8, np.int64)
    assert pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, X)
    np.testing.assert_array_equal(labels, y)


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(errors.MissingExtra, match=r"digits data set needs scikit-learn.*pip install .*\[sklearn\]"):
        fcnet.data.load("digits")
