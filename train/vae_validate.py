"""How well a VAE does on clips it never saw, and the statistics of its latents.

validate(vae, clips, lpips)          # {"val_psnr": 31.9, "val_ssim": 0.94, "val_lpips": 0.06}
measure_latents(vae, batches)        # sets latent_mean and latent_std
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

from model.errors import BadInput
from model.vae import VideoVAE, from_pixels
from train.lpips import LPIPS
from train.ranks import Ranks
from train.vae_loss import psnr, ssim

#: Latent frames that go through the VAE at a time: longer clips take no more memory.
CHUNK = 16
ALONE = Ranks(rank=0, size=1, device=torch.device("cpu"))


@torch.no_grad()
def validate(
    vae: VideoVAE, clips: list[Tensor], lpips: LPIPS | None = None, ranks: Ranks = ALONE
) -> dict[str, float]:
    """Mean PSNR in dB, SSIM and LPIPS over clips (B, T, H, W, 3) uint8, through the normalised latents.

    Each rank takes its share of the clips, all get the means. There is no LPIPS without its network, and nothing
    at all without clips.
    """
    found: dict[str, list[float]] = defaultdict(list)
    device = vae.latent_std.device
    for frames in clips[ranks.rank :: ranks.size]:
        x = from_pixels(frames).to(device)
        y = vae.decode_latents(vae.encode_latents(x, chunk=CHUNK), like=x, chunk=CHUNK)
        found["val_psnr"] += psnr(y, x).tolist()
        found["val_ssim"] += ssim(y, x).tolist()
        if lpips is not None:
            found["val_lpips"] += lpips(y, x).tolist()
    everywhere = ranks.gather(dict(found))
    names = dict.fromkeys(name for part in everywhere for name in part)
    together = {name: [value for part in everywhere for value in part.get(name, [])] for name in names}
    return {name: sum(values) / len(values) for name, values in together.items()}


@torch.no_grad()
def measure_latents(vae: VideoVAE, batches: Iterable[Tensor]) -> None:
    """Store mean and standard deviation of each latent channel over `batches` in the VAE.

    Raises BadInput without clips.
    """
    device, channels = vae.latent_std.device, vae.config.channels
    count, total, square = 0, torch.zeros(channels).double(), torch.zeros(channels).double()
    for batch in batches:
        mean = (
            vae.encode(from_pixels(batch).to(device), chunk=CHUNK).mean.transpose(0, 1).flatten(1)
        )  # (C, N)
        values = mean.double().cpu()
        count += values.shape[1]
        total += values.sum(dim=1)
        square += values.square().sum(dim=1)
    if count < 2:
        raise BadInput(
            "there are no clips for the statistics of the latents: give --typical_clips of 1 or more."
        )
    average = total / count
    variance = ((square - count * average.square()) / (count - 1)).clamp_min(0.0)
    vae.latent_mean.copy_(average)
    # A channel that the KL term has switched off must not be blown up to unit variance.
    vae.latent_std.copy_(variance.sqrt().clamp_min(1e-2))
