"""The record of a job in its dataset: `_state/jobs/NAME.json`, there from when the work begins until it is all done.

    with JobRecord(dataset, "curate", config, before={"ok": 40}) as record:
        record.beat(states)                      # every few seconds

It tells what no table does before the job has ended: how much there was to do, when it began, how its stages stand,
and the command that goes on. A job that was killed leaves its record, and one that stopped by an error puts the error
into it. `reelmill status` reads it. A record that cannot be written costs no job.
"""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from curate.dataset import Dataset
    from pipelines.metrics_tally import State
    from pipelines.status_state import State as ListedState

log = logging.getLogger(__name__)

FOLDER = "_state/jobs"
#: A job whose record, and all else it writes, stays the same for so long is taken for dead.
DEAD_S = 60.0
#: Where each command commits its work, in the order of the road.
_WORK = {
    "curate": "_state/curate",
    "recaption": "_state/captions",
    "shard": "_state/cuts",
    "encode": "_state/latents",
}
#: Of these nothing is left when the job has ended.
_LEFT = {"recaption": "_state/captions", "shard": "_state/cuts"}


class JobRecord:
    """The record of the job that this process runs."""

    def __init__(
        self, dataset: Dataset, command: str, config: Any, before: Mapping[str, int], to_do: Mapping[str, int]
    ) -> None:
        """`before`: what earlier runs did of the whole. `to_do`: of each stage, how much there is for this one."""
        from curate.dataset import config_hash

        go_on = command_line(command, config)
        self._dataset = dataset
        # The same command again is the same job, which goes on.
        self._name = f"{command}-{config_hash(go_on)[:8]}.json"
        self._told: dict[str, Any] = {"command": command, "go_on": go_on, "before": dict(before)}
        self._told |= {"to_do": dict(to_do), "began_at": None, "stages": [], "error": None}

    def __enter__(self) -> JobRecord:
        self._write()
        # By the clock of the store, with which the times of the other files are compared.
        began_at = modified(self._dataset, self._name)
        self._told["began_at"] = None if began_at is None else began_at.isoformat()
        self._write()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if error is None:
            self._clear()
        else:
            self._told["error"] = _line(getattr(error, "cause", None) or error)  # what a worker of Ray raised
            self._write()

    def beat(self, states: Sequence[State]) -> None:
        """The job lives, and its stages stand so."""
        self._told["stages"] = [
            {
                "stage": state.stage,
                "unit": state.unit,
                "total": state.total,
                "done": state.done,
                "counts": state.shown(),
            }
            for state in states
        ]
        self._write()

    def _write(self) -> None:
        try:
            self._dataset.write_bytes(json.dumps(self._told, indent=1).encode(), FOLDER, self._name)
        except Exception as error:  # every driver of a store has errors of its own
            log.warning("the record of the job could not be written: %s: %s", type(error).__name__, error)

    def _clear(self) -> None:
        """Remove the record, and those that killed jobs of the same command left: the tables tell everything now."""
        try:
            now = modified(self._dataset, self._name)
            for name in self._dataset.files(FOLDER, ".json"):
                then = modified(self._dataset, name)
                is_dead = now and then and (now - then).total_seconds() > DEAD_S
                if name == self._name or (is_dead and name.rpartition("-")[0] == self._told["command"]):
                    self._dataset.remove(FOLDER, name)
        except Exception as error:
            log.warning("the record of the job could not be removed: %s: %s", type(error).__name__, error)


def _line(error: BaseException) -> str:
    """An error in one line; what a person can mend (BadInput) in its own words."""
    name = type(error).__name__
    told = str(error).strip().split("\n")[0]
    return told if name == "BadInput" and told else f"{name}: {told}".removesuffix(": ")


@dataclass(frozen=True)
class Job:
    """A job that has begun on a dataset and has not come to its end.

    Attributes:
        command: curate, recaption, shard or encode.
        state: running; interrupted if nothing was written for a minute; stopped if it ended by an error.
        go_on: the command that goes on with it; null where the job left no record.
        error: what stopped it.
        began_at, changed_at: when it began, and when it wrote something last, by the clock of the store.
        told_at: when it wrote its record last; null where it left none.
        before: what it found done, by outcome.
        to_do: of its stages by name, how much there was to do.
        stages: how its stages stood by then: stage, unit, total, done, counts.
    """

    command: str
    state: Literal["running", "interrupted", "stopped"]
    changed_at: datetime
    go_on: str | None = None
    error: str | None = None
    began_at: datetime | None = None
    told_at: datetime | None = None
    before: dict[str, int] = field(default_factory=dict)
    to_do: dict[str, int] = field(default_factory=dict)
    stages: list[dict[str, Any]] = field(default_factory=list)


def unfinished(dataset: Dataset, state: ListedState, now: datetime) -> list[Job]:
    """Jobs with a record, and those that left work in `_state/` but no record, as older versions did."""
    jobs = []
    for name, written in state.under(FOLDER, ".json").items():
        told = _record(dataset, name)
        if told is None:
            continue
        began_at = told.pop("began_at")
        work = state.newest(_WORK[told["command"]], ".parquet")
        changed_at = max(filter(None, [written, work if told["error"] is None else None]))
        state_now: Any = "stopped" if told["error"] else _alive(changed_at, now)
        jobs.append(
            Job(
                state=state_now,
                changed_at=changed_at,
                told_at=written,
                began_at=datetime.fromisoformat(began_at) if began_at else None,
                **told,
            )
        )
    known = {job.command for job in jobs}
    for command, folder in _LEFT.items():
        written_at = state.newest(folder, ".parquet")
        if command not in known and written_at is not None:
            jobs.append(Job(command, _alive(written_at, now), written_at))
    return sorted(jobs, key=lambda job: list(_WORK).index(job.command))


def _record(dataset: Dataset, name: str) -> dict[str, Any] | None:
    """What a record tells; None if its job has just ended, or if it is none that this version wrote."""
    try:
        told = json.loads(dataset.read_bytes(FOLDER, name))
    except FileNotFoundError:
        return None
    except ValueError as error:
        log.warning("%s: %r is no record of a job: %s", FOLDER, name, error)
        return None
    if not _is_record(told):
        log.warning("%s: %r is no record of a job that this version knows", FOLDER, name)
        return None
    return dict(told)


def _is_record(told: Any) -> bool:
    """Whether it is what `JobRecord` writes: a dataset may come from anywhere."""
    written = {each.name for each in fields(Job)} - {"state", "changed_at", "told_at"}
    if not isinstance(told, dict) or set(told) != written:
        return False
    command, go_on, began_at = told["command"], told["go_on"], told["began_at"]
    if not isinstance(command, str) or not isinstance(go_on, str):
        return False
    try:
        # What is offered to be typed is one command of ours, quoted as we quote.
        is_ours = shlex.join(shlex.split(go_on)) == go_on and go_on.split()[:2] == ["reelmill", command]
        has_zone = began_at is None or datetime.fromisoformat(began_at).tzinfo is not None
    except (ValueError, TypeError):
        return False
    stages = told["stages"]
    return (
        command in _WORK
        and is_ours
        and has_zone
        and isinstance(told["error"], str | None)
        and _are_counts(told["before"])
        and _are_counts(told["to_do"])
        and isinstance(stages, list)
        and all(_is_stage(stage) for stage in stages)
    )


def _is_stage(stage: Any) -> bool:
    kinds: dict[str, Any] = {"stage": str, "unit": str, "total": int | None, "done": int}
    return (
        isinstance(stage, dict)
        and set(stage) == {*kinds, "counts"}
        and all(isinstance(stage[name], kind) for name, kind in kinds.items())
        and _are_counts(stage["counts"])
    )


def _are_counts(found: Any) -> bool:
    return isinstance(found, dict) and all(isinstance(count, int) for count in found.values())


def _alive(changed_at: datetime, now: datetime) -> Literal["running", "interrupted"]:
    return "running" if (now - changed_at).total_seconds() < DEAD_S else "interrupted"


def modified(dataset: Dataset, name: str) -> datetime | None:
    """When a record was written last, by the clock of the store; null if it is gone or cannot be asked."""
    try:
        found: datetime = dataset.fs.modified(dataset.path(FOLDER, name))
    except Exception as error:  # as above
        log.warning("when %s was written cannot be told: %s: %s", name, type(error).__name__, error)
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def command_line(command: str, config: Any) -> str:
    """The command that a configuration came from: the options that differ from their defaults."""
    words = ["reelmill", command, *(f"--{key}={_text(value)}" for key, value in _changed(config, None, ""))]
    return " ".join(shlex.quote(word) for word in words)


def _changed(config: Any, default: Any, prefix: str) -> list[tuple[str, Any]]:
    """Option and value of what differs from `default`, an object of the same class; null: from the class's own."""
    found: list[tuple[str, Any]] = []
    for each in fields(config):
        value = getattr(config, each.name)
        usual = _usual(each) if default is None else getattr(default, each.name)
        if value == usual:
            continue
        if is_dataclass(value):
            same_class = usual if type(usual) is type(value) else None
            found += _changed(value, same_class, f"{prefix}{each.name}.")
        else:
            found.append((f"{prefix}{each.name}", value))
    return found


def _usual(each: Field[Any]) -> Any:
    return each.default if each.default_factory is MISSING else each.default_factory()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
