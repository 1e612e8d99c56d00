"""The scripts of `fcnet completion`: bash's by its own completion, the others by their shells where these are."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from fcnet.cli import main
from fcnet.cli.commands import COMMANDS, parser_of

# What `complete` has registered for fcnet is called as bash calls it; a line for each reply.
CALL = """
source "$1"; shift
[[ $(complete -p fcnet) =~ -F\\ ([^ ]+) ]] || exit 3
while IFS= read -r line; do
    IFS=$'\\x1f' read -r -a COMP_WORDS <<< "$line"
    [[ $line == *$'\\x1f' ]] && COMP_WORDS+=("")
    COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
    "${BASH_REMATCH[1]}" fcnet "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
    ( IFS=$'\\x1f'; printf '%s\\n' "${COMPREPLY[*]}" )
done
"""


def script(shell, folder, capsys):
    assert main(["completion", shell]) == 0
    path = folder / f"completion.{shell}"
    path.write_text(capsys.readouterr().out)
    return path


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_flags_names_and_paths(tmp_path, capsys):
    here = tmp_path / "here"
    (here / "runs" / "a b").mkdir(parents=True)
    (here / "rows.csv").touch()
    flags = {name: {f for action in parser_of(name).actions() for f in action.option_strings} for name in COMMANDS}
    expected = {
        ("",): {*COMMANDS, "-h", "--help", "-V", "--version"},
        ("tra",): {"train"},
        ("help", "exp"): {"experiment"},
        ("completion", ""): {"bash", "zsh", "fish"},
        ("train", "--optimizer", "ad"): {"adagrad", "adam", "adamw"},
        ("train", "--optimizer", "=", "ad"): {"adagrad", "adam", "adamw"},
        ("train", "--dtype", "="): {"float32", "float64"},
        ("train", "--dtype=float3",): {"--dtype=float32"},
        ("train", "--activation", "tanh,re"): {"tanh,relu"},
        ("train", "--epochs", ""): set(),
        ("train", "--data", "r"): {"rows.csv", "runs"},
        ("train", "--data", "mn"): {"mnist"},
        ("train", "--data-dir", ""): {"runs"},
        ("train", "--config", "ro"): {"rows.csv"},
        ("train", "--from", "runs/"): {"runs/a b"},
        ("train", "--force", "--out", "ru"): {"runs"},
        ("evaluate", "r"): {"rows.csv", "runs"},
        ("evaluate", "runs", "--split", ""): {"train", "val", "test"},
        ("predict", "runs", "sp"): {"spirals"},
        ("experiment", "init"): {"init-comparison"},
        ("fetch", "ci"): {"cifar10"},
        ("search", "--sampler", "t"): {"tpe"},
        ("search", "--no"): {"--norm", "--no-prune", "--no-checkpoints"},
        ("nonsense", ""): set(),
    }  # fmt: skip
    expected |= {(name, "-"): flags[name] for name in COMMANDS}
    lines = "".join("\x1f".join(("fcnet", *words)) + "\n" for words in expected)
    done = subprocess.run(
        ["bash", "-c", CALL, "bash", script("bash", tmp_path, capsys)],
        cwd=here, input=lines, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stderr == ""
    replies = [set(filter(None, line.split("\x1f"))) for line in done.stdout.splitlines()]
    assert dict(zip(expected, replies, strict=True)) == expected


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_can_read_theirs(shell, tmp_path, capsys):
    path = script(shell, tmp_path, capsys)
    text = path.read_text()
    for name in COMMANDS:
        for action in parser_of(name).actions():
            for flag in action.option_strings:
                assert (flag if shell == "zsh" else f"-l {flag[2:]} " if flag[1] == "-" else f"-s {flag[1]} ") in text
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    subprocess.run([shell, "-n", path], check=True, timeout=60)
