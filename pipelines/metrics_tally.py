"""What the stages of a job have done by now: reports of their workers, added up in one place, each of them once.

    tally = Tally("curate", "films")
    first = tally.open([State("analyse", "files", 400), State("clip", "files", 400)], items=400)
    tally.add(Report(first, "", 1, 1, 4.2, Counts(1)))
    tally.states()                           # of each stage: done, outcomes, rows in and out

In one process it is an object. On Ray it is an actor, for Ray runs the tasks of a worker that died again: a report
tells which call of which task it is of, and is not counted twice. Only what is under way can be run again, so it is
enough to remember the latest.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from pipelines.metrics import Counts, Meters, Outcome

#: Calls of a stage that are remembered; many times what Ray has under way.
REMEMBERED = 100_000
# Of the outcomes, as they are shown.
_FIRST, _LAST = ("ok", "partial"), ("rejected", "failed", "error")


@dataclass(frozen=True)
class Report:
    """What one call of a stage did.

    Attributes:
        stage: its place in the tally.
        call: names the call, the same one if it is made again; empty if it never is.
        rows_in, rows_out: rows it took and made.
        seconds: how long it took.
        counts: what it did.
    """

    stage: int
    call: str
    rows_in: int
    rows_out: int
    seconds: float
    counts: Counts


@dataclass
class State:
    """A stage by now.

    Attributes:
        stage: its name.
        unit: what it does.
        total: how many there are to do; null if unknown.
        done: units done.
        outcomes: what came of them.
        rows_in, rows_out: rows taken and made.
        seconds: of all its calls together.
    """

    stage: str
    unit: str
    total: int | None
    done: int = 0
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    rows_in: int = 0
    rows_out: int = 0
    seconds: float = 0.0

    def shown(self) -> dict[str, int]:
        """What came of its units and of what is in them, for a person: `ok 11, failed 1, clips 30, clips failed 2`."""
        found: Counter[str] = Counter()
        ordered = sorted(
            self.outcomes.items(), key=lambda told: (told[0][0] != self.unit, _place(told[0][1]))
        )
        for (unit, outcome, _), count in ordered:
            name = unit if outcome == "found" else outcome if unit == self.unit else f"{unit} {outcome}"
            found[name] += count
        return {name: count for name, count in found.items() if count}


def _place(outcome: str) -> int:
    return _FIRST.index(outcome) if outcome in _FIRST else len(_FIRST) + (outcome in _LAST)


class Tally:
    """The states of all stages of a command. Safe to call from several threads."""

    def __init__(self, command: str, dataset: str, *, metered: bool = False) -> None:
        """`metered`: note everything in Ray's metrics as well."""
        self._meters = Meters(command, dataset) if metered else None
        self._lock = threading.Lock()
        self._states: list[State] = []
        self._waiting: list[int] = []  # rows that wait for each stage or are in it
        self._after: list[int | None] = []  # the place of the stage that takes the rows of each
        self._calls: list[tuple[set[str], deque[str]]] = []

    def open(self, states: Sequence[State], items: int) -> int:
        """More stages, each fed by the one before it and the first one by `items` rows; returns its place."""
        with self._lock:
            first = len(self._states)
            self._states += states
            self._waiting += [items] + [0] * (len(states) - 1)
            self._after += [*range(first + 1, len(self._states)), None]
            self._calls += [(set(), deque()) for _ in states]
            self._tell_queue(first)
            return first

    def again(self, first: int, to_do: Sequence[int], items: int) -> None:
        """The stages from `first` run once more, over `items` rows, and each has so much `to_do`."""
        with self._lock:
            for place, more in enumerate(to_do, first):
                self._states[place].total = self._states[place].done + more
                self._waiting[place] = items if place == first else 0  # what was on its way is lost
                self._tell_queue(place)

    def add(self, report: Report) -> None:
        """Add a report, unless it is there already."""
        with self._lock:
            if self._is_known(report):
                return
            place, state = report.stage, self._states[report.stage]
            state.rows_in += report.rows_in
            state.rows_out += report.rows_out
            state.seconds += report.seconds
            self._count(state, report.counts, report.seconds)
            self._end(place, report.counts.ended)
            self._waiting[place] -= report.rows_in
            self._tell_queue(place)
            if (after := self._after[place]) is not None:
                self._waiting[after] += report.rows_out
                self._tell_queue(after)

    def end(self, place: int, ended: Mapping[Outcome, int]) -> None:
        """Units that got as far as the stage at `place`, and were lost behind it."""
        with self._lock:
            self._end(place, ended)

    def decide(self, state: State, counts: Counts) -> None:
        """Add a stage that the driver itself did: what became of all clips of the dataset."""
        with self._lock:
            self._states.append(state)
            self._waiting.append(0)
            self._after.append(None)
            self._calls.append((set(), deque()))
            self._count(state, counts, None)
            if self._meters is not None:
                self._meters.decided(state.stage, counts)

    def states(self) -> list[State]:
        """Every stage by now; not to be changed."""
        with self._lock:
            return [
                State(s.stage, s.unit, s.total, s.done, s.outcomes.copy(), s.rows_in, s.rows_out, s.seconds)
                for s in self._states
            ]

    def stop(self) -> None:
        """End the actor, in the way in which Ray still exports what was noted last."""
        import ray

        ray.actor.exit_actor()  # type: ignore[no-untyped-call]

    def _count(self, state: State, counts: Counts, seconds: float | None) -> None:
        state.done += counts.done
        state.outcomes.update(counts.outcomes)
        if self._meters is not None:
            self._meters.note(state.stage, seconds, counts)

    def _end(self, place: int, ended: Mapping[Outcome, int]) -> None:
        after = self._after[place]
        while ended and after is not None:
            self._count(self._states[after], Counts(sum(ended.values()), ended), None)
            after = self._after[after]

    def _is_known(self, report: Report) -> bool:
        if not report.call:
            return False
        known, order = self._calls[report.stage]
        if report.call in known:
            return True
        known.add(report.call)
        order.append(report.call)
        if len(order) > REMEMBERED:
            known.discard(order.popleft())
        return False

    def _tell_queue(self, place: int) -> None:
        if self._meters is not None:
            # A report of the next stage may come before that of the rows it took.
            self._meters.queue(self._states[place].stage, max(0, self._waiting[place]))


def is_whole(states: Sequence[State], items: int, rows: int, gap: int | None = None) -> bool:
    """Whether every report came in: each stage took what the one before it made, and the last one made `rows`.

    Before the stage at `gap` something that is not watched may keep rows to itself.
    """
    return (
        items == states[0].rows_in
        and rows == states[-1].rows_out
        and all(
            before.rows_out == after.rows_in
            for place, (before, after) in enumerate(pairwise(states), 1)
            if place != gap
        )
    )


def since(states: Sequence[State], then: Sequence[State]) -> list[State]:
    """The rows that were taken and made since the stages stood as they did `then`."""
    return [
        replace(now, rows_in=now.rows_in - past.rows_in, rows_out=now.rows_out - past.rows_out)
        for now, past in zip(states, then, strict=True)
    ]


def on_ray(command: str, dataset: str) -> Any:
    """A Tally as an actor of the cluster, which takes none of its cores."""
    import ray

    return ray.remote(Tally).options(num_cpus=0).remote(command, dataset, metered=True)
