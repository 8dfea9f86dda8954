"""What a training run of the VAE can be told, as plain data that needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from model.errors import BadInput


@dataclass(frozen=True)
class VaeLossConfig:
    """Weights of the parts of the VAE's loss; the absolute error of pixels has weight 1.

    Attributes:
        square: weight of the squared error of pixels, which PSNR measures.
        gradient: weight of the absolute error of differences between neighbours in space and time; it keeps
            edges and motion sharp where no perceptual network is at hand.
        gradient_scales: sizes at which those differences are taken: 1 is full size, 3 also a half and a quarter of it.
        coarse: weight of the absolute error at a half and a quarter of the size; it keeps areas in tune.
        kl: weight of the KL divergence from a standard normal, per latent value.
        lpips: weight of the perceptual distance LPIPS; without lpips_weights there is none.
        lpips_weights: folder with torchvision's VGG16 (vgg16-397923af.pth) and the linear heads of the lpips
            package (vgg.pth).
        adversarial: weight of the discriminator's opinion, in units of the gradient of all other parts; 0 trains none.
            It makes textures crisp at the cost of PSNR.
        adversarial_from: step from which there is a discriminator; reconstructions must be fair by then.
    """

    square: float = 5.0
    gradient: float = 0.5
    gradient_scales: int = 3
    coarse: float = 0.5
    kl: float = 1e-4
    lpips: float = 0.5
    lpips_weights: str | None = None
    adversarial: float = 0.0
    adversarial_from: int = 10_000

    def __post_init__(self) -> None:
        weights = ("square", "gradient", "coarse", "kl", "lpips", "adversarial", "adversarial_from")
        if amiss := [name for name in weights if getattr(self, name) < 0]:
            raise BadInput(f"training.loss.{amiss[0]} is {getattr(self, amiss[0])}: give 0 or more.")
        if self.gradient_scales < 1:
            raise BadInput(f"training.loss.gradient_scales is {self.gradient_scales}: give 1 or more.")


@dataclass(frozen=True)
class VaeTraining:
    """How the VAE is trained.

    Attributes:
        steps: optimiser steps.
        lr: highest learning rate of Muon; linear warm-up, then a cosine to zero.
        warmup: steps of warm-up.
        grad_clip: largest norm of the gradient.
        ema: decay of the averaged weights, which are validated and saved; averages faster in the beginning.
        bf16: compute convolutions in bfloat16; the path of principal components, the distribution of the latents
            and the loss stay in float32.
        loss: weights of the parts of the loss.
        discriminator_lr: learning rate of the discriminator's AdamW.
        discriminator_width: its channels after the first convolution; a multiple of 8.
        discriminator_depth: how often it halves pictures; 2 for crops of less than 32 pixels.
        diverged_at: training stops when the loss, averaged over some 50 steps, is this many times its lowest.
        prepare_threads: threads that prepare the clips of the next steps.
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
    discriminator_lr: float = 2e-4
    discriminator_width: int = 64
    discriminator_depth: int = 3
    diverged_at: float = 4.0
    prepare_threads: int = 1
    validate_every: int = 2000
    checkpoint_every: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        counts = ("steps", "prepare_threads", "validate_every", "checkpoint_every", "discriminator_depth")
        if amiss := [name for name in counts if getattr(self, name) < 1]:
            raise BadInput(f"training.{amiss[0]} is {getattr(self, amiss[0])}: give 1 or more.")
        if not (self.diverged_at > 1 and 0 <= self.ema < 1 and self.grad_clip > 0 and self.lr >= 0):
            raise BadInput(
                "training: diverged_at must be above 1, ema from 0 to below 1, grad_clip above 0 and lr 0 or more."
            )
        if self.loss.adversarial > 0 and self.loss.adversarial_from >= self.steps:
            raise BadInput(
                f"training.loss.adversarial_from {self.loss.adversarial_from} is not before the last of "
                f"{self.steps} steps: no discriminator would be trained. Lower it, or set adversarial to 0."
            )
