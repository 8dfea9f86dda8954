"""`--keep 0-8,40-48`: parts of a video stay, and what lies between them is drawn.

    ranges("0-8,40")                                 # [(0, 8), (40, 40)]
    story = keep(config, form, show, read)           # for pipelines/sample_modes.py

A video of one piece is drawn at once, and the model sees all that is kept. A longer one becomes a chain: what comes
before the first part is drawn backwards, what lies between two parts leads from the one to the other, and the rest
goes on from the last; the model then sees those ends of the parts that a piece has room for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from curate.errors import BadInput
from pipelines.sample_chain import Ends, Show, Story, backward, between, forward
from pipelines.sample_format import Format
from pipelines.sample_pieces import Given, Piece, seen
from pipelines.sample_read import Files

if TYPE_CHECKING:
    from pipelines.sample import SampleCommand

PART = 16  # pictures of a kept part that are handed on at a time


def ranges(text: str) -> list[tuple[int, int]]:
    """`0-8,40` -> [(0, 8), (40, 40)]: first and last number of pictures, ascending. Raises BadInput."""
    found: list[tuple[int, int]] = []
    for part in filter(None, text.replace(" ", "").split(",")):
        match = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", part)
        first = int(match[1]) if match else 0
        last = int(match[2]) if match and match[2] else first
        if match is None or last < first or (found and first <= found[-1][1]):
            found.clear()
            break
        found.append((first, last))
    if not found:
        raise BadInput(f"--keep={text} is no list of picture numbers in rising order: write it as 0-8,40-48.")
    return found


def keep(config: SampleCommand, form: Format, show: Show, read: Files) -> Story:
    """The video with all but the kept pictures drawn. Raises BadInput for parts that are not there."""
    assert config.video is not None
    assert config.keep is not None
    parts, count = ranges(config.keep), read.count(config.video)
    frames = count if config.frames is None else config.frames
    there = min(frames, count)
    for first, last in parts:
        if last >= there:
            raise BadInput(
                f"--keep {first}-{last}: there are {there} pictures at {form.fps:g} per second, 0 to {there - 1}."
            )
    if sum(last + 1 - first for first, last in parts) == frames:
        raise BadInput(f"--keep {config.keep} keeps all {frames} pictures: nothing is left to generate.")
    pictures = (picture for block in read.video(config.video) for picture in block)
    if frames <= form.piece:
        yield from _at_once(form, parts, np.stack(list(islice(pictures, there))), frames, show)
    else:
        yield from _in_pieces(form, parts, pictures, frames, show)


def _at_once(
    form: Format, parts: list[tuple[int, int]], pictures: np.ndarray, frames: int, show: Show
) -> Story:
    for first, last in parts:
        if seen(first, last + 1 - first, form) is None:
            low, step = first // form.temporal * form.temporal, form.temporal
            raise BadInput(
                f"--keep {first}-{last} holds no picture whose number is a multiple of {step}, where latent frames "
                f"begin: give {low}-{last} or {first}-{low + step}."
            )
    given = tuple(Given(first, pictures[first : last + 1]) for first, last in parts)
    show((yield Piece(frames, given)))


def _in_pieces(
    form: Format, parts: list[tuple[int, int]], pictures: Iterator[np.ndarray], frames: int, show: Show
) -> Story:
    ends, done = Ends(form, show), 0
    for first, last in parts:
        gap, left = first - done, last + 1 - first
        next(islice(pictures, gap, gap), None)  # these are not looked at
        head = np.stack(list(islice(pictures, min(left, form.context + form.temporal))))
        if gap and not done:
            yield from backward(form, head, gap, ends)
        elif gap:
            if left <= -(1 + gap) % form.temporal and gap < form.temporal - 1:  # see `between`
                raise BadInput(
                    f"--keep {first}-{last} is too little to lead to over {gap} pictures: keep {done}-{last} in one "
                    "part with what is before it."
                )
            yield from between(form, ends.tail, head, gap, ends)
        ends(head)
        left -= len(head)
        while left:
            block = np.stack(list(islice(pictures, min(left, PART))))
            ends(block)
            left -= len(block)
        done = last + 1
    yield from forward(form, ends.tail, frames - done, ends)
