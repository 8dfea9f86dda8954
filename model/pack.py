"""A pack: clips of any length, size and aspect ratio laid end to end, each with its text and noise levels.

pack = make_pack([Clip(latent, fps=16.0, text=features, t=0.7), ...], config)
v = dit(pack)                                        # (S, token_width)
parts = v.split(pack.lengths)                        # one (n, token_width) per clip
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from model.config import DiTConfig
from model.patches import patchify, places, positions


@dataclass(frozen=True)
class Clip:
    """One clip for the transformer.

    Attributes:
        latent: (C, t, h, w), noised to level `t` except where `is_clean`.
        fps: frames per second of the video; null for a picture.
        text: (L, text_width) features, or null for the learned empty text.
        t: noise level, 0 to 1.
        is_clean: (t,) bool, latent frames given as condition: their noise level is 0. Null means none.
    """

    latent: Tensor
    fps: float | None
    text: Tensor | None
    t: float
    is_clean: Tensor | None = None


@dataclass(frozen=True)
class Pack:
    """S tokens of K clips with L text tokens, ready for one forward pass.

    Attributes:
        tokens: (S, token_width).
        positions: (S, 3) time, row, column.
        places: (S, PLACE_FEATURES) place in the picture.
        lengths: tokens of each clip.
        levels: (K + 1,) noise levels: 0, then that of each clip.
        level_index: (S,) int64, the level of each token.
        text: (L, text_width); zeros where `text_is_null`.
        text_is_null: (L,) bool, true at a token that stands for the learned empty text.
        text_lengths: text tokens of each clip.
    """

    tokens: Tensor
    positions: Tensor
    places: Tensor
    lengths: tuple[int, ...]
    levels: Tensor
    level_index: Tensor
    text: Tensor
    text_is_null: Tensor
    text_lengths: tuple[int, ...]

    def to(self, device: torch.device | str) -> Pack:
        held = {f.name: getattr(self, f.name) for f in fields(self)}
        moved = {name: x.to(device, non_blocking=True) for name, x in held.items() if isinstance(x, Tensor)}
        return replace(self, **moved)  # type: ignore[arg-type]


def make_pack(clips: list[Clip], config: DiTConfig) -> Pack:
    """Lay `clips` end to end. Raises BadInput for a latent that the patch does not divide."""
    tokens, where, fractions, level_index, texts, is_null = [], [], [], [], [], []
    for number, clip in enumerate(clips, start=1):
        size = (clip.latent.shape[1], clip.latent.shape[2], clip.latent.shape[3])
        tokens.append(patchify(clip.latent.float(), config.patch))
        step = config.reference_fps / clip.fps if clip.fps else 1.0
        where.append(positions(size, config.patch, step))
        fractions.append(places(size, config.patch))
        level_index.append(number * (~clean_tokens(clip.is_clean, size, config)).long())
        null = clip.text is None or len(clip.text) == 0
        texts.append(torch.zeros(1, config.text_width) if null else clip.text.float())  # type: ignore[union-attr]
        is_null.append(torch.full((len(texts[-1]),), null))
    return Pack(
        tokens=torch.cat(tokens),
        positions=torch.cat(where),
        places=torch.cat(fractions),
        lengths=tuple(map(len, tokens)),
        levels=torch.tensor([0.0, *(float(clip.t) for clip in clips)]),
        level_index=torch.cat(level_index),
        text=torch.cat(texts),
        text_is_null=torch.cat(is_null),
        text_lengths=tuple(map(len, texts)),
    )


def clean_tokens(is_clean: Tensor | None, size: tuple[int, int, int], config: DiTConfig) -> Tensor:
    """(n,) bool: the tokens of the latent frames that `is_clean` (t,) marks. A token is clean if all its frames are."""
    t, h, w = (n // p for n, p in zip(size, config.patch, strict=True))
    if is_clean is None:
        return torch.zeros(t * h * w, dtype=torch.bool)
    return is_clean.view(t, config.patch[0]).all(dim=1).repeat_interleave(h * w)
