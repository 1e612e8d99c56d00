"""The command line, `fcnet COMMAND`: one module per command, imported by `fcnet.cli.commands` when the command runs."""

from __future__ import annotations

import _thread
import argparse
import contextlib
import errno
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

from fcnet.cli.commands import parse
from fcnet.cli.parser import Parser, mute
from fcnet.errors import DataNotice, DivergedError, KernelError, printable
from fcnet.runs.options import in_users_words

_REMEDIES = {
    errno.ENOSPC: "free some space, or choose another place",
    errno.EDQUOT: "free some space, or choose another place",
    errno.EACCES: "choose another place, or change its permissions",
    errno.EPERM: "choose another place, or change its permissions",
    errno.EROFS: "choose another place",
    errno.EISDIR: "name a file",
    errno.ENOTDIR: "a part of it is a file; choose another name",
    errno.ENOENT: "check the name",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    0 done, 1 training diverged, 2 bad input, 130 interrupted (143, 129 by SIGTERM, SIGHUP). Errors are one line on
    standard error; with FCNET_TRACEBACK=1 in the environment, Python's traceback too.
    """
    caught: list[int] = []
    try:
        with _streams(), _signals(caught, own=arguments is None), _warnings():
            return _run(arguments)
    except KeyboardInterrupt as interrupt:
        _complain(f"fcnet: {' '.join(['interrupted', *map(str, interrupt.args)])}")
        return 128 + (caught[0] if caught else signal.SIGINT)


def _run(arguments: Sequence[str] | None) -> int:
    parser = None
    try:
        try:
            parser, options = parse(list(sys.argv[1:] if arguments is None else arguments))
            return _carry_out(options)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        mute()
        return 0
    except DivergedError as error:
        _report(error, parser)
        return 1
    except (ValueError, TypeError, OSError, ImportError, MemoryError, KernelError) as error:
        _report(error, parser)
        return 2


def _carry_out(options: argparse.Namespace) -> int:
    # Imported here, so that `fcnet --help` does not wait for NumPy and Ctrl-C during the import prints no traceback.
    import numpy as np

    from fcnet.backends.notices import watched_by

    quiet = getattr(options, "quiet", False)
    # A loss that overflows is reported by the solver, in one line.
    with (
        np.errstate(over="ignore", invalid="ignore", divide="ignore"),
        contextlib.nullcontext() if quiet else watched_by(lambda line: _complain(f"fcnet: {line}")),
    ):
        return options.run(options)


@contextlib.contextmanager
def _signals(caught: list[int], *, own: bool) -> Iterator[None]:
    """Treat SIGTERM and SIGHUP like Ctrl-C, so that what defers Ctrl-C (a step, a file being written) defers them.

    Signals after the first do nothing, because results are being written. They still have a handler, which is empty:
    if a signal that arrived together with the first had none, Python would print a traceback. The former handlers are
    restored at the end, unless the process is our `own` and about to exit.

    Python drops what is raised in a destructor or in the callback of a weak reference, such as that with which an
    import ends. An interrupt that is dropped so is raised once more.
    """
    handled: dict[int, Any] = {}
    report_dropped = sys.unraisablehook

    def interrupt(number: int, frame: FrameType | None) -> None:
        for other in handled:
            signal.signal(other, _answered)
        caught.append(number)
        raise KeyboardInterrupt

    def end(number: int, frame: FrameType | None) -> None:
        if caught:  # a second one must not count as Ctrl-C pressed twice
            return
        caught.append(number)
        handler = signal.getsignal(signal.SIGINT)
        (handler if callable(handler) else interrupt)(number, frame)

    def once_more(dropped: sys.UnraisableHookArgs) -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            report_dropped(dropped)
            return
        signal.signal(signal.SIGINT, interrupt)
        # Not from here, where it would be dropped again.
        threading.Timer(0.01, _thread.interrupt_main).start()

    if threading.current_thread() is threading.main_thread():
        sys.unraisablehook = once_more
        for name, handler in (("SIGINT", interrupt), ("SIGTERM", end), ("SIGHUP", end)):
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number is not None and signal.getsignal(number) not in (None, signal.SIG_IGN):  # nohup ignores one
                handled[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        if sys.unraisablehook is once_more:
            sys.unraisablehook = report_dropped
        if not (own and caught):
            for number, before in handled.items():
                signal.signal(number, before)


def _answered(number: int, frame: FrameType | None) -> None:
    """Handle a signal that comes when the work is already ending."""


@contextlib.contextmanager
def _streams() -> Iterator[None]:
    """Provide streams to print to where the shell has closed standard output or error."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (for the rest of the process)
    yield


@contextlib.contextmanager
def _warnings() -> Iterator[None]:
    """Print warnings as lines in fcnet's style, without file and line, and leave out mere notices."""

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        kind = "" if issubclass(category, DataNotice) else "warning: "
        _complain(f"fcnet: {kind}{' '.join(str(message).split())}")

    before = warnings.showwarning
    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before


def _report(error: BaseException, parser: Parser | None) -> None:
    """Print an error in one line, with the flags of the command in place of Python's arguments."""
    if os.environ.get("FCNET_TRACEBACK"):
        traceback.print_exception(error)
    message = str(error) or type(error).__name__
    if parser is not None:
        message = in_users_words(message, known=parser.known())
    notes = list(getattr(error, "__notes__", []))
    if isinstance(error, UnicodeEncodeError):  # a file name, where the locale knows no UTF-8
        message = "a name holds characters that this locale cannot spell; set PYTHONUTF8=1, or LC_ALL=C.UTF-8"
    if isinstance(error, OSError) and error.strerror and error.errno is not None:
        where = f"{error.filename}: " if error.filename else ""
        remedy = _REMEDIES.get(error.errno)
        message = f"{where}{error.strerror}" + (f"; {remedy}" if remedy else "")
    _complain(f"fcnet: error: {' '.join('; '.join([message, *notes]).split())}")


def _complain(line: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may have gone
        print(printable(line), file=sys.stderr, flush=True)
