"""Everything that a training run of the diffusion transformer can be told, as plain data that needs no torch.

TrainConfig(dataset="demo-run/dataset", out="demo-run/runs/dit", steps=1500, packing=PackingConfig(budget=2048))
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from model.config import AttentionBackend, FlowConfig, Recompute, SizeConfig
from model.errors import BadInput
from train.run_config import FeedConfig, GuardConfig, ParallelConfig, ValidationConfig


@dataclass(frozen=True)
class PackingConfig:
    """How clips are packed into batches.

    Attributes:
        budget: most tokens in a pack, per rank and forward pass; the largest clip must fit.
        pool: clips to choose from when filling a pack; the oldest of them always goes first.
        window: packs that are put in order of their FLOPs together, so that all ranks have a like amount of work
            in a step; null takes 24 times ranks x accumulate, which keeps the slowest rank within 6 % of the mean
            in epochs of 40 steps or more (tests/bench/packing.py). 1 leaves the order as packed, and so does a step
            of one pack, which has nothing to balance.
    """

    budget: int = 8192
    pool: int = 256
    window: int | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and value < 1:
                raise BadInput(f"packing.{name} is {value}, must be 1 or more.")


@dataclass(frozen=True)
class CaptionBlend:
    """Which caption of a clip is shown, and how much of it; drawn anew each epoch (train/blend.py).

    A weight of 0 means never. Shares of kinds that a clip lacks go to those it has.

    Attributes:
        original: share of the original caption, where there are synthetic ones too (DALL-E 3's recipe: 5 %).
        short: relative weight of the short caption among the synthetic ones.
        dense: that of the dense caption; others that are neither short nor structured share it equally.
        structured: that of the structured caption.
        drop_share: share of draws that show no text, for classifier-free guidance.
        cut_share: share of captions of several sentences that are cut after the first few, their number drawn
            evenly; cached features of encoders that are not causal cannot be cut.
        field_keep: probability of each field of a structured caption to be shown; the subject always is.
        shuffle_share: share of structured captions whose fields are shuffled.
    """

    original: float = 0.05
    short: float = 0.3
    dense: float = 0.7
    structured: float = 0.3
    drop_share: float = 0.1
    cut_share: float = 0.1
    field_keep: float = 0.8
    shuffle_share: float = 0.5

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            most = math.inf if name in ("short", "dense", "structured") else 1
            if not (0 <= value <= most and math.isfinite(value)):
                limit = "0 or more" if most == math.inf else "from 0 to 1"
                raise BadInput(f"captions.{name} is {value}, must be {limit}.")


@dataclass(frozen=True)
class ConditionMix:
    """What of a clip is given beside its text, drawn anew each epoch (train/conditions.py); relative weights.

    Shares of what a clip cannot give go to the others: one encoded without keyframes has no last picture by
    itself, one without a suffix no ending, one whose first picture is stored by itself (its VAE is not causal) no
    prefix, and a picture has nothing to give.

    Attributes:
        text: nothing.
        first_frame: the first picture.
        prefix: the first few latent frames, to continue forwards.
        suffix: the ending, encoded by itself, to continue backwards.
        both_ends: the first picture and the last.
        random: any of the beginning, the keyframes and the ending, each with probability one half.
        noise: most noise in what is given, of the level 1 that is noise alone; each draw takes a level between 0 and
            this. The model is told 0, and samples have none: it learns that what is given may be a little off, as
            pictures of its own making are.
    """

    text: float = 0.5
    first_frame: float = 0.2
    prefix: float = 0.1
    suffix: float = 0.05
    both_ends: float = 0.1
    random: float = 0.05
    noise: float = 0.02

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (0 <= value < math.inf) or (name == "noise" and value > 1):
                raise BadInput(
                    f"condition.{name} is {value}, must be {'from 0 to 1' if name == 'noise' else '0 or more'}."
                )
        if not any(value for name, value in vars(self).items() if name != "noise"):
            raise BadInput("all weights of condition are 0: give condition.text or another one a weight.")


@dataclass(frozen=True)
class OptimConfig:
    """The optimizer and its schedule.

    Attributes:
        name: adamw, or muon, which moves weight matrices by their orthogonalised momentum and the rest as AdamW does
            (train/muon.py): small models learn more in as many steps, at a higher rate (3e-3 serves well).
        lr: peak learning rate.
        warmup: steps of linear warm-up.
        schedule: after the warm-up, stay constant, or fall along a cosine to a twentieth at the last step.
        cooldown: last steps in which the rate falls in a line to zero, whatever the schedule.
        beta1: decay of the mean of gradients.
        beta2: decay of the mean of squared gradients.
        weight_decay: decay of weight matrices; biases, norms and tables have none.
        clip: largest norm of the gradient; more is scaled down; .inf for no limit.
        ema: decay of the averaged weights, which samples are drawn from; it ramps up over the first steps.
    """

    name: Literal["adamw", "muon"] = "adamw"
    lr: float = 2e-4
    warmup: int = 1000
    schedule: Literal["constant", "cosine"] = "constant"
    cooldown: int = 0
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.9999

    def __post_init__(self) -> None:
        limits = {
            "above 0": {"clip": self.clip > 0},
            "0 or more": {
                "lr": 0 <= self.lr < math.inf,
                "warmup": self.warmup >= 0,
                "cooldown": self.cooldown >= 0,
                "weight_decay": 0 <= self.weight_decay < math.inf,
            },
            "from 0 to below 1": {
                "beta1": 0 <= self.beta1 < 1,
                "beta2": 0 <= self.beta2 < 1,
                "ema": 0 <= self.ema < 1,
            },
        }
        for limit, fields in limits.items():
            for name, is_within in fields.items():
                if not is_within:
                    raise BadInput(f"optim.{name} is {getattr(self, name)}, must be {limit}.")


@dataclass(frozen=True)
class TrainConfig:
    """Train the diffusion transformer on the latents of a dataset.

    A run that was stopped goes on where its newest checkpoint stands when the same command is given again.

    Attributes:
        dataset: the dataset folder or URI; it must hold latents (`reelmill encode`).
        out: the folder of the run: config.yaml, metrics.jsonl, checkpoints/, tensorboard/.
        save_to: where its checkpoints go instead of OUT/checkpoints: a folder or URI, such as s3://bucket/runs/S.
        vae_id: which folder below latents/ to read; null if there is but one.
        only: train on the pictures of the dataset alone, or on its clips alone; null takes both. Shapes are learned in
            fewer tokens from pictures: begin with these, then go on with clips by `--init` in a run of its own.
        steps: optimizer steps in all.
        accumulate: packs per rank and step.
        seed: seed of the weights, the order of clips and all noise.
        save_every: steps between checkpoints; the last step always has one.
        keep: checkpoints to keep, newest first.
        log_every: steps between rows of metrics.jsonl.
        precision: bf16 computes in half precision and keeps weights in full.
        device: cpu, cuda, or auto (cuda where there is one).
        attention: how attention is computed; auto takes FlashAttention on CUDA in half precision.
        recompute: activation checkpointing: the backward pass computes every other block (selective) or all blocks
            (full) again, which takes less memory and more time.
        compile: compile the blocks by torch.compile, all sizes of packs by one graph.
        left_out: share of each clip's noisy tokens that training leaves out, which makes it cheaper (MaskDiT); a last
            part of a training should see whole clips (0). A run that goes on with another share packs its clips
            anew, and so ends the epoch it is in.
        init: start from given weights instead of random ones: the averaged weights of a run or a checkpoint of
            `reelmill train`, the folder (or hf:ORG/NAME) of diffusers' WanTransformer3DModel, or `embedded`, the tiny
            one that ships with the code. The geometry is then that of the weights.
        model: the transformer; with init leave it out.
        flow: noise levels.
        captions: which caption is shown.
        condition: what is given beside the text.
        packing: how clips are packed.
        optim: optimizer, schedule and weight average.
        parallel: how ranks share the work.
        feed: reading ahead.
        guard: what to do when something goes wrong.
        validation: the loss on clips held back.

    Examples:
        reelmill train --dataset demo-run/dataset --out demo-run/runs/dit --steps 1500
        reelmill train --dataset more/dataset --out runs/tuned --init demo-run/runs/dit --steps 500 --optim.lr=5e-5
        torchrun --nproc_per_node 8 -m pipelines.train --config pipelines/configs/train.yaml
    """

    dataset: str
    out: str
    save_to: str | None = None
    vae_id: str | None = None
    only: Literal["pictures", "clips"] | None = None
    steps: int = 100_000
    accumulate: int = 1
    seed: int = 0
    save_every: int = 1000
    keep: int = 2
    log_every: int = 10
    precision: Literal["fp32", "bf16"] = "fp32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    attention: AttentionBackend = "auto"
    recompute: Recompute = "none"
    compile: bool = False
    left_out: float = 0.0
    init: str | None = None
    model: SizeConfig = field(default_factory=SizeConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    captions: CaptionBlend = field(default_factory=CaptionBlend)
    condition: ConditionMix = field(default_factory=ConditionMix)
    packing: PackingConfig = field(default_factory=PackingConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    feed: FeedConfig = field(default_factory=FeedConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)

    def __post_init__(self) -> None:
        if not 0 <= self.left_out < 1:
            raise BadInput(f"left_out is {self.left_out}: give a share from 0 to below 1.")
        for name in ("steps", "accumulate", "save_every", "keep", "log_every"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name} is {getattr(self, name)}, must be 1 or more.")
