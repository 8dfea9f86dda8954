"""Latents to tokens and back: patches, tubelets, places in time, and the geometry of the presets."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from model.config import PRESETS, DiTConfig, SizeConfig
from model.dit import DiT, load_dit
from model.errors import BadInput
from model.pack import Clip, Span, clean_tokens, make_pack, own_parts
from model.patches import cells, grid, patchify, positions, unpatchify, whole_frames

TUBELETS = DiTConfig(width=48, depth=1, heads=2, ffn=96, text_width=12, patch=(2, 2, 2))


def test_patches_in_order_and_back() -> None:
    latent = torch.arange(2 * 2 * 4 * 6.0).view(2, 2, 4, 6)
    tokens = patchify(latent, (1, 2, 2))
    assert tokens.shape == (12, 8)
    assert tokens[4].tolist() == [14, 15, 20, 21, 62, 63, 68, 69]  # frame 0, rows 2-3, columns 2-3
    torch.testing.assert_close(unpatchify(tokens, (2, 2, 4, 6), (1, 2, 2)), latent)
    with pytest.raises(BadInput, match="multiples of 16 pixels"):
        patchify(latent[:, :, :3], (1, 2, 2))


def test_the_first_tubelet_is_the_first_frame_alone() -> None:
    latent = torch.arange(4.0).view(1, 4, 1, 1).expand(1, 4, 2, 2)  # frame i holds i
    tokens = patchify(latent, (2, 2, 2))
    assert tokens[:, ::4].tolist() == [[0, 0], [1, 2], [3, 3]]  # two frames each; the last is filled up
    tokens = patchify(latent, (3, 2, 2))
    assert tokens[:, ::4].tolist() == [[0, 0, 0], [1, 2, 3]]


@pytest.mark.parametrize("t", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("pt", [1, 2, 3])
def test_tubelets_go_back_for_any_number_of_frames(t: int, pt: int) -> None:
    torch.manual_seed(0)
    latent, patch = torch.randn(3, t, 4, 6), (pt, 2, 2)
    tokens = patchify(latent, patch)
    times = [1, 1 + (t - 1 + pt - 1) // pt][t > 1]
    assert grid((t, 4, 6), patch) == (times, 2, 3)
    assert tokens.shape == (times * 6, 3 * pt * 4)
    assert torch.equal(unpatchify(tokens, (3, t, 4, 6), patch), latent)


def test_a_picture_is_the_first_token_of_a_video_under_tubelets() -> None:
    video = torch.randn(16, 5, 4, 4)
    packed = make_pack([Clip(video, 16.0, None, 0.5), Clip(video[:, :1], None, None, 0.5)], TUBELETS)
    assert packed.lengths == (12, 4)
    for field in (packed.tokens, packed.positions, packed.places, packed.cells):
        assert torch.equal(field[12:], field[:4])
    assert packed.positions[:12:4, 0].tolist() == [0, 2, 4]  # each token stands at its last frame


def test_given_frames_must_fill_their_tubelets() -> None:
    def given(frames: int) -> torch.Tensor:
        return clean_tokens(torch.arange(6) < frames, (6, 2, 2), TUBELETS)

    assert given(1).tolist() == [True, False, False, False]
    assert given(3).tolist() == [True, True, False, False]
    assert given(6).tolist() == [True] * 4
    for frames in (2, 4):
        with pytest.raises(BadInput, match="give the first 1, 3, 5"):
            given(frames)
    rounded = [int(whole_frames(torch.arange(6) < frames, 2).sum()) for frames in range(7)]
    assert rounded == [0, 1, 1, 3, 3, 5, 6]
    assert whole_frames(torch.tensor([False, True, True, False]), 1).tolist() == [False, True, True, False]


def test_spans_stand_in_the_tubelets_of_their_place() -> None:
    assert cells((3, 2, 2), (2, 2, 2), 3).tolist() == [[2, 0, 0], [3, 0, 0]]  # frames 3, then 4 and 5
    assert cells((1, 2, 4), (2, 2, 2), 4).tolist() == [[2, 0, 0], [2, 0, 1]]
    clip = Clip(torch.randn(16, 5, 4, 4), 16.0, None, 0.5, None, (Span(torch.randn(16, 1, 4, 4), 4),))
    pack = make_pack([clip], TUBELETS)
    assert pack.cells[12:].tolist() == pack.cells[8:12].tolist()
    assert own_parts(DiT(TUBELETS)(pack), pack)[0].shape == (12, TUBELETS.token_width)


def test_positions_keep_seconds() -> None:
    places = positions((3, 4, 2), (1, 2, 2), frame_step=16 / 24)
    expected = torch.tensor(
        [[0, 0, 0], [0, 1, 0], [2 / 3, 0, 0], [2 / 3, 1, 0], [4 / 3, 0, 0], [4 / 3, 1, 0]]
    )
    torch.testing.assert_close(places, expected)


def test_presets_have_the_widths_depths_and_heads_of_their_papers() -> None:
    """S, B and XL are DiT's (arXiv:2212.09748, table 1), 1.3B is Wan 2.1's (arXiv:2503.20314)."""
    found = {name: (p.width, p.depth, p.heads, p.ffn, p.patch) for name, p in PRESETS.items()}
    assert found == {
        "tiny": (64, 2, 2, 256, (1, 2, 2)),
        "S": (384, 12, 6, 1536, (1, 2, 2)),
        "B": (768, 12, 12, 3072, (1, 2, 2)),
        "XL": (1152, 28, 18, 4608, (1, 2, 2)),
        "1.3B": (1536, 30, 12, 8960, (1, 2, 2)),
    }
    with torch.device("meta"):
        dit = DiT(PRESETS["S"])
    assert (len(dit.blocks), dit.patch_in.out_features) == (12, 384)


def test_heads_are_as_wide_as_attention_kernels_like() -> None:
    widths = {name: config.head_width for name, config in PRESETS.items()}
    assert widths == {"tiny": 32, "S": 64, "B": 64, "XL": 64, "1.3B": 128}  # tiny is for the CPU


def test_a_checkpoint_keeps_tubelets_and_windows(tmp_path: Path) -> None:
    dit = DiT(replace(TUBELETS, windows=(3, 4, 4), text_tokens=9))
    (tmp_path / "config.json").write_text(json.dumps({"model": asdict(dit.config)}))
    save_file(dit.state_dict(), tmp_path / "ema.safetensors")
    (tmp_path / "COMPLETE").write_text("")
    assert load_dit(tmp_path)[0].config == dit.config


def test_a_size_takes_what_it_is_told_and_the_rest_from_its_preset() -> None:
    config = SizeConfig("S", patch=(2, 2, 2), windows=(3, 4, 4)).config(channels=8, text_width=24)
    assert (config.patch, config.windows, config.width, config.token_width) == ((2, 2, 2), (3, 4, 4), 384, 64)
    plain = SizeConfig("S").config(channels=8, text_width=24)
    assert (plain.patch, plain.windows) == ((1, 2, 2), None)
    with pytest.raises(BadInput, match=r"patch is .*: give three numbers of at least 1"):
        DiTConfig(patch=(0, 2, 2))
    with pytest.raises(BadInput, match=r"windows is .*: give three numbers"):
        DiTConfig(windows=(2, 2))  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="text_tokens is 0"):
        DiTConfig(text_tokens=0)
