"""What a training on raw video is told beyond any other, as plain data that needs no torch.

run = RawRun(dataset="s3://films", out="runs/S", encode=OnTheFly(frames=FrameConfig(fps=6.0)))
train(run.plain(), log, run.data())                      # of train/loop.py
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from pipelines.encode import EncodeConfig
from pipelines.encode_frames import FrameConfig
from train.config import TrainConfig

if TYPE_CHECKING:
    from pipelines.train_raw import RawShards


@dataclass(frozen=True)
class OnTheFly:
    """How clips are encoded as they are read; the same as of `reelmill encode`, and with the same defaults.

    Attributes:
        vae: folder of a VAE of ours, of a video VAE or pipeline of diffusers, or hf:ORG/NAME; `embedded` is the tiny
            one of the procedural world.
        text: text encoder, an open_clip or transformers folder, ARCH/TAG or hf:ORG/NAME, or several with commas
            between them; `embedded` likewise.
        frames: which frames of a clip are encoded and how large.
        tile: side in pixels of the tiles in which the VAE sees pictures that are too large for its memory; null
            for whole pictures.
        batch_mb: MiB of decoded pictures that the VAE sees at once: a longer clip goes through in chunks.
    """

    vae: str = EncodeConfig.vae
    text: str = EncodeConfig.text
    frames: FrameConfig = field(default_factory=FrameConfig)
    tile: int | None = EncodeConfig.tile
    batch_mb: int = EncodeConfig.batch_mb

    def of(self, dataset: str) -> EncodeConfig:
        """What `reelmill encode` would be told to encode all of the dataset so."""
        return EncodeConfig(dataset, **{f.name: getattr(self, f.name) for f in fields(self)})


@dataclass(frozen=True)
class RawRun(TrainConfig):
    """A training that reads shards/ and encodes on the fly, wherever it runs."""

    raw: bool = True
    encode: OnTheFly = field(default_factory=OnTheFly)

    def plain(self) -> TrainConfig:
        """What the trainer is told: of where latents come from it knows nothing, so that this may change."""
        return TrainConfig(**{f.name: getattr(self, f.name) for f in fields(TrainConfig)})

    def data(self) -> RawShards:
        """The clips of the shards. Raises BadInput."""
        from pipelines.train_raw import RawShards

        return RawShards(self.dataset, self.encode, self.device, self.vae_id)
