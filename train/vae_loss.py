"""What the VAE learns from, and how well it does: reconstruction loss, PSNR and SSIM. All on [-1, 1].

loss, parts = vae_loss(y, x, posterior, VaeLossConfig())
psnr(y, x), ssim(y, x)               # one value per clip
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from model.vae import Posterior
from train.vae_settings import VaeLossConfig


def vae_loss(
    y: Tensor, x: Tensor, posterior: Posterior, config: VaeLossConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of reconstruction y against x, both (B, 3, T, H, W), and its unweighted parts; always in float32."""
    with torch.autocast(y.device.type, enabled=False):  # sums of small errors must not be rounded
        error = y.float() - x
        parts = {
            "l1": error.abs().mean(),
            "square": error.square().mean(),
            "gradient": _gradients(error, config.gradient_scales),
            "coarse": _coarse(error),
            "kl": posterior.kl(),
        }
        total = parts["l1"] + config.square * parts["square"] + config.gradient * parts["gradient"]
        return total + config.coarse * parts["coarse"] + config.kl * parts["kl"], parts


def _gradients(error: Tensor, scales: int) -> Tensor:
    """The mean of `_gradient` over pictures of full, half, a quarter, ... of the size, as far as they have any."""
    found = [_gradient(error)]
    while len(found) < scales and min(error.shape[3:]) >= 2:
        error = F.avg_pool3d(error, (1, 2, 2))
        found.append(_gradient(error))
    return torch.stack(found).mean()


def _gradient(error: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring errors, averaged over the axes longer than 1."""
    axes = [axis for axis in (2, 3, 4) if error.shape[axis] > 1]
    if not axes:
        return error.new_zeros(())
    return torch.stack([error.diff(dim=axis).abs().mean() for axis in axes]).mean()


def _coarse(error: Tensor) -> Tensor:
    """Mean absolute error after averaging over 2×2 and over 4×4 pixels."""
    frames = error.transpose(1, 2).flatten(0, 1)  # (B·T, 3, H, W)
    return (F.avg_pool2d(frames, 2).abs().mean() + F.avg_pool2d(frames, 4).abs().mean()) / 2


def psnr(y: Tensor, x: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each clip, (B,), for a range of 2 (from -1 to 1)."""
    square = (y.float() - x.float()).square().flatten(1).mean(dim=1)
    return 10.0 * torch.log10(4.0 / square.clamp_min(1e-12))


def ssim(y: Tensor, x: Tensor) -> Tensor:
    """Structural similarity of each clip, (B,): mean over frames, colours and 11×11 Gaussian windows.

    Wang et al., "Image quality assessment", 2004: sigma 1.5, K1 0.01, K2 0.03. Frames smaller than a window
    use the largest odd window that fits.
    """
    b, c, t, h, w = x.shape
    size = min(11, (min(h, w) - 1) // 2 * 2 + 1)
    offsets = torch.arange(size, dtype=torch.float32, device=x.device) - size // 2
    line = torch.softmax(-offsets.square() / (2 * 1.5**2), dim=0)
    kernel = torch.outer(line, line)[None, None]  # (1, 1, size, size)

    def blur(z: Tensor) -> Tensor:
        # TF32 would not do: variances are small differences of large means.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            return F.conv2d(z, kernel)

    u, v = (z.float().transpose(1, 2).reshape(b * t * c, 1, h, w) for z in (y, x))
    mean_u, mean_v = blur(u), blur(v)
    var_u, var_v = blur(u * u) - mean_u**2, blur(v * v) - mean_v**2
    cov = blur(u * v) - mean_u * mean_v
    c1, c2 = (0.01 * 2.0) ** 2, (0.03 * 2.0) ** 2
    value = (2 * mean_u * mean_v + c1) * (2 * cov + c2)
    value = value / ((mean_u**2 + mean_v**2 + c1) * (var_u + var_v + c2))
    return value.reshape(b, -1).mean(dim=1)
