"""Token dropping: a share of each clip's noisy tokens, never a given one, and the same draw in any pack."""

import pytest
import torch

from model.config import DiTConfig
from model.dit import DiT
from model.errors import BadInput
from model.pack import Clip, Pack, Span, make_pack, own_parts
from model.token_drop import drop_tokens

SHAPE = DiTConfig(width=48, depth=3, heads=2, ffn=96, text_width=12)


def clips() -> list[Clip]:
    torch.manual_seed(1)
    given = torch.tensor([True, False, False, False, False])
    return [
        Clip(torch.randn(16, 5, 4, 6), 24.0, torch.randn(7, 12), 0.3, given, (Span(torch.randn(16, 2, 4, 6), 3),)),
        Clip(torch.randn(16, 1, 4, 4), None, None, 0.9),
        Clip(torch.randn(16, 1, 2, 2), None, None, 0.9),
    ]  # fmt: skip


def generators(count: int = 3, seed: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed + number) for number in range(count)]


def dropped(share: float, seed: int = 0) -> tuple[Pack, Pack, torch.Tensor]:
    pack = make_pack(clips(), SHAPE)
    return pack, *drop_tokens(pack, share, generators(seed=seed))


def test_a_share_of_the_noisy_tokens_goes_and_all_given_ones_stay() -> None:
    pack, less, kept = dropped(0.5)
    assert pack.lengths == (42, 4, 1)
    assert pack.own_lengths == (30, 4, 1)
    assert less.lengths == (
        30,
        2,
        1,
    )  # 6 + 24 + 12 tokens, of which 24 noisy; the only token of the last stays
    assert less.own_lengths == (18, 2, 1)
    assert torch.equal(kept, kept.sort().values)
    given = (pack.level_index == 0).nonzero().flatten().tolist()
    assert set(given) <= set(kept.tolist())
    for name in ("tokens", "positions", "places", "cells", "level_index"):
        assert torch.equal(getattr(less, name), getattr(pack, name)[kept])
    assert less.text is pack.text
    assert less.text_lengths == pack.text_lengths


def test_share_0_is_the_pack_itself() -> None:
    pack, same, kept = dropped(0.0)
    assert same is pack
    assert kept.tolist() == list(range(47))


def test_a_draw_depends_on_its_own_generator_alone() -> None:
    _, _, kept = dropped(0.5)
    assert torch.equal(kept, dropped(0.5)[2])
    assert not torch.equal(kept, dropped(0.5, seed=9)[2])
    alone = make_pack(clips()[1:2], SHAPE)
    _, of_one = drop_tokens(alone, 0.5, [torch.Generator().manual_seed(1)])
    assert (kept[(kept >= 42) & (kept < 46)] - 42).tolist() == of_one.tolist()


def test_the_model_takes_what_is_left_as_if_there_were_no_more() -> None:
    torch.manual_seed(0)
    for windows in (None, (2, 2, 2)):
        dit = DiT(DiTConfig(width=48, depth=3, heads=2, ffn=96, text_width=12, windows=windows))
        for p in dit.parameters():
            p.data += 0.1 * torch.randn_like(p)
        pack, less, kept = dropped(0.5)
        v = dit(less)
        assert v.shape == (33, SHAPE.token_width)
        assert [len(part) for part in own_parts(v, less)] == [18, 2, 1]
        # Whatever the dropped tokens hold, nothing changes.
        gone = torch.ones(47, dtype=torch.bool)
        gone[kept] = False
        pack.tokens[gone] = 1e3
        again, _ = drop_tokens(pack, 0.5, generators())
        assert torch.equal(dit(again), v)


def test_a_share_that_leaves_nothing_is_refused() -> None:
    for share in (1.0, -0.1, float("nan")):
        with pytest.raises(BadInput, match="from 0 to below 1"):
            dropped(share)
