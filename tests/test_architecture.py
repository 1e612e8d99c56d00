"""What the source must look like: who imports whom, who may name a device, how long a function is."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fcnet
from fcnet import backends, functional, optim
from fcnet.backends import REGISTRY
from fcnet.backends.cpu import loader
from fcnet.backends.cuda.kernels import cuda_kernels
from tests.guard import GUARDED
from tests.mutants import read_list

ROOT = Path(__file__).parent.parent
FCNET = sorted((ROOT / "fcnet").rglob("*.py"))
BACKENDS = sorted((ROOT / "backends").rglob("*.py"))
# The rooms of fcnet, from the ground up: what stands in one imports from those before it only; nothing goes back up.
ROOMS = (
    *("defaults", "errors", "lazy", "interrupts", "choices", "backends", "validation", "files", "progress"),
    *("functional", "data", "runs", "nn", "optim", "training", "build", "tools", "sklearn"),
    *("__init__", "compat", "experiments", "cli", "__main__"),
)
# What a docstring begins with: an imperative. Another verb that says what is done may be added; no noun, no "The".
VERBS = frozenset(
    re.findall(
        r"\w+",
        """Accept Add Adopt Allocate Alternate Answer Append Apply Ask Average Begin Bind Bring Build Cache Call
        Carry Check Choose Claim Classify Clip Close Collect Compare Compile Compute Construct Continue Copy Count
        Declare Defer Describe Discard Do Download Draw Drop End Estimate Evaluate Fail Fill Fit Follow Forget
        Free Freeze Gather Give Hand Handle Hold Import Judge Keep Launch Learn Leave Limit List Load Lock Look
        Make Mark Measure Minimize Mirror Multiply Name Normalise Note Number Open Own Pair Parse Pause Place Plan
        Predict Prefetch Prepare Print Provide Publish Put Raise Read Record Refuse Register Release Remember
        Remove Rename Repeat Replace Report Reset Restore Return Rewrite Run Save Say Search See Serve Set Share
        Show Signal Silence Split Stand Start Store Summarise Swap Sweep Take Time Trace Train Treat Turn Unlock
        Update Use Void Wait Warm Warn Wrap Write Yield""",
    )
)
MOST_STATEMENTS = 60  # of a function: one that is longer does several things


def relative(path):
    return path.relative_to(ROOT).as_posix()


@functools.cache
def tree(path):
    return ast.parse(path.read_text("utf-8"), str(path))


def for_each(paths):
    """Decorate a rule for one file: a test of all of these files, which names each that breaks it."""

    def decorate(rule):
        def test():
            broken = []
            for path in paths:
                try:
                    rule(path)
                except AssertionError as error:
                    broken.append(f"{relative(path)}: {error}")
            assert not broken, "\n".join(broken)

        test.__doc__ = rule.__doc__
        return test

    return decorate


def part(path):
    """Return the room that a file stands in: a folder or a module directly under fcnet/."""
    return "backends" if path in BACKENDS else path.relative_to(ROOT / "fcnet").parts[0].split(".")[0]


@functools.cache
def imports(module):
    """(full name, node) of each module imported anywhere in a file, for the type checker's sake too; `from a import b`
    gives a.b.
    """
    return list(_imports(module))


def _imports(module):
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node


def files_by_name():
    """Dotted name of each module of fcnet -> its file; of a package with a stub, the stub, which has the imports."""
    found = {}
    for path in FCNET + BACKENDS:
        name = ".".join((Path("fcnet") / path.relative_to(ROOT) if path in BACKENDS else path.relative_to(ROOT)).parts)
        stub = path.with_suffix(".pyi")
        found[name.removesuffix(".py").removesuffix(".__init__")] = stub if stub.exists() else path
    return found


@functools.cache
def arrows():
    """File -> (line, file) of whatever it imports of fcnet, in functions and for the type checker's sake too."""
    files = files_by_name()
    found = {}
    for path in files.values():
        found[path] = set()
        for name, node in imports(tree(path)):
            if name.split(".")[0] == "fcnet":
                there = files.get(name) or files.get(name.rpartition(".")[0])
                assert there is not None, f"{relative(path)}: line {node.lineno}: no module {name}"
                if there != path:
                    found[path].add((node.lineno, there))
    return found


def test_every_room_has_its_place():
    assert {part(path) for path in FCNET + BACKENDS} == set(ROOMS)


@for_each(sorted(files_by_name().values()))
def test_imports_go_one_way(path):
    for line, there in sorted(arrows()[path]):
        here, room = part(path), part(there)
        up = here != room and ROOMS.index(here) < ROOMS.index(room)
        assert not up, f"line {line}: fcnet.{here} must not import {relative(there)}"


def test_no_file_imports_itself_by_way_of_others():
    """Not by way of a function or the type checker either; there are no exceptions."""
    above = []

    def follow(path):
        assert path not in above, " -> ".join(map(relative, [*above[above.index(path) :], path]))
        above.append(path)
        for _, there in arrows()[path]:
            if there not in done:
                follow(there)
        done.add(above.pop())

    done = set()
    for path in arrows():
        follow(path)


@for_each(FCNET)
def test_cupy_is_imported_by_backends_only(path):
    assert [name for name, _ in imports(tree(path)) if name.split(".")[0] in ("cupy", "cupyx")] == []


@for_each(BACKENDS)
def test_cupy_is_imported_inside_functions_only(path):
    """So that `import fcnet.backends` never loads it."""
    module = tree(path)
    at_import = [node for node in module.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [n.lineno for name, n in imports(module) if name.split(".")[0] == "cupy" and n in at_import] == []


NO_DEVICE = ("functional", "nn", "optim", "training", "tools")
NO_NUMPY = [path for path in FCNET if part(path) in ("functional", "optim")] + [
    *(ROOT / "fcnet" / "nn" / name for name in ("layers.py", "params.py", "penalties.py")),
    ROOT / "backends" / "step.py",
]


def docstrings(module):
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef
    for node in ast.walk(module):
        if isinstance(node, kinds) and node.body and isinstance(node.body[0], ast.Expr):
            yield id(node.body[0].value)


@for_each([path for path in FCNET if part(path) in NO_DEVICE])
def test_the_core_names_no_device(path):
    """In strings and names; docstrings may."""
    module = tree(path)
    docs = set(docstrings(module))
    for node in ast.walk(module):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            assert not re.search(r"cuda|cupy|gpu", node.value, re.I), f"line {node.lineno}: {node.value!r}"
        name = getattr(node, "id", None) or getattr(node, "attr", None)
        assert not (name and re.search(r"cuda|cupy|gpu", name, re.I)), f"line {node.lineno}: {name}"


@for_each(FCNET)
def test_nobody_branches_on_a_device_name(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Compare):
            for side in ast.walk(node):
                value = getattr(side, "value", None)
                device = isinstance(value, str) and re.fullmatch(r"cpu|cupy|guard|cuda(:\d+)?", value)
                assert not device, f"line {node.lineno}: compares with {value!r}"


@for_each(NO_NUMPY)
def test_device_code_does_not_import_numpy(path):
    assert [name for name, _ in imports(tree(path)) if name.split(".")[0] == "numpy"] == []


def names_of_xp(path):
    """Return what a file calls of an array module: xp.NAME, backend.xp.NAME, array_module(...).NAME."""
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
    files = [path for path in FCNET if part(path) != "compat"]
    files += [ROOT / "backends" / name for name in ("denormals.py", "device.py")]
    assert {name for path in files for name in names_of_xp(path)} == set(GUARDED)


EXTRAS = {
    *("cupy", "sklearn", "matplotlib", "pooch", "requests", "pyarrow", "optuna", "onnx", "numba", "torch"),
    *("scipy", "pandas", "mpi4py"),
}


def test_no_test_imports_what_may_be_skipped():
    """A module that is skipped for want of a package cannot be imported either: whoever imports it fails."""
    texts = {path: path.read_text("utf-8") for path in (ROOT / "tests").rglob("*.py")}
    skipped = {path for path, text in texts.items() if re.search(r"^(\w+ = )?pytest\.importorskip\(", text, re.M)}
    assert ROOT / "tests" / "data" / "test_fetch.py" in skipped
    for path, text in texts.items():
        names = re.findall(r"^from (tests\.\S+) import", text, re.M)
        assert not {ROOT / f"{name.replace('.', '/')}.py" for name in names} & skipped, relative(path)


def test_importing_fcnet_imports_no_extra():
    """Nor tqdm and safetensors, which every installation has: they wait until they are needed."""
    code = "import sys, fcnet; fcnet.Solver; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "fcnet.training.solver" in loaded
    assert loaded & (EXTRAS | {"tqdm", "safetensors"}) == set()


@for_each(FCNET + BACKENDS)
def test_no_assert_checks_what_a_user_gave(path):
    """`python -O` drops them. One that tells the type checker what is known says so in a comment."""
    lines = path.read_text("utf-8").splitlines()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Assert):
            text = lines[node.lineno - 1]
            narrows = ast.unparse(node.test).endswith("is not None") or "isinstance" in text
            assert narrows and "#" in text, f"line {node.lineno}: {text.strip()}"  # noqa: PT018


@for_each(FCNET + BACKENDS)
def test_functions_are_short(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef):
            count = sum(isinstance(inner, ast.stmt) for inner in ast.walk(node)) - 1
            assert count <= MOST_STATEMENTS, f"line {node.lineno}: {node.name} has {count} statements"


def definitions(node, outer="", public=True):
    """Yield (name, definition, whether it is public) of all classes and functions, also those within others."""
    for inner in ast.iter_child_nodes(node):
        if isinstance(inner, ast.ClassDef | ast.FunctionDef):
            name, shown = f"{outer}{inner.name}", public and not inner.name.startswith("_")
            yield name, inner, shown
            yield from definitions(inner, f"{name}.", shown and isinstance(inner, ast.ClassDef))
        elif not isinstance(inner, ast.expr):
            yield from definitions(inner, outer, public)


def test_docstrings_begin_with_an_imperative():
    """Of functions, classes and properties; ruff's D401 sees neither of the last two."""
    for path in FCNET + BACKENDS + sorted((ROOT / "benchmarks").rglob("*.py")) + sorted((ROOT / "docs").glob("*.py")):
        for name, node, _ in definitions(tree(path)):
            first = (ast.get_docstring(node) or "Return").split()[0].rstrip(",:;.")
            assert first in VERBS, f"{relative(path)}:{node.lineno}: {name}: {first!r} is not among VERBS"


def test_whatever_is_public_has_a_docstring():
    """But for setters, and for what has the name of something documented: a kernel, an override of a base's method."""
    found = [(path, *each) for path in FCNET + BACKENDS for each in definitions(tree(path))]
    documented = {node.name for _, _, node, _ in found if ast.get_docstring(node) is not None}
    for path, name, node, public in found:
        decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
        has_none = public and ast.get_docstring(node) is None and not any(".setter" in each for each in decorators)
        served = node.name in documented and "property" not in decorators
        assert not has_none or served, f"{relative(path)}:{node.lineno}: {name} has no docstring"


def kernel_tables():
    """Each device's table of kernels; the CPU's is empty where Numba is not installed."""
    return {"cpu": loader.load().kernels, "cuda": cuda_kernels(None, None)}


def test_kernels_have_the_signature_of_what_they_replace():
    for device, table in kernel_tables().items():
        for name, kernel in table.items():
            assert name in REGISTRY, f"{device}: {name} replaces nothing"
            reference = inspect.signature(REGISTRY[name].reference).parameters.values()
            mine = inspect.signature(kernel.function).parameters.values()
            described = [[(p.name, p.kind, p.default) for p in parameters] for parameters in (reference, mine)]
            assert described[0] == described[1], f"{device}: {name}"


def test_only_what_a_kernel_replaces_is_accelerated():
    """All others are `checked` functions."""
    assert set(REGISTRY) == set().union(*kernel_tables().values())


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


def test_the_place_of_every_mutant_is_there_once():
    """Else it would not be made, and a change of a formula would lose it without a word."""
    texts = {}
    for mutant in read_list():
        text = texts.setdefault(mutant.file, (ROOT / mutant.file).read_text("utf-8"))
        assert text.count(mutant.old) == 1, f"tests/mutants.toml: {mutant.name}: {mutant.old!r}"


def test_public_names_exist():
    for module in (fcnet, backends, fcnet.data, functional, optim):
        assert [name for name in module.__all__ if not hasattr(module, name)] == []


@pytest.mark.parametrize("module", [fcnet, fcnet.data], ids=lambda module: module.__name__)
def test_public_names_are_those_of_the_stub(module):
    for name in module.__all__:
        assert getattr(module, name) is not None
        assert name in dir(module)


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'fcnet' has no attribute 'lod'"):
        fcnet.lod  # noqa: B018
