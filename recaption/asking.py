"""Asks a captioner for planned captions and turns what comes back into rows, with the second tries that help.

    rows = ask(captioner, [Job(plan, frames, times_s), ...], texts, run_id)        # one row per job

Captions made from others (merged, rewrite) wait for those. An answer that fell into a loop is asked for once more
with another seed and a higher temperature, since the same ones would only repeat it. JSON that does not fit is sent
back once to be corrected; where there is no whole object to correct, the frames are shown once more instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from recaption.captioner import Captioner, CaptionRequest, CaptionResult
from recaption.prompts import Prompt
from recaption.rows import Plan, caption_row
from recaption.structured import SCHEMA, has_object, repair_prompt

SECOND_TEMPERATURE = 0.7
NO_FRAMES = np.zeros((0, 1, 1, 3), np.uint8)


@dataclass(frozen=True, eq=False)
class Job:
    """A planned caption with what it needs.

    Attributes:
        plan: what is asked.
        frames: (T, H, W, 3) uint8 RGB; T = 0 for captions made from text.
        times_s: PTS of the frames in seconds of the source.
        error: why there are no frames, where there should be some.
        tries: answers that fell into a loop in earlier runs; this one starts where they left off.
    """

    plan: Plan
    frames: np.ndarray = field(default_factory=lambda: NO_FRAMES)
    times_s: tuple[float, ...] = ()
    error: str | None = None
    tries: int = 0


def ask(
    captioner: Captioner, jobs: Sequence[Job], texts: Mapping[str, str], run_id: str
) -> list[dict[str, Any]]:
    """One row of the captions table per job, in the order of `jobs`.

    `texts`: caption_id -> text of captions that were made before and that a job is made from.
    """
    rows: dict[str, dict[str, Any]] = {}
    waiting = list(jobs)
    while waiting:
        to_come = {job.plan.caption_id for job in waiting}
        ready = [job for job in waiting if not to_come & set(job.plan.parents)]
        waiting = [job for job in waiting if to_come & set(job.plan.parents)]
        made = {key: row["text"] for key, row in rows.items() if row["text"]}
        for row in _round(captioner, ready, {**texts, **made}, run_id):
            rows[row["caption_id"]] = row
    return [rows[job.plan.caption_id] for job in jobs]


def _round(
    captioner: Captioner, jobs: list[Job], texts: Mapping[str, str], run_id: str
) -> list[dict[str, Any]]:
    """Rows of jobs whose parents are done."""
    first = _answers(captioner, [first_request(job, texts) for job in jobs])
    rows = {key: first_row(job, request, result, run_id) for key, (job, request, result) in first.items()}
    again = [
        (job, rows[job.plan.caption_id]) for job in jobs if may_go_better(job, rows[job.plan.caption_id])
    ]
    second = _answers(captioner, [second_request(job, row, texts) for job, row in again])
    for key, (job, request, result) in second.items():
        rows[key] = second_row(job, rows[key], request, result, run_id)
    return list(rows.values())


Asked = CaptionRequest | str


def _answers(
    captioner: Captioner, asked: list[tuple[Job, Asked]]
) -> dict[str, tuple[Job, Asked, CaptionResult]]:
    """caption_id -> what was asked and what came; requests that could not be made are answered with the reason."""
    requests = [request for _, request in asked if isinstance(request, CaptionRequest)]
    results = {result.key: result for result in captioner.caption(requests)} if requests else {}
    found = {}
    for job, request in asked:
        why = request if isinstance(request, str) else "the captioner returned no result for this clip"
        result = results.get(job.plan.key) if isinstance(request, CaptionRequest) else None
        found[job.plan.caption_id] = job, request, result or failure(job, why)
    return found


def failure(job: Job, why: str) -> CaptionResult:
    """The result of a job that got no answer."""
    clip_id, kind, window = job.plan.key
    return CaptionResult(clip_id, kind, "error", error=why, window=window)


def first_request(job: Job, texts: Mapping[str, str]) -> tuple[Job, Asked]:
    """What a captioner is asked for a job, or why it cannot be asked."""
    plan = job.plan
    missing = [parent for parent in plan.parents if parent not in texts]
    if missing:
        return job, (
            f"{len(missing)} of the {len(plan.parents)} captions that this one is made from have no text "
            f"({', '.join(missing[:3])})"
        )
    if job.error is not None:
        return job, job.error
    if not plan.parents and not len(job.frames):  # a captioner without pictures would make something up
        return job, f"there are no frames for this caption of kind {plan.kind}"
    parents = [texts[parent] for parent in plan.parents]
    request = CaptionRequest(
        clip_id=plan.clip.clip_id,
        kind=plan.kind,
        frames=job.frames,
        frame_times_s=job.times_s,
        prompt=_prompt(plan, parents, len(job.frames)).text,
        seed=plan.seed,
        window=plan.window,
        schema=SCHEMA if plan.kind == "structured" else None,
        lang=plan.lang,
    )
    if job.tries and "temperature" in plan.identity.sampling:
        request = _hotter(job, request, job.tries)
    return job, request


def _prompt(plan: Plan, parents: Sequence[str], n_frames: int) -> Prompt:
    """The plan's prompt with what was not known when it was planned."""
    if parents:
        return plan.prompt.with_captions(parents)
    return plan.prompt.with_frames(n_frames) if plan.keyframes else plan.prompt


def _hotter(job: Job, request: CaptionRequest, tries: int) -> CaptionRequest:
    """The request with a seed that was not tried yet, and a temperature at which seeds matter."""
    temperature = min(1.5, max(SECOND_TEMPERATURE, job.plan.temperature + 0.3))
    return replace(request, seed=job.plan.seed + tries, temperature=temperature)


def may_go_better(job: Job, row: dict[str, Any]) -> bool:
    """Whether a second request could mend what the first brought."""
    samples = "temperature" in job.plan.identity.sampling  # a greedy captioner without one would say the same
    return repairable(row) or (row["status"] in ("repetitive", "bad_json") and samples)


def repairable(row: dict[str, Any]) -> bool:
    """Whether the answer is an object with faults: one that was cut off could only be completed by invention."""
    whole = row["finish_reason"] != "length" and has_object(row["text_raw"] or "")
    return row["status"] == "bad_json" and whole


def second_request(job: Job, row: dict[str, Any], texts: Mapping[str, str]) -> tuple[Job, Asked]:
    """What is asked after an answer that fell into a loop or is no JSON."""
    _, request = first_request(job, texts)
    if isinstance(request, str):
        return job, request
    if repairable(row):
        prompt = repair_prompt(row["text_raw"], row["error"])
        return job, replace(request, prompt=prompt, frames=NO_FRAMES, frame_times_s=())
    return job, _hotter(job, request, job.tries + 1)


def first_row(job: Job, request: Asked, result: CaptionResult, run_id: str) -> dict[str, Any]:
    """The row of a first answer."""
    times = list(job.times_s)
    if isinstance(request, str):
        return caption_row(job.plan, result, frame_times_s=times, run_id=run_id)
    prompt = Prompt(job.plan.prompt.prompt_id, request.prompt)
    used: dict[str, Any] = {"seed": request.seed, "temperature": request.temperature}
    return caption_row(job.plan, result, frame_times_s=times, run_id=run_id, prompt=prompt, **used) | {
        "retries": job.tries + result.retries
    }


def second_row(
    job: Job, first: dict[str, Any], request: Asked, result: CaptionResult, run_id: str
) -> dict[str, Any]:
    """The row of a second answer, or the first one's if the second is no better; effort is summed."""
    used: dict[str, Any] = (
        {} if isinstance(request, str) else {"seed": request.seed, "temperature": request.temperature}
    )
    row = caption_row(job.plan, result, frame_times_s=list(job.times_s), run_id=run_id, **used)
    row["prompt_hash"] = first["prompt_hash"]
    if row["text"] is None:
        why = f"second try: {row['error'] or row['status']}"
        row = first | {"error": f"{first['error']}; {why}" if first["error"] else why}
    else:
        row["flags"] = [*row["flags"], "repaired" if repairable(first) else "second_try"]
    effort = {
        name: _sum(first[name], getattr(result, name))
        for name in ("tokens_in", "tokens_out", "latency_ms", "cost_usd")
    }
    return row | effort | {"retries": first["retries"] + result.retries + 1}


def _sum(*values: float | None) -> float | None:
    """Null if nothing is known, else the sum of what is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None
