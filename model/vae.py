"""The video VAE: pixels to latents 4×8×8 smaller, causal in time, and back.

    vae = load_vae("pipelines/demo/weights/vae")
    z = vae.encode_latents(x)          # x (B, 3, T, H, W) in [-1, 1]  ->  z (B, 16, t, h, w), unit variance
    y = vae.decode_latents(z, like=x)  # back to (B, 3, T, H, W) in [-1, 1]

Latent frame 0 is the first picture alone, latent frame i covers pictures 4i-3 to 4i and sees none after 4i;
so a picture is a clip of one frame, and a clip of 4k+1 frames has k+1 latent frames. Other lengths are
padded by repeating the last frame, other sizes by repeating the bottom and right edges; `like` crops back.

The form is that of Wan 2.1's VAE (arXiv:2503.20314) with the factorised convolutions of LTX-Video and
WF-VAE: blocks of pixels are turned into channels first, which makes it fast on CPUs.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from model.errors import BadInput
from model.vae_blocks import CausalConv3d, ChannelNorm, Past, ResidualBlock, Upsample, patch, unpatch
from model.vae_config import VAEConfig


@dataclass
class Posterior:
    """A diagonal normal distribution over latents: `mean` and `logvar`, each (B, C, t, h, w)."""

    mean: Tensor
    logvar: Tensor

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        noise = torch.randn(
            self.mean.shape, generator=generator, device=self.mean.device, dtype=self.mean.dtype
        )
        return self.mean + torch.exp(0.5 * self.logvar) * noise

    def kl(self) -> Tensor:
        """Mean over all latent values of the KL divergence from a standard normal, in nats."""
        return 0.5 * (self.mean**2 + self.logvar.exp() - 1.0 - self.logvar).mean()


class Encoder(nn.Module):
    """(B, 3, T, H, W) -> mean and log variance (B, 2·channels, t, h, w)."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths = config.widths
        self.patch = config.patch
        self.spatial = config.spatial
        step = (config.temporal, 1, 1)
        self.linear = CausalConv3d(3 * config.spatial**2, config.channels, step, step)
        self.first = CausalConv3d(3 * config.patch**2, widths[0], (1, 3, 3))
        self.blocks = nn.ModuleList()
        for i, width in enumerate(widths):
            self.blocks.extend(ResidualBlock(width, width) for _ in range(config.encoder_depth))
            if i < len(widths) - 1:
                time, space = config.strides()[i]
                kernel = (2 * time - 1, 2 * space - 1, 2 * space - 1)  # 3 where it strides, else 1
                self.blocks.append(CausalConv3d(width, widths[i + 1], kernel, (time, space, space)))
        self.norm = ChannelNorm(widths[-1])
        self.last = CausalConv3d(widths[-1], 2 * config.channels, (1, 3, 3))

    def forward(self, x: Tensor, past: Past | None = None) -> Tensor:
        linear = self.linear(patch(x, self.spatial), past)  # (B, channels, t, h, w)
        x = self.first(patch(x, self.patch))  # (B, widths[0], T, H/patch, W/patch)
        for block in self.blocks:
            x = block(x, past)
        mean, logvar = self.last(F.silu(self.norm(x))).chunk(2, dim=1)
        return torch.cat([mean + linear, logvar], dim=1)  # (B, 2·channels, t, h, w)


class Decoder(nn.Module):
    """(B, channels, t, h, w) -> (B, 3, T, H, W): the encoder's levels in reverse."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths = config.widths
        self.patch = config.patch
        self.linear = Upsample(config.channels, 3, config.temporal, config.spatial)
        self.first = CausalConv3d(config.channels, widths[-1], (1, 3, 3))
        self.blocks = nn.ModuleList()
        for i in reversed(range(len(widths))):
            self.blocks.extend(ResidualBlock(widths[i], widths[i]) for _ in range(config.decoder_depth))
            if i > 0:
                self.blocks.append(Upsample(widths[i], widths[i - 1], *config.strides()[i - 1]))
        self.norm = ChannelNorm(widths[0])
        self.last = CausalConv3d(widths[0], 3 * config.patch**2, (1, 3, 3))

    def forward(self, z: Tensor, past: Past | None = None) -> Tensor:
        x = self.first(z)  # (B, widths[-1], t, h, w)
        for block in self.blocks:
            x = block(x, past)
        return self.linear(z, past) + unpatch(
            self.last(F.silu(self.norm(x))), 1, self.patch
        )  # (B, 3, T, H, W)


class VideoVAE(nn.Module):
    """The whole network. `latent_mean` and `latent_std` are the statistics of the training latents."""

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.register_buffer("latent_mean", torch.zeros(config.channels))
        self.register_buffer("latent_std", torch.ones(config.channels))
        self.to(memory_format=torch.channels_last_3d)

    def encode(self, x: Tensor, chunk: int | None = None) -> Posterior:
        """The posterior of x (B, 3, T, H, W) in [-1, 1], padded as the module says.

        `chunk` latent frames at a time give the same values in the memory of a short clip; null means all.
        """
        if x.ndim != 5 or x.shape[1] != 3 or 0 in x.shape:
            raise BadInput(f"VAE: expected a video of shape (B, 3, T, H, W), got {tuple(x.shape)}.")
        x = self.pad(x).contiguous(memory_format=torch.channels_last_3d)
        if chunk is None:
            moments = self.encoder(x)
        else:
            step, past = chunk * self.config.temporal, Past()
            ends = [1, *range(1 + step, x.shape[2], step), x.shape[2]]
            spans = zip([0, *ends], ends, strict=False)
            moments = torch.cat([self.encoder(x[:, :, a:b], past) for a, b in spans if a < b], dim=2)
        mean, logvar = moments.float().chunk(2, dim=1)
        return Posterior(mean, logvar.clamp(-30.0, 20.0))

    def decode(self, z: Tensor, chunk: int | None = None) -> Tensor:
        """Pixels (B, 3, temporal·(t - 1) + 1, spatial·h, spatial·w) of unnormalised latents, not clamped."""
        z = z.contiguous(memory_format=torch.channels_last_3d)
        if chunk is None:
            return self.decoder(z).float()
        past = Past()
        return torch.cat([self.decoder(part, past) for part in z.split(chunk, dim=2)], dim=2).float()

    def encode_latents(self, x: Tensor, chunk: int | None = None) -> Tensor:
        """x (B, 3, T, H, W) in [-1, 1] -> latents (B, C, t, h, w) of about unit variance per channel."""
        mean = self.encode(x, chunk).mean
        return (mean - self._per_channel(self.latent_mean)) / self._per_channel(self.latent_std)

    def decode_latents(self, z: Tensor, like: Tensor | None = None, chunk: int | None = None) -> Tensor:
        """Latents (B, C, t, h, w) as `encode_latents` gives them -> pixels (B, 3, T, H, W) in [-1, 1].

        Cropped to the frames and size of the video `like`, if given.
        """
        z = z.float() * self._per_channel(self.latent_std) + self._per_channel(self.latent_mean)
        x = self.decode(z, chunk).clamp(-1.0, 1.0)
        return x if like is None else x[:, :, : like.shape[2], : like.shape[3], : like.shape[4]]

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Posterior]:
        """A reconstruction of x from a sampled latent, and the posterior: what training needs."""
        posterior = self.encode(x)
        y = self.decode(posterior.sample(generator))
        return y[:, :, : x.shape[2], : x.shape[3], : x.shape[4]], posterior

    def pad(self, x: Tensor) -> Tensor:
        """Repeat the last frame up to temporal·k+1 frames, bottom and right edges up to a multiple of spatial."""
        _, _, t, h, w = x.shape
        right, bottom, after = (
            -w % self.config.spatial,
            -h % self.config.spatial,
            (1 - t) % self.config.temporal,
        )
        return F.pad(x, (0, right, 0, bottom, 0, after), mode="replicate") if right or bottom or after else x

    def _per_channel(self, statistic: Tensor) -> Tensor:
        return statistic.view(1, -1, 1, 1, 1)


def save_vae(vae: VideoVAE, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
    """Write `config.json` and `model.safetensors`, its weights as `dtype`, into `folder` (made if missing)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(asdict(vae.config), indent=2) + "\n")
    state = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in vae.state_dict().items()}
    save_file(state, folder / "model.safetensors")


def load_vae(folder: str | Path) -> VideoVAE:
    """The VAE that `save_vae` wrote, in evaluation mode on the CPU. Raises BadInput if it is none."""
    folder = Path(folder)
    config_file, weights_file = folder / "config.json", folder / "model.safetensors"
    if not (config_file.is_file() and weights_file.is_file()):
        raise BadInput(
            f"{folder} is no VAE: it lacks config.json or model.safetensors. Give the folder that "
            "`reelmill train-vae` wrote (RUN_DIR/vae)."
        )
    try:
        told = json.loads(config_file.read_text())
        known = {field.name for field in fields(VAEConfig)}
        if unknown := set(told) - known:
            raise BadInput(f"{config_file} has unknown keys {sorted(unknown)}; known are {sorted(known)}.")
        vae = VideoVAE(VAEConfig(**{**told, "widths": tuple(told["widths"])}))
        vae.load_state_dict({name: tensor.float() for name, tensor in load_file(weights_file).items()})
    except (json.JSONDecodeError, KeyError, TypeError, SafetensorError, RuntimeError) as error:
        raise BadInput(f"{folder} holds no usable VAE: {error}. Train or copy it again.") from error
    return vae.eval().requires_grad_(False)


def vae_id(vae: VideoVAE | str | Path) -> str:
    """Name, compression and 8 hex digits of the weights, such as `tiny-4x8x8-1f0c88d2`: a safe folder name.

    Latents of VAEs with different ids must never be mixed.
    """
    if not isinstance(vae, VideoVAE):
        vae = load_vae(vae)
    digest = hashlib.blake2b(json.dumps(asdict(vae.config), sort_keys=True).encode(), digest_size=4)
    for name, tensor in sorted(vae.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    config = vae.config
    name = "".join(c if c.isalnum() else "-" for c in config.name)
    return f"{name}-{config.temporal}x{config.spatial}x{config.spatial}-{digest.hexdigest()}"


def from_pixels(frames: Tensor) -> Tensor:
    """(B, T, H, W, 3) uint8 RGB -> (B, 3, T, H, W) float in [-1, 1]."""
    return frames.permute(0, 4, 1, 2, 3).float() / 127.5 - 1.0


def to_pixels(x: Tensor) -> Tensor:
    """(B, 3, T, H, W) in [-1, 1] -> (B, T, H, W, 3) uint8 RGB; values outside are clamped."""
    return ((x.permute(0, 2, 3, 4, 1).float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
