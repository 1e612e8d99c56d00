"""The progress bar: loss, accuracies and samples per second on a terminal, nothing elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

INTERVAL = 0.25  # seconds between two looks at the loss: a look waits for the device
COLUMNS = 80  # of a terminal that does not say


class Progress:
    """A bar over all the steps of a training; a context manager."""

    def __init__(self, title: str, total: int, done: int, *, shown: bool) -> None:
        """`shown` asks for a bar; it appears only if standard error is a terminal."""
        self._bar: Any = None
        self._figures: dict[str, str] = {}
        if shown:
            from tqdm import tqdm

            figures = self._figures

            class Bar(tqdm):
                def __str__(self) -> str:
                    now = self.format_dict
                    elapsed, rate = now["elapsed"], now["rate"]
                    if rate is None and elapsed:
                        rate = (self.n - now["initial"]) / elapsed
                    left = self.format_interval((total - self.n) / rate) if rate else "?"
                    clock = f"{self.format_interval(elapsed)}<{left}"
                    return line(title, self.n / max(1, total), figures, clock, now["ncols"] or COLUMNS)

            bar = Bar(total=total, initial=done, disable=None, dynamic_ncols=True)
            self._bar = None if bar.disable else bar
        self._steps = self._samples = 0
        self._looked = time.perf_counter()

    def advance(self, samples: int, loss: Callable[[], float]) -> None:
        """One step done with so many samples; `loss` fetches the latest loss and is called now and then."""
        if self._bar is None:
            return
        self._steps += 1
        self._samples += samples
        now = time.perf_counter()
        if now - self._looked >= INTERVAL:
            rate = self._samples / (now - self._looked)
            self._show(f"{loss():.4f}", rate)

    def epoch(self, number: int, row: Mapping[str, float]) -> None:
        """An epoch has ended with these figures."""
        if self._bar is None:
            return
        self._figures |= {
            "epoch": f"epoch {number}",
            **{part: f"{part} {_figure(row, part):.4f}" for part in ("train", "val")},
        }
        elapsed = time.perf_counter() - self._looked
        self._show(f"{row['loss']:.4f}", self._samples / elapsed if elapsed > 0 else 0.0)

    def _show(self, loss: str, rate: float) -> None:
        self._figures |= {"loss": f"loss {loss}", "rate": f"{rate:,.0f} samples/s"}
        try:
            self._bar.update(self._steps)
        except OSError:  # the terminal has gone; the training has not
            self._bar.disable = True
            self._bar = None
        self._steps = self._samples = 0
        self._looked = time.perf_counter()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            with contextlib.suppress(OSError):
                self._bar.update(self._steps)
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
