"""Which tokens of a pack attend to which: segments of queries, each with its own segment of keys.

    layout = Layout(lengths, lengths)                    # self-attention of clips of these lengths
    layout = Layout(lengths, text_lengths)               # cross-attention: clip i sees text i
    layout = Layout(sizes, sizes, order=order)           # segments of tokens that do not follow each other

A layout is made once per pack and used by every block: what a backend needs of it is worked out at the first use.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from model.config import AttentionBackend

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask


@dataclass(frozen=True)
class Group:
    """Segments of one query length: which rows of q, k and v are theirs.

    A slice where the rows follow each other, else indices (segments · length). `mask` (segments, 1, 1, keys) is
    false at padding; None where no keys of the group are fewer than another's.
    """

    segments: int
    queries: slice | Tensor
    keys: slice | Tensor
    mask: Tensor | None


class Layout:
    """Where each segment's queries and keys lie, and how attention is to be computed."""

    def __init__(
        self,
        query_lengths: tuple[int, ...],
        key_lengths: tuple[int, ...],
        device: torch.device | str = "cpu",
        backend: AttentionBackend = "auto",
        order: Tensor | None = None,
    ) -> None:
        """Segment i has query_lengths[i] ≥ 1 rows of q and key_lengths[i] ≥ 1 rows of k and v, in order.

        With `order` (S,) the rows of q, k and v are taken in that order first, and the result is put back.
        """
        if len(query_lengths) != len(key_lengths) or min((*query_lengths, *key_lengths), default=0) < 1:
            raise ValueError(f"a pack needs one length of at least 1 each: {query_lengths}, {key_lengths}")
        self.device = torch.device(device)
        self.backend = backend
        self.query_lengths, self.key_lengths = query_lengths, key_lengths
        self.query_starts = list(accumulate(query_lengths, initial=0))
        self.key_starts = list(accumulate(key_lengths, initial=0))
        self.order = self.back = None
        if order is not None:
            self.order, self.back = order.to(self.device), torch.argsort(order).to(self.device)

    @cached_property
    def offsets(self) -> tuple[Tensor, Tensor]:
        """Starts of the segments of queries and of keys, and their ends: (segments + 1,) int32 each."""
        starts = (self.query_starts, self.key_starts)
        queries, keys = (torch.tensor(s, dtype=torch.int32, device=self.device) for s in starts)
        return queries, keys

    @cached_property
    def block_mask(self) -> BlockMask:
        """The same for FlexAttention: blocks of queries and keys that share a segment."""
        from torch.nn.attention.flex_attention import create_block_mask

        of_query, of_key = (
            torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)).to(self.device)
            for lengths in (self.query_lengths, self.key_lengths)
        )

        def same_segment(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return of_query[query] == of_key[key]

        # Not compiled it would first be made as a dense matrix of all queries and keys.
        return create_block_mask(
            same_segment,
            None,
            None,
            len(of_query),
            len(of_key),
            device=self.device,
            _compile=self.device.type == "cuda",
        )

    @cached_property
    def groups(self) -> tuple[list[Group], Tensor | None]:
        """Segments by query length, and the order that brings their rows back (None: they are in order)."""
        by_length: dict[int, list[int]] = {}
        for segment, length in enumerate(self.query_lengths):
            by_length.setdefault(length, []).append(segment)
        groups = [self._group(members) for members in by_length.values()]
        segments = [segment for members in by_length.values() for segment in members]
        if segments == sorted(segments):
            return groups, None
        rows = _rows(segments, self.query_starts, self.query_lengths, None)
        return groups, torch.argsort(torch.cat(rows)).to(self.device)

    def _group(self, segments: list[int]) -> Group:
        longest = max(self.key_lengths[segment] for segment in segments)
        mask = None
        if any(self.key_lengths[segment] < longest for segment in segments):
            lengths = torch.tensor([self.key_lengths[segment] for segment in segments])
            mask = (torch.arange(longest) < lengths[:, None])[:, None, None].to(self.device)
        return Group(
            segments=len(segments),
            queries=self._index(_rows(segments, self.query_starts, self.query_lengths, None)),
            keys=self._index(_rows(segments, self.key_starts, self.key_lengths, longest)),
            mask=mask,
        )

    def _index(self, rows: list[Tensor]) -> slice | Tensor:
        index = torch.cat(rows)
        first, last = int(index[0]), int(index[-1])
        if torch.equal(index, torch.arange(first, first + len(index))):
            return slice(first, last + 1)
        return index.to(self.device)


def _rows(
    segments: list[int], starts: list[int], lengths: tuple[int, ...], padded: int | None
) -> list[Tensor]:
    """The rows of each segment; beyond its length, up to `padded`, its last row is repeated."""
    return [starts[i] + torch.arange(padded or lengths[i]).clamp(max=lengths[i] - 1) for i in segments]
