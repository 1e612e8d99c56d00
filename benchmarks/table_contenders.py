"""The contenders of `benchmarks.tables`: each an estimator with its defaults that takes a table's raw frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.table_sets import Table

Make = Callable[[Table, int], Any]
CATBOOST_ITERATIONS = 200  # its default of 1,000 would take longer than all the others together


def fcnet(table: Table, _threads: int) -> Any:
    """Return fcnet's estimator, which takes the frame as it is."""
    from fcnet.sklearn import FCNetClassifier, FCNetRegressor

    return (FCNetClassifier if table.classes else FCNetRegressor)(random_state=0)


def mlp(table: Table, _threads: int) -> Any:
    """Return scikit-learn's MLP behind the pipeline that its users write."""
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    return _pipeline(table, (MLPClassifier if table.classes else MLPRegressor)(random_state=0))


def linear(table: Table, _threads: int) -> Any:
    """Return logistic or ridge regression behind the same pipeline."""
    from sklearn.linear_model import LogisticRegression, Ridge

    return _pipeline(table, LogisticRegression() if table.classes else Ridge())


def hgb(table: Table, _threads: int) -> Any:
    """Return scikit-learn's gradient boosting, which takes categories and missing values as they are."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    return (HistGradientBoostingClassifier if table.classes else HistGradientBoostingRegressor)(random_state=0)


def lightgbm(table: Table, threads: int) -> Any:
    """Return LightGBM, which takes categories and missing values as they are."""
    from lightgbm import LGBMClassifier, LGBMRegressor

    return (LGBMClassifier if table.classes else LGBMRegressor)(random_state=0, n_jobs=threads, verbose=-1)


def catboost(table: Table, threads: int) -> Any:
    """Return CatBoost, which takes categories as text, with `CATBOOST_ITERATIONS`."""
    from catboost import CatBoostClassifier, CatBoostRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    kind = CatBoostClassifier if table.classes else CatBoostRegressor
    how = {"thread_count": threads, "iterations": CATBOOST_ITERATIONS, "verbose": 0, "allow_writing_files": False}
    model = kind(random_seed=0, cat_features=table.categories, **how)
    return make_pipeline(FunctionTransformer(_as_text), model)


#: By name, in the order of the table's columns.
CONTENDERS: dict[str, Make] = {
    "fcnet": fcnet,
    "MLP pipeline": mlp,
    "HistGradientBoosting": hgb,
    "linear pipeline": linear,
    "LightGBM": lightgbm,
    "CatBoost": catboost,
}


def _pipeline(table: Table, estimator: Any) -> Any:
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

    numbers = [name for name in table.X if name not in table.categories]
    parts = [(make_pipeline(SimpleImputer(), StandardScaler()), numbers)]
    if table.categories:
        encoder = OneHotEncoder(handle_unknown="ignore")
        parts.append((make_pipeline(SimpleImputer(strategy="most_frequent"), encoder), table.categories))
    return make_pipeline(FunctionTransformer(_as_objects), make_column_transformer(*parts), estimator)


def _as_objects(frame: Any) -> Any:
    """Return categories as plain values, because the imputer does not take pandas' own."""
    return frame.astype({name: object for name in frame if frame[name].dtype == "category"})


def _as_text(frame: Any) -> Any:
    """Return categories as text, missing ones too, because CatBoost takes no other."""
    categories = [name for name in frame if frame[name].dtype == "category"]
    return frame.assign(**{name: frame[name].astype(object).fillna("missing").astype(str) for name in categories})
