"""The end of `reelmill recaption`: captions as vectors by the CLIP that curated, then flags, scores and choices.

    told = finish_captions(dataset, current, Trust(), engine="ray", ray=RayConfig())
    print(told)

Vectors are kept in `_state/caption_vectors.parquet`, so that only new texts are embedded; with `--trust.gpus` the
text tower runs on GPUs of the cluster.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Set
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import BadInput
from curate.stage import Resources
from pipelines.engine import Engine, RayConfig, run_stages

if TYPE_CHECKING:
    from curate.dataset import Dataset

STORE = ("_state", "caption_vectors.parquet")
STORED = pa.schema([("key", pa.string()), ("vector", pa.list_(pa.float16()))])
TEXTS = pa.schema([("key", pa.string()), ("text", pa.string())])
_BATCH = 512


@dataclass(frozen=True)
class Trust:
    """How far captions are trusted, and which is chosen.

    Attributes:
        score: compare captions with their clips by the CLIP that curated them: clip_score, clip_margin, the flag
            suspect_mismatch, and the choice among several.
        clip: that CLIP, where its name in the clips table cannot be loaded: a folder or ARCH/TAG.
        gpus: GPUs per worker for its text tower; 0 runs on the CPU.
        actors: workers with the text tower.
        abstain: leave a clip without a caption of a kind if none can be trusted.
    """

    score: bool = True
    clip: str | None = None
    gpus: float = 0.0
    actors: int = 1
    abstain: bool = True


class EmbedTexts:
    """Texts to their vectors."""

    output = STORED

    def __init__(self, model: str, *, gpus: float, actors: int) -> None:
        self.model = model
        self.resources = Resources(cpus=0 if gpus else 1, gpus=gpus, actors=actors, batch_rows=_BATCH)

    def setup(self) -> None:
        from recaption.trust.clip_text import load_text_tower

        self._tower = load_text_tower(self.model, "cuda" if self.resources.gpus else "cpu")

    def __call__(self, rows: list[dict]) -> list[dict]:
        from recaption.trust.clip_text import embed_captions

        vectors = embed_captions([row["text"] for row in rows], self._tower.embed, self._tower.fits)
        return [
            {"key": row["key"], "vector": vector.astype(np.float16)}
            for row, vector in zip(rows, vectors, strict=True)
        ]


def finish_captions(
    dataset: Dataset, current: Set[str], trust: Trust, *, engine: Engine, ray: RayConfig
) -> str:
    """Finish the captions table of a dataset and write it; returns one line about what was found."""
    from dataclasses import replace

    from recaption.finish import CLIP_COLUMNS, Finishing, finish, recleaned
    from recaption.table import update
    from recaption.trust.choose import ChoicePolicy

    clips = dataset.read("clips", [*CLIP_COLUMNS, "embedding_model"])
    model = _commonest(clips["embedding_model"]) if trust.score else None
    scored = clips if model is None else _of_model(clips, model)
    copies = copies_of(dataset)
    config = Finishing()
    if not trust.abstain:
        config = replace(config, choice=ChoicePolicy(least_fit=None, least_agreement=None))
    why: list[str] = []

    def finished(captions: pa.Table) -> pa.Table:
        captions = recleaned(captions, clips)
        why.clear()
        if model is not None and len(captions):
            try:
                place = place_of(trust.clip or model)
                vectors = caption_vectors(dataset, captions["text"].to_pylist(), place, trust, engine, ray)
                return finish(
                    captions, scored, current=current, vectors=vectors, copies=copies, config=config
                )
            except BadInput as error:  # captions without scores are worth more than none
                why.append(str(error))
        return finish(captions, scored, current=current, copies=copies, config=config)

    return _told(update(dataset, finished), *why)


def copies_of(dataset: Dataset) -> dict[str, str]:
    """clip_id -> the copy that stands for it, of clips that the decisions know as near copies of one picture."""
    rows = (
        dataset.read("decisions", ["clip_id", "duplicate_of"]).to_pylist() if dataset.has("decisions") else []
    )
    known = {row["clip_id"]: row["duplicate_of"] for row in rows if row["duplicate_of"]}
    return known | {one: one for one in known.values() if one not in known}


def caption_vectors(
    dataset: Dataset, texts: list[str | None], model: str, trust: Trust, engine: Engine, ray: RayConfig
) -> np.ndarray:
    """(rows, D) float32, NaN for null texts; only texts that were not embedded before by this model are."""
    keys = [None if text is None else _key(model, text) for text in texts]
    known: dict[str, np.ndarray] = {}
    if dataset.exists(*STORE):
        with dataset.open(*STORE) as file:
            stored = pq.read_table(file, schema=STORED)
        wanted = set(keys)
        known = {
            key: np.asarray(vector, np.float16)
            for key, vector in zip(
                stored["key"].to_pylist(), stored["vector"].to_numpy(zero_copy_only=False), strict=True
            )
            if key in wanted
        }
    missing = {
        key: text for key, text in zip(keys, texts, strict=True) if key is not None and key not in known
    }
    if missing:
        items = [{"key": key, "text": text} for key, text in missing.items()]
        stage = EmbedTexts(model, gpus=trust.gpus, actors=trust.actors)
        for row in run_stages(engine, items, TEXTS, [stage], ray):
            known[row["key"]] = np.asarray(row["vector"], np.float16)
        with dataset.atomic_writer(*STORE) as file:
            table = pa.table(
                {"key": list(known), "vector": [v.tolist() for v in known.values()]}, schema=STORED
            )
            pq.write_table(table, file, compression="zstd")
    width = len(next(iter(known.values()))) if known else 0
    out = np.full((len(texts), width), np.nan, np.float32)
    for i, key in enumerate(keys):
        if key is not None:
            out[i] = known[key]
    return out


def place_of(model: str) -> str:
    """Where the CLIP named in the clips table lies; `embedded/HASH` is the one that ships with the code.

    Raises BadInput if the code ships with another one by now.
    """
    if not model.startswith("embedded"):
        return model
    from pipelines.demo.weights import embedded, embedded_name

    if model != embedded_name("coca"):
        raise BadInput(
            f"the clips' embeddings are by {model}, and the embedded CLIP is {embedded_name('coca')} by now. Run "
            "`reelmill curate` again, or name that model by --trust.clip."
        )
    return str(embedded("coca"))


def _key(model: str, text: str) -> str:
    return hashlib.blake2b(f"{_content(model)}\n{text}".encode(), digest_size=16).hexdigest()


@lru_cache(maxsize=4)
def _content(model: str) -> str:
    """What stands for a model: of a folder its weights, for retrained ones are another model."""
    weights = Path(model) / "open_clip_model.safetensors"
    if not weights.is_file():
        return model
    with weights.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _commonest(models: pa.ChunkedArray) -> str | None:
    counts = Counter(name for name in models.to_pylist() if name is not None)
    return min(counts, key=lambda name: (-counts[name], name)) if counts else None


def _of_model(clips: pa.Table, model: str) -> pa.Table:
    """The clips with the embeddings of other models taken out: they cannot be compared."""
    import pyarrow.compute as pc

    place = clips.schema.get_field_index("embedding")
    same = pc.fill_null(pc.equal(clips["embedding_model"], model), False)
    kept = pc.if_else(same, clips["embedding"], pa.scalar(None, clips["embedding"].type))
    return clips.set_column(place, clips.schema.field(place), kept)


def _told(captions: pa.Table, why: str | None = None) -> str:
    flags = Counter(flag.split(":")[0] for row in captions["flags"].to_pylist() for flag in row or [])
    scored = len(captions) - captions["clip_score"].null_count
    parts = [f"{scored} of {len(captions)} captions scored"]
    for flag, words in (
        ("suspect_mismatch", "seem to belong to another clip"),
        ("fact", "contradict what was measured"),
        ("repeated_across_clips", "repeat across clips"),
        ("abstained", "left unchosen for want of trust"),
    ):
        if flags[flag]:
            parts.append(f"{flags[flag]} {words}")
    return "trust: " + ", ".join(parts) + (f"; no scores: {why}" if why else "")
