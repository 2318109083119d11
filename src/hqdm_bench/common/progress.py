"""Progress on stderr: a bar on a terminal; in a log, a plain line at once and every 30 seconds."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

__all__ = ["Progress"]

LOG_INTERVAL = 30.0  # seconds between two lines of a log


class Progress:
    """Report how far a long job is.

    >>> with Progress("train", total=200) as progress:
    ...     progress.update(20, loss=3.5)
    """

    def __init__(self, label: str, total: int) -> None:
        self.label = label
        self.total = total
        self._start = self._last_line = time.monotonic()
        self._first: int | None = None
        self._bar: Bar | None = None
        if sys.stderr.isatty():
            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[values]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(label, total=total, values="")

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()
        elif kind is None:
            seconds = time.monotonic() - self._start
            self._line(f"{self.label}: done, {self.total} in {seconds:.0f} s")

    def update(self, done: int, **values: float) -> None:
        """Say that ``done`` of the total are finished; keyword values are shown beside it."""
        shown = "  ".join(f"{key} {value:.4g}" for key, value in values.items())
        if self._bar:
            self._bar.update(self._task, completed=done, values=shown)
            return
        now = time.monotonic()
        if self._first is None:  # a resumed job must not count what an earlier run did in its rate
            self._first = done - 1
            self._line(f"{self.label}: {done}/{self.total}  {shown}".rstrip())
            return
        if now - self._last_line < LOG_INTERVAL:
            return
        self._last_line = now
        rate = max(done - self._first, 1) / (now - self._start)
        remaining = (self.total - done) / rate
        self._line(
            f"{self.label}: {done}/{self.total}  {shown}  {rate:.2f}/s  ETA {remaining:.0f} s"
        )

    @staticmethod
    def _line(text: str) -> None:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
