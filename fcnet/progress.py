"""The progress bar: loss, accuracies and samples per second on a terminal, nothing elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

INTERVAL = 0.25  # seconds between two looks at the loss: a look waits for the device


class Progress:
    """A bar over all the steps of a training; a context manager."""

    def __init__(self, title: str, total: int, done: int, *, shown: bool) -> None:
        """`shown` asks for a bar; it appears only if standard error is a terminal."""
        self._bar: Any = None
        if shown:
            from tqdm import tqdm

            bar = tqdm(total=total, initial=done, desc=title, unit="step", disable=None, dynamic_ncols=True)
            self._bar = None if bar.disable else bar
        self._accuracies: dict[str, str] = {}
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
        self._accuracies = {
            "epoch": str(number),
            "train": f"{row['train_acc']:.4f}",
            "val": f"{row['val_acc']:.4f}",
        }
        elapsed = time.perf_counter() - self._looked
        self._show(f"{row['loss']:.4f}", self._samples / elapsed if elapsed > 0 else 0.0)

    def _show(self, loss: str, rate: float) -> None:
        self._bar.set_postfix({"loss": loss, **self._accuracies, "samples/s": f"{rate:,.0f}"}, refresh=False)
        self._bar.update(self._steps)
        self._steps = self._samples = 0
        self._looked = time.perf_counter()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.update(self._steps)
            self._bar.close()
