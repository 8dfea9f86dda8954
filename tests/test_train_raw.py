"""`reelmill train --raw`: the same training as on latents, with decoding and encoding on the fly."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from conftest import moving_square
from moto_store import moto_store
from small_pretrained import KINDS, pretrained_folder
from small_shards import film, write_shards
from torch import Tensor

from curate.dataset import Dataset
from curate.errors import BadInput
from pipelines import train_raw
from pipelines.curate import main as curate
from pipelines.demo.films import render_films
from pipelines.encode import EncodeConfig, encode
from pipelines.encode_frames import FrameConfig
from pipelines.recaption import main as recaption
from pipelines.sample import main as sample
from pipelines.shard import main as shard
from pipelines.train import main as train
from pipelines.train_raw import RawShards
from pipelines.train_raw_config import OnTheFly
from train.data import ClipEntry, DamagedClip, Given, LatentDataset

#: Such as come out of the options below.
FRAMES = FrameConfig(pixels=32 * 48, max_frames=13)
OPTIONS = ("--encode.frames.pixels=1536", "--encode.frames.max_frames=13")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Films of the procedural world on the whole road to latents, not to be changed."""
    root = tmp_path_factory.mktemp("films")
    render_films(root / "films", n_films=3, seed=3, faults=False)
    dataset = str(root / "dataset")
    assert (
        curate(["--input", str(root / "films"), "--dataset", dataset, "--engine=local", "--clip.model=off"])
        == 0
    )
    assert recaption(["--dataset", dataset, "--engine=local"]) == 0
    assert shard(["--dataset", dataset, "--engine=local"]) == 0
    encode(EncodeConfig(dataset, frames=FRAMES, engine="local"))
    return root / "dataset"


@pytest.fixture
def raw_only(films: Path, tmp_path: Path) -> Path:
    """The shards alone, to be changed."""
    shutil.copytree(films / "shards", tmp_path / "raw" / "shards")
    return tmp_path / "raw"


def run(dataset: Path | str, out: Path, *options: str, steps: int = 6) -> list[dict[str, Any]]:
    """Rows of the metrics of a short training."""
    code = train(
        [
            f"--dataset={dataset}", f"--out={out}", f"--steps={steps}", "--log_every=1", "--device=cpu",
            "--packing.budget=256", "--model.width=16", "--model.depth=1", "--model.heads=1", "--optim.warmup=2",
            "--optim.lr=1e-3", "--validation.every=0", *options,
        ]
    )  # fmt: skip
    assert code == 0
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def losses(rows: list[dict[str, Any]]) -> list[float]:
    return [row["loss"] for row in rows]


def told(clips: list[ClipEntry]) -> list[dict[str, Any]]:
    """All but where the clips lie."""
    names = {f.name for f in fields(ClipEntry)} - {"shard", "latent", "text"}
    return [{name: getattr(clip, name) for name in names} for clip in clips]


def tensors(read: tuple[Tensor, dict[str, Tensor], Given]) -> dict[str, Tensor]:
    latent, texts, given = read
    return {"latent": latent, "keyframes": given.keyframes, "suffix": given.suffix} | texts


def shards_of(dataset: Path) -> list[dict[str, Any]]:
    rows = Dataset(dataset).read("shards").to_pylist()
    return sorted(rows, key=lambda row: row["clip_id"])


def spoil(dataset: Path, row: dict[str, Any], member: str, at: float) -> None:
    """Overwrite some bytes of a member, beginning at a share of its length."""
    path = dataset / "shards" / row["shard"]
    data = bytearray(path.read_bytes())
    first = row[f"{member}_offset"] + int(at * row[f"{member}_size"])
    data[first : first + 200] = np.random.default_rng(0).bytes(200)
    path.write_bytes(data)


# The same as with latents ------------------------------------------------------------------------------------


def test_the_losses_are_those_on_latents(films: Path, raw_only: Path, tmp_path: Path) -> None:
    on_latents = run(films, tmp_path / "latents")
    on_raw = run(raw_only, tmp_path / "raw-run", "--raw", *OPTIONS)
    assert losses(on_raw) == pytest.approx(losses(on_latents), abs=1e-4)
    assert len(set(losses(on_raw))) == 6
    for name in ("tokens", "captions", "epoch"):
        assert [row[name] for row in on_raw] == [row[name] for row in on_latents]


def test_clips_and_about_are_those_of_latents(films: Path) -> None:
    raw, latents = RawShards(str(films), OnTheFly(frames=FRAMES), "cpu"), LatentDataset(str(films))
    assert len({clip.size for clip in raw.clips}) > 1
    assert {kind for clip in raw.clips for kind in clip.kinds} == {"dense", "original", "short"}
    assert told(raw.clips) == told(latents.clips)
    assert raw.digest() == latents.digest()
    assert raw.typical() == latents.typical()
    assert raw.about == latents.about  # what sampling needs
    for number in range(len(raw.clips)):
        made, stored = (tensors(data.read_given(number)) for data in (raw, latents))
        assert made.keys() == stored.keys()
        for name in made:
            torch.testing.assert_close(made[name], stored[name], rtol=0.01, atol=1e-3)
    for one, other in zip(raw.held_back(2), latents.held_back(2), strict=True):
        assert told(one.clips) == told(other.clips)
        torch.testing.assert_close(one.read(1)[0], other.read(1)[0], rtol=0.01, atol=1e-3)


def test_of_clips_that_were_encoded_alone_every_bit_is_the_same(films: Path, tmp_path: Path) -> None:
    root = shutil.copytree(films, tmp_path / "alone")
    shutil.rmtree(root / "latents")
    assert shard(["--dataset", str(root), "--engine=local", "--pack.max_clips=1"]) == 0
    encode(EncodeConfig(str(root), frames=FRAMES, engine="local"))
    raw, latents = RawShards(str(root), OnTheFly(frames=FRAMES), "cpu"), LatentDataset(str(root))
    assert len(raw.clips) == len(latents.clips) > 5
    for number in range(len(raw.clips)):
        one, other = (tensors(data.read_given(number)) for data in (raw, latents))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("kind", ["wan16", "hunyuan", "ltx", "cogvideox"])
def test_sizes_are_known_before_encoding_for_all_vaes(tmp_path: Path, kind: str) -> None:
    assert kind in KINDS
    vae = pretrained_folder(tmp_path / kind, kind)
    frames = FrameConfig(pixels=64 * 64, side=64, max_frames=22)
    counts = (22, 1, 10)
    clips = [film(tmp_path, f"{n:012x}", moving_square(n), 8) for n in counts]
    dataset = write_shards(tmp_path / "dataset", [clips])
    encode(EncodeConfig(dataset.uri, str(vae), frames=frames, engine="local"))
    raw = RawShards(dataset.uri, OnTheFly(str(vae), frames=frames), "cpu")
    latents = LatentDataset(dataset.uri)
    assert told(raw.clips) == told(latents.clips)
    for number in range(len(counts)):
        one, other = (tensors(data.read_given(number)) for data in (raw, latents))
        assert {name: x.shape for name, x in one.items()} == {name: x.shape for name, x in other.items()}


def test_a_run_goes_on_with_latents_and_the_other_way_round(
    films: Path, raw_only: Path, tmp_path: Path
) -> None:
    whole = run(films, tmp_path / "whole")
    run(raw_only, tmp_path / "run", "--raw", *OPTIONS, steps=2)
    run(films, tmp_path / "run", steps=4)
    rows = run(raw_only, tmp_path / "run", "--raw", *OPTIONS, steps=6)
    assert [row["resumed_at"] for row in rows] == [0, 0, 2, 2, 4, 4]
    assert losses(rows) == pytest.approx(losses(whole), abs=1e-4)
    # What the run was told is enough to start it again.
    assert train(["--config", str(tmp_path / "run" / "config.yaml"), "--steps=7"]) == 0
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert (last["step"], last["resumed_at"]) == (7, 6)


def test_its_checkpoints_sample(raw_only: Path, tmp_path: Path) -> None:
    run(raw_only, tmp_path / "run", "--raw", *OPTIONS, steps=1)
    code = sample(
        [
            f"--checkpoint={tmp_path / 'run'}", "--prompt=a red disc", f"--out={tmp_path / 'samples'}",
            "--sampler.steps=2", "--device=cpu",
        ]
    )  # fmt: skip
    assert code == 0
    assert list((tmp_path / "samples").glob("*.mp4"))


# What goes wrong ---------------------------------------------------------------------------------------------


def test_damaged_clips_are_left_out_and_counted(raw_only: Path, tmp_path: Path) -> None:
    rows = shards_of(raw_only)
    pictures, record = rows[0], rows[1]
    spoil(raw_only, pictures, "mp4", 0.5)
    spoil(raw_only, record, "json", 0.0)
    run(raw_only, tmp_path / "run", "--raw", *OPTIONS, "--packing.budget=4096", steps=1)  # one pack of all
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert {(event["step"], event["event"]) for event in events} == {(1, "damaged clip")}
    errors = {event["clip_id"]: event["error"] for event in events}
    assert errors.keys() == {pictures["clip_id"], record["clip_id"]}
    assert "pictures were lost" in errors[pictures["clip_id"]]
    assert "(UnicodeDecodeError" in errors[record["clip_id"]]
    assert all("Cut it again (`reelmill shard`)" in error for error in errors.values())
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert row["captions"]["clips"] == len(rows) - 2
    assert "2 clips could not be read" in row["note"]


def test_a_lost_tar_costs_its_clips(raw_only: Path) -> None:
    rows = shards_of(raw_only)
    lost = rows[0]["shard"]
    (raw_only / "shards" / lost).unlink()
    data = RawShards(str(raw_only), OnTheFly(frames=FRAMES), "cpu")
    for number, row in enumerate(rows):
        if row["shard"] == lost:
            with pytest.raises(DamagedClip, match=r"cannot be used \(FileNotFoundError"):
                data.read(number)
        else:
            assert data.read(number)[0].shape[1:] == data.clips[number].size


def test_a_decoder_that_hangs_costs_a_clip(raw_only: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = RawShards(str(raw_only), OnTheFly(frames=FRAMES), "cpu")
    before = data.read(0)[0]
    with monkeypatch.context() as patch:
        patch.setattr(train_raw, "DECODE_S", 0.0)  # every decoder seems to hang
        with pytest.raises(DamagedClip, match="TooSlow: no result within the deadline"):
            data.read(0)
    assert torch.equal(data.read(0)[0], before)


def test_captions_that_changed_since_the_run_began_are_not_shown(raw_only: Path) -> None:
    data = RawShards(str(raw_only), OnTheFly(frames=FRAMES), "cpu")
    row = shards_of(raw_only)[0]
    path = raw_only / "shards" / row["shard"]
    record = path.read_bytes()[row["json_offset"] : row["json_offset"] + row["json_size"]]
    path.write_bytes(path.read_bytes().replace(record, record.replace(b'"kind"', b'"kynd"')))
    path.write_bytes(
        path.read_bytes().replace(b'"kynd":"dense"', b'"kind":"donso"').replace(b"kynd", b"kind")
    )
    with pytest.raises(DamagedClip, match=r"it has captions \('donso', .* when the run began"):
        data.read(0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--raw"], r"has no shards, which --raw reads\. Run `reelmill shard --dataset"),
        (["--encode.frames.fps=6"], r"--encode\.\* tells how raw video is encoded: give --raw too"),
    ],
)
def test_what_cannot_be_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    assert train([f"--dataset={folder}", f"--out={tmp_path / 'run'}", *options]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


def test_another_vae_than_asked_for_is_refused(raw_only: Path) -> None:
    with pytest.raises(BadInput, match="--vae_id=other, but the VAE embedded is tiny-4x8x8-"):
        RawShards(str(raw_only), OnTheFly(frames=FRAMES), "cpu", vae_id="other")


# Where it is read --------------------------------------------------------------------------------------------


def test_from_an_object_store(raw_only: Path, tmp_path: Path) -> None:
    local = run(raw_only, tmp_path / "local", "--raw", *OPTIONS, steps=3)
    with moto_store() as store:
        fsspec.filesystem("s3").put(str(raw_only / "shards"), f"{store.uri}/raw/shards", recursive=True)
        remote = run(f"{store.uri}/raw", tmp_path / "remote", "--raw", *OPTIONS, steps=3)
    assert losses(remote) == losses(local)


def test_any_number_of_workers_gives_the_same(raw_only: Path, tmp_path: Path) -> None:
    one, two = (
        losses(run(raw_only, tmp_path / str(n), "--raw", *OPTIONS, f"--feed.workers={n}", steps=4))
        for n in (1, 2)
    )
    assert one == two


def test_threads_decode_apart_and_take_turns_at_the_models(raw_only: Path) -> None:
    data = RawShards(str(raw_only), OnTheFly(frames=FRAMES), "cpu")
    alone = [tensors(data.read_given(number)) for number in range(len(data.clips))]
    inside, most, names = 0, 0, set[int]()

    def enter(*_: object) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        names.add(threading.get_ident())
        time.sleep(0.02)

    def leave(*_: object) -> None:
        nonlocal inside
        inside -= 1

    data._encoder._vae.encoder.register_forward_pre_hook(enter)
    data._encoder._vae.encoder.register_forward_hook(leave)
    with ThreadPoolExecutor(3) as pool:
        together = [tensors(read) for read in pool.map(data.read_given, range(len(data.clips)))]
    assert (most, len(names)) == (1, 3)
    for one, other in zip(alone, together, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
