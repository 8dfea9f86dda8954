"""How much work clips are: floating-point operations of one training step by their numbers of tokens.

    train_flops(np.array([1024, 4096]), shape)           # (2,) float64
    peak_flops(torch.device("cuda"))                     # 989e12 of an H100 or H200; null of what is not known

Per token 6 operations for each weight that multiplies it (2 forward, 4 backward), and 12·h·S for attention in each
block of width h over the S tokens of its own clip (PaLM, arXiv:2204.02311, appendix B; nothing is masked here, so
nothing is halved). A clip of n tokens takes 6·N·n + 12·h·depth·n².

Left out are the texts, whose keys and values are a few per cent and whose length each draw decides, the norms, and
what activation checkpointing computes again. Attention in windows is counted as if every block attended to a window.
"""

from __future__ import annotations

import math
import re

import numpy as np
import torch
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


#: Dense bfloat16 operations per second that the makers' data sheets promise, by part of the device's name.
_PEAKS = {
    "GB200": 2500e12,
    "B200": 2250e12,
    "H200 NVL": 835e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H800": 989e12,
    "GH200": 989e12,
    "A100": 312e12,
    "A800": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10G": 70e12,
    "RTX 4090": 165e12,
    "MI300X": 1307e12,
}


def peak_flops(device: torch.device) -> float | None:
    """Most operations per second of a device in bfloat16; null where no data sheet is known, and of CPUs.

    MFU is the share of it that train_flops of the trained clips come to, whatever precision was used.
    """
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in _PEAKS.items() if re.search(rf"\b{part}\b", name)), None)
