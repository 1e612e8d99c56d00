"""Recognise the network that a recorded step trains, for the kernel that makes whole steps (persistent.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fcnet.backends.caches import EPS, MOMENTUM, keep_threshold
from fcnet.backends.cuda.persistent import LOSSES, NUMERIC
from fcnet.backends.cuda.sources import ACTIVATIONS, RULES
from fcnet.backends.device import Array, Call
from fcnet.backends.rules import roles_of

FORWARD = {
    "bias_activation_dropout_forward": 0,
    "batchnorm_activation_dropout_forward": 1,
    "layernorm_activation_dropout_forward": 2,
}  # the op after a hidden layer's product -> `Plan.norm`


class Unfit(Exception):
    """Signal that the kernel cannot make this step; the message says why."""


@dataclass
class Net:
    """Describe a network and its data, as the kernel needs them.

    Attributes:
        widths: D, M of each hidden layer, C. rows: N. norm, activation, rule, loss: as in `Plan`.
        offsets: where each layer's tensors lie in the flat buffers, by the constants' names.
        arrays: on the device, by the names of `struct Job`. rates: float64, the first of one for each of `rates_at`.
        before: how many floats of frozen parameters lie before the trained ones, with which `params` begins.
        frozen, rates_at: as in `Plan`. values: numbers, by the same names. x_type: as CUDA spells it.
    """

    widths: tuple[int, ...]
    rows: int
    norm: int
    activation: str
    rule: str
    loss: str
    x_type: str
    rates: Any
    offsets: dict[str, list[int]]
    arrays: dict[str, Any]
    frozen: int
    before: int
    rates_at: tuple[int, ...] = (0,)
    values: dict[str, Any] = field(default_factory=dict)


class Reader:
    """Read the calls of a step in order."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self._calls, self._at = calls, 0

    @property
    def name(self) -> str:
        """Return the name of the next call's function; "" after the last call."""
        return "" if self._at == len(self._calls) else self._calls[self._at].name

    def take(self, *names: str) -> dict[str, Any]:
        """Return the arguments of the next call by name, which must be a call of one of these functions.

        Raises:
            Unfit: it is a call of another function.
        """
        if self.name not in names:
            raise Unfit(f"{self.name or 'the end'} is not among what the kernel does")
        self._at += 1
        return self._calls[self._at - 1].arguments


def read(calls: Sequence[Call], ndarray: Any) -> Net:
    """Return the network that these calls train; `ndarray` is the type of the device's arrays.

    Raises:
        Unfit: the kernel cannot train it.
    """
    reader = Reader(calls)
    if reader.name != "next_batch":
        raise Unfit("its batches are not gathered from data on the device")
    batch = reader.take("next_batch")
    weighting = reader.take("gather") if reader.name == "gather" else None
    frozen, trained, scores = _forward(reader)
    smoothing = reader.take("smooth_labels") if reader.name == "smooth_labels" else None
    kind = reader.name
    loss = reader.take(*(f"{name}_loss" for name in LOSSES), "weighted_loss")
    left = _backward(reader, trained)
    frozen, trained = [*frozen, *trained[:left]], trained[left:]
    hidden = [*frozen, *trained]
    penalties = {
        name: reader.take(call) for name, call in (("reg", "l2_penalty"), ("l1", "l1_penalty")) if reader.name == call
    }
    clip = reader.take("clip_by_value") if reader.name == "clip_by_value" else None
    rule, updates, decays = _updates(reader)
    update = updates[0]
    advance = reader.take("advance") if reader.name == "advance" else None
    end = reader.take("record_step")
    if reader.name:
        raise Unfit(f"{reader.name} is not among what the kernel does")
    params = update["w"]
    if params.dtype != np.float32:
        raise Unfit(f"it computes in {params.dtype}, and the kernel in float32")
    if kind == "weighted_loss" and loss["name"] not in LOSSES:
        raise Unfit(f"it has the loss {loss['name']!r}")
    weights = [*(layer["w"] for _, layer in hidden), scores["w"]]
    net = Net(
        widths=(weights[0].shape[0], *(w.shape[1] for w in weights)),
        rows=batch["rows"].size,
        norm=FORWARD[hidden[0][0]] if hidden else 0,
        activation=hidden[0][1]["activation"] if hidden else "relu",
        rule=rule,
        loss=loss["name"] if kind == "weighted_loss" else kind.removesuffix("_loss"),
        x_type="float" if batch["shift"] is None else "unsigned char",
        rates=update["learning_rate"],
        offsets={},
        arrays={"params": params},
        frozen=len(frozen),
        before=(params.data.ptr - weights[0].data.ptr) // 4 if frozen else 0,
    )
    targets = loss["y"]
    if smoothing is not None:
        share = smoothing["smoothing"]
        net.values |= {"target_keep": 1 - share, "target_add": share / smoothing["num_classes"]}
        targets = smoothing["y"] if targets is smoothing["targets"] else None
    if weighting is not None:
        net.arrays["sample_weights"] = weighting["data"]
        if weighting["rows"] is not batch["rows"] or loss.get("weights") is not weighting["batch"]:
            raise Unfit("its samples' weights come from elsewhere")
    _data(net, batch, targets, end, ndarray)
    _parameters(net, weights, hidden, scores, updates[-1]["w"])
    _rates(net, updates, decays)
    role = roles_of(rule)
    net.values["constants"] = (*(update[name] for name in role.constants), 0, 0, 0)[:3]
    moments = [update[name] for name in role.moments]
    net.arrays |= {f"moment{i}": moment for i, moment in enumerate(moments, 1)}
    if advance is None:
        raise Unfit("no call counts the updates")
    net.arrays["step"] = advance["counters"]
    _dropout(net, trained, len(frozen))
    net.values["frozen_scale"] = hidden[0][1].get("scale", 1.0) if hidden else 1.0
    for name, penalty in penalties.items():
        net.values[name] = penalty["reg"]
        _check_all_layers("the penalty", penalty["weights"], params)
    if clip is not None:
        net.values["clip"] = clip["limit"]
    return net


def _forward(reader: Reader) -> tuple[list[tuple[str, dict]], list[tuple[str, dict]], dict]:
    """Return the frozen hidden layers with batch norm, all other hidden ones, and the last layer, read."""
    frozen: list[tuple[str, dict]] = []
    trained: list[tuple[str, dict]] = []
    while True:
        if reader.name == "affine_forward":
            affine = reader.take("affine_forward")
            _exact(affine)
            if reader.name != "batchnorm_inference":
                scores = affine
                break
            frozen.append(_frozen(reader, affine))
        else:
            trained.append(_fused(reader))
    hidden = [*frozen, *trained]
    activations = {layer["activation"] for _, layer in hidden}
    if not activations <= set(ACTIVATIONS):
        raise Unfit(f"its activation is {', '.join(sorted(activations))}")
    if len(activations) > 1:
        raise Unfit("its layers differ in their activation")
    if len({name for name, _ in hidden}) > 1:
        raise Unfit("its layers differ in their normalization")
    return frozen, trained, scores


def _fused(reader: Reader) -> tuple[str, dict]:
    """Read a layer that is trained, or frozen without batch norm: then nothing is dropped."""
    product = reader.take("matmul")
    _exact(product)
    name = reader.name
    layer = reader.take(*FORWARD) | {"w": product["w"]}
    if reader.name == "plain_dropout_forward":
        dropout = reader.take("plain_dropout_forward")
        layer |= {"keep_ratio": dropout["keep_ratio"], "rng": dropout["rng"], "plain_dropout": True}
    elif reader.name == "plain_dropout_inference":
        layer["scale"] = reader.take("plain_dropout_inference")["keep_ratio"]
    return name, layer


def _frozen(reader: Reader, affine: dict) -> tuple[str, dict]:
    """Read a layer in evaluation mode as if it were trained; "scale" is the factor of plain dropout on its units."""
    layer = reader.take("batchnorm_inference") | {"w": affine["w"], "b": affine["b"]}
    layer["activation"] = reader.take("activate")["activation"]
    if reader.name == "plain_dropout_inference":
        layer["scale"] = reader.take("plain_dropout_inference")["keep_ratio"]
    return "batchnorm_activation_dropout_forward", layer


def _exact(product: dict[str, Any]) -> None:
    """Check a product's precision: float32 may stand in for tf32, but not for bf16, which is meant for speed."""
    if product["precision"] not in (None, "tf32"):
        raise Unfit(f"its products are in {product['precision']}")


def _backward(reader: Reader, hidden: list[tuple[str, dict]]) -> int:
    """Check that the calls of the backward pass are those of these layers, in reverse order.

    Return how many of them, the lowest ones, it does not come to, because they are frozen.
    """
    left, goes_on = list(hidden), reader.take("affine_backward")["need_dx"]
    while left and goes_on:
        name, layer = left.pop()
        if layer.get("plain_dropout"):
            reader.take("dropout_backward")
        reader.take(name.replace("forward", "backward"))
        goes_on = reader.take("matmul_backward")["need_dx"]
    if goes_on or any(FORWARD[name] == 1 or layer["rng"] is not None for name, layer in left):
        raise Unfit("some of its layers are frozen")
    return len(left)


def _updates(reader: Reader) -> tuple[str, list[dict], list[dict]]:
    """Return the rule's name, and the calls that update groups of parameters and decay the matrices among them."""
    updates: list[dict] = []
    decays: list[dict] = []
    rule = ""
    while not updates or reader.name in ("decay_weights", rule):
        if reader.name == "decay_weights":
            decays.append(reader.take("decay_weights"))
        rule = rule or reader.name
        updates.append(reader.take(*([rule] if updates else RULES)))
    return rule, updates, decays


def _check_all_layers(what: str, array: Array, params: Array) -> None:
    """Check that an array begins where the parameters do. Raises Unfit: `what` acts on some layers only."""
    if array.data.ptr != params.data.ptr:
        raise Unfit(f"{what} is not of all layers")


def _data(net: Net, batch: dict, targets: Array, end: dict, ndarray: Any) -> None:
    X, y = batch["X"], batch["y"]
    targets_fit = y.ndim == 2 and y.dtype == np.float32 if net.loss in NUMERIC else y.ndim == 1 and y.dtype == np.int64
    if not (X.ndim == 2 and targets_fit and X.dtype in (np.float32, np.uint8)):
        raise Unfit(f"its data are {X.dtype} {X.shape} with targets {y.dtype} {y.shape}")
    if (X.dtype == np.uint8) is (batch["shift"] is None):
        raise Unfit(f"its batches are not preprocessed as {X.dtype} data are")
    if batch["cursor"].data.ptr != end["counters"].data.ptr or targets is not batch["targets"]:
        raise Unfit("its batches come from elsewhere")
    net.arrays |= {"x": X, "y": y, "order": batch["order"], "counters": end["counters"], "losses": end["losses"]}
    if batch["shift"] is not None:
        net.arrays |= {"shift": batch["shift"], "scale": batch["scale"]}
    net.values |= {"count": len(X), "slots": end["losses"].size, "rows": net.rows}
    if not all(isinstance(array, ndarray) and array.flags.c_contiguous for array in net.arrays.values()):
        raise Unfit("some of its arrays are not contiguous")


def _parameters(net: Net, weights: list[Array], hidden: list[tuple[str, dict]], scores: dict, last: Array) -> None:
    """Note where each tensor lies, in floats from the start of its flat buffer; `last` is the end of the buffer."""
    start = net.arrays["params"].data.ptr - 4 * net.before
    end = (last.data.ptr - start) // 4 + last.size

    def place(array: Array) -> int:
        at, left = divmod(array.data.ptr - start, 4)
        if left or not 0 <= at < end:
            raise Unfit("its parameters are not in one buffer")
        return at

    layers = [layer for _, layer in hidden]
    net.offsets = {
        "W_AT": [0, *(place(w) for w in weights)],
        "B_AT": [0, *(place(layer["b"]) for layer in [*layers, scores])],
    }
    for key, name in {"GAMMA_AT": "gamma", "BETA_AT": "beta"}.items():
        net.offsets[key] = [0, *(place(layer[name]) if net.norm else 0 for layer in layers), 0]
    if net.norm:
        net.values["eps"] = layers[0].get("eps", EPS)
    net.offsets |= {"MEAN_AT": [0] * (len(layers) + 2), "VAR_AT": [0] * (len(layers) + 2)}
    if net.norm == 1:
        running = [layer[name] for layer in layers for name in ("running_mean", "running_var")]
        if any(array is None for array in running):
            raise Unfit("its batch norm keeps no running statistics")
        first = min(running, key=lambda array: array.data.ptr)
        net.arrays["running"] = first
        for key, name in {"MEAN_AT": "running_mean", "VAR_AT": "running_var"}.items():
            net.offsets[key] = [0, *((layer[name].data.ptr - first.data.ptr) // 4 for layer in layers), 0]
        net.values["momentum"] = layers[-1].get("momentum", MOMENTUM)


def _rates(net: Net, updates: list[dict], decays: list[dict]) -> None:
    """Note where each group of parameters begins that has a rate of its own, and the decay of the matrices."""
    start = net.arrays["params"].data.ptr - 4 * net.before
    groups = [((update["w"].data.ptr - start) // 4, update["w"].size) for update in updates]
    net.rates_at = tuple(at for at, _ in groups)
    tensors = ("W_AT", "B_AT", "GAMMA_AT", "BETA_AT")
    trained = [at for name in tensors for at in net.offsets[name][net.frozen + 1 :] if at]  # 0: none, or the first W
    if not all(any(first <= at < first + size for first, size in groups) for at in trained):
        raise Unfit("some of its parameters are not updated")
    if any(update["learning_rate"].data.ptr != net.rates.data.ptr + 8 * i for i, update in enumerate(updates)):
        raise Unfit("its learning rates come from elsewhere")
    vectors = min(net.offsets["B_AT"][1:])
    matrices = [(at, min(size, vectors - at)) for at, size in groups if at < vectors]
    if decays:
        net.values["weight_decay"] = decays[0]["weight_decay"]
        if [((decay["w"].data.ptr - start) // 4, decay["w"].size) for decay in decays] != matrices:
            raise Unfit("the decay is not of all layers")


def _dropout(net: Net, hidden: list[tuple[str, dict]], frozen: int) -> None:
    """Check that dropout is the same in all layers, with the step's number from the optimizer's counter."""
    net.values |= {"threshold": keep_threshold(1.0), "keep_scale": 1.0}
    streams = [layer["rng"] for _, layer in hidden if layer["rng"] is not None and layer["keep_ratio"] != 1]
    if not streams:
        return
    ratios = {layer["keep_ratio"] for _, layer in hidden}
    if (
        len(streams) != len(hidden)
        or len(ratios) != 1
        or [s.layer for s in streams] != [frozen + i for i in range(1, len(hidden) + 1)]
    ):
        raise Unfit("its layers differ in their dropout")
    ratio, stream = ratios.pop(), streams[0]
    if not hasattr(stream.step, "data") or stream.step.data.ptr != net.arrays["step"].data.ptr:
        raise Unfit("its dropout does not follow the optimizer's steps")
    plain = "plain_dropout" in hidden[0][1]  # then units are not scaled in training, but in evaluation
    net.values |= {"threshold": keep_threshold(ratio), "keep_scale": 1.0 if plain else 1 / ratio}
    net.values |= {"seed": stream.key[0], "purpose": stream.key[1], "net": stream.net}
