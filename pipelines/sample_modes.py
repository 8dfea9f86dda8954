"""The modes of `reelmill sample`: what a command asks for, and the story that it becomes.

mode = mode_of(config)                           # "extend"; raises BadInput for flags that do not go together
story = tell(mode, config, form, show, read)     # pieces to draw, one after another; pictures go to `show`

| mode    | flags                       | the video that comes out                                              |
| ------- | --------------------------- | --------------------------------------------------------------------- |
| text    |                             | `frames` pictures                                                     |
| image   | --image P                   | P, then generated pictures; `frames` in all                           |
| extend  | --video V --extend WAY      | V with `frames` new pictures before it, after it, or on both sides    |
| loop    | --loop [--video V]          | V (or a generated video) and new pictures that lead back to its start |
| connect | --connect A B               | A, new pictures that lead over, B                                     |
| edit    | --edit V --strength S       | V drawn anew from noise of level S (SDEdit, arXiv:2108.01073)         |
| keep    | --video V --keep 0-8,40-48  | V, all but these pictures generated                                   |

Given pictures are in it with their own pixels, scaled to its size. `--only_generated` leaves V, A and B out.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Literal

import numpy as np

from curate.errors import BadInput
from pipelines.sample_chain import Ends, Show, Story, backward, bridge, forward
from pipelines.sample_format import Format
from pipelines.sample_keep import keep, ranges
from pipelines.sample_pictures import first_pictures
from pipelines.sample_pieces import Given, Piece
from pipelines.sample_read import Files

if TYPE_CHECKING:
    from pipelines.sample import SampleCommand

#: Of --edit, unless told otherwise: most of what is shown stays, and the prompt can still change it.
STRENGTH = 0.6
Mode = Literal["text", "image", "extend", "loop", "connect", "edit", "keep"]


def mode_of(config: SampleCommand) -> Mode:
    """What a command asks for. Raises BadInput if its flags do not go together."""
    given = [name for name in ("image", "video", "connect", "edit") if getattr(config, name) is not None]
    if len(given) > 1:
        raise BadInput(f"--{given[0]} and --{given[1]} do not go together: give one of them.")
    if config.connect is not None and len(config.connect) != 2:
        raise BadInput(f"--connect needs two videos, not {len(config.connect)}: --connect A.mp4 B.mp4.")
    if config.strength is not None:
        if not 0 <= config.strength <= 1:
            raise BadInput(
                f"--strength={config.strength} must be from 0 (the video as it is) to 1 (nothing left of it)."
            )
        if config.edit is None:
            raise BadInput("--strength says how much of a video is drawn anew: give --edit FILE with it.")
    ways = [name for name in ("extend", "keep") if getattr(config, name) is not None]
    ways += ["loop"] if config.loop else []
    if len(ways) > 1:
        raise BadInput(f"--{ways[0]} and --{ways[1]} do not go together: give one of them.")
    if config.video is not None and not ways:
        raise BadInput("--video needs to know what for: give --extend, --loop or --keep with it.")
    for name in ("extend", "keep"):
        if name in ways and config.video is None:
            raise BadInput(f"--{name} needs a video: give --video FILE.")
    if config.loop and given and given[0] in ("connect", "edit"):
        raise BadInput(f"--loop and --{given[0]} do not go together: give one of them.")
    if config.keep is not None:
        ranges(config.keep)
    if (
        config.only_generated
        and config.extend is None
        and config.connect is None
        and not (config.loop and config.video is not None)
    ):
        raise BadInput(
            "--only_generated leaves out videos that are given: give --extend, --connect, or --loop with --video."
        )
    chosen = [*ways, *(name for name in given if name != "video")]
    return chosen[0] if chosen else "text"  # type: ignore[return-value]


def tell(mode: Mode, config: SampleCommand, form: Format, show: Show, read: Files) -> Story:
    """The story of one video. Raises BadInput, now or later, for videos and pictures that cannot be used."""
    return _STORIES[mode](config, form, show, read)


def strength_of(config: SampleCommand) -> float:
    """How much of a video that is edited is drawn anew, 0 to 1."""
    return STRENGTH if config.strength is None else config.strength


def _free(config: SampleCommand, form: Format, show: Show, read: Files) -> Story:
    frames = form.piece if config.frames is None else config.frames
    if config.image is not None and frames == 1:
        raise BadInput("one picture that is given leaves nothing to draw: give --frames of at least 2.")
    given = () if config.image is None else (Given(0, read.picture(config.image)),)
    yield from _begin(form, given, frames, show)


def _begin(form: Format, given: tuple[Given, ...], frames: int, show: Show) -> Story:
    made = yield Piece(min(frames, form.piece), given)
    show(made)
    yield from forward(form, made, frames - len(made), show)


def _extend(config: SampleCommand, form: Format, show: Show, read: Files) -> Story:
    assert config.video is not None
    frames = max(1, form.piece - form.context) if config.frames is None else config.frames
    if config.extend != "forward":
        head = first_pictures(read.video(config.video), form.context)
        yield from backward(form, head, frames, show)
    ends = Ends(form, None if config.only_generated else show)
    for pictures in read.video(config.video):
        ends(pictures)
    if config.extend != "backward":
        yield from forward(form, ends.tail, frames, show)


def _loop(config: SampleCommand, form: Format, show: Show, read: Files) -> Story:
    """With a video, `frames` are those that lead back; without one, they are all of the loop."""
    ends, back = Ends(form, show), config.frames
    if config.video is not None:
        ends = Ends(form, None if config.only_generated else show)
        for pictures in read.video(config.video):
            ends(pictures)
    else:
        given = () if config.image is None else (Given(0, read.picture(config.image)),)
        lead = form.temporal * (form.piece_t - form.latents(form.side)) - form.before(form.side)
        first = form.piece if config.frames is None else config.frames - lead
        if first < form.side:
            raise BadInput(
                f"--frames={config.frames} is too short for a loop, of which {lead} lead back to the beginning: give "
                f"at least {lead + form.side}."
            )
        back = None
        yield from _begin(form, given, first, ends)
    yield from bridge(form, ends.tail, ends.head, back, show)


def _connect(config: SampleCommand, form: Format, show: Show, read: Files) -> Story:
    assert config.connect is not None
    before, after = config.connect
    head = first_pictures(read.video(after), form.side)
    ends = Ends(form, None if config.only_generated else show)
    for pictures in read.video(before):
        ends(pictures)
    yield from bridge(form, ends.tail, head, config.frames, show)
    if not config.only_generated:
        for pictures in read.video(after):
            show(pictures)


def _edit(config: SampleCommand, form: Format, show: Show, read: Files) -> Story:
    """Piece by piece; each but the first goes on from the pictures made last."""
    assert config.edit is not None
    if config.frames is not None and config.frames > (count := read.count(config.edit)):
        raise BadInput(
            f"--frames={config.frames}: the video to edit has {count} pictures at {form.fps:g} per second."
        )
    pictures = (picture for part in read.video(config.edit) for picture in part)
    left = config.frames
    context = source = np.empty((0, *form.size, 3), np.uint8)
    while left is None or left > 0:
        room = form.piece - len(context)
        new = list(islice(pictures, room if left is None else min(room, left)))
        if not new:
            return
        source = np.concatenate([source, np.stack(new)])
        given = (Given(0, context),) if len(context) else ()
        made = yield Piece(len(source), given, source, strength_of(config))
        show(made[len(context) :])
        left = None if left is None else left - (len(made) - len(context))
        kept = form.before(min(len(made), form.context)) if form.piece_t > 1 else 0
        context, source = made[len(made) - kept :], source[len(source) - kept :]


_STORIES = {
    "text": _free,
    "image": _free,
    "extend": _extend,
    "loop": _loop,
    "connect": _connect,
    "edit": _edit,
    "keep": keep,
}
