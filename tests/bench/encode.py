"""`reelmill encode`: clips and frames per second, how much of its time the encoder waits, and memory by length.

    python -m tests.bench.encode --json out.json
    python -m tests.bench.encode --clips 60 --frames 17 65 257 1025 --side 128

Clips of the procedural world, as `reelmill shard` leaves them, go through decoder, VAE and text encoder, on Ray and
in one process, with the tiny weights that ship. Waiting is what the encoder itself measures: all time without work
from when it is ready to the last part; the rate counts the same time. Peak memory is that of a
fresh process which encodes one clip of so many frames, `--engine=local`, less that for the shortest clip in the
last column.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conftest import moving_square
from small_shards import Film, film, write_shards

from curate.dataset import Dataset
from pipelines.demo.world import describe, draw_scene, render
from pipelines.encode import EncodeConfig, Times, about_latents, encoding
from pipelines.encode_frames import FrameConfig
from pipelines.encode_plan import plan
from pipelines.encode_stages import DECODE_INPUT
from pipelines.engine import Engine, RayConfig, run_stages, start_ray
from tests.bench.record import machine, print_table

#: Runs a command and tells its VmHWM in KiB; what `wait4` tells would hold the memory of this process at the fork.
PEAK = """
import sys
from pipelines.__main__ import main
assert main(sys.argv[1:]) == 0
print(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
"""
SIZES, FPS, CLIP_S, SHARD_CLIPS = ((256, 144), (144, 256), (192, 192)), 24, 2.2, 6


def world_clips(folder: Path, count: int) -> list[Film]:
    """`count` clips of the world at 24 frames per second, captioned, in three aspects."""
    found = []
    for number in range(count):
        rng = np.random.default_rng((20261123, number))
        width, height = SIZES[number // SHARD_CLIPS % len(SIZES)]
        scene = draw_scene(rng, duration_s=CLIP_S)
        pictures = render(scene, n_frames=round(FPS * CLIP_S), fps=FPS, width=width, height=height)
        captions = [{"kind": "dense", "text": describe(scene, "dense", rng)}]
        found.append(film(folder, f"{number:012x}", pictures, FPS, *captions))
    return found


def rate(dataset: Dataset, engine: Engine, frames: FrameConfig) -> dict:
    """Encode a dataset from nothing; what the encoder's own clock says."""
    dataset.remove("_state")
    ray = RayConfig(num_cpus=2, object_store_gib=0.5)
    config = EncodeConfig(dataset.uri, frames=frames, engine=engine, ray=ray)
    about = about_latents(config)
    parts = [part for unit in plan(dataset, frames, about) for part in unit.parts]
    if engine == "ray":
        start_ray(ray)
    times, clips = Times(), 0
    pictures = sum(clip["frames"] for part in parts for clip in part["clips"])
    began_s = time.perf_counter()
    for row in run_stages(engine, parts, DECODE_INPUT, encoding(config, about), ray):
        times.add(row)
        clips += row["clips"]
    times.end()
    seconds = times.busy_s + times.waited_s
    return {
        "engine": engine,
        "parts": len(parts),
        "clips": clips,
        "clips_per_s": clips / seconds,
        "frames_per_s": pictures / seconds,
        "busy_s": times.busy_s,
        "waited_s": times.waited_s,
        "share_waited": times.share_waited,
        "with_start_s": time.perf_counter() - began_s,
    }


def peak_mb(folder: Path, frames: int, side: int) -> float:
    """Peak resident memory in MB of `reelmill encode` over one clip of `frames` pictures."""
    pictures = moving_square(frames, width=side, height=side)
    dataset = write_shards(folder / f"{frames}", [[film(folder, "a" * 12, pictures, 8)]])
    words = [f"--frames.pixels={side * side}", f"--frames.max_frames={frames}", "--engine=local"]
    command = [sys.executable, "-c", PEAK, "encode", f"--dataset={dataset.uri}", *words]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return int(told.stdout.splitlines()[-1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--pixels", type=int, nargs="*", default=[64 * 64, 144 * 144], help="of a picture")
    parser.add_argument("--frames", type=int, nargs="*", default=[17, 129, 513, 1025], help="for memory")
    parser.add_argument("--side", type=int, default=128, help="pixels, for memory")
    parser.add_argument("--json", type=Path)
    flags = parser.parse_args()

    rates: list[dict] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = world_clips(folder, flags.clips)
        shards = [clips[i : i + SHARD_CLIPS] for i in range(0, len(clips), SHARD_CLIPS)]
        dataset = write_shards(folder / "dataset", shards)
        for pixels in flags.pixels:
            frames = replace(FrameConfig(), pixels=pixels)
            rates += [{"pixels": pixels, **rate(dataset, engine, frames)} for engine in ("local", "ray")]
        lengths = [{"frames": n, "peak_mb": peak_mb(folder, n, flags.side)} for n in flags.frames]
    for row in lengths:
        row["pictures_mb"] = row["frames"] * 3 * flags.side**2 / 1e6
        row["grown_mb"] = row["peak_mb"] - lengths[0]["peak_mb"]
    if rates:
        header = ["pixels", "engine", "clips_per_s", "frames_per_s", "busy_s", "waited_s", "share_waited"]
        print_table(f"{flags.clips} clips", header, [[row[column] for column in header] for row in rates])
    if lengths:
        print_table(
            f"Peak memory by length of a clip of {flags.side} x {flags.side} pixels",
            list(lengths[0]),
            [list(row.values()) for row in lengths],
        )
    if flags.json:
        told = {**machine(), "settings": vars(flags) | {"json": None}, "rates": rates, "by_length": lengths}
        flags.json.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
