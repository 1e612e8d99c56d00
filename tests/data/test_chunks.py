"""Chunks of rows that need never be in memory together."""

import numpy as np
import pytest

import fcnet
from fcnet.data import from_chunks


def chunks(count=10, rows=20, make=lambda X: X, label=lambda y: y):
    for at in range(count):
        X = (np.arange(rows * 3.0).reshape(rows, 3) + at * rows * 3).astype(np.float32)
        yield make(X), label(X[:, 0].astype(int) // 3 % 2)


def test_chunks_become_memory_mapped_parts(tmp_path):
    ds = from_chunks(chunks(label=lambda y: y + 1), tmp_path / "kept")
    assert ds.summary() == "data: 160 train, 20 val, 20 test, 3 features, 2 classes"
    assert ds.classes == ("1", "2")
    for X, y in ds.splits().values():
        assert isinstance(X, np.memmap)
        assert X.dtype == np.float32
        np.testing.assert_array_equal(y, X[:, 0] // 3 % 2)
    seen = np.sort(np.concatenate([X[:, 0] for X, _ in ds.splits().values()]))
    np.testing.assert_array_equal(seen, np.arange(200) * 3)
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["X_test.npy", "X_train.npy", "X_val.npy"]
    model = fcnet.FullyConnectedNet([4], 3, 2, device="cpu")
    fcnet.Solver(model, ds, num_epochs=1, verbose=False).train()
    with pytest.raises(FileExistsError, match=r"folder: expected one without X_train\.npy"):
        from_chunks(chunks(), tmp_path / "kept")


def test_chunks_of_tables_and_numbers_to_predict(tmp_path):
    def table(X):
        return {"a": X[:, 0], "b": ["xyz"[int(x) // 3 % 3] for x in X[:, 0]]}

    ds = from_chunks(chunks(make=table, label=lambda y: y * 0.5), tmp_path, targets="numbers")
    assert ds.features == ("a", "b=x", "b=y", "b=z")
    np.testing.assert_array_equal(ds.X_train[:, 2], ds.X_train[:, 0] // 3 % 3 == 1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "chunks: expected pairs of X and y; got none"),
        ([(np.ones((3, 2)), [1, 2, 3]), (np.ones((3, 4)), [1, 2, 3])], "chunk 1: expected 2 columns of float64, as in"),
        ([(np.ones((3, 2)), [1, 2])], "chunk 0: expected 3 targets, one for each row; got 2"),
    ],
)
def test_what_does_not_fit(tmp_path, given, message):
    with pytest.raises(ValueError, match=message):
        from_chunks(given, tmp_path)
