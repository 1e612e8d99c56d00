"""Inputs that Atheris makes, guided by which lines of a reader they reach: `python -m tests.crash.guided READER ...`.

Readers are those of `fuzz.corpus`; what follows is libFuzzer's, such as -runs=100000. It ends with an error at the
first input that is neither read nor refused, and keeps that input in the working directory. It needs Atheris.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["fcnet.data", "fcnet.runs"]):
    from tests.crash import fuzz


def main() -> None:
    """Fuzz one reader, starting from its whole files."""
    corpus = fuzz.corpus()
    if len(sys.argv) < 2 or sys.argv[1] not in corpus:
        sys.exit(f"expected a reader: one of {', '.join(corpus)}")
    read, whole, name, _ = corpus[sys.argv.pop(1)]
    with tempfile.TemporaryDirectory() as folder:
        seeds, path = Path(folder, "seeds"), Path(folder, "read", name)
        seeds.mkdir()
        path.parent.mkdir()
        for number, data in enumerate(whole):
            (seeds / str(number)).write_bytes(data)

        def one(data: bytes) -> None:
            path.write_bytes(data)
            try:
                read(path)
            except (*fuzz.REFUSALS, fuzz.Believed):
                return  # believed: Atheris sees the digests that are compared, and forges them

        warnings.simplefilter("ignore")
        atheris.Setup([*sys.argv, "-rss_limit_mb=4096", "-timeout=5", str(seeds)], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
