"""`fcnet predict`: the classes, values or labels of new samples, as CSV."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fcnet.cli.parser import Parser, number
from fcnet.cli.reports import as_flags
from fcnet.errors import printable
from fcnet.runs.options import names_of

ROWS = 4096  # spelled at once, which takes 128 bytes for each number

if TYPE_CHECKING:
    import numpy as np


def add(parser: Parser) -> None:
    """Declare the arguments and flags."""
    parser.add_argument("model", metavar="RUN", help="a run directory or a model file")
    parser.add_argument("input", metavar="INPUT", help="a table, an .npz file, or the name of a data set")
    parser.add_argument("--out", metavar="FILE.csv", help="where to write (default: standard output)")
    parser.add_argument("--force", action="store_true", help="replace FILE.csv if it is there")
    parser.add_argument("--proba", action="store_true", help="add a column of probabilities per class or label")
    parser.add_argument(
        "--mc-samples",
        type=number(int),
        metavar="N",
        help="means and standard deviations of the probabilities over N predictions with dropout, in columns p and sd",
    )
    parser.add_argument(
        "--data-dir",
        metavar="FOLDER",
        help="where the files of a data set are (default: $FCNET_DATA, then the user cache)",
    )
    parser.add_argument("--split", metavar="NAME", help="train, val or test, of a data set (default: test)")
    parser.add_argument("--device", metavar="NAME", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.names |= {"input": names_of("data"), "split": ("train", "val", "test"), "device": names_of("device")}


def run(options: argparse.Namespace) -> int:
    """Write the predictions."""
    import numpy as np

    from fcnet import load
    from fcnet.data import inputs
    from fcnet.files import check_parent, write_atomically
    from fcnet.runs.checkpoint import FILE_NAME

    if options.out == "":
        raise ValueError("--out: expected the name of a file, got ''; name one, or leave it out for standard output")
    out = None if options.out is None else Path(options.out)
    if out is not None and out.is_dir():
        raise IsADirectoryError(f"--out: expected a file, got the folder {out}; name a file in it")
    if (
        out is not None
        and out.exists()
        and any(_same(out, read) for read in (options.input, options.model, Path(options.model) / FILE_NAME))
    ):
        raise ValueError(f"--out: expected another file than those that are read, got {out}; choose another name")
    if out is not None and out.exists() and not options.force:
        raise FileExistsError(f"--out: {out} is there already; choose another name, or replace it with --force")
    if out is not None:
        check_parent(out)
    model = load(options.model, device=options.device)
    for name, given in (("--proba", options.proba), ("--mc-samples", options.mc_samples is not None)):
        if given and model.loss_name not in ("softmax", "bce"):
            raise ValueError(
                f"{name}: expected a network with loss softmax or bce, got {options.model} with loss "
                f"{model.loss_name}, which gives no probabilities; leave {name} out"
            )
    with as_flags(data_dir="data-dir", split="split"):
        X = inputs.samples(options.input, model.features, options.data_dir, options.split, model.plan)
    names = model.classes or tuple(str(number) for number in range(model.num_classes))
    single = len(names) == 1
    beside = np.empty((len(X), 0))  # probabilities, and their standard deviations
    with inputs.naming(options.input):
        predicted = model.predict(X)
        if options.mc_samples is not None:
            mean, deviation = model.predict_proba(X, mc_samples=options.mc_samples)
            predicted = mean.argmax(axis=1) if not model.objective.numeric else (mean > 0.5).astype("int64")
            if model.threshold is not None:
                predicted = (mean[:, -1] > model.threshold).astype("int64")
            beside = np.hstack([mean, deviation])
        elif options.proba:
            beside = model.predict_proba(X)
    if model.objective.numeric:
        header = ["prediction"] if single else [f"prediction({name})" for name in names]
        first = _spelled(predicted.reshape(len(X), -1))
    else:
        header, first = ["prediction"], ([names[number]] for number in predicted.tolist())
    for title in ("p", "sd")[: beside.shape[1] // len(names)]:
        header += [title] if single else [f"{title}({name})" for name in names]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([*cells, *others] for cells, others in zip(first, _spelled(beside), strict=True))
    if out is None:
        written = text.getvalue()
        sys.stdout.write(printable(written) if sys.stdout.isatty() else written)
        sys.stdout.flush()
    else:
        write_atomically(out, text.getvalue())
        print(f"wrote {len(predicted)} predictions to {out}")
    return 0


def _same(out: Path, read: str | Path) -> bool:
    path = Path(read).expanduser()
    return path.exists() and path.samefile(out)


def _spelled(numbers: np.ndarray) -> Iterator[list[str]]:
    """Return each row with the fewest digits that read back as the same numbers of this dtype."""
    for start in range(0, len(numbers), ROWS):
        yield from numbers[start : start + ROWS].astype(str).tolist()
