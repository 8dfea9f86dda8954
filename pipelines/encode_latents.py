"""A clip through the VAE: as a whole, and what a sampler is given of it, which is encoded by itself.

    made = latents_of(vae, videos, FrameConfig())     # videos (T, H, W, 3) uint8, of any shapes
    made[0]["latent"]                                 # (C, t, h, w) bfloat16, on the CPU
    made[0]["keyframes"], made[0]["keyframe_at"]      # (C, K, h, w), (K,): single pictures, and their places
    made[0]["suffix"]                                 # (C, s, h, w): the ending

A latent frame of a causal VAE holds its pictures and knows all before them. The beginning of a clip therefore has
the same latents whether the rest is there or not. Its last picture, one in its middle or its ending have others when
they are all that is given: these are what a model must see that is to go on from them. HunyuanVideo and CogVideoX
are not causal to the letter: they normalize over time, so of a clip of theirs even the first picture by itself has
other latents, and it is encoded by itself as well.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from model.any_vae import AnyVAE
from model.pretrained_vae import PretrainedVAE
from model.vae import from_pixels
from pipelines.encode_frames import FrameConfig

#: Pictures that go through the VAE at once unless told otherwise.
BATCH_BYTES = 8 << 20
#: Kinds of PretrainedConfig whose group norms see all frames of a chunk: what comes later changes what came before.
NOT_CAUSAL = frozenset({"hunyuan-video", "cogvideox"})


def is_causal(vae: AnyVAE) -> bool:
    """Whether the beginning of a clip has the same latents with and without the rest."""
    return not isinstance(vae, PretrainedVAE) or vae.config.name not in NOT_CAUSAL


def frame_step(vae: AnyVAE) -> int:
    """Pictures by which clips of a VAE may grow without padding: it takes multiples of this and one."""
    return vae.config.frame_step if isinstance(vae, PretrainedVAE) else vae.config.temporal


def keyframe_positions(t: int, most: int) -> tuple[int, ...]:
    """Up to `most` latent frames spread evenly over 1 to t-1, the last one among them; ascending.

    >>> keyframe_positions(5, 2), keyframe_positions(5, 3), keyframe_positions(2, 3), keyframe_positions(1, 3)
    ((2, 4), (1, 2, 4), (1,), ())
    """
    count = min(most, t - 1)
    return tuple((i + 1) * (t - 1) // count for i in range(count))


def suffix_length(t: int, wanted: int, step: int) -> int:
    """Latent frames of the ending of a clip of `t`: about `wanted`, but fewer than t; 0 if none, or of a picture.

    `step` is by how many latent frames clips can grow without padding: 1, but for CogVideoX 2. The ending has one
    more than a multiple of that: what is wanted is rounded up where the clip is long enough.

    >>> suffix_length(5, 2, 1), suffix_length(2, 2, 1), suffix_length(5, 2, 2), suffix_length(1, 2, 1)
    (2, 1, 3, 0)
    """
    if not wanted or t == 1:
        return 0
    return 1 + step * min(-(-(wanted - 1) // step), (t - 2) // step)


def encoded_apart(vae: AnyVAE, t: int, frames: FrameConfig) -> tuple[tuple[int, ...], int]:
    """What of a clip of `t` latent frames is encoded by itself: at which the keyframes are, and how long the ending."""
    at = keyframe_positions(t, frames.keyframes)
    step = frame_step(vae) // vae.config.temporal
    return at if is_causal(vae) or not at else (0, *at), suffix_length(t, frames.suffix, step)


def latents_of(
    vae: AnyVAE,
    videos: Sequence[np.ndarray],
    frames: FrameConfig,
    tile: int | None = None,
    batch_bytes: int = BATCH_BYTES,
) -> list[dict[str, Tensor]]:
    """What KEY.latent holds of each video (T, H, W, 3) uint8, T being frame_step·k+1: bfloat16 on the CPU.

    Keyframe i is the last picture of latent frame i. Whole clips, keyframes and endings go through the VAE together,
    batched by shape: so many of a shape as have `batch_bytes` of pixels, a longer clip in chunks of that size. It
    decides values in the last digit. `tile` as in `VideoVAE.encode`.
    """
    temporal = vae.config.temporal
    places: list[tuple[int, ...]] = []
    lengths: list[int] = []
    jobs: list[np.ndarray] = []  # of each video: itself, its keyframes, its suffix
    for video in videos:
        t = (len(video) - 1) // temporal + 1
        at, length = encoded_apart(vae, t, frames)
        places.append(at)
        lengths.append(length)
        jobs += [video, *(video[temporal * i :][:1] for i in at)]
        if length:
            jobs.append(video[temporal * (t - length) :])
    encoded = iter(_by_shape(vae, jobs, tile, batch_bytes))
    found = []
    for at, length in zip(places, lengths, strict=True):
        made = {"latent": next(encoded)}
        if at:
            made["keyframes"] = torch.cat([next(encoded) for _ in at], dim=1)
            made["keyframe_at"] = torch.tensor(at, dtype=torch.int32)
        if length:
            made["suffix"] = next(encoded)
        found.append(made)
    return found


def _by_shape(vae: AnyVAE, videos: Sequence[np.ndarray], tile: int | None, batch_bytes: int) -> list[Tensor]:
    """Latents (C, t, h, w) of each video (T, H, W, 3), batched with those of its shape."""
    by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, video in enumerate(videos):
        by_shape[video.shape].append(i)
    found: dict[int, Tensor] = {}
    for members in by_shape.values():
        size = max(1, batch_bytes // videos[members[0]].nbytes)
        for batch in (members[k : k + size] for k in range(0, len(members), size)):
            found |= zip(batch, _encode(vae, [videos[i] for i in batch], tile, batch_bytes), strict=True)
    return [found[i] for i in range(len(videos))]


@torch.inference_mode()
def _encode(vae: AnyVAE, videos: Sequence[np.ndarray], tile: int | None, batch_bytes: int) -> Tensor:
    """Latents (B, C, t, h, w) of videos of one shape (T, H, W, 3)."""
    device, video = vae.latent_mean.device, videos[0]
    # Pretrained ones have chunks of their own, if any.
    if isinstance(vae, PretrainedVAE) or video.nbytes <= batch_bytes:
        z = vae.encode_latents(from_pixels(_stacked(videos, device)), tile=tile)
    else:  # one clip, chunk by chunk
        chunk = max(1, batch_bytes // (video[0].nbytes * vae.config.temporal))
        cuts = [0, *range(1, len(video), chunk * vae.config.temporal), len(video)]
        parts = (_stacked([video[start:end]], device) for start, end in pairwise(cuts))
        z = torch.cat(list(vae.encode_stream(parts, chunk, tile)), dim=2)
    return z.to(torch.bfloat16).cpu()


def _stacked(videos: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """(B, T, H, W, 3) uint8 on the device, to which they are still on their way."""
    pixels = torch.empty(len(videos), *videos[0].shape, dtype=torch.uint8, pin_memory=device.type == "cuda")
    for row, video in zip(pixels.numpy(), videos, strict=True):
        row[:] = video
    return pixels.to(device, non_blocking=True)
