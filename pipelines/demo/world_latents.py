"""A training set of the procedural world, straight from the renderer: latents of pictures and clips, with captions.

    python -m pipelines.demo.world_latents --dataset runs/world --pictures=30000 --clips=40000
    reelmill train --dataset runs/world ...

The demo's own transformer is made of it (pipelines/demo/weights/dit/README.md). What the rest of the road would give
is left out: no films, no shots to find, captions by the world instead of a captioner. Combinations of kind, colour
and background that are kept for evaluation do not occur. The clips go to `reelmill encode`'s own stages, so that
`reelmill train` reads what comes out like any dataset.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from pipelines.encode_frames import FrameConfig, Shape

if TYPE_CHECKING:
    from pipelines.encode_plan import Unit
    from pipelines.encode_stages import EncodeClips

#: First of the numbers that every random draw starts from: no prompt of an evaluation comes from it.
TRAINING = 20261126
PART_CLIPS, SHARD_PARTS = 64, 8
FPS = 6.0
#: What the clips are like, with their shares; all have about as many pixels. Pictures have the same sizes.
SHAPES = {
    Shape(9, 80, 80): 0.5,
    Shape(9, 64, 112): 0.25,
    Shape(9, 112, 64): 0.1,
    Shape(17, 64, 112): 0.1,
    Shape(5, 80, 80): 0.05,
}
#: Numbers -> clips in the form that `EncodeClips` takes from a decoder.
Rows = Callable[[Sequence[int]], list[dict[str, Any]]]


@dataclass(frozen=True)
class WorldLatentsConfig:
    """Render pictures and clips of the procedural world and write their latents and captions as a dataset.

    A run that was stopped goes on where it was when the same command is given again.

    Attributes:
        dataset: folder or URI of the dataset.
        pictures: how many single pictures, of still scenes.
        clips: how many clips.
        processes: processes at work, each with one thread.

    Examples:
        python -m pipelines.demo.world_latents --dataset runs/world --pictures=30000 --clips=40000
    """

    dataset: str
    pictures: int = 30_000
    clips: int = 40_000
    processes: int = 2


def world_latents(config: WorldLatentsConfig) -> None:
    """Make what is missing of the dataset. Raises BadInput for numbers that make no sense."""
    from curate.errors import BadInput
    from pipelines.progress import Progress

    if min(config.pictures, config.clips) < 0 or config.pictures + config.clips < 1 or config.processes < 1:
        raise BadInput(
            f"--pictures={config.pictures}, --clips={config.clips}, --processes={config.processes}: give at least one "
            "picture or clip, and one process."
        )
    count = config.pictures + config.clips
    with Progress("clips", total=count, unit="clips") as bar:
        about = write_latents(
            config.dataset,
            count,
            rows=partial(world_rows, pictures=config.pictures),
            made_of=[
                "world",
                TRAINING,
                config.pictures,
                FPS,
                [[*vars(k).values(), v] for k, v in SHAPES.items()],
            ],
            frames=world_frames(),
            processes=config.processes,
            on_clips=bar.advance,
        )
    print(
        f"{config.dataset}: latents/{about['vae_id']} of {config.pictures} pictures and {config.clips} clips"
    )


def world_frames() -> FrameConfig:
    """How `encode` reads films so that their clips are like those of SHAPES."""
    return FrameConfig(
        pixels=max(shape.height * shape.width for shape in SHAPES),
        fps=FPS,
        max_frames=max(shape.frames for shape in SHAPES),
        keyframes=1,
        suffix=2,
    )


def world_rows(numbers: Sequence[int], pictures: int) -> list[dict[str, Any]]:
    """The clips of the world by number: the first `pictures` are single pictures."""
    import numpy as np

    from pipelines.demo.scene import draw_scene, stand_still
    from pipelines.demo.world import render
    from pipelines.demo.world_captions import describe

    shapes, shares = list(SHAPES), list(SHAPES.values())
    found = []
    for number in numbers:
        rng = np.random.default_rng((TRAINING, number))
        shape = shapes[int(rng.choice(len(shapes), p=shares))]
        scene = draw_scene(rng, held_out=False, duration_s=shape.frames / FPS)
        if number < pictures:
            shape, scene = Shape(1, shape.height, shape.width), stand_still(scene)
        video = render(scene, n_frames=shape.frames, fps=FPS, width=shape.width, height=shape.height)
        told = [{"kind": kind, "text": describe(scene, kind, rng)} for kind in ("original", "short", "dense")]
        fps = 0.0 if number < pictures else FPS
        found.append(clip_row(number, video, fps, {"captions": told, "scene": asdict(scene)}))
    return found


def clip_row(number: int, video: Any, fps: float, record: dict[str, Any]) -> dict[str, Any]:
    """A video (T, H, W, 3) uint8 and its KEY.json in the form that `EncodeClips` takes; fps 0 for a picture."""
    clip_id = f"{number:016x}"
    frames, height, width, _ = video.shape
    return {
        "clip_id": clip_id,
        "json": json.dumps({"clip_id": clip_id, **record}, sort_keys=True).encode(),
        "pixels": video.tobytes(),
        "fps": fps,
        "frames": frames,
        "height": height,
        "width": width,
        "error": None,
    }


def write_latents(
    uri: str,
    clips: int,
    *,
    rows: Rows,
    made_of: list[Any],
    frames: FrameConfig,
    on_clips: Callable[[int], None],
    processes: int = 1,
) -> dict[str, Any]:
    """Write what is missing of latents/ under `uri`: clips 0 to `clips`, as `rows` makes them; returns latents.json.

    `made_of` is all that decides what `rows` gives: it names the tars. `on_clips` is called with the clips of each
    part that is done. Killed anywhere and called again, it goes on.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from curate.dataset import Dataset, write_parquet
    from curate.tables import LATENTS
    from pipelines.encode import EncodeConfig, about_latents
    from pipelines.encode_plan import state_folder

    dataset = Dataset(uri)
    about = about_latents(EncodeConfig(dataset=uri, frames=frames))
    folder, state = f"latents/{about['vae_id']}", state_folder(about["vae_id"])
    if dataset.exists(folder, "latents.json"):
        on_clips(clips)
        return about
    units = _units(clips, made_of, about)
    work = partial(_encode, uri=uri, vae_id=about["vae_id"], rows=rows, frames=frames)
    if processes == 1:
        with _one_thread():
            for unit in units:
                work(unit, on_clips=on_clips)
    else:
        with ProcessPoolExecutor(processes, get_context("spawn"), _begin_worker) as pool:
            for future in as_completed([pool.submit(work, unit) for unit in units]):
                on_clips(future.result())
    tables = [pq.read_table(dataset.open(state, f"{unit.content}.parquet")) for unit in units]
    with dataset.atomic_writer(folder, "index.parquet") as file:
        write_parquet(file, LATENTS, [pa.concat_tables(tables).sort_by("clip_id")])
    dataset.write_bytes(json.dumps(about, indent=2, sort_keys=True).encode() + b"\n", folder, "latents.json")
    dataset.remove("_state")
    return about


def _units(clips: int, made_of: list[Any], about: dict[str, Any]) -> list[Unit]:
    """The latent shards and their parts, named by all that decides their content; a clip is a number here."""
    from curate.dataset import config_hash
    from pipelines.encode_plan import LATENT_FORMAT, TEXT_FORMAT, Unit

    found = []
    for first in range(0, clips, PART_CLIPS * SHARD_PARTS):
        numbers = range(first, min(clips, first + PART_CLIPS * SHARD_PARTS))
        settings = [about[name] for name in ("vae_id", "text_id", "keyframes", "suffix")]
        content = config_hash([*made_of, first, len(numbers), *settings, TEXT_FORMAT, LATENT_FORMAT])
        shard = f"world/{first // (PART_CLIPS * SHARD_PARTS):05d}.tar"
        parts = [
            {"part": f"{content}-{i:05d}", "shard": shard, "clips": list(numbers[k : k + PART_CLIPS])}
            for i, k in enumerate(range(0, len(numbers), PART_CLIPS))
        ]
        found.append(Unit(shard, content, parts))
    return found


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums in several threads differ in their last bits: with one, every number of processes gives the same bytes."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _begin_worker() -> None:
    import torch

    torch.set_num_threads(1)


def _encode(
    unit: Unit,
    *,
    uri: str,
    vae_id: str,
    rows: Rows,
    frames: FrameConfig,
    on_clips: Callable[[int], None] = lambda clips: None,
) -> int:
    """Make the tar of a unit and its part of the index, unless they are there. Returns its number of clips."""
    from curate.dataset import Dataset
    from pipelines.encode_pack import PackLatents
    from pipelines.encode_plan import state_folder

    dataset, state = Dataset(uri), state_folder(vae_id)
    is_packed = dataset.exists(state, f"{unit.content}.parquet")  # and its parts are gone
    for part in unit.parts:
        if not is_packed and not dataset.exists(state, f"parts/{part['part']}.parquet"):
            _encoder(uri, frames)([{"part": part["part"], "clips": rows(part["clips"])}])
        on_clips(len(part["clips"]))
    if not is_packed:
        packer = PackLatents(uri, vae_id)
        packer.setup()
        packer([unit.pack_row()])
    return sum(len(part["clips"]) for part in unit.parts)


@lru_cache(maxsize=1)
def _encoder(uri: str, frames: FrameConfig) -> EncodeClips:
    """Loaded once in each process."""
    from curate.stage import Resources
    from pipelines.demo.weights import embedded
    from pipelines.encode_stages import EncodeClips

    made = EncodeClips(uri, str(embedded("vae")), str(embedded("coca")), Resources(), frames)
    made.setup()
    return made


def main(argv: list[str] | None = None) -> int:
    from pipelines.cli import run_command

    return run_command(WorldLatentsConfig, world_latents, argv, name="python -m pipelines.demo.world_latents")


if __name__ == "__main__":
    raise SystemExit(main())
