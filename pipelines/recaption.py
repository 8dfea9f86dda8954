"""Captions for the kept clips of a dataset: decode a few frames of each, ask a captioner, write the table.

    reelmill recaption --dataset ~/films                                   # embedded CoCa: the demo's world only
    reelmill recaption --dataset ~/films --captioner.backend=openai \\
        --captioner.openai.base_url=http://127.0.0.1:8000/v1 --captioner.openai.model=Qwen/Qwen2.5-VL-7B-Instruct

    reelmill recaption --dataset ~/films --captioner.backend=transformers \\
        --captioner.transformers.model=hf:Qwen/Qwen2.5-VL-7B-Instruct --captioner.gpus=1

Only captions that are not there yet are made: killed anywhere and started again, it goes on; another prompt or
model adds its own captions and leaves the others. `--retry=failed` asks again for those that failed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal

from pipelines.captioners import (
    WORLD_ONLY,
    CaptionerConfig,
    at_once,
    load_captioner,
    threads,
)
from pipelines.engine import Engine, RayConfig
from pipelines.finish_captions import Trust
from recaption.moments import FrameChoice

if TYPE_CHECKING:
    from collections.abc import Iterator

    from curate.dataset import Dataset
    from curate.stage import Stage
    from pipelines.metrics_watch import Watch
    from recaption.plan import KeptClip, Recipe
    from recaption.rows import Plan

FactsUse = Literal["none", "hint", "suffix", "both"]


@dataclass(frozen=True)
class RecaptionConfig:
    """Write captions for the kept clips.

    Attributes:
        dataset: the dataset folder or URI, curated.
        captioner: who writes them.
        kinds: captions per clip: short (the subject, one sentence), dense (everything seen, a paragraph),
            structured (a JSON object of short fields) and rewrite (the dense one in other words). CoCa writes
            short and dense.
        prompts: folder with prompt files KIND.vN.txt; null takes ours.
        frames: which frames the captioner sees.
        window_s: dense captions of clips longer than this are made in windows and merged to one of kind `merged`;
            null shows every clip whole.
        facts: measured camera, motion and on-screen text go into the prompt (hint), behind the caption (suffix),
            into both, or nowhere (none). CoCa takes no hints.
        lang: the language of the captions, ISO 639-1. Our prompts and the rules that clean by phrases are English:
            for another one bring prompts that ask for it.
        seed: of the sampling, where the captioner samples.
        retry: failed makes those captions again that have no text.
        preview: make captions of this many clips only, spread over the dataset; show them on a page with what the
            whole dataset and the rest take in tokens, time and money. They stay, so nothing is paid twice. Null
            makes them all.
        trust: how captions are compared with what is seen and measured, and which is chosen.
        engine: ray streams over a cluster or this machine; local runs in this process. Same table.
        ray: how to reach or start Ray.
    """

    dataset: str
    captioner: CaptionerConfig = field(default_factory=CaptionerConfig)
    kinds: tuple[str, ...] = ("short", "dense")
    prompts: str | None = None
    frames: FrameChoice = field(default_factory=FrameChoice)
    window_s: float | None = None
    facts: FactsUse = "hint"
    lang: str = "en"
    seed: int = 0
    retry: Literal["none", "failed"] = "none"
    preview: int | None = None
    trust: Trust = field(default_factory=Trust)
    engine: Engine = "ray"
    ray: RayConfig = field(default_factory=RayConfig)

    def __post_init__(self) -> None:
        from curate.errors import BadInput

        if self.window_s is not None and not self.window_s > 0:
            raise BadInput(
                f"--window_s={self.window_s} must be above 0, in seconds; null shows every clip whole."
            )


def recaption(config: RecaptionConfig) -> int:
    """Make the captions that are missing, then finish the table. Returns 1 if every one of them failed."""
    from collections import Counter

    from curate.dataset import Dataset
    from curate.errors import BadInput
    from pipelines.finish_captions import finish_captions
    from pipelines.metrics_stages import of_recaption
    from pipelines.metrics_watch import Watch
    from pipelines.progress import Progress
    from pipelines.recaption_preview import spread
    from pipelines.recaption_recipe import make_recipe
    from recaption.plan import kept_clips
    from recaption.reading import USABLE
    from recaption.rows import sidecar_row
    from recaption.table import commit, known

    if config.preview is not None and config.preview < 1:
        raise BadInput(f"--preview={config.preview} must be at least 1, or be left out.")
    dataset = Dataset(config.dataset)
    clips = kept_clips(dataset)
    recipe = make_recipe(config)
    run_id = new_run_id(config)
    have = known(dataset)
    plans = [(clip, recipe.plans(clip)) for clip in clips]
    current = {plan.caption_id for _, planned in plans for plan in planned}
    done = {caption_id for caption_id, status in have.items() if config.retry != "failed" or status in USABLE}
    missing = [(clip, [p for p in planned if p.caption_id not in done]) for clip, planned in plans]
    shown = spread(clips, config.preview) if config.preview else clips
    shown_ids = {clip.span.clip_id for clip in shown}
    wanted = [(clip, todo) for clip, todo in missing if todo and clip.span.clip_id in shown_ids]
    total = sum(len(todo) for _, todo in wanted)

    originals = [sidecar_row(clip.span, clip.sidecar, run_id=run_id) for clip in clips if clip.sidecar]
    new = [row for row in originals if row["caption_id"] not in have]
    for place in range(0, len(new), 16_000):
        commit(dataset, new[place : place + 16_000])

    counts: dict[str, int] = {}
    first_error = None
    current |= {row["caption_id"] for row in originals}
    to_do = {"frames": len(wanted), "caption": total, "commit": total}
    before = Counter(have[caption_id] for caption_id in done & current)
    with Watch("recaption", config, of_recaption(), before=before, to_do=to_do) as watch:
        for row in make_captions(config, recipe, dataset, wanted, run_id, watch):
            counts[row["status"]] = counts.get(row["status"], 0) + 1
            first_error = first_error or row["error"]
        with Progress("recaption/finish", unit="captions") as progress:
            told = finish_captions(dataset, current, config.trust, engine=config.engine, ray=config.ray)
            chosen = dataset.read("captions", ["chosen"])["chosen"].to_pylist()
            progress.advance(len(chosen), chosen=chosen.count(True))

    usable = sum(counts.get(status, 0) for status in USABLE)
    there = sum(plan.caption_id in done for clip, planned in plans for plan in planned)
    print(
        f"captions {usable} made + {total - usable} failed + {there} there already, "
        f"{len(originals)} from sidecars, for {len(shown)} of {len(clips)} kept clips"
    )
    if total > usable:
        print(f"the first failure: {first_error or counts}; ask again with --retry=failed")
    print(told)
    if WORLD_ONLY in recipe.identity.flags:
        print(
            "The embedded captioner knows only the demo's world (flag world_captioner); for other footage give "
            "--captioner.backend=openai, or a folder as --captioner.coca.model."
        )
    if config.preview:
        show_preview(config, dataset, shown, plans, missing)
    return int(total > 0 and usable == 0)


def show_preview(
    config: RecaptionConfig,
    dataset: Dataset,
    shown: list[KeptClip],
    plans: list[tuple[KeptClip, list[Plan]]],
    missing: list[tuple[KeptClip, list[Plan]]],
) -> None:
    """Write the page with the captions of `shown`, and print what all captions take and what those left take."""
    from collections import Counter

    from pipelines.recaption_bill import estimate, tell
    from pipelines.recaption_preview import write_page

    shown_ids = {clip.span.clip_id for clip in shown}
    rest = [plan for clip, todo in missing if clip.span.clip_id not in shown_ids for plan in todo]
    whole = [plan for _, planned in plans for plan in planned]
    # Rows of other prompts, models and samplings say nothing about what these captions take.
    asked = {plan.caption_id for plan in whole}
    columns = ["caption_id", "kind", "status", "tokens_in", "tokens_out", "latency_ms"]
    rows = [row for row in dataset.read("captions", columns).to_pylist() if row["caption_id"] in asked]
    lines = tell(
        estimate(
            rows,
            Counter(plan.kind for plan in whole),
            Counter(plan.kind for plan in rest),
            at_once(config.captioner),
            prices(config.captioner),
        )
    )
    for line in lines:
        print(f"  {line}")
    print(
        f"look at {write_page(dataset, shown, lines)}; for the rest give the same command without --preview"
    )


def prices(captioner: CaptionerConfig) -> tuple[float, float] | None:
    """US dollars per million tokens in and out, where the configuration gives them."""
    budget = captioner.openai.budget
    price_in, price_out = budget.usd_per_million_in, budget.usd_per_million_out
    if captioner.backend != "openai" or price_in is None or price_out is None:
        return None
    return price_in, price_out


def make_captions(
    config: RecaptionConfig,
    recipe: Recipe,
    dataset: Dataset,
    wanted: list[tuple[KeptClip, list[Plan]]],
    run_id: str,
    watch: Watch,
) -> Iterator[dict]:
    """Make and commit the wanted captions; yields caption_id, status and error of each as it is finished."""
    if config.captioner.backend == "vllm":
        from pipelines.recaption_vllm import run_vllm

        return run_vllm(config.captioner.vllm, recipe, dataset, wanted, run_id, config.ray, watch)
    from pipelines.engine import run_stages
    from pipelines.recaption_stages import WORK, work_items
    from recaption.table import loops, texts

    parents = {parent for _, missing in wanted for plan in missing for parent in plan.parents}
    items = work_items(wanted, texts(dataset, parents), loops(dataset))
    return run_stages(config.engine, items, WORK, stages(config, recipe, run_id), config.ray, watch)


def stages(config: RecaptionConfig, recipe: Recipe, run_id: str) -> list[Stage]:
    """The pipeline: what happens to the clips of a source, in order."""
    from pipelines.recaption_stages import CommitCaptions, ReadFrames, WriteCaptions

    captioner = config.captioner
    return [
        ReadFrames(recipe),
        WriteCaptions(
            partial(load_captioner, captioner),
            recipe,
            run_id,
            gpus=captioner.gpus,
            actors=captioner.actors,
            batch_clips=captioner.batch_clips,
            threads=threads(captioner, len(recipe.prompts)),
        ),
        CommitCaptions(config.dataset, rows_per_part=captioner.batch_clips * len(recipe.prompts)),
    ]


def new_run_id(config: RecaptionConfig) -> str:
    """The time of the start and a hash of the configuration."""
    from datetime import UTC, datetime

    from curate.dataset import config_hash

    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{config_hash(config)[:8]}"


def main(argv: list[str] | None = None) -> int:
    from pipelines.cli import run_command

    return run_command(RecaptionConfig, recaption, argv, name="recaption")


if __name__ == "__main__":
    raise SystemExit(main())
