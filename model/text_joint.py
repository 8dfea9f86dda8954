"""Several text encoders as one: each caption is read by all of them.

    encoder = JointText([load_text_encoder("hf:google/umt5-xxl"), load_text_encoder("ViT-L-14/openai")])
    features = encoder.encode(["a red disc"])    # [(L1 + L2, 4096 + 768)]

The tokens of one encoder stand behind those of the one before, each encoder's features in columns of their own and
zeros in all others:

    L1 tokens    first encoder's features    0
    L2 tokens    0                           second encoder's features

So the DiT's projection of the text is one of its own for each encoder, and attention reads them all, as Stable
Diffusion 3 (arXiv:2403.03206) and Movie Gen (arXiv:2410.13720) do with theirs.

A joint encoder is never causal, even if all in it are: behind the first encoder's tokens of a first sentence stand
those of the whole text's second encoder, so that what is made of a text's beginning is no beginning of what is made of
the text. Captions from several encoders are therefore shown whole, as those of T5 are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, cat

if TYPE_CHECKING:
    from model.text import TextEncoder


class JointText:
    """A TextEncoder made of others."""

    causal = False

    def __init__(self, encoders: Sequence[TextEncoder]) -> None:
        """`encoders` in the order of their tokens and columns; at least one."""
        self.encoders = tuple(encoders)
        self.name = ",".join(encoder.name for encoder in self.encoders)
        self.width = sum(encoder.width for encoder in self.encoders)

    def encode(self, texts: list[str]) -> list[Tensor]:
        found: list[list[Tensor]] = [[] for _ in texts]
        column = 0
        for encoder in self.encoders:
            behind = self.width - column - encoder.width
            for parts, features in zip(found, encoder.encode(texts), strict=True):
                parts.append(F.pad(features, (column, behind)))  # (L, width)
            column += encoder.width
        return [cat(parts) for parts in found]
