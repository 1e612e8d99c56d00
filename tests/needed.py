"""What a machine may lack, and CI must not: there a test that cannot run is a failure. How long to wait."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

HANGS = 1200  # seconds after which what a test waits for is taken to hang; a busy machine is slower than one thinks


def lacking(what: str) -> NoReturn:
    """Skip the test for want of `what`; in CI (CI=true in the environment) fail it."""
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(f"CI must have it: {what}")
    pytest.skip(what)
