"""Footage to clips with scores and decisions: probe, split, measure, CLIP, stitch, text, decide.

    reelmill curate --input ~/footage --dataset ~/films
    ray job submit --address http://127.0.0.1:8265 --working-dir . -- \\
        python -m pipelines.curate --input s3://raw/ --dataset s3://films/

Killed anywhere and started again, it goes on where it was: each finished file is committed by itself.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace

from curate.clip_scores import ClipConfig
from curate.decide import DecideConfig
from curate.errors import BadInput
from curate.nsfw import NsfwConfig
from curate.sources import SourceConfig
from curate.stage import Stage
from curate.stitch import StitchConfig
from curate.text_area import TextConfig
from pipelines.engine import Engine, RayConfig


@dataclass(frozen=True)
class CurateConfig:
    """Split footage into shots, score them, and decide which to keep.

    Attributes:
        input: a folder of videos or one file, local or a URI (s3://BUCKET/DIR).
        dataset: the dataset folder or URI to write; a rerun goes on where it stopped.
        sources: how files are read and measured.
        clip: the CLIP model behind embedding, clip_text_sim and aesthetic.
        nsfw: how unsafe content is recognised.
        stitch: which shots that look alike across a cut become one clip again.
        text: how text in the picture is looked for, in the clips that the rules would keep otherwise.
        rules: thresholds of the decisions. Other ones are tried fastest with `reelmill decide`: this command reads
            all files again where other clips would be looked at for text.
        engine: ray streams over a cluster or this machine; local runs in this process. Same tables.
        ray: how to reach or start Ray.
        retry_failed: try files again whose failure was for good; one that may pass is tried again anyway.
    """

    input: str
    dataset: str
    sources: SourceConfig = field(default_factory=SourceConfig)
    clip: ClipConfig = field(default_factory=ClipConfig)
    nsfw: NsfwConfig = field(default_factory=NsfwConfig)
    stitch: StitchConfig = field(default_factory=StitchConfig)
    text: TextConfig = field(default_factory=TextConfig)
    rules: DecideConfig = field(default_factory=DecideConfig)
    engine: Engine = "ray"
    ray: RayConfig = field(default_factory=RayConfig)
    retry_failed: bool = False


def curate(config: CurateConfig) -> None:
    """Run the stages over the files that have no committed result yet, then write the tables."""
    from curate.dataset import Dataset, config_hash
    from curate.funnel import count_funnel
    from curate.probe import find_inputs
    from curate.sources import UNIT_INPUT
    from curate.units import drop_superseded, pending, stamp_of, write_tables
    from pipelines.decide import write_decisions
    from pipelines.engine import run_stages
    from pipelines.metrics_stages import decided, of_curate
    from pipelines.metrics_watch import Watch
    from pipelines.progress import Progress
    from pipelines.status_curate import by_status

    files = find_inputs(config.input)
    dataset = Dataset(config.dataset)
    made_by = config_hash(what_scores_depend_on(config))
    stamps = {file.unit: stamp_of(file, made_by) for file in files}
    todo = pending(dataset, files, made_by, tries=config.sources.tries, retry_failed=config.retry_failed)
    items = [
        {
            "unit": f"{file.unit}-{stamps[file.unit]}-{file.attempt}",
            "uri": file.uri,
            "size_bytes": file.size_bytes,
        }
        for file in todo
    ]
    if len(todo) < len(files):
        print(f"{len(files) - len(todo)} of {len(files)} files are done already")
    before = by_status(dataset, stamps, but={file.unit for file in todo})
    to_do = {"analyse": len(items)}
    with Watch("curate", config, of_curate(config.text.frames), before=before, to_do=to_do) as watch:
        for _ in run_stages(config.engine, items, UNIT_INPUT, stages(config), config.ray, watch):
            pass  # each is committed, and told by the watch
        drop_superseded(dataset, stamps)
        with Progress("curate/decide", unit="clips") as progress:
            write_tables(dataset)
            write_decisions(dataset, config.rules)
            funnel = count_funnel(dataset)
            progress.advance(funnel.clips, kept=funnel.kept, rejected=sum(funnel.rejected.values()))
        watch.decided("decide", "clips", decided(funnel.kept, funnel.rejected))
    print(funnel.text())


def what_scores_depend_on(config: CurateConfig) -> list[object]:
    """Everything that the tables' scores depend on, for the hash of a run.

    Not the rules: other thresholds must not decode anything again. So clips whose text was not read, since they
    failed other rules then, stay without (`score_errors` says so) until their files are curated into a new dataset.
    """
    from curate.analysis import VERSION
    from curate.text_area import VERSION as TEXT_VERSION
    from pipelines.demo.weights import embedded_name

    clip = embedded_name("coca") if config.clip.model == "embedded" else config.clip.model
    reading = [TEXT_VERSION, config.text.model, config.text.frames, config.text.max_side]
    nsfw = config.nsfw
    judged = [nsfw.classifier, nsfw.label] if nsfw.classifier else [nsfw.safe, nsfw.unsafe]
    return [
        VERSION,
        _sources(config).analysis.recipe(),
        [clip, config.clip.aesthetic_weights],
        judged,
        config.stitch.min_similarity,
        reading if config.text.model != "off" else "off",
    ]


def _sources(config: CurateConfig) -> SourceConfig:
    """How sources are measured: stitching compares the pictures at the edges of the shots."""
    analysis = config.sources.analysis
    if config.stitch.min_similarity is not None:
        analysis = replace(analysis, edge_keyframes=True)
    if analysis.threads is None:  # one file after another, or as many at once as there are cores
        analysis = replace(analysis, threads=os.cpu_count() if config.engine == "local" else 1)
    return replace(config.sources, analysis=analysis)


def stages(config: CurateConfig) -> list[Stage]:
    """The pipeline: what happens to a file, in order."""
    from curate.clip_scores import ScoreWithClip, SkipClip
    from curate.nsfw import ClassifyNsfw
    from curate.sources import AnalyseSources
    from curate.stitch import Stitch
    from curate.text_area import ReadText
    from curate.units import CommitUnits

    clip = config.clip
    stitch = config.stitch.min_similarity is not None
    if stitch and clip.model == "off":
        raise BadInput(
            "--stitch.min_similarity compares CLIP embeddings, but --clip.model=off; drop one of them."
        )
    name = clip.model
    if name == "embedded":
        from pipelines.demo.weights import embedded, embedded_name

        # With its content, for embeddings by weights of another release cannot be compared.
        name, clip = embedded_name("coca"), replace(clip, model=str(embedded("coca")))
    prompts = None if config.nsfw.classifier else config.nsfw
    max_s = config.sources.analysis.shots.max_s
    return [
        AnalyseSources(_sources(config)),
        SkipClip(prompts) if clip.model == "off" else ScoreWithClip(clip, name, prompts),
        *([ClassifyNsfw(config.nsfw)] if config.nsfw.classifier else []),
        *([Stitch(config.stitch, max_s)] if stitch else []),
        ReadText(config.text, config.rules),
        CommitUnits(config.dataset),
    ]


def main(argv: list[str] | None = None) -> int:
    from pipelines.cli import run_command

    return run_command(CurateConfig, curate, argv, name="curate")


if __name__ == "__main__":
    raise SystemExit(main())
