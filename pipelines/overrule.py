"""Overrule the decisions on many clips at once: a list of words becomes rows of overrides/, then `decide` obeys them.

    reelmill query --dataset films.reel "SELECT clip_id, false AS keep, 'a slate' AS note FROM dataset
        WHERE text_area > 0.3" --out words.csv
    reelmill overrule --dataset films.reel --words words.csv

One clip at a time is the button of `reelmill serve`.
"""

from __future__ import annotations

import getpass
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curate.errors import BadInput

if TYPE_CHECKING:
    import pyarrow as pa

    from curate.overrides import Word

COLUMNS = ("clip_id", "keep", "note", "author")
KEEP = {"true": True, "keep": True, "false": False, "reject": False, "": None}


@dataclass(frozen=True)
class OverruleConfig:
    """Keep or reject clips by hand, whatever the rules say.

    The words are added to overrides/, all of them or, if one is wrong, none; what was said before stays there, and the
    newest word on a clip counts. Then decisions/ is made anew by the rules in force, which is all that happens without
    --words: what was said elsewhere is heeded.

    Attributes:
        dataset: folder or URI of the dataset.
        words: CSV or Parquet file (or URI) with the columns clip_id and keep (true keeps the clip, false rejects it,
            empty takes back what was said) and, if wanted, note (why) and author; null adds none.
        author: who says it, where the file does not tell; null takes the user's name on this machine.

    Example:
        reelmill overrule --dataset films.reel --words words.csv
        reelmill overrule --dataset s3://bucket/films --words s3://bucket/words.parquet --author ann
    """

    dataset: str
    words: str | None = None
    author: str | None = None


def overrule(config: OverruleConfig) -> None:
    """Add the words, decide anew and print the funnel. Raises BadInput for a file or a word that cannot be used."""
    from curate.dataset import Dataset
    from curate.overrides import put_many
    from pipelines.decide import rules_in_force, told, write_decisions

    dataset = Dataset(config.dataset)
    rules = rules_in_force(dataset)  # before anything is written
    if config.words is not None:
        rows = put_many(dataset, read_words(config.words, config.author))
        print(f"{len(rows):,} {'word' if len(rows) == 1 else 'words'} added to overrides/")
    write_decisions(dataset, rules)
    print(told(dataset))


def read_words(uri: str, author: str | None) -> list[Word]:
    """The words of a CSV or Parquet file; `author` stands for those without one, null for the user of this machine."""
    from curate.overrides import Word

    table = _read(uri)
    unknown = [name for name in table.column_names if name not in COLUMNS]
    lacking = [name for name in COLUMNS[:2] if name not in table.column_names]
    if unknown or lacking:
        what = f"has no column {lacking[0]!r}" if lacking else f"has a column {unknown[0]!r}"
        raise BadInput(f"{uri} {what}; its columns are {', '.join(COLUMNS)}, the last two if wanted.")
    words: list[Word] = []
    lines: dict[str, int] = {}
    for line, row in enumerate(table.to_pylist(), 1):
        clip_id = str(row["clip_id"] or "")
        if clip_id in lines:
            raise BadInput(f"{uri}: rows {lines[clip_id]} and {line} are both about the clip {clip_id!r}.")
        lines[clip_id] = line
        said = row.get("author") or author or user_name()
        note = None if row.get("note") is None else str(row["note"])
        words.append(Word(clip_id, _keep(row["keep"], uri, line), str(said), note))
    return words


def user_name() -> str:
    """The user's name on this machine. Raises BadInput for one without."""
    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:  # a user id that has no name, as in some containers
        raise BadInput("this machine has no name for you; give --author.") from error


def _keep(value: Any, uri: str, line: int) -> bool | None:
    told = "" if value is None else str(value).strip().lower()
    if told not in KEEP:
        raise BadInput(f"{uri}, row {line}: keep is true, false or empty, not {str(value)[:40]!r}.")
    return KEEP[told]


def _read(uri: str) -> pa.Table:
    import fsspec
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    if not uri.lower().endswith((".csv", ".parquet")):
        raise BadInput(f"{uri}: words are read from a .csv or .parquet file.")
    try:
        with fsspec.open(uri, "rb") as file:
            if uri.lower().endswith(".parquet"):
                return pyarrow.parquet.read_table(file)
            text = pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(COLUMNS, pa.string()), strings_can_be_null=True
            )
            several_lines = pyarrow.csv.ParseOptions(newlines_in_values=True)
            return pyarrow.csv.read_csv(file, parse_options=several_lines, convert_options=text)
    except (OSError, ValueError, ImportError) as error:  # pyarrow's own errors are ValueErrors
        raise BadInput(f"the words {uri} cannot be read: {error}") from error


def main(argv: list[str] | None = None) -> int:
    from pipelines.cli import run_command

    return run_command(OverruleConfig, overrule, argv, name="overrule")


if __name__ == "__main__":
    raise SystemExit(main())
