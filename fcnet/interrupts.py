"""The program `fcnet` from its first line on: Ctrl-C while it is still being imported is a line, not a traceback."""

from __future__ import annotations

# What of `signal` is built in: there is nothing to import that a Ctrl-C could come into.
import _signal  # type: ignore[import-not-found]
import os
import sys

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


def is_program() -> bool:
    """Return whether this process is the command `fcnet` or `python -m fcnet`, not a program that imports fcnet."""
    command = sys.orig_argv[1:]
    while len(command) > 2 and command[0].startswith("-") and command[0] != "-m":  # -X dev, -W error, -u ...
        command = command[2 if command[0] in ("-X", "-W") else 1 :]
    if command[:2] == ["-m", "fcnet"]:
        return True
    return bool(command) and os.path.basename(command[0]) in ("fcnet", "fcnet.exe", "fcnet-script.py")


def answer() -> None:
    """End the process with a line and the documented code when a signal comes, until the command line takes over."""
    for name in NAMES:
        number = getattr(_signal, name, None)  # Windows has no SIGHUP
        if number is not None and _signal.getsignal(number) in (_signal.SIG_DFL, _signal.default_int_handler):
            _signal.signal(number, _end)


def _end(number: int, frame: object) -> None:
    try:
        os.write(2, b"fcnet: interrupted\n")
    finally:
        os._exit(128 + number)
