"""Pieces: what the model draws at a time. Pictures given for them become latents, and their latents pictures again.

piece = Piece(frames=17, given=(Given(0, first_nine),))
request = to_request(piece, vae, form, text, seed=0)     # for model/sampler.py
pictures = to_pictures(latent, piece, vae)               # (17, H, W, 3) uint8; the first nine as they were given

What is given for the beginning becomes the clip's own first latent frames. What is given for a later place is
encoded as a clip by itself, a span. Either way as many of the given pictures as fit the grid of latent frames are
seen by the model; all of them are in the result, with their own pixels. Of a VAE that is not causal a beginning is
no part of the clip's latents: its first picture is a span too, and so is the last one that fits the grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from model.any_vae import AnyVAE
from model.pack import Span
from model.sampler import Request
from model.vae import VideoVAE, from_pixels, to_pixels

if TYPE_CHECKING:
    from pipelines.sample_format import Format

#: Latent frames that the VAE takes at a time.
CHUNK = 8


@dataclass(frozen=True)
class Given:
    """Pictures given for a place in a piece.

    Attributes:
        at: number of the first one.
        pictures: (T, H, W, 3) uint8 RGB.
    """

    at: int
    pictures: np.ndarray


@dataclass(frozen=True)
class Piece:
    """One clip to draw, in pictures.

    Attributes:
        frames: how many pictures.
        given: those that are given.
        start: (frames, H, W, 3) pictures to start from instead of noise alone, or null.
        strength: with `start`, how much noise they get first: 1 is noise alone.
    """

    frames: int
    given: tuple[Given, ...] = ()
    start: np.ndarray | None = None
    strength: float = 1.0


def seen(at: int, count: int, form: Format) -> tuple[int, int] | None:
    """First picture and number of pictures that the model sees of `count` given from number `at` on.

    From the beginning: the first 4k+1 (for a VAE of 4 pictures to a latent frame). Elsewhere: from the first whose
    number is a multiple of 4, and again 4k+1. Null where there is none. Where the VAE is not causal, a beginning is its
    first picture alone: training shows no more at that place (train/conditions.py).
    """
    first = -(-at // form.temporal) * form.temporal
    left = at + count - first
    if left <= 0:
        return None
    return first, form.given(left) if first or form.is_causal else 1


def seen_of(piece: Piece, form: Format) -> list[tuple[Given, int, int]]:
    """What the model sees of a piece's given pictures: of whom, first picture and number of pictures (`seen`)."""
    found = []
    for given in piece.given:
        if (place := seen(given.at, len(given.pictures), form)) is not None:
            found.append((given, *place))
        last = (len(given.pictures) - 1) // form.temporal * form.temporal
        if given.at == 0 and last and not form.is_causal:
            found.append((given, last, 1))
    return found


def to_request(
    piece: Piece, vae: AnyVAE, form: Format, text: Tensor | None, seed: int, tile: int | None = None
) -> Request:
    """What `model.sampler.sample` is asked for. Given pictures between two latent frames are left to `to_pictures`.

    `tile` as in `VideoVAE.encode`.
    """
    size = form.latent_size(piece.frames)
    known, is_known, spans = None, None, []
    for given, first, count in seen_of(piece, form):
        latent = encode(vae, given.pictures[first - given.at :][:count], tile)
        if first == 0 and form.is_causal:
            known = torch.zeros(latent.shape[0], *size)
            known[:, : latent.shape[1]] = latent
            is_known = torch.arange(size[0]) < latent.shape[1]
        else:
            spans.append(Span(latent, first // form.temporal))
    start = None if piece.start is None else encode(vae, piece.start, tile)[:, : size[0]]
    return Request(size, form.fps, text, seed, known, is_known, tuple(spans), start, piece.strength)


def check_tile(vae: AnyVAE, tile: int | None) -> None:
    """Raise BadInput for tiles that do not fit the VAE."""
    if tile is not None:
        latent = encode(vae, np.zeros((1, vae.config.spatial, vae.config.spatial, 3), np.uint8), tile)
        to_pictures(latent, Piece(1), vae, tile)


@torch.inference_mode()
def encode(vae: AnyVAE, pictures: np.ndarray, tile: int | None = None) -> Tensor:
    """Pictures (T, H, W, 3) uint8 -> latent (C, t, h, w) on the CPU."""
    x = torch.from_numpy(np.require(pictures, requirements=["C", "W"]))[None]
    return vae.encode_latents(from_pixels(x.to(vae.latent_mean.device)), chunk=CHUNK, tile=tile)[0].cpu()


@torch.inference_mode()
def to_pictures(latent: Tensor, piece: Piece, vae: AnyVAE, tile: int | None = None) -> np.ndarray:
    """Latent (C, t, h, w) -> (frames, H, W, 3) uint8, the given pictures in their places; `tile` as in `encode`."""
    z = latent[None].to(vae.latent_mean.device)
    # Pretrained VAEs decode long clips in chunks of their own.
    parts = (
        vae.decode_stream([z], chunk=CHUNK, tile=tile)
        if isinstance(vae, VideoVAE)
        else iter([vae.decode_latents(z, tile=tile)])
    )
    pictures = np.concatenate([to_pixels(part)[0].cpu().numpy() for part in parts])[: piece.frames]
    for given in piece.given:
        room = pictures[given.at : given.at + len(given.pictures)]
        room[:] = given.pictures[: len(room)]
    return pictures
