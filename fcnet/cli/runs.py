"""What a run directory tells about how it was made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fcnet.options import flag, read_toml
from fcnet.rundir import CONFIG


def trained_on(run: str) -> dict[str, Any]:
    """The options of the training that made this run directory, by flag; empty for a mere model file."""
    path = Path(run)
    folder = path if path.is_dir() else path.parent
    config = folder / CONFIG
    if not config.is_file():
        return {}
    return {flag(name): value for name, value in read_toml(config).items()}
