"""Pretrained VAEs of diffusers, small and with random weights, through the path that real ones take."""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_pretrained import KINDS, make_pretrained, pretrained_folder
from torch import Tensor, nn

from model.any_vae import any_vae_id, load_any_vae
from model.errors import BadInput
from model.pretrained_vae import PretrainedVAE
from model.vae import VAEConfig, VideoVAE, save_vae, vae_id

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("pretrained")
    return {kind: pretrained_folder(root / kind, kind) for kind in KINDS}


@pytest.fixture(scope="module")
def vaes(folders: dict[str, Path]) -> dict[str, PretrainedVAE]:
    found = {kind: load_any_vae(folder) for kind, folder in folders.items()}
    assert all(isinstance(vae, PretrainedVAE) for vae in found.values())
    return found  # type: ignore[return-value]


def video(frames: int, height: int, width: int, count: int = 1, seed: int = 0) -> Tensor:
    """Smooth in space and time, (B, 3, T, H, W) in [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 3, 4, 4, generator=generator) * 2 - 1
    return torch.nn.functional.interpolate(
        coarse, size=(frames, height, width), mode="trilinear", align_corners=True
    )


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


# kind -> (channels, temporal, spatial), then latent frames by pictures
SHAPES: dict[str, tuple[tuple[int, int, int], dict[int, int]]] = {
    "wan": ((4, 4, 8), {1: 1, 2: 2, 5: 2, 6: 3, 13: 4, 17: 5}),
    "wan16": ((4, 4, 16), {1: 1, 4: 2, 5: 2, 9: 3}),
    "hunyuan": ((4, 4, 8), {1: 1, 3: 2, 13: 4, 17: 5, 18: 6, 29: 8}),  # from 18 on in several chunks
    "ltx": ((8, 8, 32), {1: 1, 2: 2, 9: 2, 10: 3, 17: 3}),
    "ltx91": ((8, 8, 32), {1: 1, 9: 2}),
    "cogvideox": ((4, 4, 8), {1: 1, 2: 3, 5: 3, 9: 3, 10: 5, 13: 5, 17: 5, 25: 7}),
}


@torch.inference_mode()
@pytest.mark.parametrize(
    ("kind", "frames"), [(kind, frames) for kind, (_, lengths) in SHAPES.items() for frames in lengths]
)
def test_any_length_and_size_comes_back(vaes: dict[str, PretrainedVAE], kind: str, frames: int) -> None:
    (channels, temporal, spatial), lengths = SHAPES[kind]
    vae = vaes[kind]
    assert (vae.config.channels, vae.config.temporal, vae.config.spatial) == (channels, temporal, spatial)
    # An odd size, and one that fits.
    for height, width in ((spatial - 3, 2 * spatial + 1), (2 * spatial, spatial)):
        x = video(frames, height, width)
        z = vae.encode_latents(x)
        assert z.shape == (1, channels, lengths[frames], -(-height // spatial), -(-width // spatial))
        whole = vae.decode_latents(z)
        assert whole.shape == (
            1,
            3,
            temporal * (lengths[frames] - 1) + 1,
            spatial * z.shape[3],
            spatial * z.shape[4],
        )
        assert torch.equal(vae.decode_latents(z, like=x), whole[:, :, :frames, :height, :width])
        assert whole.abs().max() <= 1
    # What is beyond a clip is its last frame, its right column and its bottom row again.
    t, h, w = whole.shape[2] - frames, spatial * z.shape[3] - height, spatial * z.shape[4] - width
    padded = torch.cat([x, x[:, :, -1:].repeat(1, 1, t, 1, 1)], dim=2)
    padded = torch.cat([padded, padded[:, :, :, -1:].repeat(1, 1, 1, h, 1)], dim=3)
    padded = torch.cat([padded, padded[..., -1:].repeat(1, 1, 1, 1, w)], dim=4)
    assert torch.equal(vae.encode_latents(padded), z)


def by_hand(network: Any, kind: str, raw: Tensor) -> Tensor:
    """What the pipelines of diffusers do with raw latents."""
    if kind.startswith("wan"):
        mean = torch.tensor(network.config.latents_mean).view(1, -1, 1, 1, 1)
        std = torch.tensor(network.config.latents_std).view(1, -1, 1, 1, 1)
        return (raw - mean) * (1.0 / std)
    if kind.startswith("ltx"):
        mean, std = (x.view(1, -1, 1, 1, 1) for x in (network.latents_mean, network.latents_std))
        return (raw - mean) * network.config.scaling_factor / std
    return raw * network.config.scaling_factor


@torch.inference_mode()
@pytest.mark.parametrize("kind", KINDS)
def test_statistics_and_pixels_are_those_of_diffusers(vaes: dict[str, PretrainedVAE], kind: str) -> None:
    vae, network = vaes[kind], make_pretrained(kind)
    x = video(17, 2 * vae.config.spatial, vae.config.spatial, count=2)
    raw = network.encode(x).latent_dist.mode()
    z = vae.encode_latents(x)
    torch.testing.assert_close(z, by_hand(network, kind, raw), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(vae.encode(x).mean, raw, rtol=0, atol=0)
    torch.testing.assert_close(vae.encode(x).logvar, network.encode(x).latent_dist.logvar, rtol=0, atol=0)
    assert relative(z, raw) > 0.1  # there are statistics to apply

    torch.manual_seed(0)  # some decoders draw noise
    pixels = network.decode(raw, *([torch.zeros(2)] if kind == "ltx91" else [])).sample.clamp(-1, 1)
    torch.testing.assert_close(vae.decode_latents(z, like=x), pixels, rtol=0, atol=1e-4)


@torch.inference_mode()
def test_the_first_picture_is_encoded_alone(vaes: dict[str, PretrainedVAE]) -> None:
    x = video(17, 64, 64)
    for kind in ("wan", "wan16", "ltx"):  # the others take statistics over a whole chunk
        z = vaes[kind].encode_latents(x)
        torch.testing.assert_close(vaes[kind].encode_latents(x[:, :, :1]), z[:, :, :1], rtol=0, atol=1e-5)


@torch.inference_mode()
def test_cogvideox_decodes_an_even_number_of_latent_frames(vaes: dict[str, PretrainedVAE]) -> None:
    vae = vaes["cogvideox"]
    z = vae.encode_latents(video(9, 16, 16))
    assert vae.network.decode(z[:, :, :2]).sample.shape[2] == 8  # not 5: the first has no frame of its own
    found = vae.decode_latents(z[:, :, :2])
    assert torch.equal(found, vae.decode_latents(z[:, :, [0, 1, 1]])[:, :, :5])


@torch.inference_mode()
def test_noise_of_a_decoder_is_the_same_each_time(vaes: dict[str, PretrainedVAE]) -> None:
    vae = vaes["ltx91"]
    z = vae.encode_latents(video(9, 64, 64, count=2))
    first, state = vae.decode_latents(z), torch.get_rng_state()
    assert torch.equal(vae.decode_latents(z), first)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(3)
    raw = vae.unnormalised(z)
    assert relative(vae.network.decode(raw, torch.zeros(2)).sample.clamp(-1, 1), first) > 0.01


def see_one_position(network: Any) -> Any:
    """The same layers without what looks aside: then tiles make what the whole does, if they lie right."""
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d | nn.Conv3d) and module.kernel_size[-1] == 3:
            centre = torch.zeros_like(module.weight)
            centre[..., 1, 1] = module.weight[..., 1, 1]
            module.weight.copy_(centre)
        for name, child in module.named_children():
            if isinstance(child, nn.GroupNorm):  # its statistics are those of a tile
                setattr(module, name, nn.Identity())
            if "attention" in type(module).__name__.lower() and name in ("proj", "to_out"):
                child.apply(lambda part: [weight.zero_() for weight in part.parameters()])
    return network


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["wan", "wan16", "hunyuan", "ltx", "cogvideox"])
def test_tiles_lie_where_they_belong(kind: str) -> None:
    vae = PretrainedVAE(see_one_position(make_pretrained(kind)))
    spatial = vae.config.spatial
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, 3, 1, 9 * spatial, 11 * spatial, generator=generator) * 2 - 1
    z = vae.encode_latents(x)
    y = vae.decode_latents(z)
    assert z.flatten(3).std() > 0.01
    assert y.flatten(3).std() > 0.01
    for tile, overlap in ((8, None), (6, 3)):
        tiles = (tile * spatial, overlap and overlap * spatial)
        torch.testing.assert_close(vae.encode_latents(x, None, *tiles), z, rtol=0, atol=1e-4)
        torch.testing.assert_close(vae.decode_latents(z, None, None, *tiles), y, rtol=0, atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("kind", KINDS)
def test_tiles_are_used_when_asked_for_alone(vaes: dict[str, PretrainedVAE], kind: str) -> None:
    vae, spatial = vaes[kind], SHAPES[kind][0][2]
    x = video(1, 10 * spatial, 9 * spatial, count=2)
    z = vae.encode_latents(x)
    y = vae.decode_latents(z)
    z_tiled = vae.encode_latents(x, tile=8 * spatial)
    y_tiled = vae.decode_latents(z, tile=8 * spatial, like=x)
    # Random layers look far aside, so that tiles differ from the whole. Each clip has its own.
    assert 1e-3 < relative(z_tiled, z) < 1
    assert 1e-3 < relative(y_tiled, y) < 1
    torch.testing.assert_close(vae.encode_latents(x[1:], tile=8 * spatial), z_tiled[1:], rtol=0, atol=1e-5)
    assert torch.equal(vae.encode_latents(x), z)
    assert torch.equal(vae.decode_latents(z), y)


@pytest.mark.parametrize(
    ("kind", "tile", "overlap"), [("wan", 60, None), ("ltx", 128, 16), ("wan", 64, 40), ("wan", 16, None)]
)
def test_tiles_that_do_not_fit_are_told(
    vaes: dict[str, PretrainedVAE], kind: str, tile: int, overlap: int | None
) -> None:
    with pytest.raises(
        BadInput, match=rf"tiles of {tile} pixels that share \d+ do not fit. Give multiples of"
    ):
        vaes[kind].encode(video(1, 64, 64), tile=tile, overlap=overlap)
    with pytest.raises(BadInput, match="CogVideoX cannot let tiles of 136 pixels share 40"):
        vaes["cogvideox"].encode(video(1, 64, 64), tile=136, overlap=40)


def test_a_pipeline_the_hub_and_our_own_are_found(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    wanted = any_vae_id(folders["wan"])
    assert wanted.startswith("wan-4x8x8-")
    shutil.copytree(folders["wan"], tmp_path / "pipeline" / "vae")
    (tmp_path / "pipeline" / "model_index.json").write_text("{}")
    assert any_vae_id(tmp_path / "pipeline") == wanted

    # What a download from the hub leaves behind.
    for name, inside in (("models--some--wan", "vae"), ("models--some--vae", "")):
        snapshot = tmp_path / "hub" / name / "snapshots" / ("0" * 40)
        shutil.copytree(folders["wan"], snapshot / inside)
        (tmp_path / "hub" / name / "refs").mkdir()
        (tmp_path / "hub" / name / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert any_vae_id("hf:some/wan") == any_vae_id("hf:some/vae") == wanted
    with pytest.raises(BadInput, match=r"some/other holds no usable VAE .*give a folder"):
        load_any_vae("hf:some/other")

    ours = VideoVAE(VAEConfig(widths=(8, 8, 8)))
    save_vae(ours, tmp_path / "ours")
    assert isinstance(load_any_vae(tmp_path / "ours"), VideoVAE)
    assert any_vae_id(tmp_path / "ours") == any_vae_id(ours) == vae_id(ours)


def changed(folder: Path, to: Path, **keys: Any) -> Path:
    """A copy of a VAE with other keys in its config.json."""
    shutil.copytree(folder, to)
    told = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps(told | keys))
    return to


def test_the_id_tells_kind_statistics_and_weights(
    folders: dict[str, Path], vaes: dict[str, PretrainedVAE], tmp_path: Path
) -> None:
    ids = {kind: any_vae_id(vae) for kind, vae in vaes.items()}
    assert [name.rsplit("-", 1)[0] for name in ids.values()] == [
        "wan-4x8x8", "wan-4x16x16", "hunyuan-video-4x8x8", "ltx-video-8x32x32", "ltx-video-8x32x32",
        "cogvideox-4x8x8",
    ]  # fmt: skip
    assert ids == {kind: any_vae_id(folder) for kind, folder in folders.items()}
    others = [
        pretrained_folder(tmp_path / "seed", "wan", seed=1),
        changed(folders["wan"], tmp_path / "mean", latents_mean=[0.1, -0.2, 0.3, 0.5]),
        changed(folders["ltx"], tmp_path / "causal", encoder_causal=False),
        changed(folders["cogvideox"], tmp_path / "factor", scaling_factor=0.71),
    ]
    found = {any_vae_id(folder) for folder in others} | set(ids.values())
    assert len(found) == len(others) + len(ids)

    # What does not change the latents does not change the id: how it is stored, a key that has its default.
    told = json.loads((folders["wan"] / "config.json").read_text())
    bare = {name: told[name] for name in ("_class_name", *KINDS["wan"][1])}
    again = changed(folders["wan"], tmp_path / "again")
    (again / "config.json").write_text(json.dumps(bare | {"_diffusers_version": "9.9"}))
    assert any_vae_id(again) == ids["wan"]
    halves = {name: w.half().float() for name, w in load_file(folders["wan"] / WEIGHTS).items()}
    save_file(halves, again / WEIGHTS, metadata={"format": "pt"})
    rounded = any_vae_id(again)
    save_file({name: w.half() for name, w in halves.items()}, again / WEIGHTS, metadata={"format": "pt"})
    assert any_vae_id(again) == rounded != ids["wan"]
    assert load_any_vae(again).latent_mean.dtype == torch.float32


def test_keys_of_a_later_diffusers_leave_the_id(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    vae = load_any_vae(folders["wan"])
    assert isinstance(vae, PretrainedVAE)
    name, made = any_vae_id(vae), type(vae.network).__init__
    signature = inspect.signature(made)
    later = inspect.Parameter("later", inspect.Parameter.KEYWORD_ONLY, default=(3, 3))
    monkeypatch.setattr(
        made,
        "__signature__",
        signature.replace(parameters=[*signature.parameters.values(), later]),
        raising=False,
    )
    vae.network.register_to_config(later=[3, 3])
    assert any_vae_id(vae) == name
    vae.network.register_to_config(later=[3, 4])
    assert any_vae_id(vae) != name


def test_what_cannot_be_loaded_is_told(
    folders: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wan = folders["wan"]
    images = changed(wan, tmp_path / "images", _class_name="AutoencoderKL")
    with pytest.raises(
        BadInput,
        match=r"images holds no usable VAE: it is of class AutoencoderKL; .* must be one of AutoencoderKLWan",
    ):
        load_any_vae(images)
    with pytest.raises(BadInput, match=r"is no VAE: it lacks config.json.*or hf:ORG/NAME"):
        load_any_vae(tmp_path / "nowhere")
    for name, keys, message in (
        ("channels", {"latents_mean": [0.0] * 3}, "mean is for 3 channels but it has 4"),
        ("deviation", {"latents_std": [1.0, 0.0, 1.0, 1.0]}, "must be positive"),
        ("space", {"scale_factor_spatial": 16}, "not what its config.json says"),
        ("time", {"scale_factor_temporal": 8}, "not what its config.json says"),
        ("layers", {"num_res_blocks": 2}, "weights do not fit its config.json .*missing"),
        ("width", {"base_dim": 16}, "holds no usable VAE"),
        ("text", {"base_dim": "wide"}, "holds no usable VAE"),
    ):
        with pytest.raises(BadInput, match=message):
            load_any_vae(changed(wan, tmp_path / name, **keys))
    fewer = changed(folders["hunyuan"], tmp_path / "fewer", mid_block_add_attention=False)
    with pytest.raises(BadInput, match=r"weights do not fit its config.json .*unexpected"):
        load_any_vae(fewer)

    cut = changed(wan, tmp_path / "cut")
    (cut / WEIGHTS).write_bytes((wan / WEIGHTS).read_bytes()[:5000])
    with pytest.raises(BadInput, match="cut holds no usable VAE"):
        load_any_vae(cut)
    pickled = changed(wan, tmp_path / "pickled")
    torch.save(load_file(wan / WEIGHTS), pickled / "diffusion_pytorch_model.bin")
    (pickled / WEIGHTS).unlink()
    with pytest.raises(BadInput, match=r"no file named diffusion_pytorch_model.safetensors"):
        load_any_vae(pickled)
    assert capfd.readouterr() == ("", "")  # the message is all that is said


def test_shapes_that_make_no_sense_are_told(vaes: dict[str, PretrainedVAE]) -> None:
    with pytest.raises(BadInput, match=r"expected a video of shape \(B, 3, T, H, W\), got \(3, 5, 8, 8\)"):
        vaes["wan"].encode_latents(torch.zeros(3, 5, 8, 8))
    with pytest.raises(BadInput, match=r"expected latents of shape \(B, 4, t, h, w\), got \(1, 8, 1, 2, 2\)"):
        vaes["wan"].decode_latents(torch.zeros(1, 8, 1, 2, 2))
