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
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from model.errors import BadInput
from model.fsq import FSQ
from model.vae_config import VAEConfig
from model.vae_networks import Decoder, Encoder, Posterior
from model.vae_stream import cut_anew, decode_stream, encode_stream
from model.vae_tiles import TiledRun, plan_tiles


class VideoVAE(nn.Module):
    """The whole network. `latent_mean` and `latent_std` are the statistics of the training latents."""

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.fsq = FSQ(config.levels) if config.bottleneck == "fsq" else None
        self.register_buffer("latent_mean", torch.zeros(config.channels))
        self.register_buffer("latent_std", torch.ones(config.channels))
        self.to(memory_format=torch.channels_last_3d)

    def encode(
        self, x: Tensor, chunk: int | None = None, tile: int | None = None, overlap: int | None = None
    ) -> Posterior:
        """The posterior of x (B, 3, T, H, W) in [-1, 1], padded as the module says.

        `chunk` latent frames at a time give the same values in the memory of a short clip; null means all.
        `tile` pixels at a time, in height and in width, give those of a large picture in the memory of a
        small one; neighbours share `overlap` pixels, by default what makes them exact, at most half a tile.
        """
        if x.ndim != 5 or x.shape[1] != 3 or 0 in x.shape:
            raise BadInput(f"VAE: expected a video of shape (B, 3, T, H, W), got {tuple(x.shape)}.")
        x, run = self.pad(x), self.encoder_run(chunk, tile, overlap)
        parts = [x] if chunk is None else cut_anew([x], 2, 1, chunk * self.config.temporal)
        return self.posterior(torch.cat([run(part) for part in parts], dim=2))

    def decode(
        self, z: Tensor, chunk: int | None = None, tile: int | None = None, overlap: int | None = None
    ) -> Tensor:
        """Pixels (B, 3, temporal·(t - 1) + 1, spatial·h, spatial·w) of unnormalised latents, not clamped.

        `chunk`, `tile` and `overlap` as in `encode`.
        """
        run = self.decoder_run(chunk, tile, overlap)
        parts = [z] if chunk is None else cut_anew([z], 2, chunk, chunk)
        return torch.cat([run(part) for part in parts], dim=2).float()

    def encode_latents(
        self, x: Tensor, chunk: int | None = None, tile: int | None = None, overlap: int | None = None
    ) -> Tensor:
        """x (B, 3, T, H, W) in [-1, 1] -> latents (B, C, t, h, w) of about unit variance per channel."""
        return self.normalised(self.encode(x, chunk, tile, overlap).mean)

    def decode_latents(
        self,
        z: Tensor,
        like: Tensor | None = None,
        chunk: int | None = None,
        tile: int | None = None,
        overlap: int | None = None,
    ) -> Tensor:
        """Latents (B, C, t, h, w) as `encode_latents` gives them -> pixels (B, 3, T, H, W) in [-1, 1].

        Cropped to the frames and size of the video `like`, if given. With codes, the nearest ones are decoded.
        """
        x = self.decode(self.unnormalised(z), chunk, tile, overlap).clamp(-1.0, 1.0)
        return x if like is None else x[:, :, : like.shape[2], : like.shape[3], : like.shape[4]]

    def encode_stream(
        self, frames: Iterable[Tensor], chunk: int = 4, tile: int | None = None, overlap: int | None = None
    ) -> Iterator[Tensor]:
        """Latents of parts (B, t, H, W, 3), uint8 or in [-1, 1], as they come; see `model.vae_stream`."""
        return encode_stream(self, frames, chunk, tile, overlap)

    def decode_stream(
        self,
        latents: Iterable[Tensor],
        chunk: int = 4,
        tile: int | None = None,
        overlap: int | None = None,
        like: tuple[int, int, int] | None = None,
    ) -> Iterator[Tensor]:
        """Pixels (B, 3, t, H, W) of parts of latents (B, C, t', h, w), as they come; see `model.vae_stream`."""
        return decode_stream(self, latents, chunk, tile, overlap, like)

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Posterior]:
        """A reconstruction of x from a sampled latent, and the posterior: what training needs."""
        posterior = self.encode(x)
        y = self.decode(posterior.sample(generator))
        return y[:, :, : x.shape[2], : x.shape[3], : x.shape[4]], posterior

    def encoder_run(self, chunk: int | None, tile: int | None, overlap: int | None) -> TiledRun:
        """The encoder over the chunks of one clip, to be called for each in turn."""
        spatial = self.config.spatial
        reach = -(-max(self.encoder.reach()) // spatial)
        tiling = None if tile is None else plan_tiles(tile, overlap, spatial, reach)
        return TiledRun(self.encoder, tiling, into=(spatial, 1), chunks=_checked(chunk))

    def decoder_run(self, chunk: int | None, tile: int | None, overlap: int | None) -> TiledRun:
        """The decoder over the chunks of one clip, to be called for each in turn."""
        spatial = self.config.spatial
        tiling = None if tile is None else plan_tiles(tile, overlap, spatial, self.decoder.reach())
        return TiledRun(self.decoder, tiling, into=(1, spatial), chunks=_checked(chunk))

    def posterior(self, moments: Tensor) -> Posterior:
        """What the encoder's output says: a distribution, or codes."""
        if self.fsq is not None:
            return Posterior(self.fsq(moments.float()), None)
        mean, logvar = moments.float().chunk(2, dim=1)
        return Posterior(mean, logvar.clamp(-30.0, 20.0))

    def normalised(self, mean: Tensor) -> Tensor:
        """Latents of about unit variance per channel, of those that the encoder gives."""
        return (mean - self._per_channel(self.latent_mean)) / self._per_channel(self.latent_std)

    def unnormalised(self, z: Tensor) -> Tensor:
        """The inverse of `normalised`; with codes, the nearest ones."""
        z = z.float() * self._per_channel(self.latent_std) + self._per_channel(self.latent_mean)
        return z if self.fsq is None else self.fsq.nearest(z)

    def pad(self, x: Tensor) -> Tensor:
        """Repeat the last frame up to temporal·k+1 frames, bottom and right edges up to a multiple of spatial."""
        return self.pad_by(x, (1 - x.shape[2]) % self.config.temporal)

    def pad_by(self, x: Tensor, after: int) -> Tensor:
        """Repeat the last frame `after` times, bottom and right edges up to a multiple of spatial."""
        right, bottom = -x.shape[4] % self.config.spatial, -x.shape[3] % self.config.spatial
        return F.pad(x, (0, right, 0, bottom, 0, after), mode="replicate") if right or bottom or after else x

    def _per_channel(self, statistic: Tensor) -> Tensor:
        return statistic.view(1, -1, 1, 1, 1)


def _checked(chunk: int | None) -> bool:
    """Whether there are chunks. Raises BadInput where they have no frames."""
    if chunk is not None and chunk < 1:
        raise BadInput(
            f"VAE: chunks of {chunk} latent frames hold nothing. Give 1 or more, or null for the whole."
        )
    return chunk is not None


def save_vae(vae: VideoVAE, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
    """Write `config.json` and `model.safetensors`, its weights as `dtype`, into `folder` (made if missing)."""
    folder = Path(folder)
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    (temporary / "config.json").write_text(json.dumps(vae.config.told(), indent=2) + "\n")
    state = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in vae.state_dict().items()}
    save_file(state, temporary / "model.safetensors")
    folder.mkdir(exist_ok=True)
    for name in ("model.safetensors", "config.json"):  # each whole or as before
        os.replace(temporary / name, folder / name)
    temporary.rmdir()


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
        shape: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in told.items()}
        vae = VideoVAE(VAEConfig(**shape))
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
    digest = hashlib.blake2b(json.dumps(vae.config.told(), sort_keys=True).encode(), digest_size=4)
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
