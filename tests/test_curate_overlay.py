"""Logos and subtitles burned into moving footage, and moving footage without any."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from camera_views import film, painted_ground, pan, roll, shake, zoom
from conftest import write_video

from curate.analysis import AnalysisConfig, analyse
from curate.frames import Video

SIZE = (480, 270)
FPS = 12
CAMERAS = {
    "slow pan": pan(4, 1),
    "pan": pan(15),
    "tilt": pan(2, 12),
    "zoom": zoom(0.2),
    "roll": roll(15),
    "shake": shake(4, 1),
}


def logo(corner: int, kind: int) -> np.ndarray:
    """(270, 480, 4) uint8 RGBA: a badge, lettering or a ring in one of the corners."""
    layer = np.zeros((*SIZE[::-1], 4), np.uint8)
    x, y = (20, 380)[corner % 2], (16, 218)[corner // 2]
    if kind == 0:
        cv2.rectangle(layer, (x, y), (x + 80, y + 36), (200, 30, 40, 255), -1)
        cv2.putText(layer, "TV 7", (x + 6, y + 28), 0, 0.9, (255, 255, 255, 255), 2, cv2.LINE_AA)
    elif kind == 1:
        cv2.putText(layer, "NEWS", (x, y + 30), 0, 0.95, (255, 255, 255, 255), 2, cv2.LINE_AA)
    else:
        cv2.circle(layer, (x + 40, y + 18), 18, (255, 255, 255, 255), 6)
    return layer


def subtitle(text: str) -> np.ndarray:
    layer = np.zeros((*SIZE[::-1], 4), np.uint8)
    (width, _), _ = cv2.getTextSize(text, 0, 0.6, 2)
    at = ((SIZE[0] - width) // 2, 248)
    cv2.putText(layer, text, at, 0, 0.6, (1, 1, 1, 255), 4, cv2.LINE_AA)
    cv2.putText(layer, text, at, 0, 0.6, (255, 255, 255, 255), 2, cv2.LINE_AA)
    return layer


def burned(pictures: np.ndarray, layer: np.ndarray, opacity: float) -> np.ndarray:
    alpha = layer[..., 3:] / np.float32(255) * opacity
    return np.stack([(p * (1 - alpha) + layer[..., :3] * alpha).astype(np.uint8) for p in pictures])


def area(layer: np.ndarray) -> float:
    """Share of the picture that the layer's box takes."""
    rows, columns = (np.flatnonzero(layer[..., 3].any(axis)) for axis in (1, 0))
    return float((rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1) / layer[..., 3].size)


def overlay_of(pictures: np.ndarray, tmp_path: Path) -> tuple[float | None, dict[str, str]]:
    path = write_video(tmp_path / "a.mp4", pictures, fps=FPS)
    clip = max(analyse(str(path), "ab" * 16, AnalysisConfig()).clips, key=lambda one: one["n_frames"])
    return clip["overlay_area"], clip["score_errors"]


@pytest.mark.parametrize("camera", CAMERAS)
def test_overlays_on_moving_pictures(camera: str, tmp_path: Path) -> None:
    """Opaque logos, logos of which 70 % shines through, subtitles of 2.1 s; each corner and kind in turn."""
    number = list(CAMERAS).index(camera)
    pictures = film(painted_ground(number), CAMERAS[camera], fps=FPS, seconds=3, size=SIZE)
    clean, _ = overlay_of(pictures, tmp_path)
    assert clean is not None
    assert clean < 0.005
    for opacity in (1.0, 0.3):
        layer = logo((number + int(opacity)) % 4, number % 3)
        found, _ = overlay_of(burned(pictures, layer, opacity), tmp_path)
        assert found == pytest.approx(area(layer), rel=0.5), opacity
    layer = subtitle("I never said that you should go")
    titled = pictures.copy()
    titled[4:29] = burned(pictures[4:29], layer, 1.0)
    found, _ = overlay_of(titled, tmp_path)
    assert found == pytest.approx(area(layer), rel=0.5)


def test_nothing_is_made_up_where_the_camera_stands_still(tmp_path: Path) -> None:
    pictures = film(
        painted_ground(0), pan(), fps=FPS, seconds=2, size=SIZE, actor=lambda t: (0.2 + 0.3 * t, 0.5)
    )
    found, errors = overlay_of(burned(pictures, logo(0, 0), 1.0), tmp_path)
    assert found is None
    assert errors["overlay_area"].startswith("the picture does not move: the camera carries 0 % of it")


#: Clips of the folder with a logo, lettering or a game's display over a moving picture.
WITH_OVERLAY = {"IBvtoadHBPA_14", "JuIOj-qy0ck_29", "MIytG6bc4bk_44", "eibWo9t6pos_25", "gWR0Kl5ktLs_6"}
WITH_OVERLAY |= {"lvPG7CQTRGA_13"}


def moving_clips(footage: Path) -> dict[str, float]:
    """overlay_area of the folder's single shots, where it can be told."""
    import csv

    with (footage / "clips/captions.csv").open() as file:
        names = [row["file"] for row in csv.DictReader(file) if row["single_shot"] == "1"]
    found = {}
    for name in names:
        with Video(str(footage / "clips" / name)) as video:
            if float(video.stream.duration or 0) * float(video.stream.time_base or 0) > 9:
                continue
        clips = analyse(str(footage / "clips" / name), "ab" * 16, AnalysisConfig()).clips
        areas = [clip["overlay_area"] for clip in clips if clip["overlay_area"] is not None]
        if areas:
            found[Path(name).stem] = max(areas)
    return found


def test_overlays_of_real_footage(footage: Path) -> None:
    found = moving_clips(footage)
    false = {name: value for name, value in found.items() if value > 0.02 and name not in WITH_OVERLAY}
    # A car filmed from another car stands as still as a logo does.
    assert set(false) <= {"4F0B-U_xwN0_23"}
    hit = {name for name in WITH_OVERLAY & set(found) if found[name] > 0.01}
    assert len(hit) >= 0.8 * len(WITH_OVERLAY & set(found))
    assert len(found) >= 15
