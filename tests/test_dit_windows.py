"""Windowed attention: it is dense attention behind the mask of its windows, in packed clips of any size."""

from dataclasses import replace

import torch
from torch import Tensor

from model.attention import attention
from model.config import DiTConfig
from model.dit import DiT
from model.layout import Layout
from model.pack import Clip, Pack, Span, make_pack, own_parts
from model.windows import window_layouts

SHAPE = DiTConfig(width=48, depth=4, heads=2, ffn=96, text_width=12, windows=(2, 2, 2))


def clips() -> list[Clip]:
    """A video of 5 x 3 x 4 tokens with a picture given at frame 3, a picture, a small video with an ending."""
    torch.manual_seed(1)
    return [
        Clip(torch.randn(16, 5, 6, 8), 24.0, torch.randn(7, 12), 0.3, None, (Span(torch.randn(16, 1, 6, 8), 3),)),
        Clip(torch.randn(16, 1, 4, 4), None, None, 0.9),
        Clip(torch.randn(16, 4, 2, 6), 24.0, torch.randn(2, 12), 0.5, None, (Span(torch.randn(16, 2, 2, 6), 2),)),
    ]  # fmt: skip


def places_by_hand() -> list[tuple[int, int, int, int]]:
    """(clip, time, row, column) of each token of `clips`."""
    found = []
    for clip, (frames, rows, columns) in enumerate(
        [([0, 1, 2, 3, 4, 3], 3, 4), ([0], 2, 2), ([0, 1, 2, 3, 2, 3], 1, 3)]
    ):
        found += [(clip, t, r, c) for t in frames for r in range(rows) for c in range(columns)]
    return found


#: The sizes of the clips in tokens: along an axis with one window alone nothing is moved.
SIZES = [(5, 3, 4), (1, 2, 2), (4, 1, 3)]


def window_by_hand(kind: str, place: tuple[int, int, int, int]) -> tuple[int, ...]:
    clip, *cell = place
    if kind == "frame":
        return clip, cell[0]
    moved = [kind == "moved" and extent > 2 for extent in SIZES[clip]]
    return clip, *((x + m) // 2 for x, m in zip(cell, moved, strict=True))


def dense(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    scores = torch.einsum("qhd,khd->hqk", q, k) / q.shape[-1] ** 0.5
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(~mask, -torch.inf).softmax(-1), v)


def layouts(pack: Pack, depth: int = 4) -> list[Layout]:
    return window_layouts(pack, (2, 2, 2), depth, "cpu")


def test_windows_equal_dense_attention_behind_their_mask() -> None:
    pack = make_pack(clips(), SHAPE)
    places = places_by_hand()
    assert len(places) == len(pack.tokens)
    torch.manual_seed(3)
    q, k, v = torch.randn(3, len(places), 2, 8).unbind()
    results = []
    for layout, kind in zip(layouts(pack), ("frame", "straight", "frame", "moved"), strict=True):
        windows = [window_by_hand(kind, place) for place in places]
        mask = torch.tensor([[a == b for b in windows] for a in windows])
        results.append(attention(q, k, v, layout))
        torch.testing.assert_close(results[-1], dense(q, k, v, mask), atol=1e-5, rtol=0)
    assert not torch.allclose(results[1], results[3])


def test_one_window_as_large_as_the_clips_is_full_attention() -> None:
    pack = make_pack(clips(), SHAPE)
    q, k, v = torch.randn(3, len(pack.tokens), 2, 8).unbind()
    full = attention(q, k, v, Layout(pack.lengths, pack.lengths))
    for layout in window_layouts(pack, (5, 3, 4), 4, "cpu")[1::2]:
        assert layout.query_lengths == pack.lengths
        torch.testing.assert_close(attention(q, k, v, layout), full, atol=1e-6, rtol=0)


def trained() -> DiT:
    torch.manual_seed(0)
    dit = DiT(SHAPE)
    for p in dit.parameters():
        p.data += 0.1 * torch.randn_like(p)
    return dit


def outputs(dit: DiT, packed: list[Clip]) -> list[Tensor]:
    pack = make_pack(packed, SHAPE)
    return own_parts(dit(pack), pack)


def test_a_windowed_model_gives_packed_clips_what_they_have_alone() -> None:
    dit = trained()
    together = outputs(dit, clips())
    for clip, packed in zip(clips(), together, strict=True):
        torch.testing.assert_close(packed, outputs(dit, [clip])[0], atol=1e-5, rtol=0)
    permuted = outputs(dit, clips()[::-1])
    for a, b in zip(together, permuted[::-1], strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_four_blocks_reach_the_whole_clip_and_no_other() -> None:
    dit = trained()
    pack = make_pack(clips(), SHAPE)
    pack.tokens.requires_grad_()
    dit(pack)[12].square().sum().backward()  # frame 1, row 0, column 0 of the first clip
    assert pack.tokens.grad is not None
    reached = [bool(g.any()) for g in pack.tokens.grad]
    first = pack.lengths[0]
    assert not any(reached[first:])
    # In block 4, moved, its window is frames 1 and 2; in block 2 these are in the windows 0 to 1 and 2 to 3.
    frames = pack.cells[:first, 0].tolist()
    assert frames[-1] == 3  # the span
    assert reached[:first] == [frame <= 3 for frame in frames]
    deep = DiT(replace(SHAPE, depth=8))
    for p in deep.parameters():
        p.data += 0.1 * torch.randn_like(p)
    pack.tokens.grad = None
    deep(pack)[12].square().sum().backward()
    assert all(bool(g.any()) for g in pack.tokens.grad[:first])
