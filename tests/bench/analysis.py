"""What analysis costs beside bare decoding of the same files, in one run: on one core and on two.

    python -m tests.bench.analysis --footage ../shared/footage --json out.json

Each number of cores gets its own process, pinned to them, with as many decoder threads. In it bare decoding
(PyAV, no picture looked at) and `curate.analysis.analyse` take turns, and the least time of each counts: processor
seconds on one core, wall seconds on two. `fused` is everything but the models, the shots found by their jumps alone;
with `network`, loaded beforehand, TransNet V2 decides where no plain cut explains a change.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

FILES = (
    "reels/hard.mp4",
    "reels/mixed.mp4",
    "clips/3-u9uaSNUcg_30.mp4",
    "clips/COLGm4vIVuQ_9.mp4",
    "clips/JuIOj-qy0ck_29.mp4",
    "edge/testvideo.mp4",
    "long/bigbuckbunny.mp4",
    "long/dj_video3.mp4",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--footage", type=Path, required=True)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cores", type=int, default=0, help=argparse.SUPPRESS)  # we are the child
    options = parser.parse_args()
    if options.cores:
        print(json.dumps(measure(options.footage, options.cores, options.repeats)))
        return
    from tests.bench.record import machine, print_table

    results = {}
    for cores in (1, 2):
        command = [sys.executable, __file__, "--footage", options.footage, "--cores", str(cores)]
        command += ["--repeats", str(options.repeats)]
        out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        results[cores] = json.loads(out.splitlines()[-1])
        names = ["seconds", "bare_s", "fused_s", "network_s", "fused_ratio", "network_ratio"]
        rows = [[film, *(r[name] for name in names)] for film, r in results[cores].items()]
        header = ["file", "footage s", "bare s", "fused s", "network s", "fused / bare", "network / bare"]
        print_table(f"{cores} core(s), {'processor' if cores == 1 else 'wall'} seconds", header, rows)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "cores": results}, indent=1) + "\n")


def measure(footage: Path, cores: int, repeats: int) -> dict:
    """Per file, and in all: seconds of footage, of decoding, of analysis without and with the network; ratios."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    os.environ["OMP_NUM_THREADS"] = str(cores)
    clock = time.process_time if cores == 1 else time.perf_counter

    import av

    from curate.analysis import AnalysisConfig, analyse
    from curate.shot_network import network
    from curate.shots import ShotConfig

    network("auto", alongside=cores > 1).result()

    def bare(path: str) -> None:
        with av.open(path) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = cores
            for _ in container.decode(stream):
                pass

    result = {}
    for name in FILES:
        path = str(footage / name)
        fused = AnalysisConfig(threads=cores, shots=ShotConfig(windows="off"))
        jobs = {
            "bare_s": lambda p=path: bare(p),
            "fused_s": lambda p=path, c=fused: analyse(p, "0" * 32, c),
            "network_s": lambda p=path: analyse(p, "0" * 32, AnalysisConfig(threads=cores)),
        }
        times: dict[str, float] = {}
        for _ in range(repeats):
            for key, job in jobs.items():
                begin = clock()
                done = job()
                times[key] = min(times.get(key, 1e9), clock() - begin)
        result[name] = {"seconds": done.clips[-1]["end_s"], **times}
    result["all"] = {key: sum(r[key] for r in result.values()) for key in ("seconds", *times)}
    for r in result.values():
        r["fused_ratio"] = r["fused_s"] / r["bare_s"]
        r["network_ratio"] = r["network_s"] / r["bare_s"]
    return result


if __name__ == "__main__":
    main()
