"""The training set of the caption study: clips of the world as latents, each with captions of three kinds.

    made = make_training_set("runs/study/dataset", clips=2000, shape=ClipShape(), on_clips=bar.advance)
    made["captions"]["dense"]["colour"]          # share of dense captions that name the right colour

`original` captions are those that the world's people leave beside files; `short` and `dense` ones are written by
the embedded captioner, mistakes included. Combinations of attributes that are kept for evaluation do not occur.
The clips go from the renderer straight to `reelmill encode`'s own stages, so that `reelmill train` reads them.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.dataset import Dataset, config_hash, write_parquet
from curate.stage import Resources
from curate.tables import LATENTS
from pipelines.demo.scene import ATTRIBUTES, Scene, draw_scene
from pipelines.demo.weights import embedded
from pipelines.demo.world import render
from pipelines.demo.world_captions import CaptionKind, describe
from pipelines.demo.world_oracle import parse
from pipelines.demo.written import written
from pipelines.encode import EncodeConfig, about_latents
from pipelines.encode_frames import FrameConfig
from pipelines.encode_pack import PackLatents
from pipelines.encode_plan import LATENT_FORMAT, TEXT_FORMAT, Unit, state_folder
from pipelines.encode_stages import EncodeClips

if TYPE_CHECKING:
    from recaption.captioner import Captioner

#: First of the two numbers that every random draw starts from: training clips and prompts never share one.
TRAINING, PROMPTS = 20261122, 20261123
KINDS: tuple[CaptionKind, ...] = ("original", "short", "dense")
PART_CLIPS, SHARD_PARTS = 64, 8


@dataclass(frozen=True)
class ClipShape:
    """The clips of the study, square.

    Attributes:
        side: pixels; a multiple of 16.
        frames: 4k+1 for the embedded VAE.
        fps: frames per second.
    """

    side: int = 64
    frames: int = 9
    fps: float = 6.0

    def scene(self, rng: np.random.Generator, *, held_out: bool) -> Scene:
        """A scene whose object stays in the picture for the length of the clip; the camera rests, the light is soft."""
        scene = draw_scene(rng, held_out=held_out, duration_s=self.frames / self.fps)
        return replace(scene, camera="static", light="soft")

    def encoded(self) -> FrameConfig:
        """How the VAE sees them: whole, and nothing by itself, since the study gives a model no pictures."""
        return FrameConfig(pixels=self.side**2, fps=self.fps, max_frames=self.frames, keyframes=0, suffix=0)

    def video(self, scene: Scene) -> np.ndarray:
        """(frames, side, side, 3) uint8 RGB."""
        return render(scene, n_frames=self.frames, fps=self.fps, width=self.side, height=self.side)


def make_training_set(
    uri: str, *, clips: int, shape: ClipShape, on_clips: Callable[[int], None]
) -> dict[str, Any]:
    """Write what is missing of latents/ under `uri`; returns vae_id, clips, and how right the captions are.

    `on_clips` is called with the clips of each part that is done. Killed anywhere and called again, it goes on.
    """
    dataset = Dataset(uri)
    frames = shape.encoded()
    about = about_latents(EncodeConfig(dataset=uri, frames=frames))
    units = _units(clips, shape, about)
    folder, state = f"latents/{about['vae_id']}", state_folder(about["vae_id"])
    if not dataset.exists(folder, "latents.json"):
        _encode(dataset, units, shape, about, on_clips)
        tables = [pq.read_table(dataset.open(state, f"{unit.content}.parquet")) for unit in units]
        with dataset.atomic_writer(folder, "index.parquet") as file:
            write_parquet(file, LATENTS, [pa.concat_tables(tables).sort_by("clip_id")])
        dataset.write_bytes(
            json.dumps(about, indent=2, sort_keys=True).encode() + b"\n", folder, "latents.json"
        )
        dataset.remove("_state")
    records = _records(dataset, folder)
    return {"vae_id": about["vae_id"], "clips": len(records), "captions": _rightness(records)}


def _units(clips: int, shape: ClipShape, about: dict[str, Any]) -> list[Unit]:
    """The latent shards and their parts, named by all that decides their content; a clip is a number here."""
    found = []
    for first in range(0, clips, PART_CLIPS * SHARD_PARTS):
        numbers = range(first, min(clips, first + PART_CLIPS * SHARD_PARTS))
        made_of = [TRAINING, first, len(numbers), shape, about["vae_id"], about["text_id"]]
        made_of += [TEXT_FORMAT, LATENT_FORMAT]
        content = config_hash([asdict(x) if isinstance(x, ClipShape) else x for x in made_of])
        shard = f"world/{first // (PART_CLIPS * SHARD_PARTS):05d}.tar"
        parts = [
            {"part": f"{content}-{i:05d}", "shard": shard, "clips": list(numbers[k : k + PART_CLIPS])}
            for i, k in enumerate(range(0, len(numbers), PART_CLIPS))
        ]
        found.append(Unit(shard, content, parts))
    return found


def _encode(
    dataset: Dataset,
    units: Sequence[Unit],
    shape: ClipShape,
    about: dict[str, Any],
    on_clips: Callable[[int], None],
) -> None:
    from recaption.coca.captioner import CocaCaptioner

    state = state_folder(about["vae_id"])
    done = set(dataset.files(state, ".parquet"))
    captioner = CocaCaptioner(embedded("coca"))
    models = str(embedded("vae")), str(embedded("coca"))
    encoder = EncodeClips(dataset.uri, *models, Resources(), shape.encoded())
    packer = PackLatents(dataset.uri, about["vae_id"])
    encoder.setup()
    packer.setup()
    for unit in units:
        is_packed = f"{unit.content}.parquet" in done  # and its parts are gone
        for part in unit.parts:
            if not is_packed and f"parts/{part['part']}.parquet" not in done:
                clips = rendered(part["clips"], shape, captioner)
                encoder([{"part": part["part"], "clips": clips}])
            on_clips(len(part["clips"]))
        if not is_packed:
            packer([unit.pack_row()])


def rendered(numbers: Sequence[int], shape: ClipShape, captioner: Captioner) -> list[dict[str, Any]]:
    """Training clips by number, captioned, in the form that `EncodeClips` takes from a decoder."""
    rngs = [np.random.default_rng((TRAINING, number)) for number in numbers]
    scenes = [shape.scene(rng, held_out=False) for rng in rngs]
    videos = [shape.video(scene) for scene in scenes]
    captions: list[dict[str, str | None]] = [
        {"original": describe(scene, "original", rng)} for scene, rng in zip(scenes, rngs, strict=True)
    ]
    for kind in ("short", "dense"):
        for found, text in zip(captions, written(videos, kind, shape.fps, captioner), strict=True):
            found[kind] = text
    rows = []
    for number, scene, video, texts in zip(numbers, scenes, videos, captions, strict=True):
        clip_id = f"{number:016x}"
        told = [{"kind": kind, "text": text} for kind, text in texts.items() if text]
        record = {"clip_id": clip_id, "captions": told, "scene": asdict(scene)}
        rows.append(
            {
                "clip_id": clip_id,
                "json": json.dumps(record, sort_keys=True).encode(),
                "pixels": video.tobytes(),
                "fps": shape.fps,
                "frames": shape.frames,
                "height": shape.side,
                "width": shape.side,
                "error": None,
            }
        )
    return rows


def _records(dataset: Dataset, folder: str) -> list[dict[str, Any]]:
    """KEY.json of every clip in the latent tars."""
    found: list[dict[str, Any]] = []
    for name in dataset.files(folder, ".tar"):
        with tarfile.open(fileobj=io.BytesIO(dataset.read_bytes(folder, name))) as tar:
            members = [member for member in tar if member.name.endswith(".json")]
            found += [json.load(tar.extractfile(member)) for member in members]  # type: ignore[arg-type]
    return found


def _rightness(records: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """kind of caption -> attribute -> the shares of captions that `name` it, and that are `right`."""
    named: Counter[tuple[str, str]] = Counter()
    right: Counter[tuple[str, str]] = Counter()
    total: Counter[str] = Counter()
    for record in records:
        for caption in record["captions"]:
            kind = caption["kind"]
            total[kind] += 1
            for attribute, value in parse(caption["text"]).items():
                named[kind, attribute] += value is not None
                right[kind, attribute] += value == record["scene"][attribute]
    return {
        kind: {
            attribute: {
                "named": round(named[kind, attribute] / total[kind], 4),
                "right": round(right[kind, attribute] / total[kind], 4),
            }
            for attribute in ATTRIBUTES
        }
        for kind in KINDS
        if total[kind]
    }
