"""What the source must look like: who imports whom, who may name a device, how long a file is."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import backends
import fcnet
from backends import REGISTRY, cpu
from backends.cuda.kernels import CudaKernels
from tests.guard import GUARDED

ROOT = Path(__file__).parent.parent
FCNET = sorted((ROOT / "fcnet").rglob("*.py"))
BACKENDS = sorted((ROOT / "backends").rglob("*.py"))
MAX_LINES = 400

# Which parts of fcnet a part may import; a part is a module or package directly under fcnet/. Calls go one way:
# cli -> solver -> model -> layers -> functional -> backends, and nothing goes back up.
ALLOWED = {
    "errors": set(),
    "files": set(),
    "folders": set(),
    "progress": set(),
    "lazy": set(),
    "boundary": {"errors"},
    "params": set(),
    "program": set(),
    "init": {"boundary", "errors"},
    "functional": {"errors"},
    "layers": {"functional", "params", "program", "boundary"},
    "optim": {"functional", "params", "program", "boundary", "errors"},
    "data": {"errors", "folders", "lazy"},
    "penalties": {"functional", "program", "boundary"},
    "objective": {"functional", "program", "boundary"},
    "prediction": {"layers", "objective", "params", "program", "boundary"},
    "model": {
        *("arguments", "functional", "layers", "objective", "prediction", "params", "program", "init", "penalties"),
        *("boundary", "errors"),
    },
    "numerical": {"boundary"},
    "neighbors": {"boundary"},
    "checkpoint": {"model", "files", "errors"},
    "transfer": {"checkpoint", "model", "boundary"},
    "options": {"errors", "model"},
    "rundir": {"checkpoint", "files", "folders", "options", "errors"},
    "evaluation": {"functional", "model", "boundary"},
    "updates": {"model", "optim", "params", "program", "boundary"},
    "fullbatch": {"model", "params", "program", "boundary", "errors"},
    "losslog": {"errors"},
    "interrupts": set(),
    "arguments": {"boundary", "errors"},
    "batches": {"functional", "model", "device_data", "program"},
    "device_data": {"model", "data", "program", "errors"},
    "solver": {
        *("functional", "model", "optim", "updates", "evaluation", "device_data", "params", "program", "data"),
        *("fullbatch", "losslog", "batches", "objective", "interrupts"),
        *("rundir", "progress", "boundary", "errors"),
    },
    "babysit": {"model", "solver", "optim", "data", "numerical", "program", "progress", "boundary"},
    "__init__": {
        *("data", "functional", "checkpoint", "errors", "model", "numerical", "neighbors", "optim", "solver"),
        *("transfer", "babysit", "study", "lazy"),
    },
    "compat": {
        *("__init__", "functional", "optim", "data", "params", "init", "numerical", "neighbors", "boundary", "errors"),
    },
    "experiments": {
        *("__init__", "compat", "functional", "data", "init", "model", "solver", "progress", "folders", "files"),
    },
    "study": {
        *("functional", "model", "checkpoint", "data", "solver", "options", "rundir", "progress", "files", "errors"),
    },
    "cli": {
        "babysit",
        "study",
        *("__init__", "solver", "model", "objective", "data", "rundir", "experiments", "options", "boundary"),
        *("files", "folders", "errors"),
    },
    "__main__": {"cli"},
}
# Upwards, but inside a function: a convenience that the layers below do without.
LAZY = {("model", "checkpoint"): "FullyConnectedNet.save", ("study", "cli"): "a trial is what `fcnet train` makes"}


def relative(path):
    return path.relative_to(ROOT).as_posix()


def tree(path):
    return ast.parse(path.read_text("utf-8"), str(path))


def part(path):
    """The part of fcnet that a file belongs to."""
    return path.relative_to(ROOT / "fcnet").parts[0].removesuffix(".py")


def parts_on_disk():
    return {part(path) for path in FCNET}


def type_checking_nodes(module):
    """What stands under `if TYPE_CHECKING:`: it never runs."""
    return {
        id(node)
        for test in ast.walk(module)
        if isinstance(test, ast.If) and ast.unparse(test.test) == "TYPE_CHECKING"
        for node in ast.walk(test)
    }


def imports(module):
    """(full name, node) of each module imported anywhere in a file; `from a import b` gives a.b and a."""
    skipped = type_checking_nodes(module)
    for node in ast.walk(module):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node


def imported_part(name):
    """The part of fcnet that an imported name is in, or None for other packages."""
    first, _, rest = name.partition(".")
    if first != "fcnet":
        return None
    second = rest.partition(".")[0]
    return second if second in parts_on_disk() else "__init__"


def test_every_part_has_a_place_in_the_table():
    assert parts_on_disk() == set(ALLOWED)


@pytest.mark.parametrize("path", FCNET, ids=relative)
def test_imports_go_one_way(path):
    module = tree(path)
    inside = {id(n) for f in ast.walk(module) if isinstance(f, ast.FunctionDef) for n in ast.walk(f)}
    here = part(path)
    for name, node in imports(module):
        there = imported_part(name)
        if there is None or there == here or there in ALLOWED[here]:
            continue
        assert (here, there) in LAZY, f"line {node.lineno}: fcnet.{here} must not import fcnet.{there}"
        assert id(node) in inside, f"line {node.lineno}: fcnet.{there} is imported when the module is"


def test_the_table_itself_goes_one_way():
    """No part reaches itself through what it may import."""
    for start in ALLOWED:
        seen, todo = set(), set(ALLOWED[start])
        while todo:
            seen |= todo
            todo = set().union(*(ALLOWED[name] for name in todo)) - seen
        assert start not in seen, start


@pytest.mark.parametrize("path", BACKENDS, ids=relative)
def test_backends_know_nothing_of_fcnet(path):
    assert [name for name, _ in imports(tree(path)) if name.split(".")[0] == "fcnet"] == []


@pytest.mark.parametrize("path", FCNET, ids=relative)
def test_cupy_is_imported_by_backends_only(path):
    assert [name for name, _ in imports(tree(path)) if name.split(".")[0] in ("cupy", "cupyx")] == []


@pytest.mark.parametrize("path", BACKENDS, ids=relative)
def test_cupy_is_imported_inside_functions_only(path):
    """So that `import backends` never loads it."""
    module = tree(path)
    at_import = [node for node in module.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [n.lineno for name, n in imports(module) if name.split(".")[0] == "cupy" and n in at_import] == []


NO_DEVICE = (
    *("functional", "optim", "layers", "model", "params", "program", "solver", "init", "numerical"),
    *("penalties", "objective", "prediction", "updates", "evaluation", "device_data", "fullbatch", "losslog"),
    "transfer",
    *("neighbors", "babysit"),
)
NO_NUMPY = ("functional", "optim", "layers", "params", "program")


def docstrings(module):
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef
    for node in ast.walk(module):
        if isinstance(node, kinds) and node.body and isinstance(node.body[0], ast.Expr):
            yield id(node.body[0].value)


@pytest.mark.parametrize("path", [path for path in FCNET if part(path) in NO_DEVICE], ids=relative)
def test_the_core_names_no_device(path):
    """In strings and names; docstrings may."""
    module = tree(path)
    told = set(docstrings(module))
    for node in ast.walk(module):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            assert not re.search(r"cuda|cupy|gpu", node.value, re.I), f"line {node.lineno}: {node.value!r}"
        name = getattr(node, "id", None) or getattr(node, "attr", None)
        assert not (name and re.search(r"cuda|cupy|gpu", name, re.I)), f"line {node.lineno}: {name}"


@pytest.mark.parametrize("path", FCNET, ids=relative)
def test_nobody_branches_on_a_device_name(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Compare):
            for side in ast.walk(node):
                value = getattr(side, "value", None)
                device = isinstance(value, str) and re.fullmatch(r"cpu|cupy|guard|cuda(:\d+)?", value)
                assert not device, f"line {node.lineno}: compares with {value!r}"


@pytest.mark.parametrize("path", [path for path in FCNET if part(path) in NO_NUMPY], ids=relative)
def test_device_code_does_not_import_numpy(path):
    assert [name for name, _ in imports(tree(path)) if name.split(".")[0] == "numpy"] == []


def names_of_xp(path):
    """What a file calls of an array module: xp.NAME, backend.xp.NAME, array_module(...).NAME."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute):
            of = node.value
            called = of.func if isinstance(of, ast.Call) else None
            if "xp" in (getattr(of, "id", None), getattr(of, "attr", None)) or (
                getattr(called, "id", None) == "array_module"
            ):
                yield node.attr


def test_the_guarded_list_is_what_fcnet_uses():
    """No more, or a function could enter fcnet without a look at CuPy's; no less, or fcnet fails on the guard."""
    files = [path for path in FCNET if part(path) != "compat"] + [ROOT / "backends" / "base.py"]
    assert {name for path in files for name in names_of_xp(path)} == set(GUARDED)


EXTRAS = {
    *("cupy", "sklearn", "matplotlib", "pooch", "requests", "pyarrow", "optuna", "onnx", "numba", "torch"),
    *("scipy", "pandas", "mpi4py"),
}


def test_importing_fcnet_imports_no_extra():
    """Nor tqdm and safetensors, which every installation has: they wait until they are needed."""
    code = "import sys, fcnet; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "fcnet.solver" in loaded
    assert loaded & (EXTRAS | {"tqdm", "safetensors"}) == set()


@pytest.mark.parametrize("path", FCNET + BACKENDS, ids=relative)
def test_no_assert_checks_what_a_user_gave(path):
    """`python -O` drops them. One that tells the type checker what is known says so in a comment."""
    lines = path.read_text("utf-8").splitlines()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Assert):
            text = lines[node.lineno - 1]
            narrows = ast.unparse(node.test).endswith("is not None") or "isinstance" in text
            assert narrows and "#" in text, f"line {node.lineno}: {text.strip()}"  # noqa: PT018


@pytest.mark.parametrize("path", FCNET + BACKENDS + sorted((ROOT / "tests").rglob("*.py")), ids=relative)
def test_files_are_short(path):
    assert len(path.read_text("utf-8").splitlines()) <= MAX_LINES


def kernel_tables():
    """Each device's table of kernels; the CPU's is empty where Numba is not installed."""
    return {"cpu": cpu.kernels(), "cuda": CudaKernels(None, None).table()}


def test_kernels_have_the_signature_of_what_they_replace():
    for device, table in kernel_tables().items():
        for name, kernel in table.items():
            assert name in REGISTRY, f"{device}: {name} replaces nothing"
            reference = inspect.signature(REGISTRY[name].reference).parameters.values()
            mine = inspect.signature(kernel.function).parameters.values()
            described = [[(p.name, p.kind, p.default) for p in parameters] for parameters in (reference, mine)]
            assert described[0] == described[1], f"{device}: {name}"


def test_every_op_can_be_given_back_its_results():
    """A keyword-only output, or the required argument that it changes in place; else a program would allocate it anew.

    A cache may hold only arguments and outputs, so it need not be given back by itself.
    """
    empty = inspect.Parameter.empty
    for name, op in REGISTRY.items():
        parameters = inspect.signature(op.reference).parameters
        for result in set(op.results) - {"cache"}:
            in_place = result in parameters and parameters[result].default is empty
            assert result in op.outputs or in_place, f"{name}: {result} cannot be given back"
        for output in op.outputs:
            assert parameters[output].default is None, f"{name}: {output} must be optional"


def test_public_names_exist():
    for module in (fcnet, backends, fcnet.data, fcnet.functional, fcnet.optim):
        assert [name for name in module.__all__ if not hasattr(module, name)] == []


@pytest.mark.parametrize("module", [fcnet, fcnet.data], ids=lambda module: module.__name__)
def test_names_imported_later_are_those_the_type_checker_sees(module):
    source = tree(Path(module.__file__))
    checked = type_checking_nodes(source)
    seen = {
        alias.name: f"{node.module}.{alias.name}" if node.module == module.__name__ else node.module
        for node in ast.walk(source)
        if id(node) in checked and isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == module._LATER
    assert set(module._LATER) <= set(dir(module))


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'fcnet' has no attribute 'lod'"):
        fcnet.lod  # noqa: B018
