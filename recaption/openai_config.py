"""Settings of the `openai` backend, apart from its code: `--help` reads this without loading an HTTP client."""

from __future__ import annotations

from dataclasses import dataclass

from curate.errors import BadInput
from recaption.captioner import CaptionerIdentity


@dataclass(frozen=True)
class OpenAIConfig:
    """Where the server is and how it is asked. The key comes from REELMILL_API_KEY or OPENAI_API_KEY alone.

    Attributes:
        base_url: address up to and with /v1.
        model: the model's name, as the server knows it.
        revision: revision of that model; part of a caption's identity.
        in_flight: most requests at once.
        timeout_s: longest wait for one answer, in seconds.
        retries: most tries after the first.
        backoff_s: pause before the first retry; doubles each time, with jitter.
        backoff_max_s: longest pause, also where Retry-After asks for more.
        max_tokens: longest answer in tokens.
        temperature: of the sampling; 0 takes the likeliest token.
        frames: frames sent of each clip.
        frame_height: largest height of a frame in pixels; smaller pictures stay as they are.
        jpeg_quality: of the frames sent, 1 to 100.
    """

    base_url: str = "http://127.0.0.1:8000/v1"
    model: str = ""
    revision: str | None = None
    in_flight: int = 16
    timeout_s: float = 120.0
    retries: int = 5
    backoff_s: float = 0.5
    backoff_max_s: float = 60.0
    max_tokens: int = 512
    temperature: float = 0.0
    frames: int = 8
    frame_height: int = 480
    jpeg_quality: int = 90

    def identity(self) -> CaptionerIdentity:
        """What a caption_id knows of this backend. The address does not change the words, so it is not in it."""
        if not self.model:
            raise BadInput("--captioner.openai.model must name the model that the server offers.")
        sampling = {
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "jpeg_quality": self.jpeg_quality,
        }
        return CaptionerIdentity("openai", self.model, self.revision, sampling)
