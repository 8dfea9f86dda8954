"""Do descriptive captions help? DALL-E 3's Figures 4 and 5 on video, in small, by one command.

    python -m pipelines.demo.caption_study --out runs/study
    python -m pipelines.demo.caption_study --out runs/try --arms=[original,dense-95] --seeds=1 --steps=1000

The same small diffusion transformer is trained on the same clips with other captions, and asked for videos that an
oracle reads pixel by pixel. Writes results.json, table.md and study.png after every training, so that what is there
can be read before the last one ends. docs/captions-help.md tells the method and what came out.

    out/dataset/latents/          the training set              out/trainings/ARM-SEED/   run, result.json, samples.png
    out/study.json                settings of the study         out/reference.json        what a perfect model would get
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from model.config import FlowConfig, SizeConfig
from model.sample_config import SampleConfig
from pipelines.whole_file import write_json
from train.config import CaptionBlend, ConditionMix, OptimConfig, PackingConfig, TrainConfig, ValidationConfig

Arm = Literal["original", "short-95", "dense-65", "dense-80", "dense-90", "dense-95"]


def _blend(original: float, **synthetic: float) -> CaptionBlend:
    return CaptionBlend(**{"short": 0.0, "dense": 0.0, "structured": 0.0, **synthetic, "original": original})


#: What is shown in training. The number is the percentage of synthetic captions, the rest is original ones.
ARMS: dict[Arm, CaptionBlend] = {
    "original": _blend(1.0),
    "short-95": _blend(0.05, short=0.95),
    "dense-65": _blend(0.35, dense=0.65),
    "dense-80": _blend(0.2, dense=0.8),
    "dense-90": _blend(0.1, dense=0.9),
    "dense-95": _blend(0.05, dense=0.95),
}


@dataclass(frozen=True)
class CaptionStudyConfig:
    """Train one small model on original, short synthetic and dense synthetic captions, and compare what it draws.

    A study that was stopped goes on where it was when the same command is given again; finished trainings stay.

    Attributes:
        out: folder for everything the study makes.
        arms: what the captions in training are: original ones alone, or synthetic ones, short or dense, in this
            percentage, blended with original ones.
        seeds: trainings of each arm; their spread is the error bar.
        clips: clips in the training set, the same for all.
        steps: optimizer steps of a training.
        scenes: scenes that are asked for whose combination of kind, colour and background training never shows, and
            as many that it does; each in a dense, a short and an original caption.
        at_once: trainings that run side by side, each in a process of its own.
        threads: CPU threads of each.
        model: the transformer.
        sampler: steps and guidance, by default those of `reelmill sample`.

    Examples:
        python -m pipelines.demo.caption_study --out runs/study
    """

    out: str
    arms: tuple[Arm, ...] = tuple(ARMS)
    seeds: int = 3
    clips: int = 3000
    steps: int = 4000
    scenes: int = 64
    at_once: int = 2
    threads: int = 1
    model: SizeConfig = field(
        default_factory=lambda: SizeConfig(preset="tiny", width=128, depth=4, heads=4, ffn=512)
    )
    sampler: SampleConfig = field(default_factory=SampleConfig)


#: What may change when a study goes on: it adds trainings, or runs them in another way.
_FREE = ("out", "arms", "seeds", "at_once", "threads")


def study(config: CaptionStudyConfig) -> None:
    """Make what is missing: training set, reference, trainings; then the results."""
    from pipelines.demo.caption_study_data import ClipShape, make_training_set
    from pipelines.demo.caption_study_results import publish
    from pipelines.progress import Progress

    out = Path(config.out)
    check_settings(config, out)
    with Progress("clips", total=config.clips, unit="clips") as bar:
        about = make_training_set(
            dataset_of(out), clips=config.clips, shape=ClipShape(), on_clips=bar.advance
        )
    if not (out / "reference.json").exists():
        write_json(out / "reference.json", reference(config))
    publish(out, config, about)
    # All arms of the first seed come first: a study that is stopped early still compares.
    wanted = [(arm, seed) for seed in range(config.seeds) for arm in config.arms]
    missing = [(arm, seed) for arm, seed in wanted if not (run_of(out, arm, seed) / "result.json").exists()]
    with Progress("trainings", total=len(wanted), unit="trainings") as bar:
        bar.advance(len(wanted) - len(missing))
        for _ in trained(config, missing):
            bar.advance(1)
            publish(out, config, about)
    print((out / "table.md").read_text())
    print(f"{out}: results.json, table.md, study.png")


def check_settings(config: CaptionStudyConfig, out: Path) -> None:
    """Raise BadInput for what cannot be studied, and if `out` holds a study with other settings."""
    from curate.errors import BadInput
    from pipelines.demo.weights import embedded_name

    for name in ("seeds", "clips", "steps", "scenes", "at_once", "threads"):
        if getattr(config, name) < 1:
            raise BadInput(f"--{name}={getattr(config, name)} must be at least 1.")
    if not config.arms:
        raise BadInput(f"--arms is empty: name some of {', '.join(ARMS)}.")
    settings = {name: value for name, value in asdict(config).items() if name not in _FREE}
    # Other weights write other captions, and read prompts in other features than training did.
    settings["weights"] = {name: embedded_name(name) for name in ("coca", "vae")}
    settings = json.loads(json.dumps(settings))  # as study.json has it, lists for tuples
    told = out / "study.json"
    if told.exists():
        before = json.loads(told.read_text())
        if changed := [
            f"{k} ({before.get(k)} before, now {v})" for k, v in settings.items() if before.get(k) != v
        ]:
            raise BadInput(
                f"{out} holds a study with other settings: {'; '.join(changed)}. Give the same ones to go on "
                "with it, or another --out."
            )
        return
    out.mkdir(parents=True, exist_ok=True)
    write_json(told, settings)


def trained(config: CaptionStudyConfig, missing: list[tuple[Arm, int]]) -> Iterator[tuple[Arm, int]]:
    """Train and examine, `at_once` side by side; yields each when its result.json is written."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed

    if not missing:
        return
    with ProcessPoolExecutor(
        min(config.at_once, len(missing)),
        mp_context=multiprocessing.get_context("spawn"),  # torch's threads do not survive a fork
        initializer=_begin_worker,
        initargs=(config.threads,),
    ) as pool:
        running = {pool.submit(train_and_examine, config, arm, seed): (arm, seed) for arm, seed in missing}
        try:
            for done in as_completed(running):
                done.result()
                yield running[done]
        except BaseException:
            pool.shutdown(cancel_futures=True)  # the first failure ends the study; what is done stays
            raise


def _begin_worker(threads: int) -> None:
    import multiprocessing
    import threading

    import cv2
    import torch

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def leave_with_parent() -> None:
        # Else a study that was killed would go on training beside the one that is started again.
        parent.join()
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()


def train_and_examine(config: CaptionStudyConfig, arm: Arm, seed: int) -> None:
    """One training of one arm from its start or its last checkpoint, its videos, and result.json."""
    from pipelines.demo.caption_study_data import KINDS, ClipShape
    from pipelines.demo.caption_study_judge import drawn, examination, judged
    from pipelines.sample_sheet import write_strip
    from train.loop import train

    run, shape = run_of(Path(config.out), arm, seed), ClipShape()
    began_s = time.monotonic()
    checkpoint = Path(train(train_config(config, arm, seed), log=lambda row: None))
    trained_s = time.monotonic()
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = rows[-max(1, len(rows) // 10) :]
    prompts = examination(config.scenes, shape)
    videos = drawn(checkpoint, prompts, shape, config.sampler)
    shown = [n for n, prompt in enumerate(prompts) if prompt.manner == KINDS[-1]][:8]
    write_strip(run / "samples.png", [videos[n] for n in shown], [prompts[n].text for n in shown])
    result = {
        "arm": arm,
        "seed": seed,
        "loss": sum(row["loss"] for row in last) / len(last),
        "captions_shown": rows[-1]["captions_total"],
        "groups": judged(prompts, videos, shape.fps),
        "train_s": round(trained_s - began_s, 1),  # since it was last resumed
        "examine_s": round(time.monotonic() - trained_s, 1),
    }
    write_json(run / "result.json", result)


def reference(config: CaptionStudyConfig) -> list[dict[str, Any]]:
    """The same examination of the true scenes, once through the VAE: the most that a model could get."""
    from pipelines.demo.caption_study_data import ClipShape
    from pipelines.demo.caption_study_judge import examination, judged, renderings

    shape = ClipShape()
    prompts = examination(config.scenes, shape)
    return judged(prompts, renderings(prompts, shape), shape.fps)


def train_config(config: CaptionStudyConfig, arm: Arm, seed: int) -> TrainConfig:
    """What `reelmill train` would be told; arms differ in `captions` alone."""
    out = Path(config.out)
    return TrainConfig(
        dataset=dataset_of(out),
        out=str(run_of(out, arm, seed)),
        steps=config.steps,
        seed=seed,
        save_every=max(1, config.steps // 4),
        keep=1,
        device="cpu",
        model=config.model,
        # Clips of 48 tokens need much noise before colour and place are open, which is where text decides.
        flow=FlowConfig(base_tokens=8),
        captions=ARMS[arm],
        condition=ConditionMix(text=1, first_frame=0, prefix=0, suffix=0, both_ends=0, random=0),
        packing=PackingConfig(budget=512, window=1),
        optim=OptimConfig(lr=2e-3, warmup=50, schedule="cosine", ema=0.99),
        validation=ValidationConfig(every=0),  # every clip counts, and the judge is another one
    )


def dataset_of(out: Path) -> str:
    return str(out / "dataset")


def run_of(out: Path, arm: Arm, seed: int) -> Path:
    return out / "trainings" / f"{arm}-{seed}"


def main(argv: list[str] | None = None) -> int:
    from pipelines.cli import run_command

    return run_command(CaptionStudyConfig, study, argv, name="caption-study")


if __name__ == "__main__":
    raise SystemExit(main())
