"""Requests with numbers written into pictures and prompts, a captioner that asks the fault server, what is right.

said(captioner(server, in_flight=4).caption(requests(range(10)))) == right(range(10))
"""

from __future__ import annotations

from fault_server import FaultServer
from numbered_frames import numbered_frames

from recaption.captioner import CaptionRequest, CaptionResult
from recaption.openai.config import OpenAIConfig
from recaption.openai.server import OpenAICaptioner


def captioner(server: FaultServer, **changes: object) -> OpenAICaptioner:
    quick = {"model": "tiny", "timeout_s": 5.0, "retries": 2, "backoff_s": 0.01}
    return OpenAICaptioner(OpenAIConfig(**{"base_url": server.url, **quick, **changes}))  # type: ignore[arg-type]


def requests(numbers: range) -> list[CaptionRequest]:
    return [
        CaptionRequest(f"clip-{n}", "dense", numbered_frames([n]), (0.0,), prompt=f"see {n}") for n in numbers
    ]


def said(results: list[CaptionResult]) -> dict[str, str | None]:
    return {result.clip_id: result.text_raw for result in results}


def right(numbers: range) -> dict[str, str | None]:
    return {f"clip-{n}": f"see {n} frames {n}" for n in numbers}
