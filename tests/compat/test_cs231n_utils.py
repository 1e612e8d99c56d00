"""The course's gradient_check, vis_utils and data_utils."""

import pickle

import numpy as np
import pytest

from fcnet.compat.cs231n import (
    eval_numerical_gradient,
    eval_numerical_gradient_array,
    get_CIFAR10_data,
    grad_check_sparse,
    load_CIFAR10,
    rel_error,
    visualize_grid,
)
from fcnet.compat.cs231n.data_utils import load_CIFAR_batch, load_pickle
from fcnet.compat.cs231n.gradient_check import eval_numerical_gradient_blobs, eval_numerical_gradient_net
from fcnet.compat.cs231n.vis_utils import vis_grid, vis_nn
from fcnet.data import cifar


def test_eval_numerical_gradient():
    x = np.array([[1.0, -2.0], [0.5, 3.0]])
    grad = eval_numerical_gradient(lambda x: float(np.sum(x**3)), x, verbose=False)
    np.testing.assert_allclose(grad, 3 * x**2, rtol=1e-8)
    np.testing.assert_array_equal(x, [[1.0, -2.0], [0.5, 3.0]])
    wide = eval_numerical_gradient(lambda x: float(np.sum(x**3)), x, verbose=False, h=0.1)
    np.testing.assert_allclose(wide, 3 * x**2 + 0.01, rtol=1e-9, err_msg="the error is h squared")


def test_eval_numerical_gradient_prints_when_verbose(capsys):
    x = np.array([[1.0, 2.0]])
    grad = eval_numerical_gradient(lambda x: float(np.sum(x**2)), x)
    assert capsys.readouterr().out.splitlines() == [f"(0, 0) {grad[0, 0]}", f"(0, 1) {grad[0, 1]}"]
    eval_numerical_gradient(lambda x: float(np.sum(x**2)), x, verbose=False)
    assert capsys.readouterr().out == ""


def test_eval_numerical_gradient_array():
    x, df = np.array([1.0, 2.0, 3.0]), np.array([[1.0, -1.0, 2.0], [0.0, 1.0, 0.5]])
    grad = eval_numerical_gradient_array(lambda x: np.stack([x**2, x**3]), x, df)
    np.testing.assert_allclose(grad, 2 * x * df[0] + 3 * x**2 * df[1], rtol=1e-8)


class Blob:
    def __init__(self, *shape):
        self.vals, self.diffs = np.random.randn(*shape), np.random.randn(*shape)


def test_gradients_of_blobs():
    x, w, out = Blob(3, 2), Blob(2, 4), Blob(3, 4)

    def forward(x, w, out):
        out.vals[...] = x.vals @ w.vals  # the same array at each call

    def net():
        pass

    net.forward = lambda: forward(x, w, out)
    before = x.vals.copy()
    for dx, dw in (
        eval_numerical_gradient_blobs(forward, (x, w), out),
        eval_numerical_gradient_net(net, (x, w), out, h=1e-4),
    ):
        np.testing.assert_allclose(dx, out.diffs @ w.vals.T, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(dw, x.vals.T @ out.diffs, rtol=1e-7, atol=1e-9)
    np.testing.assert_array_equal(x.vals, before)


def test_grad_check_sparse_tells_right_from_wrong(capsys):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 5)) + 3
    before = x.copy()
    right = 3 * x**2
    for scale in (1.0, 1.01):
        grad_check_sparse(lambda x: float(np.sum(x**3)), x, scale * right, num_checks=6)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12
    errors = [float(line.rsplit(" ", 1)[1]) for line in lines]
    assert max(errors[:6]) < 1e-7
    assert min(errors[6:]) > 4e-3
    assert all(line.startswith("numerical: ") and " analytic: " in line for line in lines)
    assert len(set(lines[:6])) > 1, "more than one element is looked at"
    assert np.array_equal(x, before)


@pytest.mark.parametrize("check", [eval_numerical_gradient, eval_numerical_gradient_array])
def test_a_point_that_cannot_be_moved(check):
    with pytest.raises(TypeError, match=r"x: expected a NumPy array of floats.*int64"):
        check(lambda x: x.sum(), np.arange(3), 1.0)
    with pytest.raises(TypeError, match=r"x: expected a NumPy array of floats.*list"):
        check(lambda x: sum(x), [1.0], 1.0)


def test_rel_error():
    assert rel_error(np.array([1.0, 2.0]), np.array([1.0, 3.0])) == pytest.approx(0.2)
    assert rel_error(3.0, 1.0) == 0.5
    assert rel_error(np.zeros(2), np.full(2, 1e-10)) == pytest.approx(1e-2)


def test_visualize_grid():
    Xs = np.arange(3 * 2 * 2 * 1, dtype=float).reshape(3, 2, 2, 1)
    Xs[2] = 7.0  # a flat image
    grid = visualize_grid(Xs, ubound=3.0, padding=1)
    assert grid.shape == (5, 5, 1)
    np.testing.assert_allclose(
        grid[..., 0],
        [[0, 1, 0, 0, 1], [2, 3, 0, 2, 3], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]],
    )
    assert visualize_grid(np.random.default_rng(0).random((5, 4, 6, 3)), padding=3).shape == (18, 24, 3)
    assert visualize_grid(Xs).max() == 255
    with pytest.raises(ValueError, match=r"Xs: expected images \(N, H, W, C\)"):
        visualize_grid(Xs[0])


def test_images_stretched_together():
    Xs = np.array([2, 6, 4], np.uint8).reshape(3, 1, 1, 1)
    np.testing.assert_array_equal(vis_grid(Xs)[..., 0], [[0, 0, 1, 0], [0] * 4, [0.5, 0, 0, 0], [0] * 4])
    np.testing.assert_array_equal(  # between the images is 1, which is darker than all of them
        vis_nn([Xs[:2], Xs[1:]])[..., 0], [[0.2, 0, 1, 0], [0] * 4, [1, 0, 0.6, 0], [0] * 4]
    )
    assert vis_grid(np.random.rand(5, 4, 6, 3)).shape == (15, 21, 3)
    assert not vis_grid(np.full((2, 2, 2, 1), 7.0)).any()
    with pytest.raises(ValueError, match=r"Xs: expected images \(N, H, W, C\), got shape \(1, 1, 1\)"):
        vis_grid(Xs[0])
    with pytest.raises(ValueError, match="rows: expected at least one image"):
        vis_nn([])


RECORDS = 20


@pytest.fixture
def cifar_folder(tmp_path, monkeypatch):
    """Six small files in the layout of the binary version, and what is in them."""
    monkeypatch.setattr(cifar, "RECORDS", RECORDS)
    rng = np.random.default_rng(0)
    parts = []
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        table = rng.integers(256, size=(RECORDS, 3073), dtype=np.uint8)
        table[:, 0] %= 10
        table.tofile(tmp_path / f"{name}.bin")
        parts.append(table)
    return tmp_path, np.concatenate(parts[:5]), parts[5]


def test_load_cifar10(cifar_folder):
    folder, train, test = cifar_folder
    X, y, X_test, y_test = load_CIFAR10(folder)
    assert X.shape == (100, 32, 32, 3)
    assert X.dtype == "float64"
    assert X_test.shape == (20, 32, 32, 3)
    assert np.array_equal(y, train[:, 0])
    assert np.array_equal(y_test, test[:, 0])
    row, column, colour = 5, 7, 2
    assert X[61, row, column, colour] == train[61, 1 + colour * 1024 + row * 32 + column]


def test_get_cifar10_data(cifar_folder):
    folder, train, test = cifar_folder
    data = get_CIFAR10_data(70, 20, 10, cifar10_dir=folder)
    shapes = {name: value.shape for name, value in data.items()}
    assert shapes == {
        "X_train": (70, 3, 32, 32), "y_train": (70,), "X_val": (20, 3, 32, 32), "y_val": (20,),
        "X_test": (10, 3, 32, 32), "y_test": (10,),
    }  # fmt: skip
    assert np.array_equal(data["y_val"], train[70:90, 0]), "those after the training images"
    mean = train[:70, 1:].astype(float).sum(axis=0) / 70
    np.testing.assert_allclose(data["X_val"][3].ravel(), train[73, 1:] - mean)
    np.testing.assert_allclose(data["X_test"][3].ravel(), test[3, 1:] - mean)
    np.testing.assert_allclose(data["X_train"].mean(axis=0), 0, atol=1e-10)
    raw = get_CIFAR10_data(num_training=70, num_validation=20, num_test=10, subtract_mean=False, cifar10_dir=folder)
    assert np.array_equal(raw["X_train"].reshape(70, -1), train[:70, 1:])
    assert raw["X_train"].dtype == data["X_train"].dtype == "float64"


def test_the_courses_own_folder_is_found(cifar_folder, tmp_path, monkeypatch):
    folder, train, _ = cifar_folder
    here = tmp_path / "notebooks"
    target = here / "cs231n" / "datasets"
    target.mkdir(parents=True)
    (target / "cifar-10-batches-py").symlink_to(folder, target_is_directory=True)
    monkeypatch.chdir(here)
    assert np.array_equal(get_CIFAR10_data(70, 20, 10)["y_train"], train[:70, 0])


@pytest.fixture
def under_fcnet_data(cifar_folder, tmp_path, monkeypatch):
    """Put the files where `fcnet fetch` does; the working directory has none."""
    folder, train, test = cifar_folder
    monkeypatch.setenv("FCNET_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    there = tmp_path / "data" / "cifar-10-batches-bin"
    there.mkdir(parents=True)
    for path in folder.glob("*.bin"):
        path.rename(there / path.name)
    monkeypatch.chdir(tmp_path)
    return there, train, test


def test_the_set_of_fcnet_is_used_where_the_courses_is_not_there(under_fcnet_data, tmp_path, capsys):
    there, train, test = under_fcnet_data
    root = "cs231n/datasets/cifar-10-batches-py"
    _, y, _, y_test = load_CIFAR10(root)
    assert np.array_equal(y, train[:, 0])
    assert np.array_equal(y_test, test[:, 0])
    names = ", ".join([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"])
    assert capsys.readouterr().out == f"cifar10: no {names} in {root}; all taken from {there}\n"
    assert np.array_equal(get_CIFAR10_data(70, 20, 10)["y_train"], train[:70, 0])
    assert np.array_equal(load_CIFAR_batch(f"{root}/data_batch_2")[1], train[20:40, 0])
    (tmp_path / root).mkdir(parents=True)
    (there / "data_batch_3.bin").rename(tmp_path / root / "data_batch_3.bin")
    with pytest.raises(FileNotFoundError, match=r"cs231n/datasets/.* got no data_batch_1, .*: fcnet fetch cifar10$"):
        load_CIFAR10(root)


def test_one_file_of_the_python_version(cifar_folder, tmp_path):
    _, train, _ = cifar_folder
    content = {b"data": train[:20, 1:], b"labels": train[:20, 0].tolist(), b"filenames": [b"a.png"] * 20}
    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps(content, 2))
    X, y = load_CIFAR_batch(path)
    assert X.shape == (20, 32, 32, 3)
    assert X[7, 5, 6, 1] == train[7, 1 + 1024 + 5 * 32 + 6]
    assert np.array_equal(y, train[:20, 0])
    with path.open("rb") as file:
        found = load_pickle(file)
    assert np.array_equal(found.pop("data"), train[:20, 1:])
    assert found == {"labels": y.tolist(), "filenames": ["a.png"] * 20}
    path.write_bytes(pickle.dumps({"labels": print}))
    with (
        path.open("rb") as file,
        pytest.raises(ValueError, match=r"data_batch_1: .*builtins\.print, which was refused"),
    ):
        load_pickle(file)
    with pytest.raises(FileNotFoundError, match="elsewhere"):
        load_CIFAR_batch(tmp_path / "elsewhere")


def test_data_that_is_not_there(cifar_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("FCNET_DATA", str(tmp_path / "none"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none"))
    folder, _, _ = cifar_folder
    with pytest.raises(ValueError, match=r"num_training \+ num_validation: expected 1 to 100 images, got 50000"):
        get_CIFAR10_data(cifar10_dir=folder)
    with pytest.raises(ValueError, match=r"num_test: expected 1 to 20 images, got 1000"):
        get_CIFAR10_data(50, 20, cifar10_dir=folder)
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"got no data_batch_3; get them with: fcnet fetch cifar10"):
        load_CIFAR10(folder)
