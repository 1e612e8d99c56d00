"""What a search shows while it runs: a bar with the best value so far, a line for each trial that ends."""

from __future__ import annotations

import time
from collections.abc import Callable

from fcnet.progress import Bar
from fcnet.tools.search.rows import Row, ranked
from fcnet.tools.search.rows import line as trial_line
from fcnet.tools.search.shared import Shared

INTERVAL = 0.25  # seconds between two looks at the storage for the bar alone


class Watch:
    """Show a bar over the trials of a study, by whatever process they are made; a context manager."""

    def __init__(self, shared: Shared, *, shown: bool, tell: Callable[[str], None]) -> None:
        """Begin to watch: `shown` asks for a bar, only on a terminal; `tell` gets a line for each trial that ends."""
        self._shared = shared
        self._tell = tell
        self._over = {r.number for r in shared.rows() if r.is_over}
        self._bar = Bar(shared.plan.study, shared.plan.trials, len(self._over), shown=shown)
        self._looked = 0.0
        self.look()

    def look(self) -> None:
        """Show the trials that have ended meanwhile, here or elsewhere."""
        now = time.perf_counter()
        if now - self._looked < INTERVAL:
            return
        self._looked = now
        rows = self._shared.rows()
        new = [r for r in rows if r.is_over and r.number not in self._over]
        self._over |= {r.number for r in new}
        for r in new:
            self._say(trial_line(r))
        if self._bar:
            self._show(rows)

    def last_look(self) -> None:
        """Look once more, however recent the last look was."""
        self._looked = 0.0
        self.look()

    def _say(self, text: str) -> None:
        self._bar.clear()
        self._tell(text)

    def _show(self, rows: list[Row]) -> None:
        best = ranked(rows, self._shared.maximize)
        running = [r for r in rows if not r.is_over]
        # The names are those of fcnet.progress.line, which leaves out what has no room.
        self._bar.figures["epoch"] = (
            f"trial {min(len(self._over) + 1, self._shared.plan.trials)}/{self._shared.plan.trials}"
        )
        if running:
            self._bar.figures["train"] = f"epoch {max(r.epochs for r in running)}"
        if best:
            self._bar.figures["loss"] = f"best {best[0].value:.4f}"
        self._bar.show(len(self._over))

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
