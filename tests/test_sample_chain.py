"""Chains of pieces: every picture once and in order, whatever the grid of the VAE, in the memory of a few."""

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.sample_chain import Ends, Story, backward, between, bridge, forward
from pipelines.sample_files import Mp4File
from pipelines.sample_format import Format
from pipelines.sample_pieces import Piece, seen
from pipelines.sample_sheet import Thumbnails


def form_of(piece_t: int, temporal: int = 4, grain: int = 4, context: int = 5, side: int = 1) -> Format:
    return Format(2, 2, 8.0, temporal, 1, grain, piece_t, context, side)


FORMS = [
    form_of(2, context=1),
    form_of(5),
    form_of(5, side=5),
    form_of(7, context=17, side=9),
    form_of(5, temporal=4, grain=8, context=9, side=1),  # tubelets of two latent frames
    form_of(4, temporal=8, grain=8, context=9, side=9),  # LTX-Video
    form_of(6, temporal=1, grain=1, context=3, side=2),
    replace(form_of(7, context=9, side=5), is_causal=False),  # HunyuanVideo
    replace(form_of(5, grain=8, context=9, side=9), is_causal=False),  # CogVideoX
]


def numbered(first: int, count: int) -> np.ndarray:
    """Pictures (count, 1, 1, 3) that hold their number."""
    return np.arange(first, first + count).reshape(-1, 1, 1, 1).repeat(3, axis=3)


def run(
    story: Story, form: Format, answer: Callable[[Piece], np.ndarray], on_grid: bool = True
) -> list[Piece]:
    """Tell a story; checks every piece on the way."""
    pieces = []
    piece = next(story, None)
    while piece is not None:
        pieces.append(piece)
        assert piece.frames <= form.piece
        for given in piece.given:
            place = seen(given.at, len(given.pictures), form)
            assert place is not None
            if on_grid:  # all that is given stands on the grid of latent frames
                assert place == (given.at, len(given.pictures))
            assert given.at + len(given.pictures) <= piece.frames
        assert sum(len(given.pictures) for given in piece.given) < piece.frames
        try:
            piece = story.send(answer(piece))
        except StopIteration:
            break
    return pieces


def counting_on(piece: Piece) -> np.ndarray:
    """A model that counts: the pictures before, between and after the given ones have the numbers in between."""
    given = piece.given[0]
    return numbered(int(given.pictures[0, 0, 0, 0]) - given.at, piece.frames)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("frames", [1, 4, 7, 16, 41])
@pytest.mark.parametrize("there", [1, 3, 30])
def test_forward_and_backward_show_every_picture_once(form: Format, frames: int, there: int) -> None:
    shown: list[np.ndarray] = []
    pieces = run(forward(form, numbered(100, there), frames, shown.append), form, counting_on)  # type: ignore[arg-type]
    assert np.concatenate(shown).ravel()[::3].tolist() == list(range(100 + there, 100 + there + frames))
    assert len(pieces) <= -(-frames // (form.piece - form.context)) + 1
    shown.clear()
    run(backward(form, numbered(100, there), frames, shown.append), form, counting_on)
    assert np.concatenate(shown).ravel()[::3].tolist() == list(range(100 - frames, 100))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("frames", [None, 1, 7, 12, 50])
@pytest.mark.parametrize("there", [1, 3, 30])
def test_bridges_lead_from_end_to_beginning(form: Format, frames: int | None, there: int) -> None:
    """The next picture after those shown is the first of the other video, to the picture."""
    shown: list[np.ndarray] = []
    head = numbered(5000, there)
    pieces = run(bridge(form, numbered(100, there), head, frames, shown.append), form, counting_on)
    found = np.concatenate(shown).ravel()[::3].tolist()
    assert found == list(range(100 + there, 100 + there + len(found)))
    last = pieces[-1]
    beginning, ending = last.given
    assert ending.at - len(beginning.pictures) == len(shown[-1])
    assert ending.pictures[0, 0, 0, 0] == 5000
    if frames is not None:
        assert frames <= len(found) < frames + form.temporal
    else:
        assert len(pieces) == 1
        assert last.frames == form.piece


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("frames", [1, 2, 3, 5, 8, 23, 50])
@pytest.mark.parametrize("there", [8, 9, 30])
def test_what_is_between_two_parts_is_filled_to_the_picture(form: Format, frames: int, there: int) -> None:
    """Whatever the number: the model sees both ends in the last piece, and so does every part of a latent frame."""
    shown: list[np.ndarray] = []
    head = numbered(100 + there + frames, there)
    pieces = run(between(form, numbered(100, there), head, frames, shown.append), form, counting_on, False)
    found = np.concatenate(shown).ravel()[::3].tolist()
    assert found == list(range(100 + there, 100 + there + frames))
    assert [given.at == 0 for given in pieces[-1].given] == [True, False]
    # One picture that begins no latent frame: a piece before it makes up for that.
    if frames >= form.temporal:
        shown.clear()
        pieces = run(between(form, numbered(100, there), head[:1], frames, shown.append), form, counting_on)
        assert np.concatenate(shown).ravel()[::3].tolist() == found


def test_the_grid_of_given_pictures() -> None:
    form = form_of(20)
    assert [form.given(n) for n in (1, 4, 5, 8, 9)] == [1, 1, 5, 5, 9]
    assert seen(0, 9, form) == (0, 9)
    assert seen(0, 11, form) == (0, 9)
    assert seen(40, 9, form) == (40, 9)
    assert seen(38, 9, form) == (40, 5)
    assert seen(41, 3, form) is None
    assert seen(41, 4, form) == (44, 1)


def test_ends_are_remembered() -> None:
    shown: list[np.ndarray] = []
    ends = Ends(form_of(5, context=5, side=1), shown.append)
    for first, count in ((0, 2), (2, 2), (4, 7), (11, 1)):
        ends(numbered(first, count))
    assert ends.head.ravel()[::3].tolist() == [0, 1, 2, 3, 4]
    assert ends.tail.ravel()[::3].tolist() == [7, 8, 9, 10, 11]
    assert sum(map(len, shown)) == 12


def peak_bytes(seconds: int, folder: Path) -> int:
    """Most memory of Python and NumPy while a video of so many seconds is told and written."""
    form = Format(96, 128, 16.0, 4, 8, 4, 5, 5, 1)
    rng = np.random.default_rng(0)
    tracemalloc.start()
    with Mp4File(folder / f"{seconds}.mp4", form.size, form.fps) as file:
        small = Thumbnails()

        def show(pictures: np.ndarray) -> None:
            file.write(pictures)
            small.write(pictures)

        story = forward(form, np.zeros((5, *form.size, 3), np.uint8), 16 * seconds, show)
        piece = next(story)
        while True:
            made = np.full((piece.frames, *form.size, 3), rng.integers(256), np.uint8)
            try:
                piece = story.send(made)
            except StopIteration:
                break
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert small.seen == 16 * seconds
    return peak


def test_a_minute_takes_the_memory_of_seconds(tmp_path: Path) -> None:
    """The pictures of a minute are 35 MB. See tests/bench/sample_memory.py for the whole command."""
    pictures_bytes = 960 * 96 * 128 * 3
    few, many = peak_bytes(7, tmp_path), peak_bytes(60, tmp_path)
    assert many < 1.1 * few + 100_000
    assert many < pictures_bytes / 4


def test_thumbnails_are_evenly_spaced_and_few() -> None:
    small = Thumbnails()
    for first in range(0, 1000, 7):
        small.write(numbered(first, min(7, 1000 - first)).astype(np.uint16))
    assert len(small.kept) <= Thumbnails.MOST
    found = small.chosen().ravel()[::3].tolist()
    assert (found[0], found[-1]) == (0, 999)
    assert np.abs(np.diff(found) - 200).max() <= 16
    short = Thumbnails()
    short.write(numbered(0, 9))
    assert short.chosen().ravel()[::3].tolist() == [0, 2, 3, 5, 6, 8]
