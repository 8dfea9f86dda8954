"""The captions table of a dataset: what is there already, parts that workers commit, and their gathering.

    commit(dataset, rows)                          # in a worker: one part, whole or not at all
    have = known(dataset)                          # caption_id -> status, parts included
    update(dataset, finish)                        # gathers all, finishes them, replaces captions/*.parquet

A killed run leaves parts in `_state/captions/`; the next one counts them as done and gathers them. Several runs may
work on one dataset: who finds that another has replaced the table since it was gathered gathers again, and each
removes only the parts that are in the table it wrote.
"""

from __future__ import annotations

import errno
import hashlib
import io
from collections.abc import Callable, Collection, Set
from contextlib import suppress
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.dataset import Dataset, conform
from curate.one_writer import alone
from curate.tables import CAPTIONS

FOLDER = "_state/captions"
_REREADS = 5


@dataclass(frozen=True)
class Basis:
    """What a gathered table rests on.

    Attributes:
        parts: the parts that are in it.
        generation: what stood for the captions table that is in it; null if there was none.
    """

    parts: tuple[str, ...]
    generation: str | None


class TableChanged(Exception):
    """Another run has replaced the captions table since it was gathered; nothing was written."""


def commit(dataset: Dataset, rows: list[dict]) -> None:
    """Write `rows` as one part, named by its content: no other part is ever replaced by it, or removed with it."""
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=CAPTIONS), file, compression="zstd")
    name = hashlib.blake2b(file.getvalue(), digest_size=16).hexdigest()
    dataset.write_bytes(file.getvalue(), FOLDER, f"{name}.parquet")


def known(dataset: Dataset) -> dict[str, str]:
    """caption_id -> status of every caption that was ever made, the newest where there are several."""
    rows = _all(dataset, ["caption_id", "status", "created_at"]).sort_by("created_at").to_pylist()
    return {row["caption_id"]: row["status"] for row in rows}


def texts(dataset: Dataset, caption_ids: Set[str]) -> dict[str, str]:
    """caption_id -> text of those of `caption_ids` that have one, the newest where there are several."""
    if not caption_ids:
        return {}
    rows = _all(dataset, ["caption_id", "text", "created_at"]).sort_by("created_at").to_pylist()
    return {r["caption_id"]: r["text"] for r in rows if r["caption_id"] in caption_ids and r["text"]}


def loops(dataset: Dataset) -> dict[str, int]:
    """caption_id -> answers so far, of captions whose last answer fell into a loop or was no JSON.

    The same question with the same seed would bring the same answer.
    """
    table = _all(dataset, ["caption_id", "status", "retries", "created_at"])
    newest = {row["caption_id"]: row for row in table.sort_by("created_at").to_pylist()}
    return {
        key: (r["retries"] or 0) + 1 for key, r in newest.items() if r["status"] in ("repetitive", "bad_json")
    }


def rows_of(dataset: Dataset, caption_ids: Collection[str], run_id: str) -> list[dict]:
    """The rows that `run_id` made of `caption_ids`, the newest of each, wherever they lie by now."""
    asked = pa.array(sorted(caption_ids), pa.string())
    table = _all(
        dataset,
        None,
        lambda part: part.filter(pc.is_in(part["caption_id"], asked)).filter(pc.field("run_id") == run_id),
    )
    return list({row["caption_id"]: row for row in table.sort_by("created_at").to_pylist()}.values())


def gather(dataset: Dataset) -> tuple[pa.Table, Basis]:
    """Every caption, of several rows with one caption_id (a retry) the newest; and what that rests on.

    Sorted by clip_id, kind and caption_id.
    """
    # Read first: a table that is replaced while we read is then seen to have changed.
    generation = _generation(dataset)
    parts = _parts(dataset)
    table = pa.concat_tables([CAPTIONS.empty_table(), *parts.values(), *_stored(dataset, None)])
    keys = table.select(["clip_id", "kind", "caption_id", "created_at"]).to_pylist()
    newest: dict[str, int] = {}
    for place, row in enumerate(keys):
        best = newest.setdefault(row["caption_id"], place)
        if row["created_at"] > keys[best]["created_at"]:
            newest[row["caption_id"]] = place
    order = sorted(
        newest.values(), key=lambda i: (keys[i]["clip_id"], keys[i]["kind"], keys[i]["caption_id"])
    )
    return table.take(pa.array(order, pa.int64())), Basis(tuple(parts), generation)


def replace(dataset: Dataset, table: pa.Table, basis: Basis) -> None:
    """Write the captions table and remove the parts that are in it, these last: a kill in between loses nothing.

    Raises TableChanged if the table is not the one that was gathered; `update` then begins anew.
    """
    with alone(dataset, "captions"):
        if _generation(dataset) != basis.generation:
            raise TableChanged
        dataset.write("captions", table)
    for name in basis.parts:
        with suppress(FileNotFoundError):  # another run that gathered it as well was quicker
            dataset.remove(FOLDER, name)


def update(dataset: Dataset, change: Callable[[pa.Table], pa.Table]) -> pa.Table:
    """Gather, change and replace, again as often as another run replaces the table meanwhile; returns the table."""
    while True:
        table, basis = gather(dataset)
        changed = change(table)
        with suppress(TableChanged):
            replace(dataset, changed, basis)
            return changed


def _all(
    dataset: Dataset, columns: list[str] | None, choose: Callable[[pa.Table], pa.Table] = lambda part: part
) -> pa.Table:
    """Rows of parts and table with `columns` (null takes all), those that `choose` leaves of each."""
    # The table last: a part that is gone by now is in it.
    tables = [*_parts(dataset, columns, choose).values(), *map(choose, _stored(dataset, columns))]
    return pa.concat_tables([CAPTIONS.empty_table().select(columns or CAPTIONS.names), *tables])


def _parts(
    dataset: Dataset,
    columns: list[str] | None = None,
    choose: Callable[[pa.Table], pa.Table] = lambda part: part,
) -> dict[str, pa.Table]:
    found = {}
    for name in dataset.files(FOLDER, ".parquet"):
        with suppress(FileNotFoundError), dataset.open(FOLDER, name) as file:
            found[name] = choose(conform(pq.read_table(file), CAPTIONS).select(columns or CAPTIONS.names))
    return found


def _stored(dataset: Dataset, columns: list[str] | None) -> list[pa.Table]:
    """The captions table, if there is one."""
    for reread in range(_REREADS):
        try:
            return [dataset.read("captions", columns)] if dataset.has("captions") else []
        except OSError as error:  # an object store tells that way that it was replaced while we read
            if error.errno != errno.EBUSY or reread == _REREADS - 1:
                raise
    raise AssertionError


def _generation(dataset: Dataset) -> str | None:
    """What changes whenever the table is written: the size, time, inode or ETag of its files."""
    names = dataset.files("captions", ".parquet")  # asks the store, not what was kept of an earlier answer
    keys = [str(dataset.fs.ukey(dataset.path("captions", name))) for name in names]
    return "/".join(keys) or None
