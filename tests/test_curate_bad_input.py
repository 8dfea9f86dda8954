"""Whatever lies in the folder: each bad file is one row with its error, each good clip survives."""

from __future__ import annotations

import shutil
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import moving_square, write_video

from curate.dataset import Dataset
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


def make_zero_bytes(path: Path) -> None:
    path.touch()


def make_truncated(path: Path) -> None:
    whole = write_video(path.with_name("whole.tmp.mp4"), moving_square(40))
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])  # the index at the end is gone
    whole.unlink()


def make_audio_only(path: Path) -> None:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.float32), format="fltp", layout="mono")
        frame.rate = 44100
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def make_unreadable(path: Path) -> None:
    path.symlink_to(path.with_name("gone.mp4"))


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (make_text, "not a readable video"),
        (make_zero_bytes, "the file is empty (0 bytes)"),
        (make_truncated, "not a readable video"),
        (make_audio_only, "no video stream (the file holds audio streams only)"),
        (make_unreadable, "No such file or directory"),
    ],
)
def test_bad_file_is_a_failed_row_and_spares_the_rest(films: Path, tmp_path: Path, make, error: str) -> None:
    make(films / "bad.mp4")
    assert run(films, tmp_path / "out") == 0
    rows = sources(tmp_path / "out")
    assert rows["bad.mp4"]["status"] == "failed"
    assert error in rows["bad.mp4"]["error"]
    assert rows["good.mp4"]["status"] == "ok"
    assert len(Dataset(str(tmp_path / "out")).read("clips")) == 1


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
