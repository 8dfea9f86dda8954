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

from curate.dataset import Dataset
from pipelines.demo.scene import ATTRIBUTES, Scene, draw_scene
from pipelines.demo.weights import embedded
from pipelines.demo.world import render
from pipelines.demo.world_captions import CaptionKind, describe
from pipelines.demo.world_latents import clip_row, write_latents
from pipelines.demo.world_oracle import parse
from pipelines.demo.written import written
from pipelines.encode_frames import FrameConfig

if TYPE_CHECKING:
    from recaption.captioner import Captioner

#: First of the two numbers that every random draw starts from: training clips and prompts never share one.
TRAINING, PROMPTS = 20261122, 20261123
KINDS: tuple[CaptionKind, ...] = ("original", "short", "dense")


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
    about = write_latents(
        uri,
        clips,
        rows=StudyClips(shape),
        made_of=["caption study", TRAINING, asdict(shape)],
        frames=shape.encoded(),
        on_clips=on_clips,
    )
    records = _records(Dataset(uri), f"latents/{about['vae_id']}")
    return {"vae_id": about["vae_id"], "clips": len(records), "captions": _rightness(records)}


class StudyClips:
    """Training clips by number, captioned; the captioner is loaded when the first ones are asked for."""

    def __init__(self, shape: ClipShape) -> None:
        self.shape = shape
        self._captioner: Captioner | None = None

    def __call__(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        if self._captioner is None:
            from recaption.coca.captioner import CocaCaptioner

            self._captioner = CocaCaptioner(embedded("coca"))
        shape = self.shape
        rngs = [np.random.default_rng((TRAINING, number)) for number in numbers]
        scenes = [shape.scene(rng, held_out=False) for rng in rngs]
        videos = [shape.video(scene) for scene in scenes]
        captions: list[dict[str, str | None]] = [
            {"original": describe(scene, "original", rng)} for scene, rng in zip(scenes, rngs, strict=True)
        ]
        for kind in ("short", "dense"):
            for found, text in zip(captions, written(videos, kind, shape.fps, self._captioner), strict=True):
                found[kind] = text
        told = [[{"kind": kind, "text": text} for kind, text in texts.items() if text] for texts in captions]
        return [
            clip_row(number, video, shape.fps, {"captions": captions, "scene": asdict(scene)})
            for number, scene, video, captions in zip(numbers, scenes, videos, told, strict=True)
        ]


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
