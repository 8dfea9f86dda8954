"""Tune a local vision-language model on a dataset's own captions, with LoRA, so that it captions in their manner.

    reelmill tune-captioner --out runs/vlm --data films.reel --tuning.model=hf:Qwen/Qwen2.5-VL-7B-Instruct
    reelmill recaption --dataset more.reel --captioner.backend=transformers \\
        --captioner.transformers.model=runs/vlm/model

A good way to a cheap captioner: a large model or people caption a few thousand clips, choosing and checking leave
the best, and a small model learns from these. It is asked with the same prompts as `reelmill recaption` asks.
Killed at any moment and started again with the same settings, it goes on from its last checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipelines.captioner_examples import DataConfig
from recaption.vlm.tuning_settings import VLMTuning

if TYPE_CHECKING:
    from pipelines.captioner_examples import CaptionedData
    from recaption.prompts import PromptTemplate
    from recaption.vlm.tuning import TuningExample


#: Of every step; what else a row of metrics holds comes from a validation.
STEP_FIGURES = ("step", "caption_loss", "grad_norm", "lr", "elapsed_s")


@dataclass(frozen=True)
class TuneCaptionerConfig:
    """Tune a vision-language model on the captions of a dataset.

    Attributes:
        out: folder of the run; the tuned model lies in OUT/model, the adapter alone in OUT/adapter.
        data: folder or URI of a dataset with captions.
        tuning: the model, and how it is tuned.
        kinds: kinds of caption to learn; every example is of one of them, in turn.
        prompts: folder with prompt files KIND.vN.txt; null takes ours.
        examples: which clips and captions of the dataset are learnt from.
        frames: frames of each clip.
        frame_height: largest height of a frame in pixels; smaller pictures stay as they are.
        validation_clips: unseen clips captioned at each validation, for each kind of caption.
        device: cpu, cuda, or auto (cuda where there is one).

    Examples:
        reelmill tune-captioner --out runs/vlm --data films.reel --tuning.model=hf:Qwen/Qwen2.5-VL-7B-Instruct
    """

    out: str
    data: str
    tuning: VLMTuning = field(default_factory=VLMTuning)
    kinds: tuple[str, ...] = ("short", "dense")
    prompts: str | None = None
    examples: DataConfig = field(default_factory=DataConfig)
    frames: int = 8
    frame_height: int = 480
    validation_clips: int = 50
    device: Literal["auto", "cpu", "cuda"] = "auto"


def tune_captioner(config: TuneCaptionerConfig) -> None:
    """Tune, validate, and print where the model lies and what it gets right. Raises BadInput."""
    from dataclasses import asdict

    import torch

    from curate.dataset import config_hash
    from pipelines.captioner_clips import Look
    from pipelines.captioner_examples import CaptionedData
    from pipelines.progress import Progress
    from recaption.prompts import newest
    from recaption.vlm.tuning import tune

    look = Look(config.frames, config.frame_height)
    wanted = dict.fromkeys(config.kinds, 1.0)
    data = CaptionedData(config.data, config.examples, wanted, seed=config.tuning.seed, look=look)
    kinds = sorted(data.kind_shares)
    prompts = {kind: newest(kind, config.prompts) for kind in kinds}
    print(
        f"data   {len(data.learnt)} clips to learn from, {len(data.held_out)} held out ({', '.join(kinds)})"
    )
    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    figures: dict[str, Any] = {}
    with Progress("tune-captioner", total=config.tuning.steps, unit="steps") as progress:

        def log(row: dict[str, Any]) -> None:
            progress.advance(row["step"] - progress.done)
            progress.show(caption=row["caption_loss"])
            figures.update(
                {
                    key: row[key]
                    for key in row
                    if key not in ("step", "caption_loss", "grad_norm", "lr", "elapsed_s")
                }
            )

        model = tune(
            Path(config.out),
            lambda skip: rows(data, prompts, skip),
            config.tuning,
            evaluate=lambda model, processor: validate(model, processor, data, prompts, config),
            log=log,
            device=device,
            data=config_hash([data.identity(), {kind: prompts[kind].text for kind in kinds}, asdict(look)]),
        )
    print(f"model in {model}")
    for name, value in figures.items():
        print(f"  {name:36} {'-' if value is None else f'{value:.4f}'}")


def rows(data: CaptionedData, prompts: dict[str, PromptTemplate], skip: int) -> Iterator[TuningExample]:
    """Rows without end after the first `skip`; a clip shows its kinds in turn, one an epoch."""
    from pipelines.captioner_examples import place_of
    from recaption.vlm.tuning import TuningExample

    kinds = sorted(prompts)
    for number, example in enumerate(data(skip), skip):
        epoch = number // len(data.learnt)
        kind = kinds[(int(place_of(example.name) * len(kinds)) + epoch) % len(kinds)]
        times = data.times(example.name)
        yield TuningExample(example.frames, times, _prompt(prompts[kind], times), example.captions[kind])


def _prompt(template: PromptTemplate, times_s: tuple[float, ...]) -> str:
    # Frames stand at the centres of equal parts, so the clip is as long as the last is from zero, and a half more.
    duration_s = times_s[-1] + times_s[0]
    return template.render(n_frames=len(times_s), duration_s=duration_s).text


def validate(
    model: Any,
    processor: Any,
    data: CaptionedData,
    prompts: dict[str, PromptTemplate],
    config: TuneCaptionerConfig,
) -> dict[str, Any]:
    """Precision and recall over content words, exact match and CIDEr, by kind, on clips held out."""
    from functools import partial

    from recaption.caption_metrics import content_words
    from recaption.captioner import CaptionRequest
    from recaption.coca.validation import figures
    from recaption.vlm.captioner import TransformersCaptioner
    from recaption.vlm.config import TransformersConfig

    unseen = data.validation(config.validation_clips)
    if not unseen:
        return {}
    settings = TransformersConfig(model=config.tuning.model, max_tokens=config.tuning.most_tokens)
    habits = model.generation_config  # which the captioner replaces, and the saved model keeps
    captioner = TransformersCaptioner.of(settings, processor, model)
    read = partial(content_words, vocabulary=frozenset(data.vocabulary()))
    found: dict[str, Any] = {}
    for kind, template in prompts.items():
        requests = [
            CaptionRequest(e.name, kind, e.frames, t, _prompt(template, t))
            for e in unseen
            for t in [data.times(e.name)]
        ]
        said = {result.clip_id: result.text_raw or "" for result in captioner.caption(requests)}
        worth = figures([said[e.name] for e in unseen], [e.captions[kind] for e in unseen], read)
        found |= {f"{kind}_{name}": value for name, value in worth.items()}
    model.generation_config = habits
    return found


def main(argv: list[str] | None = None) -> int:
    from pipelines.cli import run_command

    return run_command(TuneCaptionerConfig, tune_captioner, argv, name="tune-captioner")


if __name__ == "__main__":
    raise SystemExit(main())
