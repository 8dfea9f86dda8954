"""Clips that were rejected after they had been cut or encoded: they lie there until both commands run again.

rejected_since(connect(dataset))            # {"shards": 2, "latents-VAE_ID": 2}
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.query import rows_of
from pipelines.report_data import views_of

if TYPE_CHECKING:
    import duckdb

REMEDY = "`reelmill shard`, then `reelmill encode`, leaves them out"


def rejected_since(tables: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Clips that decisions/ rejects by now, by where they lie: `shards`, and `latents-` with the id of a VAE.

    Only where there are any. `tables`: a connection of `pipelines.query.connect`.
    """
    if "decisions" not in views_of(tables):
        return {}
    found: dict[str, int] = {}
    for view, name, lies in (
        ("shards", "'shards'", "shard IS NOT NULL"),
        ("latents", "'latents-' || vae_id", "error IS NULL"),
    ):
        if view in views_of(tables):
            sql = (
                f"SELECT {name} AS name, count(DISTINCT clip_id) AS n FROM (FROM {view} WHERE {lies}) "
                "SEMI JOIN (FROM decisions WHERE NOT keep) USING (clip_id) GROUP BY 1 ORDER BY 1"
            )
            found |= {row["name"]: row["n"] for row in rows_of(tables, sql)}
    return found
