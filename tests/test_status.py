"""`reelmill status`: how far each stage of a dataset is, from its tables and from work that is in none yet."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import small_dataset
from test_curate_kill import Job, descendants, films  # noqa: F401 - films is a fixture

from curate.overrides import put
from curate.tables import CAPTIONS, DECISIONS
from pipelines.__main__ import main
from pipelines.status import look
from pipelines.status_counts import StageStatus

ROOT = Path(__file__).resolve().parents[1]


def by_name(found: list[StageStatus]) -> dict[str, tuple[int, int, int | None]]:
    """Stage -> done, failed, waiting."""
    return {stage.stage: (stage.done, stage.failed, stage.waiting) for stage in found}


def test_what_the_tables_of_a_finished_dataset_tell(tmp_path: Path) -> None:
    found = look(small_dataset.build(tmp_path).uri)
    assert by_name(found.stages) == {
        "curate": (3, 1, 0),
        "decide": (8, 0, 0),
        "recaption": (5, 0, 0),
        "shard": (5, 0, 0),
        "encode tiny-0123": (5, 0, 0),
    }
    curate, decide, recaption, *_ = found.stages
    assert curate.outcomes == {"ok": 2, "partial": 1, "failed": 1}
    assert (decide.kept, decide.rejected) == (5, {"black_ratio": 1, "duplicate": 1, "motion": 1})
    assert recaption.outcomes == {"ok": 15, "error": 1}
    assert found.jobs == []
    assert all(stage.changed_at is not None for stage in found.stages)


def test_each_stage_waits_for_what_the_one_before_it_brought(tmp_path: Path) -> None:
    dataset = small_dataset.build(tmp_path, tables=("sources", "clips", "decisions", "captions", "shards"))
    ids = [small_dataset.clip_id(short) for short in ("a0", "a1", "b0")]
    rows = dataset.read("shards").to_pylist()
    rows = [row for row in rows if row["clip_id"] in ids[:2]] + [{"clip_id": ids[2], "error": "broken"}]
    dataset.write("shards", pa.Table.from_pylist(rows, schema=dataset.read("shards").schema))
    dataset.write("captions", dataset.read("captions").slice(3, 3))  # those of a1
    with dataset.atomic_writer("latents", "v1", "index.parquet") as out:
        pq.write_table(
            pa.table({"clip_id": ids, "error": ["out of memory", None, "not in any shard: broken"]}), out
        )
    assert by_name(look(dataset.uri).stages) == {
        "curate": (3, 1, 0),
        "decide": (8, 0, 0),
        "recaption": (1, 0, 4),
        "shard": (2, 1, 2),
        "encode v1": (1, 1, 0),
    }


def test_what_a_person_rejects_after_it_was_encoded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = small_dataset.build(tmp_path)
    rejected = small_dataset.clip_id("a0")
    assert [stage.rejected_since for stage in look(dataset.uri).stages] == [None, None, None, 0, 0]
    put(dataset, rejected, keep=False, author="ann")
    found = look(dataset.uri).stages
    assert [stage.waiting_by_hand for stage in found] == [None, 1, None, None, None]
    assert [stage.rejected_since for stage in found[3:]] == [0, 0]
    assert main(["status", "--dataset", dataset.uri]) == 0
    waits = "what people said of 1 clip waits for `reelmill overrule`, which decides by the rules in force"
    assert waits in capsys.readouterr().out.splitlines()

    told = {
        "keep": False,
        "reason": "override by ann",
        "override": "reject by ann",
        "reasons": ["override by ann"],
    }
    rows = dataset.read("decisions").to_pylist()
    rows = [row | told if row["clip_id"] == rejected else row for row in rows]
    dataset.write("decisions", pa.Table.from_pylist(rows, schema=DECISIONS))
    found = look(dataset.uri).stages
    assert by_name(found)["shard"] == (4, 0, 0)
    assert found[1].waiting_by_hand == 0
    assert [stage.rejected_since for stage in found[3:]] == [1, 1]
    assert main(["status", "--dataset", dataset.uri]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[4].endswith("1 rejected by now")
    assert lines[5].endswith("1 rejected by now")
    assert lines[7] == (
        "rejected clips still lie where shard and encode tiny-0123 put them; `reelmill shard`, then "
        "`reelmill encode`, leaves them out"
    )

    shards = dataset.read("shards")  # as `shard` leaves them
    dataset.write("shards", shards.filter(pc.not_equal(shards["clip_id"], rejected)))
    assert [stage.rejected_since for stage in look(dataset.uri).stages[3:]] == [0, 1]


def test_work_that_is_in_no_table_yet_counts(tmp_path: Path) -> None:
    dataset = small_dataset.build(tmp_path, tables=("sources", "clips", "decisions", "captions", "shards"))
    ids = [small_dataset.clip_id(short) for short in ("a0", "a1", "b0", "c0")]
    captions = dataset.read("captions")
    dataset.remove("captions")
    dataset.remove("shards")
    part = captions.slice(0, 2).to_pylist()  # two of a0, and a failure of a1
    part.append({**captions.slice(3, 1).to_pylist()[0], "status": "refused", "text": None})
    dataset.write_bytes(
        parquet(pa.Table.from_pylist(part, schema=CAPTIONS)), "_state", "captions", "1.parquet"
    )
    cut = pa.table({"clip_id": ids[:3], "error": [None, None, "broken"]})
    dataset.write_bytes(parquet(cut), "_state", "cuts", "source.parquet")
    found = look(dataset.uri)
    assert by_name(found.stages) == {
        "curate": (3, 1, 0),
        "decide": (8, 0, 0),
        "recaption": (1, 1, 3),
        "shard": (2, 1, 2),
    }
    # Nobody left a record, as before there were any: the work itself tells of the jobs.
    assert [(job.command, job.state, job.go_on) for job in found.jobs] == [
        ("recaption", "running", None),
        ("shard", "running", None),
    ]
    # A caption that is asked for again counts as what became of it at last.
    dataset.write("captions", captions)
    assert look(dataset.uri).stages[2].outcomes == {"ok": 14, "error": 1, "refused": 1}


def parquet(table: pa.Table) -> bytes:
    out = pa.BufferOutputStream()
    pq.write_table(table, out)
    return out.getvalue().to_pybytes()


def test_no_dataset_is_one_line_with_the_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "films").mkdir()
    for place in (tmp_path / "films", tmp_path / "nowhere"):
        assert main(["status", "--dataset", str(place)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "holds no dataset" in line
        assert f"`reelmill curate --input FOLDER --dataset {place}`" in line
    assert main(["status", "--dataset", str(tmp_path), "--watch=0"]) == 2
    assert "--watch=0" in capsys.readouterr().err


def test_json_is_what_the_guide_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = small_dataset.build(tmp_path, tables=("sources", "clips", "decisions"))
    assert main(["status", "--dataset", dataset.uri, "--format=json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert sorted(told) == ["dataset", "jobs", "looked_at", "stages"]
    decide = told["stages"][1]
    assert datetime.fromisoformat(decide.pop("changed_at")) <= datetime.now(UTC)
    assert decide == {
        "stage": "decide", "unit": "clips", "done": 8, "failed": 0, "waiting": 0, "kept": 5, "kept_by_hand": 0,
        "waiting_by_hand": 0, "rejected_since": None,
        "rejected": {"black_ratio": 1, "duplicate": 1, "motion": 1}, "outcomes": {},
    }  # fmt: skip


def test_the_table_for_a_person(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = small_dataset.build(tmp_path, tables=("sources", "clips", "decisions"))
    for folder in ("sources", "clips", "decisions"):
        hours_ago = time.time() - 3 * 3600 - 60
        os.utime(tmp_path / "dataset" / folder / "part-00000.parquet", (hours_ago, hours_ago))
    assert main(["status", "--dataset", dataset.uri]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "stage   unit   done  failed  waiting  changed",
        "curate  files     3       1        0  3 h ago  ok 2, partial 1, failed 1",
        "decide  clips     8       0        0  3 h ago  kept 5, rejected 3 (black_ratio 1, duplicate 1, motion 1)",
        "",
        "no job is unfinished",
    ]


def test_it_watches_until_it_is_interrupted(tmp_path: Path) -> None:
    dataset = small_dataset.build(tmp_path, tables=("sources", "clips", "decisions"))
    words = ["status", "--dataset", dataset.uri, "--watch=0.2", "--format=json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines", *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    told = [json.loads(process.stdout.readline()) for _ in range(3)]
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, b"")
    assert {len(look["stages"]) for look in told} == {2}
