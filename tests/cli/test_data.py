"""evaluate and predict on data that differ from what a run was trained on, and one line for what cannot be used."""

from __future__ import annotations

import csv
import gzip
import struct
import tomllib

import numpy as np
import pytest

from fcnet.cli import main
from fcnet.runs.options import in_users_words
from tests.small import blobs, net

NAMES = ("oak", "rose", "tulip")
COLUMNS = [*(f"f{i}" for i in range(6)), "kind"]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FCNET_DATA", raising=False)


def write(path, rows):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(rows)


def call(*arguments, capsys) -> str:
    code = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    assert code == 0, err
    return out


def fails(*arguments, capsys) -> str:
    code = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    assert code == 2, out + err
    assert err.startswith("fcnet: error: ")
    assert err.count("\n") == 1, err
    return err


@pytest.fixture
def rows():
    """Return a header, and 150 rows of blobs: six numbers and a name."""
    data = blobs(n=150)
    return [COLUMNS, *([*x, NAMES[y]] for x, y in zip(data.X_train.tolist(), data.y_train, strict=True))]


@pytest.fixture
def trained(rows, capsys):
    """Return what evaluate says of a run in `run` that was trained on d.csv."""
    write("d.csv", rows)
    train = ["train", "--data", "d.csv", "--target", "kind", "--out", "run", "--lr", "0.01", "--hidden", "8"]
    call(*train, "--epochs", "20", "--quiet", capsys=capsys)
    return call("evaluate", "run", capsys=capsys)


@pytest.fixture
def trained_npz(capsys):
    """Train a run in `run` on d.npz."""
    data = blobs()
    np.savez("d.npz", X=data.X_train, y=data.y_train)
    call("train", "--data", "d.npz", "--out", "run", "--lr", "0.01", "--hidden", "8", "--quiet", capsys=capsys)
    return data


def table(text):
    """Return the rows by class that evaluate printed."""
    return {line.split()[0]: line.split()[1:] for line in text.splitlines()[2:5]}


def test_the_recorded_file_is_matched_by_name(rows, trained, capsys):
    write("d.csv", [[*row[::-1], extra] for row, extra in zip(rows, ["note", *["red"] * 150], strict=True)])
    assert call("evaluate", "run", capsys=capsys) == trained


def test_a_class_that_has_gone_leaves_the_others_their_names(rows, trained, capsys):
    assert float(table(trained)["tulip"][1]) > 0.8
    write("d.csv", [row for row in rows if row[-1] != "oak"])
    found = table(call("evaluate", "run", capsys=capsys))
    assert found["oak"] == ["0", "-", "-", "-"]
    assert float(found["tulip"][1]) > 0.8
    write("d.csv", [[*row[:-1], row[-1].replace("oak", "zebra")] for row in rows])
    line = fails("evaluate", "run", capsys=capsys)
    assert "d.csv: line 2, column 'kind': expected a label that the model knows (oak, rose, tulip); got 'zebra'" in line


def test_a_recorded_archive_is_matched_by_name(trained_npz, capsys):
    data, before = trained_npz, table(call("evaluate", "run", capsys=capsys))
    keep = data.y_train != 0
    np.savez("d.npz", X=data.X_train[keep], y=data.y_train[keep])
    after = table(call("evaluate", "run", capsys=capsys))
    assert after["0"] == ["0", "-", "-", "-"]
    assert min(float(table_[name][1]) for table_ in (before, after) for name in "12") > 0.8
    np.savez("d.npz", X=data.X_train, y=data.y_train + 7)
    assert "d.npz: y: expected labels that the model knows (0, 1, 2); got" in fails("evaluate", "run", capsys=capsys)


def test_named_sets_of_another_kind_are_refused(trained, capsys):
    pytest.importorskip("sklearn")
    line = fails("evaluate", "run", "--data", "digits", capsys=capsys)
    assert "digits has 64 features and 10 classes, this model 6 and 3" in line


def test_a_named_set_with_other_class_names_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FCNET_DATA", str(tmp_path))
    for name in ("mnist", "fashion-mnist"):
        (tmp_path / name).mkdir()
        for part, count in (("train", 60), ("t10k", 20)):
            images = np.random.default_rng(0).integers(0, 256, (count, 2, 2)).astype(np.uint8)
            header, labels = struct.pack(">4i", 0x803, count, 2, 2), struct.pack(">2i", 0x801, count)
            with gzip.open(tmp_path / name / f"{part}-images-idx3-ubyte.gz", "wb") as file:
                file.write(header + images.tobytes())
            with gzip.open(tmp_path / name / f"{part}-labels-idx1-ubyte.gz", "wb") as file:
                file.write(labels + bytes(i % 10 for i in range(count)))
    call("train", "--data", "mnist", "--epochs", "1", "--hidden", "4", "--out", "run", "--quiet", capsys=capsys)
    assert "mnist, test: 20 samples" in call("evaluate", "run", "--data", "mnist", capsys=capsys)
    line = fails("evaluate", "run", "--data", "fashion-mnist", capsys=capsys)
    assert "fashion-mnist has other classes than this model: 'T-shirt/top' where it has '0'" in line


LABELS = {
    "one-hot": lambda y: np.eye(3)[y],
    "float": lambda y: y.astype(float),
    "column": lambda y: y.reshape(-1, 1),
    "bytes": lambda y: y.astype("S"),
}


@pytest.mark.parametrize("form", LABELS)
def test_evaluate_takes_the_labels_that_train_takes(trained_npz, form, capsys):
    np.savez("e.npz", X=trained_npz.X_val, y=LABELS[form](trained_npz.y_val))
    assert float(call("evaluate", "run", "--data", "e.npz", capsys=capsys).split()[-1]) > 0.8


def test_evaluate_reads_only_the_columns_that_the_model_uses(rows, trained, capsys):
    write("e.csv", [[*row, "note" if row is rows[0] else "some text"] for row in rows])
    assert "e.csv: 150 samples" in call("evaluate", "run", "--data", "e.csv", capsys=capsys)


@pytest.mark.parametrize("command", [["evaluate", "run", "--data"], ["predict", "run"]])
def test_a_split_of_a_file_is_refused(trained, command, capsys):
    call(*command, "d.csv", capsys=capsys)
    line = fails(*command, "d.csv", "--split", "train", capsys=capsys)
    assert "--split is for data sets with parts; d.csv is used whole" in line
    assert "--split: expected train, val or test; got 'tset'" in fails(
        *command, "spirals", "--split", "tset", capsys=capsys
    )


def test_a_run_without_a_test_part_is_evaluated_on_val(capsys):
    data = blobs()
    np.savez("d.npz", X_train=data.X_train, y_train=data.y_train, X_val=data.X_val, y_val=data.y_val)
    call("train", "--data", "d.npz", "--out", "run", "--epochs", "1", "--quiet", capsys=capsys)
    out = call("evaluate", "run", capsys=capsys)
    assert "d.npz, val (it has no test part): 40 samples" in out
    assert out.splitlines()[-1].startswith("val accuracy")
    assert "expected one of train, val" in fails("evaluate", "run", "--split", "test", capsys=capsys)


def test_a_recorded_file_that_has_gone(trained, tmp_path, capsys):
    (tmp_path / "d.csv").unlink()
    line = fails("evaluate", "run", capsys=capsys)
    assert "d.csv is not there, and run was trained on it; name another with --data" in line


def test_what_is_wrong_with_inputs_names_the_file(trained_npz, capsys):
    data = trained_npz
    np.savez("narrow.npz", X=data.X_val[:, :4], y=data.y_val)
    np.savez("nan.npz", X=np.where(data.X_val > 0, np.nan, data.X_val), y=data.y_val)
    for command in (["predict", "run"], ["evaluate", "run", "--data"]):
        assert "narrow.npz: X: expected 6 features" in fails(*command, "narrow.npz", capsys=capsys)
        assert "nan.npz: X: expected finite numbers" in fails(*command, "nan.npz", capsys=capsys)


def test_a_model_without_class_names_takes_numbers(tmp_path, capsys):
    data = blobs()
    net(data).save(tmp_path / "m.safetensors")
    np.savez("e.npz", X=data.X_val, y=data.y_val)
    assert "e.npz: 40 samples" in call("evaluate", "m.safetensors", "--data", "e.npz", capsys=capsys)
    np.savez("e.npz", X=data.X_val, y=data.y_val + 1)
    assert "e.npz: y: expected labels that the model knows (0, 1, 2); got 3" in fails(
        "evaluate", "m.safetensors", "--data", "e.npz", capsys=capsys
    )


def test_nothing_to_fetch_is_one_line(capsys):
    assert main(["fetch", "digits"]) == 0
    assert capsys.readouterr() == ("", "digits is made here; nothing to fetch\n")


LISTS = {
    'activation = ["relu", "tanh"]': ("activation", "relu,tanh"),
    'activation = "tanh"': ("activation", "tanh"),
    "freeze = [1]": ("freeze", "1"),
    "freeze = 1": ("freeze", "1"),
    'freeze = "1"': ("freeze", "1"),
    "lr-mult = {1 = 0.5, 3 = 2}": ("lr-mult", "1=0.5,3=2"),
    "[lr-mult]\n1 = 0.5\n3 = 2": ("lr-mult", "1=0.5,3=2"),
    'lr_mult = ["1=0.5", "3=2"]': ("lr-mult", "1=0.5,3=2"),
}


@pytest.mark.parametrize("text", LISTS)
def test_a_list_in_a_file_is_what_has_commas_on_the_command_line(text, tmp_path, capsys):
    option, spelled = LISTS[text]
    (tmp_path / "a.toml").write_text(f'data = "spirals"\nhidden = [5, 5]\nepochs = 1\n{text}\n')
    call("train", "--config", "a.toml", "--out", "a", "--quiet", capsys=capsys)
    call("train", *FIVES, f"--{option}", spelled, "--out", "b", "--quiet", capsys=capsys)
    assert tomllib.loads((tmp_path / "a/config.toml").read_text())[option] == spelled
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()


FIVES = ["--data", "spirals", "--hidden", "5,5", "--epochs", "1"]


def test_columns_in_a_file_may_be_a_list(tmp_path, capsys):
    write("n.csv", [["a", "b", "c"], *([i, 2 * i % 7, -i] for i in range(40))])
    (tmp_path / "a.toml").write_text('data = "n.csv"\nloss = "mse"\ntarget = ["b", "c"]\nepochs = 1\n')
    assert "2 outputs" in call("train", "--config", "a.toml", "--out", "a", capsys=capsys)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("activation = true", "activation: expected a string or a list, got True"),
        ("freeze = [[1]]", "freeze: expected a string or a list, got [[1]]"),
        ("freeze = [2]", "config a.toml: freeze and hidden: expected the lowest layers"),
        ("lr-mult = {1 = true}", "lr-mult: expected layers, each once, with factors, such as 3=0.1,4=0.5, got '1="),
        ("loss = ['mse']", "loss: expected a string, got ['mse']"),
        ("[lr]\nx = 1", "expected options only, got the section [lr]; sections are not used"),
    ],
)
def test_a_list_in_a_file_that_is_none(text, message, tmp_path, capsys):
    (tmp_path / "a.toml").write_text(f'data = "spirals"\nhidden = [5, 5]\n{text}\n')
    assert message in fails("train", "--config", "a.toml", capsys=capsys)


def test_names_that_are_empty(trained, tmp_path, capsys):
    before = set(tmp_path.iterdir())
    line = fails("predict", "run", "d.csv", "--out", "", capsys=capsys)
    assert line.startswith("fcnet: error: --out: expected the name of a file, got ''; name one, or leave it out")
    (tmp_path / "p.csv").touch()
    assert "--out: p.csv is there already" in fails("predict", "run", "d.csv", "--out", "p.csv", capsys=capsys)
    (tmp_path / "p.csv").unlink()
    assert set(tmp_path.iterdir()) == before


IN_USERS_WORDS = {
    "out: runs/batch_size=3 is not empty; replace the run in it with force=True": (
        "--out: runs/batch_size=3 is not empty; replace the run in it with --force"
    ),
    "batch_size and normalization: expected 2 or more with 'batch_size', got batch_size=1": (
        "--batch-size and --norm: expected 2 or more with 'batch_size', got --batch-size 1"
    ),
    "schedule_config['every']: expected a number with schedule='step', such as 5, got none": (
        "--schedule-every: expected a number with --schedule step, such as 5, got none"
    ),
    "device: 'cuda' cannot be used: no driver; install it; or use device='cpu'": (
        "--device: 'cuda' cannot be used: no driver; install it; or use --device cpu"
    ),
    **{same: same for same in ("vary: expected ranges such as lr=1e-4:1e-2:log", "lr_decay.csv: no lr_decay")},
}


@pytest.mark.parametrize("message", IN_USERS_WORDS)
def test_the_command_line_speaks_of_flags(message):
    assert in_users_words(message, None, ()) == IN_USERS_WORDS[message]
    assert in_users_words(IN_USERS_WORDS[message], None, ()) == IN_USERS_WORDS[message]


def test_a_folder_without_the_set_is_named_as_a_flag(trained, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    line = "fcnet: error: --data-dir: expected the files of mnist in empty; got none there; get them with: fcnet fetch"
    for command in (
        ["train", "--data", "mnist"], ["predict", "run", "mnist"], ["evaluate", "run", "--data", "mnist"],
        ["experiment", "dropout"],
    ):  # fmt: skip
        assert fails(*command, "--data-dir", "empty", capsys=capsys).startswith(line), command
    for command in (["train", "--data", "mnist"], ["fetch", "mnist"]):
        line = "fcnet: error: --data-dir: expected a folder; got ''; name one"
        assert fails(*command, "--data-dir", "", capsys=capsys).startswith(line)
