"""scikit-learn's interface: `FCNetClassifier` and `FCNetRegressor`, with the parameters of its MLP estimators.

What differs from them stands in docs/sklearn.md.
"""

from fcnet.errors import MissingExtra

try:
    import sklearn  # noqa: F401
except ImportError:
    raise MissingExtra("fcnet.sklearn", "scikit-learn", "sklearn") from None

from fcnet.sklearn.estimators import FCNetClassifier, FCNetRegressor

__all__ = ["FCNetClassifier", "FCNetRegressor"]
