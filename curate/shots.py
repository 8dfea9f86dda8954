"""Where one shot ends and the next begins, found while the frames stream by.

    finder = ShotFinder(ShotConfig())
    for picture, time_s in ...:
        shots = finder.push(picture, time_s)      # shots that are certain by now, some frames late
    shots = finder.finish(end_s)                  # the rest

A cascade. A cheap pass over every picture (curate.proposals) says where a change is likely, and which cuts are beyond
doubt; TransNet V2 (curate.transnet) decides the rest, with some context to either side; all this becomes cuts,
dissolves and fades (curate.transitions). Frames of gradual transitions belong to no shot. The finder speaks in
indices of the frames pushed; their PTS are the caller's. It holds no more pictures than are undecided.

The network's answers are looked at some hundred pictures after they were asked for, so that it can be loaded and run
beside the decoding. How many depends on nothing but their place, so that shots do not depend on how fast anything is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from curate.proposals import Changes, difference
from curate.shot_network import CONTEXT, FULL_CONTEXT, Answer, Device, ask, network
from curate.shot_spans import Shot as Shot
from curate.shot_spans import ShotSpans
from curate.transitions import Transition, closed, judge, runs, spans, without_flashes

# The network was trained on 24 to 30 pictures a second; of faster footage it sees every second, third, ...
_NETWORK_HZ = 30.0
_LONGEST_WINDOW = 200
_BLOCK = 100
_JUMP_ALONE = 20.0
# Blocks that are asked about before the first answer is waited for: many at first, while the network is loaded.
_LAG_AT_FIRST, _LAG = 10, 3
_MARGIN_S = 0.08
_DARK_S = 1.0


@dataclass(frozen=True)
class ShotConfig:
    """How footage is split into shots.

    Attributes:
        windows: where the network decides: proposed (where the cheap pass sees a sign of a change that is no
            plain cut), all (everywhere) or off (nowhere: every sharp jump of the cheap pass is a cut; no torch).
        device: where the network runs: auto, cpu or cuda.
        flash_s: a picture that comes back within this time was interrupted by a flash, not by a cut.
        min_s: a long shot is never divided into parts shorter than this. Short shots are not merged or dropped
            here; the rule duration_s rejects them.
        max_s: longer shots are divided into parts of at most this many seconds, where the picture is quietest.
        stride_s: if set, parts of this length instead, whatever they show; nothing else is looked for.
    """

    windows: Literal["proposed", "all", "off"] = "proposed"
    device: Device = "auto"
    flash_s: float = 0.3
    min_s: float = 1.0
    max_s: float = 20.0
    stride_s: float | None = None

    @property
    def uses_network(self) -> bool:
        return self.windows != "off" and self.stride_s is None


class ShotFinder:
    """Feed every frame in order; get shots in order, none longer than max_s."""

    def __init__(self, config: ShotConfig, *, alongside: bool = False) -> None:
        """`alongside`: run the network in a process of its own. The shots are the same."""
        self._config = config
        self._alongside = alongside
        if alongside and config.uses_network:
            network(config.device, alongside=True)  # it costs this process nothing; alone, when it is needed
        self._spans = ShotSpans(config.min_s, config.max_s, config.stride_s)
        self._changes = Changes()
        # Of the pictures that the network may see, from self._begin on:
        self._begin = 0
        self._pictures: list[np.ndarray] = []
        self._frames: list[int] = []  # index of the frame
        self._times: list[float] = []
        self._steps: list[float] = []
        self._middle: list[float] = []  # answered so far
        self._inside: list[float] = []
        self._asked: deque[_Block] = deque()  # after those that are answered
        self._n_asked = 0
        self._parsed = 0  # pictures before this one lie in no transition that is still open
        self._count = 0
        self._next_s = 0.0
        self._last: np.ndarray | None = None

    @property
    def pending_from(self) -> int:
        """No later shot begins before this frame."""
        return self._spans.pending_from

    def push(self, picture: np.ndarray, time_s: float) -> list[Shot]:
        """`picture`: (27, 48, 3) uint8 RGB, as displayed; `time_s`: its PTS in seconds."""
        index, self._count = self._count, self._count + 1
        if self._config.stride_s is not None:
            return self._spans.push(index, time_s, 0.0)
        change = 0.0 if self._last is None else difference(picture, self._last)
        self._last = picture
        if index == 0 or time_s >= self._next_s:
            # A tenth less than the period, or rounding of PTS would skip frames of 30 a second.
            self._next_s = time_s + 0.9 / _NETWORK_HZ
            self._frames.append(index)
            self._times.append(time_s)
            self._pictures.append(picture)
            self._steps.append(self._changes.push(picture))
        shots = self._spans.push(index, time_s, change)
        if (self._begin + len(self._pictures)) % _BLOCK == 0 and self._undecided() > Changes.AHEAD:
            self._decide(final=False)
            lag = max(_LAG, min(_LAG_AT_FIRST, 2 * _LAG_AT_FIRST - self._n_asked))
            if len(self._asked) > lag:
                while len(self._asked) > lag:
                    self._take_answers()
                shots += self._parse(final=False)
                shots += self._spans.settle(self._frames[self._parsed - self._begin])
        return shots

    def finish(self, end_s: float) -> list[Shot]:
        """The last shots; `end_s` is where the last frame ends."""
        if not self._count:
            return []
        shots: list[Shot] = []
        if self._config.stride_s is None:
            self._decide(final=True)
            while self._asked:
                self._take_answers()
            shots = self._parse(final=True)
        return [*shots, *self._spans.finish(self._count, end_s)]

    def _undecided(self) -> int:
        return len(self._pictures) - len(self._middle) - sum(block.count for block in self._asked)

    def _decide(self, *, final: bool) -> None:
        """Ask about pictures that were not yet asked about, in windows that a sign opens."""
        start = len(self._pictures) - self._undecided()
        count = self._undecided() - (0 if final else Changes.AHEAD)
        if self._config.windows == "all":
            likely = np.ones(count, bool)
        else:
            likely = self._changes.likely(self._begin + start, self._begin + start + count)
        # Two windows cost less as one when their contexts would overlap.
        windows = list(runs(closed(likely, 2 * CONTEXT)))
        if not final and windows and windows[-1][1] == count - 1:
            first = windows[-1][0]
            if count - first < _LONGEST_WINDOW:  # it may go on: the next time
                windows, count = windows[:-1], first
        block = _Block(count, [])
        self._asked.append(block)
        self._n_asked += 1
        if self._config.windows == "off":
            block.windows += self._jumps(start, likely[:count])
            return
        for first, last in windows:
            cut = None
            if self._config.windows == "proposed":
                cut = self._changes.plain_cut(self._begin + start + first, self._begin + start + last + 1)
            if cut is not None and cut > self._begin + start:
                block.windows.append((cut - 1 - self._begin - start, _certainly))
                continue
            for at in range(first, last + 1, _LONGEST_WINDOW):
                stop = min(at + _LONGEST_WINDOW, last + 1)
                reply = ask(
                    self._pictures,
                    start + at,
                    start + stop,
                    device=self._config.device,
                    alongside=self._alongside,
                )
                block.windows.append((at, reply))

    def _take_answers(self) -> None:
        """The answers of the block that was asked about first."""
        block = self._asked.popleft()
        start = len(self._middle)
        self._middle += [0.0] * block.count
        self._inside += [0.0] * block.count
        for first, answer in block.windows:
            middle, inside = answer()
            self._middle[start + first : start + first + len(middle)] = middle.tolist()
            self._inside[start + first : start + first + len(inside)] = inside.tolist()

    def _jumps(self, start: int, likely: np.ndarray) -> list[tuple[int, Callable[[], Answer]]]:
        """Without the network: every sharp jump is a cut after the picture before it."""
        found: list[tuple[int, Callable[[], Answer]]] = []
        for first, last in runs(likely):
            at = first + int(np.argmax(self._steps[start + first : start + last + 1]))
            if at > 0 and self._steps[start + at] > _JUMP_ALONE:
                found.append((at - 1, _certainly))
        return found

    def _parse(self, *, final: bool) -> list[Shot]:
        """Transitions that are decided to their ends become boundaries; pictures before them are forgotten."""
        times = np.array(self._times)
        hz = 1 / max(1e-3, float(np.median(np.diff(times)))) if len(times) > 1 else 25.0
        margin, flash = max(1, round(_MARGIN_S * hz)), round(self._config.flash_s * hz)
        start, stop = self._parsed - self._begin, len(self._middle)
        # What ends later than this may go on, or be answered by the other half of a flash.
        certain = stop if final else stop - max(flash, round(_DARK_S * hz)) - margin - 2
        pictures = np.stack(self._pictures[:])
        steps, light = np.array(self._steps), pictures.mean((1, 2, 3))
        middle = np.array(self._middle)
        found: list[Transition] = []
        parsed = max(start, certain)
        for first, last in spans(np.array(self._inside[start:]), light[start:stop], round(_DARK_S * hz)):
            first, last = first + start, last + start
            if last >= certain:
                parsed = min(parsed, first)
                break
            transition = judge(first, last, pictures, steps, middle, light, margin)
            if transition is not None:
                found.append(transition)
        shots: list[Shot] = []
        for transition in without_flashes(found, pictures, flash):
            frames = self._frames
            last, following = frames[transition.last], frames[transition.next]
            if transition.kind == "cut":  # of the frames that the network did not see, too
                last, following = self._spans.sharpest(last, following)
            shots += self._spans.end(last, following, transition.kind)
        self._parsed = self._begin + min(parsed, len(self._frames) - 1)
        self._forget(max(0, self._parsed - self._begin - max(FULL_CONTEXT, margin + 2)))
        return shots

    def _forget(self, count: int) -> None:
        for kept in (self._pictures, self._frames, self._times, self._steps, self._middle, self._inside):
            del kept[:count]
        self._begin += count
        self._changes.forget(self._begin + len(self._middle))


@dataclass
class _Block:
    """Pictures that were asked about at once: how many, and where in them which answers belong."""

    count: int
    windows: list[tuple[int, Callable[[], Answer]]]


def _certainly() -> Answer:
    return np.ones(1), np.ones(1)
