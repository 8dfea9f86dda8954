"""`reelmill inspect`: everything the tables say of one clip, and what is told for a wrong id."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from small_dataset import HOSTILE, build

from curate.tables import TABLES
from pipelines.inspect import _wrapped, main


@pytest.fixture(scope="module")
def uri(tmp_path_factory) -> str:
    return build(tmp_path_factory.mktemp("inspect")).uri


def told(capsys, *argv: str) -> str:
    """What is printed, with every run of spaces as one."""
    assert main(list(argv)) == 0
    return " ".join(capsys.readouterr().out.split())


def test_a_kept_clip(uri: str, capsys) -> None:
    text = told(capsys, "--dataset", uri, "--clip", "b0")
    assert text.startswith("clip b00000000000 source ")
    assert "b ö.mp4 128x72, 12 fps, 6 s, h264, no audio status ok" in text
    assert "shot 1 of 3: 0.000 to 2.000 s (2.000 s, 24 frames), begins by cut, ends by cut" in text
    assert "motion 4.5 " in text
    assert "embedding from embedded" in text
    assert "decision kept weight 1" in text
    assert f"captions 3 dense [coca, embedded, chosen] {HOSTILE} dense [coca, embedded] a newer one" in text
    assert "shard shards/16x9-h72/000000.tar, bytes 512 to 1514 (128x72, 12 fps, 24 frames)" in text
    assert "latents tiny-0123: 7x9x16, 252 tokens, captions dense, short" in text


def test_a_rejected_clip_has_all_its_reasons(uri: str, capsys) -> None:
    text = told(capsys, "--dataset", uri, "--clip", "b1")
    assert "decision rejected: black_ratio 1.00 > 0.10 also: motion 0.02 < 0.50 captions none" in text
    assert "shard in none latents none" in text


def test_a_null_score_has_its_reason(uri: str, capsys) -> None:
    text = told(capsys, "--dataset", uri, "--clip", "c1")
    assert "motion null: flow needs two frames camera pan" in text
    assert "status partial: decoding broke off at 6.0 s: moov atom not found" in text


def test_a_failed_caption_and_duplicates(uri: str, capsys) -> None:
    assert "rewrite [coca, embedded, status error] HTTP 500: out of tokens" in told(
        capsys, "--dataset", uri, "--clip", "c0"
    )
    assert "copies c20000000000 (rejected in favour of this clip)" in told(
        capsys, "--dataset", uri, "--clip", "a0"
    )
    assert "a copy of a00000000000" in told(capsys, "--dataset", uri, "--clip", "c2")


def test_names_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    name = "a-folder-of-films/of-which-one-has-a-name-that-is-longer-than-a-line.mp4"
    assert "\n".join(_wrapped("source", f"{name} {name}")).split().count(name) == 2


def test_before_the_later_commands_have_run(tmp_path: Path, capsys) -> None:
    uri = build(tmp_path, tables=("sources", "clips")).uri
    text = told(capsys, "--dataset", uri, "--clip", "a0")
    assert "decision none yet: run `reelmill decide --dataset URI` captions none shard in none" in text


def test_a_wrong_id(uri: str, capsys) -> None:
    assert main(["--dataset", uri, "--clip", "zz"]) == 2
    assert "no clip id begins with 'zz'; ids look like a00000000000." in capsys.readouterr().err
    assert main(["--dataset", uri, "--clip", "b"]) == 2
    assert "b00000000000, b10000000000, b20000000000" in capsys.readouterr().err


def test_an_index_without_places_is_told(tmp_path: Path, capsys) -> None:
    """Columns that an older or a foreign file lacks are null."""
    dataset = build(tmp_path)
    for table, columns in (("clips", ("index",)), ("shards", ("mp4_offset", "mp4_size"))):
        rows = [row | dict.fromkeys(columns) for row in dataset.read(table).to_pylist()]
        dataset.write(table, pa.Table.from_pylist(rows, schema=TABLES[table]))
    assert main(["--dataset", dataset.uri, "--clip", "a0"]) == 0
    told = capsys.readouterr().out
    assert "a shot of 2: 0.000 to 2.000 s" in told
    assert "nobody says where in it" in told
