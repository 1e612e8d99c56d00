"""Training: shuffled epochs, evaluation, the best parameters kept, progress.

The steps are those of `fcnet.training.steps`. What looks at results (losses, accuracies, progress) is in `train` and
reads in bulk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fcnet import defaults
from fcnet.backends import Array, Purpose, check_seed, host_generator
from fcnet.backends.notices import watched_by
from fcnet.backends.signals import Deferred, DeferredInterrupt
from fcnet.backends.step import direct
from fcnet.data import Dataset, learn
from fcnet.errors import DivergedError, counted
from fcnet.functional import Metric
from fcnet.nn.model import FullyConnectedNet
from fcnet.nn.objective import kind_of_targets, loss_scale
from fcnet.nn.penalties import is_said
from fcnet.optim import RULES
from fcnet.progress import Progress
from fcnet.runs.container import pack
from fcnet.runs.options import IN_PYTHON
from fcnet.runs.record import Record
from fcnet.runs.rundir import RunDirectory, as_run_directory
from fcnet.training.batches import Batches, StreamedBatches, per_epoch
from fcnet.training.checkpointing import Checkpointing, parse_every
from fcnet.training.configuration import configuration, python_only
from fcnet.training.device_data import DeviceData, DeviceSplit, as_dataset
from fcnet.training.fullbatch import FULL_BATCH, FullBatch
from fcnet.training.losslog import to_scale
from fcnet.training.metrics import Figure, loss_of, measure, metric_named, outcome
from fcnet.training.notfinite import NotFinite
from fcnet.training.resuming import resumed
from fcnet.training.state import Minimization, State, capture, put_back
from fcnet.training.steps import Steps
from fcnet.training.threshold import choose_threshold, figure_for_threshold, with_threshold
from fcnet.training.updates import UpdateStep
from fcnet.training.weights import sample_weights
from fcnet.validation import check_input, check_weights, one_of, positive_int

MOST_ROLLBACKS = 10
_NO_ARGUMENTS = ("self", "__class__", "model", "data", "out", "force", "verbose")  # not stored for `resume`
LOSS_CHUNK = 1024  # losses kept on the device before they are copied at once


class Solver(Steps):
    """Train a network on a data set with mini-batches.

    It never writes to the arrays of the data set, but may share their memory: if they are changed, the result of the
    training is undefined.

    The best epoch is the one with the best finite validation figure; of equal figures, a clearly lower validation loss
    decides. While no figure is finite, it is the epoch with the lowest training loss. If a figure is not finite, a
    warning (`fcnet.TrainingWarning`) names it and the epoch.

    Attributes:
        loss_history: the loss of each step so far (reading it fetches those still on the device).
        metric: the figure by which the best epoch is chosen: the argument `metric`, else accuracy, for the loss "mse"
            the root mean squared error (rmse), for "bce" the share of right labels (label_acc).
        train_metric_history, val_metric_history: that figure after each evaluated epoch.
        best_val_metric: the validation figure of the best epoch, None before there is one. best_epoch: its number.
        train_acc_history, val_acc_history, best_val_acc: the same, if the metric is the accuracy (a fraction).
        epochs_per_evaluation: the network is evaluated every so many epochs: 1, or in long trainings of short epochs
            about every 25 steps (`fcnet.defaults`).
        history: a row per evaluated epoch: epoch, step, loss (mean over the steps that `train` made since the row
            before), train_acc and val_acc (or train_rmse, ...), learning_rate, seconds (of the steps, without
            evaluation). The rate is that of the epoch's last step, without the factors of `lr_multipliers`; earlier
            steps had others if there is a schedule, or if a rate was set within the epoch.
        epoch: epochs finished. steps: steps made. speed: samples per second, see `fcnet.training.speed.Speed`.
        converged: whether "lbfgs" or "bfgs" ended with success, according to SciPy. message: SciPy's message at the
            end, or None if the method has not ended by itself. run: the `RunDirectory` of `out`, or None.
        after_epoch: if set, `train` calls it after each evaluated epoch; what it raises ends the training.
    """

    def __init__(
        self,
        model: FullyConnectedNet,
        data: Dataset | Mapping[str, Any],
        *,
        update_rule: str = defaults.UPDATE_RULE,
        optim_config: Mapping[str, float] | None = None,
        lr_decay: float = 1.0,
        schedule: str | Callable[[int], float] | None = None,
        schedule_config: Mapping[str, Any] | None = None,
        lr_multipliers: Mapping[int, float] | None = None,
        weight_decay: float | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        max_norm: float | None = None,
        batch_size: int | None = None,
        num_epochs: int | None = None,
        seed: int = 0,
        verbose: bool = True,
        patience: int | None = None,
        metric: str | None = None,
        class_weight: str | Mapping[Any, float] | None = None,
        threshold: float | str | None = None,
        num_train_samples: int | None = 1000,
        preprocess: str | None = None,
        out: str | Path | RunDirectory | None = None,
        force: bool = False,
        checkpoint_every: int | str | None = "60s",
        keep: int = 2,
        on_nonfinite: str = "stop",
    ) -> None:
        """Prepare training and copy the data to the model's device. `fcnet.defaults` holds the defaults.

        Args:
            model: trained in place.
            data: a `Dataset`, or a dictionary of its arrays (X_train, y_train, X_val, y_val and optional X_test,
                y_test, sample_weight).
            update_rule: a name in `fcnet.optim.RULES`, such as "sgd" or "adam"; or "lbfgs" or "bfgs", SciPy's methods,
                whose epochs are iterations on all samples at once, and which end before `num_epochs` when the loss no
                longer falls (see `converged` and `message`).
            optim_config: the rule's hyperparameters, such as {"learning_rate": 1e-3}.
            lr_decay: factor by which the learning rate is multiplied after each epoch.
            schedule: instead of lr_decay, a name in `fcnet.optim.schedules.SCHEDULES`, or a function of the step (0 for
                the first) that returns a factor of the initial learning rate. It is called for later steps in advance,
                so it must depend on the step alone, and it overrides a rate that is set by hand. None: the rate is
                constant; or, if neither `lr_decay` nor `num_epochs` is given, "flat_cosine", which is constant in the
                first half and then falls to nearly 0, and which a rate that is set by hand ends.
            schedule_config: parameters of a named schedule, such as {"warmup": 5}; see `make_schedule` there.
            lr_multipliers: factors of the learning rate by layer, such as {1: 0.1}; 1 is the lowest layer.
            weight_decay: strength of decoupled decay of the weight matrices; None: the rule's default, mostly 0.
            clip_norm: largest norm of the gradient of all parameters together, penalties included.
            clip_value: before that, each element of the gradient is clipped to plus and minus this.
            max_norm: largest norm of each unit's incoming weights, enforced after each step.
            batch_size: N; None: 200, or all samples if there are fewer. An epoch's last batch may be shorter, so that
                every sample is seen once. With batch norm a lone last sample joins the batch before.
            num_epochs: when `train` stops; None: enough epochs for 1,000 steps, and at least 20. With neither this nor
                `schedule` nor `lr_decay`, a `reg` that the network was not given becomes that of `fcnet.defaults`,
                unless weights decay.
            seed: of the shuffles.
            verbose: show a progress bar on a terminal; elsewhere, as in a notebook or a log, print a line per epoch on
                standard error: of many epochs about a hundred, and one a minute if they are long.
            patience: stop when the best epoch is this many epochs ago; None: never, or with num_epochs=None when three
                tenths of all epochs have passed since.
            metric: another figure by which the best epoch is chosen. For classes and labels: "accuracy",
                "balanced_accuracy", "f1" (of the second of two classes; of more classes the mean), "f1_macro",
                "roc_auc" (of more than two classes the mean of each against the rest) or "log_loss". For numbers:
                "rmse", "mae" or "r2". For several labels or numbers, the mean over them. Computed by scikit-learn where
                it is installed.
            class_weight: "balanced", so that all classes count the same in the loss, however rare; or weights by name
                or code, such as {0: 1, 1: 5} (others: 1), by which the samples' own weights are multiplied.
            threshold: the probability above which the second of two classes is predicted, or with the loss "bce" a
                single label (`model.threshold`). "auto" chooses it at the end of the training, on the validation part,
                by `metric` if that depends on decisions, else by balanced accuracy.
            num_train_samples: training samples on which train_metric_history is measured; None: all.
            preprocess: "none", "scale", "center", "standardize", "robust" or "auto" (see `fcnet.data.learn`), learned
                from X_train alone and kept in the model; None: the data set's own rule. A model that already has a
                preprocessing keeps it. Bytes are preprocessed batch by batch, other data at once.
            out: run directory to make: model, history and curves are written there when training ends.
            force: let `out` replace an earlier run.
            checkpoint_every: how often the state, with which `resume` continues, is written to the run directory: after
                so many steps, such as 500, or a time, "60s", "5m" or "1h"; None: never. The interval is lengthened if
                checkpoints would take more than 2 % of the time.
            keep: how many of the last checkpoints are kept; a finished training keeps only the last one.
            on_nonfinite: what happens if the loss is NaN or infinite: "stop", or "rollback": return to the last
                checkpoint, or to the beginning of `train`, with half the learning rate, up to ten times.

        Raises:
            ValueError, TypeError: data that do not fit the model, an unknown rule or a value out of range.
            FileExistsError: `out` holds a run and force is False. MemoryError: the device is full.
        """
        self._arguments = {name: value for name, value in locals().items() if name not in _NO_ARGUMENTS}
        if not isinstance(model, FullyConnectedNet):
            raise TypeError(f"model: expected a FullyConnectedNet, got {type(model).__name__}")
        self._set_checkpoints(checkpoint_every, keep, on_nonfinite)
        model.backend.use()
        self.model = model
        self.data = as_dataset(data, kind_of_targets(model.loss_name))
        self.seed = check_seed(seed)
        count = len(self.data.X_train)
        self.batch_size = defaults.batch_size(count) if batch_size is None else positive_int("batch_size", batch_size)
        metric_named(metric, model.objective)
        self.metric_name = metric
        self.verbose = bool(verbose)
        falling = num_epochs is None and schedule is None and schedule_config is None and lr_decay == 1
        how: dict[str, Any] = {
            "lr_decay": lr_decay,
            "schedule": schedule,
            "schedule_config": schedule_config,
            "lr_multipliers": lr_multipliers,
            "weight_decay": weight_decay,
            "clip_norm": clip_norm,
            "clip_value": clip_value,
            "max_norm": max_norm,
        }
        one_of("update_rule", update_rule, (*RULES, *FULL_BATCH))
        self.full_batch: FullBatch | None = None
        updates: UpdateStep | None = None
        steps_per_epoch = 1 if update_rule in FULL_BATCH else per_epoch(model, count, self.batch_size)
        self._set_length(num_epochs, patience, steps_per_epoch)
        if update_rule in FULL_BATCH:
            self.full_batch = FullBatch(model, update_rule, optim_config)
            self.full_batch.refuse({"batch_size": batch_size, **how})
        else:
            with model.backend.allocating():
                how |= {"epochs": self.num_epochs, "steps_per_epoch": steps_per_epoch}
                if falling:
                    how |= {"schedule": defaults.SCHEDULE, "gives_way": True}
                updates = UpdateStep(model, update_rule, optim_config, **how)
        weights = self._check_data(class_weight)
        self.threshold = with_threshold(model, threshold)
        if num_train_samples is not None:
            num_train_samples = positive_int("num_train_samples", num_train_samples)
        self.run: RunDirectory | None = None
        if out is not None:
            self.run = as_run_directory(out, force=force)

        self.preprocess = self.data.preprocess if preprocess is None else preprocess
        self._tell_model_of_data(penalty=falling and not (updates and updates.optimizer.weight_decay))
        with model.backend.allocating(), np.errstate(over="ignore"):  # a target that float32 cannot hold is one more
            self._parts = DeviceData(model, self.data, weights)
            train = self._parts.train
            shown = min(count, num_train_samples or count)
            self._shown = host_generator(self.seed, Purpose.DATA).permutation(count)[:shown]
            self._train_sample = train.some(self._shown, model)
            kind = StreamedBatches if train.streamed else Batches
            batches = partial(kind, model, train, self.batch_size, self.seed)
            super().__init__(model, update_rule, updates, batches, log_length=LOSS_CHUNK)

        self._init_checkpoints()
        self._python_only: list[str] = []  # what no option says; known when the training begins
        self.converged = False
        self.message: str | None = None
        self.after_epoch: Callable[[], None] | None = None
        self.history: list[dict[str, float]] = []
        self.train_metric_history: list[float] = []
        self.val_metric_history: list[float] = []
        self.best_val_metric: float | None = None
        self.best_epoch = 0
        self._best_loss = self._best_val_loss = math.inf
        self._best = self._snapshot()  # what a training that fails in its first epoch goes back to

    def _set_length(self, num_epochs: int | None, patience: int | None, steps_per_epoch: int) -> None:
        """Set how long the training may take, and every how many epochs the network is evaluated."""
        self.num_epochs = (
            defaults.epochs(steps_per_epoch) if num_epochs is None else positive_int("num_epochs", num_epochs)
        )
        self.patience = None if patience is None else positive_int("patience", patience)
        if num_epochs is None and patience is None:
            self.patience = defaults.patience(self.num_epochs)
        self.epochs_per_evaluation = defaults.epochs_per_evaluation(self.num_epochs, steps_per_epoch)

    def _set_checkpoints(self, checkpoint_every: int | str | None, keep: int, on_nonfinite: str) -> None:
        self.checkpoint_every = None if checkpoint_every is None else parse_every(checkpoint_every)
        self.keep = positive_int("keep", keep)
        one_of("on_nonfinite", on_nonfinite, ("stop", "rollback"))
        self.on_nonfinite = on_nonfinite

    def _init_checkpoints(self) -> None:
        """Set what checkpoints and rolling back keep to its state before `train`."""
        self._goes_on = False  # whether it was resumed, and `train` has not been called since
        self._sizes: list[int] = []  # of the batches of the epoch that is being made
        self._is_torn = False  # whether a step or an epoch's row is half made
        self._minimization: Minimization | None = None
        self._checkpoints: Checkpointing | None = None  # while `train` runs
        self._rolled_back = self._rolled_to = 0  # times in a row, and how far the training was
        self._good: State | None = None  # what a training that diverges is rolled back to

    def _check_data(self, class_weight: Any) -> np.ndarray | None:
        """Check that every part suits the model; return the weights (N,) of the training samples, or None.

        Raises:
            ValueError, TypeError: a part does not suit it.
        """
        model = self.model
        for part, (X, y) in self.data.splits().items():
            check_input(f"X_{part}", X, model.input_dim, model.dtype)
            # Targets that will be scaled need not fit into the network's own dtype.
            model.objective.check_targets(
                f"y_{part}", y, len(X), "float64" if model.loss_name == "mse" else model.dtype
            )
        self.class_weight = class_weight
        weights = sample_weights(self.data, model.objective, class_weight)
        if weights is not None:
            name = "sample_weight" if class_weight is None else "class_weight"
            check_weights(name, weights, len(weights), model.dtype)
        return weights

    def _tell_model_of_data(self, *, penalty: bool) -> None:
        """Set on the model what it lacks: preprocessing, scaling of targets, names of classes and inputs, a penalty."""
        model, data = self.model, self.data
        if penalty and not is_said(model, "reg"):
            model.reg = defaults.reg(len(data.X_train), loss_scale(model.loss_name, model.num_classes))
        if data.classes is not None and not model.objective.numeric and len(data.classes) != model.num_classes:
            raise ValueError(
                f"num_classes: expected {len(data.classes)}, the classes of the data, got {model.num_classes}; "
                "make the network with num_classes=data.num_classes"
            )
        if model.objective.of_values and model.target_scaling is None:
            targets = learn("standardize", data.y_train.reshape(len(data.y_train), -1), name="y_train")
            if model.loss_name == "mse":
                model.set_target_scaling(targets.shift, targets.scale)
            else:
                model.begin_at_means(targets.shift)
        if model.preprocessing is None:
            learned = learn(self.preprocess, data.X_train)
            if learned.kind != "none":
                model.set_preprocessing(learned.shift, learned.scale, learned.limit)
        if model.classes is None:
            model.classes = data.classes
        if model.features is None:
            model.features = data.features
        if model.plan is None:
            model.plan = data.plan

    @property
    def _method(self) -> UpdateStep | FullBatch:
        return self.full_batch or self.updates

    @property
    def first_learning_rate(self) -> float:
        """Return the learning rate at the start, which the factors of a schedule multiply."""
        return self.updates.first_learning_rate

    # What is measured

    @property
    def metric(self) -> Metric | Figure:
        """Return the figure by which the best epoch is chosen."""
        return metric_named(self.metric_name, self.model.objective)

    def check_accuracy(self, X: Array, y: Array, num_samples: int | None = None, batch_size: int = 4096) -> float:
        """Return the share of samples whose class the network predicts, 0 to 1; of the first `num_samples` if given."""
        self._only_accuracy("check_accuracy", "check_metric")
        return self.check_metric(X, y, num_samples, batch_size)

    def check_metric(self, X: Array, y: Array, num_samples: int | None = None, batch_size: int = 4096) -> float:
        """Return the `metric` of samples, of the first `num_samples` if given; not finite if a prediction is not."""
        check_input("X", X, self.model.input_dim, self.model.dtype)
        self.model.objective.check_targets("y", y, len(X), self.model.dtype)
        if num_samples is not None:
            X, y = X[: positive_int("num_samples", num_samples)], y[:num_samples]
        batch_size = positive_int("batch_size", batch_size)
        if isinstance(self.metric, Figure):
            return self.metric.measure(outcome(self.model, X, y, batch_size))
        self.model.backend.use()
        targets = self.model.objective.to_device(self.model.backend, y, self.model.dtype)
        return measure(self.model, X, targets, batch_size)

    def _only_accuracy(self, name: str, instead: str) -> None:
        if self.metric.key != "acc":
            of = f"loss {self.model.loss_name!r}" if self.metric_name is None else f"metric {self.metric_name!r}"
            raise AttributeError(f"{name}: a network with {of} has none; use {instead}")

    @property
    def train_acc_history(self) -> list[float]:
        """Return `train_metric_history` of a classifier."""
        self._only_accuracy("train_acc_history", "train_metric_history")
        return self.train_metric_history

    @property
    def val_acc_history(self) -> list[float]:
        """Return `val_metric_history` of a classifier."""
        self._only_accuracy("val_acc_history", "val_metric_history")
        return self.val_metric_history

    @property
    def best_val_acc(self) -> float | None:
        """Return `best_val_metric` of a classifier."""
        self._only_accuracy("best_val_acc", "best_val_metric")
        return self.best_val_metric

    def __getstate__(self) -> dict[str, Any]:
        """Return what is copied and pickled: no recorded steps, as in `Steps`, and no `after_epoch`."""
        return super().__getstate__() | {"after_epoch": None, "_checkpoints": None}

    # Training

    @classmethod
    def resume(
        cls,
        path: str | Path,
        data: Dataset | Mapping[str, Any] | None = None,
        schedule: Callable[[int], float] | None = None,
        after_epoch: Callable[[], None] | None = None,
        *,
        extend: int = 0,
        device: str | None = None,
        verbose: bool = True,
    ) -> Solver:
        """Return a Solver that continues a run from its last checkpoint; call `train()` on it.

        With the same device, number of threads and versions the result has the bits of a training that was never
        interrupted; otherwise a warning says so, and the result is equal up to rounding.

        Args:
            path: a run directory, or one of the files in its checkpoints.
            data: if the training was given arrays, the same arrays, which is checked; else the data are read again.
            schedule: if it was given a function of the step, the same function, which cannot be checked.
            after_epoch: as the attribute, which no file keeps.
            extend: by how many epochs the training is lengthened.
            device: where it continues; None: on the device of the run.
            verbose: as in the constructor.

        Raises:
            FileNotFoundError: no run there. FileExistsError: another process is using it.
            ValueError: no complete checkpoint; other data or another configuration than the training began with.
        """
        extend = extend if extend == 0 else positive_int("extend", extend)
        solver = resumed(cls, path, data, schedule, extend=extend, device=device, verbose=verbose)
        solver.after_epoch = after_epoch
        return solver

    def train(self) -> list[dict[str, float]]:
        """Train until `num_epochs` epochs are done or `patience` runs out, then restore the best parameters.

        Returns:
            `history`, a row per epoch.

        Raises:
            DivergedError: the loss became NaN or infinite.
            KeyboardInterrupt and all else: passed on, after the best parameters are restored and the run is written.
        """
        if self.threshold == "auto":  # a training that continues is evaluated as before
            self.model.threshold = None
        steps_per_epoch = 1 if self.full_batch else per_epoch(self.model, len(self._batches), self.batch_size)
        title = f"{self.data.name}{', streamed,' if self._parts.train.streamed else ''} on {self.model.device}"
        if self.run is not None:
            if self.run.config is None and not self._goes_on and not (self.run.begun and self._is_over()):
                self._python_only = python_only(self.model, self.data, self._method, seed=self.seed, steps=self.steps)
            self._goes_on = False
            self.run.begin(self.options())
        try:
            total = self.num_epochs * steps_per_epoch
            with (
                np.errstate(over="ignore", invalid="ignore", divide="ignore"),  # said by what is not finite in the end
                Progress(title, total, self.steps, shown=self.verbose, epochs=self.num_epochs) as progress,
                watched_by(progress.say) if self.verbose else nullcontext(),
            ):
                not_finite = NotFinite(self.metric, progress.clear)
                self._begin_checkpoints(progress.say)
                if self.full_batch is not None:
                    self._minimize(self.full_batch, progress, not_finite)
                while self.full_batch is None and not self._is_over():
                    try:
                        self._train_epochs(progress)
                    except DivergedError as error:
                        if not self._roll_back(error, progress.say):
                            raise
                        continue
                    not_finite.look(self.history[-1])
                not_finite.close()
                self._tell_of_a_late_best(progress)
        except BaseException as error:
            with Deferred():
                self._end_checkpoints(diverged=isinstance(error, DivergedError))
                self._finish(keep=bool(self.history), error=error)
            raise
        with Deferred():  # a signal that comes now is handled once all is written
            if self._checkpoints is not None:
                self._checkpoints.keep = 1
            self._end_checkpoints(diverged=False)
            self._finish(keep=True)
        return self.history

    def __repr__(self) -> str:
        best = ""
        if self.best_val_metric is not None:
            best = f", best validation {self.metric.title} {self.best_val_metric:.4g} at epoch {self.best_epoch}"
        return f"<Solver {self.update_rule}, epoch {self.epoch} of {self.num_epochs}{best}>"

    def checkpoint(self) -> None:
        """Write a checkpoint of the steps made so far to the run directory, and wait until it is on the disk.

        Raises:
            ValueError: there is no run directory yet: give `out`, and call it from `after_epoch` or after `train`.
        """
        if self.run is None or not self.run.begun:
            raise ValueError(
                "checkpoint: expected a run directory in which the training has begun, got none; give out="
            )
        keeper = self._checkpoints or self._new_checkpoints(lambda _: None)
        keeper.write()

    def _new_checkpoints(self, tell: Callable[[str], None]) -> Checkpointing:
        to = None if self.run is None or self.checkpoint_every is None else self.run.checkpoints
        return Checkpointing(self, to, self.checkpoint_every or parse_every("1h"), self.keep, tell)

    def _begin_checkpoints(self, tell: Callable[[str], None]) -> None:
        self._is_torn = False
        self._checkpoints = self._new_checkpoints(tell)
        if self.on_nonfinite == "rollback" and self.full_batch is None:
            self._good = capture(self)

    def _between_steps(self) -> None:
        """Write a checkpoint if one is due."""
        assert self._checkpoints is not None  # `train` has begun
        state = self._checkpoints.look()
        if state is not None and self.on_nonfinite == "rollback":
            self._good = state

    def _end_checkpoints(self, *, diverged: bool) -> None:
        """Write the last checkpoint, unless the training diverged or was interrupted within a step; wait for it."""
        keeper, self._checkpoints = self._checkpoints, None
        if keeper is None:
            return
        if self._is_torn or diverged or (self.steps == 0 and self.full_batch is None):
            keeper.close()
        else:
            keeper.write()

    def _roll_back(self, error: DivergedError, tell: Callable[[str], None]) -> bool:
        """Return to the last good state with half the rate; return False if not asked for, or done too often."""
        if self._good is None or self._checkpoints is None:
            return False
        if self.steps > self._rolled_to:
            self._rolled_back = 0
        self._rolled_back += 1
        self._rolled_to = max(self._rolled_to, self.steps)
        if self._rolled_back > MOST_ROLLBACKS:
            error.add_note(f"going back {MOST_ROLLBACKS} times, each time with half the learning rate, did not help")
            return False
        diverged = self.steps
        put_back(self, self._good)
        self._is_torn = False
        self.updates.scale_rate(0.5)
        if self.run is not None:
            for step in self.run.checkpoints.steps():
                if step > self.steps:
                    self.run.checkpoints.remove(step)
        self._good = capture(self)
        if self.steps:
            self._checkpoints.write()
        tell(
            f"the loss was not finite at step {diverged}: back to step {self.steps}, with learning_rate="
            f"{self.optimizer.learning_rate:g}"
        )
        return True

    def _is_over(self) -> bool:
        """Return whether `train` has nothing left to do."""
        return self.epoch >= self.num_epochs or self._out_of_patience() or self.converged

    def _finish(self, keep: bool, error: BaseException | None = None) -> None:
        """Restore the best parameters and write the run directory; unless `keep`, release it unwritten."""
        with Deferred():  # a signal must not come between the parts of what is written
            if self.history or not keep:  # not after steps by hand without an evaluation
                self._restore_best()
            if self.threshold == "auto" and keep and self.history:
                by = figure_for_threshold(self.metric, by_name=self.metric_name is not None)
                self.model.threshold = choose_threshold(self.model, *self.data.splits()["val"], by)
            if self.run is None:
                return
            if not keep:
                self.run.abandon()
                return
            self.run.write(self.record())
            if error is not None and not isinstance(error, KeyboardInterrupt):
                error.add_note(f"the best model so far, of epoch {self.best_epoch}, is in {self.run.path}")

    def options(self) -> Mapping[str, Any]:
        """Return the options of `fcnet train` that repeat this training: the content of its run's config.toml."""
        if self.run is not None and self.run.config is not None:
            return self.run.config
        options = configuration(
            self.model,
            self.data,
            self._method,
            preprocess=self.preprocess,
            optimizer=self.update_rule,
            batch_size=None if self.full_batch else self.batch_size,
            epochs=self.num_epochs,
            patience=self.patience,
            metric=self.metric_name,
            checkpoint_every=str(self._arguments["checkpoint_every"] or "60s"),
            checkpoints=self.checkpoint_every is not None,
            keep=self.keep,
            on_nonfinite=self.on_nonfinite,
            threshold=None if self.threshold is None else str(self.threshold),
            class_weight=self.class_weight
            if not isinstance(self.class_weight, Mapping)
            else ",".join(f"{name}={weight}" for name, weight in self.class_weight.items()),
            seed=self.seed,
        )
        by_hand = ["a learning rate set by hand"] if self._updates and self._updates.rate_set_by_hand else []
        only = ", ".join([*self._python_only, *by_hand])
        return options | ({IN_PYTHON: only} if only else {})

    def record(self) -> Record:
        """Return what a run directory keeps of the training so far."""
        return Record(
            model=lambda: pack("model", *self.model.saved()),
            options=self.options(),
            history=self.history,
            losses=self.loss_history,
            metric=self.metric.title,
            train_metric=self.train_metric_history,
            val_metric=self.val_metric_history,
            best=None if self.best_val_metric is None else (self.best_epoch, self.best_val_metric),
            interrupted=self._interrupted(),
            columns=self._columns,
            message=None if self.message is None else f"{self.update_rule}: {self.message}",
        )

    def _interrupted(self) -> str | None:
        """Return "interrupted after epoch 2 of 9" if neither the epochs nor the patience have run out, else None."""
        if not self.history or self.message is not None:
            return None
        last = int(self.history[-1]["epoch"])
        patient = self.patience is None or last - self.best_epoch < self.patience
        return f"interrupted after epoch {last} of {self.num_epochs}" if last < self.num_epochs and patient else None

    def _tell_of_a_late_best(self, progress: Progress) -> None:
        """Print a line if more epochs might have given a better network, unless the training was meant to be short."""
        if (
            self.num_epochs >= defaults.EPOCHS
            and self.best_epoch == self.epoch == self.num_epochs
            and not self.converged
        ):
            progress.say(
                f"the best epoch was the last, {self.num_epochs}: more of them may do better (num_epochs, or --epochs)"
            )

    def _train_epochs(self, progress: Progress) -> None:
        """Train until the network is to be evaluated, and evaluate it."""
        every = self.epochs_per_evaluation
        until = min(self.num_epochs, self.epoch - self.epoch % every + every)
        sizes = self._sizes
        self.speed.begin()
        while self.epoch < until:
            size, apart, chunk = self._batches.size, self.speed.first_seconds, self.steps // LOSS_CHUNK
            with DeferredInterrupt():  # so that an epoch that is over has its row
                self._is_torn = True
                count = self._make_steps(min(LOSS_CHUNK, self._steps_until(until)))
                sizes += [size] * count
                if self.epoch == until:
                    self._record_epoch(sizes)
                self._is_torn = False
            self._between_steps()
            progress.advance(size * count, self._latest_loss, steps=count, first=self.speed.first_seconds > apart)
            if self.steps // LOSS_CHUNK > chunk:
                self._latest_loss()  # a loss that is not finite shows soon, also without a bar
        progress.epoch(self.epoch, self.history[-1], self.speed.latest)

    def _steps_until(self, epoch: int) -> int:
        """Return how many steps are left until `epoch` epochs are finished."""
        per = per_epoch(self.model, len(self._batches), self.batch_size)
        return per * (epoch - self.epoch) - self._batches.position // self.batch_size

    def _minimize(self, method: FullBatch, progress: Progress, not_finite: NotFinite) -> None:
        """Make all remaining iterations, each an epoch of one step."""
        if self._is_over():
            return
        train, asarray = self._parts.train, self.model.backend.asarray
        if self._minimization is None or self.epoch == self._minimization.epoch:
            self._minimization = Minimization(self.epoch, *self._snapshot())
        before, made, done = self._minimization.epoch, 0, self.epoch - self._minimization.epoch
        self._put(self._minimization.params, self._minimization.state)
        if done:
            progress.say(f"{self.update_rule} makes its first {counted(done, 'iteration')} again")
        x, y = asarray(train.X), asarray(train.y)
        weights = None if train.weights is None else asarray(train.weights)
        x = x if train.prepared else self.model.prepare(direct, x)
        self.message = None
        self.speed.begin()

        def report(loss: float) -> bool:
            nonlocal made
            made += 1
            if made <= done:  # of a training that goes on: SciPy learns of the loss what it knew
                return False
            self._is_torn = True
            self._log.append(loss)
            self.steps += 1
            self.epoch += 1
            first = self.epoch == before + 1  # in it the loss at the start was computed too, and kernels compiled
            if first:
                self.speed.first(len(y), self.speed.elapsed)
            progress.advance(len(y), self._latest_loss, first=first)
            self._record_epoch([len(y)])
            progress.epoch(self.epoch, self.history[-1], self.speed.latest)
            not_finite.look(self.history[-1])
            self._between_steps()
            self.speed.begin()
            return self._out_of_patience()

        ending = method.minimize(lambda: [(x, y, weights)], self.num_epochs - before, report)
        self.converged, self.message = ending.converged, ending.message
        if self.epoch == before:
            progress.say(
                f"{self.update_rule} made no iteration, and the network is as it was: {method.remedy(ending)} "
                f"(SciPy: {self.message})"
            )

    def _latest_loss(self) -> float:
        self._check_finite(self._log.known)
        return self._log.fetched()[-1]

    def _check_finite(self, since: int) -> None:
        """Raise DivergedError if the loss of a step after step `since` is NaN or infinite."""
        odd = self._log.first_not_finite(since)
        if odd is None:
            return
        number, loss = odd
        scale = f"scale {to_scale(self.model)}"
        if self.full_batch is not None:
            cause = f"training diverged with {self.update_rule}; {scale}"
        elif number == 1:  # before any update
            cause = f"inputs, weights or a penalty are too large; {scale}, or lower the others"
        else:  # by the update before
            rate = self.updates.rate_of(number - 2)
            cause = f"training diverged with learning_rate={rate:g}; lower the learning rate, or {scale}"
        raise DivergedError(f"the loss became {loss} at step {number}: {cause}")

    def _record_epoch(self, sizes: list[int]) -> None:
        """Evaluate the network and append a row to the history; `sizes`: rows of the batches since the row before."""
        first = self.steps - len(sizes)
        self._check_finite(first)  # which waits for the steps, so that their time is known
        seconds = self.speed.end(sum(sizes))
        figures = {
            "train": self._figure(self._train_sample, lambda: self.data.y_train[self._shown]),
            "val": self._figure(self._parts.val, lambda: self.data.y_val),
        }
        val_loss = loss_of(self.model, self._parts.val.X, self._parts.val.y, prepared=self._parts.val.prepared)
        self.train_metric_history.append(figures["train"])
        self.val_metric_history.append(figures["val"])
        loss = float(np.average(self._log.fetched()[first:], weights=sizes))
        rate = () if self.full_batch else (self.updates.rate_of(self.steps - 1),)
        values = self.epoch, self.steps, loss, *figures.values(), *rate, seconds
        self.history.append(dict(zip(self._columns, values, strict=True)))
        if self._is_best(figures["val"], val_loss, loss):
            self.best_val_metric, self.best_epoch = figures["val"], self.epoch
            self._best_val_loss, self._best_loss = val_loss, loss
            self._best = self._snapshot()
        self._sizes = []
        self._is_torn = False
        if self.after_epoch is not None:
            self.after_epoch()

    def _figure(self, part: DeviceSplit, y: Callable[[], np.ndarray]) -> float:
        """Return the metric of a part of the data; y() returns its targets on the host, for a metric computed there."""
        if isinstance(self.metric, Figure):
            return self.metric.measure(outcome(self.model, part.X, y(), prepared=part.prepared))
        return measure(self.model, part.X, part.y, prepared=part.prepared)

    @property
    def _columns(self) -> list[str]:
        """Return the columns of the history."""
        rate = [] if self.full_batch else ["learning_rate"]
        return ["epoch", "step", "loss", f"train_{self.metric.key}", f"val_{self.metric.key}", *rate, "seconds"]

    def _is_best(self, figure: float, val_loss: float, loss: float) -> bool:
        """Return whether an epoch with this validation figure, validation loss and training loss is the best so far."""
        best = self.best_val_metric
        if best is None:
            return True
        if math.isfinite(figure):
            if not math.isfinite(best) or figure == best:
                return not math.isfinite(best) or val_loss < defaults.LESS * self._best_val_loss
            return self.metric.better(figure, best)
        return not math.isfinite(best) and loss < self._best_loss

    def _out_of_patience(self) -> bool:
        return (
            self.patience is not None
            and self.best_val_metric is not None
            and (self.epoch - self.best_epoch >= self.patience)
        )

    def _snapshot(self) -> tuple[np.ndarray, np.ndarray]:
        """Return parameters and running statistics, copied to the host."""
        to_numpy = self.model.backend.to_numpy
        return to_numpy(self.model.params.flat).copy(), to_numpy(self.model.state.flat).copy()

    def _restore_best(self) -> None:
        self._put(*self._best)

    def _put(self, params: np.ndarray, state: np.ndarray) -> None:
        """Copy a snapshot into the network."""
        for buffer, values in zip((self.model.params, self.model.state), (params, state), strict=True):
            buffer.flat[...] = self.model.backend.asarray(values)
