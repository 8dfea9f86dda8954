"""Latents <-> tokens: a clip of any size becomes a row of spacetime patches, and back.

    tokens = patchify(latent, (1, 2, 2))                 # (C, t, h, w) -> (n, C·4)
    latent = unpatchify(tokens, (C, t, h, w), (1, 2, 2))

Tokens run through time first, then rows, then columns; a token holds its values in the order (C, pt, ph, pw),
as a strided 3D convolution would read them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from model.errors import BadInput

Size = tuple[int, int, int]


def grid(size: Size, patch: Size) -> Size:
    """Tokens along time, rows and columns of a latent of `size` (t, h, w). Raises BadInput if it has rest."""
    if any(n < 1 or n % p for n, p in zip(size, patch, strict=True)):
        raise BadInput(
            f"a latent of (t, h, w) = {size} cannot be cut into patches of {patch}: each side must be a multiple. "
            "With patches of 2x2 and a VAE of 8x8, the video's sides must be multiples of 16 pixels."
        )
    t, h, w = (n // p for n, p in zip(size, patch, strict=True))
    return t, h, w


def patchify(latent: Tensor, patch: Size) -> Tensor:
    """(C, t, h, w) -> (n, C·pt·ph·pw)."""
    c, t, h, w = latent.shape
    nt, nh, nw = grid((t, h, w), patch)
    pt, ph, pw = patch
    x = latent.reshape(c, nt, pt, nh, ph, nw, pw).permute(1, 3, 5, 0, 2, 4, 6)  # (nt, nh, nw, C, pt, ph, pw)
    return x.reshape(nt * nh * nw, c * pt * ph * pw)


def unpatchify(tokens: Tensor, shape: tuple[int, int, int, int], patch: Size) -> Tensor:
    """(n, C·pt·ph·pw) -> `shape` (C, t, h, w); the inverse of `patchify`."""
    c, t, h, w = shape
    nt, nh, nw = grid((t, h, w), patch)
    pt, ph, pw = patch
    x = tokens.reshape(nt, nh, nw, c, pt, ph, pw).permute(3, 0, 4, 1, 5, 2, 6)  # (C, nt, pt, nh, ph, nw, pw)
    return x.reshape(c, t, h, w)


def positions(size: Size, patch: Size, frame_step: float = 1.0) -> Tensor:
    """Place of each token of a latent of `size` (t, h, w), as (n, 3) floats: time, row, column.

    Latent frame i stands at time i·frame_step, so that clips of other frame rates keep their seconds
    (frame_step = reference fps / fps). Rows and columns count tokens.
    """
    nt, nh, nw = grid(size, patch)
    times = torch.arange(nt, dtype=torch.float32) * (patch[0] * frame_step)
    rows, columns = torch.arange(nh, dtype=torch.float32), torch.arange(nw, dtype=torch.float32)
    return torch.stack(torch.meshgrid(times, rows, columns, indexing="ij"), dim=-1).reshape(-1, 3)


PLACE_WAVES = 8
PLACE_FEATURES = 2 * PLACE_WAVES + 1


def places(size: Size, patch: Size) -> Tensor:
    """What each token may know of its place, as (n, PLACE_FEATURES): the same at every resolution.

    cos(k·π·u) for k = 1 to 8, u being the fraction of the height (then of the width) at which the token's middle
    stands, as in NaViT (arXiv:2307.06304); then 1 in the first latent frame, which a causal VAE codes by itself.
    """
    nt, nh, nw = grid(size, patch)
    waves = math.pi * torch.arange(1, PLACE_WAVES + 1)
    rows, columns = (torch.cos(((torch.arange(n) + 0.5) / n)[:, None] * waves) for n in (nh, nw))
    return torch.cat(
        [
            rows[None, :, None].expand(nt, nh, nw, -1),
            columns[None, None].expand(nt, nh, nw, -1),
            (torch.arange(nt) == 0).float()[:, None, None, None].expand(nt, nh, nw, 1),
        ],
        dim=-1,
    ).reshape(-1, PLACE_FEATURES)
