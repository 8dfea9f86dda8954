"""Videos of more than one piece: each goes on from the last pictures of the one before, or before the first.

    story = forward(form, tail, frames=480, show=file.write)
    piece = next(story)                                  # what to draw next
    piece = story.send(pictures)                         # ... until StopIteration

A story hands pictures to `show` in the order of the video as soon as they are settled and keeps but a few, so that
memory does not grow with the length. Many stories can be told side by side: see pipelines/generate.py.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator
from pathlib import Path

import numpy as np

from curate.errors import BadInput
from pipelines.sample_format import Format
from pipelines.sample_pieces import Given, Piece

Show = Callable[[np.ndarray], None]
#: Yields pieces and is sent their pictures (frames, H, W, 3).
Story = Generator[Piece, np.ndarray, None]


class Ends:
    """Passes pictures on to `show` and remembers the first and the last of them."""

    def __init__(self, form: Format, show: Show | None) -> None:
        """Without `show` the pictures are only remembered."""
        self._most, self._show = max(form.context, form.side), show
        self.head, self.tail = np.empty(0), np.empty(0)

    def __call__(self, pictures: np.ndarray) -> None:
        if len(self.head) < self._most:
            self.head = _joined(self.head, pictures)[: self._most].copy()
        # A copy, since a view would keep all the others.
        self.tail = _joined(self.tail, pictures)[-self._most :].copy()
        if self._show is not None:
            self._show(pictures)


def forward(
    form: Format, tail: np.ndarray, frames: int, show: Show
) -> Generator[Piece, np.ndarray, np.ndarray]:
    """`frames` pictures after those of `tail`, of which the last few are seen; returns the new tail."""
    if frames > 0:
        _check(form)
    while frames > 0:
        context = tail[-form.before(min(len(tail), form.context)) :]
        new = min(frames, form.piece - len(context))
        made = yield Piece(len(context) + new, (Given(0, context),))
        fresh = made[len(context) :]
        show(fresh)
        frames -= new
        tail = _joined(context, fresh)[-max(form.context, form.side) :]
    return tail


def backward(form: Format, head: np.ndarray, frames: int, show: Show) -> Story:
    """`frames` pictures before those of `head`. The last piece is drawn first, so until then they lie in files."""
    _check(form)
    with tempfile.TemporaryDirectory(prefix="reelmill-") as folder:
        files: list[Path] = []
        while frames > 0:
            ending = head[: form.given(min(len(head), form.context))]
            most = form.temporal * (form.piece_t - form.latents(len(ending)))
            # The ending must begin a latent frame; what is too much at the beginning goes.
            new = min(-(-frames // form.temporal) * form.temporal, most)
            made = yield Piece(new + len(ending), (Given(new, ending),))
            fresh = made[:new][-frames:]
            files.append(Path(folder) / f"{len(files)}.npy")
            np.save(files[-1], fresh)
            frames -= len(fresh)
            head = _joined(fresh, ending)[: form.context]
        for file in reversed(files):
            show(np.load(file, mmap_mode="r"))


def bridge(form: Format, tail: np.ndarray, head: np.ndarray, frames: int | None, show: Show) -> Story:
    """About `frames` pictures that lead from `tail` to `head`; null fills one piece.

    Rounded up so that `head` begins a latent frame: 4k+3, for a VAE of 4 pictures to a latent frame.
    """
    _check(form)
    ending = head[: form.given(min(len(head), form.side))]
    most = form.temporal * (form.piece_t - form.latents(len(ending)))  # picture at which it begins, at most
    if frames is not None and frames > most - len(_before(tail, form)):
        lead = frames - (most - form.before(form.side))
        tail = yield from forward(form, tail, lead, show)
        frames -= lead
    context = _before(tail, form)
    wanted = most if frames is None else len(context) + frames
    at = min(-(-wanted // form.temporal) * form.temporal, most)
    made = yield Piece(at + len(ending), (Given(0, context), Given(at, ending)))
    show(made[len(context) : at])


def between(form: Format, tail: np.ndarray, head: np.ndarray, frames: int, show: Show) -> Story:
    """Exactly `frames` pictures that lead from `tail` to `head`.

    Where `head` does not begin a latent frame, the model sees it from its first picture that does. Either it has such
    a picture, or `frames` are at least those of a latent frame but one.
    """
    _check(form)
    context = _before(tail, form)
    at = len(context) + frames
    skip = -at % form.temporal
    ending = head[: skip + form.given(max(1, min(len(head) - skip, form.side)))]
    if len(ending) <= skip or form.latents(at + len(ending)) > form.piece_t:
        # The last piece takes as many as make `head` begin a latent frame, the pieces before it the others.
        most = form.temporal * (form.piece_t - form.latents(form.side)) - form.before(form.side)
        last = min(most, (frames + 1) // form.temporal * form.temporal - 1)
        assert last > 0, "the last pictures and the next ones lie in the same latent frame"
        tail = yield from forward(form, tail, frames - last, show)
        context, ending = _before(tail, form), head[: form.given(min(len(head), form.side))]
        at = len(context) + last
    made = yield Piece(at + len(ending), (Given(0, context), Given(at, ending)))
    show(made[len(context) : at])


def _before(tail: np.ndarray, form: Format) -> np.ndarray:
    """What of `tail` a piece between two ends goes on from."""
    return tail[-form.before(min(len(tail), form.side)) :]


def _check(form: Format) -> None:
    """Raise BadInput if a piece has no room for both what is given and what is drawn."""
    if form.piece_t == 1:
        raise BadInput(
            "this needs pieces of several latent frames, but the model was mostly trained on pictures: give --piece "
            f"of at least {form.pictures(2)} frames, or another checkpoint."
        )


def _joined(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return np.concatenate([before, after]) if len(before) else after
