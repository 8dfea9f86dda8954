"""The `transformers` backend: a vision-language model in the worker itself.

    captioner = TransformersCaptioner(TransformersConfig(model="hf:Qwen/Qwen2.5-VL-7B-Instruct"), device="cuda")
    results = captioner.caption(requests)

Any image-text-to-text model that takes video will do: Qwen2.5-VL, Qwen3-VL, LLaVA-OneVision, SmolVLM2. What is said
of a request depends on the request and its seed, and not on its neighbours in a batch. There is no guided decoding:
`schema` is left to the prompt.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator
from typing import Any

import torch
from jinja2 import TemplateError
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from recaption.captioner import CaptionerIdentity, CaptionRequest, CaptionResult
from recaption.vlm.config import TransformersConfig
from recaption.vlm.inputs import Row, collated, tokenized
from recaption.vlm.model import end_ids, load

log = logging.getLogger(__name__)

LEAST_FILLED = 0.75  # prompts of a batch are at least this long beside its longest: the rest would be padding
#: What a request can do wrong in a processor, a chat template or a model.
ROW_ERRORS = (
    ValueError,
    TypeError,
    LookupError,
    RuntimeError,
    MemoryError,
    AttributeError,
    ArithmeticError,
    TemplateError,
)


class TransformersCaptioner:
    """Captions from a model of the hub or of a folder; bfloat16 on a GPU, float32 on a CPU."""

    def __init__(self, config: TransformersConfig, *, device: str = "cpu") -> None:
        """Load the model. Raises BadInput if `config.model` is none that looks at video and answers in words."""
        identity = config.identity()  # names a folder that holds no model before its files are tried
        dtype = torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16
        processor, model = load(config.place, config.revision, dtype)
        self._use(config, identity, processor, model.to(device).eval())

    @classmethod
    def of(cls, config: TransformersConfig, processor: Any, model: Any) -> TransformersCaptioner:
        """A captioner around a model in memory, such as one in training."""
        captioner = cls.__new__(cls)
        captioner._use(config, config.identity(), processor, model)
        return captioner

    def _use(
        self, config: TransformersConfig, identity: CaptionerIdentity, processor: Any, model: Any
    ) -> None:
        self.config, self.identity = config, identity
        self._processor, self._model = processor, model
        self._device, self._dtype = torch.device(model.device), model.dtype
        self._tokenizer = self._processor.tokenizer
        self._ends = end_ids(model, self._tokenizer)
        pad = self._tokenizer.pad_token_id
        self._pad_id: int = self._ends[0] if pad is None else pad
        # The checkpoint's own sampling habits stay out: what the identity does not name must not choose words.
        self._model.generation_config = GenerationConfig(eos_token_id=self._ends, pad_token_id=self._pad_id)
        self._budget = config.batch_tokens

    def caption(self, requests: list[CaptionRequest]) -> list[CaptionResult]:
        """One result per request, batch by batch; requests of like size are captioned together."""
        return [result for results in self._batches(requests) for result in results]

    def _batches(self, requests: list[CaptionRequest]) -> Iterator[list[CaptionResult]]:
        """Results as batches fill up: no more than one batch is held as tensors."""
        batch: list[Row] = []
        read_s = 0.0  # what its rows took to become tensors
        for request in sorted(requests, key=lambda request: (request.frames.shape, len(request.prompt))):
            began = time.monotonic()
            try:
                row = Row(request, tokenized(request, self._processor))
                self._check_room(row)
                took_s = time.monotonic() - began
            except ROW_ERRORS as error:
                yield [_failed(request, error, time.monotonic() - began)]
                continue
            if batch and not self._fits(row, batch):
                yield self._answers(batch, read_s / len(batch))
                batch, read_s = [], 0.0
            batch.append(row)
            read_s += took_s
        if batch:
            yield self._answers(batch, read_s / len(batch))

    def _check_room(self, row: Row) -> None:
        room = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        if room is not None and row.n_tokens + self.config.max_tokens > room:
            raise ValueError(
                f"the prompt has {row.n_tokens} tokens; with an answer of max_tokens={self.config.max_tokens} that "
                f"is more than the {room} of the model. Use fewer or smaller frames, or a shorter prompt."
            )

    def _cost(self, rows: list[Row]) -> int:
        """Tokens that a batch holds in the end."""
        return len(rows) * (max(row.n_tokens for row in rows) + self.config.max_tokens)

    def _fits(self, row: Row, batch: list[Row]) -> bool:
        together = [*batch, row]
        lengths = [other.n_tokens for other in together]
        return (
            row.layout == batch[0].layout
            and len(together) <= self.config.batch_clips
            and min(lengths) >= LEAST_FILLED * max(lengths)
            and self._cost(together) <= self._budget
        )

    def _answers(self, rows: list[Row], each_s: float, retries: int = 0) -> list[CaptionResult]:
        """One result per row. A batch that fails is halved, until the row that is to blame is alone.

        `each_s`: seconds that each row has taken so far. What a batch takes is shared by its rows, so that the
        latencies of all captions add up to the time of the worker.
        """
        failure: BaseException
        began = time.monotonic()
        try:
            return self._generated(rows, each_s, retries)
        except ROW_ERRORS as error:
            failure = error.with_traceback(None)  # which would keep the tensors of the failed batch
        if isinstance(failure, torch.OutOfMemoryError):
            self._budget = max(1, min(self._budget, self._cost(rows) // 2))  # later batches begin smaller
            log.warning("out of memory with %d clips: %d tokens a batch from now on", len(rows), self._budget)
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
        each_s += (time.monotonic() - began) / len(rows)
        if len(rows) == 1:
            return [_failed(rows[0].request, failure, each_s, retries)]
        half = (len(rows) + 1) // 2
        return [r for part in (rows[:half], rows[half:]) for r in self._answers(part, each_s, retries + 1)]

    @torch.inference_mode()
    def _generated(self, rows: list[Row], each_s: float, retries: int) -> list[CaptionResult]:
        began = time.monotonic()
        inputs = {
            name: value.to(self._device, self._dtype if name.startswith("pixel_values") else value.dtype)
            for name, value in collated(rows, self._pad_id).items()
        }
        noise = OwnNoise([row.request for row in rows], self.config.temperature, self._device)
        sequences = self._model.generate(
            **inputs,
            max_new_tokens=self.config.max_tokens,
            do_sample=False,
            logits_processor=LogitsProcessorList([noise]),
        )
        answers = sequences[:, inputs["input_ids"].shape[1] :].tolist()
        each_s += (time.monotonic() - began) / len(rows)
        return [self._result(row, ids, each_s, retries) for row, ids in zip(rows, answers, strict=True)]

    def _result(self, row: Row, ids: list[int], each_s: float, retries: int) -> CaptionResult:
        end = next((place for place, token in enumerate(ids) if token in self._ends), None)
        text = self._tokenizer.decode(ids[:end], skip_special_tokens=True)
        finish = "length" if end is None else "stop"
        empty = not text.strip()
        return CaptionResult(
            row.request.clip_id,
            row.request.kind,
            "error" if empty else "truncated" if end is None else "ok",
            text_raw=text,
            error=f"empty answer (finish_reason {finish!r})" if empty else None,
            finish_reason=finish,
            tokens_in=row.n_tokens,
            tokens_out=len(ids) if end is None else end + 1,
            latency_ms=each_s * 1000,
            retries=retries,
            window=row.request.window,
        )


class OwnNoise(LogitsProcessor):
    """Gumbel noise from each request's own seed: the largest of logits / temperature + noise is a fair sample.

    So greedy decoding samples (the Gumbel-max trick), and a request meets the same noise in any batch. Requests at
    temperature 0 are left as they are.
    """

    def __init__(self, requests: list[CaptionRequest], temperature: float, device: torch.device) -> None:
        wanted = [temperature if r.temperature is None else r.temperature for r in requests]
        self._rows = [
            (place, wanted[place], torch.Generator(device).manual_seed(own_seed(request)))
            for place, request in enumerate(requests)
            if wanted[place] > 0
        ]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """(N, V) scores of the next token, with noise where the request samples."""
        noisy = scores.clone()
        for place, temperature, generator in self._rows:
            exponential = torch.empty_like(scores[place]).exponential_(generator=generator)
            noisy[place] = scores[place] / temperature - exponential.log()
        return noisy


def own_seed(request: CaptionRequest) -> int:
    """A seed from `request.seed` and what the request is about: the clips of a run must not share their luck."""
    said = "\0".join(map(str, (request.seed, *request.key)))
    return int.from_bytes(hashlib.blake2b(said.encode(), digest_size=8).digest(), "little", signed=True)


def _failed(request: CaptionRequest, error: BaseException, took_s: float, retries: int = 0) -> CaptionResult:
    why = f"{type(error).__name__}: {error}"
    log.warning("clip %s: %s", request.clip_id, why)
    return CaptionResult(
        request.clip_id,
        request.kind,
        "error",
        error=why,
        latency_ms=took_s * 1000,
        retries=retries,
        window=request.window,
    )
