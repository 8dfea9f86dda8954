"""What a training run of the VAE can be told, as plain data that needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class VaeLossConfig:
    """Weights of the parts of the VAE's loss; the absolute error of pixels has weight 1.

    Attributes:
        square: weight of the squared error of pixels, which PSNR measures.
        gradient: weight of the absolute error of differences between neighbours in space and time; it keeps
            edges and motion sharp where no perceptual network is at hand.
        coarse: weight of the absolute error at a half and a quarter of the size; it keeps areas in tune.
        kl: weight of the KL divergence from a standard normal, per latent value.
    """

    square: float = 1.0
    gradient: float = 0.5
    coarse: float = 0.5
    kl: float = 1e-4


@dataclass(frozen=True)
class VaeTraining:
    """How the VAE is trained.

    Attributes:
        steps: optimiser steps.
        lr: highest learning rate of Muon; linear warm-up, then a cosine to zero.
        warmup: steps of warm-up.
        grad_clip: largest norm of the gradient.
        ema: decay of the averaged weights, which are validated and saved; averages faster in the beginning.
        bf16: compute convolutions in bfloat16.
        loss: weights of the parts of the loss.
        validate_every: steps between validations (and one at the end).
        checkpoint_every: steps between checkpoints (and one at the end); the last two are kept.
        seed: of the weights and of the noise on the latents.
    """

    steps: int = 20000
    lr: float = 4e-3
    warmup: int = 100
    grad_clip: float = 1.0
    ema: float = 0.998
    bf16: bool = True
    loss: VaeLossConfig = field(default_factory=VaeLossConfig)
    validate_every: int = 2000
    checkpoint_every: int = 500
    seed: int = 0
