"""Settings of the `vllm` backend, apart from its code: `--help` reads this without loading Ray or vLLM."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from curate.errors import BadInput
from recaption.captioner import CaptionerIdentity
from recaption.vlm.ranges import at_least_one, not_negative


@dataclass(frozen=True)
class VLLMConfig:
    """vLLM engines inside Ray Data's LLM processor, one per GPU (or group of GPUs).

    Attributes:
        model: a name on the hub or a folder that every GPU node sees.
        revision: revision of that model; part of a caption's identity.
        max_tokens: longest answer in tokens.
        temperature: of the sampling; 0 takes the likeliest token.
        frames: frames sent of each clip.
        frame_height: largest height of a frame in pixels; smaller pictures stay as they are.
        jpeg_quality: of the frames sent, 1 to 100.
        engines: vLLM engines at once.
        accelerator_type: kind of GPU, as Ray names it (H100, ...); null takes any.
        tensor_parallel: GPUs that one engine spreads over.
        batch_requests: requests handed to an engine at once.
        engine: further arguments of vLLM's engine, such as {max_model_len: 16384}.
        rounds: how often what is missing is asked for again after an engine died; what was done stays done.
    """

    model: str = ""
    revision: str | None = None
    max_tokens: int = 512
    temperature: float = 0.0
    frames: int = 8
    frame_height: int = 480
    jpeg_quality: int = 90
    engines: int = 1
    accelerator_type: str | None = None
    tensor_parallel: int = 1
    batch_requests: int = 64
    engine: dict[str, Any] = field(default_factory=dict)
    rounds: int = 3

    def __post_init__(self) -> None:
        at_least_one(
            "vllm",
            max_tokens=self.max_tokens,
            frames=self.frames,
            frame_height=self.frame_height,
            engines=self.engines,
            tensor_parallel=self.tensor_parallel,
            batch_requests=self.batch_requests,
            rounds=self.rounds,
        )
        not_negative("vllm", temperature=self.temperature)
        if not 1 <= self.jpeg_quality <= 100:
            raise BadInput(f"vllm.jpeg_quality={self.jpeg_quality} must be from 1 to 100.")

    def identity(self) -> CaptionerIdentity:
        """What a caption_id knows of this backend: not the number of engines, which changes no words."""
        if not self.model:
            raise BadInput("--captioner.vllm.model must name a model: a name on the hub, or a folder.")
        sampling = {
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "jpeg_quality": self.jpeg_quality,
        }
        return CaptionerIdentity("vllm", self.model, self.revision, sampling)
