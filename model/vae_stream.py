"""Clips of any length through the VAE piece by piece: neither all frames nor all latents are ever in memory.

    for z in encode_stream(vae, frames_of_a_film):         # parts (B, t, H, W, 3), any lengths -> (B, C, t', h, w)
        write(z)
    for x in decode_stream(vae, latents_read_back):        # parts (B, C, t', h, w) -> (B, 3, t, H, W) in [-1, 1]
        show(to_pixels(x))

Also as methods of `VideoVAE`. Whatever the parts are, the values are those of the whole clip: parts are cut anew
to chunks of the same number of frames, and the network remembers what it has to. When the stream ends,
the last frame is repeated up to a whole latent frame, as `VideoVAE.pad` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from model.errors import BadInput

if TYPE_CHECKING:
    from model.vae import VideoVAE


def cut_anew(parts: Iterable[Tensor], dim: int, first: int, then: int) -> Iterator[Tensor]:
    """The same frames, along axis `dim`, in chunks of `first`, `then`, `then`, ...; the last one may be shorter.

    Raises BadInput when a part differs from the one before in anything but its length.
    """
    wanted, kept, have = first, list[Tensor](), 0
    for part in parts:
        if kept and _form(part, dim) != _form(kept[-1], dim):
            raise BadInput(
                f"VAE: a part of shape {tuple(part.shape)} and {part.dtype} follows one of {tuple(kept[-1].shape)} "
                f"and {kept[-1].dtype}. All parts of a stream must have the same form but for axis {dim}."
            )
        at = 0
        while have + part.shape[dim] - at >= wanted:
            take = wanted - have
            yield torch.cat([*kept, part.narrow(dim, at, take)], dim)
            # What is left is empty but tells the form of the next part.
            at, wanted, kept, have = at + take, then, [part.narrow(dim, 0, 0).clone()], 0
        if at < part.shape[dim]:
            # A copy, since a view of a few frames would keep all of a long part.
            kept.append(part.narrow(dim, at, part.shape[dim] - at).clone())
            have += part.shape[dim] - at
    if have:
        yield torch.cat(kept, dim)


def _form(part: Tensor, dim: int) -> tuple[object, ...]:
    return part.dtype, *part.shape[:dim], *part.shape[dim + 1 :]


@torch.no_grad()
def encode_stream(
    vae: VideoVAE,
    frames: Iterable[Tensor],
    chunk: int = 4,
    tile: int | None = None,
    overlap: int | None = None,
) -> Iterator[Tensor]:
    """Normalised latents of a stream of parts (B, t, H, W, 3): uint8 RGB, or floats in [-1, 1].

    The first result is one latent frame (B, C, 1, h, w), later ones `chunk` frames, the last the rest.
    `tile` and `overlap` as in `VideoVAE.encode`. Raises BadInput for an empty stream.
    """
    from model.vae import from_pixels

    temporal, device = vae.config.temporal, vae.latent_mean.device
    run = vae.encoder_run(chunk, tile, overlap)
    began = False
    for part in cut_anew(_checked(frames), 1, 1, chunk * temporal):
        part = part.to(device)
        x = from_pixels(part) if part.dtype == torch.uint8 else part.permute(0, 4, 1, 2, 3).float()
        after = -x.shape[2] % temporal if began else 0
        began = True
        yield vae.normalised(vae.posterior(run(vae.pad_by(x, after))).mean)
    if not began:
        raise BadInput(
            "VAE: the stream has no frames. Give at least one part of shape (B, t, H, W, 3), t > 0."
        )


def _checked(frames: Iterable[Tensor]) -> Iterator[Tensor]:
    for part in frames:
        if part.ndim != 5 or part.shape[4] != 3 or 0 in (*part.shape[:1], *part.shape[2:]):
            raise BadInput(f"VAE: expected parts of shape (B, t, H, W, 3), got {tuple(part.shape)}.")
        if part.dtype != torch.uint8 and not part.is_floating_point():
            raise BadInput(f"VAE: expected frames of uint8 or floats in [-1, 1], got {part.dtype}.")
        yield part


@torch.no_grad()
def decode_stream(
    vae: VideoVAE,
    latents: Iterable[Tensor],
    chunk: int = 4,
    tile: int | None = None,
    overlap: int | None = None,
    like: tuple[int, int, int] | None = None,
) -> Iterator[Tensor]:
    """Pixels (B, 3, t, H, W) in [-1, 1] of a stream of normalised latents (B, C, t', h, w), as they come.

    Each result stands for `chunk` latent frames, the last for the rest. `like` is (frames, height, width) of what
    was encoded: repeated frames and edges are then left out. `tile` and `overlap` as in `VideoVAE.decode`.
    """
    run = vae.decoder_run(chunk, tile, overlap)
    left = None if like is None else like[0]
    for part in cut_anew(latents, 2, chunk, chunk):
        x = run(vae.unnormalised(part.to(vae.latent_mean.device))).float().clamp(-1.0, 1.0)
        if like is not None and left is not None:
            x = x[:, :, :left, : like[1], : like[2]]
            left -= x.shape[2]
        if x.shape[2]:
            yield x
