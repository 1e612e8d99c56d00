"""Frames with text, gaps and named columns; sparse matrices that would not fit as dense ones."""

import pickle
import tracemalloc

import numpy as np
import pytest
from scipy import sparse

from fcnet.data import learn
from fcnet.data.sparse import SparseRows
from fcnet.sklearn import FCNetClassifier, FCNetRegressor
from fcnet.sklearn.base import _learn

FEW = {"hidden_layer_sizes": (9,), "max_iter": 60, "random_state": 0, "learning_rate_init": 0.02}

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def columns(n=90, seed=0):
    rng = np.random.default_rng(seed)
    colour = np.array(["red", "green", "blue"])[rng.integers(3, size=n)]
    size = rng.standard_normal(n)
    code = rng.integers(4, size=n)
    y = np.where((colour == "red") ^ (code == 2), "yes", "no")
    return {"colour": colour, "size": size, "code": code}, y


@pytest.fixture(params=["pandas", "polars"])
def frame(request):
    library = pytest.importorskip(request.param)
    return library.DataFrame


def test_text_and_gaps_are_made_numbers(frame):
    table, y = columns()
    table["size"][:5] = np.nan
    one = FCNetClassifier(**FEW, categorical_features=["code"]).fit(frame(table), y)
    assert one.score(frame(table), y) > 0.95
    assert list(one.feature_names_in_) == ["colour", "size", "code"]
    assert one.n_features_in_ == 3
    assert one.coefs_[0].shape[0] == len(one.plan_.features) == 3 + 2 + 4
    # A level that training did not have, columns in another order, a pickle of it.
    other, _ = columns(20, seed=1)
    other["colour"][0] = "black"
    turned = frame({name: other[name] for name in ("code", "colour", "size")})
    with pytest.raises(ValueError, match="feature names"):
        one.predict(turned)
    expected = one.predict(frame(other))
    assert set(expected) <= {"yes", "no"}
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(one)).predict(frame(other)), expected)


def test_plain_frames_need_no_plan(frame):
    table, y = columns()
    del table["colour"]
    one = FCNetRegressor(**FEW).fit(frame(table), (y == "yes").astype(float))
    assert not hasattr(one, "plan_")
    assert one.coefs_[0].shape[0] == 2


def test_what_a_frame_lacks_is_said(frame):
    table, y = columns()
    one = FCNetClassifier(**FEW).fit(frame(table), y)
    del table["size"]
    with pytest.raises(ValueError, match=r"(?s)feature names.*size"):
        one.predict(frame(table))
    with pytest.raises(ValueError, match="could not convert string to float"):
        FCNetClassifier(**FEW, categorical_features=None).fit(frame(columns()[0]), y)


@pytest.mark.parametrize("categorical", [[1], [False, True], np.array([False, True])], ids=str)
def test_columns_of_an_array_may_be_categories(categorical):
    table, y = columns()
    X = np.stack([table["size"], table["code"]], axis=1)
    one = FCNetClassifier(**FEW, categorical_features=categorical).fit(X, y)
    assert one.coefs_[0].shape[0] == 1 + 4
    assert one.predict(X).shape == y.shape
    with pytest.raises(ValueError, match="categorical_features: expected a mask of the 2 columns, got 3"):
        FCNetClassifier(**FEW, categorical_features=[True] * 3).fit(X, y)


def test_what_is_left_out_is_said(frame):
    table, y = columns()
    table["id"] = [f"n{number}" for number in range(len(y))]
    with pytest.warns(UserWarning, match="FCNetClassifier: left out: id"):
        FCNetClassifier(**FEW).fit(frame(table), y)


def words(rows, width, seed=0):
    """Return a matrix as of counted words: `width` columns, some of which tell the class."""
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % 2
    at = rng.integers(width // 2, size=(rows, 8)) * 2 + y[:, None]
    entries = np.ones(at.size, dtype=np.float32)
    return sparse.csr_matrix((entries, (np.repeat(np.arange(rows), 8), at.ravel())), shape=(rows, width)), y


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_a_sparse_matrix_is_never_dense_as_a_whole(solver, monkeypatch):
    """600 x 20,000 float32 would be 48 MB."""
    monkeypatch.setattr("fcnet.data.sparse.DENSE", 1 << 18)
    X, y = words(600, 20_000)
    whole = 4 * X.shape[0] * X.shape[1]
    tracemalloc.start()
    one = FCNetClassifier(hidden_layer_sizes=(2,), solver=solver, batch_size=30, max_iter=3, random_state=0).fit(X, y)
    predicted, score = one.predict_proba(X), one.score(X, y)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < whole
    assert predicted.shape == (600, 2)
    assert score > 0.9


@pytest.mark.parametrize("options", [{}, {"solver": "lbfgs"}, {"early_stopping": True}], ids=str)
def test_sparse_rows_are_learned_as_dense_ones(options):
    X, y = words(150, 40)
    how = FEW | {"max_iter": 10, "batch_size": 40} | options
    one, other = FCNetClassifier(**how).fit(X, y), FCNetClassifier(**how).fit(X.toarray(), y)
    np.testing.assert_allclose(one.predict_proba(X), other.predict_proba(X.toarray()), rtol=2e-3)
    np.testing.assert_array_equal(one.predict(X.tocsc()), one.predict(X.tocoo()))
    np.testing.assert_array_equal(FCNetClassifier(**how).fit(sparse.coo_array(X), y).predict(X), one.predict(X))
    weights = np.arange(150) % 3
    one, other = (FCNetClassifier(**how).fit(rows, y, weights) for rows in (X, X.toarray()))
    np.testing.assert_allclose(one.predict_proba(X), other.predict_proba(X), rtol=2e-3)


@pytest.mark.parametrize("size", [190_000.0, 1e300])
def test_weights_of_populations_are_no_numbers_of_rows(size):
    X, y = words(30, 40)
    weights = size * (1 + np.arange(30) % 3)
    tracemalloc.start()
    FCNetClassifier(**FEW).fit(X, y, weights)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30 * size * 2  # row numbers alone would take 8 bytes for each


def test_sparse_rows_give_what_is_asked_for(monkeypatch):
    X, _ = words(10, 6)
    dense = X.toarray()
    rows = SparseRows(X)
    np.testing.assert_array_equal(np.take(rows, np.array([3, 1, 3]), axis=0), dense[[3, 1, 3]])
    out = np.full((2, 6), 7, dtype=np.float32)  # as a GPU's feed asks
    np.take(rows, np.array([4, 0]), axis=0, out=out, mode="clip")
    np.testing.assert_array_equal(out, dense[[4, 0]])
    monkeypatch.setattr("fcnet.data.sparse.DENSE", 13)
    assert [(part.start, part.stop) for part, _ in rows.parts()] == [(at, at + 2) for at in range(0, 10, 2)]
    np.testing.assert_array_equal(np.concatenate([part for _, part in rows.parts()]), dense)
    places, columns = zip(*rows.columns(), strict=True)
    np.testing.assert_array_equal(np.concatenate(places), np.arange(6))
    np.testing.assert_array_equal(np.concatenate(columns, axis=1), dense)


def test_columns_that_are_mostly_zero_are_not_made_dense_for_their_quartiles():
    for count in (1, 3, 4, 9, 40, 41):
        table = sparse.random(count, 50, 0.2, "csr", random_state=1)
        table.data -= 0.5
        learned, dense = _learn("robust", SparseRows(table)), learn("robust", table.toarray())
        np.testing.assert_array_equal((learned.shift, learned.scale), (dense.shift, dense.scale))
    assert next(SparseRows(table).columns_by_quartiles())[1].shape[0] == 9
