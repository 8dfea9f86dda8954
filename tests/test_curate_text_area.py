"""Text in the picture: lettering, a peer's order of three films, what is not read and why, broken keyframes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from curate.decide import DecideConfig, Range
from curate.sources import UNIT
from curate.text_area import ReadText, TextConfig, fitted
from pipelines.demo.film_plan import plan_film
from pipelines.demo.films import encode, film_frames

# Everything passes but what a test says.
LENIENT = DecideConfig(**{name: Range() for name in DecideConfig().ranges()})


def picture(seed: int = 0) -> np.ndarray:
    """A soft picture without text, 224 x 398."""
    noise = np.random.default_rng(seed).integers(0, 255, (7, 12, 3)).astype(np.uint8)
    return cv2.resize(noise, (398, 224), interpolation=cv2.INTER_CUBIC)


LINES = (("Open the pod bay", 100), ("doors please Hal", 136))


def lettered(seed: int = 0) -> np.ndarray:
    """The same with two lines of text."""
    out = picture(seed)
    for line, y in LINES:
        cv2.putText(out, line, (50, y), cv2.FONT_HERSHEY_SIMPLEX, 1.0, (0, 0, 0), 6, cv2.LINE_AA)
        cv2.putText(out, line, (50, y), cv2.FONT_HERSHEY_SIMPLEX, 1.0, (255, 255, 255), 2, cv2.LINE_AA)
    return out


def letters_area() -> int:
    """Pixels of the lines' upright boxes, with their outlines."""
    sizes = [cv2.getTextSize(line, cv2.FONT_HERSHEY_SIMPLEX, 1.0, 6) for line, _ in LINES]
    return sum(width * (height + below) for (width, height), below in sizes)


def jpeg(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()


def clip(**scores: object) -> dict:
    known = {"clip_id": "c", "start_s": 0.0, "end_s": 3.0, "width": 1280, "height": 720, "crop": None}
    return known | {"score_errors": [("aesthetic", "no head")]} | scores


def read(
    clips: list[dict], keyframes: list[list[bytes]], rules: DecideConfig = LENIENT, **config: Any
) -> list[dict]:
    stage = ReadText(replace(TextConfig(), **config), rules)
    stage.setup()
    (row,) = stage([{"unit": "u", "source": {}, "clips": clips, "keyframes": keyframes}])
    assert list(row) == UNIT.names
    return row["clips"]


def test_share_under_rendered_lettering() -> None:
    plain, text, half = read(
        [clip(), clip(), clip()],
        [[jpeg(picture())], [jpeg(lettered())], [jpeg(lettered()), jpeg(picture(1))]],
    )
    share = letters_area() / (398 * 224)
    assert plain["text_area"] == 0.0
    assert text["text_area"] == pytest.approx(share, rel=0.25)
    assert half["text_area"] == pytest.approx(text["text_area"] / 2)
    assert text["score_errors"] == [("aesthetic", "no head")]


def ring(seed: int = 0) -> np.ndarray:
    """A soft picture with an outlined ring, which a text detector takes for an O."""
    out = picture(seed)
    for colour, width in (((255, 255, 255), 44), ((0, 0, 0), 36), ((30, 180, 40), 26)):
        cv2.ellipse(out, (200, 110), (52, 44), 0, 0, 360, colour, width, cv2.LINE_AA)
    return out


def cross(seed: int = 0) -> np.ndarray:
    """The same with a plus sign."""
    out = picture(seed)
    for colour, grow in (((255, 255, 255), 10), ((0, 0, 0), 7), ((240, 240, 240), 0)):
        for wide, high in ((70, 20), (20, 55)):
            low, far = (200 - wide - grow, 110 - high - grow), (200 + wide + grow, 110 + high + grow)
            cv2.rectangle(out, low, far, colour, -1)
    return out


@pytest.mark.parametrize("thing", [ring, cross])
def test_a_thing_of_the_shape_of_a_letter_is_no_text(
    thing: Callable[[int], np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    keyframes = [[jpeg(thing(seed))] for seed in range(4)]
    assert [found["text_area"] for found in read([clip() for _ in range(4)], keyframes)] == [0.0] * 4
    monkeypatch.setattr("curate.text_area._LARGE", 2.0)  # nothing is read: the detector alone falls for it
    fooled = read([clip() for _ in range(4)], keyframes)
    assert sum(found["text_area"] > 0.1 for found in fooled) >= 2


def test_text_outside_the_crop_does_not_count() -> None:
    """The picture is cropped to the upper 250 of 720 lines; the lettering lies below 250 * 224 / 720 = 77."""
    (found,) = read([clip(crop={"x": 0, "y": 0, "w": 1280, "h": 230})], [[jpeg(lettered())]])
    assert found["text_area"] == 0.0
    (found,) = read([clip(crop={"x": 0, "y": 200, "w": 1280, "h": 280})], [[jpeg(lettered())]])
    assert found["text_area"] == pytest.approx(letters_area() / (398 * 87), rel=0.25)


def test_frames_are_spread_over_the_keyframes() -> None:
    """Two of three: the first and the last."""
    (found,) = read([clip()], [[jpeg(picture()), jpeg(lettered()), jpeg(picture())]])
    assert found["text_area"] == 0.0
    (found,) = read([clip()], [[jpeg(picture()), jpeg(lettered()), jpeg(picture())]], frames=1)
    assert found["text_area"] > 0.1


def test_clips_that_the_rules_reject_are_not_read() -> None:
    rules = replace(
        LENIENT, motion=Range(min=0.3), text_area=Range(max=0.001), nsfw=Range(max=0.5, if_null="reject")
    )
    still, moving, unknown = read(
        [clip(motion=0.12), clip(motion=0.5), clip(motion=None)], [[jpeg(lettered())]] * 3, rules
    )
    assert still["text_area"] is None
    assert dict(still["score_errors"]) == {"aesthetic": "no head", "text_area": "not read: motion 0.12 < 0.3"}
    assert moving["text_area"] > 0.1
    assert unknown["text_area"] > 0.1  # null motion is kept


def test_switched_off_says_so() -> None:
    (found,) = read([clip()], [[jpeg(lettered())]], model="off")
    assert found["text_area"] is None
    assert "--text.model=off" in dict(found["score_errors"])["text_area"]


@pytest.mark.parametrize("broken", [b"", b"\xff\xd8\xffnot a picture"])
def test_a_broken_keyframe_is_null_with_a_reason(broken: bytes) -> None:
    bad, good, none = read([clip(), clip(), clip()], [[broken], [jpeg(lettered())], []])
    assert dict(bad["score_errors"])["text_area"] == "a keyframe could not be decoded"
    assert good["text_area"] > 0.1
    assert "no keyframe" in dict(none["score_errors"])["text_area"]


@pytest.mark.parametrize(
    ("size", "crop", "expected"),
    [
        ((1920, 1080), None, (216, 384)),  # 224 x 398, made smaller
        ((192, 108), None, (108, 192)),  # an enlarged keyframe goes back to what was filmed
        ((3980, 2240), {"x": 0, "y": 0, "w": 1000, "h": 2240}, (224, 100)),  # small, and stays so
        ((1920, 1080), {"x": 0, "y": 0, "w": 1920, "h": 5}, (32, 384)),  # a sliver, as the network needs it
    ],
)
def test_size_of_what_is_read(size: tuple[int, int], crop: dict | None, expected: tuple[int, int]) -> None:
    assert fitted(picture(), size, crop, 384).shape == (*expected, 3)


def keyframes(path: Path, n: int) -> tuple[list[bytes], tuple[int, int]]:
    """JPEGs of 224 lines at the centres of n equal parts of a film, and its size."""
    with av.open(str(path)) as film:
        pictures = [frame.to_ndarray(format="bgr24") for frame in film.decode(video=0)]
    height, width = pictures[0].shape[:2]
    chosen = [pictures[int((i + 0.5) * len(pictures) / n)] for i in range(n)]
    scaled = [cv2.resize(p, (round(width * 224 / height), 224), interpolation=cv2.INTER_AREA) for p in chosen]
    return [jpeg(p) for p in scaled], (width, height)


def test_the_film_with_much_text_stands_out(footage: Path) -> None:
    """Data-Juicer's OCR area ratios of these films are 0.067, 0.288 and 0.075."""
    areas = []
    for i in (1, 2, 3):
        jpegs, (width, height) = keyframes(footage / f"long/dj_video{i}.mp4", 6)
        (found,) = read([clip(width=width, height=height)], [jpegs], frames=6)
        areas.append(found["text_area"])
    assert 0.15 < areas[1] < 0.3
    assert areas[1] > 3 * areas[0] > 0.03
    assert areas[1] > 3 * areas[2] > 0.03


def test_footage_without_text(footage: Path) -> None:
    for name in ("0WjR6cSMi2A_3", "10Y6wIEuG00_62", "1IK5fEEVQdY_102"):
        jpegs, (width, height) = keyframes(footage / f"clips/{name}.mp4", 2)
        (found,) = read([clip(width=width, height=height)], [jpegs])
        assert found["text_area"] == 0.0


def test_subtitles_of_the_demo(tmp_path: Path) -> None:
    """Small films, whose keyframes are enlarged; the text's own box is known."""
    found = {}
    for fault in (None, "subtitle"):
        film = plan_film(0, 9, fault)
        encode(tmp_path / "film.mp4", film_frames(film), fps=film.fps, crf=18)
        jpegs, (width, height) = keyframes(tmp_path / "film.mp4", 2)
        (scored,) = read([clip(width=width, height=height)], [jpegs])
        found[fault] = scored["text_area"]
    assert film.box is not None
    assert found[None] < 0.02
    assert found["subtitle"] == pytest.approx(film.box[2] * film.box[3] / (film.width * film.height), rel=0.3)
