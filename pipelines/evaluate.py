"""How well trained models do what prompts say: videos of the procedural world, captioned and measured.

    reelmill evaluate --checkpoint demo-run/runs/dit --out evaluation
    reelmill evaluate --checkpoint runs/S runs/B --out evaluation --device cuda
    reelmill evaluate --checkpoint runs/S/checkpoints/* --out scaling --prompts=200
    reelmill evaluate --dataset demo-run/dataset --out of-the-dataset

Prompts describe combinations of kind, colour and background that training never shows together. Each model draws a
video for each of them; the embedded captioner, optical flow and others judge the videos (pipelines/evaluate_judge.py).
Two anchors make the figures readable: the true clips through the VAE, which is what a perfect model would get (once for
each size, length, frame rate and VAE), and a blind guess. Writes results.json, table.md, evaluation.png, and for each
row what was seen in every video, each time that a model is done. What was broken off goes on from there when it is
started again with the same settings (pipelines/evaluate_results.py).

With --dataset the same judges look at clips of its shards (pipelines/evaluate_dataset.py).
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass, field
from typing import Literal

from model.sample_config import SampleConfig


@dataclass(frozen=True)
class EvaluateConfig:
    """Measure trained models on the procedural world: attributes, motion, flicker, distance from true clips.

    The models must know the world, such as those of `reelmill demo`. Videos have the size, length and frame rate that
    the model was mostly trained on. With the same seed the prompts and the noise are the same for every model.

    Attributes:
        out: folder for the results. Models that it holds already, measured in the same way, are not drawn again.
        checkpoint: folders of training runs (of each its newest checkpoint is taken) or of single checkpoints, one
            row of the table for each; one that is named twice is measured once. Several make a picture of the
            figures over the training tokens, scaling.png.
        dataset: instead of a checkpoint, a dataset folder or URI whose clips are measured.
        prompts: how many prompts; of a dataset, how many clips.
        manner: how the prompts are written: dense (40 to 80 words), short (one sentence), or original (as people
            write, who leave much out; what they leave out is not asked for).
        cameras: any draws scenes with all camera moves and lights, as the demo's films have; still only such with a
            camera at rest and soft light, as the study of captions has.
        seed: decides the scenes, their prompts and the noise.
        batch: videos that are drawn, decoded and judged at a time; bounds the memory.
        weights: ema draws from the averaged weights, model from the last ones.
        vae: folder of the VAE; null takes the one that made the latents.
        text_encoder: name of the text encoder; null takes the one that made the text features.
        sampler: steps and guidance.
        device: cpu, cuda, or auto (cuda where there is one).

    Examples:
        reelmill evaluate --checkpoint demo-run/runs/dit --out evaluation --prompts=100
    """

    out: str
    checkpoint: list[str] = field(default_factory=list)
    dataset: str | None = None
    prompts: int = 500
    manner: Literal["dense", "short", "original"] = "dense"
    cameras: Literal["any", "still"] = "any"
    seed: int = 0
    batch: int = 64
    weights: Literal["ema", "model"] = "ema"
    vae: str | None = None
    text_encoder: str | None = None
    sampler: SampleConfig = field(default_factory=SampleConfig)
    device: Literal["auto", "cpu", "cuda"] = "auto"


def evaluate(config: EvaluateConfig) -> None:
    """Measure every model and the true clips, and write what comes out; prints the tables. Raises BadInput."""
    from pathlib import Path

    from curate.errors import BadInput

    for name, least in (("prompts", 1), ("batch", 1), ("seed", 0)):
        if getattr(config, name) < least:
            raise BadInput(f"--{name}={getattr(config, name)} must be at least {least}.")
    if bool(config.checkpoint) == (config.dataset is not None):
        raise BadInput(
            "give either --checkpoint RUN, the --out folder of `reelmill train`, or --dataset URI: one of the two."
        )
    try:
        Path(config.out).mkdir(parents=True, exist_ok=True)
    except OSError as error:  # it, or a folder that it lies in, is a file or not ours
        raise BadInput(
            f"--out={config.out} cannot be made a folder ({error.strerror}). Give one that can."
        ) from error
    if config.dataset is not None:
        from pipelines.evaluate_dataset import evaluate_dataset

        print(evaluate_dataset(config, config.dataset))
        return
    from pipelines.evaluate_models import checkpoints_of
    from pipelines.evaluate_results import Results
    from pipelines.evaluate_world import measure

    checkpoints = checkpoints_of(config)
    results = Results(config, checkpoints)
    for measured in measure(config, checkpoints, results.has):
        results.add(measured)
    print(results.publish())


def main(argv: list[str] | None = None) -> int:
    from pipelines.cli import run_command

    return run_command(EvaluateConfig, evaluate, gather_checkpoints(argv), name="evaluate")


def gather_checkpoints(argv: list[str] | None) -> list[str]:
    """`--checkpoint A B` and `--checkpoint A --checkpoint=B` as one option with a list, as shells expand A*."""
    found: list[str] = []
    others: list[str] = []
    is_ours = False
    for arg in sys.argv[1:] if argv is None else argv:
        flag, equals, value = arg.partition("=")
        if flag == "--checkpoint":
            is_ours = not equals
            found += [value] if equals else []
        elif is_ours and not arg.startswith("--"):
            found.append(arg)
        else:
            is_ours = False
            others.append(arg)
    return [*others, f"--checkpoint={_yaml(found)}"] if found else others


def _yaml(names: list[str]) -> str:
    """The names as a list that YAML reads back: it joins no pairs of \\u escapes, as JSON has them beyond U+FFFF, and
    takes some characters for line breaks or for none at all."""
    text = json.dumps(names, ensure_ascii=False)
    return re.sub(r"[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]", lambda found: f"\\u{ord(found[0]):04x}", text)


if __name__ == "__main__":
    raise SystemExit(main())
