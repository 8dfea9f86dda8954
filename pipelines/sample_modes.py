"""The modes of `reelmill sample`: what a command asks for, and the story that it becomes.

mode = mode_of(config)                           # "extend"; raises BadInput for flags that do not go together
check_trained(mode, config, form, about)         # raises BadInput if training never showed such a thing
story = tell(mode, config, form, show)           # pieces to draw, one after another; pictures go to `show`

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

import re
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from curate.errors import BadInput
from pipelines.sample_chain import Ends, Show, Story, backward, bridge, forward
from pipelines.sample_format import Format
from pipelines.sample_pictures import first_pictures, read_picture, video_pictures
from pipelines.sample_pieces import Given, Piece, seen

if TYPE_CHECKING:
    from pipelines.sample import SampleCommand

Mode = Literal["text", "image", "extend", "loop", "connect", "edit", "keep"]


def mode_of(config: SampleCommand) -> Mode:
    """What a command asks for. Raises BadInput if its flags do not go together."""
    given = [name for name in ("image", "video", "connect", "edit") if getattr(config, name) is not None]
    if len(given) > 1:
        raise BadInput(f"--{given[0]} and --{given[1]} do not go together: give one of them.")
    if config.connect is not None and len(config.connect) != 2:
        raise BadInput(f"--connect needs two videos, not {len(config.connect)}: --connect A.mp4 B.mp4.")
    if not 0 <= config.strength <= 1:
        raise BadInput(
            f"--strength={config.strength} must be from 0 (the video as it is) to 1 (nothing left of it)."
        )
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
    chosen = [*ways, *(name for name in given if name != "video")]
    return chosen[0] if chosen else "text"  # type: ignore[return-value]


#: What of ConditionMix (train/config.py) shows a model each way of giving pictures; one of them must have a weight.
_SHOWN_BY = {
    "beginning": ("first_frame", "prefix", "random"),
    "prefix": ("prefix", "random"),
    "ending": ("suffix", "random"),
    "both ends": ("both_ends", "random"),
    "later pictures": ("both_ends", "suffix", "random"),
}


def check_trained(mode: Mode, config: SampleCommand, form: Format, about: dict[str, Any]) -> None:
    """Raise BadInput if the checkpoint was never shown in training what this command gives it."""
    trained = about.get("train", {}).get("condition")
    frames = form.piece if config.frames is None else config.frames
    is_chain = mode not in ("extend", "keep") and frames > form.piece
    if mode == "image" and frames == 1:
        raise BadInput("one picture that is given leaves nothing to draw: give --frames of at least 2.")
    if form.piece_t == 1 and (mode in ("extend", "loop", "connect") or is_chain):
        raise BadInput(
            f"this needs pieces of several latent frames, but the model was mostly trained on pictures: give --piece "
            f"of at least {form.pictures(2)} frames, or another checkpoint."
        )
    ways = {
        "text": [],
        "image": ["beginning"],
        "extend": ["prefix"] * (config.extend != "backward") + ["ending"] * (config.extend != "forward"),
        "loop": ["both ends"],
        "connect": ["both ends"],
        "edit": [],
        "keep": sorted(
            {"beginning" if first == 0 else "later pictures" for first, _ in ranges(config.keep or "")}
        ),
    }[mode]
    for way in ways + ["prefix"] * is_chain:
        if trained is not None and not any(trained.get(name) for name in _SHOWN_BY[way]):
            raise BadInput(
                f"the checkpoint was not trained to go on from a given {way}: its weights "
                f"{' and '.join(f'condition.{name}' for name in _SHOWN_BY[way])} are 0. Train with one of them."
            )


def tell(mode: Mode, config: SampleCommand, form: Format, show: Show) -> Story:
    """The story of one video. Raises BadInput, now or later, for videos and pictures that cannot be used."""
    return _STORIES[mode](config, form, show)


def _free(config: SampleCommand, form: Format, show: Show) -> Story:
    frames = form.piece if config.frames is None else config.frames
    given = () if config.image is None else (Given(0, read_picture(config.image, form.size)),)
    yield from _begin(form, given, frames, show)


def _begin(form: Format, given: tuple[Given, ...], frames: int, show: Show) -> Story:
    made = yield Piece(min(frames, form.piece), given)
    show(made)
    yield from forward(form, made, frames - len(made), show)


def _extend(config: SampleCommand, form: Format, show: Show) -> Story:
    assert config.video is not None
    frames = form.piece - form.context if config.frames is None else config.frames
    if config.extend != "forward":
        head = first_pictures(_pictures(config.video, form), form.context)
        yield from backward(form, head, frames, show)
    ends = Ends(form, None if config.only_generated else show)
    for pictures in _pictures(config.video, form):
        ends(pictures)
    if config.extend != "backward":
        yield from forward(form, ends.tail, frames, show)


def _loop(config: SampleCommand, form: Format, show: Show) -> Story:
    """With a video, `frames` are those that lead back; without one, they are all of the loop."""
    ends, back = Ends(form, show), config.frames
    if config.video is not None:
        ends = Ends(form, None if config.only_generated else show)
        for pictures in _pictures(config.video, form):
            ends(pictures)
    else:
        given = () if config.image is None else (Given(0, read_picture(config.image, form.size)),)
        lead = form.temporal * (form.piece_t - form.latents(form.side)) - form.side
        first = form.piece if config.frames is None else config.frames - lead
        if first < form.side:
            raise BadInput(
                f"--frames={config.frames} is too short for a loop, of which {lead} lead back to the beginning: give "
                f"at least {lead + form.side}."
            )
        back = None
        yield from _begin(form, given, first, ends)
    yield from bridge(form, ends.tail, ends.head, back, show)


def _connect(config: SampleCommand, form: Format, show: Show) -> Story:
    assert config.connect is not None
    before, after = config.connect
    head = first_pictures(_pictures(after, form), form.side)
    ends = Ends(form, None if config.only_generated else show)
    for pictures in _pictures(before, form):
        ends(pictures)
    yield from bridge(form, ends.tail, head, config.frames, show)
    if not config.only_generated:
        for pictures in _pictures(after, form):
            show(pictures)


def _edit(config: SampleCommand, form: Format, show: Show) -> Story:
    """Piece by piece; each but the first goes on from the pictures made last."""
    assert config.edit is not None
    pictures = (picture for part in _pictures(config.edit, form) for picture in part)
    left = config.frames
    context = source = np.empty((0, *form.size, 3), np.uint8)
    while left is None or left > 0:
        room = form.piece - len(context)
        new = list(islice(pictures, room if left is None else min(room, left)))
        if not new:
            return
        source = np.concatenate([source, np.stack(new)])
        given = (Given(0, context),) if len(context) else ()
        made = yield Piece(len(source), given, source, config.strength)
        show(made[len(context) :])
        left = None if left is None else left - (len(made) - len(context))
        kept = form.given(min(len(made), form.context)) if form.piece_t > 1 else 0
        context, source = made[len(made) - kept :], source[len(source) - kept :]


def _keep(config: SampleCommand, form: Format, show: Show) -> Story:
    assert config.video is not None
    assert config.keep is not None
    pictures = np.concatenate(list(_pictures(config.video, form)))
    assert config.frames is not None  # pipelines/generate.py has counted them
    frames = config.frames
    kept, there = np.zeros(frames, bool), min(frames, len(pictures))
    given = []
    for first, last in ranges(config.keep):
        if last >= there:
            raise BadInput(
                f"--keep {first}-{last}: there are {there} pictures at {form.fps:g} per second, 0 to {there - 1}."
            )
        if seen(first, last + 1 - first, form) is None:
            low, step = first // form.temporal * form.temporal, form.temporal
            raise BadInput(
                f"--keep {first}-{last} holds no picture whose number is a multiple of {step}, where latent frames "
                f"begin: give {low}-{last} or {first}-{low + step}."
            )
        given.append(Given(first, pictures[first : last + 1]))
        kept[first : last + 1] = True
    if kept.all():
        raise BadInput(f"--keep {config.keep} keeps all {frames} pictures: nothing is left to generate.")
    show((yield Piece(frames, tuple(given))))


def ranges(text: str) -> list[tuple[int, int]]:
    """`0-8,40` -> [(0, 8), (40, 40)]: first and last number of pictures, ascending. Raises BadInput."""
    found: list[tuple[int, int]] = []
    for part in filter(None, text.replace(" ", "").split(",")):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        first = int(match[1]) if match else 0
        last = int(match[2]) if match and match[2] else first
        if match is None or last < first or (found and first <= found[-1][1]):
            raise BadInput(
                f"--keep={text} is no list of picture numbers in rising order: write it as 0-8,40-48."
            )
        found.append((first, last))
    return found


def _pictures(video: str, form: Format) -> Iterator[np.ndarray]:
    return video_pictures(video, form.fps, form.size)


_STORIES = {
    "text": _free,
    "image": _free,
    "extend": _extend,
    "loop": _loop,
    "connect": _connect,
    "edit": _edit,
    "keep": _keep,
}
