"""From clip numbers to what one forward pass needs: noised packs, targets, and which tokens count.

batch = make_batch(data, pack, epoch, config, shape)
loss = token_errors(dit(batch.pack), batch).sum() / tokens_of_all_ranks_and_packs

for step in Feed(data, plan, cursor, config, shape, rank=0, ranks=1):      # endless, one step ahead
    step.batches, step.after
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

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
from train.data import ClipEntry, Given, LatentDataset
from train.draws import Draw, draw_clip, seeded
from train.packing import Cursor, PackPlan, dealt


@dataclass(frozen=True)
class Batch:
    """One pack of one rank.

    Attributes:
        pack: the model's input.
        target: (S, token_width) velocities; zero at tokens of spans.
        is_generated: (S,) bool, the tokens that have a loss: all but those of what is given.
        mode: (S,) int64, number of the clip's way of asking, of MODES.
        generated: tokens that have a loss, by mode.
        captions: what was drawn of the captions of each clip.
        conditions: what each clip is given.
    """

    pack: Pack
    target: Tensor
    is_generated: Tensor
    mode: Tensor
    generated: tuple[int, ...]
    captions: tuple[Choice, ...]
    conditions: tuple[Condition, ...]

    @property
    def n_tokens(self) -> int:
        """Tokens of clips of the data; none in the batch of a rank that has nothing to do."""
        return len(self.target) if self.conditions else 0

    def to(self, device: torch.device) -> Batch:
        if device.type == "cpu":
            return self
        return replace(
            self,
            pack=self.pack.to(device),
            target=self.target.to(device, non_blocking=True),
            is_generated=self.is_generated.to(device, non_blocking=True),
            mode=self.mode.to(device, non_blocking=True),
        )


def make_batch(
    data: LatentDataset, numbers: list[int], epoch: int, config: TrainConfig, shape: DiTConfig
) -> Batch:
    """The clips `numbers` of `data` as they are drawn in `epoch`.

    An empty list (a rank that has nothing to do in the last step of an epoch) gives a clip without any loss.
    """
    entries = [data.clips[number] for number in numbers or [0]]
    drawn = draw_conditions(ClipTable.of(entries, shape), epoch, config)
    conditions = [drawn.clip(place) for place in range(len(entries))]
    clips, velocities, captions, generators = [], [], [], []
    for number, entry, condition in zip(numbers or [0], entries, conditions, strict=True):
        latent, texts, given = data.read_given(number)  # (C, t, h, w)
        spans = given_spans(condition, entry, given)
        beside = sum(span.latent.shape[1] for span in spans)
        size, own = (latent.shape[0], *entry.size), n_tokens(entry.size, shape)
        draw = draw_clip(entry.clip_id, epoch, size, outline(texts), own, config, beside)
        clip = noised(latent, spans, condition, draw)
        clips.append(replace(clip, fps=entry.fps or None, text=shown(texts, draw.caption)))
        velocities.append(velocity(latent, draw.noise))
        captions.append(draw.caption)
        generators.append(seeded(config.seed, epoch, f"{entry.clip_id}/left out"))
    pack = make_pack(clips, shape)
    # What stands beside the pack is of its tokens, in their order.
    is_generated = (pack.level_index != 0) & bool(numbers)
    target = [
        F.pad(patchify(v, shape.patch), (0, 0, 0, length - own))
        for v, length, own in zip(velocities, pack.lengths, pack.own_lengths, strict=True)
    ]
    modes = torch.tensor([MODES.index(condition.mode) for condition in conditions])
    mode = modes.repeat_interleave(torch.tensor(pack.lengths))
    pack, kept = drop_tokens(pack, config.left_out, generators)
    mode, is_generated = mode[kept], is_generated[kept]
    return Batch(
        pack=pack,
        target=torch.cat(target)[kept],
        is_generated=is_generated,
        mode=mode,
        generated=tuple(torch.bincount(mode[is_generated], minlength=len(MODES)).tolist()),
        captions=tuple(captions) if numbers else (),
        conditions=tuple(conditions) if numbers else (),
    )


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


def n_tokens(size: tuple[int, int, int], shape: DiTConfig) -> int:
    """Tokens of a latent of `size` (t, h, w). Raises BadInput if the patch does not divide it."""
    t, h, w = grid(size, shape.patch)
    return t * h * w


@dataclass(frozen=True)
class Step:
    """The packs of one rank for one optimizer step, and the cursor behind the step."""

    batches: list[Batch]
    epoch: int
    after: Cursor


class Feed:
    """Steps without end from `cursor` on, each prepared by a thread while the one before it is computed."""

    def __init__(
        self,
        data: LatentDataset,
        plan: PackPlan,
        cursor: Cursor,
        config: TrainConfig,
        shape: DiTConfig,
        *,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self._data, self._plan, self._cursor = data, plan, cursor
        self._config, self._shape, self._rank, self._ranks = config, shape, rank, ranks

    def __iter__(self) -> Iterator[Step]:
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="feed") as worker:
            cursor = self._cursor
            ahead = worker.submit(self._prepare, cursor)
            while True:
                step = ahead.result()
                ahead = worker.submit(self._prepare, step.after)
                yield step

    def _prepare(self, cursor: Cursor) -> Step:
        packs, after = self._plan.step(cursor, self._ranks * self._config.accumulate)
        batches = [
            make_batch(self._data, pack, cursor.epoch, self._config, self._shape)
            for pack in dealt(packs, self._rank, self._ranks)
        ]
        return Step(batches, cursor.epoch, after)
