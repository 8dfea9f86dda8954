"""The video VAE: causal, the same in chunks, any size and length, saved and loaded with its id."""

import json

import pytest
import torch

from model.errors import BadInput
from model.vae import (
    VideoVAE,
    from_pixels,
    load_vae,
    save_vae,
    to_pixels,
    vae_id,
)
from model.vae_config import PRESETS, VAEConfig

SMALL = VAEConfig(name="small", patch=2, widths=(8, 8, 8), encoder_depth=1, decoder_depth=1)


def make_vae(config: VAEConfig = SMALL) -> VideoVAE:
    """A VAE in which no weight is zero: blocks are zero at the start and would hide what leaks."""
    torch.manual_seed(0)
    vae = VideoVAE(config).eval()
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return vae


def clip(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize(
    ("config", "shape", "latent"),
    [
        (PRESETS["tiny"], (1, 3, 17, 64, 48), (1, 16, 5, 8, 6)),
        (PRESETS["tiny"], (2, 3, 1, 32, 32), (2, 16, 1, 4, 4)),
        (SMALL, (1, 3, 9, 32, 16), (1, 16, 3, 4, 2)),
        (VAEConfig(spatial=16, patch=4, widths=(8, 8, 8)), (1, 3, 5, 32, 32), (1, 16, 2, 2, 2)),
        (VAEConfig(temporal=1, patch=4, widths=(8, 8)), (1, 3, 5, 32, 32), (1, 16, 5, 4, 4)),
    ],
)
def test_latent_shape_and_back(config: VAEConfig, shape: tuple[int, ...], latent: tuple[int, ...]) -> None:
    vae = make_vae(config)
    x = clip(*shape)
    with torch.no_grad():
        z = vae.encode_latents(x)
        assert z.shape == latent
        assert vae.decode_latents(z).shape == shape


@torch.no_grad()
def test_later_frames_never_change_earlier_latents() -> None:
    vae = make_vae()
    x = clip(1, 3, 13, 16, 16)
    z = vae.encode_latents(x)
    for first_changed, latents_same in ((1, 1), (5, 2), (9, 3)):
        other = x.clone()
        other[:, :, first_changed:] = -other[:, :, first_changed:]
        z_other = vae.encode_latents(other)
        torch.testing.assert_close(z_other[:, :, :latents_same], z[:, :, :latents_same], rtol=0, atol=1e-5)
        assert (z_other[:, :, latents_same] - z[:, :, latents_same]).abs().max() > 1e-3


def test_gradients_reach_no_later_frame_and_the_last_allowed_one() -> None:
    vae = make_vae()
    x = clip(1, 3, 13, 16, 16).requires_grad_()
    vae.encode(x).mean[:, :, 1].sum().backward()  # latent frame 1 ends with picture 4
    assert x.grad is not None
    reach = x.grad.abs().amax(dim=(0, 1, 3, 4))
    assert (reach[5:] == 0).all()
    assert (reach[:5] > 0).all()

    z = clip(1, 16, 4, 2, 2).requires_grad_()
    vae.decode(z)[:, :, 5:9].sum().backward()  # pictures 5 to 8 are latent frame 2
    assert z.grad is not None
    reach = z.grad.abs().amax(dim=(0, 1, 3, 4))
    assert (reach[3:] == 0).all()
    assert (reach[:3] > 0).all()


@torch.no_grad()
def test_first_frame_of_a_clip_is_a_picture_of_its_own() -> None:
    vae = make_vae()
    x = clip(1, 3, 9, 16, 16)
    z = vae.encode_latents(x)
    torch.testing.assert_close(z[:, :, :1], vae.encode_latents(x[:, :, :1]), rtol=0, atol=1e-5)
    torch.testing.assert_close(
        vae.decode_latents(z)[:, :, :1], vae.decode_latents(z[:, :, :1]), rtol=0, atol=1e-5
    )


@torch.no_grad()
@pytest.mark.parametrize("chunk", [1, 2, 3])
@pytest.mark.parametrize("config", [SMALL, PRESETS["tiny"]], ids=["small", "tiny"])
def test_chunks_equal_the_whole(config: VAEConfig, chunk: int) -> None:
    vae = make_vae(config)
    x = clip(1, 3, 21, 16, 24)
    z = vae.encode_latents(x)
    torch.testing.assert_close(vae.encode_latents(x, chunk=chunk), z, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(vae.decode_latents(z, chunk=chunk), vae.decode_latents(z), rtol=0, atol=1e-5)


@torch.no_grad()
def test_odd_sizes_and_lengths_are_padded_with_what_is_at_the_edge() -> None:
    vae = make_vae()
    x = clip(1, 3, 7, 13, 21)
    padded = vae.pad(x)
    assert padded.shape == (1, 3, 9, 16, 24)
    assert torch.equal(padded[:, :, :7, :13, :21], x)
    assert torch.equal(padded[:, :, 8, :13, :21], x[:, :, 6])
    assert torch.equal(padded[:, :, 0, 15, :21], x[:, :, 0, 12])
    assert torch.equal(padded[:, :, 0, :13, 23], x[:, :, 0, :, 20])
    z = vae.encode_latents(x)
    assert torch.equal(z, vae.encode_latents(padded))
    assert vae.decode_latents(z, like=x).shape == x.shape


@torch.no_grad()
def test_latent_statistics_are_applied_and_undone() -> None:
    vae = make_vae()
    x = clip(1, 3, 5, 16, 16)
    raw, pixels = vae.encode(x).mean, vae.decode_latents(vae.encode_latents(x))
    vae.latent_mean.fill_(3.0)
    vae.latent_std.fill_(2.0)
    z = vae.encode_latents(x)
    torch.testing.assert_close(z, (raw - 3.0) / 2.0)
    torch.testing.assert_close(vae.decode_latents(z), pixels, rtol=0, atol=1e-4)


@torch.no_grad()
def test_save_load_and_id(tmp_path) -> None:
    vae = make_vae()
    vae.latent_std.fill_(2.0)
    save_vae(vae, tmp_path / "a")
    loaded = load_vae(tmp_path / "a")
    x = clip(1, 3, 5, 16, 16)
    assert torch.equal(loaded.encode_latents(x), vae.encode_latents(x))
    name = vae_id(tmp_path / "a")
    assert name == vae_id(vae) == vae_id(loaded)
    assert name.startswith("small-4x8x8-")
    assert not set(name) & set("/.\\ ")
    loaded.latent_std[0] = 2.5  # the statistics are part of what latents mean
    assert vae_id(loaded) != name


def test_unusable_folders_tell_what_to_do(tmp_path) -> None:
    with pytest.raises(BadInput, match="is no VAE: it lacks"):
        load_vae(tmp_path)
    save_vae(make_vae(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "widths": [8, 8, 16]}))
    with pytest.raises(BadInput, match="holds no usable VAE"):
        load_vae(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "colour": 3}))
    with pytest.raises(BadInput, match=r"unknown keys \['colour'\]"):
        load_vae(tmp_path)


def test_impossible_shapes_are_refused() -> None:
    with pytest.raises(BadInput, match="powers of two"):
        VideoVAE(VAEConfig(temporal=3))
    with pytest.raises(BadInput, match="2 widths allow 1 halvings, but 2 are needed"):
        VideoVAE(VAEConfig(widths=(8, 8)))
    with pytest.raises(BadInput, match=r"expected a video of shape \(B, 3, T, H, W\), got \(1, 5, 3, 8, 8\)"):
        make_vae().encode(torch.zeros(1, 5, 3, 8, 8))


def test_pixels_there_and_back() -> None:
    frames = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16, 1).expand(1, 2, 16, 16, 3)
    x = from_pixels(frames)
    assert x.shape == (1, 3, 2, 16, 16)
    assert x[0, 0, 0, 0, 0] == -1.0
    assert x[0, 0, 0, 15, 15] == 1.0
    assert torch.equal(to_pixels(x), frames)
    assert to_pixels(torch.full((1, 3, 1, 1, 1), 7.0)).max() == 255
