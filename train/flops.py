"""How much work clips are: floating-point operations of one training step by their numbers of tokens.

    train_flops(np.array([1024, 4096]), shape)           # (2,) float64

Per token 6 operations for each weight that multiplies it (2 forward, 4 backward), and 12·h·S for attention in each
block of width h over the S tokens of its own clip (PaLM, arXiv:2204.02311, appendix B; nothing is masked here, so
nothing is halved). A clip of n tokens takes 6·N·n + 12·h·depth·n².

Left out are the texts, whose keys and values are a few per cent and whose length each draw decides, the norms, and
what activation checkpointing computes again. Attention in windows is counted as if every block attended to a window.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from model.config import DiTConfig


def train_flops(n_tokens: NDArray[np.int64], shape: DiTConfig) -> NDArray[np.float64]:
    """Operations, forward and backward, of clips of `n_tokens` tokens each."""
    n = n_tokens.astype(np.float64)
    seen = n if shape.windows is None else np.minimum(n, math.prod(shape.windows))
    return n * (6.0 * weights_per_token(shape) + 12.0 * shape.width * shape.depth * seen)


def weights_per_token(shape: DiTConfig) -> int:
    """Weights that every token is multiplied by: those of the blocks but for the text's, and the two ends."""
    attention = 4 * shape.width**2  # query, key, value, out
    text = 2 * shape.width**2  # query, out; keys and values are the text's
    return (
        shape.depth * (attention + text + 2 * shape.width * shape.ffn) + 2 * shape.width * shape.token_width
    )
