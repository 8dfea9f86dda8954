"""The demo's films against what their truth says, frame by frame after decoding."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from curate.errors import BadInput
from pipelines.demo.film_plan import FAULTS
from pipelines.demo.films import render_films
from pipelines.demo.scene import is_held_out

Film = dict[str, Any]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Film]]:
    folder = tmp_path_factory.mktemp("films")
    return folder, render_films(folder, n_films=24, seed=5)["films"]


@pytest.fixture(scope="module")
def decoded(films: tuple[Path, list[Film]]) -> dict[str, tuple[list[float], np.ndarray]]:
    """File -> PTS in seconds and luma pictures (T, H, W) float32."""
    folder, entries = films
    found = {}
    for film in entries:
        with av.open(str(folder / film["file"])) as container:
            frames = [(frame.time, frame.to_ndarray(format="gray")) for frame in container.decode(video=0)]
        found[film["file"]] = [t for t, _ in frames], np.stack([p for _, p in frames]).astype(np.float32)
    return found  # type: ignore[return-value]


def shot_pictures(film: Film, shot: dict, decoded: dict) -> np.ndarray:
    times, pictures = decoded[film["file"]]
    inside = [i for i, t in enumerate(times) if shot["start_s"] <= t < shot["end_s"]]
    return pictures[inside]


def faulty(films: list[Film], fault: str) -> list[tuple[Film, dict]]:
    found = [(film, shot) for film in films for shot in film["shots"] if shot["fault"] == fault]
    assert found, f"no shot has the fault {fault}"
    return found


def test_every_frame_has_the_stated_time(films, decoded) -> None:  # type: ignore[no-untyped-def]
    for film in films[1]:
        times, pictures = decoded[film["file"]]
        assert times == [i / film["fps"] for i in range(film["n_frames"])]
        assert pictures.shape == (film["n_frames"], film["height"], film["width"])
        assert film["duration_s"] == film["n_frames"] / film["fps"]


def test_shots_and_transitions_share_the_film_without_a_gap(films) -> None:  # type: ignore[no-untyped-def]
    for film in films[1]:
        shots, transitions = film["shots"], film["transitions"]
        assert 3 <= len(shots) <= 5
        assert (shots[0]["start_s"], shots[-1]["end_s"]) == (0, film["duration_s"])
        assert len(transitions) == len(shots) - 1
        for before, transition, after in zip(shots, transitions, shots[1:], strict=False):
            assert before["end_s"] == transition["start_s"]
            assert transition["end_s"] == after["start_s"]
            long = transition["end_s"] - transition["start_s"]
            assert long == 0 if transition["kind"] == "cut" else 0.4 < long < 0.6
        for shot in shots:
            assert 1.45 < shot["end_s"] - shot["start_s"] < 3.05


def test_cuts_are_where_the_truth_says_and_nowhere_else(films, decoded) -> None:  # type: ignore[no-untyped-def]
    cuts = 0
    for film in films[1]:
        times, pictures = decoded[film["file"]]
        jumps = np.abs(np.diff(pictures, axis=0)).mean((1, 2))  # jumps[i]: from frame i to i + 1
        found = {times[i + 1] for i in np.flatnonzero(jumps > 18)}
        stated = {t["start_s"] for t in film["transitions"] if t["kind"] == "cut"}
        gradual = [t for t in film["transitions"] if t["kind"] != "cut"]
        found = {t for t in found if not any(g["start_s"] <= t <= g["end_s"] for g in gradual)}
        assert found == stated, film["file"]
        cuts += len(stated)
    assert cuts > 30


def test_fades_pass_black_and_dissolves_pass_the_mean(films, decoded) -> None:  # type: ignore[no-untyped-def]
    kinds = []
    for film in films[1]:
        times, pictures = decoded[film["file"]]
        for transition in film["transitions"]:
            start, end = (times.index(transition[key]) for key in ("start_s", "end_s"))
            kinds.append(transition["kind"])
            if transition["kind"] == "fade":
                middle = pictures[start:end].mean((1, 2)).min()
                assert middle < 0.2 * min(pictures[start - 1].mean(), pictures[end].mean()) + 8
            if transition["kind"] == "dissolve":
                first, middle, last = (pictures[i] for i in (start - 1, (start + end) // 2, end))
                far = min(np.abs(middle - first).mean(), np.abs(middle - last).mean())
                assert np.abs(middle - (first + last) / 2).mean() < 0.5 * far
    assert {"cut", "fade", "dissolve"} == set(kinds)


def test_each_fault_is_in_its_pictures(films, decoded) -> None:  # type: ignore[no-untyped-def]
    _, entries = films
    assert {film["fault"] for film in entries} == {None, *FAULTS}
    for film, shot in faulty(entries, "static"):
        assert np.abs(np.diff(shot_pictures(film, shot, decoded), axis=0)).mean((1, 2)).max() < 0.7
    for film, shot in faulty(entries, "black"):
        assert shot_pictures(film, shot, decoded).mean() < 2
    for film, shot in faulty(entries, "dark"):
        assert 1 < shot_pictures(film, shot, decoded).mean() < 20
    for film, shot in faulty(entries, "blur"):
        pictures = shot_pictures(film, shot, decoded)
        assert max(cv2.Laplacian(p, cv2.CV_32F).var() for p in pictures) < 20
    for film, shot in faulty(entries, "letterbox"):
        _, y, w, h = film["box"]
        pictures = shot_pictures(film, shot, decoded)
        assert (w, y > 0) == (film["width"], True)
        assert pictures[:, : y - 1].max() < 24
        assert pictures[:, y + h + 1 :].max() < 24
        assert pictures[:, y : y + h].mean() > 40


@pytest.mark.parametrize("fault", ["logo", "subtitle"])
def test_overlays_stay_in_their_box_over_every_cut(fault: str, films, decoded) -> None:  # type: ignore[no-untyped-def]
    for film in (f for f in films[1] if f["fault"] == fault):
        x, y, w, h = film["box"]
        pictures = decoded[film["file"]][1]
        spread = pictures.std(0)  # over time: small where the overlay covers the film
        inside = spread[y : y + h, x : x + w]
        assert (inside < 6).mean() > (0.8 if fault == "logo" else 0.1)
        spread[y : y + h, x : x + w] = 99
        assert (spread < 6).mean() < 0.01
        assert 0.03 < w * h / (film["width"] * film["height"]) < 0.25


def test_a_duplicate_is_a_smaller_encoding_of_its_original(films, decoded) -> None:  # type: ignore[no-untyped-def]
    entries = {film["file"]: film for film in films[1]}
    copy, _ = faulty(films[1], "duplicate")[0]
    original = entries[copy["duplicate_of"]]
    assert original["fault"] is None
    assert copy["width"] == 0.75 * original["width"]
    assert copy["transitions"] == original["transitions"]
    small, big = decoded[copy["file"]][1], decoded[original["file"]][1]
    for i in range(0, len(big), 20):
        shrunk = cv2.resize(big[i], (copy["width"], copy["height"]), interpolation=cv2.INTER_AREA)
        assert np.abs(small[i] - shrunk).mean() < 5


def test_captions_stand_beside_two_films_in_three(films) -> None:  # type: ignore[no-untyped-def]
    folder, entries = films
    with (folder / "captions.csv").open() as file:
        rows = {row["file"]: row["caption"] for row in csv.DictReader(file)}
    assert rows == {film["file"]: film["caption"] for film in entries if film["caption"]}
    assert 10 <= len(rows) <= 20
    assert json.loads((folder / "truth.json").read_text())["films"] == json.loads(json.dumps(entries))


def test_films_hold_nothing_that_is_held_out(films) -> None:  # type: ignore[no-untyped-def]
    seen = [shot["scene"] for film in films[1] for shot in film["shots"]]
    assert not any(is_held_out(s["kind"], s["colour"], s["background"]) for s in seen)


def test_a_seed_decides_every_byte_and_films_do_not_depend_on_their_number(tmp_path: Path) -> None:
    heard: list[str] = []
    render_films(tmp_path / "a", n_films=1, seed=9, on_film=lambda film: heard.append(film["file"]))
    render_films(tmp_path / "b", n_films=2, seed=9)
    render_films(tmp_path / "c", n_films=1, seed=10)
    a, b, c = ((tmp_path / name / "film_000.mp4").read_bytes() for name in "abc")
    assert heard == ["film_000.mp4"]
    assert a == b
    assert a != c


def test_without_faults_there_are_none(tmp_path: Path) -> None:
    films = render_films(tmp_path, n_films=3, seed=1, faults=False)["films"]
    assert [film["fault"] for film in films] == [None, None, None]


def test_bad_input_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="at least one"):
        render_films(tmp_path, n_films=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="give a folder"):
        render_films(tmp_path / "file")
