"""Our tables against a plain `DataFrame.to_parquet` of the same rows: sizes, scans, look-ups, group-bys.

    python -m tests.bench.tables --json out.json                # one million captions of 250,000 clips
    python -m tests.bench.tables --clips 500 --repeats 1        # a look

Both hold the same rows in the same order (by clip_id), written one after the other by the same machine: ours by
curate.dataset.Dataset (zstd, row groups of 16,000 rows or 64 MiB, page index, dictionaries where values repeat), the
plain one by pandas with its defaults (snappy, row groups of 2**20 rows, a dictionary for every column). The seed is
fixed: four captions per clip (dense, original, rewrite, short) of 60, 9, 55 and 12 words of the words in this
repository's docs as often as there, the raw text beside the cleaned one; clips with scores, hashes and embeddings of
768 floats. Every question is asked of both, in turn, on two threads, files in the page cache; figures are medians.

`apart` asks the questions about clips once more with the embeddings in files of their own, as a third layout. That was
never worth a join (see the results): a scan that does not name the column does not read it.

Ratios are of the clock. `cpu_s` is the processor time of all threads, and the load average tells whether other work
shared the cores: zstd costs processor time, which is free only where a core is.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from curate.dataset import Dataset, conform, write_parquet
from curate.tables import CAPTIONS, CLIPS
from tests.bench.record import machine, print_table

KINDS = {"dense": 60, "original": 9, "rewrite": 55, "short": 12}  # words of each
CAMERAS = ["static", "pan", "tilt", "zoom_in", "zoom_out", "roll", "shake", "mixed"]
DIMS = 768
DOCS = Path(__file__).resolve().parents[2] / "docs"


def hex_ids(numbers: np.random.Generator, count: int, digits: int) -> list[str]:
    text = numbers.bytes(count * digits // 2).hex()
    return [text[i : i + digits] for i in range(0, len(text), digits)]


def captions_text(numbers: np.random.Generator, words: np.ndarray) -> pa.Array:
    """A caption of `words[i]` words for every i."""
    counted = Counter(re.findall(r"[a-z]+", " ".join(path.read_text() for path in DOCS.glob("*.md")).lower()))
    vocabulary, often = pa.array(list(counted)), np.array(list(counted.values()), np.float64)
    at = np.searchsorted(np.cumsum(often / often.sum()), numbers.random(int(words.sum())))
    offsets = np.concatenate([[0], np.cumsum(words)]).astype(np.int32)
    taken = vocabulary.take(pa.array(np.minimum(at, len(vocabulary) - 1)))
    return pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), taken), " ")


def clips_table(numbers: np.random.Generator, n: int) -> pa.Table:
    """n clips, sorted by clip_id."""
    ids = sorted(hex_ids(numbers, n, 24))
    start = np.round(numbers.uniform(0, 3600, n), 3)
    vectors = numbers.standard_normal((n, DIMS), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    offsets = pa.array(np.arange(n + 1, dtype=np.int32) * DIMS)
    scores = (
        "motion",
        "luma",
        "black_ratio",
        "static_ratio",
        "sharpness",
        "text_area",
        "overlay_area",
        "aesthetic",
    )
    columns = {
        "clip_id": ids,
        "source_id": [one[:16] + "0" * 16 for one in ids],
        "index": np.arange(n, dtype=np.int32) % 40,
        "start_s": start,
        "end_s": start + np.round(numbers.uniform(1, 20, n), 3),
        "n_frames": numbers.integers(24, 500, n),
        "fps": numbers.choice([24.0, 25.0, 29.97, 30.0], n),
        "width": numbers.choice([1280, 1920], n),
        "height": numbers.choice([720, 1080], n),
        "crop": pa.StructArray.from_arrays(
            [pa.array(np.full(n, v, np.int32)) for v in (0, 0, 1280, 720)], list("xywh")
        ),
        "transition_in": numbers.choice(["cut", "dissolve", "fade"], n),
        "camera": numbers.choice(CAMERAS, n),
        "embedding": pa.ListArray.from_arrays(offsets, pa.array(vectors.ravel())),
        "embedding_model": pa.array(["ViT-L-14/openai"] * n),
        "phash": hex_ids(numbers, n, 160),
        "config_hash": pa.array(["0123456789abcdef"] * n),
        **{name: numbers.gamma(2.0, 2.0, n).astype(np.float32) for name in scores},
    }
    return conform(pa.table(columns), CLIPS)


def captions_table(numbers: np.random.Generator, clip_ids: list[str]) -> pa.Table:
    """Four captions of every clip, in the order of the table."""
    n = len(clip_ids) * len(KINDS)
    kinds = list(KINDS) * len(clip_ids)
    text = captions_text(
        numbers, np.maximum(3, numbers.poisson(np.tile(list(KINDS.values()), len(clip_ids))))
    )
    start = np.round(numbers.uniform(0, 3600, n), 3)
    times = pa.ListArray.from_arrays(
        pa.array(np.arange(n + 1, dtype=np.int32) * 8), pa.array(numbers.uniform(0, 3600, n * 8).round(3))
    )
    late = np.sort(numbers.integers(0, 10**10, n)).astype("timedelta64[us]")
    made_at = np.datetime64(datetime(2026, 11, 22), "us") + late
    columns = {
        "caption_id": hex_ids(numbers, n, 32),
        "clip_id": pa.array(clip_ids).take(pa.array(np.repeat(np.arange(len(clip_ids)), len(KINDS)))),
        "window": np.zeros(n, np.int32),
        "start_s": start,
        "end_s": start + 5,
        "frame_times_s": times,
        "kind": kinds,
        "lang": ["en"] * n,
        "text": text,
        "text_raw": pc.binary_join_element_wise("Sure! ", text, ""),
        "status": numbers.choice(["ok", "truncated", "repetitive"], n, p=[0.96, 0.03, 0.01]),
        "captioner": numbers.choice(["openai", "vllm", "coca"], n),
        "model": ["a-vision-language-model-8b"] * n,
        "prompt_id": [f"{kind}-3" for kind in kinds],
        "prompt_hash": ["89abcdef01234567"] * n,
        "sampling": ['{"temperature": 0.2, "max_tokens": 300}'] * n,
        "n_frames": np.full(n, 8, np.int32),
        "tokens_out": pc.count_substring(text, " "),
        "latency_ms": numbers.gamma(4.0, 300.0, n).astype(np.float32),
        "cost_usd": numbers.gamma(2.0, 1e-4, n),
        "clip_score": numbers.normal(0.25, 0.05, n).astype(np.float32),
        "chosen": numbers.random(n) < 0.7,
        "run_id": ["20261122-071500"] * n,
        "created_at": pa.array(made_at).cast(pa.timestamp("us", tz="UTC")),
    }
    return conform(pa.table(columns), CAPTIONS)


def write_layouts(folder: Path, n_clips: int) -> tuple[dict[str, float], str]:
    """The same rows in `ours`, `plain` and `apart`; seconds of writing, and a clip_id out of the middle."""
    numbers = np.random.default_rng(0)
    clips = clips_table(numbers, n_clips)
    ids = clips["clip_id"].to_pylist()
    written = {"ours": 0.0, "plain": 0.0}
    for table, make in (("clips", lambda: clips), ("captions", lambda: captions_table(numbers, ids))):
        rows = make()
        began = time.perf_counter()
        Dataset(folder / "ours").write(table, rows)
        written["ours"] += time.perf_counter() - began
        (folder / "plain" / table).mkdir(parents=True)
        frame: pd.DataFrame = rows.to_pandas()
        del rows
        began = time.perf_counter()
        frame.to_parquet(folder / "plain" / table / "all.parquet")
        written["plain"] += time.perf_counter() - began
    apart = {"clips": clips.drop_columns("embedding"), "embeddings": clips.select(["clip_id", "embedding"])}
    for table, rows in apart.items():
        (folder / "apart" / table).mkdir(parents=True)
        with (folder / "apart" / table / "part-00000.parquet").open("wb") as file:
            write_parquet(file, rows.schema, [rows])
    return written, ids[len(ids) // 2]


def sql(question: str, folder: Path) -> object:
    """The answer of a new DuckDB connection; {clips}, {captions} and {embeddings} stand for the files."""
    tables = duckdb.connect(config={"threads": 2})
    files = {name: f"'{folder}/{name}/*.parquet'" for name in ("clips", "captions", "embeddings")}
    return tables.sql(question.format(**files)).to_arrow_table().to_pylist()


def questions(one: str) -> dict[str, Callable[[Path], object]]:
    """Name -> a question that any layout answers alike, given its folder."""

    def ask(text: str) -> Callable[[Path], object]:
        return lambda folder: sql(text, folder)

    def filtered(folder: Path) -> object:
        return (
            ds.dataset(folder / "captions")
            .to_table(columns=["text"], filter=pc.field("clip_id") == one)
            .to_pylist()
        )

    def range_of_clips(folder: Path) -> object:
        where = [("clip_id", ">=", one), ("clip_id", "<", one[:2] + "~")]
        return pq.read_table(folder / "captions", columns=["clip_id", "kind", "text"], filters=where).num_rows

    return {
        "count the captions": ask("SELECT count(*) FROM {captions}"),
        "length of texts by kind and captioner": ask(
            "SELECT kind, captioner, count(*) AS n, sum(length(text))::BIGINT AS length FROM {captions} "
            "GROUP BY ALL ORDER BY ALL"
        ),
        "cost and share chosen by kind": ask(
            "SELECT kind, round(sum(cost_usd), 6) AS cost, avg(chosen::INT) AS share FROM {captions} "
            "GROUP BY ALL ORDER BY ALL"
        ),
        "texts that say 'shot'": ask("SELECT count(*) FROM {captions} WHERE contains(text, ' shot ')"),
        "words by camera (join)": ask(
            "SELECT camera, sum(tokens_out)::BIGINT AS words FROM {captions} JOIN {clips} USING (clip_id) "
            "GROUP BY ALL ORDER BY ALL"
        ),
        "captions of one clip, DuckDB": ask(
            f"SELECT text FROM {{captions}} WHERE clip_id = '{one}' ORDER BY ALL"
        ),
        "captions of one clip, pyarrow": filtered,
        "captions of a range of clips, pyarrow": range_of_clips,
    }


def clip_questions(one: str, embeddings: str) -> dict[str, Callable[[Path], object]]:
    """Those about clips; `embeddings` are the files in which they lie."""
    asked = {
        "motion by camera": "SELECT camera, round(avg(motion), 4) AS m FROM {clips} GROUP BY ALL ORDER BY ALL",
        "clips that a threshold would keep": "SELECT count(*) FROM {clips} WHERE motion > 2 AND aesthetic > 4.5",
        "all columns but embeddings": "SELECT count(hash(COLUMNS(* EXCLUDE embedding))) FROM {clips}",
        "embedding of one clip": f"SELECT embedding FROM {embeddings} WHERE clip_id = '{one}'",
        "all embeddings": f"SELECT round(sum(embedding[1])::DOUBLE, 2) AS s FROM {embeddings}",
    }
    if embeddings != "{clips}":
        asked = {name: text.replace("* EXCLUDE embedding", "*") for name, text in asked.items()}
    return {name: (lambda folder, text=text: sql(text, folder)) for name, text in asked.items()}


def timed(
    asked: dict[str, list[tuple[Callable[[Path], object], Path]]], repeats: int
) -> dict[str, list[tuple[float, float]]]:
    """Question -> median seconds per layout, of the clock and of all threads' processor time.

    Layouts take turns; raises if they answer differently.
    """
    found = {}
    for name, layouts in asked.items():
        answers = [ask(folder) for ask, folder in layouts]  # warm
        if any(str(answer) != str(answers[0]) for answer in answers):
            raise AssertionError(f"{name}: {answers}")
        spent: list[list[float]] = [[] for _ in layouts]
        cpu: list[list[float]] = [[] for _ in layouts]
        for _ in range(repeats):
            for at, (ask, folder) in enumerate(layouts):
                began, cpu_began = time.perf_counter(), time.process_time()
                ask(folder)
                spent[at].append(time.perf_counter() - began)
                cpu[at].append(time.process_time() - cpu_began)
        found[name] = [(statistics.median(s), statistics.median(c)) for s, c in zip(spent, cpu, strict=True)]
    return found


def compared(found: list[tuple[float, float]], one: str, other: str) -> dict:
    """`{one, other, cpu_s: {one, other}}` of two layouts."""
    (one_s, one_cpu), (other_s, other_cpu) = found
    return {one: one_s, other: other_s, "cpu_s": {one: one_cpu, other: other_cpu}}


def size_mb(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*.parquet")) / 1e6


def measure(folder: Path, n_clips: int, repeats: int) -> dict:
    written, one = write_layouts(folder, n_clips)
    ours, plain, apart = (folder / name for name in ("ours", "plain", "apart"))
    pa.set_cpu_count(2)
    asked = questions(one) | clip_questions(one, "{clips}")
    both = timed({name: [(ask, ours), (ask, plain)] for name, ask in asked.items()}, repeats)
    together, own = clip_questions(one, "{clips}"), clip_questions(one, "{embeddings}")
    third = timed({name: [(together[name], ours), (own[name], apart)] for name in own}, repeats)
    sizes = {t: {"ours": size_mb(ours / t), "plain": size_mb(plain / t)} for t in ("captions", "clips")}
    return {
        "machine": machine()
        | {"duckdb": duckdb.__version__, "pyarrow": pa.__version__, "pandas": pd.__version__},
        "load_average": os.getloadavg()[0],
        "rows": {"captions": n_clips * len(KINDS), "clips": n_clips, "embedding": DIMS},
        "repeats": repeats,
        "size_mb": {t: s | {"ratio": s["ours"] / s["plain"]} for t, s in sizes.items()},
        "write_s": written,
        "seconds": {
            name: (row := compared(found, "ours", "plain")) | {"ratio": row["ours"] / row["plain"]}
            for name, found in both.items()
        },
        "apart": {
            name: (row := compared(found, "together", "apart")) | {"ratio": row["apart"] / row["together"]}
            for name, found in third.items()
        },
    }


def told(row: dict, one: str, other: str) -> list[float]:
    return [row[one], row[other], row["ratio"], row["cpu_s"][one], row["cpu_s"][other]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=250_000, help="clips; captions are four times as many")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--folder", type=Path, help="where to write (a temporary folder if not given)")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        found = measure(Path(folder), args.clips, args.repeats)
    rows = found["rows"]
    sizes = [[f"{t}, MB", s["ours"], s["plain"], s["ratio"], None, None] for t, s in found["size_mb"].items()]
    times = [[n, *told(row, "ours", "plain")] for n, row in found["seconds"].items()]
    title = f"{rows['captions']:,} captions of {rows['clips']:,} clips: MB and seconds"
    print_table(title, ["", "ours", "pandas", "ratio", "ours cpu_s", "pandas cpu_s"], [*sizes, *times])
    apart = [[n, *told(row, "together", "apart")] for n, row in found["apart"].items()]
    title = "embeddings in files of their own: seconds"
    print_table(title, ["", "together", "apart", "ratio", "together cpu_s", "apart cpu_s"], apart)
    print(f"\nload average {found['load_average']:.1f} on {found['machine']['cores']} cores")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
