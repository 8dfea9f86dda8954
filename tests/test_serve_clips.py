"""Pages of clips over real HTTP: every filter against DuckDB, every clip once, cards and the overview."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlencode

import pyarrow.parquet as pq
import pytest
from serve_small import Served, served, with_embeddings
from small_dataset import HOSTILE, build, clip_id

from curate.dataset import Dataset
from curate.errors import BadInput
from pipelines import inspect
from pipelines.query import connect, rows_of
from pipelines.serve_answers import overview
from pipelines.serve_live import Live
from pipelines.serve_view import beside


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    dataset = build(tmp_path_factory.mktemp("clips"))
    with_embeddings(dataset)
    return dataset


@pytest.fixture(scope="module")
def server(dataset: Dataset) -> Iterator[Served]:
    with served(dataset) as running:
        yield running


@pytest.mark.parametrize(
    ("asked", "where"),
    [
        ({}, "true"),
        ({"state": "kept"}, "keep"),
        ({"state": "rejected"}, "NOT keep"),
        ({"state": "undecided"}, "keep IS NULL"),
        ({"reason": "motion"}, "list_contains(list_transform(reasons, lambda r: split_part(r, ' ', 1)), 'motion')"),
        ({"reason": "duplicate"}, "reason LIKE 'duplicate %'"),
        ({"camera": "pan"}, "camera = 'pan'"),
        ({"score": "motion"}, "motion IS NOT NULL"),
        ({"score": "motion", "least": "2"}, "motion >= 2"),
        ({"score": "motion", "least": "0.02", "most": "0.12"}, "motion >= 0.02::FLOAT AND motion <= 0.12::FLOAT"),
        ({"score": "clip_text_sim", "most": "0.2"}, "clip_text_sim <= 0.2::FLOAT"),
        ({"score": "duration_s", "most": "1.9"}, "end_s - start_s <= 1.9"),
        ({"source": "B ö.MP4"}, "uri LIKE '%/b ö.mp4'"),
        ({"source": "a" * 32}, "clip_id LIKE 'a%'"),
        ({"state": "rejected", "camera": "static", "score": "black_ratio", "least": "0.5"},
         "NOT keep AND camera = 'static' AND black_ratio >= 0.5"),
        ({"reason": "no such reason"}, "false"),
        ({"reason": "x' OR '1'='1"}, "false"),
        ({"camera": "' OR true --"}, "false"),
        ({"source": "%"}, "false"),
    ],
)  # fmt: skip
def test_filters_find_what_sql_finds(server: Served, dataset: Dataset, asked: dict, where: str) -> None:
    with connect(dataset) as tables:
        wanted = rows_of(tables, f"SELECT clip_id FROM dataset WHERE {where} ORDER BY clip_id")
    found = server.json("/api/clips", **asked)
    assert [clip["clip_id"] for clip in found["clips"]] == [row["clip_id"] for row in wanted]
    assert found["total"] == len(wanted)


@pytest.mark.parametrize("asked", [{}, {"sort": "luma"}, {"sort": "motion", "order": "desc"}, {"sort": "clip_text_sim"},
                                   {"q": "screen"}, {"like": clip_id("a0")}])  # fmt: skip
def test_pages_hold_every_clip_once(server: Served, asked: dict) -> None:
    whole = server.ids(**asked)
    pages = [server.ids(**asked, limit=2, offset=offset) for offset in range(0, 10, 2)]
    assert [one for page in pages for one in page] == whole
    assert len(set(whole)) == len(whole)
    assert whole
    assert server.ids(**asked, offset=len(whole)) == []


def test_sorting_puts_nulls_last_and_settles_ties(server: Served) -> None:
    assert server.ids(sort="motion") == ["b1", "b2", "a1", "a0", "c2", "b0", "c0", "c1"]
    assert server.ids(sort="motion", order="desc") == ["c0", "b0", "a0", "c2", "a1", "b2", "b1", "c1"]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"sort": "motion; DROP TABLE shown"}, "is none of duration_s, motion"),
        ({"score": "clip_id"}, "is none of"),
        ({"state": "all"}, "state='all' is none of kept, rejected, undecided, overruled, pending."),
        ({"offset": "-1"}, "begins at 0"),
        ({"limit": "100000"}, "a page has 1 to 200 clips"),
        ({"limit": "0"}, "a page has 1 to 200 clips"),
        ({"offset": "ten"}, "offset='ten' is no number."),
        ({"score": "motion", "least": "nan"}, "least='nan' is no number."),
        ({"least": "1"}, "bounds want the score"),
        ({"q": "one", "like": "two"}, "search by one thing at a time, not by q and like."),
        ({"q": "...", }, "there is no word in the search."),
        ({"q": "x" * 501}, "at most 500 characters"),
        ({"like": "nobody"}, "clip nobody has no embedding to compare."),
        ({"like": clip_id("c1")}, "has no embedding to compare."),
        ({"text": "a star"}, "embeddings are by CLIP 'hand/made', which cannot be loaded here"),
        ({"text": " "}, "a text to search by has 1 to 500 characters."),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_told(server: Served, asked: dict, told: str) -> None:
    status, why = server.refused(f"/api/clips?{urlencode(asked)}")
    assert status == 400
    assert told in why


def test_a_card_holds_what_the_tables_say(server: Served) -> None:
    (card,) = server.json("/api/clips", source="b ö", state="kept")["clips"]
    assert card["clip_id"] == clip_id("b0")
    assert (card["motion"], card["camera"], card["keep"], card["reasons"]) == (4.5, "pan", True, [])
    assert card["source_caption"] == HOSTILE
    assert [(row["kind"], row["text"], row["chosen"]) for row in card["captions"]] == [
        ("dense", HOSTILE, True), ("dense", "a newer one, not chosen", False), ("short", "a screen, b0", True),
    ]  # fmt: skip
    assert card["word"] is None
    assert card["pending"] is False


def test_one_clip_and_its_whole_story(server: Served, dataset: Dataset) -> None:
    clip = server.json(f"/api/clips/{clip_id('c1')}")
    assert clip["score_errors"] == {"motion": "flow needs two frames"}
    assert clip["motion"] is None
    assert clip["history"] == []
    assert server.json(f"/api/clips/{clip_id('c0')}")["score_errors"] == {}
    story = server.json(f"/api/clips/{clip_id('c1')}/story")["story"]
    with connect(dataset) as tables:
        assert story == list(inspect.story(tables, clip_id("c1")))
    assert "decision    kept" in story
    for path in ("/api/clips/nobody", "/api/clips/nobody/story"):
        assert server.refused(path) == (404, "there is no such clip.")


def test_the_overview_has_the_reports_figures(server: Served) -> None:
    found = server.json("/api/overview")
    stage = next(stage for stage in found["funnel"] if stage["name"] == "shots found")
    assert stage["total"] == 8
    assert {part["name"]: part["n"] for part in stage["parts"]} == {
        "kept": 5,
        "black ratio": 1,
        "motion": 1,
        "duplicate": 1,
    }
    assert {row["name"]: (row["kept"], row["rejected"]) for row in found["camera"]} == {
        "pan": (3, 1),
        "static": (2, 2),
    }
    assert found["n_errors"] == 3


def test_the_overview_has_the_training_runs(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n')
    live = Live(dataset, author="ann", run=str(tmp_path))
    assert [(run["steps"], run["points"]) for run in overview(live)["runs"]] == [(2, [[1, 2.0], [2, 1.0]])]
    live.run = None
    assert overview(live)["runs"] == []


def test_only_sources_or_nothing_at_all(tmp_path: Path) -> None:
    with served(build(tmp_path, tables=("sources",))) as server:
        assert server.json("/api/clips")["total"] == 0
        assert server.json("/api/overview")["funnel"][0]["total"] == 4
    with pytest.raises(BadInput, match="has no clips table"):
        served(Dataset(tmp_path / "nothing")).__enter__()


def test_the_tables_can_be_asked_twice_at_a_time(tmp_path: Path) -> None:
    """Also where tables and columns are lacking, for which there are stand-ins."""
    dataset = build(tmp_path, tables=("sources", "clips"))
    older = dataset.read("clips").drop_columns(["object_motion"])
    with dataset.atomic_writer("clips", dataset.files("clips", ".parquet")[0]) as file:
        pq.write_table(older, file)
    sql = "SELECT clip_id, object_motion, keep, caption_dense, shard FROM dataset ORDER BY 1"
    with connect(dataset) as tables:
        wanted = rows_of(tables, sql)
        with beside(tables) as one, beside(tables) as other:
            assert rows_of(one, sql) == rows_of(other, sql) == wanted
    assert len(wanted) == 8
    assert {row["object_motion"] for row in wanted} == {None}


def test_many_stories_and_overviews_at_once(server: Served) -> None:
    paths = [f"/api/clips/{clip_id(short)}/story" for short in ("a0", "a1", "b0", "c1")] * 10 + [
        "/api/overview"
    ] * 4
    with ThreadPoolExecutor(12) as pool:
        told = list(pool.map(server.json, paths))
    for path, found in zip(paths, told, strict=True):
        assert found == told[paths.index(path)]
    assert [found["story"][0] for found in told[:4]] == [
        f"clip {clip_id(s)}" for s in ("a0", "a1", "b0", "c1")
    ]
