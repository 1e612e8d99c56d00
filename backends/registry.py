"""Every accelerated function by name (`fcnet.backends.ops` fills it); kernels look their references up here."""

from __future__ import annotations

from typing import Any

REGISTRY: dict[str, Any] = {}
