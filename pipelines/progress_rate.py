"""How fast a stage is now, and when it will be through.

    pace = Pace(time.monotonic(), done=0)
    pace.note(time.monotonic(), done=12)             # whenever something was done
    pace.per_second(time.monotonic()), pace.left_s(time.monotonic(), total=60)

The rate is that of the last minute: what a model took to load must not weigh on it for hours.
"""

from __future__ import annotations

from collections import deque

#: Seconds that the rate looks back on.
WINDOW_S = 60.0
#: It looks back on at least so many changes: slow work comes in lumps.
CHANGES = 4
#: No time left is told before this part of the whole is done, or so many seconds have passed since the first was.
SURE_PART, SURE_S = 0.05, 20.0


class Pace:
    """When how much was done."""

    def __init__(self, now_s: float, done: float) -> None:
        """`done`: what was done before the clock began, which counts for no rate."""
        self._began_s, self._before = now_s, done
        self._first_s: float | None = None  # when the first was done
        self._marks = deque([(now_s, done)])

    def note(self, now_s: float, done: float) -> None:
        """So much is done by now."""
        if done == self._marks[-1][1]:
            return
        if self._first_s is None:
            self._first_s = now_s
        if len(self._marks) > 1 and self._marks[-1][0] - self._marks[-2][0] < 1:
            self._marks.pop()  # a mark per second is enough
        self._marks.append((now_s, done))
        while len(self._marks) > CHANGES + 1 and self._marks[1][0] <= now_s - WINDOW_S:
            self._marks.popleft()

    def per_second(self, now_s: float) -> float:
        """Units per second of late; 0 before the first."""
        since_s, before = self._marks[0]
        if self._is_under_way(now_s):
            since_s, before = self._marks[1]
        elif len(self._marks) > CHANGES and self._marks[1][0] > now_s - WINDOW_S:
            since_s = max(since_s, now_s - WINDOW_S)  # all of them were within the minute
        return _per(self._marks[-1][1] - before, now_s - since_s)

    def _is_under_way(self, now_s: float) -> bool:
        """Whether what came before the first, such as loading a model, need not count: as much time passed since."""
        return (
            self._first_s is not None
            and self._marks[0][0] == self._began_s
            and len(self._marks) > CHANGES + 1
            and now_s - self._first_s >= self._first_s - self._began_s
        )

    def on_average(self) -> float:
        """Units per second from the beginning to the last one done."""
        last_s, done = self._marks[-1]
        return _per(done - self._before, last_s - self._began_s)

    def left_s(self, now_s: float, total: float | None) -> float | None:
        """Seconds until `total` is done; None while that cannot be known."""
        rate, done = self.per_second(now_s), self._marks[-1][1]
        if total is None or rate <= 0 or self._first_s is None:
            return None
        is_sure = done - self._before >= SURE_PART * (total - self._before) or now_s - self._first_s >= SURE_S
        return max(0.0, total - done) / rate if is_sure else None


def pace_told(per_second: float, unit: str, left_s: float | None) -> str:
    """`4.2 files/s, 0:11 left`; without a unit `4.2/s, 0:11 left`."""
    left = "" if left_s is None else f"{clock(left_s)} left"
    return ", ".join(filter(None, [rate_told(per_second, unit), left]))


def rate_told(per_second: float, unit: str) -> str:
    """`4.2 files/s`; slow work is told per minute, where a rate per second would read 0.0. Empty before any."""
    if per_second <= 0:
        return ""
    of = f" {unit}" if unit else ""
    return f"{per_second:.1f}{of}/s" if per_second >= 0.5 else f"{60 * per_second:.1f}{of}/min"


def clock(seconds: float) -> str:
    """Seconds as a clock shows them: `0:07`, `12:30`, `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _per(done: float, seconds: float) -> float:
    return done / seconds if seconds > 0 else 0.0
