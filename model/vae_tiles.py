"""Large pictures in tiles: where they lie, how they are joined, and what each remembers of earlier chunks.

    tiling = plan_tiles(tile=256, overlap=None, spatial=8, reach=7)      # pixels, pixels, pixels per latent, latents
    run = TiledRun(vae.decoder, tiling, into=(1, 8))
    y = torch.cat([run(part) for part in z.split(2, dim=2)], dim=2)      # chunks in time, tiles in space

Neighbours overlap. Where the overlap is at least twice the reach of the network, each tile gives the values up to
the middle of the overlap, and these are those of the whole. Where it is less, the middle quarter is mixed linearly:
what lies beyond a tile's border is missing, but its influence falls fast with distance. With the shipped weights and
tiles of 96 pixels that share 48, pixels differ by at most 0.02 of a range of 2, and by 1e-4 on average.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise, product

import torch
from torch import Tensor

from model.errors import BadInput
from model.vae_blocks import Past


@dataclass(frozen=True)
class Tiling:
    """Tiles of `tile` × `tile` latents of which neighbours share at least `overlap`.

    They are mixed over `ramp` latents (0: cut). `exact` tells that, joined, they equal the whole to float rounding.
    """

    tile: int
    overlap: int
    ramp: float
    exact: bool

    def spans(self, size: int) -> list[Span]:
        """The tiles along an axis of `size` latents: all of the same length, evenly spread, covering it."""
        if size <= self.tile:
            return [Span(0, size, None, None)]
        count = -(-(size - self.overlap) // (self.tile - self.overlap))
        starts = [(size - self.tile) * i // (count - 1) for i in range(count)]
        cuts = [(left + self.tile + right) / 2 for left, right in pairwise(starts)]
        return [
            Span(start, start + self.tile, before, after)
            for start, before, after in zip(starts, [None, *cuts], [*cuts, None], strict=True)
        ]


@dataclass(frozen=True)
class Span:
    """Latents `start` to `end` along an axis, of which those from `before` to `after` count (null: the border)."""

    start: int
    end: int
    before: float | None
    after: float | None

    def weight(self, into: int, ramp: float, like: Tensor) -> Tensor:
        """The share of this tile in each of its values, (into·(end - start),); over all tiles they add up to 1."""
        place = torch.arange(self.start * into, self.end * into, dtype=torch.float64) + 0.5
        share = torch.ones_like(place)
        for cut, sign in ((self.before, 1.0), (self.after, -1.0)):
            if cut is not None:
                away = sign * (place - cut * into)
                # Values in the very middle belong to the earlier tile.
                step = (away > 0 if sign > 0 else away >= 0).double()
                share *= (away / (ramp * into) + 0.5).clamp(0.0, 1.0) if ramp else step
        return share.to(like)


def plan_tiles(tile: int, overlap: int | None, spatial: int, reach: int) -> Tiling:
    """Tiles of `tile` pixels for a network that sees `reach` latents to each side, with latents of `spatial` pixels.

    Without `overlap` (in pixels) they share what makes them exact, but no more than half a tile.
    Raises BadInput for sizes that are no multiple of `spatial`, and for an overlap as large as the tile.
    """
    if tile < 2 * spatial or tile % spatial:
        raise BadInput(
            f"VAE: a tile of {tile} pixels does not fit latents of {spatial}. Give a multiple of {spatial}, "
            f"at least {2 * spatial}; from {4 * spatial * reach} on tiles equal the whole."
        )
    if overlap is None:
        shared = min(2 * reach, tile // spatial // 2)
    elif 0 <= overlap < tile and overlap % spatial == 0:
        shared = overlap // spatial
    else:
        raise BadInput(
            f"VAE: an overlap of {overlap} pixels does not fit tiles of {tile}. Give a multiple of {spatial} "
            f"below {tile}; {2 * spatial * reach} makes tiles equal the whole."
        )
    exact = shared >= 2 * reach
    # Mixed near the middle only: what a tile misses matters five times as much for every 8 pixels farther out.
    # Ramps of consecutive cuts must not meet: those are at least half of what a tile has alone apart.
    ramp = 0.0 if exact or not shared else max(1.0, min(shared / 4, (tile // spatial - shared) / 2))
    return Tiling(tile // spatial, shared, ramp, exact)


class TiledRun:
    """A causal network over the chunks of one clip, tile by tile, each tile with what it remembers of earlier ones.

    Args:
        network: (chunk, past) -> output, such as `Encoder` and `Decoder`.
        tiling: null for the whole at once.
        into: values per latent, in height and in width, of the input and of the output.
        chunks: whether more than one chunk comes; if not, nothing is remembered.
    """

    def __init__(
        self,
        network: Callable[[Tensor, Past | None], Tensor],
        tiling: Tiling | None,
        into: tuple[int, int],
        chunks: bool = True,
    ) -> None:
        self._network, self._tiling, self._into, self._chunks = network, tiling, into, chunks
        self._pasts: dict[int, Past] = {}

    def __call__(self, x: Tensor) -> Tensor:
        """The network's output for the next chunk x (B, C, T, H, W) of the clip."""
        read, write = self._into
        if self._tiling is None:
            return self._part(0, x)
        rows, columns = self._tiling.spans(x.shape[3] // read), self._tiling.spans(x.shape[4] // read)
        if len(rows) * len(columns) == 1:
            return self._part(0, x)
        whole: Tensor | None = None
        for number, (row, column) in enumerate(product(rows, columns)):
            tile = x[..., row.start * read : row.end * read, column.start * read : column.end * read]
            y = self._part(number, tile).float()  # shares would not add up to 1 in 16 bits
            if whole is None:
                height, width = x.shape[3] // read * write, x.shape[4] // read * write
                whole = y.new_zeros(*y.shape[:3], height, width)
            share = row.weight(write, self._tiling.ramp, y)[:, None]
            share = share * column.weight(write, self._tiling.ramp, y)  # (rows of y, columns of y)
            whole[..., row.start * write : row.end * write, column.start * write : column.end * write] += (
                y * share
            )
        assert whole is not None
        return whole

    def _part(self, number: int, x: Tensor) -> Tensor:
        past = self._pasts.setdefault(number, {}) if self._chunks else None
        return self._network(x.contiguous(memory_format=torch.channels_last_3d), past)
