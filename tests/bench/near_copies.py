"""Near copies: recall of each variant on real clips, and the time of the search among very many.

    python -m tests.bench.near_copies --clips FOLDER      # a folder of .mp4 clips
    python -m tests.bench.near_copies --rows 100000       # synthetic sequences, 1 % planted copies

Each real clip is joined by a variant of each kind; `encoded` is a true H.264 encode, CRF 30, 72 lines lower.
A found copy is wrong if it names a clip of another file; those are printed, to be looked at.
"""

from __future__ import annotations

import argparse
import io
import time
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pyarrow as pa

from curate.decide import CopyConfig, DecideConfig, decide
from curate.near_copies import near_copies
from curate.phash import FLAT, MIRROR, phashes
from curate.tables import CLIPS

LINES, RATE = 144, 8


def decoded(file: str | io.BytesIO) -> tuple[list[np.ndarray], list[float]]:
    """Luma samples of 144 lines, eight a second, and their seconds."""
    grays, times_s = [], []
    with av.open(file) as container:
        for frame in container.decode(video=0):
            if frame.time >= len(times_s) / RATE - 0.002:
                width = frame.width * LINES // frame.height
                grays.append(frame.reformat(width, LINES, "gray").to_ndarray())
                times_s.append(frame.time)
    return grays, times_s


def encoded(path: Path, share: float, crf: int) -> io.BytesIO:
    """The whole clip again as H.264, `share` of its height."""
    made = io.BytesIO()
    with av.open(str(path)) as source, av.open(made, "w", format="mp4") as out:
        video = source.streams.video[0]
        stream = out.add_stream(
            "libx264", rate=Fraction(video.average_rate), options={"crf": str(crf), "preset": "veryfast"}
        )
        stream.height, stream.width = (round(size * share / 2) * 2 for size in (video.height, video.width))
        stream.pix_fmt = "yuv420p"
        for i, frame in enumerate(source.decode(video=0)):
            smaller = frame.reformat(stream.width, stream.height, "yuv420p")
            smaller.pts, smaller.time_base = i, 1 / Fraction(video.average_rate)
            out.mux(stream.encode(smaller))
        out.mux(stream.encode())
    made.seek(0)
    return made


def cropped(gray: np.ndarray, each: float) -> np.ndarray:
    h, w = gray.shape
    return gray[round(each * h) : h - round(each * h), round(each * w) : w - round(each * w)]


def cut(grays: list[np.ndarray], times_s: list[float], start: float, end: float) -> tuple[str, float]:
    length_s = times_s[-1] + 1 / RATE
    start_s, end_s = start * length_s, end * length_s
    inside = [i for i, at in enumerate(times_s) if start_s <= at < end_s]
    return phashes([grays[i] for i in inside], [times_s[i] for i in inside], start_s, end_s), end_s - start_s


def variants(path: Path) -> dict[str, tuple[str, float]]:
    """Name -> (hashes, seconds); the clip itself first."""
    grays, times_s = decoded(str(path))
    small = [cv2.resize(g, (128, 72), interpolation=cv2.INTER_AREA) for g in grays]
    border = [cropped(g, 0.025) for g in grays]
    corner = [g[round(0.05 * g.shape[0]) :, round(0.05 * g.shape[1]) :] for g in grays]
    mirror = [np.ascontiguousarray(g[:, ::-1]) for g in grays]
    again = decoded(encoded(path, 0.5, 30))
    every = [np.ascontiguousarray(cropped(g, 0.025)[:, ::-1]) for g in again[0]]
    return {
        "itself": cut(grays, times_s, 0, 1),
        "encoded crf 30, half size": cut(*again, 0, 1),
        "resized to 128 x 72": cut(small, times_s, 0, 1),
        "cropped 5 %, centred": cut(border, times_s, 0, 1),
        "cropped 5 %, one corner": cut(corner, times_s, 0, 1),
        "mirrored": cut(mirror, times_s, 0, 1),
        "trimmed 10 %, start": cut(grays, times_s, 0.1, 1),
        "trimmed 10 %, end": cut(grays, times_s, 0, 0.9),
        "trimmed 10 %, both": cut(grays, times_s, 0.1, 0.9),
        "encoded, cropped, mirrored, trimmed": cut(every, again[1], 0.1, 0.9),
    }


def rows(sequences: list[tuple[str, float]], best: np.ndarray) -> pa.Table:
    """A clips table; rows in `best` have more pixels than the others."""
    width = np.where(best, 1280, 640).tolist()
    return pa.Table.from_pylist(
        [
            {
                "clip_id": f"{i:024x}",
                "source_id": f"{i:016x}",
                "start_s": 0.0,
                "end_s": s,
                "width": w,
                "height": 360,
                "phash": h,
            }
            for i, ((h, s), w) in enumerate(zip(sequences, width, strict=True))
        ],
        schema=CLIPS,
    )


def real(folder: Path) -> None:
    paths = sorted(folder.glob("*.mp4"))
    made = [variants(path) for path in paths]
    names = list(made[0])
    clips = rows(
        [sequence for of in made for sequence in of.values()],
        np.array([name == "itself" for _ in made for name in names]),
    )
    began = time.process_time()
    found = near_copies(clips, np.ones(len(clips), bool), CopyConfig())
    spent = time.process_time() - began
    n = len(names)
    right = {row for row, (better, _) in found.items() if row // n == better // n}
    print(f"{len(paths)} clips, {len(clips)} rows, {spent:.2f} CPU s")
    for at, name in enumerate(names[1:], 1):
        hit = sum(i * n + at in right for i in range(len(paths)))
        bits = [found[i * n + at][1] for i in range(len(paths)) if i * n + at in right]
        print(f"  {name:38s} recall {hit / len(paths):.3f}   worst bits {max(bits, default=0):.1f}")
    print(
        f"  precision {len(right) / max(1, len(found)):.4f} ({len(found) - len(right)} of {len(found)} wrong)"
    )
    missed = [
        f"{paths[i].stem}/{names[at]}"
        for i in range(len(paths))
        for at in range(1, n)
        if i * n + at not in right
    ]
    print("  missed:", ", ".join(missed) or "none")
    for row, (better, bits) in found.items():
        if row not in right:
            print(
                f"  other file: {paths[row // n].name} ({names[row % n]}) = {paths[better // n].name}, {bits:.1f}"
            )


def synthetic(count: int) -> None:
    """Sequences of 3 to 10 s whose hashes drift by four bits a step; copies with eight bits flipped, half mirrored."""
    rng = np.random.default_rng(0)

    def flips(bits: int, n: int) -> np.ndarray:
        chosen = rng.integers(0, 64, (n, bits)).astype(np.uint64)
        return np.bitwise_or.reduce(np.uint64(1) << chosen, axis=1)

    sequences, copy_of = [], {}
    for i in range(count):
        if i % 100 == 99:
            source = int(rng.integers(0, i))
            copy_of[i] = copy_of.get(source, source)
            hashes = sequences[copy_of[i]]
            hashes = (
                hashes[: max(3, round(0.9 * len(hashes)))]
                ^ flips(8, max(3, round(0.9 * len(hashes))))[: len(hashes)]
            )
            hashes = hashes ^ MIRROR if rng.random() < 0.5 else hashes
        else:
            length = int(rng.integers(5, 20))
            start = rng.integers(1, 2**63, dtype=np.uint64)
            hashes = start ^ np.bitwise_xor.accumulate(flips(4, length))
        sequences.append(np.where(hashes == FLAT, np.uint64(1), hashes))
    texts = [("-".join(f"{int(h):016x}" for h in s), 0.5 * (len(s) + 1)) for s in sequences]
    best = np.ones(count, bool)
    best[list(copy_of)] = False
    clips = rows(texts, best)
    plain = CopyConfig(near=False)
    began = time.process_time()
    decide(clips, DecideConfig(copies=plain))
    without = time.process_time() - began
    began = time.process_time()
    decide(clips, DecideConfig())
    whole = time.process_time() - began
    began = time.process_time()
    found = near_copies(clips, np.ones(count, bool), CopyConfig())
    search = time.process_time() - began
    right = sum(found.get(row, (-1, 0))[0] == source for row, source in copy_of.items())
    print(f"{count} rows, {sum(map(len, sequences))} hashes, {len(copy_of)} planted copies, CPU seconds:")
    print(f"  decide without copies {without:.2f}   decide {whole:.2f}   near_copies alone {search:.2f}")
    print(f"  recall {right / len(copy_of):.4f}   precision {right / max(1, len(found)):.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=Path, help="folder of .mp4 clips")
    parser.add_argument("--rows", type=int, help="synthetic rows")
    args = parser.parse_args()
    if args.clips:
        real(args.clips)
    if args.rows:
        synthetic(args.rows)


if __name__ == "__main__":
    main()
