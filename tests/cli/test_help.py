"""--help, help and --version; the groups and names of the options; words of the command line in messages."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

import fcnet
from fcnet.backends.device import PRECISIONS
from fcnet.cli import main
from fcnet.cli.commands import COMMANDS, parser_of
from fcnet.data.catalogue import NAMES
from fcnet.data.preprocessing import KINDS
from fcnet.errors import alike, either, unknown
from fcnet.functional import ACTIVATIONS, LOSSES
from fcnet.nn.arguments import DROPOUTS, DTYPES
from fcnet.nn.init import SCHEMES
from fcnet.nn.model import NORMALIZATIONS
from fcnet.optim import RULES
from fcnet.optim.schedules import SCHEDULES
from fcnet.runs.options import GROUPS, TRAIN_ALONE, TrainOptions, flag, in_users_words, names_of
from fcnet.tools.search.plan import SearchOptions
from fcnet.training.fullbatch import FULL_BATCH
from fcnet.training.metrics import NAMES as METRIC_NAMES

TRAINING = ("train", "check", "lr-range", "search")  # the commands that take train's options


def printed(*arguments: str, capsys, code: int | None = None) -> str:
    """Return what a command prints; `code` None: it ends with SystemExit 0, as argparse does."""
    if code is None:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
    else:
        assert main(arguments) == code
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_help_in_each_of_its_spellings(capsys):
    everything = printed("--help", capsys=capsys)
    for name, about in COMMANDS.items():
        assert f"  {name} " in everything
        assert about in everything
        text = printed(name, "--help", capsys=capsys)
        assert text == printed("help", name, capsys=capsys, code=0) == printed(name, "-h", capsys=capsys)
        assert "(default: None)" not in text
        assert "(default: False)" not in text
        assert text.startswith(f"usage: fcnet {name} [options]")
    assert everything == printed("help", capsys=capsys, code=0) == printed("-h", capsys=capsys)
    assert everything == printed(capsys=capsys, code=2)


def test_the_version(capsys):
    for spelling in ("--version", "-V"):
        assert printed(spelling, capsys=capsys) == f"fcnet {fcnet.__version__}\n"


def test_defaults_that_say_something_are_shown(capsys):
    text = " ".join(printed("train", "--help", capsys=capsys).split())
    assert "L1 strength (default: 0.0)" in text
    assert "dropout masks (default: 0)" in text
    assert "flags take precedence" in text


def test_help_imports_neither_numpy_nor_a_command():
    code = (
        "import sys; from fcnet.cli import main\ntry: main(['--help'])\nfinally: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    loaded = set(done.stderr.split())
    assert "fcnet.cli.commands" in loaded
    assert loaded & {"numpy", *(f"fcnet.cli.{name}" for name in COMMANDS)} == set()


WITHOUT = {
    "search": ("force", *TRAIN_ALONE),
    "check": TRAIN_ALONE,
    "lr-range": TRAIN_ALONE,
}  # what train alone can do


@pytest.mark.parametrize("command", TRAINING)
def test_options_stand_in_their_groups_the_common_ones_first(command):
    groups = dict(parser_of(command).groups())
    assert [title for title in groups if title in GROUPS] == list(GROUPS)
    assert [title for title, actions in groups.items() if title not in GROUPS and actions] == []
    where = {action.dest: title for title, actions in groups.items() for action in actions}
    for field in dataclasses.fields(SearchOptions if command == "search" else TrainOptions):
        if field.name not in WITHOUT.get(command, ()):
            assert where[field.name] == field.metadata["group"], field.name
    assert {"data", "hidden", "optimizer", "lr", "epochs", "out"} <= {
        name for name in where if where[name] == GROUPS[0]
    }
    assert len(groups[GROUPS[0]]) < 25


def test_names_that_a_shell_completes_are_those_there_are():
    known = {
        "data": NAMES, "preprocess": KINDS, "activation": ACTIVATIONS, "norm": ("none", *NORMALIZATIONS),
        "dropout": DROPOUTS, "loss": LOSSES, "init": SCHEMES, "optimizer": (*RULES, *FULL_BATCH), "schedule": SCHEDULES,
        "schedule_per": ("epoch", "step"), "device": ("auto", "cpu", "cuda"), "dtype": DTYPES, "precision": PRECISIONS,
        "metric": METRIC_NAMES, "class_weight": ("balanced",), "threshold": ("auto",),
        "on_nonfinite": ("stop", "rollback"), "header": ("yes", "no"), "decimal": (".", ","),
    }  # fmt: skip
    for field in dataclasses.fields(TrainOptions):
        assert set(names_of(field.name)) == set(known.get(field.name, ())), field.name
        assert all(name in field.metadata["help"] for name in field.metadata["names"]), field.name


FLAGS = [flag(field.name) for field in dataclasses.fields(TrainOptions)]


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ("--val-fraction", []), ("--test-size", []), ("--momentum", []), ("verbose", []), ("l2", []), ("k", []),
        ("--num-workers", []), ("shuffle", []), ("--version", []), ("", []), ("--", []), ("%", []), ("y", []),
        ("--batchsize", ["batch-size"]), ("batch_size", ["batch-size"]), ("BATCH", ["batch-size"]), ("sede", ["seed"]),
        ("epohcs", ["epochs"]), ("--hidden-layers", ["hidden"]), ("--max-epochs", ["epochs"]), ("outdir", ["out"]),
        ("clip", ["clip-norm", "clip-value"]), ("regularization", ["reg"]), ("optimiser", ["optimizer"]),
        ("scheduler", ["schedule", "schedule-per", "schedule-every"]), ("lr_decay", ["lr-decay"]),
        ("l1", ["reg-l1"]), ("rl", ["lr"]),
    ],
)  # fmt: skip
def test_a_name_is_suggested_only_where_it_is_alike(given, near):
    assert alike(given, FLAGS) == near


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("train digits", "did you mean --data digits?"),
        ("info a.csv", "did you mean --data a.csv?"),
        ("evaluate run a.csv", "did you mean --data a.csv?"),
        ("train --hidden 50 50", "joined by commas, without blanks: --hidden 100,100"),
        ("train --batchnorm", "did you mean --norm batchnorm?"),
        ("train --momentum 0.9", "did you mean --optimizer momentum?"),
        ("train b.csv", "see fcnet train --help"),
    ],
)
def test_a_word_that_is_no_flag_is_taken_for_the_value_of_one(line, hint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").touch()
    command, *words = line.split()
    with pytest.raises(ValueError) as caught:
        parser_of(command).parse(words)
    assert str(caught.value).endswith(hint)


@pytest.mark.parametrize(
    ("got", "valid", "meant"),
    [
        ("CrossEntropyLoss", LOSSES, "softmax"), ("hinge", LOSSES, "svm"), ("mean_squared_error", LOSSES, "mse"),
        ("kaiming_normal", SCHEMES, "he"), ("Swish", ACTIVATIONS, "silu"), ("mse", METRIC_NAMES, "rmse"),
        ("lr", ["learning_rate", "beta1"], "learning_rate"), ("bn", NORMALIZATIONS, "batchnorm"),
    ],
)  # fmt: skip
def test_other_libraries_names_are_known(got, valid, meant):
    assert str(unknown("x", got, valid)).endswith(f"did you mean {meant!r}?")


def test_a_choice_in_words():
    assert [either(names) for names in ((), "a", "ab", "abc")] == ["", "a", "a or b", "a, b or c"]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("update_rule and reg_l1: 'lbfgs' needs ...", "--optimizer and --reg-l1: 'lbfgs' needs ..."),
        ("optim_config['learning_rate']: expected", "--lr: expected"),
        ("schedule_config['every']: use schedule='step'", "--schedule-every: use --schedule step"),
        ("loss: leave label_smoothing out", "--loss: leave --label-smoothing out"),
        ("runs/a is there; or replace it with --force (force=True)", "runs/a is there; or replace it with --force"),
        ("x and weight_scale: set weight_scale", "x and weight_scale: set --weight-scale"),
        ("use dtype='float64' or device='cpu'", "use --dtype float64 or --device cpu"),
        (
            "target: expected one of batch_size, b; got 'reg_l1'",
            "--target: expected one of batch_size, b; got 'reg_l1'",
        ),
        ("data/batch_size.csv: line 3", "data/batch_size.csv: line 3"),
        ("the optimizer's loss, init=None, X.batch_size", "the optimizer's loss, init=None, X.batch_size"),
        ("/a/batch_size/b and b/num_epochs-1", "/a/batch_size/b and b/num_epochs-1"),
        ("threshold: leave threshold out, or leave it out", "--threshold: leave --threshold out, or leave it out"),
        ("a b/c.csv: drop: expected others", "a b/c.csv: --drop: expected others"),
    ],
)
def test_messages_in_the_words_of_the_command_line(message, expected):
    assert in_users_words(message) == expected
    assert in_users_words(expected) == expected


def test_messages_name_flags_that_the_command_has_and_the_file_of_an_option():
    message = "batch_size and device: leave batch_size out, or use device='cpu'"
    assert (
        in_users_words(message, known={"device"}) == "batch_size and device: leave batch_size out, or use --device cpu"
    )
    assert in_users_words(message, "a.toml", ["device", "batch_size"]) == (
        "config a.toml: batch-size and device: leave batch-size out, or use device='cpu'"
    )
    assert in_users_words(message, "a.toml", ["device"]) == (
        "--batch-size and --device: leave --batch-size out, or use device='cpu'"
    )
    assert in_users_words("vary lr: expected", known={"vary"}) == "--vary lr: expected"
    assert in_users_words("vary lr: expected", "a.toml", {"vary"}, {"vary"}) == "config a.toml: vary lr: expected"
