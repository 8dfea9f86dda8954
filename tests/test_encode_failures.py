"""What goes wrong with one clip costs that clip: damage, lost tars, no memory, crashes. Later runs try it again."""

from __future__ import annotations

import io
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from av.bitstream import BitStreamFilterContext
from conftest import moving_square, write_video
from small_shards import film, write_shards
from tiny_coca import tiny_folder

import pipelines.encode_stages
import pipelines.engine
from curate.dataset import Dataset
from curate.errors import BadInput
from curate.stage import Resources, Stage
from pipelines.clip_frames import nearest_frames
from pipelines.encode import EncodeConfig, about_latents, encode, models
from pipelines.encode_frames import FrameConfig
from pipelines.encode_plan import plan
from pipelines.encode_stages import DECODE_INPUT, DecodeClips, EncodeClips
from pipelines.encode_tries import DIED, Tries
from pipelines.engine import RayConfig, run_stages
from train.data import LatentDataset

FRAMES = FrameConfig(pixels=32 * 32, side=16, fps=8.0, max_frames=9)
CAPTION = {"kind": "short", "text": "a square"}


def clip_ids(count: int) -> list[str]:
    return [f"{i:012x}" for i in range(count)]


def make(folder: Path, *clips_of_shards: int) -> tuple[Dataset, EncodeConfig]:
    """A dataset with so many clips in each shard, not encoded yet."""
    folder.mkdir()
    ids = iter(clip_ids(sum(clips_of_shards)))
    shards = [
        [film(folder, next(ids), moving_square(17, seed=seed), 8, CAPTION) for seed in range(n)]
        for n in clips_of_shards
    ]
    dataset = write_shards(folder / "dataset", shards)
    return dataset, EncodeConfig(dataset.uri, text=str(tiny_folder()), frames=FRAMES, engine="local")


def index_of(dataset: Dataset) -> dict[str, dict[str, Any]]:
    (name,) = dataset.files("latents", "index.parquet")
    return {row["clip_id"]: row for row in pq.read_table(dataset.path("latents", name)).to_pylist()}


def latents(dataset: Dataset) -> dict[str, bytes]:
    return {name: dataset.read_bytes("latents", name) for name in dataset.files("latents")}


def readable(dataset: Dataset) -> list[str]:
    data = LatentDataset(dataset.uri)
    return [clip.clip_id for number, clip in enumerate(data.clips) if data.read(number)]


def spoil(dataset: Dataset, clip_id: str) -> tuple[Path, bytes]:
    """Overwrite the second half of a clip's pictures in its tar; returns the tar, and its bytes before."""
    (row,) = [row for row in dataset.read("shards").to_pylist() if row["clip_id"] == clip_id]
    path = Path(dataset.path("shards", row["shard"]))
    before = path.read_bytes()
    data = bytearray(before)
    mp4 = data[row["mp4_offset"] : row["mp4_offset"] + row["mp4_size"]]
    begin = mp4.index(b"mdat") + 4
    end = mp4.index(b"moov") if mp4.index(b"moov") > begin else len(mp4)
    middle = slice(row["mp4_offset"] + (begin + end) // 2, row["mp4_offset"] + (begin + end) // 2 + 200)
    data[middle] = np.random.default_rng(0).bytes(200)
    path.write_bytes(data)
    return path, before


def test_a_damaged_clip_has_no_frozen_pictures(tmp_path: Path) -> None:
    path = write_video(tmp_path / "film.mp4", moving_square(33), fps=8, options={"g": "4", "bf": "0"})
    assert len(list(nearest_frames(io.BytesIO(path.read_bytes()), 33, 8.0))) == 33
    data = bytearray(path.read_bytes())
    with av.open(path) as container:
        packet = [packet for packet in container.demux(video=0)][
            17
        ]  # at 2.125 s; the next keyframe is at 2.5 s
    assert packet.pos is not None
    data[packet.pos : packet.pos + packet.size] = np.random.default_rng(0).bytes(packet.size)

    def found(count: int, start_s: float) -> int:
        return len(list(nearest_frames(io.BytesIO(data), count, 8.0, start_s)))

    with pytest.raises(ValueError, match=r"^pictures were lost: decoding errors: 1, pictures lost with them"):
        found(33, 0.0)
    with pytest.raises(ValueError, match=r"^pictures were lost"):
        found(5, 2.0)
    assert found(8, 0.0) == 8  # before the damage
    assert found(8, 2.75) == 8  # behind it

    # A stream without timestamps is read from its beginning, over the damage.
    bare = tmp_path / "film.h264"
    with av.open(path) as container, bare.open("wb") as file:
        to_bare = BitStreamFilterContext("h264_mp4toannexb", container.streams.video[0])
        for number, packet in enumerate(container.demux(video=0)):
            for made in to_bare.filter(packet if packet.size else None):
                content = bytearray(bytes(made))
                if number == 17:
                    content[8:] = np.random.default_rng(0).bytes(len(content) - 8)
                file.write(content)
    data = bytearray(bare.read_bytes())
    with pytest.raises(ValueError, match=r"^pictures were lost"):
        found(33, 0.0)
    assert found(8, 2.75) == 8


def test_failed_clips_are_tried_again_and_put_among_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, config = make(tmp_path / "films", 3, 1)
    whole = Dataset(shutil.copytree(dataset.uri, tmp_path / "whole"))
    encode(replace(config, dataset=whole.uri))
    capsys.readouterr()

    broken = clip_ids(2)[1]
    path, before = spoil(dataset, broken)
    encode(config)
    out = capsys.readouterr().out
    assert "latents 3 clips in 2 shards + 1 failed" in out
    assert (
        "most often (1 of 1 failed) because: ValueError: 0 of 9 frames were found: pictures were lost" in out
    )
    assert [clip_id for clip_id, row in index_of(dataset).items() if row["error"]] == [broken]
    assert len(readable(dataset)) == 3
    first = latents(dataset)
    stamps = {
        name: os.stat(dataset.path("latents", name)).st_mtime_ns for name in first if name.endswith(".tar")
    }

    encode(config)  # it fails again: nothing is written anew
    assert "latents 3 clips in 2 shards + 1 failed" in capsys.readouterr().out
    assert latents(dataset) == first
    assert stamps == {name: os.stat(dataset.path("latents", name)).st_mtime_ns for name in stamps}

    path.write_bytes(before)
    encode(config)
    assert latents(dataset).keys() == latents(whole).keys()
    assert index_of(dataset) == index_of(whole)
    one, other = (LatentDataset(uri) for uri in (dataset.uri, whole.uri))
    for number in range(4):  # batches were others, which may show in the last digit
        torch.testing.assert_close(one.read(number)[0], other.read(number)[0], rtol=0.01, atol=1e-3)
        assert one.read(number)[1].keys() == other.read(number)[1].keys() == {"short"}
    assert not dataset.files("_state", "-encode.json")
    assert not [name for name in dataset.files("_state/latents") if "/parts/" in name]


def test_a_lost_tar_costs_its_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipelines.encode_stages, "READ_AGAIN_S", (0.01, 0.01))
    dataset, config = make(tmp_path / "films", 2, 1, 1)
    lost, unreadable = (Path(dataset.path("shards", name)) for name in dataset.files("shards", ".tar")[:2])
    kept = lost.read_bytes(), unreadable.read_bytes()
    lost.unlink()
    unreadable.unlink()
    unreadable.mkdir()
    encode(config)
    errors = [row["error"] for row in index_of(dataset).values()]
    assert ["FileNotFoundError" in (error or "") for error in errors] == [True, True, False, False]
    assert "00001-aaaaaaaa.tar cannot be read: IsADirectoryError" in errors[2]
    assert readable(dataset) == clip_ids(4)[3:]

    unreadable.rmdir()
    lost.write_bytes(kept[0])
    unreadable.write_bytes(kept[1])
    encode(config)
    assert readable(dataset) == clip_ids(4)


def test_a_store_that_fails_now_and_then_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelines.encode_stages, "READ_AGAIN_S", (0.01, 0.01))
    dataset, config = make(tmp_path / "films", 1)
    stage = DecodeClips(dataset.uri)
    stage.setup()
    failures = [OSError("reset"), OSError("reset")]
    read = stage._dataset.read_bytes

    def unsteady(*parts: str, **span: Any) -> bytes:
        if parts[0] == "shards" and failures:
            raise failures.pop()
        return read(*parts, **span)

    monkeypatch.setattr(stage._dataset, "read_bytes", unsteady)
    (row,) = stage(plan(dataset, FRAMES, about_latents(config))[0].parts)
    assert [clip["error"] for clip in row["clips"]] == [None]


def test_a_record_that_is_no_json_costs_its_clip(tmp_path: Path) -> None:
    dataset, config = make(tmp_path / "films", 2)
    row = dataset.read("shards").to_pylist()[0]
    path = Path(dataset.path("shards", row["shard"]))
    data = bytearray(path.read_bytes())
    data[row["json_offset"]] = 0
    path.write_bytes(data)
    encode(config)
    assert "JSONDecodeError" in index_of(dataset)[row["clip_id"]]["error"]
    assert readable(dataset) == clip_ids(2)[1:]


def test_where_memory_is_short_clips_go_one_by_one(tmp_path: Path) -> None:
    dataset, config = make(tmp_path / "films", 3)
    about = about_latents(config)
    (part,) = plan(dataset, FRAMES, about)[0].parts
    decode, worker = DecodeClips(dataset.uri), EncodeClips(dataset.uri, *models(config), Resources(), FRAMES)
    decode.setup()
    worker.setup()
    room = 2

    def short_of_memory(_: object, given: tuple[torch.Tensor]) -> None:
        if len(given[0]) > room:
            raise torch.OutOfMemoryError("CUDA out of memory")

    worker._vae.encoder.register_forward_pre_hook(short_of_memory)
    (row,) = worker(decode([part]))
    assert (row["clips"], row["failed"]) == (3, 0)
    room = 0
    (row,) = worker(decode([part]))
    assert (row["clips"], row["failed"]) == (0, 3)
    (name,) = dataset.files("_state", f"{part['part']}.parquet")
    errors = pq.read_table(dataset.path("_state", name))["error"].to_pylist()
    assert all(
        "out of GPU memory" in error and "--tile" in error and "--frames.pixels" in error for error in errors
    )


# Workers that die --------------------------------------------------------------------------------------------


def test_the_clip_that_kills_is_found_and_left_out(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    clips = [{"clip_id": clip_id, "error": None} for clip_id in clip_ids(4)]

    def work(given: list[dict]) -> list[dict]:
        if any(clip["clip_id"] in clip_ids(4)[1:3] for clip in given):
            os._exit(9)
        return given

    deaths = 0
    while (child := os.fork()) or deaths > 20:
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
            break
        deaths += 1
    if child == 0:
        tries = Tries(dataset, "part")
        rows = tries.run(clips, work)
        dataset.write_bytes(repr([row["error"] for row in rows]).encode(), "rows")
        os._exit(0)
    assert deaths == 4  # two of the part, and one of each clip
    errors = eval(dataset.read_bytes("rows").decode())
    assert [error and error.startswith(DIED) for error in errors] == [None, True, True, None]


def test_deaths_that_no_clip_is_to_blame_for_end_as_well(tmp_path: Path) -> None:
    dataset, clips = Dataset(tmp_path), [{"clip_id": "a"}, {"clip_id": "b"}]
    for _ in range(4):
        assert [row.get("error") for row in Tries(dataset, "part").run(clips, list)] == [None, None]
    assert all(row["error"].startswith(DIED) for row in Tries(dataset, "part").run(clips, list))


def test_an_error_is_no_death(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    for _ in range(5):
        with pytest.raises(ZeroDivisionError):
            Tries(dataset, "part").run([{"clip_id": "a"}], lambda clips: [{"x": 1 // 0}])
    assert not dataset.files("_state")


def deadly(config: EncodeConfig, clip_id: str) -> Stage:
    """The encoder, but a clip kills its process; its class is local, since Ray's workers cannot import tests."""

    class Deadly(EncodeClips):
        def _at_once(self, clips: list[dict]) -> list[dict]:
            if clip_id in [clip["clip_id"] for clip in clips]:
                os.kill(os.getpid(), signal.SIGKILL)
            return super()._at_once(clips)

    return Deadly(config.dataset, *models(config), Resources(cpus=0.5, actors=2), config.frames)


@pytest.mark.slow
def test_on_ray_two_encoders_lose_one_clip(
    tmp_path: Path, ray_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, config = make(tmp_path / "films", 3, 2)
    killer = clip_ids(2)[1]
    parts = [part for unit in plan(dataset, FRAMES, about_latents(config)) for part in unit.parts]
    stages = [DecodeClips(dataset.uri), deadly(config, killer)]
    rows = list(run_stages("ray", parts, DECODE_INPUT, stages, RayConfig()))
    assert sorted((row["clips"], row["failed"]) for row in rows) == [(2, 0), (2, 1)]
    encode(config)
    assert index_of(dataset)[killer]["error"].startswith(DIED)
    assert readable(dataset) == [clip_id for clip_id in clip_ids(5) if clip_id != killer]
    assert "latents 4 clips in 2 shards + 1 failed" in capsys.readouterr().out
    encode(config)  # in one process it would kill the job: it is not begun
    assert "4 clips in 2 shards + 1 failed" in capsys.readouterr().out
    assert not dataset.files("_state/tries")


@pytest.mark.slow
def test_a_worker_that_dies_as_it_begins_ends_the_job(
    tmp_path: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelines.engine, "MOST_RESTARTS", 1)
    dataset, config = make(tmp_path / "films", 1)

    class Stillborn(EncodeClips):
        def setup(self) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

    (part,) = plan(dataset, FRAMES, about_latents(config))[0].parts
    stages = [DecodeClips(dataset.uri), Stillborn(config.dataset, *models(config), Resources(actors=1))]
    with pytest.raises(BadInput, match="a worker died more than 1 times"):
        list(run_stages("ray", [part], DECODE_INPUT, stages, RayConfig()))
