"""Many clips with scores, nulls, copies, a person's word and captions, for the tests of the report. No real films."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from small_dataset import HOSTILE

from curate.dataset import Dataset
from curate.decide import DecideConfig, Range
from curate.overrides import put
from curate.tables import CAPTIONS, CLIPS, SOURCES
from pipelines.decide import write_decisions

# Not the defaults: a null motion is rejected, aesthetic has a rule, text_area's bound is met exactly.
RULES = replace(
    DecideConfig(),
    motion=Range(min=0.3, if_null="reject"),
    aesthetic=Range(min=4.5),
    luma=Range(min=20.0, max=200.0),
)


def clip_id(number: int) -> str:
    return f"{number:024x}"


def build(folder: Path, n: int = 400, rules: DecideConfig = RULES) -> Dataset:
    """Sources, `n` clips, a few words of a person, decisions by `rules`, captions of a hundred clips."""
    dataset = Dataset(folder / "many clips")
    dataset.write("sources", pa.Table.from_pylist(_sources(), schema=SOURCES))
    dataset.write("clips", pa.Table.from_pylist([_clip(i, n) for i in range(n)], schema=CLIPS))
    for number in range(20, 40):  # among them clips that no rule rejects, that one does, and that several do
        put(dataset, clip_id(number), keep=True, author="bob")
    put(dataset, clip_id(3), keep=True, author="ann", note=f"I like it {HOSTILE}")
    put(dataset, clip_id(4), keep=False, author="bob")
    write_decisions(dataset, rules)
    rows = [row for i in range(min(n, 100)) for row in _captions(i)]
    dataset.write("captions", pa.Table.from_pylist(rows, schema=CAPTIONS))
    return dataset


def _sources() -> list[dict[str, Any]]:
    ok = {
        "source_id": "a" * 32,
        "uri": "/gone/film.mp4",
        "status": "ok",
        "duration_s": 900.0,
        "size_bytes": 10**7,
    }
    same = {
        "source_id": "a" * 32,
        "uri": f"/gone/{HOSTILE}.mp4",
        "status": "ok",
        "duplicate_of": "/gone/film.mp4",
    }
    return [ok, same]


def _clip(i: int, n: int) -> dict[str, Any]:
    random = np.random.default_rng(i)
    motion = None if i % 17 == 0 else float(random.gamma(1.2, 2.0))
    # The eighth of every ten is the same picture as the one before it, so a copy of it.
    seed = i - 1 if i % 10 == 8 else i
    return {
        "clip_id": clip_id(i), "source_id": "a" * 32, "index": i, "start_s": i * 2.0, "fps": 12.0, "n_frames": 24,
        "end_s": i * 2.0 + (0.5 if i % 19 == 0 else 1.0 if i % 23 == 0 else 2.0), "width": 1280, "height": 720,
        "crop": {"x": 0, "y": 0, "w": 720, "h": 720} if i % 5 == 0 else None,
        "motion": 0.3 if i % 29 == 0 else motion, "object_motion": motion and motion / 2,
        "camera": ("static", "pan", None)[i % 3], "luma": float(random.uniform(0, 255)),
        "black_ratio": 1.0 if i % 31 == 0 else 0.0, "static_ratio": 0.0, "sharpness": float(random.uniform(0, 400)),
        "text_area": 0.1 if i % 7 == 0 else float(random.uniform(0, 0.12)), "overlay_area": 0.0,
        "aesthetic": None if i % 11 == 0 else float(random.normal(5.2, 0.6)),
        "clip_text_sim": float(random.normal(0.2, 0.05)), "embedding_spread": 0.05,
        "phash": "-".join(f"{x:016x}" for x in np.random.default_rng(10**6 + seed).integers(0, 2**63, 4)),
        "score_errors": [("motion", f"no flow {HOSTILE}")] if motion is None else [],
    }  # fmt: skip


def _captions(i: int) -> list[dict[str, Any]]:
    """A dense caption that names the camera motion, and a short one; every tenth was refused."""
    base = {"clip_id": clip_id(i), "captioner": "openai", "model": "m", "chosen": True, "status": "ok"}
    words = {0: "the camera stays fixed on a hill", 1: "the camera pans over a lake", 2: "a street at night"}[
        i % 3
    ]
    dense: dict[str, Any] = {"text": f"{words}, {HOSTILE}"}
    if i % 10 == 9:
        dense = {"text": None, "status": "refused", "text_raw": "I cannot"}
    told = {"tokens_out": 30, "cost_usd": 0.01, "clip_score": 0.2}
    return [
        {"caption_id": f"d{i:015x}", "kind": "dense", **told, **base, **dense},
        {"caption_id": f"s{i:015x}", "kind": "short", **base, "text": f"clip {i}"},
    ]
