"""Train the video VAE on the procedural world: clips and pictures of several shapes, rendered on the fly.

    OMP_NUM_THREADS=1 reelmill train-vae --out runs/vae                  # what made the embedded one
    reelmill train-vae --out /tmp/vae --training.steps=50 --validation_clips=4     # a quick look

OUT/vae is then a folder for `reelmill encode --vae`. Killed at any moment and started again with the same
settings, it goes on from its last checkpoint. OUT/samples/strip.png shows unseen clips above what the VAE
makes of them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from train.vae_settings import VaeTraining

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from model.vae import VideoVAE

#: (width, height) in pixels and how often; all about 64x64 pixels in area, as `encode` makes them.
SHAPES = {(64, 64): 0.4, (80, 48): 0.2, (48, 80): 0.2, (64, 48): 0.1, (96, 96): 0.1}
FPS = (6.0, 8.0, 8.0, 12.0, 24.0)
CROPS_PER_CLIP = 2
TYPICAL_BATCHES = 150  # of whole clips, for the statistics of the latents
UNSEEN = 1 << 40  # clips are numbered; validation takes numbers that no training reaches


@dataclass(frozen=True)
class TrainVaeConfig:
    """Train the video VAE on the procedural world.

    Attributes:
        out: folder of the run; the finished VAE lies in OUT/vae. A run found there goes on.
        preset: size of the VAE.
        training: how it is trained.
        batch: clips of `crop` x `crop` pixels per step; whole clips are fewer, pictures four times as many.
        crop: side of the squares cut out of clips; small ones let a step show many.
        whole_share: share of steps that show whole clips.
        frames: frames per clip, 4k+1.
        image_share: share of steps that show pictures, which are clips of one frame.
        validation_clips: unseen clips reconstructed at each validation.
        threads: cores for the computation; null takes what the environment says.
        device: cpu or cuda.
    """

    out: str
    preset: Literal["tiny", "base"] = "tiny"
    training: VaeTraining = field(default_factory=VaeTraining)
    batch: int = 4
    crop: int = 32
    whole_share: float = 0.3
    frames: int = 17
    image_share: float = 0.05
    validation_clips: int = 48
    threads: int | None = None
    device: str = "cpu"


def train_vae(config: TrainVaeConfig) -> None:
    """Train, validate, draw the strip, and print the figures and where the VAE lies."""
    from functools import partial
    from pathlib import Path

    import torch
    import yaml

    from model.errors import BadInput
    from model.vae import vae_id
    from model.vae_config import PRESETS
    from pipelines.progress import Progress
    from train import vae_loop
    from train.checkpoint import checkpoints
    from train.metrics import Metrics

    smallest = min(min(shape) for shape in SHAPES)
    if not 8 <= config.crop <= smallest:
        raise BadInput(
            f"crop {config.crop} does not fit: give 8 to {smallest} pixels, a multiple of 8 is best."
        )
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    run = Path(config.out)
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.yaml").write_text(yaml.safe_dump(asdict(config), sort_keys=False))
    validation = validation_set(config.validation_clips, config.frames)
    done = checkpoints(run)
    metrics = Metrics(run / "metrics.jsonl", int(done[-1].name.removeprefix("step-")) if done else 0)
    figures: dict[str, float] = {}
    with Progress("train-vae", total=config.training.steps, unit="steps") as progress:

        def log(row: dict) -> None:
            metrics.write(row)
            progress.advance(row["step"] - progress.done)
            progress.show(loss=row["loss"])
            found = {key: value for key, value in row.items() if key.startswith("val_")}
            if found:
                figures.update(found)
                progress.show(**found)

        batch_at = partial(world_batch, config=config)
        whole = replace(config, whole_share=1.0, image_share=0.0)
        typical = (world_batch(config.training.steps + i, whole) for i in range(TYPICAL_BATCHES))
        vae = vae_loop.train_vae(
            run, PRESETS[config.preset], config.training, batch_at, typical, validation, log, config.device
        )
    metrics.close()
    draw_strip(vae, validation, run / "samples" / "strip.png")
    print(f"VAE {vae_id(vae)} in {run / 'vae'}, strip in {run / 'samples' / 'strip.png'}")
    for name, value in figures.items():
        print(f"  {name:12} {value:.3f}")


def world_batch(step: int, config: TrainVaeConfig) -> Tensor:
    """The clips of a step, (B, T, H, W, 3) uint8, crops or whole, of one shape; the same ones each time."""
    import numpy as np
    import torch

    rng = np.random.default_rng((config.training.seed, step))
    shapes = list(SHAPES)
    width, height = shapes[rng.choice(len(shapes), p=list(SHAPES.values()))]
    frames = 1 if rng.random() < config.image_share else config.frames
    is_whole = rng.random() < config.whole_share
    area = width * height if is_whole else config.crop**2
    count = max(1, config.batch * config.crop**2 // area) * (4 if frames == 1 else 1)
    if is_whole:
        return torch.from_numpy(np.stack([world_clip(rng, frames, width, height) for _ in range(count)]))
    # Drawing a clip costs as much as learning from a square of it, so that several are cut out of each.
    drawn = [world_clip(rng, frames, width, height) for _ in range(-(-count // CROPS_PER_CLIP))]
    squares = []
    for i in range(count):
        y, x = rng.integers(height - config.crop + 1), rng.integers(width - config.crop + 1)
        squares.append(drawn[i // CROPS_PER_CLIP][:, y : y + config.crop, x : x + config.crop])
    return torch.from_numpy(np.stack(squares))


def world_clip(
    rng: np.random.Generator, frames: int, width: int, height: int, held_out: bool | None = False
) -> np.ndarray:
    """One clip, (T, H, W, 3) uint8; often drawn larger and scaled down, as footage is."""
    import cv2
    import numpy as np

    from pipelines.demo.world import draw_scene, render

    scene = draw_scene(rng, held_out=held_out, duration_s=float(rng.uniform(1.5, 3.0)))
    scale = int(rng.integers(1, 3))
    fps = float(rng.choice(FPS))
    video = render(scene, n_frames=frames, fps=fps, width=scale * width, height=scale * height)
    if scale == 1:
        return video
    return np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in video])


def validation_set(clips: int, frames: int) -> list[Tensor]:
    """Unseen clips, half of them of combinations that training never shows, in batches of one shape."""
    import numpy as np
    import torch

    shapes = ((64, 64), (80, 48), (64, 64), (48, 80))
    batches = []
    for first in range(0, clips, 4):
        rng = np.random.default_rng((UNSEEN, first))
        width, height = shapes[first // 4 % len(shapes)]
        some = [
            world_clip(rng, frames, width, height, held_out=i % 2 == 0) for i in range(min(4, clips - first))
        ]
        batches.append(torch.from_numpy(np.stack(some)))
    return batches


def draw_strip(vae: VideoVAE, batches: list[Tensor], path) -> None:  # type: ignore[no-untyped-def]
    """A PNG: for one clip of each of the first batches, every fourth frame above its reconstruction."""
    import cv2
    import numpy as np
    import torch

    from model.vae import from_pixels, to_pixels

    rows = []
    for frames in batches[:6]:
        x = from_pixels(frames[:1]).to(vae.latent_std.device)
        with torch.no_grad():
            y = to_pixels(vae.decode_latents(vae.encode_latents(x), like=x)).cpu()
        for video in (frames[0], y[0]):
            row = np.concatenate(list(video[::4].numpy()), axis=1)  # (H, n·W, 3)
            rows.append(row[:, :, ::-1])
        rows.append(np.full((4, rows[-1].shape[1], 3), 255, np.uint8))
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(r, ((0, 0), (0, width - r.shape[1]), (0, 0)), constant_values=255) for r in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.resize(np.concatenate(padded), None, fx=2, fy=2, interpolation=0))


def main(argv: list[str] | None = None) -> int:
    from pipelines.cli import run_command

    return run_command(TrainVaeConfig, train_vae, argv, name="train-vae")


if __name__ == "__main__":
    raise SystemExit(main())
