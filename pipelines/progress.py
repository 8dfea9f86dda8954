"""How far a long job is: lines that move on a terminal, plain ones every few seconds elsewhere. Writes to stderr.

The lines of all stages that have news come together, in the order of the stages. The rate is that of the last minute,
and the time left follows from it; the last stage waits for all the others, so its time left is that of them all.

with Progress("report", total=60, unit="clips") as progress:
    progress.advance(1, kept=3, rejected=1)      # counts add up
    progress.show(loss=0.12)                     # values replace each other

with Board() as board:                           # several stages at work side by side, a line each
    board.tell([Line("curate/analyse", unit="files", total=60, done=12, counts={"failed": 2}), Line(...)])
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TextIO

from pipelines.progress_rate import Pace, clock, pace_told
from pipelines.progress_terminal import Bars, Row

#: How often plain lines are written: in the first seconds of a job, and then, so that a day of it can still be read.
FIRST_S, FIRST_EVERY_S, PLAIN_EVERY_S = 120.0, 5.0, 30.0


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

    def told(self) -> list[str]:
        """`12/60 files`, `kept 30`, `failed 2`."""
        of = "" if self.total is None else f"/{_number(self.total)}"
        counts = [f"{name} {_number(count)}" for name, count in self.counts.items()]
        values = [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in self.values.items()]
        return [f"{_number(self.done)}{of} {self.unit}", *counts, *values]

    def text(self, end: str) -> str:
        """All in one line: `curate/analyse: 12/60 files, failed 2, 4.2 files/s, 0:11 left`."""
        return f"{self.title}: {', '.join(filter(None, [*self.told(), end]))}"

    def part(self) -> float | None:
        """How much of the whole is done, 0 to 1."""
        return self.done / self.total if self.total else None


class Board:
    """Lines of stages that are at work side by side. Safe to tell from several threads."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._lock = threading.Lock()
        self._lines: list[Line] = []
        self._paces: list[Pace] = []
        self._told: list[Line] = []  # as each was written last
        self._bars: Bars | None = None

    def __enter__(self) -> Board:
        self._began_s = self._written_s = time.monotonic()
        if self._stream.isatty():
            self._bars = Bars(self._stream)
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        with self._lock:
            if self._bars is not None:
                self._bars.stop()
                return
            ended = "done" if kind is None else "stopped"
            self._write([line.text(f"{ended} in {clock(self._seconds())}") for line in self._lines])

    def tell(self, lines: Sequence[Line]) -> None:
        """`lines` are what is known by now of all stages, in their order; more may join at the end."""
        with self._lock:
            now_s = time.monotonic()
            for line in lines[len(self._paces) :]:
                self._paces.append(Pace(now_s, line.done))
                self._told.append(Line(line.title, line.unit, line.total))
            self._lines = list(lines)
            for line, pace in zip(lines, self._paces, strict=True):
                pace.note(now_s, line.done)
            if self._bars is not None:
                self._bars.show([self._row(place) for place in range(len(lines))])
            elif now_s - self._written_s >= self._every_s() and self._lines != self._told:
                news = [place for place, line in enumerate(lines) if line != self._told[place]]
                self._write([self._plain(place) for place in news])
                self._written_s, self._told = now_s, list(lines)

    def _every_s(self) -> float:
        return FIRST_EVERY_S if self._seconds() < FIRST_S else PLAIN_EVERY_S

    def _plain(self, place: int) -> str:
        per_second, left_s = self._pace(place)
        return self._lines[place].text(pace_told(per_second, self._lines[place].unit, left_s))

    def _row(self, place: int) -> Row:
        line = self._lines[place]
        per_second, left_s = self._pace(place)
        return Row(line.title, line.told(), line.part(), per_second, line.unit, left_s)

    def _pace(self, place: int) -> tuple[float, float | None]:
        """Units per second and the seconds left; once all is done, how fast that was."""
        line, pace, now_s = self._lines[place], self._paces[place], time.monotonic()
        if line.done == line.total:
            return pace.on_average(), None
        return pace.per_second(now_s), pace.left_s(now_s, line.total)

    def _seconds(self) -> float:
        return time.monotonic() - self._began_s

    def _write(self, lines: Sequence[str]) -> None:
        """At once, so that no other writer comes between them."""
        self._stream.write("".join(f"{line}\n" for line in lines))
        self._stream.flush()


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
        self._board.tell([Line(self.title, self.unit, self.total, self.done, counts, values)])


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"
