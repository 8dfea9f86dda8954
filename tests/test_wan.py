"""Wan's transformer: a small random one of diffusers, saved and loaded through the real path, gives the same output."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model.config import PRESETS
from model.dit import DiT
from model.errors import BadInput
from model.pack import Clip, make_pack, own_parts
from model.patches import unpatchify
from model.wan import load_wan, wan_config, wan_weights

SMALL: dict[str, Any] = {
    "num_attention_heads": 3,
    "attention_head_dim": 16,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 12,
    "ffn_dim": 80,
    "num_layers": 3,
}
#: config.json of Wan-AI/Wan2.1-T2V-1.3B-Diffusers, transformer
WAN_1_3B: dict[str, Any] = {
    "_class_name": "WanTransformer3DModel",
    "added_kv_proj_dim": None,
    "attention_head_dim": 128,
    "cross_attn_norm": True,
    "eps": 1e-06,
    "ffn_dim": 8960,
    "freq_dim": 256,
    "image_dim": None,
    "in_channels": 16,
    "num_attention_heads": 12,
    "num_layers": 30,
    "out_channels": 16,
    "patch_size": [1, 2, 2],
    "qk_norm": "rms_norm_across_heads",
    "rope_max_seq_len": 1024,
    "text_dim": 4096,
}


@pytest.fixture(scope="module")
def wan() -> Any:
    """A network of diffusers; no weight is at a value that hides it, such as a norm's 1 or a bias's 0."""
    from diffusers import WanTransformer3DModel

    torch.manual_seed(0)
    network: Any = WanTransformer3DModel(**SMALL)
    network.eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter += 0.1 * torch.randn_like(parameter)
    return network


@pytest.fixture(scope="module")
def folder(wan: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("wan")
    wan.save_pretrained(place)
    return place


def clips() -> list[Clip]:
    torch.manual_seed(1)
    return [
        Clip(torch.randn(4, 3, 4, 6), 16.0, torch.randn(7, 12), 0.7123),
        Clip(torch.randn(4, 1, 8, 4), None, torch.randn(1, 12), 1.0),
        Clip(torch.randn(4, 5, 2, 2), 16.0, torch.randn(512, 12), 0.001),
        Clip(torch.randn(4, 2, 6, 6), 16.0, torch.randn(40, 12), 0.0),
    ]


def theirs(wan: Any, clip: Clip) -> Tensor:
    """What diffusers makes of a clip: text filled up to 512 with zeros, as its pipeline does."""
    assert clip.text is not None
    text = torch.zeros(1, 512, 12)
    text[0, : len(clip.text)] = clip.text
    return wan(clip.latent[None], torch.tensor([1000 * clip.t]), text).sample[0]


def ours(dit: DiT, packed: list[Clip]) -> list[Tensor]:
    pack = make_pack(packed, dit.config)
    parts = own_parts(dit(pack), pack)
    shapes = [(4, *clip.latent.shape[1:]) for clip in packed]
    return [unpatchify(part, shape, dit.config.patch) for part, shape in zip(parts, shapes, strict=True)]


def test_outputs_are_those_of_diffusers(wan: Any, folder: Path) -> None:
    dit = load_wan(folder)
    assert not dit.training
    assert not any(p.requires_grad for p in dit.parameters())
    for clip in clips():
        expected = theirs(wan, clip)
        assert expected.std() > 0.1
        torch.testing.assert_close(ours(dit, [clip])[0], expected, atol=1e-4, rtol=0)


def test_a_pack_is_two_calls_of_diffusers(wan: Any, folder: Path) -> None:
    dit = load_wan(folder)
    for found, clip in zip(ours(dit, clips()), clips(), strict=True):
        torch.testing.assert_close(found, theirs(wan, clip), atol=1e-4, rtol=0)


def test_the_empty_text_is_the_encoders(wan: Any, folder: Path) -> None:
    dit, clip = load_wan(folder), clips()[0]
    assert not dit.null_text.any()
    empty = torch.randn(1, 12)
    dit.null_text.copy_(empty[0])
    without = ours(dit, [replace(clip, text=None)])[0]
    torch.testing.assert_close(without, theirs(wan, replace(clip, text=empty)), atol=1e-4, rtol=0)


def test_ti2v_5b_counts_latent_frames_at_24_pictures_a_second(tmp_path: Path) -> None:
    """As the model of 48 channels; its given first picture is at noise level 0, the rest at t."""
    from diffusers import WanTransformer3DModel

    torch.manual_seed(0)
    network: Any = WanTransformer3DModel(**SMALL | {"in_channels": 48, "out_channels": 48})
    network.eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter += 0.1 * torch.randn_like(parameter)
    network.save_pretrained(tmp_path)
    dit = load_wan(tmp_path)
    assert wan_config(WAN_1_3B).reference_fps == 16
    clip = Clip(torch.randn(48, 3, 4, 6), 24.0, torch.randn(7, 12), 0.7)
    text = torch.zeros(1, 512, 12)
    text[0, :7] = clip.text
    for is_clean in (None, torch.tensor([True, False, False])):
        pack = make_pack([replace(clip, is_clean=is_clean)], dit.config)
        assert pack.positions[:, 0].unique().tolist() == [0, 1, 2]
        levels = pack.levels[pack.level_index]  # (S,)
        expected = network(clip.latent[None], 1000 * levels[None], text).sample[0]
        found = unpatchify(dit(pack), (48, 3, 4, 6), dit.config.patch)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_the_preset_is_the_geometry_of_wan_2_1(tmp_path: Path) -> None:
    from diffusers import WanTransformer3DModel

    config = wan_config(WAN_1_3B)
    assert config == replace(PRESETS["1.3B"], text_tokens=512)
    with torch.device("meta"):
        network = WanTransformer3DModel.from_config(WAN_1_3B)
        dit = DiT(PRESETS["1.3B"])
    weights = {name: p for name, p in network.state_dict().items()}
    found = {name: p.shape for name, p in wan_weights(weights, dit).items()}
    assert found == {name: p.shape for name, p in dit.state_dict().items()}
    assert (
        sum(p.numel() for p in network.parameters()) == sum(shape.numel() for shape in found.values()) - 4096
    )


def test_pipelines_the_hub_and_several_files(
    wan: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    expected = ours(load_wan(folder), clips()[:1])[0]

    def check(place: str | Path) -> None:
        assert torch.equal(ours(load_wan(place), clips()[:1])[0], expected)

    wan.save_pretrained(tmp_path / "shards", max_shard_size="100KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    check(tmp_path / "shards")
    shutil.copytree(folder, tmp_path / "pipeline" / "transformer")
    (tmp_path / "pipeline" / "model_index.json").write_text("{}")
    check(tmp_path / "pipeline")

    # What a download from the hub leaves behind.
    for name, inside in (("models--some--pipeline", "transformer"), ("models--some--transformer", "")):
        shutil.copytree(folder, tmp_path / "hub" / name / "snapshots" / ("0" * 40) / inside)
        (tmp_path / "hub" / name / "refs").mkdir()
        (tmp_path / "hub" / name / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    check("hf:some/pipeline")
    check("hf:some/transformer")
    with pytest.raises(BadInput, match=r"hf:some/other holds no usable Wan .*without the hub, give a folder"):
        load_wan("hf:some/other")


def changed(folder: Path, to: Path, **keys: Any) -> Path:
    shutil.copytree(folder, to)
    told = json.loads((folder / "config.json").read_text())
    (to / "config.json").write_text(json.dumps(told | keys))
    return to


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"_class_name": "LTXVideoTransformer3DModel"}, "of class LTXVideo.*, not WanTransformer3DModel"),
        ({"image_dim": 1280, "added_kv_proj_dim": 48}, "image_dim 1280, added_kv_proj_dim 48: no place.*text alone"),
        ({"in_channels": 9}, "in_channels 9 for out_channels 4"),
        ({"eps": 1e-5}, "eps 1e-05"),
        ({"patch_size": [2, 2, 2]}, r"patch_size \(2, 2, 2\)"),
        ({"num_layers": 2}, "weights that its config.json does not tell of.*blocks.2"),
        ({"num_layers": 4}, r"lacks the weights \['blocks.3.scale_shift_table'\]"),
        ({"ffn_dim": 81}, "no usable Wan transformer.*size mismatch.*give a folder"),
        ({"num_attention_heads": None}, "config.json does not tell num_attention_heads. Copy it again"),
        ({"patch_size": None, "in_channels": None}, "does not tell in_channels, patch_size. Copy it again"),
        ({"patch_size": [2, 2]}, r"patch_size \(2, 2\), not three numbers"),
        ({"num_layers": "many"}, "no usable Wan transformer"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(folder: Path, tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        load_wan(changed(folder, tmp_path / "wan", **keys))


def test_only_safetensors_are_read(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "wan")
    (weights,) = (tmp_path / "wan").glob("*.safetensors")
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(BadInput, match=r"No such file.*safetensors"):
        load_wan(tmp_path / "wan")
    with pytest.raises(BadInput, match="no usable Wan transformer"):
        load_wan(tmp_path / "nothing")
