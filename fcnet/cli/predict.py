"""`fcnet predict`: the classes, values or labels of new samples, as CSV."""

from __future__ import annotations

import argparse
import csv
import io
import sys

from fcnet.cli.parser import Commands


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add(
        "predict", "Classes or numbers of new samples, as CSV: a row per sample, in their order.", run
    )
    parser.add_argument("model", metavar="RUN", help="a run directory or a model file")
    parser.add_argument("input", metavar="INPUT", help="a .csv or .npz file, or the name of a data set")
    parser.add_argument("--out", metavar="FILE.csv", help="where to write (default: standard output)")
    parser.add_argument("--force", action="store_true", help="replace FILE.csv if it is there")
    parser.add_argument("--proba", action="store_true", help="add a column of probabilities per class or label")
    parser.add_argument("--data-dir", help="where the files of a data set are")
    parser.add_argument("--split", help="train, val or test, of a data set (default: test)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")


def run(options: argparse.Namespace) -> int:
    """Write the predictions."""
    from pathlib import Path

    from fcnet import load
    from fcnet.data import inputs
    from fcnet.files import write_atomically

    out = None if options.out is None else Path(options.out)
    if out is not None and out.exists() and not options.force:
        raise FileExistsError(f"out: {out} is there already; choose another name, or replace it with --force")
    model = load(options.model, device=options.device)
    X = inputs.samples(options.input, model.features, options.data_dir, options.split)
    names = model.classes or tuple(str(number) for number in range(model.num_classes))
    with inputs.naming(options.input):
        predicted = model.predict(X)
        probabilities = model.predict_proba(X).tolist() if options.proba else [[]] * len(X)
    if model.objective.numeric:
        header = ["prediction"] if len(names) == 1 else [f"prediction({name})" for name in names]
        first = [[f"{value:.9g}" for value in row] for row in predicted.reshape(len(X), -1).tolist()]
    else:
        header, first = ["prediction"], [[names[number]] for number in predicted.tolist()]
    header += [f"p({name})" for name in names] if options.proba else []
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for cells, row in zip(first, probabilities, strict=True):
        writer.writerow([*cells, *(f"{p:.6g}" for p in row)])
    if out is None:
        sys.stdout.write(text.getvalue())
        sys.stdout.flush()
    else:
        write_atomically(out, text.getvalue())
        print(f"wrote {len(predicted)} predictions to {out}")
    return 0
