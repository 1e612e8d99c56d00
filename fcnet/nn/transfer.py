"""Transfer learning: a network that starts from another's lower layers, with a new head.

CS231n's recipes ("Transfer Learning"): with little data, freeze the layers taken over (`model.freeze`) and train the
head; with more, train all, the lower layers at a tenth or a hundredth of the rate (`Solver(lr_multipliers=)`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fcnet.backends import Backend
from fcnet.errors import counted
from fcnet.nn.model import FullyConnectedNet, load
from fcnet.validation import positive_int


def pretrained(
    source: FullyConnectedNet | str | Path,
    num_classes: int,
    *,
    layers: int | None = None,
    device: str | Backend | None = None,
    **options: Any,
) -> FullyConnectedNet:
    """Return a new network that begins with the lower layers of `source`.

    Args:
        source: a network, or the path of a saved one; it is not changed.
        num_classes: outputs of the new head.
        layers: how many hidden layers to take over; None: all. Layers above them, and the head, are initialised anew.
        device: as in `FullyConnectedNet`; None: that of `source`, or "auto" for a saved one.
        options: arguments of `FullyConnectedNet` that differ from those of `source`, such as dropout_keep_ratio, reg,
            seed, or hidden_dims with other layers above.

    Raises:
        ValueError, TypeError: as `FullyConnectedNet`, `fcnet.load` and `copy_layers`.
    """
    if isinstance(source, str | Path):
        source = load(source, device="auto" if device is None else device)
    elif not isinstance(source, FullyConnectedNet):
        raise TypeError(f"source: expected a FullyConnectedNet or a path, got {type(source).__name__}")
    config = source.config | {"num_classes": num_classes} | options
    model = FullyConnectedNet(**config, device=source.backend if device is None else device)
    copy_layers(source, model, layers)
    return model


def copy_layers(source: FullyConnectedNet, model: FullyConnectedNet, layers: int | None = None) -> None:
    """Copy the lowest hidden layers of `source` to `model`, with the preprocessing that they were trained on.

    If `source` has none, `model` gets a preprocessing that changes nothing, so that a Solver does not learn another.

    Args:
        layers: how many; None: all hidden layers of `source`.

    Raises:
        ValueError: `model` does not begin with such layers.
    """
    count = len(source.hidden_dims) if layers is None else positive_int("layers", layers)
    if not 1 <= count <= len(source.hidden_dims):
        raise ValueError(f"layers: expected a network with as many hidden layers, got {count} of {source!r}")
    if model.input_dim != source.input_dim:
        raise ValueError(
            f"input_dim: expected {counted(source.input_dim, 'input')}, as the network to start from has, "
            f"got {model.input_dim}"
        )
    if model.hidden_dims[:count] != source.hidden_dims[:count]:
        raise ValueError(
            f"hidden_dims: expected {_listed(source.hidden_dims[:count])} first, as in the network to start from, "
            f"got {_listed(model.hidden_dims)}"
        )
    for ours, origin in zip(model.hidden[:count], source.hidden, strict=False):
        for name in ("activation", "normalization"):
            mine, other = getattr(ours, name), getattr(origin, name)
            if mine != other:
                raise ValueError(
                    f"{name}: expected {other} in layer {ours.index}, as in the network to start from, got {mine}"
                )
    to_numpy = source.backend.to_numpy
    for layer in source.hidden[:count]:
        for buffer, theirs, names in (
            (model.params, source.params, layer.shapes(1, 1)),
            (model.state, source.state, layer.state_shapes(1)),
        ):
            for name in names:
                buffer[name] = to_numpy(theirs[name])
    shift, scale = np.zeros(source.input_dim), np.ones(source.input_dim)
    if source.preprocessing is not None:
        shift, scale = (to_numpy(array) for array in source.preprocessing)
    model.set_preprocessing(shift, scale, source.limit)
    model.features, model.plan = source.features, source.plan


def _listed(widths: tuple[int, ...]) -> str:
    return ", ".join(map(str, widths)) or "none"
