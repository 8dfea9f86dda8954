"""How far a long job is: a bar on a terminal, a plain line every few seconds elsewhere. Writes to stderr.

with Progress("curate", total=60, unit="sources") as progress:
    progress.advance(1, kept=3, rejected=1)      # counts add up
    progress.show(loss=0.12)                     # values replace each other
"""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Any, TextIO

PLAIN_EVERY_S = 5.0


class Progress:
    """A job of `total` units (None: unknown). Safe to advance from several threads."""

    def __init__(
        self, title: str, *, total: float | None = None, unit: str = "items", stream: TextIO | None = None
    ) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done = 0.0
        self.counts: dict[str, float] = {}
        self.values: dict[str, Any] = {}
        self._stream = sys.stderr if stream is None else stream
        self._lock = threading.Lock()
        self._bar: Any = None

    def __enter__(self) -> Progress:
        self._began = self._told = time.monotonic()
        if self._stream.isatty():
            self._bar = _bar(self.title, self.total, self._stream)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        with self._lock:
            if self._bar is not None:
                self._refresh()
                self._bar.stop()
            else:
                self._stream.write(self.line(ended="done" if kind is None else "stopped") + "\n")
                self._stream.flush()

    def advance(self, units: float = 1, **counts: float) -> None:
        """`units` more are done; each keyword adds to a count shown beside the bar."""
        with self._lock:
            self.done += units
            for name, count in counts.items():
                self.counts[name] = self.counts.get(name, 0) + count
            self._tell()

    def show(self, **values: Any) -> None:
        """Show the latest value of something that does not add up, such as a loss."""
        with self._lock:
            self.values |= values
            self._tell()

    def line(self, ended: str | None = None) -> str:
        """The state in one line: `curate: 12/60 sources, kept 30, 4.2 sources/s, 0:11 left`."""
        seconds = time.monotonic() - self._began
        of = "" if self.total is None else f"/{_number(self.total)}"
        parts = [f"{self.title}: {_number(self.done)}{of} {self.unit}", *self._extras()]
        rate = self.done / seconds if seconds > 0 else 0.0
        if ended is not None:
            parts.append(f"{ended} in {clock(seconds)}")
        elif rate > 0:
            # Slow work is told per minute, where a rate per second would read 0.0.
            parts.append(f"{rate:.1f} {self.unit}/s" if rate >= 0.5 else f"{60 * rate:.1f} {self.unit}/min")
            if self.total is not None:
                parts.append(f"{clock(max(0.0, self.total - self.done) / rate)} left")
        return ", ".join(parts)

    def _extras(self) -> list[str]:
        counts = [f"{name} {_number(count)}" for name, count in self.counts.items()]
        values = [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in self.values.items()]
        return counts + values

    def _tell(self) -> None:
        if self._bar is not None:
            self._refresh()
        elif time.monotonic() - self._told >= PLAIN_EVERY_S:
            self._told = time.monotonic()
            self._stream.write(self.line() + "\n")
            self._stream.flush()

    def _refresh(self) -> None:
        of = "" if self.total is None else f"/{_number(self.total)}"
        told = ", ".join([f"{_number(self.done)}{of} {self.unit}", *self._extras()])
        self._bar.update(self._bar.task_ids[0], completed=self.done, total=self.total, told=told)


def clock(seconds: float) -> str:
    """Seconds as a clock shows them: `0:07`, `12:30`, `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def _bar(title: str, total: float | None, stream: TextIO) -> Any:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    bar = RichProgress(
        TextColumn(f"[bold]{escape(title)}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[told]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(file=stream),
    )
    bar.add_task(title, total=total, told="")
    return bar
