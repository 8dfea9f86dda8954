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
from model.vae_config import VAEConfig

FIRST_LOGVAR = -6.0


@torch.no_grad()
def start_from_principal_components(vae: VideoVAE, clips: list[Tensor]) -> None:
    """Set the linear paths of `vae` from clips (B, 3, T, H, W) in [-1, 1]; latents then have unit variance."""
    config = vae.config
    mean, covariance = _moments(clips, config)
    values, vectors = torch.linalg.eigh(covariance)  # ascending
    like = vae.encoder.linear.weight
    scale = values[-config.channels :].clamp_min(1e-8).sqrt().to(like)  # (C,)
    basis, mean = vectors[:, -config.channels :].to(like), mean.to(like)  # (D, C), (D,)

    down, up = vae.encoder.linear, vae.decoder.linear.expand
    down.weight.copy_((basis / scale).T.view(config.channels, config.temporal, -1, 1, 1).transpose(1, 2))
    down.bias.copy_(-(mean @ basis) / scale)  # type: ignore[union-attr]
    up.weight.copy_((basis * scale)[:, :, None, None, None])
    up.bias.copy_(mean)  # type: ignore[union-attr]
    if vae.fsq is not None:
        _fit_to_codes(vae, clips)
    # The network begins by adding nothing, and with little noise on the latents.
    for layer in (vae.encoder.last, vae.decoder.last):
        layer.weight.zero_()
        layer.bias.zero_()  # type: ignore[union-attr]
    vae.encoder.last.bias[config.channels :] = FIRST_LOGVAR  # type: ignore[index]


def _moments(clips: list[Tensor], config: VAEConfig) -> tuple[Tensor, Tensor]:
    """Mean (D,) and covariance (D, D) of the blocks of `clips`, float64; one clip's blocks at a time in memory."""
    count, total, square = 0, torch.zeros(()).double(), torch.zeros(()).double()
    for x in clips:
        rows = _blocks(x, config.temporal, config.spatial).double()
        count += len(rows)
        total, square = total.to(rows) + rows.sum(dim=0), square.to(rows) + rows.T @ rows
    mean = total / count
    return mean, square / count - torch.outer(mean, mean)


def _fit_to_codes(vae: VideoVAE, clips: list[Tensor]) -> None:
    """The linear decoder that shows least error from codes, which are no longer of unit variance."""
    assert vae.fsq is not None
    config = vae.config
    width = config.channels + 1
    gram, product = torch.zeros(width, width).double(), torch.zeros(()).double()
    for x in clips:
        linear = vae.encoder.linear(patch(x, config.spatial))  # (B, C, t, h, w)
        codes = vae.fsq(linear).permute(0, 2, 3, 4, 1).reshape(-1, config.channels).double()
        rows = _blocks(x, config.temporal, config.spatial).double()  # in the same order: (B, t, h, w)
        inputs = torch.cat([codes, torch.ones_like(codes[:, :1])], dim=1)
        gram, product = gram.to(rows) + inputs.T @ inputs, product.to(rows) + inputs.T @ rows
    ridge = 1e-6 * torch.eye(width, dtype=gram.dtype, device=gram.device) * gram.diagonal().mean()
    solved = torch.linalg.solve(gram + ridge, product)  # (C + 1, D)
    up = vae.decoder.linear.expand
    up.weight.copy_(solved[:-1].T[:, :, None, None, None])
    up.bias.copy_(solved[-1])  # type: ignore[union-attr]


def _blocks(x: Tensor, time: int, space: int) -> Tensor:
    """What each latent position stands for: (N, time·space²·3), the first frame as if it stood still before."""
    x = torch.cat([x[:, :, :1].expand(-1, -1, time - 1, -1, -1), x], dim=2)
    y = patch(x, space).unflatten(2, (-1, time))  # (B, space²·3, t, time, h, w)
    return y.permute(0, 2, 4, 5, 3, 1).reshape(-1, time * y.shape[1])
