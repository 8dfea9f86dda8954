"""What a video will take, before anything is drawn: its story told with blanks in the place of pictures.

plan = rehearse(mode, config, form, counts={})   # raises BadInput for all that cannot be told to its end
plan.frames, plan.pieces                         # 960, {17: 80}: 80 pieces of 17 pictures
check_trained(plan, about)                       # raises BadInput if training never showed such a thing
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.errors import BadInput
from pipelines.sample_format import Format
from pipelines.sample_modes import Mode, tell
from pipelines.sample_pieces import Piece, seen_of
from pipelines.sample_read import Blanks, blank

if TYPE_CHECKING:
    from pipelines.sample import SampleCommand


@dataclass(frozen=True, order=True)
class Seen:
    """What a piece gives the model to see.

    Attributes:
        beginning: latent frames of its beginning.
        ending: latent frames of its ending, encoded by themselves.
        elsewhere: whether there is anything else.
        is_causal: whether the beginning lies in the clip's own latent frames.
    """

    beginning: int = 0
    ending: int = 0
    elsewhere: bool = False
    is_causal: bool = True

    @classmethod
    def of(cls, piece: Piece, form: Format) -> Seen:
        """What is seen of a piece."""
        beginning, ending, elsewhere = 0, 0, False
        for _, first, count in seen_of(piece, form):
            if first == 0:
                beginning = form.latents(count)
            elif form.latents(first + count) == form.latents(piece.frames) and not ending:
                ending = form.latents(count)
            else:
                elsewhere = True
        return cls(beginning, ending, elsewhere, form.is_causal)

    @property
    def shown_by(self) -> tuple[str, ...]:
        """Weights of ConditionMix (train/config.py) of which one must be above 0; none where nothing is given."""
        if self.elsewhere:
            return ("random",)
        if self.ending:
            if not self.beginning:
                return "suffix", "random"
            return ("both_ends", "random") if self.beginning == self.ending == 1 else ("random",)
        if self.beginning and not self.is_causal:  # there is no prefix then
            return "first_frame", "random"
        if self.beginning:
            return ("first_frame", "prefix", "random") if self.beginning == 1 else ("prefix", "random")
        return ()

    def __str__(self) -> str:
        if self.elsewhere:
            return "pictures in its middle"
        parts = [
            f"its {name} ({count} latent frame{'s' * (count > 1)})"
            for name, count in (("beginning", self.beginning), ("ending", self.ending))
            if count
        ]
        return " and ".join(parts)


@dataclass(frozen=True)
class Plan:
    """What the story of a video comes to.

    Attributes:
        frames: pictures of the video.
        pieces: how many pieces there are, by their pictures.
        seen: the kinds of what is given, of all pieces.
    """

    frames: int
    pieces: dict[int, int]
    seen: frozenset[Seen]

    @property
    def longest(self) -> int:
        """Pictures of the longest piece."""
        return max(self.pieces, default=1)


def rehearse(mode: Mode, config: SampleCommand, form: Format, counts: dict[tuple[str, float], int]) -> Plan:
    """Tell the story with blanks; `counts` as in `Files`. Raises BadInput where the story does."""
    form = replace(form, height=0, width=0)
    frames, pieces, kinds = 0, Counter[int](), set()

    def show(pictures: np.ndarray) -> None:
        nonlocal frames
        frames += len(pictures)

    story = tell(mode, config, form, show, Blanks(form, counts))
    piece = next(story, None)
    while piece is not None:
        pieces[piece.frames] += 1
        kinds.add(Seen.of(piece, form))
        try:
            piece = story.send(blank(piece.frames))
        except StopIteration:
            break
    return Plan(frames, dict(pieces), frozenset(kinds))


def check_trained(plan: Plan, about: dict[str, Any]) -> None:
    """Raise BadInput if the checkpoint was never shown in training what a piece of the plan gives it."""
    trained = about.get("train", {}).get("condition")
    if trained is None:  # it does not tell
        return
    keyframes = about.get("latents", {}).get("keyframes")
    for seen in sorted(plan.seen):
        if seen.beginning and not seen.is_causal and keyframes == 0:
            raise BadInput(
                "the checkpoint was never shown a first picture encoded by itself, as it must be with this VAE: its "
                "latents have none. Encode the dataset with --frames.keyframes of at least 1, and train on that."
            )
        names = seen.shown_by
        if names and not any(trained.get(name) for name in names):
            is_one = len(names) == 1
            less = " Or give --context=1." if max(seen.beginning, seen.ending) > 1 else ""
            raise BadInput(
                f"the checkpoint was not trained to draw a clip with {seen} given: "
                f"{' and '.join(f'condition.{name}' for name in names)} {'is' if is_one else 'are'} 0. Train with "
                f"{'it' if is_one else 'one of them'} above 0.{less}"
            )
