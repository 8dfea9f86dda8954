"""What the embedded VAE learns from: crops of the procedural world, rendered on the fly, as footage and as encoded.

    world = WorldCrops(WorldConfig(), batch=4, seed=0)
    world(120)                             # the clips of step 120, the same ones each time
    world.validation(48), world.typical(150)

Half of the clips are drawn as the demo's films are (256x144 and the like, 24 to 30 frames/s), half as `encode` makes
them of films (about 64x64 pixels, 8 frames/s), which are harder: with four fifths of these instead they gain 0.1 dB,
and films lose 1.5.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from train.vae_batches import Clips

UNSEEN = 1 << 40  # clips are numbered; validation takes numbers that no training reaches
PER_CLIP = 2  # crops out of each clip: drawing one costs nearly as much as learning from it


class Look(NamedTuple):
    """Sizes (width, height) in pixels and frames/s that clips are drawn at, each as often as it is named."""

    sizes: tuple[tuple[int, int], ...]
    rates: tuple[float, ...]


#: As films are drawn (pipelines/demo/film_plan.py).
FILM = Look(((256, 144), (256, 144), (144, 256), (192, 192), (192, 144)), (24.0, 25.0, 30.0))
#: As `encode` makes them, by its defaults and near them.
ENCODED = Look(((64, 64), (64, 64), (80, 48), (48, 80), (64, 48), (96, 96)), (6.0, 8.0, 8.0, 12.0, 24.0))


@dataclass(frozen=True)
class WorldConfig:
    """Which parts of the procedural world the VAE is shown; without a dataset.

    Attributes:
        crop: side of the squares that are cut out, in pixels; smaller clips are filled up by their edges.
        frames: frames per clip, 4k+1.
        image_share: share of steps that show pictures, four times as many as there are clips in other steps.
        film_share: share of clips as the demo's films are drawn; the others are as `encode` makes them.
        candidates: of so many random crops of a clip that which changes most is shown, and another one of them;
            most of a picture stands still and is soon learnt.
    """

    crop: int = 64
    frames: int = 9
    image_share: float = 0.05
    film_share: float = 0.5
    candidates: int = 4


class WorldCrops:
    """The clips of each step; call it with the number of the step."""

    def __init__(self, config: WorldConfig, *, batch: int, seed: int) -> None:
        """Raises BadInput if there are too few candidates."""
        from model.errors import BadInput

        if config.candidates < PER_CLIP:
            raise BadInput(f"world.candidates {config.candidates}: give at least {PER_CLIP}.")
        self.config, self.batch, self.seed = config, batch, seed

    def __call__(self, step: int) -> Clips:
        import numpy as np
        import torch

        from train.vae_batches import Clips

        config = self.config
        rng = np.random.default_rng((self.seed, step))
        frames = 1 if rng.random() < config.image_share else config.frames
        count = self.batch * (4 if frames == 1 else 1)
        crops: list[np.ndarray] = []
        while len(crops) < count:
            look = FILM if rng.random() < config.film_share else ENCODED
            clip = world_clip(rng, look, frames)
            crops += pick(clip, config.crop, config.candidates, rng)
        names = tuple(f"clip {i // PER_CLIP} of the world at step {step}" for i in range(count))
        return Clips(torch.from_numpy(np.stack(crops[:count])), names)

    def about(self) -> dict[str, Any]:
        """What decides which crops a number stands for."""
        return {"world": asdict(self.config), "batch": self.batch}

    def told(self) -> str:
        """What is learnt from, in a line."""
        return "learning from the procedural world, rendered on the fly; --dataset names another source"

    def typical(self, batches: int) -> Iterator[Tensor]:
        """Whole clips as `encode` makes them, for the statistics of the latents."""
        import numpy as np
        import torch

        for number in range(batches):
            rng = np.random.default_rng((self.seed, UNSEEN - 1 - number))
            yield torch.from_numpy(world_clip(rng, ENCODED, self.config.frames)[None])

    def validation(self, clips: int) -> list[Tensor]:
        """Unseen films, half of them of combinations that training never shows; each a batch of its own."""
        return [unseen(number, FILM, self.config.frames, held_out=number % 2 == 0) for number in range(clips)]


def unseen(number: int, look: Look, frames: int, *, held_out: bool) -> Tensor:
    """Clip (1, T, H, W, 3) uint8 that no training shows, of combinations that it shows or does not."""
    import numpy as np
    import torch

    rng = np.random.default_rng((UNSEEN, number))
    return torch.from_numpy(world_clip(rng, look, frames, held_out=held_out)[None])


def world_clip(
    rng: np.random.Generator, look: Look, frames: int, held_out: bool | None = False
) -> np.ndarray:
    """One clip, (T, H, W, 3) uint8; small ones are often drawn larger and scaled down, as footage is."""
    import cv2
    import numpy as np

    from pipelines.demo.world import draw_scene, render

    scene = draw_scene(rng, held_out=held_out, duration_s=float(rng.uniform(1.5, 3.0)))
    width, height = look.sizes[rng.integers(len(look.sizes))]
    fps = look.rates[rng.integers(len(look.rates))]
    scale = int(rng.integers(1, 3)) if look is ENCODED else 1
    video = render(scene, n_frames=frames, fps=fps, width=scale * width, height=scale * height)
    if scale == 1:
        return video
    return np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in video])


def pick(clip: np.ndarray, side: int, candidates: int, rng: np.random.Generator) -> list[np.ndarray]:
    """PER_CLIP squares of a clip (T, H, W, 3): of some random ones that which changes most, and another of them."""
    import numpy as np

    height, width = clip.shape[1:3]
    h, w = min(side, height), min(side, width)
    found = []
    for number in range(candidates):
        y, x = rng.integers(height - h + 1), rng.integers(width - w + 1)
        crop = clip[:, y : y + h, x : x + w]
        axis = 0 if len(crop) > 1 else 2
        change = float(np.abs(np.diff(crop[::4].astype(np.int16), axis=axis)).mean())
        found.append((change, number, crop))
    found.sort(key=lambda one: one[:2], reverse=True)
    other = int(rng.integers(1, candidates))
    margins = ((0, 0), (0, side - h), (0, side - w), (0, 0))
    return [np.pad(found[i][2], margins, mode="edge") for i in (0, other)]
