"""Small searches, and the command line to make them."""

from __future__ import annotations

from fcnet.cli import main

QUICK = {"hidden": [6], "epochs": 2, "verbose": False}
LR = {"lr": "1e-3:1:log"}
CLI = ["search", "--data", "spirals", "--hidden", "6", "--epochs", "3", "--vary", "lr=1e-3:1:log"]


def command(*arguments, capsys):
    code = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, out, err
