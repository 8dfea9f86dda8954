"""The lines of stages on a terminal. They stay in place and are as wide as it is at each moment.

    curate  0:17
      analyse ━━━━━━━╸──────────── 25/66 files, ok 25, clips 37  2.1 files/s, 0:20 left
      text    ━━━━━━━───────────── 24/66 files, clips read 27    2.0 files/s, 0:21 left

Whose line it is, how much is done and when it will be through can be read on 60 columns, too: only the counts between
them are cut, and the bar needs 100. The command stands once, above its stages.

bars = Bars(sys.stderr)
bars.start(), bars.show([Row("curate/analyse", ["25/66 files", "ok 25"], 25 / 66, 2.1, "files", 19.5)]), bars.stop()
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from pipelines.progress_rate import clock, pace_told

if TYPE_CHECKING:
    from rich.text import Text

#: From so many columns on there is a bar, and the rate is told with its unit.
WIDE = 100
#: Columns of a bar. It takes them from counts that could be told.
LEAST_BAR, MOST_BAR = 10, 20


@dataclass(frozen=True)
class Row:
    """What is shown of one stage.

    Attributes:
        title: its name, after that of the command and a slash: `curate/analyse`.
        told: how much is done, then what came of it; the last are left out first.
        part: how much of the whole is done, 0 to 1; null if that is unknown.
        per_second: its rate; 0 before the first.
        unit: of the rate.
        left_s: seconds until it is through; null if unknown.
    """

    title: str
    told: Sequence[str]
    part: float | None
    per_second: float
    unit: str
    left_s: float | None


class Bars:
    """Rows that are drawn anew on a terminal some times a second, below whatever else is written there."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        self._began_s = time.monotonic()
        self._rows: Sequence[Row] = ()
        self._live = Live(self, console=Console(file=stream))

    def start(self) -> None:
        self._live.start()

    def stop(self) -> None:
        """Draw them a last time. They stay there."""
        self._live.stop()

    def show(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    def __rich_console__(self, _console: Any, options: Any) -> Iterator[Text]:
        yield from drawn(
            self._rows, time.monotonic() - self._began_s, options.max_width, ascii_only=options.ascii_only
        )


def drawn(rows: Sequence[Row], seconds: float, width: int, *, ascii_only: bool = False) -> list[Text]:
    """The lines of `rows`, `seconds` after they began, on a terminal of `width` columns."""
    from rich.text import Text

    done, ahead, more = ("=", "-", "...") if ascii_only else ("━", "─", "…")
    command = _command(rows)
    head = [Text.assemble((command, "bold"), f"  {clock(seconds)}")] if command else []
    names = [f"  {row.title.removeprefix(f'{command}/')}" if command else row.title for row in rows]
    paces = [pace_told(row.per_second, row.unit if width >= WIDE else "", row.left_s) for row in rows]
    if not command and width >= WIDE:
        paces = [f"{pace}  {clock(seconds)}".strip() for pace in paces]

    name_width, pace_width = _widest(names), _widest(paces)
    room = width - name_width - 1 - pace_width - 2
    wanted = _widest([", ".join(row.told) for row in rows])
    bar = 0
    if width >= WIDE and any(row.part is not None for row in rows):
        bar = min(MOST_BAR, max(LEAST_BAR, room - wanted - 1))
        room -= bar + 1
    told = [_cut(row.told, room, more) for row in rows]

    lines = []
    for row, name, text, pace in zip(rows, names, told, paces, strict=True):
        line = Text(no_wrap=True, overflow="crop")
        line.append(f"{name:<{name_width}} ", "bold")
        if bar:
            full = round(bar * min(1.0, row.part or 0.0))
            line.append(done * full, "green").append(ahead * (bar - full) + " ", "dim")
        line.append(f"{text:<{_widest(told)}}  {pace}".rstrip())
        lines.append(line)
    return head + lines


def _command(rows: Sequence[Row]) -> str:
    """The command whose stages all rows are; empty for a single row, which has room for its whole name."""
    commands = {row.title.rpartition("/")[0] for row in rows}
    return commands.pop() if len(rows) > 1 and len(commands) == 1 else ""


def _cut(told: Sequence[str], room: int, more: str) -> str:
    """As much of it as there is room for, to a comma; the first of it in any case."""
    whole = ", ".join(told)
    if len(whole) <= room:
        return whole
    for kept in range(len(told) - 1, 0, -1):
        text = ", ".join([*told[:kept], more])
        if len(text) <= room:
            return text
    return told[0]


def _widest(texts: Sequence[str]) -> int:
    return max(map(len, texts), default=0)
