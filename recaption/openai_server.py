"""The `openai` backend: any server that speaks OpenAI's chat completions over HTTP (vLLM, SGLang, hosted ones).

    REELMILL_API_KEY=... reelmill recaption --dataset URI --captioner.backend=openai \\
        --captioner.openai.base_url=http://127.0.0.1:8000/v1 --captioner.openai.model=Qwen/Qwen2.5-VL-7B-Instruct

Frames travel as JPEG data URLs, in order, before the prompt. Requests of a batch are in flight together; what
fails in passing (429, 5xx, time-outs, broken connections, malformed answers) is tried again after a jittered,
growing pause, or the pause that the server asks for. What fails for good is a result with the full error text.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import random
import time
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import numpy as np

from recaption.captioner import CaptionRequest, CaptionResult
from recaption.openai_config import OpenAIConfig

# Each request in words is httpx's INFO; a run of a million clips does not want them.
logging.getLogger("httpx").setLevel(logging.WARNING)

KEY_VARIABLES = ("REELMILL_API_KEY", "OPENAI_API_KEY")


class _Passing(Exception):
    """A failure that another try may mend, with the seconds that the server asks to wait."""

    def __init__(self, message: str, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class OpenAICaptioner:
    """Captions from a server; one asyncio loop per batch, `in_flight` requests at once."""

    def __init__(self, config: OpenAIConfig) -> None:
        self.config = config
        self.identity = config.identity()

    def caption(self, requests: list[CaptionRequest]) -> list[CaptionResult]:
        """One result per request, in the order of completion."""
        return asyncio.run(self._all(requests))

    async def _all(self, requests: list[CaptionRequest]) -> list[CaptionResult]:
        key = _key()
        gate = asyncio.Semaphore(self.config.in_flight)
        limits = httpx.Limits(max_connections=self.config.in_flight)
        async with httpx.AsyncClient(
            base_url=self.config.base_url.rstrip("/") + "/",
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(self.config.timeout_s, pool=None),
            limits=limits,
        ) as client:

            async def one(request: CaptionRequest) -> CaptionResult:
                async with gate:
                    return await self._one(client, request)

            done = asyncio.as_completed([one(request) for request in requests])
            return [await result for result in done]

    async def _one(self, client: httpx.AsyncClient, request: CaptionRequest) -> CaptionResult:
        began = time.monotonic()
        # Seeded by the clip: pauses of many clips spread out, and a run can be repeated.
        jitter = random.Random(f"{request.clip_id}/{request.kind}")
        result = CaptionResult(request.clip_id, request.kind, "error")
        errors: list[str] = []
        tries = 0
        try:
            body = self._body(request)
            while tries <= self.config.retries:
                tries += 1
                try:
                    result = await self._ask(client, request, body)
                    break
                except _Passing as error:
                    errors.append(f"try {tries}: {error}")
                    if tries <= self.config.retries:
                        await asyncio.sleep(self._pause_s(tries, error.wait_s, jitter))
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, TypeError, RuntimeError) as error:
            errors.append(f"{type(error).__name__}: {error}")
        told = "\n".join([*errors, *filter(None, [result.error])]) if result.status == "error" else None
        return replace(
            result,
            error=_without_key(told),
            retries=max(0, tries - 1),
            latency_ms=(time.monotonic() - began) * 1000,
        )

    def _pause_s(self, tries: int, asked_s: float | None, jitter: random.Random) -> float:
        if asked_s is not None:
            # A little more than asked, and not all at the same moment.
            return min(self.config.backoff_max_s, asked_s) + jitter.random() * self.config.backoff_s
        return min(self.config.backoff_max_s, self.config.backoff_s * 2 ** (tries - 1)) * (
            0.5 + jitter.random()
        )

    def _body(self, request: CaptionRequest) -> dict[str, Any]:
        content: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": jpeg_url(frame, self.config.jpeg_quality)}}
            for frame in request.frames
        ]
        content.append({"type": "text", "text": request.prompt})
        return {
            "model": self.config.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": self.config.max_tokens,
            "temperature": self.config.temperature,
            "seed": request.seed,
        }

    async def _ask(
        self, client: httpx.AsyncClient, request: CaptionRequest, body: dict[str, Any]
    ) -> CaptionResult:
        """One try. Raises _Passing for what may go better next time."""
        try:
            response = await client.post("chat/completions", json=body)
        except httpx.UnsupportedProtocol:
            raise
        except httpx.TransportError as error:  # time-outs, refused and broken connections
            raise _Passing(f"{type(error).__name__}: {error}") from error
        if response.status_code in (408, 409, 425, 429) or response.status_code >= 500:
            raise _Passing(_told(response), retry_after_s(response.headers.get("retry-after")))
        if response.status_code != 200:
            return CaptionResult(request.clip_id, request.kind, "error", error=_told(response))
        try:
            answer = response.json()
            choice = answer["choices"][0]
            message, finish = choice["message"], choice.get("finish_reason")
            text, refusal = message.get("content"), message.get("refusal")
            usage = answer.get("usage") or {}
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise _Passing(
                f"malformed answer ({type(error).__name__}: {error}): {response.text[:2000]}"
            ) from error
        refused = bool(refusal) or finish == "content_filter"
        if not refused and (not isinstance(text, str) or not text.strip()):
            raise _Passing(f"empty answer (finish_reason {finish!r}): {response.text[:2000]}")
        return CaptionResult(
            request.clip_id,
            request.kind,
            "refused" if refused else "truncated" if finish == "length" else "ok",
            text_raw=text or refusal,
            finish_reason=finish,
            tokens_in=usage.get("prompt_tokens"),
            tokens_out=usage.get("completion_tokens"),
        )


def _key() -> str | None:
    return next((os.environ[name] for name in KEY_VARIABLES if os.environ.get(name)), None)


def _without_key(text: str | None) -> str | None:
    """`text` with the key blotted out: some servers repeat it in their answer to a wrong one."""
    key = _key()
    return text.replace(key, "***") if text and key else text


def _told(response: httpx.Response) -> str:
    """The status and what the server says about it, in full up to 4,000 characters."""
    return f"HTTP {response.status_code} {response.reason_phrase}: {response.text[:4000]}".strip()


def retry_after_s(header: str | None) -> float | None:
    """Seconds from a Retry-After header (seconds or an HTTP date); null if there is none that can be read."""
    if not header:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def jpeg_url(frame: np.ndarray, quality: int) -> str:
    """A frame (H, W, 3) uint8 RGB as a `data:image/jpeg;base64,...` URL."""
    import cv2

    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or 0 in frame.shape:
        raise ValueError(f"a frame must be (H, W, 3) uint8, not {frame.shape} {frame.dtype}")
    picture = np.ascontiguousarray(frame[..., ::-1])
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"
