"""Generate videos from prompts, pictures and videos with a trained diffusion transformer.

reelmill sample --checkpoint demo-run/runs/dit --prompt "a red disc moves left over a green hill" --out samples
reelmill sample --checkpoint demo-run/runs/dit --prompts prompts.txt --out samples --gif
reelmill sample --checkpoint demo-run/runs/dit --prompt "..." --out samples --image first.png
reelmill sample --checkpoint demo-run/runs/dit --prompt "..." --out samples --video film.mp4 --extend both
reelmill sample --checkpoint demo-run/runs/dit --prompt "..." --out samples --connect a.mp4 b.mp4
reelmill sample --checkpoint demo-run/runs/dit --prompt "..." --out samples --edit film.mp4 --strength 0.6
reelmill sample --checkpoint demo-run/runs/dit --prompt "..." --out samples --video film.mp4 --keep 0-8,40-48
reelmill sample --checkpoint demo-run/runs/dit --prompt "..." --out samples --frames 960       # a chain of pieces

Given pictures are in the results with their own pixels, where they were given (pipelines/sample_modes.py).
OUT/prompts.json tells for each video what was asked for, with seed, and what the model was given: its `asked` is a
line for --prompts that makes the same video again, with the same checkpoint, --sampler.*, --weights, --vae and --tile
and without --upsample.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass, field
from typing import Literal

from model.sample_config import SampleConfig
from pipelines.upsample import UpsampleConfig


@dataclass(frozen=True)
class SampleCommand:
    """Generate one video per prompt: mp4 files, a contact sheet (strip.png) and the prompts (prompts.json).

    Attributes:
        checkpoint: the folder of a training run (its newest checkpoint is taken), or of one checkpoint; `embedded` is
            the tiny one that ships with the code and knows the procedural world.
        out: folder for the results.
        prompt: what to show; give --prompt several times for several videos.
        prompts: file with more of them; .txt with one in each line, or .jsonl with objects that have a `prompt` and
            may have options of their own, from seed to stretch below, such as {"prompt":"a star","seed":7}.
        seed: seed of the first video, from 0 to 4294967295; the next ones count on from it.
        frames: how many pictures to generate, 1 for a picture (png). Null takes what the model was mostly trained on,
            and of a video that is edited or kept in part as many as it has. More than one piece becomes a chain.
            With --extend, --connect and --loop of a video these are the new ones, for each side.
        width: width in pixels; null takes what the model was mostly trained on, in the aspect ratio of what is given.
        height: height in pixels, likewise.
        fps: frames per second, from 0.1 to 240; null takes what the model was mostly trained on. Videos given are read
            at this rate.
        image: a picture to begin with.
        video: a video to work on, with --extend, --loop or --keep.
        extend: generate what comes before the video, after it, or both.
        loop: lead from the end of the video back to its beginning; without --video, of one that is generated first.
        connect: two videos; lead from the first to the second.
        edit: a video to draw anew.
        keep: numbers of the pictures of the video to keep, from 0, such as 0-8,40-48; the others are generated.
        strength: with --edit, how much is drawn anew, from 0 to 1; null is 0.6.
        only_generated: with --extend, --connect, and --loop of a video leave out the videos that were given.
        piece: frames that are drawn at a time; longer videos are chains of such pieces. Null takes what the model was
            mostly trained on.
        context: frames that a piece goes on from, rounded down to what the VAE can encode; null takes about half a
            piece, between two ends a quarter on each side. Where the VAE is not causal it is one picture.
        stretch: how pieces that are longer or larger than the model was mostly trained on are brought into the
            positions that it has seen (model/rope.py): ntk leaves near tokens at their distances, interpolate divides
            all alike.
        gif: write a GIF beside each mp4, of at most 50 frames per second: more are left out.
        weights: ema draws from the averaged weights, model from the last ones.
        vae: folder of the VAE; null takes the one that made the latents.
        tile: side in pixels of the tiles in which the VAE sees pictures that are too large for its memory; null for
            whole pictures.
        text_encoder: name of the text encoder; null takes the one that made the text features.
        upsample: whether prompts are first written out in the manner of the training captions.
        sampler: solver, steps and guidance.
        device: cpu, cuda, or auto (cuda where there is one).

    Examples:
        reelmill sample --checkpoint demo-run/runs/dit --prompt "a small red disc moves left" --out samples
    """

    checkpoint: str
    out: str
    prompt: list[str] = field(default_factory=list)
    prompts: str | None = None
    seed: int = 0
    frames: int | None = None
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    image: str | None = None
    video: str | None = None
    extend: Literal["forward", "backward", "both"] | None = None
    loop: bool = False
    connect: list[str] | None = None
    edit: str | None = None
    keep: str | None = None
    strength: float | None = None
    only_generated: bool = False
    piece: int | None = None
    context: int | None = None
    stretch: Literal["none", "ntk", "interpolate"] = "none"
    gif: bool = False
    weights: Literal["ema", "model"] = "ema"
    vae: str | None = None
    tile: int | None = None
    text_encoder: str | None = None
    upsample: UpsampleConfig = field(default_factory=UpsampleConfig)
    sampler: SampleConfig = field(default_factory=SampleConfig)
    device: Literal["auto", "cpu", "cuda"] = "auto"


def sample(config: SampleCommand) -> None:
    """Generate the videos and print where they lie."""
    from pipelines.generate import generate

    for path in generate(config):
        print(path)


def main(argv: list[str] | None = None) -> int:
    from pipelines.cli import run_command

    return run_command(SampleCommand, sample, gather_lists(argv), name="sample")


def gather_lists(argv: list[str] | None) -> list[str]:
    """`--prompt A --prompt B` and `--connect A B` as options with a list, whatever signs the texts hold.

    A text that begins with -- is given as --prompt=TEXT. A --prompt without a text is left to be refused.
    """
    prompts: list[str] = []
    others: list[str] = []
    args = list(sys.argv[1:] if argv is None else argv)
    while args:
        flag, equals, value = (arg := args.pop(0)).partition("=")
        following = 0
        while following < len(args) and not args[following].startswith("--"):
            following += 1
        if flag == "--prompt" and equals:
            prompts.append(value)
        elif arg == "--prompt" and following:
            prompts.append(args.pop(0))
        elif arg == "--connect":
            others.append(f"--connect={_in_yaml(args[:following])}")
            del args[:following]
        else:
            others.append(arg)
    return [*others, f"--prompt={_in_yaml(prompts)}"] if prompts else others


#: Signs that may not stand as they are in a text of YAML, or would be read as the end of a line.
_NOT_IN_YAML = re.compile("[^ -~\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")


def _in_yaml(texts: list[str]) -> str:
    """A list of texts as YAML reads it. JSON's pairs of surrogates for signs beyond U+FFFF would be two signs there."""
    return _NOT_IN_YAML.sub(lambda sign: f"\\U{ord(sign[0]):08X}", json.dumps(texts, ensure_ascii=False))


if __name__ == "__main__":
    raise SystemExit(main())
