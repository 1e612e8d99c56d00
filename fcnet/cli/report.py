"""Write report.html, which `fcnet train` puts into a run directory at the end."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import sys
from typing import TYPE_CHECKING

import fcnet
from fcnet.errors import MissingExtra, no_picture

if TYPE_CHECKING:
    from fcnet.tools.crossvalidation import Scores
    from fcnet.training.solver import Solver

ASKED_FOR = 60.0  # seconds that the importance of columns may take in a report that was asked for
PACKAGES = ("numpy", "numba", "scipy", "scikit-learn", "cupy-cuda12x", "cupy-cuda13x", "safetensors", "matplotlib")


class _TooSlow(Exception):
    """Signal that a report was not requested and would take long."""


def check_report() -> None:
    """Check that a requested report can be made. Raises MissingExtra: matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtra("--report", "matplotlib", "plot")


def write_report(solver: Solver, scores: Scores | None, *, asked: bool, quiet: bool) -> None:
    """Write report.html into the run's directory; unless it was requested, only if that is quick.

    It comes after the last line of standard output. If there is none, standard error says why, except under `quiet`
    where none was asked for.
    """
    from fcnet.files import write_atomically
    from fcnet.runs.rundir import CURVES
    from fcnet.tools.report import NAME, SECONDS, report_html, seconds_of_predictions

    assert solver.run is not None  # a training on the command line has one
    sys.stdout.flush()
    path, curves = solver.run.path / NAME, solver.run.path / CURVES
    path.unlink(missing_ok=True)  # that of an earlier run
    reason = None
    try:
        if not asked and seconds_of_predictions(solver) > SECONDS / 2:
            raise _TooSlow
        text = report_html(
            solver,
            versions(solver.model.backend.describe()),
            scores,
            curves=curves.read_bytes() if curves.exists() else None,
            seconds=ASKED_FOR if asked else SECONDS,
        )
        write_atomically(path, text)
    except _TooSlow:
        reason = f"it would take more than {SECONDS:g} s; --report makes one all the same"
    except ImportError:
        reason = no_picture()
    except Exception as error:  # whatever it is, a report is not worth a run
        reason = f"{type(error).__name__}: {error}"
    if reason is not None and (asked or not quiet):
        print(f"fcnet: no {NAME}: {reason}", file=sys.stderr)


def versions(device: str) -> dict[str, str]:
    """Return the versions of what a network is trained with."""
    found = {"fcnet": fcnet.__version__, "Python": platform.python_version(), "system": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found | {"device": device}
