"""How far the jobs on a dataset are, from the dataset alone: from any machine, while they run and after a kill.

reelmill status --dataset s3://bucket/films
reelmill status --dataset films --watch 5                      # until Ctrl-C
reelmill status --dataset films --format json | jq '.stages[] | select(.waiting > 0)'
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from curate.errors import BadInput

if TYPE_CHECKING:
    from pipelines.status_counts import StageStatus
    from pipelines.status_job import Job

MOST_REASONS = 4
#: The errors of a job that somebody ended (128 + 15 is the exit code of SIGTERM), as a person says it.
_BY = {"KeyboardInterrupt": " by Ctrl-C", "SystemExit: 15": " by SIGTERM", "SystemExit: 143": " by SIGTERM"}


@dataclass(frozen=True)
class StatusConfig:
    """Tell how far each stage of a dataset is, and which jobs run on it or were interrupted.

    Counts what is in the tables and what unfinished jobs have committed; the exit code is 0 whatever it finds.

    Attributes:
        dataset: the dataset folder or URI.
        format: table for a person; json for a script, with all reasons and times.
        watch: seconds after which to look again, until Ctrl-C, even if nothing is there yet or the store does not
            answer; null looks once.

    Example:
        reelmill status --dataset s3://bucket/films --watch 5
    """

    dataset: str
    format: Literal["table", "json"] = "table"
    watch: float | None = None

    def __post_init__(self) -> None:
        if self.watch is not None and not self.watch > 0:
            raise BadInput(f"--watch={self.watch} must be above 0, in seconds.")


class NoDataset(BadInput):
    """Neither tables nor work under way: no job has begun there, or the address is wrong."""


@dataclass(frozen=True)
class Status:
    """What was found.

    Attributes:
        dataset: its URI.
        looked_at: when.
        stages: each stage that has begun.
        jobs: each job that has not come to its end.
    """

    dataset: str
    looked_at: datetime
    stages: list[StageStatus]
    jobs: list[Job]


def status(config: StatusConfig) -> None:
    """Print the status, once or again and again."""
    if config.watch is None:
        found = look(config.dataset)
        print(text(found) if config.format == "table" else in_json(found, indent=1))
        return
    from pipelines.status_watch import watch

    watch(config)


def look(uri: str) -> Status:
    """Count a dataset. Raises NoDataset where there is none."""
    from curate.dataset import Dataset
    from pipelines.status_counts import stages
    from pipelines.status_job import unfinished
    from pipelines.status_state import State

    dataset, now = Dataset(uri), datetime.now(UTC)
    state = State(dataset)
    jobs = unfinished(dataset, state, now)
    found = stages(dataset, state, jobs)
    if not found and not jobs:
        raise NoDataset(
            f"{uri} holds no dataset: neither tables nor work under way. Check the address, or begin with "
            f"`reelmill curate --input FOLDER --dataset {uri}`."
        )
    return Status(uri, now, found, jobs)


def in_json(found: Status, indent: int | None = None) -> str:
    """All of it, in one line unless `indent` is given."""
    return json.dumps(asdict(found), default=_in_iso, indent=indent)


def _in_iso(value: Any) -> str:
    assert isinstance(value, datetime)
    return value.isoformat(timespec="seconds")


def text(found: Status) -> str:
    """A table of the stages, and a paragraph for each job."""
    head = ("stage", "unit", "done", "failed", "waiting", "changed", "")
    rows = [head, *(_row(stage, found.looked_at) for stage in found.stages)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    right = {2, 3, 4}
    lines = [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    if not found.stages:
        lines = ["nothing is done yet"]
    lines += _hints(found.stages)
    jobs = [line for job in found.jobs for line in ["", *_job(job, found.looked_at)]]
    return "\n".join(map(printable, [*lines, *(jobs or ["", "no job is unfinished"])]))


def printable(line: str) -> str:
    """A line that stays one: a dataset may come from anywhere, and no sign in its records moves the cursor."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in line)


def _row(stage: StageStatus, now: datetime) -> tuple[str, ...]:
    waiting = "?" if stage.waiting is None else f"{stage.waiting:,}"
    return (
        stage.stage,
        stage.unit,
        f"{stage.done:,}",
        f"{stage.failed:,}",
        waiting,
        _ago(stage.changed_at, now),
        _more(stage),
    )


def _more(stage: StageStatus) -> str:
    """What came of what is done: kept and rejected by filter, or the outcomes."""
    from curate.funnel import in_words

    if stage.kept is None:
        of_what = "captions " if stage.stage == "recaption" else ""
        told = of_what + ", ".join(f"{name} {count:,}" for name, count in stage.outcomes.items() if count)
        return f"{stage.rejected_since:,} rejected by now" if stage.rejected_since else told
    total = sum(stage.rejected.values())
    commonest = list(stage.rejected.items())[:MOST_REASONS]
    top = [f"{in_words(name)} {count:,}" for name, count in commonest]
    if rest := sum(list(stage.rejected.values())[MOST_REASONS:]):
        top.append(f"others {rest:,}")
    by_hand = f" ({stage.kept_by_hand:,} by hand)" if stage.kept_by_hand else ""
    of_reasons = f" ({', '.join(top)})" if top else ""
    return f"kept {stage.kept:,}{by_hand}, rejected {total:,}{of_reasons}"


def _hints(stages: list[StageStatus]) -> list[str]:
    """What people said or decided that what comes after does not follow yet, and what mends that."""
    from pipelines.stale import REMEDY

    lines = []
    if clips := sum(stage.waiting_by_hand or 0 for stage in stages):
        what = "1 clip waits" if clips == 1 else f"{clips:,} clips wait"
        lines.append(
            f"what people said of {what} for `reelmill overrule`, which decides by the rules in force"
        )
    if stale := [stage.stage for stage in stages if stage.rejected_since]:
        lines.append(f"rejected clips still lie where {' and '.join(stale)} put them; {REMEDY}")
    return ["", *lines] if lines else []


def _job(job: Job, now: datetime) -> list[str]:
    last = f"last sign of life {_ago(job.changed_at, now)}"
    words = {"running": f"is running, {last}", "interrupted": f"was interrupted, {last}"}
    error = job.error or ""
    why = _BY.get(error, f": {error.removesuffix('.')}")
    words["stopped"] = f"stopped {_ago(job.changed_at, now)}{why}"
    began = "" if job.began_at is None else f"; began {_ago(job.began_at, now)}"
    lines = [f"{job.command} {words[job.state]}{began}"]
    told = [stage for stage in job.stages if stage["done"]]
    if told and job.state != "stopped":  # the table above may know of later work
        lines.append(f"  as it told {_ago(job.told_at, now)}:")
    for stage in told:
        of = "" if stage["total"] is None else f"/{stage['total']:,}"
        counts = "".join(f", {name} {count:,}" for name, count in stage["counts"].items())
        lines.append(f"  {stage['stage']}: {stage['done']:,}{of} {stage['unit']}{counts}")
    if job.state != "running":
        lines.append(f"  go on with: {job.go_on or 'the same command again'}")
    return lines


def _ago(then: datetime | None, now: datetime) -> str:
    """`12 s ago`, `5 min ago`, `3 h ago`, `2 days ago`."""
    if then is None:
        return ""
    seconds = max(0.0, (now - then).total_seconds())
    for unit, size in (("days", 2 * 86_400), ("h", 2 * 3600), ("min", 120)):
        if seconds >= size:
            return f"{seconds // {'days': 86_400, 'h': 3600, 'min': 60}[unit]:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def main(argv: list[str] | None = None) -> int:
    from pipelines.cli import run_command

    return run_command(StatusConfig, status, argv, name="status")


if __name__ == "__main__":
    raise SystemExit(main())
