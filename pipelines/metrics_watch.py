"""A command watched while it works: progress per stage, metrics in Ray, and a record of the job in its dataset.

    with Watch("curate", config, of_curate()) as watch:
        for row in run_stages(config.engine, items, UNIT_INPUT, stages(config), config.ray, watch):
            ...
        watch.decided("decide", "clips", decided(kept, rejected))

Each stage is wrapped in one that reports what a call did to the tally of the job: an object here, one small actor on
Ray. A thread asks the tally how things stand, tells it on the board, and beats in the record of the job.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from pipelines.metrics import Counts, Outcome
from pipelines.metrics_stages import Told, told_of
from pipelines.metrics_tally import Report, State, Tally, is_whole, on_ray, since
from pipelines.progress import Board, Line
from pipelines.status_job import JobRecord

if TYPE_CHECKING:
    from curate.stage import Stage

log = logging.getLogger(__name__)

LOOK_S = 0.5
BEAT_S = 5.0
#: Seconds to wait at the end for reports that are still on their way.
SETTLE_S = 5.0


class CommandConfig(Protocol):
    @property
    def dataset(self) -> str: ...


class Watch:
    """What is told of one command over one dataset."""

    def __init__(
        self,
        command: str,
        config: CommandConfig,
        told: Mapping[type, Told],
        *,
        before: Mapping[str, int] | None = None,
        to_do: Mapping[str, int] | None = None,
    ) -> None:
        """`before`: what earlier runs did, by outcome. `to_do`: of stages by name, how much there is to do."""
        from curate.dataset import Dataset

        self._command, self._dataset, self._told = command, config.dataset, told
        self._to_do = dict(to_do or {})
        self._record = JobRecord(Dataset(config.dataset), command, config, before or {}, self._to_do)
        self._tally: Any = None  # a Tally, or an actor of one
        self._known: list[State] = []
        self._is_lost = False
        self._ended = threading.Event()
        self._beats = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Watch:
        self._record.__enter__()
        self._beats.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._beats.join()
        self._record.__exit__(kind, error, trace)
        if self._is_actor:
            self._end_actor()

    @contextmanager
    def over(self, stages: Sequence[Stage], items: int, *, ray: bool) -> Iterator[tuple[list[Stage], Seen]]:
        """The stages as they are to be run over so many rows, and what must see each row of the last one."""
        with self.rounds(ray=ray) as rounds, rounds.over(stages, items, self._to_do) as watched:
            yield watched

    @contextmanager
    def rounds(self, *, ray: bool) -> Iterator[Rounds]:
        """For stages that are run again and again over what is left: each round adds to the same lines."""
        if self._tally is None:
            self._tally = (on_ray if ray else Tally)(self._command, self._dataset)
        first, done = len(self._states()), threading.Event()
        with Board() as board:
            looks = threading.Thread(target=self._look, args=(board, first, done), daemon=True)
            looks.start()
            try:
                yield Rounds(self, first, lambda: self._tell(board, first))
            finally:
                done.set()
                looks.join()
                self._record.beat(self._tell(board, first))

    def decided(self, stage: str, unit: str, counts: Counts) -> None:
        """What the driver decided by itself, of all clips of the dataset."""
        if self._tally is None:  # there was nothing for the stages to do
            return
        self._ask("decide", State(stage, unit, counts.done), counts)

    @property
    def _is_actor(self) -> bool:
        return self._tally is not None and not isinstance(self._tally, Tally)

    def _sender(self) -> Callable[[Report], None]:
        return ToActor(self._tally) if self._is_actor else self._tally.add

    def _ask(self, method: str, *args: Any) -> Any:
        """What the tally says to that; null once its actor has died, which costs no job."""
        if not self._is_actor:
            return getattr(self._tally, method)(*args)
        if self._is_lost:
            return None
        import ray

        try:
            return ray.get(getattr(self._tally, method).remote(*args))
        except ray.exceptions.RayError as error:
            self._is_lost = True
            log.warning("the stages are no longer counted, for the actor that did it is gone: %s", error)
            return None

    def _look(self, board: Board, first: int, done: threading.Event) -> None:
        self._tell(board, first)  # the clock of each stage begins with what is done by now
        while not done.wait(LOOK_S):
            self._tell(board, first)

    def _beat(self) -> None:
        """Until the command ends, also where the driver works by itself for long: writing tables, scoring captions."""
        while not self._ended.wait(BEAT_S):
            self._record.beat(self._known)

    def _tell(self, board: Board, first: int) -> list[State]:
        states = self._states()
        board.tell(
            [
                Line(f"{self._command}/{state.stage}", state.unit, state.total, state.done, state.shown())
                for state in states[first:]
            ]
        )
        return states

    def _states(self) -> list[State]:
        """How all stages stand, as far as it is known."""
        states = self._ask("states")
        if states is not None:
            self._known = states
        return self._known

    def _end_actor(self) -> None:
        """Not by a kill: as it ends by itself, Ray exports what it noted last."""
        import ray

        with suppress(ray.exceptions.RayError):  # that it is gone is the answer
            ray.get(self._tally.stop.remote(), timeout=SETTLE_S)


class Rounds:
    """Stages that are run once or more, and told of as one."""

    def __init__(self, watch: Watch, first: int, tell: Callable[[], object]) -> None:
        """`first`: how many stages `watch` knew before. `tell` shows how the stages stand."""
        self._watch, self._first, self._tell = watch, first, tell
        self._is_open = False

    @contextmanager
    def over(
        self, stages: Sequence[Stage], items: int, to_do: Mapping[str, int], *, gap: int | None = None
    ) -> Iterator[tuple[list[Stage], Seen]]:
        """One round over so many rows: as `Watch.over`.

        `to_do`: of stages by name, how much there is from now on; of others it is `items`. `gap`: as for `is_whole`.
        """
        watch = self._watch
        told = [told_of(stage, watch._told) for stage in stages]
        self._open([State(t.name, t.unit, to_do.get(t.name, items)) for t in told], items)
        watched: list[Stage] = [
            Watched(stage, one, self._first + place, watch._sender())
            for place, (stage, one) in enumerate(zip(stages, told, strict=True))
        ]
        began, seen = self._states(), Seen()
        yield watched, seen
        # Not after an error: what was on its way then never comes.
        self._settle(began, items, seen, gap)

    def end(self, place: int, ended: Mapping[Outcome, int]) -> None:
        """Units that the stage at `place` handed on, and that the driver found lost behind it."""
        self._watch._ask("end", self._first + place, ended)

    def _open(self, states: list[State], items: int) -> None:
        if self._is_open:
            self._watch._ask("again", self._first, [state.total for state in states], items)
        else:
            self._watch._ask("open", states, items)
            self._tell()  # before anything is done: their clocks begin
            self._is_open = True

    def _states(self) -> list[State]:
        return self._watch._states()[self._first :]

    def _settle(self, began: list[State], items: int, seen: Seen, gap: int | None) -> None:
        """Wait until all reports came in. One that a worker sent just before it died may be lost."""
        until = time.monotonic() + SETTLE_S
        while not self._watch._is_lost and not is_whole(since(self._states(), began), items, seen.rows, gap):
            if time.monotonic() > until:
                log.warning("the counts of the stages are not complete: reports of workers were lost")
                return
            time.sleep(0.02)


class Seen:
    """How many rows of the last stage came out."""

    def __init__(self) -> None:
        self.rows = 0

    def __call__(self, rows: Iterator[dict]) -> Iterator[dict]:
        for row in rows:
            self.rows += 1
            yield row


class Watched:
    """A stage that reports what each of its calls did."""

    def __init__(self, stage: Stage, told: Told, place: int, send: Callable[[Report], None]) -> None:
        self._stage, self._told, self._place, self._send = stage, told, place, send
        self.resources, self.output = stage.resources, stage.output
        self.__name__ = type(stage).__name__

    def setup(self) -> None:
        self._stage.setup()

    def __call__(self, rows: list[dict]) -> list[dict]:
        began_s = time.perf_counter()
        made = self._stage(rows)
        seconds = time.perf_counter() - began_s
        counts = self._told.count(rows, made)
        if counts.seconds is not None:
            seconds = counts.seconds
        self._send(Report(self._place, "", len(rows), len(made), seconds, counts))
        return made


class ToActor:
    """Sends reports to the tally of the job, from a worker of Ray, and does not wait for it."""

    def __init__(self, tally: Any) -> None:
        self._tally = tally
        self._local = threading.local()

    def __call__(self, report: Report) -> None:
        from dataclasses import replace

        self._tally.add.remote(replace(report, call=self._call()))

    def _call(self) -> str:
        """Task and number of the call in it: a task that Ray runs again has the same name and makes the same calls."""
        import ray

        task = str(ray.get_runtime_context().get_task_id())
        if getattr(self._local, "task", None) != task:
            self._local.task, self._local.number = task, 0
        self._local.number += 1
        return f"{task}:{self._local.number}"

    def __reduce__(self) -> tuple[Any, ...]:
        return ToActor, (self._tally,)
