"""Training: shuffled epochs, evaluation, the best parameters kept, progress.

`Solver.step` is the part that must be fast: it is recorded once for each batch size (`fcnet.program`) and repeated; it
allocates nothing after that and never waits for the device. Everything that looks at results (losses, accuracies, the
progress bar) is in `train` and reads in bulk.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from backends import Array, Purpose, check_seed, host_generator
from fcnet import functional as F
from fcnet.boundary import check_input, check_labels, finite_real, positive_int
from fcnet.data import Dataset, learn
from fcnet.errors import DivergedError, unknown
from fcnet.model import FullyConnectedNet
from fcnet.optim import Optimizer
from fcnet.program import Program, direct
from fcnet.progress import Progress
from fcnet.rundir import RunDirectory

LOSS_CHUNK = 1024  # losses kept on the device before they are set aside in one copy


class Solver:
    """Trains a network on a data set with mini-batches.

    Attributes:
        loss_history: the loss of each step so far (reading it fetches those still on the device).
        train_acc_history, val_acc_history: accuracy after each epoch, as fractions.
        best_val_acc: the highest of val_acc_history, or None before the first epoch has ended.
        history: a row per epoch: epoch, step, loss (mean over the epoch), train_acc, val_acc, learning_rate, seconds.
        epoch: epochs finished. steps: steps made.
        run: the `RunDirectory` of `out`, or None.
    """

    def __init__(
        self,
        model: FullyConnectedNet,
        data: Dataset | Mapping[str, Any],
        *,
        update_rule: str = "sgd",
        optim_config: Mapping[str, float] | None = None,
        lr_decay: float = 1.0,
        batch_size: int = 100,
        num_epochs: int = 10,
        seed: int = 0,
        verbose: bool = True,
        patience: int | None = None,
        num_train_samples: int | None = 1000,
        preprocess: str | None = None,
        out: str | Path | RunDirectory | None = None,
        force: bool = False,
    ) -> None:
        """Prepare training; the data go to the model's device.

        Args:
            model: trained in place.
            data: a `Dataset`, or a dictionary of its arrays (X_train, y_train, X_val, y_val and optional X_test,
                y_test).
            update_rule: "sgd", "momentum", "rmsprop" or "adam".
            optim_config: the rule's hyperparameters, such as {"learning_rate": 1e-3}.
            lr_decay: the learning rate is multiplied by it after each epoch.
            batch_size: N; an epoch's last batch may be shorter, so that every sample is seen once.
            num_epochs: at which `train` stops.
            seed: of the shuffles.
            verbose: show a progress bar (on a terminal only).
            patience: stop when the validation accuracy has not risen for this many epochs; None: never.
            num_train_samples: training samples on which train_acc_history is measured; None: all.
            preprocess: "none", "scale", "center" or "standardize", learned from X_train alone and kept in the model;
                None: the data set's own rule. A model that has a preprocessing already keeps it. Bytes are
                preprocessed batch by batch, other data now.
            out: run directory to make: model, history and curves go there when training ends.
            force: let `out` replace an earlier run.

        Raises:
            ValueError, TypeError: data that do not fit the model, an unknown rule or a value out of range.
            FileExistsError: `out` holds a run and force is False.
        """
        if not isinstance(model, FullyConnectedNet):
            raise TypeError(f"model: expected a FullyConnectedNet, got {type(model).__name__}")
        model.backend.use()
        self.model = model
        self.data = data if isinstance(data, Dataset) else _dataset(data)
        self.seed = check_seed(seed)
        self.batch_size = positive_int("batch_size", batch_size)
        self.num_epochs = positive_int("num_epochs", num_epochs)
        self.patience = None if patience is None else positive_int("patience", patience)
        self.lr_decay = finite_real("lr_decay", lr_decay)
        if not 0 < self.lr_decay <= 1:
            raise ValueError(f"lr_decay: expected 0 < lr_decay <= 1, got {lr_decay}")
        self.verbose = bool(verbose)
        self.optimizer = Optimizer(update_rule, model.params, optim_config)
        for part, (X, y) in self.data.splits().items():
            check_input(f"X_{part}", X, model.input_dim, model.dtype)
            check_labels(f"y_{part}", y, model.num_classes, len(X))
        count = len(self.data.X_train)
        if num_train_samples is not None:
            num_train_samples = positive_int("num_train_samples", num_train_samples)
        self.first_learning_rate = self.optimizer.learning_rate
        if not isinstance(out, str | Path | RunDirectory | None):
            raise TypeError(f"out: expected a path or None, got {out!r}")
        self.run = RunDirectory(out, force=force) if isinstance(out, str | Path) else out

        self.preprocess = self.data.preprocess if preprocess is None else preprocess
        if model.preprocessing is None:
            learned = learn(self.preprocess, self.data.X_train)
            if learned.kind != "none":
                model.set_preprocessing(learned.shift, learned.scale)
        if model.classes is None:
            model.classes = self.data.classes
        if model.features is None:
            model.features = self.data.features

        # The data set on the device. Bytes stay bytes and are preprocessed batch by batch; anything else is
        # preprocessed here, once.
        self._prepared = {part: X.dtype != np.uint8 for part, (X, _) in self.data.splits().items()}
        self._parts = {part: self._to_device(X, y) for part, (X, y) in self.data.splits().items() if part != "test"}
        shown = min(count, num_train_samples or count)
        picked = host_generator(self.seed, Purpose.DATA).permutation(count)[:shown]
        xp = model.backend.xp
        picked = model.backend.asarray(picked)
        self._train_sample = tuple(xp.take(array, picked, axis=0) for array in self._parts["train"])

        self._grads = model.params.like()
        self._order = xp.zeros((count,), dtype="int64")
        self._counters = xp.zeros((2,), dtype="int64")  # rows of this epoch used; losses in the chunk
        self._losses = xp.zeros((LOSS_CHUNK,), dtype=model.dtype)
        self._programs: dict[int, Callable[[], None]] = {}  # by batch size
        self._recorded_for: tuple[float, bool] | None = None

        self.steps = 0
        self.epoch = 0
        self._position = 0  # the host's copy of the counters, known without asking the device
        self._slot = 0
        self._chunks: list[Array] = []
        self._read: list[float] = []
        self.train_acc_history: list[float] = []
        self.val_acc_history: list[float] = []
        self.history: list[dict[str, float]] = []
        self.best_val_acc: float | None = None
        self.best_epoch = 0
        self._best = self._snapshot()  # what a training that fails in its first epoch goes back to
        self._shuffle()

    # One step

    def step(self) -> None:
        """Gather one mini-batch, compute, update; at an epoch's end decay the rate and shuffle again.

        Never evaluates, prints or waits for the device.
        """
        self.model.backend.use()
        size = min(self.batch_size, len(self._order) - self._position)
        recorded_for = self.model.reg, self.model.preprocessing is None
        if recorded_for != self._recorded_for:  # what a recorded step has as a constant was changed
            self._programs.clear()
            self._recorded_for = recorded_for
        program = self._programs.get(size)
        if program is None:
            self._programs[size] = self._record(size)
        else:
            program()
        self.steps += 1
        self._position += size
        self._slot += 1
        if self._slot == LOSS_CHUNK:
            self._set_losses_aside()
        if self._position == len(self._order):
            self.epoch += 1
            if self.lr_decay != 1:
                self.optimizer.learning_rate *= self.lr_decay
            self._shuffle()

    def _record(self, size: int) -> Callable[[], None]:
        """Make the next step of this batch size; the program that repeats it."""
        model, backend = self.model, self.model.backend
        xp = backend.xp
        run = Program(backend)
        X, y = self._parts["train"]
        positions = xp.empty((size,), dtype="int64")
        rows = run(F.batch_rows, self._order, self._counters[:1], xp.arange(size, dtype="int64"), positions)
        batch = run(F.gather, X, rows)
        x = batch if self._prepared["train"] else model.prepare(run, batch)
        targets = run(F.gather, y, rows)
        streams = model.mask_streams(self.optimizer.step_counter)
        loss = model.loss_and_grads(run, x, targets, streams, self._grads)
        self.optimizer.update(self._grads, run)
        run(F.record_step, self._losses, self._counters, backend.asarray(np.array([size, 1])), loss)
        return backend.compile(run.calls)

    def _shuffle(self) -> None:
        """The order of the epoch to come: a function of the seed and the epoch, drawn on the host."""
        count = len(self._order)
        order = host_generator(self.seed, Purpose.SHUFFLE, step=self.epoch).permutation(count)
        self.model.backend.upload(order, self._order)
        self._counters[:1] = 0
        self._position = 0

    def _set_losses_aside(self) -> None:
        """Empty the loss buffer into a copy on the device; nothing waits."""
        if self._slot:
            self._chunks.append(self._losses[: self._slot].copy())
            self._counters[1:] = 0
            self._slot = 0

    # What is read back

    @property
    def loss_history(self) -> list[float]:
        """The loss of each step so far. Reading it waits for the device if there are losses not yet read."""
        return list(self._fetched_losses())

    def _fetched_losses(self) -> list[float]:
        self._set_losses_aside()
        for chunk in self._chunks:
            self._read.extend(self.model.backend.to_numpy(chunk).tolist())
        self._chunks.clear()
        return self._read

    def __getstate__(self) -> dict[str, Any]:
        """Copied and pickled without the recorded steps, which hold views of this solver's own arrays."""
        return self.__dict__ | {"_programs": {}, "_recorded_for": None}

    def check_accuracy(self, X: Array, y: Array, num_samples: int | None = None, batch_size: int = 4096) -> float:
        """Share of samples whose class the network predicts, 0 to 1; on the first `num_samples` if given."""
        check_input("X", X, self.model.input_dim, self.model.dtype)
        check_labels("y", y, self.model.num_classes, len(X))
        if num_samples is not None:
            X, y = X[: positive_int("num_samples", num_samples)], y[:num_samples]
        return accuracy(self.model, X, y, positive_int("batch_size", batch_size))

    # Training

    def train(self) -> list[dict[str, float]]:
        """Train until `num_epochs` epochs are done or `patience` runs out; the best parameters are put back.

        Returns:
            `history`, a row per epoch.

        Raises:
            DivergedError: the loss became NaN or infinite; the best parameters so far are put back, nothing is written.
            KeyboardInterrupt: passed on, after what finished epochs gave has been put back and written.
        """
        steps_per_epoch = math.ceil(len(self._order) / self.batch_size)
        title = f"{self.data.name} on {self.model.device}"
        if self.run is not None:
            self.run.begin(self)
        try:
            with Progress(title, self.num_epochs * steps_per_epoch, self.steps, shown=self.verbose) as progress:
                while self.epoch < self.num_epochs and not self._out_of_patience():
                    self._train_epoch(progress)
        except KeyboardInterrupt:
            self._finish(keep=bool(self.history))
            raise
        except BaseException:
            self._finish(keep=False)
            raise
        self._finish(keep=True)
        return self.history

    def _finish(self, keep: bool) -> None:
        """Put the best parameters back and write the run directory, or take back the claim on it."""
        if self.history or not keep:  # not after steps by hand that nobody evaluated
            self._restore_best()
        if self.run is not None:
            if keep:
                self.run.write(self)
            else:
                self.run.abandon()

    def _train_epoch(self, progress: Progress) -> None:
        epoch, first, started = self.epoch, self.steps, time.perf_counter()
        while self.epoch == epoch:
            before = self._position
            self.step()
            samples = (self._position or len(self._order)) - before
            progress.advance(samples, self._latest_loss)
        self._record_epoch(first, time.perf_counter() - started)
        progress.epoch(self.epoch, self.history[-1])

    def _latest_loss(self) -> float:
        self._check_finite(len(self._read))
        return self._read[-1]

    def _check_finite(self, since: int) -> None:
        losses = self._fetched_losses()
        for number, loss in enumerate(losses[since:], since + 1):
            if not math.isfinite(loss):
                raise DivergedError(
                    f"the loss became {loss} at step {number}: training diverged with "
                    f"learning_rate={self.optimizer.learning_rate:g}; lower the learning rate, or scale the inputs"
                )

    def _record_epoch(self, first: int, seconds: float) -> None:
        self._check_finite(first)
        train_acc = accuracy(self.model, *self._train_sample, prepared=self._prepared["train"])
        val_acc = accuracy(self.model, *self._parts["val"], prepared=self._prepared["val"])
        self.train_acc_history.append(train_acc)
        self.val_acc_history.append(val_acc)
        self.history.append(
            {
                "epoch": self.epoch,
                "step": self.steps,
                "loss": float(np.mean(self._fetched_losses()[first:])),
                "train_acc": train_acc,
                "val_acc": val_acc,
                "learning_rate": self.optimizer.learning_rate,
                "seconds": seconds,
            }
        )
        if self.best_val_acc is None or val_acc > self.best_val_acc:
            self.best_val_acc, self.best_epoch = val_acc, self.epoch
            self._best = self._snapshot()

    def _out_of_patience(self) -> bool:
        return (
            self.patience is not None
            and self.best_val_acc is not None
            and (self.epoch - self.best_epoch >= self.patience)
        )

    def _snapshot(self) -> tuple[np.ndarray, np.ndarray]:
        """Parameters and running statistics, copied to the host."""
        to_numpy = self.model.backend.to_numpy
        return to_numpy(self.model.params.flat).copy(), to_numpy(self.model.state.flat).copy()

    def _restore_best(self) -> None:
        for buffer, best in zip((self.model.params, self.model.state), self._best, strict=True):
            buffer.flat[...] = self.model.backend.asarray(best)

    def _to_device(self, X: np.ndarray, y: np.ndarray) -> tuple[Array, Array]:
        """Inputs (n, D), preprocessed unless they are bytes, and labels (n,) or one-hot (n, C)."""
        model, asarray = self.model, self.model.backend.asarray
        X = X.reshape(len(X), -1)
        if X.dtype == np.uint8:
            x = asarray(X)
        elif model.preprocessing is None:
            x = asarray(X, model.dtype)
        else:
            x = model.backend.xp.empty(X.shape, dtype=model.dtype)
            for start in range(0, len(X), 4096):  # in parts, because the arithmetic is in float64
                part = slice(start, start + 4096)
                x[part] = model.prepare(direct, asarray(X[part]))
        return x, asarray(y, "int64" if y.ndim == 1 else model.dtype)


def accuracy(model: FullyConnectedNet, X: Array, y: Array, batch_size: int = 4096, *, prepared: bool = False) -> float:
    """Share of the samples X (N, ...), y (N,) or one-hot (N, C), that `model` classifies right, 0 to 1.

    `prepared` says that X has been through `model.prepare`.
    """
    backend = model.backend
    backend.use()
    scores = model.evaluate_prepared if prepared else model.evaluate
    right = 0
    for start in range(0, len(X), batch_size):
        part = slice(start, start + batch_size)
        labels = backend.asarray(y[part])
        if labels.ndim == 2:
            labels = backend.xp.argmax(labels, axis=1)
        predicted = backend.xp.argmax(scores(backend.asarray(X[part])), axis=1)
        # Added up on the device; read once, at the end.
        right = right + backend.xp.sum(backend.xp.equal(predicted, labels))
    return int(backend.to_numpy(right)) / len(X)


def _dataset(data: Mapping[str, Any]) -> Dataset:
    if not isinstance(data, Mapping):
        raise TypeError(f"data: expected a Dataset or a dictionary of arrays, got {type(data).__name__}")
    names = list(Dataset.__dataclass_fields__)
    for name in data:
        if name not in names:
            raise unknown("data", name, names)
    missing = [name for name in ("X_train", "y_train", "X_val", "y_val") if name not in data]
    if missing:
        raise ValueError(f"data: expected X_train, y_train, X_val and y_val, got no {', '.join(missing)}")
    return Dataset(**data)
