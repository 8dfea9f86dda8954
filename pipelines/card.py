"""A dataset card for the Hugging Face Hub: README.md with its YAML header, figures and plots.

    reelmill card --dataset films.reel --license cc-by-4.0 --source "archive.example, films of 1920 to 1930"
    reelmill card --dataset s3://bucket/films                  # -> s3://bucket/films/README.md and card/*.png
    reelmill card --dataset films.reel --out draft             # -> draft/README.md, to look at first

Everything in it is counted from the tables or was given; what is neither is said to be unknown.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from curate.errors import BadInput

if TYPE_CHECKING:
    from curate.dataset import Dataset

MADE_WITH = "Made with Reelmill."


@dataclass(frozen=True)
class CardConfig:
    """Write the dataset card (README.md) that the Hugging Face Hub shows, with figures and plots.

    Its `configs` name every table but overrides/, which holds people's names, so that the Hub's viewer shows
    them when the dataset's folder is uploaded. What is better left out of that is told at the end.

    Attributes:
        dataset: folder or URI of the dataset.
        out: folder, or file ending in .md, to write to; null writes DATASET/README.md, or replaces the
            one that this command wrote. Plots lie beside it in card/.
        name: the dataset's name; null takes that of its folder.
        license: the licence as the Hub calls it (cc-by-4.0, other, ...); null says that it is unknown.
        source: where the footage comes from, in your words; null says that it is unknown.
        homepage: address of a page on the dataset.
        contact: whom to ask.
        tags: further tags for the Hub.

    Example:
        reelmill card --dataset films.reel --license cc-by-4.0 --source "own recordings"
        reelmill card --dataset s3://bucket/films --out draft
    """

    dataset: str
    out: str | None = None
    name: str | None = None
    license: str | None = None
    source: str | None = None
    homepage: str | None = None
    contact: str | None = None
    tags: list[str] = field(default_factory=list)


def card(config: CardConfig) -> None:
    """Write the card and its plots. Raises BadInput for a dataset that has not been curated."""
    from curate.dataset import Dataset
    from pipelines.card_data import gather
    from pipelines.card_hub import refused, uploading
    from pipelines.card_plots import plots
    from pipelines.card_text import render
    from pipelines.query import connect
    from pipelines.stale import REMEDY

    dataset = Dataset(config.dataset)
    write, place = _writer(config, dataset)
    for table in ("sources", "clips"):
        if not dataset.has(table):
            dataset.read(table)  # raises the BadInput that names the command
    with connect(dataset) as tables:
        found = gather(dataset, tables)
    pictures = plots(found)
    for picture, data in pictures.items():
        write(data, "card", picture)
    write(render(config, found, sorted(pictures)).encode())
    print(f"card: {place}, with {len(pictures)} plots in card/")
    for table in refused(dataset):
        print(
            f"The Hub cannot read {table}/ as an older Reelmill wrote it: run `reelmill compact` before you upload."
        )
    if found.stale:
        places = ", ".join(f"{n:,} in {name}" for name, n in found.stale.items())
        print(f"Clips that are rejected since still lie in the dataset ({places}); {REMEDY}.")
    print(uploading(dataset, found.by_hand))
    unknown = [option for option in ("license", "source") if getattr(config, option) is None]
    if unknown:
        print("It says that these are unknown: " + ", ".join(f"--{option}" for option in unknown) + ".")


def _writer(config: CardConfig, dataset: Dataset) -> tuple[Callable[..., None], str]:
    """What writes bytes to a member beside the card, or to the card where none is named; and the card's place."""
    if config.out is None:
        place = f"{dataset.uri.rstrip('/')}/README.md"
        if dataset.exists("README.md") and MADE_WITH.encode() not in dataset.read_bytes("README.md"):
            raise BadInput(
                f"{place} was not written by this command; move it, or write the card to --out FOLDER."
            )
        return lambda data, *parts: dataset.write_bytes(data, *(parts or ("README.md",))), place
    path = Path(config.out)
    file = path if path.suffix == ".md" else path / "README.md"
    if path.suffix != ".md" and path.is_file():
        raise BadInput(
            f"cannot write the card to {config.out}: it is a file. Give a folder, or a name ending in .md."
        )
    if not file.parent.resolve().parent.is_dir():
        raise BadInput(f"cannot write {config.out}: there is no folder {file.parent.parent}.")

    def write(data: bytes, *parts: str) -> None:
        target = file.parent.joinpath(*parts) if parts else file
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}")
        temporary.write_bytes(data)
        os.replace(temporary, target)

    return write, str(file)


def main(argv: list[str] | None = None) -> int:
    from pipelines.cli import run_command

    return run_command(CardConfig, card, argv, name="card")


if __name__ == "__main__":
    raise SystemExit(main())
