"""latents/VAE_ID/ of a dataset: what of a plan is still missing there, and the index at the end.

store = LatentStore(dataset, about)
missing = store.missing(plan(dataset, frames, about))
store.missing_parts(missing)                          # rows of DECODE_INPUT
store.finish(units)                                   # once all is packed: index.parquet and latents.json
"""

from __future__ import annotations

import io
import json
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.dataset import Dataset, write_parquet
from curate.errors import BadInput
from curate.tables import LATENTS
from pipelines.encode_plan import Unit, state_folder
from pipelines.encode_tries import DIED


class LatentStore:
    """latents/VAE_ID/ and what leads to it."""

    def __init__(self, dataset: Dataset, about: dict[str, Any]) -> None:
        self.dataset, self.about = dataset, about
        self.folder = f"latents/{about['vae_id']}"
        self.state = state_folder(about["vae_id"])

    def check(self) -> None:
        """Raises BadInput if the folder holds latents of another VAE than its name says."""
        if self.dataset.exists(self.folder, "latents.json"):
            told = json.loads(self.dataset.read_bytes(self.folder, "latents.json")).get("vae_id")
            if told != self.about["vae_id"]:
                raise BadInput(
                    f"{self.dataset.path(self.folder)} holds latents of VAE {told}, not of "
                    f"{self.about['vae_id']}: latents of two VAEs do not mix. Rename or delete that folder."
                )

    def others(self) -> list[str]:
        """Ids of other VAEs that have latents of this dataset."""
        names = {name.split("/")[0] for name in self.dataset.files("latents", "/latents.json")}
        return sorted(names - {self.about["vae_id"]})

    def missing(self, units: list[Unit]) -> list[Unit]:
        """What is still to be packed: whole shards, or of those that are there the clips that failed."""
        tars = set(self.dataset.files(self.folder, ".tar"))
        known = set(self.dataset.files(self.state, ".parquet"))
        found = []
        for unit in units:
            rows = self._rows(unit).to_pylist() if f"{unit.content}.parquet" in known else None
            if rows is None or not {row["shard"] for row in rows} - {None} <= tars:
                found.append(unit)
            # It would kill its worker again, and in one process the job with it.
            elif failed := {row["clip_id"] for row in rows if not (row["error"] or DIED).startswith(DIED)}:
                found.append(unit.again(failed))
        return found

    def missing_parts(self, units: list[Unit]) -> list[dict]:
        """Rows of DECODE_INPUT that are not encoded yet."""
        known = set(self.dataset.files(self.state, ".parquet"))
        return [part for unit in units for part in unit.parts if f"parts/{part['part']}.parquet" not in known]

    def finish(self, units: list[Unit]) -> dict[str, Any]:
        """Write index.parquet and latents.json, drop what the index before named and this one does not.

        Nothing else is dropped: another run with other settings may be at work in the same folder. Returns counts,
        and the commonest error.
        """
        shards = self.dataset.read("shards", ["clip_id", "shard", "error"]).to_pylist()
        uncut = [
            {"clip_id": row["clip_id"], "error": f"not in any shard: {row['error']}"}
            for row in shards
            if row["shard"] is None
        ]
        tables = [*map(self._rows, units), pa.Table.from_pylist(uncut, schema=LATENTS)]
        index = pa.concat_tables(tables).sort_by("clip_id")
        named = set(index["shard"].to_pylist()) - {None}
        if lost := named - set(self.dataset.files(self.folder, ".tar")):
            raise self._meddled(sorted(lost)[0])
        replaced = self._replaced() - named
        if replaced:  # where a break comes next, the run after it still knows of them
            self.dataset.write_bytes(json.dumps(sorted(replaced)).encode(), self.state, "replaced.json")
        self._write(index)
        for name in sorted(replaced):
            self.dataset.remove(self.folder, name)
        contents = {unit.content for unit in units}
        dropped = {_content8(name) for name in replaced} - {content[:8] for content in contents}
        for name in self.dataset.files(self.state, ".parquet"):
            folder, _, own = name.rpartition("/")
            if own[:8] in dropped or (folder and own[:16] in contents):  # of parts, what a break left
                self.dataset.remove(self.state, *name.split("/"))
        self.dataset.remove(self.state, "replaced.json")
        errors = Counter(error for error in index["error"].to_pylist() if error is not None)
        return {
            "encoded": len(index) - index["shard"].null_count,
            "failed": index["shard"].null_count,
            "stills": sum(unit.stills for unit in units),
            "tars": len(named),
            "tokens": sum(n or 0 for n in index["n_tokens"].to_pylist()),
            "commonest": errors.most_common(1)[0] if errors else None,
        }

    def _write(self, index: pa.Table) -> None:
        """The index, and latents.json after it: where one tells of other settings than the other, it is not there."""
        about = (json.dumps(self.about, indent=2, sort_keys=True) + "\n").encode()
        there = self.dataset.exists(self.folder, "latents.json")
        if there and self.dataset.read_bytes(self.folder, "latents.json") != about:
            self.dataset.remove(self.folder, "latents.json")
            there = False
        with self.dataset.atomic_writer(self.folder, "index.parquet") as file:
            write_parquet(file, LATENTS, [index])
        if not there:
            self.dataset.write_bytes(about, self.folder, "latents.json")

    def _rows(self, unit: Unit) -> pa.Table:
        """The rows of the index for a unit that is packed."""
        name = f"{unit.content}.parquet"
        try:
            return pq.read_table(io.BytesIO(self.dataset.read_bytes(self.state, name)))
        except FileNotFoundError as error:
            raise self._meddled(name) from error

    def _meddled(self, name: str) -> BadInput:
        return BadInput(
            f"{name} is gone from {self.dataset.path(self.folder)}: another run with other settings ended meanwhile "
            "and replaced these latents. Run this one again when no other is at work there."
        )

    def _replaced(self) -> set[str]:
        """The tars that the index before names, and those that a broken-off `finish` was about to drop."""
        found: set[str | None] = set()
        if self.dataset.exists(self.state, "replaced.json"):
            found |= set(json.loads(self.dataset.read_bytes(self.state, "replaced.json")))
        if self.dataset.exists(self.folder, "index.parquet"):
            data = io.BytesIO(self.dataset.read_bytes(self.folder, "index.parquet"))
            found |= set(pq.read_table(data, columns=["shard"])["shard"].to_pylist())
        return {name for name in found if name is not None}


def _content8(tar: str) -> str:
    """The first digits of the content of which a latent tar is named."""
    return tar.removesuffix(".tar").split("-without-")[0][-8:]
