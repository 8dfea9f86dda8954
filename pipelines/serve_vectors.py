"""Clips that look like a clip, or like what a text says: cosines of their CLIP embeddings.

    vectors = Vectors(connect(dataset), folder)        # unit embeddings in a memory-mapped file
    model, cosines = vectors.like("3fa2…")             # in the order of vectors.clip_ids(model)
    cosines = vectors.near(feature, model)

Embeddings of several models cannot be compared: a search stays among those of one.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import BadInput
from pipelines.query import rows_of
from pipelines.report_data import views_of

if TYPE_CHECKING:
    import duckdb

BATCH = 8_192
NONE = (
    "no clip has an embedding: CLIP was switched off when they were curated (--clip.model=off). "
    "`reelmill curate` with a --clip.model makes them."
)


class Vectors:
    """The embeddings of the clips, by model."""

    def __init__(self, tables: duckdb.DuckDBPyConnection, folder: Path) -> None:
        """Copy the embeddings of a connection of `pipelines.query.connect` into files in `folder`.

        Embeddings that are null, of another length than their model's most, zero or not finite are left out.
        """
        self._of_model: dict[str, tuple[pa.Array, np.ndarray]] = {}
        self._model_of: dict[str, tuple[str, int]] = {}
        if "clips" not in views_of(tables):
            return
        counted = rows_of(
            tables,
            "SELECT coalesce(embedding_model, '') AS model, len(embedding) AS width, count(*) AS n FROM clips "
            "WHERE len(embedding) > 0 GROUP BY ALL ORDER BY n DESC, width",
        )
        for row in counted:
            if row["model"] not in self._of_model:
                file = folder / f"embeddings-{len(self._of_model)}.f32"
                self._of_model[row["model"]] = _copied(tables, row["model"], row["width"], row["n"], file)
        for model, (clip_ids, _) in self._of_model.items():
            self._model_of |= {clip: (model, place) for place, clip in enumerate(clip_ids.to_pylist())}

    @property
    def models(self) -> list[str]:
        """The models with embeddings, that of most clips first."""
        return [model for model, (clip_ids, _) in self._of_model.items() if len(clip_ids)]

    def __len__(self) -> int:
        return len(self._model_of)

    def count(self, model: str) -> int:
        """How many clips have an embedding by `model`."""
        return len(self.clip_ids(model))

    def clip_ids(self, model: str) -> pa.Array:
        """The clips with an embedding by `model`, in the order of cosines."""
        return self._of_model[model][0]

    def like(self, clip_id: str) -> tuple[str, np.ndarray]:
        """(model of this clip's embedding, cosine of each of its clips with this one; NaN for the clip itself).

        Raises BadInput if it has none.
        """
        if clip_id not in self._model_of:
            raise BadInput(NONE if not self.models else f"clip {clip_id[:60]} has no embedding to compare.")
        model, place = self._model_of[clip_id]
        units = self._of_model[model][1]
        cosines = _cosines(units, units[place])
        cosines[place] = np.nan
        return model, cosines

    def near(self, feature: np.ndarray, model: str) -> np.ndarray:
        """Cosine of each clip with an embedding by `model` with a unit `feature` (D,)."""
        units = self._of_model[model][1]
        if feature.shape != units.shape[1:]:
            raise BadInput(
                f"the CLIP model gives {len(feature)} numbers and the clips have {units.shape[1]}: it is not the "
                "model that made them (--clip)."
            )
        return _cosines(units, feature.astype(np.float32))


def _cosines(units: np.ndarray, one: np.ndarray) -> np.ndarray:
    """(N,) from (N, D) and (D,)."""
    # By one thread: no slower, as memory is what bounds it, and BLAS's threads wait for one another on busy cores.
    found: np.ndarray = np.einsum("nd,d->n", units, one)
    return found


def _copied(
    tables: duckdb.DuckDBPyConnection, model: str, width: int, most: int, file: Path
) -> tuple[pa.Array, np.ndarray]:
    """(clip ids, (N, width) float32 of unit length, mapped from `file`)."""
    units = np.memmap(file, np.float32, "w+", shape=(most, width))
    clip_ids: list[pa.Array] = []
    done = 0
    reader = tables.sql(
        "SELECT clip_id, embedding FROM clips WHERE coalesce(embedding_model, '') = ? AND len(embedding) = ?",
        params=[model, width],
    ).fetch_arrow_reader(BATCH)
    for batch in reader:
        values = pc.list_flatten(batch["embedding"])
        if values.null_count or not len(batch):
            values = pc.fill_null(values, float("nan"))
        rows = values.to_numpy(zero_copy_only=False).astype(np.float32).reshape(len(batch), width)
        with np.errstate(over="ignore", invalid="ignore"):
            lengths = np.linalg.norm(rows, axis=1)
        good = np.isfinite(lengths) & (lengths > 0)
        n = int(good.sum())
        units[done : done + n] = rows[good] / lengths[good, None]
        clip_ids.append(batch["clip_id"].filter(pa.array(good)))
        done += n
    return (pa.concat_arrays(clip_ids) if clip_ids else pa.array([], pa.string())), units[:done]
