"""The `vllm` backend: captions by vLLM engines inside Ray Data's LLM processor, on GPU nodes.

    for row in run_vllm(config, recipe, dataset, wanted, run_id, RayConfig(), watch):
        ...                                     # caption_id, status, error of a caption that is committed already

Frames are decoded on CPU nodes while the engines work; a row that an engine refuses becomes a row with its error.
Ray starts a dead engine again; should the whole pipeline fall, what is committed stays, and what is missing is
asked for in the next round. Second tries and captions made from others' text are rounds of their own.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from curate.dataset import Dataset
from curate.errors import BadInput
from pipelines.engine import RayConfig, dataset_of, start_ray, with_stage
from pipelines.recaption_stages import COMMITTED, WORK, CommitCaptions, ReadFrames, work_items
from pipelines.recaption_vllm_stages import ANSWERS, MakeRequests, ReadAnswers
from recaption.asking import Job, failure, first_row, may_go_better
from recaption.plan import KeptClip, Recipe
from recaption.rows import Plan
from recaption.table import commit, loops, rows_of, texts
from recaption.vlm.vllm_config import VLLMConfig

if TYPE_CHECKING:
    from curate.stage import Stage
    from pipelines.metrics_watch import Rounds, Watch

log = logging.getLogger(__name__)

#: Place among the stages of the one whose rows go to the engines.
_REQUEST = 1
Processor = Callable[[Any], Any]
Wanted = list[tuple[KeptClip, list[Plan]]]


def build_processor(config: VLLMConfig) -> Processor:
    """Ray Data's LLM processor: requests in, `generated_text` and its like out. Raises BadInput without vLLM."""
    try:
        from ray.data.llm import build_processor as build
        from ray.data.llm import vLLMEngineProcessorConfig
    except ImportError as error:
        raise BadInput(
            f"Ray Data's LLM processor cannot be loaded ({error}): pip install 'ray[llm]'."
        ) from error
    processor = vLLMEngineProcessorConfig(
        model_source=config.model,
        engine_kwargs={
            "tensor_parallel_size": config.tensor_parallel,
            **({"revision": config.revision} if config.revision else {}),
            **config.engine,
        },
        concurrency=config.engines,
        batch_size=config.batch_requests,
        accelerator_type=config.accelerator_type,
        # A row that vLLM refuses must not take the others with it.
        should_continue_on_error=True,
        prepare_multimodal_stage={"enabled": True},
        tokenize_stage=False,
        detokenize_stage=False,
    )
    return build(processor, preprocess=messages_of)


def messages_of(row: dict[str, Any]) -> dict[str, Any]:
    """A row of REQUESTS as the chat messages and sampling settings that vLLM takes."""
    content = [{"type": "image_url", "image_url": {"url": url}} for url in row["pictures"]]
    content.append({"type": "text", "text": row["prompt_text"]})
    return {
        "messages": [{"role": "user", "content": content}],
        "sampling_params": json.loads(row["sampling"]),
    }


def run_vllm(
    config: VLLMConfig,
    recipe: Recipe,
    dataset: Dataset,
    wanted: Wanted,
    run_id: str,
    ray_config: RayConfig,
    watch: Watch,
    *,
    build: Callable[[VLLMConfig], Processor] = build_processor,
) -> Iterator[dict]:
    """Make and commit the wanted captions; yields caption_id, status and error of each as it is finished.

    `watch` is told of every stage but the engines, which are Ray Data's. Raises the last error of Ray if nothing came
    of `config.rounds` rounds in a row.
    """
    start_ray(ray_config)
    left = {plan.caption_id: (clip, plan) for clip, plans in wanted for plan in plans}
    firsts: dict[str, dict] = {}
    fallen = 0
    with watch.rounds(ray=True) as rounds:
        while left:
            ready = {key: pair for key, pair in left.items() if not set(pair[1].parents) & left.keys()}
            asking: list[Stage] = [
                ReadFrames(recipe),
                MakeRequests(config, recipe, dataset.uri, run_id, firsts),
                ReadAnswers(config, recipe, run_id),
                CommitCaptions(dataset.uri, rows_per_part=config.batch_requests),
            ]
            error = None
            try:
                items = _items(dataset, list(ready.values()), firsts)
                _one_round(rounds, asking, items, build(config), len(left))
            except _ray_errors() as raised:
                error = raised
            rows = {row["caption_id"]: row for row in rows_of(dataset, ready.keys(), run_id)}
            made = {
                key: row
                for key, row in rows.items()
                if row["created_at"] != firsts.get(key, {}).get("created_at")
            }
            lost = [Job(plan) for key, (_, plan) in ready.items() if key not in made]
            if error is None and lost:  # nobody must wait for them for ever
                why = "Ray Data's LLM processor returned no row for this caption"
                failed = [first_row(job, why, failure(job, why), run_id) for job in lost]
                commit(dataset, failed)
                rounds.end(_REQUEST, {("captions", "error", ""): len(failed)})
                made |= {row["caption_id"]: row for row in failed}
            for key, row in made.items():
                if key not in firsts and may_go_better(Job(ready[key][1]), row):
                    firsts[key] = row
                else:
                    left.pop(key)
                    yield {name: row[name] for name in COMMITTED.names}
            fallen = fallen + 1 if error is not None and not made else 0
            if error is not None:
                told = str(error).strip().splitlines()[-1]
                log.warning("%d captions are missing, for an engine fell: %s", len(ready) - len(made), told)
                if fallen >= config.rounds:
                    raise error


def _items(dataset: Dataset, ready: list[tuple[KeptClip, Plan]], firsts: Mapping[str, dict]) -> list[dict]:
    """Rows of WORK for these captions."""
    by_clip: dict[str, tuple[KeptClip, list[Plan]]] = {}
    for clip, plan in ready:
        by_clip.setdefault(clip.span.clip_id, (clip, []))[1].append(plan)
    parents = {parent for _, plan in ready for parent in plan.parents}
    before = {key: tries for key, tries in loops(dataset).items() if key not in firsts}
    return work_items(list(by_clip.values()), texts(dataset, parents), before)


def _one_round(
    rounds: Rounds, stages: list[Stage], items: list[dict], processor: Processor, left: int
) -> None:
    """Ask for the captions of `items`; `left`: how many of the whole job are not there yet."""
    clips = [clip for item in items for clip in item["clips"]]
    to_do = {"frames": len(clips), "request": sum(len(clip["wanted"]) for clip in clips)}
    to_do |= {"caption": left, "commit": left}
    with rounds.over(stages, len(items), to_do, gap=_REQUEST + 1) as (watched, seen):
        data = dataset_of(items, WORK)
        for stage in watched[: _REQUEST + 1]:
            data = with_stage(data, stage)
        data = processor(data).select_columns(list(ANSWERS))
        for stage in watched[_REQUEST + 1 :]:
            data = with_stage(data, stage)
        batches = data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        for _ in seen(row for batch in batches for row in batch.to_pylist()):
            pass  # each is committed, and told by the watch


def _ray_errors() -> tuple[type[Exception], ...]:
    from ray.exceptions import RayError

    return (RayError,)
