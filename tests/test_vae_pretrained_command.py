"""`reelmill encode`, `train` and `sample` with a pretrained VAE: a small Wan with random weights."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import av
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import moving_square, write_video
from safetensors import safe_open
from safetensors.torch import load
from small_pretrained import pretrained_folder
from tiny_coca import tiny_folder

from curate.dataset import Dataset
from curate.shards import TarWriter, to_json
from curate.tables import SHARDS
from model.any_vae import any_vae_id, load_any_vae
from model.errors import BadInput as ModelBadInput
from model.vae import from_pixels
from pipelines.__main__ import main
from pipelines.encode import EncodeConfig, encode
from pipelines.encode_frames import FrameConfig, Shape, read_clip
from pipelines.sample import main as sample_main
from pipelines.sample_format import Format
from pipelines.sample_model import load_trained_vae
from pipelines.sample_pieces import Piece, to_pictures, to_request
from pipelines.train import main as train_main
from train.data import LatentDataset

FRAMES = FrameConfig(pixels=32 * 32, side=16, fps=8.0, max_frames=9)
CLIPS = {"a" * 12: 24, "b" * 12: 1}  # pictures at 16 per second


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """One shard with a clip of 24 pictures and one of a single picture, 64 x 48."""
    root = tmp_path_factory.mktemp("films")
    dataset = Dataset(root / "dataset")
    rows: list[dict[str, Any]] = []
    with dataset.atomic_writer("shards", "4x3", "00000-aaaa.tar") as file:
        tar = TarWriter(file)
        for clip_id, n_frames in CLIPS.items():
            mp4 = write_video(
                root / f"{clip_id}.mp4", moving_square(n_frames, width=64, height=48), fps=16
            ).read_bytes()
            facts = {"clip_id": clip_id, "fps": 16.0, "n_frames": n_frames, "width": 64, "height": 48}
            captions = [{"kind": "short", "text": "a square moves right"}]
            places = tar.add(clip_id, "mp4", mp4) + tar.add(
                clip_id, "json", to_json({**facts, "captions": captions})
            )
            names = ("mp4_offset", "mp4_size", "json_offset", "json_size")
            rows.append({**facts, **dict(zip(names, places, strict=True)), "shard": "4x3/00000-aaaa.tar"})
        tar.close()
    dataset.write("shards", pa.Table.from_pylist(rows, schema=SHARDS))
    return dataset


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrained_folder(tmp_path_factory.mktemp("pretrained") / "wan", "wan")


@pytest.fixture(scope="module")
def encoded(dataset: Dataset, wan: Path) -> Dataset:
    code = main(
        [
            "encode",
            f"--dataset={dataset.uri}",
            f"--vae={os.path.relpath(wan)}",  # what it is told is for readers elsewhere
            f"--text={tiny_folder()}",
            "--frames.pixels=1024",
            "--frames.max_frames=9",
            "--engine=local",
        ]
    )
    assert code == 0
    return dataset


def test_latents_are_named_by_the_id_and_are_those_of_the_network(encoded: Dataset, wan: Path) -> None:
    name = any_vae_id(wan)
    folder = Path(encoded.root) / "latents" / name
    told = json.loads((folder / "latents.json").read_text())
    assert (told["vae_id"], told["vae"]) == (name, str(wan))
    assert (told["channels"], told["temporal"], told["spatial"]) == (4, 4, 8)
    index = pq.read_table(folder / "index.parquet").to_pylist()
    assert [[row[c] for c in ("clip_id", "t", "h", "w", "n_tokens")] for row in index] == [
        ["a" * 12, 3, 4, 4, 12],
        ["b" * 12, 1, 4, 4, 4],
    ]
    data = (folder / index[0]["shard"]).read_bytes()
    vae = load_any_vae(wan)
    for row, frames in zip(index, (9, 1), strict=True):
        member = data[row["latent_offset"] : row["latent_offset"] + row["latent_size"]]
        mp4 = (Path(encoded.root).parent / f"{row['clip_id']}.mp4").read_bytes()
        pixels = torch.from_numpy(read_clip(io.BytesIO(mp4), Shape(frames, 32, 32), fps=8.0))
        with torch.inference_mode():
            expected = vae.encode_latents(from_pixels(pixels[None]))[0]
        torch.testing.assert_close(load(member)["latent"].float(), expected, rtol=0.01, atol=0.02)
        file = Path(encoded.root) / "member"
        file.write_bytes(member)
        with safe_open(file, "pt") as opened:
            assert opened.metadata()["vae_id"] == name


def test_latents_of_another_vae_do_not_mix(
    encoded: Dataset, wan: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = pretrained_folder(tmp_path / "wan", "wan", seed=1)
    config = EncodeConfig(encoded.uri, str(other), str(tiny_folder()), FRAMES, engine="local")
    encode(config)
    names = sorted((any_vae_id(wan), any_vae_id(other)))
    assert names[0] != names[1]
    assert sorted(path.name for path in (Path(encoded.root) / "latents").iterdir()) == names
    with pytest.raises(ModelBadInput, match=f"latents of several VAEs: choose one of {', '.join(names)}"):
        LatentDataset(encoded.uri)
    mine, theirs = (Path(encoded.root) / "latents" / any_vae_id(vae) for vae in (wan, other))
    (theirs / "latents.json").write_bytes((mine / "latents.json").read_bytes())
    capfd.readouterr()
    told = [f"--dataset={encoded.uri}", f"--vae={other}", f"--text={tiny_folder()}", "--engine=local"]
    assert main(["encode", *told]) == 2
    error = capfd.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert f"holds latents of VAE {any_vae_id(wan)}, not of {any_vae_id(other)}" in error[0]
    assert "latents of two VAEs do not mix" in error[0]
    with pytest.raises(
        ModelBadInput, match=f"is {any_vae_id(other)}, but the model was trained on latents of wan-"
    ):
        load_trained_vae(str(other), any_vae_id(wan))


def test_sizes_that_the_vae_cannot_take_are_told(
    dataset: Dataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ltx = pretrained_folder(tmp_path / "ltx", "ltx")
    told = [f"--dataset={dataset.uri}", f"--vae={ltx}", f"--text={tiny_folder()}", "--engine=local"]
    assert main(["encode", *told]) == 2
    assert "frames.side 16 must be a multiple of 64 for this VAE" in capfd.readouterr().err


def test_a_model_trained_on_them_makes_videos(encoded: Dataset, wan: Path, tmp_path: Path) -> None:
    options = [f"--dataset={encoded.uri}", f"--vae_id={any_vae_id(wan)}", f"--out={tmp_path / 'run'}"]
    assert train_main([*options, "--steps=2", "--packing.budget=64", "--device=cpu"]) == 0
    asked = [f"--checkpoint={tmp_path / 'run'}", "--prompt=a square", f"--out={tmp_path / 'out'}"]
    assert sample_main([*asked, "--frames=6", "--width=48", "--height=32", "--sampler.steps=1"]) == 0
    with av.open(str(tmp_path / "out" / "000.mp4")) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(frames) == 6
    assert frames[0].shape == (32, 48, 3)


def test_any_number_of_frames_can_be_sampled(tmp_path: Path) -> None:
    vae = load_any_vae(pretrained_folder(tmp_path / "cogvideox", "cogvideox"))
    form = Format(16, 32, 8.0, temporal=4, spatial=8, grain=8, piece_t=5, context=9, side=1)
    for frames, t in ((1, 1), (5, 2), (6, 3), (9, 3), (13, 4)):
        piece = Piece(frames)
        request = to_request(piece, vae, form, None, seed=0)
        assert request.size == (t, 2, 4)
        assert to_pictures(torch.randn(4, *request.size), piece, vae).shape == (frames, 16, 32, 3)
