"""What chance decides about one clip in one epoch beside what it is given: caption, noise level and noise.

    draw = draw_clip(clip_id, epoch, shape, outline(texts), n_tokens, config)

A pure function of (seed, clip_id, epoch): the batch a clip is in, the number of ranks and the point where a run
was resumed change nothing, and there is no generator state to save. What is given is drawn for all clips of an epoch
at once (train/conditions.py), since the plan must know how large they become.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from model.flow import draw_time
from train.blend import Choice, Outline, draw_caption
from train.config import TrainConfig


@dataclass(frozen=True)
class Draw:
    """The outcome for one clip.

    Attributes:
        caption: what is shown of the captions.
        t: noise level, 0 to 1.
        noise: (C, t, h, w) standard normal.
        given_t: noise level of what is given, which the model is not told.
        given_noise: (C, s, h, w) standard normal, for the latent frames that come beside the clip's own.
    """

    caption: Choice
    t: float
    noise: Tensor
    given_t: float
    given_noise: Tensor


def draw_clip(
    clip_id: str,
    epoch: int,
    shape: tuple[int, int, int, int],
    captions: Mapping[str, Outline],
    n_tokens: int,
    config: TrainConfig,
    beside: int = 0,
) -> Draw:
    """The draw for a clip with latent `shape` (C, t, h, w) and `captions` by kind, given `beside` further frames.

    `n_tokens` is the clip's own size, which the noise level depends on.
    """
    generator = seeded(config.seed, epoch, clip_id)
    # Fixed in order, the frames beside last, so that a change of one share leaves the other draws as they were.
    caption = draw_caption(captions, seed=config.seed, clip_id=clip_id, epoch=epoch, config=config.captions)
    t = float(draw_time(config.flow, n_tokens, generator))
    given_t = config.condition.noise * float(torch.rand((), generator=generator))
    noise = torch.randn(shape, generator=generator)
    channels, _, h, w = shape
    return Draw(caption, t, noise, given_t, torch.randn((channels, beside, h, w), generator=generator))


def seeded(seed: int, epoch: int, name: str) -> torch.Generator:
    """A generator of its own for each seed, epoch and name."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{name}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
