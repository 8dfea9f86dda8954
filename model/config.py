"""The shape of the diffusion transformer and of its noise, as plain data that needs no torch.

config = PRESETS["tiny"]                       # a DiTConfig
config = dataclasses.replace(config, width=192, depth=6, heads=3, ffn=768)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from model.errors import BadInput


@dataclass(frozen=True)
class DiTConfig:
    """The shape of a diffusion transformer.

    Attributes:
        channels: latent channels of the VAE.
        patch: latent frames, rows and columns that make one token. The first latent frame is always by itself
            (model/patches.py).
        width: features per token; a multiple of heads.
        depth: blocks.
        heads: attention heads; width / heads must be even and at least 6.
        ffn: hidden features of the feed-forward layers.
        text_width: features per token of the text encoder.
        reference_fps: frame rate at which latent frame i has time position i; clips of another rate are
            placed by their time in seconds.
        rope_theta: base of the rotary frequencies.
        places: tell each token where in the picture it stands and whether it is of the first frame. Rotary
            positions alone know distances only, and pure noise holds nothing to measure them from; small
            models need it, Wan 2.1's geometry does without.
        windows: null attends to the whole clip in every block. Else blocks attend in turns within one latent frame
            and within windows of so many tokens in time, rows and columns (W.A.L.T, model/windows.py).
        pooled_text: also add the mean of a clip's text to its noise level, so that text scales and gates every block
            (adaLN, as Stable Diffusion 3, arXiv:2403.03206); null text has a mean too.
        text_tokens: fill texts up with zeros to so many tokens, which are attended to as well, and cut longer ones.
            Wan 2.1 was trained with 512; null attends to the text alone.
    """

    channels: int = 16
    patch: tuple[int, int, int] = (1, 2, 2)
    width: int = 64
    depth: int = 2
    heads: int = 2
    ffn: int = 256
    text_width: int = 128
    reference_fps: float = 16.0
    rope_theta: float = 10_000.0
    places: bool = True
    windows: tuple[int, int, int] | None = None
    pooled_text: bool = False
    text_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.heads < 1 or self.width % self.heads or self.head_width % 2 or self.head_width < 6:
            raise BadInput(
                f"width {self.width} cannot be shared by {self.heads} heads: width / heads must be an even "
                "number of at least 6."
            )
        for name in ("channels", "depth", "ffn", "text_width"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name} is {getattr(self, name)}, must be 1 or more.")
        for name in ("reference_fps", "rope_theta"):
            if not 0 < getattr(self, name) < math.inf:
                raise BadInput(f"{name} is {getattr(self, name)}, must be above 0.")
        for name, sizes in (
            ("patch", self.patch),
            ("windows", (1, 1, 1) if self.windows is None else self.windows),
        ):
            if len(sizes) != 3 or min(sizes) < 1:
                raise BadInput(f"{name} is {sizes}: give three numbers of at least 1: time, rows, columns.")
        if self.text_tokens is not None and self.text_tokens < 1:
            raise BadInput(
                f"text_tokens is {self.text_tokens}: give at least 1, or null to fill up no texts."
            )

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def token_width(self) -> int:
        """Latent values in one token."""
        return self.channels * math.prod(self.patch)


#: S, B and XL have DiT's widths (arXiv:2212.09748), 1.3B is Wan 2.1's geometry (arXiv:2503.20314). Their heads have the
#: 64 or 128 features that fused attention kernels are made for; those of tiny have 32, since it is for CPUs, where no
#: such kernel runs.
PRESETS = {
    "tiny": DiTConfig(width=64, depth=2, heads=2, ffn=256),
    "S": DiTConfig(width=384, depth=12, heads=6, ffn=1536),
    "B": DiTConfig(width=768, depth=12, heads=12, ffn=3072),
    "XL": DiTConfig(width=1152, depth=28, heads=18, ffn=4608),
    "1.3B": DiTConfig(width=1536, depth=30, heads=12, ffn=8960, text_width=4096, places=False),
}


#: The ways to compute attention (model/attention.py). All give the same; `auto` takes the fastest that runs.
AttentionBackend = Literal["auto", "varlen", "fa3", "flex", "grouped", "loop"]

#: What a backward pass computes again, to keep less in memory: no block, every other one, all.
Recompute = Literal["none", "selective", "full"]


@dataclass(frozen=True)
class Stretch:
    """Brings clips that are longer or larger than those trained on into the positions that were seen.

    Chosen when the model is run (`dit.stretch = Stretch(time=2.0)`), for all clips of a pack alike.

    Attributes:
        time: how many times as long as trained; 1 leaves the positions as they are.
        rows: how many times as high.
        columns: how many times as wide.
        method: interpolate divides the positions (Chen et al., arXiv:2306.15595). ntk raises the base of the rotary
            frequencies, so that the slowest one is divided just so and the fastest stays: near tokens keep their
            exact distances.
    """

    time: float = 1.0
    rows: float = 1.0
    columns: float = 1.0
    method: Literal["interpolate", "ntk"] = "ntk"

    def __post_init__(self) -> None:
        if not all(0 < factor < math.inf for factor in self.factors):
            raise BadInput(f"stretch factors are {self.factors}: give numbers above 0; 1 changes nothing.")

    @property
    def factors(self) -> tuple[float, float, float]:
        return self.time, self.rows, self.columns

    @classmethod
    def over(
        cls,
        wanted: tuple[float, float, float],
        trained: tuple[float, float, float],
        method: Literal["interpolate", "ntk"] = "ntk",
    ) -> Stretch:
        """Just enough for a clip of `wanted` extent in time, rows and columns; 1 where it is within `trained`.

        Dynamic NTK, when chosen for each clip. Both in the same units, such as seconds and pixels.
        """
        time, rows, columns = (max(1.0, w / t) for w, t in zip(wanted, trained, strict=True))
        return cls(time, rows, columns, method)


@dataclass(frozen=True)
class FlowConfig:
    """How noise levels t are drawn (0 is a clean clip, 1 is pure noise).

    Attributes:
        mean: mean of the logit of t.
        std: standard deviation of the logit of t.
        uniform_share: share of draws that are uniform instead, so that both ends are seen.
        base_tokens: clips of this many tokens have shift 1; others sqrt(tokens / base_tokens).
        max_shift: largest shift.
    """

    mean: float = 0.0
    std: float = 1.0
    uniform_share: float = 0.1
    base_tokens: int = 256
    max_shift: float = 12.0

    def __post_init__(self) -> None:
        for name, least, most, told in (
            ("mean", -math.inf, math.inf, "finite"),
            ("std", 0, math.inf, "0 or more"),
            ("uniform_share", 0, 1, "from 0 to 1"),
            ("base_tokens", 1, math.inf, "1 or more"),
            ("max_shift", 0, math.inf, "above 0"),
        ):
            value = getattr(self, name)
            if not (least <= value <= most and math.isfinite(value)) or (name == "max_shift" and value == 0):
                raise BadInput(f"flow.{name} is {value}, must be {told}.")


@dataclass(frozen=True)
class SizeConfig:
    """Which transformer to train: a preset, and what differs from it.

    Attributes:
        preset: the geometry to start from.
        width: features per token; null takes the preset's.
        depth: blocks; null takes the preset's.
        heads: attention heads; null keeps the preset's features per head.
        ffn: hidden features of the feed-forward layers; null keeps the preset's ratio to the width.
        patch: latent frames, rows and columns that make one token, such as [2, 2, 2]; null takes the preset's.
        windows: attend within windows of so many tokens in time, rows and columns, in turns with single latent
            frames (W.A.L.T); null attends to the whole clip.
        pooled_text: let the text also scale and gate every block, by its mean: small models learn sooner what is asked
            for.
    """

    preset: Literal["tiny", "S", "B", "XL", "1.3B"] = "tiny"
    width: int | None = None
    depth: int | None = None
    heads: int | None = None
    ffn: int | None = None
    patch: tuple[int, int, int] | None = None
    windows: tuple[int, int, int] | None = None
    pooled_text: bool = False

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise BadInput(f"there is no preset {self.preset!r}: choose one of {', '.join(PRESETS)}.")
        for name in ("width", "depth", "heads", "ffn"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise BadInput(f"model.{name} is {value}, must be 1 or more, or null for the preset's.")

    def config(self, *, channels: int, text_width: int) -> DiTConfig:
        """The transformer for latents of `channels` and text of `text_width`. Raises BadInput."""
        base = PRESETS[self.preset]
        width = base.width if self.width is None else self.width
        heads = max(1, width // base.head_width) if self.heads is None else self.heads
        ffn = base.ffn * width // base.width if self.ffn is None else self.ffn
        depth = base.depth if self.depth is None else self.depth
        return replace(
            base,
            width=width,
            depth=depth,
            heads=heads,
            ffn=ffn,
            patch=base.patch if self.patch is None else self.patch,
            windows=base.windows if self.windows is None else self.windows,
            pooled_text=self.pooled_text,
            channels=channels,
            text_width=text_width,
        )
