"""What a search shows while it runs: a bar with the best value so far, a line for each trial that ends."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from fcnet.progress import COLUMNS, line
from fcnet.study.rows import Row, ranked
from fcnet.study.rows import line as trial_line
from fcnet.study.shared import Shared

INTERVAL = 0.25  # seconds between two looks at the storage for the bar alone


class Watch:
    """A bar over the trials of a study, by whatever process they are made; a context manager."""

    def __init__(self, shared: Shared, *, shown: bool, tell: Callable[[str], None]) -> None:
        """`shown` asks for a bar, which appears only on a terminal; `tell` gets a line for each trial that ends."""
        self._shared = shared
        self._tell = tell
        self._over = {r.number for r in shared.rows() if r.is_over}
        self._figures: dict[str, str] = {}
        self._bar: Any = None
        self._looked = 0.0
        if shown:
            from tqdm import tqdm

            figures, title, total = self._figures, shared.plan.study, shared.plan.trials

            class Bar(tqdm):
                def __str__(self) -> str:
                    now = self.format_dict
                    made = self.n - now["initial"]
                    left = self.format_interval((total - self.n) * now["elapsed"] / made) if made else "?"
                    clock = f"{self.format_interval(now['elapsed'])}<{left}"
                    return line(title, self.n / total, figures, clock, now["ncols"] or COLUMNS)

            bar = Bar(total=total, initial=len(self._over), disable=None, dynamic_ncols=True)
            self._bar = None if bar.disable else bar
        self.look()

    def look(self) -> None:
        """See what has ended meanwhile, here or elsewhere."""
        now = time.perf_counter()
        if now - self._looked < INTERVAL:
            return
        self._looked = now
        rows = self._shared.rows()
        new = [r for r in rows if r.is_over and r.number not in self._over]
        self._over |= {r.number for r in new}
        for r in new:
            self._say(trial_line(r))
        if self._bar is not None:
            self._show(rows)

    def last_look(self) -> None:
        """Look however lately it was done before."""
        self._looked = 0.0
        self.look()

    def _say(self, text: str) -> None:
        if self._bar is not None:
            self._bar.clear()
        self._tell(text)

    def _show(self, rows: list[Row]) -> None:
        best = ranked(rows, self._shared.maximize)
        running = [r for r in rows if not r.is_over]
        # The names are those of fcnet.progress.line, which leaves out what has no room.
        self._figures["epoch"] = (
            f"trial {min(len(self._over) + 1, self._shared.plan.trials)}/{self._shared.plan.trials}"
        )
        if running:
            self._figures["train"] = f"epoch {max(r.epochs for r in running)}"
        if best:
            self._figures["loss"] = f"best {best[0].value:.4f}"
        try:
            self._bar.n = len(self._over)
            self._bar.refresh()
        except OSError:  # the terminal has gone; the search has not
            self._bar.disable = True
            self._bar = None

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            with contextlib.suppress(OSError):
                self._bar.close()
