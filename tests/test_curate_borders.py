"""Bars of known size around moving footage, after encoding; and footage that has none."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from camera_views import film, painted_ground, pan, zoom
from conftest import write_video

from curate.analysis import AnalysisConfig, analyse
from curate.borders import borders, displayed_crop
from curate.frames import Video
from curate.pictures import Shrink

Box = tuple[int, int, int, int]
SIZE = (480, 270)


def barred(pictures: np.ndarray, box: Box, luma: int) -> np.ndarray:
    """The pictures shrunk into the box (x, y, w, h), with bars of `luma` around."""
    out = np.full_like(pictures, luma)
    x, y, w, h = box
    for i, picture in enumerate(pictures):
        out[i, y : y + h, x : x + w] = cv2.resize(picture, (w, h), interpolation=cv2.INTER_AREA)
    return out


def titled(pictures: np.ndarray, text: str, at: tuple[int, int]) -> np.ndarray:
    out = pictures.copy()
    for picture in out:
        cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.7, (255, 255, 255), 2, cv2.LINE_AA)
    return out


def crop_of(pictures: np.ndarray, tmp_path: Path) -> Box:
    path = write_video(tmp_path / "a.mp4", pictures, fps=8, options={"crf": "28", "preset": "veryfast"})
    clip = max(analyse(str(path), "ab" * 16, AnalysisConfig()).clips, key=lambda one: one["n_frames"])
    return tuple(clip["crop"][side] for side in "xywh")


def iou(one: Box, two: Box) -> float:
    across = min(one[0] + one[2], two[0] + two[2]) - max(one[0], two[0])
    down = min(one[1] + one[3], two[1] + two[3]) - max(one[1], two[1])
    both = max(0, across) * max(0, down)
    return both / (one[2] * one[3] + two[2] * two[3] - both)


def lies_in(inner: Box, outer: Box) -> bool:
    starts = inner[0] >= outer[0] and inner[1] >= outer[1]
    return (
        starts and inner[0] + inner[2] <= outer[0] + outer[2] and inner[1] + inner[3] <= outer[1] + outer[3]
    )


BOXES = {
    "letterbox": (0, 35, 480, 200),
    "odd letterbox": (0, 33, 480, 201),
    "thin letterbox": (0, 7, 480, 256),
    "pillarbox": (60, 0, 360, 270),
    "odd pillarbox": (57, 0, 363, 270),
    "narrow pillarbox": (164, 0, 152, 270),
    "both": (61, 35, 355, 200),
    "bars of two sizes": (0, 51, 480, 190),
}


@pytest.mark.parametrize("luma", [0, 20])
@pytest.mark.parametrize("kind", BOXES)
def test_bars_of_every_kind(kind: str, luma: int, tmp_path: Path) -> None:
    pictures = film(painted_ground(1), pan(12, 3), fps=8, seconds=2, size=SIZE)
    got = crop_of(barred(pictures, BOXES[kind], luma), tmp_path)
    assert iou(got, BOXES[kind]) >= 0.98
    assert lies_in(got, BOXES[kind])  # never a line of a bar
    assert all(side % 2 == 0 for side in got)


@pytest.mark.parametrize("box", [(0, 35, 480, 200), (0, 53, 480, 164)])
def test_subtitles_in_the_bar_and_logos_in_the_picture(box: Box, tmp_path: Path) -> None:
    pictures = barred(film(painted_ground(2), zoom(0.2), fps=8, seconds=2, size=SIZE), box, 0)
    pictures[4:] = titled(pictures[4:], "and so we all went home again", (60, 262))
    got = crop_of(titled(pictures, "TV7", (400, box[1] + 30)), tmp_path)
    assert iou(got, box) >= 0.98
    assert lies_in(got, box)


def test_bars_around_real_footage(footage: Path, tmp_path: Path) -> None:
    """Clips without bars of their own get some, of sizes that differ from clip to clip."""
    rng = np.random.default_rng(0)
    found = []
    for path in sorted((footage / "clips").glob("*.mp4"))[:30:3]:
        with Video(str(path)) as video:
            frames = [frame for i, frame in zip(range(61), video.frames(), strict=False) if i % 4 == 0]
            pictures = np.stack([cv2.resize(frame.picture(), SIZE) for frame in frames])
        top, left = (int(rng.integers(10, 60)), int(rng.integers(10, 90)) * int(rng.integers(0, 2)))
        box = (left, top, 480 - 2 * left, 270 - 2 * top)
        got = crop_of(barred(pictures, box, int(rng.choice([0, 10, 20]))), tmp_path)
        found.append((path.name, round(iou(got, box), 3), lies_in(got, box)))
    assert [one for one in found if one[1] < 0.98 or not one[2]] == []


#: Clips of the folder that really have bars: two with a pillarbox, one with a letterbox, and one with black edges.
BARRED = {"q4CfXZtnPLE_34", "gWR0Kl5ktLs_6", "czAykeFF83k_158", "COLGm4vIVuQ_9"}


@pytest.mark.parametrize("gain", [1.0, 0.15])
def test_dark_footage_has_no_bars(gain: float, footage: Path) -> None:
    cropped = []
    for path in sorted((footage / "clips").glob("*.mp4")):
        lumas = []
        with Video(str(path)) as video:
            for i, frame in zip(range(97), video.frames(), strict=False):
                if i == 0:
                    shrink = Shrink(frame)
                if i % 16 == 0:
                    lumas.append((shrink(frame).planes().luma() * gain).astype(np.uint8))
        _, _, w, h = borders(lumas)
        if w * h < 0.97 * lumas[0].size:
            cropped.append(path.stem)
    assert set(cropped) <= BARRED, cropped
    if gain == 1.0:
        assert {"q4CfXZtnPLE_34", "gWR0Kl5ktLs_6", "czAykeFF83k_158"} <= set(cropped)


def test_titles_and_black_pictures_have_no_bars(tmp_path: Path) -> None:
    black = np.zeros((16, 270, 480, 3), np.uint8)
    assert crop_of(black, tmp_path) == (0, 0, 480, 270)
    assert crop_of(titled(black, "THE END OF IT ALL", (100, 140)), tmp_path) == (0, 0, 480, 270)


def test_large_lettering_on_a_dark_ground_is_no_letterbox(footage: Path) -> None:
    (clip,) = analyse(str(footage / "edge/h265_video.mp4"), "ab" * 16, AnalysisConfig()).clips
    assert clip["crop"] == {"x": 0, "y": 0, "w": 128, "h": 128}


def test_a_flash_does_not_hide_the_bars() -> None:
    rng = np.random.default_rng(0)
    lumas = [np.zeros((270, 480), np.uint8) for _ in range(8)]
    for luma in lumas:
        luma[40:230] = rng.integers(60, 200, (190, 480))
    lumas[3][:] = 255
    assert borders(lumas) == (0, 40, 480, 190)


def test_crop_is_even_and_inside() -> None:
    assert displayed_crop((0, 13, 640, 335), (360, 640), (640, 360)) == {"x": 0, "y": 14, "w": 640, "h": 334}
    assert displayed_crop((0, 13, 480, 245), (270, 480), (1920, 1080)) == {
        "x": 0,
        "y": 52,
        "w": 1920,
        "h": 980,
    }
    # Without a bar the side stays, odd or not.
    assert displayed_crop((0, 0, 181, 320), (320, 181), (362, 641)) == {"x": 0, "y": 0, "w": 362, "h": 641}
