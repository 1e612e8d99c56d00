"""The command line, `fcnet COMMAND`: one module a command, each with `add(commands)` and a function that runs it."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

from fcnet.errors import DivergedError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 1 training diverged, 2 bad input, 130 interrupted.

    Errors are one line on standard error; with FCNET_TRACEBACK=1 in the environment, Python's traceback too.
    """
    from fcnet.cli.parser import build

    try:
        options = build().parse(list(sys.argv[1:] if arguments is None else arguments))
        return options.run(options)
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("fcnet: interrupted", file=sys.stderr)
        return 130
    except DivergedError as error:
        _report(error)
        return 1
    except (ValueError, TypeError, OSError, ImportError, MemoryError) as error:
        _report(error)
        return 2


def _report(error: BaseException) -> None:
    if os.environ.get("FCNET_TRACEBACK"):
        traceback.print_exception(error)
    message = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror and error.filename:
        message = f"{error.filename}: {error.strerror}"
    print(f"fcnet: error: {' '.join(message.split())}", file=sys.stderr)
