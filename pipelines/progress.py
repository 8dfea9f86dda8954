"""How far a long job is: bars on a terminal, plain lines every few seconds elsewhere. Writes to stderr.

with Progress("report", total=60, unit="clips") as progress:
    progress.advance(1, kept=3, rejected=1)      # counts add up
    progress.show(loss=0.12)                     # values replace each other

with Board() as board:                           # several stages at work side by side, a line each
    board.tell(0, Line("curate/analyse", unit="files", total=60, done=12, counts={"failed": 2}))
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TextIO

PLAIN_EVERY_S = 5.0


@dataclass(frozen=True)
class Line:
    """What is told of one stage at one moment.

    Attributes:
        title: its name.
        unit: what it does one after another.
        total: how many there are; null if unknown.
        done: how many are done, whatever came of them.
        counts: what came of them, or of what is in them: kept, failed, clips.
        values: the latest of what does not add up, such as a loss.
    """

    title: str
    unit: str
    total: float | None = None
    done: float = 0
    counts: Mapping[str, float] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)

    def told(self) -> str:
        """`12/60 files, kept 30, failed 2`."""
        of = "" if self.total is None else f"/{_number(self.total)}"
        counts = [f"{name} {_number(count)}" for name, count in self.counts.items()]
        values = [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in self.values.items()]
        return ", ".join([f"{_number(self.done)}{of} {self.unit}", *counts, *values])

    def rate(self, seconds: float) -> str:
        """`4.2 files/s`; slow work is told per minute, where a rate per second would read 0.0. Empty before any."""
        rate = self.done / seconds if seconds > 0 else 0.0
        if rate <= 0:
            return ""
        return f"{rate:.1f} {self.unit}/s" if rate >= 0.5 else f"{60 * rate:.1f} {self.unit}/min"

    def left(self, seconds: float) -> str:
        """`0:11 left`; empty where that cannot be known."""
        if not self.done or self.total is None:
            return ""
        return f"{clock(max(0.0, self.total - self.done) * seconds / self.done)} left"

    def pace(self, seconds: float) -> str:
        """`4.2 files/s, 0:11 left`; once all is done, only how fast that was."""
        is_done = self.done == self.total
        return ", ".join(filter(None, [self.rate(seconds), "" if is_done else self.left(seconds)]))

    def text(self, seconds: float, ended: str | None = None) -> str:
        """All in one line: `curate/analyse: 12/60 files, failed 2, 4.2 files/s, 0:11 left`."""
        end = self.pace(seconds) if ended is None else f"{ended} in {clock(seconds)}"
        return ", ".join(filter(None, [f"{self.title}: {self.told()}", end]))


class Board:
    """Lines of stages that are at work side by side. Safe to tell from several threads."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._lock = threading.Lock()
        self._lines: list[Line] = []
        self._told: list[tuple[float, Line]] = []  # when a line was written last, and which
        self._bars: Any = None

    def __enter__(self) -> Board:
        self._began = time.monotonic()
        if self._stream.isatty():
            self._bars = _bars(self._stream)
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        with self._lock:
            if self._bars is not None:
                self._bars.stop()
                return
            for line in self._lines:
                self._write(line, ended="done" if kind is None else "stopped")

    def tell(self, place: int, line: Line) -> None:
        """`line` is what is known by now of the stage at `place`; the last one told stays."""
        with self._lock:
            if place == len(self._lines):
                self._lines.append(line)
                self._told.append((self._began, Line(line.title, line.unit, line.total)))
            self._lines[place] = line
            if self._bars is not None:
                self._refresh(place)
            elif time.monotonic() - self._told[place][0] >= PLAIN_EVERY_S and line != self._told[place][1]:
                self._told[place] = (time.monotonic(), line)
                self._write(line)

    def _write(self, line: Line, ended: str | None = None) -> None:
        self._stream.write(line.text(time.monotonic() - self._began, ended) + "\n")
        self._stream.flush()

    def _refresh(self, place: int) -> None:
        line, seconds = self._lines[place], time.monotonic() - self._began
        if place == len(self._bars.task_ids):
            self._bars.add_task(line.title, total=line.total, told="", pace="")
        self._bars.update(
            self._bars.task_ids[place],
            completed=line.done,
            total=line.total,
            told=line.told(),
            pace=line.pace(seconds),
        )


class Progress:
    """A job of `total` units (None: unknown) in one line. Safe to advance from several threads."""

    def __init__(
        self, title: str, *, total: float | None = None, unit: str = "items", stream: TextIO | None = None
    ) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done = 0.0
        self.counts: dict[str, float] = {}
        self.values: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._board = Board(stream)

    def __enter__(self) -> Progress:
        self._board.__enter__()
        self._tell()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._board.__exit__(kind, error, trace)

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

    def _tell(self) -> None:
        counts, values = dict(self.counts), dict(self.values)
        self._board.tell(0, Line(self.title, self.unit, self.total, self.done, counts, values))


def clock(seconds: float) -> str:
    """Seconds as a clock shows them: `0:07`, `12:30`, `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def _bars(stream: TextIO) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Column

    console = Console(file=stream)
    columns = [
        TextColumn("{task.description}", style="bold", markup=False, table_column=Column(no_wrap=True)),
        BarColumn(bar_width=20 if console.width >= 100 else 6),
        TextColumn("{task.fields[told]}", markup=False, table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[pace]}", markup=False, table_column=Column(no_wrap=True)),
    ]
    if console.width >= 100:  # what is done and left matters more
        columns.append(TimeElapsedColumn())
    return Progress(*columns, console=console)
