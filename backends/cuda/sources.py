"""The text of the CUDA C sources; they are compiled on first use, for the device."""

from __future__ import annotations

import re
from importlib.resources import files

_SHARED = ("philox.cu", "bf16.cu", "common.cu")
#: The kernels that are launched one by one, in modules that are compiled at the same time -> the files of each.
MODULES: dict[str, tuple[str, ...]] = {
    "hidden": ("hidden.cu",),
    "loss": ("loss.cu",),
    "optim": ("update.cu", "rules.cu", "optim.cu"),
    "batch": ("batch.cu", "checksum.cu"),
    "narrow": ("narrow.cu",),
}
# What is compiled together -> its files in order, so that a later file can call the device functions of an
# earlier one. NVRTC gets one text: it could not open an include file inside a zipped installation.
SOURCES: dict[str, tuple[str, ...]] = {
    "philox": ("philox.cu",),
    "convert": ("bf16.cu", "convert.cu"),
    **{name: (*_SHARED, *own) for name, own in MODULES.items()},
    "persistent": ("philox.cu", "common.cu", "rules.cu", "activation.cu", "sync.cu", "persistent.cu"),
}


def source(name: str, real: str = "float") -> str:
    """Return the CUDA C text of an entry of `SOURCES` with this type for `real`; messages name file and line.

    Raises:
        KeyError: no such entry.
    """
    folder = files(__package__)
    parts = (f'#line 1 "{file}"\n{folder.joinpath(file).read_text("utf-8")}' for file in SOURCES[name])
    return "\n".join([f"typedef {real} real;", *parts])


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


def _listed(macro: str, file: str) -> dict[str, str]:
    """Return name -> struct of each line MACRO(name, struct, ...) of a file."""
    text = files(__package__).joinpath(file).read_text("utf-8")
    return dict(re.findall(rf"^{macro}\((\w+), (\w+)", text, re.M))


#: Update rules that have a kernel -> their structs.
RULES = _listed("UPDATE_RULE", "rules.cu")
#: Element-wise activations that have a kernel -> their structs.
ACTIVATIONS = _listed("ELEMENTWISE", "activation.cu")
