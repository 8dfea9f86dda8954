"""The stages around the engines of the `vllm` backend: what they are asked, and what becomes of their answers.

ReadFrames -> MakeRequests -> (Ray Data's LLM processor) -> ReadAnswers -> CommitCaptions
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa

from curate.dataset import Dataset
from curate.stage import Resources
from curate.tables import CAPTIONS
from pipelines.recaption_stages import jobs_of, plans_wanted
from recaption.asking import (
    Job,
    failure,
    first_request,
    first_row,
    may_go_better,
    second_request,
    second_row,
)
from recaption.captioner import CaptionRequest, CaptionResult
from recaption.plan import Recipe
from recaption.table import commit
from recaption.vlm.vllm_config import VLLMConfig

#: Ray Data's name for the column with a row's error.
ERROR = "__inference_error__"
REQUESTS = pa.schema(
    [
        ("job", pa.string()),
        ("pictures", pa.list_(pa.string())),
        ("prompt_text", pa.string()),
        ("sampling", pa.string()),
    ]
)
ANSWERS = ("job", "generated_text", "num_input_tokens", "num_generated_tokens", "time_taken_llm", ERROR)
#: again: whether the caption is asked for a second time, since this answer may go better.
ANSWERED = CAPTIONS.append(pa.field("again", pa.bool_()))


class MakeRequests:
    """Rows of FRAMES to one row of REQUESTS per caption; what cannot be asked is committed with its error."""

    output = REQUESTS

    def __init__(
        self, config: VLLMConfig, recipe: Recipe, dataset_uri: str, run_id: str, firsts: Mapping[str, dict]
    ) -> None:
        """`firsts`: caption_id -> row of a first answer that asks for a second try."""
        self.config, self.recipe, self.run_id = config, recipe, run_id
        self.dataset_uri, self.firsts = dataset_uri, dict(firsts)
        self.resources = Resources()

    def setup(self) -> None:
        self._dataset = Dataset(self.dataset_uri)

    def __call__(self, rows: list[dict]) -> list[dict]:
        asked, failed = [], []
        for row in rows:
            given = dict(row["texts"])
            for job in jobs_of(self.recipe, row):
                first = self.firsts.get(job.plan.caption_id)
                _, request = second_request(job, first, given) if first else first_request(job, given)
                if isinstance(request, str):
                    failed.append(first_row(job, request, failure(job, request), self.run_id))
                else:
                    asked.append(self._row(job, request, row, first))
        if failed:
            commit(self._dataset, failed)
        return asked

    def _row(self, job: Job, request: CaptionRequest, row: dict, first: dict | None) -> dict:
        from recaption.openai.body import jpeg_url

        big = ("views", "texts", "wanted", "read_bytes")
        clip = {name: value for name, value in row.items() if name not in big}
        told = {
            "clip": clip | {"wanted": [job.plan.caption_id], "texts": {}, "tries": {}},
            "tries": job.tries,
            "times_s": list(job.times_s),
            "request": {f: getattr(request, f) for f in ("prompt", "seed", "temperature")},
            "first": None if first is None else first | {"created_at": None},
        }
        sampling: dict[str, Any] = {
            "temperature": job.plan.temperature if request.temperature is None else request.temperature,
            "max_tokens": self.config.max_tokens,
            "seed": request.seed,
        }
        if request.schema:
            sampling["structured_outputs"] = {"json": json.dumps(request.schema)}
        return {
            "job": json.dumps(told),
            "pictures": [jpeg_url(frame, self.config.jpeg_quality) for frame in request.frames],
            "prompt_text": request.prompt,
            "sampling": json.dumps(sampling),
        }


class ReadAnswers:
    """What the processor returned, as rows of ANSWERED."""

    output = ANSWERED

    def __init__(self, config: VLLMConfig, recipe: Recipe, run_id: str) -> None:
        self.config, self.recipe, self.run_id = config, recipe, run_id
        self.resources = Resources()

    def setup(self) -> None:
        pass

    def __call__(self, rows: list[dict]) -> list[dict]:
        return [self._row(row) for row in rows]

    def _row(self, row: dict) -> dict:
        told = json.loads(row["job"])
        (plan,) = plans_wanted(self.recipe, told["clip"])
        job = Job(plan, times_s=tuple(told["times_s"]), tries=told["tries"])
        request = CaptionRequest(*plan.key[:2], frames=job.frames, frame_times_s=(), window=plan.window)
        request = replace(request, **told["request"])
        result = self._result(job, row)
        first = told["first"]
        if first is None:
            made = first_row(job, request, result, self.run_id)
            return made | {"again": may_go_better(job, made)}
        from datetime import UTC, datetime

        made = second_row(job, first, request, result, self.run_id)
        return made | {"created_at": datetime.now(UTC), "again": False}

    def _result(self, job: Job, row: dict) -> CaptionResult:
        if row[ERROR]:
            return failure(job, f"vLLM: {row[ERROR]}")
        text, tokens = row["generated_text"], row["num_generated_tokens"]
        if not (text or "").strip():
            return failure(job, f"vLLM: an empty answer of {tokens} tokens")
        cut = tokens >= self.config.max_tokens  # Ray Data does not hand on why vLLM stopped
        clip_id, kind, window = job.plan.key
        return CaptionResult(
            clip_id,
            kind,
            "truncated" if cut else "ok",
            text,
            finish_reason="length" if cut else "stop",
            tokens_in=row["num_input_tokens"],
            tokens_out=tokens,
            latency_ms=row["time_taken_llm"] * 1000,
            window=window,
        )
