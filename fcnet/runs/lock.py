"""The lock of a run directory: one process works in it at a time, and the kernel gives a dead one's lock back."""

from __future__ import annotations

import contextlib
import json
import os
import platform
from pathlib import Path

from fcnet.files import lock, naming

NAME = ".lock"


class Lock:
    """Lock a folder from when this is made until `release`."""

    def __init__(self, folder: Path) -> None:
        """Lock a folder that is there.

        Raises:
            BlockingIOError: another process has it; the message says which. OSError: it cannot be written to.
        """
        self.path = folder / NAME
        while True:
            with naming(self.path):
                self._descriptor: int | None = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                taken = lock(self._descriptor)
                if taken is False:
                    raise BlockingIOError(_owner(self._read()))
                owner = self._read()
                if owner is not None and owner.get("host") != platform.node():
                    # It was not given back, and locks do not always reach from one machine to another.
                    raise BlockingIOError(f"{_owner(owner)}; if that has ended, delete {self.path}")
                if taken is None and owner is not None and _lives(owner.get("pid")):
                    raise BlockingIOError(_owner(owner))
                if self._is_there():
                    break
            except BaseException:
                os.close(self._descriptor)
                raise
            os.close(self._descriptor)  # its owner took it away while it was opened here
        try:
            with naming(self.path):
                os.ftruncate(self._descriptor, 0)
                os.pwrite(self._descriptor, json.dumps({"pid": os.getpid(), "host": platform.node()}).encode(), 0)
        except BaseException:  # a full disk
            self.release()
            raise

    def _read(self) -> dict[str, object] | None:
        """Return who says that they hold the lock."""
        assert self._descriptor is not None  # it has not been given back
        try:
            owner = json.loads(os.pread(self._descriptor, 1000, 0))
        except (ValueError, RecursionError):  # nobody, or cut off
            return None
        return owner if isinstance(owner, dict) else None

    def _is_there(self) -> bool:
        assert self._descriptor is not None  # it has not been given back
        try:
            return os.path.samestat(os.fstat(self._descriptor), self.path.stat())
        except FileNotFoundError:
            return False

    def move(self, folder: Path) -> None:
        """Note that the folder has another name now."""
        self.path = folder / NAME

    def release(self) -> None:
        """Release the lock."""
        if self._descriptor is None:
            return
        with contextlib.suppress(OSError):
            if self._is_there():
                self.path.unlink()
        os.close(self._descriptor)
        self._descriptor = None


def _owner(owner: dict[str, object] | None) -> str:
    return "another process" if owner is None else f"process {owner.get('pid')} on {owner.get('host')}"


def _lives(pid: object) -> bool:
    if not isinstance(pid, int) or os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
