"""Many small files of a table become few: for readers that list folders, and for object stores.

    reelmill compact --dataset s3://bucket/films

Every row is there once at any moment, however the command ends; `curate/parts.py` says how.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from curate.errors import BadInput

if TYPE_CHECKING:
    from curate.compact import Compacted


@dataclass(frozen=True)
class CompactConfig:
    """Merge the small files of a dataset's tables into files of 128 to 512 MB, sorted by key.

    Tables that consist of good files already are left alone, so it may be run again and again. Files that an older
    version wrote are written in today's schema. Other commands may run meanwhile: those that write the same table wait
    for each other. Parts of a caption run that has not ended are no files of the table yet: the next `recaption`
    gathers them.

    Attributes:
        dataset: folder or URI of the dataset.
        table: sources, clips, decisions, overrides or captions; all of them if not given.

    Example:
        reelmill compact --dataset films.reel
        reelmill compact --dataset s3://bucket/films --table captions
    """

    dataset: str
    table: str | None = None


def compact(config: CompactConfig) -> None:
    """Merge, and print a line per table. Raises BadInput for a table or dataset that does not exist."""
    from curate.compact import compact as merge
    from curate.dataset import Dataset
    from curate.one_writer import alone
    from curate.parts import TABLES_OF_FILES

    if config.table not in (None, *TABLES_OF_FILES):
        raise BadInput(
            f"there is nothing to merge in a table {config.table!r}; tables of many files are "
            f"{', '.join(TABLES_OF_FILES)}."
        )
    dataset = Dataset(config.dataset)
    asked = [config.table] if config.table else [t for t in TABLES_OF_FILES if dataset.has(t)]
    if not asked:
        dataset.read("sources", ["uri"])  # raises the BadInput that names the command
    for table in asked:
        with alone(dataset, table):
            done = merge(dataset, table)
        print(f"{table:<10}{_told(done) if done else 'nothing to merge'}")


def _told(done: Compacted) -> str:
    before, after = (size / 1e6 for size in done.size_bytes)
    files = f"{done.files[0]:,} files -> {done.files[1]:,}"
    return f"{files}, {before:,.1f} MB -> {after:,.1f} MB, {done.rows:,} rows"


def main(argv: list[str] | None = None) -> int:
    from pipelines.cli import run_command

    return run_command(CompactConfig, compact, argv, name="compact")


if __name__ == "__main__":
    raise SystemExit(main())
