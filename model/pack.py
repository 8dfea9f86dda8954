"""A pack: clips of any length, size and aspect ratio laid end to end, each with its text and noise levels.

    pack = make_pack([Clip(latent, fps=16.0, text=features, t=0.7), ...], config)
    v = dit(pack)                                    # (S, token_width)
    parts = own_parts(v, pack)                       # one (n, token_width) per clip

What a clip is given of its beginning lies in its own first frames: a causal VAE makes the same latents of them with
and without the rest. Pictures and endings given for any later place were encoded by themselves and are no part of its
latents; their tokens, `spans`, stand behind the clip's own, at the times they are given for. All of a clip's tokens
see each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from model.config import DiTConfig
from model.errors import BadInput
from model.patches import cells, grid, patchify, places, positions, whole_frames, whole_tokens


@dataclass(frozen=True)
class Span:
    """Pictures given for a place in a clip, encoded as a clip of their own.

    Attributes:
        latent: (C, k, h, w), clean; its first frame stands for one picture.
        at: latent frame of the clip that the first one stands at.
    """

    latent: Tensor
    at: int


@dataclass(frozen=True)
class Clip:
    """One clip for the transformer.

    Attributes:
        latent: (C, t, h, w), noised to level `t` except where `is_clean`.
        fps: frames per second of the video; null for a picture.
        text: (L, text_width) features, or null for the learned empty text.
        t: noise level, 0 to 1.
        is_clean: (t,) bool, latent frames given as condition: their noise level is 0. Null means none. Where a
            token holds several frames, all of them are given or none (`whole_frames`).
        spans: what is given for other places, at noise level 0 too.
    """

    latent: Tensor
    fps: float | None
    text: Tensor | None
    t: float
    is_clean: Tensor | None = None
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Pack:
    """S tokens of K clips with L text tokens, ready for one forward pass.

    Attributes:
        tokens: (S, token_width).
        positions: (S, 3) time, row, column.
        places: (S, PLACE_FEATURES) place in the picture.
        cells: (S, 3) int64, time, row and column in the clip's grid of tokens; a span has those of its place. Always
            on the CPU, where windows are laid out.
        lengths: tokens of each clip, spans included.
        own_lengths: of these, how many are the clip's own; they come first.
        levels: (K + 1,) noise levels: 0, then that of each clip.
        level_index: (S,) int64, the level of each token.
        text: (L, text_width); zeros where `text_is_null`.
        text_is_null: (L,) bool, true at a token that stands for the learned empty text.
        text_lengths: text tokens of each clip.
    """

    tokens: Tensor
    positions: Tensor
    places: Tensor
    cells: Tensor
    lengths: tuple[int, ...]
    own_lengths: tuple[int, ...]
    levels: Tensor
    level_index: Tensor
    text: Tensor
    text_is_null: Tensor
    text_lengths: tuple[int, ...]

    def to(self, device: torch.device | str) -> Pack:
        held = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "cells"}
        moved = {name: x.to(device, non_blocking=True) for name, x in held.items() if isinstance(x, Tensor)}
        return replace(self, **moved)  # type: ignore[arg-type]

    def pinned(self) -> Pack:
        """In page-locked memory, from which a GPU copies while it computes."""
        held = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "cells"}
        return replace(self, **{n: x.pin_memory() for n, x in held.items() if isinstance(x, Tensor)})  # type: ignore[arg-type]


def make_pack(clips: list[Clip], config: DiTConfig) -> Pack:
    """Lay `clips` end to end.

    Raises BadInput for no clips, and for a clip that `check_clip` refuses or the patch does not divide.
    """
    if not clips:
        raise BadInput("a pack needs at least one clip, and there is none.")
    for number, clip in enumerate(clips):
        check_clip(clip, number, config)
    tokens, where, fractions, in_grid, level_index, texts, is_null = [], [], [], [], [], [], []
    lengths, own_lengths = [], []
    for number, clip in enumerate(clips, start=1):
        step = config.reference_fps / clip.fps if clip.fps else 1.0
        size = _size(clip.latent)
        level_index.append(number * (~clean_tokens(clip.is_clean, size, config)).long())
        own_lengths.append(len(level_index[-1]))
        for latent, at in [(clip.latent, 0), *((span.latent, span.at) for span in clip.spans)]:
            tokens.append(patchify(latent.float(), config.patch))
            where.append(positions(_size(latent), config.patch, step, at))
            fractions.append(places(_size(latent), config.patch))
            in_grid.append(cells(_size(latent), config.patch, at))
        of_spans = sum(map(len, tokens[len(tokens) - len(clip.spans) :])) if clip.spans else 0
        level_index.append(torch.zeros(of_spans, dtype=torch.long))
        lengths.append(own_lengths[-1] + of_spans)
        text, null = _text(clip, config)
        texts.append(text)
        is_null.append(null)
    return Pack(
        tokens=torch.cat(tokens),
        positions=torch.cat(where),
        places=torch.cat(fractions),
        cells=torch.cat(in_grid),
        lengths=tuple(lengths),
        own_lengths=tuple(own_lengths),
        levels=torch.tensor([0.0, *(float(clip.t) for clip in clips)]),
        level_index=torch.cat(level_index),
        text=torch.cat(texts),
        text_is_null=torch.cat(is_null),
        text_lengths=tuple(map(len, texts)),
    )


def check_clip(clip: Clip, number: int, config: DiTConfig) -> None:
    """Raise BadInput if the transformer has no place for clip `number` of a pack; looks at no tensor's values."""
    shape, t = tuple(clip.latent.shape), float(clip.t)
    there = shape[1] if len(shape) == 4 else 0
    amiss = None
    if len(shape) != 4 or shape[0] != config.channels or 0 in shape:
        amiss = f"a latent of shape {shape}: give (channels, frames, rows, columns) with {config.channels} channels"
    elif clip.text is not None and (clip.text.ndim != 2 or clip.text.shape[1] != config.text_width):
        amiss = f"a text of shape {tuple(clip.text.shape)}: give (tokens, {config.text_width}), or None for no text"
    elif not 0 <= t <= 1:
        amiss = f"a noise level t of {t}: give 0 (clean) to 1 (noise)"
    elif clip.fps is not None and not 0 < clip.fps < math.inf:
        amiss = f"{clip.fps} frames per second: give a number above 0, or None for a picture"
    elif clip.is_clean is not None and (clip.is_clean.shape != (there,) or clip.is_clean.dtype != torch.bool):
        amiss = f"is_clean of {tuple(clip.is_clean.shape)} {clip.is_clean.dtype}: give ({there},) bool, one per frame"
    for span in clip.spans if amiss is None else ():
        given = tuple(span.latent.shape)
        if len(given) != 4 or given != (shape[0], max(1, given[1]), *shape[2:]):
            amiss = (
                f"a span of shape {given}: give ({shape[0]}, frames, {shape[2]}, {shape[3]}), as the clip's"
            )
        elif not 0 <= span.at <= there - given[1]:
            last = span.at + given[1] - 1
            amiss = f"a span at latent frames {span.at} to {last}: the clip has 0 to {there - 1}"
    if amiss is not None:
        raise BadInput(f"clip {number} of the pack has {amiss}.")


def own_parts(values: Tensor, pack: Pack) -> list[Tensor]:
    """Values of all tokens (S, ...) -> those of each clip's own, (n, ...), as `patchify` orders them."""
    return [part[:own] for part, own in zip(values.split(pack.lengths), pack.own_lengths, strict=True)]


def _size(latent: Tensor) -> tuple[int, int, int]:
    return latent.shape[1], latent.shape[2], latent.shape[3]


def _text(clip: Clip, config: DiTConfig) -> tuple[Tensor, Tensor]:
    """A clip's text (L, text_width), and (L,) bool where it stands for the learned empty text."""
    if clip.text is None or len(clip.text) == 0:
        text, null = torch.zeros(1, config.text_width), torch.ones(1, dtype=torch.bool)
    else:
        text, null = clip.text.float(), torch.zeros(len(clip.text), dtype=torch.bool)
    if config.text_tokens is None:
        return text, null
    after = config.text_tokens - len(text)
    # A negative number of rows to add cuts.
    return F.pad(text, (0, 0, 0, after)), F.pad(null, (0, after))


def clean_tokens(is_clean: Tensor | None, size: tuple[int, int, int], config: DiTConfig) -> Tensor:
    """(n,) bool: the tokens of the latent frames that `is_clean` (t,) marks.

    Raises BadInput where it marks but a part of a token.
    """
    t, h, w = grid(size, config.patch)
    if is_clean is None:
        return torch.zeros(t * h * w, dtype=torch.bool)
    pt = config.patch[0]
    if not torch.equal(whole_frames(is_clean, pt), is_clean):
        raise BadInput(
            f"the given latent frames {is_clean.nonzero().flatten().tolist()} end inside a token of {pt} frames. With "
            f"patches of {config.patch}, give the first 1, {1 + pt}, {1 + 2 * pt} ... latent frames."
        )
    return whole_tokens(is_clean, pt).repeat_interleave(h * w)
