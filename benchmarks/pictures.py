"""What the pictures share: a figure, the marks of an axis, a small PNG."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fcnet.errors import MissingExtra

#: Of the contenders: Okabe and Ito's, told apart without colour vision.
COLORS = {
    "fcnet": "#000000",
    "fcnet-numpy": "#999999",
    "torch": "#D55E00",
    "torch-compile": "#E69F00",
    "torch-graph": "#F0E442",
    "torch-steps": "#B8AE00",
    "jax": "#0072B2",
    "jax-scan": "#56B4E9",
    "jax-sync": "#66A9D4",
    "sklearn": "#8A6BBE",
    "naive": "#CC79A7",
    "gemm": "#009E73",
}


def new_figure(need: str, width: float, height: float, dpi: int = 110) -> Any:
    """Return an empty figure, its size in inches.

    Raises:
        MissingExtra: matplotlib is not installed; `need` says what for.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra(need, "matplotlib", "plot") from error
    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def mark(axis: Any, values: Sequence[float], text: str | Callable[[float, int], str]) -> None:
    """Mark these values on an axis and no others."""
    from matplotlib.ticker import FixedLocator, NullLocator

    axis.set_major_locator(FixedLocator(values))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(text)


def time_text(microseconds: float, _position: int) -> str:
    """Return a power of ten as people say it: "100 µs", "1 ms"."""
    for size, unit in ((1e6, "s"), (1e3, "ms"), (1.0, "µs")):
        if microseconds >= size * 0.999:
            return f"{microseconds / size:g} {unit}"
    return f"{microseconds * 1e3:g} ns"


def to_png(figure: Any) -> bytes:
    """Return a picture as PNG in few colours: a quarter of the size, the same to the eye."""
    from PIL import Image  # which matplotlib needs itself

    figure.canvas.draw()
    image = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
    png = io.BytesIO()
    image.quantize(96).save(png, format="png", optimize=True)
    return png.getvalue()
