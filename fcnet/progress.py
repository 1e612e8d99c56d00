"""The progress bar: loss, accuracies and samples per second on a terminal, nothing elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

INTERVAL = 0.25  # seconds between two looks at the loss: a look waits for the device
COLUMNS = 80  # of a terminal that does not say


class Bar:
    """One line at the foot of a terminal; without a terminal, nothing. A context manager.

    Attributes:
        figures: what the line shows besides the share that is done, by the names that `line` knows.
    """

    def __init__(self, title: str, total: int, done: int, *, shown: bool) -> None:
        """`shown` asks for a bar; it appears only if standard error is a terminal."""
        self.figures: dict[str, str] = {}
        self._bar: Any = None
        if not shown:
            return
        from tqdm import tqdm

        figures = self.figures

        class Line(tqdm):
            def __str__(self) -> str:
                now = self.format_dict
                elapsed, rate = now["elapsed"], now["rate"]
                if rate is None and elapsed:
                    rate = (self.n - now["initial"]) / elapsed
                left = self.format_interval((total - self.n) / rate) if rate else "?"
                clock = f"{self.format_interval(elapsed)}<{left}"
                return line(title, self.n / max(1, total), figures, clock, now["ncols"] or COLUMNS)

        bar = Line(total=total, initial=done, disable=None, dynamic_ncols=True)
        self._bar = None if bar.disable else bar

    def __bool__(self) -> bool:
        return self._bar is not None

    def advance(self, count: int) -> None:
        """So many more are done."""
        self._draw(lambda bar: bar.update(count))

    def show(self, done: int) -> None:
        """So many are done."""

        def draw(bar: Any) -> None:
            bar.n = done
            bar.refresh()

        self._draw(draw)

    def clear(self) -> None:
        """Make room for a line of other text."""
        self._draw(lambda bar: bar.clear())

    def close(self) -> None:
        """Leave the line as it is."""
        self._draw(lambda bar: bar.close())

    def _draw(self, how: Callable[[Any], object]) -> None:
        if self._bar is None:
            return
        try:
            how(self._bar)
        except OSError:  # the terminal has gone; the work has not
            self._bar.disable = True
            self._bar = None

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Progress:
    """A bar over all the steps of a training; a context manager."""

    def __init__(self, title: str, total: int, done: int, *, shown: bool) -> None:
        """`shown` as in `Bar`."""
        self._bar = Bar(title, total, done, shown=shown)
        self._shown = shown
        self._steps = self._samples = 0
        self._looked = time.perf_counter()

    def advance(self, samples: int, loss: Callable[[], float]) -> None:
        """One step done with so many samples; `loss` fetches the latest loss and is called now and then."""
        if not self._bar:
            return
        self._steps += 1
        self._samples += samples
        now = time.perf_counter()
        if now - self._looked >= INTERVAL:
            rate = self._samples / (now - self._looked)
            self._show(f"{loss():.4f}", rate)

    def epoch(self, number: int, row: Mapping[str, float]) -> None:
        """An epoch has ended with these figures."""
        if not self._bar:
            return
        self._bar.figures |= {
            "epoch": f"epoch {number}",
            **{part: f"{part} {_figure(row, part):.4f}" for part in ("train", "val")},
        }
        elapsed = time.perf_counter() - self._looked
        self._show(f"{row['loss']:.4f}", self._samples / elapsed if elapsed > 0 else 0.0)

    def say(self, text: str) -> None:
        """Print a line on standard error, unless nothing is to be shown."""
        if self._shown:
            self._bar.clear()
            with contextlib.suppress(OSError):
                sys.stderr.write(f"fcnet: {text}\n")
                sys.stderr.flush()

    def _show(self, loss: str, rate: float) -> None:
        self._bar.figures |= {"loss": f"loss {loss}", "rate": f"{rate:,.0f} samples/s"}
        self._bar.advance(self._steps)
        self._steps = self._samples = 0
        self._looked = time.perf_counter()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.advance(self._steps)
        self._bar.close()


def _figure(row: Mapping[str, float], part: str) -> float:
    """The metric on a part of the data: what the history calls train_acc, val_rmse and so on."""
    return next(value for name, value in row.items() if name.startswith(f"{part}_"))


def line(title: str, done: float, figures: Mapping[str, str], clock: str, columns: int) -> str:
    """What the bar shows in so many columns: what matters less is left out, and the bar has the room that is left.

    >>> line("digits on cpu", 0.5, {"epoch": "epoch 2", "loss": "loss 0.1"}, "0:03<0:03", 60)
    'digits on cpu  50%|######      | epoch 2 loss 0.1 0:03<0:03'
    """
    parts = {"title": title} | {name: figures.get(name, "") for name in ("epoch", "loss", "train", "val", "rate")}
    parts["clock"] = clock
    for least in ("", "train", "clock", "epoch", "title", "rate", "val"):
        parts.pop(least, None)
        head = f"{parts.get('title', '')} {100 * done:3.0f}%".lstrip()
        tail = " ".join(part for name, part in parts.items() if part and name != "title")
        room = columns - 1 - len(head) - len(tail) - 3  # the last column stays free
        if room >= 0:
            full = int(room * min(1.0, done))
            return f"{head}|{'#' * full}{' ' * (room - full)}| {tail}"
    return f"{head} {tail}"[: columns - 1]
