"""The options of `fcnet train`: one table for the flags, the TOML files and the configuration that a run keeps."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcnet.errors import unknown

if TYPE_CHECKING:
    from fcnet.solver import Solver


def option(default: Any, kind: type, help: str) -> Any:
    """A field of `TrainOptions`: its default, the type of a value, a line for --help."""
    metadata = {"kind": kind, "help": help}
    if kind is list:
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass
class TrainOptions:
    """What `fcnet train` can be told; None means "the default of whatever takes it"."""

    data: str = option("digits", str, "digits, mnist, fashion-mnist, cifar10, spirals, or a .npz or .csv file")
    data_dir: str | None = option(None, str, "where the data files are (else $FCNET_DATA, then the user cache)")
    target: str | None = option(None, str, "the column of a CSV file that holds the labels")
    preprocess: str | None = option(None, str, "none, scale, center or standardize (default: by data set)")
    hidden: list[int] = option((100, 100), list, "widths of the hidden layers, such as 100,100; none for a linear net")
    activation: str = option("relu", str, "of the hidden layers: relu")
    norm: str = option("none", str, "none, batchnorm or layernorm")
    dropout_keep: float = option(1.0, float, "probability to keep a hidden unit; 1 for no dropout")
    loss: str = option("softmax", str, "softmax or svm")
    reg: float = option(0.0, float, "L2 strength")
    init: str | None = option(None, str, "zeros, normal, xavier or he (default: what suits the activation)")
    weight_scale: float | None = option(None, float, "standard deviation of the initial weights, instead of --init")
    optimizer: str = option("adam", str, "sgd, momentum, rmsprop or adam")
    lr: float | None = option(None, float, "learning rate (default: the optimizer's)")
    lr_decay: float = option(1.0, float, "factor on the learning rate after each epoch")
    batch_size: int = option(100, int, "samples per step")
    epochs: int = option(20, int, "passes over the training data")
    patience: int | None = option(None, int, "stop after so many epochs without a better validation accuracy")
    seed: int = option(0, int, "of weights, shuffles and dropout masks")
    device: str = option("auto", str, "auto, cpu, cuda or cuda:N")
    dtype: str = option("float32", str, "float32 or float64")
    out: str | None = option(None, str, "run directory (default: a fresh runs/NAME-0001)")
    force: bool = option(False, bool, "replace the run in --out")


_NOT_SAVED = ("out", "force")  # where a run went is not part of how it was made


# What Python calls the options that have another name here.
ARGUMENTS = {
    "hidden_dims": "hidden",
    "num_epochs": "epochs",
    "optim_config": "lr",
    "learning_rate": "lr",
    "normalization": "norm",
    "dropout_keep_ratio": "dropout_keep",
    "update_rule": "optimizer",
}


def in_users_words(message: str, file: str | None, from_file: Container[str]) -> str:
    """A message that begins with a Python argument, with the flag instead, or with the file it was set in.

    >>> in_users_words("num_epochs: expected 1 or more, got 0", None, ())
    '--epochs: expected 1 or more, got 0'
    >>> in_users_words("num_epochs: expected 1 or more, got 0", "a.toml", ["epochs"])
    'config a.toml: epochs: expected 1 or more, got 0'
    """
    begin = re.match(r"(\w+)(?:\[[^]]*\])?(?: and (\w+))?: ", message)
    if begin is None:
        return message
    names = [ARGUMENTS.get(name, name) for name in begin.groups() if name]
    if not {field.name for field in dataclasses.fields(TrainOptions)}.issuperset(names):
        return message
    rest = message[begin.end() :]
    if file is not None and all(name in from_file for name in names):
        return f"config {file}: {' and '.join(map(flag, names))}: {rest}"
    return f"{' and '.join('--' + flag(name) for name in names)}: {rest}"


def flag(name: str) -> str:
    """The spelling of an option on the command line and in TOML: batch_size -> batch-size."""
    return name.replace("_", "-")


def merged(*layers: Mapping[str, Any]) -> TrainOptions:
    """Options from the defaults and these, later ones first; names as in the dataclass."""
    values: dict[str, Any] = {}
    for layer in layers:
        values |= layer
    return TrainOptions(**values)


def read_toml(path: str | Path) -> dict[str, Any]:
    """The options in a TOML file, by name, checked for names and types.

    Raises:
        FileNotFoundError, ValueError: as the message says.
    """
    import tomllib

    path = Path(path)
    try:
        table = tomllib.loads(path.read_bytes().decode("utf-8-sig"))  # some editors begin files with a BOM
    except FileNotFoundError:
        raise FileNotFoundError(f"config: no such file: {path}") from None
    except IsADirectoryError:
        raise IsADirectoryError(f"config: expected a TOML file, got the folder {path}; name the file in it") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"config: {path} is not valid TOML: {error}") from None
    fields = {flag(field.name): field for field in dataclasses.fields(TrainOptions)}
    values: dict[str, Any] = {}
    for key, value in table.items():
        field = fields.get(flag(key))
        if isinstance(value, dict):
            raise ValueError(
                f"config: {path}: expected options only, got the section [{key}]; sections are not used, leave it out"
            )
        if field is None:
            raise unknown(f"config: {path}", key, fields)
        if field.name in values:
            raise ValueError(f"config: {path}: {flag(key)}: expected it once, got it with - and with _; leave one out")
        values[field.name] = _typed(f"config: {path}: {key}", value, field.metadata["kind"])
    return values


def parse_widths(text: str) -> list[int]:
    """ "100,100" as [100, 100]; "none" or nothing as []. Raises ValueError."""
    if text.strip().lower() in ("", "none"):
        return []
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"expected widths such as 100,100, got {text!r}") from None


def _typed(where: str, value: Any, kind: type) -> Any:
    if kind is list and isinstance(value, str):
        try:
            return parse_widths(value)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{where}: expected {_KINDS[kind]}, got {value!r}")
    return value


_KINDS = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    list: "a list of widths such as [100, 100]",
}


def to_save(options: TrainOptions) -> dict[str, Any]:
    """What a run directory's configuration holds, in the spelling of TOML."""
    return {
        flag(field.name): getattr(options, field.name)
        for field in dataclasses.fields(options)
        if field.name not in _NOT_SAVED and getattr(options, field.name) is not None
    }


def from_solver(solver: Solver) -> dict[str, Any]:
    """The options of a training that was set up in Python, as `to_save` gives them."""
    model, config = solver.model, solver.model.config
    return to_save(
        TrainOptions(
            data=solver.data.name,
            preprocess=solver.preprocess,
            hidden=list(model.hidden_dims),
            activation=config["activation"],
            norm=config["normalization"] or "none",
            dropout_keep=config["dropout_keep_ratio"],
            loss=config["loss"],
            reg=config["reg"],
            init=config["init"],
            weight_scale=config["weight_scale"],
            optimizer=solver.optimizer.rule,
            lr=solver.first_learning_rate,
            lr_decay=solver.lr_decay,
            batch_size=solver.batch_size,
            epochs=solver.num_epochs,
            patience=solver.patience,
            seed=solver.seed,
            device=model.device,
            dtype=config["dtype"],
        )
    )
