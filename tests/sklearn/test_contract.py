"""scikit-learn's own checks of an estimator, on both, without expected failures."""

import warnings

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from fcnet.sklearn import FCNetClassifier, FCNetRegressor

# A narrow net, and at most so many epochs: what the checks ask does not depend on it, what they cost does.
SMALL = {"hidden_layer_sizes": (8,), "max_iter": 100, "learning_rate_init": 0.02}


@parametrize_with_checks([FCNetClassifier(**SMALL), FCNetRegressor(**SMALL)])
def test_it_is_an_estimator(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they provoke; scikit-learn's own look at the ones that matter
        check(estimator)


@pytest.mark.slow
@parametrize_with_checks([FCNetClassifier(), FCNetRegressor()])
def test_it_is_one_with_its_defaults(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)
