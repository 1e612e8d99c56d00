"""`FCNetClassifier` and `FCNetRegressor`: scikit-learn estimators around fcnet's networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin, _fit_context
from sklearn.utils import check_array
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import _check_partial_fit_first_call
from sklearn.utils.validation import check_is_fitted, column_or_1d

import fcnet.functional as F
from fcnet.backends import Array, backend_of
from fcnet.sklearn.base import Base
from fcnet.sklearn.inputs import check_weights, device_of
from fcnet.sklearn.targets import Classes, check_labels
from fcnet.training.fullbatch import FULL_BATCH


def _makes_steps(estimator: Any) -> bool:
    if estimator.solver in FULL_BATCH:
        raise AttributeError(
            f"partial_fit: expected a solver that makes steps, such as 'adam', got solver={estimator.solver!r}; use fit"
        )
    return True


def _has_probabilities(estimator: Any) -> bool:
    if estimator.loss == "svm":
        raise AttributeError(
            "predict_proba: expected loss='log_loss', got loss='svm', whose scores are no probabilities; "
            "use decision_function"
        )
    return True


class FCNetClassifier(ClassifierMixin, Base):
    """A classifier with a fully connected network, used as scikit-learn's MLPClassifier is."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **Base._parameter_constraints,
        "loss": [StrOptions({"log_loss", "softmax", "bce", "svm"})],
        "label_smoothing": [Interval(Real, 0, 1, closed="left")],
        "class_weight": [None, dict, StrOptions({"balanced"})],
    }

    def __init__(
        self,
        hidden_layer_sizes: int | Sequence[int] = (100,),
        activation: str | Sequence[str] = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int | str = "auto",
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool | str = "auto",
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        loss: str = "log_loss",
        device: Any = "auto",
        dtype: Any = None,
        precision: str | None = None,
        normalization: str | None = None,
        dropout_keep_ratio: float = 1.0,
        label_smoothing: float = 0.0,
        weight_decay: float | None = None,
        schedule: str | Callable[[int], float] | None = None,
        schedule_config: Mapping[str, Any] | None = None,
        class_weight: Mapping[Any, float] | str | None = None,
        preprocess: str = "auto",
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.max_fun = max_fun
        self.loss = loss
        self.device = device
        self.dtype = dtype
        self.precision = precision
        self.normalization = normalization
        self.dropout_keep_ratio = dropout_keep_ratio
        self.label_smoothing = label_smoothing
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.schedule_config = schedule_config
        self.class_weight = class_weight
        self.preprocess = preprocess

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None, X_val: Any = None, y_val: Any = None) -> FCNetClassifier:
        """Fit the network to the training rows; return the estimator."""
        return self._fit(X, y, sample_weight, X_val, y_val)

    @available_if(_makes_steps)
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> FCNetClassifier:
        """Go on for one epoch with these rows; return the estimator."""
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight: partial_fit does not see all rows, expected the classes' weights, got 'balanced'; "
                "give them as a dict"
            )
        if _check_partial_fit_first_call(self, classes):
            labels = check_labels(y)
            self._classes = Classes.of(labels) if labels.ndim == 2 else Classes(self.classes_, False)
        return self._fit(X, y, sample_weight, incremental=True)

    def _check_targets(self, y: Any, *, first: bool, incremental: bool) -> np.ndarray:
        labels = check_labels(y)
        if first and not incremental:
            self._classes = Classes.of(labels)
            self.classes_: np.ndarray = self._classes.labels
        elif self.warm_start and not incremental and not np.array_equal(np.unique(labels), self.classes_):
            raise ValueError(
                f"warm_start: expected the classes of the fit before, {self.classes_}, got {np.unique(labels)}; "
                "use warm_start=False"
            )
        return self._encoded(labels)

    def _check_more_targets(self, y: Any) -> np.ndarray:
        return self._encoded(check_labels(y))

    def _encoded(self, labels: np.ndarray) -> np.ndarray:
        """Codes, or for the loss "bce" rows of zeros and ones, smoothed as the other losses do it."""
        if (labels.ndim == 2) != self._classes.multilabel:
            raise ValueError(
                f"y: expected {'rows of 0 and 1' if self._classes.multilabel else 'one label a row'} as before, got "
                f"shape {labels.shape}; fit anew"
            )
        codes = self._classes.encode(labels)
        if self._loss_name != "bce":
            return codes
        rows = codes.astype(np.float64).reshape(len(codes), -1)
        return rows * (1 - self.label_smoothing) + self.label_smoothing / 2

    @property
    def _loss_name(self) -> str:
        if self.loss in ("svm", "softmax"):
            if self._classes.multilabel:
                raise ValueError(f"loss: expected 'log_loss' for several labels a row, got {self.loss!r}")
            if len(self._classes.labels) > 1:
                return self.loss
        return "bce" if self._classes.binary or self._classes.multilabel else "softmax"

    @property
    def _outputs(self) -> int:
        one = self._loss_name == "bce" and not self._classes.multilabel
        return 1 if one else len(self._classes.labels)

    @property
    def _out_activation(self) -> str:
        return {"bce": "logistic", "softmax": "softmax"}.get(self._loss_name, "identity")

    def _stratify(self, targets: np.ndarray) -> np.ndarray | None:
        if self._classes.multilabel:
            return None
        return targets > 0.5 if targets.ndim == 2 else targets

    def _row_weights(self, sample_weight: Any, y: Any, count: int) -> np.ndarray | None:
        weights = None if sample_weight is None else check_weights(sample_weight, count)
        if self.class_weight is None:
            return weights
        of_class = compute_sample_weight(self.class_weight, y)
        return of_class if weights is None else weights * of_class

    def decision_function(self, X: Any) -> Array:
        """Return the scores (n, n_classes), or (n,) of the second of two classes."""
        check_is_fitted(self)
        scores, _ = self._scores(X)
        return self._of_two(scores)

    def _of_two(self, scores: Array) -> Array:
        if self._classes.multilabel or len(self.classes_) > 2:
            return scores
        return scores[:, -1] - scores[:, 0] if scores.shape[1] == 2 else scores.reshape(-1)

    def predict(self, X: Any) -> Array:
        """Return the classes (n,), or rows of zeros and ones (n, n_labels)."""
        check_is_fitted(self)
        scores, inputs = self._scores(X)
        model = self._fitted.model
        backend = inputs.backend
        xp = np if backend is None else backend.xp
        if model.loss_name == "bce":
            codes = xp.greater(scores, 0).astype("int64")
            codes = codes if self._classes.multilabel else codes.reshape(-1)
            if len(self.classes_) == 1:
                codes = codes * 0
        else:
            codes = xp.argmax(scores, axis=1)
        return self._classes.decode(backend, codes)

    @available_if(_has_probabilities)
    def predict_proba(self, X: Any) -> Array:
        """Return the classes' probabilities (n, n_classes), or those of each label (n, n_labels)."""
        check_is_fitted(self)
        scores, inputs = self._scores(X)
        probabilities = self._fitted.model.objective.probabilities(scores)
        if self._classes.multilabel or self._fitted.model.loss_name == "softmax":
            return probabilities
        xp = np if inputs.backend is None else inputs.backend.xp
        if len(self.classes_) == 1:
            return probabilities * 0 + 1
        return xp.concatenate([F.sigmoid_forward(-scores)[0], probabilities], axis=1)

    @available_if(_has_probabilities)
    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithms of `predict_proba`."""
        probabilities = self.predict_proba(X)
        backend = device_of(probabilities)
        return (np if backend is None else backend.xp).log(probabilities)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy, of whole rows where there are several labels; see scikit-learn's ClassifierMixin."""
        return super().score(X, y, sample_weight)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class FCNetRegressor(RegressorMixin, Base):
    """A regressor with a fully connected network, used as scikit-learn's MLPRegressor is."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **Base._parameter_constraints,
        "loss": [StrOptions({"squared_error", "mse"})],
    }

    def __init__(
        self,
        loss: str = "squared_error",
        hidden_layer_sizes: int | Sequence[int] = (100,),
        activation: str | Sequence[str] = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int | str = "auto",
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool | str = "auto",
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        device: Any = "auto",
        dtype: Any = None,
        precision: str | None = None,
        normalization: str | None = None,
        dropout_keep_ratio: float = 1.0,
        weight_decay: float | None = None,
        schedule: str | Callable[[int], float] | None = None,
        schedule_config: Mapping[str, Any] | None = None,
        preprocess: str = "auto",
    ) -> None:
        self.loss = loss
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.max_fun = max_fun
        self.device = device
        self.dtype = dtype
        self.precision = precision
        self.normalization = normalization
        self.dropout_keep_ratio = dropout_keep_ratio
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.schedule_config = schedule_config
        self.preprocess = preprocess

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None, X_val: Any = None, y_val: Any = None) -> FCNetRegressor:
        """Fit the network to the training rows; return the estimator."""
        return self._fit(X, y, sample_weight, X_val, y_val)

    @available_if(_makes_steps)
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> FCNetRegressor:
        """Go on for one epoch with these rows; return the estimator."""
        return self._fit(X, y, sample_weight, incremental=True)

    def _check_targets(self, y: Any, *, first: bool, incremental: bool) -> np.ndarray:
        numbers = self._numbers(y)
        if first:
            self._columns = numbers.shape[1:]
        return self._encoded(numbers)

    def _check_more_targets(self, y: Any) -> np.ndarray:
        return self._encoded(self._numbers(y))

    def _numbers(self, y: Any) -> np.ndarray:
        """y (n,) or (n, K), float64."""
        numbers = check_array(y, ensure_2d=False, dtype=np.float64, input_name="y")
        return column_or_1d(numbers, warn=True) if numbers.ndim == 2 and numbers.shape[1] == 1 else numbers

    def _encoded(self, numbers: np.ndarray) -> np.ndarray:
        if numbers.shape[1:] != self._columns:
            raise ValueError(
                f"y: expected shape (n, {', '.join(map(str, self._columns))}) as before, got {numbers.shape}; fit anew"
            )
        return numbers.reshape(len(numbers), -1)

    @property
    def _loss_name(self) -> str:
        return "mse"

    @property
    def _outputs(self) -> int:
        return self._columns[0] if self._columns else 1

    @property
    def _out_activation(self) -> str:
        return "identity"

    def _stratify(self, targets: np.ndarray) -> None:
        return None

    def predict(self, X: Any) -> Array:
        """Return the values (n,), or (n, n_outputs)."""
        check_is_fitted(self)
        scores, _ = self._scores(X)
        model = self._fitted.model
        values = model.objective.predictions(backend_of(scores), scores)
        return values.astype(scores.dtype)  # the network's, also where the units were worked out in float64

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
