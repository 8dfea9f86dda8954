"""What analysis costs beside bare decoding of the same files, in one run: on one core and on two.

    python -m tests.bench.analysis --footage ../shared/footage --json out.json

Each number of cores gets its own process, pinned to them, with as many decoder threads. In it bare decoding
(PyAV, no picture looked at) and `curate.analysis.analyse` take turns, and the least time of each counts: processor
seconds on one core, wall seconds on two. The shot finder is timed on its own as well, since its network is a model.
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
        rows = [
            [
                name,
                r["seconds"],
                r["bare_s"],
                r["analysis_s"],
                r["finder_s"],
                r["ratio"],
                r["ratio_no_finder"],
            ]
            for name, r in results[cores].items()
        ]
        header = ["file", "footage s", "bare s", "analysis s", "finder s", "ratio", "less finder"]
        print_table(f"{cores} core(s), {'processor' if cores == 1 else 'wall'} seconds", header, rows)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "cores": results}, indent=1) + "\n")


def measure(footage: Path, cores: int, repeats: int) -> dict:
    """Per file, and in all: seconds of footage, of decoding, of analysis and of the finder; and the ratios."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    os.environ["OMP_NUM_THREADS"] = str(cores)
    clock = time.process_time if cores == 1 else time.perf_counter

    import av

    from curate.analysis import AnalysisConfig, analyse
    from curate.frames import Video
    from curate.pictures import shot_picture
    from curate.shots import ShotConfig, ShotFinder

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
        with Video(path) as video:
            pictures = [(shot_picture(frame), frame.time_s) for frame in video.frames()]

        def finder(pictures: list = pictures) -> None:
            found = ShotFinder(ShotConfig())
            for picture, time_s in pictures:
                found.push(picture, time_s)
            found.finish(pictures[-1][1] + 0.04)

        def analysis(path: str = path) -> None:
            analyse(path, "0" * 32, AnalysisConfig(threads=cores))

        times: dict[str, float] = {}
        for _ in range(repeats):
            for key, job in (
                ("bare_s", lambda p=path: bare(p)),
                ("analysis_s", analysis),
                ("finder_s", finder),
            ):
                begin = clock()
                job()
                times[key] = min(times.get(key, 1e9), clock() - begin)
        result[name] = {"seconds": pictures[-1][1], **times}
    result["all"] = {key: sum(r[key] for r in result.values()) for key in ("seconds", *times)}
    for r in result.values():
        r["ratio"] = r["analysis_s"] / r["bare_s"]
        r["ratio_no_finder"] = (r["analysis_s"] - r["finder_s"]) / r["bare_s"]
    return result


if __name__ == "__main__":
    main()
