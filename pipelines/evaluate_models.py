"""The models that `reelmill evaluate` measures: checkpoints with all that sampling needs, loaded one at a time.

for checkpoint in checkpoints_of(config):            # what cannot be used is told before the work
    loaded = load(config, checkpoint.folder)
    videos = draw(loaded, checkpoint.setting, config.sampler, bar.advance, prompts)
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from model.any_vae import AnyVAE
from model.errors import BadInput
from model.sample_config import SampleConfig
from model.sampler import Request, sample
from model.vae import from_pixels, to_pixels
from pipelines.demo.prompts import Prompt
from pipelines.evaluate_judge import LEAST_SIDE
from pipelines.sample_model import Loaded, load_model
from pipelines.text_place import text_id

if TYPE_CHECKING:
    import numpy as np

    from pipelines.evaluate import EvaluateConfig

DECODE_CHUNK = 8  # latent frames that the VAE decodes at a time


@dataclass(frozen=True)
class Setting:
    """What the videos of a model are like: models with the same setting share prompts and true clips.

    Attributes:
        frames: of a video.
        height: pixels.
        width: pixels.
        fps: frames per second.
        vae: id of the VAE.
    """

    frames: int
    height: int
    width: int
    fps: float
    vae: str

    def __str__(self) -> str:
        return f"{self.width}x{self.height}, {self.frames} frames at {self.fps:g} fps, VAE {self.vae}"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that can be measured.

    Attributes:
        name: of the run, and of the checkpoint where that would not tell it from the others.
        folder: where it lies.
        about: its config.json.
        step: training steps done, or null if the checkpoint does not tell.
        tokens: training tokens seen, likewise.
        parameters: weights of the transformer.
        setting: what its videos are like.
        text_id: of its text encoders.
        weights_id: 16 hex digits that change with the weights that are drawn from, those of config.weights.
    """

    name: str
    folder: Path
    about: dict[str, Any]
    step: int | None
    tokens: int | None
    parameters: int
    setting: Setting
    text_id: str
    weights_id: str


def checkpoints_of(config: EvaluateConfig) -> list[Checkpoint]:
    """In the order given, each once. Raises BadInput if one cannot be loaded, or is of another VAE or text encoder."""
    loaded = (load(config, folder) for folder in config.checkpoint)  # one at a time
    described = (_described(one, config.weights) for one in loaded)
    found = list({one.folder.resolve(): one for one in described}.values())
    told = names([one.folder for one in found])
    return [replace(one, name=name) for one, name in zip(found, told, strict=True)]


def load(config: EvaluateConfig, folder: str | Path) -> Loaded:
    """The newest checkpoint of a run, or the one given, with VAE and text encoder, on the device."""
    return load_model(
        str(folder),
        weights=config.weights,
        vae=config.vae,
        text_encoder=config.text_encoder,
        device=config.device,
    )


def _described(loaded: Loaded, weights: str) -> Checkpoint:
    state = loaded.checkpoint / "state.json"
    told = json.loads(state.read_text()) if state.is_file() else {}
    parameters = sum(weight.numel() for weight in loaded.dit.parameters())
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(loaded.checkpoint.glob(f"{weights}*.safetensors")):  # several, of a sharded training
        with path.open("rb") as file:
            while chunk := file.read(1 << 24):
                digest.update(chunk)
    return Checkpoint(
        name="",
        folder=loaded.checkpoint,
        about=loaded.about,
        step=told.get("step"),
        tokens=told.get("tokens"),
        parameters=parameters,
        setting=setting_of(loaded),
        text_id=loaded.about["latents"].get("text_id") or text_id(loaded.text_place),
        weights_id=digest.hexdigest(),
    )


def names(folders: Sequence[Path]) -> list[str]:
    """The shortest that tell them apart: of the run, with that of the checkpoint, or the whole path."""
    runs = [folder.parent.parent if folder.parent.name == "checkpoints" else folder for folder in folders]
    for told in (
        [run.name for run in runs],
        [f"{run.name} {folder.name}" for run, folder in zip(runs, folders, strict=True)],
    ):
        if max(Counter(told).values()) == 1:
            return told
    return [str(folder) for folder in folders]


def setting_of(loaded: Loaded) -> Setting:
    """The size, length and rate that a model was mostly trained on. Raises BadInput for pictures too small."""
    typical, vae = loaded.about["typical"], loaded.vae.config
    t, h, w = typical["size"]
    height, width = h * vae.spatial, w * vae.spatial
    if min(height, width) < LEAST_SIDE:
        raise BadInput(
            f"the model was trained on videos of {width}x{height} pixels, in which nothing can be judged: at least "
            f"{LEAST_SIDE} on each side are needed."
        )
    fps = typical["fps"] or loaded.dit.config.reference_fps
    return Setting(vae.temporal * (t - 1) + 1, height, width, fps, loaded.vae_id)


def draw(
    loaded: Loaded,
    setting: Setting,
    config: SampleConfig,
    on_videos: Callable[[float], None],
    prompts: Sequence[Prompt],
) -> list[np.ndarray]:
    """One video (T, H, W, 3) uint8 per prompt; `on_videos` is told of each share of a video that is done."""
    size, before = tuple(loaded.about["typical"]["size"]), 0.0
    features = loaded.text.encode([prompt.text for prompt in prompts])
    requests = [
        Request(size=size, fps=setting.fps, text=text, seed=prompt.seed)
        for prompt, text in zip(prompts, features, strict=True)
    ]

    def tell(done: int, total: int) -> None:
        nonlocal before
        now = len(prompts) * done / total
        on_videos(now - before)
        before = now

    latents = sample(loaded.dit, requests, config, loaded.flow, on_step=tell)
    return [decoded(loaded.vae, latent, setting.frames) for latent in latents]


@torch.inference_mode()
def decoded(vae: AnyVAE, latent: torch.Tensor, frames: int) -> np.ndarray:
    """Latent (C, t, h, w) -> (frames, H, W, 3) uint8."""
    pixels = vae.decode_latents(latent[None].to(vae.latent_mean.device), chunk=DECODE_CHUNK)
    return to_pixels(pixels)[0, :frames].cpu().numpy()


@torch.inference_mode()
def through(vae: AnyVAE, video: np.ndarray) -> np.ndarray:
    """A video (T, H, W, 3) uint8, encoded and decoded again."""
    pixels = from_pixels(torch.from_numpy(video)[None].to(vae.latent_mean.device))
    return decoded(vae, vae.encode_latents(pixels, chunk=DECODE_CHUNK)[0], len(video))
