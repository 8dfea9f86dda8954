"""Who writes captions: the backends that a configuration can name, and how each is made ready.

captioner = load_captioner(CaptionerConfig("openai", openai=OpenAIConfig(model="m")))
results = captioner.caption(requests)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from recaption.openai.config import OpenAIConfig
from recaption.vlm.config import TransformersConfig
from recaption.vlm.vllm_config import VLLMConfig

if TYPE_CHECKING:
    from recaption.captioner import Captioner, CaptionerIdentity

#: Flag of every caption of the embedded captioner.
WORLD_ONLY = "world_captioner"


@dataclass(frozen=True)
class CocaBackend:
    """The CoCa captioner, in the worker itself.

    Attributes:
        model: a folder that `reelmill train-captioner` wrote, or `embedded` (knows only the demo's world; its
            captions carry the flag world_captioner).
    """

    model: str = "embedded"


@dataclass(frozen=True)
class CaptionerConfig:
    """Who writes the captions.

    Attributes:
        backend: coca (a small model in the worker), openai (any OpenAI-compatible server), transformers (any
            image-text-to-text model of the Hugging Face hub, in the worker) or vllm (vLLM engines on the GPU nodes
            of a Ray cluster).
        coca: the CoCa captioner.
        openai: the server.
        transformers: the model.
        vllm: the engines.
        gpus: GPUs per worker (a fraction is fine); 0 runs on the CPU.
        actors: workers, each with its own model or connections.
        batch_clips: clips handed to a worker at once.
    """

    backend: Literal["coca", "openai", "transformers", "vllm"] = "coca"
    coca: CocaBackend = field(default_factory=CocaBackend)
    openai: OpenAIConfig = field(default_factory=OpenAIConfig)
    transformers: TransformersConfig = field(default_factory=TransformersConfig)
    vllm: VLLMConfig = field(default_factory=VLLMConfig)
    gpus: float = 0.0
    actors: int = 1
    batch_clips: int = 16


def coca_identity(backend: CocaBackend) -> CaptionerIdentity:
    from recaption.captioner import CaptionerIdentity
    from recaption.coca.folder import model_name

    flags = (WORLD_ONLY,) if backend.model == "embedded" else ()
    return CaptionerIdentity("coca", model_name(coca_folder(backend)), flags=flags)


def coca_folder(backend: CocaBackend) -> str:
    if backend.model != "embedded":
        return backend.model
    from pipelines.demo.weights import embedded

    return str(embedded("coca"))


def load_captioner(config: CaptionerConfig) -> Captioner:
    """The captioner, ready to work; called once per worker, which gets its share of rate limits and budget."""
    if config.backend == "openai":
        from recaption.openai.server import OpenAICaptioner

        return OpenAICaptioner(config.openai.share(config.actors))
    if config.backend == "transformers":
        from recaption.vlm.captioner import TransformersCaptioner

        return TransformersCaptioner(config.transformers, device="cuda" if config.gpus else "cpu")
    from recaption.coca.captioner import CocaCaptioner

    return CocaCaptioner(coca_folder(config.coca), device="cuda" if config.gpus else "cpu")


def at_once(config: CaptionerConfig) -> int:
    """Captions that are being made at any one time, as far as their latencies overlap."""
    if config.backend == "openai":
        return config.actors * config.openai.in_flight
    if config.backend == "vllm":
        return config.vllm.engines * config.vllm.batch_requests
    return config.actors


def threads(config: CaptionerConfig, kinds: int) -> int:
    """Batches that one worker asks for at once. A server is kept busy only if a batch can wait for its slowest
    answer while the next ones are under way; models in the worker compute one batch at a time."""
    if config.backend != "openai":
        return 1
    return max(2, -(-2 * config.openai.in_flight // (config.batch_clips * kinds)))
