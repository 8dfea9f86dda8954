"""Memory and time of `reelmill sample` by length of the video, with a tiny random model and the embedded VAE.

    python -m tests.bench.sample_memory --json out.json
    python -m tests.bench.sample_memory --seconds 5 60 600 --width 256 --height 144

Each length is a process of its own; peak memory is VmHWM as the kernel counts it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from small_checkpoint import write_checkpoint

from tests.bench.record import machine, print_table

FPS, PIECE_T = 16, 9  # 33 pictures to a piece

_CHILD = """
import sys
from pathlib import Path
from pipelines.sample import main
code = main(sys.argv[1:])
print("peak", Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
raise SystemExit(code)
"""


def measure(checkpoint: Path, out: Path, seconds: int, options: list[str]) -> dict:
    """Seconds of video, pictures, pieces, wall time and peak memory of a fresh process."""
    told = [f"--checkpoint={checkpoint}", f"--out={out}", "--prompt=a star", f"--frames={seconds * FPS}"]
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, *told, *options], capture_output=True, text=True, check=True
    )
    peak_kb = int(done.stdout.rpartition("peak ")[2])
    (row,) = json.loads((out / "prompts.json").read_text())
    assert row["frames"] == seconds * FPS
    return {
        "seconds": seconds,
        "frames": row["frames"],
        "wall_s": round(time.perf_counter() - began, 1),
        "peak_mb": round(peak_kb / 1024),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=int, nargs="*", default=[2, 5, 60])
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--height", type=int, default=64)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    size = (PIECE_T, args.height // 8, args.width // 8)
    options = ["--sampler.steps=2", f"--fps={FPS}", "--device=cpu"]
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = write_checkpoint(Path(folder) / "model", size)
        rows = [
            measure(checkpoint, Path(folder) / str(seconds), seconds, options) for seconds in args.seconds
        ]
    print_table(
        f"Chains of {4 * (PIECE_T - 1) + 1} pictures of {args.width} x {args.height}",
        list(rows[0]),
        [list(row.values()) for row in rows],
    )
    if args.json:
        found = {"machine": machine(), "width": args.width, "height": args.height, "by_length": rows}
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
