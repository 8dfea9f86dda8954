"""`reelmill encode`: frames by PTS, sizes by area, latent shards that plain webdataset reads, exact resume."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import webdataset
from conftest import moving_square, write_video
from safetensors.torch import load
from tiny_coca import tiny_folder

from curate.dataset import Dataset
from curate.errors import BadInput
from curate.shards import TarWriter, to_json
from curate.stage import Resources, Stage, run_in_process
from curate.tables import SHARDS
from model.errors import BadInput as ModelBadInput
from model.text import load_text_encoder
from model.vae import VideoVAE, from_pixels, load_vae, save_vae, vae_id
from model.vae_config import VAEConfig
from pipelines.encode import EncodeConfig, about_latents, encode
from pipelines.encode_frames import FrameConfig, Shape, fit, read_clip, timing
from pipelines.encode_plan import plan
from pipelines.encode_stages import DecodeClips, EncodeClips
from pipelines.encode_store import LatentStore
from train.blend import Choice
from train.caption_features import outline, shown
from train.data import LatentDataset

FRAMES = FrameConfig(pixels=32 * 32, side=16, fps=8.0, max_frames=9)


@pytest.mark.parametrize(
    ("size", "pixels", "expected"),
    [
        ((256, 256), 64 * 64, (64, 64)),
        ((256, 144), 64 * 64, (80, 48)),  # 1.78 becomes 1.67
        ((144, 256), 64 * 64, (48, 80)),
        ((640, 480), 64 * 64, (64, 48)),
        ((1920, 1080), 256 * 256, (336, 192)),  # 1.75
        ((40, 30), 64 * 64, (32, 32)),  # a small clip is not blown up
        ((2000, 20), 64 * 64, (256, 16)),
        ((8, 8), 64 * 64, (16, 16)),  # but there is a smallest size
    ],
)
def test_size_keeps_the_aspect_within_the_budget(size, pixels, expected) -> None:
    assert fit(*size, FrameConfig(pixels=pixels, side=16)) == expected


@pytest.mark.parametrize(
    ("n_frames", "fps", "expected"),
    [
        (48, 24.0, (13, 8.0)),  # frames at 0 to 1.958 s: 16 at 8 per second, of which 13 are 4k+1
        (49, 24.0, (17, 8.0)),
        (500, 25.0, (17, 8.0)),
        (12, 5.0, (9, 5.0)),  # slower than wanted: its own rate
        (4, 24.0, (1, 8.0)),
        (1, 30.0, (1, 8.0)),
    ],
)
def test_number_of_frames_and_rate(n_frames, fps, expected) -> None:
    assert timing(n_frames, fps, FrameConfig(fps=8.0, max_frames=17), temporal=4) == expected


def test_frames_are_the_nearest_by_time(tmp_path) -> None:
    greys = [20, 50, 80, 110, 140, 170, 200]
    hundredths = [0, 5, 30, 32, 50, 74, 100]  # when each is shown
    pictures = np.stack([np.full((32, 48, 3), grey, np.uint8) for grey in greys])
    path = write_video(tmp_path / "a.mp4", pictures, fps=100, pts=hundredths)
    with path.open("rb") as file:
        frames = read_clip(file, Shape(9, 32, 48), fps=8.0)
    shown = frames.mean(axis=(1, 2, 3)).round().astype(int)
    # 0, .125, .25, .375, .5, .625, .75, .875, 1 s: .625 lies nearer to .74 than to .5, .875 nearer to 1.
    expected = [20, 50, 80, 110, 140, 170, 170, 200, 200]
    assert np.abs(shown - expected).max() <= 3
    with path.open("rb") as file, pytest.raises(ValueError, match="9 of 13 frames were found"):
        read_clip(file, Shape(13, 32, 48), fps=8.0)


def test_pictures_are_scaled_then_cropped_in_the_middle(tmp_path) -> None:
    picture = np.full((64, 128, 3), 100, np.uint8)
    picture[:, :30] = (250, 0, 0)  # cut off: a square of 64x64 lies from column 32 to 96
    picture[:, 98:] = (0, 0, 250)
    path = write_video(tmp_path / "a.mp4", np.stack([picture] * 5), fps=8)
    with path.open("rb") as file:
        frames = read_clip(file, Shape(5, 32, 32), fps=8.0)
    assert frames.shape == (5, 32, 32, 3)
    assert np.abs(frames.astype(int) - 100).max() <= 12


# The command -----------------------------------------------------------------------------------------------

CAPTIONS: dict[str, list[tuple[str, Any]]] = {
    "a0": [("dense", "A red picture, all of it red."), ("short", "a red picture"), ("short", "a green picture")],
    "a1": [("original", "a blue picture")],
    "a2": [],
    "b0": [("dense", "A green picture. All of it green."), ("structured", {"subject": "Green.", "style": "a picture"})],
    "b1": [("dense", "A blue picture, all of it blue.")],
}  # fmt: skip


def key(short: str) -> str:
    return short * 6


@pytest.fixture(scope="module")
def mp4s(tmp_path_factory) -> dict[str, bytes]:
    """Clips by name: two alike, one of a single frame, one upright, one damaged beyond repair."""
    folder = tmp_path_factory.mktemp("clips")
    sizes = {"a0": (24, 64, 48), "a1": (24, 64, 48), "a2": (1, 64, 48), "b0": (40, 48, 96)}
    found = {}
    for seed, (name, (n_frames, width, height)) in enumerate(sizes.items()):
        pictures = moving_square(n_frames, width=width, height=height, seed=seed)
        found[name] = write_video(folder / f"{name}.mp4", pictures, fps=16).read_bytes()
    return found | {"b1": found["a0"][:700]}


def make_dataset(folder: Path, mp4s: dict[str, bytes]) -> Dataset:
    """A dataset that has been through `shard`: two shards of five clips, and one clip that could not be cut."""
    folder.mkdir()
    dataset = Dataset(folder)
    sizes = {
        "a0": (64, 48, 24),
        "a1": (64, 48, 24),
        "a2": (64, 48, 1),
        "b0": (48, 96, 40),
        "b1": (64, 48, 24),
    }
    rows: list[dict[str, Any]] = [{"clip_id": key("cc"), "error": "0 frames were cut"}]
    for shard, names in (
        ("4x3_144p_1s/00000-aaaaaaaa.tar", "a0 a1 a2"),
        ("9x16_144p_2s/00000-bbbb.tar", "b0 b1"),
    ):
        with dataset.atomic_writer("shards", *shard.split("/")) as file:
            tar = TarWriter(file)
            for name in names.split():
                width, height, n_frames = sizes[name]
                facts: dict[str, Any] = {
                    "clip_id": key(name),
                    "fps": 16.0,
                    "n_frames": n_frames,
                    "width": width,
                    "height": height,
                }
                captions = [
                    {"kind": kind, "text": found}
                    if isinstance(found, str)
                    else {"kind": kind, "structured": found}
                    for kind, found in CAPTIONS[name]
                ]
                mp4 = tar.add(key(name), "mp4", mp4s[name])
                text = tar.add(key(name), "json", to_json({**facts, "captions": captions}))
                places = dict(
                    zip(("mp4_offset", "mp4_size", "json_offset", "json_size"), mp4 + text, strict=True)
                )
                rows.append({**facts, **places, "shard": shard, "duration_s": n_frames / 16})
            tar.close()
    dataset.write("shards", pa.Table.from_pylist(rows, schema=SHARDS))
    return dataset


@pytest.fixture(scope="module")
def vae_folder(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    vae = VideoVAE(VAEConfig(name="small", widths=(8, 8, 8), encoder_depth=1, decoder_depth=1))
    vae.latent_std.fill_(0.5)
    folder = tmp_path_factory.mktemp("vae")
    save_vae(vae, folder)
    return folder


@pytest.fixture(scope="module")
def done(tmp_path_factory, vae_folder, mp4s) -> tuple[Dataset, EncodeConfig]:
    """An encoded dataset, not to be changed, and what encoded it."""
    dataset = make_dataset(tmp_path_factory.mktemp("done") / "dataset", mp4s)
    config = EncodeConfig(dataset.uri, str(vae_folder), str(tiny_folder()), FRAMES, engine="local")
    encode(config)
    return dataset, config


def everything(dataset: Dataset, vae: Path) -> dict[str, bytes]:
    folder = f"latents/{vae_id(vae)}"
    return {name: dataset.read_bytes(folder, name) for name in dataset.files(folder)}


def test_plain_webdataset_reads_latents_and_text(done, vae_folder, mp4s) -> None:
    dataset, _ = done
    folder = Path(dataset.root) / "latents" / vae_id(vae_folder)
    samples = {
        sample["__key__"]: sample
        for tar in sorted(folder.glob("*.tar"))
        for sample in webdataset.WebDataset(str(tar), shardshuffle=False, empty_check=False)
    }
    assert sorted(samples) == [key(name) for name in ("a0", "a1", "a2", "b0")]
    vae, encoder = load_vae(vae_folder), load_text_encoder(str(tiny_folder()))

    latent = load(samples[key("b0")]["latent"])["latent"]
    assert (latent.dtype, latent.shape) == (torch.bfloat16, (16, 3, 4, 2))  # 9 frames of 16 wide, 32 high
    frames = torch.from_numpy(read_clip(io.BytesIO(mp4s["b0"]), Shape(9, 32, 16), fps=8.0))
    expected = vae.encode_latents(from_pixels(frames[None]))[0]
    torch.testing.assert_close(latent.float(), expected, rtol=0.01, atol=1e-3)

    text = load(samples[key("a0")]["text"])
    assert sorted(text) == ["dense", "short"]
    for kind, caption in (("dense", "A red picture, all of it red."), ("short", "a red picture")):
        torch.testing.assert_close(text[kind].float(), encoder.encode([caption])[0], rtol=0.01, atol=1e-2)
    assert load(samples[key("a2")]["text"]) == {}
    assert sorted(load(samples[key("b0")]["text"])) == [
        "dense", "dense.ends", "dense.stops", "structured/style", "structured/subject",
    ]  # fmt: skip
    assert json.loads(samples[key("a1")]["json"])["captions"] == [
        {"kind": "original", "text": "a blue picture"}
    ]


def test_index_tells_sizes_and_every_failure(done, vae_folder) -> None:
    dataset, config = done
    folder = f"latents/{vae_id(vae_folder)}"
    index = {row["clip_id"]: row for row in pq.read_table(dataset.path(folder, "index.parquet")).to_pylist()}
    assert list(index) == [key(name) for name in ("a0", "a1", "a2", "b0", "b1", "cc")]
    facts = {
        name: [index[key(name)][column] for column in ("t", "h", "w", "n_tokens", "fps", "caption_kinds")]
        for name in ("a0", "a1", "a2", "b0")
    }
    assert facts == {
        "a0": [3, 4, 4, 12, 8.0, ["dense", "short"]],
        "a1": [3, 4, 4, 12, 8.0, ["original"]],
        "a2": [1, 4, 4, 4, 0.0, []],
        "b0": [3, 4, 2, 6, 8.0, ["dense", "structured"]],
    }
    assert index[key("b1")]["shard"] is None
    assert "BadInput: not a readable video" in index[key("b1")]["error"]
    assert index[key("cc")]["error"] == "not in any shard: 0 frames were cut"
    told = json.loads(dataset.read_bytes(folder, "latents.json"))
    assert (told["vae_id"], told["channels"], told["text_width"]) == (vae_id(vae_folder), 16, 32)
    assert (told["vae"], told["text_encoder"]) == (config.vae, config.text)
    assert told["text_causal"] is True
    assert not dataset.files(f"_state/latents/{vae_id(vae_folder)}/parts")


def test_the_trainer_reads_it(done) -> None:
    dataset, _ = done
    data = LatentDataset(dataset.uri)
    assert [clip.clip_id for clip in data.clips] == [key(name) for name in ("a0", "a1", "a2", "b0")]
    latent, texts = data.read(0)
    assert latent.shape == (16, 3, 4, 4)
    assert {kind: features.shape[1] for kind, features in texts.items()} == {"dense": 32, "short": 32}
    assert data.typical() == ((3, 4, 4), 8.0)

    texts = data.read(3)[1]
    assert outline(texts) == {"dense": 2, "structured": ("style", "subject")}
    encoder = load_text_encoder(str(tiny_folder()))
    for choice, words in (
        (Choice("dense", 1, is_cut=True), ["A green picture."]),
        (Choice("dense", 2), ["A green picture. All of it green."]),
        (Choice("structured", 2, ("style", "subject")), ["a picture.", "Green."]),
    ):
        expected = torch.cat(encoder.encode(words))
        torch.testing.assert_close(shown(texts, choice), expected, rtol=0.01, atol=1e-2)


def test_a_second_run_encodes_nothing_and_a_damaged_one_is_completed(
    done, tmp_path, vae_folder, mp4s, capsys
) -> None:
    whole = everything(done[0], vae_folder)
    dataset = make_dataset(tmp_path / "dataset", mp4s)
    config = replace(done[1], dataset=dataset.uri)

    # Killed after the first part was committed, and while the second was being written.
    about = about_latents(config)
    units = plan(dataset, FRAMES, about)
    first: list[Stage] = [
        DecodeClips(config.dataset),
        EncodeClips(config.dataset, config.vae, config.text, Resources()),
    ]
    assert [row["clips"] for row in run_in_process(units[0].parts, first)] == [3]
    dataset.write_bytes(b"half a part", "_state", "tmp", "0123")
    assert [part["part"] for part in LatentStore(dataset, about).missing_parts(units)] == [
        units[1].parts[0]["part"]
    ]
    encode(config)
    assert everything(dataset, vae_folder) == whole
    assert "latents 4 clips in 2 shards + 2 failed" in capsys.readouterr().out

    folder = Path(dataset.root) / "latents" / vae_id(vae_folder)
    stamps = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.tar")}
    lost = sorted(stamps)[0]
    encode(config)
    assert {path.name: path.stat().st_mtime_ns for path in folder.glob("*.tar")} == stamps
    (folder / lost).unlink()
    encode(config)
    assert everything(dataset, vae_folder) == whole
    assert {name for name in stamps if (folder / name).stat().st_mtime_ns != stamps[name]} == {lost}


def test_other_settings_replace_and_other_vaes_never_mix(done, tmp_path, vae_folder, mp4s) -> None:
    dataset = make_dataset(tmp_path / "dataset", mp4s)
    config = replace(done[1], dataset=dataset.uri)
    encode(config)
    before = everything(dataset, vae_folder)
    encode(replace(config, frames=replace(FRAMES, max_frames=5)))
    after = everything(dataset, vae_folder)
    assert [len([n for n in found if n.endswith(".tar")]) for found in (before, after)] == [2, 2]
    assert not set(before) & set(after) - {"index.parquet", "latents.json"}
    assert LatentDataset(dataset.uri).read(0)[0].shape == (16, 2, 4, 4)

    other = load_vae(vae_folder)
    other.decoder.norm.bias.add_(1.0)
    save_vae(other, tmp_path / "other")
    encode(replace(config, vae=str(tmp_path / "other")))
    assert everything(dataset, vae_folder) == after
    with pytest.raises(ModelBadInput, match="latents of several VAEs: choose one of"):
        LatentDataset(dataset.uri)

    mine, theirs = (dataset.path("latents", vae_id(vae)) for vae in (vae_folder, tmp_path / "other"))
    Path(mine, "latents.json").write_bytes(Path(theirs, "latents.json").read_bytes())
    with pytest.raises(BadInput, match="latents of two VAEs do not mix"):
        encode(config)
    with pytest.raises(ModelBadInput, match=r"latents of two VAEs do not mix\. Delete that folder"):
        LatentDataset(dataset.uri, vae_id(vae_folder))


def test_a_shard_among_those_of_another_vae_is_not_trained_on(
    done, tmp_path, vae_folder, mp4s, capsys
) -> None:
    dataset = make_dataset(tmp_path / "dataset", mp4s)
    other = load_vae(vae_folder)
    other.latent_std.mul_(2.0)
    save_vae(other, tmp_path / "other")
    config = replace(done[1], dataset=dataset.uri)
    encode(config)
    assert "they do not mix" not in capsys.readouterr().out
    encode(replace(config, vae=str(tmp_path / "other")))
    mine, theirs = vae_id(vae_folder), vae_id(other)
    assert (
        f"there are latents of {mine} as well; they do not mix: train with --vae_id={theirs} or another\n"
        in capsys.readouterr().out
    )
    tars = [sorted(Path(dataset.path("latents", name)).glob("*.tar")) for name in (mine, theirs)]
    tars[0][0].write_bytes(tars[1][0].read_bytes())
    data = LatentDataset(dataset.uri, mine)
    changed = [clip.shard == tars[0][0].name for clip in data.clips]
    assert any(changed)
    for number, is_changed in enumerate(changed):
        if is_changed:
            with pytest.raises(
                ModelBadInput,
                match=f"is a latent of VAE {theirs}, not of {mine}: latents of two VAEs do not mix",
            ):
                data.read(number)
        else:
            data.read(number)


def test_what_cannot_be_encoded_is_told(tmp_path, done) -> None:
    config = replace(done[1], dataset=str(tmp_path / "empty"))
    with pytest.raises(BadInput, match=r"has no shards table\. Run `reelmill shard"):
        encode(config)
    with pytest.raises(BadInput, match="must be a multiple of 16 for this VAE"):
        encode(replace(done[1], frames=replace(FRAMES, side=8)))
    with pytest.raises(ModelBadInput, match="is no VAE"):
        encode(replace(done[1], vae=str(tmp_path)))


@pytest.mark.slow
def test_ray_gives_the_same_bytes(done, tmp_path, vae_folder, mp4s, ray_cluster) -> None:
    dataset = make_dataset(tmp_path / "dataset", mp4s)
    encode(replace(done[1], dataset=dataset.uri, engine="ray"))
    assert everything(dataset, vae_folder) == everything(done[0], vae_folder)
