"""Video shards to latents: what `reelmill train` reads, so that training decodes no video and runs no VAE.

    reelmill encode --dataset ~/films
    reelmill encode --dataset s3://films --vae runs/vae/vae --frames.pixels=65536 --gpus=1 --encoders=8

Writes latents/VAE_ID/*.tar (KEY.latent, KEY.text, KEY.json), one for each tar of shards/, index.parquet and
latents.json. Killed anywhere and started again, it goes on where it was; what is encoded already with the
same settings is not encoded again. Clips are decoded ahead of the encoder, and at the end it tells how much of its
time it had to wait for them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipelines.encode_frames import FrameConfig
from pipelines.engine import Engine, RayConfig

if TYPE_CHECKING:
    from curate.dataset import Dataset
    from curate.stage import Stage
    from pipelines.encode_store import LatentStore


@dataclass(frozen=True)
class EncodeConfig:
    """Encode the shards of a dataset: VAE latents, and text features of one caption of each kind.

    Encoders whose attention is causal (CLIP, CoCa) also tell where each sentence ends, so that training can cut
    captions there; T5 attends both ways, and its captions are always shown whole, as are those of several encoders.

    Attributes:
        dataset: the dataset folder or URI.
        vae: folder of a VAE of ours, of a video VAE or pipeline of diffusers (Wan, HunyuanVideo, LTX-Video,
            CogVideoX), or hf:ORG/NAME; `embedded` is the tiny one of the procedural world.
        text: text encoder, an open_clip or transformers folder, ARCH/TAG or hf:ORG/NAME; `embedded` likewise. Several
            with commas between them: the model then reads the features of all.
        frames: which frames of a clip are encoded and how large.
        tile: side in pixels of the tiles in which the VAE sees pictures that are too large for its memory; null
            for whole pictures.
        batch_mb: MiB of decoded pictures that the VAE sees at once: clips of one shape together, a longer clip in
            chunks. A GPU wants some clips' worth; it decides values in the last digit, so latents are made anew.
        encoders: workers that hold the VAE and the text encoder.
        gpus: GPUs for each of them; may be a fraction, 0 encodes on the CPU.
        engine: ray streams over a cluster or this machine; local runs in this process. Same latents.
        ray: how to reach or start Ray.
    """

    dataset: str
    vae: str = "embedded"
    text: str = "embedded"
    frames: FrameConfig = field(default_factory=FrameConfig)
    tile: int | None = None
    batch_mb: int = 8
    encoders: int = 1
    gpus: float = 0.0
    engine: Engine = "ray"
    ray: RayConfig = field(default_factory=RayConfig)


def encode(config: EncodeConfig) -> None:
    """Encode the parts that are missing, pack the tars that are missing, then write the index."""
    from curate.dataset import Dataset
    from pipelines.encode_pack import PACK_INPUT, PackLatents
    from pipelines.encode_plan import plan
    from pipelines.encode_stages import DECODE_INPUT
    from pipelines.encode_store import LatentStore
    from pipelines.engine import run_stages
    from pipelines.metrics_stages import of_encode
    from pipelines.metrics_watch import Watch

    check(config)
    dataset = Dataset(config.dataset)
    about = about_latents(config) | caption_words(dataset)
    units = plan(dataset, config.frames, about)
    store = LatentStore(dataset, about)
    store.check()

    missing = store.missing(units)
    parts = store.missing_parts(missing)
    clips, times = sum(len(part["clips"]) for part in parts), Times()
    to_do = {"decode": clips, "encode": clips, "pack": len(missing)}
    with Watch("encode", config, of_encode(), to_do=to_do) as watch:
        if parts:
            stages = encoding(config, about)
            for row in run_stages(config.engine, parts, DECODE_INPUT, stages, config.ray, watch):
                times.add(row)
            times.end()
            print(times.told())
        packer: list[Stage] = [PackLatents(config.dataset, about["vae_id"])]
        rows = [unit.pack_row() for unit in missing]
        for _ in run_stages(config.engine, rows, PACK_INPUT, packer, config.ray, watch):
            pass  # each is committed, and told by the watch
        counts = store.finish(units)
    print(told(store, counts))


def check(config: EncodeConfig) -> None:
    """Raises BadInput for what can never work, before a model is loaded."""
    from curate.errors import BadInput

    config.frames.check()
    if config.encoders < 1:
        raise BadInput(f"encoders {config.encoders} must be at least 1.")
    if not 1 <= config.batch_mb <= 1024:
        raise BadInput(
            f"batch_mb {config.batch_mb} must be from 1 to 1024: more cannot be sent to an encoder at once."
        )
    if config.gpus < 0 or (config.gpus > 1 and config.gpus % 1):
        raise BadInput(f"gpus {config.gpus} must be 0, a fraction of one GPU, or a whole number.")
    if config.gpus and config.engine == "local":
        import torch

        if not torch.cuda.is_available():
            raise BadInput("PyTorch finds no GPU on this machine. Leave --gpus out to encode on the CPU.")


def encoding(config: EncodeConfig, about: dict[str, Any]) -> list[Stage]:
    """The stages that make the parts: decoders, as many as there are cores, and encoders that stay."""
    from curate.stage import Resources
    from pipelines.encode_stages import DecodeClips, EncodeClips

    # One on a GPU mostly waits for it: the cores are for the decoders.
    worker = Resources(cpus=0 if config.gpus else 1, gpus=config.gpus, actors=config.encoders)
    ids = (about["vae_id"], about["text_id"])
    return [
        DecodeClips(config.dataset),
        EncodeClips(
            config.dataset, *models(config), worker, config.frames, config.tile, config.batch_mb, ids
        ),
    ]


@dataclass
class Times:
    """Seconds of all encoders: at work, and waiting from when each was ready until the last part is done."""

    busy_s: float = 0.0
    waited_s: float = 0.0
    last_s: dict[str, float] = field(default_factory=dict)  # of each encoder, when its last row came

    def add(self, row: dict[str, Any]) -> None:
        self.busy_s += row["busy_s"]
        self.waited_s += row["waited_s"]
        self.last_s[row["worker"]] = time.perf_counter()

    def end(self) -> None:
        """No more rows come: those who were ready before the last one waited for it."""
        end_s = max(self.last_s.values(), default=0.0)
        self.waited_s += sum(end_s - last_s for last_s in self.last_s.values())
        self.last_s.clear()

    @property
    def share_waited(self) -> float:
        return self.waited_s / (self.busy_s + self.waited_s)

    def told(self) -> str:
        return (
            f"the encoder waited {100 * self.share_waited:.0f} % of its time for pictures "
            f"({self.busy_s:.1f} s at work, {self.waited_s:.1f} s waiting)"
        )


def models(config: EncodeConfig) -> tuple[str, str]:
    """Where the VAE and the text encoders are."""
    from pipelines.demo.weights import embedded
    from pipelines.text_place import text_place

    return str(embedded("vae") if config.vae == "embedded" else config.vae), text_place(config.text)


def caption_words(dataset: Dataset) -> dict[str, Any]:
    """How long the dense captions are, for prompt upsampling at sampling time; nothing where there are none."""
    from curate.errors import BadInput
    from recaption.upsampling.lengths import dense_words

    if not dataset.has("captions"):
        return {}
    try:
        return {"caption_words": list(dense_words(dataset))}
    except BadInput:  # originals alone are no model for a rewriter
        return {}


def about_latents(config: EncodeConfig) -> dict[str, Any]:
    """What latents.json tells: all that decides what the latents are. Raises BadInput if a model is amiss."""
    import numpy as np

    from model.any_vae import any_vae_id, load_any_vae
    from model.text import load_text_encoder
    from pipelines.encode_latents import frame_step, latents_of
    from pipelines.places import absolute
    from pipelines.text_place import text_id

    vae_place, text_name = models(config)
    vae, text = load_any_vae(vae_place), load_text_encoder(text_name)
    if config.tile is not None:  # tiles that do not fit are told before the work begins
        picture = np.zeros((1, vae.config.spatial, vae.config.spatial, 3), np.uint8)
        latents_of(vae, [picture], config.frames, config.tile)
    return {
        "vae_id": any_vae_id(vae),
        "vae": absolute(config.vae),  # for readers in other working folders
        "channels": vae.config.channels,
        "temporal": vae.config.temporal,
        "frame_step": frame_step(vae),
        "spatial": vae.config.spatial,
        "tile": config.tile,
        "batch_mb": config.batch_mb,
        "text_encoder": config.text,
        "text_id": text_id(text_name),
        "text_width": text.width,
        "text_causal": text.causal,
        "pixels": config.frames.pixels,
        "fps": config.frames.fps,
        "max_frames": config.frames.max_frames,
        "keyframes": config.frames.keyframes,
        "suffix": config.frames.suffix,
    }


def told(store: LatentStore, counts: dict[str, Any]) -> str:
    """Clips encoded and failed, where the latents lie, and how to choose if other VAEs have some as well."""
    line = (
        f"latents {counts['encoded']} clips in {counts['tars']} shards + {counts['failed']} failed, "
        f"{counts['tokens']:,} tokens, in {store.dataset.uri.rstrip('/')}/{store.folder}"
    )
    if counts["stills"]:
        line += (
            f"\n{counts['stills']} clips are too short for a step of the VAE ({store.about['frame_step'] + 1} pictures "
            f"at {store.about['fps']:g} per second, or --frames.max_frames): of these the first picture is encoded"
        )
    if counts["commonest"]:
        error, count = counts["commonest"]
        line += (
            f"\nmost often ({count} of {counts['failed']} failed) because: {error.splitlines()[0]}\n"
            "see `error` in index.parquet; running again tries them again, but for those in which a worker died"
        )
    if others := store.others():
        line += (
            f"\nthere are latents of {', '.join(others)} as well; they do not mix: "
            f"train with --vae_id={store.about['vae_id']} or another"
        )
    return line


def main(argv: list[str] | None = None) -> int:
    from pipelines.cli import run_command

    return run_command(EncodeConfig, encode, argv, name="encode")


if __name__ == "__main__":
    raise SystemExit(main())
