"""What every message to the user shares: the nearest valid name, how to install, errors with a name of their own."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class MissingExtra(ImportError):
    """An optional dependency is needed and not installed; the message says which extra brings it."""

    def __init__(self, need: str, package: str, extra: str) -> None:
        super().__init__(f"{need} needs {package}, which is not installed: {install(extra)}")


class DivergedError(ArithmeticError):
    """The loss became NaN or infinite during training."""


def install(extra: str) -> str:
    """The command that installs an extra of fcnet, which no package index has.

    In a checkout it names its folder, and keeps an editable installation editable. Elsewhere fcnet is installed, and of
    that pip takes the extras without looking for it in an index.
    """
    import shlex
    from pathlib import Path

    root = Path(__file__).resolve().parent.parent
    if not ((root / "pyproject.toml").is_file() and (root / "backends").is_dir()):
        return f"pip install {shlex.quote(f'fcnet[{extra}]')}"
    where = "." if root == Path.cwd() else root
    return f"pip install {'-e ' if _is_editable() else ''}{shlex.quote(f'{where}[{extra}]')}"


def _is_editable() -> bool:
    import importlib.metadata  # not above: it costs 30 ms
    import json

    try:
        origin = importlib.metadata.distribution("fcnet").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return False
    return origin is not None and bool(json.loads(origin).get("dir_info", {}).get("editable"))


def no_picture() -> str:
    """Why there is no picture where Matplotlib is not installed, and what to do."""
    return f"it needs matplotlib, {install('plot')}"


def unknown(argument: str, got: object, valid: Iterable[object]) -> ValueError:
    """ValueError for a name that is not one of `valid`, with the nearest valid one.

    >>> str(unknown("update_rule", "adma", ["sgd", "adam"]))
    "update_rule: expected one of sgd, adam; got 'adma'; did you mean 'adam'?"
    """
    names = [str(name) for name in valid]
    near = get_close_matches(str(got), names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return ValueError(f"{argument}: expected one of {', '.join(names)}; got {got!r}{hint}")
