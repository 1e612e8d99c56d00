"""From the options of `fcnet train` to data, network and Solver."""

from __future__ import annotations

import re
from pathlib import Path

from fcnet.data import Dataset, inputs
from fcnet.data.folds import all_rows
from fcnet.data.labelled_table import LabelledTable
from fcnet.data.loading import load_rows as load_dataset
from fcnet.data.table import TableChoices, is_table_file
from fcnet.errors import counted, unknown
from fcnet.nn.model import NORMALIZATIONS, FullyConnectedNet, load
from fcnet.nn.objective import kind_of_targets
from fcnet.nn.transfer import copy_layers
from fcnet.runs.options import (
    DEFAULT_LOSS,
    TrainOptions,
    parse_class_weight,
    parse_layers,
    parse_multipliers,
    parse_threshold,
    schedule_of,
    to_list,
    to_save,
)
from fcnet.runs.rundir import RunDirectory
from fcnet.training.solver import Solver


def load_data(options: TrainOptions) -> Dataset:
    """Return the data set that the options name, with `cv` that of all rows."""
    return data_of(options, load_rows(options))


def data_of(options: TrainOptions, rows: Dataset | LabelledTable) -> Dataset:
    """Return what is trained on, of what `load_rows` returned."""
    if isinstance(rows, Dataset):
        dataset = rows if options.cv is None else all_rows(rows)
    else:
        dataset = rows.split(seed=0) if options.cv is None else all_rows(rows)
        rows.tell(dataset)
    if options.loss == "bce":
        choices, plan = _choices(options), None if isinstance(rows, Dataset) else rows.plan
        inputs.check_probabilities(
            options.data, options.target, (y for _, y in dataset.splits().values()), choices, plan
        )
    return dataset


def load_rows(options: TrainOptions) -> Dataset | LabelledTable:
    """Return the data set that the options name, or the table before anything is learned from its columns.

    The name of a file becomes its whole path. With `from_`, a table's columns become what they are to that run.
    """
    if inputs.is_file(options.data) and Path(options.data).is_file():
        options.data = str(Path(options.data).resolve())  # so that the run can be made again from anywhere
    targets = None if options.loss is None else kind_of_targets(options.loss)
    if targets == "numbers" and not inputs.is_file(options.data):
        raise ValueError(
            f"loss and data: expected a table or an .npz file of numbers to predict with loss {options.loss!r}, "
            f"got {options.data}, which has classes"
        )
    choices, plan = _choices(options), None
    if options.from_ is not None and is_table_file(Path(options.data)):
        plan = load(str(options.from_), device="cpu").plan
    given = [name for name in choices.given if name != "sep"]
    if plan is not None and given:
        raise ValueError(
            f"{given[0]} and from_: expected one of them, for the run to start from says what becomes of a table's "
            f"columns, got {given[0]}={getattr(options, given[0])!r}; leave it out"
        )
    found = load_dataset(options.data, options.data_dir, options.target, 0, targets, choices, plan)
    if plan is not None and isinstance(found, LabelledTable):
        for column in plan.used:
            if column.name in found.targets:
                raise ValueError(
                    f"target and from_: expected a column that is no input of the run to start from, got {column.name}"
                )
    return found


def _choices(options: TrainOptions) -> TableChoices:
    names = ("header", "sep", "decimal", "missing", "drop", "only", "ordinal")
    return TableChoices.of(**{name: getattr(options, name) for name in names})


def make_solver(
    options: TrainOptions, dataset: Dataset, *, verbose: bool, directory: RunDirectory | None = None
) -> Solver:
    """Return the network and Solver that the options ask for, with a run directory.

    Raises:
        ValueError, TypeError: naming the option.
    """
    if directory is None:
        directory = (
            RunDirectory.numbered(dataset.name)
            if options.out is None
            else RunDirectory(options.out, force=options.force)
        )
    options.loss = options.loss or DEFAULT_LOSS
    directory.config = to_save(options)
    return make_solver_without_run(options, dataset, directory, verbose=verbose)


def make_solver_without_run(
    options: TrainOptions, dataset: Dataset, directory: RunDirectory | None = None, *, verbose: bool = False
) -> Solver:
    """Make a Solver as `make_solver` does, but write nothing unless a directory is given."""
    if options.norm not in ("none", *NORMALIZATIONS):
        raise unknown("norm", options.norm, ("none", *NORMALIZATIONS))
    try:
        model = _model(options, dataset)
    except (MemoryError, OverflowError, ValueError) as error:
        if isinstance(error, ValueError) and not re.search("Maximum allowed|too (big|large)", str(error)):
            raise
        widths, pieces = ",".join(map(str, options.hidden)), options.maxout_pieces
        names, of, remedy = "hidden", "", "narrower ones"
        if pieces is not None:
            names, of, remedy = "hidden and maxout_pieces", f" of {pieces} pieces", "narrower ones, or fewer pieces"
        raise ValueError(
            f"{names}: expected layers that fit into memory, got {widths}{of} for "
            f"{counted(dataset.input_dim, 'input')}; choose fewer or {remedy}"
        ) from None
    if options.from_ is not None:
        _start_from(options, model, dataset)
    if options.freeze:
        model.freeze(parse_layers(options.freeze))
    return Solver(
        model,
        dataset,
        update_rule=options.optimizer,
        optim_config=None if options.lr is None else {"learning_rate": options.lr},
        lr_decay=options.lr_decay,
        **schedule_of(options),
        lr_multipliers=None if options.lr_mult is None else parse_multipliers(options.lr_mult),
        weight_decay=options.weight_decay,
        clip_norm=options.clip_norm,
        clip_value=options.clip_value,
        max_norm=options.max_norm,
        batch_size=options.batch_size,
        num_epochs=options.epochs,
        patience=options.patience,
        metric=options.metric,
        threshold=None if options.threshold is None else parse_threshold(options.threshold),
        class_weight=None if options.class_weight is None else parse_class_weight(options.class_weight),
        preprocess=options.preprocess,
        seed=options.seed,
        verbose=verbose,
        out=directory,
        checkpoint_every=options.checkpoint_every if options.checkpoints else None,
        keep=options.keep,
        on_nonfinite=options.on_nonfinite,
    )


def _model(options: TrainOptions, dataset: Dataset) -> FullyConnectedNet:
    return FullyConnectedNet(
        options.hidden,
        dataset.input_dim,
        dataset.num_classes,
        activation=to_list(options.activation) if "," in options.activation else options.activation,
        maxout_pieces=options.maxout_pieces,
        loss=options.loss or DEFAULT_LOSS,
        label_smoothing=options.label_smoothing,
        normalization=None if options.norm == "none" else options.norm,
        dropout_keep_ratio=options.dropout_keep,
        dropout=options.dropout,
        reg=options.reg,
        reg_l1=options.reg_l1,
        init=options.init,
        weight_scale=options.weight_scale,
        dtype=options.dtype,
        precision=options.precision,
        seed=options.seed,
        device=options.device,
    )


def _start_from(options: TrainOptions, model: FullyConnectedNet, dataset: Dataset) -> None:
    """Copy the first layers of the run in --from into the model. Raises ValueError: there are none that fit."""
    if options.preprocess is not None:
        raise ValueError(
            "preprocess and from_: expected one of them, for the run to start from brings its preprocessing, "
            f"got preprocess={options.preprocess!r}; leave it out"
        )
    source = load(str(options.from_), device=model.backend)
    if source.input_dim != dataset.input_dim:
        raise ValueError(
            f"data and from_: expected {counted(source.input_dim, 'input')}, as the run to start from has, "
            f"got {dataset.input_dim} of {dataset.name}"
        )
    if source.features and dataset.features and source.features != dataset.features:
        raise ValueError(
            f"data and from_: expected the columns of the run to start from, {', '.join(source.features)}, "
            f"got {', '.join(dataset.features)}"
        )
    same = [ours == theirs for ours, theirs in zip(model.hidden_dims, source.hidden_dims, strict=False)]
    count = max(1, [*same, False].index(False))
    copy_layers(source, model, count)
    if options.freeze and any(count < layer <= len(model.hidden) for layer in parse_layers(options.freeze)):
        raise ValueError(
            f"freeze and from_: expected layers taken over from the run to start from, 1 to {count}, got "
            f"{options.freeze}; those above have random weights"
        )
