"""The text of the CUDA C sources; they are compiled on first use, for the device."""

from __future__ import annotations

import re
from importlib.resources import files

_SHARED = ("philox.cu", "bf16.cu", "common.cu")
#: The kernels that are launched one by one, in modules that are compiled at the same time -> the files of each.
MODULES: dict[str, tuple[str, ...]] = {
    "hidden": (
        "unit.cu",
        "hidden.cu",
    ),
    "loss": ("loss.cu",),
    "optim": ("update.cu", "rules.cu", "optim.cu"),
    "batch": ("batch.cu", "convert.cu", "checksum.cu"),
    "narrow": ("narrow.cu", "narrow_12.cu"),
    "narrow_32": ("narrow.cu", "narrow_32.cu"),
}
# What is compiled together -> its files in order, so that a later file can call the device functions of an
# earlier one. NVRTC gets one text: it could not open an include file inside a zipped installation.
SOURCES: dict[str, tuple[str, ...]] = {
    "philox": ("philox.cu",),
    **{name: (*_SHARED, *own) for name, own in MODULES.items()},
    "activated": (*_SHARED, "unit.cu", "activation.cu", "activated.cu"),
    "persistent": ("philox.cu", "common.cu", "rules.cu", "activation.cu", "sync.cu", "persistent.cu"),
}


#: The modules of `MODULES` that have kernels for layers stored in bfloat16.
STORED_IN_BF16 = ("hidden", "narrow", "narrow_32")


def source(name: str, real: str = "float", stored: str = "real") -> str:
    """Return the CUDA C text of an entry of `SOURCES` with these types (common.cu); messages name file and line.

    Raises:
        KeyError: no such entry.
    """
    folder = files(__package__)
    parts = (f'#line 1 "{file}"\n{folder.joinpath(file).read_text("utf-8")}' for file in SOURCES[name])
    types = f"typedef {real} real;" if stored == "real" else f"typedef {real} real;\n#define STORED {stored}"
    return "\n".join([types, *parts])


def module_of_kernels() -> dict[str, str]:
    """Return which of `MODULES` has each kernel, by the kernel's name."""
    begins = re.compile(r"^(?:KERNEL\(\d+(?:, \w+)?\) |UPDATE_RULE\()(\w+)", re.M)
    folder = files(__package__)
    return {
        kernel: name
        for name, own in MODULES.items()
        for file in own
        for kernel in begins.findall(folder.joinpath(file).read_text("utf-8"))
    }


def _listed(macro: str, file: str, skipped: int = 0) -> dict[str, str]:
    """Return name -> struct, or one so much later, of each line MACRO(name, struct, ...) of a file."""
    text = files(__package__).joinpath(file).read_text("utf-8")
    return dict(re.findall(rf"^{macro}\((\w+)(?:, \w+){{{skipped}}}, (\w+)", text, re.M))


#: Update rules that have a kernel -> their structs.
RULES = _listed("UPDATE_RULE", "rules.cu")
#: Element-wise activations that have a kernel -> their structs.
ACTIVATIONS = _listed("ELEMENTWISE", "activation.cu")
#: The same -> how many arrays they keep for the backward pass, besides their output.
KEPT = {name: int(count) for name, count in _listed("ELEMENTWISE", "activation.cu", 1).items()}


def activated(activation: str, real: str = "float", stored: str = "real") -> str:
    """Return the text of the kernels of hidden layers with an activation of `ACTIVATIONS`, otherwise as `source`."""
    constants = {"ACTIVATION": ACTIVATIONS[activation], "KEPT": KEPT[activation]}
    return "".join(f"#define {name} {value}\n" for name, value in constants.items()) + source("activated", real, stored)
