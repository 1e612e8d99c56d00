"""A trained network as an estimator keeps it: on its device while it is used, as host arrays in a pickle."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from fcnet.backends import Backend, DeviceError, get_backend
from fcnet.nn.model import FullyConnectedNet
from fcnet.optim import Optimizer
from fcnet.training.updates import UpdateStep


class Fitted:
    """Hold a network and what further training needs: the optimizer's state, steps and epochs made.

    Attributes:
        updates: the live optimizer, or None before the first step here. steps, epoch: made since the first fit.
    """

    def __init__(self, model: FullyConnectedNet) -> None:
        self._model: FullyConnectedNet | None = model
        self._host: dict[str, Any] = {}  # what a pickle had
        self.updates: UpdateStep | None = None
        self.steps = self.epoch = 0

    @property
    def model(self) -> FullyConnectedNet:
        """Return the network; from a pickle it comes to the device it was fitted on, or to the CPU without that."""
        if self._model is None:
            self._model = self._unpacked()
        return self._model

    def put_back(self, optimizer: Optimizer) -> None:
        """Restore in a new optimizer the state that a pickle had, if there was one of the same rule."""
        state = self._host.pop("optimizer", None)
        if state is None or state["rule"] != optimizer.rule:
            return
        asarray = optimizer.params.backend.asarray
        for name, moment in optimizer.moments.items():
            moment.flat[...] = asarray(state["moments"][name], moment.flat.dtype)
        optimizer.step_counter[...] = asarray(state["step"])
        optimizer.learning_rate = state["learning_rate"]

    def _unpacked(self) -> FullyConnectedNet:
        host = self._host
        model = FullyConnectedNet(**host["config"], device=_device(host["device"]))
        for name, tensor in host["tensors"].items():
            (model.params if name in model.params else model.state)[name] = tensor
        if host["preprocessing"] is not None:
            model.set_preprocessing(*host["preprocessing"])
        if host["target_scaling"] is not None:
            model.set_target_scaling(*host["target_scaling"])
        return model

    def __getstate__(self) -> dict[str, Any]:
        """Return the state with host arrays only."""
        state: dict[str, Any] = {"steps": self.steps, "epoch": self.epoch}
        if self._model is None:
            return state | self._host
        model, to_numpy = self._model, self._model.backend.to_numpy
        state |= {
            "config": model.config,
            "device": model.device,
            "tensors": {name: _host(to_numpy(t)) for part in (model.params, model.state) for name, t in part.items()},
            "preprocessing": None,
            "target_scaling": model.target_scaling,
        }
        if model.preprocessing is not None:
            state["preprocessing"] = (*(_host(to_numpy(array)) for array in model.preprocessing), model.limit)
        if self.updates is not None:
            optimizer = self.updates.optimizer
            state["optimizer"] = {
                "rule": optimizer.rule,
                "moments": {name: _host(to_numpy(moment.flat)) for name, moment in optimizer.moments.items()},
                "step": _host(to_numpy(optimizer.step_counter)),
                "learning_rate": optimizer.learning_rate,
            }
        elif "optimizer" in self._host:
            state["optimizer"] = self._host["optimizer"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._model, self.updates = None, None
        self.steps, self.epoch = state["steps"], state["epoch"]
        self._host = {name: value for name, value in state.items() if name not in ("steps", "epoch")}


def _host(array: np.ndarray) -> np.ndarray:
    """Return a copy of its own: a view would take the whole buffer of all parameters into the pickle."""
    return np.array(array)


def _device(name: str) -> Backend:
    try:
        return get_backend(name)
    except (DeviceError, ValueError) as error:
        backend = get_backend("cpu")
        warnings.warn(f"fitted on {name}, which is not here: it predicts on {backend.name} ({error})", stacklevel=2)
        return backend
