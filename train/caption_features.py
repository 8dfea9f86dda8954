"""The features of a clip's captions as KEY.text holds them, and those of them that a draw shows.

    choice = draw_caption(outline(texts), seed=0, clip_id=key, epoch=3, config=CaptionBlend())
    features = shown(texts, choice)              # (L, D), or null for no text

KEY.text is a safetensors file; for a caption of n sentences it holds

    dense                (L, D) features of all tokens, end token included
    dense.ends           (n - 1,) int32, tokens before the end of the first sentence, the first two, ...
    dense.stops          (n - 1, D) features of the end token, were the text cut there
    structured/subject   (L, D) a field, encoded by itself; a structured caption has one entry per field

In a causal encoder a token's features do not depend on what follows, so the first `ends[k - 1]` rows and
`stops[k - 1]` are what the encoder makes of the first k sentences. Encoders that look both ways, several encoders at
once (model/text_joint.py) and latents written before there were ends have none: such captions are always shown whole.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from train.blend import Choice, Outline


def outline(texts: Mapping[str, Tensor]) -> dict[str, Outline]:
    """What a draw must know of each kind. Without ends a caption counts as one sentence."""
    found: dict[str, Outline] = {}
    fields: dict[str, list[str]] = {}
    for name in sorted(texts):
        kind, slash, field = name.partition("/")
        if slash:
            fields.setdefault(kind, []).append(field)
        elif not name.endswith((".ends", ".stops")):
            found[name] = 1 + len(texts.get(f"{name}.ends", ()))
    return found | {kind: tuple(names) for kind, names in fields.items()}


def shown(texts: Mapping[str, Tensor], choice: Choice) -> Tensor | None:
    """(L, D) features of what was chosen; null for no text."""
    if choice.kind is None:
        return None
    if choice.fields:
        return torch.cat([texts[f"{choice.kind}/{name}"] for name in choice.fields])
    features = texts[choice.kind]
    if not choice.is_cut:
        return features
    place = choice.n_sentences - 1
    end = int(texts[f"{choice.kind}.ends"][place])
    return torch.cat([features[:end], texts[f"{choice.kind}.stops"][place, None]])


def ends_fit(texts: Mapping[str, Tensor], kind: str) -> bool:
    """Whether the sentences of a kind end within its caption, each with its own end token."""
    ends = texts[f"{kind}.ends"]
    if kind not in texts or len(texts.get(f"{kind}.stops", ())) != len(ends):
        return False
    return bool(((ends >= 0) & (ends <= len(texts[kind]))).all())
