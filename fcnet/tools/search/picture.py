"""Validation value against each parameter, as a PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from statistics import median
from typing import Any

from fcnet.runs.options import flag
from fcnet.tools.search.ranges import Choices, Range, Space
from fcnet.tools.search.rows import Row, ranked

SPANS = 2  # how far below the median the picture goes, in distances from the median to the best


def parameters_png(rows: Sequence[Row], space: Space, maximize: bool, metric: str, title: str) -> bytes:
    """Return a small picture for each parameter, a dot for each finished trial. Raises ImportError without matplotlib.

    Trials far worse than the median are marked at the edge: with them in view the good ones could not be told apart.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = 2 if len(space) == 4 else min(3, len(space))
    lines = math.ceil(len(space) / columns)
    figure = Figure(figsize=(max(5.0, 3.6 * columns), 3.0 * lines + 0.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(lines, columns, squeeze=False, sharey=True)
    for spare in axes.flat[len(space) :]:
        spare.remove()
    finished = ranked(rows, maximize)
    stopped = [r for r in rows if r.state == "pruned" and r.value is not None]
    far = _far([*finished, *stopped], finished, maximize)
    finished, stopped = ([r for r in some if r not in far] for some in (finished, stopped))
    lowest, highest = _limits([float(r.value) for r in (*finished, *stopped) if r.value is not None])
    edge = lowest if maximize else highest
    for number, (name, what) in enumerate(space.items()):
        one = axes.flat[number]
        if stopped:
            one.scatter(
                [_place(what, r.values[name]) for r in stopped], [r.value for r in stopped],
                marker="x", s=22, color="0.65", linewidths=1, label="pruned (best until then)",
            )  # fmt: skip
        stages = sorted({r.stage for r in finished})
        for stage in stages:
            mine = [r for r in finished if r.stage == stage]
            one.scatter(
                [_place(what, r.values[name]) for r in mine], [r.value for r in mine],
                s=24, alpha=0.8, color=f"C{stage}", label="finished" if len(stages) == 1 else f"stage {stage + 1}",
            )  # fmt: skip
        if finished:
            one.scatter(
                [_place(what, finished[0].values[name])], [finished[0].value],
                marker="*", s=150, color="crimson", edgecolors="white", zorder=3, label="best",
            )  # fmt: skip
        if far:
            one.scatter(
                [_place(what, r.values[name]) for r in far], [edge] * len(far),
                marker="v" if maximize else "^", s=30, color="0.4", clip_on=False, zorder=2, label=_beyond(far, edge),
            )  # fmt: skip
            one.set_ylim(lowest, highest)
        one.set_xlabel(flag(name))
        one.grid(alpha=0.3)
        if isinstance(what, Choices):
            long = max(map(len, what.texts)) * len(what.texts) > 36
            one.set_xticks(
                range(len(what.texts)), what.texts, rotation=30 if long else 0, ha="right" if long else "center"
            )
            one.set_xlim(-0.5, len(what.texts) - 0.5)
        elif what.log:
            _log_axis(one, what)
        else:
            margin = 0.05 * (what.high - what.low)
            one.set_xlim(what.low - margin, what.high + margin)
    for one in axes[:, 0]:
        one.set_ylabel(f"validation {metric}")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.suptitle(title, fontsize="medium")
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=len(handles), fontsize="small", frameon=False)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()


def _far(rows: Sequence[Row], finished: Sequence[Row], maximize: bool) -> list[Row]:
    """Return those worse than the median of the finished ones by more than `SPANS` times what the best is better."""
    values = [r.value for r in finished if r.value is not None and math.isfinite(r.value)]
    if not values:
        return []
    middle, best = median(values), max(values) if maximize else min(values)
    if best == middle:  # nothing to tell apart
        return []
    limit = middle - SPANS * (best - middle)
    return [r for r in rows if r.value is not None and not (r.value >= limit if maximize else r.value <= limit)]


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Return the limits of an axis for these values, with a margin."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = 0.06 * (high - low)
    return low - margin, high + margin


def _beyond(far: Sequence[Row], edge: float) -> str:
    """Return what stands at the edge, for the legend."""
    values = sorted(float(r.value) for r in far if r.value is not None)
    range_ = f"{values[0]:.3g}" if len(values) == 1 else f"{values[0]:.3g} to {values[-1]:.3g}"
    return f"{len(far)} worse, beyond the edge: {range_}"


def _log_axis(axes: Any, what: Range) -> None:
    """Show the whole range, with plain numbers where it spans few decades."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    decades = math.log10(what.high / what.low)
    axes.set_xscale("log")
    axes.set_xlim(what.low / 10 ** (0.05 * decades), what.high * 10 ** (0.05 * decades))
    axes.xaxis.set_minor_formatter(NullFormatter())
    if decades < 2.5:
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _place(what: Any, value: Any) -> float:
    """Return where a value stands on its axis."""
    return what.values.index(value) if isinstance(what, Choices) else value
