"""The options of `fcnet train`: one table for the flags, the TOML files and the configuration that a run keeps."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from fcnet import defaults
from fcnet.choices import rows
from fcnet.errors import cut, either, shown, unknown


class CommaList(str):
    """Parse an option that joins texts by commas, relu,tanh or 3=0.1,4=0.5; elsewhere also a list or a table."""


# Groups of options, under whose titles --help lists them, in this order.
COMMON = "options"
DATA = "data"
NETWORK = "network"
START = "initial weights, layers of another run"
REGULARISATION = "regularisation"
STEPS = "learning rate, limits of a step"
MACHINE = "device, precision, checkpoints"
GROUPS = (COMMON, DATA, NETWORK, REGULARISATION, STEPS, START, MACHINE)


def option(
    group: str, default: Any, kind: type, help: str, *, names: Sequence[str] = (), metavar: str | None = None
) -> Any:
    """Return a field of `TrainOptions`.

    Args:
        group: one of `GROUPS`.
        default: its value if it is not given.
        kind: the type of a value.
        help: a line for --help, in which {} stands for `names`.
        names: what may be given, or some of it; a shell completes them.
        metavar: what --help calls a value; of one with FILE or FOLDER in it, a shell completes paths.
    """
    metadata = {
        "group": group,
        "kind": kind,
        "help": help.format(either(names)),
        "names": tuple(names),
        "metavar": _METAVARS.get(kind) if metavar is None else metavar,
    }
    if kind in (list, tuple):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


# Rows of the tables that say what there is of each kind.
RULES = rows("optim/rules.py", "RULES")
FULL_BATCH = rows("training/fullbatch.py", "FULL_BATCH")
ACTIVATIONS = rows("functional/activation.py", "ACTIVATIONS")
LOSSES = rows("functional/loss.py", "LOSSES")
DEFAULT_LOSS = "softmax"  # said by None, which tells it from a softmax that was asked for
SCHEMES = rows("nn/init.py", "SCHEMES")


def grouped(table: Mapping[str, Mapping[str, Any]], key: str, said: str = "{value} for {names}") -> str:
    """Return which rows say what of `key`: "0.01 for sgd or momentum, 0.001 for adam"; those that say nothing aside."""
    found: dict[Any, list[str]] = {}
    for name, row in table.items():
        if key in row:
            found.setdefault(row[key], []).append(name)
    return ", ".join(said.format(value=value, names=either(names)) for value, names in found.items())


_METAVARS = {str: "NAME", CommaList: "NAME", int: "N", float: "X", list: "N,N"}


@dataclass
class TrainOptions:
    """Hold the options of `fcnet train`; None means "the default of whatever takes it"."""

    see: ClassVar[str] = "fcnet train --help"

    data: str = option(
        COMMON,
        "digits",
        str,
        "digits, mnist, fashion-mnist, cifar10, spirals, an .npz file, or a table: .csv .tsv .txt .data [.gz] .parquet",
        names=("digits", "mnist", "fashion-mnist", "cifar10", "spirals"),
        metavar="NAME|FILE",
    )
    data_dir: str | None = option(
        DATA, None, str, "where the data files are (default: $FCNET_DATA, then the user cache)", metavar="FOLDER"
    )
    target: str | None = option(
        COMMON,
        None,
        CommaList,
        "the column of a table that holds the labels, or the numbers to predict (several: a,b): its name, or its "
        "number, 0 for the first and -1 for the last",
        metavar="NAME|NUMBER",
    )
    header: str | None = option(
        DATA, None, str, "whether a table's first row holds names, {} (default: found out)", names=("yes", "no")
    )
    sep: str | None = option(
        DATA, None, str, "between a table's cells: a character, tab or blank (default: found out)", metavar="SEP"
    )
    decimal: str | None = option(
        DATA, None, str, "a table's decimal sign, . or , (default: found out)", names=(".", ","), metavar="SIGN"
    )
    missing: str | None = option(
        DATA,
        None,
        CommaList,
        "what stands for a missing value, besides an empty cell, NA, N/A, nan, null and ?",
        metavar="WORD,WORD",
    )
    drop: str | None = option(DATA, None, CommaList, "columns of a table to leave out", metavar="NAME,NAME")
    only: str | None = option(DATA, None, CommaList, "the only columns of a table to use", metavar="NAME,NAME")
    ordinal: list[str] = option(
        DATA,
        (),
        tuple,
        "an ordered column and its levels from low to high; again for another column",
        metavar="NAME=LOW,HIGH",
    )
    preprocess: str | None = option(
        DATA,
        None,
        str,
        "{} (default: by data set, auto for tables)",
        names=("none", "scale", "center", "standardize", "robust", "auto"),
    )
    hidden: list[int] = option(
        COMMON, (100, 100), list, "widths of the hidden layers, such as 100,100; none for a linear net"
    )
    activation: str = option(
        NETWORK,
        "relu",
        CommaList,
        "{}; or one for each hidden layer, such as tanh,relu",
        names=tuple(ACTIVATIONS),
    )
    maxout_pieces: int | None = option(NETWORK, None, int, "pieces of each maxout unit (default: 2)")
    norm: str = option(NETWORK, "none", str, "{}", names=("none", "batchnorm", "layernorm"))
    dropout_keep: float = option(REGULARISATION, 1.0, float, "probability to keep a hidden unit; 1 for no dropout")
    dropout: str = option(
        REGULARISATION,
        "inverted",
        str,
        "inverted (scaled while training) or plain (scaled while evaluating)",
        names=("inverted", "plain"),
    )
    loss: str | None = option(
        COMMON,
        None,
        str,
        f"{grouped(LOSSES, 'targets', '{names} for {value}')} (default: {DEFAULT_LOSS})",
        names=tuple(LOSSES),
    )
    label_smoothing: float = option(
        REGULARISATION, 0.0, float, "share of each softmax target spread evenly over the classes"
    )
    reg: float | None = option(
        REGULARISATION,
        None,
        float,
        f"L2 strength (default: without --epochs {defaults.L2:g} / training samples, else 0)",
    )
    reg_l1: float = option(REGULARISATION, 0.0, float, "L1 strength")
    init: str | None = option(
        START,
        None,
        str,
        f"{{}} (default: {grouped(ACTIVATIONS, 'init')})",
        names=tuple(SCHEMES),
    )
    weight_scale: float | None = option(
        START, None, float, "standard deviation of the initial weights, instead of --init"
    )
    optimizer: str = option(
        COMMON,
        defaults.UPDATE_RULE,
        str,
        "{}",
        names=(*RULES, *FULL_BATCH),
    )
    lr: float | None = option(COMMON, None, float, f"learning rate (default: {grouped(RULES, 'learning_rate')})")
    lr_decay: float = option(STEPS, 1.0, float, "factor on the learning rate after each epoch")
    schedule: str | None = option(
        STEPS,
        None,
        str,
        f"of the learning rate: {{}} (default: {defaults.SCHEDULE}, falling late, without --epochs, --lr-decay)",
        names=("constant", "step", "exponential", "inverse", "cosine", "flat_cosine", "warmup"),
    )
    schedule_per: str | None = option(
        STEPS, None, str, "what schedules and warm-up count: {} (default: epoch)", names=("epoch", "step")
    )
    schedule_every: int | None = option(STEPS, None, int, "step: the rate falls each time after so many")
    schedule_factor: float | None = option(STEPS, None, float, "step: what the rate is multiplied by (default: 0.1)")
    schedule_decay: float | None = option(STEPS, None, float, "exponential, inverse: how fast the rate falls")
    schedule_total: int | None = option(
        STEPS, None, int, "cosine, flat_cosine: from where on the rate stays low (default: the end)"
    )
    schedule_floor: float | None = option(
        STEPS, None, float, "cosine, flat_cosine: the share of the rate that stays (default: 0, 0.02)"
    )
    warmup: int | None = option(STEPS, None, int, "so many smaller, rising rates come first")
    weight_decay: float | None = option(
        REGULARISATION,
        None,
        float,
        f"decoupled weight decay (default: {grouped(RULES, 'weight_decay')}, else 0)",
    )
    clip_norm: float | None = option(STEPS, None, float, "longest gradient, all parameters together")
    clip_value: float | None = option(STEPS, None, float, "largest element of a gradient")
    max_norm: float | None = option(REGULARISATION, None, float, "longest vector of weights into a unit")
    from_: str | None = option(
        START, None, str, "a run whose lower layers and preprocessing to start from", metavar="RUN"
    )
    freeze: str | None = option(
        START, None, CommaList, "layers that are not trained, the lowest ones, such as 1,2", metavar="N,N"
    )
    lr_mult: str | None = option(
        START, None, CommaList, "factors on the learning rate of layers, such as 3=0.1,4=0.5", metavar="N=X"
    )
    batch_size: int | None = option(
        COMMON, None, int, f"samples per step (default: {defaults.BATCH_SIZE}, or all if there are fewer)"
    )
    epochs: int | None = option(
        COMMON,
        None,
        int,
        f"passes over the training data (default: enough for {defaults.STEPS:,} steps, at least {defaults.EPOCHS})",
    )
    patience: int | None = option(
        REGULARISATION,
        None,
        int,
        "stop after so many epochs without a better validation accuracy (default: without --epochs, three tenths of "
        "them)",
    )
    metric: str | None = option(
        COMMON,
        None,
        str,
        "what the best epoch is chosen by (default: accuracy, of numbers rmse): accuracy, balanced_accuracy, f1, "
        "f1_macro, roc_auc or log_loss; rmse, mae or r2",
        names=("accuracy", "balanced_accuracy", "f1", "f1_macro", "roc_auc", "log_loss", "rmse", "mae", "r2"),
    )
    class_weight: str | None = option(
        COMMON,
        None,
        CommaList,
        "balanced, so that rare classes count as much as others, or weights such as no=1,yes=5",
        names=("balanced",),
        metavar="NAME=X",
    )
    threshold: str | None = option(
        COMMON,
        None,
        CommaList,
        "of two classes: the probability above which the second is predicted (default: 0.5), or auto, to choose it on "
        "the validation part by --metric, else by balanced accuracy",
        names=("auto",),
        metavar="X|auto",
    )
    cv: int | None = option(
        COMMON,
        None,
        int,
        "cross-validation: each of so many folds is the test part of a training; that of all rows is kept",
        metavar="K",
    )
    seed: int = option(COMMON, 0, int, "of weights, shuffles and dropout masks")
    device: str = option(MACHINE, "auto", str, "auto, cpu, cuda or cuda:N", names=("auto", "cpu", "cuda"))
    dtype: str = option(MACHINE, "float32", str, "{}", names=("float32", "float64"))
    precision: str | None = option(
        MACHINE, None, str, "of matrix products on a CUDA GPU: {} (default: as dtype)", names=("tf32", "bf16")
    )
    checkpoint_every: str = option(
        MACHINE,
        "60s",
        CommaList,
        "how often fcnet resume has something to go on from: steps, or a time (60s, 5m, 1h)",
        metavar="STEPS|TIME",
    )
    keep: int = option(MACHINE, 2, int, "checkpoints that stay, the last ones")
    checkpoints: bool = option(MACHINE, True, bool, "write checkpoints")
    on_nonfinite: str = option(
        STEPS,
        "stop",
        str,
        "if the loss becomes NaN or infinite: {} (to the last checkpoint, with half the learning rate)",
        names=("stop", "rollback"),
    )
    out: str | None = option(COMMON, None, str, "run directory (default: a fresh runs/NAME-0001)", metavar="FOLDER")
    report: bool = option(
        COMMON, False, bool, "write report.html, however long it takes (default: if it takes up to two seconds)"
    )
    force: bool = option(COMMON, False, bool, "replace the run in --out")


TRAIN_ALONE = ("cv", "report")  # what no other command that trains can do
_NOT_SAVED = ("out", "force", "report")  # where a run went is not part of how it was made


# What Python calls the options that have another name here.
ARGUMENTS = {
    "hidden_dims": "hidden",
    "num_epochs": "epochs",
    "optim_config": "lr",
    "learning_rate": "lr",
    "normalization": "norm",
    "dropout_keep_ratio": "dropout_keep",
    "update_rule": "optimizer",
    "schedule_warmup": "warmup",
    "lr_multipliers": "lr_mult",
    "mc_samples": "mc_samples",  # of predict
}

# A remedy in Python -> on the command line, where that is more than another spelling.
_REMEDIES = {
    "data_dir= or $FCNET_DATA": "--data-dir or $FCNET_DATA",
    "mirror=URL": "--mirror URL",
    "loss 'mse' or targets='numbers'": "--loss mse",
    "loss 'softmax' or targets='classes'": "--loss softmax",
    "loss 'softmax' or 'svm'": "--loss softmax or --loss svm",
}


def in_users_words(
    message: str, file: str | None = None, from_file: Container[str] = (), known: Container[str] | None = None
) -> str:
    """Return a message that names arguments of Python by their flags, or by the file they were set in.

    `known` are the options that there is a flag for; None: all of `TrainOptions`. What is quoted or a path, and a list
    of valid names, is left as it is: it may be the user's own.

    >>> in_users_words("num_epochs: expected 1 or more, got 0")
    '--epochs: expected 1 or more, got 0'
    >>> in_users_words("num_epochs: expected 1 or more, got 0", "a.toml", ["epochs"])
    'config a.toml: epochs: expected 1 or more, got 0'
    >>> in_users_words("out: runs/a is not empty; leave weight_scale out, or use init='he' or force=True")
    '--out: runs/a is not empty; leave --weight-scale out, or use --init he or --force'
    >>> in_users_words("data/a.csv: drop: expected other columns than the target; got 'y'")
    "data/a.csv: --drop: expected other columns than the target; got 'y'"
    """
    known = {field.name for field in dataclasses.fields(TrainOptions)} if known is None else known

    def spelled(name: str) -> str | None:
        name = ARGUMENTS.get(name, name)
        if name not in known:
            return None
        return flag(name) if file is not None and name in from_file else f"--{flag(name)}"

    for python, command_line in _REMEDIES.items():
        message = message.replace(python, command_line)
    message = re.sub(r"\bleave (\w+) out\b", lambda found: f"leave {spelled(found[1]) or found[1]} out", message)
    if (of_table := re.match(r".+?: (?=(target|drop|only|ordinal): )", message)) is not None:
        return of_table[0] + in_users_words(message[of_table.end() :], file, from_file, known)
    message = re.sub(r"^schedule_config\['(\w+)'\]", r"schedule_\1", message)
    begin = re.match(r"(\w+)(?:\[[^]]*\])?(?: and (\w+))?(?=: )|(vary)(?= [\w-]+: )", message)
    names = [spelled(name) for name in begin.groups() if name] if begin else []
    flags = [name for name in names if name is not None]
    if begin is None:  # then a word alone may be a name of the user's own
        return _mentions(message, spelled, _SET)
    if len(flags) < len(names):
        return _mentions(message, spelled)
    rest = _mentions(message[begin.end() :], spelled)
    if not any(name.startswith("--") for name in flags):
        return f"config {file}: {' and '.join(flags)}{rest}"
    return f"{' and '.join('--' + name.removeprefix('--') for name in flags)}{rest}"


# What a message may say, the first that fits: valid names; an argument with its value; a quotation; an argument alone.
_SET = re.compile(
    r"expected one of .*?(?=[;,] got )"
    r"|(?<![\w./\\-])(?P<given>\w+)=(?P<value>'[^']*'|[\w.+-]++)(?![:|])"
    r"|(?<!\w)'[^']*'"
    r"|(?P<alone>(?!))"
)
_SAID = re.compile(_SET.pattern.replace("(?!)", r"(?<![\w./\\-])[a-z]\w*_\w+(?![\w./\\(:=\[-])"))


def _mentions(message: str, spelled: Callable[[str], str | None], said: re.Pattern[str] = _SAID) -> str:
    """Return the message with `spelled` for each argument in it; a flag already named beside one is said once."""

    def replaced(found: re.Match[str]) -> str:
        name = spelled(found["given"] or found["alone"] or "")
        if name is None or found["value"] in ("False", "None"):
            return found[0]
        if found["value"] is None or found["value"] == "True":
            return name
        return f"{name} {found['value'].strip(chr(39))}" if name.startswith("--") else f"{name}={found['value']}"

    return re.sub(r"(--[\w-]+)( \S+)? \(\1\)", r"\1\2", said.sub(replaced, message))


def flag(name: str) -> str:
    """Return the spelling of an option on the command line and in TOML: batch_size -> batch-size, from_ -> from."""
    return name.rstrip("_").replace("_", "-")


def names_of(option: str) -> tuple[str, ...]:
    """Return what a shell completes an option of `TrainOptions` to."""
    return TrainOptions.__dataclass_fields__[option].metadata["names"]


def merged(*layers: Mapping[str, Any]) -> TrainOptions:
    """Return options from the defaults and these, later ones first; names as in the dataclass."""
    values: dict[str, Any] = {}
    for layer in layers:
        values |= layer
    return TrainOptions(**values)


def read_toml(path: str | Path, table: type[TrainOptions] = TrainOptions) -> dict[str, Any]:
    """Return the options of `table` in a TOML file, by name, checked for names and types.

    Raises:
        FileNotFoundError, ValueError: as the message says.
    """
    import tomllib

    path = Path(path)
    try:
        given = tomllib.loads(path.read_bytes().decode("utf-8-sig"))  # some editors begin files with a BOM
    except FileNotFoundError:
        raise FileNotFoundError(f"config: no such file: {path}") from None
    except IsADirectoryError:
        raise IsADirectoryError(f"config: expected a TOML file, got the folder {path}; name the file in it") from None
    except RecursionError:
        raise ValueError(f"config: {path}: expected options and values, got lists nested without end") from None
    except ValueError as error:  # not TOML, not UTF-8, or a number of thousands of digits
        long = "Exceeds the limit" in str(error)
        why = "a number of thousands of digits" if long else error
        raise ValueError(f"config: {path} is not valid TOML: {why}") from None
    fields = {flag(field.name): field for field in dataclasses.fields(table)}
    values: dict[str, Any] = {}
    for key, value in given.items():
        field = fields.get(flag(key))
        if isinstance(value, dict) and (field is None or field.metadata["kind"] is not CommaList):
            raise ValueError(
                f"config: {path}: expected options only, got the section [{cut(key)}]; sections are not used, "
                "leave it out"
            )
        if flag(key) == IN_PYTHON:
            raise ValueError(
                f"config: {path}: this training was set up in Python, with {value}, which no option says; "
                f"do it there again, or leave the line {IN_PYTHON} out for another training"
            )
        if field is None:
            raise unknown(f"config: {path}", key, fields, see=table.see, meant=ARGUMENTS.get(key.replace("-", "_")))
        if field.name in values:
            raise ValueError(f"config: {path}: {flag(key)}: expected it once, got it with - and with _; leave one out")
        values[field.name] = typed(f"config: {path}: {key}", value, field.metadata["kind"])
    return values


def parse_widths(text: str) -> list[int]:
    """Return "100,100" as [100, 100]; "none" or nothing as []. Raises ValueError."""
    if text.strip().lower() in ("", "none"):
        return []
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"expected widths such as 100,100, got {text!r}") from None


def to_list(names: str | list[str]) -> list[str]:
    """Return "tanh,relu" as ["tanh", "relu"]; a list as it is."""
    return [name.strip() for name in names.split(",")] if isinstance(names, str) else names


def parsed(where: str, text: str, kind: type) -> Any:
    """Return the value of this kind that a text spells. Raises ValueError that begins with `where`."""
    if kind is bool:
        value: Any = {"true": True, "false": False}.get(text.lower(), text)
    elif kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            value = text
    else:
        value = text
    return typed(where, value, kind)


def typed(where: str, value: Any, kind: type) -> Any:
    """Return `value` as an option of this kind holds it. Raises ValueError that begins with `where`."""
    if kind is list and isinstance(value, str):
        try:
            return parse_widths(value)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    if kind is CommaList:
        parts = [f"{key}={part}" for key, part in value.items()] if isinstance(value, Mapping) else value
        parts = list(parts) if isinstance(parts, list | tuple) else [parts]
        if all(isinstance(part, str | int | float) and not isinstance(part, bool) for part in parts):
            return ",".join(map(str, parts))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ValueError(f"{where}: expected a number that a float holds, got {shown(value)}") from None
    if kind is tuple and isinstance(value, list) and all(isinstance(part, str) for part in value):
        return value
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{where}: expected {_KINDS[kind]}, got {shown(value)}")
    if kind is int and isinstance(value, int) and abs(value) >= 2**64:
        raise ValueError(f"{where}: expected an integer of at most 64 bits, got one of {value.bit_length()}")
    return value


_KINDS = {
    str: "a string",
    CommaList: "a string or a list",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    list: "a list of widths such as [100, 100]",
    tuple: "a list of strings",
}


def parse_layers(text: str) -> list[int]:
    """Return "1,2" as [1, 2]. Raises ValueError."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"freeze: expected layers such as 1,2, got {text!r}") from None


def parse_multipliers(text: str) -> dict[int, float]:
    """Return "3=0.1,4=0.5" as {3: 0.1, 4: 0.5}. Raises ValueError."""
    pairs = [part.split("=") for part in text.split(",")]
    try:
        multipliers = {int(layer): float(factor) for layer, factor in pairs}
    except ValueError:
        multipliers = {}
    if len(multipliers) < len(pairs):
        raise ValueError(f"lr_mult: expected layers, each once, with factors, such as 3=0.1,4=0.5, got {text!r}")
    return multipliers


def parse_class_weight(text: str) -> str | dict[str, float]:
    """Return "balanced" as it is, "no=1,yes=5" as {"no": 1.0, "yes": 5.0}. Raises ValueError."""
    if text == "balanced":
        return text
    pairs = [part.rpartition("=") for part in text.split(",")]
    try:
        weights = {name.strip(): float(weight) for name, _, weight in pairs}
    except ValueError:
        weights = {}
    if len(weights) < len(pairs) or "" in weights:
        raise ValueError(
            f"class_weight: expected balanced, or classes, each once, with weights, such as no=1,yes=5, got {text!r}"
        )
    return weights


def parse_threshold(text: str) -> str | float:
    """Return "auto" as it is, "0.3" as 0.3. Raises ValueError."""
    try:
        return text if text == "auto" else float(text)
    except ValueError:
        raise ValueError(f"threshold: expected a probability between 0 and 1, or auto, got {text!r}") from None


_SCHEDULES = ("per", "every", "factor", "decay", "total", "floor")


def schedule_of(options: TrainOptions) -> dict[str, Any]:
    """Return `Solver`'s schedule and schedule_config; a warm-up alone is a schedule too. Raises ValueError."""
    config = {name: getattr(options, f"schedule_{name}") for name in _SCHEDULES} | {"warmup": options.warmup}
    config = {name: value for name, value in config.items() if value is not None}
    schedule = "warmup" if options.schedule is None and options.warmup is not None else options.schedule
    if config and schedule is None:
        raise ValueError(f"schedule_{next(iter(config))}: expected it with a schedule, got none; name one as well")
    return {"schedule": schedule, "schedule_config": config or None}


def to_save(options: TrainOptions) -> dict[str, Any]:
    """Return what a run directory's configuration holds, in the spelling of TOML."""
    return {
        flag(field.name): getattr(options, field.name)
        for field in dataclasses.fields(options)
        if field.name not in _NOT_SAVED
        and getattr(options, field.name) is not None
        and (field.metadata["kind"] is not tuple or getattr(options, field.name))  # none of what may come again
    }


#: The key of what no option says of a training set up in Python; a configuration that has it is refused.
IN_PYTHON = "made-in-python"


def of_network(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of what a network's layers are like, from its `config`."""
    return {
        "hidden": list(config["hidden_dims"]),
        "activation": ",".join(to_list(config["activation"])),
        "maxout_pieces": config["maxout_pieces"],
        "norm": config["normalization"] or "none",
        "dropout_keep": config["dropout_keep_ratio"],
        "dropout": config["dropout"],
        "dtype": config["dtype"],
    }
