"""Ulysses sequence parallelism (DeepSpeed, arXiv:2309.14509): processes share the tokens of one pack.

    dit.sequence = Sequence(group)                       # model/dit.py asks it where tokens must meet
    v = dit(pack)                                        # this process' tokens alone: pack.tokens[sequence.span(S)]

Everything but attention looks at one token at a time, so each process keeps a stretch of the pack. For attention they
exchange: each gets all tokens of some heads, and gives the results back. Heads must divide evenly, tokens need not.
"""

from __future__ import annotations

from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from model.attention import attention
from model.errors import BadInput
from model.layout import Layout

T = TypeVar("T")


class Sequence:
    """The processes of `group`, which compute one pack together.

    Attributes:
        rank: number of this process in the group.
        size: processes in the group.
    """

    def __init__(self, group: dist.ProcessGroup) -> None:
        self._group = group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)

    def check(self, heads: int) -> None:
        """Raise BadInput if attention heads cannot be shared out evenly."""
        if heads % self.size:
            raise BadInput(
                f"{heads} attention heads cannot be shared by {self.size} processes: choose --parallel.ulysses so that "
                "it divides the heads of the model."
            )

    def counts(self, tokens: int) -> list[int]:
        """How many of `tokens` tokens each process keeps: equal stretches, the first ones longer by one."""
        return [tokens // self.size + (number < tokens % self.size) for number in range(self.size)]

    def span(self, tokens: int) -> slice:
        """The tokens that this process keeps."""
        counts = self.counts(tokens)
        start = sum(counts[: self.rank])
        return slice(start, start + counts[self.rank])

    def gather(self, one: T) -> list[T]:
        """What each of the processes gives, in their order; plain data."""
        found: list[T | None] = [None] * self.size
        dist.all_gather_object(found, one, group=self._group)
        return cast(list[T], found)

    def heads(self, x: Tensor) -> Tensor:
        """Own heads of what every process has in whole: (L, H, d) -> (L, H / size, d)."""
        return x.chunk(self.size, dim=1)[self.rank]

    @torch.compiler.disable  # as attention itself: lengths differ from pack to pack
    def attend(self, q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
        """Attention between the tokens of a pack, of which q, k and v (own, H, d) are this process' stretch."""
        tokens = sum(layout.query_lengths)
        q, k, v = self.gather_tokens(torch.cat([q, k, v], dim=-1), tokens).chunk(3, dim=-1)
        return self.scatter_tokens(attention(q, k, v, layout), tokens)

    @torch.compiler.disable
    def attend_to(self, q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
        """Attention of a pack's tokens, q (own, H, d), to what every process has in whole, k and v (L, H, d)."""
        tokens = sum(layout.query_lengths)
        y = attention(self.gather_tokens(q, tokens), self.heads(k), self.heads(v), layout)
        return self.scatter_tokens(y, tokens)

    def gather_tokens(self, x: Tensor, tokens: int) -> Tensor:
        """All tokens of own heads from own tokens of all heads: (own, H, d) -> (tokens, H / size, d)."""
        counts, own = self.counts(tokens), len(x)
        # What goes to process i, its heads, lies together.
        sent = x.unflatten(1, (self.size, -1)).transpose(0, 1).flatten(0, 1)  # (size · own, H / size, d)
        return _exchange(sent, [own] * self.size, counts, self._group)

    def scatter_tokens(self, x: Tensor, tokens: int) -> Tensor:
        """The way back: (tokens, H / size, d) -> (own, H, d)."""
        counts = self.counts(tokens)
        own = counts[self.rank]
        got = _exchange(x, counts, [own] * self.size, self._group)  # (size · own, H / size, d)
        return got.unflatten(0, (self.size, own)).transpose(0, 1).flatten(1, 2)


class _AllToAll(torch.autograd.Function):
    """Rows to each process of a group, and theirs back; the gradient goes the other way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sent: list[int], got: list[int], group: dist.ProcessGroup) -> Tensor:
        ctx.told = sent, got, group
        y = x.new_empty((sum(got), *x.shape[1:]))
        dist.all_to_all_single(y, x.contiguous(), got, sent, group=group)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        sent, got, group = ctx.told
        return _AllToAll.apply(gradient, got, sent, group), None, None, None


def _exchange(x: Tensor, sent: list[int], got: list[int], group: dist.ProcessGroup) -> Tensor:
    y: Tensor = _AllToAll.apply(x, sent, got, group)
    return y
