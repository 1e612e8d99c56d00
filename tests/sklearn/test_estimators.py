"""The estimators against scikit-learn's own MLP: the same steps from the same weights, the same life around them."""

import importlib
import pickle
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, make_multilabel_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import PoissonRegressor
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fcnet import defaults
from fcnet.data import learn
from fcnet.errors import MissingExtra
from fcnet.sklearn import FCNetClassifier, FCNetRegressor
from tests.tolerances import assert_close

IRIS = load_iris(return_X_y=True)
quiet = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def test_one_step_worked_out_by_hand():
    """Inputs 0.6, 0.8, 0.7 of class 0, two sigmoid units, alpha 0.1, rate 0.1: what pencil and paper give.

    The units are σ(0.75) = 0.679179 and σ(0.3) = 0.574443, the probability of class 1 is σ(1.182806) = 0.765438. So the
    output's gradients are 0.765438 h + 0.1 w, the units' 0.765438 w h (1 - h) = 0.016679 and 0.037424, times the inputs
    and plus 0.1 w. The example is that of scikit-learn's test_mlp.py.
    """
    one = FCNetClassifier(
        hidden_layer_sizes=2, activation="logistic", solver="sgd", momentum=0, alpha=0.1, learning_rate_init=0.1
    )
    one.coefs_ = [np.array([[0.1, 0.2], [0.3, 0.1], [0.5, 0.0]]), np.array([[0.1], [0.2]])]
    one.intercepts_ = [np.array([0.1, 0.1]), np.array([1.0])]
    one.n_features_in_ = 3
    X = np.array([[0.6, 0.8, 0.7]])
    one.partial_fit(X, [0], classes=[0, 1])
    expected = [[0.097999, 0.195755], [0.295666, 0.096006], [0.493833, -0.002620]]
    np.testing.assert_allclose(one.coefs_[0], expected, atol=1e-6)
    np.testing.assert_allclose(one.coefs_[1].ravel(), [0.047013, 0.154030], atol=1e-6)
    np.testing.assert_allclose(one.intercepts_[0], [0.098332, 0.096258], atol=1e-6)
    np.testing.assert_allclose(one.intercepts_[1], [0.923455], atol=1e-6)
    assert one.predict_proba(X)[0, 1] == pytest.approx(0.73949, abs=1e-5)


@quiet
def test_defaults_are_those_of_every_training():
    X, y = IRIS
    one = FCNetClassifier(n_iter_no_change=np.inf, random_state=0).fit(X, y)
    assert one.n_iter_ == defaults.epochs(1)  # of one batch: 150 rows are fewer than BATCH_SIZE
    rates = [one._fitted.updates.schedule(step) for step in (0, 999)]
    assert rates[0] == 1 > 10 * rates[1]  # it falls
    learned = learn(defaults.PREPROCESS, X)
    for mine, theirs in zip(one._fitted.model.preprocessing, (learned.shift, learned.scale), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert one._fitted.model.limit == learned.limit == pickle.loads(pickle.dumps(one))._fitted.model.limit
    # A length of one's own is one that may end at any time: the rate stays.
    assert FCNetClassifier(max_iter=3).fit(X, y)._fitted.updates.schedule is None
    assert FCNetClassifier().partial_fit(X, y, classes=[0, 1, 2])._fitted.updates.schedule is None


def problems():
    X, numbers = load_diabetes(return_X_y=True)
    X, numbers = 10 * X[:60], (numbers[:60] - 150) / 80
    labels = make_multilabel_classification(60, 10, random_state=0, n_classes=4)[1]
    return {
        "two classes": (FCNetClassifier, MLPClassifier, X, (numbers > 0).astype(int)),
        "classes": (FCNetClassifier, MLPClassifier, X, np.digitize(numbers, [-0.6, 0.3])),
        "labels": (FCNetClassifier, MLPClassifier, X, labels),
        "numbers": (FCNetRegressor, MLPRegressor, X, numbers),
        "two numbers": (FCNetRegressor, MLPRegressor, X, np.stack([numbers, numbers**2], axis=1)),
    }


HOW = {
    "sgd": {"solver": "sgd", "momentum": 0},
    "momentum": {"solver": "sgd", "nesterovs_momentum": False},
    "nesterov": {"solver": "sgd"},
    "invscaling": {"solver": "sgd", "learning_rate": "invscaling", "power_t": 0.2},
    # So small that it does not matter where it is added.
    "adam": {"solver": "adam", "epsilon": 1e-20},
}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("problem", problems())
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
def test_steps_are_those_of_scikit_learn(problem, how, weighted):
    """From the same weights, all rows in a batch: the same alpha, rate and momentum make the same weights."""
    mine, theirs, X, y = problems()[problem]
    options = {"hidden_layer_sizes": (7, 5), "activation": "tanh", "alpha": 0.3, "learning_rate_init": 0.02, **HOW[how]}
    weights = np.arange(60) % 4 + 0.5 if weighted else None
    first = {} if mine is FCNetRegressor else {"classes": np.unique(y) if y.ndim == 1 else np.arange(4)}
    other = theirs(**options, random_state=0, batch_size=60).partial_fit(X, y, **first, sample_weight=weights)
    one = mine(**options, batch_size=60)
    one.coefs_, one.intercepts_ = [w.copy() for w in other.coefs_], [b.copy() for b in other.intercepts_]
    one.n_features_in_ = X.shape[1]
    del other._optimizer  # a new one begins with the weights
    other.t_ = 0
    for _ in range(4):
        one.partial_fit(X, y, **first, sample_weight=weights)
        other.partial_fit(X, y, **first, sample_weight=weights)
    for ours, theirs_ in zip(one.coefs_ + one.intercepts_, other.coefs_ + other.intercepts_, strict=True):
        assert_close(ours, theirs_, "float64", "update")
    assert one.t_ == other.t_
    if problem != "two numbers":  # scikit-learn reports the mean over the outputs, and descends on their sum
        np.testing.assert_allclose(one.loss_curve_, other.loss_curve_[-4:], rtol=1e-9)


@quiet
@pytest.mark.parametrize("kind", [FCNetClassifier, FCNetRegressor])
@pytest.mark.parametrize("options", [{}, {"solver": "lbfgs"}, {"solver": "sgd"}, {"class_weight": "balanced"}], ids=str)
def test_whole_weights_are_rows_that_come_again(kind, options):
    if kind is FCNetRegressor and "class_weight" in options:
        return
    X, y = IRIS
    X, y = X[::3], y[::3]
    weights = np.arange(len(y)) % 4
    again = np.repeat(np.arange(len(y)), weights)
    how = {"hidden_layer_sizes": (8,), "max_iter": 60, "random_state": 0, "alpha": 0.1} | options
    weighted = kind(**how).fit(X, y, weights)
    repeated = kind(**how).fit(X[again], y[again])
    name = "predict_proba" if kind is FCNetClassifier else "predict"
    np.testing.assert_allclose(getattr(weighted, name)(X), getattr(repeated, name)(X), rtol=1e-6, atol=1e-7)
    # They do count.
    assert not np.allclose(weighted.coefs_[0], kind(**how).fit(X, y).coefs_[0])


@quiet
def test_a_penalty_is_as_strong_in_a_short_last_batch():
    """With no error to learn from, weights shrink by the penalty alone: by the same factor in each step."""
    X, y = np.zeros((25, 3)), np.zeros(25)
    how = {"hidden_layer_sizes": (4,), "solver": "sgd", "momentum": 0, "alpha": 5.0, "learning_rate_init": 0.1}
    one = FCNetRegressor(**how, batch_size=10, max_iter=1, random_state=0, preprocess="none").fit(X, y)
    two = FCNetRegressor(**how, batch_size=10, max_iter=2, random_state=0, preprocess="none").fit(X, y)
    shrunk = two.coefs_[0] / one.coefs_[0]
    np.testing.assert_allclose(shrunk, (1 - 0.1 * 5.0 / 10) ** 3, rtol=1e-9)


@quiet
@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_it_works_where_scikit_learns_estimators_do(processes):
    X, y = IRIS
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    small = FCNetClassifier(hidden_layer_sizes=(8,), max_iter=60, learning_rate_init=0.05, random_state=0)
    model = make_pipeline(StandardScaler(), clone(small))
    search = GridSearchCV(model, {"fcnetclassifier__alpha": [1e-4, 1.0]}, n_jobs=processes, cv=3).fit(X, names)
    assert search.best_score_ > 0.9
    assert set(search.predict(X)) == set(names)
    assert cross_val_score(small, X, names, cv=3).mean() > 0.9
    calibrated = CalibratedClassifierCV(small, cv=3).fit(X, names)
    assert calibrated.score(X, names) > 0.9
    numbers = load_diabetes(return_X_y=True)
    regressor = FCNetRegressor(hidden_layer_sizes=(8,), max_iter=60, random_state=0)
    assert cross_val_score(make_pipeline(StandardScaler(), regressor), *numbers, cv=3).mean() > 0.2


def test_it_stops_when_scikit_learn_would():
    """Counted by hand from the curve: more than 5 epochs in a row without an improvement by tol."""
    X, y = IRIS
    one = FCNetClassifier(tol=3e-3, n_iter_no_change=5, max_iter=2000, random_state=0).fit(X, y)
    best, bad = np.inf, 0
    for number, loss in enumerate(one.loss_curve_, 1):  # noqa: B007 -- where it ended
        bad = bad + 1 if loss > best - 3e-3 else 0
        best = min(best, loss)
        if bad > 5:
            break
    assert bad == 6
    assert number == one.n_iter_ == len(one.loss_curve_) < 2000
    assert one.best_loss_ == best
    assert one.loss_ == one.loss_curve_[-1]
    assert one.validation_scores_ is one.best_validation_score_ is one.val_loss_curve_ is None
    assert one.t_ == 150 * one.n_iter_


@pytest.mark.parametrize(
    ("options", "warned"), [({"max_iter": 4}, True), ({"tol": 10, "max_iter": 30}, False)], ids=str
)
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_it_warns_when_scikit_learn_would(options, warned, solver):
    X, y = IRIS
    for kind in (FCNetClassifier, MLPClassifier):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            kind(solver=solver, random_state=0, **options).fit(StandardScaler().fit_transform(X), y)
        assert [w.category for w in caught] == [ConvergenceWarning] * warned, kind


def test_it_says_what_ended_a_training_too_early():
    X, y = IRIS
    with pytest.warns(ConvergenceWarning, match=r"5 evaluations of the loss reached \(max_fun\); raise max_fun"):
        FCNetClassifier(solver="lbfgs", max_fun=5).fit(X, y)
    with pytest.warns(ConvergenceWarning, match=r"4 iterations reached \(max_iter\); raise max_iter"):
        FCNetClassifier(solver="lbfgs", max_iter=4).fit(X, y)


@quiet
def test_the_tolerance_of_its_own():
    """0.001 where nobody says how long; else, and of a full-batch rule's gradient, scikit-learn's 0.0001."""
    settings = {}, {"max_iter": 9}, {"solver": "lbfgs"}, {"tol": 0.5}
    assert [FCNetClassifier(**how)._tolerance for how in settings] == [0.001, 0.0001, 0.0001, 0.5]


@quiet
def test_the_penalty_of_its_own():
    """3 / 2n Σ W², of n rows or rows that weigh so much, where nobody says how long; else scikit-learn's 0.0001."""

    def reg(one):
        return one._fitted.model.reg

    X, y = load_iris(return_X_y=True)
    assert reg(FCNetClassifier(tol=1.0).fit(X, y)) == pytest.approx(3 / 150)
    assert reg(FCNetClassifier(tol=1.0, batch_size=50).fit(X, y)) == pytest.approx(3 / 150)
    assert reg(FCNetClassifier(tol=1.0).fit(X, y, np.full(150, 2.0))) == pytest.approx(3 / 300)
    assert reg(FCNetClassifier(max_iter=1).fit(X, y)) == pytest.approx(1e-4 / 150)
    assert reg(FCNetClassifier().partial_fit(X, y, classes=[0, 1, 2])) == pytest.approx(1e-4 / 150)


@pytest.mark.parametrize(("labels", "fraction"), [([7], 0.1), ([7, 8, 9], 0.1), ([], 0.02)])
def test_rows_are_held_out_whatever_the_sizes_of_the_classes(labels, fraction):
    """A class of one row is learned from; there may be more classes than held-out rows. scikit-learn fits both, too."""
    X, y = load_iris(return_X_y=True)
    y[: len(labels)] = labels
    one = FCNetClassifier(early_stopping=True, validation_fraction=fraction, random_state=0, tol=1.0).fit(X, y)
    assert one.classes_.tolist() == [0, 1, 2, *labels]
    with pytest.raises(ValueError, match="too small: expected 2 rows or more, got 0 of 2; raise validation_fraction"):
        FCNetClassifier(early_stopping=True).fit(X[:2], [0, 1])
    with pytest.raises(ValueError, match="holds out all 8; lower it, or use early_stopping=False"):
        FCNetClassifier(early_stopping=True, validation_fraction=0.9).fit(np.ones((8, 1)), [0, 1] * 4)


@pytest.mark.parametrize("values", [[0, 1], [True, False], [1.0, 2.0]])
def test_numbers_in_an_array_of_objects_are_labels(values):
    """A column of a data frame may have such labels; scikit-learn takes them for numbers to predict."""
    X, y = np.arange(8.0).reshape(-1, 1), np.array(values * 4, dtype=object)
    for one in (FCNetClassifier(tol=1.0).fit(X, y), FCNetClassifier().partial_fit(X, y, classes=np.unique(y))):
        assert one.classes_.tolist() == sorted(values)
        assert one.score(X, y) == np.mean(one.predict(X) == np.array(values * 4))
    rows = np.array([values, values[::-1]] * 4, dtype=object)
    if set(values) == {0, 1}:  # columns of 0 and 1
        assert FCNetClassifier(tol=1.0).fit(X, rows).predict(X).shape == rows.shape
    with pytest.raises(ValueError, match=r"such as 0 \(Unknown label type: unknown\); convert them"):
        FCNetClassifier(max_iter=1).fit(X, np.array([*range(7), b"7"], dtype=object))


@pytest.mark.parametrize("missing", [None, np.nan, pandas.NA])
def test_a_label_that_is_missing_is_found(missing):
    X, labels = np.arange(4.0).reshape(-1, 1), ["a", "b", missing, missing]
    column = pandas.Series(labels)
    for y in (labels, np.array(labels, dtype=object), column, column.to_frame()):
        with pytest.raises(ValueError, match="expected a label in every row, got none in 2 rows, the first 2; leave"):
            FCNetClassifier(max_iter=1).fit(X, y)


@quiet
def test_whole_numbers_and_truth_values_of_pandas_stay_what_they_are():
    X = np.arange(4.0).reshape(-1, 1)
    for dtype, plain in (("Int64", np.int64), ("boolean", np.bool_)):
        one = FCNetClassifier(max_iter=1).fit(X, pandas.Series([0, 1, 1, 0], dtype=dtype))
        assert one.classes_.dtype == one.predict(X).dtype == plain


def test_held_out_rows_say_when_to_stop():
    X, y = load_breast_cancer(return_X_y=True)
    one = FCNetClassifier(early_stopping=True, random_state=0, max_iter=300).fit(X, y)
    assert one.best_loss_ is None
    assert one.best_validation_score_ == max(one.validation_scores_) > 0.9
    assert len(one.validation_scores_) == len(one.val_loss_curve_) == one.n_iter_
    given = FCNetClassifier(random_state=0, max_iter=40, learning_rate_init=0.3)
    given.fit(X[100:], y[100:], X_val=X[:100], y_val=y[:100])
    assert given.validation_scores_[-1] < given.best_validation_score_
    assert given.best_validation_score_ == given.score(X[:100], y[:100])  # the best weights are put back
    only_seen = FCNetClassifier(random_state=0, max_iter=50, tol=1e-2, early_stopping=False)
    only_seen.fit(X[100:], y[100:], X_val=X[:100], y_val=y[:100])
    assert only_seen.validation_scores_ is None
    assert len(only_seen.val_loss_curve_) == only_seen.n_iter_
    probability = only_seen.predict_proba(X[:100])[np.arange(100), y[:100]]
    assert only_seen.val_loss_curve_[-1] == pytest.approx(-np.log(probability).mean())
    with pytest.raises(ValueError, match="y_val: expected with X_val, got None"):
        FCNetClassifier().fit(X, y, X_val=X)


@quiet
def test_attributes_are_those_of_scikit_learn():
    for problem, (mine, theirs, X, y) in problems().items():
        options = {"hidden_layer_sizes": (6, 5), "max_iter": 3, "random_state": 0}
        one, other = mine(**options).fit(X, y), theirs(**options).fit(X, y)
        for name in ("n_outputs_", "n_layers_", "out_activation_", "n_features_in_", "n_iter_", "t_"):
            assert getattr(one, name) == getattr(other, name), (problem, name)
        for name in ("coefs_", "intercepts_"):
            shapes = [[(w.shape, w.dtype) for w in getattr(each, name)] for each in (one, other)]
            assert shapes[0] == shapes[1], (problem, name)
        public = {name for name in vars(other) if not name.startswith("_") and name.endswith("_")}
        assert public <= {name for name in dir(one) if hasattr(one, name)}, problem
        assert one.predict(X).shape == other.predict(X).shape
        assert one.predict(X).dtype == other.predict(X).dtype
        if mine is FCNetClassifier:
            assert one.predict_proba(X).shape == other.predict_proba(X).shape
            assert one.decision_function(X).shape == (
                y.shape if problem == "two classes" else one.predict_proba(X).shape
            )


def test_every_parameter_of_scikit_learn_is_there():
    for mine, theirs in ((FCNetClassifier, MLPClassifier), (FCNetRegressor, MLPRegressor)):
        own, other = mine().get_params(), theirs().get_params()
        assert other.keys() <= own.keys()
        differing = {name for name in other if own[name] != other[name]}
        assert differing == {"hidden_layer_sizes", "max_iter", "early_stopping", "alpha", "tol"}
        page = (Path(__file__).parents[2] / "docs" / "sklearn.md").read_text("utf-8")
        assert [name for name in own.keys() - other.keys() | differing if f"`{name}" not in page] == []


@quiet
def test_the_order_of_few_rows_does_not_matter():
    X, y = IRIS
    order = np.random.default_rng(0).permutation(150)
    how = {"random_state": 0, "max_iter": 50}
    one, other = FCNetClassifier(**how).fit(X, y), FCNetClassifier(**how).fit(X[order], y[order])
    np.testing.assert_allclose(one.predict_proba(X), other.predict_proba(X), rtol=1e-7)


@quiet
@pytest.mark.parametrize(
    ("given", "dtype", "expected"), [("f4", None, "f4"), ("f8", None, "f8"), ("f8", "float32", "f4")]
)
def test_numbers_are_computed_as_they_come(given, dtype, expected):
    X, y = load_diabetes(return_X_y=True)
    one = FCNetRegressor(max_iter=3, dtype=dtype).fit(X.astype(given), y)
    assert {w.dtype for w in one.coefs_} == {np.dtype(expected)}
    assert one.predict(X.astype(given)).dtype == expected


@quiet
def test_classes_may_have_weights():
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.standard_normal((190, 2)), rng.standard_normal((10, 2)) + 1.2])
    y = np.array(["often"] * 190 + ["rare"] * 10)
    how = {"hidden_layer_sizes": (8,), "max_iter": 100, "learning_rate_init": 0.02, "random_state": 0}
    found = {weight: FCNetClassifier(**how, class_weight=weight).fit(X, y).predict(X) for weight in (None, "balanced")}
    assert (found["balanced"] == "rare").sum() > 2 * (found[None] == "rare").sum()
    with pytest.raises(ValueError, match="partial_fit does not see all rows"):
        FCNetClassifier(class_weight="balanced").partial_fit(X, y, classes=["often", "rare"])


@quiet
def test_what_fcnet_has_besides(capsys):
    X, y = IRIS
    for options in (
        {"activation": ["gelu", "identity"], "hidden_layer_sizes": (8, 4)},
        {"normalization": "batchnorm", "dropout_keep_ratio": 0.8},
        {"solver": "rmsprop"},
        {"solver": "adamw", "weight_decay": 0.1},
        {"schedule": "cosine"},
        {"schedule": "step", "schedule_config": {"every": 20}},
        {"label_smoothing": 0.1},
        {"loss": "svm"},
        {"loss": "softmax"},
        {"solver": "bfgs", "hidden_layer_sizes": (4,)},
    ):
        how = {"hidden_layer_sizes": (8,), "max_iter": 40, "learning_rate_init": 0.02, "random_state": 0}
        one = FCNetClassifier(**how | options).fit(X, y)
        assert one.score(X, y) > 0.8, options
        assert hasattr(one, "predict_proba") == (options.get("loss") != "svm")
    FCNetClassifier(max_iter=2, verbose=True).fit(X, y)
    assert capsys.readouterr().out.startswith("Iteration 1, loss = ")


@quiet
def test_more_units_for_many_rows():
    """Unless a fit goes on with what there is."""
    X = np.random.default_rng(0).normal(size=(700, 2))
    y = (X[:, 0] > 0).astype(int)

    def units(fitted):
        return fitted.coefs_[0].shape[1]

    how = {"max_iter": 1, "random_state": 0}
    assert units(FCNetClassifier(**how).fit(X, y)) == 200
    assert units(FCNetRegressor(**how).fit(X, y)) == 200
    assert units(FCNetClassifier(**how).fit(X[:-1], y[:-1])) == 100
    warm = FCNetClassifier(**how, warm_start=True).fit(X[:99], y[:99])
    assert units(warm.fit(X, y)) == 100
    assert units(FCNetClassifier(**how).partial_fit(X[:9], y[:9], classes=[0, 1]).partial_fit(X, y)) == 100
    given = FCNetClassifier(**how)
    given.coefs_, given.intercepts_ = [np.ones((2, 3)), np.ones((3, 1))], [np.ones(3), np.ones(1)]
    given.n_features_in_ = 2
    assert units(given.partial_fit(X, y, classes=[0, 1])) == 3


@quiet
def test_going_on():
    """`partial_fit` again and again is `fit`; a warm start goes on from the weights."""
    X, y = IRIS
    how = {"random_state": 0, "batch_size": 50, "hidden_layer_sizes": (8,)}
    whole = FCNetClassifier(**how, max_iter=5).fit(X, y)
    one = FCNetClassifier(**how)
    for _ in range(5):
        one.partial_fit(X, y, classes=[0, 1, 2])
    for mine, theirs in zip(one.coefs_, whole.coefs_, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    warm = FCNetClassifier(**how, max_iter=5, warm_start=True).fit(X, y)
    before = warm.loss_
    assert warm.fit(X, y).loss_ < before
    assert len(warm.loss_curve_) == 10
    with pytest.raises(
        ValueError, match="hidden_layer_sizes: expected the widths of the network so far, 4-8-3, got 4-9-3"
    ):
        warm.set_params(hidden_layer_sizes=(9,)).fit(X, y)
    with pytest.raises(ValueError, match=r"warm_start: expected the classes of the fit before, \[0 1 2\], got \[0 1\]"):
        warm.set_params(hidden_layer_sizes=(8,)).fit(X[:100], y[:100])
    with pytest.raises(AttributeError, match="no attribute 'partial_fit'"):
        FCNetClassifier(solver="lbfgs").partial_fit(X, y)


def test_a_training_that_diverges_is_an_error_in_words():
    X, y = load_diabetes(return_X_y=True)
    diverging = FCNetRegressor(solver="sgd", learning_rate_init=1e6, max_iter=200)
    with pytest.raises(ValueError, match="the training diverged: weights became NaN"):
        diverging.fit(X, y)
    with pytest.warns(ConvergenceWarning, match="its loss became nan; the weights of the best epoch are put back"):
        diverging.set_params(early_stopping=True).fit(X, y)
    assert diverging.n_iter_ < 30  # a score of NaN is no improvement
    assert np.isfinite(diverging.predict(X)).all()


class Callback:
    """What scikit-learn asks of a callback."""

    def __init__(self, last):
        self.last, self.seen, self.scores = last, [], []

    def setup(self, estimator, context):
        self.seen.append("setup")

    def teardown(self, estimator, context):
        self.seen.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.seen.append(f"begin {context.task_name}")

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, fitted_estimator=None):
        self.seen.append(f"end {context.task_name}")
        if context.task_name == "epoch" and fitted_estimator is not None:
            self.scores.append(fitted_estimator.score(X, y))
        return len(self.scores) == self.last


@quiet
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_callbacks_see_each_epoch_and_may_end_it(solver):
    pytest.importorskip("sklearn.callback")
    X, y = IRIS
    callback = Callback(3)
    one = FCNetClassifier(solver=solver, max_iter=9, random_state=0).set_callbacks(callback).fit(X, y)
    assert one.n_iter_ == 3
    assert callback.seen == ["setup", "begin fit", *["begin epoch", "end epoch"] * 3, "end fit", "teardown"]
    assert callback.scores[-1] == one.score(X, y)
    assert len(set(callback.scores)) > 1


def test_parameters_out_of_range_are_refused():
    X, y = IRIS
    wrong = {
        "hidden_layer_sizes": (0,), "activation": "relus", "solver": "adams", "alpha": -1, "batch_size": 0,
        "learning_rate": "fast", "learning_rate_init": 0, "max_iter": 0, "momentum": 1, "early_stopping": "often",
        "normalization": "norm", "dropout_keep_ratio": 0, "preprocess": "scaled", "dtype": "float16", "loss": "mse",
    }  # fmt: skip
    with pytest.raises(ValueError, match="schedule and learning_rate: expected one of them"):
        FCNetClassifier(schedule="cosine", learning_rate="adaptive").fit(X, y)
    for name, value in wrong.items():
        with pytest.raises((ValueError, TypeError), match=name):
            FCNetClassifier(**{name: value}).fit(X, y)


def test_without_scikit_learn_it_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name == "sklearn" or name.startswith("fcnet.sklearn")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingExtra, match=r"fcnet\.sklearn needs scikit-learn, which is not installed: pip install"):
        importlib.import_module("fcnet.sklearn")


@quiet
def test_poisson_regression_is_that_of_a_linear_model_and_begins_at_the_mean():
    X = np.linspace(0, 1, 100).reshape(-1, 1)
    y = np.random.default_rng(0).poisson(1000 * np.exp(X[:, 0]))
    how = {"hidden_layer_sizes": (1,), "activation": "identity", "alpha": 0, "solver": "lbfgs", "tol": 1e-7}
    one = FCNetRegressor("poisson", preprocess="standardize", random_state=0, **how).fit(X, y)
    assert one.out_activation_ == "exp"
    np.testing.assert_allclose(one.predict(X), PoissonRegressor(alpha=0, tol=1e-7).fit(X, y).predict(X), rtol=1e-4)
    one = FCNetRegressor("poisson", max_iter=1, random_state=0).fit(X, y, X_val=X, y_val=y)
    assert one.best_validation_score_ == pytest.approx(one.score(X, y))
    assert one.score(X, y) > -5  # from predictions of 1 it would be some -30
    with pytest.raises(ValueError, match="y: expected 0 or more with loss='poisson', got -1"):
        one.fit(X, y * 0 - 1)
