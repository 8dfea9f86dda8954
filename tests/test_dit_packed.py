"""The transformer over packs: a clip's result and gradient are those it would have alone."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from model.attention import Layout, attention
from model.config import DiTConfig
from model.dit import DiT
from model.errors import BadInput
from model.pack import Clip, make_pack
from model.patches import patchify, positions, unpatchify

SHAPE = DiTConfig(width=48, depth=2, heads=2, ffn=96, text_width=12)


@pytest.fixture(scope="module")
def dit() -> DiT:
    """A model whose gates and outputs are not zero, as after some training."""
    torch.manual_seed(0)
    dit = DiT(SHAPE)
    with torch.no_grad():
        for p in dit.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return dit


def clips() -> list[Clip]:
    """Videos of two sizes, a picture, a clip without text, one with given frames."""
    torch.manual_seed(1)
    given = torch.tensor([True, False, False, True, False])
    return [
        Clip(torch.randn(16, 5, 4, 6), 24.0, torch.randn(7, 12), 0.3),
        Clip(torch.randn(16, 1, 4, 4), None, torch.randn(2, 12), 0.9),
        Clip(torch.randn(16, 5, 4, 6), 24.0, None, 0.5),
        Clip(torch.randn(16, 5, 6, 4), 12.0, torch.randn(11, 12), 0.7, given),
        Clip(torch.randn(16, 2, 4, 4), 24.0, torch.randn(7, 12), 0.1),
    ]


def outputs(dit: DiT, packed: list[Clip]) -> list[Tensor]:
    pack = make_pack(packed, SHAPE)
    return list(dit(pack).split(pack.lengths))


def gradient(dit: DiT, loss: Tensor) -> Tensor:
    parts = torch.autograd.grad(loss, list(dit.parameters()), allow_unused=True)
    return torch.cat([g.flatten() for g in parts if g is not None])


def test_packed_equals_alone(dit: DiT) -> None:
    together = outputs(dit, clips())
    for clip, packed in zip(clips(), together, strict=True):
        torch.testing.assert_close(packed, outputs(dit, [clip])[0], atol=1e-5, rtol=0)


def test_packed_gradient_equals_the_sum_of_gradients_alone(dit: DiT) -> None:
    packed = gradient(dit, sum(v.square().sum() for v in outputs(dit, clips())))
    alone = sum(gradient_of_one(dit, clip) for clip in clips())
    assert (packed - alone).norm() / alone.norm() < 1e-5


def gradient_of_one(dit: DiT, clip: Clip) -> Tensor:
    loss = outputs(dit, [clip])[0].square().sum()
    grads = torch.autograd.grad(loss, list(dit.parameters()), allow_unused=True)
    return torch.cat([
        torch.zeros(p.numel()) if g is None else g.flatten()
        for p, g in zip(dit.parameters(), grads, strict=True)
    ])  # fmt: skip


def test_no_gradient_crosses_clips(dit: DiT) -> None:
    for chosen in range(5):
        pack = make_pack(clips(), SHAPE)
        pack.tokens.requires_grad_()
        pack.text.requires_grad_()
        dit(pack).split(pack.lengths)[chosen].square().sum().backward()
        assert pack.tokens.grad is not None
        assert pack.text.grad is not None
        by_clip = [float(g.abs().sum()) for g in pack.tokens.grad.split(pack.lengths)]
        by_text = [float(g.abs().sum()) for g in pack.text.grad.split(pack.text_lengths)]
        assert [g > 0 for g in by_clip] == [i == chosen for i in range(5)]
        assert [g > 0 for g in by_text] == [i == chosen and i != 2 for i in range(5)]  # clip 2 has no text


def test_permuting_a_pack_changes_nothing(dit: DiT) -> None:
    order = [3, 0, 4, 2, 1]
    straight, permuted = outputs(dit, clips()), outputs(dit, [clips()[i] for i in order])
    for place, i in enumerate(order):
        torch.testing.assert_close(permuted[place], straight[i], atol=1e-5, rtol=0)


def test_a_new_model_predicts_zero_and_its_blocks_change_nothing() -> None:
    dit = DiT(SHAPE)
    assert all(float(v.detach().abs().max()) == 0.0 for v in outputs(dit, clips()))
    seen: list[tuple[Tensor, Tensor]] = []
    for block in dit.blocks:
        block.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    outputs(dit, clips())
    assert len(seen) == 2
    assert all(torch.equal(x, y) for x, y in seen)


def test_noise_level_text_and_frame_rate_reach_the_output(dit: DiT) -> None:
    clip = clips()[0]
    base = outputs(dit, [clip])[0]
    for changed in (
        replace(clip, t=0.8),
        replace(clip, fps=12.0),
        replace(clip, text=torch.ones(7, 12)),
        replace(clip, is_clean=torch.arange(5) == 0),
    ):
        assert (outputs(dit, [changed])[0] - base).abs().max() > 1e-2


def test_attention_is_a_softmax_within_each_clip() -> None:
    torch.manual_seed(2)
    q_lengths, k_lengths = (3, 5, 3, 1, 5), (4, 2, 6, 3, 2)
    q, k, v = (torch.randn(sum(n), 2, 8) for n in (q_lengths, k_lengths, k_lengths))
    found = attention(q, k, v, Layout(q_lengths, k_lengths))
    parts = zip(q.split(q_lengths), k.split(k_lengths), v.split(k_lengths), strict=True)
    expected = [
        torch.einsum("hqk,khd->qhd", torch.softmax(torch.einsum("qhd,khd->hqk", a, b) / 8**0.5, -1), c)
        for a, b, c in parts
    ]
    torch.testing.assert_close(found, torch.cat(expected), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="at least 1"):
        Layout((3, 0), (1, 1))


def test_patches_in_order_and_back() -> None:
    latent = torch.arange(2 * 2 * 4 * 6.0).view(2, 2, 4, 6)
    tokens = patchify(latent, (1, 2, 2))
    assert tokens.shape == (12, 8)
    assert tokens[4].tolist() == [14, 15, 20, 21, 62, 63, 68, 69]  # frame 0, rows 2-3, columns 2-3
    torch.testing.assert_close(unpatchify(tokens, (2, 2, 4, 6), (1, 2, 2)), latent)
    tubelets = patchify(latent, (2, 2, 2))
    assert tubelets.shape == (6, 16)
    torch.testing.assert_close(unpatchify(tubelets, (2, 2, 4, 6), (2, 2, 2)), latent)
    with pytest.raises(BadInput, match="multiples of 16 pixels"):
        patchify(latent[:, :, :3], (1, 2, 2))


def test_positions_keep_seconds() -> None:
    places = positions((3, 4, 2), (1, 2, 2), frame_step=16 / 24)
    expected = torch.tensor(
        [[0, 0, 0], [0, 1, 0], [2 / 3, 0, 0], [2 / 3, 1, 0], [4 / 3, 0, 0], [4 / 3, 1, 0]]
    )
    torch.testing.assert_close(places, expected)
