"""What the speed of training is measured on: models, clips and budgets, for a GPU and, tiny, for a CPU."""

from __future__ import annotations

from dataclasses import dataclass, replace

from model.config import PRESETS, DiTConfig
from model.patches import Size

SEED = 20261122


@dataclass(frozen=True)
class Scale:
    """Sizes of a run.

    Attributes:
        models: transformers by name; all parts but mfu and wan measure the first, wan the last.
        clips: latents (t, h, w) by name, of one size per pack.
        usual: the one of these that is measured where only one is.
        budget: most tokens in a pack.
        texts: fewest and most tokens of a clip's text; evenly drawn.
        wan_text: tokens that Wan's texts are filled up to.
        library: clips of many lengths.
        shrink: their rows and columns are divided by it.
        compile: whether blocks are compiled, where that is not what is compared.
        warm: steps before the clock runs.
        timed: steps that count.
    """

    models: dict[str, DiTConfig]
    clips: dict[str, Size]
    usual: str
    budget: int
    texts: tuple[int, int]
    wan_text: int
    library: int
    shrink: int
    compile: bool
    warm: int
    timed: int

    @property
    def main(self) -> str:
        """Name of the model that most parts measure."""
        return next(iter(self.models))

    @property
    def wan(self) -> str:
        """Name of the model that diffusers has too."""
        return list(self.models)[-1]


GPU = Scale(
    models={name: PRESETS[name] for name in ("XL", "1.3B")},
    clips={"8k": (8, 64, 64), "2k": (8, 32, 32), "32k": (32, 64, 64)},
    usual="8k",
    budget=32_768,
    texts=(64, 256),
    wan_text=512,
    library=64,
    shrink=1,
    compile=True,
    warm=2,
    timed=5,
)
CPU = Scale(
    models={
        "tiny": PRESETS["tiny"],
        "tiny Wan": replace(PRESETS["tiny"], ffn=384, text_width=64, places=False),
    },
    clips={"128": (8, 8, 8), "64": (4, 8, 8), "512": (8, 16, 16)},
    usual="128",
    budget=512,
    texts=(4, 16),
    wan_text=32,
    library=96,
    shrink=8,
    compile=False,
    warm=1,
    timed=5,
)
