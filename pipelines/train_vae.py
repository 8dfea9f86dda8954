"""Train the video VAE: on the clips of a dataset's shards, or on the procedural world, rendered on the fly.

    reelmill train-vae --dataset s3://films --out runs/vae --vae.preset base --device cuda
    torchrun --nproc_per_node 8 -m pipelines.train_vae --config pipelines/configs/train-vae.yaml ...
    reelmill train-vae --out runs/world              # the world; what made the embedded VAE stands in its card
    reelmill train-vae --out /tmp/vae --training.steps=50 --validation_clips=4     # a quick look

OUT/vae is then a folder for `reelmill encode --vae`. Killed at any moment and started again with the same
settings, it goes on from its last checkpoint. OUT/samples/step-00002000.png shows unseen clips above what the VAE
makes of them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal

from model.vae_config import VAESizeConfig
from pipelines.vae_windows import CropConfig
from pipelines.vae_world import WorldConfig
from train.vae_settings import VaeTraining

if TYPE_CHECKING:
    from model.vae import VideoVAE
    from train.vae_batches import VaeData


@dataclass(frozen=True)
class TrainVaeConfig:
    """Train the video VAE on the shards of a dataset, or on the procedural world.

    Attributes:
        out: folder of the run; the finished VAE lies in OUT/vae. A run found there goes on.
        dataset: the dataset folder or URI whose shards are learnt from; null is the procedural world.
        vae: size, compression and bottleneck of the VAE.
        training: how it is trained.
        crops: which parts of the clips of a dataset are shown.
        world: which parts of the procedural world are shown, where there is no dataset.
        batch: clips per step and rank; pictures are four times as many.
        validation_clips: unseen clips reconstructed at each validation.
        typical_clips: clips from which the statistics of the latents are taken at the end.
        threads: cores for the computation; null takes what the environment says.
        device: cpu, cuda, or auto (cuda where there is one).
    """

    out: str
    dataset: str | None = None
    vae: VAESizeConfig = field(default_factory=VAESizeConfig)
    training: VaeTraining = field(default_factory=VaeTraining)
    crops: CropConfig = field(default_factory=CropConfig)
    world: WorldConfig = field(default_factory=WorldConfig)
    batch: int = 4
    validation_clips: int = 48
    typical_clips: int = 300
    threads: int | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        from model.errors import BadInput

        if self.batch < 1 or self.typical_clips < 1 or self.validation_clips < 0:
            raise BadInput(
                "batch and typical_clips must be 1 or more, and validation_clips 0 or more: got "
                f"{self.batch}, {self.typical_clips} and {self.validation_clips}."
            )
        if "://" in self.out:
            raise BadInput(
                f"--out={self.out} must be a folder of this machine; copy OUT/vae when it is done."
            )


def train_vae(config: TrainVaeConfig) -> None:
    """Train, validate, draw strips, and print the figures and where the VAE lies."""
    import os
    from pathlib import Path

    import torch
    import yaml

    from model.vae import vae_id
    from pipelines.progress import Progress
    from pipelines.vae_strip import draw_strip
    from train import vae_loop
    from train.checkpoint import checkpoints
    from train.metrics import Metrics

    shape = config.vae.config()
    data = vae_data(config, shape.temporal, shape.spatial)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    run = Path(config.out)
    if os.environ.get("RANK", "0") != "0":
        vae_loop.train_vae(run, shape, config.training, data, lambda row: None, device=config.device)
        return
    run.mkdir(parents=True, exist_ok=True)
    done = checkpoints(run)
    metrics = Metrics(run / "metrics.jsonl", int(done[-1].name.removeprefix("step-")) if done else 0)
    figures: dict[str, float] = {}
    with Progress("train-vae", total=config.training.steps, unit="steps") as progress:

        def log(row: dict) -> None:
            if progress.done == 0:  # by now the configuration has proved usable
                (run / "config.yaml").write_text(yaml.safe_dump(asdict(config), sort_keys=False))
            metrics.write(row)
            progress.advance(row["step"] - progress.done)
            progress.show(loss=row["loss"])
            found = {key: value for key, value in row.items() if key.startswith("val_")}
            if found:
                figures.update(found)
                progress.show(**found)

        def look(vae: VideoVAE, step: int) -> None:
            draw_strip(vae, data.validation, run / "samples" / f"step-{step:08d}.png")

        vae = vae_loop.train_vae(run, shape, config.training, data, log, look, config.device)
    metrics.close()
    print(f"VAE {vae_id(vae)} in {run / 'vae'}, strips of unseen clips in {run / 'samples'}")
    for name, value in figures.items():
        print(f"  {name:12} {value:.3f}")


def vae_data(config: TrainVaeConfig, temporal: int, spatial: int) -> VaeData:
    """What is learnt from. Raises BadInput where crops do not fit the VAE, or there is nothing."""
    import os

    from model.errors import BadInput
    from pipelines.vae_shards import ShardCrops
    from pipelines.vae_world import WorldCrops
    from train.vae_batches import VaeData

    cuts = config.world if config.dataset is None else config.crops
    if cuts.crop < spatial or cuts.crop % spatial or cuts.frames < 1 or (cuts.frames - 1) % temporal:
        raise BadInput(
            f"crops of {cuts.crop} pixels and {cuts.frames} frames do not fit this VAE: give a multiple of {spatial} "
            f"pixels and {temporal}k+1 frames."
        )
    smallest = 3 * 2**config.training.discriminator_depth
    if config.training.loss.adversarial > 0 and cuts.crop < smallest:
        raise BadInput(
            f"crops of {cuts.crop} pixels are too small for the discriminator: give {smallest} or more, or a lower "
            "--training.discriminator_depth."
        )
    crops = (
        WorldCrops(config.world, batch=config.batch, seed=config.training.seed)
        if config.dataset is None
        else ShardCrops(config.dataset, config.crops, batch=config.batch, seed=config.training.seed)
    )
    if os.environ.get("RANK", "0") == "0":
        print(crops.told())
    return VaeData(
        crops, crops.typical(config.typical_clips), crops.validation(config.validation_clips), crops.about()
    )


def main(argv: list[str] | None = None) -> int:
    from pipelines.cli import run_command

    return run_command(TrainVaeConfig, train_vae, argv, name="train-vae")


if __name__ == "__main__":
    raise SystemExit(main())
