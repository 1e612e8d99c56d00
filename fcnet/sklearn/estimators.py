"""`FCNetClassifier` and `FCNetRegressor`: scikit-learn estimators around fcnet's networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin, _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import _check_partial_fit_first_call
from sklearn.utils.validation import check_is_fitted

import fcnet.functional as F
from fcnet.backends import Array, backend_of
from fcnet.sklearn.base import Base
from fcnet.sklearn.inputs import Inputs, device_of, imported
from fcnet.sklearn.targets import Classes, check_labels, check_numbers, distinct, plain_numbers
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
    """Classify with a fully connected network, used as scikit-learn's MLPClassifier is.

    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> FCNetClassifier(random_state=0).fit(X, y).predict(X[:2])
    array([0, 0])

    Its parameters mean what they mean there, but for the differences that docs/sklearn.md lists.

    Args:
        hidden_layer_sizes: widths of the hidden layers; "auto": one of 100, or of 200 from 700 rows on.
        activation: of them, "relu", "tanh", "logistic", "identity" or another of fcnet's, or one for each.
        solver: "adam", "sgd", "lbfgs", or another of fcnet's rules.
        alpha: strength of the L2 penalty, alpha / 2b Σ W² beside the mean loss of a batch of b rows; "auto": 3 b / n of
            n rows, so that it counts the less the more there are, in a `fit` with max_iter="auto", else 0.0001.
        batch_size: rows of a mini-batch; "auto": min(200, n).
        learning_rate: of "sgd", "constant", "invscaling" (learning_rate_init / (rows seen + 1)^power_t) or "adaptive"
            (a fifth each time the training does not get on). learning_rate_init: the first one.
        max_iter: epochs, or iterations of "lbfgs"; "auto": about 1,000 steps, and 20 epochs or more.
        shuffle: rows in a new order each epoch. random_state: of weights, order and rows held out.
        tol, n_iter_no_change: an end after more than so many epochs in which the training loss, or the validation
            score, got no better by tol; "auto": 0.001 in a `fit` with max_iter="auto", else 0.0001, as for the gradient
            of a full-batch rule. max_fun: evaluations by "lbfgs".
        verbose: print a line per epoch. warm_start: `fit` goes on from the weights.
        momentum, nesterovs_momentum: of "sgd". beta_1, beta_2, epsilon: of "adam".
        early_stopping: hold out `validation_fraction` of the rows, and keep the weights of the best epoch; "auto": from
            10,000 rows on, or if validation rows are given.
        loss: "log_loss" (cross-entropy; one logistic output for two classes), "softmax" (an output for each class also
            then), "bce" (as "log_loss", for two classes or several labels) or "svm" (multiclass hinge).
        device: "auto" (that of X, else a GPU if one can be used), "cpu", "cuda" or "cuda:N".
        dtype: "float32", "float64" or None, as X. precision: of a GPU's matrix products, None, "tf32" or "bf16".
        normalization: None, "batchnorm" or "layernorm". dropout_keep_ratio: the probability to *keep* a hidden unit.
        label_smoothing: the share of each target that is spread over all classes.
        weight_decay: decoupled decay of the weights; None: 0.01 for "adamw", else 0.
        schedule, schedule_config: of the learning rate, as `fcnet.Solver` has them; "auto": fcnet's own with
            max_iter="auto", in `fit`; None: none.
        class_weight: None, "balanced" or weights by class. preprocess: of the inputs, a kind of `fcnet.data.learn`.
        categorical_features: columns that hold categories, by names, numbers from 0 or a mask; "from_dtype": those of a
            frame that hold text; None: none.

    Attributes:
        classes_, n_features_in_, feature_names_in_, n_outputs_, n_layers_, out_activation_: of data and network.
        coefs_, intercepts_: weights and biases on the host; of the preprocessed inputs.
        n_iter_, t_: epochs of the last fit, rows seen in all. loss_, best_loss_, loss_curve_: of the training.
        validation_scores_, best_validation_score_, val_loss_curve_: of the validation rows, or None.
        plan_: what became of a frame's columns, if they were not all numbers.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **Base._parameter_constraints,
        "loss": [StrOptions({"log_loss", "softmax", "bce", "svm"})],
        "label_smoothing": [Interval(Real, 0, 1, closed="left")],
        "class_weight": [None, dict, StrOptions({"balanced"})],
    }

    def __init__(
        self,
        hidden_layer_sizes: int | Sequence[int] | str = "auto",
        activation: str | Sequence[str] = "relu",
        *,
        solver: str = "adam",
        alpha: float | str = "auto",
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int | str = "auto",
        shuffle: bool = True,
        random_state: Any = None,
        tol: float | str = "auto",
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
        schedule: str | Callable[[int], float] | None = "auto",
        schedule_config: Mapping[str, Any] | None = None,
        class_weight: Mapping[Any, float] | str | None = None,
        preprocess: str = "auto",
        categorical_features: Any = "from_dtype",
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
        self.categorical_features = categorical_features

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None, X_val: Any = None, y_val: Any = None) -> FCNetClassifier:
        """Fit the network to the training rows; return the estimator.

        Args:
            X: (n, D), an array of the host or a device, a frame, or a sparse matrix.
            y: (n,) classes, or (n, C) of 0 and 1 for several labels. sample_weight: (n,), 0 or more.
            X_val, y_val: rows whose loss and score are measured after each epoch.

        Raises:
            ValueError, TypeError: what does not fit, in one line; the training diverged.
        """
        return self._fit(X, y, sample_weight, X_val, y_val)

    @available_if(_makes_steps)
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> FCNetClassifier:
        """Train for one more epoch, on these rows; return the estimator.

        What is preprocessed how is learned from the rows of the first call, and so are a frame's columns.

        Args:
            classes: all classes there will be; needed at the first call.
        """
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight: partial_fit does not see all rows, expected the classes' weights, got 'balanced'; "
                "give them as a dict"
            )
        if _check_partial_fit_first_call(self, plain_numbers(classes)):
            labels = check_labels(y)
            self._classes = Classes.of(labels) if labels.ndim == 2 else Classes(self.classes_, False)
        return self._fit(X, y, sample_weight, incremental=True)

    def _check_targets(self, y: Any, *, first: bool, incremental: bool) -> np.ndarray:
        labels = check_labels(y)
        if not hasattr(self, "_classes") or (first and not incremental):
            self._classes = Classes.of(labels)
            self.classes_: np.ndarray = self._classes.labels
        elif self.warm_start and not incremental and not self._classes.multilabel:
            found = distinct(labels)
            if not np.array_equal(found, self.classes_):
                raise ValueError(
                    f"warm_start: expected the classes of the fit before, {self.classes_}, got {found}; "
                    "use warm_start=False"
                )
        return self._encoded(labels)

    def _check_more_targets(self, y: Any) -> np.ndarray:
        return self._encoded(check_labels(y))

    def _encoded(self, labels: np.ndarray) -> np.ndarray:
        """Return codes, or for the loss "bce" rows of zeros and ones, smoothed as the other losses do it."""
        if (labels.ndim == 2) != self._classes.multilabel:
            raise ValueError(
                f"y: expected {'rows of 0 and 1' if self._classes.multilabel else 'one label a row'} as before, got "
                f"shape {labels.shape}; fit anew"
            )
        codes = self._classes.encode(labels)
        if self._loss_name != "bce":
            return codes
        rows = codes.astype("float64").reshape(codes.shape[0], -1)
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
        backend = device_of(targets)
        codes = targets if backend is None else backend.to_numpy(targets)
        return codes > 0.5 if codes.ndim == 2 else codes

    def _row_weights(self, counts: np.ndarray | None, y: Any) -> np.ndarray | None:
        if self.class_weight is None:
            return counts
        labels = check_labels(y)
        backend = device_of(labels)
        labels = labels if backend is None else backend.to_numpy(labels)
        if self.class_weight != "balanced" or labels.ndim == 2:
            of_class = compute_sample_weight(self.class_weight, labels)
        else:  # a row that weighs twice counts as two in its class
            codes = np.unique(labels, return_inverse=True)[1]
            totals = np.bincount(codes, counts)
            of_class = (totals.sum() / (np.count_nonzero(totals) * np.where(totals > 0, totals, 1)))[codes]
        return of_class if counts is None else counts * of_class

    def decision_function(self, X: Any) -> Array:
        """Return the scores (n, n_classes), or (n,) of the second of two classes."""
        check_is_fitted(self)
        scores, inputs = self._scores(X)
        if self._classes.multilabel or len(self.classes_) > 2:
            return inputs.back(scores)
        return inputs.back(scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores.reshape(-1))

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
        return inputs.back(self._classes.decode(backend, codes))

    @available_if(_has_probabilities)
    def predict_proba(self, X: Any) -> Array:
        """Return the classes' probabilities (n, n_classes), or those of each label (n, n_labels)."""
        check_is_fitted(self)
        inputs, probabilities = self._probabilities(X)
        return inputs.back(probabilities)

    def _probabilities(self, X: Any) -> tuple[Inputs, Array]:
        scores, inputs = self._scores(X)
        probabilities = self._fitted.model.objective.probabilities(scores)
        if self._classes.multilabel or self._fitted.model.loss_name == "softmax":
            return inputs, probabilities
        if len(self.classes_) == 1:
            return inputs, probabilities * 0 + 1
        xp = np if inputs.backend is None else inputs.backend.xp
        return inputs, xp.concatenate([F.sigmoid_forward(-scores)[0], probabilities], axis=1)

    @available_if(_has_probabilities)
    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithms of `predict_proba`."""
        check_is_fitted(self)
        inputs, probabilities = self._probabilities(X)
        with np.errstate(divide="ignore"):  # the logarithm of 0
            return inputs.back((np if inputs.backend is None else inputs.backend.xp).log(probabilities))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy, of whole rows where there are several labels."""
        check_is_fitted(self)
        if device_of(imported(X)) is not None:
            return self._device_score(X, y, sample_weight)
        return super().score(X, plain_numbers(y), sample_weight)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class FCNetRegressor(RegressorMixin, Base):
    """Predict numbers with a fully connected network, used as scikit-learn's MLPRegressor is.

    Its targets are standardised in the network, and predictions come in their units. Parameters and attributes are
    those of `FCNetClassifier`, but for what concerns classes.

    Args:
        loss: "squared_error", or "poisson" for counts and rates, 0 or more: the logarithm of their mean is learned.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **Base._parameter_constraints,
        "loss": [StrOptions({"squared_error", "mse", "poisson"})],
    }

    def __init__(
        self,
        loss: str = "squared_error",
        hidden_layer_sizes: int | Sequence[int] | str = "auto",
        activation: str | Sequence[str] = "relu",
        *,
        solver: str = "adam",
        alpha: float | str = "auto",
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int | str = "auto",
        shuffle: bool = True,
        random_state: Any = None,
        tol: float | str = "auto",
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
        schedule: str | Callable[[int], float] | None = "auto",
        schedule_config: Mapping[str, Any] | None = None,
        preprocess: str = "auto",
        categorical_features: Any = "from_dtype",
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
        self.categorical_features = categorical_features

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None, X_val: Any = None, y_val: Any = None) -> FCNetRegressor:
        """Fit the network to the training rows; return the estimator."""
        return self._fit(X, y, sample_weight, X_val, y_val)

    @available_if(_makes_steps)
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> FCNetRegressor:
        """Train for one more epoch, on these rows; return the estimator."""
        return self._fit(X, y, sample_weight, incremental=True)

    def _check_targets(self, y: Any, *, first: bool, incremental: bool) -> np.ndarray:
        numbers = check_numbers(y)
        if first or not hasattr(self, "_columns"):
            self._columns = numbers.shape[1:]
        return self._encoded(numbers)

    def _check_more_targets(self, y: Any) -> np.ndarray:
        return self._encoded(check_numbers(y))

    def _encoded(self, numbers: np.ndarray) -> np.ndarray:
        if numbers.shape[1:] != self._columns:
            raise ValueError(
                f"y: expected shape (n, {', '.join(map(str, self._columns))}) as before, got {numbers.shape}; fit anew"
            )
        if self.loss == "poisson" and device_of(numbers) is None and numbers.min(initial=0) < 0:
            raise ValueError(f"y: expected 0 or more with loss='poisson', got {numbers.min():g}; use 'squared_error'")
        return numbers.reshape(numbers.shape[0], -1)

    @property
    def _loss_name(self) -> str:
        return "poisson" if self.loss == "poisson" else "mse"

    @property
    def _outputs(self) -> int:
        return self._columns[0] if self._columns else 1

    @property
    def _out_activation(self) -> str:
        return "exp" if self.loss == "poisson" else "identity"

    def _stratify(self, targets: np.ndarray) -> None:
        return None

    def predict(self, X: Any) -> Array:
        """Return the values (n,), or (n, n_outputs)."""
        check_is_fitted(self)
        scores, inputs = self._scores(X)
        model = self._fitted.model
        values = model.objective.predictions(backend_of(scores), scores)
        return inputs.back(values.astype(scores.dtype))  # the network's own

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return R², the mean over the outputs."""
        check_is_fitted(self)
        on_device = device_of(imported(X)) is not None
        return self._device_score(X, y, sample_weight) if on_device else super().score(X, y, sample_weight)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
