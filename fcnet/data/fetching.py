"""`fetch`: get the files of a named data set, check them, and put them where `load` looks."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import IO, Any, cast

import fcnet.errors as errors
from fcnet.data import catalogue, cifar
from fcnet.files import lock, make_folder, unless_it_fails

_TIMEOUT = 60  # seconds without a byte
_SLOWEST = 10_000  # bytes a second, from the first minute on: a server that is slower has as good as stopped
_MORE = 1 << 20  # bytes above the catalogue's size that are still read, so that a checksum can say what is wrong
_LOCK, _TEMPORARY = ".fetch.lock", ".fetch-"
_REASONS = {
    "name or service not known": ("failed to resolve", "name resolution", "getaddrinfo", "name or service not known"),
    "connection refused": ("refused",),
    "timed out": ("timed out",),
}


def fetch(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    mirror: str | None = None,
    progress: bool = True,
) -> Path:
    """Download "mnist", "fashion-mnist" or "cifar10" and return its folder; files already there are kept.

    data_dir  the root to put it under; default $FCNET_DATA, else the user's cache
    mirror    a URL to use instead of the publisher's; the checksums stay
    progress  show progress (if stderr is a terminal), and say what is done, on stderr

    Files are downloaded beside their place, checked, and moved there whole: a killed download leaves no half
    file. For "digits" and "spirals" there is nothing to get: it says so and returns the root.
    Raises ValueError (unknown name, wrong checksum), ConnectionError (no network, no such file), OSError
    (cannot write), fcnet.errors.MissingExtra (no pooch).
    """
    if name not in catalogue.NAMES:
        raise errors.unknown("name", name, catalogue.NAMES)
    root = catalogue.default_root() if data_dir is None else catalogue.named_folder(data_dir)
    if name not in catalogue.SOURCES:
        _say(progress, f"{name} is made here; nothing to fetch")
        return root
    source = catalogue.SOURCES[name]
    folder = root / source.folder
    if name == "cifar10" and _cifar_is_there(folder):
        _say(progress, f"{name}: already in {folder}")
        return folder
    try:
        import pooch
    except ImportError:
        raise errors.MissingExtra("fcnet fetch", "pooch", "data") from None
    base = source.url if mirror is None else f"{mirror.rstrip('/')}/"
    wanted = {file: check for file, check in source.checksums.items() if not _is_right(pooch, folder / file, check)}
    if not wanted:
        _say(progress, f"{name}: already in {folder}")
        return folder
    # The temporary one is on the same file system as its target, so that moving is renaming.
    with (
        unless_it_fails(make_folder(folder)),
        _alone(folder, progress),
        tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=folder) as temporary,
    ):
        for file, check in wanted.items():
            if _is_right(pooch, folder / file, check):  # another process was at work here before
                continue
            limit = source.sizes[file] + _MORE
            got = _download(pooch, base + file, Path(temporary) / file, check, folder, progress, limit)
            if name == "cifar10":
                _unpack(got, folder)
            else:
                got.replace(folder / file)
    _say(progress, f"{name}: now in {folder}")
    return folder


@contextmanager
def _alone(folder: Path, progress: bool) -> Iterator[None]:
    """Wait until no other process fetches into this folder, and remove what one that was killed left there."""
    with (folder / _LOCK).open("a") as file:
        if lock(file.fileno()) is False:
            _say(progress, f"{folder}: waiting for another process that fetches into it")
            lock(file.fileno(), wait=True)
        for left in folder.glob(f"{_TEMPORARY}*"):
            shutil.rmtree(left, ignore_errors=True)
        try:
            yield
        finally:
            (folder / _LOCK).unlink(missing_ok=True)


def _say(progress: bool, line: str) -> None:
    if progress:
        sys.stderr.write(line + "\n")


def _algorithm(check: str) -> tuple[str, str]:
    algorithm, _, expected = check.rpartition(":")
    return algorithm or "sha256", expected


def _is_right(pooch: ModuleType, path: Path, check: str) -> bool:
    algorithm, expected = _algorithm(check)
    return path.is_file() and pooch.file_hash(str(path), alg=algorithm) == expected


class _Bounded(io.FileIO):
    """Write a file that takes no more than so many bytes, and no more time than they need from a slow server."""

    def __init__(self, path: Path, url: str, limit: int) -> None:
        super().__init__(path, "w")
        self.url, self.left, self.limit = url, limit, limit
        self.until = time.monotonic() + _TIMEOUT + limit / _SLOWEST

    def write(self, data: Any) -> int:
        self.left -= len(data)
        if self.left < 0:
            raise ValueError(
                f"{self.url}: expected at most {self.limit} bytes, got more; nothing was kept; try mirror=URL"
            )
        if time.monotonic() > self.until:
            raise ConnectionError(f"slower than {_SLOWEST // 1000} kB a second")
        return super().write(data)


def without_password(url: str) -> str:
    """Return the URL as a message may show it.

    >>> without_password("https://me:secret@example.org/data/?token=secret")
    'https://...@example.org/data/?...'
    """
    head, at, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    path, query, _ = path.partition("?")
    user, mark, host = place.rpartition("@")
    return f"{head}{at}{'...' if user else ''}{mark}{host}{slash}{path}{'?...' if query else ''}"


def _download(pooch: ModuleType, url: str, path: Path, check: str, folder: Path, progress: bool, limit: int) -> Path:
    shown = without_password(url)
    try:
        with _Bounded(path, shown, limit) as file:
            # As it is, not unpacked on the way: what is unpacked has no bound.
            pooch.HTTPDownloader(
                progressbar=progress and sys.stderr.isatty(),
                chunk_size=8192,
                timeout=_TIMEOUT,
                headers={"Accept-Encoding": "identity", "User-Agent": "fcnet"},
            )(url, file, None)
    except OSError as error:
        if (response := getattr(error, "response", None)) is not None:
            response.close()  # pooch leaves it open
        network = isinstance(error, ConnectionError) or error.errno is None
        if not network:  # the disk's own: full, or not to be written
            raise
        raise ConnectionError(
            f"{shown}: cannot be fetched ({_reason(error, url)}); try mirror=URL, or put {path.name} in {folder} "
            "yourself"
        ) from None
    algorithm, expected = _algorithm(check)
    got = pooch.file_hash(str(path), alg=algorithm)
    if got != expected:
        raise ValueError(
            f"{path.name}: expected {algorithm} {expected}; got {got} from {shown}; nothing was kept; "
            "try again, or try mirror=URL"
        )
    return path


def _reason(error: BaseException, url: str = "") -> str:
    """Return why a connection failed: the plain words inside what requests and urllib3 wrap around them."""
    text = " ".join(str(error).split()).replace(url, without_password(url)) if url else " ".join(str(error).split())
    secret = url.partition("://")[2].partition("/")[0].rpartition("@")[0]
    for part in {secret, secret.partition(":")[2]} - {""}:
        text = text.replace(part, "...")
    for reason, signs in _REASONS.items():
        if any(sign in text.lower() for sign in signs):
            return reason
    return text[:160]


def _cifar_is_there(folder: Path) -> bool:
    found = catalogue.files_in(folder, "cifar10")
    size = cifar.RECORDS * (1 + cifar.PIXELS)
    # Only plain files can be judged by their size; the others are checked when they are read.
    return len(found) == 6 and all(path.suffix != ".bin" or path.stat().st_size == size for path in found.values())


def _unpack(archive: Path, folder: Path) -> None:
    """Take the known members out of the CIFAR-10 archive, and nothing else; move them when all are there."""
    size = cifar.RECORDS * (1 + cifar.PIXELS)
    batches = [f"{file}.bin" for file in catalogue.wanted_files("cifar10")]
    unpacked = Path(tempfile.mkdtemp(dir=archive.parent))
    try:
        with tarfile.open(archive, "r:gz") as members:
            for member in members:
                top, _, file = member.name.partition("/")
                batch = file in batches and member.size == size
                names = file == "batches.meta.txt" and member.size < 4096
                if top == folder.name and member.isreg() and (batch or names):
                    with (unpacked / file).open("wb") as out:
                        shutil.copyfileobj(cast(IO[bytes], members.extractfile(member)), out)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(
            f"{archive.name}: expected a .tar.gz archive; got a damaged one ({error}); fetch it again"
        ) from None
    missing = [file for file in batches if not (unpacked / file).is_file()]
    if missing:
        raise ValueError(
            f"{archive.name}: expected {', '.join(missing)} of {size} bytes in it; got none; use another mirror"
        )
    for path in sorted(unpacked.iterdir()):
        path.replace(folder / path.name)
