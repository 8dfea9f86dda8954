"""`reelmill overrule`: a list of words is added whole or not at all, and decisions follow by the rules in force."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_dataset import build, clip_id

import pipelines.decide
import pipelines.inspect
import pipelines.overrule
import pipelines.query
from curate.dataset import Dataset
from curate.overrides import Word, latest, put, put_many, waiting
from curate.tables import SHARDS
from pipelines.decide import rules_in_force

RULES = ["--rules.luma.min=null", "--rules.copies.near=false", "--rules.motion.min=1"]


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    dataset = build(tmp_path, tables=("sources", "clips", "captions"))
    assert pipelines.decide.main(["--dataset", dataset.uri, *RULES]) == 0
    return dataset


def kept(dataset: Dataset) -> set[str]:
    return {row["clip_id"][:2] for row in dataset.read("decisions").to_pylist() if row["keep"]}


def overrule(dataset: Dataset, words: Path, *argv: str) -> int:
    return pipelines.overrule.main(["--dataset", dataset.uri, "--words", str(words), *argv])


def test_an_answer_of_query_overrules_the_rules(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, rules = kept(dataset), rules_in_force(dataset)
    assert {"a0", "b0"} <= before
    assert not {"b1", "b2"} & before
    words = tmp_path / "words.csv"
    sql = (
        "SELECT clip_id, NOT keep AS keep, 'so, \"said\"\nwe' AS note FROM decisions "
        f"WHERE clip_id IN ('{clip_id('a0')}', '{clip_id('b1')}')"
    )
    assert pipelines.query.main(["--dataset", dataset.uri, sql, "--out", str(words)]) == 0
    capsys.readouterr()
    assert overrule(dataset, words, "--author", "ann") == 0
    assert kept(dataset) == (before - {"a0"}) | {"b1"}
    assert rules_in_force(dataset) == rules
    assert "2 words added to overrides/" in capsys.readouterr().out
    said = {clip: (word["keep"], word["note"], word["author"]) for clip, word in latest(dataset).items()}
    assert said == {
        clip_id("a0"): (False, 'so, "said" we', "ann"),
        clip_id("b1"): (True, 'so, "said" we', "ann"),
    }


def test_parquet_with_authors_and_words_taken_back(dataset: Dataset, tmp_path: Path) -> None:
    before = kept(dataset)
    put(dataset, clip_id("b1"), keep=True, author="ben")
    table = pa.table(
        {"clip_id": [clip_id("b1"), clip_id("b0")], "keep": [None, False], "author": ["cleo", None]}
        | {"note": [7, 8]}
    )
    pq.write_table(table, tmp_path / "words.parquet")
    assert overrule(dataset, tmp_path / "words.parquet", "--author=dan") == 0
    assert kept(dataset) == before - {"b0"}
    assert {clip[:2]: word["author"] for clip, word in latest(dataset).items()} == {"b1": "cleo", "b0": "dan"}
    assert sorted(dataset.read("overrides")["note"].to_pylist(), key=str) == ["7", "8", None]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("clip_id,keep\n{b1},true\nnope,false\nnor this,true\n", "no clip 'nope'"),
        ("clip_id,keep\n{b1},true\n{a0},perhaps\n", "row 2: keep is true, false or empty, not 'perhaps'"),
        ("clip_id,keep\n{b1},true\n{b1},false\n", "rows 1 and 2 are both about the clip"),
        ("clip_id\n{b1}\n", "has no column 'keep'"),
        ("clip_id,keep,why\n{b1},true,x\n", "has a column 'why'"),
        ("clip_id,keep,note\n{b1},true,ok\n{a0},true," + "x" * 2_001 + "\n", "at most 2,000 characters"),
        ("clip_id,keep\n{b1},true,more\n", "cannot be read"),
        ("", "cannot be read"),
        ("clip_id,keep\n{b1},\udcff\n", "cannot be read"),
    ],
)
def test_one_wrong_word_refuses_them_all(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, told: str
) -> None:
    before, words = kept(dataset), tmp_path / "words.csv"
    text = text.replace("{b1}", clip_id("b1")).replace("{a0}", clip_id("a0"))
    words.write_text(text, "utf-8", errors="surrogateescape")
    assert overrule(dataset, words) == 2
    heard = capsys.readouterr().err
    assert told in heard
    assert "Traceback" not in heard
    assert latest(dataset) == {}
    assert kept(dataset) == before


def test_a_file_that_is_none(dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert overrule(dataset, tmp_path / "gone.csv") == 2
    assert "cannot be read" in capsys.readouterr().err
    assert overrule(dataset, tmp_path / "words.xlsx") == 2
    assert ".csv or .parquet" in capsys.readouterr().err


def test_without_words_what_was_said_elsewhere_is_heeded(
    dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    before, rules = kept(dataset), rules_in_force(dataset)
    put(dataset, clip_id("b1"), keep=True, author="ann")
    put(dataset, clip_id("a0"), keep=False, author="ann")
    put(dataset, clip_id("b0"), keep=True, author="ann")  # as it is
    assert sorted(waiting(dataset)) == [clip_id("a0"), clip_id("b1")]
    assert kept(dataset) == before
    what_if = ["decide", "--dataset", dataset.uri, "--what-if", "motion.min=0"]
    assert pipelines.decide.main(what_if[1:]) == 0
    assert "What people said of 2 clips wait for `reelmill overrule" in capsys.readouterr().out
    assert pipelines.inspect.main(["--dataset", dataset.uri, "--clip", clip_id("a0")]) == 0
    assert "which waits for `reelmill overrule" in capsys.readouterr().out
    assert pipelines.overrule.main(["--dataset", dataset.uri]) == 0
    assert kept(dataset) == (before - {"a0"}) | {"b1"}
    assert rules_in_force(dataset) == rules
    assert waiting(dataset) == []
    capsys.readouterr()
    put(dataset, clip_id("a0"), keep=None, author="ann")  # taken back
    assert waiting(dataset) == [clip_id("a0")]
    assert pipelines.overrule.main(["--dataset", dataset.uri]) == 0
    assert waiting(dataset) == []
    capsys.readouterr()
    assert pipelines.inspect.main(["--dataset", dataset.uri, "--clip", clip_id("b0")]) == 0
    assert "waits" not in capsys.readouterr().out


def test_rejected_clips_that_were_cut_and_encoded_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = build(tmp_path)
    assert pipelines.decide.main(["--dataset", dataset.uri, *RULES]) == 0
    assert "left " not in capsys.readouterr().out
    put_many(dataset, [Word(clip_id("a0"), False, "ann"), Word(clip_id("b1"), False, "ann")])
    shards = dataset.read("shards").to_pylist()
    shards.append({"clip_id": clip_id("b1"), "error": "broken"})  # lies nowhere
    dataset.write("shards", pa.Table.from_pylist(shards, schema=SHARDS))
    assert pipelines.overrule.main(["--dataset", dataset.uri]) == 0
    told = "left   rejected clips still lie where they were put before: 1 in shards, 1 in latents-tiny-0123; `reel"
    assert told in capsys.readouterr().out


def test_many_words_are_one_file_sorted_and_in_order(dataset: Dataset) -> None:
    clips = [clip_id(short) for short in ("c1", "a0", "b1")]
    rows = put_many(dataset, [Word(clip, True, "ann") for clip in clips])
    assert [row["clip_id"] for row in rows] == clips
    assert rows[0]["created_at"] < rows[1]["created_at"] < rows[2]["created_at"]
    (file,) = dataset.files("overrides", ".parquet")
    assert pq.read_table(f"{dataset.path('overrides')}/{file}")["clip_id"].to_pylist() == sorted(clips)
    assert put_many(dataset, []) == []
    later = put(dataset, clips[0], keep=False, author="ann")
    assert later["created_at"] > rows[2]["created_at"]
