"""Train the diffusion transformer on the latents of a dataset.

reelmill train --dataset demo-run/dataset --out demo-run/runs/dit --steps 1500
reelmill train --dataset more/dataset --out demo-run/tuned --init demo-run/runs/dit --steps 300
torchrun --nproc_per_node 2 -m pipelines.train --config my.yaml
reelmill train --engine ray --workers 8 --dataset s3://films --out /shared/runs/S --parallel.shard=true
reelmill train --raw --dataset demo-run/dataset --out demo-run/runs/raw --encode.frames.fps=6    # no `reelmill encode`
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from pipelines.engine import RayConfig
from pipelines.train_raw_config import OnTheFly, RawRun
from train.config import TrainConfig

if TYPE_CHECKING:
    from pathlib import Path

    from pipelines.progress import Progress


@dataclass(frozen=True)
class TrainCommand(TrainConfig):
    __doc__ = (TrainConfig.__doc__ or "").replace(
        "        validation: the loss on clips held back.\n",
        """        validation: the loss on clips held back.
        raw: read the video shards instead of latents, and encode on the fly: needs no `reelmill encode`, but runs the
            VAE and the text encoder anew each time a clip is shown.
        encode: with raw, how clips are encoded, as `reelmill encode` is told.
        engine: local trains in this process, or in those that torchrun started; ray places `workers` processes on a
            cluster by Ray Train and starts them again when one dies.
        workers: processes of a training on Ray, each with a GPU where the cluster has any.
        restarts: how often Ray begins anew from the newest checkpoint before it gives up.
        ray: how to reach or start Ray.
""",
    )

    raw: bool = False
    encode: OnTheFly = field(default_factory=OnTheFly)
    engine: Literal["local", "ray"] = "local"
    workers: int = 1
    restarts: int = 3
    ray: RayConfig = field(default_factory=RayConfig)

    def run(self) -> TrainConfig:
        """What the training itself is told, wherever it runs, with the place of weights that ship with the code."""
        from dataclasses import replace

        from model.errors import BadInput
        from pipelines.demo.weights import embedded
        from pipelines.places import absolute

        if not self.raw and self.encode != OnTheFly():
            raise BadInput(
                "--encode.* tells how raw video is encoded: give --raw too, or use `reelmill encode`."
            )
        told = {f.name: getattr(self, f.name) for f in fields(TrainConfig)}
        config = RawRun(**told, encode=self.encode) if self.raw else TrainConfig(**told)
        if config.init is None:
            return config
        return replace(
            config, init=str(embedded("dit")) if config.init == "embedded" else absolute(config.init)
        )


def train(config: TrainConfig) -> None:
    """Train to the last step; a run that was stopped goes on."""
    import os
    from pathlib import Path

    from pipelines.progress import Progress

    command = config if isinstance(config, TrainCommand) else TrainCommand(**vars(config))
    run = command.run()
    if os.environ.get("RANK", "0") != "0":
        train_here(run, lambda row: None)
        return
    last = dict[str, Any]()
    with Progress("train", total=config.steps, unit="steps") as bar:
        log = shown_on(bar, last)
        if command.engine == "ray":
            from pipelines.train_ray import train_on_ray

            place = train_on_ray(
                run, log, workers=command.workers, restarts=command.restarts, config=command.ray
            )
        else:
            place = train_here(run, log)
    out = Path(config.out)
    loss = (
        "was already finished"
        if not last
        else f"loss {last['loss']:.3f}"
        if last["loss"] is not None
        else "no loss"
    )
    print(f"{place}: {loss}")
    if last and last["step"] < config.steps:
        print(
            f"Stopped at step {last['step']} of {config.steps}, as asked: the same command goes on from there."
        )
    print(f'Try it: reelmill sample --checkpoint {config.save_to or out} --prompt "..." --out {out}/samples')


def shown_on(bar: Progress, last: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    """Shows rows of the metrics on a bar, and keeps the last one in `last`."""

    def log(row: dict[str, Any]) -> None:
        shown = {"loss": row["loss"], "tokens_per_s": round(row["tokens_per_s"])}
        if row["mfu"] is not None:
            shown["mfu"] = f"{row['mfu']:.1%}"
        if row.get("validation"):
            levels = [loss for loss in row["validation"].values() if loss is not None]
            shown["validation"] = sum(levels) / len(levels) if levels else None
        if not last:
            bar.total = (bar.total or 0) - row["resumed_at"]  # of this process
        bar.show(**shown)
        bar.advance(row["step"] - last.get("step", row["resumed_at"]))
        last.update(row)

    return log


def train_here(config: TrainConfig, log: Callable[[dict[str, Any]], None]) -> str:
    """This process' part of a training. Returns the place of the last checkpoint."""
    import os
    from dataclasses import asdict, replace
    from pathlib import Path

    import yaml

    from pipelines.demo.weights import embedded
    from train.data import LatentDataset
    from train.loop import train as train_dit

    told, is_told = Path(config.out, "config.yaml"), False
    _check_checkpoints_stay(config, told)
    data = config.data() if isinstance(config, RawRun) else LatentDataset(config.dataset, config.vae_id)
    # Where encode found the VAE, if it told so: samples are shown by it.
    vae = config.validation.vae or data.about.get("vae")
    vae = str(embedded("vae")) if vae == "embedded" else vae
    config = replace(config, validation=replace(config.validation, vae=vae))

    def log_and_tell(row: dict[str, Any]) -> None:
        nonlocal is_told
        if not is_told:  # by now it has proved usable
            is_told = True
            beside = told.with_suffix(".tmp")
            beside.write_text(yaml.safe_dump(_plain(asdict(config)), sort_keys=False))
            os.replace(beside, told)
        log(row)

    return train_dit(config.plain() if isinstance(config, RawRun) else config, log_and_tell, data)


def _check_checkpoints_stay(config: TrainConfig, told: Path) -> None:
    """Raise BadInput where a run would begin anew, since its checkpoints are in another place than is given now."""
    import yaml

    from model.errors import BadInput
    from train.checkpoint import finished
    from train.store import Store

    try:
        before = yaml.safe_load(told.read_text()) if told.is_file() else {}
    except yaml.YAMLError:
        before = {}
    if not isinstance(before, dict):  # somebody else's, or nothing
        return
    was, now = before.get("save_to"), config.save_to
    if "save_to" not in before or was == now or finished(Store(now or f"{config.out}/checkpoints")):
        return
    there = was or f"{config.out}/checkpoints"
    if newest := finished(Store(there))[-1:]:
        raise BadInput(
            f"{config.out} is a run whose checkpoints are in {there}, the newest is {newest[0]}; with "
            f"--save_to={now} it would begin anew. Give the one of before, move them there, or choose another --out."
        )


def _plain(x: Any) -> Any:
    """Tuples as lists, which YAML has."""
    if isinstance(x, dict):
        return {name: _plain(value) for name, value in x.items()}
    return [_plain(value) for value in x] if isinstance(x, tuple | list) else x


def main(argv: list[str] | None = None) -> int:
    from pipelines.cli import run_command

    return run_command(TrainCommand, train, argv, name="train")


if __name__ == "__main__":
    raise SystemExit(main())
