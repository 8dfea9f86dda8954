"""Cut the kept clips and pack them, with their captions, into WebDataset shards.

    reelmill shard --dataset ~/films --pack.target_mib=256

Writes shards/BUCKET/NAME.tar (KEY.mp4, KEY.json) and shards/index.parquet. Running it again after new
captions or other decisions cuts only clips that are not cut yet, those that failed before among them, and
writes only the shards that change.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from curate.cut import CutConfig
from curate.shards import ShardConfig
from pipelines.engine import Engine, RayConfig

if TYPE_CHECKING:
    from curate.stage import Stage


@dataclass(frozen=True)
class ShardCommand:
    """Cut kept clips out of their sources and pack them into WebDataset shards.

    Attributes:
        dataset: the dataset folder or URI.
        cut: how clips are encoded.
        pack: how they are packed.
        engine: ray streams over a cluster or this machine; local runs in this process. Same shards.
        ray: how to reach or start Ray.
    """

    dataset: str
    cut: CutConfig = field(default_factory=CutConfig)
    pack: ShardConfig = field(default_factory=ShardConfig)
    engine: Engine = "ray"
    ray: RayConfig = field(default_factory=RayConfig)


def shard(config: ShardCommand) -> None:
    """Cut what is not cut yet, pack what is not packed yet, then write the index."""
    from curate.dataset import Dataset
    from curate.shard_plan import (
        CutStore,
        cut_units,
        drop_stale,
        kept_clips,
        pack_units,
        packed,
        write_index,
    )
    from curate.shard_stages import CUT_INPUT, PACK_INPUT, CutClips, PackShards
    from pipelines.engine import run_stages
    from pipelines.metrics_stages import of_shard
    from pipelines.metrics_watch import Watch

    dataset = Dataset(config.dataset)
    kept = kept_clips(dataset)
    units = cut_units(kept, config.cut)

    encoded_s, n_decoded = 0.0, 0
    todo = CutStore(dataset).missing(units)
    with Watch("shard", config, of_shard(), to_do={"cut": len(todo)}) as watch:
        stages: list[Stage] = [CutClips(config.dataset, config.cut)]
        for row in run_stages(config.engine, todo, CUT_INPUT, stages, config.ray, watch):
            encoded_s += row["encoded_s"]
            n_decoded += row["n_decoded"]

        store = CutStore(dataset)
        cuts = [cut for unit in units for cut in store.facts(unit).values()]
        packs = pack_units(kept, cuts, config.pack)
        missing = [pack for pack, done in zip(packs, packed(dataset, packs), strict=True) if not done]
        stages = [PackShards(config.dataset)]
        for _ in run_stages(config.engine, missing, PACK_INPUT, stages, config.ray, watch):
            pass  # each is committed, and told by the watch

        write_index(dataset, packs, cuts)
        store.drop()
        drop_stale(dataset, packs)
    failed = sum(cut["error"] is not None for cut in cuts)
    copied = sum(cut["copied"] is True for cut in cuts)
    silent = sum(cut["audio_error"] is not None for cut in cuts)
    print(f"shards {len(cuts) - failed} clips in {len(packs)} shards + {failed} failed")
    print(
        f"cut    {encoded_s:.1f} s encoded now, {kept.seconds:.1f} s kept; {n_decoded} frames decoded; "
        f"{copied} clips copied" + (f"; {silent} without or with partial audio" if silent else "")
    )
    if failed:
        print(
            f"       {failed} failed clips: see `error` in the shards table; running again tries them again"
        )


def main(argv: list[str] | None = None) -> int:
    from pipelines.cli import run_command

    return run_command(ShardCommand, shard, argv, name="shard")


if __name__ == "__main__":
    raise SystemExit(main())
