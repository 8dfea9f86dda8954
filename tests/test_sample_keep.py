"""Keeping parts of a video of any length: every picture is in its place, and every part is seen where it begins."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from curate.errors import BadInput
from pipelines.sample import SampleCommand
from pipelines.sample_format import Format
from pipelines.sample_keep import keep, ranges
from pipelines.sample_pieces import Piece, seen_of
from pipelines.sample_read import Files

FORMS = [
    Format(2, 2, 8.0, 4, 1, 4, 2, 1, 1),
    Format(2, 2, 8.0, 4, 1, 4, 5, 5, 1),
    Format(2, 2, 8.0, 4, 1, 4, 8, 13, 5),
    Format(2, 2, 8.0, 4, 1, 8, 8, 9, 9),
    Format(2, 2, 8.0, 1, 1, 1, 6, 3, 2),
    Format(2, 2, 8.0, 4, 1, 8, 8, 9, 9, is_causal=False),
]


class Numbered(Files):
    """A video whose pictures hold their number."""

    def __init__(self, form: Format, count: int) -> None:
        super().__init__(form, {("v.mp4", form.fps): count})

    def video(self, path: str) -> Iterator[np.ndarray]:
        count = self.count(path)
        return (numbered(range(first, min(count, first + 16))) for first in range(0, count, 16))


def numbered(numbers: range) -> np.ndarray:
    return np.array(numbers).reshape(-1, 1, 1, 1).repeat(3, axis=3)


def told(form: Format, text: str, count: int, frames: int | None = None) -> tuple[list[int], list[Piece]]:
    """The numbers shown by a model that counts on from what is given, and the pieces."""
    config = SampleCommand("run", "out", video="v.mp4", keep=text, frames=frames)
    shown: list[np.ndarray] = []
    pieces = []
    story = keep(config, form, shown.append, Numbered(form, count))
    piece = next(story, None)
    while piece is not None:
        pieces.append(piece)
        given = piece.given[0]
        first = int(given.pictures[0, 0, 0, 0]) - given.at
        try:
            piece = story.send(numbered(range(first, first + piece.frames)))
        except StopIteration:
            break
    return np.concatenate(shown).ravel()[::3].tolist(), pieces


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("text", ["0-8,40-48", "7", "3-9,11-30,33-39,70-99", "99", "0", "50-59", "12,31,66"])
@pytest.mark.parametrize(("count", "frames"), [(100, None), (100, 130), (200, 110)])
def test_every_picture_is_in_its_place(form: Format, text: str, count: int, frames: int | None) -> None:
    found, pieces = told(form, text, count, frames)
    assert found == list(range(frames or count))
    kept = {n for first, last in ranges(text) for n in range(first, last + 1)}
    drawn: set[int] = set()
    for piece in pieces:
        assert piece.frames <= form.piece
        assert len(seen_of(piece, form)) == len(piece.given) > 0
        first = int(piece.given[0].pictures[0, 0, 0, 0]) - piece.given[0].at
        given = {int(n) for one in piece.given for n in one.pictures[:, 0, 0, 0]}
        drawn |= set(range(first, first + piece.frames)) - given
    assert set(found) - kept <= drawn
    # Each part that something leads to is seen by the piece before it.
    for (_, before), (first, _) in itertools.pairwise([(-1, -1), *ranges(text)]):
        if first > before + 1:
            assert any(first in one.pictures[:, 0, 0, 0] for piece in pieces for one in piece.given if one.at)


def test_short_videos_are_drawn_at_once() -> None:
    form = FORMS[1]
    found, (piece,) = told(form, "0-4,8-12", 17)
    assert found == list(range(17))
    assert [(given.at, len(given.pictures)) for given in piece.given] == [(0, 5), (8, 5)]


def test_parts_that_cannot_be_led_to_are_refused() -> None:
    """After two pictures at most, when no picture of the part begins a latent frame."""
    form = FORMS[1]
    for text, message in (("0-8,10,20-30", "keep 9-10"), ("0-8,11", "keep 9-11")):
        with pytest.raises(BadInput, match=message):
            told(form, text, 60)
    assert told(form, "0-8,10-13", 60)[0] == list(range(60))
    assert told(form, "0-8,12", 60)[0] == list(range(60))


@pytest.mark.parametrize("text", ["", ",", "a", "8-4", "0-8,4-9", "0-8,8", "-3", "1-2-3", "٣", "9999999999"])
def test_what_is_no_list_of_pictures_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="is no list of picture numbers in rising order"):
        ranges(text)
    assert ranges(" 0-8, 40 ,41-41") == [(0, 8), (40, 40), (41, 41)]


def test_few_pictures_of_a_long_video_are_held(tmp_path: Path) -> None:
    """Those of a kept part are handed on a few at a time."""
    most = 0

    def show(pictures: np.ndarray) -> None:
        nonlocal most
        most = max(most, len(pictures))

    form = FORMS[1]
    config = SampleCommand("run", "out", video="v.mp4", keep="100-9000")
    story = keep(config, form, show, Numbered(form, 10_000))
    piece = next(story, None)
    while piece is not None:
        try:
            piece = story.send(numbered(range(piece.frames)))
        except StopIteration:
            break
    assert most <= 17
