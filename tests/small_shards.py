"""A dataset folder with nothing but video shards and their index, as `reelmill shard` leaves them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from conftest import write_video
from numpy import ndarray

from curate.dataset import Dataset
from curate.shards import TarWriter, to_json
from curate.tables import SHARDS


@dataclass(frozen=True)
class Film:
    """A clip as a file, and what its index tells."""

    clip_id: str
    mp4: bytes
    width: int
    height: int
    n_frames: int
    fps: float
    captions: tuple[dict[str, Any], ...] = ()


def film(folder: Path, clip_id: str, pictures: ndarray, fps: int, *captions: dict[str, Any]) -> Film:
    """Encode pictures (T, H, W, 3) uint8."""
    path = write_video(folder / f"{clip_id}.mp4", pictures, fps=fps)
    n_frames, height, width, _ = pictures.shape
    found = Film(clip_id, path.read_bytes(), width, height, n_frames, float(fps), captions)
    path.unlink()
    return found


def write_shards(folder: Path, shards: Sequence[Sequence[Film]]) -> Dataset:
    """A dataset in `folder` with a tar for each list of clips."""
    dataset = Dataset(folder)
    rows: list[dict[str, Any]] = []
    for number, films in enumerate(shards):
        shard = f"4x3_144p_1s/{number:05d}-aaaaaaaa.tar"
        with dataset.atomic_writer("shards", *shard.split("/")) as file:
            tar = TarWriter(file)
            for one in films:
                facts = {
                    name: getattr(one, name) for name in ("clip_id", "fps", "n_frames", "width", "height")
                }
                places = tar.add(one.clip_id, "mp4", one.mp4)
                places += tar.add(one.clip_id, "json", to_json({**facts, "captions": list(one.captions)}))
                names = ("mp4_offset", "mp4_size", "json_offset", "json_size")
                rows.append({**facts, **dict(zip(names, places, strict=True)), "shard": shard})
            tar.close()
    dataset.write("shards", pa.Table.from_pylist(rows, schema=SHARDS))
    return dataset
