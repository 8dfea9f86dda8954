"""A small dataset with literal contents, for the tests of the commands that look at one.

Four sources (ok, ok with a hostile caption, partial, failed), eight shots, five kept. The pictures are real:
every source is an H.264 file whose shots are plain colours, so a frame tells which shot it comes from.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa

from curate.dataset import Dataset
from curate.tables import TABLES

FPS, SHOT_S, WIDTH, HEIGHT = 12, 2.0, 128, 72
HOSTILE = "<script>document.title='owned'</script> & \"quoted\" </script><img src=x onerror=alert(1)>"
ERROR = (
    "av.error.InvalidDataError: [Errno 1094995529] Invalid data found when processing input: 'bröken <b>.mp4'"
)
COLOURS = {"red": (200, 40, 40), "green": (40, 160, 60), "blue": (50, 80, 210), "black": (0, 0, 0)}

SOURCES: list[dict[str, Any]] = [
    {"source_id": "a" * 32, "status": "ok", "caption": "a red, then a green screen", "shots": ["red", "green"]},
    {"source_id": "b" * 32, "status": "ok", "caption": HOSTILE, "shots": ["blue", "black", "red"]},
    {"source_id": "c" * 32, "status": "partial", "error": "decoding broke off at 6.0 s: moov atom not found",
     "shots": ["green", "blue", "red"]},
    {"source_id": "d" * 32, "status": "failed", "error": ERROR, "shots": []},
]  # fmt: skip

# clip -> (motion, black_ratio, clip_text_sim, reasons)
CLIPS: dict[str, tuple[float | None, float, float | None, list[str]]] = {
    "a0": (3.0, 0.0, 0.31, []),
    "a1": (2.0, 0.0, 0.27, []),
    "b0": (4.5, 0.0, 0.12, []),
    "b1": (0.02, 1.0, 0.05, ["black_ratio 1.00 > 0.10", "motion 0.02 < 0.50"]),
    "b2": (0.12, 0.0, 0.2, ["motion 0.12 < 0.50"]),
    "c0": (6.0, 0.0, None, []),
    "c1": (None, 0.0, None, []),
    "c2": (3.0, 0.0, None, ["duplicate of a00000000000 (hash distance 2)"]),
}  # fmt: skip


WRITTEN = tuple(name for name in TABLES if name != "overrides")


def clip_id(short: str) -> str:
    return short + "0" * 10


def build(folder: Path, *, tables: tuple[str, ...] = WRITTEN) -> Dataset:
    """Write the films into `folder`/films and the tables named into `folder`/dataset."""
    (folder / "films").mkdir(parents=True)
    dataset = Dataset(folder / "dataset")
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
    for source in SOURCES:
        path = folder / "films" / f"{source['source_id'][0]} ö.mp4"
        render(path, source["shots"])
        seconds = SHOT_S * len(source["shots"])
        rows["sources"].append(
            {"uri": str(path), "width": WIDTH, "height": HEIGHT, "fps": float(FPS), "codec": "h264",
             "size_bytes": path.stat().st_size, "duration_s": seconds, "n_frames": int(seconds * FPS), **source}
        )  # fmt: skip
    for place, (short, (motion, black, similarity, reasons)) in enumerate(CLIPS.items()):
        index = int(short[1])
        rows["clips"].append(
            {"clip_id": clip_id(short), "source_id": short[0] * 32, "index": index, "fps": float(FPS),
             "start_s": index * SHOT_S, "end_s": (index + 1) * SHOT_S, "n_frames": int(SHOT_S * FPS),
             "width": WIDTH, "height": HEIGHT, "transition_in": "cut", "transition_out": "cut",
             "crop": {"x": 0, "y": 0, "w": WIDTH, "h": HEIGHT}, "camera": "static" if place % 2 else "pan",
             "motion": motion, "black_ratio": black, "clip_text_sim": similarity, "luma": 20.0 * place,
             "embedding": [1.0, 0.0], "embedding_model": "embedded",
             "score_errors": [("motion", "flow needs two frames")] if motion is None else []}
        )  # fmt: skip
        rows["decisions"].append(
            {"clip_id": clip_id(short), "keep": not reasons, "reason": reasons[0] if reasons else None,
             "reasons": reasons, "weight": 1.0,
             "duplicate_of": clip_id("a0") if reasons and "duplicate" in reasons[0] else None}
        )  # fmt: skip
        if not reasons:
            rows["captions"] += captions(short)
            rows["shards"].append(
                {"clip_id": clip_id(short), "shard": "16x9-h72/000000.tar", "bucket": "16x9-h72",
                 "mp4_offset": 512, "mp4_size": 1000 + place, "width": WIDTH, "height": HEIGHT,
                 "fps": float(FPS), "n_frames": int(SHOT_S * FPS), "duration_s": SHOT_S}
            )  # fmt: skip
            rows["latents"].append(
                {"clip_id": clip_id(short), "shard": "16x9-h72__000000.tar", "latent_offset": 512,
                 "latent_size": 4000, "t": 7, "h": 9, "w": 16, "n_tokens": 252, "fps": float(FPS),
                 "caption_kinds": ["dense", "short"]}
            )  # fmt: skip
    for name in tables:
        table = pa.Table.from_pylist(rows[name], schema=TABLES[name])
        if name == "latents":
            with dataset.atomic_writer("latents", "tiny-0123", "index.parquet") as file:
                pa.parquet.write_table(table, file)
        else:
            dataset.write(name, table)
    return dataset


def captions(short: str) -> list[dict[str, Any]]:
    """A chosen dense caption, an older one that was not chosen, a short one; for c0, one that failed."""
    base = {"clip_id": clip_id(short), "window": 0, "lang": "en", "captioner": "coca", "model": "embedded",
            "created_at": datetime(2026, 11, 21, tzinfo=UTC)}  # fmt: skip
    dense = HOSTILE if short == "b0" else f"a screen of one colour, dense, of {short}"
    found = [
        {**base, "kind": "short", "text": f"a screen, {short}", "status": "ok", "chosen": True},
        {**base, "kind": "dense", "text": dense, "status": "ok", "chosen": True},
        {**base, "kind": "dense", "text": "a newer one, not chosen", "status": "ok", "chosen": False,
         "created_at": datetime(2026, 11, 22, tzinfo=UTC)},
    ]  # fmt: skip
    if short == "c0":
        found.append(
            {**base, "kind": "rewrite", "text": None, "status": "error", "error": "HTTP 500: out of tokens"}
        )
    return [{"caption_id": f"{short}{place:014x}", **row} for place, row in enumerate(found)]


def render(path: Path, shots: list[str]) -> None:
    """An H.264 file of plain colours, one per shot, with a square that moves; no shots: no video at all."""
    if not shots:
        path.write_bytes(b"this is no video")
        return
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "18", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(int(len(shots) * SHOT_S * FPS)):
            name = shots[int(number / FPS / SHOT_S)]
            picture = np.full((HEIGHT, WIDTH, 3), COLOURS[name], np.uint8)
            if name != "black":
                left = number * 3 % (WIDTH - 20)
                picture[28:44, left : left + 16] = 240
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
