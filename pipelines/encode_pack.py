"""The last stage of `encode`: the parts of a shard become a tar, and its rows of the index. Committed in the workers.

No tar is ever written anew with other bytes, since a trainer may be reading it: where clips failed, the name of the
tar tells which, and one with more of them is another.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.dataset import Dataset, config_hash
from curate.errors import BadInput
from curate.shards import TarWriter
from curate.stage import Resources
from curate.tables import LATENTS
from pipelines.encode_plan import state_folder
from pipelines.encode_stages import DONE

PACK_INPUT = pa.schema(
    [
        ("tar", pa.string()),
        ("content", pa.string()),
        ("parts", pa.list_(pa.string())),
        ("is_again", pa.bool_()),
    ]
)
_MEMBERS = ("latent", "text", "json")


class PackLatents:
    """One shard: write its tar from its parts, and the part of the index that describes it; then drop the parts.

    Parts of clips that were tried again (`Unit.again`) are put among those that the shard has already. Where all of
    them failed once more, the tar stays as it is.
    """

    output = DONE

    def __init__(self, dataset_uri: str, vae_id: str) -> None:
        self.dataset_uri, self.vae_id = dataset_uri, vae_id
        self.resources = Resources()

    def setup(self) -> None:
        self._dataset = Dataset(self.dataset_uri)
        self._state = state_folder(self.vae_id)

    def __call__(self, rows: list[dict]) -> list[dict]:
        return [self._pack(row) for row in rows]

    def _pack(self, row: dict) -> dict:
        known = f"{row['content']}.parquet"
        is_known = self._dataset.exists(self._state, known)
        before = {clip["clip_id"]: clip for clip in self._table(known).to_pylist()} if is_known else {}
        errors: dict[str, str | None] = {}
        size = 0
        try:
            for part in row["parts"]:
                told = self._table("parts", f"{part}.parquet", columns=["clip_id", "error"])
                errors |= zip(*(column.to_pylist() for column in told.columns), strict=True)
        except FileNotFoundError as error:
            if not before:
                raise BadInput(
                    f"the part {error.args[-1]} is gone: another run removed it. Run this one again."
                ) from error
            return _packed(
                row, before.values()
            )  # by another run with the same settings, or before a worker died
        found = errors
        if row["is_again"]:
            found = {clip_id: errors.get(clip_id, clip["error"]) for clip_id, clip in before.items()}
        failed = [clip_id for clip_id, error in found.items() if error is not None]
        if row["is_again"] and None not in errors.values():
            index = [clip | {"error": found[clip_id]} for clip_id, clip in before.items()]
        elif len(failed) == len(found):
            index = [{"clip_id": clip_id, "error": error} for clip_id, error in found.items()]
        else:
            clips = self._again(row, before) if row["is_again"] else self._clips(row)
            index, size = self._write(tar_name(row["tar"], failed), clips)
        with self._dataset.atomic_writer(self._state, known) as out:
            pq.write_table(pa.Table.from_pylist(index, schema=LATENTS), out)
        for part in row["parts"]:
            self._dataset.remove(self._state, "parts", f"{part}.parquet")
        return _packed(row, index, size)

    def _table(self, *parts: str, columns: list[str] | None = None) -> pa.Table:
        with self._dataset.open(self._state, *parts) as file:
            return pq.read_table(file, columns=columns)

    def _clips(self, row: dict) -> Iterator[dict]:
        """Rows of _ENCODED, a part at a time."""
        for part in row["parts"]:
            yield from self._table("parts", f"{part}.parquet").to_pylist()

    def _again(self, row: dict, before: dict[str, dict]) -> Iterator[dict]:
        """The same of a shard some clips of which were tried again: the others come out of its tar."""
        new = {clip["clip_id"]: clip for clip in self._clips(row)}
        shards = {clip["shard"] for clip in before.values()} - {None}
        if not shards:
            yield from (new.get(clip_id, clip) for clip_id, clip in before.items())
            return
        with (
            self._dataset.open("latents", self.vae_id, shards.pop()) as file,
            tarfile.open(fileobj=file, mode="r:") as tar,
        ):
            for clip_id, clip in before.items():
                if clip["shard"] is None:
                    yield new.get(clip_id, clip)
                    continue
                members = (tar.extractfile(f"{clip_id}.{kind}") for kind in _MEMBERS)
                read = [member.read() for member in members if member is not None]
                yield clip | dict(zip(_MEMBERS, read, strict=True))

    def _write(self, name: str, clips: Iterator[dict]) -> tuple[list[dict[str, Any]], int]:
        """Write the tar; rows of the index, and its size in bytes."""
        index: list[dict[str, Any]] = []
        with self._dataset.atomic_writer("latents", self.vae_id, name) as file:
            tar = TarWriter(file)
            for clip in clips:
                index.append({column: clip[column] for column in LATENTS.names})
                if clip["error"] is not None:
                    continue
                for member in _MEMBERS:
                    offset, size = tar.add(clip["clip_id"], member, clip[member])
                    if member != "json":
                        index[-1] |= {f"{member}_offset": offset, f"{member}_size": size}
                index[-1]["shard"] = name
            tar.close()
            size = file.tell()
        return index, size


def _packed(row: dict, index: Iterable[dict], written_bytes: int = 0) -> dict:
    """The row of PackLatents."""
    errors = [clip["error"] for clip in index]
    clips = errors.count(None)
    failed = len(errors) - clips
    return {"name": row["tar"], "clips": clips, "failed": failed, "written_bytes": written_bytes}


def tar_name(tar: str, failed: list[str]) -> str:
    """Name of a latent tar that lacks these clips, given that of the whole one."""
    return f"{tar.removesuffix('.tar')}-without-{config_hash(sorted(failed))[:8]}.tar" if failed else tar
