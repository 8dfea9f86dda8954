"""The examination of the caption study: a fixed set of prompts, and two judges of the videos drawn for them.

    prompts = examination(64, ClipShape())          # 64 held-out scenes and 64 seen ones, three prompts of each
    videos = drawn(checkpoint, prompts, shape)      # (T, H, W, 3) uint8 each, guided as `reelmill sample` does
    scores = judged(prompts, videos, shape.fps)     # counts by group: ("held_out", "dense"), ...

The pixel oracle reads attributes from pixels and is compared with what the prompt names; it knows the renderer and
no model. The CLIP score is the cosine of prompt and video in the embedded CoCa: that of the captioner's own towers,
so that it is no independent witness.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.config import FlowConfig
from model.dit import load_dit
from model.sample_config import SampleConfig
from model.sampler import Request, sample
from model.text import load_text_encoder
from model.vae import from_pixels, load_vae, to_pixels
from pipelines.demo.caption_study_data import KINDS, PROMPTS, ClipShape
from pipelines.demo.pixel_oracle import look
from pipelines.demo.prompts import Prompt, counted
from pipelines.demo.weights import embedded
from pipelines.demo.world_captions import describe
from recaption.coca import model as coca
from recaption.coca.training import encode

DECODED_AT_ONCE = 32


def examination(scenes: int, shape: ClipShape) -> list[Prompt]:
    """`scenes` held-out and as many seen ones, each in all three manners; always the same."""
    found: list[Prompt] = []
    for held_out in (True, False):
        for number in range(scenes):
            rng = np.random.default_rng((PROMPTS, int(held_out), number))
            scene = shape.scene(rng, held_out=held_out)
            for manner in KINDS:
                text = describe(scene, manner, rng)
                combination = "held_out" if held_out else "seen"
                found.append(Prompt(combination, manner, text, scene, seed=len(found)))
    return found


def drawn(
    checkpoint: Path, prompts: Sequence[Prompt], shape: ClipShape, config: SampleConfig
) -> list[np.ndarray]:
    """The video that a trained model makes of each prompt."""
    dit, about = load_dit(checkpoint)
    features = load_text_encoder(str(embedded("coca"))).encode([prompt.text for prompt in prompts])
    size = tuple(about["typical"]["size"])
    requests = [
        Request(size, shape.fps, text, prompt.seed) for prompt, text in zip(prompts, features, strict=True)
    ]
    return _decoded(torch.stack(sample(dit, requests, config, FlowConfig(**about["flow"]))))


def renderings(prompts: Sequence[Prompt], shape: ClipShape) -> list[np.ndarray]:
    """What a perfect model would draw: the scenes themselves, once through the VAE."""
    vae = load_vae(embedded("vae"))
    pixels = torch.from_numpy(np.stack([shape.video(prompt.scene) for prompt in prompts]))
    with torch.inference_mode():
        parts = [vae.encode_latents(from_pixels(part)) for part in pixels.split(DECODED_AT_ONCE)]
    return _decoded(torch.cat(parts))


def _decoded(latents: torch.Tensor) -> list[np.ndarray]:
    vae = load_vae(embedded("vae"))
    with torch.inference_mode():
        videos = [to_pixels(vae.decode_latents(part)).numpy() for part in latents.split(DECODED_AT_ONCE)]
    return [video for part in videos for video in part]


def judged(prompts: Sequence[Prompt], videos: Sequence[np.ndarray], fps: float) -> list[dict[str, Any]]:
    """One row per combination and manner.

    Returns:
        combination, manner, prompts (their number), clip_score (mean cosine), and for each attribute how many
        prompts `asked` for it, how many videos are `right`, and in how many of these the oracle saw `none`.
    """
    scores = clip_scores([prompt.text for prompt in prompts], videos)
    seen = [look(video, fps) for video in videos]
    rows = []
    for combination, manner in dict.fromkeys((prompt.combination, prompt.manner) for prompt in prompts):
        group = [n for n, p in enumerate(prompts) if (p.combination, p.manner) == (combination, manner)]
        rows.append(
            {
                "combination": combination,
                "manner": manner,
                "prompts": len(group),
                "clip_score": float(np.mean([scores[n] for n in group])),
                "attributes": counted([prompts[n].asked for n in group], [seen[n] for n in group]),
            }
        )
    return rows


def clip_scores(texts: Sequence[str], videos: Sequence[np.ndarray]) -> list[float]:
    """Cosine of each text with its video, by the two towers of the embedded CoCa."""
    model, tokenizer = coca.load(embedded("coca"))
    found: list[float] = []
    for place in range(0, len(texts), 64):
        batch = slice(place, place + 64)
        ids = encode(tokenizer, list(texts[batch]), None, model.text.context_length)
        with torch.inference_mode():
            features = coca.forward(model, coca.prepare(list(videos[batch]), model), ids)
            cosines = (features["image_features"] * features["text_features"]).sum(dim=1)
        found += cosines.tolist()
    return found
