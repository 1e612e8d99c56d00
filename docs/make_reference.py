"""Write docs/reference.md: every public name with its signature, meaning, formula and source, from the docstrings.

`python docs/make_reference.py`, or `make docs`. Nothing is said here that a docstring does not say: what comes before
"Args:" is the meaning with the formula, what follows "Source:" the paper or course.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from fcnet.nn.init import SCHEMES  # noqa: E402 -- from the folder beside, installed or not
from fcnet.optim import RULES  # noqa: E402
from fcnet.runs.options import RULES as RULE_ROWS  # noqa: E402
from fcnet.runs.options import grouped  # noqa: E402

#: Title, module, names (None: its `__all__`), a line about them.
SECTIONS: tuple[tuple[str, str, tuple[str, ...] | None, str], ...] = (
    ("fcnet", "fcnet", None, "Networks, training, files, checks."),
    ("fcnet.functional", "fcnet.functional", None, "The formulas; shapes are (..., N, D), N batch, features last."),
    (
        "Initial weights",
        "fcnet.nn.init",
        tuple(SCHEMES),
        "`init=` of a network, `--init`: the standard deviation of the normal distribution that W (D, M) is drawn "
        "from; `weight_scale=` gives it as a number.",
    ),
    ("fcnet.optim", "fcnet.optim", None, "Optimizers, and what limits a step."),
    (
        "Update rules",
        "fcnet.optim.rules",
        tuple({rule.update.__name__: None for rule in RULES.values()}),
        "`update_rule=` of a Solver, `--optimizer`; `adamw` is `adam` with decoupled weight decay. Learning rates by "
        f"themselves: {grouped(RULE_ROWS, 'learning_rate')}; decay: {grouped(RULE_ROWS, 'weight_decay')}, else 0.",
    ),
    (
        "Learning-rate schedules",
        "fcnet.optim.schedules",
        (
            *("constant", "step", "exponential", "inverse", "cosine", "flat_cosine", "warmup"),
            "followed",
            "each_epoch",
            "make_schedule",
        ),
        "`schedule=` of a Solver, `--schedule`: the factor on the initial learning rate at step t, 0 for the first.",
    ),
    ("fcnet.data", "fcnet.data", None, "Data sets on the host."),
    ("fcnet.compat.cs231n", "fcnet.compat.cs231n", None, "The course's names, signatures and behaviour."),
    ("fcnet.compat.dlfs", "fcnet.compat.dlfs", None, 'The names of "Deep Learning from Scratch", chapters 3 to 6.'),
)


class Entry(NamedTuple):
    """Describe a public name: its signature (None for what is not called), meaning with formula, and source or None."""

    name: str
    signature: str | None
    meaning: str
    source: str | None
    value: Any


def entries(module: ModuleType, names: tuple[str, ...] | None = None) -> Iterator[Entry]:
    """Yield the public names that are not modules, which have sections of their own."""
    for name in sorted(names or module.__all__, key=str.lower):
        value = getattr(module, name)
        if inspect.ismodule(value):
            continue
        text = described(module, name, value)
        yield Entry(name, signature(value), meaning(text), source(text) or _inherited(value), value)


def described(module: ModuleType, name: str, value: Any) -> str:
    """Return the docstring; of a constant the comment `#:` above it."""
    if callable(value):
        return inspect.getdoc(value) or ""
    return _comment(module, name)


def _comment(module: ModuleType, name: str) -> str:
    home = next(m for m in _modules(module.__name__) if _assigned(m, name))
    lines = inspect.getsource(home).splitlines()
    above = []
    for line in reversed(lines[: _assigned(home, name) - 1]):
        if not line.startswith("#:"):
            break
        above.append(line.removeprefix("#:").strip())
    return "\n".join(reversed(above))


def _modules(package: str) -> Iterator[ModuleType]:
    for name in sorted(sys.modules):
        if name == package or name.startswith(f"{package}."):
            yield sys.modules[name]


def _assigned(module: ModuleType, name: str) -> int:
    """Return the line on which a module gives this name its value; 0 if it does not."""
    for node in ast.parse(inspect.getsource(module)).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return node.lineno
    return 0


def signature(value: Any) -> str | None:
    """Return names and defaults without annotations; None for what is not called, and for errors."""
    if not callable(value) or (isinstance(value, type) and issubclass(value, BaseException)):
        return None
    bare = inspect.signature(value)
    parameters = [p.replace(annotation=inspect.Parameter.empty) for n, p in bare.parameters.items() if n != "self"]
    # A default that is an object, such as a function, has an address for a name.
    parameters = [p.replace(default=...) if " at 0x" in repr(p.default) else p for p in parameters]
    return str(bare.replace(parameters=parameters, return_annotation=inspect.Signature.empty)).replace(
        "Ellipsis", "..."
    )


_SECTION = re.compile(r"^(Args|Returns|Raises|Attributes)\b[^\n]*:", re.M)


def meaning(text: str) -> str:
    """Return what a docstring says before its sections and examples, without the source."""
    text = _SECTION.split(text)[0].split(">>>")[0]
    paragraphs = [_joined(part) for part in text.split("\n\n") if not part.startswith("Raises ")]
    return "\n\n".join(part for part in (re.sub(r"\s*\bSource: .*", "", p) for p in paragraphs) if part)


def _joined(paragraph: str) -> str:
    """Return the text as one line; a list of words and their meanings, set apart by spaces, becomes a list."""
    if re.match(r"\w+ {2,}\S", paragraph):
        items = (item.split(maxsplit=1) for item in re.split(r"\n(?=\w+ {2,}\S)", paragraph))
        return "\n".join(f"- `{word}`: {' '.join(what.split())}" for word, what in items)
    return " ".join(paragraph.split())


def source(text: str) -> str | None:
    """Return what follows "Source:" in a docstring, to the end of the paragraph."""
    found = re.search(r"\bSource: (.*?)(?=\n\s*\n|\Z)", text, re.S)
    return " ".join(found[1].split()) if found else None


def _inherited(value: Any) -> str | None:
    """Return the source of the forward pass for a backward pass, else the source of the file."""
    home = sys.modules.get(getattr(value, "__module__", ""))
    if home is None:
        return None
    partner = getattr(home, getattr(value, "__name__", "").replace("_backward", "_forward"), value)
    return source(inspect.getdoc(partner) or "") or source(inspect.getdoc(home) or "")


def _members(value: Any) -> Iterator[str]:
    """Yield a line for each public method and property of the class but those of a base with lines of its own."""
    listed = [base for base in value.__mro__[1:] if base is getattr(sys.modules["fcnet"], base.__name__, None)]
    known = {n for public in listed for base in public.__mro__ for n in vars(base)}
    for name in sorted({n for base in value.__mro__ if _ours(base) for n in vars(base)} - known):
        if name.startswith("_"):
            continue
        member = inspect.getattr_static(value, name)
        if isinstance(member, property):
            call, text = name, inspect.getdoc(member)
        elif inspect.isroutine(member) or isinstance(member, classmethod | staticmethod):
            call, text = f"{name}{signature(getattr(value, name))}", inspect.getdoc(getattr(value, name))
        else:
            continue
        yield f"- `{call}`: {meaning(text or '').split(chr(10) * 2)[0]}"


def _ours(base: type) -> bool:
    return base.__module__.split(".")[0] in ("fcnet", "backends")


def _described(entry: Entry) -> Iterator[str]:
    yield f"**`{entry.name}{entry.signature or ''}`**"
    yield from entry.meaning.split("\n\n")
    if isinstance(entry.value, dict | tuple) and entry.signature is None:
        yield ", ".join(f"`{name}`" for name in entry.value)
    if entry.source:
        yield f"*Source:* {entry.source}"
    if isinstance(entry.value, type) and not issubclass(entry.value, tuple | BaseException):
        members = "\n".join(_members(entry.value))
        if members:
            yield members


def _commands() -> Iterator[str]:
    from fcnet.cli.commands import COMMANDS, parser_of

    of_train = {_flag(action): action.help for action in parser_of("train").actions()}
    for name in COMMANDS:
        parser = parser_of(name)
        yield f"**`fcnet {name}`**"
        yield str(parser.description)
        groups: dict[str, list[str]] = {}
        shared = 0
        for title, actions in parser.groups():
            heading = "" if title in ("positional arguments", "options") else f"{title[0].upper()}{title[1:]}:"
            for action in actions:
                if isinstance(action, argparse._HelpAction):
                    continue
                if name != "train" and of_train.get(_flag(action)) == action.help:
                    shared += 1
                else:
                    groups.setdefault(heading, []).append(_line(action))
        for heading, lines in groups.items():
            yield from filter(None, (heading, "\n".join(lines)))
        if shared:
            yield f"And {shared} of the options of `fcnet train`, which mean the same."


def _line(action: argparse.Action) -> str:
    default = action.default
    known = default in (None, False, argparse.SUPPRESS) or "default" in (action.help or "")
    return f"- `{_flag(action)}`: {action.help}{'' if known else f' (default: {default})'}"


def _flag(action: argparse.Action) -> str:
    name = ", ".join(action.option_strings) or str(action.metavar or action.dest)
    takes = action.nargs != 0 and action.option_strings
    return f"{name} {action.metavar or action.dest.upper()}" if takes else name


def reference() -> str:
    """Return the text of the file."""
    parts = [
        "# Reference",
        "Every public name: signature, meaning with its formula, source. Written by `make docs` from the docstrings,\n"
        "which also say shapes, arguments and errors: `help(fcnet.Solver)`.",
        " · ".join(f"[{title}](#{_anchor(title)})" for title in (*(s[0] for s in SECTIONS), "Command line")),
    ]
    for title, module, names, line in SECTIONS:
        parts += [f"## {title}", line]
        for entry in entries(import_module(module), names):
            parts += _described(entry)
    parts += ["## Command line", "`fcnet COMMAND --help` says the same.", *_commands()]
    return "\n\n".join(parts) + "\n"


def _anchor(title: str) -> str:
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


if __name__ == "__main__":
    (HERE / "reference.md").write_text(reference(), encoding="utf-8")
