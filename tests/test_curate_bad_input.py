"""Whatever lies in the folder: each bad file is one row with its error, each good clip survives."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import av
import bad_files
import pytest
from bad_files import CORPUS
from conftest import moving_square, write_video

from curate.dataset import Dataset
from curate.errors import BadInput
from curate.frames import Video
from pipelines.curate import main as curate


def run(films: Path, dataset: Path, *more: str) -> int:
    return curate(
        ["--input", str(films), "--dataset", str(dataset), "--engine=local", "--clip.model=off", *more]
    )


def sources(dataset: Path) -> dict[str, dict]:
    return {Path(row["uri"]).name: row for row in Dataset(str(dataset)).read("sources").to_pylist()}


@pytest.fixture
def films(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    folder.mkdir()
    write_video(folder / "good.mp4", moving_square(40))
    return folder


def test_missing_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "nowhere", tmp_path / "out") == 2
    error = capsys.readouterr().err.strip()
    assert "does not exist" in error
    assert "Give a folder with videos" in error
    assert "\n" not in error


def test_empty_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "empty", tmp_path / "out") == 2
    assert "holds no video" in capsys.readouterr().err


def make_text(path: Path) -> None:
    path.write_text("just words, no video")


def test_only_bad_files_is_still_a_complete_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "films").mkdir()
    make_text(tmp_path / "films" / "bad.mp4")
    assert run(tmp_path / "films", tmp_path / "out") == 0
    assert "1 in = 0 ok + 0 partial + 0 exact copies + 1 failed" in capsys.readouterr().out


def test_one_frame(films: Path, tmp_path: Path) -> None:
    write_video(films / "one.mp4", moving_square(1))
    assert run(films, tmp_path / "out") == 0
    row = sources(tmp_path / "out")["one.mp4"]
    assert (row["status"], row["n_frames"]) == ("ok", 1)
    (clip,) = (
        c
        for c in Dataset(str(tmp_path / "out")).read("clips").to_pylist()
        if c["source_id"] == row["source_id"]
    )
    assert clip["n_frames"] == 1
    assert clip["motion"] is None
    assert "motion needs two sampled pictures" in dict(clip["score_errors"])["motion"]


def test_names_with_spaces_dots_and_other_letters(films: Path, tmp_path: Path) -> None:
    name = "мой фильм v1.2.final – ünïcode 视频.mp4"
    shutil.move(films / "good.mp4", films / name)
    (films / "мой фильм v1.2.final – ünïcode 视频.txt").write_text("ein Quadrat", encoding="utf-8")
    assert run(films, tmp_path / "out") == 0
    row = sources(tmp_path / "out")[name]
    assert (row["status"], row["caption"]) == ("ok", "ein Quadrat")


def test_exact_copy_is_one_set_of_clips(films: Path, tmp_path: Path) -> None:
    shutil.copy(films / "good.mp4", films / "z copy.mp4")
    assert run(films, tmp_path / "out") == 0
    rows = sources(tmp_path / "out")
    assert rows["z copy.mp4"]["duplicate_of"] == rows["good.mp4"]["uri"]
    assert len(Dataset(str(tmp_path / "out")).read("clips")) == 1


def test_failed_files_are_tried_again_on_request_only(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_text(films / "bad.mp4")
    run(films, tmp_path / "out")
    capsys.readouterr()
    run(films, tmp_path / "out")
    assert "2 of 2 files are done already" in capsys.readouterr().out
    run(films, tmp_path / "out", "--retry_failed=true")
    said = capsys.readouterr()
    assert "1 of 2 files are done already" in said.out
    assert "1/1 files, failed 1" in said.err


def test_a_file_that_was_mended_is_analysed_again(films: Path, tmp_path: Path) -> None:
    make_text(films / "bad.mp4")
    run(films, tmp_path / "out")
    write_video(films / "bad.mp4", moving_square(30, seed=3))
    run(films, tmp_path / "out")
    assert sources(tmp_path / "out")["bad.mp4"]["status"] == "ok"
    assert len(sources(tmp_path / "out")) == 2


def test_real_edge_cases_are_all_accounted_for(footage: Path, tmp_path: Path) -> None:
    assert run(footage / "edge", tmp_path / "out") == 0
    rows = sources(tmp_path / "out")
    assert len(rows) == 14
    assert {name: row["status"] for name, row in rows.items() if row["status"] != "ok"} == {
        "corrupted.mp4": "partial"
    }
    assert "at 3.000 s, after frame 28: " in rows["corrupted.mp4"]["error"]
    assert "Invalid data found when processing input" in rows["corrupted.mp4"]["error"]
    assert (rows["rotated_phone.mp4"]["width"], rows["rotated_phone.mp4"]["rotation_deg"]) == (544, 90)
    assert rows["vfr_dropped_frames.mp4"]["is_vfr"] is True


def fill(folder: Path) -> None:
    """The corpus of bad files, two good films, and names that have broken programs before."""
    for bad in CORPUS:
        bad.make(folder / bad.name)
    good = moving_square(40, seed=5)
    write_video(folder / "good.mp4", good)
    (folder / "folder.mp4").joinpath("inside.mp4").write_bytes((folder / "good.mp4").read_bytes())
    for i, name in enumerate(ODD_NAMES):
        shutil.copy(write_video(folder / "tmp.mp4", moving_square(26 + i, seed=i)), folder / name)
    (folder / "tmp.mp4").unlink()
    with open(os.fsencode(folder) + b"/not utf-8 \xff.mp4", "wb") as file:
        file.write((folder / "good.mp4").read_bytes())


ODD_NAMES = [
    "a\nnew line.mp4",
    'it\'s "quoted" $(touch x) `id` ;&|.mp4',
    "emoji 🎬 and %03d and #fragment?query.mp4",
    "concat:a|b.mp4",
    "-y.mp4",
    "l" + "o" * 240 + "ng.mp4",
]


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_corpus_of_bad_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], engine: str, request: pytest.FixtureRequest
) -> None:
    if engine == "ray":
        request.getfixturevalue("ray_cluster")
    folder = tmp_path / "corpus"
    folder.mkdir()
    fill(folder)
    assert run(folder, tmp_path / "out", f"--engine={engine}") == 0
    said = capsys.readouterr().out
    rows = sources(tmp_path / "out")
    for bad in CORPUS:
        row = rows.pop(bad.name, None)
        if bad.status is None:
            assert row is None
            continue
        assert row is not None, bad.name
        assert (bad.name, row["status"], row["error"]) == (bad.name, bad.status, row["error"])
        assert (bad.error or "") in (row["error"] or ""), bad.name
        assert (row["error"] is None) == (row["status"] == "ok")
        assert row["failure"] == ("permanent" if row["status"] == "failed" else None)
        assert bad.n_frames in (None, row["n_frames"]), bad.name
    assert "rename the file" in rows.pop("not utf-8 \\udcff.mp4")["error"]
    assert {name: rows.pop(name)["status"] for name in ODD_NAMES} == dict.fromkeys(ODD_NAMES, "ok")
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert set(rows) == {"good.mp4", "inside.mp4"}
    assert f"files  {len(CORPUS) + len(ODD_NAMES) + 2} in = " in said

    table = Dataset(str(tmp_path / "out")).read("sources").to_pylist()
    clips = Dataset(str(tmp_path / "out")).read("clips").to_pylist()
    with_clips = {row["source_id"] for row in table if row["status"] != "failed" and not row["duplicate_of"]}
    assert {clip["source_id"] for clip in clips} == with_clips  # each file that is not failed has its clips
    decisions = Dataset(str(tmp_path / "out")).read("decisions").to_pylist()
    assert {row["clip_id"] for row in decisions} == {clip["clip_id"] for clip in clips}
    assert sum(row["keep"] for row in decisions) + sum(not row["keep"] for row in decisions) == len(clips)


def test_playlists_would_be_followed_if_they_were_not_refused(tmp_path: Path) -> None:
    """The danger is real: FFmpeg as it comes reads the other file."""
    bad_files.ffconcat(tmp_path / "list.mp4")
    with av.open(str(tmp_path / "list.mp4"), options={"safe": "0"}) as followed:
        assert len(list(followed.decode(video=0))) == 40
    with pytest.raises(BadInput, match="Playlists"):
        Video(str(tmp_path / "list.mp4"))
