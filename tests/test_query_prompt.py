"""The prompt of `reelmill query` on a real pseudo-terminal, typed at as a person would."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_dataset import build

from curate.dataset import Dataset
from curate.tables import TABLES, describe
from pipelines.query import connect
from pipelines.query_prompt import HELP, is_complete, schema

ROOT = Path(__file__).resolve().parents[1]
ASKS, MORE = "query> ", "   ...> "
CTRL_C, CTRL_D, UP, TAB = "\x03", "\x04", "\x1b[A", "\t"


class Terminal:
    """`reelmill query` in a terminal of 100 columns; `answer(TEXT)` types it and returns what is then shown."""

    def __init__(self, uri: str, home: Path, *options: str) -> None:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))

        def own_terminal() -> None:  # so that Ctrl-C reaches it as a signal
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a job in the background hands it on as ignored
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.query", "--dataset", uri, *options],
            cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=own_terminal,
            env=os.environ | {"XDG_STATE_HOME": str(home), "TERM": "xterm", "INPUTRC": "/dev/null"},
        )  # fmt: skip
        os.close(theirs)
        self.end = ours

    def until(self, mark: str) -> str:
        """What is shown up to and without `mark`, as plain text."""
        shown = ""
        deadline = time.monotonic() + 30
        while not shown.endswith(mark):
            assert time.monotonic() < deadline, f"waited for {mark!r}, got {shown!r}"
            if select.select([self.end], [], [], 0.5)[0]:
                shown += os.read(self.end, 65536).decode(errors="replace")
                shown = re.sub(r"\x1b\[\??[0-9;]*[a-zA-Z]", "", shown).replace("\r", "").replace("\a", "")
        return shown.removesuffix(mark)

    def type(self, text: str) -> None:
        os.write(self.end, text.encode())

    def answer(self, text: str, mark: str = ASKS) -> str:
        """What is shown after `text` and Enter, up to the next prompt; the echo is left out."""
        self.type(text + "\n")
        return self.until(mark).partition("\n")[2]

    def interrupt(self) -> None:
        time.sleep(1)  # readline misses a signal in the instant between its prompt and its waiting
        self.type(CTRL_C)

    def leave(self) -> int:
        self.type(CTRL_D)
        return self.process.wait(30)


@pytest.fixture(scope="module")
def uri(tmp_path_factory) -> str:
    return build(tmp_path_factory.mktemp("prompt")).uri


@pytest.fixture
def terminal(uri: str, tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(uri, tmp_path)
    yield terminal
    if terminal.process.poll() is None:
        terminal.process.send_signal(signal.SIGKILL)
        terminal.process.wait()
    os.close(terminal.end)


def cells(shown: str) -> list[list[str]]:
    """The rows of the tables shown, without types."""
    found = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines() if "│" in line]
    return [row for row in found if not {"int64", "int32", "varchar", "boolean"} & set(row)]


def test_sql_over_several_lines(terminal: Terminal) -> None:
    assert "SQL ends with a semicolon" in terminal.until(ASKS)
    assert terminal.answer("SELECT keep, count(*) AS n", MORE) == ""
    assert terminal.answer("FROM decisions -- ;", MORE) == ""
    shown = terminal.answer("GROUP BY ALL ORDER BY keep;")
    assert cells(shown) == [["keep", "n"], ["false", "3"], ["true", "5"]]
    shown = terminal.answer("SELECT 'a;", MORE) + terminal.answer("b' AS x; SELECT 2 AS y;")
    assert cells(shown) == [["x"], [r"a;\nb"], ["y"], ["2"]]
    assert terminal.leave() == 0


def test_errors_do_not_end_it(terminal: Terminal) -> None:
    terminal.until(ASKS)
    assert 'Candidate bindings: "text"' in terminal.answer("SELECT texd FROM captions;")
    assert "syntax error" in terminal.answer("SELCT 1;")
    assert "there is no command '.tabels'" in terminal.answer(".tabels")
    assert "there is no example 11" in terminal.answer(".examples 11")
    assert terminal.answer(".schema nope") == (
        "error: there is no table 'nope'; there are sources, clips, decisions, captions, shards, latents, dataset.\n"
    )
    assert "has no overrides table. Nobody has overruled" in terminal.answer(".schema overrides")
    assert "error: " in terminal.answer("COPY clips TO 'clips.csv';")
    assert cells(terminal.answer("SELECT 7 AS alive;")) == [["alive"], ["7"]]


def test_tables_of_one_session_stay_in_memory(terminal: Terminal) -> None:
    terminal.until(ASKS)
    terminal.answer("CREATE TABLE mine AS SELECT clip_id FROM decisions WHERE keep;")
    assert cells(terminal.answer("SELECT count(*) AS n FROM mine;")) == [["n"], ["5"]]
    assert "mine (5 rows)" in terminal.answer(".tables")
    assert terminal.answer(".schema MINE").split()[:2] == ["clip_id", "VARCHAR"]
    shown = [row[0] for row in cells(terminal.answer("SHOW TABLES;"))]
    assert shown == [
        "name",
        "captions",
        "clips",
        "dataset",
        "decisions",
        "latents",
        "mine",
        "shards",
        "sources",
    ]
    terminal.type("FROM empty_cap" + TAB)
    terminal.until("FROM empty_cap")
    assert "Table with name empty_cap does not exist" in terminal.answer(";")  # it was not completed


def test_commands(terminal: Terminal) -> None:
    terminal.until(ASKS)
    shown = terminal.answer(".tables")
    assert [line for line in shown.splitlines() if line.endswith("rows)")] == [
        "sources (4 rows)", "clips (8 rows)", "decisions (8 rows)", "captions (16 rows)", "shards (5 rows)",
        "latents (5 rows)", "dataset (8 rows)",
    ]  # fmt: skip
    shown = terminal.answer(".schema dataset")
    for table, column, kind in (("clips", "start_s", "DOUBLE"), ("shards", "bucket", "VARCHAR")):
        told = describe(TABLES[table])[column]
        assert re.search(rf"^{column} +{kind} +{re.escape(told)}( \[s\])?$", shown, re.MULTILINE)
    assert "1  Funnel by source\n" in terminal.answer(".examples")
    assert ["motion", "1", "12.5", "1"] in [row[:4] for row in cells(terminal.answer(".examples 2"))]
    assert ".schema NAME" in terminal.answer(".help")
    assert ".schema NAME" in terminal.answer("help;")
    assert terminal.answer("SELECT 1 AS", MORE) == ""
    assert cells(terminal.answer("quit;")) == [["quit"], ["1"]]  # within SQL it is a word like any other
    terminal.type("exit\n")
    assert terminal.process.wait(30) == 0


def test_the_schema_of_every_view_says_what_each_column_means(uri: str) -> None:
    """Help and docs promise type, unit and meaning."""
    assert "type, unit and meaning" in HELP
    with connect(Dataset(uri)) as connection:
        views = connection.sql("SELECT view_name FROM duckdb_views() WHERE NOT internal AND NOT temporary")
        lines = {
            (view, line.split()[0]): line
            for (view,) in views.fetchall()
            for line in schema(connection, view).splitlines()
        }
    assert {view for view, _ in lines} >= {*TABLES, "dataset"} - {"overrides"}
    for place, line in lines.items():
        name, kind, meaning = re.split(r"  +", line, maxsplit=2)
        assert kind, place
        assert len(meaning) > 3, place
        assert len(name) <= line.index(kind), place
    assert lines["clips", "motion"].endswith(" per half second) [%/s]")
    assert lines["dataset", "motion"].endswith(" per half second) [%/s]")
    assert re.fullmatch(r"crop +STRUCT\(x INTEGER, y INT… +the picture .* \[px\]", lines["clips", "crop"])
    assert lines["dataset", "weight"].endswith("  sampling weight, 1 unless balancing is on")
    assert lines["dataset", "n_captions"].endswith("  captions of the clip that have a text, of all kinds")
    assert lines["latents", "vae_id"].endswith("  the VAE that made the latents: the name of their folder")


def test_ctrl_c_drops_what_was_typed(terminal: Terminal) -> None:
    terminal.until(ASKS)
    terminal.answer("SELECT 1,", MORE)
    terminal.interrupt()
    terminal.until(ASKS)
    terminal.type("SELECT 5,")
    terminal.until("SELECT 5,")
    terminal.interrupt()
    terminal.until(ASKS)
    assert cells(terminal.answer("SELECT 3 AS three;")) == [["three"], ["3"]]


def test_ctrl_c_stops_a_query(terminal: Terminal) -> None:
    terminal.until(ASKS)
    terminal.type("SELECT count(*) FROM range(1000000000000) WHERE hash(range) % 7 = 8;\n")
    terminal.until("\n")
    terminal.interrupt()
    assert "interrupted" in terminal.until(ASKS)
    assert cells(terminal.answer("SELECT 3 AS three;")) == [["three"], ["3"]]


def test_history_and_completion(uri: str, terminal: Terminal, tmp_path: Path) -> None:
    terminal.until(ASKS)
    terminal.answer("SELECT 42", MORE)
    terminal.answer("AS answer;")
    terminal.type("FROM decis" + TAB)
    terminal.until("FROM decisions")
    assert "cluster" in terminal.answer(" LIMIT 0;")
    assert terminal.leave() == 0
    again = Terminal(uri, tmp_path)
    again.until(ASKS)
    again.type(UP + UP)
    again.until("SELECT 42 AS answer;")
    assert cells(again.answer("")) == [["answer"], ["42"]]
    assert again.leave() == 0
    os.close(again.end)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT 1;", True),
        ("SELECT 1; ", True),
        ("SELECT 1; -- done", True),
        ("SELECT 1; /* done */", True),
        ("SELECT 1", False),
        ("SELECT 1 -- ;", False),
        ("SELECT 1 /* ;", False),
        ("SELECT ';", False),
        ("SELECT ';'", False),
        ("SELECT 'it''s;", False),
        ("SELECT 'it''s';", True),
        (r"SELECT E'it\'s';", True),
        ('SELECT 1 AS "a;', False),
        ("SELECT '--';", True),
        ("SELECT $$;", False),
        ("SELECT $$'$$;", True),
        (";", True),
    ],
)
def test_where_a_statement_ends(text: str, expected: bool) -> None:
    assert is_complete(text) == expected
