"""Attention over clips packed one after another: a clip's tokens see their own clip only.

    layout = Layout(lengths, lengths)                    # self-attention of clips of these lengths
    y = attention(q, k, v, layout)                       # (S, H, d), S = sum of lengths

    layout = Layout(lengths, text_lengths)               # cross-attention: clip i sees text i

On CUDA in half precision this is one FlashAttention kernel for variable lengths (torch.nn.attention.varlen).
Elsewhere clips of equal length go through one call of scaled_dot_product_attention together; texts of
different lengths are then padded behind a mask, which is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class _Group:
    """Clips of one query length: which rows of q, k and v are theirs.

    A slice where the rows follow each other, else indices (clips · length). `mask` (clips, 1, 1, keys) is
    false at padding; None where no text of the group is shorter than another.
    """

    clips: int
    queries: slice | Tensor
    keys: slice | Tensor
    mask: Tensor | None


class Layout:
    """Where each clip's queries and keys lie in a pack; made once per pack, used by every block."""

    def __init__(
        self, query_lengths: tuple[int, ...], key_lengths: tuple[int, ...], device: torch.device | str = "cpu"
    ) -> None:
        """Clip i has query_lengths[i] ≥ 1 rows of q and key_lengths[i] ≥ 1 rows of k and v, in order."""
        if len(query_lengths) != len(key_lengths) or min((*query_lengths, *key_lengths), default=0) < 1:
            raise ValueError(f"a pack needs one length of at least 1 each: {query_lengths}, {key_lengths}")
        self.device = torch.device(device)
        self.query_starts = list(accumulate(query_lengths, initial=0))
        self.key_starts = list(accumulate(key_lengths, initial=0))
        self.query_lengths, self.key_lengths = query_lengths, key_lengths
        if self.device.type == "cuda":
            self.query_offsets = torch.tensor(self.query_starts, dtype=torch.int32, device=device)
            self.key_offsets = torch.tensor(self.key_starts, dtype=torch.int32, device=device)
        self._groups: list[_Group] | None = None
        self._order: Tensor | None = None

    def groups(self) -> tuple[list[_Group], Tensor | None]:
        """Clips by query length, and the order that brings the groups' rows back (None: they are in order)."""
        if self._groups is None:
            by_length: dict[int, list[int]] = {}
            for clip, length in enumerate(self.query_lengths):
                by_length.setdefault(length, []).append(clip)
            self._groups = [self._group(clips) for clips in by_length.values()]
            clips = [clip for members in by_length.values() for clip in members]
            if clips != sorted(clips):
                rows = _rows(clips, self.query_starts, self.query_lengths, None)
                self._order = torch.argsort(torch.cat(rows)).to(self.device)
        return self._groups, self._order

    def _group(self, clips: list[int]) -> _Group:
        longest = max(self.key_lengths[clip] for clip in clips)
        mask = None
        if any(self.key_lengths[clip] < longest for clip in clips):
            lengths = torch.tensor([self.key_lengths[clip] for clip in clips])
            mask = (torch.arange(longest) < lengths[:, None])[:, None, None].to(self.device)
        return _Group(
            clips=len(clips),
            queries=self._index(_rows(clips, self.query_starts, self.query_lengths, None)),
            keys=self._index(_rows(clips, self.key_starts, self.key_lengths, longest)),
            mask=mask,
        )

    def _index(self, rows: list[Tensor]) -> slice | Tensor:
        index = torch.cat(rows)
        first, last = int(index[0]), int(index[-1])
        if torch.equal(index, torch.arange(first, first + len(index))):
            return slice(first, last + 1)
        return index.to(self.device)


def _rows(clips: list[int], starts: list[int], lengths: tuple[int, ...], padded: int | None) -> list[Tensor]:
    """The rows of each clip; beyond its length, up to `padded`, its last row is repeated."""
    return [
        starts[clip] + torch.arange(padded or lengths[clip]).clamp(max=lengths[clip] - 1) for clip in clips
    ]


def attention(q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
    """softmax(q·kᵀ / √d)·v within each clip: q (S, H, d), k and v (L, H, d) -> (S, H, d)."""
    if q.is_cuda and q.dtype in (torch.float16, torch.bfloat16):
        from torch.nn.attention.varlen import varlen_attn

        longest = max(layout.query_lengths), max(layout.key_lengths)
        return cast(Tensor, varlen_attn(q, k, v, layout.query_offsets, layout.key_offsets, *longest))
    groups, order = layout.groups()
    done = [_attend(q[g.queries], k[g.keys], v[g.keys], g) for g in groups]
    y = done[0] if len(done) == 1 else torch.cat(done)
    return y if order is None else y[order]


def _attend(q: Tensor, k: Tensor, v: Tensor, group: _Group) -> Tensor:
    """The clips of a group as one batch: q (clips · length, H, d), k and v (clips · keys, H, d)."""
    q, k, v = (x.unflatten(0, (group.clips, -1)).transpose(1, 2) for x in (q, k, v))  # (clips, H, length, d)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=group.mask)
    return y.transpose(1, 2).flatten(0, 1)
