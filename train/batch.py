"""From clip numbers to what one forward pass needs: noised packs, targets, and which tokens count.

batch = make_batch(data, pack, epoch, config, shape)
loss = token_errors(dit(batch.pack), batch).sum() / tokens_of_all_ranks_and_packs
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from model.config import DiTConfig
from model.flow import mix, velocity
from model.pack import Clip, Pack, Span, make_pack
from model.patches import grid, patchify
from model.token_drop import drop_tokens
from train.blend import Choice
from train.caption_features import outline, shown
from train.conditions import MODES, ClipTable, Condition, draw_conditions
from train.config import TrainConfig
from train.data import ClipEntry, DamagedClip, Given, LatentDataset
from train.draws import Draw, draw_clip, seeded


@dataclass(frozen=True)
class Batch:
    """One pack of one rank.

    Attributes:
        pack: the model's input.
        target: (S, token_width) velocities; zero at tokens of spans.
        is_generated: (S,) bool, the tokens that have a loss: all but those of what is given.
        mode: (S,) int64, number of the clip's way of asking, of MODES.
        level: (S,) noise level of the clip that the token belongs to.
        generated: tokens that have a loss, by mode.
        captions: what was drawn of the captions of each clip.
        conditions: what each clip is given.
        clip_ids: the clips.
        damaged: clips that could not be read, and why: they are left out.
    """

    pack: Pack
    target: Tensor
    is_generated: Tensor
    mode: Tensor
    level: Tensor
    generated: tuple[int, ...]
    captions: tuple[Choice, ...]
    conditions: tuple[Condition, ...]
    clip_ids: tuple[str, ...]
    damaged: tuple[tuple[str, str], ...]

    @property
    def n_tokens(self) -> int:
        """Tokens of clips of the data; none in the batch of a rank that has nothing to do."""
        return len(self.target) if self.conditions else 0

    def to(self, device: torch.device) -> Batch:
        if device.type == "cpu":
            return self
        moved = {name: x.to(device, non_blocking=True) for name, x in self._tensors().items()}
        return replace(self, pack=self.pack.to(device), **moved)  # type: ignore[arg-type]

    def pinned(self) -> Batch:
        """In page-locked memory, from which a GPU copies while it computes."""
        held = {name: x.pin_memory() for name, x in self._tensors().items()}
        return replace(self, pack=self.pack.pinned(), **held)  # type: ignore[arg-type]

    def _tensors(self) -> dict[str, Tensor]:
        return {f.name: x for f in fields(self) if isinstance(x := getattr(self, f.name), Tensor)}


#: A clip's latent, its texts, and what is given of it; or why it cannot be read.
Read = tuple[Tensor, dict[str, Tensor], Given] | str


def make_batch(
    data: LatentDataset,
    numbers: list[int],
    epoch: int,
    config: TrainConfig,
    shape: DiTConfig,
    level: float | None = None,
    read_one: Callable[[int], Read] | None = None,
) -> Batch:
    """The clips `numbers` of `data` as they are drawn in `epoch`; with `level` all at that noise level.

    `read_one` gives a clip by its number, where it was read before. No clips (a rank that has nothing to do in the
    last step of an epoch, or whose clips are all damaged) give one of zeros without any loss.
    """
    read_one = read_one or partial(read_clip, data, config.feed.tries)
    damaged: list[tuple[str, str]] = []
    read: list[tuple[ClipEntry, tuple[Tensor, dict[str, Tensor], Given]]] = []
    for number in numbers:
        found, entry = read_one(number), data.clips[number]
        if isinstance(found, str):
            damaged.append((entry.clip_id, found))
        else:
            read.append((entry, found))
    is_empty = not read
    if is_empty:
        blank = replace(data.clips[0], keyframe_at=(), suffix=0, kinds=())
        nothing = torch.zeros(shape.channels, *blank.size)
        read = [(blank, (nothing, {}, Given(nothing[:, :0], (), nothing[:, :0])))]
    drawn = draw_conditions(ClipTable.of([entry for entry, _ in read], shape), epoch, config)
    conditions = [drawn.clip(place) for place in range(len(read))]
    clips, velocities, captions, generators = [], [], [], []
    for (entry, (latent, texts, given)), condition in zip(read, conditions, strict=True):
        spans = given_spans(condition, entry, given)
        beside = sum(span.latent.shape[1] for span in spans)
        size, own = (latent.shape[0], *entry.size), n_tokens(entry.size, shape)
        draw = draw_clip(entry.clip_id, epoch, size, outline(texts), own, config, beside)
        draw = draw if level is None else replace(draw, t=level)
        clip = noised(latent, spans, condition, draw)
        clips.append(replace(clip, fps=entry.fps or None, text=shown(texts, draw.caption)))
        velocities.append(velocity(latent, draw.noise))
        captions.append(draw.caption)
        generators.append(seeded(config.seed, epoch, f"{entry.clip_id}/left out"))
    pack = make_pack(clips, shape)
    # What stands beside the pack is of its tokens, in their order.
    is_generated = (pack.level_index != 0) & (not is_empty)
    target = [
        F.pad(patchify(v, shape.patch), (0, 0, 0, length - own))
        for v, length, own in zip(velocities, pack.lengths, pack.own_lengths, strict=True)
    ]
    lengths = torch.tensor(pack.lengths)
    modes = torch.tensor([MODES.index(condition.mode) for condition in conditions])
    mode, levels = modes.repeat_interleave(lengths), pack.levels[1:].repeat_interleave(lengths)
    pack, kept = drop_tokens(pack, config.left_out, generators)
    mode, is_generated = mode[kept], is_generated[kept]
    return Batch(
        pack=pack,
        target=torch.cat(target)[kept],
        is_generated=is_generated,
        mode=mode,
        level=levels[kept],
        generated=tuple(torch.bincount(mode[is_generated], minlength=len(MODES)).tolist()),
        captions=() if is_empty else tuple(captions),
        conditions=() if is_empty else tuple(conditions),
        clip_ids=() if is_empty else tuple(entry.clip_id for entry, _ in read),
        damaged=tuple(damaged),
    )


def read_clip(data: LatentDataset, tries: int, number: int) -> Read:
    """A clip, or why it cannot be read; a store that fails may do so for a moment, so up to `tries` times."""
    for attempt in range(1, tries):
        try:
            return data.read_given(number)
        except DamagedClip as error:
            if not isinstance(error.__cause__, OSError):
                return str(error)
            time.sleep(0.2 * 2**attempt)
    try:
        return data.read_given(number)
    except DamagedClip as error:
        return str(error)


def given_spans(condition: Condition, entry: ClipEntry, given: Given) -> list[Span]:
    """What of `given` the draw shows: keyframes by their places, then the ending."""
    spans = [
        Span(given.keyframes[:, number : number + 1], entry.keyframe_at[number])
        for number in condition.keyframes
    ]
    if condition.suffix:
        spans.append(Span(given.suffix, entry.size[0] - entry.suffix))
    return spans


def noised(latent: Tensor, spans: list[Span], condition: Condition, draw: Draw) -> Clip:
    """A clip of `latent` (C, t, h, w) at its drawn noise level, without fps and text.

    What is given has a little noise of its own, though the model is told that its level is 0.
    """
    is_clean = torch.arange(latent.shape[1]) < condition.begin  # (t,)
    t = torch.where(is_clean, draw.given_t, draw.t)[:, None, None]
    noises = draw.given_noise.split([span.latent.shape[1] for span in spans], dim=1)
    given_t = torch.tensor(draw.given_t)
    shown_spans = tuple(
        Span(mix(span.latent, noise, given_t), span.at) for span, noise in zip(spans, noises, strict=True)
    )
    return Clip(mix(latent, draw.noise, t), None, None, draw.t, is_clean, shown_spans)


def token_errors(v: Tensor, batch: Batch) -> Tensor:
    """(S,) mean squared error of each generated token's values, 0 at the others; v (S, token_width)."""
    return (v.float() - batch.target).square().mean(dim=1) * batch.is_generated


def by_mode(errors: Tensor, batch: Batch) -> Tensor:
    """(6,) sums of the tokens' errors (S,) by mode."""
    return torch.stack([(errors * (batch.mode == number)).sum() for number in range(len(MODES))])


def by_level(values: Tensor, batch: Batch) -> Tensor:
    """(10,) sums of the tokens' values (S,) by noise level, in tenths."""
    tenth = (batch.level * 10).long().clamp(max=9)
    return torch.zeros(10, device=values.device).index_add(0, tenth, values.float())


def n_tokens(size: tuple[int, int, int], shape: DiTConfig) -> int:
    """Tokens of a latent of `size` (t, h, w). Raises BadInput if the patch does not divide it."""
    t, h, w = grid(size, shape.patch)
    return t * h * w
