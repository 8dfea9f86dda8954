"""Train the diffusion transformer on the latents of a dataset.

reelmill train --dataset demo-run/dataset --out demo-run/runs/dit --steps 1500
reelmill train --dataset more/dataset --out demo-run/tuned --init demo-run/runs/dit --steps 300
torchrun --nproc_per_node 2 -m pipelines.train --config my.yaml
"""

from __future__ import annotations

from typing import Any

from train.config import TrainConfig


def train(config: TrainConfig) -> None:
    """Train to the last step; a run that was stopped goes on."""
    import os
    from dataclasses import asdict, replace
    from pathlib import Path

    import yaml

    from pipelines.demo.weights import embedded
    from pipelines.progress import Progress
    from train.loop import train as train_dit

    if config.init == "embedded":
        config = replace(config, init=str(embedded("dit")))
    if os.environ.get("RANK", "0") != "0":
        train_dit(config, log=lambda row: None)
        return
    run, last = Path(config.out), dict[str, Any]()
    with Progress("train", total=config.steps, unit="steps") as bar:

        def log(row: dict[str, Any]) -> None:
            if not last:  # by now the configuration has proved usable
                (run / "config.yaml").write_text(yaml.safe_dump(asdict(config), sort_keys=False))
            bar.show(loss=row["loss"], tokens_per_s=round(row["tokens_per_s"]))
            bar.advance(row["step"] - last.get("step", row["resumed_at"]))
            last.update(row)

        folder = train_dit(config, log)
    print(f"{folder}" + (f": loss {last['loss']:.3f}" if last else " was already finished"))
    print(f'Try it: reelmill sample --checkpoint {run} --prompt "..." --out {run}/samples')


def main(argv: list[str] | None = None) -> int:
    from pipelines.cli import run_command

    return run_command(TrainConfig, train, argv, name="train")


if __name__ == "__main__":
    raise SystemExit(main())
