"""`fcnet evaluate`: the metrics of a trained network, overall and by class or output."""

from __future__ import annotations

import argparse

from fcnet.cli.figures import by_class, by_output, in_all, in_short
from fcnet.cli.parser import Parser, say
from fcnet.cli.reports import as_flags
from fcnet.errors import counted
from fcnet.runs.options import names_of
from fcnet.runs.rundir import trained_on


def add(parser: Parser) -> None:
    """Declare the arguments and flags."""
    parser.add_argument("model", metavar="RUN", help="a run directory or a model file")
    parser.add_argument(
        "--data", metavar="NAME|FILE", help="another data set, or a table or an .npz file, which is used whole"
    )
    parser.add_argument(
        "--data-dir",
        metavar="FOLDER",
        help="where the data files are (default: as in training, $FCNET_DATA, then the user cache)",
    )
    parser.add_argument(
        "--target",
        metavar="NAME|NUMBER",
        help="the column of a table that holds labels or numbers (several: a,b; default: as in training)",
    )
    parser.add_argument("--split", metavar="NAME", help="train, val or test, of a data set (default: test)")
    parser.add_argument("--metric", metavar="NAME", help="the metric to print last but one, such as f1 or roc_auc")
    parser.add_argument("--device", metavar="NAME", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.names |= {"data": names_of("data"), "split": ("train", "val", "test"), "metric": names_of("metric")}
    parser.names |= {"device": names_of("device")}


def run(options: argparse.Namespace) -> int:
    """Print the metrics by class or output and overall; the accuracy, rmse or label accuracy comes last."""
    from pathlib import Path

    from fcnet import load
    from fcnet.data import inputs
    from fcnet.nn.objective import kind_of_targets
    from fcnet.training.judging import use_library
    from fcnet.training.metrics import metric_named, outcome, own_figure
    from fcnet.validation import check_input

    model = load(options.model, device=options.device)
    chosen = metric_named(options.metric, model.objective)
    known = trained_on(options.model)
    source = options.data or known.get("data")
    if source is None:
        raise ValueError(f"data: {options.model} does not say what it was trained on; name a data set with --data")
    if options.data is None and known.get("cv") is not None:
        raise ValueError(
            f"data: expected rows that {options.model} was not trained on, and with --cv {known['cv']} it was trained "
            f"on all of {source}; name others with --data"
        )
    own = known.get("target") if model.plan is None else ",".join(model.plan.targets)  # by name: a number was a place
    target = options.target or own
    targets = kind_of_targets(model.loss_name)
    expected = inputs.Names(model.input_dim, model.num_classes, model.features, model.classes, targets, model.plan)
    if options.data is not None and inputs.is_file(source):
        inputs.check_split(source, options.split)
        what = part = ""
        X, y = inputs.labelled(source, target, expected)
    else:
        if inputs.is_file(source) and not Path(source).is_file():
            raise FileNotFoundError(
                f"data: {source} is not there, and {options.model} was trained on it; name another with --data"
            )
        data_dir = options.data_dir or known.get("data-dir")
        with as_flags(data_dir="data-dir", split="split"):
            split, X, y = inputs.part(source, options.split, expected, data_dir, target)
        what = f", {split}" if options.split or split == "test" else f", {split} (it has no test part)"
        part = f"{split} "
    if model.loss_name == "bce":
        inputs.check_probabilities(source, target, [y], plan=model.plan)
    with inputs.naming(source):
        check_input("X", X, model.input_dim, model.dtype)
        model.objective.check_targets("y", y, len(X), model.dtype)
        said = outcome(model, X, y)
    use_library()
    say(f"{source}{what}: {counted(len(y), 'sample')}")
    for line in [
        *(by_output if model.objective.numeric else by_class)(model, said),
        *in_all(model, said, part, chosen),
        in_short(model.objective.metric, own_figure(model.objective, said), part),
    ]:
        say(line)
    return 0
