"""Latents <-> tokens: a clip of any size becomes a row of spacetime patches, and back.

    tokens = patchify(latent, (1, 2, 2))                 # (C, t, h, w) -> (n, C·4)
    latent = unpatchify(tokens, (C, t, h, w), (1, 2, 2))

Tokens run through time first, then rows, then columns; a token holds its values in the order (C, pt, ph, pw),
as a strided 3D convolution would read them.

Patches of several latent frames (tubelets, ViViT, arXiv:2103.15691) follow the VAE, whose first latent frame is one
picture alone: the first token in time is latent frame 0 alone, the i-th is frames pt·(i-1)+1 to pt·i. So a picture
is a clip of one frame here too, and a given first picture is a token of its own. Frame 0 is repeated to fill its
token, and so is the last frame where the rest is no multiple of pt; `unpatchify` drops the copies.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from model.errors import BadInput

Size = tuple[int, int, int]


def grid(size: Size, patch: Size) -> Size:
    """Tokens along time, rows and columns of a latent of `size` (t, h, w); any t ≥ 1 will do.

    Raises BadInput for rows and columns that the patch does not divide.
    """
    (t, h, w), (pt, ph, pw) = size, patch
    if min(size) < 1 or h % ph or w % pw:
        raise BadInput(
            f"a latent of (t, h, w) = {size} cannot be cut into patches of {patch}: h must be a multiple of {ph} and "
            f"w of {pw}. With patches of 2x2 and a VAE of 8x8, the video's sides must be multiples of 16 pixels."
        )
    return 1 + -(-(t - 1) // pt), h // ph, w // pw


def patchify(latent: Tensor, patch: Size) -> Tensor:
    """(C, t, h, w) -> (n, C·pt·ph·pw)."""
    c, t, h, w = latent.shape
    nt, nh, nw = grid((t, h, w), patch)
    pt, ph, pw = patch
    x = _by_token(latent.transpose(0, 1), pt)  # (nt, pt, C, h, w)
    x = x.reshape(nt, pt, c, nh, ph, nw, pw).permute(0, 3, 5, 2, 1, 4, 6)  # (nt, nh, nw, C, pt, ph, pw)
    return x.reshape(nt * nh * nw, c * pt * ph * pw)


def unpatchify(tokens: Tensor, shape: tuple[int, int, int, int], patch: Size) -> Tensor:
    """(n, C·pt·ph·pw) -> `shape` (C, t, h, w); the inverse of `patchify`."""
    c, t, h, w = shape
    nt, nh, nw = grid((t, h, w), patch)
    pt, ph, pw = patch
    x = tokens.reshape(nt, nh, nw, c, pt, ph, pw).permute(3, 0, 4, 1, 5, 2, 6)  # (C, nt, pt, nh, ph, nw, pw)
    return x.reshape(c, nt * pt, h, w)[:, pt - 1 : pt - 1 + t]


def whole_tokens(is_given: Tensor, pt: int) -> Tensor:
    """(nt,) bool: the tokens in time all of whose latent frames `is_given` (t,) marks."""
    return _by_token(is_given, pt).all(dim=1)


def whole_frames(is_given: Tensor, pt: int) -> Tensor:
    """(t,) bool: of the latent frames that `is_given` (t,) marks, those whose whole token is marked.

    Given frames must be such frames: a token has one noise level.
    """
    return whole_tokens(is_given, pt).repeat_interleave(pt)[pt - 1 : pt - 1 + len(is_given)]


def _by_token(frames: Tensor, pt: int) -> Tensor:
    """Latent frames (t, ...) -> (nt, pt, ...), with copies of the first and the last where a token lacks frames."""
    if pt > 1:
        copies = [1] * len(frames)
        copies[0] += pt - 1
        copies[-1] += (1 - len(frames)) % pt
        frames = frames.repeat_interleave(torch.tensor(copies, device=frames.device), dim=0)
    return frames.unflatten(0, (-1, pt))


def cells(size: Size, patch: Size, first: int = 0) -> Tensor:
    """Where in a clip's grid of tokens each token of a latent of `size` stands, (n, 3) int64: time, row, column.

    The latent's first frame stands at latent frame `first` of the clip.
    """
    nt, nh, nw = (torch.arange(n) for n in grid(size, patch))
    nt += -(-first // patch[0])
    return torch.stack(torch.meshgrid(nt, nh, nw, indexing="ij"), dim=-1).reshape(-1, 3)


def positions(size: Size, patch: Size, frame_step: float = 1.0, first: int = 0) -> Tensor:
    """Place of each token of a latent of `size` (t, h, w), as (n, 3) floats: time, row, column.

    Latent frame i stands at time (first + i)·frame_step, so that clips of other frame rates keep their seconds
    (frame_step = reference fps / fps); a token of several frames stands at its last. Rows and columns count tokens.
    """
    nt, nh, nw = grid(size, patch)
    times = (first + patch[0] * torch.arange(nt, dtype=torch.float32)) * frame_step
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
