"""Where the VAE's training starts: its linear path as the principal components of the clips.

    start_from_principal_components(vae, clips)

Of all linear codes with as many latents, that of the principal components loses least (Eckart-Young). Starting
there the network has only to learn what a linear code cannot do. On moving shapes over landscapes the components
alone give 24 dB, where 480 steps of four clips from random weights give 20.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.vae import VideoVAE
from model.vae_blocks import patch

FIRST_LOGVAR = -6.0


@torch.no_grad()
def start_from_principal_components(vae: VideoVAE, clips: list[Tensor]) -> None:
    """Set the linear paths of `vae` from clips (B, 3, T, H, W) in [-1, 1]; latents then have unit variance."""
    config = vae.config
    rows = torch.cat([_blocks(x, config.temporal, config.spatial) for x in clips])  # (N, D)
    mean = rows.mean(dim=0)
    covariance = (rows - mean).T @ (rows - mean) / len(rows)
    values, vectors = torch.linalg.eigh(covariance.double())  # ascending
    scale = values[-config.channels :].clamp_min(1e-8).sqrt().to(rows)  # (C,)
    basis = vectors[:, -config.channels :].to(rows)  # (D, C)

    down, up = vae.encoder.linear, vae.decoder.linear.expand
    down.weight.copy_((basis / scale).T.view(config.channels, config.temporal, -1, 1, 1).transpose(1, 2))
    down.bias.copy_(-(mean @ basis) / scale)  # type: ignore[union-attr]
    up.weight.copy_((basis * scale)[:, :, None, None, None])
    up.bias.copy_(mean)  # type: ignore[union-attr]
    # The network begins by adding nothing, and with little noise on the latents.
    for layer in (vae.encoder.last, vae.decoder.last):
        layer.weight.zero_()
        layer.bias.zero_()  # type: ignore[union-attr]
    vae.encoder.last.bias[config.channels :] = FIRST_LOGVAR  # type: ignore[index]


def _blocks(x: Tensor, time: int, space: int) -> Tensor:
    """What each latent position stands for: (N, time·space²·3), the first frame as if it stood still before."""
    x = torch.cat([x[:, :, :1].expand(-1, -1, time - 1, -1, -1), x], dim=2)
    y = patch(x, space).unflatten(2, (-1, time))  # (B, space²·3, t, time, h, w)
    return y.permute(0, 2, 4, 5, 3, 1).reshape(-1, time * y.shape[1])
