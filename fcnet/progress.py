"""The progress of a training: a bar with loss, accuracies and samples per second on a terminal, elsewhere lines."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from fcnet.errors import printable

INTERVAL = 0.25  # seconds between two looks at the loss: a look waits for the device
COLUMNS = 80  # of a terminal that does not say
LINES = 100  # about so many of a training, however many epochs it has
SILENCE = 60.0  # seconds, after which an epoch has its line in any case


class Bar:
    """Show one line at the foot of a terminal; without a terminal, nothing. A context manager.

    Attributes:
        figures: what the line shows besides the share that is done, by the names that `line` knows.
    """

    def __init__(self, title: str, total: int, done: int, *, shown: bool) -> None:
        """Begin a bar; `shown` asks for it, and it appears only if standard error is a terminal."""
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

        title = printable(title)
        bar = Line(total=total, initial=done, disable=None, dynamic_ncols=True)
        self._bar = None if bar.disable else bar

    def __bool__(self) -> bool:
        return self._bar is not None

    def advance(self, count: int) -> None:
        """Count `count` more as done."""
        self._draw(lambda bar: bar.update(count))

    def show(self, done: int) -> None:
        """Show that `done` are done."""

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


class EpochLines:
    """Print a line per epoch on standard error, for notebooks and logs.

    Of many epochs every second, third, ... has one, so that there are about `LINES`; and the first, the last, and each
    that ends a minute or more after the last line.
    """

    def __init__(self, epochs: int) -> None:
        """Begin the lines of a training of `epochs` epochs."""
        self._epochs = epochs
        self._every = max(1, math.ceil(epochs / LINES))
        self._skipped: str | None = None  # the latest epoch's line, if it was left out
        self._printed: float | None = None  # when

    def add(self, number: int, row: Mapping[str, float], rate: float | None) -> None:
        """Add epoch `number` with its row of the history, and its samples a second, if known."""
        text = epoch_line(number, self._epochs, row, rate)
        first = self._printed is None or time.perf_counter() - self._printed >= SILENCE
        if first or number % self._every == 0:
            self._print(text)
        else:
            self._skipped = text

    def close(self) -> None:
        """Print the last epoch's line if it was left out."""
        if self._skipped is not None:
            self._print(self._skipped)

    def _print(self, text: str) -> None:
        self._skipped, self._printed = None, time.perf_counter()
        write(text)


class Progress:
    """Show the steps of a training: a bar on a terminal, elsewhere `EpochLines`. A context manager."""

    def __init__(self, title: str, total: int, done: int, *, shown: bool, epochs: int = 0) -> None:
        """Begin with `done` of `total` steps done, in `epochs` epochs; with `shown` False nothing appears."""
        self._bar = Bar(title, total, done, shown=shown)
        self._lines = EpochLines(epochs) if shown and not self._bar else None
        self._shown = shown
        self._steps = self._samples = 0
        self._looked = time.perf_counter()

    def advance(self, samples: int, loss: Callable[[], float], *, steps: int = 1, first: bool = False) -> None:
        """Count finished steps and their samples; `loss` fetches the latest loss and is called now and then.

        `first` says that the step compiled, or was recorded: it is not in the samples per second.
        """
        if not self._bar:
            return
        self._steps += steps
        now = time.perf_counter()
        if first:
            self._samples, self._looked = 0, now
            return
        self._samples += samples
        if now - self._looked >= INTERVAL:
            self._show(f"{loss():.4f}", self._samples / (now - self._looked))

    def epoch(self, number: int, row: Mapping[str, float], rate: float | None = None) -> None:
        """Report an epoch's row of the history, with samples per second if known."""
        if self._lines is not None:
            self._lines.add(number, row, rate)
        if not self._bar:
            return
        self._bar.figures |= {
            "epoch": f"epoch {number}",
            **{part: f"{part} {_figure(row, part):.4f}" for part in ("train", "val")},
        }
        self._show(f"{row['loss']:.4f}", rate)

    def say(self, text: str) -> None:
        """Print a line on standard error, unless nothing is to be shown."""
        if self._shown:
            self.clear()
            write(f"fcnet: {text}")

    def clear(self) -> None:
        """Make room for a line of other text."""
        self._bar.clear()

    def _show(self, loss: str, rate: float | None) -> None:
        self._bar.figures["loss"] = f"loss {loss}"
        if rate is not None:
            self._bar.figures["rate"] = f"{rate:,.0f} samples/s"
        self._bar.advance(self._steps)
        self._steps = self._samples = 0
        self._looked = time.perf_counter()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.advance(self._steps)
        self._bar.close()
        if self._lines is not None:
            self._lines.close()


def write(text: str) -> None:
    """Print a line on standard error, if anybody reads it."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{printable(text)}\n")
        sys.stderr.flush()


def _figure(row: Mapping[str, float], part: str) -> float:
    """Return the metric on a part of the data: what the history calls train_acc, val_rmse and so on."""
    return next(value for name, value in row.items() if name.startswith(f"{part}_"))


def epoch_line(number: int, epochs: int, row: Mapping[str, float], rate: float | None) -> str:
    """Return what a log says of an epoch: the figures by their names in the history.

    >>> epoch_line(3, 40, {"epoch": 3, "step": 36, "loss": 0.25, "val_acc": 0.96, "seconds": 0.5}, 2874.0)
    'epoch 3/40: loss 0.25, val_acc 0.96, 0.50 s, 2,874 samples/s'
    """
    parts = [f"{name} {row[name]:.5g}" for name in row if name not in ("epoch", "step", "seconds")]
    parts.append(f"{row['seconds']:.2f} s")
    if rate is not None:
        parts.append(f"{rate:,.0f} samples/s")
    return f"epoch {number}/{epochs}: {', '.join(parts)}"


def line(title: str, done: float, figures: Mapping[str, str], clock: str, columns: int) -> str:
    """Return the bar's text for so many columns, without what matters less where there is no room.

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
