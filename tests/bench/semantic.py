"""Semantic copies among many clips: seconds, and what the clusters cost in recall.

    python -m tests.bench.semantic --rows 100000 --json out.json

Embeddings of 512 numbers around 300 topics, a tenth of them planted copies at a cosine of 0.93 to 0.999; the
threshold is 0.95. `isotropic` has no topics at all: the worst case for k-means.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from curate.semantic import SemanticConfig, semantic_copies
from tests.bench.record import machine, print_table

WIDTH, TOPICS, LEAST = 512, 300, 0.95


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def planted(rows: int, *, topics: bool) -> tuple[np.ndarray, np.ndarray]:
    """(rows, 512) float32 unit vectors, and for each of the last tenth the row that it is a copy of."""
    rng = np.random.default_rng(0)
    n_copies = rows // 10
    n = rows - n_copies
    base = rng.normal(size=(n, WIDTH)).astype(np.float32)
    if topics:
        centres = unit(rng.normal(size=(TOPICS, WIDTH)).astype(np.float32))
        base = unit(base) + centres[rng.integers(0, TOPICS, n)]
    base = unit(base)
    origin = rng.choice(n, n_copies, replace=False)
    cosine = rng.uniform(0.93, 0.999, (n_copies, 1))
    away = rng.normal(size=(n_copies, WIDTH)).astype(np.float32)
    away = unit(away - (away * base[origin]).sum(1, keepdims=True) * base[origin])
    copies = cosine * base[origin] + np.sqrt(1 - cosine**2) * away
    return np.concatenate([base, copies]).astype(np.float32), origin


def measure(rows: int, *, topics: bool) -> dict:
    vectors, origin = planted(rows, topics=topics)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), WIDTH)
    clips = pa.table({"embedding": flat.cast(pa.list_(pa.float32())), "embedding_model": ["m"] * rows})
    wall, cpu = time.perf_counter(), time.process_time()
    cluster, found = semantic_copies(
        clips, np.ones(rows, bool), np.arange(rows), SemanticConfig(min_similarity=LEAST)
    )
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    first = rows - len(origin)
    wanted = {
        (first + i, int(better))
        for i, better in enumerate(origin)
        if float(vectors[first + i] @ vectors[better]) >= LEAST
    }
    pairs = {(worse, better) for worse, (better, _) in found.items()}
    return {
        "embeddings": "topics" if topics else "isotropic",
        "rows": rows,
        "clusters": int(cluster.max()) + 1,
        "wall_s": wall,
        "cpu_s": cpu,
        "recall": len(pairs & wanted) / len(wanted),
        "precision": len(pairs & wanted) / max(1, len(pairs)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = [measure(options.rows, topics=topics) for topics in (True, False)]
    print_table("Semantic copies", list(found[0]), [list(row.values()) for row in found])
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "semantic": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
