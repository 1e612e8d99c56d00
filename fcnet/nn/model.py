"""Fully connected networks: a sequence of layers, one parameter buffer, training mode, predictions, files.

Shapes: N batch, D input features, C classes; inputs may be (N, d1, ..., dk) with d1 * ... * dk = D.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fcnet.functional as F
from fcnet.backends import Array, Backend, MaskStream, check_seed, get_backend
from fcnet.backends.caches import STEPS
from fcnet.backends.step import Run, direct
from fcnet.data.columns import columns_of, is_frame, is_table, listed
from fcnet.data.plan import Plan, as_numbers
from fcnet.errors import counted
from fcnet.nn.arguments import check_without_hidden, dropout_kind, dtype_of, precision_of, widths
from fcnet.nn.init import initial_weights, weight_std
from fcnet.nn.layers import Hidden, Output, hidden_activations
from fcnet.nn.objective import Objective
from fcnet.nn.params import ParamBuffer
from fcnet.nn.penalties import NonNegative, add_penalties, is_said
from fcnet.runs.checkpoint import find_model, read_model, write_model
from fcnet.validation import check_finite, check_input, check_weights, finite_real, one_of, positive_int, step_number

NORMALIZATIONS = ("batchnorm", "layernorm")


class FullyConnectedNet:
    """Build {affine - [batch/layer norm] - activation - [dropout]} x (L - 1) - affine - loss.

    Attributes:
        params: every trained tensor by name: W1, b1, [gamma1, beta1], W2, ... Assigning to an item copies.
        state: batch norm's running statistics by name: running_mean1, running_var1, ...
        preprocessing: shift and scale (D,) applied to every input, or None; with a `limit`, the result is then limited
            smoothly to plus and minus that. A Solver learns it from its training split, and it is saved with the model.
        target_scaling: with the loss "mse" shift and scale (C,) of the targets, or None; a Solver learns it from its
            training split, and it is saved with the model. The network is trained on (y - shift) * scale, to which the
            loss, its gradients and `scores` refer; `predict` returns values in the targets' own units.
        threshold: the second of two classes, or a single label, is predicted where its probability is above this; None:
            1/2. It may be set at any time and is saved with the model.
        classes, features: names of the classes and of the input columns, or None.
        plan: how a table's columns become inputs (`fcnet.data.Plan`), or None; it is saved with the model, which can
            then take data frames.
        reg, reg_l1: strengths of the L2 and L1 terms, 0 or more; may be set at any time.
        config: the arguments that make a network of this kind.
    """

    reg, reg_l1 = NonNegative(), NonNegative()

    def __init__(
        self,
        hidden_dims: Sequence[int],
        input_dim: int,
        num_classes: int,
        *,
        activation: str | Sequence[str] = "relu",
        maxout_pieces: int | None = None,
        loss: str = "softmax",
        label_smoothing: float = 0.0,
        normalization: str | None = None,
        dropout_keep_ratio: float = 1.0,
        dropout: str = "inverted",
        reg: float | None = None,
        reg_l1: float = 0.0,
        weight_scale: float | None = None,
        init: str | None = None,
        dtype: Any = "float32",
        precision: str | None = None,
        seed: int = 0,
        device: str | Backend = "auto",
    ) -> None:
        """Make a network with random weights.

        Args:
            hidden_dims: width of each hidden layer; empty for a linear classifier.
            input_dim: D. num_classes: C, at least 2; with a loss of numbers ("mse", ...) that of outputs, 1 or more.
            activation: of the hidden layers, one for all or a list of one for each: names in
                `fcnet.functional.ACTIVATIONS`, such as "relu" or "gelu".
            maxout_pieces: pieces of each maxout unit, by default 2; only with "maxout".
            loss: "softmax" (cross-entropy) or "svm" (multiclass hinge) for classes, "mse" (mean squared error) for
                numbers, "poisson" for counts and rates, of which the scores are logarithms, "bce" (binary
                cross-entropy) for labels that may each be on or off.
            label_smoothing: share of each softmax target that is spread evenly over all classes, 0 <= share < 1.
            normalization: None, "batchnorm" or "layernorm", after each hidden affine layer.
            dropout_keep_ratio: probability to *keep* a hidden unit; 1 for no dropout.
            dropout: "inverted" (in training, units that are kept are scaled by 1 / dropout_keep_ratio) or "plain" (in
                evaluation, all units are scaled by dropout_keep_ratio instead).
            reg: L2 strength: 0.5 * reg * Σ W² over every weight matrix is added to the loss. None: 0, unless a `Solver`
                that is given neither epochs nor a change of the rate sets its own (`fcnet.defaults`).
            reg_l1: L1 strength: reg_l1 * Σ |W| over every weight matrix is added to the loss.
            weight_scale: standard deviation of the initial weights.
            init: "zeros", "normal", "xavier" or "he". With neither this nor weight_scale, the scheme that suits the
                layer's activation ("xavier" for sigmoid, tanh and maxout, "he" for the others); for the output layer,
                the scheme of the layer below it.
            dtype: "float32" or "float64".
            precision: of matrix products; None: that of dtype. A float32 network on a CUDA GPU of compute capability
                8.0 or more may have "tf32" or "bf16", which rounds hidden layers' inputs and outputs, too;
                sums, weights and all else stay float32. It is not saved.
            seed: of weights and dropout masks.
            device: "auto" (a GPU if one can be used), "cpu", "cuda" or "cuda:N".

        Raises:
            ValueError, TypeError: an argument is not as above; DeviceError (a ValueError): no such device.
            MemoryError: the device is full.
        """
        self.hidden_dims = tuple(positive_int("hidden_dims", width) for width in widths(hidden_dims))
        self.input_dim = positive_int("input_dim", input_dim)
        self.num_classes = positive_int("num_classes", num_classes)
        activations = hidden_activations(activation, maxout_pieces, len(self.hidden_dims))
        self.objective = Objective(loss, self.num_classes, label_smoothing)
        if normalization is not None:
            one_of("normalization", normalization, ("None", *NORMALIZATIONS))
        keep_ratio = finite_real("dropout_keep_ratio", dropout_keep_ratio)
        if not 1 / STEPS <= keep_ratio <= 1:
            raise ValueError(
                f"dropout_keep_ratio: expected a probability to keep a unit, 1/{STEPS} <= ratio <= 1, got {keep_ratio}"
            )
        if not self.hidden_dims:
            check_without_hidden(activation, maxout_pieces, normalization, keep_ratio)
        if reg is not None:
            self.reg = reg
        self.reg_l1 = reg_l1
        self.dtype = dtype_of(dtype)
        self.seed = check_seed(seed)
        usual = [F.activation_named("activation", name).init for name in activations]
        usual.append(usual[-1] if usual else "he")
        fan_ins = (self.input_dim, *self.hidden_dims)
        stds = [weight_std(init, weight_scale, scheme, fan_in) for scheme, fan_in in zip(usual, fan_ins, strict=True)]
        self.backend = get_backend(device)
        self.precision = precision_of(precision, self.dtype, self.backend)
        self._preprocessing: tuple[Array, Array, Array, Array] | None = None
        self._limit: float | None = None
        self._frozen: tuple[int, ...] = ()
        self.classes: tuple[str, ...] | None = None
        self.features: tuple[str, ...] | None = None
        self.plan: Plan | None = None
        self._options: dict[str, Any] = {
            "activation": activation if isinstance(activation, str) else list(activation),
            "maxout_pieces": None if maxout_pieces is None else int(maxout_pieces),
            "normalization": normalization,
            "dropout_keep_ratio": keep_ratio,
            "dropout": dropout_kind(dropout),
            "weight_scale": None if weight_scale is None else float(weight_scale),
            "init": init,
        }

        count = len(self.hidden_dims) + 1
        self.hidden = [
            Hidden(i, name, normalization, keep_ratio, dropout, self.precision)
            for i, name in enumerate(activations, start=1)
        ]
        self.output = Output(count, self.precision)
        shapes: dict[str, tuple[int, ...]] = {}
        state_shapes: dict[str, tuple[int, ...]] = {}
        dims = (self.input_dim, *self.hidden_dims, self.num_classes)
        for layer, width_in, width_out in zip(self._layers(), dims, dims[1:], strict=False):
            shapes |= layer.shapes(width_in, width_out)
            if isinstance(layer, Hidden):
                state_shapes |= layer.state_shapes(width_out)
        self.backend.use()
        with self.backend.allocating():
            self._params = ParamBuffer(self.backend, shapes, self.dtype)
            self._state = ParamBuffer(self.backend, state_shapes, self.dtype)
        for layer, std in zip(self._layers(), stds, strict=True):
            name = f"W{layer.index}"
            weights = initial_weights(self.seed, layer.index, shapes[name], std)  # type: ignore[arg-type]
            self.params[name] = weights.astype(self.dtype)
            if f"gamma{layer.index}" in shapes:
                self.params[f"gamma{layer.index}"][...] = 1

    def _layers(self) -> Iterator[Hidden | Output]:
        yield from self.hidden
        yield self.output

    @property
    def params(self) -> ParamBuffer:
        """Return every trained tensor by name; assign to its items, params["W1"] = array, not to itself."""
        return self._params

    @property
    def state(self) -> ParamBuffer:
        """Return batch norm's running statistics by name."""
        return self._state

    @property
    def preprocessing(self) -> tuple[Array, Array] | None:
        """Return shift and scale (D,), float64 on the device, or None; see `set_preprocessing`."""
        return None if self._preprocessing is None else self._preprocessing[:2]

    @property
    def frozen(self) -> tuple[int, ...]:
        """Return the numbers of the frozen layers, the lowest being 1; see `freeze`."""
        return self._frozen

    def freeze(self, layers: Iterable[int]) -> None:
        """Freeze these layers from now on: no gradient, no update, no decay, no penalty. An empty list trains all.

        In training, frozen layers compute as in evaluation: without dropout, and with batch norm's running statistics,
        which do not change. So their output for a sample is fixed. This is not saved with the network, nor copied by
        `astype`.

        Args:
            layers: 1, 2, ..., k, so that nothing below a frozen layer changes; the output layer cannot be frozen.

        Raises:
            ValueError: other layers. TypeError: not numbers.
        """
        if isinstance(layers, str) or not isinstance(layers, Iterable):
            raise TypeError(f"freeze: expected a list of layers such as [1, 2], got {layers!r}")
        numbers = tuple(sorted({positive_int("freeze", layer) for layer in layers}))
        if numbers != tuple(range(1, len(numbers) + 1)) or len(numbers) > len(self.hidden):
            raise ValueError(
                f"freeze and hidden_dims: expected the lowest layers, 1, 2, ... without a gap, at most the "
                f"{len(self.hidden)} hidden ones (the output layer is always trained), "
                f"got {', '.join(map(str, numbers))}"
            )
        self._frozen = numbers

    def parameters_of(self, layer: int) -> list[str]:
        """Return the names of a layer's parameters; the lowest layer is 1."""
        return list(list(self._layers())[layer - 1].shapes(1, 1))

    @property
    def trained(self) -> list[str]:
        """Return the names of the parameters that are not frozen."""
        return [name for layer in list(self._layers())[len(self._frozen) :] for name in layer.shapes(1, 1)]

    @property
    def normalization(self) -> str | None:
        """Return the normalization of the hidden layers."""
        return self._options["normalization"]

    @property
    def loss_name(self) -> str:
        """Return the name of the loss that the network is trained with."""
        return self.objective.loss

    @property
    def config(self) -> dict[str, Any]:
        """Return keyword arguments that make a network of this kind; plain values, fit for JSON."""
        return {
            "hidden_dims": list(self.hidden_dims),
            "input_dim": self.input_dim,
            "num_classes": self.num_classes,
            "loss": self.loss_name,
            "label_smoothing": self.objective.label_smoothing,
            "reg": self.reg if is_said(self, "reg") else None,
            "reg_l1": self.reg_l1,
            "dtype": self.dtype.name,
            "seed": self.seed,
            **self._options,
        }

    @property
    def limit(self) -> float | None:
        """Return the limit of preprocessed inputs, z / sqrt(1 + (z / limit)²), or None; see `set_preprocessing`."""
        return self._limit

    def set_preprocessing(self, shift: Array, scale: Array, limit: float | None = None) -> None:
        """Replace every input x by z = (x - shift) * scale from now on; host or device arrays (D,).

        Args:
            limit: if given, z is then replaced by z / sqrt(1 + (z / limit)²): nearly z near 0, never beyond the limit.

        Raises:
            ValueError: another shape, a limit that is not above 0.
        """
        if limit is not None and not finite_real("limit", limit) > 0:
            raise ValueError(f"limit: expected more than 0, got {limit}; leave it out for none")
        for name, value in (("shift", shift), ("scale", scale)):
            if getattr(value, "shape", None) != (self.input_dim,) or value.dtype.kind not in "fiu":
                got = f"{value.dtype} {value.shape}" if hasattr(value, "dtype") else type(value).__name__
                raise ValueError(f"{name}: expected an array of numbers of shape ({self.input_dim},), got {got}")
            check_finite(name, value)
        self.backend.use()
        with np.errstate(over="ignore"):  # the float32 copies are for bytes only, whose scale and shift they can hold
            arrays = [self.backend.asarray(v, dtype=t) for t in ("float64", self.dtype) for v in (shift, scale)]
        self._limit = None if limit is None else float(limit)
        if self._preprocessing is None:
            copies = [array.copy() for array in arrays]
            self._preprocessing = copies[0], copies[1], copies[2], copies[3]
        for mine, value in zip(self._preprocessing, arrays, strict=True):
            mine[...] = value  # in place: recorded steps see it

    @property
    def target_scaling(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Return shift and scale (C,) of the targets of the loss "mse", float64 on the host, or None."""
        return self.objective.scaling

    def set_target_scaling(self, shift: Any, scale: Any) -> None:
        """Train on (y - shift) * scale from now on, and return predictions in the units of y; (C,) each.

        Unless it is set, a Solver sets it to the targets' mean and 1 / standard deviation; zeros and ones leave the
        targets as they are.

        Raises:
            ValueError: another loss than "mse", another shape, a scale of 0.
        """
        self.objective = self.objective.scaled(shift, scale)

    def begin_at_means(self, means: np.ndarray) -> None:
        """Set the output's bias so that a network of the loss "poisson" begins at these means (C,) of the targets.

        The bias, unless it is set already, becomes their logarithm, and stays 0 where they are 0. A Solver does this.
        """
        bias = self.params[f"b{self.output.index}"]
        if not self.backend.to_numpy(bias).any():
            bias[...] = self.backend.asarray(np.log(np.where(means > 0, means, 1)), bias.dtype)

    @property
    def threshold(self) -> float | None:
        """Return the probability above which the second of two classes, or the label, is predicted; None: 1/2."""
        return self.objective.threshold

    @threshold.setter
    def threshold(self, value: float | None) -> None:
        self.objective = self.objective.deciding(value)

    def copy(self, **changes: Any) -> FullyConnectedNet:
        """Return a copy with some of the constructor's arguments changed; weights, statistics, preprocessing stay.

        So does the device, unless it is among the changes. No layer of the copy is frozen, and its precision is that of
        its dtype unless given.

        Raises:
            ValueError, TypeError: as the constructor.
        """
        other = FullyConnectedNet(**({"device": self.backend} | self.config | changes))
        for mine, others in ((self.params, other.params), (self.state, other.state)):
            for name in others:
                others[name] = self.backend.to_numpy(mine[name])
        if self.preprocessing is not None:
            shift, scale = (self.backend.to_numpy(array) for array in self.preprocessing)
            other.set_preprocessing(shift, scale, self.limit)
        if self.target_scaling is not None and other.loss_name == "mse":
            other.set_target_scaling(*self.target_scaling)
        if other.objective.two_sided:
            other.threshold = self.threshold
        other.classes, other.features, other.plan = self.classes, self.features, self.plan
        return other

    def astype(self, dtype: Any) -> FullyConnectedNet:
        """Return a copy of this network in another dtype, on the same device."""
        return self.copy(dtype=dtype)

    @property
    def device(self) -> str:
        """Return the device that holds the parameters: "cpu", "cuda:0", ..."""
        return self.backend.name

    # The training step. `run` makes each call at once or records it (fcnet.backends.step).

    def mask_streams(self, step: int | Array) -> list[MaskStream | None]:
        """Return the random bits of each hidden layer's dropout at this step; `step` may be a device array."""
        return [
            MaskStream(self.backend, self.seed, layer.index, step) if layer.keep_ratio < 1 else None
            for layer in self.hidden
        ]

    def forward(
        self, run: Run, x: Array, streams: Sequence[MaskStream | None]
    ) -> tuple[Array, list[tuple[Hidden | Output, Any]]]:
        """Compute the scores (N, C) of preprocessed inputs x (N, D) in training mode, and a cache per trained layer."""
        caches: list[tuple[Hidden | Output, Any]] = []
        for layer, stream in zip(self.hidden, streams, strict=True):
            if layer.index in self._frozen:
                x = layer.evaluate(run, self.params, self.state, x)
                continue
            x, cache = layer.forward(run, self.params, self.state, x, stream)
            caches.append((layer, cache))
        scores, cache = self.output.forward(run, self.params, x)
        caches.append((self.output, cache))
        return scores, caches

    def backward(
        self, run: Run, dscores: Array, caches: Sequence[tuple[Hidden | Output, Any]], grads: ParamBuffer
    ) -> None:
        """Fill `grads` with the gradients of the data loss for all trained parameters; dscores is overwritten."""
        dout = dscores
        for layer, cache in reversed(caches):
            dout = layer.backward(run, dout, cache, grads, need_dx=layer.index > len(self._frozen) + 1)

    def loss_and_grads(
        self,
        run: Run,
        x: Array,
        y: Array,
        streams: Sequence[MaskStream | None],
        grads: ParamBuffer,
        weights: Array | None = None,
    ) -> Array:
        """Return the loss of preprocessed inputs, an array () on the device, and fill `grads`."""
        scores, caches = self.forward(run, x, streams)
        loss, dscores = self.objective.loss_and_gradient(run, scores, y, weights)
        self.backward(run, dscores, caches, grads)
        above, _ = self.params.spans()[f"W{len(self._frozen) + 1}"]  # where the trained matrices begin
        matrices, dmatrices = self.params.matrices[above:], grads.matrices[above:]
        add_penalties(run, self.backend, matrices, dmatrices, loss, l2=self.reg, l1=self.reg_l1)
        return loss

    @property
    def byte_scaling(self) -> tuple[Array, ...]:
        """Return shift (D,) and scale (D,) in the network's dtype, for uint8 inputs that are gathered; or nothing."""
        return () if self._preprocessing is None or self.limit is not None else self._preprocessing[2:]

    def prepare(self, run: Run, x: Array) -> Array:
        """Return raw inputs on the device, (N, ...) of any real dtype, as the (N, D) floats that the layers take."""
        x = x.reshape(x.shape[0], -1)
        if self._preprocessing is None:
            return x if x.dtype == self.dtype else run(F.cast, x, self.dtype)
        if x.dtype == "uint8" and self.byte_scaling:
            return run(F.preprocess, x, *self.byte_scaling)
        shift, scale = self._preprocessing[:2]
        # In float64, then rounded: a column such as a time stamp would lose its digits in float32.
        x = run(F.preprocess, x, shift, scale)
        if self.limit is not None:
            x = run(F.smooth_clip, x, self.limit)
        return x if x.dtype == self.dtype else run(F.cast, x, self.dtype)

    def loss(
        self, X: Array, y: Array, step: int = 0, *, sample_weight: Array | None = None
    ) -> tuple[float, dict[str, Array]]:
        """Compute loss and gradients in training mode, on the device's arrays; batch norm's running statistics move.

        Args:
            X: (N, d1, ..., dk).
            y: integer labels (N,), or one-hot (N, C); with the losses "mse" and "bce" numbers (N, C), or (N,) for one.
            step: the training step whose dropout masks are used; the same step gives the same masks.
            sample_weight: (N,), 0 or more: factors of the samples' losses, before the mean is taken.

        Returns:
            The loss, mean over the batch plus the penalties, and a new array with the gradient for every name in
            `params`, zeros for frozen layers. With a `target_scaling`, it is the loss of the scaled targets.

        Raises:
            ValueError, TypeError: X or y do not fit the network, or hold NaN, infinities or labels out of range.
        """
        check_input("X", X, self.input_dim, self.dtype)
        self.objective.check_targets("y", y, len(X), self.dtype)
        if sample_weight is not None:
            check_weights("sample_weight", sample_weight, len(X), self.dtype)
        streams = self.mask_streams(step_number("step", step))
        self.backend.use()
        x = self.backend.asarray(X)
        targets = self.objective.to_device(self.backend, y, self.dtype)
        weights = None if sample_weight is None else self.backend.asarray(sample_weight, self.dtype)
        grads = self.params.like()
        loss = self.loss_and_grads(direct, self.prepare(direct, x), targets, streams, grads, weights)
        return float(self.backend.to_numpy(loss)), dict(grads)

    # Predictions. Inputs may be host or device arrays; results are of the same kind as X.

    def scores(self, X: Array, *, batch_size: int = 4096) -> Array:
        """Return scores (N, C) in evaluation mode, as the loss takes them; computed `batch_size` rows at a time.

        That is before softmax, and before a `target_scaling` is undone.
        """
        return self._evaluate(X, batch_size, lambda scores: scores)

    def predict(self, X: Array, *, batch_size: int = 4096) -> Array:
        """Return what the network predicts.

        With "softmax" and "svm" the class with the highest score, (N,) integers; with "mse" the values in the targets'
        units, float64 where they were scaled (`target_scaling`); with "bce" labels of 0 and 1 (1 where the probability
        is above 1/2); values and labels are (N, C), or (N,) if C is 1.
        """
        return self._evaluate(X, batch_size, lambda scores: self.objective.predictions(self.backend, scores))

    def predict_proba(self, X: Array, *, mc_samples: int | None = None, batch_size: int = 4096) -> Any:
        """Return probabilities (N, C): of the classes ("softmax"), or of each label ("bce").

        Args:
            mc_samples: T, for Monte-Carlo dropout: T predictions with units dropped at random as in training, all else
                as in evaluation. The masks depend on the network's seed, on the prediction's number 0..T-1 and on a
                sample's position in its batch of `batch_size` rows.

        Returns:
            (N, C); with mc_samples the pair of the predictions' mean and standard deviation (over T), each (N, C).
            Source: Gal and Ghahramani, "Dropout as a Bayesian Approximation", 2016.

        Raises:
            ValueError: the loss gives no probabilities; mc_samples without dropout.
        """
        if mc_samples is None:
            return self._evaluate(X, batch_size, self.objective.probabilities)
        count = positive_int("mc_samples", mc_samples)
        if not any(self.mask_streams(0)):
            raise ValueError(
                f"mc_samples: expected a network with dropout for {count} samples, got one that drops no unit; "
                "leave mc_samples out"
            )
        both = self._of_parts(X, batch_size, lambda x: self._monte_carlo(self.prepare(direct, x), count))
        return both[..., 0], both[..., 1]

    def _monte_carlo(self, x: Array, count: int) -> Array:
        """Return mean and standard deviation (N, C, 2) of `count` predictions with dropout, by Welford's rule."""
        xp = self.backend.xp
        for number in range(count):
            p = self.objective.probabilities(self.evaluate_prepared(x, self.mask_streams(number)))
            if number == 0:
                both = xp.zeros((*p.shape, 2), dtype=p.dtype)
                mean, squares = both[..., 0], both[..., 1]
            off = p - mean
            mean += off / (number + 1)
            squares += off * (p - mean)
        squares[...] = xp.sqrt(squares / count)
        return both

    def evaluate(self, x: Array) -> Array:
        """Return scores (N, C) of raw device inputs in evaluation mode; nothing is checked or copied."""
        return self.evaluate_prepared(self.prepare(direct, x))

    def evaluate_prepared(self, x: Array, streams: Sequence[MaskStream | None] | None = None) -> Array:
        """Evaluate as `evaluate`, from inputs (N, D) that `prepare` returned; with `streams` units are dropped."""
        for layer, stream in zip(self.hidden, streams or [None] * len(self.hidden), strict=True):
            x = layer.evaluate(direct, self.params, self.state, x, stream)
        return self.output.forward(direct, self.params, x)[0]

    def _evaluate(self, X: Array, batch_size: int, finish: Any) -> Array:
        return self._of_parts(X, batch_size, lambda x: finish(self.evaluate(x)))

    def _of_parts(self, X: Array, batch_size: int, function: Any) -> Array:
        """Return `function` of each `batch_size` rows on the device, joined, as an array of the kind of X."""
        if is_frame(X) or (self.plan is not None and is_table(X)):
            X = self._planned(X)
        check_input("X", X, self.input_dim, self.dtype)
        batch_size = positive_int("batch_size", batch_size)
        on_host = isinstance(X, np.ndarray)
        self.backend.use()
        parts = []
        with self.backend.allocating():
            for start in range(0, len(X), batch_size):
                part = function(self.backend.asarray(X[start : start + batch_size]))
                parts.append(self.backend.to_numpy(part) if on_host else part)
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if on_host else self.backend.xp.concatenate(parts)

    def _planned(self, table: Any) -> np.ndarray:
        """Return the inputs (N, D) that the plan makes of a table; without a plan, the numbers of `features`."""
        if self.plan is not None:
            return self.plan.apply(table)
        if self.features is None:
            raise TypeError(
                "X: expected an array (N, D), for this network was trained on arrays, got a table; use X.to_numpy()"
            )
        return as_numbers(columns_of(table), self.features)

    # On disk

    def save(self, path: str | Path) -> None:
        """Write the network as safetensors with checksums; `fcnet.load(path)` reads it.

        Args:
            path: of the file, or of a folder, where it is called model.safetensors.

        Raises:
            TypeError, ValueError: no path, or an empty one. FileNotFoundError: the folder does not exist. OSError: it
                cannot be written there.
        """
        write_model(path, *self.saved())

    def saved(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return the content of the network's file: a description that JSON can hold, and tensors on the host."""
        to_numpy = self.backend.to_numpy
        tensors = {name: to_numpy(value).copy() for part in (self.params, self.state) for name, value in part.items()}
        if self.preprocessing is not None:
            for name, value in zip(("shift", "scale"), self.preprocessing, strict=True):
                tensors[f"preprocessing.{name}"] = to_numpy(value)
        if self.limit is not None:
            tensors["preprocessing.limit"] = np.array([self.limit])
        if self.target_scaling is not None:
            tensors |= zip(("targets.shift", "targets.scale"), self.target_scaling, strict=True)
        description: dict[str, Any] = {
            "config": self.config,
            "classes": self.classes,
            "features": self.features,
            "scales_targets": self.target_scaling is not None,
        }
        if self.threshold is not None:
            description["threshold"] = self.threshold
        if self.plan is not None:
            description["plan"] = self.plan.to_json()
        return description, tensors

    def describe(self) -> str:
        """Return a description of the network in lines: its layers, and how a table's columns become inputs."""
        lines = [repr(self), f"{counted(sum(math.prod(shape) for shape in self.params.shapes.values()), 'parameter')}"]
        if self.classes is not None:
            lines.append(f"{'outputs' if self.objective.numeric else 'classes'}: {listed(self.classes)}")
        if self.threshold is not None:
            which = self.classes[-1] if self.classes is not None else "1"
            lines.append(f"threshold: {which} where its probability is above {self.threshold:.6g}")
        if self.plan is not None:
            lines += ["", self.plan.describe()]
        elif self.features is not None:
            lines.append(f"inputs: {listed(self.features)}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        widths = "-".join(str(width) for width in (self.input_dim, *self.hidden_dims, self.num_classes))
        activation = self._options["activation"]
        names = activation if isinstance(activation, str) else ",".join(activation)
        parts = [widths, names, self._options["normalization"], self.loss_name]
        if self._options["dropout_keep_ratio"] < 1:
            parts.append(f"dropout keeps {self._options['dropout_keep_ratio']:g}")
        return f"<{type(self).__name__} {', '.join(p for p in parts if p)}, {self.dtype.name} on {self.device}>"


class TwoLayerNet(FullyConnectedNet):
    """Build affine - ReLU - affine - loss: a `FullyConnectedNet` with one hidden layer."""

    def __init__(self, input_dim: int, hidden_dim: int, num_classes: int, **options: Any) -> None:
        """Make the network; `options` are the keyword arguments of `FullyConnectedNet`."""
        super().__init__([positive_int("hidden_dim", hidden_dim)], input_dim, num_classes, **options)


def load(path: str | Path, device: str | Backend = "auto", *, allow_nonfinite: bool = False) -> FullyConnectedNet:
    """Return the network saved at `path`: a file, or a run directory that holds model.safetensors.

    Args:
        device: as in `FullyConnectedNet`.
        allow_nonfinite: accept weights that are NaN or infinite, for inspection.

    Raises:
        FileNotFoundError: no such file. ValueError: not a model of fcnet, truncated or changed since it was written;
            weights that are not finite; an empty path. TypeError: no path.
    """
    path = find_model(path)
    return made_again(path, *read_model(path, allow_nonfinite=allow_nonfinite), device)


def made_again(
    path: Path, description: Mapping[str, Any], tensors: Mapping[str, np.ndarray], device: str | Backend
) -> FullyConnectedNet:
    """Return the network from what `FullyConnectedNet.saved` returned; `path` is named in messages.

    Raises:
        ValueError: description and tensors do not make a network. DeviceError (a ValueError): no such device.
    """
    backend = get_backend(device)
    try:
        model = FullyConnectedNet(**description["config"], device=backend)
        _fill(model, dict(tensors))
        if "scales_targets" not in description and model.loss_name == "mse":  # saved before there was a scaling
            model.set_target_scaling(np.zeros(model.num_classes), np.ones(model.num_classes))
        model.classes, model.features = _names(description["classes"]), _names(description["features"])
        model.threshold = description.get("threshold")
        if description.get("plan") is not None:  # models saved before there were plans have none
            model.plan = Plan.from_json(description["plan"])
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, RecursionError) as error:
        why = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: the description of the model does not hold together ({why})") from error
    return model


def _fill(model: FullyConnectedNet, tensors: dict[str, np.ndarray]) -> None:
    preprocessing = tensors.pop("preprocessing.shift", None), tensors.pop("preprocessing.scale", None)
    limit = tensors.pop("preprocessing.limit", None)
    scaling = tensors.pop("targets.shift", None), tensors.pop("targets.scale", None)
    wanted = {**model.params.shapes, **model.state.shapes}
    if set(wanted) != set(tensors):
        odd = ", ".join(sorted(set(wanted) ^ set(tensors)))
        raise ValueError(f"its tensors are not those of the network it describes: {odd}")
    for name, tensor in tensors.items():
        (model.params if name in model.params else model.state)[name] = tensor
    if preprocessing[0] is not None and preprocessing[1] is not None:
        model.set_preprocessing(*preprocessing, None if limit is None else float(limit[0]))
    if scaling[0] is not None and scaling[1] is not None:
        model.set_target_scaling(*scaling)


def _names(names: list[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names)
