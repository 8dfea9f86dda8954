"""A discriminator for the VAE's reconstructions: patch by patch in space and time, and the losses around it.

    discriminator = PatchDiscriminator3D(width=64, depth=3)

    # The VAE's step: gradients go through the discriminator, not into it.
    discriminator.requires_grad_(False)
    adversarial = generator_loss(discriminator(y))
    weight = adaptive_weight(reconstruction, adversarial, vae.decoder.last.weight)
    (reconstruction + weight * adversarial).backward()

    # The discriminator's step: gradients end at the pixels.
    discriminator.requires_grad_(True)
    discriminator_loss(discriminator(x), discriminator(y.detach())).backward()

The adaptive weight is that of VQGAN (Esser et al. 2021, arXiv:2012.09841); judging patches of space and time, with
the hinge loss, is as in TATS (arXiv:2204.03638). Group norm in the place of their batch norm makes the judgement of
a clip its own: it does not depend on the others in the batch, on the mode or on what was seen before.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.errors import BadInput

GROUPS = 8


class PatchDiscriminator3D(nn.Module):
    """Videos (B, 3, T, H, W) in [-1, 1] -> logits (B, 1, t, h, w), high where a patch looks real.

    `depth` convolutions halve height, width and, rounded up, frames; two more judge. h and w are
    H // 2**depth - 2, t is T / 2**depth rounded up: one picture gives t = 1. With depth 3 a logit sees
    70×70 pixels and 47 frames.
    """

    def __init__(self, width: int = 64, depth: int = 3) -> None:
        """`width` channels after the first convolution, doubled by each up to eight times as many.

        Raises BadInput if width is no multiple of 8 or depth is below 1.
        """
        super().__init__()
        if width < GROUPS or width % GROUPS:
            raise BadInput(f"discriminator: width must be a multiple of {GROUPS}, not {width}.")
        if depth < 1:
            raise BadInput(f"discriminator: depth must be 1 or more, not {depth}.")
        self.smallest = 3 * 2**depth  # pixels; leaves one logit
        channels = [width * min(2**i, 8) for i in range(depth + 1)]
        layers: list[nn.Module] = [_conv(3, width, stride=2), nn.LeakyReLU(0.2)]
        for i in range(depth):
            layers += [
                _conv(channels[i], channels[i + 1], stride=2 if i + 1 < depth else 1),
                nn.GroupNorm(GROUPS, channels[i + 1]),
                nn.LeakyReLU(0.2),
            ]
        self.layers = nn.Sequential(*layers, _conv(channels[-1], 1, stride=1))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, 1, t, h, w); on CPUs in float32, whatever autocast says.

        Raises BadInput for other shapes or pictures that are too small.
        """
        if x.ndim != 5 or x.shape[1] != 3 or 0 in x.shape:
            raise BadInput(f"discriminator: expected a video (B, 3, T, H, W), got {tuple(x.shape)}.")
        if min(x.shape[-2:]) < self.smallest:
            raise BadInput(
                f"discriminator: pictures of {x.shape[-2]}×{x.shape[-1]} pixels are too small for its depth; "
                f"give {self.smallest}×{self.smallest} or more, or a smaller depth."
            )
        if x.device.type != "cpu":
            return self.layers(x)
        # On CPUs torch 2.15 leaves parts of the gradients of these kernels unset in bfloat16 (NaN, now and then).
        with torch.autocast("cpu", enabled=False):
            return self.layers(x.float())


def _conv(inputs: int, outputs: int, stride: int) -> nn.Conv3d:
    # Three frames wide and padded by one, so that a stride of 2 takes any number of frames, one included.
    conv = nn.Conv3d(inputs, outputs, (3, 4, 4), stride, padding=1)
    nn.init.normal_(conv.weight, 0.0, 0.02)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss of the logits of real and of reconstructed clips, () float32: 1 for one that knows nothing.

    The mean of both halves: 0 where real is above 1 and fake below -1.
    """
    return (F.relu(1.0 - real.float()).mean() + F.relu(1.0 + fake.float()).mean()) / 2


def generator_loss(fake: Tensor) -> Tensor:
    """What the VAE lowers: minus the mean logit of its reconstructions, () float32."""
    return -fake.float().mean()


def adaptive_weight(
    reconstruction: Tensor, adversarial: Tensor, last_layer: Tensor, most: float = 1e4
) -> Tensor:
    """The weight that gives the adversarial loss as large a gradient at `last_layer` as the reconstruction loss.

    The ratio of the two gradients' norms, () float32 without gradient, at most `most`; 0 where both are 0.
    Both graphs are kept for the backward of the step.
    """
    losses = (reconstruction, adversarial)
    grads = [torch.autograd.grad(loss, last_layer, retain_graph=True)[0] for loss in losses]
    wanted, found = (grad.detach().float().norm() for grad in grads)
    return (wanted / found.clamp_min(torch.finfo(torch.float32).tiny)).clamp(max=most)
