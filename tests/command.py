"""`python -m tests.command train ...`: the command `fcnet` as tests start it in a process of its own.

NumPy serves and nothing is drawn, which takes a quarter of the time.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-m", "tests.command"]


def environment(**others: str) -> dict[str, str]:
    """Return the environment of `COMMAND`, in any folder."""
    return os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", "FCNET_NUMBA": "0"} | others


def main(arguments: list[str] | None = None) -> int:
    """Return the command without its pictures, which can no longer be drawn in this process."""
    from fcnet.cli import main, train
    from fcnet.runs import rundir

    rundir.curves_png = lambda _: b"\x89PNG\r\n\x1a\n"
    train.write_report = lambda *_, **__: None
    return main(arguments)


if __name__ == "__main__":
    sys.exit(main())
