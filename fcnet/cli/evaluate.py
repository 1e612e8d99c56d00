"""`fcnet evaluate`: the accuracy of a trained network, in all and by class."""

from __future__ import annotations

import argparse

from fcnet.cli.parser import Commands
from fcnet.cli.runs import trained_on


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add("evaluate", "Accuracy of a trained network, in all and by class.", run)
    parser.add_argument("model", metavar="RUN", help="a run directory or a model file")
    parser.add_argument("--data", help="another data set, or a .csv or .npz file, which is used whole")
    parser.add_argument("--data-dir", help="where the data files are")
    parser.add_argument("--target", help="the column of a .csv file that holds the labels")
    parser.add_argument("--split", help="train, val or test, of a data set (default: test)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")


def run(options: argparse.Namespace) -> int:
    """Print a row per class, then the accuracy."""
    from pathlib import Path

    import numpy as np

    from fcnet import load
    from fcnet.boundary import check_labels
    from fcnet.data import inputs

    model = load(options.model, device=options.device)
    known = trained_on(options.model)
    source = options.data or known.get("data")
    if source is None:
        raise ValueError(f"data: {options.model} does not say what it was trained on; name a data set with --data")
    target = options.target or known.get("target")
    if options.data is not None and inputs.is_file(source):
        inputs.check_split(source, options.split)
        what = part = ""
        X, y = inputs.labelled(source, target, model.features, model.classes)
    else:
        if inputs.is_file(source) and not Path(source).is_file():
            raise FileNotFoundError(
                f"data: {source} is not there, and {options.model} was trained on it; name another with --data"
            )
        data_dir = options.data_dir or known.get("data-dir")
        expected = inputs.Names(model.input_dim, model.num_classes, model.features, model.classes)
        split, X, y = inputs.part(source, options.split, expected, data_dir, target)
        what = f", {split}" if options.split or split == "test" else f", {split} (it has no test part)"
        part = f"{split} "
    with inputs.naming(source):
        check_labels("y", y, model.num_classes, len(X))
        y = np.argmax(y, axis=1) if y.ndim == 2 else y
        right = model.predict(X) == y
    names = model.classes or [str(number) for number in range(model.num_classes)]
    width = max(5, *(len(name) for name in names))
    print(f"{source}{what}: {len(y)} samples")
    print(f"{'class':<{width}}  samples  accuracy")
    for number, name in enumerate(names):
        mine = right[y == number]
        print(f"{name:<{width}}  {len(mine):7}  {f'{mine.mean():.4f}' if len(mine) else '-':>8}")
    print(f"{part}accuracy {right.mean():.4f}")
    return 0
