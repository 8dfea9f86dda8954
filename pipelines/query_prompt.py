"""The prompt of `reelmill query`: SQL over several lines up to a semicolon, with history and completion.

An error is printed and the prompt goes on. Ctrl-C drops what was typed, or stops a query; Ctrl-D leaves.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from curate.errors import BadInput
from curate.tables import TABLES
from pipelines.query import explained, rows_of
from pipelines.query_answer import interruptible, overview, own_tables, quoted_name, show, table_names
from pipelines.query_examples import EXAMPLES, Example, numbered
from pipelines.query_views import ADDED

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from curate.dataset import Dataset

HELP = """\
SELECT ...;        any SQL that DuckDB knows; it ends with a semicolon and may run over several lines
.tables            the tables, their rows and columns
.schema NAME       the columns of a table: type, unit and meaning
.examples          ten questions to begin with;  .examples 3  runs the third
.help  .quit       Ctrl-C drops what was typed or stops a query, Ctrl-D leaves"""

_TYPE_WIDTH = 24  # TIMESTAMP WITH TIME ZONE
_PLAIN = {"help": ".help", "exit": ".quit", "quit": ".quit"}  # as other prompts know them
_HIDDEN = re.compile(
    r"""\b[eE]'(?:\\.|''|[^'\\])*' | '(?:''|[^'])*' | "(?:""|[^"])*" | \$\$.*?\$\$ | --[^\n]* | /\*.*?\*/""",
    re.DOTALL | re.VERBOSE,
)


def prompt(connection: duckdb.DuckDBPyConnection, dataset: Dataset, max_rows: int) -> None:
    """Ask for SQL and answer it, until the person leaves."""
    remember = _readline(connection)
    print(f"{dataset.uri}: SQL ends with a semicolon; .help tells the rest.")
    lines: list[str] = []
    while True:
        try:
            line = input("   ...> " if lines else "query> ")
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print()
            lines = []
            continue
        if not lines and not line.strip():
            continue
        if not lines:
            line = _PLAIN.get(line.strip(" ;").lower(), line)
        lines.append(line)
        text = "\n".join(lines)
        is_command = text.lstrip().startswith(".")
        if not is_command and not is_complete(text):
            continue
        lines = []
        remember(text)
        if is_command and text.split()[0] in (".quit", ".exit"):
            return
        try:
            with explained(dataset):
                run = command if is_command else answer
                interruptible(connection, partial(run, connection, text, max_rows))
        except KeyboardInterrupt:
            print("interrupted")
        except BadInput as error:
            print(f"error: {error}")


def is_complete(text: str) -> bool:
    """True if `text` ends with a semicolon that is in no string, name or comment."""
    bare = _HIDDEN.sub(" ", text)
    return bare.rstrip().endswith(";") and not re.search(r"""['"]|/\*|\$\$""", bare)


def answer(
    connection: duckdb.DuckDBPyConnection, sql: str, max_rows: int, *, example: Example | None = None
) -> None:
    """Run the statements of `sql`, which may be that of `example`, and print what each answers."""
    for statement in connection.extract_statements(sql):
        is_ours = (listed := own_tables(statement.query)) != statement.query
        found = connection.sql(listed if is_ours else statement)
        if found is not None:
            show(found, max_rows, example)


def command(connection: duckdb.DuckDBPyConnection, text: str, max_rows: int) -> None:
    """Run a line that begins with a dot. Raises BadInput for one that is not known."""
    match text.split():
        case [".help"]:
            print(HELP)
        case [".tables"]:
            print(overview(connection).partition("\n\n")[0])
        case [".schema", name]:
            print(schema(connection, name.rstrip(";")))
        case [".examples"]:
            for number, example in enumerate(EXAMPLES, 1):
                print(f"{number:>3}  {example.title}")
        case [".examples" | ".example", number] if number.isdecimal():
            example = numbered(int(number))
            print(f"{example.heading()}\n{example.sql}")
            answer(connection, example.sql, max_rows, example=example)
        case [name, *_]:
            raise BadInput(f"there is no command {name!r} of that form; .help lists them.")


def schema(connection: duckdb.DuckDBPyConnection, name: str) -> str:
    """The columns of a view, one a line: name, type, meaning and unit, where a table declares them.

    Raises BadInput for a name that is none of the tables.
    """
    names = table_names(connection)
    known = {
        *map(str.lower, names),
        *TABLES,
        "dataset",
    }  # `explained` tells how to make those of ours that lack
    if name.lower() not in known:
        raise BadInput(f"there is no table {name!r}; there are {', '.join(names)}.")
    columns = rows_of(connection, f"DESCRIBE {quoted_name(name)}")
    told: dict[str, str] = ADDED
    # Of a column that several tables have, `dataset` shows the one of clips, or of the first after it.
    for table in [name] if name in TABLES else ["clips", "decisions", "shards", "sources"]:
        told = {field.name: _meaning(field) for field in TABLES[table]} | told
    width = max(len(row["column_name"]) for row in columns)
    return "\n".join(
        f"{row['column_name']:<{width}}  {_short(row['column_type']):<{_TYPE_WIDTH}}  "
        f"{told.get(row['column_name'], '')}".rstrip()
        for row in columns
    )


def _meaning(field: pa.Field) -> str:
    about: dict[str, str] = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    unit = about.get("unit", "1")  # 1 is that of ratios and scores: none
    return about["description"] + (f" [{unit}]" if unit != "1" else "")


def _short(kind: str) -> str:
    return kind if len(kind) <= _TYPE_WIDTH else kind[: _TYPE_WIDTH - 1] + "…"


def _readline(connection: duckdb.DuckDBPyConnection) -> Callable[[str], None]:
    """Set up editing, history and completion where Python has readline; returns what remembers an input."""
    try:
        import readline
    except ImportError:
        return lambda text: None
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    history = Path(state).expanduser() / "reelmill" / "query_history"
    with suppress(OSError):  # none yet
        readline.read_history_file(history)
    readline.set_history_length(1000)
    readline.set_auto_history(False)
    readline.set_completer(_completer(connection))
    readline.set_completer_delims(" \t\n\"'`@$><=;|&{(,")
    is_libedit = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if is_libedit else "tab: complete")

    def remember(text: str) -> None:
        # One entry for a statement over several lines, unless a comment would swallow its rest.
        for line in text.splitlines() if "--" in text else [" ".join(text.split("\n"))]:
            readline.add_history(line)
        with suppress(OSError):  # a home that cannot be written to
            history.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(history)

    return remember


def _completer(connection: duckdb.DuckDBPyConnection) -> Callable[[str, int], str | None]:
    names = rows_of(
        connection,
        "SELECT DISTINCT table_name, column_name FROM duckdb_columns() "
        "WHERE NOT internal AND database_name <> 'temp'",  # where the stand-ins for absent tables are
    )
    words = {name for row in names for name in row.values()}
    words |= {".tables", ".schema", ".examples", ".help", ".quit"}
    words |= {
        "SELECT",
        "FROM",
        "WHERE",
        "GROUP BY ALL",
        "ORDER BY",
        "LIMIT",
        "JOIN",
        "USING (clip_id)",
        "FILTER",
    }

    def complete(text: str, place: int) -> str | None:
        found = sorted(word for word in words if word.lower().startswith(text.lower()))
        return found[place] if place < len(found) else None

    return complete
