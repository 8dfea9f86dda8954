"""The diffusion transformer: packed noisy clips and their texts in, velocities out.

    dit = DiT(PRESETS["tiny"])
    v = dit(make_pack(clips, dit.config))                # (S, token_width), S tokens of all clips
    dit, about = load_dit("run/checkpoints/step-00001000")
    dit.backend = "flex"                                 # how attention is computed (model/attention.py)
    dit.stretch = Stretch(time=2.0)                      # clips twice as long as trained (model/rope.py)

The geometry is that of Wan 2.1 (arXiv:2503.20314): patch 1x2x2, full attention over space and time with rotary
positions in three axes, RMS norm on queries and keys, text by cross-attention, adaLN-Zero. The noise level
belongs to the token, so that given frames (level 0) condition the others. Noise levels run from 0 to 1.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import fsspec
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.blocks import Block, CrossAttention, Head, LevelEmbedding
from model.config import AttentionBackend, DiTConfig, Recompute, Stretch
from model.errors import BadInput
from model.layout import Layout
from model.pack import Pack
from model.patches import PLACE_FEATURES
from model.pieces import Pieces
from model.rope import rotary
from model.sequence import Sequence
from model.windows import window_layouts


class DiT(nn.Module):
    """See the module; `config` says the shape.

    `backend`, `stretch`, `recompute` and `sequence` are chosen when the model is run; checkpoints know nothing of them.

    Attributes:
        backend: how attention is computed.
        stretch: for clips longer or larger than trained.
        recompute: what the backward pass computes again instead of keeping it: nothing, every other block, all blocks.
        sequence: the processes that share the tokens of a pack; null where each has packs of its own.
    """

    backend: AttentionBackend = "auto"
    stretch: Stretch = Stretch()
    recompute: Recompute = "none"
    sequence: Sequence | None = None

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config, width = config, config.width
        self.patch_in = nn.Linear(config.token_width, width)
        self.place_in = nn.Linear(PLACE_FEATURES, width, bias=False) if config.places else None
        self.level = LevelEmbedding(width)
        self.text_in = nn.Sequential(
            nn.Linear(config.text_width, width), nn.GELU(approximate="tanh"), nn.Linear(width, width)
        )
        self.text_pool = nn.Linear(width, width) if config.pooled_text else None
        self.null_text = nn.Parameter(torch.zeros(config.text_width))
        self.blocks = nn.ModuleList(Block(width, config.heads, config.ffn) for _ in range(config.depth))
        self.head = Head(width, config.token_width)
        self.init_weights()

    def init_weights(self) -> None:
        """Xavier for matrices; zero for gates and outputs, so that each block starts as the identity."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.null_text, std=1.0)
        zeroed = [self.level.modulation, self.head.out]
        zeroed += [m.out for m in self.modules() if isinstance(m, CrossAttention)]
        for linear in zeroed:
            nn.init.zeros_(linear.weight)

    def forward(self, pack: Pack) -> Tensor:
        """Velocity noise - x_0 of every token, (S, token_width); at tokens of level 0 it has no meaning.

        With a `sequence`, that of the tokens `sequence.span(S)` alone, and S below is their number.
        """
        own = slice(None) if self.sequence is None else self.sequence.span(len(pack.tokens))
        level_index = pack.level_index[own]
        x = self.patch_in(pack.tokens[own])  # (S, D)
        if self.place_in is not None:
            x = x + self.place_in(pack.places[own])
        text = self.text_in(torch.where(pack.text_is_null[:, None], self.null_text, pack.text))  # (L, D)
        pooled = None if self.text_pool is None else self.text_pool(means(text, pack.text_lengths))  # (K, D)
        embedding, modulation = self.level(pack.levels, pooled)  # (K + 1, D), (K + 1, 6, D)
        x = x.to(modulation.dtype)  # under autocast the blocks add up in full precision, the first one too
        rotation = rotary(pack.positions[own], self.config.head_width, self.config.rope_theta, self.stretch)
        text_layout = Layout(pack.lengths, pack.text_lengths, x.device, self.backend)
        for number, layout in enumerate(self._layouts(pack, x.device)):
            run = self._runner(number)
            x = run(x, modulation, level_index, rotation, layout, text, text_layout, self.sequence)
        return self.head(x, embedding, level_index)  # (S, token_width)

    def _runner(self, number: int) -> Callable[..., Tensor]:
        """A block, or the block computed again in the backward pass."""
        block: Callable[..., Tensor] = self.blocks[number]
        if self.recompute == "none" or (self.recompute == "selective" and number % 2):
            return block
        return partial(checkpoint, block, use_reentrant=False)

    def _layouts(self, pack: Pack, device: torch.device) -> list[Layout]:
        """Which tokens attend to which, for the self-attention of each block."""
        depth = len(self.blocks)
        if self.config.windows is not None:
            return window_layouts(pack, self.config.windows, depth, device, self.backend)
        return [Layout(pack.lengths, pack.lengths, device, self.backend)] * depth


def means(text: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """Mean of the tokens of each text: (L, D) -> (K, D) float32, K texts of `lengths`."""
    counts = torch.tensor(lengths, device=text.device)
    of_text = torch.repeat_interleave(torch.arange(len(lengths), device=text.device), counts)
    sums = text.new_zeros(len(lengths), text.shape[1], dtype=torch.float32).index_add(
        0, of_text, text.float()
    )
    return sums / counts[:, None]


def load_dit(folder: str | Path, weights: Literal["ema", "model"] = "ema") -> tuple[DiT, dict[str, Any]]:
    """The model of a checkpoint in evaluation mode on the CPU, and the rest of its config.json.

    `folder` may be a URI. Raises BadInput if it is no finished checkpoint.
    """
    fs, root = fsspec.core.url_to_fs(str(folder))
    if not fs.exists(f"{root}/COMPLETE"):
        raise BadInput(
            f"{folder} is no finished checkpoint (it has no file COMPLETE). Give a run that `reelmill train` "
            "wrote, or one folder of its checkpoints/."
        )
    try:
        about = json.loads(fs.cat_file(f"{root}/config.json"))
        dit = DiT(told_shape(about))
        dit.load_state_dict(Pieces(str(folder), weights).whole())
    except (OSError, KeyError, TypeError, json.JSONDecodeError, BadInput, RuntimeError) as error:
        raise BadInput(f"checkpoint {folder} cannot be loaded: {error}. Use another checkpoint.") from error
    return dit.eval().requires_grad_(False), about


def told_shape(about: dict[str, Any]) -> DiTConfig:
    """The shape that the config.json of a checkpoint tells. Raises KeyError or TypeError if it tells none."""
    shape: dict[str, Any] = {
        name: tuple(x) if isinstance(x, list) else x for name, x in {**about["model"]}.items()
    }
    return DiTConfig(**shape)
