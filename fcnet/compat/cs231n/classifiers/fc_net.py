"""The course's `classifiers/fc_net.py`: its networks, with its dictionaries, over its layers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

import fcnet
import fcnet.functional as F
from fcnet.backends import backend_of
from fcnet.backends.caches import EPS, MOMENTUM
from fcnet.backends.step import Remembered, Run, layout
from fcnet.compat import _install
from fcnet.compat.cs231n import _random, _saved, _year, layer_utils, layers
from fcnet.compat.cs231n._arrays import Array, number, promoted
from fcnet.compat.cs231n.layer_utils import *
from fcnet.validation import check_fits, check_input, finite_real, labels_within

__all__ = ["FullyConnectedNet", "TwoLayerNet"]
__all__ += layer_utils.__all__
__getattr__ = _install.without((), "cs231n.classifiers.fc_net", globals())


class FullyConnectedNet:
    """Build {affine - [batch/layer norm] - relu - [dropout]} x (L - 1) - affine - softmax, on plain dictionaries.

    Attributes:
        params: name -> array: W1, b1, [gamma1, beta1], W2, ...; items may be changed in place or replaced.
        reg: strength of the L2 term 0.5 * reg * sum(W**2) over every weight matrix; may be set at any time.
        bn_params: a dictionary per hidden layer, as `batchnorm_forward` or `layernorm_forward` takes it; batch
            norm's running statistics live there and move at each training loss. Empty without normalisation.
        dropout_param: mode, p and, if given, seed; empty without dropout.
        num_layers, use_dropout, normalization, dtype: as the arguments say.
    """

    def __init__(
        self,
        hidden_dims: Sequence[int],
        input_dim: int = 3 * 32 * 32,
        num_classes: int = 10,
        dropout_keep_ratio: float = 1,
        normalization: str | None = None,
        reg: float = 0.0,
        weight_scale: float = 1e-2,
        dtype: Any = np.float32,
        seed: int | None = None,
        *,
        dropout: float | None = None,
        use_batchnorm: bool | None = None,
    ) -> None:
        """Make a network with weights drawn from N(0, weight_scale²), biases and beta 0, gamma 1.

        The weights are drawn layer by layer from NumPy's global generator, so `np.random.seed` decides them.

        Args:
            hidden_dims: width of each hidden layer.
            input_dim: D. num_classes: C.
            dropout_keep_ratio: probability to keep a hidden unit; 1 for no dropout.
            normalization: "batchnorm", "layernorm" or None.
            reg: L2 strength.
            weight_scale: standard deviation of the initial weights.
            dtype: float32 or float64, of the parameters and what is computed from them.
            seed: of the dropout masks, which are then the same at every call (see `dropout_forward`); None: new
                ones each time.
            dropout: instead of dropout_keep_ratio, as until 2020. From 2018 on it is the probability to keep a unit,
                and 1 is none; in 2016 and 2017 it is the share dropped, and 0 is none. Which is meant follows from
                `install(year=...)`, else by the call: the latter beside use_batchnorm, or if it is 0.
            use_batchnorm: instead of normalization="batchnorm", as in 2016 and 2017.

        Raises:
            ValueError, TypeError: as `fcnet.FullyConnectedNet`; an old keyword beside the one that replaced it.
        """
        if use_batchnorm is not None:
            if normalization is not None:
                raise ValueError("normalization, use_batchnorm: expected one of them, got both; leave one out")
            normalization = "batchnorm" if use_batchnorm else None
        if dropout is not None:
            if dropout_keep_ratio != 1:
                raise ValueError("dropout_keep_ratio, dropout: expected one of them, got both; leave one out")
            dropout_keep_ratio = _keep_ratio(dropout, use_batchnorm)
        self._remembered = Remembered()
        start = fcnet.FullyConnectedNet(
            hidden_dims,
            input_dim,
            num_classes,
            normalization=normalization,
            dropout_keep_ratio=dropout_keep_ratio,
            reg=reg,
            weight_scale=weight_scale,
            dtype=dtype,
            seed=0 if seed is None else _random.checked(seed),
            device="cpu",
        )
        self._config = start.config
        self.params: dict[str, Array] = {name: value.copy() for name, value in start.params.items()}
        for i in range(1, len(hidden_dims) + 2):
            w = self.params[f"W{i}"]
            w[...] = weight_scale * _random.generator().randn(*w.shape)
        self.normalization = normalization
        self.use_dropout = dropout_keep_ratio != 1
        self.reg = reg
        self.num_layers = 1 + len(hidden_dims)
        self.dtype = dtype
        self.dropout_param: dict[str, Any] = {}
        if self.use_dropout:
            p = dropout_keep_ratio
            if _year.p_is_dropped():
                p = 1 - p if dropout is None else dropout
            self.dropout_param = {"mode": "train", "p": p}
            if seed is not None:
                self.dropout_param["seed"] = seed
        self.bn_params: list[dict[str, Any]] = []
        if normalization is not None:
            first = {"mode": "train"} if normalization == "batchnorm" else {}
            self.bn_params = [dict(first) for _ in hidden_dims]

    def loss(self, X: Array, y: Any = None) -> Any:
        """Return the scores without labels; with labels, the loss and the gradients.

        Args:
            X: (N, d1, ..., dk) with d1 * ... * dk = D, of any real dtype; computed with in `dtype`.
            y: labels (N,), or None.

        Returns:
            Without y, in test mode: scores (N, C). With y, in training mode: the loss, a float, and the gradient
            of every parameter by name, in arrays of their own.

        Raises:
            ValueError, TypeError: X or y do not fit the network, or hold NaN, infinities or unknown labels.
        """
        train = y is not None
        if train and not hasattr(y, "dtype"):
            y = np.asarray(y)
        reg = self.reg if train else 0.0
        shapes = layout(X, y, *self.params.values()) if train else layout(X, *self.params.values())
        key = None if shapes is None else (train, reg != 0, self.dtype, shapes)
        known = key in self._remembered  # then all but the numbers has been looked at
        if known:
            check_fits("X", X, self.dtype)
            params = self.params
        else:
            check_input("X", X, self.params["W1"].shape[0], self.dtype)
        if self.use_dropout:
            self.dropout_param["mode"] = "train" if train else "test"
        if self.normalization == "batchnorm":
            for bn_param in self.bn_params:
                bn_param["mode"] = "train" if train else "test"
        x = X.astype(self.dtype, copy=False)
        if not known:
            x, *values = promoted("loss", X=x, **self.params)
            params = dict(zip(self.params, values, strict=True))
            if any(params[name] is not value for name, value in self.params.items()):
                key = None  # what is converted is converted each time
        run = self._remembered.run(key)
        scores, caches = self._forward(run, params, x.reshape(len(x), -1))
        if not train:
            self._remembered.keep(key, run)
            return scores
        if not (known and y.ndim == 1 and labels_within(y, scores.shape[1])):
            y = layers.labels_for("softmax_loss", scores, y)
        loss, dscores = run(F.softmax_loss, scores, y)
        grads = self._backward(run, dscores, caches)
        value = self._regularized(run, params, loss, grads) if reg else number(loss)
        self._remembered.keep(key, run)
        return value, grads

    def _forward(self, run: Run, params: dict[str, Array], out: Array) -> tuple[Array, list[dict[str, Any]]]:
        """Return scores (N, C) of inputs (N, D), and the caches of each layer by what made them."""
        caches: list[dict[str, Any]] = []
        for i in range(1, self.num_layers + 1):
            cache: dict[str, Any] = {}
            out, cache["affine"] = run(F.affine_forward, out, params[f"W{i}"], params[f"b{i}"])
            if i < self.num_layers:
                if self.normalization is not None:
                    forward = getattr(layers, f"{self.normalization}_forward")
                    scale = params[f"gamma{i}"], params[f"beta{i}"]
                    out, cache["norm"] = forward(out, *scale, self.bn_params[i - 1])
                out, cache["relu"] = run(F.relu_forward, out, out=out)
                if self.use_dropout:
                    out, cache["dropout"] = layers.dropout_forward(out, self.dropout_param)
            caches.append(cache)
        return out, caches

    def _backward(self, run: Run, dout: Array, caches: list[dict[str, Any]]) -> dict[str, Array]:
        """Return the gradient of the data loss in every parameter, from that in the scores."""
        grads: dict[str, Array] = {}
        for i in range(len(caches), 0, -1):
            cache = caches[i - 1]
            if "dropout" in cache:
                dout = layers.dropout_backward(dout, cache["dropout"])
            if "relu" in cache:
                dout = run(F.relu_backward, dout, cache["relu"])
            if "norm" in cache:
                # For batch norm the simplified formula: the step-by-step one gives the same and takes longer.
                name = "batchnorm_backward_alt" if self.normalization == "batchnorm" else "layernorm_backward"
                dout, grads[f"gamma{i}"], grads[f"beta{i}"] = getattr(layers, name)(dout, cache["norm"])
            dout, grads[f"W{i}"], grads[f"b{i}"] = run(F.affine_backward, dout, cache["affine"], need_dx=i > 1)
        return {name: grads[name] for name in self.params}

    def _regularized(self, run: Run, params: dict[str, Array], loss: Array, grads: dict[str, Array]) -> float:
        """Return the loss with the L2 term, in float64, and add its gradient to that of every weight matrix."""
        backend = backend_of(loss)
        if loss.dtype != "float64":
            loss = backend.asarray(number(loss), dtype="float64")
        for i in range(1, self.num_layers + 1):
            w = params[f"W{i}"].reshape(-1)
            run(F.l2_penalty, w, self.reg, loss, grads[f"W{i}"].reshape(-1), backend.xp.empty_like(w))
        return float(backend.to_numpy(loss))

    def to_fcnet(self, device: str = "auto") -> fcnet.FullyConnectedNet:
        """Return a copy as fcnet's own network, which trains on either device and is fast.

        Raises:
            ValueError: normalisation with another eps or momentum than fcnet's.
        """
        net = fcnet.FullyConnectedNet(**(self._config | {"reg": self.reg}), device=device)
        net.params.update(self.params)
        for i, bn_param in enumerate(self.bn_params, 1):
            for key, usual in (("eps", EPS), ("momentum", MOMENTUM)):
                if bn_param.get(key, usual) != usual:
                    got = bn_param[key]
                    raise ValueError(f"bn_params[{i - 1}][{key!r}]: expected fcnet's {usual}, got {got}")
            for key in ("running_mean", "running_var"):
                if key in bn_param:
                    net.state[f"{key}{i}"] = bn_param[key]
        return net

    def save(self, fname: str | os.PathLike[str]) -> None:
        """Write `params` to cs231n/saved/ in the working directory, in the course's form, an .npy file for `load`.

        Under a name that ends in .safetensors the whole network is written, at that very path:
        `fcnet.load(fname)` gives it back as fcnet's own.
        """
        if os.fspath(fname).endswith(".safetensors"):
            self.to_fcnet("cpu").save(os.fspath(fname))
        else:
            _saved.write(fname, self.params)

    def load(self, fname: str | os.PathLike[str]) -> bool:
        """Take `params` from what `save`, or the course's, wrote to cs231n/saved/ in the working directory.

        Returns:
            Whether there is such a file.

        Raises:
            ValueError: the file is damaged, or of something else; nothing that it may tell Python to run is run.
        """
        params = _saved.read(fname, self.params)
        if params is not None:
            self.params = params
        return params is not None


def _keep_ratio(dropout: float, use_batchnorm: bool | None) -> float:
    """Return the probability to keep a unit that is meant by the keyword of the years until 2020."""
    value = finite_real("dropout", dropout)
    by_call = use_batchnorm is not None or value == 0  # by the call: only 2016 and 2017 have these
    dropped = _year.p_is_dropped() if _year.known() else by_call
    if not (0 <= value < 1 if dropped else 0 < value <= 1):
        meaning = "the share of units dropped, 0 for none" if dropped else "the probability to keep a unit, 1 for none"
        raise ValueError(f"dropout: expected {meaning}, got {value:g}")
    return 1 - value if dropped else value


class TwoLayerNet(FullyConnectedNet):
    """Build affine - relu - affine - softmax in float64: the network of assignment 1."""

    def __init__(
        self,
        input_dim: int = 3 * 32 * 32,
        hidden_dim: int = 100,
        num_classes: int = 10,
        weight_scale: float = 1e-3,
        reg: float = 0.0,
    ) -> None:
        """Take the arguments of `FullyConnectedNet`, with one hidden layer of width hidden_dim."""
        super().__init__([hidden_dim], input_dim, num_classes, reg=reg, weight_scale=weight_scale, dtype=np.float64)
