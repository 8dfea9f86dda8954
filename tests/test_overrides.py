"""overrides/: what people say against the rules is kept whole, and decide obeys it."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from small_dataset import build, clip_id

import curate.overrides
import curate.shard_plan
import pipelines.compact
import pipelines.decide
import pipelines.inspect
import recaption.plan
from curate.dataset import Dataset
from curate.errors import BadInput
from curate.funnel import count_funnel
from curate.overrides import latest, put
from curate.tables import CAPTIONS, CLIPS, OVERRIDES
from pipelines.query import connect, rows_of

ONE, OTHER = clip_id("a0"), clip_id("b1")


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return build(tmp_path, tables=("sources", "clips", "decisions", "captions"))


def kept(dataset: Dataset) -> dict[str, bool]:
    rows = dataset.read("decisions", ["clip_id", "keep"]).to_pylist()
    return {row["clip_id"]: row["keep"] for row in rows}


def test_the_newest_word_counts_and_the_older_ones_stay(dataset: Dataset) -> None:
    assert latest(dataset) == {}
    put(dataset, ONE, keep=False, author="ann", note="too\n  \x1b\u202edark ")
    put(dataset, OTHER, keep=True, author="ben")
    row = put(dataset, ONE, keep=True, author="ben", note="it is fine")
    assert latest(dataset)[ONE] == row
    assert latest(dataset)[OTHER]["note"] is None
    told = [(r["clip_id"], r["keep"], r["author"], r["note"]) for r in dataset.read("overrides").to_pylist()]
    assert sorted(told, key=str) == sorted(
        [(ONE, False, "ann", "too dark"), (OTHER, True, "ben", None), (ONE, True, "ben", "it is fine")],
        key=str,
    )


def test_a_word_without_a_name_or_too_long_is_refused(dataset: Dataset) -> None:
    for author, note in (("  ", None), ("a" * 101, None), ("ann", "x" * 2_001)):
        with pytest.raises(BadInput, match="characters, not"):
            put(dataset, ONE, keep=True, author=author, note=note)
    assert latest(dataset) == {}


def test_two_words_of_one_moment_have_an_order(dataset: Dataset) -> None:
    row = put(dataset, ONE, keep=True, author="ann")
    twins = [row | {"override_id": digit * 32, "author": digit} for digit in "21"]
    older = row | {"override_id": "3" * 32, "created_at": row["created_at"] - timedelta(microseconds=1)}
    dataset.write("overrides", pa.Table.from_pylist([*twins, older], schema=OVERRIDES))
    assert latest(dataset)[ONE]["author"] == "2"


def test_decide_obeys_and_never_writes_them(dataset: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    put(dataset, ONE, keep=False, author="ann", note="a logo")
    put(dataset, OTHER, keep=True, author="ann", note="wanted: black")
    before = {path: path.read_bytes() for path in Path(dataset.path("overrides")).iterdir()}
    rules = ["--rules.luma.min=null", "--rules.copies.near=false"]
    for _ in range(2):  # and again
        assert pipelines.decide.main(["--dataset", dataset.uri, *rules]) == 0
        assert (kept(dataset)[ONE], kept(dataset)[OTHER]) == (False, True)
    assert {path: path.read_bytes() for path in Path(dataset.path("overrides")).iterdir()} == before
    assert "by hand 1" in capsys.readouterr().out.partition("rejected: ")[2]  # in the funnel
    assert pipelines.decide.main(["--dataset", dataset.uri, "--explain", OTHER]) == 0
    assert "by hand        keep by ann: wanted: black\nkept" in capsys.readouterr().out
    assert pipelines.inspect.main(["--dataset", dataset.uri, "--clip", OTHER]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "decision kept, by hand: keep by ann: wanted: black in spite of: black_ratio 1.00 > 0.5" in told
    assert "UTC, keep it: wanted: black" in told
    put(dataset, ONE, keep=None, author="ben")
    put(dataset, OTHER, keep=None, author="ben")
    assert pipelines.decide.main(["--dataset", dataset.uri, *rules]) == 0
    assert (kept(dataset)[ONE], kept(dataset)[OTHER]) == (True, False)


def test_a_word_on_a_clip_that_has_gone_is_kept_and_told(
    dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other settings of the shots give clips of other ids."""
    put(dataset, ONE, keep=True, author="ann")
    put(dataset, OTHER, keep=False, author="ann")
    clips = dataset.read("clips")
    dataset.write("clips", clips.filter(pc.not_equal(clips["clip_id"], ONE)))
    assert pipelines.decide.main(["--dataset", dataset.uri]) == 0
    assert "words  1 of people's words" in capsys.readouterr().out
    assert set(kept(dataset)) == set(clips["clip_id"].to_pylist()) - {ONE}
    word = latest(dataset)[ONE]
    assert (word["source_id"], word["start_s"], word["end_s"]) == ("a" * 32, 0.0, 2.0)


def test_a_word_on_no_clip_is_refused(dataset: Dataset) -> None:
    for unknown in ("0" * 12, "", ONE[:6]):
        with pytest.raises(BadInput, match="there is no clip"):
            put(dataset, unknown, keep=True, author="ann")


def test_the_later_word_counts_though_the_clock_went_back(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = put(dataset, ONE, keep=False, author="ann")["created_at"]

    class Slow(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return before - timedelta(hours=1)

    monkeypatch.setattr(curate.overrides, "datetime", Slow)
    assert put(dataset, ONE, keep=True, author="ben")["created_at"] > before
    assert latest(dataset)[ONE]["author"] == "ben"


def test_many_words_are_few_files(dataset: Dataset) -> None:
    for n in range(curate.overrides.MOST_FILES + 3):
        put(dataset, ONE, keep=n % 2 == 0, author=f"{n}")
    assert len(dataset.files("overrides", ".parquet")) == 3
    assert [row["author"] for row in dataset.read("overrides").sort_by("created_at").to_pylist()] == [
        f"{n}" for n in range(curate.overrides.MOST_FILES + 3)
    ]
    assert latest(dataset)[ONE]["keep"] is True


def test_many_speak_while_compact_runs_and_no_word_is_lost(dataset: Dataset) -> None:
    def speak(author: str) -> None:
        for n in range(12):
            put(dataset, ONE, keep=True, author=author, note=f"{n:02}")

    people = [threading.Thread(target=speak, args=(name,)) for name in ("ann", "ben", "eve")]
    for person in people:
        person.start()
    merged = 0
    while any(person.is_alive() for person in people):
        if dataset.has("overrides"):
            assert pipelines.compact.main(["--dataset", dataset.uri, "--table", "overrides"]) == 0
            merged += 1
    assert merged
    told = dataset.read("overrides").to_pylist()
    assert sorted((r["author"], r["note"]) for r in told) == [
        (name, f"{n:02}") for name in ("ann", "ben", "eve") for n in range(12)
    ]


def test_what_a_person_keeps_goes_on_though_the_rules_have_reasons(dataset: Dataset) -> None:
    put(dataset, OTHER, keep=True, author="ann")
    pipelines.decide.write_decisions(dataset, pipelines.decide.DecideConfig())
    decided = {row["clip_id"]: row for row in dataset.read("decisions").to_pylist()}
    assert decided[OTHER]["reasons"]
    wanted = {clip for clip, row in decided.items() if row["keep"]}
    assert OTHER in wanted
    assert {clip.span.clip_id for clip in recaption.plan.kept_clips(dataset)} == wanted
    assert set(curate.shard_plan.kept_clips(dataset).clips) == wanted
    found = count_funnel(dataset)
    assert (found.kept, found.kept_by_hand) == (len(wanted), 1)
    assert f"{len(wanted)} kept (1 by hand)" in found.text()


def test_sql_sees_them(dataset: Dataset) -> None:
    assert rows_of(connect(dataset), "SELECT override FROM dataset WHERE override IS NOT NULL") == []
    put(dataset, ONE, keep=False, author="ann", note="a logo")
    pipelines.decide.write_decisions(dataset, pipelines.decide.DecideConfig())
    tables = connect(dataset)
    assert rows_of(tables, "SELECT clip_id, keep, note FROM overrides") == [
        {"clip_id": ONE, "keep": False, "note": "a logo"}
    ]
    assert rows_of(tables, "SELECT override FROM dataset WHERE override IS NOT NULL") == [
        {"override": "reject by ann: a logo"}
    ]


def test_clips_of_version_2_are_read_in_sql_beside_those_of_today(tmp_path: Path) -> None:
    """They held score_errors as a map."""
    dataset = Dataset(tmp_path)
    row = {"clip_id": "b", "source_id": "s", "score_errors": [("motion", "one frame")]}
    dataset.write("clips", pa.Table.from_pylist([row], schema=CLIPS))
    old = pa.Table.from_pylist([row | {"clip_id": "a"}, {"clip_id": "c", "source_id": "s"}], schema=CLIPS)
    told = {**CLIPS.metadata, b"reelmill.schema_version": b"2"}
    pa.parquet.write_table(old.replace_schema_metadata(told), tmp_path / "clips" / "part-00001.parquet")
    pairs = [{"key": "motion", "value": "one frame"}]
    assert rows_of(connect(dataset), "SELECT clip_id, score_errors FROM clips ORDER BY 1") == [
        {"clip_id": "a", "score_errors": pairs},
        {"clip_id": "b", "score_errors": pairs},
        {"clip_id": "c", "score_errors": None},
    ]
    assert dataset.read("clips", ["clip_id", "score_errors"]).sort_by("clip_id")["score_errors"].to_pylist() == [
        [("motion", "one frame")], [("motion", "one frame")], None,
    ]  # fmt: skip


def test_captions_of_version_1_have_their_parents_in_sql_too(tmp_path: Path) -> None:
    metadata = {"reelmill.table": "captions", "reelmill.schema_version": "1"}
    table = pa.table({"caption_id": ["x", "y"], "parent_id": ["w", None]}).replace_schema_metadata(metadata)
    dataset = Dataset(tmp_path)
    dataset.write("clips", CLIPS.empty_table())
    (tmp_path / "captions").mkdir()
    pa.parquet.write_table(table, tmp_path / "captions" / "part-00000.parquet")
    view = connect(dataset).sql("FROM captions ORDER BY caption_id")
    assert set(view.columns) == set(CAPTIONS.names)  # those that the file lacks are null
    assert view.to_arrow_table()["parent_ids"].to_pylist() == [["w"], None]


def test_a_file_of_a_newer_version_is_refused_by_query(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    dataset.write("clips", CLIPS.empty_table())
    newer = CLIPS.empty_table().replace_schema_metadata({**CLIPS.metadata, b"reelmill.schema_version": b"99"})
    pa.parquet.write_table(newer, tmp_path / "clips" / "part-00000.parquet")
    with pytest.raises(BadInput, match="written by a newer Reelmill"):
        connect(dataset)
