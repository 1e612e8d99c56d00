"""The options of `fcnet train` that repeat a training set up in Python: the content of its config.toml."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fcnet.data import Dataset
from fcnet.errors import counted
from fcnet.nn.model import FullyConnectedNet
from fcnet.runs.options import TrainOptions, of_network, to_save
from fcnet.training.fullbatch import FullBatch
from fcnet.training.updates import UpdateStep

Method = UpdateStep | FullBatch


def configuration(model: FullyConnectedNet, data: Dataset, method: Method, **others: Any) -> dict[str, Any]:
    """Return the options as `to_save` gives them; `others` are those that network, data and method do not hold."""
    config = model.config
    return to_save(
        TrainOptions(
            data=data.name,
            **of_network(config),
            **{name: config[name] for name in ("loss", "label_smoothing", "reg", "reg_l1", "init", "weight_scale")},
            **(_of_updates(method) if isinstance(method, UpdateStep) else {}),
            freeze=",".join(map(str, model.frozen)) or None,
            device=model.device,
            precision=model.precision,
            **others,
        )
    )


def python_only(model: FullyConnectedNet, data: Dataset, method: Method, *, seed: int, steps: int) -> list[str]:
    """Return what influences a training and no option of `fcnet train` says; `steps` were made before it began."""
    found = []
    if model.config["seed"] != seed:
        found.append(f"seed {model.config['seed']} of the network")
    rule = method.optimizer if isinstance(method, UpdateStep) else method
    changed: Mapping[str, float] = dict(rule.config.items() - rule.defaults.items())
    found += [f"{name} {value:g}" for name, value in sorted(changed.items()) if name != "learning_rate"]
    if data.sample_weight is not None:
        found.append("weights of the samples")
    if steps:
        found.append(f"{counted(steps, 'step')} made before")
    else:
        fresh = FullyConnectedNet(**model.config, device="cpu").params
        if any((model.backend.to_numpy(model.params[name]) != fresh[name]).any() for name in fresh):
            found.append("parameters that are not the network's first ones")
    return found


def _of_updates(updates: UpdateStep) -> dict[str, Any]:
    """Return the options of how mini-batch gradients change the parameters."""
    schedule = dict(updates.schedule_config or {})
    return {
        "lr": updates.first_learning_rate,
        "lr_decay": updates.lr_decay,
        "schedule": updates.schedule_name,
        "warmup": schedule.pop("warmup", None),
        **{f"schedule_{name}": value for name, value in schedule.items()},
        "weight_decay": updates.optimizer.weight_decay,
        "clip_norm": updates.clip_norm,
        "clip_value": updates.clip_value,
        "max_norm": updates.max_norm,
        "lr_mult": ",".join(f"{layer}={factor!r}" for layer, factor in updates.lr_multipliers.items()) or None,
    }
