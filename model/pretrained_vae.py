"""Pretrained video VAEs of diffusers (Wan, HunyuanVideo, LTX-Video, CogVideoX) in the place of ours.

    vae = load_pretrained("Wan-AI/Wan2.1-T2V-1.3B-Diffusers")   # or a folder; see model/any_vae.py
    z = vae.encode_latents(x)          # x (B, 3, T, H, W) in [-1, 1]  ->  z (B, C, t, h, w), unit variance
    y = vae.decode_latents(z, like=x)  # back to (B, 3, T, H, W) in [-1, 1]
    pretrained_id(vae)                 # wan-4x8x8-1f0c88d2

As with ours, latent frame 0 stands for the first picture, other lengths are padded by repeating the last picture
and other sizes by repeating the bottom and right edges, and `like` crops back. (HunyuanVideo and CogVideoX normalise
over time: their first latent frame knows a little of what follows.) What they are padded to:

| | pictures | pixels |
|---|---|---|
| Wan 2.1, HunyuanVideo | 4k+1 | 8 x 8 |
| Wan 2.2 (5B) | 4k+1 | 16 x 16 |
| LTX-Video | 8k+1 | 32 x 32 |
| CogVideoX | 8k+1, which are 2k+1 latent frames | 8 x 8 |

Long clips go through Wan and CogVideoX in exact chunks, and through HunyuanVideo in blended ones of 17 pictures;
LTX-Video takes a clip as a whole. Weights are read from safetensors alone.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from model.errors import BadInput
from model.pretrained_kinds import NAMES, config_of, decode, set_tiles, statistics_of
from model.vae import Posterior


class PretrainedVAE(nn.Module):
    """A video VAE of diffusers. `latent_mean` and `latent_std` are what its own pipelines apply."""

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, network: Any) -> None:
        """`network` is an instance of one of the classes in NAMES. Raises BadInput if its config is amiss."""
        super().__init__()
        self.config = config_of(network)
        self.network = network.float().eval().requires_grad_(False)
        mean, std = statistics_of(network)
        self.register_buffer("latent_mean", mean)
        self.register_buffer("latent_std", std)

    def encode(
        self, x: Tensor, chunk: int | None = None, tile: int | None = None, overlap: int | None = None
    ) -> Posterior:
        """The posterior of x (B, 3, T, H, W) in [-1, 1], padded as the module says.

        `tile` pixels at a time in height and in width take less memory, and one clip at a time; neighbours
        share `overlap` pixels, by default a quarter of a tile, in which one fades into the other. The result is
        near that of the whole, not equal to it. `chunk` is for VideoVAE's sake: these have chunks of their own.
        """
        if x.ndim != 5 or x.shape[1] != 3 or 0 in x.shape:
            raise BadInput(f"VAE: expected a video of shape (B, 3, T, H, W), got {tuple(x.shape)}.")
        set_tiles(self.network, tile, overlap, is_encoding=True)
        # The slicing of diffusers fails for decoders that are conditioned on time.
        parts = self.pad(x.float()).split(len(x) if tile is None else 1)
        found = [self.network.encode(part).latent_dist for part in parts]
        return Posterior(torch.cat([one.mean for one in found]), torch.cat([one.logvar for one in found]))

    def decode(
        self, z: Tensor, chunk: int | None = None, tile: int | None = None, overlap: int | None = None
    ) -> Tensor:
        """Pixels (B, 3, temporal·(t - 1) + 1, spatial·h, spatial·w) of unnormalised latents, not clamped by us.

        Where the network takes latent frames in pairs, the last one is repeated and what it makes is dropped.
        `chunk`, `tile` and `overlap` as in `encode`.
        """
        self._check_latents(z)
        set_tiles(self.network, tile, overlap, is_encoding=False)
        t = z.shape[2]
        after = (1 - t) % (self.config.frame_step // self.config.temporal)
        z = torch.cat([z.float(), z[:, :, -1:].float().expand(-1, -1, after, -1, -1)], dim=2)
        x = torch.cat([decode(self.network, part) for part in z.split(len(z) if tile is None else 1)])
        return x[:, :, : self.config.temporal * (t - 1) + 1]

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

        Cropped to the frames and size of the video `like`, if given.
        """
        x = self.decode(self.unnormalised(z), chunk, tile, overlap).clamp(-1.0, 1.0)
        return x if like is None else x[:, :, : like.shape[2], : like.shape[3], : like.shape[4]]

    def normalised(self, mean: Tensor) -> Tensor:
        """Latents of about unit variance per channel, of those that the network gives."""
        return (mean - self._per_channel(self.latent_mean)) / self._per_channel(self.latent_std)

    def unnormalised(self, z: Tensor) -> Tensor:
        """The inverse of `normalised`."""
        self._check_latents(z)
        return z.float() * self._per_channel(self.latent_std) + self._per_channel(self.latent_mean)

    def pad(self, x: Tensor) -> Tensor:
        """Repeat the last frame up to frame_step·k+1 frames, bottom and right edges to a multiple of spatial."""
        _, _, t, h, w = x.shape
        space = self.config.spatial
        right, bottom, after = -w % space, -h % space, (1 - t) % self.config.frame_step
        return F.pad(x, (0, right, 0, bottom, 0, after), mode="replicate") if right or bottom or after else x

    def _check_latents(self, z: Tensor) -> None:
        if z.ndim != 5 or z.shape[1] != self.config.channels or 0 in z.shape:
            raise BadInput(
                f"VAE: expected latents of shape (B, {self.config.channels}, t, h, w), got {tuple(z.shape)}."
            )

    def _per_channel(self, statistic: Tensor) -> Tensor:
        return statistic.view(1, -1, 1, 1, 1)


def pretrained_id(vae: PretrainedVAE) -> str:
    """Kind, compression and 8 hex digits, such as `wan-4x8x8-1f0c88d2`: a safe folder name.

    The digits tell the class, what its config has other than the class's defaults, statistics and weights.
    """
    # Later versions of diffusers add keys: as long as they have their default, the id stays.
    told = {
        name: vae.network.config[name]
        for name, parameter in inspect.signature(type(vae.network).__init__).parameters.items()
        if name in vae.network.config and not _same(vae.network.config[name], parameter.default)
    }
    about = [type(vae.network).__name__, asdict(vae.config), told]
    digest = hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=4)
    for name, tensor in sorted(vae.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    config = vae.config
    return f"{config.name}-{config.temporal}x{config.spatial}x{config.spatial}-{digest.hexdigest()}"


def _same(value: Any, default: Any) -> bool:
    """Whether two values of a config are the same in JSON, which has no tuples."""
    return json.loads(json.dumps(value)) == json.loads(json.dumps(default))


def class_name(folder: Path) -> str | None:
    """What diffusers wrote into the config.json of a folder; null if there is none, or it is not diffusers'."""
    try:
        told = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return None
    return str(told["_class_name"]) if isinstance(told, dict) and "_class_name" in told else None


def load_pretrained(place: Path | str) -> PretrainedVAE:
    """The VAE in a folder, or of the model that the hub calls `place`: there in `vae/`, or by itself.

    In evaluation mode on the CPU, in float32. Raises BadInput if it cannot be had or used.
    """
    try:
        with _quiet():
            vae = PretrainedVAE(_network(place))
            _check(vae)
    except BadInput as error:
        raise BadInput(f"{place} holds no usable VAE: {error}") from error
    except ImportError as error:
        raise BadInput(f"{place} needs diffusers, which is not installed here ({error}).") from error
    # The hub's errors are OSErrors.
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, AttributeError, SafetensorError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise BadInput(
            f"{place} holds no usable VAE ({reason}). A folder must hold config.json and safetensors as "
            "save_pretrained writes them; on a machine without the hub, give a folder."
        ) from error
    return vae


def _network(place: Path | str) -> Any:
    """The network of diffusers in a folder or on the hub, with all its weights."""
    import diffusers

    subfolder, name = _find(place) if isinstance(place, str) else (None, class_name(place))
    if name not in NAMES:
        raise BadInput(f"it is of class {name}; pretrained VAEs must be one of {', '.join(NAMES)}.")
    network, info = getattr(diffusers, name).from_pretrained(
        str(place),
        subfolder=subfolder,
        torch_dtype=torch.float32,
        use_safetensors=True,
        output_loading_info=True,
    )
    if amiss := [f"{kind} {sorted(map(str, keys))[:3]}" for kind, keys in info.items() if keys]:
        raise BadInput(f"its weights do not fit its config.json ({'; '.join(amiss)}). Copy it again.")
    return network


@contextmanager
def _quiet() -> Iterator[None]:
    """What diffusers warns of while it loads becomes one message of ours, or is no matter."""
    from diffusers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(level)


def _find(name: str) -> tuple[str | None, str]:
    """Subfolder and class of the VAE of a model on the hub. Raises OSError if there is none."""
    from diffusers import AutoencoderKLWan

    try:
        return "vae", str(AutoencoderKLWan.load_config(name, subfolder="vae").get("_class_name"))
    except OSError:
        return None, str(AutoencoderKLWan.load_config(name).get("_class_name"))


@torch.inference_mode()
def _check(vae: PretrainedVAE) -> None:
    """Raises BadInput if the layers do not compress as the config says: a config may tell anything."""
    config = vae.config
    x = torch.zeros(1, 3, 1 + config.frame_step, config.spatial, config.spatial)
    z = vae.encode(x).mean
    if z.shape != (1, config.channels, 1 + config.frame_step // config.temporal, 1, 1):
        raise BadInput(
            f"it makes latents {tuple(z.shape)} of {tuple(x.shape)}: not what its config.json says."
        )
    if (y := vae.decode(z)).shape != x.shape:
        raise BadInput(
            f"it makes {tuple(y.shape)} of latents of {tuple(x.shape)}: not what its config.json says."
        )
