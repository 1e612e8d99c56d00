"""Inputs that lie on a device are fitted and predicted there; what is kept in a file is host arrays."""

import io
import pickle
import types

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_iris

from fcnet.backends import select
from fcnet.sklearn import FCNetClassifier, FCNetRegressor
from tests.guard import GuardArray
from tests.tolerances import assert_close

FEW = {"hidden_layer_sizes": (9,), "max_iter": 12, "random_state": 0, "n_iter_no_change": np.inf}

pytestmark = [
    pytest.mark.usefixtures("references_only"),  # whose bits the guard has
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


def tables():
    X, y = load_iris(return_X_y=True)
    numbers = load_diabetes(return_X_y=True)
    two = np.stack([numbers[1], -2 * numbers[1] ** 2], axis=1)
    several = np.stack([y > 0, y > 1], axis=1).astype("int64")
    return [
        (FCNetClassifier, X, y),
        (FCNetClassifier, X, (y > 0) * 2 - 1),
        (FCNetClassifier, X, several),
        (FCNetRegressor, *numbers),
        (FCNetRegressor, numbers[0], two),
    ]


@pytest.fixture(params=range(5), ids=["classes", "two classes", "labels", "numbers", "two numbers"])
def table(request):
    return tables()[request.param]


@pytest.mark.parametrize("options", [{}, {"early_stopping": True}, {"preprocess": "center"}], ids=str)
def test_inputs_on_a_device_stay_there(table, options, guard, host_of):
    """Nothing as large as X comes to the host, and the results are the CPU's."""
    kind, X, y = table
    onto = guard.asarray
    x, targets = onto(X), onto(y)
    expected = kind(device="cpu", **FEW, **options).fit(X, y)
    with guard.recording() as log:
        found = kind(**FEW, **options).fit(x, targets)
        results = [found.predict(x)]
        if kind is FCNetClassifier:
            results += [found.predict_proba(x), found.decision_function(x), found.predict_log_proba(x)]
        score = found.score(x, targets)
        weighted = found.score(x, targets, np.arange(len(X)))
        # A column of labels is looked at where rows are held out by class.
        assert max(event.nbytes for event in log.waits) <= max(8 * len(X), 8 * found.coefs_[0].size)
        assert sum(event.nbytes >= x.nbytes for event in log.waits + log.uploads) == 0
    assert found._fitted.model.device == "guard"
    assert all(isinstance(result, GuardArray) for result in results)
    assert score == pytest.approx(expected.score(X, y), rel=1e-9)
    assert weighted == pytest.approx(expected.score(X, y, np.arange(len(X))), rel=1e-9)
    for mine, theirs in zip(found.coefs_, expected.coefs_, strict=True):
        assert_close(mine, theirs, "float64", "update")
    np.testing.assert_allclose(host_of(results[0]), expected.predict(X), rtol=1e-9)


@pytest.fixture
def host_of(guard):
    return guard.to_numpy


def test_float32_on_a_device_is_computed_as_such(guard):
    X, y = load_iris(return_X_y=True)
    found = FCNetClassifier(**FEW).fit(guard.asarray(X, "float32"), guard.asarray(y))
    assert found._fitted.model.dtype == np.float32
    assert found.predict_proba(guard.asarray(X, "float32")).dtype == np.float32


def test_text_labels_of_device_inputs_come_on_the_host(guard):
    X, y = load_iris(return_X_y=True)
    names = np.array(["a", "b", "c"])[y]
    found = FCNetClassifier(**FEW).fit(guard.asarray(X), names)
    assert set(found.predict(guard.asarray(X))) <= {"a", "b", "c"}


def test_shapes_and_labels_of_device_arrays_are_checked(guard):
    X, y = load_iris(return_X_y=True)
    x = guard.asarray(X)
    with pytest.raises(ValueError, match=r"X: expected numbers of shape .* on guard"):
        FCNetClassifier(**FEW).fit(x.reshape(-1), guard.asarray(y))
    with pytest.raises(ValueError, match=r"expected labels of classes, got numbers such as 0\.5"):
        FCNetClassifier(**FEW).fit(x, guard.asarray(y + 0.5))
    found = FCNetClassifier(**FEW).fit(x, guard.asarray(y))
    with pytest.raises(ValueError, match=r"expected the classes known so far, \[0 1 2\], got \[7\] too"):
        found.partial_fit(x, guard.asarray(np.where(y == 1, 7, y)))
    with pytest.raises(ValueError, match="X has 3 features"):
        found.predict(guard.asarray(X[:, :3]))


class Elsewhere:
    """An array of some other library: nothing of NumPy's, but DLPack."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()

    def __array_namespace__(self):
        return types.SimpleNamespace(from_dlpack=lambda array: Elsewhere(np.from_dlpack(array)))


def test_arrays_of_other_libraries_come_by_dlpack_and_results_go_back(table, monkeypatch):
    kind, X, y = table
    expected = kind(**FEW).fit(X, y)
    found = kind(**FEW).fit(Elsewhere(X), Elsewhere(np.array(y)))
    given = found.predict(Elsewhere(X))
    assert isinstance(given, Elsewhere)
    np.testing.assert_array_equal(given.array, expected.predict(X))
    assert np.shares_memory(select.from_dlpack(Elsewhere(X)), X)


@pytest.mark.parametrize("dump", ["pickle", "joblib"])
def test_a_file_holds_host_arrays_and_is_read_where_the_device_is_missing(table, dump, guard, monkeypatch):
    kind, X, y = table
    found = kind(**FEW, device="guard").fit(X, y).partial_fit(X, y)
    expected = found.predict(X)
    text = io.BytesIO()
    guard.log.clear()
    (pickle if dump == "pickle" else joblib).dump(found, text)
    assert [event for event in guard.log.waits if event.what == "pickle"] == []
    text.seek(0)
    monkeypatch.delitem(select._made, "guard")
    loaded = (pickle if dump == "pickle" else joblib).load(text)
    with pytest.warns(UserWarning, match="fitted on guard, which is not here: it predicts on cpu"):
        given = loaded.predict(X)
    np.testing.assert_allclose(given, expected, rtol=1e-9)
    assert loaded._fitted.model.device == "cpu"
    # Going on goes on from the same place.
    other = loaded.partial_fit(X, y)
    monkeypatch.undo()
    for mine, theirs in zip(other.coefs_, found.partial_fit(X, y).coefs_, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12)


def test_devices_by_name(guard):
    X, y = load_iris(return_X_y=True)
    found = FCNetClassifier(**FEW, device="guard").fit(X, y)
    assert found._fitted.model.device == "guard"
    assert isinstance(found.predict(X), np.ndarray)
    with pytest.raises(ValueError, match="device"):
        FCNetClassifier(**FEW, device="elsewhere").fit(X, y)
