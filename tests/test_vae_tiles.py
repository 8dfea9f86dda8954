"""Tiles in space: how far the networks see, where tiles equal the whole, and how small the seam is elsewhere."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from test_vae_model import SMALL, clip, make_vae
from torch import Tensor

from model.errors import BadInput
from model.vae import VideoVAE, from_pixels, load_vae
from model.vae_config import PRESETS, VAEConfig
from model.vae_tiles import Tiling, plan_tiles
from pipelines.demo.weights import embedded
from pipelines.demo.world import draw_scene, render
from pipelines.encode_frames import Shape, read_clip

SHALLOW = VAEConfig(name="shallow", patch=4, widths=(8, 8), temporal=2, encoder_depth=1, decoder_depth=1)
CONFIGS = {"small": SMALL, "shallow": SHALLOW, "tiny": PRESETS["tiny"]}


@pytest.mark.parametrize("name", CONFIGS)
def test_reach_is_what_gradients_show(name: str) -> None:
    vae = make_vae(CONFIGS[name])
    size, middle = 21 * 8, 10 * 8
    x = clip(1, 3, 1, 16, size).requires_grad_()
    vae.encode(x).mean[..., 10].sum().backward()
    assert x.grad is not None
    seen = x.grad.abs().amax(dim=(0, 1, 2, 3)).nonzero()
    assert (middle - seen.min(), seen.max() - (middle + 7)) == vae.encoder.reach()

    z = clip(1, 16, 1, 2, 21).requires_grad_()
    vae.decode(z)[..., middle : middle + 8].sum().backward()
    assert z.grad is not None
    seen = z.grad.abs().amax(dim=(0, 1, 2, 3)).nonzero()
    assert 10 - seen.min() == seen.max() - 10 == vae.decoder.reach()


@pytest.mark.parametrize(
    ("tile", "overlap"), [(12, 6), (12, 0), (2, 1), (12, 10), (16, 14), (5, 2), (9, 3), (3, 2)]
)
@pytest.mark.parametrize("reach", [1, 7])
def test_shares_of_tiles_add_up_to_one(tile: int, overlap: int, reach: int) -> None:
    tiling = plan_tiles(tile * 8, overlap * 8, spatial=8, reach=reach)
    for size in [1, *range(tile, 3 * tile + 2)]:
        spans = tiling.spans(size)
        assert spans[0].start == 0
        assert spans[-1].end == size
        assert len({span.end - span.start for span in spans}) == 1
        for into in (1, 8):
            total = torch.zeros(size * into)
            for span in spans:
                total[span.start * into : span.end * into] += span.weight(into, tiling.ramp, total)
            torch.testing.assert_close(total, torch.ones_like(total))
        for before, after in pairwise(spans):
            assert before.end - after.start >= overlap


def test_overlap_is_what_makes_tiles_exact_but_at_most_half_a_tile() -> None:
    assert plan_tiles(256, None, spatial=8, reach=7) == Tiling(32, 14, 0.0, True)
    assert plan_tiles(96, None, spatial=8, reach=7) == Tiling(12, 6, 1.5, False)
    assert plan_tiles(96, 64, spatial=8, reach=4) == Tiling(12, 8, 0.0, True)
    assert plan_tiles(96, 0, spatial=8, reach=4) == Tiling(12, 0, 0.0, False)


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(64, 200), (133, 75), (48, 48)])
def test_tiles_that_overlap_by_the_reach_equal_the_whole(height: int, width: int) -> None:
    vae = make_vae(SHALLOW)
    assert (vae.encoder.reach(), vae.decoder.reach()) == ((28, 24), 3)  # 4 and 3 latents
    x = clip(1, 3, 5, height, width)
    z = vae.encode_latents(x)
    y = vae.decode_latents(z, like=x)
    for chunk in (None, 1):
        torch.testing.assert_close(vae.encode_latents(x, chunk, tile=80, overlap=64), z, rtol=1e-5, atol=1e-5)
        tiled = vae.decode_latents(z, x, chunk, tile=64, overlap=48)
        torch.testing.assert_close(tiled, y, rtol=0, atol=1e-5)
    if max(height, width) > 80:  # one latent less on either side is not enough
        assert (vae.encode_latents(x, tile=80, overlap=48) - z).abs().max() > 1e-4
        assert (vae.decode_latents(z, x, tile=64, overlap=32) - y).abs().max() > 1e-4


@pytest.fixture(scope="module")
def shipped() -> VideoVAE:
    return load_vae(embedded("vae"))


def world_clip() -> Tensor:
    """(1, 3, 5, 160, 256): a clip of the procedural world that training never shows."""
    scene = draw_scene(np.random.default_rng((20261121, 1)), held_out=True, duration_s=0.7)
    return from_pixels(torch.from_numpy(render(scene, n_frames=5, fps=8.0, width=256, height=160))[None])


def real_clips(footage: Path) -> list[Tensor]:
    """Two clips (1, 3, 5, 160, 256) of real footage."""
    clips = []
    for film in sorted((footage / "clips").glob("*.mp4"))[:2]:
        with film.open("rb") as file:
            clips.append(read_clip(file, Shape(5, 160, 256), 8.0))
    return [from_pixels(torch.from_numpy(frames)[None]) for frames in clips]


def seam(vae: VideoVAE, x: Tensor, tile: int, overlap: int | None = None) -> dict[str, float]:
    """Errors of tiles against the whole, in units of pixels in [-1, 1], and of their steps at and off the cuts."""
    z = vae.encode_latents(x)
    whole = vae.decode_latents(z)
    error = vae.decode_latents(z, tile=tile, overlap=overlap) - whole
    tiling = plan_tiles(tile, overlap, 8, vae.decoder.reach())
    at, off = [], []
    for axis in (3, 4):
        step = error.diff(dim=axis).abs().mean(dim=[i for i in range(5) if i != axis])  # (size - 1,)
        # A ramp begins and ends half its length off the cut: steps there count to the seam.
        cut = torch.zeros(len(step), dtype=torch.bool)
        for span in tiling.spans(z.shape[axis]):
            if span.before is not None:
                half = int(tiling.ramp * 4) + 1
                middle = int(span.before * 8)
                cut[middle - half : middle + half] = True
        at.append(step[cut])
        off.append(step[~cut])
    return {
        "latents_max": (vae.encode_latents(x, tile=tile, overlap=overlap) - z).abs().max().item(),
        "max": error.abs().max().item(),
        "mean": error.abs().mean().item(),
        "step_at_cuts": torch.cat(at).mean().item(),
        "step_max_at_cuts": torch.cat(at).max().item(),
        "step_elsewhere": torch.cat(off).mean().item(),
        "step_of_pictures": whole.diff(dim=4).abs().mean().item(),
    }


@torch.no_grad()
def test_no_seam_is_visible_with_tiles_of_96_pixels(shipped: VideoVAE) -> None:
    found = seam(shipped, world_clip(), tile=96)
    assert found["latents_max"] <= 1e-3
    assert found["max"] <= 0.02
    assert found["mean"] <= 1e-4
    # A grey level is 2/255 = 0.0078: no line along a cut steps by a tenth of one on average.
    assert found["step_max_at_cuts"] <= 0.1 * 2 / 255
    assert found["step_at_cuts"] <= 0.02 * found["step_of_pictures"]
    # The measure sees a seam where there is one.
    without = seam(shipped, world_clip(), tile=96, overlap=0)
    assert without["step_at_cuts"] > 20 * found["step_at_cuts"]
    assert without["step_max_at_cuts"] > 0.3 * 2 / 255


@torch.no_grad()
def test_no_seam_is_visible_in_real_footage(shipped: VideoVAE, footage: Path) -> None:
    for x in real_clips(footage):
        found = seam(shipped, x, tile=96)
        assert found["latents_max"] <= 1e-3
        assert found["max"] <= 0.02
        assert found["mean"] <= 1e-4
        assert found["step_max_at_cuts"] <= 0.1 * 2 / 255
        assert found["step_at_cuts"] <= 0.02 * found["step_of_pictures"]


@torch.no_grad()
def test_shipped_weights_in_large_enough_tiles_equal_the_whole(shipped: VideoVAE) -> None:
    x = torch.cat([world_clip(), world_clip()], dim=4)[:, :, :1]  # (1, 3, 1, 160, 512)
    z = shipped.encode_latents(x)
    assert plan_tiles(224, None, 8, shipped.decoder.reach()).exact
    torch.testing.assert_close(shipped.encode_latents(x, tile=224), z, rtol=0, atol=5e-5)
    whole, tiled = shipped.decode_latents(z), shipped.decode_latents(z, tile=224)
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-5)


def test_tiles_that_cannot_be_are_refused() -> None:
    vae = make_vae(SHALLOW)
    x = clip(1, 3, 1, 16, 16)
    with pytest.raises(BadInput, match="a tile of 60 pixels does not fit latents of 8"):
        vae.encode(x, tile=60)
    with pytest.raises(BadInput, match="a tile of 8 pixels"):
        vae.encode(x, tile=8)
    for overlap in (64, 12, -8):
        with pytest.raises(BadInput, match=f"an overlap of {overlap} pixels does not fit tiles of 64"):
            vae.encode(x, tile=64, overlap=overlap)
