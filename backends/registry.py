"""Every accelerated function by name, filled by `fcnet.backends.ops`; kernels find their references here."""

from __future__ import annotations

from typing import Any

REGISTRY: dict[str, Any] = {}
