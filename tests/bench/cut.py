"""Cutting a source into clips against ffmpeg's one decode and one encode of the same seconds.

    python -m tests.bench.cut --footage ../shared/footage --json out.json

Needs the program ffmpeg. Every line is a process of its own, start-up included; the lines alternate, and each
figure is the least of `--repeats` rounds. Same preset and CRF; ffmpeg is asked for 4:2:0 too. `share` is time
over that of ffmpeg's one pass for the seconds of the same clips.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from tests.bench.record import machine, print_table

PRESET, CRF = "veryfast", 22
_CUT = """
import json, sys
from curate.cut import CutConfig, Span, cut_clips
path, folder, spans, config = sys.argv[1:]
facts = cut_clips(path, [Span(**s) for s in json.loads(spans)], folder, CutConfig(**json.loads(config)))
assert not [f["error"] for f in facts if f["error"]], facts
print(json.dumps({
    "encoded_s": sum(f["encoded_s"] for f in facts), "decoded": sum(f["n_decoded"] for f in facts),
    "copied": sum(f["copied"] for f in facts), "bytes": sum(f["mp4_size"] for f in facts),
}))
"""


def spans_of(reel: Path) -> list[dict]:
    """The shots of a reel, whole transitions included with the shot before."""
    from curate.frames import Video

    with Video(str(reel)) as video:
        times = [frame.time_s for frame in video.frames()]
        width, height = next(iter(Video(str(reel)).frames())).displayed_size
    period = times[1] - times[0]
    truth = json.loads(reel.with_suffix(".json").read_text())
    cuts = [min(times, key=lambda t, b=b: abs(t - b["start"])) for b in truth["boundaries"]]  # type: ignore[misc]
    edges = [0.0, *cuts, times[-1] + period]
    return [
        {"clip_id": f"{i:024x}", "start_s": a, "end_s": b, "n_frames": sum(a <= t < b for t in times),
         "x": 0, "y": 0, "w": width, "h": height}
        for i, (a, b) in enumerate(pairwise(edges))
    ]  # fmt: skip


def timed(words: list[str]) -> dict:
    """Wall and processor seconds of a process, and what it printed last, if it is JSON."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    wall_s = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    told = json.loads(done.stdout) if done.stdout.startswith("{") else {}
    return {"wall_s": wall_s, "cpu_s": cpu_s} | told


def lines(reel: Path, folder: str) -> dict[str, tuple[list[str], float]]:
    """Name -> (command, seconds of clips that it makes)."""
    spans = spans_of(reel)
    length_s = spans[-1]["end_s"]
    ffmpeg = ["ffmpeg", "-v", "error", "-y", "-threads", "2", "-i", str(reel), "-an"]
    x264 = ["-c:v", "libx264", "-preset", PRESET, "-crf", str(CRF), "-threads", "2", "-pix_fmt", "yuv420p"]

    def cut(some: list[dict], **config: object) -> tuple[list[str], float]:
        settings = json.dumps({"preset": PRESET, "crf": CRF} | config)
        words = [sys.executable, "-c", _CUT, str(reel), folder, json.dumps(some), settings]
        return words, sum(span["end_s"] - span["start_s"] for span in some)

    return {
        "ffmpeg decode": ([*ffmpeg, "-f", "null", "-"], length_s),
        "ffmpeg decode + encode": ([*ffmpeg, *x264, f"{folder}/whole.mp4"], length_s),
        "reelmill, 1 thread": cut(spans, threads=1),
        "reelmill, 2 threads": cut(spans, threads=2),
        "reelmill, gop 250": cut(spans, threads=2, gop=250),
        "reelmill, every other clip": cut(spans[::2], threads=2),
        "reelmill, copy mode": cut(spans, threads=2, mode="copy"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--footage", type=Path, default=Path("../shared/footage"))
    parser.add_argument("--reels", nargs="+", default=["mixed", "hard"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result: dict = {"machine": machine(), "preset": PRESET, "crf": CRF, "reels": {}}
    for name in arguments.reels:
        with tempfile.TemporaryDirectory() as folder:
            todo = lines(arguments.footage / "reels" / f"{name}.mp4", folder)
            found: dict[str, dict] = {}
            for _ in range(arguments.repeats):
                for line, (words, seconds) in todo.items():
                    run = timed(words)
                    best = found.setdefault(line, run | {"kept_s": seconds})
                    for figure in ("wall_s", "cpu_s"):
                        best[figure] = min(best[figure], run[figure])
        floor = found["ffmpeg decode + encode"]
        rows = []
        for line, best in found.items():
            part = best["kept_s"] / floor["kept_s"]
            best["wall_share"] = best["wall_s"] / (part * floor["wall_s"])
            best["cpu_share"] = best["cpu_s"] / (part * floor["cpu_s"])
            encoded = best["encoded_s"] / best["kept_s"] if "encoded_s" in best else None
            figures = [best[name] for name in ("kept_s", "wall_s", "wall_share", "cpu_s", "cpu_share")]
            rows.append([line, *figures, encoded, best.get("decoded"), best.get("copied")])
        header = ["", "kept s", "wall s", "share", "CPU s", "share", "encoded/kept", "decoded", "copied"]
        print_table(f"{name}.mp4, x264 {PRESET} CRF {CRF}", header, rows)
        result["reels"][name] = found
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
