"""The process of one contender: it executes lines of JSON from standard input and answers on standard output.

`python -m benchmarks.peers.worker module:Class` makes an object of that class and calls its methods. Whatever a library
prints goes to standard error instead. The process ends with its parent: at the end of the input.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from typing import Any

from benchmarks.peers.base import NotSupported


def _limit_processors() -> None:
    """Keep to as many processors as threads: JAX takes no number, but counts these."""
    allowed = int(os.environ["FCNET_BENCH_THREADS"])
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:allowed])


def _answer(job: Any, request: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"result": getattr(job, request["call"])(**request["arguments"])}
    except ModuleNotFoundError as error:
        return {"error": f"{error.name} is not installed", "kind": "unavailable"}
    except NotSupported as error:
        return {"error": str(error), "kind": "unsupported"}
    except Exception as error:
        traceback.print_exc()  # to standard error, of which the parent keeps the end
        text = " ".join(str(error).split())[:200]
        return {"error": f"{type(error).__name__}: {text}" if text else type(error).__name__, "kind": "failed"}


def main() -> int:
    """Answer requests until the input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    _limit_processors()
    module, _, name = sys.argv[1].partition(":")
    job = getattr(importlib.import_module(module), name)()
    for line in sys.stdin:
        answers.write(json.dumps(_answer(job, json.loads(line))) + "\n")
        answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
