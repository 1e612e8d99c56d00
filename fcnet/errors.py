"""What messages to the user share: nearest names, how to install, plurals, errors and warnings of our own."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher


class MissingExtra(ImportError):
    """Signal that an optional dependency is needed and not installed; the message says which extra brings it."""

    def __init__(self, need: str, package: str, extra: str) -> None:
        super().__init__(f"{need} needs {package}, which is not installed: {install(extra)}")
        self._said = need, package, extra

    def __reduce__(self) -> tuple[type, tuple[str, ...]]:  # a process of a pool hands its errors over by pickle
        return type(self), self._said


class KernelError(RuntimeError):
    """Signal that a kernel cannot be compiled here; the message says how to do without."""


class DivergedError(ArithmeticError):
    """Signal that the loss became NaN or infinite during training."""


class TrainingWarning(UserWarning):
    """Warn that a figure by which a training is judged is NaN or infinite; the training goes on."""


class DataNotice(UserWarning):
    """Warn of a decision about data, or of data left out, that the user may want otherwise."""


# Each time: by default Python keeps quiet when the same line is said of the next training, or the next table.
for _kind in (TrainingWarning, DataNotice):
    warnings.simplefilter("always", _kind, append=True)


def printable(text: str) -> str:
    r"""Return the text with control characters but line ends and tabs spelled out: shown, not obeyed.

    >>> printable("kind\x1b[2J of\tflower\n")
    'kind\\x1b[2J of\tflower\n'
    """
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


# All that a terminal may obey, and what turns the direction of text round.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def shown(value: object, most: int = 60) -> str:
    """Return how Python spells a value, cut where it is long.

    >>> shown("9" * 5000, most=10)
    "'999999999... (5,002 characters)"
    """
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        return f"{type(value).__name__} of thousands of digits"
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"


def cut(text: str, most: int = 60) -> str:
    """Return a text for a message, its end left out where it is long."""
    return text if len(text) <= most else f"{text[:most]}..."


def counted(count: int, noun: str, nouns: str | None = None) -> str:
    """Return a number of things; `nouns` is the plural where that is not `noun` with an s.

    >>> counted(1, "epoch"), counted(2000, "epoch"), counted(0, "class", "classes")
    ('1 epoch', '2000 epochs', '0 classes')
    """
    return f"{count} {noun if count == 1 else nouns or noun + 's'}"


def install(extra: str) -> str:
    """Return the command that installs an extra of fcnet, which no package index has.

    In a checkout it names its folder, and keeps an editable installation editable. Elsewhere fcnet is installed, and of
    that pip takes the extras without looking for it in an index.
    """
    import shlex
    from pathlib import Path

    root = Path(__file__).resolve().parent.parent
    if not ((root / "pyproject.toml").is_file() and (root / "backends").is_dir()):
        return f"pip install {shlex.quote(f'fcnet[{extra}]')}"
    where = "." if root == Path.cwd() else root
    return f"pip install {'-e ' if _is_editable() else ''}{shlex.quote(f'{where}[{extra}]')}"


def _is_editable() -> bool:
    import importlib.metadata  # not above: it costs 30 ms
    import json

    try:
        origin = importlib.metadata.distribution("fcnet").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return False
    return origin is not None and bool(json.loads(origin).get("dir_info", {}).get("editable"))


def no_picture() -> str:
    """Return why there is no picture without Matplotlib, and what to do."""
    return f"it needs matplotlib, {install('plot')}"


def unknown(
    argument: str, got: object, valid: Iterable[object], see: str | None = None, meant: str | None = None
) -> ValueError:
    """Return a ValueError for a name that is not one of `valid`, with the nearest valid one if it is alike.

    `see` says where all of them are listed, where they are too many for a line: then up to three that are alike are
    named. `meant` is what `got` stands for elsewhere, if that is known; what other libraries say is in `ELSEWHERE`.

    >>> str(unknown("update_rule", "adma", ["sgd", "adam"]))
    "update_rule: expected one of sgd, adam; got 'adma'; did you mean 'adam'?"
    >>> str(unknown("init", "glorot", ["he", "xavier"]))
    "init: expected one of he, xavier; got 'glorot'; did you mean 'xavier'?"
    >>> str(unknown("config: a.toml", "epoch", ["lr", "epochs"], see="fcnet train --help"))
    "config: a.toml: expected an option that fcnet train --help lists; got 'epoch'; did you mean 'epochs'?"
    """
    names = [str(name) for name in valid]
    meant = meant or next((name for name in ELSEWHERE.get("".join(_words(str(got))), ()) if name in names), str(got))
    near = [repr(name) for name in alike(meant, names, most=1 if see is None else 3)]
    hint = f"; did you mean {either(near)}?" if near else ""
    expected = f"one of {', '.join(map(cut, names))}" if see is None else f"an option that {see} lists"
    return ValueError(f"{argument}: expected {expected}; got {shown(got)}{hint}")


#: What other libraries call what fcnet has under these names, of which a message suggests the one that fits.
ELSEWHERE = {
    "crossentropy": ("softmax",),
    "crossentropyloss": ("softmax",),
    "categoricalcrossentropy": ("softmax",),
    "sparsecategoricalcrossentropy": ("softmax",),
    "nll": ("softmax",),
    "nllloss": ("softmax",),
    "hinge": ("svm",),
    "categoricalhinge": ("svm",),
    "multimarginloss": ("svm",),
    "binarycrossentropy": ("bce",),
    "bcewithlogitsloss": ("bce",),
    "meansquarederror": ("mse", "rmse"),
    "squarederror": ("mse",),
    "mse": ("rmse",),
    "meanabsoluteerror": ("mae",),
    "auroc": ("roc_auc",),
    "acc": ("accuracy",),
    "glorot": ("xavier",),
    "glorotnormal": ("xavier",),
    "glorotuniform": ("xavier",),
    "kaiming": ("he",),
    "kaimingnormal": ("he",),
    "kaiminguniform": ("he",),
    "henormal": ("he",),
    "swish": ("silu",),
    "logistic": ("sigmoid",),
    "linear": ("identity",),
    "bn": ("batchnorm",),
    "ln": ("layernorm",),
    "lr": ("learning_rate", "lr"),
    "eps": ("epsilon",),
    "dataset": ("data",),
}


def alike(got: str, names: Iterable[str], most: int = 3) -> list[str]:
    """Return those of `names` that `got` resembles, the nearest first; those that resemble it little are left out.

    >>> alike("--batchsize", ["--data", "--batch-size"])
    ['--batch-size']
    >>> alike("--val-fraction", ["--activation", "--schedule-factor"])
    []
    """
    words = _words(got)
    likeness = {name: _likeness(words, _words(name)) for name in names if _is_alike(words, _words(name))}
    near = sorted(likeness, key=lambda name: -likeness[name])
    return [name for name in near if likeness[name] > likeness[near[0]] - 0.25][:most]


def either(names: Sequence[str]) -> str:
    """Return the names as a choice: "a", "a or b", "a, b or c"."""
    return " or ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def _words(name: str) -> list[str]:
    """Return the words of a name, however they are joined and whatever case they have: --batch_Size -> batch, size."""
    return re.findall(r"[^\W_]+", name.lower())


def _is_alike(one: list[str], other: list[str]) -> bool:
    """Return whether one name may be meant by the other: mistyped, cut short or extended, or with other words."""
    a, b = "".join(one), "".join(other)
    shorter, longer = sorted((a, b), key=len)
    return bool(shorter) and (
        sorted(a) == sorted(b)  # letters changed places
        or (len(shorter) >= 3 and longer.startswith(shorter))
        or set(one) <= set(other)
        or set(other) <= set(one)
        or _likeness(one, other) >= 0.75
    )


def _likeness(one: list[str], other: list[str]) -> float:
    return SequenceMatcher(None, "".join(one), "".join(other)).ratio()
