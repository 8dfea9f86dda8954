"""Train the CoCa captioner: a base, then two fine-tunes of it for short and for descriptive captions.

    reelmill train-captioner --out runs/base --data=films.reel                     # after `recaption` and `shard`
    reelmill train-captioner --out runs/ssc --data=films.reel --stage=ssc --training.start_from=runs/base/model
    reelmill train-captioner --out runs/dsc --data=films.reel --stage=dsc --training.start_from=runs/base/model
    reelmill train-captioner --out /tmp/coca --training.steps=20 --validation_clips=8     # the world, a quick look

The stages are those of DALL-E 3's captioner: short synthetic captions (ssc) name the main subject, descriptive
synthetic captions (dsc) all there is. Without --data the procedural world is learnt. RUN/model is then a folder
for `--captioner.coca.model`, `--clip.model` and open_clip's `local-dir:`. Killed at any moment and started again
with the same settings, it goes on from its last checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from curate.errors import BadInput
from pipelines.captioner_examples import DataConfig
from recaption.coca.settings import CocaTraining, Stage

if TYPE_CHECKING:
    from open_clip import CoCa
    from transformers import PreTrainedTokenizerBase

    from recaption.coca.training import Example

WORLD = "world"
SHOWN = (
    "short_recall",
    "short_cider",
    "dense_recall",
    "dense_cider",
)  # beside the bar; all of them at the end


@dataclass(frozen=True)
class TrainCaptionerConfig:
    """Train the CoCa captioner on the captions of a dataset, or on the procedural world.

    Attributes:
        out: folder of the run; the finished model lies in OUT/model. A run found there goes on.
        stage: base learns every kind of caption. ssc (short synthetic captions, the main subject) and dsc
            (descriptive ones) go on from a base, named by training.start_from, with captions of that kind alone.
        data: folder or URI of a dataset with captions, or `world`, the procedural world.
        examples: which clips and captions of the dataset are learnt from.
        training: how it is trained.
        still_share: of the world: share of single frames, with captions free of motion, among the examples.
        validation_clips: most unseen clips captioned at each validation, for each kind of caption.
        held_out_clips: of the world: as many more of attribute combinations that training never shows; null is
            validation_clips.
        threads: cores for the computation; null takes what the environment says.

    Examples:
        reelmill train-captioner --out runs/base --data films.reel
        reelmill train-captioner --out runs/dsc --data films.reel --stage dsc --training.start_from runs/base/model
    """

    out: str
    stage: Stage = "base"
    data: str = WORLD
    examples: DataConfig = field(default_factory=DataConfig)
    training: CocaTraining = field(default_factory=CocaTraining)
    still_share: float = 0.2
    validation_clips: int = 500
    held_out_clips: int | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Source:
    """Where a training gets what it learns from.

    Attributes:
        examples: examples without end, after the first so many.
        texts: every word of a new vocabulary occurs in them.
        validate: figures of a model on unseen clips.
        identity: changes with the examples.
        kind_shares: of the kinds of caption that there are.
    """

    examples: Callable[[int], Iterator[Example]]
    texts: Callable[[], Iterator[str]]
    validate: Callable[[CoCa, PreTrainedTokenizerBase], Mapping[str, float | None]]
    identity: str
    kind_shares: dict[str, float]


def train_captioner(config: TrainCaptionerConfig) -> None:
    """Train, validate, and print where the model lies and what it gets right. Raises BadInput."""
    from pathlib import Path

    import torch

    from pipelines.progress import Progress
    from recaption.caption_metrics import load_cider
    from recaption.coca import model as coca
    from recaption.coca import training as coca_training
    from recaption.coca.start import settled
    from recaption.coca.tokenizer import build_tokenizer

    if config.threads is not None:
        torch.set_num_threads(config.threads)
    load_cider()  # its absence would show at the first validation only
    training = settled(config.training, config.stage)
    wanted = training.course(config.stage).kind_shares
    source = world(config, wanted) if config.data == WORLD else dataset(config, training, wanted)
    training = replace(training, kind_shares=source.kind_shares)
    if training.start_from is not None:
        tokenizer = coca.load(training.start_from)[1]
    else:
        tokenizer = build_tokenizer(source.texts(), context_length=training.size.context_length)
    figures: dict[str, float | None] = {}
    with Progress(
        f"train-captioner {config.stage}", total=training.course(config.stage).steps, unit="steps"
    ) as progress:

        def log(row: dict[str, Any]) -> None:
            progress.advance(row["step"] - progress.done)
            losses = {"caption": row["caption_loss"], "contrastive": row["contrastive_loss"]}
            progress.show(**{name: loss for name, loss in losses.items() if loss is not None})
            found = {key: row[key] for key in row if key not in coca_training.STEP_FIGURES}
            figures.update(found)
            progress.show(**{key: found[key] for key in SHOWN if key in found})

        coca_training.train(
            Path(config.out),
            tokenizer,
            source.examples,
            training,
            stage=config.stage,
            evaluate=lambda model: source.validate(model, tokenizer),
            log=log,
            data=source.identity,
        )
    print(f"model in {config.out}/model")
    for name, value in figures.items():
        print(f"  {name:36} {'-' if value is None else f'{value:.4f}'}")


def world(config: TrainCaptionerConfig, wanted: dict[str, float]) -> Source:
    """The procedural world; it has every kind of caption."""
    from functools import partial

    from pipelines.train_captioner_world import validate, vocabulary_texts, world_examples

    kinds = tuple(kind for kind in ("short", "dense") if wanted.get(kind, 0) > 0)

    def figures(model: CoCa, tokenizer: PreTrainedTokenizerBase) -> Mapping[str, float | None]:
        return validate(
            model,
            tokenizer=tokenizer,
            kinds=kinds,
            n_clips=config.validation_clips,
            n_held_out=config.held_out_clips,
        )

    return Source(
        partial(world_examples, seed=config.training.seed, still_share=config.still_share),
        vocabulary_texts,
        figures,
        f"world, still_share {config.still_share}",
        wanted,
    )


def dataset(config: TrainCaptionerConfig, training: CocaTraining, wanted: dict[str, float]) -> Source:
    """The captioned clips of a dataset; says how many there are. Raises BadInput if they do not suffice."""
    from functools import cache, partial

    from pipelines.captioner_examples import CaptionedData
    from recaption.caption_metrics import content_words
    from recaption.coca.validation import RECALL_AMONG, figures, recall_at_1, written

    data = CaptionedData(config.data, config.examples, wanted, seed=training.seed)
    absent = [kind for kind, share in wanted.items() if share > 0 and kind not in data.kind_shares]
    if absent and training.kind_shares is not None:
        raise BadInput(
            f"{config.data} has no {' and no '.join(absent)} captions, which --training.kind_shares asks for; leave "
            "that out to learn the kinds that there are."
        )
    kinds = [kind for kind in data.kind_shares if kind != "original"]
    print(
        f"data   {len(data.learnt)} clips to learn from, {len(data.held_out)} held out, {data.n_lacking} without a "
        f"caption of every kind ({', '.join(kinds)})"
    )
    cut = data.cut_share(training.size.context_length)
    if cut > 0:
        print(
            f"       {cut:.1%} of the captions are longer than the {training.size.context_length} tokens of the "
            "model and are cut (--training.size.context_length)"
        )
    unseen = cache(partial(data.validation, config.validation_clips))

    def validate(model: CoCa, tokenizer: PreTrainedTokenizerBase) -> Mapping[str, float | None]:
        clips = [example.frames for example in unseen()]
        found: dict[str, float | None] = {}
        if not clips:
            return found
        read = partial(content_words, vocabulary=tokenizer.get_vocab())
        for kind in kinds:
            references = [example.captions[kind] for example in unseen()]
            worth = figures(written(model, tokenizer, clips, kind), references, read)
            found |= {f"{kind}_{key}": value for key, value in worth.items()}
        some = min(RECALL_AMONG, len(clips))
        texts = [example.captions[kinds[-1]] for example in unseen()[:some]]
        found[f"recall_at_1_of_{some}"] = recall_at_1(model, tokenizer, clips[:some], texts)
        return found

    return Source(data, lambda: iter(data.vocabulary()), validate, data.identity(), data.kind_shares)


def main(argv: list[str] | None = None) -> int:
    from pipelines.cli import run_command

    return run_command(TrainCaptionerConfig, train_captioner, argv, name="train-captioner")


if __name__ == "__main__":
    raise SystemExit(main())
