"""The disk cache of compiled kernels: it ignores those of other versions of the source, and replaces damaged files."""

from __future__ import annotations

import glob
import hashlib
import pickle
import time
import warnings
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from numba.core import sigutils
from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile

from fcnet.backends.notices import notice

LEFT_BEHIND = 3600.0  # seconds after which a temporary file is no longer being written
COMPILING = "compiling CPU kernels, once for this machine ..."

_said: set[str] = set()
_clean: set[Path] = set()


def _sources() -> list[Path]:
    here = Path(__file__).parent
    return [*sorted(here.glob("*.py")), here.parent / "rules.py"]  # whose numbers are compiled into kernels


@lru_cache
def digest() -> str:
    """Return a digest of the contents of all files of kernels, whose functions are compiled into each other.

    Numba compares the time stamp of a function's own file only, and copied files may have that of another version.
    """
    total = hashlib.sha256()
    for file in _sources():
        text = file.read_bytes()
        total.update(f"{file.name} {len(text)} ".encode() + text)
    return total.hexdigest()[:12]


class _Named(CompileResultCacheImpl):
    """Name Numba's cache files by the source's digest, so that versions of the source do not share files."""

    def get_filename_base(self, fullname: str, abiflags: str) -> str:
        return f"{super().get_filename_base(fullname, abiflags)}.{digest()}"


class _Summed(IndexDataCacheFile):
    """Write Numba's cache files with a SHA-256 before the content: it is executed, so an undetected flip of a bit would
    crash every start.
    """

    def _load_index(self) -> dict[Any, str]:
        try:
            version, stamp, overloads = pickle.loads(_whole(Path(self._index_path)))
        except FileNotFoundError:
            return {}
        return overloads if (version, stamp) == (self._version, self._source_stamp) else {}

    def _save_index(self, overloads: dict[Any, str]) -> None:
        self._write(self._index_path, self._dump((self._version, self._source_stamp, overloads)))

    def _load_data(self, name: str) -> Any:
        return pickle.loads(_whole(Path(self._data_path(name))))

    def _save_data(self, name: str, data: Any) -> None:
        self._write(self._data_path(name), self._dump(data))

    def _write(self, path: str, content: bytes) -> None:
        with self._open_for_write(path) as file:
            file.write(hashlib.sha256(content).digest() + content)


def _whole(path: Path) -> bytes:
    """Return the content that a file was written with. Raises ValueError: it was cut off or changed since."""
    stored = path.read_bytes()
    sum_, content = stored[:32], stored[32:]
    if hashlib.sha256(content).digest() != sum_:
        raise ValueError(f"{path}: changed since it was written")
    return content


class Cache(FunctionCache):
    """Cache one function as Numba does; a file that cannot be read or written costs a compilation, and nothing else.

    Making it raises RuntimeError if Numba finds no folder for it.
    """

    _impl_class = _Named

    def __init__(self, function: Any) -> None:
        try:
            super().__init__(function)
        except RuntimeError as error:  # Numba found no folder that it may write to
            raise RuntimeError(f"{error}; set NUMBA_CACHE_DIR to a folder that can be written to") from error
        self._cache_file = _Summed(self.cache_path, self._impl.filename_base, self._impl.locator.get_source_stamp())
        drop_outdated(Path(self.cache_path))

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return what was compiled for this signature, or None."""
        try:
            found = super().load_overload(sig, target_context)
            # Two processes that save two signatures at once may give both files the same number.
            if found is not None and tuple(found.signature.args) != tuple(sigutils.normalize_signature(sig)[0]):
                raise ValueError("another signature's file")
        except Exception:  # a damaged file can fail in any way
            self._remove()
            found = None
        if found is None:  # Numba compiles it now
            _say_once(COMPILING)
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        """Save what was compiled for this signature, if that is possible."""
        try:
            super().save_overload(sig, data)
        except Exception as error:
            _warn_once(f"compiled CPU kernels cannot be kept, so every process compiles them: {error}")

    def _remove(self) -> None:
        for file in Path(self.cache_path).glob(f"{glob.escape(self._impl.filename_base)}.*"):
            _unlink(file)


def drop_outdated(folder: Path) -> None:
    """Remove what was compiled from other versions of these files, once per process."""
    if folder in _clean:
        return
    _clean.add(folder)
    ours = {file.stem for file in _sources()}
    for file in folder.glob("*.nb[ic]*"):
        if file.name.split(".")[0] in ours and f".{digest()}." not in file.name:
            _unlink(file)
    for file in folder.glob("*.nb[ic].tmp.*"):  # of a process that was killed while writing
        with suppress(OSError):
            if time.time() - file.stat().st_mtime > LEFT_BEHIND:
                _unlink(file)


def _unlink(file: Path) -> None:
    with suppress(OSError):  # another process was quicker, or the folder is read-only
        file.unlink()


def _say_once(line: str) -> None:
    if line not in _said and notice(line):
        _said.add(line)


def _warn_once(text: str) -> None:
    if "warned" not in _said:
        _said.add("warned")
        warnings.warn(" ".join(text.split()), RuntimeWarning, stacklevel=2)
