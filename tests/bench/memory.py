"""Memory of curation: of the decoding process by length of the source, and of Ray's object store by their number.

    python -m tests.bench.memory --json out.json
    python -m tests.bench.memory --minutes 1 10 60 --sources 480 --store-gib 0.5

The films are small (64 x 36) and made in seconds: one minute is encoded and its packets are repeated. Peak memory is
VmHWM of the analysing process as the kernel counts it; spilled bytes are the raylet's own counter.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from curate.analysis import AnalysisConfig
from curate.isolate import Isolated
from tests.bench.record import machine, print_table

WIDTH, HEIGHT, FPS = 64, 36, 10


def minute(*, cut_every_s: float, fps: int = FPS) -> np.ndarray:
    """(T, 36, 64, 3) uint8: a minute in which a bar wanders over grounds that change at the cuts."""
    rng = np.random.default_rng(0)
    pictures = np.empty((60 * fps, HEIGHT, WIDTH, 3), np.uint8)
    for i in range(len(pictures)):
        if i % max(1, round(cut_every_s * fps)) == 0:
            ground = np.kron(rng.integers(30, 220, (9, 16, 3)), np.ones((4, 4, 1))).astype(np.uint8)
        pictures[i] = ground
        pictures[i, 12:24, i * 2 % 50 : i * 2 % 50 + 10] = 250
    return pictures


def write_looped(path: Path, pictures: np.ndarray, minutes: int, fps: int = FPS) -> Path:
    """A film that shows `pictures` (a minute) again and again: encoded once, its packets are repeated."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"g": str(5 * fps), "bf": "0", "preset": "ultrafast", "crf": "28"}
        packets = []
        for picture in pictures:
            packets += stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24"))
        packets += stream.encode(None)
        coded = [(bytes(p), p.pts, p.is_keyframe) for p in packets]
        base = packets[0].time_base
        for i in range(minutes):
            for data, pts, is_keyframe in coded:
                packet = av.Packet(data)
                packet.stream, packet.time_base, packet.is_keyframe = stream, base, is_keyframe
                packet.pts = packet.dts = pts + i * int(60 / base)
                packet.duration = int(Fraction(1, fps) / base)
                out.mux(packet)
    return path


def peak_mb(path: Path, config: AnalysisConfig) -> tuple[float, int, int]:
    """Peak resident memory in MB of a fresh process that analyses the film; its clips; its frames."""
    child = Isolated()
    clips, facts = 0, {}
    for part in child.stream(
        "curate.analysis:analyse_in_parts", str(path), "ab" * 16, config, deadline_s=3600
    ):
        clips += len(part.clips)
        facts = part.facts
    status = Path(f"/proc/{child.pid}/status").read_text()
    child.close()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024, clips, facts["n_frames"]


def by_length(folder: Path, minutes: list[int], fps: int) -> Iterator[dict]:
    """Peak memory for films of these minutes, with a cut every 10 s, and with none within the minute."""
    for cut_every_s in (10.0, 60.0):
        pictures = minute(cut_every_s=cut_every_s, fps=fps)
        for length in minutes:
            path = write_looped(folder / f"{length}.mp4", pictures, length, fps)
            peak, clips, frames = peak_mb(path, AnalysisConfig())
            yield {
                "cut_every_s": cut_every_s,
                "minutes": length,
                "frames": frames,
                "clips": clips,
                "peak_mb": peak,
            }


def spilled(folder: Path, sources: int, store_gib: float) -> dict:
    """Curate `sources` films of a minute on Ray with an object store of `store_gib`; bytes that it spilled."""
    from pipelines.curate import main as curate
    from pipelines.engine import RayConfig, start_ray

    films = folder / "films"
    films.mkdir()
    first = write_looped(films / "0.mp4", minute(cut_every_s=2.0, fps=2), 1, 2)
    for i in range(1, sources):
        os.link(first, films / f"{i}.mp4")  # the same content is read and measured each time
    start_ray(RayConfig(num_cpus=2, object_store_gib=store_gib))
    import ray
    from ray._private.internal_api import get_memory_info_reply, get_state_from_address

    words = ["--input", str(films), "--dataset", str(folder / "dataset"), "--clip.model=off"]
    # At two pictures a second only the cheap pass finds the cuts.
    words += ["--text.model=off", "--sources.analysis.shots.windows=off"]
    assert curate([*words, "--sources.analysis.keyframes=8"]) == 0
    address = ray.get_runtime_context().gcs_address
    stats = get_memory_info_reply(get_state_from_address(address)).store_stats
    ray.shutdown()
    return {
        "sources": sources,
        "store_gib": store_gib,
        "spilled_bytes": stats.spilled_bytes_total,
        "passed_through_bytes": stats.cumulative_created_bytes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=int, nargs="*", default=[1, 60])
    parser.add_argument("--fps", type=int, default=FPS)
    parser.add_argument("--sources", type=int, default=480, help="films curated on Ray; 0 leaves that out")
    parser.add_argument("--store-gib", type=float, default=0.5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found: dict = {"machine": machine()}
    with tempfile.TemporaryDirectory() as folder:
        found["by_length"] = list(by_length(Path(folder), args.minutes, args.fps))
        if args.sources:
            found["ray"] = spilled(Path(folder), args.sources, args.store_gib)
    if found["by_length"]:
        header = list(found["by_length"][0])
        print_table(
            "Peak memory of the decoding process", header, [list(r.values()) for r in found["by_length"]]
        )
    if "ray" in found:
        print_table("Object store of Ray", list(found["ray"]), [list(found["ray"].values())])
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
