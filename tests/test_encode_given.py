"""Keyframes and suffixes in KEY.latent: what a sampler can encode of a picture or an ending that it is given."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import moving_square
from safetensors import safe_open
from small_pretrained import KINDS, pretrained_folder
from small_shards import film, write_shards
from tiny_coca import tiny_folder
from torch import Tensor

from curate.dataset import Dataset
from curate.errors import BadInput
from model.any_vae import load_any_vae
from model.pretrained_vae import PretrainedVAE
from model.vae import VideoVAE, from_pixels, load_vae, vae_id
from pipelines.demo.weights import embedded
from pipelines.encode import EncodeConfig, about_latents, encode
from pipelines.encode_frames import FrameConfig, timing
from pipelines.encode_latents import frame_step, keyframe_positions, latents_of, suffix_length
from pipelines.encode_plan import plan
from train.data import LatentDataset

FRAMES = FrameConfig(pixels=32 * 32, side=16, fps=8.0, max_frames=17)


@pytest.fixture(scope="module")
def vae() -> VideoVAE:
    return load_vae(embedded("vae"))


@pytest.mark.parametrize(
    ("t", "most", "expected"),
    [(5, 1, (4,)), (5, 2, (2, 4)), (5, 3, (1, 2, 4)), (5, 9, (1, 2, 3, 4)), (2, 2, (1,)), (1, 2, ()), (5, 0, ())],
)  # fmt: skip
def test_keyframes_are_spread_and_end_with_the_last(t, most, expected) -> None:
    assert keyframe_positions(t, most) == expected


@pytest.mark.parametrize(
    ("t", "wanted", "step", "expected"),
    [
        (5, 2, 1, 2),
        (5, 9, 1, 4),
        (2, 2, 1, 1),
        (1, 2, 1, 0),
        (5, 0, 1, 0),
        (5, 2, 2, 3),  # 9 pictures: 5 would be padded to 9
        (5, 1, 2, 1),
        (3, 2, 2, 1),
        (7, 9, 2, 5),
    ],
)
def test_length_of_a_suffix(t, wanted, step, expected) -> None:
    assert suffix_length(t, wanted, step) == expected


def by_hand(vae: VideoVAE | PretrainedVAE, pictures: np.ndarray) -> Tensor:
    """(C, t, h, w) of pictures (T, H, W, 3), float32."""
    with torch.no_grad():
        return vae.encode_latents(from_pixels(torch.from_numpy(pictures)[None]))[0]


def assert_near(found: Tensor, expected: Tensor) -> None:
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=0.01, atol=2e-3)


def test_they_are_these_pictures_encoded_by_hand(vae: VideoVAE) -> None:
    videos = [
        moving_square(17, width=64, height=48, seed=1, step=4),
        moving_square(1, width=64, height=48, seed=2),
        moving_square(9, width=48, height=64, seed=3),
        moving_square(17, width=64, height=48, seed=4, step=3),
        moving_square(5, width=64, height=48, seed=5),
    ]
    for video, made in zip(videos, latents_of(vae, videos, FRAMES), strict=True):
        assert_near(made["latent"], by_hand(vae, video))
        if len(video) == 1:
            assert list(made) == ["latent"]
            continue
        at = {17: [2, 4], 9: [1, 2], 5: [1]}[len(video)]
        assert made["keyframe_at"].dtype == torch.int32
        assert made["keyframe_at"].tolist() == at
        for k, i in enumerate(at):
            assert_near(made["keyframes"][:, k : k + 1], by_hand(vae, video[4 * i : 4 * i + 1]))
        s = {17: 2, 9: 2, 5: 1}[len(video)]
        assert_near(made["suffix"], by_hand(vae, video[-(4 * (s - 1) + 1) :]))
        assert made["suffix"].shape == (16, s, *made["latent"].shape[2:])


def test_a_beginning_needs_none_of_it_but_what_comes_later_does(vae: VideoVAE) -> None:
    """What a sampler is given of the beginning has the latents of the whole clip; a picture or an ending has not."""
    video = moving_square(17, width=64, height=48, seed=1, step=4)
    made = latents_of(vae, [video], FRAMES)[0]
    whole = made["latent"].float()
    size = whole.square().mean().sqrt()
    for pictures in (1, 5, 13):
        prefix = by_hand(vae, video[:pictures])
        assert (prefix - whole[:, : prefix.shape[1]]).square().mean().sqrt() < 0.01 * size

    def apart(name: str, at: Sequence[int]) -> list[float]:
        """Of each latent frame, the distance from the one at its place in the whole clip, as a share of their size."""
        return ((made[name].float() - whole[:, at]).square().mean(dim=(0, 2, 3)).sqrt() / size).tolist()

    assert min(apart("keyframes", [2, 4])) > 0.2
    first, second = apart("suffix", [3, 4])
    assert first > 0.2  # a single picture instead of four
    assert second > 0.02  # this VAE remembers little


def test_none_are_made_where_none_are_wanted(vae: VideoVAE) -> None:
    video = moving_square(9, width=48, height=48)
    for keyframes, suffix, names in (
        (0, 0, ["latent"]),
        (0, 1, ["latent", "suffix"]),
        (1, 0, ["keyframe_at", "keyframes", "latent"]),
    ):
        made = latents_of(vae, [video], FrameConfig(keyframes=keyframes, suffix=suffix))[0]
        assert sorted(made) == names


# The command and the trainer ---------------------------------------------------------------------------------


def run(tmp_path: Path, vae: Path, frames: FrameConfig, lengths: Sequence[int]) -> tuple[Dataset, str]:
    films = [
        film(tmp_path, f"{i:x}" * 12, moving_square(n, width=64, height=48, seed=i), 8)
        for i, n in enumerate(lengths)
    ]
    dataset = write_shards(tmp_path / "dataset", [films])
    encode(EncodeConfig(dataset.uri, str(vae), str(tiny_folder()), frames, engine="local"))
    return dataset, f"latents/{LatentDataset(dataset.uri).about['vae_id']}"


def test_the_index_tells_them_and_the_trainer_reads_them(tmp_path: Path, vae: VideoVAE) -> None:
    dataset, folder = run(tmp_path, embedded("vae"), FRAMES, [17, 1])
    rows = pq.read_table(dataset.path(folder, "index.parquet")).to_pylist()
    assert [(row["t"], row["keyframe_at"], row["suffix"]) for row in rows] == [(5, [2, 4], 2), (1, [], 0)]

    data = LatentDataset(dataset.uri)
    assert [(clip.keyframe_at, clip.suffix) for clip in data.clips] == [((2, 4), 2), ((), 0)]
    latent, texts, given = data.read_given(0)
    assert (latent.shape, texts) == ((16, 5, 4, 4), {})
    assert (given.keyframes.shape, given.keyframe_at, given.suffix.shape) == (
        (16, 2, 4, 4),
        (2, 4),
        (16, 2, 4, 4),
    )
    assert given.keyframes.dtype == given.suffix.dtype == torch.float32
    assert torch.equal(data.read(0)[0], latent)
    assert torch.corrcoef(torch.stack([given.suffix[:, 1].flatten(), latent[:, 4].flatten()]))[0, 1] > 0.9
    none = data.read_given(1)[2]
    assert (none.keyframes.shape, none.keyframe_at, none.suffix.shape) == ((16, 0, 4, 4), (), (16, 0, 4, 4))

    row, about = rows[0], json.loads(dataset.read_bytes(folder, "latents.json"))
    assert (about["keyframes"], about["suffix"], about["tile"], about["frame_step"]) == (2, 2, None, 4)
    member = tmp_path / "member"
    at = row["latent_offset"]
    member.write_bytes(dataset.read_bytes(folder, row["shard"], start=at, end=at + row["latent_size"]))
    with safe_open(member, "pt") as file:
        assert file.metadata() == {
            "t": "5", "h": "4", "w": "4", "fps": "8.0", "n_frames": "17", "vae_id": vae_id(vae),
        }  # fmt: skip


def test_other_wishes_make_other_shards_and_odd_ones_are_told(tmp_path: Path) -> None:
    dataset = write_shards(tmp_path / "dataset", [[film(tmp_path, "a" * 12, moving_square(9), 8)]])
    config = EncodeConfig(dataset.uri, frames=FRAMES)
    about = about_latents(config)
    names = {
        plan(dataset, frames, about | more)[0].content
        for frames, more in (
            (FRAMES, {}),
            (FrameConfig(**{**vars(FRAMES), "keyframes": 1}), {}),
            (FrameConfig(**{**vars(FRAMES), "suffix": 0}), {}),
            (FRAMES, {"tile": 64}),
            (FRAMES, {"batch_mb": 9}),
            (FrameConfig(**{**vars(FRAMES), "max_frames": 5}), {}),
            (FrameConfig(**{**vars(FRAMES), "max_frames": 20}), {}),  # as before: the clip has 9
            (FrameConfig(**{**vars(FRAMES), "pixels": 33 * 33}), {}),
        )
    }
    assert len(names) == 6
    with pytest.raises(BadInput, match="must not be negative"):
        plan(dataset, FrameConfig(**{**vars(FRAMES), "suffix": -1}), about)


# Pretrained VAEs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "step", "frames", "t", "at", "suffix"),
    [
        ("cogvideox", 8, FrameConfig(pixels=32 * 32, side=16, max_frames=22), 5, (0, 2, 4), 3),  # 17 pictures
        ("ltx", 8, FrameConfig(pixels=64 * 64, side=64, max_frames=22), 3, (1, 2), 2),
        ("wan", 4, FrameConfig(pixels=32 * 32, side=16, max_frames=15), 4, (1, 3), 2),  # 13 pictures
    ],
)
def test_pretrained_vaes_are_given_what_they_take_without_padding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind, step, frames, t, at, suffix
) -> None:
    seen: list[tuple[torch.Size, torch.Size]] = []
    pad = PretrainedVAE.pad

    def noted(self: PretrainedVAE, x: Tensor) -> Tensor:
        seen.append((x.shape, pad(self, x).shape))
        return pad(self, x)

    monkeypatch.setattr(PretrainedVAE, "pad", noted)
    folder = pretrained_folder(tmp_path / kind, kind)
    dataset, latents = run(tmp_path, folder, frames, [22, 1])
    assert len(seen) >= 3
    assert all(before == after for before, after in seen)
    about = json.loads(dataset.read_bytes(latents, "latents.json"))
    assert about["frame_step"] == step
    row = pq.read_table(dataset.path(latents, "index.parquet")).to_pylist()[0]
    assert (row["t"], tuple(row["keyframe_at"]), row["suffix"]) == (t, at, suffix)


@pytest.mark.parametrize("kind", [*KINDS, "ours"])
def test_the_first_picture_is_kept_by_itself_where_the_vae_is_not_causal(tmp_path: Path, kind: str) -> None:
    vae = load_any_vae(embedded("vae") if kind == "ours" else pretrained_folder(tmp_path / kind, kind))
    side = 2 * vae.config.spatial
    video = moving_square(2 * frame_step(vae) + 1, width=side, height=side, step=5)
    whole, first = by_hand(vae, video)[:, :1], by_hand(vae, video[:1])
    apart = float((whole - first).norm() / whole.norm())
    made = latents_of(vae, [video, video[:1]], FrameConfig(keyframes=1, suffix=0))
    last = made[0]["latent"].shape[1] - 1
    if kind in ("hunyuan", "cogvideox"):
        assert apart > 1e-3
        assert made[0]["keyframe_at"].tolist() == [0, last]
        assert_near(made[0]["keyframes"][:, :1], first)
    else:
        assert apart < 1e-4
        assert made[0]["keyframe_at"].tolist() == [last]
    assert list(made[1]) == ["latent"]


def test_a_clip_shorter_than_a_step_is_a_picture(vae: VideoVAE) -> None:
    assert list(latents_of(vae, [moving_square(3, width=32, height=32)], FRAMES)[0]) == ["latent"]


def test_frames_of_a_pretrained_vae(tmp_path: Path) -> None:
    vae = load_any_vae(pretrained_folder(tmp_path / "cogvideox", "cogvideox"))
    assert frame_step(vae) == 8
    assert timing(16, 8.0, FRAMES, frame_step(vae)) == (9, 8.0)
    assert timing(8, 8.0, FRAMES, frame_step(vae)) == (1, 8.0)
    video = moving_square(17, width=32, height=32)
    made = latents_of(vae, [video], FRAMES)[0]
    assert_near(made["suffix"], by_hand(vae, video[-9:]))
    assert made["keyframe_at"].tolist() == [0, 2, 4]
    assert_near(made["keyframes"][:, 1:2], by_hand(vae, video[8:9]))
