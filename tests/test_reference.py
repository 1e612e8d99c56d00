"""docs/reference.md says what the docstrings say, and these say the formula and the source of what has one."""

from __future__ import annotations

import importlib.util
import inspect
import re
from pathlib import Path

import fcnet
from fcnet import functional
from fcnet.nn import init
from fcnet.optim import RULES, schedules

DOCS = Path(__file__).parent.parent / "docs"


def script():
    spec = importlib.util.spec_from_file_location("make_reference", DOCS / "make_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REFERENCE = script()
ENTRIES = [
    (module, entry)
    for _, module, names, _ in REFERENCE.SECTIONS
    for entry in REFERENCE.entries(REFERENCE.import_module(module), names)
]
FORMULAS = ("fcnet.functional", "fcnet.nn.init", "fcnet.optim", "fcnet.optim.rules", "fcnet.optim.schedules")
FORMULA = re.compile(r"[-+*]?= |Σ|\^|exp\(| / ")

#: What has no formula: tables, records, and what looks a name up or changes a dtype.
NO_FORMULA = {
    *("ACTIVATIONS", "LOSSES", "NUMERIC", "Activation", "Loss", "Metric", "NormCache", "RULES", "Rule", "Optimizer"),
    *("activation_named", "cast", "make_schedule"),
}
#: What no text is the source of: the start of a step, and what is put together from functions that have their source.
NO_SOURCE = NO_FORMULA | {
    *("METRICS", "activate", "advance", "gather", "next_batch", "preprocess", "record_step", "one_hot"),
    *("weighted_loss", "right_classes", "clip_by_value", "constant", "each_epoch", "followed"),
    *(f"{kind}_activation_dropout_forward" for kind in ("bias", "batchnorm", "layernorm")),
    *(f"{kind}_activation_dropout_backward" for kind in ("bias", "batchnorm", "layernorm")),
}


def test_the_file_is_what_the_docstrings_say():
    written = (DOCS / "reference.md").read_text("utf-8")
    assert written == REFERENCE.reference(), "docs/reference.md is not up to date: make docs"
    assert not re.search(r"0x[0-9a-f]{6}", written)


def test_every_public_name_is_there():
    written = (DOCS / "reference.md").read_text("utf-8")
    packages = [fcnet, fcnet.data, fcnet.functional, fcnet.optim]
    packages += [REFERENCE.import_module(f"fcnet.compat.{name}") for name in ("cs231n", "dlfs")]
    titles = [title for title, *_ in REFERENCE.SECTIONS]
    for package in packages:
        section = written.split(f"\n## {package.__name__}\n")[1].split("\n## ")[0]
        for name in package.__all__:
            inside = f"**`{name}" in section
            module = inspect.ismodule(getattr(package, name))
            assert module or inside or f"{package.__name__}.{name}" in titles, f"{package.__name__}.{name}"
    named = {module: set(names or ()) for _, module, names, _ in REFERENCE.SECTIONS}
    assert named["fcnet.nn.init"] == set(init.SCHEMES)
    assert named["fcnet.optim.rules"] == {rule.update.__name__ for rule in RULES.values()}
    assert named["fcnet.optim.schedules"] > set(schedules.SCHEDULES)


def test_every_name_has_a_meaning():
    bad = [e.name for _, e in ENTRIES if not e.meaning or "Source:" in e.meaning or "Args:" in e.meaning]
    assert bad == []


def test_formulas_and_sources():
    entries = [entry for module, entry in ENTRIES if module in FORMULAS]
    lacking = [e.name for e in entries if not FORMULA.search(e.meaning) and e.name not in NO_FORMULA]
    assert lacking == [], "state the formula before Args:"
    odd = [e.name for e in entries if bool(e.source) == (e.name in NO_SOURCE)]
    assert odd == [], "say 'Source: ...', or list the name in NO_SOURCE"


def test_every_command_and_flag_is_there():
    from fcnet.runs.options import TrainOptions, flag

    written = (DOCS / "reference.md").read_text("utf-8").split("## Command line")[1]
    train = written.split("**`fcnet train`**")[1].split("**`fcnet")[0]
    for name in TrainOptions.__dataclass_fields__:
        assert f"- `--{flag(name)}" in train
    for command in ("evaluate", "predict", "info", "fetch", "check", "lr-range", "search", "experiment"):
        assert f"**`fcnet {command}`**" in written


def test_what_is_taken_from_a_docstring():
    text = (
        "y = f(x),\nthe value. Source: A and B,\n1999.\n\nMore.\n\na  first\n   line\nbc  second\n\nArgs:\n    x: no."
    )
    assert REFERENCE.meaning(text) == "y = f(x), the value.\n\nMore.\n\n- `a`: first line\n- `bc`: second"
    assert REFERENCE.source(text) == "A and B, 1999."
    assert REFERENCE.source("Nothing.") is None
    assert REFERENCE._inherited(functional.relu_backward) == REFERENCE.source(functional.relu_forward.__doc__)
    assert REFERENCE._inherited(functional.add_bias) == REFERENCE.source(functional.affine.__doc__)
