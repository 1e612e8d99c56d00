"""What a user gets: a wheel that works elsewhere, a quick import, no package in the way."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def python(*arguments: str, cwd: Path, path: Path = ROOT, check: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PYTHONPATH": str(path)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=check
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    # Not merely "build": a folder of that name, as builds leave behind, can be imported too.
    pytest.importorskip("build.__main__", reason="builds a wheel; needs the package build (extra dev)")
    pytest.importorskip("setuptools", reason="builds without an isolated environment, so needs setuptools here")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a copy, so that nothing is left in the tree that is tested
    for name in ("fcnet", "backends"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    done = python("-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), ".", cwd=source, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_the_packages_and_their_data_and_nothing_else(wheel):
    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    assert {name.split("/")[0] for name in names} == {"fcnet"}
    assert {"fcnet/py.typed", "fcnet/__init__.pyi", "fcnet/backends/cuda/philox.cu"} <= set(names)
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "fcnet").rglob("*.py")}
    sources |= {f"fcnet/{path.relative_to(ROOT)}" for path in (ROOT / "backends").rglob("*.py")}
    assert sources <= set(names), sources - set(names)


def test_a_run_from_the_wheel_in_another_directory(wheel, tmp_path, monkeypatch):
    monkeypatch.setenv("FCNET_NUMBA", "0")  # a new place, where all kernels would be compiled
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    work = tmp_path / "work"
    work.mkdir()
    command = "train", "--data", "spirals", "--epochs", "3", "--hidden", "20"
    done = python("-m", "fcnet", *command, cwd=work, path=site)
    assert done.stdout.splitlines()[-1].startswith("test accuracy ")
    where = python("-c", "import fcnet, fcnet.backends as b; print(fcnet.__file__, b.__file__)", cwd=work, path=site)
    assert where.stdout.count(str(site)) == 2


def test_a_folder_called_backends_is_in_nobodys_way(tmp_path):
    (tmp_path / "backends").mkdir()
    (tmp_path / "backends" / "__init__.py").write_text("mine = True")
    code = "import backends, fcnet.backends as ours; print(backends.mine, ours.get_backend('cpu'))"
    assert python("-c", code, cwd=tmp_path).stdout == "True <NumpyBackend cpu>\n"


def test_the_folder_is_not_imported_by_its_bare_name():
    """Or all of it would be loaded twice, and arrays of one copy be strangers to the other."""
    done = python("-c", "import backends", cwd=ROOT, check=False)
    assert done.stderr.splitlines()[-1].startswith(
        "ImportError: fcnet: expected `import fcnet.backends`, got 'backends'"
    )


def test_a_link_that_git_wrote_as_text_is_explained(tmp_path):
    shutil.copytree(ROOT / "fcnet", tmp_path / "fcnet", symlinks=True)
    (tmp_path / "fcnet" / "backends").unlink()
    (tmp_path / "fcnet" / "backends").write_text("../backends")
    done = python("-c", "import fcnet", cwd=tmp_path, path=tmp_path, check=False)
    assert "git config core.symlinks true" in done.stderr.splitlines()[-1]


def test_threads_may_ask_for_names_at_once(tmp_path):
    """Each of them first: a package and a module in it would be waited for crosswise."""
    code = (
        "import threading, fcnet; names = [n for n in fcnet.__all__]; gate = threading.Barrier(len(names)); got = []\n"
        "def ask(name): gate.wait(); got.append(getattr(fcnet, name))\n"
        "threads = [threading.Thread(target=ask, args=(name,)) for name in names]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]; print(len(got) == len(names))"
    )
    for _ in range(3):
        done = python("-c", code, cwd=tmp_path)
        assert (done.stdout, done.stderr) == ("True\n", "")


def test_it_is_imported_from_a_zip(wheel, tmp_path):
    shutil.copy(wheel, tmp_path / "fcnet.zip")
    code = "import fcnet; print(fcnet.FullyConnectedNet([3], 2, 2, device='cpu')); print(fcnet.__file__)"
    done = python("-c", code, cwd=tmp_path, path=tmp_path / "fcnet.zip")
    assert str(tmp_path / "fcnet.zip") in done.stdout


def test_import_brings_in_nothing_optional(tmp_path):
    code = (
        "import sys, fcnet; "
        "print(sorted({m.split('.')[0] for m in sys.modules} & "
        "{'cupy', 'sklearn', 'scipy', 'matplotlib', 'pooch', 'requests', 'tqdm', 'numba', 'torch', 'pandas'}))"
    )
    assert python("-c", code, cwd=tmp_path).stdout.strip() == "[]"


def test_import_loads_only_what_is_asked_for(tmp_path):
    """How many seconds that takes, `python -m benchmarks.startup` says."""
    code = "import sys, fcnet; print(*sorted(m for m in sys.modules if m.split('.')[0] == 'fcnet'))"
    assert python("-c", code, cwd=tmp_path).stdout.split() == ["fcnet", "fcnet.interrupts", "fcnet.lazy"]
    done = python("-c", code.replace("print", "fcnet.Solver; print"), cwd=tmp_path)
    rooms = {name.split(".")[1] for name in done.stdout.split() if "." in name}
    assert rooms & {"build", "cli", "compat", "experiments", "tools"} == set()
    assert {"fcnet.data.loading", "fcnet.data.fetching", "fcnet.data.table"} & set(done.stdout.split()) == set()
