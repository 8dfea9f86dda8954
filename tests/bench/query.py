"""The ten examples of `reelmill query` on a large dataset: how long each takes, as a person waits for it.

    python -m tests.bench.query --json out.json                 # one million captions
    python -m tests.bench.query --captions 1000 --repeats 1     # a look

The tables are written by curate.dataset.Dataset, with a fixed seed: per source 20 shots, five in eight kept, each kept
clip with four captions (original, short, dense, rewrite; about 10, 12, 70 and 55 words of a Zipf vocabulary), their
scores, prices and times. Columns that no example reads (embeddings, hashes of pictures) are null; the raw text, as
long as the text itself, is there. A query is timed from SQL to the last row of its answer, each repeat in a new
connection, so that views are bound and footers are read anew; files are in the page cache, as they are for an
analyst's second question. Figures are the median and the slowest of the repeats, and the median of the processor time
of all threads; the load average tells whether other work shared the cores.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.dataset import Dataset, conform
from curate.tables import TABLES
from pipelines.query import connect
from pipelines.query_examples import EXAMPLES
from tests.bench.record import machine, print_table

SHOTS, KEPT = 20, 5 / 8  # per source; share of shots that are kept
KINDS = {"original": 10, "short": 12, "dense": 70, "rewrite": 55}  # words of each
SIZES = [(1920, 1080), (1080, 1920), (1280, 720), (1440, 1080), (1080, 1080), (2560, 1080)]
CAMERAS = ["static", "pan", "tilt", "zoom_in", "zoom_out", "roll", "shake", "mixed"]
REASONS = ["motion 0.12 < 0.5", "aesthetic 3.21 < 4", "text_area 0.31 > 0.2", "copy of", "duration_s 0.9 < 2"]
CHUNK = 16_000  # clips whose captions are made at once


def ids(numbers: np.ndarray, prefix: str) -> pa.Array:
    """24 hex digits per number, in no order that could help."""
    mixed = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return pa.array([f"{prefix}{value:016x}{'0' * (8 - len(prefix))}" for value in mixed.tolist()])


def texts(rng: np.random.Generator, count: int, words: int, vocabulary: pa.Array) -> pa.Array:
    """`count` captions of about `words` words."""
    lengths = np.maximum(3, rng.poisson(words, count))
    at = np.minimum(rng.zipf(1.3, int(lengths.sum())) - 1, len(vocabulary) - 1)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), vocabulary.take(pa.array(at))), " ")


def table(name: str, columns: dict) -> pa.Table:
    """A table with today's schema; columns that are not given are null."""
    return conform(pa.table(columns), TABLES[name])


def write_tables(dataset: Dataset, n_captions: int) -> None:
    """All tables but latents, with `n_captions` rows in captions."""
    rng = np.random.default_rng(20261122)
    kept_clips = -(-n_captions // len(KINDS))
    n_sources = max(2, round(kept_clips / (SHOTS * KEPT)))
    n_clips = max(n_sources * SHOTS, kept_clips)
    source_ids, clip_ids = ids(np.arange(n_sources), "5"), ids(np.arange(n_clips), "c")
    of_source = np.arange(n_clips) % n_sources
    failed = rng.random(n_sources) < 0.01
    size = np.array(SIZES)[rng.choice(len(SIZES), n_sources, p=[0.5, 0.2, 0.12, 0.08, 0.06, 0.04])]
    sources = {
        "source_id": source_ids,
        "uri": [f"s3://films/reel/{n:06d}.mp4" for n in range(n_sources)],
        "width": size[:, 0], "height": size[:, 1], "duration_s": rng.gamma(4, 30, n_sources),
        "status": np.where(failed, "partial", "ok"),
        "error": pa.array(np.where(failed, "decoding broke off: Invalid data", ""), mask=~failed),
    }  # fmt: skip
    dataset.write("sources", table("sources", sources))
    length = np.clip(np.exp(rng.normal(1.4, 0.6, n_clips)), 0.5, 60)
    start = rng.random(n_clips) * 100
    clips = {
        "clip_id": clip_ids, "source_id": source_ids.take(pa.array(of_source)), "start_s": start,
        "end_s": start + length, "width": size[of_source, 0], "height": size[of_source, 1],
        "camera": rng.choice(CAMERAS, n_clips, p=[0.4, 0.2, 0.08, 0.07, 0.05, 0.02, 0.08, 0.1]),
        "motion": rng.gamma(2, 2, n_clips), "aesthetic": rng.normal(5, 1, n_clips),
    }  # fmt: skip
    keep = np.zeros(n_clips, bool)
    keep[rng.permutation(n_clips)[:kept_clips]] = True
    why = np.array(REASONS, object)[rng.integers(0, len(REASONS), n_clips)]
    is_copy = ~keep & (why == "copy of")
    better = clip_ids.take(pa.array(rng.choice(np.flatnonzero(keep), n_clips)))
    reason = [
        None if k else f"{w} {b}" if c else w
        for k, w, c, b in zip(keep.tolist(), why.tolist(), is_copy.tolist(), better.to_pylist(), strict=True)
    ]
    decisions = {
        "clip_id": clip_ids, "keep": keep, "reason": reason, "reasons": [[r] if r else [] for r in reason],
        "duplicate_of": pc.if_else(pa.array(is_copy), better, None), "weight": np.ones(n_clips),
    }  # fmt: skip
    order = pc.sort_indices(clip_ids)
    dataset.write("clips", table("clips", clips).take(order))
    dataset.write("decisions", table("decisions", decisions).take(order))
    kept = clip_ids.filter(pa.array(keep)).sort()
    seconds = length[keep]
    shards = {
        "clip_id": kept, "bucket": np.where(seconds < 4, "16x9_720p_2s", "16x9_720p_4s"),
        "shard": [f"16x9_720p/{n // 1000:05d}.tar" for n in range(len(kept))],
        "mp4_size": (seconds * 6e5).astype(int), "duration_s": seconds,
    }  # fmt: skip
    dataset.write("shards", table("shards", shards))
    dataset.write("captions", captions(rng, kept, n_captions))


def captions(rng: np.random.Generator, kept: pa.Array, n_captions: int) -> Iterator[pa.Table]:
    """The captions of the kept clips, sorted by clip, a chunk at a time."""
    letters = rng.integers(97, 123, (4000, 9), np.uint8)
    sizes = rng.integers(2, 10, 4000)
    vocabulary = pa.array([bytes(row[:n]).decode() for row, n in zip(letters, sizes, strict=True)])
    for first in range(0, len(kept), CHUNK):
        clips = kept.slice(first, CHUNK)
        parts = []
        for place, (kind, words) in enumerate(KINDS.items()):
            n, is_own = len(clips), kind != "original"
            text = texts(rng, n, words, vocabulary)
            is_bad = rng.random(n) < (0.01 if is_own else 0.0)
            score = rng.normal(0.28, 0.05, n)
            columns = {
                "caption_id": ids(np.arange(first, first + n) * 8 + place, "a"), "clip_id": clips,
                "kind": [kind] * n, "text": pc.if_else(pa.array(is_bad), None, text), "text_raw": text,
                "status": np.where(is_bad, "refused", "ok"), "lang": ["en"] * n,
                "captioner": ["openai" if is_own else "sidecar"] * n, "model": ["qwen3-vl-8b"] * n,
                "tokens_in": rng.integers(900, 1600, n), "tokens_out": rng.poisson(words * 1.3, n),
                "latency_ms": rng.gamma(3, 400, n), "clip_score": score,
                "clip_margin": score - rng.normal(0.2, 0.04, n), "chosen": ~is_bad,
                "cost_usd": pa.array(rng.gamma(3, 1e-4, n), mask=np.full(n, not is_own)),
                "prompt_id": [f"{kind}/1"] * n, "run_id": ["run-1"] * n,
                "created_at": np.full(n, np.datetime64("2026-11-22", "us")),
            }  # fmt: skip
            parts.append(table("captions", columns))
        chunk = pa.concat_tables(parts).sort_by([("clip_id", "ascending"), ("caption_id", "ascending")])
        yield chunk.slice(0, n_captions - first * len(KINDS))


def measure(dataset: Dataset, repeats: int) -> list[dict]:
    """Seconds of every example, on the clock and of all cores: `{number, title, median_s, slowest_s, cpu_s, rows}`."""
    found = []
    for number, example in enumerate(EXAMPLES, 1):
        seconds, cpu, rows = [], [], 0
        for _ in range(repeats):
            with connect(dataset) as connection:
                began, cpu_began = time.perf_counter(), time.process_time()
                rows = len(connection.sql(example.sql).fetchall())
                seconds.append(time.perf_counter() - began)
                cpu.append(time.process_time() - cpu_began)
        found.append(
            {"number": number, "title": example.title, "median_s": statistics.median(seconds),
             "slowest_s": max(seconds), "cpu_s": statistics.median(cpu), "rows": rows}
        )  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--captions", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dataset", help="where to keep the tables, or find those of an earlier run")
    parser.add_argument("--json", type=Path)
    flags = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        dataset = Dataset(flags.dataset or folder)
        if not dataset.has("captions"):
            write_tables(dataset, flags.captions)
        size = sum(dataset.fs.size(dataset.path(name)) for name in dataset.files(""))
        rows = measure(dataset, flags.repeats)
        with connect(dataset) as connection:
            counts = {
                view: connection.sql(f"SELECT count(*) FROM {view}").fetchall()[0][0]
                for view in ("sources", "clips", "decisions", "captions", "shards")
            }
    title = f"{counts['captions']:,} captions of {counts['clips']:,} clips, {size / 1e6:.0f} MB of Parquet"
    shown = ("title", "median_s", "slowest_s", "cpu_s", "rows")
    print_table(title, ("example", *shown[1:]), [[row[name] for name in shown] for row in rows])
    if flags.json:
        found = machine() | {
            "load_average": os.getloadavg()[0],
            "repeats": flags.repeats,
            "rows": counts,
            "bytes": size,
            "queries": rows,
        }
        flags.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
