"""What both estimators share: checking, fitting, going on fitting, and what a fitted one holds.

Shapes: n rows, D features, K outputs of the network.
"""

from __future__ import annotations

import math
import warnings
from abc import ABCMeta, abstractmethod
from dataclasses import replace
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, Options, StrOptions

from fcnet import defaults
from fcnet.backends import Array, Backend, get_backend
from fcnet.backends.notices import watched_by
from fcnet.data import learn
from fcnet.data.learn_on_device import learn_on_device
from fcnet.data.preprocessing import Preprocessing
from fcnet.data.sparse import SparseRows
from fcnet.errors import counted
from fcnet.functional import ACTIVATIONS
from fcnet.nn.model import NORMALIZATIONS, FullyConnectedNet
from fcnet.nn.objective import loss_scale
from fcnet.optim import RULES
from fcnet.progress import write
from fcnet.sklearn import mapping, training
from fcnet.sklearn.callbacks import CallbackSupport, Followed
from fcnet.sklearn.fitted import Fitted
from fcnet.sklearn.inputs import Inputs, check_inputs, check_weights, device_of, rows_of
from fcnet.sklearn.validation import Validation
from fcnet.training.batches import Batches, StreamedBatches
from fcnet.training.device_data import DeviceSplit, device_split
from fcnet.training.fullbatch import FULL_BATCH, FullBatch
from fcnet.training.steps import Steps
from fcnet.training.updates import UpdateStep

LOG_LENGTH = 1024  # losses kept on the device before they are read
LOSS_TOLERANCE = 1e7 * np.finfo(np.float64).eps  # of "lbfgs": SciPy's default, which scikit-learn keeps
# "auto" where somebody says how long the training is: scikit-learn's
ALPHA = 1e-4
TOLERANCE = 1e-4  # also of the gradient, for the full-batch rules
STOPS_EARLY_FROM = 10_000  # rows, for early_stopping="auto"
MOST_REPEATS = 100  # of a row, on average, where weights are counts: rows of those of populations would fill memory


class Base(CallbackSupport, BaseEstimator, metaclass=ABCMeta):
    """Wrap a network of fcnet as an estimator."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "hidden_layer_sizes": [StrOptions({"auto"}), "array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions({*ACTIVATIONS, *mapping.ACTIVATIONS}), list, tuple],
        "solver": [StrOptions({*RULES, *FULL_BATCH})],
        "alpha": [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "learning_rate": [StrOptions({"constant", "invscaling", "adaptive"})],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "power_t": [Interval(Real, 0, None, closed="left")],
        "max_iter": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "momentum": [Interval(Real, 0, 1, closed="left")],
        "nesterovs_momentum": ["boolean"],
        "early_stopping": ["boolean", StrOptions({"auto"})],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "beta_1": [Interval(Real, 0, 1, closed="left")],
        "beta_2": [Interval(Real, 0, 1, closed="left")],
        "epsilon": [Interval(Real, 0, None, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left"), Options(Real, {np.inf})],
        "max_fun": [Interval(Integral, 1, None, closed="left")],
        "device": [str, HasMethods("gemm")],
        "dtype": [None, str, type, np.dtype],
        "precision": [None, str],
        "normalization": [None, StrOptions(set(NORMALIZATIONS))],
        "dropout_keep_ratio": [Interval(Real, 0, 1, closed="right")],
        "weight_decay": [None, Interval(Real, 0, None, closed="left")],
        "schedule": [None, str, callable],
        "schedule_config": [None, dict],
        "preprocess": [str],
        "categorical_features": [None, "array-like", StrOptions({"from_dtype"})],
    }

    # What the two estimators differ in

    @abstractmethod
    def _check_targets(self, y: Any, *, first: bool, incremental: bool) -> np.ndarray:
        """Return training targets as the loss takes them, (n,) codes or (n, K); learn from the first ones."""

    @abstractmethod
    def _check_more_targets(self, y: Any) -> np.ndarray:
        """Return targets of other rows, as the loss takes them."""

    @property
    @abstractmethod
    def _loss_name(self) -> str:
        """Return fcnet's name of the loss."""

    @property
    @abstractmethod
    def _outputs(self) -> int:
        """Return K."""

    @property
    @abstractmethod
    def _out_activation(self) -> str:
        """Return scikit-learn's name of what is done with the scores."""

    @abstractmethod
    def _stratify(self, targets: np.ndarray) -> np.ndarray | None:
        """Return by what the validation rows are drawn."""

    # Fitting

    def _fit(
        self, X: Any, y: Any, sample_weight: Any, X_val: Any = None, y_val: Any = None, *, incremental: bool = False
    ) -> Any:
        mapping.hidden_widths(self.hidden_layer_sizes, 0)
        if self.schedule not in (None, "auto") and self.learning_rate != "constant":
            raise ValueError(
                f"schedule and learning_rate: expected one of them, got schedule={self.schedule!r} and "
                f"learning_rate={self.learning_rate!r}; leave one out"
            )
        if incremental and self.early_stopping is True:
            raise ValueError(
                "early_stopping: partial_fit does not support early_stopping=True: it sees no row twice; "
                "use early_stopping=False, or fit"
            )
        first = not hasattr(self, "coefs_") or not (self.warm_start or incremental)
        inputs = check_inputs(self, X, reset=first or not hasattr(self, "n_features_in_"))
        self._random = check_random_state(self.random_state)
        if y is None:
            raise ValueError(
                f"y: {type(self).__name__} requires y to be passed, but the target y is None; give one for each row"
            )
        targets = self._check_targets(y, first=first, incremental=incremental)
        if len(targets) != len(inputs):
            raise ValueError(
                f"X and y: expected as many rows in both, got inconsistent numbers of samples, {len(inputs)} and "
                f"{len(targets)}"
            )
        if sample_weight is not None:
            inputs = replace(inputs, counts=check_weights(sample_weight, len(inputs)))
        weights = self._row_weights(inputs.counts, y)
        if weights is not None and not weights.all():
            rows = np.flatnonzero(weights)
            inputs, targets, weights = inputs.some(rows), rows_of(targets, rows), weights[rows]
        val = self._validation_rows(X_val, y_val)
        by_score = not incremental and self._stops_early(len(inputs), val is not None)
        if by_score and val is None:
            inputs, targets, weights, val = self._split(inputs, targets, weights)
        fit_arguments = X, y, {"sample_weight": sample_weight}
        how = {"first": first, "incremental": incremental, "by_score": by_score}
        with watched_by(_say):
            self._train(inputs, targets, weights, val, fit_arguments=fit_arguments, **how)
        return self

    def _row_weights(self, counts: np.ndarray | None, y: Any) -> np.ndarray | None:
        """Return what each row's loss is multiplied by."""
        return counts

    def _stops_early(self, count: int, has_rows: bool) -> bool:
        """Return whether the validation score says when to stop."""
        if self.solver in FULL_BATCH:
            return False
        if self.early_stopping == "auto":
            return has_rows or count >= STOPS_EARLY_FROM
        return bool(self.early_stopping)

    def _validation_rows(self, X_val: Any, y_val: Any) -> tuple[Inputs, np.ndarray, None] | None:
        if X_val is None and y_val is None:
            return None
        if X_val is None or y_val is None:
            given, lacking = ("y_val", "X_val") if X_val is None else ("X_val", "y_val")
            raise ValueError(f"{lacking}: expected with {given}, got None; give both or neither")
        inputs, targets = check_inputs(self, X_val, reset=False), self._check_more_targets(y_val)
        if len(inputs) != len(targets):
            raise ValueError(f"X_val and y_val: expected as many rows in both, got {len(inputs)} and {len(targets)}")
        return inputs, targets, None

    def _split(self, inputs: Inputs, targets: np.ndarray, weights: np.ndarray | None) -> Any:
        """Hold some rows out: training inputs, targets and weights, and those three of the validation.

        Rows that are alone in their class are learned from; where the validation has no room for a row of each class,
        its rows are drawn from all alike.
        """
        rows, strata = np.arange(len(inputs)), self._stratify(targets)
        alone = rows[:0]
        if strata is not None:
            _, codes, counts = np.unique(strata, return_inverse=True, return_counts=True)
            is_alone = counts[codes.reshape(-1)] == 1
            rows, alone = rows[~is_alone], rows[is_alone]
        held = math.ceil(self.validation_fraction * len(rows))
        if strata is not None:
            strata = strata[rows] if min(held, len(rows) - held) >= np.sum(counts > 1) else None
        if 1 < len(rows) <= held:
            raise ValueError(
                f"validation_fraction: expected it to leave rows to learn from, got {self.validation_fraction}, which "
                f"holds out all {held}; lower it, or use early_stopping=False"
            )
        train, val = rows, rows[:0]
        if len(rows) > 1 and held:
            train, val = train_test_split(
                rows, random_state=self._random, test_size=self.validation_fraction, stratify=strata
            )
        train = np.concatenate([train, alone])
        if len(val) < 2:
            raise ValueError(
                f"validation_fraction: The validation set is too small: expected 2 rows or more, got {len(val)} of "
                f"{len(inputs)}; raise validation_fraction, or use early_stopping=False"
            )
        part = (None, None) if weights is None else (weights[train], weights[val])
        held_out = inputs.some(val), rows_of(targets, val), part[1]
        return inputs.some(train), rows_of(targets, train), part[0], held_out

    def _train(
        self,
        inputs: Inputs,
        targets: np.ndarray,
        weights: np.ndarray | None,
        val: Any,
        *,
        first: bool,
        incremental: bool,
        by_score: bool,
        fit_arguments: tuple[Any, Any, dict[str, Any]],
    ) -> None:
        count = len(inputs)
        batch = self._batch_size(count)
        scale = loss_scale(self._loss_name, self._outputs)
        model = self._network(inputs, targets, first=first)
        mean = 1.0 if weights is None else float(weights.mean())
        model.reg = self._reg(batch * mean, count * mean, scale, incremental=incremental)
        relative = None if weights is None else weights / mean
        split = device_split(model, inputs.X, targets, relative)
        validation = None if val is None else self._validation(model, *val)
        most = 1 if incremental else self._most_iterations(math.ceil(count / batch))
        self.n_iter_ = 0
        self._stop_by(by_score)
        followed = Followed(self, most, *fit_arguments)
        if self.solver in FULL_BATCH:
            method = FullBatch(model, self.solver, self._full_batch_config())
            unfinished = training.minimize(self, method, split, most, scale, followed)
        else:
            steps = self._steps(model, split, batch, scale, most, incremental=incremental)
            loop = training.Epochs(self, steps, scale, validation, by_score=by_score, followed=followed)
            unfinished = loop.run(most)
            self._fitted.steps, self._fitted.epoch = steps.steps, steps.epoch
        self._read_parameters()
        followed.end()
        if unfinished is not None and not incremental:
            training.warn_of_the_end(self, unfinished)

    def _reg(self, batch: float, all_rows: float, scale: float, *, incremental: bool) -> float:
        """Return fcnet's strength of the L2 penalty, from the weight of a batch and of all rows."""
        if self.alpha != "auto":
            return self.alpha / (scale * batch)
        return defaults.reg(all_rows, scale) if self._is_own(incremental) else ALPHA / (scale * batch)

    def _is_own(self, incremental: bool) -> bool:
        """Return whether fcnet decides how long the training is, and how the learning rate changes."""
        own = self.max_iter == "auto" and self.schedule == "auto" and self.learning_rate == "constant"
        return own and not incremental

    @property
    def _tolerance(self) -> float:
        """Return by how much loss or score must get better; of the full-batch rules, the gradient at which they end."""
        if self.tol != "auto":
            return self.tol
        is_own = self._is_own(incremental=False) and self.solver not in FULL_BATCH
        return defaults.TOLERANCE if is_own else TOLERANCE

    def _batch_size(self, count: int) -> int:
        if self.solver in FULL_BATCH:
            return count
        if self.batch_size == "auto":
            return defaults.batch_size(count)
        if self.batch_size > count:
            warnings.warn(
                f"batch_size: expected at most the {counted(count, 'row')} of the training, got {self.batch_size}; "
                f"batches of {count} are made",
                stacklevel=5,
            )
        return min(int(self.batch_size), count)

    def _most_iterations(self, steps_per_epoch: int) -> int:
        if self.max_iter != "auto":
            return int(self.max_iter)
        return defaults.epochs(steps_per_epoch)

    def _full_batch_config(self) -> dict[str, float]:
        if self.solver == "bfgs":
            return {"tolerance": self._tolerance}
        return {
            "tolerance": self._tolerance,
            "loss_tolerance": LOSS_TOLERANCE,
            "evaluations": self.max_fun,
        }

    def _network(self, inputs: Inputs, targets: Array, *, first: bool) -> FullyConnectedNet:
        """Return the network to train: a new one, the one so far, or one made of `coefs_` that were set."""
        if first or not hasattr(self, "_fitted"):
            model = self._new_network(inputs, None if first else [len(b) for b in self.intercepts_[:-1]])
            if first:
                self._learn_scales(model, inputs, targets)
            else:  # weights that were set, which are for unprocessed inputs and targets
                for number, (w, b) in enumerate(zip(self.coefs_, self.intercepts_, strict=True), 1):
                    model.params[f"W{number}"], model.params[f"b{number}"] = np.asarray(w), np.asarray(b)
            self._fitted = Fitted(model)
            self._begin_attributes(len(model.hidden_dims) + 2)
        model = self._fitted.model
        hidden = list(model.hidden_dims)
        if not isinstance(self.hidden_layer_sizes, str):
            hidden = mapping.hidden_widths(self.hidden_layer_sizes, inputs.X.shape[0])
        wanted = inputs.X.shape[1], *hidden, self._outputs
        found = model.input_dim, *model.hidden_dims, model.num_classes
        if wanted != found:
            raise ValueError(
                f"hidden_layer_sizes: expected the widths of the network so far, {'-'.join(map(str, found))}, got "
                f"{'-'.join(map(str, wanted))}; use warm_start=False, and fit"
            )
        return model

    def _new_network(self, inputs: Inputs, before: list[int] | None) -> FullyConnectedNet:
        """Return a network; `before`: the widths of the weights it is to have, if they are known."""
        smoothing = getattr(self, "label_smoothing", 0.0) if self._loss_name == "softmax" else 0.0
        hidden = mapping.hidden_widths(self.hidden_layer_sizes, inputs.X.shape[0])
        if before is not None and isinstance(self.hidden_layer_sizes, str):
            hidden = before
        return FullyConnectedNet(
            hidden,
            inputs.X.shape[1],
            self._outputs,
            activation=mapping.activations(self.activation),
            loss=self._loss_name,
            label_smoothing=smoothing,
            normalization=self.normalization,
            dropout_keep_ratio=self.dropout_keep_ratio,
            dtype=inputs.dtype.name if self.dtype is None else self.dtype,
            precision=self.precision,
            seed=self._random.randint(np.iinfo(np.int32).max),
            device=self._device(inputs.backend),
        )

    def _device(self, backend: Backend | None) -> str | Backend:
        """Return where the network lives: with inputs that lie on a device, unless another one is asked for."""
        return get_backend(self.device) if backend is None or self.device != "auto" else backend

    def _learn_scales(self, model: FullyConnectedNet, inputs: Inputs, targets: Array) -> None:
        """Set the network's scaling of inputs and targets from the training rows, each by its weight."""
        if inputs.counts is not None:
            rows = _repeats(inputs.counts)
            inputs, targets = inputs.some(rows), rows_of(targets, rows)
        if self.preprocess != "none" and len(inputs) > 1:  # a lone row has no spread to learn
            learned = _learn(self.preprocess, inputs.X)
            model.set_preprocessing(learned.shift, learned.scale, learned.limit)
        if model.objective.of_values:
            learned = _learn("standardize", targets)
            if self._loss_name == "mse":
                model.set_target_scaling(learned.shift, learned.scale)
            else:
                model.begin_at_means(learned.shift)

    def _begin_attributes(self, layers: int) -> None:
        """Set what a training fills, as scikit-learn's estimators have it."""
        self.t_ = 0
        self.n_layers_, self.n_outputs_ = layers, self._outputs
        self.out_activation_ = self._out_activation
        self.loss_ = math.inf
        self.loss_curve_: list[float] = []
        self.best_loss_: float | None = math.inf
        self.validation_scores_: list[float] | None = None
        self.best_validation_score_: float | None = None
        self.val_loss_curve_: list[float] | None = None
        self._no_improvement_count = 0

    def _stop_by(self, score: bool) -> None:
        """Set the attributes of a training that stops by the validation score, or by the training loss."""
        if score and self.validation_scores_ is None:
            self.best_loss_, self.validation_scores_, self.best_validation_score_ = None, [], -math.inf
        elif not score and self.best_loss_ is None:
            self.best_loss_, self.validation_scores_, self.best_validation_score_ = math.inf, None, None

    @property
    def _optimizer(self) -> Any:
        """Return what scikit-learn's estimators call the optimizer, whose `learning_rate` is the latest one."""
        updates = self._fitted.updates
        return None if updates is None else updates.optimizer

    def _validation(
        self, model: FullyConnectedNet, inputs: Inputs, targets: np.ndarray, weights: np.ndarray | None
    ) -> Validation:
        if self.val_loss_curve_ is None:
            self.val_loss_curve_ = []
        return Validation(model, device_split(model, inputs.X, targets, weights), weights)

    def _steps(
        self,
        model: FullyConnectedNet,
        split: DeviceSplit,
        batch: int,
        scale: float,
        most: int,
        *,
        incremental: bool,
    ) -> Steps:
        fitted = self._fitted
        rule = mapping.rule_of(self.solver, self.momentum, self.nesterovs_momentum)
        if not incremental or fitted.updates is None or fitted.updates.optimizer.rule != rule:
            fitted.updates = UpdateStep(
                model,
                rule,
                mapping.rule_config(self, rule, scale),
                lr_decay=1.0,
                schedule=self._rate_schedule(incremental=incremental),
                schedule_config=self.schedule_config,
                weight_decay=self.weight_decay,
                clip_norm=None,
                clip_value=None,
                max_norm=None,
                lr_multipliers=None,
                epochs=most,
                steps_per_epoch=math.ceil(len(split) / batch),
            )
            if incremental:
                fitted.put_back(fitted.updates.optimizer)
        going_on = {"steps": fitted.steps, "epoch": fitted.epoch} if incremental else {}
        kind = StreamedBatches if split.streamed else Batches
        batches = partial(
            kind,
            model,
            split,
            batch,
            model.seed,
            epoch=going_on.get("epoch", 0),
            shuffled=self.shuffle and batch < len(split),  # the order within a batch does not matter
        )
        with model.backend.allocating():
            return Steps(model, rule, fitted.updates, batches, log_length=LOG_LENGTH, **going_on)

    def _rate_schedule(self, *, incremental: bool) -> Any:
        """Return the schedule of the rate; "auto" is fcnet's own where fcnet sets the number of epochs, too."""
        if self.schedule != "auto":
            return self.schedule
        return defaults.SCHEDULE if self._is_own(incremental) else None

    def _parameters(self) -> dict[str, list[np.ndarray]]:
        """Return weights and biases of the network so far, on the host."""
        model = self._fitted.model
        layers, to_numpy = range(1, len(model.hidden_dims) + 2), model.backend.to_numpy
        return {
            name: [np.array(to_numpy(model.params[f"{kind}{layer}"])) for layer in layers]
            for name, kind in (("coefs_", "W"), ("intercepts_", "b"))
        }

    def _read_parameters(self) -> None:
        """Fill `coefs_` and `intercepts_`; weights that are not finite are refused."""
        self.__dict__.update(self._parameters())
        if not all(np.isfinite(array).all() for array in (*self.coefs_, *self.intercepts_)):
            raise ValueError(
                "the training diverged: weights became NaN or infinite; lower learning_rate_init, or scale the inputs"
            )

    # Predictions

    def _scores(self, X: Any) -> tuple[Array, Inputs]:
        """Return scores (n, K) where X lives, and X checked."""
        inputs = check_inputs(self, X, reset=False)
        model = self._fitted.model
        if isinstance(inputs.X, SparseRows):
            return np.concatenate([model.scores(part) for _, part in inputs.X.parts()]), inputs
        return model.scores(inputs.X), inputs

    def _device_score(self, X: Any, y: Any, sample_weight: Any) -> float:
        """Return the score of rows that lie on a device, worked out there."""
        inputs, targets = check_inputs(self, X, reset=False), self._check_more_targets(y)
        weights = None if sample_weight is None else check_weights(sample_weight, len(inputs))
        model = self._fitted.model
        return Validation(model, device_split(model, inputs.X, targets, weights), weights).measure()[1]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _say(line: str) -> None:
    """Print what takes long: kernels that are compiled, once for a machine."""
    write(f"fcnet: {line}")


def _learn(kind: str, X: Any) -> Preprocessing:
    """Return what this kind of preprocessing learns of rows of the host, of a device, or sparse ones."""
    if isinstance(X, SparseRows):
        by_quartiles = kind == "robust" or (kind == "auto" and X.dtype != np.uint8)
        shift, scale = np.empty(X.shape[1]), np.empty(X.shape[1])
        for places, part in X.columns_by_quartiles() if by_quartiles else X.columns():
            learned = learn(kind, part, name="X")
            shift[places], scale[places] = learned.shift, learned.scale
        return Preprocessing(learned.kind, shift, scale, learned.limit)
    return learn(kind, X, name="X") if device_of(X) is None else learn_on_device(kind, X)


def _repeats(weights: np.ndarray) -> np.ndarray:
    """Return row numbers, each as often as its weight says; once, where those are no small whole numbers."""
    counts = (weights == np.floor(weights)).all() and weights.sum() <= MOST_REPEATS * len(weights)
    return np.repeat(np.arange(len(weights)), weights.astype(int) if counts else 1)
