"""The named data sets: their files, where these are looked for, and where they come from."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

#: The data sets that `load` knows by name.
NAMES = ("digits", "mnist", "fashion-mnist", "cifar10", "spirals")

DIGIT_NAMES = tuple("0123456789")
FASHION_NAMES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
CIFAR_NAMES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """Describe where a set is published, and where its files lie under a root.

    checksums: file name -> sha256, or "md5:" and the md5.  sizes: file name -> bytes.
    folder: where `fetch` puts the files.
    folders: where `load` looks, in this order; among them those of torchvision and of the archives.
    """

    url: str
    checksums: dict[str, str]
    sizes: dict[str, int]
    folder: str
    folders: tuple[str, ...]


SOURCES = {
    "mnist": Source(
        url="https://ossci-datasets.s3.amazonaws.com/mnist/",
        checksums={
            "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        },
        sizes={
            "train-images-idx3-ubyte.gz": 9_912_422,
            "train-labels-idx1-ubyte.gz": 28_881,
            "t10k-images-idx3-ubyte.gz": 1_648_877,
            "t10k-labels-idx1-ubyte.gz": 4_542,
        },
        folder="mnist",
        folders=("mnist", "MNIST/raw"),
    ),
    "fashion-mnist": Source(
        url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        checksums={
            "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        },
        sizes={
            "train-images-idx3-ubyte.gz": 26_421_880,
            "train-labels-idx1-ubyte.gz": 29_515,
            "t10k-images-idx3-ubyte.gz": 4_422_102,
            "t10k-labels-idx1-ubyte.gz": 5_148,
        },
        folder="fashion-mnist",
        folders=("fashion-mnist", "FashionMNIST/raw"),
    ),
    "cifar10": Source(
        url="https://www.cs.toronto.edu/~kriz/",
        checksums={"cifar-10-binary.tar.gz": "md5:c32a1d4ab5d03f1284b67883e8d87530"},
        sizes={"cifar-10-binary.tar.gz": 170_052_171},
        folder="cifar-10-batches-bin",
        folders=("cifar10", "cifar-10-batches-bin", "cifar-10-batches-py", "cifar10/cifar-10-batches-bin"),
    ),
}

# The files `load` needs, each with the names it may have.
_CIFAR_FILES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
_IDX_FILES = [f"{part}-{what}" for part in ("train", "t10k") for what in ("images-idx3-ubyte", "labels-idx1-ubyte")]


def wanted_files(name: str) -> dict[str, tuple[str, ...]]:
    """Return the files of a set -> the names each may have, the fastest to read first."""
    if name == "cifar10":
        return {f: (f"{f}.bin", f"{f}.bin.gz", f"{f}.bin.xz", f) for f in _CIFAR_FILES}
    # "train-images.idx3-ubyte": how the files come out of some zip archives.
    return {f: (f, f"{f}.gz", f.replace("-idx", ".idx"), f.replace("-idx", ".idx") + ".gz") for f in _IDX_FILES}


def default_root() -> Path:
    """Return where `fetch` puts sets: $FCNET_DATA, else $XDG_CACHE_HOME/fcnet, else ~/.cache/fcnet."""
    if given := os.environ.get("FCNET_DATA"):
        return Path(given).expanduser()
    return _cache()


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "fcnet"


def named_folder(data_dir: str | os.PathLike[str]) -> Path:
    """Return a folder that was named. Raises ValueError if its name is empty, which would be the working folder."""
    if not os.fspath(data_dir):
        raise ValueError("data_dir: expected a folder; got ''; name one, or leave it out")
    return Path(data_dir).expanduser()


def how_to_fetch(name: str, data_dir: str | os.PathLike[str] | None) -> str:
    """Return the command that brings a set to where `load` looks for it."""
    where = "" if data_dir is None else f" --data-dir {shlex.quote(os.fspath(data_dir))}"
    return f"fcnet fetch {name}{where}"


def candidate_folders(name: str, data_dir: str | os.PathLike[str] | None) -> list[Path]:
    """Return where `load` looks for a set, in order: under data_dir if given, else $FCNET_DATA, the user's cache.

    Raises FileNotFoundError or ValueError if data_dir is no folder.
    """
    folders = SOURCES[name].folders
    candidates: list[Path] = []
    if data_dir is not None:
        given = named_folder(data_dir)
        if not given.is_dir():
            raise FileNotFoundError(
                f"data_dir: expected a folder; got {str(given)!r}, which is none; to put {name} there: "
                f"{how_to_fetch(name, data_dir)}"
            )
        candidates += [given / f for f in folders]
        # MNIST and Fashion-MNIST share file names, so a folder named after the one never serves as the other.
        others = {f for other in SOURCES if other != name for f in SOURCES[other].folders}
        if not any(given.resolve().match(f) for f in others):
            candidates.append(given)
        return candidates
    for root in dict.fromkeys([default_root(), _cache()]):
        candidates += [root / f for f in folders]
    return list(dict.fromkeys(candidates))


def find_files(name: str, data_dir: str | os.PathLike[str] | None = None) -> dict[str, Path]:
    """Return the path of each wanted file of a set, in the first folder that has any of them.

    Raises FileNotFoundError with the folders looked in, or with the missing files if only some are there.
    """
    candidates = candidate_folders(name, data_dir)
    for folder in candidates:
        if found := files_in(folder, name):
            if missing := [f for f in wanted_files(name) if f not in found]:
                raise FileNotFoundError(
                    f"{name}: {folder} lacks {', '.join(missing)} (packed or not); "
                    f"get what is missing: {how_to_fetch(name, data_dir)}"
                )
            return found
    if data_dir is not None:
        raise FileNotFoundError(
            f"data_dir: expected the files of {name} in {named_folder(data_dir)}; got none there; "
            f"get them with: {how_to_fetch(name, data_dir)}, or name the folder that holds them"
        )
    raise FileNotFoundError(
        f"{name}: no files in {', '.join(map(str, candidates))}; get them with: fcnet fetch {name}, "
        "or say where they are: data_dir= or $FCNET_DATA"
    )


def files_in(folder: Path, name: str) -> dict[str, Path]:
    """Return the wanted files of a set that a folder holds -> their paths."""
    found = {}
    for file, spellings in wanted_files(name).items():
        for spelling in spellings:
            if (folder / spelling).is_file():
                found[file] = folder / spelling
                break
    return found
